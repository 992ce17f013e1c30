"""Distribution of the variance ratio over genes, learned from all of them, and what it says of each.

A gene's own donors tell little of its variance between donors; all genes together tell how such variances are
distributed. With l_gk the restricted log-likelihood of gene g at support point k and x_g the rank of its mean expression,

    prior      pi_k(x) = (1 - f) pi_k,c + f pi_k,c+1      between centres c of x, f the way from one to the next
    fitted by  maximising sum_g log sum_k pi_k(x_g) exp l_gk      over all pi >= 0 with sum_k pi_kc = 1
    posterior  w_gk = pi_k(x_g) exp l_gk / sum_k pi_k(x_g) exp l_gk

The problem is convex (nonparametric maximum likelihood of a mixing distribution: Kiefer & Wolfowitz 1956, Laird 1978;
Koenker & Mizera 2014) and EM climbs it. One gene more, as likely at any point, is then added to those of each centre, so
that no ratio is impossible for want of genes like it. Restricted likelihoods do not depend on beta, so genes that change with the
tested term do not distort what is learned. Points may lie in any space: nothing here knows what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats as distributions

from .._compile import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Genes from which a prior is learned unasked, and with which it may be. With 4 donors the largest shares of null genes below
# .05 and (per 1,000) .001 over eight distributions of rho were .065 and 5.2 from 20 genes, .065 and 3.6 from 50, .062 and
# 2.4 from 100, .060 and 1.6 from 200 (tests/benchmarks/calibration_few.py; Monte-Carlo error .003 and .5).
ENOUGH_GENES, FEWEST_GENES = 200, 20
_GENES_PER_CENTRE, _MOST_CENTRES = 100, 8
_MOST_GENES = 3_000  # tell the prior as well as all do; evenly spaced in expression
# Steps end where they add so little to the mean log-likelihood that no p-value changes. A power of the factors of EM
# below 2 goes farther in a step and to the same place.
_MOST_STEPS, _TOLERANCE, _POWER = 2_000, 2e-6, 1.8


@dataclass(frozen=True)
class Prior:
    """Weights of K points at C centres of the rank of mean expression."""

    weights: Array  # (C, K)
    n_genes: int  # it was learned from

    def at(self, rank: Array) -> Array:
        """Weights for genes with these ranks in (0, 1), (G, K)."""
        lower, way = _between_centres(rank, len(self.weights))
        upper = np.minimum(lower + 1, len(self.weights) - 1)
        return (1 - way)[:, None] * self.weights[lower] + way[:, None] * self.weights[upper]


def expression_rank(mean: Array, usable: NDArray[np.bool_]) -> Array:
    """Rank of mean expression among the usable genes, in (0, 1), (G,)."""
    rank = np.full(mean.size, 0.5)
    rank[usable] = (distributions.rankdata(mean[usable]) - 0.5) / max(1, int(usable.sum()))
    return rank


def chosen_genes(mean: Array, yty: Array, usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Genes to learn from, in the order of their expression and evenly spaced in it, whatever their order."""
    candidates = np.flatnonzero(usable)
    ordered = candidates[np.lexsort((yty[candidates], mean[candidates]))]
    return ordered[:: max(1, -(-ordered.size // _MOST_GENES))]


def learn(loglik: Array, rank: Array) -> Prior:
    """Learn the prior from restricted log-likelihoods (G, K) of genes with these ranks (G,)."""
    n_genes, n_points = loglik.shape
    n_centres = int(np.clip(n_genes // _GENES_PER_CENTRE, 1, _MOST_CENTRES))
    lower, way = _between_centres(rank, n_centres)
    weights = np.full((n_centres, n_points), 1 / n_points)
    likelihood = np.exp(loglik - loglik.max(axis=1, keepdims=True))
    _climb(likelihood, lower, way, weights)
    of_centre = n_genes / n_centres
    return Prior((of_centre * weights + 1 / n_points) / (of_centre + 1), n_genes)


def _between_centres(rank: Array, n_centres: int) -> tuple[NDArray[np.int64], Array]:
    """The centre below each rank, and the way from there to the next; constant beyond the outermost centres."""
    place = np.clip(rank * n_centres - 0.5, 0, n_centres - 1)
    lower = np.minimum(place.astype(np.int64), max(n_centres - 2, 0))
    return lower, place - lower


@compiled(fastmath={"reassoc", "contract"})
def _climb(likelihood: Array, lower: NDArray[np.int64], way: Array, weights: Array) -> None:
    """Expectation-maximisation: overwrite `weights` (C, K) by those of larger likelihood until it hardly grows."""
    n_centres, n_points = weights.shape
    before = -np.inf
    for _ in range(_MOST_STEPS):
        total, counts = 0.0, np.zeros((n_centres, n_points))
        for g in range(lower.size):
            a, f = lower[g], way[g]
            b = min(a + 1, n_centres - 1)
            density = 0.0
            for k in range(n_points):
                density += ((1 - f) * weights[a, k] + f * weights[b, k]) * likelihood[g, k]
            total += np.log(density)
            for k in range(n_points):
                counts[a, k] += (1 - f) / density * likelihood[g, k]
                counts[b, k] += f / density * likelihood[g, k]
        for c in range(n_centres):
            weights[c] *= (counts[c] / (weights[c] * counts[c]).sum()) ** _POWER
            weights[c] /= weights[c].sum()
        if 0 <= total - before < _TOLERANCE * lower.size:
            break
        before = total
