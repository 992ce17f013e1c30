"""A figure shows what was tested: the cells of the comparison, in its order and colours, and no p-value of anything else."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

import sc_lmm as sl
from sc_lmm._captions import format_p
from sc_lmm.pl._style import DOWN, UP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes

mpl.use("agg")

pytestmark = [
    # of anndata and scanpy with pandas 3
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame"),
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated"),
    pytest.mark.filterwarnings("ignore:The 'future.infer_string' option is deprecated"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default"),
    # what the design report cautions of is not the matter here
    pytest.mark.filterwarnings("ignore::sc_lmm.LmmWarning"),
]

DONORS, CELLS = 12, 6  # cells of each donor and type: the model's coefficients are differences of donors' means
ARMS, TYPES = ["ctl", "low", "high"], ["B", "NK", "T"]


@cache
def cohort() -> ad.AnnData:
    """Twelve donors of three arms with as many cells of each type; the effect of an arm differs between types."""
    rng = np.random.default_rng(5)
    donor, kind = (grid.ravel() for grid in np.mgrid[:DONORS, : 3 * CELLS])
    obs = pd.DataFrame(
        {
            "donor": [f"d{j:02d}" for j in donor],
            "arm": pd.Categorical(np.array(ARMS)[donor % 3], ARMS),
            "type": np.array(TYPES)[kind % 3],
            "age": 50.0 + donor,
            "code": 1 + donor % 3,
            "dose": np.array([0.5, 1.5, 2.5])[donor % 3],
            "depth": rng.normal(8, 1, donor.size) + donor / 4,
            "treated": (kind // 3) % 2 == 0,
        },
        index=[f"cell{k}" for k in range(donor.size)],
    )
    obs["sample_id"] = obs["donor"] + "_" + obs["treated"].astype(str)
    effect = np.array([[0.0, 1.0, -1.0], [0.0, -1.5, 1.5], [0.0, 0.4, 2.0]])[kind % 3, donor % 3]
    Y = 5 + rng.normal(0, 0.3, (DONORS, 4))[donor] + effect[:, None] + rng.normal(0, 1, (donor.size, 4))
    Y[:, 1] += np.where(obs["treated"], 0.8, 0.0) + 0.5 * obs["depth"]
    adata = ad.AnnData(np.abs(Y), obs=obs, var=pd.DataFrame(index=["g0", "g1", "g2", "g3"]))
    adata.layers["other"] = adata.X.copy()
    return adata


@pytest.fixture
def adata() -> ad.AnnData:
    return cohort().copy()


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def run(adata: ad.AnnData, formula: str, test: Any, **choices: Any) -> None:
    sl.tl.lmm_de(adata, f"~ {formula} + (1 | donor)", test, method="between-within", **choices)  # the fastest


def draw(adata: ad.AnnData, gene: str = "g0", **choices: Any) -> Axes:
    (ax,) = sl.pl.donor_means(adata, gene, show=False, **choices)
    return ax


def ticks(ax: Axes) -> list[str]:
    return [label.get_text().splitlines()[0] for label in ax.get_xticklabels()]


def caption(ax: Axes) -> str:
    return " ".join(ax.texts[0].get_text().split("\n"))


def scatters(ax: Axes) -> list[PathCollection]:
    return [collection for collection in ax.collections if isinstance(collection, PathCollection)]


def heights(ax: Axes) -> list[list[float]]:
    """What is drawn at each place, left to right."""
    return [sorted(scatter.get_offsets()[:, 1]) for scatter in scatters(ax)]


def means(adata: ad.AnnData, gene: str = "g0", by: str = "donor", **where: Any) -> list[float]:
    """The means of donors in a condition, by hand."""
    here = np.logical_and.reduce([adata.obs[column].astype(str) == str(v) for column, v in where.items()])
    values = pd.Series(adata[here, gene].X.ravel()).groupby(adata.obs[by][here].to_numpy()).mean()
    return sorted(values)


# What is tested -> formula, test, comparison, and the conditions from left to right.
SHOWN: dict[str, tuple[str, Any, str | None, list[dict[str, Any]]]] = {
    "a level": ("arm", "arm", "high", [{"arm": "ctl"}, {"arm": "high"}]),
    "all levels": ("arm", "arm", None, [{"arm": arm} for arm in ARMS]),
    "a contrast": ("arm", "cond(arm='low') - cond(arm='high')", None, [{"arm": "high"}, {"arm": "low"}]),
    "a contrast in a type": (
        "arm * type",
        "cond(arm='low', type='NK') - cond(arm='high', type='NK')",
        None,
        [{"arm": "high", "type": "NK"}, {"arm": "low", "type": "NK"}],
    ),
    "a contrast of types": (
        "arm * type",
        "cond(arm='low', type='B') - cond(arm='low', type='T')",
        None,
        [{"arm": "low", "type": "T"}, {"arm": "low", "type": "B"}],
    ),
    "an arm in the reference type": ("arm * type", "arm", "low", [{"arm": a, "type": "B"} for a in ("ctl", "low")]),
    "all arms in the reference type": ("arm * type", "arm", None, [{"arm": a, "type": "B"} for a in ARMS]),
    "a type in the reference arm": ("arm * type", "type", "T", [{"arm": "ctl", "type": t} for t in ("B", "T")]),
    "an arm within a type": (
        "type + type:arm",
        "type:arm",
        "type[NK]:arm[T.low]",
        [{"arm": a, "type": "NK"} for a in ("ctl", "low")],
    ),
    "a factor by C()": (
        "C(arm, Treatment('high'))",
        "C(arm, Treatment('high'))",
        "low",
        [{"arm": a} for a in ("high", "low")],
    ),
    "numbers that are codes": ("C(code)", "cond(code=3) - cond(code=2.0)", None, [{"code": 2}, {"code": 3}]),
    "fractions that are codes": ("C(dose)", "C(dose)", "2.5", [{"dose": 0.5}, {"dose": 2.5}]),
    "truth values": ("treated", "treated", None, [{"treated": False}, {"treated": True}]),
}
each_shown = pytest.mark.parametrize("name", SHOWN)


@each_shown
def test_points_are_the_cells_compared_what_is_subtracted_first(adata: ad.AnnData, name: str) -> None:
    formula, test, comparison, conditions = SHOWN[name]
    run(adata, formula, test)
    ax = draw(adata, comparison=comparison)
    np.testing.assert_allclose(heights(ax), [means(adata, **where) for where in conditions], rtol=1e-6)
    assert [to_hex(s.get_facecolor()[0]) for s in scatters(ax)][:2] == [DOWN.lower(), UP.lower()]


@each_shown
def test_the_bars_differ_by_the_coefficient(adata: ad.AnnData, name: str) -> None:
    """Which in this balanced cohort is a difference between averages of donors' means, in direction and in size."""
    formula, test, comparison, conditions = SHOWN[name]
    run(adata, formula, test)
    result = sl.get.lmm_de_df(adata, comparison, sort=False).iloc[0]
    ax = draw(adata, comparison=comparison)
    assert f"p = {format_p(result['log10_pvals'])}," in caption(ax)
    if len(conditions) == 2:
        left, right = map(np.mean, heights(ax))
        assert right - left == pytest.approx(result["coef"], rel=1e-6)


