"""Exact tests at known variance ratios, averaged over what a gene's ratio can be.

With the ratio known to be rho_k, the ratio of full and null model is exactly F, and the estimate exactly t:

    Q_gk = coef' (sigma2_gk unscaled_k)^-1 coef,   P_gk = P(F(df, nu) > Q_gk / df)
    p_g  = sum_k w_gk P_gk
    limits: the c with sum_k w_gk T_nu((c - coef_gk) / se_gk) = alpha / 2 and 1 - alpha / 2
    coef, se: mean and standard deviation of the mixture of these t distributions

w are posterior weights of the ratio (:mod:`sc_lmm._inference.prior`). They are made of error contrasts, of which the
estimate at the true ratio is independent, so that p is uniform under the null hypothesis where the prior is right, and
exactly so in balanced designs. limma's moderated t is the case of a conjugate prior (Smyth 2004).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from scipy import special

from .tails import f_tail, log_f_tail, t_lower

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._model import AtPoints

    Array = NDArray[np.float64]

_compiled = njit(nogil=True, cache=True, error_model="numpy")

_NEGLIGIBLE = 1e-11  # share of a p-value that is passed over
_SMALL, _LOG_SMALL = (
    1e-250,
    -650.0,
)  # a p-value from which its logarithm is summed, and a weight that is part of no larger
_LITTLE = 1e-8  # share of the posterior that is passed over in limits and estimates
_FAR = -5000.0  # log weight of a point that adds to no p-value, however small
# Steps converge cubically, so that one this small leaves an error of about its cube.
_STEPS, _STEP_TOLERANCE = 60, 1e-3


class Averaged(NamedTuple):
    """What a hypothesis amounts to for G genes."""

    log_pval: Array  # (G,)
    coef: Array  # (G,) posterior mean for one df, NaN otherwise
    se: Array  # (G,) posterior standard deviation
    ci_low: Array  # (G,) NaN where not asked for
    ci_high: Array  # (G,)


def averaged(at: AtPoints, log_weights: Array, *, conf_level: float | None) -> Averaged:
    """Average over posterior weights, given as logarithms (G, K)."""
    n_genes, df, _ = at.coef.shape
    out = Averaged(*np.full((5, n_genes), np.nan))
    whitening = np.linalg.inv(np.linalg.cholesky(at.unscaled))  # (K, df, df)
    _log_pvals(at.coef, whitening, at.sigma2, log_weights, at.dof, out.log_pval)
    if df == 1:
        root = np.sqrt(at.unscaled[:, 0, 0])
        outside = np.nan if conf_level is None else (1 - conf_level) / 2
        width = float(special.ndtri(1 - outside))
        _estimates(at.coef, root, at.sigma2, log_weights, at.dof, outside, width, out)
    return out


@_compiled
def posterior(loglik: Array, prior: Array, icc: Array) -> tuple[Array, Array]:
    """Log posterior weights from log-likelihoods and prior weights (G, K); posterior mean of `icc` (K,), (G,)."""
    log_weights, mean = np.empty_like(loglik), np.empty(len(loglik))
    n_points = loglik.shape[1]
    for g in range(len(loglik)):
        largest, total, product = loglik[g].max(), 0.0, 0.0
        for k in range(n_points):
            w = prior[g, k] * math.exp(loglik[g, k] - largest)
            total += w
            product += w * icc[k]
        mean[g] = product / total
        offset = largest + math.log(total)
        for k in range(n_points):
            log_weights[g, k] = loglik[g, k] - offset
            if log_weights[g, k] > _FAR:
                log_weights[g, k] += math.log(prior[g, k])
    return log_weights, mean


@_compiled
def _log_pvals(coef: Array, whitening: Array, sigma2: Array, log_weights: Array, dof: int, log_pval: Array) -> None:
    n_genes, df, n_points = coef.shape
    q = np.empty(n_points)
    for g in range(n_genes):
        p = 0.0
        for k in range(n_points - 1, -1, -1):  # from the widest distribution on, whose tail is largest
            q[k] = _quadratic(coef[g], whitening[k], k) / sigma2[g, k]
            if log_weights[g, k] > _LOG_SMALL:
                w = math.exp(log_weights[g, k])
                if w > _NEGLIGIBLE * p:  # a tail is at most 1
                    p += w * f_tail(q[k], df, dof)
        log_pval[g] = math.log(min(p, 1.0)) if p > _SMALL else _log_average(q, log_weights[g], df, dof)


@_compiled
def _log_average(q: Array, log_weights: Array, df: int, dof: int) -> float:
    """Log of the average tail where the tail itself underflows."""
    largest, parts = -np.inf, np.empty(q.size)
    for k in range(q.size):
        parts[k] = log_weights[k] + log_f_tail(q[k], df, dof)
        largest = max(largest, parts[k])
    total = 0.0
    for part in parts:
        total += math.exp(part - largest)
    return largest + math.log(total)


@_compiled
def _quadratic(coef: Array, whitening: Array, k: int) -> float:
    """Squared length of the whitened coefficients at point k."""
    total = 0.0
    for i in range(whitening.shape[0]):
        part = 0.0
        for j in range(i + 1):
            part += whitening[i, j] * coef[j, k]
        total += part * part
    return total


@_compiled
def _estimates(
    coef: Array,  # (G, 1, K)
    root: Array,  # (K,) se over sigma
    sigma2: Array,
    log_weights: Array,
    dof: int,
    outside: float,  # probability beyond each limit, NaN for no limits
    width: float,  # about how many standard deviations away they are
    out: Averaged,
) -> None:
    b, s, w = np.empty(root.size), np.empty(root.size), np.empty(root.size)
    spread = dof / (dof - 2) if dof > 2 else np.inf  # variance of t
    for g in range(len(coef)):
        n, total, first, second = 0, 0.0, 0.0, 0.0
        for k in range(root.size):
            if log_weights[g, k] > math.log(_LITTLE):
                b[n], s[n], w[n] = coef[g, 0, k], root[k] * math.sqrt(sigma2[g, k]), math.exp(log_weights[g, k])
                total, first, n = total + w[n], first + w[n] * b[n], n + 1
        if n == 0:
            continue
        mean = first / total
        for k in range(n):
            w[k] /= total
            second += w[k] * (s[k] * s[k] * spread + (b[k] - mean) ** 2)
        out.coef[g], out.se[g] = mean, math.sqrt(second)
        if outside == outside:
            below = width * out.se[g]
            out.ci_low[g] = _quantile(b[:n], s[:n], w[:n], dof, outside, mean - below, out.se[g])
            out.ci_high[g] = -_quantile(-b[:n], s[:n], w[:n], dof, outside, -mean - below, out.se[g])


@_compiled
def _quantile(b: Array, s: Array, w: Array, dof: int, share: float, start: float, sd: float) -> float:
    """The c below which a mixture of t distributions has `share` of its mass, less than half.

    Halley's steps on the logarithm of the share, which converge cubically; bisection where they leave the bracket.
    """
    c, low, high = start, -np.inf, np.inf
    for _ in range(_STEPS):
        below, slope, bend = 0.0, 0.0, 0.0
        for k in range(b.size):
            t = (c - b[k]) / s[k]
            tail, height = t_lower(t, dof)
            below += w[k] * tail
            slope += w[k] / s[k] * height
            bend -= w[k] / (s[k] * s[k]) * height * t
        if below < share:
            low = c
        else:
            high = c
        following = c + _halley(below, slope, bend, share, sd)
        if not low < following < high:
            following = (low + high) / 2 if low > -np.inf and high < np.inf else c + (sd if below < share else -sd)
        moved, c = abs(following - c), following
        if moved <= _STEP_TOLERANCE * sd:
            break
    return c


@_compiled
def _halley(below: float, slope: float, bend: float, share: float, sd: float) -> float:
    """Step towards log(below) = log(share), at most four standard deviations."""
    if below <= 0 or slope <= 0:
        return sd
    value, first = math.log(below / share), slope / below
    second = bend / below - first * first
    newton = -value / first
    step = newton / (1 + max(-0.5, min(0.5, newton * second / (2 * first))))
    return max(-4 * sd, min(4 * sd, step))
