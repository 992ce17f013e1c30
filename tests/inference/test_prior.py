"""The learned distribution of variance ratios: against one that is known, against another optimiser, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as distributions

from cohorts import donor_means
from sc_lmm._inference.prior import Prior, chosen_genes, expression_rank, learn

N_DONORS, N_CELLS = 10, 50
TRUE = {0.0: 0.3, 0.05: 0.4, 1.0: 0.3}  # rho -> share of the genes


def simulated(n_genes: int, seed: int = 0, rho: np.ndarray | None = None):
    """Genes of ten balanced donors with rho drawn from TRUE."""
    rng = np.random.default_rng(seed)
    rho = rng.choice(list(TRUE), n_genes, p=list(TRUE.values())) if rho is None else rho
    means = np.sqrt(rho + 1 / N_CELLS) * rng.standard_normal((N_DONORS, n_genes)) + rng.uniform(0, 3, n_genes)
    return donor_means(means, N_CELLS, rng.chisquare(N_DONORS * (N_CELLS - 1), n_genes))


def distance(n_genes: int, seed: int) -> float:
    """Wasserstein distance of the learned from the true prior, in log(1 + n rho)."""
    moderation = simulated(n_genes, seed).estimates.moderation
    points, true = np.log1p(N_CELLS * moderation.rho), np.log1p(N_CELLS * np.array(list(TRUE)))
    weights = moderation.prior.weights.mean(axis=0)
    return distributions.wasserstein_distance(points, true, weights, list(TRUE.values()))


def test_a_mixture_is_recovered_and_better_from_more_genes():
    few, many = (np.mean([distance(n, seed) for seed in range(6)]) for n in (50, 2_500))
    assert many < 0.2  # of a scale on which the true values are 0, 1.25 and 3.9
    assert many < 0.7 * few


def test_the_likelihood_is_that_of_another_optimiser():
    """Weights as a softmax, by BFGS. At a maximum no point has a mean density ratio above one (Lindsay 1983)."""
    rng = np.random.default_rng(1)
    true = rng.choice([0.0, 1.0, 4.0], 80)
    points = np.arange(0, 6, 0.75)
    loglik = distributions.norm.logpdf(true[:, None] + rng.standard_normal((80, 1)), points)
    likelihood = np.exp(loglik - loglik.max(axis=1, keepdims=True))

    def loss(free: np.ndarray) -> float:
        weights = np.exp(free - free.max())
        return -np.log(likelihood @ (weights / weights.sum())).mean()

    best = min(optimize.minimize(loss, start, method="BFGS").fun for start in rng.normal(0, 1, (5, points.size)))
    prior = learn(loglik, np.full(80, 0.5))
    without_one_more = (prior.weights[0] * 81 - 1 / points.size) / 80
    assert -np.log(likelihood @ without_one_more).mean() < best + 2e-4
    ratio = (likelihood / (likelihood @ without_one_more)[:, None]).mean(axis=0)
    assert ratio.max() < 1.01


def test_genes_that_are_alike_give_a_prior_at_their_ratio():
    moderation = simulated(3_000, rho=np.full(3_000, 0.5)).estimates.moderation
    share = moderation.prior.weights.mean(axis=0)[np.abs(np.log(np.maximum(moderation.rho, 1e-9) / 0.5)) < 0.5]
    assert share.sum() > 0.8


def test_no_point_is_impossible():
    """A density of one gene in those of a centre is spread over all points."""
    loglik = np.where(np.arange(6) == 2, 0.0, -1e4) * np.ones((250, 1))
    prior = learn(loglik, np.linspace(0.01, 0.99, 250))
    assert len(prior.weights) == 2
    np.testing.assert_allclose(prior.weights[:, [0, 1, 3, 4, 5]], 1 / 6 / 126, rtol=1e-9)
    np.testing.assert_allclose(prior.weights.sum(axis=1), 1, rtol=1e-12)


def test_the_prior_follows_mean_expression():
    rank = (np.arange(3_000) + 0.5) / 3_000
    loglik = np.where(np.arange(4) == (rank > 0.5)[:, None] * 3, 0.0, -30.0)
    at = learn(loglik, rank).at(np.array([0.05, 0.95]))
    assert at[0, 0] > 0.99
    assert at[1, 3] > 0.99


def test_between_centres_the_prior_is_their_average():
    prior = Prior(np.array([[1.0, 0.0], [0.0, 1.0]]), 200)
    centres, between, beyond = prior.at(np.array([0.25, 0.75])), prior.at(np.array([0.5])), prior.at(np.array([0, 1.0]))
    np.testing.assert_allclose(centres, prior.weights)
    np.testing.assert_allclose(between, [[0.5, 0.5]])
    np.testing.assert_allclose(beyond, prior.weights)


def test_an_outlier_among_genes_leaves_em_climbing():
    """A gene of large rho makes factors that overshoot, and must not end the climb."""
    rho = np.full(1_000, 0.02)
    rho[:5] = 1e4
    moderation = simulated(1_000, seed=3, rho=rho).estimates.moderation
    far = N_CELLS * moderation.rho > 1e3
    assert 0.002 < moderation.prior.weights[:, far].sum(axis=1).mean() < 0.02
    near = N_CELLS * moderation.rho < 20
    assert moderation.prior.weights[:, near].sum(axis=1).mean() > 0.97


@pytest.mark.parametrize("n_genes", [500, 7_000])
def test_chosen_genes_do_not_depend_on_the_order_of_genes(n_genes):
    rng = np.random.default_rng(4)
    mean, yty = rng.integers(0, 50, n_genes) / 10, rng.exponential(size=n_genes)  # ties in the mean
    usable, order = rng.random(n_genes) < 0.95, rng.permutation(n_genes)
    chosen = chosen_genes(mean, yty, usable)
    assert chosen.size <= 3_000
    assert usable[chosen].all()
    shuffled = order[chosen_genes(mean[order], yty[order], usable[order])]
    np.testing.assert_array_equal(shuffled, chosen)
    ranks = expression_rank(mean, usable)
    np.testing.assert_array_equal(expression_rank(mean[order], usable[order]), ranks[order])
    assert 0 < ranks[usable].min() < ranks[usable].max() < 1
    assert np.ptp(np.diff(ranks[chosen])) < 0.05  # evenly over expression