@each_shown
def test_it_is_the_same_after_a_file(adata: ad.AnnData, name: str, tmp_path: Path) -> None:
    formula, test, comparison, _ = SHOWN[name]
    run(adata, formula, test)
    before = draw(adata, comparison=comparison)
    adata.write_h5ad(tmp_path / "run.h5ad")
    adata.write_zarr(tmp_path / "run.zarr")
    for back in (ad.read_h5ad(tmp_path / "run.h5ad"), ad.read_zarr(tmp_path / "run.zarr")):
        after = draw(back, comparison=comparison)
        assert (ticks(after), caption(after)) == (ticks(before), caption(before))
        np.testing.assert_allclose(heights(after), heights(before), rtol=1e-6)


def test_what_is_stored_is_one_text(adata: ad.AnnData) -> None:
    run(adata, "arm * type", "arm")
    stored = adata.uns["lmm_de"]["params"]["compared"]
    assert isinstance(stored, str)
    assert json.loads(stored)["comparisons"]["low"]["unnamed"] == ["type"]


def test_the_place_is_named(adata: ad.AnnData) -> None:
    run(adata, "arm * type", "arm")
    assert caption(draw(adata, comparison="low")).endswith("in B")
    run(adata, "arm + type", "arm")
    assert "in B" not in caption(draw(adata, comparison="low"))


def test_a_factor_by_C_has_its_column_for_scanpy(adata: ad.AnnData) -> None:
    run(adata, "C(arm, Treatment('high')) + type", "C(arm, Treatment('high'))")
    params = sl.get.lmm_de_params(adata)
    assert (params["groupby"], params["reference"]) == ("arm", "high")
    run(adata, "C(arm, Sum)", "C(arm, Sum)")  # whose coefficients compare with an average
    assert sl.get.lmm_de_params(adata)["groupby"] == "C(arm, Sum)"


# --- where the p-value would not be of the points


def test_a_weighted_contrast_has_no_p_value(adata: ad.AnnData) -> None:
    run(adata, "arm", "0.5 * cond(arm='low') + 0.5 * cond(arm='high') - cond(arm='ctl')")
    ax = draw(adata)
    assert ticks(ax) == ["ctl", "low", "high"]
    assert caption(ax) == "the test weighs these -1, +0.5, +0.5"


