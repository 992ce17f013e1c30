"""`family="nb"`: what is written, what is refused with what to type, and what reads the results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl
from sc_lmm._errors import DesignError

if TYPE_CHECKING:
    from pathlib import Path

mpl.use("Agg")
FORMULA = "~ age + diagnosis + (1 | sample_id)"


@pytest.fixture(scope="module")
def cohort() -> ad.AnnData:
    """Counts in a layer and their logarithms in X, of two diagnoses and three regions."""
    rng = np.random.default_rng(0)
    sample = np.repeat(np.arange(12), 30)
    mean = np.exp(rng.normal(0, 1, 250)) * rng.gamma(8, 1 / 8, (12, 250))
    mean[::2, :20] *= 8
    counts = rng.poisson(mean[sample]).astype(np.float64)
    obs = pd.DataFrame(
        {
            "sample_id": [f"s{j}" for j in sample],
            "diagnosis": np.where(sample % 2, "control", "case"),
            "region": np.array(["x", "y", "z"])[sample % 3],
            "age": rng.normal(60, 9, 12)[sample],
            "state": rng.choice(["rest", "active"], sample.size),
            "depth": counts.sum(axis=1),
        }
    )
    obs.index = [f"c{i}" for i in range(len(obs))]
    adata = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(250)]))
    adata.layers["counts"] = counts
    adata.X = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    adata.uns["log1p"] = {"base": None}
    return adata


def run(adata: ad.AnnData, formula: str = FORMULA, test: object = "diagnosis", **choices: object) -> ad.AnnData:
    how = {"reference": "control", "family": "nb", "layer": "counts", "copy": True, "show_progress": False, **choices}
    return sl.tl.lmm_de(adata, formula, test, **how)


def test_the_table_has_the_columns_of_counts(cohort: ad.AnnData) -> None:
    table = run(cohort).varm["lmm_de"]
    assert {"dispersion", "sd_donor"} <= set(table.columns)
    assert not {"icc", "sd_residual", "sd_sample_id"} & set(table.columns)
    np.testing.assert_allclose(table["logfoldchanges"], table["coef"] / np.log(2))
    assert (table["pvals_adj"][:20] < 0.05).mean() > 0.8 > 0.05 > (table["pvals_adj"][20:] < 0.05).mean()
    assert (np.sign(table["coef_shrunken"]) == np.sign(table["coef"])).all()
    assert table["lfsr"].between(0, 1).all()


def test_the_run_says_how_it_was_made(cohort: ad.AnnData) -> None:
    params = sl.get.lmm_de_params(run(cohort))
    assert (params["family"], params["size_factors"], params["method"]) == ("nb", "median-ratio", "lrt")
    assert params["moderate"]
    assert sl.get.lmm_de_params(run(cohort, size_factors="depth"))["size_factors"] == "depth"


def test_results_survive_a_file_and_feed_every_reader(cohort: ad.AnnData, tmp_path: Path) -> None:
    import scanpy as sc

    run(cohort).write_h5ad(tmp_path / "counts.h5ad")
    adata = ad.read_h5ad(tmp_path / "counts.h5ad")
    assert sl.get.lmm_de_df(adata)["log10_pvals"].is_monotonic_increasing
    assert sc.pl.rank_genes_groups(adata, key="lmm_de", show=False) is not None
    for draw in (sl.pl.volcano, sl.pl.dotplot, lambda a: sl.pl.donor_means(a, ["g0", "g1"])):
        draw(adata)
        plt.close("all")
    assert "Poisson" in str(sl.get.lmm_de_equation(adata))
    fit = sl.tl.lmm_fit(cohort, FORMULA, reference="control", family="nb", layer="counts", show_progress=False)
    pd.testing.assert_frame_equal(sl.get.ranef_df(adata, "g3"), fit.ranef("g3"), rtol=1e-6)


def test_joint_tests_contrasts_and_dropped_terms(cohort: ad.AnnData) -> None:
    formula = "~ region + diagnosis + (1 | sample_id)"
    adata = run(cohort, formula, "region", reference={"diagnosis": "control"})
    assert list(adata.uns["lmm_de"]["comparisons"].index) == ["region", "y", "z"]
    assert (adata.varm["lmm_de"]["df"] == 2).all()
    assert adata.varm["lmm_de"]["coef"].isna().all()
    fit = sl.tl.lmm_fit(cohort, formula, family="nb", layer="counts", show_progress=False)
    levels, contrast = fit.test("region").tables, fit.contrast("cond(region='z') - cond(region='y')").table
    np.testing.assert_allclose(contrast["coef"], levels["z"]["coef"] - levels["y"]["coef"], atol=1e-6)
    fewer = fit.drop("region")
    assert fewer.coding.coef_names == ("Intercept", "diagnosis[T.control]")
    plain = sl.tl.lmm_fit(cohort, "~ diagnosis + (1 | sample_id)", family="nb", layer="counts", show_progress=False)
    np.testing.assert_allclose(
        fewer.test("diagnosis").table["pvals"], plain.test("diagnosis").table["pvals"], rtol=1e-6
    )


def test_cell_types_are_read_once_and_are_what_their_cells_are_alone(cohort: ad.AnnData) -> None:
    adata = run(cohort, groupby="state", min_pct=0.01)
    assert list(adata.uns["lmm_de"]["comparisons"].index) == ["active", "rest"]
    alone = run(cohort[cohort.obs["state"] == "rest"].copy())
    table = sl.get.lmm_de_df(adata, "rest", sort=False)
    np.testing.assert_allclose(table["pvals"], alone.varm["lmm_de"]["pvals"], rtol=1e-9)
    fits = sl.tl.lmm_fit(cohort, FORMULA, groupby="state", family="nb", layer="counts", show_progress=False)
    assert "negative binomial" in repr(fits["rest"])
    assert {"pvals_adj_global", "dispersion"} <= set(fits.test("diagnosis").tables["rest"].columns)
    of_cells = run(cohort, groupby="state", size_factors="depth")
    alone = run(cohort[cohort.obs["state"] == "rest"].copy(), size_factors="depth")
    np.testing.assert_allclose(of_cells.varm["lmm_de_rest"]["pvals"], alone.varm["lmm_de"]["pvals"], rtol=1e-9)


def test_a_fit_is_saved_and_says_what_it_is(cohort: ad.AnnData, tmp_path: Path) -> None:
    fit = sl.tl.lmm_fit(cohort, FORMULA, family="nb", layer="counts", show_progress=False)
    fit.save(tmp_path / "fit")
    again = type(fit).load(tmp_path / "fit")
    pd.testing.assert_frame_equal(again.test("diagnosis").table, fit.test("diagnosis").table)
    assert "negative binomial" in repr(fit)
    assert "dispersion" in repr(fit.gene("g0"))
    assert fit.gene("g0").fixed.shape == (3, 3)
    assert "moderated" in repr(fit.test("diagnosis"))
    with pytest.raises(KeyError, match="not among the 250"):
        fit.gene("nothing")
    with pytest.raises(TypeError, match="no pilot"):
        sl.tl.power(fit, test="diagnosis", effect=0.3)


def test_few_genes_have_their_own_dispersions(cohort: ad.AnnData) -> None:
    few = cohort[:, :30].copy()
    adata = run(few, size_factors="depth")
    assert not sl.get.lmm_de_params(adata)["moderate"]
    assert sl.get.lmm_de_params(run(few, size_factors="depth", moderate=True))["moderate"]
    with pytest.raises(ValueError, match="at least 20 genes"):
        run(cohort[:, :10].copy(), size_factors="depth", moderate=True)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"layer": None}, "Name the layer"),
        ({"family": "poisson"}, "family='poisson' is unknown"),
        ({"weights": "depth"}, "has no meaning for family='nb'"),
        ({"method": "satterthwaite"}, "family='nb' has method='lrt'"),
        ({"calibrate": False}, "always corrected"),
        ({"reml": True}, "needs maximum likelihood"),
        ({"offset": "age", "size_factors": "depth"}, "Give one of them"),
        ({"size_factors": "diagnosis"}, "must be a column of numbers"),
        ({"family": "gaussian", "size_factors": "depth"}, "Type family='nb'"),
        ({"family": "gaussian", "offset": "age"}, "Type family='nb'"),
    ],
)
def test_what_has_no_meaning_is_refused(cohort: ad.AnnData, choices: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(cohort, **choices)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_size_factors_must_be_above_zero(cohort: ad.AnnData, value: float) -> None:
    adata = cohort.copy()
    adata.obs["s"] = 1.0
    adata.obs.loc["c3", "s"] = value
    with pytest.raises(ValueError, match="in 1 cells"):
        run(adata, size_factors="s")


def test_a_column_that_does_not_exist_is_named(cohort: ad.AnnData) -> None:
    with pytest.raises(KeyError, match=r"'dept' is not a column.*Did you mean 'depth'"):
        run(cohort, size_factors="dept")
    with pytest.raises(KeyError, match="offset='nothing'"):
        run(cohort, offset="nothing")


def test_terms_within_donors_are_refused_with_a_way(cohort: ad.AnnData) -> None:
    with pytest.raises(DesignError, match=r"'depth' is not.*Leave 'depth' out"):
        run(cohort, "~ depth + diagnosis + (1 | sample_id)")
    with pytest.raises(DesignError, match=r"~ sample_id \+ state \+ \(1 \| sample\)"):
        run(cohort, "~ state + (1 | sample_id)", "state", reference="rest")
    paired = cohort.copy()
    paired.obs["sample"] = paired.obs["sample_id"] + " " + paired.obs["state"]
    table = run(paired, "~ sample_id + state + (1 | sample)", "state", reference="rest").varm["lmm_de"]
    assert table["pvals"].notna().all()


def test_the_random_term_is_not_tested(cohort: ad.AnnData) -> None:
    with pytest.raises(DesignError, match="sd_donor"):
        run(cohort, test="(1 | sample_id)")


def test_donors_without_counts_and_designs_without_spare_donors(cohort: ad.AnnData) -> None:
    adata = cohort.copy()
    adata.layers["counts"][(adata.obs["sample_id"] == "s4").to_numpy()] = 0
    with pytest.raises(DesignError, match="'s4' has no counts"):
        run(adata, size_factors="total")
    fit = sl.tl.lmm_fit(adata, FORMULA, family="nb", layer="counts", size_factors="depth", show_progress=False)
    assert np.isfinite(fit.test("diagnosis").table["pvals"]).all()
    two = cohort[cohort.obs["sample_id"].isin(["s0", "s1"])].copy()
    with pytest.raises(DesignError):
        run(two, "~ diagnosis + (1 | sample_id)")


def test_counts_are_whole_everywhere(cohort: ad.AnnData) -> None:
    from scipy import sparse

    for value, dtype in ((0.5, float), (-1.0, float), (np.nan, float)):
        adata = cohort.copy()
        counts = adata.layers["counts"].astype(dtype)
        counts[-1, 7] = value
        for layer in (counts, sparse.csr_matrix(counts), sparse.csc_matrix(counts)):
            adata.layers["counts"] = layer
            with pytest.raises(ValueError, match="negative"):
                run(adata)


def test_genes_without_counts_are_left_blank(cohort: ad.AnnData) -> None:
    adata = cohort.copy()
    adata.layers["counts"][:, 9] = 0
    adata.layers["counts"][:, 10] = 0
    adata.layers["counts"][3, 10] = 50  # one donor has all
    table = run(adata).varm["lmm_de"]
    assert table["status"].iloc[9] == "constant"
    assert table.iloc[9].drop(["status", "pct_expressed"]).isna().all()
    assert np.isfinite(table["pvals"].iloc[10])
    assert table["pvals"].iloc[10] > 0.05
    assert table["dispersion"].iloc[10] > 1


def test_a_call_that_fails_leaves_adata_alone(cohort: ad.AnnData) -> None:
    adata = cohort.copy()
    with pytest.raises(ValueError, match="counts"):
        sl.tl.lmm_de(adata, FORMULA, "diagnosis", family="nb")
    assert "lmm_de" not in adata.uns
    assert "lmm_de" not in adata.varm


def test_both_families_agree_where_they_should(cohort: ad.AnnData) -> None:
    """Many cells, strong effects: the same genes, the same signs."""
    counts, expression = run(cohort).varm["lmm_de"], run(cohort, family="gaussian", layer=None).varm["lmm_de"]
    found = [set(t.index[t["pvals_adj"] < 0.05]) for t in (counts, expression)]
    assert len(found[0] & found[1]) > 0.8 * min(map(len, found))
    shared = list(found[0] & found[1])
    assert (np.sign(counts.loc[shared, "coef"]) == np.sign(expression.loc[shared, "coef"])).all()
