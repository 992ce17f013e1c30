"""Empirical-Bayes squeezing of the variance of a contrast across genes (Smyth 2004, limma).

What has few degrees of freedom in a cohort is not the residual variance of cells, which has thousands, but the
variance of the tested contrast, which has about as many as there are donors. With v_g its estimate on df_g degrees of
freedom and prior v_g ~ s0_g^2 df0 / chi2(df0),

    v_g / s0_g^2 ~ F(df_g, df0),     squeezed v_g = (df0 s0_g^2 + df_g v_g) / (df0 + df_g)   on df_g + df0 degrees.

s0_g^2 follows mean expression, since on log counts the variance of rare genes is small for want of counts alone. df0
is read from quantiles of the variances, the median and the 90 % point, so a few hypervariable genes do not set it, and
these genes keep fewer prior degrees of freedom (Phipson et al. 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import interpolate, optimize, special, stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_MIN_GENES = 20
_KNOTS = 5
_MIN_DF0, _MAX_DF0 = 0.1, 1e4
_TREND_GENES, _ENOUGH = 100, 2_000  # genes for a trend; genes that tell df0 to a per cent


@dataclass(frozen=True)
class Prior:
    """Prior of the variances and what it makes of them."""

    s0_squared: Array  # (G,) prior variance at each gene's mean expression
    df0: Array  # (G,) prior degrees of freedom, fewer for outliers
    variance: Array  # (G,) squeezed
    df: Array  # (G,) df_g + df0_g


def squeeze(variance: Array, df: Array, mean: Array | None) -> Prior:
    """Squeeze variances towards their trend in `mean`, or towards one value if `mean` is None.

    Parameters
    ----------
    variance, df
        Estimates and their degrees of freedom, (G,); NaN and zero are left as they are.
    mean
        Mean expression per gene, (G,).
    """
    used = np.isfinite(variance) & (variance > 0) & np.isfinite(df) & (df > 0)
    s0, df0 = np.full(variance.shape, np.nan), np.zeros(variance.shape)
    if used.sum() >= _MIN_GENES:
        # E log chi2(df)/df, so that the trend is of log s0^2 whatever the gene's own degrees of freedom.
        log_s0 = _trend(np.log(variance[used]) - _mean_log(df[used]), None if mean is None else mean[used])
        ratio = variance[used] / np.exp(log_s0)
        some = np.argsort(ratio)[:: max(1, ratio.size // _ENOUGH)]  # evenly over the quantiles
        common, centre = _prior_df(ratio[some], df[used][some])
        s0[used] = np.exp(log_s0) * centre
        df0[used] = _shrink_outliers(variance[used] / s0[used], df[used], common)
    squeezed, total = variance.copy(), df.copy()
    has_prior = df0 > 0
    total[has_prior] += df0[has_prior]
    squeezed[has_prior] = ((df0 * s0 + df * variance)[has_prior]) / total[has_prior]
    return Prior(s0, df0, squeezed, total)


def _mean_log(df: Array) -> Array:
    return special.digamma(df / 2) - np.log(df / 2)


def _trend(log_variance: Array, mean: Array | None) -> Array:
    """Smooth median-like trend of log variance on the rank of mean expression: a cubic spline, robustly weighted."""
    if mean is None or mean.size < _TREND_GENES:
        return np.full(log_variance.size, np.median(log_variance))
    x = stats.rankdata(mean) / (mean.size + 1)
    inner = np.linspace(0, 1, _KNOTS)[1:-1]
    knots = np.concatenate([np.zeros(4), inner, np.ones(4)])
    basis = interpolate.BSpline.design_matrix(x, knots, 3).toarray()
    weight = np.ones(x.size)
    for _ in range(10):
        root = np.sqrt(weight)[:, None]
        fitted = basis @ np.linalg.lstsq(basis * root, log_variance * root[:, 0], rcond=None)[0]
        residual = log_variance - fitted
        scale = max(1.4826 * float(np.median(np.abs(residual))), np.finfo(float).tiny)
        weight = 1 / np.maximum(1.0, np.abs(residual) / (1.345 * scale))  # Huber
    return fitted


def _prior_df(ratio: Array, df: Array) -> tuple[float, float]:
    """df0 and centre c for which the median of the F(df_g, df0) probabilities of ratio/c is .5 and their 90 % point .9.

    The upper half is used because the lower one is squeezed where donor variances are estimated as zero: at an ICC of
    .005 that is a quarter of the genes and more, and quartiles would then find no spread at all.
    """

    def centre(df0: float) -> float:
        middle = np.log(np.median(ratio))
        return float(np.exp(optimize.brentq(off_centre, middle - 60, middle + 60, args=(df0,), xtol=1e-6)))

    def off_centre(log_c: float, df0: float) -> float:
        return float(np.median(stats.f.cdf(ratio / np.exp(log_c), df, df0))) - 0.5

    def excess(log_df0: float) -> float:
        df0 = float(np.exp(log_df0))
        probability = stats.f.cdf(ratio / centre(df0), df, df0)
        low, high = np.quantile(probability, [0.5, 0.9])
        return float(high - low - 0.4)

    bounds = np.log([_MIN_DF0, _MAX_DF0])
    if excess(bounds[1]) <= 0:  # no more spread than the estimates' own: one variance for all
        return _MAX_DF0, centre(_MAX_DF0)
    if excess(bounds[0]) >= 0:
        return _MIN_DF0, centre(_MIN_DF0)
    df0 = float(np.exp(optimize.brentq(excess, *bounds, xtol=1e-3)))
    return df0, centre(df0)


def _shrink_outliers(ratio: Array, df: Array, df0: float) -> Array:
    """Fewer prior degrees of freedom for variances larger than the prior allows among so many genes."""
    tail = stats.f.sf(ratio, df, df0)
    order = np.argsort(tail)
    expected = (np.arange(ratio.size) + 0.5) / ratio.size
    is_regular = np.empty(ratio.size)
    # Share of genes this extreme that the prior explains; monotone, so a larger variance is never more regular.
    is_regular[order] = np.maximum.accumulate(np.minimum(tail[order] / expected, 1.0))
    return df0 * is_regular