def test_an_interaction_shows_all_four_conditions(adata: ad.AnnData) -> None:
    run(adata, "arm * type", "arm:type")
    ax = draw(adata, comparison="arm[T.low]:type[T.T]")
    assert [len(h) for h in heights(ax)] == [4, 4, 4, 4]
    ctl_b, ctl_t, low_b, low_t = map(np.mean, heights(ax))
    coef = sl.get.lmm_de_df(adata, "arm[T.low]:type[T.T]", sort=False)["coef"][0]
    assert (low_t - low_b) - (ctl_t - ctl_b) == pytest.approx(coef, rel=1e-6)
    assert "difference between the two differences" in caption(ax)
    assert "p =" not in caption(ax)


def test_a_test_at_zero_of_a_number_has_no_p_value(adata: ad.AnnData) -> None:
    run(adata, "treated * age", "treated")
    assert caption(draw(adata)) == "at age = 0 which the points do not show"


def test_another_column_has_no_p_value(adata: ad.AnnData) -> None:
    run(adata, "arm * type", "cond(arm='low', type='T') - cond(arm='ctl', type='T')")
    for column in ("type", "treated", "depth", "arm"):
        found = caption(draw(adata, groupby=column))
        assert found == "the test is of low against ctl in T"


def test_the_tested_column_by_its_name_is_the_test(adata: ad.AnnData) -> None:
    run(adata, "arm", "arm")
    assert "p = " in caption(draw(adata, groupby="arm"))
    assert "p = " not in caption(draw(adata, comparison="low", groupby="arm"))  # which shows all three
    run(adata, "age", "age")
    assert "p = " in caption(draw(adata, groupby="age"))


def test_another_layer_has_no_p_value(adata: ad.AnnData) -> None:
    run(adata, "arm", "arm")
    assert caption(draw(adata, layer="other")) == "the test is not of layer other"
    run(adata, "arm", "arm", layer="other")
    assert "p = " in caption(draw(adata, layer="other"))


@pytest.mark.parametrize("test", [["arm", "type"], "log(depth)"])
def test_what_cannot_stand_side_by_side_is_refused_with_a_way_out(adata: ad.AnnData, test: Any) -> None:
    run(adata, "arm + type + log(depth)", test)
    with pytest.raises(ValueError, match="no conditions that could stand side by side.*groupby="):
        draw(adata)
    assert "p = " not in caption(draw(adata, groupby="arm"))


def test_a_joint_interaction_names_its_parts(adata: ad.AnnData) -> None:
    run(adata, "arm * type", "arm:type")
    with pytest.raises(ValueError, match=r"Choose one of 'arm\[T.low\]:type\[T.NK\]'"):
        draw(adata)


def test_a_column_that_is_gone_is_named(adata: ad.AnnData) -> None:
    run(adata, "arm * type", "arm")
    del adata.obs["type"]
    with pytest.raises(KeyError, match="'type', which was compared, is not a column"):
        draw(adata)


def test_an_adjusted_effect_of_the_other_sign_is_told(adata: ad.AnnData) -> None:
    """Donors of the high arm have deeper cells, and depth raises g1: what is seen is depth."""
    adata.obs["depth"] += 6.0 * (adata.obs["arm"] == "high") - 6.0 * (adata.obs["arm"] == "ctl")
    adata.X[:, 1] = np.abs(adata.obs["depth"] - 2.0 * (adata.obs["arm"] == "high") + adata.X[:, 0] / 10)
    run(adata, "depth + arm", "arm")
    coef = sl.get.lmm_de_df(adata, "high", sort=False)["coef"][1]
    ax = draw(adata, "g1", comparison="high")
    left, right = map(np.mean, heights(ax))
    assert coef < 0 < right - left
    assert caption(ax).endswith("lower in high, adjusted")


# --- which cells


def test_cells_that_the_model_left_out_are_not_drawn(adata: ad.AnnData) -> None:
    adata.obs.loc[adata.obs["donor"] == "d01", "depth"] = np.nan
    run(adata, "depth + arm", "arm")
    assert [len(h) for h in heights(draw(adata, comparison="low"))] == [4, 3]
    assert [len(h) for h in heights(draw(adata, groupby="type"))] == [11, 11, 11]


def test_a_number_that_interacts_is_shown_where_it_was_tested(adata: ad.AnnData) -> None:
    run(adata, "age * treated", "age")
    ax = draw(adata)
    np.testing.assert_allclose(sum(heights(ax), []), means(adata, treated=False), rtol=1e-6)
    assert caption(ax).endswith("in treated False")


