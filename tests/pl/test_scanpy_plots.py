"""scanpy's own plots, getters and filters run on the results of lmm_de, also after they were written and read back."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData, read_h5ad, read_zarr
from matplotlib import pyplot as plt

import sc_lmm as sl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

mpl.use("agg")

# None of these is about what lmm_de stores.
pytestmark = [
    # what the design report cautions of is not the matter here
    pytest.mark.filterwarnings("ignore:sequencing_saturation goes along"),
    # scanpy 1.11 and 1.12, anndata 0.13: written for pandas 2, run with pandas 3
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame"),
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated"),
    # scanpy's dendrogram says so for every matrix with more than 50 genes and no PCA
    pytest.mark.filterwarnings("ignore:You.re trying to run this on"),
    # rank_genes_groups_violin of scanpy 1.11, for any result
    pytest.mark.filterwarnings("ignore:set_ticklabels.. should only be used with a fixed number of ticks"),
    # anndata 0.12 announces another default for zarr
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default"),
]

STAGES = ["none", "T/NK cell", "a b"]  # names that a file format or a field name might not bear
MASKED = [3, 7, 20]
PLOTS = ["", "_dotplot", "_heatmap", "_matrixplot", "_stacked_violin", "_tracksplot", "_violin"]


@cache
def cohort(test: str, *, masked: bool) -> AnnData:
    """A small cohort with results in uns["lmm_de"]: of two levels (diagnosis) or three (stage)."""
    adata = sl.datasets.brain_cohort(n_donors=18, n_cells=720, n_genes=60)
    donor = adata.obs["sample_id"].cat.codes.to_numpy()
    adata.obs["stage"] = pd.Categorical(np.array(STAGES)[donor % 3], categories=STAGES)
    mask = np.ones(adata.n_vars, dtype=bool)
    mask[MASKED] = not masked
    sl.tl.lmm_de(adata, f"~ sequencing_saturation + {test} + (1 | sample_id)", test=test, mask_var=mask)
    return adata


@pytest.fixture(params=[("diagnosis", False), ("stage", False), ("stage", True)], ids=str)
def adata(request: pytest.FixtureRequest) -> AnnData:
    test, masked = request.param
    return cohort(test, masked=masked).copy()


@pytest.fixture
def written() -> AnnData:
    return cohort("stage", masked=True).copy()


@pytest.fixture(scope="module", params=["h5ad", "zarr"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AnnData:
    return round_trip(cohort("stage", masked=True), request.param, tmp_path_factory.mktemp("stored"))


@pytest.fixture
def read_back(stored: AnnData) -> AnnData:
    return stored.copy()


def round_trip(adata: AnnData, file_format: str, folder: Path) -> AnnData:
    path = folder / f"adata.{file_format}"
    getattr(adata, f"write_{file_format}")(path)
    return {"h5ad": read_h5ad, "zarr": read_zarr}[file_format](path)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def groups(adata: AnnData) -> list[str]:
    return list(adata.uns["lmm_de"]["names"].dtype.names)


def draw(adata: AnnData, plot: str) -> None:
    function = getattr(sc.pl, f"rank_genes_groups{plot}")
    function(adata, key="lmm_de", n_genes=3, show=False)
    assert plt.get_fignums() != []


@pytest.mark.parametrize("plot", PLOTS)
def test_plots(adata: AnnData, plot: str) -> None:
    draw(adata, plot)


@pytest.mark.parametrize("plot", PLOTS)
def test_plots_after_reading_back(read_back: AnnData, plot: str) -> None:
    draw(read_back, plot)


def test_dotplot_shows_top_genes_of_every_level(adata: AnnData) -> None:
    plot = sc.pl.rank_genes_groups_dotplot(adata, key="lmm_de", n_genes=2, return_fig=True)
    top = [sl.get.lmm_de_df(adata, group).nlargest(2, "scores")["names"].tolist() for group in groups(adata)]
    assert list(plot.var_names) == sum(top, [])


@pytest.mark.parametrize("values", ["scores", "logfoldchanges", "log10_pvals_adj"])
def test_scanpy_cannot_colour_a_dotplot_with_a_reference(adata: AnnData, values: str) -> None:
    """Why sc_lmm.pl.dotplot exists; once scanpy can, the sentences about it should go."""
    with pytest.raises(KeyError, match="not in index"):
        sc.pl.rank_genes_groups_dotplot(adata, key="lmm_de", n_genes=2, values_to_plot=values, show=False)


def test_gene_symbols(adata: AnnData) -> None:
    adata.var["symbol"] = [f"symbol_{k}" for k in range(adata.n_vars)]
    plot = sc.pl.rank_genes_groups_dotplot(adata, key="lmm_de", n_genes=2, gene_symbols="symbol", return_fig=True)
    assert all(name.startswith("symbol_") for name in plot.var_names)


def test_df_equals_varm(adata: AnnData) -> None:
    for group in groups(adata):
        theirs = sc.get.rank_genes_groups_df(adata, group, key="lmm_de").set_index("names")
        ours = sl.get.lmm_de_df(adata, group).set_index("names").loc[theirs.index]
        for column in ("scores", "logfoldchanges", "pvals", "pvals_adj"):
            rtol = 1e-6 if column in ("scores", "logfoldchanges") else 0  # scanpy's dtype, float32
            np.testing.assert_allclose(theirs[column], ours[column], rtol=rtol)


def test_df_of_all_groups_and_with_cutoffs(adata: AnnData) -> None:
    everything = sc.get.rank_genes_groups_df(adata, None, key="lmm_de")
    assert len(everything) == adata.n_vars * len(groups(adata))
    up = sc.get.rank_genes_groups_df(adata, groups(adata)[0], key="lmm_de", pval_cutoff=0.5, log2fc_min=0)
    assert (up["pvals_adj"] < 0.5).all()
    assert (up["logfoldchanges"] > 0).all()


def test_genes_without_result_come_last(written: AnnData) -> None:
    for group in groups(written):
        table = sc.get.rank_genes_groups_df(written, group, key="lmm_de")
        assert sorted(table["names"].tail(len(MASKED))) == sorted(written.var_names[MASKED])
        assert table["scores"].isna().to_numpy().nonzero()[0].tolist() == list(range(57, 60))


def test_filter(adata: AnnData) -> None:
    sc.tl.filter_rank_genes_groups(
        adata,
        key="lmm_de",
        key_added="filtered",
        min_in_group_fraction=0.2,
        min_fold_change=0,
        max_out_group_fraction=1,
    )
    kept = pd.DataFrame(adata.uns["filtered"]["names"])
    assert list(kept.columns) == groups(adata)
    assert 0 < int(kept.notna().sum().sum()) < kept.size
    sc.pl.rank_genes_groups_dotplot(adata, key="filtered", n_genes=2, show=False)


def test_round_trip_of_results(written: AnnData, read_back: AnnData) -> None:
    assert set(read_back.varm) == set(written.varm) == {"lmm_de", "lmm_de_T_NK_cell", "lmm_de_a_b"}
    for name, table in written.varm.items():
        pd.testing.assert_frame_equal(read_back.varm[name], table, check_index_type=False, check_column_type=False)
    for name in ("names", "scores", "logfoldchanges", "pvals", "pvals_adj"):
        before, after = written.uns["lmm_de"][name], read_back.uns["lmm_de"][name]
        assert after.dtype.names == before.dtype.names == tuple(STAGES[1:])
        for group in before.dtype.names:
            np.testing.assert_array_equal(after[group], before[group])


def test_round_trip_of_everything_that_is_read(written: AnnData, read_back: AnnData) -> None:
    assert sl.get.lmm_de_params(read_back)["comparisons"] == ["stage", "T/NK cell", "a b"]
    before, after = sl.get.lmm_de_params(written), sl.get.lmm_de_params(read_back)
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert str(sl.get.lmm_de_equation(read_back)) == str(sl.get.lmm_de_equation(written))
    for comparison in before["comparisons"]:
        pd.testing.assert_frame_equal(
            sl.get.lmm_de_df(read_back, comparison), sl.get.lmm_de_df(written, comparison), check_column_type=False
        )


def test_plots_of_this_package_after_reading_back(read_back: AnnData) -> None:
    sl.pl.volcano(read_back, "T/NK cell", show=False)
    sl.pl.dotplot(read_back, show=False)
    sl.pl.donor_means(read_back, show=False)


def test_run_again_after_reading_back(read_back: AnnData) -> None:
    """A second run under the same key replaces what the file held."""
    sl.tl.lmm_de(read_back, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    assert set(read_back.varm) == {"lmm_de"}
    assert groups(read_back) == ["Alzheimer"]
    assert sl.get.lmm_de_params(read_back)["comparisons"] == ["Alzheimer"]
