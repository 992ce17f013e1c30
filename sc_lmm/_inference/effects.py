"""Estimates of one coefficient in all genes -> the distribution of effects, and what it makes of each gene's estimate.

Most genes change little, few change much. With b_g the estimate, s_g its standard error, and effects in units u_g,

    b_g | beta_g ~ N(beta_g, s_g^2),   beta_g / u_g ~ sum_l pi_l N(0, tau_l^2)      a scale mixture, unimodal at zero

pi is fitted by penalised maximum likelihood over the genes, a point at zero (tau_0 = 0) being favoured as by ten genes, and
the posterior of each beta_g is a mixture of normals again. Its mean is the shrunken effect, and the local false sign rate
min(P(beta_g <= 0), P(beta_g >= 0)) is the probability that its sign is wrong (Stephens 2017). s_g is what makes b_g / s_g
the normal score of the p-value, so that what few donors leave uncertain is in it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._compile import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_compiled = compiled(error_model="numpy")

_MOST_GENES = 3_000  # tell the distribution as well as all do
_RATIO = math.sqrt(2)  # of neighbouring tau
_EXACTEST = 1e-3  # share of genes that may have a smaller standard error than tau starts from
_NULL_GENES = 10.0  # that zero is favoured by
# Steps end where they add so little to the mean log-likelihood; a power of the factors of EM below 2 takes fewer of them.
_MOST_STEPS, _TOLERANCE, _POWER = 500, 2e-6, 1.8
_UNSEEN = 1e-7  # weight of a component that no gene has


class Effects(NamedTuple):
    """Effects of G genes under their common distribution."""

    mean: Array  # (G,) posterior mean
    lfsr: Array  # (G,) local false sign rate


def shrink_effects(coef: Array, score: Array, unit: Array) -> Effects:
    """Shrink the estimates of all genes.

    Parameters
    ----------
    coef
        Estimates, (G,), NaN where there is none.
    score
        Normal scores of their p-values, with the sign of the estimate, (G,).
    unit
        What an effect of one is in each gene, (G,).
    """
    out = Effects(np.full(coef.size, np.nan), np.full(coef.size, np.nan))
    usable = np.flatnonzero(np.isfinite(coef) & np.isfinite(score) & (score != 0) & (unit > 0))
    if usable.size == 0:
        return out
    b = coef[usable] / unit[usable]
    s = np.abs(b / score[usable])
    tau = _grid(b, s)
    order = np.lexsort((s, b))[:: max(1, -(-usable.size // _MOST_GENES))]
    weights = _fit(_likelihoods(b[order], s[order], tau))
    seen = weights > _UNSEEN
    mean, lfsr = _posterior(b, s, tau[seen], weights[seen] / weights[seen].sum())
    out.mean[usable], out.lfsr[usable] = mean * unit[usable], lfsr
    return out


def _grid(b: Array, s: Array) -> Array:
    """Zero, and standard deviations of effects from invisible to larger than any seen."""
    first = float(np.quantile(s, _EXACTEST)) / 10
    last = max(2 * math.sqrt(max(float((b**2 - s**2).max()), 0.0)), 8 * first)
    n = math.ceil(math.log(last / first) / math.log(_RATIO))
    return np.concatenate([[0.0], first * _RATIO ** np.arange(n + 1)])


def _likelihoods(b: Array, s: Array, tau: Array) -> Array:
    """Density of each estimate under each component, up to a factor of the gene, (G, n_tau)."""
    variance = s[:, None] ** 2 + tau**2
    log_density = -(np.log(variance) + b[:, None] ** 2 / variance) / 2
    return np.exp(log_density - log_density.max(axis=1, keepdims=True))


@compiled(fastmath={"reassoc", "contract"})
def _fit(likelihood: Array) -> Array:
    """Weights of the components by expectation-maximisation."""
    n_genes, n_tau = likelihood.shape
    weights, before = np.full(n_tau, 1 / n_tau), -np.inf
    for _ in range(_MOST_STEPS):
        counts = np.zeros(n_tau)
        counts[0] = (_NULL_GENES - 1) / weights[0]
        total = (_NULL_GENES - 1) * np.log(weights[0])
        for g in range(n_genes):
            density = 0.0
            for k in range(n_tau):
                density += weights[k] * likelihood[g, k]
            total += np.log(density)
            for k in range(n_tau):
                counts[k] += likelihood[g, k] / density
        weights *= (counts / (n_genes + _NULL_GENES - 1)) ** _POWER
        weights /= weights.sum()
        if 0 <= total - before < _TOLERANCE * n_genes:
            break
        before = total
    return weights


@_compiled
def _posterior(b: Array, s: Array, tau: Array, weights: Array) -> tuple[Array, Array]:
    """Posterior mean and local false sign rate of each gene."""
    mean, lfsr = np.empty(b.size), np.empty(b.size)
    log_part, log_weights = np.empty(tau.size), np.log(weights)
    for g in range(b.size):
        largest = -np.inf
        for k in range(tau.size):
            variance = s[g] * s[g] + tau[k] * tau[k]
            log_part[k] = log_weights[k] - (math.log(variance) + b[g] * b[g] / variance) / 2
            largest = max(largest, log_part[k])
        total, first, wrong = 0.0, 0.0, 0.0
        for k in range(tau.size):
            part = math.exp(log_part[k] - largest)
            share = tau[k] * tau[k] / (s[g] * s[g] + tau[k] * tau[k])
            total += part
            first += part * share * b[g]
            wrong += part if k == 0 else part * 0.5 * math.erfc(abs(b[g]) * math.sqrt(share) / s[g] / math.sqrt(2))
        mean[g], lfsr[g] = first / total, wrong / total
    return mean, lfsr
