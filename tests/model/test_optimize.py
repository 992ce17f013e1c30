"""The minimum over the variance ratio against a dense grid and scipy, for spectra that no cohort would show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from sc_lmm._model import optimize
from sc_lmm._model.optimize import AT_ZERO, INSIDE, NONE, minimise, shared

N_GENES = 40


def deviance(rho: float, e: np.ndarray, rss_0: np.ndarray, d: np.ndarray, terms: np.ndarray, dof: float) -> np.ndarray:
    return dof * np.log(rss_0 + (e / (1 + rho * d)).sum(axis=1)) + np.log1p(rho * terms).sum()


@st.composite
def problems(draw):
    """Spectra over up to six decades, genes from pure noise to hardly any."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    r = draw(st.integers(1, 12))
    d = 10 ** rng.uniform(0, draw(st.floats(0, 6)), r)
    terms = d if draw(st.booleans()) else d * rng.uniform(1, 1.5, r)
    dof = float(rng.integers(r + 2, 10_000))
    rho = 10.0 ** rng.uniform(-9, 3, (N_GENES, 1))
    e = rng.chisquare(1, (N_GENES, r)) * (1 + rho * d * rng.choice([0, 1, 30], (N_GENES, r)))
    rss_0 = rng.chisquare(dof - r, N_GENES) * 10.0 ** rng.uniform(-6, 0, N_GENES)
    return e, rss_0, d, terms, dof


@settings(max_examples=60, deadline=None)
@given(problems())
def test_no_point_of_a_dense_grid_is_lower(problem):
    e, rss_0, d, terms, dof = problem
    found = minimise(e, rss_0, shared(d, terms, int(dof), r_over_n := terms.size / dof))
    dense = r_over_n * np.concatenate([[0.0], np.logspace(-4, 9, 13 * 40 + 1)])
    lowest = np.min([deviance(rho, e, rss_0, d, terms, dof) for rho in dense], axis=0)
    ended = np.isin(found.outcome, [AT_ZERO, INSIDE])
    # Without a minimum the deviance falls to the end of the grid.
    assert (deviance(dense[-1], e, rss_0, d, terms, dof)[~ended] <= lowest[~ended] + 1e-9).all()
    assert (found.value[ended] <= lowest[ended] + 1e-8).all()


@pytest.mark.parametrize("seed", range(3))
def test_minimum_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    d, dof = rng.uniform(50, 200, 10), 1500
    e = rng.chisquare(1, (N_GENES, 10)) * (1 + 0.02 * d * (np.arange(N_GENES) % 2)[:, None])
    rss_0 = rng.chisquare(dof - 10, N_GENES)
    found = minimise(e, rss_0, shared(d, d, dof, 10 / dof))
    for g in np.flatnonzero(found.outcome == INSIDE):
        one = (e[g : g + 1], rss_0[g : g + 1], d, d, dof)
        expected = minimize_scalar(
            lambda t, one=one: deviance(np.exp(t), *one)[0],
            bracket=(np.log(found.rho[g]) - 0.5, np.log(found.rho[g]) + 0.5),
        )
        if found.rho[g] * d.mean() > 0.05:  # nearer to 0 the deviance is too flat for scipy to say where
            np.testing.assert_allclose(np.log(found.rho[g]), expected.x, atol=1e-5)
        np.testing.assert_allclose(found.value[g], expected.fun, rtol=1e-12)
        np.testing.assert_allclose(found.rss[g], rss_0[g] + (e[g] / (1 + found.rho[g] * d)).sum(), rtol=1e-12)
    at_zero = found.outcome == AT_ZERO
    assert 0 < at_zero.sum() < N_GENES
    np.testing.assert_allclose(found.value[at_zero], deviance(0.0, e, rss_0, d, d, dof)[at_zero], rtol=1e-14)


