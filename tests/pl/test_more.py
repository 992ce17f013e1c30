"""Figures of p-values and of several comparisons: what is drawn is what the tables hold."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy import stats

import sc_lmm as sl
from sc_lmm.pl._qq import expected, inflation
from sc_lmm.pl._style import DOWN, NEUTRAL, UP

if TYPE_CHECKING:
    from anndata import AnnData

mpl.use("agg")
pytestmark = [
    pytest.mark.filterwarnings("ignore::sc_lmm.LmmWarning"),
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated"),
]


@cache
def cohort() -> AnnData:
    """By cell type, of all cells, and a factor of three levels."""
    adata = sl.datasets.brain_cohort(n_donors=12, n_cells=1_800, n_genes=60)
    adata.var["symbol"] = [f"symbol {k}" for k in range(adata.n_vars)]
    sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", "diagnosis", groupby="cell_type")
    sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", "diagnosis", key_added="all")
    adata.obs["stage"] = pd.Categorical([("i", "ii", "iii")[k % 3] for k in adata.obs["sample_id"].cat.codes])
    sl.tl.lmm_de(adata, "~ stage + (1 | sample_id)", "stage", key_added="stage")
    return adata


@pytest.fixture
def adata():
    yield cohort().copy()
    plt.close("all")


def test_expected_heights_are_those_of_uniform_order_statistics():
    np.testing.assert_allclose(10.0 ** -expected(9), stats.beta(np.arange(1, 10), 9 - np.arange(1, 10) + 1).mean())


def test_inflation_is_the_median_chi_square_over_its_own():
    p = np.random.default_rng(0).uniform(size=1_001) ** 1.7
    assert inflation(-np.log10(p)) == pytest.approx(stats.chi2.isf(np.median(p), 1) / stats.chi2.median(1))
    assert inflation(-np.log10(stats.chi2.sf(2 * stats.chi2(1).rvs(20_001, random_state=1), 1))) == pytest.approx(
        2, rel=0.05
    )


@pytest.mark.parametrize("chi2", [True, False])
def test_qq_has_every_gene_once(adata, chi2):
    ax = sl.pl.qq(adata, key="all", chi2=chi2, show=False)
    table = sl.get.lmm_de_df(adata, key="all")
    points = [c for c in ax.collections if len(c.get_offsets()) == len(table)]
    columns = ["pvals_chi2", "pvals"] if chi2 else ["pvals"]
    assert len(points) == len(columns)
    for drawn, column in zip(points, columns, strict=True):
        np.testing.assert_allclose(np.sort(drawn.get_offsets()[:, 1]), np.sort(-np.log10(table[column])))
    assert ax.get_title() == "Alzheimer against control"


def test_the_band_of_the_qq_holds_uniform_p_values():
    """95 % of each order statistic lies between the lines that are drawn."""
    n, rng = 50, np.random.default_rng(3)
    ax = plt.subplots()[1]
    sl.pl._qq._draw_band(ax, n)
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    draws = np.sort(-np.log10(rng.uniform(size=(4_000, n))), axis=1)[:, ::-1]
    for rank in (1, 5, 40):
        edges = corners[np.isclose(corners[:, 0], expected(n)[rank - 1]), 1]
        inside = (draws[:, rank - 1] > edges.min()) & (draws[:, rank - 1] < edges.max())
        assert abs(inside.mean() - 0.95) < 0.02


def test_histogram_counts_the_genes(adata):
    ax = sl.pl.pvalue_histogram(adata, key="all", bins=10, chi2=False, show=False)
    counts = np.histogram(sl.get.lmm_de_df(adata, key="all")["pvals"], np.linspace(0, 1, 11))[0]
    assert [bar.get_height() for bar in ax.patches] == counts.tolist()
    assert ax.lines[0].get_ydata()[0] == 6


def test_ma_shows_effects_by_share_of_cells_and_names_the_first(adata):
    ax = sl.pl.ma(adata, key="all", n_labels=3, gene_symbols="symbol", show=False)
    table = sl.get.lmm_de_df(adata, key="all", gene_symbols="symbol")
    drawn = np.vstack([c.get_offsets() for c in ax.collections])
    expected_points = table[["pct_expressed", "coef"]].to_numpy() * [100, 1]
    np.testing.assert_allclose(drawn[np.lexsort(drawn.T)], expected_points[np.lexsort(expected_points.T)])
    assert {text.get_text() for text in ax.texts} <= set(table["names"].head(3))
    with pytest.raises(ValueError, match="several coefficients at once"):
        sl.pl.ma(adata, "stage", key="stage")


def test_forest_has_a_row_for_each_type_with_its_limits(adata):
    gene = adata.var_names[3]
    ax = sl.pl.forest(adata, gene, show=False)
    names = list(adata.uns["lmm_de"]["comparisons"].index)
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    rows = [sl.get.lmm_de_df(adata, name).set_index("names").loc[gene] for name in names]
    lines, points = ax.collections
    np.testing.assert_allclose([s[:, 0] for s in lines.get_segments()], [[r["ci_low"], r["ci_high"]] for r in rows])
    np.testing.assert_allclose(points.get_offsets()[:, 0], [r["coef"] for r in rows])
    colours = [NEUTRAL if r["pvals_adj"] >= 0.05 else UP if r["coef"] > 0 else DOWN for r in rows]
    np.testing.assert_allclose(points.get_facecolors(), mpl.colors.to_rgba_array(colours))
    heights = points.get_offsets()[:, 1]
    assert (np.diff(heights) < 0).all()


def test_forest_can_be_ordered_and_takes_contrasts(adata):
    ax = sl.pl.forest(adata, "symbol 3", ["iii", "ii"], key="stage", sort=True, gene_symbols="symbol", show=False)
    coef = ax.collections[1].get_offsets()[:, 0]
    assert (np.diff(coef) <= 0).all()


def test_heatmap_shows_the_tables(adata):
    genes = list(adata.var_names[[5, 1, 7]])
    ax = sl.pl.heatmap(adata, genes, values="coef", show=False)
    names = list(adata.uns["lmm_de"]["comparisons"].index)
    tables = [sl.get.lmm_de_df(adata, name).set_index("names").loc[genes] for name in names]
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), np.column_stack([t["coef"] for t in tables]))
    assert [label.get_text() for label in ax.get_yticklabels()] == genes
    stars = {(round(t.get_position()[0]), round(t.get_position()[1])): t.get_text() for t in ax.texts}
    for j, table in enumerate(tables):
        for i, p in enumerate(table["pvals_adj_global"]):
            assert stars[j, i] == "*" * int((p < 0.05) + (p < 0.01) + (p < 0.001))


def test_heatmap_takes_the_first_genes_of_each_type(adata):
    ax = sl.pl.heatmap(adata, n_genes=2, values="scores", show=False)
    shown = {label.get_text() for label in ax.get_yticklabels()}
    for name in adata.uns["lmm_de"]["comparisons"].index:
        assert set(sl.get.lmm_de_df(adata, name)["names"].head(2)) <= shown


BAD = {
    "a gene": (lambda a: sl.pl.forest(a, "GENE0000"), KeyError, "not in the results.*Did you mean"),
    "a gene of many": (lambda a: sl.pl.heatmap(a, ["nothing"], values="coef"), KeyError, "not in the results"),
    "a comparison": (lambda a: sl.pl.qq(a, "Neuron"), KeyError, "is not in adata.uns"),
    "a value": (lambda a: sl.pl.heatmap(a, values="p"), ValueError, "values='p' is unknown"),
    "an empty value": (lambda a: sl.pl.heatmap(a, values="coef_shrunken"), ValueError, "is empty in all genes"),
    "no coefficient": (lambda a: sl.pl.forest(a, a.var_names[0], ["stage"], key="stage"), ValueError, "no estimate"),
    "no run": (lambda a: sl.pl.pvalue_histogram(a, key="none"), KeyError, "holds no result"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told(adata, case):
    call, error, words = BAD[case]
    with pytest.raises(error, match=words):
        call(adata)
