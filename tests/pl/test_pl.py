"""The plots show the numbers of the tables, in words that name the direction, and no two names overlap."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba

import sc_lmm as sl
from sc_lmm._captions import format_p
from sc_lmm.pl._labels import label_points
from sc_lmm.pl._style import DOWN, UP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from matplotlib.axes import Axes

mpl.use("agg")

# scanpy 1.11 and 1.12, anndata 0.13: written for pandas 2, run with pandas 3
pytestmark = [
    # what the design report cautions of is not the matter here
    pytest.mark.filterwarnings("ignore:The p-values of treated"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame"),
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated"),
]

STAGES = ["none", "mild", "T/NK cell"]
PLOTS = [sl.pl.volcano, sl.pl.dotplot, sl.pl.donor_means]


@cache
def cohort() -> AnnData:
    """Results of a two-level test ("lmm_de"), one of three levels ("stage") and one of a number ("age")."""
    adata = sl.datasets.brain_cohort(n_donors=18, n_cells=1_260, n_genes=80)
    donor = adata.obs["sample_id"].cat.codes.to_numpy()
    adata.obs["stage"] = pd.Categorical(np.array(STAGES)[donor % 3], categories=STAGES)
    adata.obs["treated"] = np.arange(adata.n_obs) % 2 == 0
    adata.var["symbol"] = [f"symbol {k // 2}" for k in range(adata.n_vars)]  # each of them twice
    for test in ("diagnosis", "stage", "age", "treated"):
        key = "lmm_de" if test == "diagnosis" else test
        sl.tl.lmm_de(adata, f"~ sequencing_saturation + {test} + (1 | sample_id)", test=test, key_added=key)
    return adata


@pytest.fixture
def adata() -> AnnData:
    return cohort().copy()


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    autoshow = sc.settings.autoshow  # in scanpy 1.12 a property of a metaclass, which monkeypatch cannot restore
    yield
    sc.settings.autoshow = autoshow
    plt.close("all")


def legend_texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def scatters(ax: Axes) -> list[PathCollection]:
    return [collection for collection in ax.collections if isinstance(collection, PathCollection)]


def points(ax: Axes) -> np.ndarray:
    return np.vstack([scatter.get_offsets() for scatter in scatters(ax)])


# --- what all plots share


@pytest.mark.parametrize("plot", PLOTS)
def test_shows_and_returns_nothing_unless_told_not_to(adata: AnnData, plot, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(1))
    sc.settings.autoshow = True
    assert plot(adata) is None
    assert plot(adata, show=True) is None
    assert calls == [1, 1]
    assert plot(adata, show=False) is not None
    sc.settings.autoshow = False
    assert plot(adata) is not None
    assert calls == [1, 1]


@pytest.mark.parametrize("plot", PLOTS)
def test_unknown_run_and_comparison_are_named(adata: AnnData, plot) -> None:
    with pytest.raises(KeyError, match="'lmm' holds no result|'lmm'\\] holds no result"):
        plot(adata, key="lmm", show=False)
    with pytest.raises(KeyError, match="Did you mean 'Alzheimer'"):
        plot(adata, comparison="Alzheimers", show=False)


@pytest.mark.parametrize("plot", PLOTS)
def test_leaves_adata_as_it_was(adata: AnnData, plot) -> None:
    adata.obs["text"] = adata.obs["diagnosis"].astype(str)  # scanpy's plots turn text into categories
    before = adata.copy()
    plot(adata, show=False)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert adata.uns.keys() == before.uns.keys()
    assert (adata.X != before.X).nnz == 0


@pytest.mark.parametrize(
    ("log10_p", "text"),
    [
        (0, "1"),
        (np.log10(0.0312), "0.031"),
        (-5.2, "6e-6"),
        (-5.0001, "1e-5"),
        (-1066.5, "3e-1067"),
        (-np.inf, "< 1e-300"),
        (np.nan, "none"),
    ],
)
def test_format_p(log10_p: float, text: str) -> None:
    assert format_p(log10_p) == text


# --- volcano


def test_volcano_has_every_gene_where_the_table_says(adata: AnnData) -> None:
    table = sl.get.lmm_de_df(adata)
    drawn = points(sl.pl.volcano(adata, show=False))
    expected = table[["logfoldchanges", "log10_pvals"]].to_numpy() * [1, -1]
    np.testing.assert_allclose(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)])


def test_volcano_colours_and_counts_by_direction(adata: AnnData) -> None:
    table = sl.get.lmm_de_df(adata, pval_cutoff=0.05)
    up, down = int((table["coef"] > 0).sum()), int((table["coef"] < 0).sum())
    ax = sl.pl.volcano(adata, show=False)
    assert up > 0
    assert down > 0
    assert legend_texts(ax) == [
        f"higher in Alzheimer ({up})",
        f"no evidence ({adata.n_vars - up - down})",
        f"lower in Alzheimer ({down})",
        "adjusted p = 0.05",
    ]
    by_colour = {tuple(c.get_facecolor()[0][:3]): len(c.get_offsets()) for c in scatters(ax)}
    assert by_colour[to_rgba(UP)[:3]] == up
    assert by_colour[to_rgba(DOWN)[:3]] == down


def test_volcano_says_what_the_effect_is(adata: AnnData) -> None:
    assert "log2 fold change, Alzheimer against control" in sl.pl.volcano(adata, show=False).get_xlabel()
    label = sl.pl.volcano(adata, key="age", show=False).get_xlabel()
    assert "falls with age" in label
    assert "log2 fold change, per unit of age" in label


def test_volcano_of_a_matrix_without_declared_logarithm_shows_coef(adata: AnnData) -> None:
    del adata.uns["log1p"]
    sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    ax = sl.pl.volcano(adata, show=False)
    assert "coefficient, Alzheimer against control" in ax.get_xlabel()
    assert len(points(ax)) == adata.n_vars


def test_volcano_is_finite_where_p_underflows(adata: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    table = sl.get.lmm_de_df(adata, sort=False)
    table.loc[0, ["log10_pvals", "pvals", "pvals_adj"]] = [-1066.0, 0.0, 0.0]
    monkeypatch.setattr("sc_lmm.pl._volcano.lmm_de_df", lambda *_, **__: table)
    ax = sl.pl.volcano(adata, show=False)
    assert points(ax)[:, 1].max() == 1066
    assert ax.get_ylim()[1] > 1066


def test_volcano_without_findings_has_no_line(adata: AnnData) -> None:
    ax = sl.pl.volcano(adata, pval_cutoff=1e-300, show=False)
    assert legend_texts(ax) == ["higher in Alzheimer (0)", "no evidence (80)", "lower in Alzheimer (0)"]


def test_volcano_refuses_a_joint_test(adata: AnnData) -> None:
    with pytest.raises(ValueError, match="several coefficients at once.* Choose one of 'mild', 'T/NK cell'"):
        sl.pl.volcano(adata, key="stage", show=False)
    assert "T/NK cell against none" in sl.pl.volcano(adata, "T/NK cell", key="stage", show=False).get_xlabel()


def test_volcano_without_any_result(adata: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    table = sl.get.lmm_de_df(adata).assign(coef=np.nan, logfoldchanges=np.nan, log10_pvals=np.nan)
    monkeypatch.setattr("sc_lmm.pl._volcano.lmm_de_df", lambda *_, **__: table)
    with pytest.raises(ValueError, match="or no gene has a result.$"):
        sl.pl.volcano(adata, show=False)


def test_volcano_names_the_top_genes(adata: AnnData) -> None:
    top = sl.get.lmm_de_df(adata, gene_symbols="symbol")["names"].head(5).tolist()
    ax = sl.pl.volcano(adata, n_labels=5, gene_symbols="symbol", show=False)
    assert [text.get_text() for text in ax.texts] == top
    assert len(sl.pl.volcano(adata, n_labels=0, show=False).texts) == 0


def test_volcano_in_given_axes(adata: AnnData) -> None:
    _, ax = plt.subplots()
    assert sl.pl.volcano(adata, ax=ax, show=False) is ax


def test_volcano_with_long_names_keeps_its_size(adata: AnnData) -> None:
    long = "a very long name of a stage of a disease that nobody has"
    adata.obs["stage"] = adata.obs["stage"].cat.rename_categories({"mild": long})
    sl.tl.lmm_de(adata, "~ stage + (1 | sample_id)", test="stage", key_added="stage")
    ax = sl.pl.volcano(adata, long, key="stage", show=False)
    ax.figure.canvas.draw()
    figure = ax.figure.bbox
    for artist in (ax.get_legend(), ax.xaxis.label):
        box = artist.get_window_extent()
        assert figure.x0 <= box.x0
        assert box.x1 <= figure.x1


@pytest.mark.parametrize("n_labels", [10, 40])
def test_names_do_not_overlap(adata: AnnData, n_labels: int) -> None:
    ax = sl.pl.volcano(adata, n_labels=n_labels, show=False)
    assert 8 <= len(ax.texts) <= n_labels
    check_labels(ax)


def test_names_in_a_crowd() -> None:
    rng = np.random.default_rng(0)
    _, ax = plt.subplots(figsize=(4, 4))
    crowd = rng.normal(size=(500, 2)) * [0.1, 1]
    ax.scatter(*crowd.T)
    assert len(label_points(ax, crowd[:60], [f"GENE{k:05d}" for k in range(60)], crowd)) >= 8
    check_labels(ax)


def check_labels(ax: Axes) -> None:
    """No name overlaps another or leaves the axes, as drawn."""
    ax.figure.canvas.draw()
    boxes = [mpl.text.Text.get_window_extent(text) for text in ax.texts]  # without the line to the point
    frame = ax.get_window_extent()
    for k, box in enumerate(boxes):
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert frame.y0 <= box.y0
        assert box.y1 <= frame.y1
        assert not any(box.overlaps(other) for other in boxes[:k])


def test_volcano_of_a_contrast(adata: AnnData) -> None:
    contrast = {"late": "cond(stage='T/NK cell') - cond(stage='mild')"}
    sl.tl.lmm_de(adata, "~ stage + (1 | sample_id)", test=contrast, key_added="late")
    assert "lower in T/NK cell" in sl.pl.volcano(adata, key="late", show=False).get_xlabel()
    plot = sl.pl.dotplot(adata, key="late", return_fig=True)
    assert list(plot.dot_color_df.index) == ["mild", "T/NK cell"]
    (ax,) = sl.pl.donor_means(adata, adata.var_names[0], key="late", show=False)
    assert [label.get_text().splitlines()[0] for label in ax.get_xticklabels()] == ["mild", "T/NK cell"]


def test_test_of_the_random_term(adata: AnnData) -> None:
    sl.tl.lmm_de(adata, "~ stage + (1 | sample_id)", test="(1 | sample_id)", key_added="random")
    with pytest.raises(ValueError, match="or a variance"):
        sl.pl.volcano(adata, key="random", show=False)
    (ax,) = sl.pl.donor_means(adata, adata.var_names[0], key="random", show=False)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["all\n18 samples"]


# --- dotplot


def test_dotplot_has_all_levels_the_reference_first(adata: AnnData) -> None:
    plot = sl.pl.dotplot(adata, key="stage", n_genes=6, return_fig=True)
    top = sl.get.lmm_de_df(adata, key="stage").head(6)["names"].tolist()
    assert list(plot.dot_color_df.index) == STAGES
    assert list(plot.var_names) == top
    for level in STAGES[1:]:
        effect = sl.get.lmm_de_df(adata, level, key="stage").set_index("names")["logfoldchanges"]
        np.testing.assert_array_equal(plot.dot_color_df.loc[level, top], effect[top])
    assert (plot.dot_color_df.loc["none"] == 0).all()


def test_dotplot_sizes_are_shares_of_cells(adata: AnnData) -> None:
    plot = sl.pl.dotplot(adata, n_genes=3, return_fig=True)
    for gene in plot.var_names:
        expressed = pd.Series(adata[:, gene].X.toarray().ravel() > 0, index=adata.obs_names)
        shares = expressed.groupby(adata.obs["diagnosis"], observed=True).mean()
        np.testing.assert_allclose(plot.dot_size_df[gene][shares.index], shares)


@pytest.mark.parametrize("values", ["coef", "scores", "logfoldchanges"])
def test_dotplot_of_signed_values(adata: AnnData, values: str) -> None:
    plot = sl.pl.dotplot(adata, n_genes=3, values_to_plot=values, return_fig=True)
    table = sl.get.lmm_de_df(adata).set_index("names")[values]
    np.testing.assert_array_equal(plot.dot_color_df.loc["Alzheimer"], table[plot.dot_color_df.columns])
    assert plot.vboundnorm.vmin == -plot.vboundnorm.vmax
    assert (plot.dot_color_df.loc["control"] == 0).all()


@pytest.mark.parametrize("values", ["log10_pvals", "log10_pvals_adj", "pvals", "pvals_adj"])
def test_dotplot_of_p_values(adata: AnnData, values: str) -> None:
    plot = sl.pl.dotplot(adata, n_genes=3, values_to_plot=values, return_fig=True)
    table = sl.get.lmm_de_df(adata).set_index("names")[values.removeprefix("log10_")]
    expected = -np.log10(table) if values.startswith("log10") else table
    np.testing.assert_allclose(plot.dot_color_df.loc["Alzheimer"], expected[plot.dot_color_df.columns])
    assert plot.dot_color_df.loc["control"].isna().all()
    plot.make_figure()  # blank dots can be drawn


def test_dotplot_of_expression(adata: AnnData) -> None:
    plot = sl.pl.dotplot(adata, n_genes=3, values_to_plot=None, return_fig=True)
    gene = plot.var_names[0]
    mean = adata[adata.obs["diagnosis"] == "control", gene].X.mean()
    assert plot.dot_color_df.loc["control", gene] == pytest.approx(mean)


def test_dotplot_groups_genes_by_direction(adata: AnnData) -> None:
    axes = sl.pl.dotplot(adata, n_genes=8, show=False)
    names = [text.get_text().replace("\n", " ") for text in axes["gene_group_ax"].texts]
    assert names == ["higher in Alzheimer", "lower in Alzheimer"]
    genes = [label.get_text() for label in axes["mainplot_ax"].get_xticklabels()]
    rising = sl.get.lmm_de_df(adata).set_index("names")["coef"][genes] > 0
    assert 0 < rising.sum() < 8
    assert rising.is_monotonic_decreasing


def test_dotplot_reads_the_layer(adata: AnnData) -> None:
    plot = sl.pl.dotplot(adata, n_genes=3, values_to_plot=None, layer="counts", return_fig=True)
    gene = plot.var_names[0]
    mean = adata[adata.obs["diagnosis"] == "control", gene].layers["counts"].mean()
    assert plot.dot_color_df.loc["control", gene] == pytest.approx(mean)


def test_dotplot_reads_the_layer_and_raw_of_the_run(adata: AnnData) -> None:
    adata.layers["twice"] = 2 * adata.X
    sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis", layer="twice", key_added="twice")
    adata.raw = adata.copy()
    sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis", use_raw=True, key_added="raw")
    del adata.X
    plain = sl.pl.dotplot(adata, key="raw", n_genes=3, values_to_plot=None, return_fig=True).dot_color_df
    twice = sl.pl.dotplot(adata, key="twice", n_genes=3, values_to_plot=None, return_fig=True).dot_color_df
    np.testing.assert_allclose(twice, 2 * plain, rtol=1e-6)


def test_dotplot_of_symbols_that_occur_twice(adata: AnnData) -> None:
    plot = sl.pl.dotplot(adata, n_genes=adata.n_vars, gene_symbols="symbol", return_fig=True)
    assert sorted(plot.var_names)[:2] == ["symbol 0", "symbol 0-1"]
    plot.make_figure()


def test_dotplot_of_a_boolean_factor(adata: AnnData) -> None:
    plot = sl.pl.dotplot(adata, key="treated", n_genes=3, return_fig=True)
    assert list(plot.dot_color_df.index) == ["False", "True"]


def test_dotplot_passes_arguments_on(adata: AnnData) -> None:
    axes = sl.pl.dotplot(adata, n_genes=3, swap_axes=True, cmap="PiYG", title="mine", show=False)
    assert [label.get_text() for label in axes["mainplot_ax"].get_xticklabels()] == ["control", "Alzheimer"]


def test_dotplot_refuses_what_it_cannot_show(adata: AnnData) -> None:
    with pytest.raises(ValueError, match="values_to_plot='logfoldchange' is unknown.*Did you mean 'logfoldchanges'"):
        sl.pl.dotplot(adata, values_to_plot="logfoldchange", show=False)
    with pytest.raises(ValueError, match="test of 'age' does not compare the levels"):
        sl.pl.dotplot(adata, key="age", show=False)


# --- donor_means


def by_hand(adata: AnnData, gene: str, level: str) -> pd.Series:
    values = pd.Series(adata[:, gene].X.toarray().ravel(), index=adata.obs_names, dtype=float)
    here = adata.obs["diagnosis"] == level
    return values[here].groupby(adata.obs["sample_id"][here], observed=True).mean()


def test_donor_means_are_the_means_of_the_donors_cells(adata: AnnData) -> None:
    gene = sl.get.lmm_de_df(adata)["names"][0]
    (ax,) = sl.pl.donor_means(adata, gene, show=False)
    for position, level in enumerate(["control", "Alzheimer"]):
        drawn = [p for p in points(ax) if abs(p[0] - position) < 0.5]
        expected = by_hand(adata, gene, level)
        np.testing.assert_allclose(sorted(y for _, y in drawn), sorted(expected), rtol=1e-5)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["control\n9 samples", "Alzheimer\n9 samples"]


def test_donor_means_by_default_of_the_top_genes(adata: AnnData) -> None:
    axes = sl.pl.donor_means(adata, n_genes=3, show=False)
    top = sl.get.lmm_de_df(adata).head(3)
    assert [ax.get_title() for ax in axes] == top["names"].tolist()
    for ax, log10_p, adjusted in zip(axes, top["log10_pvals"], top["pvals_adj"], strict=True):
        assert ax.texts[0].get_text() == f"p = {format_p(log10_p)}, adjusted {format_p(np.log10(adjusted))}"


def test_donor_means_area_is_the_number_of_cells(adata: AnnData) -> None:
    (ax,) = sl.pl.donor_means(adata, adata.var_names[0], show=False)
    areas = np.concatenate([scatter.get_sizes() for scatter in scatters(ax)])
    counts = adata.obs["sample_id"].value_counts()
    assert areas.max() / np.median(areas) == pytest.approx(counts.max() / counts.median())
    assert legend_texts(ax) == [f"{counts.min():,} cells", f"{counts.max():,} cells", "mean of samples"]


def test_donor_means_has_the_comparisons_p_value(adata: AnnData) -> None:
    gene = adata.var_names[0]
    (ax,) = sl.pl.donor_means(adata, gene, "mild", key="stage", show=False)
    row = sl.get.lmm_de_df(adata, "mild", key="stage").set_index("names").loc[gene]
    assert ax.texts[0].get_text().startswith(f"p = {format_p(row['log10_pvals'])},")
    assert [label.get_text().splitlines()[0] for label in ax.get_xticklabels()] == STAGES[:2]


def test_donor_means_of_a_number(adata: AnnData) -> None:
    (ax,) = sl.pl.donor_means(adata, adata.var_names[0], key="age", show=False)
    ages = adata.obs.groupby("sample_id", observed=True)["age"].first()
    np.testing.assert_array_equal(sorted(points(ax)[:, 0]), sorted(ages))
    (x0, x1), (y0, y1) = ax.lines[0].get_data()
    coef = sl.get.lmm_de_df(adata, key="age", sort=False)["coef"][0]
    assert (y1 - y0) / (x1 - x0) == pytest.approx(coef)
    assert legend_texts(ax)[-1] == "slope of the model"


def test_donor_means_by_another_column(adata: AnnData) -> None:
    (ax,) = sl.pl.donor_means(adata, adata.var_names[0], groupby="sex", show=False)
    assert [label.get_text().splitlines()[0] for label in ax.get_xticklabels()] == ["female", "male"]
    (ax,) = sl.pl.donor_means(adata, adata.var_names[0], groupby="sequencing_saturation", show=False)
    assert ax.get_xlabel() == "sequencing_saturation"
    assert len(legend_texts(ax)) == 2
    with pytest.raises(KeyError, match="'sexes' is not a column.*Did you mean 'sex'"):
        sl.pl.donor_means(adata, groupby="sexes", show=False)


def test_donor_means_joins_donors_with_cells_in_several_levels(adata: AnnData) -> None:
    (ax,) = sl.pl.donor_means(adata, adata.var_names[0], key="treated", show=False)
    assert len(ax.lines) == 18
    assert len(points(ax)) == 36


def test_donor_means_leaves_out_cells_without_annotation(adata: AnnData) -> None:
    adata.obs.loc[adata.obs["sample_id"] == "donor_01", "diagnosis"] = np.nan
    (ax,) = sl.pl.donor_means(adata, adata.var_names[0], show=False)
    assert len(points(ax)) == 17


def test_donor_means_in_rows(adata: AnnData) -> None:
    axes = sl.pl.donor_means(adata, n_genes=5, ncols=2, show=False)
    assert len(axes) == len(axes[0].figure.axes) == 5
    assert [bool(ax.get_ylabel()) for ax in axes] == [True, False, True, False, True]
    assert [ax.get_legend() is not None for ax in axes] == [False, True, False, False, False]


def test_donor_means_in_given_axes(adata: AnnData) -> None:
    _, given = plt.subplots(1, 2)
    genes = list(adata.var_names[:2])
    assert sl.pl.donor_means(adata, genes, axes=given, show=False) == list(given)
    with pytest.raises(ValueError, match="axes has 2 axes for 1 genes"):
        sl.pl.donor_means(adata, genes[:1], axes=given, show=False)


def test_donor_means_of_symbols(adata: AnnData) -> None:
    (ax,) = sl.pl.donor_means(adata, "symbol 3", gene_symbols="symbol", show=False)
    assert ax.get_title() == "symbol 3"
    with pytest.raises(KeyError, match="genes='GENE00001' not found.*'symbol 0'"):
        sl.pl.donor_means(adata, ["symbol 1", "GENE00001"], gene_symbols="symbol", show=False)


def test_donor_means_of_a_gene_without_result(adata: AnnData) -> None:
    mask = np.arange(adata.n_vars) > 0
    sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis", mask_var=mask)
    (ax,) = sl.pl.donor_means(adata, adata.var_names[0], show=False)
    assert ax.texts[0].get_text() == "p = none, adjusted none"
