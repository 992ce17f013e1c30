"""CountStatistics -> likelihoods and estimates of every gene at dispersions that are given.

For each gene and point k, the dispersion of donor j being phi_k r_j with r the same for all genes,

    loglik  l(beta_hat) - 1/2 log|I(beta_hat)|      adjusted profile likelihood (Cox & Reid 1987), what the data say of phi
    means   the part of l(beta_hat) that beta is in, whose difference from the null model's is half the likelihood ratio
    beta    the estimates

The adjustment does for dispersions what a restricted likelihood does for variances: without it each would be too small, by
the columns that were fitted (Robinson & Smyth 2008; McCarthy et al. 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._compile import compiled
from .bartlett import NOTHING, excess
from .negative_binomial import (
    fitted_means,
    half_solve,
    information_factor,
    log_determinant,
    loglik_of_counts,
    loglik_of_means,
    maximise,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._statistics import CountStatistics

    Array = NDArray[np.float64]

_compiled = compiled(error_model="numpy")

# In the order of STATUS of counts.
OK, SEPARATED, CONSTANT, MAX_ITER = range(4)
COUNT_STATUS = ("ok", "separated", "constant", "max_iter")


@dataclass(frozen=True)
class CountPoints:
    """G genes at K points, in the columns of the statistics."""

    phi: Array  # (G, K) dispersions, ascending
    relative: Array  # (q,) of each donor to these
    loglik: Array  # (G, K) adjusted profile likelihood
    means: Array  # (G, K) the part of the likelihood that beta is in
    beta: Array  # (G, K, p)
    status: NDArray[np.int8]  # (G,) position in COUNT_STATUS

    def genes(self, index: slice | NDArray[Any]) -> CountPoints:
        """Points of some of the genes."""
        per_gene = ("phi", "loglik", "means", "beta", "status")
        return replace(self, **{name: np.ascontiguousarray(getattr(self, name)[index]) for name in per_gene})


def count_points(counts: CountStatistics, phi: Array, relative: Array) -> CountPoints:
    """Fit every gene at its points `phi` (G, K).

    A separated gene has the estimates of half a count more per column. A gene of no more donors than there are columns can be
    fitted exactly, at any dispersion, which is then told by its spread about the mean alone.
    """
    points = _fit(counts, phi, relative)
    fitted = np.flatnonzero(np.count_nonzero(counts.sums, axis=1) <= counts.X.shape[1])
    alone = counts.genes(fitted).with_columns(np.ones((len(counts.exposure), 1)))
    points.loglik[fitted] = _fit(alone, phi[fitted], relative).loglik
    separated = np.flatnonzero(points.status == SEPARATED)
    if separated.size:
        few = counts.genes(separated)
        few = replace(few, sums=few.sums + half_counts(counts))
        points.beta[separated] = _fit(few, phi[separated], relative).beta
    return points


def half_counts(counts: CountStatistics) -> Array:
    """Half a count per column, dealt to donors by their leverage, (q,): Firth's correction of a Poisson regression."""
    Q, _ = np.linalg.qr(np.sqrt(counts.exposure)[:, None] * counts.X)
    return np.asarray((Q**2).sum(axis=1) / 2)


def _fit(counts: CountStatistics, phi: Array, relative: Array) -> CountPoints:
    loglik, means, beta = np.empty(phi.shape), np.empty(phi.shape), np.empty((*phi.shape, counts.X.shape[1]))
    smallest, done = np.empty(len(phi)), np.ones(len(phi), dtype=np.bool_)
    start, log_exposure = np.linalg.pinv(counts.X), np.log(counts.exposure)
    _fit_genes(counts.sums, log_exposure, counts.X, start, phi, relative, loglik, means, beta, smallest, done)
    status = np.where(done, np.where(smallest < NOTHING, SEPARATED, OK), MAX_ITER)
    status = np.where(counts.sums.any(axis=1), status, CONSTANT).astype(np.int8)
    return CountPoints(phi, relative, loglik, means, beta, status)


