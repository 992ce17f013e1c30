"""The regression of donor sums at known dispersion: against statsmodels, quadrature and the cells themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sc_lmm._model import contrast_variances, corrected_ratios, count_points, log_likelihoods
from sc_lmm._statistics import CountStatistics

Q = 10
EXPOSURE = np.array([0.3, 2.0, 1.1, 0.8, 0.5, 1.7, 4.0, 1.0, 0.9, 0.2])
ROWS = np.column_stack([np.ones(Q), np.arange(Q) % 2, np.linspace(-1, 2, Q) ** 2])
EQUAL = np.ones(Q)


def statistics(sums: np.ndarray, rows: np.ndarray = ROWS, exposure: np.ndarray = EXPOSURE) -> CountStatistics:
    """Statistics of genes (G, q) with 100 cells per donor."""
    sums = np.atleast_2d(sums).astype(float)
    nothing = np.zeros((rows.shape[0], 1))
    empty = CountStatistics(sums, exposure, np.full(len(exposure), 100.0), nothing, nothing, np.ones(len(sums), int))
    return empty.with_columns(rows)


def draw(seed: int, mean: float, phi: float, n_genes: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    factor = rng.gamma(1 / phi, phi, (n_genes, Q)) if phi else np.ones((n_genes, Q))
    return rng.poisson(mean * EXPOSURE * factor)


def points_at(counts: CountStatistics, *phi: float, relative: np.ndarray | None = None):
    relative = np.ones(len(counts.exposure)) if relative is None else relative
    return count_points(counts, np.tile(np.array(phi), (counts.n_genes, 1)), relative)


@pytest.mark.parametrize("mean", [3.0, 200.0])
@pytest.mark.parametrize("phi", [0.0, 0.01, 0.3, 4.0])
def test_coefficients_likelihood_and_standard_errors_are_those_of_statsmodels(mean: float, phi: float) -> None:
    counts = statistics(draw(0, mean, phi))
    points = points_at(counts, phi)
    family = sm.families.NegativeBinomial(alpha=phi) if phi else sm.families.Poisson()
    for g, y in enumerate(counts.sums):
        fit = sm.GLM(y, ROWS, family=family, offset=np.log(EXPOSURE)).fit(
            tol=1e-14, maxiter=200, tol_criterion="params"
        )
        np.testing.assert_allclose(counts.basis @ points.beta[g, 0], fit.params, rtol=1e-8, atol=1e-8)
        one, at = counts.genes(slice(g, g + 1)), points.genes(slice(g, g + 1))
        np.testing.assert_allclose(log_likelihoods(one, at, np.zeros(1, int)), fit.llf, rtol=1e-10, atol=1e-8)
        wanted = np.ones((1, 1), dtype=bool)
        se = [np.sqrt(contrast_variances(one, at, np.ascontiguousarray(row), wanted)[0, 0]) for row in counts.basis]
        np.testing.assert_allclose(se, fit.bse, rtol=1e-7)


def test_the_ratio_is_twice_the_difference_of_two_fits() -> None:
    counts = statistics(draw(1, 30.0, 0.4))
    null = counts.restrict(np.array([[0.0, 1.0, 0.0]]))
    points = points_at(counts, 0.0, 0.1, 1.0)
    ratio, _ = corrected_ratios(counts, null, points, np.ones((4, 3), dtype=bool))
    family = sm.families.NegativeBinomial(alpha=0.1)
    for g, y in enumerate(counts.sums):
        full, small = (
            sm.GLM(y, rows, family=family, offset=np.log(EXPOSURE)).fit(tol=1e-14) for rows in (ROWS, ROWS[:, [0, 2]])
        )
        np.testing.assert_allclose(ratio[g, 1], 2 * (full.llf - small.llf), atol=1e-7)


def test_small_dispersion_is_poisson() -> None:
    counts = statistics(draw(2, 50.0, 0.2))
    points = points_at(counts, 0.0, 1e-9)
    np.testing.assert_allclose(points.beta[:, 1], points.beta[:, 0], atol=1e-6)
    found = [log_likelihoods(counts, points, np.full(4, k)) for k in (0, 1)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_the_likelihood_is_poisson_averaged_over_gamma_factors() -> None:
    counts = statistics(draw(3, 20.0, 0.7, n_genes=2))
    phi, relative = 0.7, np.linspace(0.5, 1.5, Q)
    points = points_at(counts, phi, relative=relative)
    found = log_likelihoods(counts, points, np.zeros(2, int))
    for g, y in enumerate(counts.sums):
        mu = EXPOSURE * np.exp(counts.X @ points.beta[g, 0])
        np.testing.assert_allclose(found[g], sum(map(gamma_average, y, mu, phi * relative)), rtol=1e-8)


def gamma_average(y: float, mu: float, phi: float) -> float:
    """Log of the Poisson probability averaged over the factor, by the trapezoidal rule on its logarithm."""
    log_v = np.linspace(-60 * phi - 5, 5, 40_001)
    v = np.exp(log_v)
    log_density = stats.poisson.logpmf(y, mu * v) + stats.gamma.logpdf(v, 1 / phi, scale=phi) + log_v
    largest = log_density.max()
    return largest + np.log(np.trapezoid(np.exp(log_density - largest), log_v))


def test_sums_tell_what_2000_cells_do() -> None:
    """The likelihood of all cells, with donors' factors integrated out cell by cell, differs by what beta is not in."""
    rng = np.random.default_rng(4)
    donor, s = np.repeat(np.arange(Q), 200), rng.lognormal(0, 0.6, 2000)
    y = rng.poisson(s * 0.3 * rng.gamma(2.0, 0.5, Q)[donor]).astype(float)
    sums, exposure = np.bincount(donor, y), np.bincount(donor, s)
    phi, betas = 0.5, ([-1.0, 0.2, 0.1], [-1.4, -0.6, 0.3], [0.0, 0.0, 0.0])
    by_cells, by_sums = [], []
    for beta in betas:
        rate = np.exp(ROWS @ np.array(beta))
        by_cells.append(sum(cells_of_a_donor(y[donor == j], s[donor == j] * rate[j], phi) for j in range(Q)))
        by_sums.append(stats.nbinom.logpmf(sums, 1 / phi, 1 / (1 + phi * exposure * rate)).sum())
    np.testing.assert_allclose(np.diff(by_cells), np.diff(by_sums), rtol=1e-9)


