"""Statistics of all genes -> Moderation: the prior of their variance ratios; a hypothesis -> tests averaged over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._blas import one_blas_thread
from .._model import GenesAtPoints, Profile, for_blocks, gene_blocks, support
from .averaged import averaged, posterior
from .prior import Prior, chosen_genes, expression_rank, learn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._model import GenesAtTermPoints
    from .._statistics import SufficientStatistics

    Array = NDArray[np.float64]

# Points of rho in units of donors over cells, beside 0, a fixed step apart in log rho. With m donors rho is known to about
# sqrt(2/m) of itself, and below a fifth of that share it cannot be told from 0.
_INVISIBLE, _STEP, _WIDEST = 0.2, 1.2, 0.34  # in that unit, the same, and the most that a step may be
_LAST, _FARTHEST = 10.0, 1e15  # up to where there are points, at least and at most


@dataclass(frozen=True)
class Moderation:
    """What all genes say of the variance ratios of one of them."""

    rho: Array  # (K,) support points; (K, k) of several ratios
    icc: Array  # (K,) share of the random terms in the variance there
    prior: Prior
    rank: Array  # (G,) of mean expression


class Moderated(NamedTuple):
    """A hypothesis tested in G genes."""

    log_pval: Array  # (G,)
    coef: Array  # (G,) NaN for several df
    se: Array  # (G,)
    ci_low: Array  # (G,)
    ci_high: Array  # (G,)
    icc: Array  # (G,) posterior mean


@one_blas_thread()
def learn_moderation(stats: SufficientStatistics, profile: Profile, usable: NDArray[np.bool_]) -> Moderation:
    """Learn the prior from the genes that could be fitted."""
    genes, nothing = chosen_genes(stats.mean, stats.yty, usable), np.empty((0, stats.basis.shape[0]))
    rho = _points(stats, profile, usable)
    points = support(stats, profile.spectrum, rho, nothing)
    loglik = GenesAtPoints(stats.genes(genes), profile.genes(genes), points).evaluate().loglik
    rank = expression_rank(stats.mean, usable)
    return Moderation(rho, rho / (1 + rho), learn(loglik, rank[genes]), rank)


def _points(stats: SufficientStatistics, profile: Profile, usable: NDArray[np.bool_]) -> Array:
    """Points up to where no gene's likelihood rises any more.

    A prior of largest likelihood has no weight beyond the largest estimate of a gene (Lindsay 1983). All genes are asked,
    not only those that it is learned from: one of larger rho than any point would be thought to vary less than it does.
    """
    unit, known, last = stats.sizes.size / stats.sizes.sum(), np.sqrt(2 / stats.sizes.size), _LAST
    while last < _FARTHEST and (_rises(profile, unit * last) & usable).any():
        last *= 2
    first, step = np.log(_INVISIBLE * known), min(_STEP * known, _WIDEST)
    return unit * np.concatenate([[0.0], np.exp(np.arange(first, np.log(last) + step, step))])


def _rises(profile: Profile, rho: float) -> NDArray[np.bool_]:
    """Genes whose restricted likelihood rises at rho, (G,)."""
    d, nu = profile.spectrum.d, profile.spectrum.dof
    shrunk = 1 / (1 + rho * d)
    rss = profile.eta2 @ shrunk + profile.rss_0
    return np.asarray(nu * (profile.eta2 @ (d * shrunk**2)) > rss * (d @ shrunk))


@one_blas_thread()
def at_support(stats: SufficientStatistics, profile: Profile, moderation: Moderation, L: Array) -> GenesAtPoints:
    """Genes at the support points, for L beta."""
    return GenesAtPoints(stats, profile, support(stats, profile.spectrum, moderation.rho, L))


def moderated_test(
    genes: GenesAtPoints | GenesAtTermPoints,
    moderation: Moderation,
    *,
    conf_level: float | None,
    n_jobs: int | None = None,
    show_progress: bool | None = None,
) -> Moderated:
    """Test what the points estimate with the posterior of every gene.

    Parameters
    ----------
    genes
        G genes at the support points, for L beta.
    moderation
        Prior of the variance ratios.
    conf_level
        Level of the limits, None for none.
    n_jobs, show_progress
        Of the blocks of genes.
    """
    blocks = gene_blocks(genes.stats.n_genes, genes.entries)
    arguments = ((genes.genes(block), moderation, moderation.rank[block], conf_level) for block in blocks)
    choices: dict[str, Any] = {"n_blocks": len(blocks), "n_jobs": n_jobs, "show_progress": show_progress}
    parts = for_blocks(_test_block, arguments, **choices, doing="testing")
    return Moderated(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _test_block(
    genes: GenesAtPoints | GenesAtTermPoints, moderation: Moderation, rank: Array, conf_level: float | None
) -> Moderated:
    at = genes.evaluate()
    prior = moderation.prior.at(rank)
    weights = posterior(at.loglik, prior)
    return Moderated(*averaged(at, prior, weights, conf_level=conf_level), (weights * moderation.icc).sum(axis=1))
