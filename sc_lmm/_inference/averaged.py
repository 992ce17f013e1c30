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
from scipy import special

from .._compile import compiled
from .tails import f_tail, log_f_tail, t_lower

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._model import AtPoints

    Array = NDArray[np.float64]

_compiled = compiled(error_model="numpy")

_NEGLIGIBLE = 1e-11  # share of a p-value that is passed over
_SMALL = 1e-250  # a p-value from which its logarithm is summed
_LOG_SMALL = -650.0  # log-likelihood below its maximum that adds nothing to it
_LITTLE = 1e-7  # share of the posterior that is passed over in limits and estimates
# Steps converge cubically, so that one this small leaves an error of about its cube.
_STEPS, _STEP_TOLERANCE = 60, 2e-2


class Averaged(NamedTuple):
    """What a hypothesis amounts to for G genes."""

    log_pval: Array  # (G,)
    coef: Array  # (G,) posterior mean for one df, NaN otherwise
    se: Array  # (G,) posterior standard deviation
    ci_low: Array  # (G,) NaN where not asked for
    ci_high: Array  # (G,)


def averaged(at: AtPoints, prior: Array, weights: Array, *, conf_level: float | None) -> Averaged:
    """Average over the posterior `weights` that come of `prior` weights, each (G, K)."""
    n_genes, df, _ = at.coef.shape
    out = Averaged(*np.full((5, n_genes), np.nan))
    whitening = np.linalg.inv(np.linalg.cholesky(at.unscaled))  # (K, df, df)
    _log_pvals(at.coef, whitening, at.sigma2, at.loglik, prior, weights, at.dof, out.log_pval)
    if df == 1:
        root = np.sqrt(at.unscaled[:, 0, 0])
        outside = np.nan if conf_level is None else (1 - conf_level) / 2
        width = float(special.ndtri(1 - outside))
        _estimates(at.coef, root, at.sigma2, weights, at.dof, outside, width, out)
    return out


@_compiled
def posterior(loglik: Array, prior: Array) -> Array:
    """Posterior weights from log-likelihoods and prior weights, each (G, K)."""
    weights = np.zeros_like(loglik)
    for g in range(len(loglik)):
        largest, total = loglik[g].max(), 0.0
        for k in range(loglik.shape[1]):
            if loglik[g, k] > largest + _LOG_SMALL:
                weights[g, k] = prior[g, k] * math.exp(loglik[g, k] - largest)
                total += weights[g, k]
        weights[g] /= total
    return weights


@_compiled
def _log_pvals(
    coef: Array,  # (G, df, K)
    whitening: Array,  # (K, df, df)
    sigma2: Array,  # (G, K)
    loglik: Array,
    prior: Array,
    weights: Array,
    dof: int,
    log_pval: Array,
) -> None:
    n_genes, df, n_points = coef.shape
    q = np.empty(n_points)
    for g in range(n_genes):
        p = 0.0
        for k in range(n_points - 1, -1, -1):  # from the widest distribution on, whose tail is largest
            q[k] = _quadratic(coef[g], whitening[k], k) / sigma2[g, k]
            if weights[g, k] > _NEGLIGIBLE * p:  # a tail is at most 1
                p += weights[g, k] * f_tail(q[k], df, dof)
        log_pval[g] = math.log(min(p, 1.0)) if p > _SMALL else _log_average(q, loglik[g] + np.log(prior[g]), df, dof)


@_compiled
def _log_average(q: Array, joint: Array, df: int, dof: int) -> float:
    """Log of the average tail where the tail itself underflows, from the logs of likelihood times prior."""
    tails = np.empty(q.size)
    for k in range(q.size):
        tails[k] = joint[k] + log_f_tail(q[k], df, dof)
    return _log_sum(tails) - _log_sum(joint)


@_compiled
def _log_sum(logs: Array) -> float:
    largest = logs.max()
    return largest + math.log(np.exp(logs - largest).sum())


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
    weights: Array,  # (G, K)
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
            if weights[g, k] > _LITTLE:
                b[n], s[n], w[n] = coef[g, 0, k], root[k] * math.sqrt(sigma2[g, k]), weights[g, k]
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
