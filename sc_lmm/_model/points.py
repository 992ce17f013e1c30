"""Statistics -> restricted likelihood and estimates of every gene at variance ratios that all genes share.

At a support point rho_k the covariance of y is known up to sigma^2, and everything about it is the design's:

    loglik_gk = -(nu/2) log rss_gk - 1/2 sum_j log(1 + rho_k d_j)           nu = n - p, sigma^2 integrated out
    coef_gk   = L beta_hat = L A_k^-1 a_gk                                  linear in the statistics of the gene
    cov(coef_gk) = sigma^2 L A_k^-1 L'                                      shared by all genes

so a block of genes at all points is a few products with shared matrices. They are compiled with one order of summation
per gene, whatever stands beside it, so that no result depends on blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._compile import compiled
from .._statistics import within_products

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._statistics import SufficientStatistics
    from .deviance import Profile, Spectrum

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Support:
    """What the K points share, for one hypothesis of df rows (none, if only likelihoods are wanted)."""

    weight: Array  # (r, K) 1 / (1 + rho d)
    log_det: Array  # (K,) sum of log(1 + rho d)
    dof: int  # nu
    between: Array  # (q, df K) coef = Z'y between + D'y within, + level shift
    within: Array  # (w, df K)
    level: Array  # (df,)
    unscaled: Array  # (K, df, df) covariance of coef over sigma^2


@dataclass(frozen=True)
class AtPoints:
    """G genes at K points."""

    loglik: Array  # (G, K) restricted, up to a constant of the gene
    sigma2: Array  # (G, K) residual variance
    coef: Array  # (G, df, K) estimates of L beta
    unscaled: Array  # (K, df, df) their covariance over sigma^2
    dof: int  # of sigma2


def support(stats: SufficientStatistics, spectrum: Spectrum, rho: Array, L: Array) -> Support:
    """Prepare points `rho` (K,) for estimates of L beta, with `L` (df, p_user) and a spectrum of the REML deviance."""
    n, df, n_points = stats.sizes, L.shape[0], rho.size
    means, W, K = stats.ZtX / n[:, None], within_products(stats), L @ stats.basis
    inflated = 1 + rho[:, None] * n  # (K, q)
    A = W + np.einsum("kj,ja,jb->kab", n / inflated, means, means)
    R = np.swapaxes(np.linalg.solve(A, np.broadcast_to(K.T, (n_points, *K.T.shape))), 1, 2)  # (K, df, p)
    between = np.einsum("kdp,jp,kj->jdk", R, means, 1 / inflated)
    return Support(
        weight=1 / (1 + spectrum.d[:, None] * rho),
        log_det=np.log1p(rho[:, None] * spectrum.d).sum(axis=1),
        dof=spectrum.dof,
        between=np.ascontiguousarray(between.reshape(n.size, df * n_points)),
        within=np.ascontiguousarray(stats.DtX @ R.transpose(2, 1, 0).reshape(len(W), df * n_points)),
        level=np.zeros(df) if stats.ones is None else K @ stats.ones,
        unscaled=R @ K.T,
    )


@dataclass(frozen=True)
class GenesAtPoints:
    """Genes that can be evaluated at the points, given their restricted deviance `profile`."""

    stats: SufficientStatistics
    profile: Profile
    points: Support

    @property
    def entries(self) -> int:
        """Numbers per gene that an evaluation holds."""
        return self.stats.sizes.size + (3 + self.points.level.size) * self.points.log_det.size

    def genes(self, index: slice | NDArray[np.int64]) -> GenesAtPoints:
        """Some of the genes."""
        return GenesAtPoints(self.stats.genes(index), self.profile.genes(index), self.points)

    def evaluate(self) -> AtPoints:
        """Likelihoods and estimates at all points."""
        stats, points = self.stats, self.points
        df, n_points = points.level.size, points.log_det.size
        rss = _product(np.ascontiguousarray(self.profile.eta2), points.weight) + self.profile.rss_0[:, None]
        coef = _product(np.ascontiguousarray(stats.ZtY.T), points.between)
        coef += _product(np.ascontiguousarray(stats.DtY.T), points.within)
        coef = coef.reshape(stats.n_genes, df, n_points) + stats.shift[:, None, None] * points.level[:, None]
        with np.errstate(divide="ignore"):  # a constant gene
            loglik = -(points.dof * np.log(rss) + points.log_det) / 2
        return AtPoints(loglik, rss / points.dof, coef, points.unscaled, points.dof)


@compiled(fastmath={"contract"})
def _product(a: Array, b: Array) -> Array:
    """Matrix product whose rows do not depend on one another in any bit."""
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            for k in range(b.shape[1]):
                out[i, k] += a[i, j] * b[j, k]
    return out