def test_a_number_of_cells_has_its_slope_within_each_donor(adata: ad.AnnData) -> None:
    run(adata, "depth", "depth")
    ax = draw(adata, "g1")
    coef = sl.get.lmm_de_df(adata, sort=False)["coef"][1]
    slopes = [(np.diff(line.get_ydata()) / np.diff(line.get_xdata())).item() for line in ax.lines]
    np.testing.assert_allclose(slopes, np.full(DONORS, coef), rtol=1e-6)
    assert "p = " in caption(ax)


def test_a_contrast_of_a_number_has_the_slope_of_one(adata: ad.AnnData) -> None:
    run(adata, "age", "cond(age=60) - cond(age=50)")
    (line,) = draw(adata).lines
    coef = sl.get.lmm_de_df(adata, sort=False)["coef"][0]
    assert (np.diff(line.get_ydata()) / np.diff(line.get_xdata())).item() == pytest.approx(coef / 10)


# --- lines between points


def test_samples_of_a_donor_in_the_formula_are_joined(adata: ad.AnnData) -> None:
    sl.tl.lmm_de(adata, "~ donor + treated + (1 | sample_id)", "treated")
    ax = draw(adata)
    np.testing.assert_allclose(heights(ax)[0], means(adata, by="sample_id", treated=False), rtol=1e-6)
    lines = sorted(tuple(line.get_ydata()) for line in ax.lines)
    expected = sorted(
        (means(adata, donor=f"d{j:02d}", treated=False)[0], means(adata, donor=f"d{j:02d}", treated=True)[0])
        for j in range(DONORS)
    )
    np.testing.assert_allclose(lines, expected, rtol=1e-6)
    assert ax.get_xticklabels()[0].get_text() == "False\n12 samples"


def test_samples_are_not_joined_by_a_factor_that_holds_several(adata: ad.AnnData) -> None:
    adata.obs["batch"] = np.where(adata.obs["donor"] < "d06", "x", "y")
    run(adata, "batch + arm", "arm")
    assert len(draw(adata, comparison="low").lines) == 0


def test_one_point_is_counted_as_one(adata: ad.AnnData) -> None:
    few = adata[~adata.obs["donor"].isin(["d04", "d07", "d10"])].copy()
    sl.tl.lmm_de(few, "~ age + (1 | donor)", "age")
    assert draw(few, groupby="arm").get_xticklabels()[1].get_text() == "low\n1 donor"


# --- the other figures


def test_dots_are_of_the_cells_compared(adata: ad.AnnData) -> None:
    adata.X[adata.obs["type"] == "NK", :2] = 0.0
    run(adata, "arm * type", "arm", reference={"type": "T"})
    plot = sl.pl.dotplot(adata, n_genes=4, return_fig=True, values_to_plot="coef")
    assert list(plot.dot_color_df.index) == ARMS
    assert (plot.dot_size_df == 1).all(axis=None)
    assert plot.fig_title == "in T"
    for level in ("low", "high"):
        table = sl.get.lmm_de_df(adata, level, sort=False).set_index("names")["coef"]
        np.testing.assert_allclose(plot.dot_color_df.loc[level], table[plot.dot_color_df.columns])


def test_dots_of_contrasts_with_one_reference(adata: ad.AnnData) -> None:
    contrasts = {"more": "cond(arm='high') - cond(arm='low')", "none": "cond(arm='ctl') - cond(arm='low')"}
    run(adata, "arm", contrasts)
    plot = sl.pl.dotplot(adata, return_fig=True, values_to_plot="coef")
    assert list(plot.dot_color_df.index) == ["low", "high", "ctl"]
    assert (plot.dot_color_df.loc["low"] == 0).all()


@pytest.mark.parametrize("test", ["arm:type", "depth", ["arm", "type"]])
def test_dots_of_anything_else_are_refused(adata: ad.AnnData, test: Any) -> None:
    run(adata, "arm * type + depth", test)
    with pytest.raises(ValueError, match="does not compare the levels of a factor"):
        sl.pl.dotplot(adata, show=False)


@pytest.mark.parametrize(
    ("formula", "test", "comparison", "words"),
    [
        ("arm * type", "cond(arm='low', type='T') - cond(arm='ctl', type='T')", None, "low against ctl in T"),
        ("arm * type", "arm", "low", "low against ctl in B"),
        ("treated * depth", "treated", None, "True against False at depth = 0"),
        ("treated * depth", "depth", None, "per unit of depth in treated False"),
        ("depth", "cond(depth=12) - cond(depth=2)", None, "per 10 of depth"),
        (
            "arm * treated",
            "arm:treated",
            "arm[T.low]:treated[T.True]",
            "low against ctl in True, less the same in False",
        ),
    ],
)
def test_volcano_says_what_was_compared(
    adata: ad.AnnData, formula: str, test: Any, comparison: str | None, words: str
) -> None:
    run(adata, formula, test)
    label = sl.pl.volcano(adata, comparison, show=False).get_xlabel()
    assert words in " ".join(label.split("\n"))
