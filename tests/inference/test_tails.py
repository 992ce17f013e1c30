"""Compiled tails of t and F against scipy where it has digits, and against mpmath (40 digits) where it has none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sc_lmm._inference.tails import f_tail, log_f_tail, log_t_tail, normal_deviate, t_lower, t_tail

# log of the regularised incomplete beta function I_w(dof/2, df/2), w = dof / (dof + q), from mpmath's series at 40 digits
LOG_TAILS = {
    (900, 1, 5): -14.0744563514030696,
    (5e3, 1, 40): -98.7983248738600925,
    (1600, 1, 24_000): -778.345289588325556,
    (3600, 1, 1e6): -1801.08637204678314,
    (1e300, 1, 4): -1379.75929632719936,
    (2000, 2, 24_000): -960.51249208243711,
    (1e20, 3, 50): -1051.74694825078014,
    (30, 3, 1e6): -13.4931750460443694,
    (3600, 3, 1e6): -1792.90072021168867,
    (5e4, 4, 400): -961.961004851682714,
    (1e6, 5, 9): -49.9455840841206407,
    (700, 6, 2e3): -289.67337647374032,
    (90, 7, 1e6): -36.6266695355451527,
    (5e3, 7, 24_000): -2253.0165946672281,
}
T = np.concatenate([[1e-6], np.linspace(0.01, 10, 200)])
DOF = [1, 2, 3, 7, 50, 199, 200, 500, 5e3, 1e6]


@pytest.mark.parametrize(("q", "df", "dof"), LOG_TAILS)
def test_log_tails_against_mpmath(q, df, dof):
    np.testing.assert_allclose(log_f_tail(float(q), df, float(dof)), LOG_TAILS[q, df, dof], rtol=1e-11)


@pytest.mark.parametrize("dof", DOF)
def test_t_against_scipy(dof):
    expected = stats.t.sf(T, dof)
    np.testing.assert_allclose([t_tail(t * t, dof) for t in T], 2 * expected, rtol=2e-10)
    # Not at t = 1e-6, where scipy is off by 3e-11, which in the logarithm of a tail near one is much.
    logs = [log_t_tail(t * t, dof) for t in T[1:]]
    np.testing.assert_allclose(logs, np.log(2 * expected[1:]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose([t_lower(-t, dof)[0] for t in T], expected, rtol=2e-10)
    np.testing.assert_allclose([t_lower(t, dof)[0] for t in T], stats.t.cdf(T, dof), rtol=2e-10)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("dof", [1, 2, 9, 100, 199, 200, 2e3, 1e5])
def test_f_against_scipy(df, dof):
    q = T**2
    np.testing.assert_allclose([f_tail(x, df, dof) for x in q], stats.f.sf(q / df, df, dof), rtol=2e-9)


def test_the_slope_of_t_is_its_density():
    """Exactly where it is a t, and as steps towards a quantile need it where it is a transformed normal."""
    for dof in (1, 5, 199):
        np.testing.assert_allclose([t_lower(t, dof)[1] for t in T], stats.t.pdf(T, dof), rtol=1e-12)
    for dof in (200, 5e3):
        near = T[T < 3]
        np.testing.assert_allclose([t_lower(t, dof)[1] for t in near], stats.t.pdf(near, dof), rtol=0.04)


def test_the_two_forms_of_t_meet_at_200_degrees_of_freedom():
    """The continued fraction below and the normal deviate above: no step in p but that of the degrees of freedom."""
    for t in (0.5, 2.0, 6.0, 10.0):
        below, above = log_t_tail(t * t, 199.999), log_t_tail(t * t, 200.0)
        np.testing.assert_allclose(below, above, rtol=1e-4)
        np.testing.assert_allclose(normal_deviate(t, 200.0), stats.norm.isf(stats.t.sf(t, 200)), rtol=1e-10)


@pytest.mark.parametrize("df", [1, 2, 3, 7])
@pytest.mark.parametrize("dof", [3.0, 40.0, 200.0, 24_000.0, 1e6])
def test_larger_statistics_have_smaller_tails_far_below_underflow(df, dof):
    logs = np.array([log_f_tail(q, df, dof) for q in np.geomspace(1, 1e9, 400)])
    assert np.isfinite(logs).all()
    assert (np.diff(logs) < 0).all()


def test_tails_at_their_ends():
    for df in (1, 2, 3):
        assert f_tail(0.0, df, 30.0) == 1.0
        assert log_f_tail(0.0, df, 30.0) == 0.0
        assert f_tail(1e9, df, 1e6) < 1e-299
