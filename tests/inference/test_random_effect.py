"""The donor variance and the donors' own effects: exact null distribution, and predictions of other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.regression.tests.results as lmer_results
from scipy import stats as distributions
from statsmodels.regression.tests.results import lme_r_results as lmer

import sc_lmm as sl
from cohorts import fitted
from sc_lmm._design.model_matrix import build_design
from sc_lmm._inference.random_effect import null_distribution
from sc_lmm._model.deviance import profile, spectrum
from sc_lmm._statistics import sufficient_statistics

N_DRAWS = 100_000


def one_way(n_donors: int, n_cells: int, n_genes: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(n_donors), n_cells)
    effects = rng.normal(size=(n_donors, n_genes)) * np.linspace(0, 1, n_genes)
    Y = rng.normal(size=(donor.size, n_genes)) + effects[donor]
    return pd.DataFrame({"sample_id": pd.Categorical(donor.astype(str))}), Y, donor


def analysis_of_variance(Y: np.ndarray, donor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    groups = [Y[donor == j] for j in np.unique(donor)]
    return tuple(distributions.f_oneway(*groups))


# ------------------------------------------------------------------------- restricted likelihood ratio


@pytest.mark.parametrize(("n_donors", "n_cells"), [(4, 30), (6, 20), (30, 5)])
def test_balanced_one_way_layout_is_the_F_test_of_donors(n_donors, n_cells):
    """The ratio is 0 for F <= 1 and increases with F beyond, so both have the same p-values."""
    obs, Y, donor = one_way(n_donors, n_cells, 300)
    table = fitted(Y, obs, "~ 1 + (1 | sample_id)").test("(1 | sample_id)").table
    F, exact = analysis_of_variance(Y, donor)
    stat, pval = table["lrt"].to_numpy(), table["pvals"].to_numpy()
    np.testing.assert_array_equal(stat > 1e-12, F > 1)
    np.testing.assert_array_equal(pval[F <= 1], 1.0)
    order = np.argsort(F[F > 1])
    assert (np.diff(stat[F > 1][order]) > 0).all()
    common = (F > 1) & (exact > 0.01)
    error = np.sqrt(exact * (1 - exact) / N_DRAWS)[common]
    assert (np.abs(pval - exact)[common] < 4.5 * error).all()
    # The tail is extrapolated: its logarithm is held to a tenth, down to what 20,000 genes can call.
    rare = (exact < 0.01) & (exact > 1e-12)
    assert rare.sum() > 20
    np.testing.assert_allclose(np.log(pval[rare]), np.log(exact[rare]), rtol=0.1)


@pytest.mark.parametrize("n_donors", [3, 6, 50])
def test_share_of_zeros_in_the_null_distribution(n_donors):
    obs, Y, _ = one_way(n_donors, 12, 2)
    stats = sufficient_statistics(Y, build_design("~ 1 + (1 | sample_id)", obs))
    draws = null_distribution(profile(stats, spectrum(stats, reml=True)), seed=1)
    exact = distributions.f.cdf(1, n_donors - 1, 11 * n_donors)
    np.testing.assert_allclose((draws <= 1e-12).mean(), exact, atol=4 * np.sqrt(0.25 / N_DRAWS))
    assert (draws >= 0).all()
    assert (np.diff(draws) >= 0).all()


def test_many_donors_have_the_mixture_of_chi_squares():
    """Self & Liang 1987: half of the distribution at 0, half chi-square with 1 df."""
    obs, Y, _ = one_way(800, 4, 1)
    stats = sufficient_statistics(Y, build_design("~ 1 + (1 | sample_id)", obs))
    draws = null_distribution(profile(stats, spectrum(stats, reml=True)), seed=0, n_draws=10_000)
    np.testing.assert_allclose((draws <= 1e-12).mean(), 0.5, atol=0.03)
    for q in (1.0, 2.706, 3.841):
        np.testing.assert_allclose((draws > q).mean(), distributions.chi2.sf(q, 1) / 2, atol=0.012)


def test_null_distribution_is_that_of_simulated_cells():
    """Unbalanced, with covariates: genes without a donor effect have uniform p-values, apart from those at 1."""
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(7), [3, 5, 6, 10, 15, 30, 60])
    obs = pd.DataFrame({"sample_id": pd.Categorical(donor.astype(str)), "x": rng.normal(size=donor.size) + donor})
    obs["diagnosis"] = np.where(donor % 2, "case", "control")
    Y = rng.normal(size=(donor.size, 4000))
    pval = fitted(Y, obs, "~ x + diagnosis + (1 | sample_id)").test("(1 | sample_id)").table["pvals"].to_numpy()
    for alpha in (0.01, 0.05, 0.1, 0.2):
        np.testing.assert_allclose((pval < alpha).mean(), alpha, atol=4 * np.sqrt(alpha / 4000))
    assert pval.max() == 1.0


def test_ratio_is_twice_the_difference_from_ordinary_regression():
    obs, Y, donor = one_way(5, 9, 8, seed=3)
    obs["x"] = np.random.default_rng(1).normal(size=donor.size)
    fit = fitted(Y, obs, "~ x + (1 | sample_id)")
    table = fit.test("(1 | sample_id)").table
    X = np.column_stack([np.ones(donor.size), obs["x"]])
    rss = np.linalg.lstsq(X, Y, rcond=None)[1]
    n_p = donor.size - 2
    ordinary = n_p * (np.log(2 * np.pi * rss / n_p) + 1) + np.linalg.slogdet(X.T @ X)[1]
    np.testing.assert_allclose(table["lrt"], np.maximum(ordinary - fit.reml.deviance, 0), atol=1e-9)
    np.testing.assert_allclose(table["loglik_null"], -ordinary / 2, rtol=1e-10)


def test_p_values_are_seeded_ordered_and_not_zero_in_log_space():
    obs, Y, _ = one_way(20, 50, 40, seed=2)
    Y[:, -1] += np.repeat(np.random.default_rng(3).normal(0, 1e3, 20), 50)
    fit = fitted(Y, obs, "~ 1 + (1 | sample_id)")
    table, again = fit.test("(1 | sample_id)").table, fit.test("(1|sample_id)").table
    pd.testing.assert_frame_equal(table, again)
    other = fit.test("(1 | sample_id)", seed=1).table
    assert not np.array_equal(table["pvals"], other["pvals"])
    ordered = table.sort_values("lrt")
    assert (np.diff(ordered["log10_pvals"]) <= 0).all()
    assert table["pvals"].iloc[-1] == 0
    assert np.isfinite(table["log10_pvals"].iloc[-1])


def test_genes_without_a_fit_have_no_p_value_and_no_warning():
    obs, Y, donor = one_way(5, 9, 4)
    Y[:, 1], Y[:, 2] = 1.0, donor
    table = fitted(Y, obs, "~ 1 + (1 | sample_id)").test("(1 | sample_id)").table
    assert table["pvals"].isna().tolist() == [False, True, True, False]


# -------------------------------------------------------------------------------------- random effects


def cohort(seed: int, mean: float):
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(6), [2, 4, 5, 8, 9, 20])
    obs = pd.DataFrame(
        {
            "sample_id": pd.Categorical(donor.astype(str)),
            "x": rng.normal(3, 2, donor.size),
            "diagnosis": np.where(donor % 2, "case", "control"),
        }
    )
    Y = rng.normal(mean, 1, (donor.size, 4)) + rng.normal(size=(6, 4))[donor] * np.array([0, 0.5, 1, 3])
    return obs, Y, donor


@pytest.mark.parametrize(
    ("formula", "mean"), [("~ x + diagnosis + (1 | sample_id)", 1000.0), ("~ 0 + x + (1 | sample_id)", 2.0)]
)
def test_predictions_by_dense_algebra(formula, mean):
    """b = G Z' V^-1 (y - X beta), var(b | y) = G - G Z' V^-1 Z G."""
    obs, Y, donor = cohort(0, mean)
    fit = fitted(Y, obs, formula)
    X = build_design(formula, obs).X
    Z = (donor[:, None] == np.arange(6)).astype(float)
    for g in range(4):
        ranef = fit.ranef(f"g{g}")
        G, s = fit.reml.sd_random[g] ** 2, fit.reml.sigma2[g]
        Vi = np.linalg.inv(G * Z @ Z.T + s * np.eye(donor.size))
        effect = G * Z.T @ Vi @ (Y[:, g] - X @ fit.reml.beta[g])
        variance = np.maximum(np.diag(G * np.eye(6) - G * Z.T @ Vi @ Z * G), 0)
        np.testing.assert_allclose(ranef["effect"], effect, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(ranef["sd"], np.sqrt(variance), rtol=1e-6, atol=1e-7)
        z = distributions.norm.ppf(0.975)
        np.testing.assert_allclose(ranef["ci_high"] - ranef["ci_low"], 2 * z * ranef["sd"], rtol=1e-10)
        assert ranef["n_cells"].tolist() == [2, 4, 5, 8, 9, 20]


def lmer_datasets() -> list[int]:
    """statsmodels' lmer data sets with one random intercept, a column of ones as the only random effect."""
    found = []
    for path in sorted(Path(next(iter(lmer_results.__path__))).glob("lme[0-9]*.csv")):
        data = pd.read_csv(path)
        random = [c for c in data if c.startswith("exog_re")]
        if len(random) == 1 and (data[random[0]] == 1).all():
            found.append(int(path.stem[3:]))
    return found


