"""Power against what nobody here wrote (statsmodels, cells drawn one by one), and the identities it has to obey."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt
from scipy import stats as distributions
from statsmodels.stats.power import TTestIndPower

import sc_lmm as sl
from sc_lmm._design import build_design
from sc_lmm._design.hypothesis import hypotheses_of
from sc_lmm._errors import DesignError
from sc_lmm._inference.power import balanced_power, balanced_statistics, cohorts, known_power

if TYPE_CHECKING:
    from numpy.typing import NDArray

mpl.use("agg")

# cautions have tests of their own
pytestmark = pytest.mark.filterwarnings("ignore::sc_lmm._errors.LmmWarning")

FORMULA = "~ sequencing_saturation + age + batch + diagnosis + (1 | sample_id)"
N_GENES = 4_000


@cache
def pilot() -> AnnData:
    """12 donors of unequal size with covariates."""
    return sl.datasets.brain_cohort(n_donors=12, n_cells=600, n_genes=5, seed=3)


@cache
def pilot_fit() -> sl.tl._lmm_fit.LmmFit:
    return sl.tl.lmm_fit(pilot(), FORMULA, show_progress=False)


def two_groups(n_donors: int, n_cells: int, *, paired: bool) -> pd.DataFrame:
    donor = np.repeat(np.arange(n_donors), n_cells)
    second = np.arange(donor.size) % 2 == 1 if paired else donor >= n_donors // 2
    obs = {"sample_id": [f"s{j:02d}" for j in donor], "diagnosis": np.where(second, "b", "a")}
    return pd.DataFrame(obs, index=[str(c) for c in range(donor.size)])


def fit_of_cells(
    obs: pd.DataFrame, formula: str, column: NDArray[np.float64], icc: Any, seed: int = 8, mean: Any = 9
) -> Any:
    """Fit of genes of which every cell is drawn and read; `icc` may differ from gene to gene."""
    rng = np.random.default_rng(seed)
    donor = pd.Categorical(obs["sample_id"]).codes
    donors = rng.standard_normal((donor.max() + 1, N_GENES))
    cells = rng.standard_normal((len(obs), N_GENES))
    matrix = mean + np.sqrt(icc) * donors[donor] + np.sqrt(1 - icc) * cells + column[:, None]
    return sl.tl.lmm_fit(AnnData(np.abs(matrix), obs=obs), formula, show_progress=False)


def brute_force(
    obs: pd.DataFrame, formula: str, test: str, column: NDArray[np.float64], icc: float, **choices: Any
) -> float:
    """Share of genes found."""
    return float((fit_of_cells(obs, formula, column, icc).pvals(test, **choices) < 0.05).mean())


def within_error(a: float, b: float, n: int = N_GENES) -> bool:
    """Whether two shares of as many simulated genes differ by less than four standard errors."""
    p = (a + b) / 2
    return abs(a - b) < 4 * np.sqrt(2 * p * (1 - p) / n)


@pytest.mark.parametrize("n_donors", [4, 7, 12, 25, 100])
@pytest.mark.parametrize("alpha", [0.05, 1e-5])
def test_between_donors_is_the_t_test_of_donor_means(n_donors: int, alpha: float) -> None:
    grid: dict[str, Any] = {"effect": [0.05, 0.2, 0.6], "n_cells": [5, 200], "icc": [0, 0.05, 0.3]}
    table = sl.tl.power(n_donors=n_donors, **grid, alpha=alpha, method="between-within")
    first = n_donors // 2
    for row in table.itertuples():
        sd = np.sqrt(row.icc + (1 - row.icc) / row.n_cells)
        expected = TTestIndPower().power(row.effect / sd, first, alpha, ratio=(n_donors - first) / first)
        if not np.isnan(expected):  # statsmodels' noncentral t gives up on large effects
            assert row.power == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("alpha", [0.05, 1e-5])
@pytest.mark.parametrize("paired", [False, True])
def test_at_a_known_icc_it_is_the_f_test_of_all_cells(alpha: float, *, paired: bool) -> None:
    grid: dict[str, Any] = {"effect": [0.02, 0.2, 0.6], "n_donors": [4, 7], "n_cells": [6, 60], "icc": [0, 0.3]}
    table = sl.tl.power(**grid, alpha=alpha, paired=paired)
    assert (table["error"] == 0).all()
    assert set(table["method"]) == {"lrt"}
    for row in table.itertuples():
        X, V = _dense(two_groups(row.n_donors, row.n_cells, paired=paired), row.icc)
        variance = np.linalg.inv(X.T @ np.linalg.solve(V, X))[1, 1]
        assert row.power == pytest.approx(_noncentral_f(row.effect**2 / variance, len(X) - 2, alpha), abs=1e-9)


def _dense(obs: pd.DataFrame, icc: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    X = np.column_stack([np.ones(len(obs)), obs["diagnosis"] == "b"]).astype(float)
    donor = pd.Categorical(obs["sample_id"]).codes
    return X, icc * (donor[:, None] == donor) + (1 - icc) * np.eye(len(obs))


def _noncentral_f(noncentrality: float, df: float, alpha: float) -> float:
    return float(distributions.ncf.sf(distributions.f.isf(alpha, 1, df), 1, df, noncentrality))


@pytest.mark.parametrize(("test", "effect"), [("diagnosis", 0.4), ("sequencing_saturation", 1.2)])
@pytest.mark.parametrize("icc", [0.0, 0.05, 0.3])
def test_a_design_at_a_known_icc_is_generalised_least_squares(test: str, effect: float, icc: float) -> None:
    fit, obs = pilot_fit(), pilot().obs
    X = build_design(FORMULA, obs).X
    donor = pd.Categorical(obs["sample_id"]).codes
    V = icc * (donor[:, None] == donor) + (1 - icc) * np.eye(len(obs))
    k = next(k for k, name in enumerate(fit.coding.coef_names) if name.startswith(test))
    variance = np.linalg.inv(X.T @ np.linalg.solve(V, X))[k, k]
    expected = _noncentral_f(effect**2 / variance, len(X) - X.shape[1], 0.01)
    for design in ((pilot(), FORMULA, test), (fit, None, test)):
        assert sl.tl.power(*design, effect=effect, icc=icc, alpha=0.01)["power"][0] == pytest.approx(expected, abs=1e-8)


def test_a_balanced_design_is_the_balanced_layout() -> None:
    for paired in (False, True):
        design = balanced_statistics(7, 20, paired=paired)
        effects, iccs = np.array([0.1, 0.5]), np.array([0.0, 0.2])
        found = known_power([design[0]], design[1], effects, iccs, 0.05)
        expected = balanced_power(effects, 7, 20, iccs[:, None], 0.05, paired=paired, known=True)
        np.testing.assert_allclose(found.power, expected, rtol=1e-9)
        assert not found.error.any()


def test_the_error_of_resampled_donors_is_told() -> None:
    tables = [
        sl.tl.power(pilot(), FORMULA, "diagnosis", effect=0.4, n_donors=[12, 17, 24], seed=seed) for seed in range(20)
    ]
    power, error = (np.array([table[name] for table in tables]) for name in ("power", "error"))
    assert not error[:, [0, 2]].any()
    assert error[:, 1].mean() == pytest.approx(power[:, 1].std(ddof=1), rel=0.4)
    np.testing.assert_allclose(np.ptp(power[:, [0, 2]], axis=0), 0, atol=1e-9)


def test_within_donors_is_a_t_test_of_cells() -> None:
    how: dict[str, Any] = {"paired": True, "method": "between-within"}
    table = sl.tl.power(effect=[0.05, 0.1, 0.3], n_donors=6, n_cells=100, icc=0.2, **how)
    df = 600 - 6 - 1
    noncentrality = table["effect"] / np.sqrt(4 * 0.8 / 600)
    critical = distributions.t.isf(0.025, df)
    expected = distributions.nct.sf(critical, df, noncentrality) + distributions.nct.cdf(-critical, df, noncentrality)
    assert table["power"].to_numpy() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("method", ["lrt", "between-within"])
def test_no_effect_is_found_as_often_as_alpha_says_and_a_huge_one_always(method: str) -> None:
    grid: dict[str, Any] = {"n_donors": [3, 24, 500], "n_cells": [2, 10_000], "icc": [0, 0.5], "method": method}
    table = sl.tl.power(effect=[0, 1e4], **grid, alpha=0.01)
    assert table["power"][table["effect"] == 0].to_numpy() == pytest.approx(0.01, abs=1e-9)
    assert table["power"][table["effect"] > 0].to_numpy() == pytest.approx(1, abs=1e-6)
    assert np.isfinite(table["power"]).all()


def test_table_has_every_combination_once() -> None:
    table = sl.tl.power(effect=[0.3, 0.1, 0.1], n_donors=[24, 6], n_cells=[500, 20], icc=[0.05, 0.01])
    names = ["n_donors", "n_cells", "icc", "effect"]
    assert table.columns.tolist() == [*names, "power", "error", "alpha", "method"]
    assert len(table) == len(table[names].drop_duplicates()) == 16
    assert (table["error"] == 0).all()
    assert table["n_cells"].dtype.kind == "i"


def test_power_grows_with_effect_donors_and_cells_and_falls_with_icc() -> None:
    grid: dict[str, Any] = {"effect": [0.1, 0.3], "n_donors": [8, 16], "n_cells": [5, 100], "icc": [0.02, 0.2]}
    formula = "~ sequencing_saturation + diagnosis + (1 | sample_id)"
    exact, t = sl.tl.power(**grid), sl.tl.power(**grid, method="between-within")
    of_design = sl.tl.power(pilot(), formula, "diagnosis", **grid)
    calibrated = sl.tl.power(pilot(), formula, "diagnosis", **grid, moderate=False)
    for table in (exact, t, of_design, calibrated):
        cube = table["power"].to_numpy().reshape(2, 2, 2, 2)  # donors, cells, icc, effect
        growth = [sign * np.diff(cube, axis=axis) for axis, sign in enumerate((1, 1, -1, 1))]
        assert min(step.min() for step in growth) > -3 * table["error"].max()
    assert (exact["power"] > t["power"]).all()  # what is known need not be estimated


# The default test learns from 4,000 genes that they all have one ICC, which is as good as knowing it.
TESTS: dict[str, dict[str, Any]] = {
    "default": {},
    "calibrated": {"moderate": False},
    "between-within": {"method": "between-within"},
}
each_test = pytest.mark.parametrize("choices", TESTS.values(), ids=TESTS)


@pytest.mark.parametrize(
    ("n_donors", "n_cells", "icc", "effect", "paired"),
    [(8, 40, 0.1, 0.6, False), (9, 30, 0.2, 0.9, False), (6, 40, 0.2, 0.25, True)],
)
@each_test
def test_balanced_layout_against_cells(
    n_donors: int, n_cells: int, icc: float, effect: float, choices: dict[str, Any], *, paired: bool
) -> None:
    layout: dict[str, Any] = {"n_donors": n_donors, "n_cells": n_cells, "icc": icc, "paired": paired, "effect": effect}
    obs = two_groups(n_donors, n_cells, paired=paired)
    column = effect * (obs["diagnosis"] == "b").to_numpy()
    counted = brute_force(obs, "~ diagnosis + (1 | sample_id)", "diagnosis", column, icc, **choices)
    if choices:
        assert within_error(sl.tl.power(**layout, **choices, n_simulations=N_GENES)["power"][0], counted)
    if choices != {"moderate": False}:
        assert within_error(sl.tl.power(**layout, **choices)["power"][0], counted)


@each_test
@pytest.mark.parametrize(("test", "effect"), [("diagnosis", 0.4), ("sequencing_saturation", 1.2)])
def test_unbalanced_design_against_cells(test: str, effect: float, choices: dict[str, Any]) -> None:
    adata = pilot()
    values = adata.obs[test] == "Alzheimer" if test == "diagnosis" else adata.obs[test]
    counted = brute_force(adata.obs, FORMULA, test, effect * values.to_numpy(dtype=float), 0.05, **choices)
    simulated = {"n_simulations": N_GENES} if choices else {}
    found = sl.tl.power(adata, FORMULA, test, effect=effect, icc=0.05, **choices, **simulated)
    assert within_error(found["power"][0], counted)
    assert found["error"][0] == pytest.approx(np.sqrt(counted * (1 - counted) / N_GENES) if choices else 0, rel=0.2)


@cache
def varied_fit(n_donors: int, effect: float = 0.0, seed: int = 8) -> Any:
    """Fit of genes that differ in their ICC, log-normal about .07, and have one mean."""
    obs = two_groups(n_donors, 60, paired=False)
    icc = 0.05 * np.exp(0.8 * np.random.default_rng(seed + 1).standard_normal(N_GENES))
    column = effect * (obs["diagnosis"] == "b").to_numpy()
    return fit_of_cells(obs, "~ diagnosis + (1 | sample_id)", column, np.minimum(icc, 0.9), seed)


@pytest.mark.parametrize(("n_donors", "alpha"), [(8, 0.05), (8, 0.001), (24, 0.001)])
def test_a_pilot_foretells_what_another_cohort_finds(n_donors: int, alpha: float) -> None:
    """Cells of a pilot of 8 donors; power in cohorts of which every cell is drawn, tested with their own prior."""
    effect = 0.5
    found = sl.tl.power(
        varied_fit(8), test="diagnosis", effect=effect, n_donors=n_donors, alpha=alpha, n_simulations=N_GENES
    )
    counted = (varied_fit(n_donors, effect, seed=30).pvals("diagnosis") < alpha).mean()
    assert found["power"][0] == pytest.approx(counted, abs=0.035)
    assert found["icc"][0] == "learned"
    assert found["error"][0] == pytest.approx(np.sqrt(counted * (1 - counted) / N_GENES), rel=0.2)


def test_with_a_pilot_no_effect_is_found_as_often_as_alpha_says() -> None:
    table = sl.tl.power(varied_fit(8), test="diagnosis", effect=0, alpha=0.05, n_simulations=N_GENES)
    assert within_error(table["power"][0], 0.05)
    rare = sl.tl.power(varied_fit(8), test="diagnosis", effect=0, icc=[0.01, 0.6], n_simulations=N_GENES)
    assert rare["power"][0] < 0.05 < rare["power"][1]  # taken for more, and for less, than they are


def test_what_the_pilots_genes_know_lies_between_nothing_and_all() -> None:
    how: dict[str, Any] = {"test": "diagnosis", "effect": [0.4, 0.8], "icc": 0.05, "alpha": 0.001}
    learned = sl.tl.power(varied_fit(8), **how)["power"]
    t = sl.tl.power(varied_fit(8), **how, method="between-within")["power"]
    known = sl.tl.power(AnnData(obs=two_groups(8, 60, paired=False)), "~ diagnosis + (1 | sample_id)", **how)["power"]
    assert (t + 0.01 < learned).all()
    assert (learned + 0.05 < known).all()


@cache
def two_kinds() -> Any:
    """Fit of genes with a low mean and an ICC of .01, and as many with a high mean and one of .3."""
    obs = two_groups(8, 60, paired=False)
    high = np.arange(N_GENES) % 2
    return fit_of_cells(
        obs, "~ diagnosis + (1 | sample_id)", np.zeros(480), np.where(high, 0.3, 0.01), mean=9 + 9 * high
    )


def test_a_gene_of_a_pilot_has_its_own_icc_and_scale() -> None:
    fit = two_kinds()
    for name, moderate in (("lrt calibrated", False), ("lrt", None)):
        found = sl.tl.power(fit, test="diagnosis", effect=0.3, gene="7", moderate=moderate)
        icc = fit.reml.icc[7] if moderate is False else fit.test("diagnosis").table["icc_moderated"].iloc[7]
        assert found["icc"][0] == pytest.approx(icc, rel=1e-6)
        assert found["method"][0] == name
    sd = np.sqrt(fit.reml.sigma2[7] / (1 - fit.reml.icc[7]))
    scaled = sl.tl.power(fit, test="diagnosis", effect=0.3 / sd, icc=fit.reml.icc[7], moderate=False)["power"][0]
    found = sl.tl.power(fit, test="diagnosis", effect=0.3, gene="7", moderate=False)["power"][0]
    assert found == pytest.approx(scaled, abs=1e-12)


def test_a_gene_is_tested_with_what_genes_of_its_mean_have_taught() -> None:
    fit, how = two_kinds(), {"test": "diagnosis", "effect": 0.35, "alpha": 0.001}
    middle_of_the_low = fit.var_names[np.argsort(fit.stats.mean)[N_GENES // 4]]
    of_gene = sl.tl.power(fit, **how, gene=middle_of_the_low)
    icc = of_gene["icc"][0]
    known = sl.tl.power(effect=0.35, n_donors=8, n_cells=60, icc=icc, alpha=0.001)["power"][0]
    of_all = sl.tl.power(fit, **how, icc=icc)["power"][0]
    assert of_all + 0.1 < of_gene["power"][0] < known


@pytest.mark.slow
@pytest.mark.parametrize("choices", [{"method": "between-within"}, {"moderate": False}])
def test_simulation_of_twenty_thousand_genes(choices: dict[str, Any]) -> None:
    """The noncentral t, for every cell of a grid in which the boundary is rare."""
    grid: dict[str, Any] = {"effect": [0.2, 0.4], "n_donors": [12, 24], "n_cells": [100, 1000], "icc": [0.05, 0.2]}
    exact = sl.tl.power(**grid, method="between-within")["power"]
    simulated = sl.tl.power(**grid, **choices, n_simulations=20_000)
    assert (abs(simulated["power"] - exact) < 4 * simulated["error"] + 0.002).all()


def test_gene_sets_the_scale_and_the_icc() -> None:
    example = sl.datasets.confounding_example()
    adata = AnnData(example.X[::20] + 20, obs=example.obs.iloc[::20], var=example.var)
    formula = "~ sequencing_saturation + diagnosis + (1 | sample_id)"
    fit = sl.tl.lmm_fit(adata, formula, show_progress=False)
    how: dict[str, Any] = {"test": "diagnosis", "effect": [2.0, 5.0]}
    in_units = sl.tl.power(fit, **how, gene="gene")
    from_cells = sl.tl.power(adata, formula, **how, gene="gene")
    pd.testing.assert_frame_equal(in_units, from_cells)
    sd = float(np.hypot(fit.reml.sd_random[0], np.sqrt(fit.reml.sigma2[0])))
    scaled = sl.tl.power(fit, test="diagnosis", effect=np.array([2, 5]) / sd, icc=fit.reml.icc[0])
    assert in_units["icc"].tolist() == pytest.approx([fit.reml.icc[0]] * 2)
    assert in_units["power"].tolist() == pytest.approx(scaled["power"].tolist())


def test_a_design_needs_no_expression_and_is_not_changed() -> None:
    bare = AnnData(obs=pilot().obs)
    how: dict[str, Any] = {"effect": 0.4}
    from_bare = sl.tl.power(bare, FORMULA, "diagnosis", **how)
    pd.testing.assert_frame_equal(from_bare, sl.tl.power(pilot_fit(), test="diagnosis", **how))
    assert list(bare.uns) == list(bare.varm) == []


def test_the_seed_decides_the_draws() -> None:
    first, again, other = (
        sl.tl.power(pilot(), FORMULA, "diagnosis", effect=0.3, moderate=False, n_simulations=300, seed=seed)["power"][0]
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_neither_units_nor_reference_matter() -> None:
    obs = pilot().obs.assign(age=lambda o: 1e3 * o["age"] + 7e5)
    how: dict[str, Any] = {"test": "diagnosis", "effect": 0.3, "moderate": False, "n_simulations": 500}
    plain = sl.tl.power(pilot(), FORMULA, **how)["power"][0]
    rescaled = sl.tl.power(AnnData(obs=obs), FORMULA, **how)["power"][0]
    turned = sl.tl.power(pilot(), FORMULA, **how, reference={"diagnosis": "Alzheimer"})["power"][0]
    contrast = "cond(diagnosis='Alzheimer') - cond(diagnosis='control')"
    as_contrast = sl.tl.power(pilot(), FORMULA, **{**how, "test": contrast})["power"][0]
    assert plain == pytest.approx(rescaled, abs=0.005)
    assert plain == pytest.approx(as_contrast, abs=0.005)
    assert within_error(plain, turned, 500)  # other columns, so other draws


def test_twice_the_donors_is_the_design_with_each_donor_twice() -> None:
    fit = pilot_fit()
    hypothesis = hypotheses_of(fit.coding, "diagnosis")[0]
    (doubled,) = cohorts(fit.stats, hypothesis, 24, None, seed=0)
    twin = pilot().obs.assign(sample_id=lambda o: "twin " + o["sample_id"].astype(str))
    obs = pd.concat([pilot().obs, twin]).reset_index(drop=True)
    obs.index = obs.index.astype(str)
    matrix = np.random.default_rng(0).uniform(size=(len(obs), 1))
    twice = sl.tl.lmm_fit(AnnData(matrix, obs=obs), FORMULA, show_progress=False).stats

    def products(stats: Any) -> NDArray[np.float64]:
        back = np.linalg.inv(stats.basis)
        return back.T @ stats.XtX @ back

    assert products(doubled) == pytest.approx(products(twice), rel=1e-9)
    assert np.sort(doubled.sizes).tolist() == np.sort(twice.sizes).tolist()


def test_cohorts_keep_the_arms_and_scale_the_cells() -> None:
    fit = pilot_fit()
    hypothesis = hypotheses_of(fit.coding, "diagnosis")[0]
    column = fit.coding.coef_names.index("diagnosis[T.Alzheimer]")
    made = cohorts(fit.stats, hypothesis, 10, 200, seed=0)
    assert len(made) > 1
    for cohort in made:
        means = cohort.ZtX / cohort.sizes[:, None] @ np.linalg.inv(cohort.basis)
        assert means[:, column].round(9).sum() == 5
        assert cohort.sizes.mean() == pytest.approx(200, abs=1)


def test_resampled_donors_agree_with_the_balanced_layout() -> None:
    """A balanced pilot of 6 donors grown to 18 is the balanced layout of 18."""
    obs = two_groups(6, 50, paired=False)
    grown = sl.tl.power(
        AnnData(obs=obs),
        "~ diagnosis + (1 | sample_id)",
        "diagnosis",
        effect=0.4,
        n_donors=18,
        n_cells=80,
    )
    assert grown["power"][0] == pytest.approx(sl.tl.power(effect=0.4, n_donors=18, n_cells=80)["power"][0], rel=1e-9)


def test_balanced_statistics_are_those_of_the_cells() -> None:
    for paired in (False, True):
        obs = two_groups(5, 10, paired=paired)
        made, _ = balanced_statistics(5, 10, paired=paired)
        X = np.column_stack([np.ones(50), obs["diagnosis"] == "b"]).astype(float)
        Z = pd.get_dummies(obs["sample_id"]).to_numpy(dtype=float)
        back = np.linalg.inv(made.basis)  # standardised columns may be turned
        np.testing.assert_allclose(back.T @ made.XtX @ back, X.T @ X, rtol=1e-12, atol=1e-11)
        np.testing.assert_allclose(made.ZtX @ back, Z.T @ X, rtol=1e-12, atol=1e-11)


def test_arrays_broadcast() -> None:
    shape = balanced_power(np.ones((3, 1)), np.array([4, 8]), 10, 0.1, 0.05, paired=False, known=True).shape
    assert shape == (3, 2)


BALANCED: dict[str, Any] = {"effect": 0.3, "n_donors": 8, "n_cells": 50}
OF_DESIGN: dict[str, Any] = {"formula": FORMULA, "test": "diagnosis", "effect": 0.3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"effect": []}, "effect is empty"),
        ({"effect": np.nan}, "effect=nan is out of range"),
        ({"n_donors": 2}, "n_donors=2 .* 3 or more"),
        ({"n_donors": 5.5}, "n_donors=5.5 .* whole number"),
        ({"n_donors": None}, "power needs n_donors"),
        ({"n_cells": 1}, "n_cells=1 .* 2 or more"),
        ({"icc": 1}, "icc=1 .* less than 1"),
        ({"icc": [-0.1, 0.1]}, "icc=-0.1"),
        ({"alpha": 0}, "alpha=0 .* between 0 and 1"),
        ({"method": "t"}, "method='t' is unknown.*'between-within'"),
        ({"n_simulations": 5}, "n_simulations=5 is too few"),
        ({"n_simulations": 500}, "n_simulations=500 has no meaning here"),
        ({"moderate": True}, "moderate=True learns from the genes of a pilot"),
        ({"moderate": True, "method": "satterthwaite"}, "would need all genes"),
        ({"seed": -1}, "seed=-1"),
        ({"gene": "APOE"}, "gene describes a design"),
        ({"formula": FORMULA}, "formula describes a design"),
    ],
)
def test_balanced_input_is_checked(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sl.tl.power(**{**BALANCED, **change})


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"test": None}, ValueError, r"power\(adata, formula, test, effect=...\)"),
        ({"formula": None}, ValueError, r"power\(adata, formula, test, effect=...\)"),
        ({"test": "(1 | sample_id)"}, ValueError, "is the random term"),
        ({"test": "diagnoses"}, DesignError, "Did you mean 'diagnosis'"),
        ({"test": ["age", "batch"]}, ValueError, "several comparisons.*test='age'"),
        ({"formula": "~ cell_type + (1 | sample_id)", "test": "cell_type"}, ValueError, r"cond\(cell_type='"),
        ({"formula": "~ sample_id + diagnosis + (1 | sample_id)"}, DesignError, "cannot tell them apart"),
        ({"paired": True}, ValueError, "paired=True is for two balanced groups"),
        ({"gene": "GENE00001", "icc": 0.1}, ValueError, "the same thing twice"),
        ({"gene": "APOE"}, KeyError, "gene='APOE' is not in adata.var_names"),
        ({"n_donors": 4}, DesignError, "n_donors=4 is too few"),
    ],
)
def test_design_input_is_checked(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        sl.tl.power(pilot(), **{**OF_DESIGN, **change})


def test_gene_without_a_fit_is_refused() -> None:
    adata = pilot().copy()
    adata.X[:, 0] = 0
    with pytest.raises(ValueError, match="could not be fitted"):
        sl.tl.power(adata, **OF_DESIGN, gene=adata.var_names[0])
    with pytest.raises(KeyError, match="not among the fitted genes"):
        sl.tl.power(pilot_fit(), test="diagnosis", effect=1, gene="APOE")


@pytest.fixture
def table() -> pd.DataFrame:
    return sl.tl.power(effect=np.linspace(0, 1, 21), n_donors=[8, 24, 48], n_cells=[50, 500], icc=[0.01, 0.3])


def test_figure_has_a_line_per_number_of_donors(table: pd.DataFrame) -> None:
    axes = sl.pl.power(table, show=False)
    assert [ax.get_title() for ax in axes] == [
        f"{n} cells per donor, ICC {icc}" for n in (50, 500) for icc in (0.01, 0.3)
    ]
    curves = [line for line in axes[2].lines if len(line.get_xdata()) == 21]
    part = table[(table["n_cells"] == 500) & (table["icc"] == 0.01)]
    for curve, (_, expected) in zip(curves, part.groupby("n_donors"), strict=True):
        assert curve.get_ydata() == pytest.approx(expected["power"].to_numpy())
    assert [text.get_text() for text in axes[0].texts if text.get_weight() == "bold"] == ["8", "24", "48"]
    assert "80%" in [text.get_text() for text in axes[0].texts]
    plt.close("all")


def test_labels_are_on_their_lines(table: pd.DataFrame) -> None:
    (ax, *_) = sl.pl.power(table[(table["n_cells"] == 500) & (table["icc"] == 0.3)], show=False)
    curves = [line for line in ax.lines if len(line.get_xdata()) == 21]
    labels = [text for text in ax.texts if text.get_weight() == "bold"]
    for curve, label in zip(curves, labels, strict=True):
        x, y = label.xy
        assert np.interp(x, curve.get_xdata(), curve.get_ydata()) == pytest.approx(y, abs=1e-6)
        assert label.get_color() is not None
    plt.close("all")


def test_figure_against_donors(table: pd.DataFrame) -> None:
    axes = sl.pl.power(table[table["effect"].isin([0.25])], x="n_donors", lines="n_cells", show=False)
    assert [ax.get_title() for ax in axes] == ["ICC 0.01", "ICC 0.3"]
    assert axes[0].get_xlabel() == "donors"
    plt.close("all")


def test_simulation_error_is_drawn() -> None:
    table = sl.tl.power(pilot(), FORMULA, "diagnosis", effect=[0.2, 0.5, 0.8], moderate=False, n_simulations=200)
    (ax,) = sl.pl.power(table, xlabel="log fold change", show=False)
    assert len(ax.collections) == 1
    assert ax.get_xlabel() == "log fold change"
    plt.close("all")


def test_figure_of_a_pilots_genes() -> None:
    learned = sl.tl.power(varied_fit(8), test="diagnosis", effect=[0.2, 0.5, 0.8], n_simulations=200)
    (ax,) = sl.pl.power(learned, show=False)
    assert ax.figure.get_suptitle() == "number on a line: donors; ICC learned from a pilot"
    both = pd.concat([learned, sl.tl.power(effect=[0.2, 0.5, 0.8], n_donors=8, n_cells=60)])
    titles = [ax.get_title() for ax in sl.pl.power(both, show=False)]
    assert titles == ["ICC learned from a pilot", "ICC 0.05"]
    for choice in ({"x": "icc"}, {"lines": "icc"}):
        with pytest.raises(ValueError, match="='icc' needs numbers"):
            sl.pl.power(both, **choice)
    plt.close("all")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": "donors"}, "x='donors' is not a column.*n_donors"),
        ({"lines": "effect"}, "x and lines are both 'effect'"),
    ],
)
def test_figure_input_is_checked(table: pd.DataFrame, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sl.pl.power(table, **change)
    with pytest.raises(ValueError, match="no column 'icc'"):
        sl.pl.power(table.drop(columns="icc"))
