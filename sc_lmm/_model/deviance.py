"""Profiled -2 log likelihood of one scalar random intercept, for a block of genes. Pure arrays.

With rho = sigma_u^2 / sigma^2 the covariance of y is sigma^2 V, V = I + rho Z Z'. Let K be an orthonormal basis of
the complement of span(X) in span[X Z] in which K' Z Z' K is diagonal with entries d_k. Then eta = K'y turns the weighted
residual sum of squares, minimised over beta, into a sum that a pocket calculator could do:

    rss(rho) = sum_k eta_k^2 / (1 + rho d_k) + rss_0            r = rank [X Z] - rank X directions with d_k > 0
    ML    n     (log(2 pi rss / n)       + 1) + sum_j log(1 + rho n_j)
    REML  (n-p) (log(2 pi rss / (n-p))   + 1) + sum_k log(1 + rho d_k) + log|X'X|

because |V| = prod(1 + rho n_j) and |V| |X'V^-1 X| = |K'VK| |X'X|. d and K depend on the design alone: one
eigendecomposition serves all genes, and ML and REML differ in two constants and one list of eigenvalues. rss_0 is
what is left of y'y beside the cell-level columns and a free mean per level.

In the orthonormal basis (D, Z N^-1/2) of the statistics X is the few rows of `factor`, K the rest of a QR of these, and
d the squared lengths of what K has on Z: nothing is squared, inverted or subtracted on the way.

Crainiceanu & Ruppert 2004 (section 2) for the spectral form; Lippert et al. 2011 for its use over many responses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg

from .._design import TOLERANCE
from .._statistics import within_products
from .coefficients import Moments, least_squares
from .optimize import Shared, minimise, shared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._statistics import SufficientStatistics

    Array = NDArray[np.float64]

_SHORT = 1e-4  # share of the largest square below which a direction is found by its length


@dataclass(frozen=True)
class Spectrum:
    """What the deviance needs of the design, shared by all genes."""

    d: Array  # (r,) nonzero eigenvalues of Z'MZ, M = I - X (X'X)^-1 X'
    levels: Array  # (q, r + k) directions K in coordinates Z'y, the k without eigenvalue last: columns of D beside X
    within: Array  # (w, r + k) and D'y
    log_terms: Array  # (k,) eigenvalues in the log determinant: n_j for ML, d for REML
    dof: int  # n for ML, n - p for REML
    constant: float  # log|X'X| in the user's columns for REML, less the logarithms of the weights

    @property
    def offset(self) -> float:
        """What the deviance is above dof log rss + sum log(1 + rho log_terms)."""
        return self.dof * (np.log(2 * np.pi / self.dof) + 1) + self.constant

    @property
    def unit(self) -> float:
        """Natural unit of rho, one over the mean number of cells per level."""
        return self.log_terms.size / self.dof

    @cached_property
    def shared(self) -> Shared:
        """Tables for the minimisation over rho."""
        return shared(self.d, self.log_terms, self.dof, self.unit)


@dataclass(frozen=True)
class Profile:
    """The deviance of G genes as a function of rho."""

    spectrum: Spectrum
    eta2: Array  # (G, r) squared projections of y
    rss_0: Array  # (G,) residual sum of squares beside X and a free mean per level

    def genes(self, index: slice | NDArray[Any]) -> Profile:
        """Profile of some of the genes."""
        return replace(self, eta2=self.eta2[index], rss_0=self.rss_0[index])

    def rss(self, rho: Array) -> Array:
        """Weighted residual sum of squares at each gene's rho, (G,)."""
        return self.rss_0 + (self.eta2 / (1 + rho[:, None] * self.spectrum.d)).sum(axis=1)

    def deviance(self, rho: Array) -> Array:
        """-2 log L (ML) or -2 log restricted L (REML) at each gene's rho, (G,)."""
        s = self.spectrum
        return s.dof * np.log(self.rss(rho)) + np.log1p(rho[:, None] * s.log_terms).sum(axis=1) + s.offset

    def minimum(self) -> tuple[Array, Array]:
        """Where over rho the deviance is smallest, and how small, each (G,)."""
        found = minimise(self.eta2, self.rss_0, self.spectrum.shared)
        return found.rho, found.value + self.spectrum.offset