@_compiled
def _fit_genes(
    sums: Array,
    log_exposure: Array,
    X: Array,
    start: Array,  # (p, q) from logarithms of rates to where the steps begin
    phi: Array,
    relative: Array,
    loglik: Array,
    means: Array,
    beta: Array,
    smallest: Array,  # (G,) fitted mean of a donor
    done: NDArray[np.bool_],
) -> None:
    n_genes, n_points, p = beta.shape
    mu, information, current = np.empty(log_exposure.size), np.empty((p, p)), np.empty(p)
    for g in range(n_genes):
        _begin(sums[g], log_exposure, X, start, current, mu)
        smallest[g] = 0.0
        for k in range(n_points):
            dispersion = phi[g, k] * relative
            done[g] &= maximise(sums[g], log_exposure, X, dispersion, current, mu, information)
            means[g, k] = loglik_of_means(sums[g], mu, dispersion)
            loglik[g, k] = means[g, k] + loglik_of_counts(sums[g], dispersion) - log_determinant(information) / 2
            beta[g, k] = current
            smallest[g] = max(smallest[g], mu.min())


@_compiled
def _begin(y: Array, log_exposure: Array, X: Array, start: Array, beta: Array, mu: Array) -> None:
    """Least squares of the logarithms of rates, half a count added."""
    beta[:] = 0.0
    for a in range(beta.size):
        for j in range(y.size):
            beta[a] += start[a, j] * (math.log(y[j] + 0.5) - log_exposure[j])
    fitted_means(log_exposure, X, beta, mu)


def corrected_ratios(
    counts: CountStatistics, null: CountStatistics, points: CountPoints, wanted: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Likelihood ratios of full and null model at the points that are wanted, and Bartlett's factors, each (G, K)."""
    ratio, factor = np.zeros(points.phi.shape), np.ones(points.phi.shape)
    start, log_exposure = np.linalg.pinv(null.X), np.log(counts.exposure)
    given = (counts.sums, log_exposure, counts.X, null.X, start, points.phi, points.relative, points.means)
    _ratio_genes(*given, wanted, ratio, factor)
    return ratio, factor


@_compiled
def _ratio_genes(
    sums: Array,
    log_exposure: Array,
    X: Array,
    X0: Array,
    start: Array,
    phi: Array,
    relative: Array,
    means: Array,
    wanted: NDArray[np.bool_],
    ratio: Array,
    factor: Array,
) -> None:
    (q, p), p0 = X.shape, X0.shape[1]
    mu, full, null = np.empty(q), np.empty((p, p)), np.empty((p0, p0))
    current = np.empty(p0)
    for g in range(phi.shape[0]):
        _begin(sums[g], log_exposure, X0, start, current, mu)
        for k in np.flatnonzero(wanted[g]):
            dispersion = phi[g, k] * relative
            maximise(sums[g], log_exposure, X0, dispersion, current, mu, null)
            ratio[g, k] = max(0.0, 2 * (means[g, k] - loglik_of_means(sums[g], mu, dispersion)))
            e = -excess(mu, dispersion, X0, null)
            information_factor(mu, dispersion, X, full)
            factor[g, k] = 1 + (e + excess(mu, dispersion, X, full)) / (p - p0)


def contrast_variances(counts: CountStatistics, points: CountPoints, row: Array, wanted: NDArray[np.bool_]) -> Array:
    """Variance of row'beta by the expected information, for one combination `row` (p,) of the columns, (G, K).

    Only at points that are wanted, and 1 elsewhere.
    """
    variance = np.ones(points.phi.shape)
    _variances(np.log(counts.exposure), counts.X, points.phi, points.relative, points.beta, row, wanted, variance)
    return variance


@_compiled
def _variances(
    log_exposure: Array,
    X: Array,
    phi: Array,
    relative: Array,
    beta: Array,
    row: Array,
    wanted: NDArray[np.bool_],
    variance: Array,
) -> None:
    mu, factor, half = np.empty(log_exposure.size), np.empty((row.size, row.size)), np.empty(row.size)
    for g in range(phi.shape[0]):
        for k in np.flatnonzero(wanted[g]):
            fitted_means(log_exposure, X, beta[g, k], mu)
            information_factor(mu, phi[g, k] * relative, X, factor)
            half[:] = row
            half_solve(factor, half)
            variance[g, k] = (half * half).sum()


def log_likelihoods(counts: CountStatistics, points: CountPoints, chosen: NDArray[np.int64]) -> Array:
    """Log-likelihood of each gene at one of its points, (G,)."""
    genes = np.arange(counts.n_genes)
    return points.means[genes, chosen] + _constants(counts.sums, points.phi[genes, chosen], points.relative)


@_compiled
def _constants(sums: Array, phi: Array, relative: Array) -> Array:
    constants = np.empty(phi.size)
    for g in range(phi.size):
        constants[g] = loglik_of_counts(sums[g], phi[g] * relative)
    return constants
