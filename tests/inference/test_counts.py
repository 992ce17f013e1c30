"""Dispersions learned from all genes, the averaged ratio of counts, its level, and what no result depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import special, stats

import sc_lmm as sl
from sc_lmm._design import Hypothesis
from sc_lmm._inference.count_tests import answer_counts
from sc_lmm._inference.dispersion import learned_dispersions, own_dispersions, support_of
from sc_lmm._model import corrected_ratios
from sc_lmm._statistics import CountStatistics

REFERENCE = Path(__file__).parents[1] / "reference"
GROUP = Hypothesis("group", np.array([[0.0, 1.0]]))


def cohort(n_donors: int, n_genes: int, seed: int = 0, spread: float = 0.3, effect: float = 0.0) -> CountStatistics:
    """Sums of genes whose dispersions and means vary, of two groups in turn; a tenth of the genes have the effect."""
    rng = np.random.default_rng(seed)
    exposure, group = np.exp(rng.normal(0, spread, n_donors)), np.arange(n_donors) % 2
    mean, phi = np.exp(rng.normal(3, 1.5, n_genes))[:, None], np.exp(rng.normal(-2, 0.7, n_genes))[:, None]
    changed = np.arange(n_genes)[:, None] % 10 == 0
    factor = rng.gamma(1 / phi, phi, (n_genes, n_donors))
    sums = rng.poisson(mean * exposure * factor * np.exp(effect * changed * group)).astype(float)
    return statistics(sums[sums.any(axis=1)], np.column_stack([np.ones(n_donors), group]), exposure)


def statistics(sums: np.ndarray, rows: np.ndarray, exposure: np.ndarray, sizes: float = 300.0) -> CountStatistics:
    nothing = np.zeros((len(exposure), 1))
    counted = np.full(len(sums), 10)
    return CountStatistics(sums, exposure, np.full(len(exposure), sizes), nothing, nothing, counted).with_columns(rows)


def test_the_p_value_is_the_average_of_corrected_ratios() -> None:
    counts = cohort(8, 300, effect=1.5)
    found = learned_dispersions(counts)
    null = counts.restrict(GROUP.L)
    ratio, factor = corrected_ratios(counts, null, found.points, np.ones(found.weights.shape, dtype=bool))
    expected = (found.weights * stats.chi2.sf(ratio / factor, 1)).sum(axis=1)
    pval = answer_counts(counts, found, GROUP, conf_level=None).test.pval
    np.testing.assert_allclose(pval, expected, rtol=2e-4)
    np.testing.assert_allclose(pval[expected < 0.02], expected[expected < 0.02], rtol=1e-9)


def test_estimates_are_those_of_a_mixture_of_normals() -> None:
    counts = cohort(8, 300)
    found = learned_dispersions(counts)
    answer = answer_counts(counts, found, GROUP, conf_level=0.9)
    row = counts.basis[1]
    for g in (0, 7, 100):
        mu = counts.exposure * np.exp(found.points.beta[g] @ counts.X.T)
        w = mu / (1 + found.points.phi[g][:, None] * mu)
        information = np.einsum("kj,ja,jb->kab", w, counts.X, counts.X)
        sd = np.sqrt(np.einsum("a,kab,b->k", row, np.linalg.inv(information), row))
        coef, weights = found.points.beta[g] @ row, found.weights[g]
        mean = weights @ coef
        np.testing.assert_allclose(answer.test.coef[g], mean, atol=1e-6)
        np.testing.assert_allclose(answer.test.se[g] ** 2, weights @ (sd**2 + (coef - mean) ** 2), rtol=1e-5)
        for limit, share in ((answer.ci_low[g], 0.05), (answer.ci_high[g], 0.95)):
            np.testing.assert_allclose(weights @ stats.norm.cdf((limit - coef) / sd), share, atol=1e-5)


def test_a_genes_own_dispersion_is_where_its_adjusted_likelihood_is_largest() -> None:
    counts = cohort(12, 30)
    found = own_dispersions(counts)
    rows = counts.X @ np.linalg.inv(counts.basis)
    for g in np.flatnonzero((found.mean > 0.01) & (found.mean < 3))[:5]:
        assert adjusted(counts.sums[g], rows, counts.exposure, found.mean[g]) >= max(
            adjusted(counts.sums[g], rows, counts.exposure, found.mean[g] * near) for near in (0.98, 1.02)
        )


def adjusted(y: np.ndarray, rows: np.ndarray, exposure: np.ndarray, phi: float) -> float:
    """Adjusted profile likelihood by statsmodels."""
    fit = sm.GLM(y, rows, family=sm.families.NegativeBinomial(alpha=phi), offset=np.log(exposure)).fit()
    return float(fit.llf + np.linalg.slogdet(fit.cov_params())[1] / 2)


def test_without_learning_the_ratio_is_referred_to_f() -> None:
    counts = cohort(8, 50)
    test = answer_counts(counts, own_dispersions(counts), GROUP, conf_level=None).test
    np.testing.assert_allclose(test.pval, stats.f.sf(test.stat / test.factor, 1, 6), rtol=1e-9)
    np.testing.assert_allclose(test.log_pval_chi2, stats.chi2.logsf(test.stat, 1), rtol=1e-9)


@pytest.mark.parametrize("n_donors", [4, 6, 8, 12])
def test_null_genes_are_rejected_at_the_level(n_donors: int) -> None:
    counts = cohort(n_donors, 4000, seed=n_donors)
    pval = answer_counts(counts, learned_dispersions(counts), GROUP, conf_level=None).test.pval
    assert 0.041 < (pval < 0.05).mean() < 0.06
    assert (pval < 0.001).mean() < 0.0025
    few = counts.genes(slice(0, 800))
    assert (answer_counts(few, own_dispersions(few), GROUP, conf_level=None).test.pval < 0.05).mean() < 0.065


def test_what_is_learned_is_what_was_drawn() -> None:
    """Of genes with one dispersion the posterior is near it, and donors of few cells are found to vary more."""
    rng = np.random.default_rng(1)
    sizes = np.tile([20.0, 1000.0], 10)
    phi = 0.2 * (1 + 100 / sizes)
    sums = rng.poisson(200 * rng.gamma(1 / phi, phi, (1500, 20))).astype(float)
    counts = replace(statistics(sums, np.ones((20, 1)), np.ones(20)), sizes=sizes)
    found = learned_dispersions(counts)
    assert found.kappa in (60, 200)
    average = np.exp(np.log(phi).mean())
    assert abs(np.median(found.mean) / average - 1) < 0.1
    equal = learned_dispersions(replace(counts, sums=rng.poisson(200 * rng.gamma(5, 0.2, (1500, 20))).astype(float)))
    assert equal.kappa == 0


def test_the_support_is_finer_where_donors_tell_more() -> None:
    assert support_of(8).size == support_of(12).size < support_of(100).size
    assert support_of(8)[[0, 1, -1]].tolist() == pytest.approx([0, 0.002, 96])


def test_the_standard_deviation_between_donors_is_of_logarithms() -> None:
    found = own_dispersions(cohort(12, 40))
    draws = np.log(np.random.default_rng(2).gamma(1 / 0.4, 0.4, 400_000))
    at = replace(found, points=replace(found.points, phi=np.full((len(found.points.phi), 1), 0.4)))
    np.testing.assert_allclose(at.sd, draws.std(), rtol=5e-3)
    poisson = replace(found, points=replace(found.points, phi=np.zeros((len(found.points.phi), 1))))
    assert (poisson.sd == 0).all()


# One read, many layouts, and what no result may depend on.


def counted(n_donors: int = 8, n_genes: int = 260, seed: int = 0) -> ad.AnnData:
    """Cells of donors of two groups, a tenth of the genes changed."""
    rng = np.random.default_rng(seed)
    donor = np.sort(rng.integers(0, n_donors, 40 * n_donors))
    depth, phi = rng.lognormal(0, 0.4, donor.size), 0.1
    mean = np.exp(rng.normal(-0.5, 1, n_genes)) * rng.gamma(1 / phi, phi, (n_donors, n_genes))
    mean[1::2, ::10] *= 4
    X = rng.poisson(depth[:, None] * mean[donor]).astype(np.float64)
    obs = pd.DataFrame({"donor": [f"d{j}" for j in donor], "group": np.where(donor % 2, "b", "a"), "depth": depth})
    obs.index = [f"c{i}" for i in range(len(obs))]
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))


def table_of(adata: ad.AnnData, **choices: object) -> pd.DataFrame:
    how = {"family": "nb", "show_progress": False, "copy": True, **choices}
    return sl.tl.lmm_de(adata, "~ group + (1 | donor)", "group", **how).varm["lmm_de"]


NUMBERS = ["coef", "se", "ci_low", "ci_high", "coef_shrunken", "lfsr", "log10_pvals", "lrt", "dispersion", "sd_donor"]


def assert_same(one: pd.DataFrame, other: pd.DataFrame, rtol: float = 1e-8) -> None:
    np.testing.assert_allclose(one[NUMBERS], other[NUMBERS], rtol=rtol, atol=1e-9)


def test_the_scale_of_size_factors_does_not_matter() -> None:
    adata = counted()
    adata.obs["scaled"], adata.obs["log"] = 1e4 * adata.obs["depth"], np.log(adata.obs["depth"])
    plain = table_of(adata, size_factors="depth")
    assert_same(table_of(adata, size_factors="scaled"), plain, rtol=1e-6)
    assert_same(table_of(adata, offset="log"), plain)


def test_the_order_of_genes_and_cells_does_not_matter() -> None:
    adata, rng = counted(), np.random.default_rng(3)
    genes, cells = rng.permutation(adata.n_vars), rng.permutation(adata.n_obs)
    moved = table_of(adata[cells, genes].copy())
    assert_same(moved.loc[adata.var_names], table_of(adata), rtol=1e-6)


def test_workers_and_layouts_do_not_matter(tmp_path: Path) -> None:
    from scipy import sparse

    adata = counted()
    plain = table_of(adata)
    pd.testing.assert_frame_equal(table_of(adata, n_jobs=2), plain)
    for layout in (sparse.csr_matrix, sparse.csc_array, np.asfortranarray, lambda X: X.astype(np.int32)):
        other = adata.copy()
        other.X = layout(adata.X)
        pd.testing.assert_frame_equal(table_of(other), plain)
    adata.X = sparse.csr_matrix(adata.X)
    adata.write_h5ad(tmp_path / "counts.h5ad")
    backed = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    how = {"family": "nb", "show_progress": False}
    on_disk = sl.tl.lmm_fit(backed, "~ group + (1 | donor)", **how).test("group").table
    pd.testing.assert_frame_equal(on_disk, plain, check_names=False)


def test_size_factors_are_of_all_genes_whatever_is_tested() -> None:
    adata = counted()
    mask = np.arange(adata.n_vars) % 2 == 0
    fits = [
        sl.tl.lmm_fit(adata, "~ group + (1 | donor)", family="nb", mask_var=m, size_factors=how, show_progress=False)
        for how in ("total", "median-ratio")
        for m in (None, mask)
    ]
    np.testing.assert_array_equal(fits[0].stats.exposure, fits[1].stats.exposure)
    np.testing.assert_array_equal(fits[2].stats.exposure, fits[3].stats.exposure)
    np.testing.assert_array_equal(fits[3].stats.sums, fits[2].stats.sums[mask])


def test_median_ratios_are_those_of_the_definition_and_totals_total() -> None:
    adata = counted()
    sums = pd.DataFrame(adata.X, index=adata.obs["donor"]).groupby(level=0).sum()
    shared = sums.loc[:, (sums > 0).all()]
    ratio = (shared / np.exp(np.log(shared).mean())).median(axis=1)
    how = {"family": "nb", "show_progress": False}
    default, total = (
        sl.tl.lmm_fit(adata, "~ group + (1 | donor)", size_factors=s, **how).stats.exposure for s in (None, "total")
    )
    np.testing.assert_allclose(default, ratio * adata.n_obs / ratio.sum(), rtol=1e-12)
    np.testing.assert_allclose(total, sums.sum(axis=1) * adata.n_obs / adata.X.sum(), rtol=1e-12)


def test_a_group_without_counts_has_a_finite_test_and_effect() -> None:
    adata = counted()
    adata.X[(adata.obs["group"] == "b").to_numpy(), 5] = 0
    table = table_of(adata)
    assert table["status"].iloc[5] == "separated"
    assert (table["status"].drop(index="g5") == "ok").all()
    assert np.isfinite(table[NUMBERS].iloc[5]).all()
    assert table["coef"].iloc[5] < -2
    assert abs(table["coef_shrunken"].iloc[5]) <= abs(table["coef"].iloc[5]) < 15


def test_factors_of_donors_are_gamma_given_their_counts() -> None:
    adata = counted()
    fit = sl.tl.lmm_fit(adata, "~ group + (1 | donor)", family="nb", show_progress=False)
    found, g = fit.learned, 3
    mu = fit.stats.exposure * np.exp(found.points.beta[g] @ fit.stats.X.T)
    phi = found.points.phi[g][1:, None] * found.points.relative  # the Poisson point has no factors
    mean = special.digamma(1 / phi + fit.stats.sums[g]) - np.log(1 / phi + mu[1:])
    np.testing.assert_allclose(fit.ranef("g3")["effect"], found.weights[g, 1:] @ mean, rtol=1e-9)
    assert (fit.ranef("g3")["sd"] > 0).all()


@pytest.mark.parametrize(("name", "near"), [("C60", 0.6), ("C60sub", 0.75)])
def test_effects_are_those_of_glmmtmb_and_nebula(name: str, near: float) -> None:
    """Their models add dispersion of cells (and glmmTMB's donors are log-normal), so most genes agree and none is far."""
    adata = ad.read_h5ad(REFERENCE / f"{name}.h5ad")
    adata.obs["ageS"] = (adata.obs["age"] - adata.obs["age"].mean()) / adata.obs["age"].std()
    how = {"family": "nb", "layer": "counts", "size_factors": "libsize", "show_progress": False}
    fit = sl.tl.lmm_fit(adata, "~ sex + ageS + diagnosis + (1 | sample_id)", **how)
    table = fit.test("diagnosis").table
    for program, coef, converged in (("glmmTMB", "beta_diagnosis", 0), ("nebula_HL", "logFC_diagnosis", 1)):
        theirs = pd.read_csv(REFERENCE / f"ref_NB_{name}_{program}.csv").set_index("gene")
        theirs = theirs[theirs.filter(regex="^conv").iloc[:, 0] == converged]
        away = ((table["coef"] - theirs[coef]) / theirs["se_diagnosis"]).dropna().abs()
        assert (away < 0.1).mean() >= near
        assert away.max() < 0.4
