"""Tests averaged over what a variance ratio can be: exact F tests, uniform p-values, limma's moderated t, and limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions

from cohorts import donor_means, fitted
from sc_lmm._design import hypotheses_of
from sc_lmm._inference.averaged import averaged, posterior
from sc_lmm._model import GenesAtPoints, support

LIMMA = Path(__file__).parents[1] / "reference" / "limma_ebayes.csv"


def at_ratios(fit, term: str, rho: np.ndarray):
    """Genes of a fit at known ratios."""
    (hypothesis, *_), restricted = hypotheses_of(fit.coding, term), fit.estimates.restricted
    points = support(fit.stats, restricted.spectrum, rho, hypothesis.L)
    return GenesAtPoints(fit.stats, restricted, points).evaluate()


def answers(at, prior: np.ndarray, conf_level: float | None = None):
    prior = np.broadcast_to(prior, at.loglik.shape).copy()
    weights = posterior(at.loglik, prior)
    return averaged(at, prior, weights, conf_level=conf_level), weights


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, pd.DataFrame]:
    """Expression of 25 genes in nine donors of 4 to 30 cells, in four stages, some of them changing."""
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(9), [4, 30, 11, 7, 19, 5, 23, 8, 14])
    stage = np.array(list("abcd"))[donor % 4]
    obs = pd.DataFrame({"donor": pd.Categorical(donor.astype(str)), "stage": stage, "x": rng.normal(size=donor.size)})
    Y = rng.normal(size=(donor.size, 25)) + 0.6 * rng.normal(size=(9, 25))[donor] + rng.uniform(-3, 40, 25)
    Y += np.outer(stage == "b", rng.normal(0, 1, 25))
    return Y, obs


# ------------------------------------------------------------------------------------------- at one ratio


@pytest.mark.parametrize(
    ("formula", "term", "tested"), [("~ x + stage", "stage", [2, 3, 4]), ("~ x + stage", "x", [1])]
)
@pytest.mark.parametrize("rho", [0.0, 0.3, 20.0])
def test_one_point_is_the_exact_f_test_of_generalised_least_squares(cells, formula, term, tested, rho):
    Y, obs = cells
    fit = fitted(Y, obs, f"{formula} + (1 | donor)")
    at = at_ratios(fit, term, np.array([rho]))
    found, _ = answers(at, np.ones(1), conf_level=0.95)

    same = np.equal.outer(obs["donor"].to_numpy(), obs["donor"].to_numpy())
    root = np.linalg.inv(np.linalg.cholesky(np.eye(len(obs)) + rho * same))
    X = np.column_stack([np.ones(len(obs)), obs["x"], *(obs["stage"] == s for s in "bcd")]).astype(float)

    def rss(columns: list[int]) -> np.ndarray:
        A = root @ X[:, columns]
        return ((root @ Y - A @ np.linalg.lstsq(A, root @ Y, rcond=None)[0]) ** 2).sum(axis=0)

    everything, df, nu = list(range(5)), len(tested), len(obs) - 5
    full, null = rss(everything), rss([k for k in everything if k not in tested])
    expected = distributions.f.sf((null - full) / df / (full / nu), df, nu)
    np.testing.assert_allclose(np.exp(found.log_pval), expected, rtol=2e-9)
    np.testing.assert_allclose(at.sigma2[:, 0], full / nu, rtol=1e-10)
    if df == 1:
        A = root @ X
        beta = np.linalg.lstsq(A, root @ Y, rcond=None)[0][tested[0]]
        se = np.sqrt(full / nu * np.linalg.inv(A.T @ A)[tested[0], tested[0]])
        np.testing.assert_allclose(found.coef, beta, rtol=1e-10)
        np.testing.assert_allclose(found.se, se * np.sqrt(nu / (nu - 2)), rtol=1e-10)
        np.testing.assert_allclose(found.ci_low, beta + distributions.t.ppf(0.025, nu) * se, atol=1e-6 * se.max())


def test_without_donor_variance_it_is_the_t_test_of_cells():
    rng = np.random.default_rng(1)
    donor = np.repeat(np.arange(6), 8)
    obs = pd.DataFrame({"donor": pd.Categorical(donor.astype(str)), "group": np.where(donor < 3, "a", "b")})
    Y = rng.normal(size=(48, 40))
    found, _ = answers(at_ratios(fitted(Y, obs, "~ group + (1 | donor)"), "group", np.zeros(1)), np.ones(1))
    expected = distributions.ttest_ind(Y[donor < 3], Y[donor >= 3]).pvalue
    np.testing.assert_allclose(np.exp(found.log_pval), expected, rtol=1e-10)


def test_with_boundless_donor_variance_it_counts_donors_and_not_cells():
    """Donors of 8 cells differ by rho = 1e9: the F ratio is of donor means, its scale still pooled with that of cells."""
    rng = np.random.default_rng(2)
    means = rng.normal(size=(6, 30))
    at = at_ratios(donor_means(means, 8, 0.0), "group", np.array([1e9]))
    t = distributions.ttest_ind(means[:3], means[3:]).statistic
    np.testing.assert_allclose(at.coef[:, 0, 0] / np.sqrt(at.unscaled[0, 0, 0] * at.sigma2[:, 0] * at.dof / 4), -t)


# --------------------------------------------------------------------------------------- over several ratios


def test_p_is_uniform_where_the_prior_is_right():
    """Balanced donors and a known discrete prior: 100,000 genes, in all and where p is small."""
    rng, n_genes, n_cells = np.random.default_rng(3), 100_000, 20
    points, prior = np.array([0.0, 0.03, 0.5]), np.array([0.5, 0.3, 0.2])
    rho = rng.choice(points, n_genes, p=prior)
    sigma = np.exp(rng.normal(0, 1, n_genes))
    means = sigma * np.sqrt(rho + 1 / n_cells) * rng.standard_normal((6, n_genes))
    fit = donor_means(means, n_cells, sigma**2 * rng.chisquare(6 * (n_cells - 1), n_genes))
    at = at_ratios(fit, "group", points)
    p = np.exp(answers(at, prior)[0].log_pval)
    assert distributions.kstest(p, "uniform").statistic < 1.63 / np.sqrt(n_genes)  # the 1 % point
    for level in (0.05, 0.001):
        assert abs((p < level).mean() - level) < 3 * np.sqrt(level / n_genes)
    wrong = np.exp(answers(at, np.array([0.9, 0.1, 0.0]))[0].log_pval)
    assert distributions.kstest(wrong, "uniform").statistic > 5 / np.sqrt(n_genes)


def test_a_conjugate_prior_is_limmas_moderated_t():
    """Donor means of many cells vary by rho alone: an inverse chi-square prior on a fine grid, limma's closed form."""
    table, n_cells = pd.read_csv(LIMMA), 1e6
    df0, s0_squared = table["df0"][0], table["s0_squared"][0]
    variance = np.exp(np.linspace(np.log(1e-3), np.log(1e5), 3_000))
    density = distributions.chi2.pdf(df0 * s0_squared / variance, df0) / variance  # of log variance
    means = table.filter(like="donor").to_numpy().T
    fit = donor_means(means, int(n_cells), 6 * (n_cells - 1))
    at = at_ratios(fit, "group", variance - 1 / n_cells)
    found, weights = answers(at, density / density.sum())
    np.testing.assert_allclose(found.coef, table["coef"], rtol=1e-8)
    np.testing.assert_allclose(np.exp(found.log_pval), table["p"], rtol=1e-3)
    # The posterior mean of one over the variance is one over what limma calls the squeezed variance.
    np.testing.assert_allclose(weights @ (1 / variance), 1 / table["squeezed"], rtol=1e-3)


