"""The learned prior for any random terms: its support points lie where the genes' own estimates are.

A gene's Gamma is a point of a space of few dimensions, in which the matrix logarithms

    T = log(I + Gamma / first)      block by block, in standardised columns, with `first` the least that is visible

are a measure of distance: 0 at no variance, where likelihoods are flat, and logarithmic beyond. A lattice is laid through
this space, and its points near the estimates of all genes are the support, those of twice the variance included, because
estimates by maximum likelihood are too small. A prior of largest likelihood has no weight far from all estimates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._blas import one_blas_thread
from .._model import GenesAtTermPoints, point_table, shares
from .moderation import Moderation
from .prior import chosen_genes, expression_rank, learn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._model import Structure, TermFit
    from .._statistics import Grouping, SufficientStatistics

    Array = NDArray[np.float64]

# With m levels a variance is known to about sqrt(2/m) of itself: below a fifth of that it cannot be told from 0, and
# the lattice need not be finer than about that.
_INVISIBLE, _STEP, _WIDEST = 0.2, 1.2, 0.34
# More points than this are not needed by any p-value; the lattice is made wider until there are no more.
_MOST_POINTS, _WIDER = 300, 1.15
_INFLATED = (1.0, 2.0)  # estimates, and what more they could have been


@one_blas_thread()
def learn_term_moderation(stats: SufficientStatistics, structure: Structure, fit: TermFit) -> Moderation:
    """Learn the prior from the genes that could be fitted; `fit` is by maximum likelihood."""
    points = support_points(fit, structure.units)
    genes, rank = chosen_genes(stats.mean, stats.yty, fit.usable), expression_rank(stats.mean, fit.usable)
    loglik = GenesAtTermPoints(stats.genes(genes), point_table(structure, points)).evaluate().loglik
    icc = shares(fit.groupings, points).sum(axis=1)
    return Moderation(points, icc, learn(loglik, rank[genes]), rank)


@one_blas_thread()
def at_term_support(
    stats: SufficientStatistics, structure: Structure, moderation: Moderation, L: Array
) -> GenesAtTermPoints:
    """Genes at the support points, for L beta."""
    return GenesAtTermPoints(stats, point_table(structure, moderation.rho, L @ stats.basis))


def support_points(
    fit: TermFit, units: Sequence[float], *, most: int = _MOST_POINTS, inflated: Sequence[float] = _INFLATED
) -> Array:
    """Entries of Gamma, (K, k), in the order of the groupings, near the estimates of all genes times these factors."""
    phi = fit.phi[fit.usable]
    logs = np.concatenate([logs_of(fit.groupings, units, factor * phi) for factor in inflated])
    scales = _scales(fit.groupings, units)
    steps, wider = np.concatenate([scale.steps for scale in scales]), 1.0
    while len(found := _occupied(logs, wider * steps)) > most:
        wider *= _WIDER
    parts = [scale.entries(part) for scale, part in zip(scales, _split(scales, found), strict=True)]
    return np.unique(np.concatenate(parts, axis=1), axis=0)


def logs_of(groupings: Sequence[Grouping], units: Sequence[float], phi: Array) -> Array:
    """Entries of all T, (n, k), from those of Gamma."""
    scales = _scales(groupings, units)
    return np.concatenate([scale.logs(part) for scale, part in zip(scales, _split(scales, phi), strict=True)], axis=1)


def _scales(groupings: Sequence[Grouping], units: Sequence[float]) -> list[_Scale]:
    return [_Scale(grouping, unit) for grouping, unit in zip(groupings, units, strict=True)]


def _split(scales: Sequence[_Scale], entries: Array) -> list[Array]:
    """Columns of each grouping."""
    return np.split(entries, np.cumsum([scale.steps.size for scale in scales])[:-1], axis=1)


def _occupied(logs: Array, steps: Array) -> Array:
    """Points of a lattice that have a gene in their cell, and the point of no variance."""
    cells = np.unique(np.rint(logs / steps).astype(np.int64), axis=0)
    return np.unique(np.concatenate([np.zeros((1, steps.size)), cells * steps]), axis=0)


class _Scale:
    """The space of Gamma of one grouping."""

    def __init__(self, grouping: Grouping, unit: float) -> None:
        known = np.sqrt(2 / grouping.n_levels)
        self.pairs, self.r = grouping.pairs, grouping.r
        self.first = _INVISIBLE * known * unit
        self.steps = np.full(len(self.pairs), min(_STEP * known, _WIDEST))

    def logs(self, entries: Array) -> Array:
        """Entries of log(I + Gamma / first), (n, pairs), from those of Gamma."""
        values, vectors = np.linalg.eigh(self._matrices(np.nan_to_num(entries)) / self.first)
        return self._entries(_rebuilt(np.log1p(np.maximum(values, 0.0)), vectors))

    def entries(self, logs: Array) -> Array:
        """Entries of Gamma, (n, pairs), of the nearest T that is one of some Gamma."""
        values, vectors = np.linalg.eigh(self._matrices(logs))
        return self._entries(self.first * _rebuilt(np.expm1(np.maximum(values, 0.0)), vectors))

    def _matrices(self, entries: Array) -> Array:
        full = np.zeros((len(entries), self.r, self.r))
        for (a, b), column in zip(self.pairs, entries.T, strict=True):
            full[:, a, b] = full[:, b, a] = column
        return full

    def _entries(self, matrices: Array) -> Array:
        return np.stack([matrices[:, a, b] for a, b in self.pairs], axis=1)


def _rebuilt(values: Array, vectors: Array) -> Array:
    """Symmetric matrices from eigenvalues (n, r) and eigenvectors (n, r, r)."""
    return np.asarray((vectors * values[:, None, :]) @ np.swapaxes(vectors, 1, 2))
