"""Tests averaged over variance ratios: tails and limits against scipy, level under a known prior, and what is learned."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cohorts import fitted
from sc_lmm._inference.averaged import averaged, posterior
from sc_lmm._inference.prior import learn
from sc_lmm._inference.tails import f_tail, log_f_tail
from sc_lmm._model import AtPoints


@pytest.mark.parametrize("dof", [1, 2, 5, 50, 199, 200, 300, 1000, 24_000])
@pytest.mark.parametrize("df", [1, 2, 3, 4, 7])
def test_tails_are_those_of_scipy(dof, df):
    q = np.array([1e-8, 0.01, 0.3, 0.6, 1, 2, 4, 10, 40, 47, 49, 99])
    reference = stats.f.logsf(q / df, df, dof)
    np.testing.assert_allclose([log_f_tail(x, df, dof) for x in q], reference, atol=1e-9)
    np.testing.assert_allclose(np.log([f_tail(x, df, dof) for x in q]), reference, atol=1e-9)


def points(df: int, seed: int = 0, n_genes: int = 40, n_points: int = 7, dof: int = 500) -> AtPoints:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n_points, df, df)) * 0.2 + np.eye(df)
    sigma2 = rng.uniform(0.5, 2, (n_genes, n_points))
    coef = rng.normal(size=(n_genes, df, 1)) * 2 + 0.1 * rng.normal(size=(n_genes, df, n_points))
    return AtPoints(rng.normal(size=(n_genes, n_points)), sigma2, coef, root @ np.swapaxes(root, 1, 2), dof)


@pytest.mark.parametrize("df", [1, 3])
def test_p_is_the_average_of_exact_f_tests(df):
    at = points(df)
    prior = np.random.default_rng(1).dirichlet(np.ones(7), 40)
    weights = posterior(at.loglik, prior)
    joint = prior * np.exp(at.loglik)
    np.testing.assert_allclose(weights, joint / joint.sum(axis=1, keepdims=True), rtol=1e-12)
    F = np.einsum("gdk,kde,gek->gk", at.coef, np.linalg.inv(at.unscaled), at.coef) / df / at.sigma2
    p = (weights * stats.f.sf(F, df, at.dof)).sum(axis=1)
    found = averaged(at, prior, weights, conf_level=0.95)
    np.testing.assert_allclose(np.exp(found.log_pval), p, rtol=1e-9)


def test_limits_leave_half_of_alpha_on_each_side():
    at, prior = points(1), np.full((40, 7), 1 / 7)
    weights = posterior(at.loglik, prior)
    found = averaged(at, prior, weights, conf_level=0.9)
    se = np.sqrt(at.sigma2 * at.unscaled[:, 0, 0])
    for limit, share in ((found.ci_low, 0.05), (found.ci_high, 0.95)):
        below = (weights * stats.t.cdf((limit[:, None] - at.coef[:, 0]) / se, at.dof)).sum(axis=1)
        np.testing.assert_allclose(below, share, atol=2e-5)
    np.testing.assert_allclose(found.coef, (weights * at.coef[:, 0]).sum(axis=1), rtol=1e-7)


def test_the_prior_of_a_mixture_is_found_better_with_more_genes():
    """Of chi-squares with one of two scales, the distribution of the scale (Wasserstein distance of its logarithm)."""
    rng = np.random.default_rng(0)
    log_scale, df = np.linspace(-3, 3, 31), 8
    far = []
    for n_genes in (100, 3_000):
        truth = np.where(rng.random(n_genes) < 0.3, -1.0, 1.0)
        s = np.exp(truth) * rng.chisquare(df, n_genes)
        loglik = -df / 2 * log_scale - s[:, None] / 2 * np.exp(-log_scale)
        prior = learn(loglik, np.full(n_genes, 0.5))
        weights = prior.at(np.array([0.5]))[0]
        far.append(stats.wasserstein_distance(log_scale, [-1, 1], weights, [0.3, 0.7]))
    assert far[1] < far[0] < 0.6
    assert far[1] < 0.3


def balanced(n_genes: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(6), 20)
    obs = pd.DataFrame({"donor": [f"d{j}" for j in donor], "arm": np.where(donor % 2, "b", "a")})
    sd = np.where(rng.random(n_genes) < 0.5, 0.0, 0.5)
    return obs, rng.normal(size=(120, n_genes)) + (sd * rng.normal(size=(6, n_genes)))[donor]


@pytest.mark.filterwarnings("ignore:Only 3")
def test_null_genes_of_a_balanced_cohort_have_uniform_p():
    obs, Y = balanced(6_000, 3)
    pvals = fitted(Y, obs, "~ arm + (1 | donor)").test("arm").table["pvals"]
    assert stats.kstest(pvals, "uniform").statistic < 1.63 / np.sqrt(6_000)


@pytest.mark.filterwarnings("ignore:Only 3")
def test_a_gene_beyond_all_others_is_not_called_for_want_of_points():
    """Donors so far apart that no other gene tells of it, the arms by chance: p is about that of the donors' means."""
    obs, Y = balanced(300, 4)
    levels = np.array([3e4, 1e4, -2e4, 4e4, 1.5e4, -3e4])
    Y[:, 7] = levels[obs["donor"].str[1:].astype(int)] + np.random.default_rng(5).normal(size=120)
    table = fitted(Y, obs, "~ arm + (1 | donor)").test("arm").table
    assert table["pvals"].iloc[7] > 0.3


@pytest.mark.filterwarnings("ignore:Only 3")
def test_the_order_of_genes_changes_no_bit():
    obs, Y = balanced(300, 6)
    order = np.random.default_rng(0).permutation(300)
    one = fitted(Y, obs, "~ arm + (1 | donor)").test("arm").table["pvals"].to_numpy()
    other = fitted(Y[:, order], obs, "~ arm + (1 | donor)").test("arm").table["pvals"].to_numpy()
    np.testing.assert_array_equal(one[order], other)


@pytest.mark.filterwarnings("ignore:Only 3")
@pytest.mark.parametrize(("n_genes", "moderated"), [(50, False), (250, True)])
def test_it_is_the_default_where_enough_genes_tell(n_genes, moderated):
    obs, Y = balanced(n_genes, 7)
    fit = fitted(Y, obs, "~ arm + (1 | donor)")
    assert fit.test("arm").moderated == moderated
    assert fit.test("arm", moderate=True).moderated
    assert not fit.test("arm", moderate=False).moderated


@pytest.mark.filterwarnings("ignore:Only 3")
def test_too_few_genes_to_insist():
    obs, Y = balanced(5, 8)
    with pytest.raises(ValueError, match="needs at least 20 genes that can be fitted; there are 5"):
        fitted(Y, obs, "~ arm + (1 | donor)").test("arm", moderate=True)