def cells_of_a_donor(y: np.ndarray, mu: np.ndarray, phi: float) -> float:
    """Log-likelihood of a donor's cells, their common factor integrated out numerically."""
    log_v = np.linspace(-25, 4, 4001)
    log_density = stats.gamma.logpdf(np.exp(log_v), 1 / phi, scale=phi) + log_v
    log_density += (y[:, None] * (np.log(mu)[:, None] + log_v) - mu[:, None] * np.exp(log_v)).sum(axis=0)
    largest = log_density.max()
    return float(largest + np.log(np.trapezoid(np.exp(log_density - largest), log_v)))


def test_the_adjustment_is_half_the_log_determinant_of_the_information() -> None:
    counts = statistics(draw(5, 15.0, 0.3))
    points = points_at(counts, 0.05, 0.3)
    for g in range(counts.n_genes):
        for k, phi in enumerate((0.05, 0.3)):
            mu = EXPOSURE * np.exp(counts.X @ points.beta[g, k])
            information = counts.X.T @ ((mu / (1 + phi * mu))[:, None] * counts.X)
            whole = log_likelihoods(counts, points, np.full(counts.n_genes, k))[g]
            expected = whole - np.linalg.slogdet(information)[1] / 2
            np.testing.assert_allclose(points.loglik[g, k], expected, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 5), st.integers(0, 10**6)), min_size=Q, max_size=Q).filter(any),
    st.one_of(st.just(0.0), st.floats(1e-6, 6)),
)
def test_any_counts_reach_a_maximum(y: list[int], phi: float) -> None:
    counts = statistics(np.array(y))
    points = points_at(counts, phi)
    mu = EXPOSURE * np.exp(counts.X @ points.beta[0, 0])
    assert points.status[0] < 2
    assert np.isfinite(points.loglik).all()
    if points.status[0] == 0:
        score = counts.X.T @ ((counts.sums[0] - mu) / (1 + phi * mu))
        information = counts.X.T @ ((mu / (1 + phi * mu))[:, None] * counts.X)
        assert score @ np.linalg.solve(information, score) < 1e-6


