"""Statistics of all genes -> Moderation: the prior of their variance ratios; a hypothesis -> tests averaged over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._blas import one_blas_thread
from .._model import Profile, at_points, for_blocks, gene_blocks, support
from .averaged import averaged, posterior
from .prior import Prior, chosen_genes, expression_rank, learn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._model import Support
    from .._statistics import SufficientStatistics

    Array = NDArray[np.float64]

# Points of rho in units of donors over cells, beside 0, a fixed step apart in log rho. With m donors rho is known to about
# sqrt(2/m) of itself, and below a fifth of that share it cannot be told from 0.
_INVISIBLE, _STEP, _WIDEST = 0.2, 1.2, 0.34  # in that unit, the same, and the most that a step may be
_LAST, _FARTHEST = 10.0, 1e15  # up to where there are points, at least and at most


@dataclass(frozen=True)
class Moderation:
    """What all genes say of the variance ratio of one of them."""

    rho: Array  # (K,) support points
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
    loglik = at_points(stats.genes(genes), profile.genes(genes), points).loglik
    rank = expression_rank(stats.mean, usable)
    return Moderation(rho, learn(loglik, rank[genes]), rank)


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


def moderated_test(
    stats: SufficientStatistics,
    profile: Profile,
    moderation: Moderation,
    L: Array,
    *,
    conf_level: float | None,
    n_jobs: int | None = None,
    show_progress: bool | None = None,
) -> Moderated:
    """Test L beta = 0 with the posterior of every gene.

    Parameters
    ----------
    stats, profile
        Statistics and restricted deviance of G genes.
    moderation
        Prior of the variance ratio.
    L
        Hypothesis, (df, p).
    conf_level
        Level of the limits, None for none.
    n_jobs, show_progress
        Of the blocks of genes.
    """
    with one_blas_thread():
        points = support(stats, profile.spectrum, moderation.rho, L)
    blocks = gene_blocks(stats.n_genes, stats.sizes.size + (3 + len(L)) * moderation.rho.size)
    arguments = (
        (stats.genes(block), profile.genes(block), points, moderation, moderation.rank[block], conf_level)
        for block in blocks
    )
    choices: dict[str, Any] = {"n_blocks": len(blocks), "n_jobs": n_jobs, "show_progress": show_progress}
    parts = for_blocks(_test_block, arguments, **choices, doing="testing")
    return Moderated(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _test_block(
    stats: SufficientStatistics,
    profile: Profile,
    points: Support,
    moderation: Moderation,
    rank: Array,
    conf_level: float | None,
) -> Moderated:
    at = at_points(stats, profile, points)
    prior = moderation.prior.at(rank)
    weights = posterior(at.loglik, prior)
    icc = moderation.rho / (1 + moderation.rho)
    return Moderated(*averaged(at, prior, weights, conf_level=conf_level), (weights * icc).sum(axis=1))
