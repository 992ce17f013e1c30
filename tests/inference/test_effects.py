"""Shrunken effects and local false sign rates against numerical integration, another optimiser and known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from sc_lmm._inference.effects import (
    _EXACTEST,
    _NULL_GENES,
    _RATIO,
    _fit,
    _grid,
    _likelihoods,
    _posterior,
    shrink_effects,
)


def genes(n: int, changed: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True effects, estimates and standard errors."""
    rng = np.random.default_rng(seed)
    beta = np.where(rng.random(n) < changed, rng.normal(0, 1, n), 0.0)
    s = rng.gamma(8, 0.05, n)
    return beta, rng.normal(beta, s), s


def test_posterior_is_that_of_quadrature():
    tau, weights = np.array([0.0, 0.1, 0.7]), np.array([0.5, 0.3, 0.2])
    b, s = np.array([0.3, -1.2, 0.01, 4.0]), np.array([0.2, 0.5, 0.3, 0.25])
    mean, lfsr = _posterior(b, s, tau, weights)
    for g in range(b.size):

        def joint(beta: float, g: int = g) -> float:
            slab = sum(w * stats.norm.pdf(beta, 0, t) for t, w in zip(tau[1:], weights[1:], strict=True))
            return slab * stats.norm.pdf(b[g], beta, s[g])

        def integral(f, low: float, high: float) -> float:
            return integrate.quad(f, low, high, points=None, epsabs=0, epsrel=1e-11, limit=400)[0]

        ends = (-8.0, 0.0, 8.0)
        spike = weights[0] * stats.norm.pdf(b[g], 0, s[g])
        below, above = (integral(joint, *ends[i : i + 2]) for i in (0, 1))
        first = sum(integral(lambda beta: beta * joint(beta), *ends[i : i + 2]) for i in (0, 1))
        np.testing.assert_allclose(mean[g], first / (spike + below + above), rtol=1e-7)
        np.testing.assert_allclose(lfsr[g], (spike + min(below, above)) / (spike + below + above), rtol=1e-7)


def test_weights_are_those_of_another_optimiser():
    """The penalised likelihood as a convex programme, by sequential quadratic programming."""
    _, b, s = genes(400, changed=0.4)
    likelihood = _likelihoods(b, s, np.array([0.0, 0.3, 1.0, 3.0]))

    def penalised(weights: np.ndarray) -> float:
        return float(np.log(likelihood @ weights).sum() + (_NULL_GENES - 1) * np.log(weights[0]))

    best = optimize.minimize(
        lambda w: -penalised(w),
        np.full(4, 0.25),
        bounds=[(1e-12, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    found = _fit(likelihood)
    assert found.sum() == pytest.approx(1)
    assert penalised(found) > -best.fun - 0.05
    np.testing.assert_allclose(found, best.x, atol=0.02)


def test_one_component_is_a_normal_prior():
    """Effects N(0, 1) with a standard error of one: an estimate is halved."""
    rng = np.random.default_rng(2)
    b = rng.normal(0, np.sqrt(2), 200_000)
    out = shrink_effects(b, b, np.ones(b.size))
    middle = np.abs(b) < 3
    np.testing.assert_allclose(out.mean[middle], b[middle] / 2, atol=0.2)


def test_signs_are_wrong_as_often_as_said():
    beta, b, s = genes(60_000)
    out = shrink_effects(b, b / s, np.ones(b.size))
    for most in (0.01, 0.05, 0.2):
        called = out.lfsr < most
        wrong = np.sign(beta[called]) != np.sign(b[called])
        said = out.lfsr[called].mean()
        assert abs(wrong.mean() - said) < 4 * np.sqrt(said / called.sum()) + 0.1 * said


def test_means_are_nearer_to_the_truth():
    beta, b, s = genes(20_000)
    out = shrink_effects(b, b / s, np.ones(b.size))
    assert np.mean((out.mean - beta) ** 2) < 0.35 * np.mean((b - beta) ** 2)
    assert (np.abs(out.mean) <= np.abs(b)).all()
    assert (np.sign(out.mean) * np.sign(b) >= 0).all()


def test_nothing_changes_where_nothing_does():
    _, b, s = genes(20_000, changed=0.0)
    out = shrink_effects(b, b / s, np.ones(b.size))
    assert (out.lfsr < 0.05).mean() < 1e-3
    assert np.abs(out.mean).max() < 0.3 * np.abs(b).max()


@pytest.mark.parametrize("unit", [1e-150, 1e-6, 1e12, 1e150])
def test_units_do_not_matter(unit):
    _, b, s = genes(2_000)
    plain, scaled = shrink_effects(b, b / s, np.ones(b.size)), shrink_effects(b * unit, b / s, np.full(b.size, unit))
    np.testing.assert_allclose(scaled.mean / unit, plain.mean, rtol=1e-9)
    np.testing.assert_allclose(scaled.lfsr, plain.lfsr, rtol=1e-9)


def test_the_order_of_genes_does_not_matter():
    _, b, s = genes(7_000)
    order = np.random.default_rng(1).permutation(b.size)
    plain, shuffled = (shrink_effects(x, x / y, np.ones(b.size)) for x, y in ((b, s), (b[order], s[order])))
    np.testing.assert_array_equal(shuffled.mean, plain.mean[order])
    np.testing.assert_array_equal(shuffled.lfsr, plain.lfsr[order])


def test_genes_without_an_answer_have_none_and_leave_the_others():
    _, b, s = genes(500)
    score = b / s
    plain = shrink_effects(b, score, np.ones(b.size))
    b, score = np.append(b, [np.nan, 1.0, 0.0]), np.append(score, [1.0, np.nan, 0.0])
    out = shrink_effects(b, score, np.ones(b.size))
    np.testing.assert_array_equal(out.mean[:500], plain.mean)
    assert np.isnan(out.mean[500:]).all()
    assert np.isnan(out.lfsr[500:]).all()
    assert np.isnan(shrink_effects(b[500:], score[500:], np.ones(3)).lfsr).all()


def test_the_grid_reaches_from_invisible_to_larger_than_any_effect():
    b, s = np.array([0.1, -5.0, 0.2, 0.3]), np.array([0.1, 0.2, 0.4, 0.1])
    tau = _grid(b, s)
    assert tau[0] == 0
    assert tau[1] == pytest.approx(np.quantile(s, _EXACTEST) / 10)
    assert tau[-1] > 2 * np.sqrt(25 - 0.04)
    np.testing.assert_allclose(tau[2:] / tau[1:-1], _RATIO)
