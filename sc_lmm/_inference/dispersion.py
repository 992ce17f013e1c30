"""Counts of all genes -> Dispersions: how donors vary in each gene, learned from all of them.

A gene's own donors tell little of its dispersion; all genes tell the distribution. The prior of phi over the support points
and its posterior are those of the variance ratio (:mod:`sc_lmm._inference.prior`), from adjusted profile likelihoods. A share
_DOUBT of genes is taken to be like no others, with any of the points: donors of real cohorts have outliers that the
gamma distribution does not, and a gene of which none like it was seen is not to be judged by the rest alone.

Cells of one donor may vary more than Poisson counts do, and more so where donors do. Then the dispersion of a donor's sum
falls with its number of cells n_j, and points are those of an average donor:

    phi_j = phi r_j,   r_j = (1 + kappa / n_j) / (geometric mean over donors of the same)

kappa, in cells, is that of a short list under which the genes are most likely. 0 says that donors of few cells are as good
as others: their Poisson noise is in the model anyhow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import special

from .._blas import one_blas_thread
from .._model import COUNT_STATUS, CountPoints, count_points, for_blocks, gene_blocks
from .averaged import posterior
from .prior import Prior, chosen_genes, expression_rank, learn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._statistics import CountStatistics

    Array = NDArray[np.float64]

# Points of phi, beside 0, a fixed step apart in log phi. With m donors it is known to about sqrt(2/m) of itself.
_FIRST, _LAST, _STEP, _WIDEST = 0.002, 6.0, 1.2, 0.32  # in units of sqrt(2/m), and the most that a step may be
_FAR = (12.0, 24.0, 48.0, 96.0)  # for genes that one donor or two have
_DOUBT = 0.03
_KAPPA = (0.0, 20.0, 60.0, 200.0, 600.0)
_GENES_FOR_KAPPA = 600


@dataclass(frozen=True)
class Dispersions:
    """Fits of every gene at its points, and the weight of each point."""

    points: CountPoints
    prior: Array  # (G, K)
    weights: Array  # (G, K) posterior
    kappa: float  # cells, NaN where nothing was learned
    dof: int  # donors less columns

    def genes(self, index: slice | NDArray[Any]) -> Dispersions:
        """Dispersions of some of the genes."""
        return replace(self, points=self.points.genes(index), prior=self.prior[index], weights=self.weights[index])

    @property
    def is_own(self) -> bool:
        """Whether each gene has its own estimate for its only point."""
        return bool(np.isnan(self.kappa))

    @property
    def mean(self) -> Array:
        """Posterior mean of phi, (G,)."""
        return (self.weights * self.points.phi).sum(axis=1)

    @property
    def sd(self) -> Array:
        """Posterior mean of the standard deviation of the logarithm of a donor's factor, (G,)."""
        with np.errstate(divide="ignore"):
            return (self.weights * np.sqrt(special.polygamma(1, 1 / self.points.phi))).sum(axis=1)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Genes with counts whose fits came to an end, (G,)."""
        return self.points.status < COUNT_STATUS.index("constant")


class Workers(NamedTuple):
    """How the fits are spread and shown; changes no result."""

    n_jobs: int | None = None
    show_progress: bool | None = None


def support_of(n_donors: int) -> Array:
    """Points of phi, (K,)."""
    step = min(_STEP * np.sqrt(2 / n_donors), _WIDEST)
    n = int(np.ceil(np.log(_LAST / _FIRST) / step))
    return np.concatenate([[0.0], np.geomspace(_FIRST, _LAST, n + 1), _FAR])


def learned_dispersions(counts: CountStatistics, workers: Workers = Workers()) -> Dispersions:
    """Learn from all genes."""
    phi, total = support_of(len(counts.exposure)), counts.sums.sum(axis=1)
    few = chosen_genes(counts.mean, total, total > 0)
    kappa = _most_likely(counts.genes(few[:: max(1, -(-few.size // _GENES_FOR_KAPPA))]), phi)
    points = fit_points(counts, np.broadcast_to(phi, (counts.n_genes, phi.size)), _relative(counts, kappa), workers)
    usable = points.status < COUNT_STATUS.index("constant")
    rank, learners = expression_rank(counts.mean, usable), few[usable[few]]
    prior = _doubted(learn(points.loglik[learners], rank[learners]).at(rank))
    return Dispersions(points, prior, posterior(points.loglik, prior), kappa, counts.dof)


def _doubted(prior: Array) -> Array:
    return (1 - _DOUBT) * prior + _DOUBT / prior.shape[1]


def _relative(counts: CountStatistics, kappa: float) -> Array:
    more = 1 + kappa / counts.sizes
    return np.asarray(more / np.exp(np.log(more).mean()))


def _most_likely(counts: CountStatistics, phi: Array) -> float:
    """The kappa under which these genes, and the prior learned from them, are most likely."""
    rank = expression_rank(counts.mean, np.ones(counts.n_genes, dtype=bool))
    found = []
    for kappa in _KAPPA:
        loglik = count_points(counts, np.tile(phi, (counts.n_genes, 1)), _relative(counts, kappa)).loglik
        found.append(_evidence(loglik, learn(loglik, rank), rank))
    return _KAPPA[int(np.argmax(found))]


def _evidence(loglik: Array, prior: Prior, rank: Array) -> float:
    """Log-likelihood of all genes under a prior."""
    return float(special.logsumexp(loglik, b=prior.at(rank), axis=1).sum())


def own_dispersions(counts: CountStatistics, workers: Workers = Workers()) -> Dispersions:
    """Each gene's own: the maximum of its adjusted profile likelihood, up to the last point."""
    phi = support_of(len(counts.exposure))
    relative = np.ones(len(counts.exposure))
    coarse = fit_points(counts, np.broadcast_to(phi, (counts.n_genes, phi.size)), relative, workers)
    best = coarse.loglik.argmax(axis=1)
    low, high = phi[np.maximum(best - 1, 0)], phi[np.minimum(best + 1, phi.size - 1)]
    found = _between(counts, low, high, relative, workers)
    points = fit_points(counts, found[:, None], relative, workers)
    one = np.ones((counts.n_genes, 1))
    return Dispersions(points, one, one, np.nan, counts.dof)


_GOLDEN = (np.sqrt(5) - 1) / 2
_SECTIONS = 32


def _between(counts: CountStatistics, low: Array, high: Array, relative: Array, workers: Workers) -> Array:
    """Golden sections of all genes at once between two points each, (G,)."""
    for _ in range(_SECTIONS):
        inner = np.stack([high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)], axis=1)
        loglik = fit_points(counts, inner, relative, workers).loglik
        rises = loglik[:, 1] > loglik[:, 0]
        low, high = np.where(rises, inner[:, 0], low), np.where(rises, high, inner[:, 1])
    return (low + high) / 2


@one_blas_thread()
def fit_points(counts: CountStatistics, phi: Array, relative: Array, workers: Workers) -> CountPoints:
    """Fit every gene at its points `phi` (G, K), in blocks of genes."""
    blocks = gene_blocks(counts.n_genes, counts.sizes.size + 4 * phi.shape[1])
    arguments = ((counts.genes(block), np.ascontiguousarray(phi[block]), relative) for block in blocks)
    how: dict[str, Any] = {"n_blocks": len(blocks), "n_jobs": workers.n_jobs, "show_progress": workers.show_progress}
    parts = for_blocks(count_points, arguments, **how, doing="fitting")
    names = ("phi", "loglik", "means", "beta", "status")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return CountPoints(relative=relative, **arrays)