@pytest.mark.parametrize("index", lmer_datasets())
def test_predictions_are_those_of_lmer(index):
    data = pd.read_csv(Path(next(iter(lmer_results.__path__))) / f"lme{index:02d}.csv")
    fixed = " + ".join(c for c in data if c.startswith("exog_fe"))
    fit = fitted(
        data[["endog"]].to_numpy(), data.rename(columns={"groups": "sample_id"}), f"~ 0 + {fixed} + (1 | sample_id)"
    )
    ranef = fit.ranef("g0")
    # The file holds the first group, with seven digits and lmer's tolerance on theta; NaN where theta is 0.
    expected = np.ravel(getattr(lmer, f"ranef_mean_reml_drf_{index}"))
    variance = np.ravel(getattr(lmer, f"ranef_condvar_reml_drf_{index}"))
    assert expected.size == 1
    np.testing.assert_allclose(ranef["effect"].iloc[0], expected[0], rtol=5e-3, atol=1e-6)
    if np.isfinite(variance[0]):
        np.testing.assert_allclose(ranef["sd"].iloc[0] ** 2, variance[0], rtol=1e-2, atol=1e-6)


def test_there_are_lmer_datasets():
    assert len(lmer_datasets()) >= 2


def test_ranef_df_of_annotated_data_and_of_a_fitted_object():
    adata = sl.datasets.brain_cohort(n_donors=8, n_cells=400, n_genes=6)
    formula = "~ sequencing_saturation + diagnosis + (1 | sample_id)"
    gene = adata.var_names[2]
    sl.tl.lmm_de(adata, formula, "diagnosis")
    table = sl.get.ranef_df(adata, gene)
    pd.testing.assert_frame_equal(table, sl.get.ranef_df(sl.tl.lmm_fit(adata, formula), gene), rtol=1e-10)
    assert table.index.tolist() == adata.obs["sample_id"].cat.categories.astype(str).tolist()
    with pytest.raises(KeyError, match="not in adata"):
        sl.get.ranef_df(adata, "no such gene")