def test_a_deviance_without_a_minimum_says_so():
    found = minimise(np.ones((1, 3)), np.zeros(1), shared(np.ones(3), np.ones(3), 10, 0.3))
    assert found.outcome[0] == NONE
    assert np.isnan([found.rho[0], found.rss[0], found.value[0]]).all()


@settings(max_examples=30, deadline=None)
@given(problems(), st.sampled_from([-300, -100, 100, 304]))
def test_units_of_the_squares_do_not_matter(problem, exponent):
    e, rss_0, d, terms, dof = problem
    e, rss_0 = e / e.max(), rss_0 / e.max()
    table, unit = shared(d, terms, int(dof), terms.size / dof), 10.0**exponent
    one, other = minimise(e, rss_0, table), minimise(e * unit, rss_0 * unit, table)
    np.testing.assert_array_equal(other.outcome, one.outcome)
    np.testing.assert_allclose(other.rho, one.rho, rtol=1e-6, atol=1e-9 * table.unit)
    np.testing.assert_allclose(other.value, one.value + dof * np.log(unit), rtol=1e-9)
    np.testing.assert_allclose(other.rss, one.rss * unit, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(problems(), st.floats(4, 24))
def test_the_grid_follows_donors_that_are_far_apart(problem, decades):
    e, rss_0, d, terms, dof = problem
    rss_0 = np.full(N_GENES, 1.0)
    e = dof * 10.0**decades * np.random.default_rng(0).chisquare(1, e.shape)
    found = minimise(e, rss_0, shared(d, terms, int(dof), terms.size / dof))
    assert (found.outcome == INSIDE).all()
    around = found.rho * 10.0 ** np.linspace(-30, 3, 34 * 20)[:, None]
    around = np.concatenate([np.zeros((1, N_GENES)), around])
    values = [
        dof * np.log(1 + (e / (1 + r[:, None] * d)).sum(axis=1)) + np.log1p(r[:, None] * terms).sum(axis=1)
        for r in around
    ]
    assert (found.value <= np.min(values, axis=0) + 1e-7).all()


@given(st.integers(1, N_GENES - 1), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_genes_do_not_know_of_each_other(cut, seed):
    rng = np.random.default_rng(seed)
    d = rng.uniform(1, 100, 7)
    e, rss_0 = rng.chisquare(1, (N_GENES, 7)) * (1 + 0.1 * d), rng.chisquare(200, N_GENES)
    table = shared(d, d, 207, 7 / 207)
    whole = minimise(e, rss_0, table)
    parts = [minimise(e[s], rss_0[s], table) for s in (slice(None, cut), slice(cut, None))]
    for name in ("rho", "rss", "value", "outcome"):
        np.testing.assert_allclose(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name), rtol=1e-9)


@pytest.mark.parametrize("seed", [0, 6, 15, 24, 30])
def test_grid_is_dense_enough_for_spectra_of_six_decades(seed, monkeypatch):
    """Noise-free genes of wildly unequal donors: a grid of whole decades misses minima, the one in use does not."""
    rng = np.random.default_rng(seed)
    r = int(rng.integers(2, 25))
    d, dof = 10 ** rng.uniform(0, 6, r), r + int(rng.integers(1, 30))
    rho = 10.0 ** rng.uniform(-8, 2, (2000, 1))
    e = rng.chisquare(1, (2000, r)) * (1 + rho * d * rng.choice([0, 0, 1, 30, 300], (2000, r)))
    rss_0 = rng.chisquare(dof - r, 2000) * 10.0 ** rng.uniform(-4, 0, 2000)

    def values(exponents: np.ndarray | None) -> np.ndarray:
        with monkeypatch.context() as patch:
            if exponents is not None:
                patch.setattr(optimize, "_exponents", lambda _: exponents)
            return minimise(e, rss_0, shared(d, d, dof, r / dof)).value

    dense = values(np.arange(-4, 9.01, 1 / 40))
    assert (values(np.arange(-4.0, 10.0)) > dense + 1e-6).any()
    np.testing.assert_allclose(values(None), dense, atol=1e-6)
