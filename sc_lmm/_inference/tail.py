"""Upper tails in log space: a z of 60 must rank above a z of 50, where p-values themselves are 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special, stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Below this log p the distribution functions of scipy lose digits on their way to 0.
_LOG_TINY = -600.0
_NEWTON_STEPS = 20


def chi2_logsf(x: Array, df: int) -> Array:
    """Log upper tail of the chi-square distribution for whole df.

    Q(x; k) = Q(x; k-2) + (x/2)^(k/2-1) e^(-x/2) / Gamma(k/2), a sum of positive terms (Abramowitz & Stegun 26.4.8)
    that starts from 2 Phi(-sqrt(x)) for odd and e^(-x/2) for even k.
    """
    x = np.asarray(x, dtype=np.float64)
    log_q = np.log(2) + stats.norm.logsf(np.sqrt(x)) if df % 2 else -x / 2
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0, and genes without a ratio, which are NaN and stay so
        log_half = np.log(x / 2)
        for k in range(3 if df % 2 else 4, df + 1, 2):
            log_q = np.logaddexp(log_q, (k / 2 - 1) * log_half - x / 2 - special.gammaln(k / 2))
    return log_q


def chi2_log_isf(log_p: Array, df: int) -> Array:
    """The x whose log upper tail under the chi-square distribution is `log_p`, the inverse of :func:`chi2_logsf`."""
    if df == 1:
        return special.ndtri_exp(log_p - np.log(2)) ** 2
    x = stats.chi2.isf(np.exp(np.maximum(log_p, _LOG_TINY)), df)
    deep = log_p < _LOG_TINY
    z = -2 * log_p[deep]
    for _ in range(_NEWTON_STEPS):  # the slope of log Q is -1/2 but for O(1/x)
        z = np.maximum(z + 2 * (chi2_logsf(z, df) - log_p[deep]), 1.0)
    x[deep] = z
    return x


def f_logsf(x: Array, df1: int, df2: Array) -> Array:
    """Log upper tail of F(df1, df2); with df1 = 1 the two-sided tail of t, with infinite df2 the chi-square tail.

    P(F > x) = I_w(df2/2, df1/2) with w = df2 / (df2 + df1 x); where this incomplete beta function underflows, its
    continued fraction gives the logarithm.
    """
    x, df2 = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(df2, dtype=np.float64))
    log_p = np.full(x.shape, np.nan)
    normal, valid = np.isinf(df2) & (x >= 0), np.isfinite(df2) & (df2 > 0) & (x >= 0)
    log_p[normal] = chi2_logsf(df1 * x[normal], df1)
    with np.errstate(divide="ignore"):
        log_p[valid] = np.log(stats.f.sf(x[valid], df1, df2[valid]))
    deep = valid & (log_p < _LOG_TINY)
    log_p[deep] = _log_incomplete_beta(df2[deep] / 2, df1 / 2, x[deep])
    return log_p


def _log_incomplete_beta(a: Array, b: float, x: Array) -> Array:
    """log I_w(a, b) at w = a / (a + b x), deep in its lower tail."""
    log_w = -np.log1p(b * x / a)
    front = a * log_w + b * np.log(-np.expm1(log_w)) - np.log(a) - special.betaln(a, b)
    return front + np.log(_continued_fraction(a, b, np.exp(log_w)))


def _continued_fraction(a: Array, b: float, w: Array) -> Array:
    """DLMF 8.17.22 by the modified Lentz algorithm, forward until every element has converged."""
    c, d = np.ones_like(w), 1 / (1 - (a + b) / (a + 1) * w)
    value = d.copy()
    for m in range(1, 1000):
        even = m * (b - m) * w / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * w / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            value = value * c * d
        if np.all(np.abs(c * d - 1) < 1e-15):
            break
    return value