def spectrum(stats: SufficientStatistics, *, reml: bool) -> Spectrum:
    """Diagonalise the random term in the complement of the fixed effects."""
    p, w, root = stats.n_columns, len(stats.DtX), np.sqrt(stats.sizes)
    Q, R = linalg.qr(np.vstack([stats.DtX, stats.ZtX / root[:, None]]))
    on_levels = Q[w:, p:]
    K = Q[:, p:] @ _principal(root[:, None] * on_levels)
    used = np.linalg.norm(K[w:], axis=0) > TOLERANCE
    d = ((root[:, None] * K[w:, used]) ** 2).sum(axis=0)  # by lengths, so that small ones keep their digits too
    K = np.hstack([K[:, used], K[:, ~used]])
    return Spectrum(
        d=d,
        levels=K[w:] / root[:, None],
        within=K[:w],
        log_terms=d if reml else stats.sizes,
        dof=stats.n_cells - p if reml else stats.n_cells,
        constant=(_log_det_XtX(stats, R[:p]) if reml else 0.0) - stats.log_weights,
    )


def _principal(A: Array) -> Array:
    """Rotation (r, r) after which the columns of A (q, r) are orthogonal, the longest first.

    By squares, which take a third of the time, and for the short ones by lengths again: a square of 1e-12 beside one of 20
    is rounding, and its direction would be mixed with those that are nothing.
    """
    values, V = linalg.eigh(A.T @ A)
    values, V = values[::-1], V[:, ::-1]
    short = values < _SHORT * values.max(initial=0.0)
    V[:, short] = V[:, short] @ np.linalg.svd(A @ V[:, short])[2].T
    return np.asarray(V)


def _log_det_XtX(stats: SufficientStatistics, R: Array) -> float:
    """log|X'X| in the user's columns, so that the restricted likelihood is the one that other programs print."""
    return float(2 * np.log(np.abs(np.diag(R))).sum() + log_det_basis(stats))


def log_det_basis(stats: SufficientStatistics) -> float:
    """log|X'X| in the user's columns less that in standardised ones.

    The columns of a null model are not the user's: its likelihood is told in standardised ones. An origin, which `columns`
    are without, does not change a determinant.
    """
    if len(stats.basis) != stats.n_columns:
        return 0.0
    unit = np.linalg.norm(stats.columns, axis=0)
    return float(2 * (np.linalg.slogdet(stats.columns / unit)[1] + np.log(unit).sum()))


def profile(stats: SufficientStatistics, spectrum: Spectrum) -> Profile:
    """Project the statistics of a block of genes on the spectrum."""
    coordinates, r = _coordinates(stats, spectrum), spectrum.d.size
    return Profile(spectrum, coordinates[:, :r] ** 2, stats.rest + (coordinates[:, r:] ** 2).sum(axis=1))


def project(stats: SufficientStatistics, spectrum: Spectrum) -> Array:
    """Spectral coordinates eta of a block of genes, (G, r); linear in y."""
    return np.ascontiguousarray(_coordinates(stats, spectrum)[:, : spectrum.d.size])


def project_beside(stats: SufficientStatistics, spectrum: Spectrum) -> Array:
    """Coordinates on the columns of D that the model lacks, (G, k): their squares are in rss_0; linear in y."""
    return np.ascontiguousarray(_coordinates(stats, spectrum)[:, spectrum.d.size :])


def _coordinates(stats: SufficientStatistics, spectrum: Spectrum) -> Array:
    return stats.ZtY.T @ spectrum.levels + stats.DtY.T @ spectrum.within


def coefficients(stats: SufficientStatistics, rho: Array) -> tuple[Array, Array]:
    """Estimates and their covariance over sigma^2 at each gene's rho, in the user's units: (G, p) and (G, p, p).

    NaN where rho is.
    """
    xbar = stats.ZtX / stats.sizes[:, None]
    moments = Moments(stats.sizes, xbar, within_products(stats), stats.DtX.T @ stats.DtY, stats.ZtY)
    beta, unscaled = least_squares(rho, moments, stats.basis)
    if stats.shift.any() and stats.ones is not None:
        beta += np.outer(stats.basis @ stats.ones, stats.shift)
    return beta.T, np.moveaxis(unscaled, -1, 0)