def test_posterior_is_bayes_rule_and_survives_underflow():
    rng = np.random.default_rng(4)
    loglik, prior = rng.normal(-4_000, 30, (50, 12)), rng.dirichlet(np.ones(12), 50)
    weights = posterior(loglik, prior)
    shifted = np.log(prior) + loglik
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    np.testing.assert_allclose(weights, shifted / shifted.sum(axis=1, keepdims=True), atol=1e-14)


def test_small_p_values_are_summed_in_logs():
    """Where tails underflow the logarithm goes on, meets the sum where both have digits, and keeps the order."""
    shifts = np.concatenate([np.linspace(0.5, 8, 40), np.linspace(10, 3_000, 60)])
    noise = np.array([0.3, -0.2, -0.1, 0.1, 0.2, -0.3])[:, None]
    means = noise + np.outer(np.arange(6) >= 3, shifts)
    fit = donor_means(means, 2_000, 6 * 1_999.0)
    at = at_ratios(fit, "group", np.array([0.0, 1e-3, 1e-2, 0.05]))
    found, weights = answers(at, np.full(4, 0.25))
    assert np.isfinite(found.log_pval).all()
    assert (np.diff(found.log_pval) < 0).all()
    assert found.log_pval[-1] < -2_000
    q = at.coef[:, 0] ** 2 / (at.unscaled[:, 0, 0] * at.sigma2)
    expected = (weights * distributions.f.sf(q, 1, at.dof)).sum(axis=1)
    plain = expected > 1e-290
    assert 5 < plain.sum() < 100
    np.testing.assert_allclose(found.log_pval[plain], np.log(expected[plain]), rtol=1e-8)