def test_a_group_without_counts_has_finite_estimates_and_the_limit_of_the_ratio() -> None:
    rows, y = ROWS[:, :2], np.array([4.0, 0, 9, 0, 2, 0, 5, 0, 7, 0])
    counts = statistics(y, rows)
    points = points_at(counts, 0.0)
    ratio, factor = corrected_ratios(
        counts, counts.restrict(np.array([[0.0, 1.0]])), points, np.ones((1, 1), dtype=bool)
    )
    group = EXPOSURE[::2].sum() / EXPOSURE.sum()
    np.testing.assert_allclose(ratio, -2 * y.sum() * np.log(group), rtol=1e-8)
    assert points.status.tolist() == [1]
    effect = (counts.basis @ points.beta[0, 0])[1]
    shares = (0.5 / EXPOSURE[1::2].sum()) / ((y.sum() + 0.5) / EXPOSURE[::2].sum())  # half a count more in each group
    np.testing.assert_allclose(effect, np.log(shares), rtol=1e-6)
    assert 1 <= factor[0, 0] < 1.2


def brute_excess(mu: np.ndarray, phi: float, X: np.ndarray) -> float:
    """Lawley's correction as the docstring of the module writes it."""
    t = phi * mu
    Z = X @ np.linalg.solve(X.T @ ((mu / (1 + t))[:, None] * X), X.T)
    k2, k3 = -mu / (1 + t) ** 2, -mu * (1 - t) / (1 + t) ** 2
    quartic = -mu * (0.25 + t + t**2 / 4) / (1 + t) ** 3
    pairs = (np.outer(k3, k3) / 6 - np.outer(k3, k2) + np.outer(k2, k2)) * Z**3
    d = np.diag(Z)
    pairs += (np.outer(k3, k3) / 4 - np.outer(k3, k2) + np.outer(k2, k2)) * Z * np.outer(d, d)
    return float((d**2 * quartic).sum() + pairs.sum())


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_the_correction_is_lawleys(phi: float) -> None:
    counts = statistics(draw(6, 12.0, phi))
    null = counts.restrict(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    _, factor = corrected_ratios(counts, null, points_at(counts, phi), np.ones((4, 1), dtype=bool))
    at_null = count_points(null, np.full((4, 1), phi), EQUAL)
    for g in range(4):
        mu = EXPOSURE * np.exp(null.X @ at_null.beta[g, 0])
        expected = 1 + (brute_excess(mu, phi, counts.X) - brute_excess(mu, phi, null.X)) / 2
        np.testing.assert_allclose(factor[g, 0], expected, rtol=1e-8)


def test_the_correction_of_two_groups_is_known() -> None:
    rows, exposure = np.column_stack([np.ones(Q), np.arange(Q) % 2]), np.ones(Q)
    hypothesis = np.array([[0.0, 1.0]])
    poisson = statistics(np.array([[5, 3, 0, 4, 6, 2, 3, 5, 4, 8]]), rows, exposure)
    each = np.ones((1, 1), dtype=bool)
    _, factor = corrected_ratios(poisson, poisson.restrict(hypothesis), points_at(poisson, 0.0), each)
    a = b = poisson.sums.sum() / 2  # expected under the null hypothesis
    np.testing.assert_allclose(factor, 1 + (1 / a + 1 / b - 1 / (a + b)) / 6, rtol=1e-9)
    gamma = replace(poisson, sums=poisson.sums * 1e9 + 1e9)
    _, factor = corrected_ratios(gamma, gamma.restrict(hypothesis), points_at(gamma, 0.8), each)
    np.testing.assert_allclose(factor, 1 + 0.8 / (4 * Q / 2), rtol=1e-6)


@pytest.mark.parametrize(("mean", "phi"), [(5.0, 0.5), (500.0, 1.0)])
def test_corrected_ratios_have_the_mean_of_a_chi_square(mean: float, phi: float) -> None:
    rng = np.random.default_rng(7)
    rows = np.column_stack([np.ones(6), np.arange(6) % 2])
    counts = statistics(rng.poisson(mean * rng.gamma(1 / phi, phi, (30_000, 6))), rows, np.ones(6))
    counts = counts.genes(counts.sums.any(axis=1))
    each = np.ones((counts.n_genes, 1), dtype=bool)
    ratio, factor = corrected_ratios(counts, counts.restrict(np.array([[0.0, 1.0]])), points_at(counts, phi), each)
    assert abs((ratio / factor).mean() - 1) < 0.02 < ratio.mean() - 1
    assert abs((stats.chi2.sf(ratio / factor, 1) < 0.01).mean() - 0.01) < 0.002
