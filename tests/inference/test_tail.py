"""Tails in log space against scipy where it has digits, and against mpmath (40 digits) where it has none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sc_lmm._inference.tail import chi2_logsf, f_logsf

# log of mpmath.gammainc(df/2, x/2, inf, regularized=True) at 40 digits
CHI2 = {
    (1600, 1): -803.91529483319384,
    (2500, 1): -1254.13821395886,
    (3600, 1): -1804.3204135000072,
    (2000, 2): -1000.0,
    (3600, 3): -1796.1311691282928,
    (10000, 4): -4991.4826068285811,
    (5000, 7): -2481.639858475353,
}
# log of the regularised incomplete beta function, from mpmath's 2F1 at 40 digits
F = {
    (2500, 1, 24_000): -1193.17951062175104,
    (3600, 1, 24_000): -1681.39385142429572,
    (1e20, 3, 50): -1079.21225546748288,
    (3000, 1, 1e6): -1501.98230058656572,
    (1e6, 2, 200): -921.044036697651604,
    (4e3, 5, 300): -624.967522612092132,
    (1520, 1, 24_000): -740.76252456752467,  # a denormal number in scipy, with one digit
}


@pytest.mark.parametrize(("x", "df"), CHI2)
def test_chi2_beyond_underflow(x, df):
    assert stats.chi2.sf(x, df) == 0
    np.testing.assert_allclose(chi2_logsf(np.array([x], dtype=float), df)[0], CHI2[x, df], rtol=1e-13)


@pytest.mark.parametrize(("x", "df1", "df2"), F)
def test_f_beyond_underflow(x, df1, df2):
    np.testing.assert_allclose(f_logsf(np.array([x]), df1, np.array([df2]))[0], F[x, df1, df2], rtol=1e-12)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 8, 11])
def test_chi2_where_scipy_has_digits(df):
    x = np.concatenate([[0.0], np.logspace(-8, 2.7, 60)])
    np.testing.assert_allclose(chi2_logsf(x, df), np.log(stats.chi2.sf(x, df)), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("df1", [1, 2, 3, 7])
@pytest.mark.parametrize("df2", [0.3, 1, 4.7, 30, 1e4, 1e8])
def test_f_where_scipy_has_digits(df1, df2):
    x = np.concatenate([[0.0], np.logspace(-8, 2, 60)])
    np.testing.assert_allclose(f_logsf(x, df1, np.array(df2)), np.log(stats.f.sf(x, df1, df2)), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("df1", "df2"), [(1, 40.0), (1, 2e3), (1, 1e6), (4, 300.0)])
def test_scipy_and_the_continued_fraction_meet(df1, df2):
    x = np.geomspace(10, 1e40, 40_000)
    log_p = f_logsf(x, df1, np.array(df2))
    near = (log_p < -600) & (log_p > -690)  # the fraction's side, where scipy still has digits
    assert near.sum() > 5
    np.testing.assert_allclose(log_p[near], np.log(stats.f.sf(x[near], df1, df2)), rtol=1e-10)


@pytest.mark.parametrize("df1", [1, 2, 5])
@pytest.mark.parametrize("df2", [2.0, 25.0, 24_000.0, np.inf])
def test_larger_statistics_have_smaller_tails(df1, df2):
    x = np.geomspace(1e-3, 1e7, 500)
    log_p = f_logsf(x, df1, np.array(df2))
    assert np.isfinite(log_p).all()
    assert (np.diff(log_p) < 0).all()


def test_a_z_of_60_ranks_above_a_z_of_50():
    z = np.array([50.0, 60.0])
    assert (stats.chi2.sf(z**2, 1) == 0).all()
    assert np.diff(chi2_logsf(z**2, 1))[0] < -100
    assert np.diff(f_logsf(z**2, 1, np.array(24_000.0)))[0] < -100


def test_one_numerator_df_is_a_two_sided_t_and_infinite_denominator_df_a_chi_square():
    t = np.array([0.1, 1.0, 3.0, 8.0])
    np.testing.assert_allclose(f_logsf(t**2, 1, np.array(6.5)), np.log(2) + stats.t.logsf(t, 6.5), rtol=1e-12)
    np.testing.assert_allclose(f_logsf(t, 3, np.array(np.inf)), stats.chi2.logsf(3 * t, 3), rtol=1e-12)


def test_without_a_statistic_or_degrees_of_freedom_there_is_no_tail():
    x, df2 = np.array([np.nan, 1.0, 1.0, -1.0]), np.array([5.0, np.nan, 0.0, 5.0])
    assert np.isnan(f_logsf(x, 1, df2)).all()
    assert np.isnan(chi2_logsf(np.array([np.nan]), 1)).all()
    assert chi2_logsf(np.array([0.0]), 1)[0] == 0


@pytest.mark.parametrize("df", range(1, 12))
def test_a_gene_without_a_ratio_has_no_tail_among_others_that_have(df):
    x = np.array([np.nan, 0.0, 3.0, 900.0] * 4)
    np.testing.assert_allclose(chi2_logsf(x, df)[:3], [np.nan, 0, stats.chi2.logsf(3, df)], rtol=1e-12, atol=1e-12)