# ------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("conf_level", [0.8, 0.95, 0.999])
def test_limits_cut_off_equal_tails_of_the_mixture(cells, conf_level):
    Y, obs = cells
    fit, test = fitted(Y, obs, "~ x + stage + (1 | donor)"), "cond(stage='b') - cond(stage='a')"
    at = at_ratios(fit, test, np.array([0.0, 0.05, 0.4, 3.0, 30.0]))
    found, weights = answers(at, np.full(5, 0.2), conf_level=conf_level)
    assert (weights.max(axis=1) < 0.9).any()  # mixtures indeed
    se = np.sqrt(at.unscaled[:, 0, 0] * at.sigma2)

    def below(c: np.ndarray) -> np.ndarray:
        return (weights * distributions.t.cdf((c[:, None] - at.coef[:, 0]) / se, at.dof)).sum(axis=1)

    outside = (1 - conf_level) / 2
    np.testing.assert_allclose(below(found.ci_low), outside, rtol=1e-4)
    np.testing.assert_allclose(1 - below(found.ci_high), outside, rtol=1e-4)
    mean = (weights * at.coef[:, 0]).sum(axis=1)
    spread = (weights * (se**2 * at.dof / (at.dof - 2) + (at.coef[:, 0] - mean[:, None]) ** 2)).sum(axis=1)
    np.testing.assert_allclose(found.coef, mean, rtol=1e-6)
    np.testing.assert_allclose(found.se, np.sqrt(spread), rtol=1e-6)


@pytest.mark.parametrize("conf_level", [0.9, 0.95])
def test_an_interval_leaves_out_zero_exactly_where_p_is_small(conf_level):
    rng = np.random.default_rng(5)
    means = rng.normal(size=(8, 4_000)) * rng.choice([0.1, 1.0], 4_000) + np.outer(
        np.arange(8) >= 4, rng.normal(size=4_000)
    )
    fit = donor_means(means, 30, 8 * 29.0)
    found, _ = answers(at_ratios(fit, "group", np.array([0.0, 0.1, 1.0])), np.full(3, 1 / 3), conf_level=conf_level)
    excludes = (found.ci_low > 0) | (found.ci_high < 0)
    p = np.exp(found.log_pval)
    clear = np.abs(p / (1 - conf_level) - 1) > 1e-4  # of what the last step towards a limit leaves
    assert 0.2 < excludes.mean() < 0.8
    np.testing.assert_array_equal(excludes[clear], (p < 1 - conf_level)[clear])


def test_limits_are_left_out_where_not_asked_for_and_estimates_for_several_df(cells):
    Y, obs = cells
    fit = fitted(Y, obs, "~ x + stage + (1 | donor)")
    one, _ = answers(at_ratios(fit, "x", np.array([0.0, 1.0])), np.full(2, 0.5))
    assert np.isnan(one.ci_low).all()
    assert np.isfinite(one.coef).all()
    joint, _ = answers(at_ratios(fit, "stage", np.array([0.0, 1.0])), np.full(2, 0.5), conf_level=0.95)
    assert np.isnan([joint.coef, joint.se, joint.ci_low, joint.ci_high]).all()
    assert np.isfinite(joint.log_pval).all()
