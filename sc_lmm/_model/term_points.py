"""Residual sums of squares and contrasts of every gene at points of phi that all genes share, by matrix products.

At a point everything but the gene is shared. With C the rows c_j of [Z_rest X] and H the levels' matrices (see
:mod:`sc_lmm._model.structure`), K and F those of :mod:`sc_lmm._model.rest` and S = M_XX = L L', a gene needs

    N_y = W_y + (H C)' c_y        yy = W_yy + c_y' H c_y        white = L^-1 (N_Xy - F_X' N_zy)
    rss = yy - N_zy' K N_zy - white' white        contrast = (L^-1 c)' white

of which points that share the lead's phi share the first two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from scipy import sparse

from .points import AtPoints

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._statistics import SufficientStatistics
    from .structure import Structure

    Array = NDArray[np.float64]
    Matrix: TypeAlias = Array | sparse.csr_array

# Below this share of entries that are not 0 a sparse product is the faster one.
_SPARSE = 0.1


class _Own(NamedTuple):
    """G genes at K points: what a gene has of its own, for a contrast of df rows."""

    rss: Array  # (G, K) minimised over beta
    coef: Array  # (K, df, G) L beta in the user's columns


class _LeadPoint(NamedTuple):
    """The n points of one value of the lead's phi."""

    which: NDArray[np.int64]  # (n,)
    to_z: Matrix  # (q2, m r) (H C_z)'
    to_x: Array  # (p, m r) (H C_x)'
    weights: Array  # (m r (r + 1) / 2,) of the products of c_y
    K: Matrix  # (n q2, q2)
    whiten: Array  # (n p, q2 + p) takes N_y to white
    white_L: Array  # (n, p, df)
    log_det_V: Array  # (n,)
    log_det_S: Array  # (n,)


@dataclass(frozen=True)
class PointTable:
    """K points of phi for a design, and a contrast L beta of df rows in the user's columns."""

    structure: Structure
    contrast: Array  # (df, p)
    lead_points: tuple[_LeadPoint, ...]
    log_det_V: Array  # (K,) log|V|
    log_det_S: Array  # (K,) log|X'V^-1 X| of the user's columns
    unscaled: Array  # (K, df, df) covariance of L beta over sigma^2

    def at(self, stats: SufficientStatistics) -> AtPoints:
        """Evaluate some genes by restricted likelihood."""
        own, dof = self.own(stats), self.structure.n_cells - self.structure.p
        with np.errstate(divide="ignore"):  # a constant gene
            loglik = -(dof * np.log(own.rss) + self.log_det_V + self.log_det_S) / 2
        coef = np.ascontiguousarray(own.coef.transpose(2, 1, 0))
        return AtPoints(loglik, own.rss / dof, coef, self.unscaled, dof)

    def own(self, stats: SufficientStatistics) -> _Own:
        """What some genes have of their own."""
        rows, G = self.structure.rows(stats), stats.n_genes
        columns = np.ascontiguousarray(rows.lead.T)
        quadratic = np.stack([lead.weights for lead in self.lead_points]) @ _squares(columns, self.structure.r)
        K, df, _ = self.unscaled.shape
        found = _Own(np.empty((G, K)), np.empty((K, df, G)))
        for lead, of_lead in zip(self.lead_points, quadratic, strict=True):
            n, p, q2 = lead.which.size, self.structure.p, len(rows.z.T)
            zy, xy = rows.z.T + lead.to_z @ columns, rows.x.T + lead.to_x @ columns
            white = (lead.whiten @ np.concatenate([zy, xy])).reshape(n, p, G)
            explained = (white**2).sum(axis=1) + ((lead.K @ zy).reshape(n, q2, G) * zy).sum(axis=1)
            found.rss[:, lead.which] = (rows.yy + of_lead - explained).T
            found.coef[lead.which] = np.swapaxes(lead.white_L, 1, 2) @ white
        if stats.ones is not None:
            found.coef[:] += np.outer(self.contrast @ stats.ones, stats.shift)
        np.maximum(found.rss, 0.0, out=found.rss)
        return found

    def deviance(self, rss: Array, *, reml: bool) -> Array:
        """-2 log L, or -2 log restricted L, profiled over sigma^2, (G, K)."""
        n, p = self.structure.n_cells, self.structure.p
        dof = n - p if reml else n
        log_det = self.log_det_V + self.log_det_S if reml else self.log_det_V
        with np.errstate(divide="ignore", invalid="ignore"):  # genes that are explained exactly
            return dof * (np.log(rss) + np.log(2 * np.pi / dof) + 1) + log_det


@dataclass(frozen=True)
class GenesAtTermPoints:
    """Genes that can be evaluated at the points; the counterpart of :class:`GenesAtPoints`."""

    stats: SufficientStatistics
    table: PointTable

    @property
    def entries(self) -> int:
        """Numbers per gene that an evaluation holds."""
        return len(self.stats.coordinates_X) + (3 + len(self.table.contrast)) * len(self.table.unscaled)

    def genes(self, index: slice | NDArray[np.int64]) -> GenesAtTermPoints:
        """Some of the genes."""
        return GenesAtTermPoints(self.stats.genes(index), self.table)

    def evaluate(self) -> AtPoints:
        """Likelihoods and estimates at all points."""
        return self.table.at(self.stats)


def point_table(structure: Structure, points: Array, contrast: Array | None = None) -> PointTable:
    """Tabulate what genes share at `points` (K, k).

    Parameters
    ----------
    structure
        The design.
    points
        Entries of Gamma in standardised columns, in the order of ``structure.groupings``.
    contrast
        What to estimate there, (df, p) in the columns of the statistics, L @ stats.basis; by default nothing.
    """
    contrast = np.empty((0, structure.p)) if contrast is None else contrast
    k1 = len(structure.groupings[0].pairs)
    values, which = np.unique(points[:, :k1], axis=0, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    members = np.split(order, np.cumsum(np.bincount(which.ravel()))[:-1])
    leads = tuple(
        _lead_point(structure, phi, index, points[index, k1:], contrast)
        for phi, index in zip(values, members, strict=True)
    )
    back = np.argsort(order)
    white_L = np.concatenate([lead.white_L for lead in leads])[back]
    return PointTable(
        structure=structure,
        contrast=contrast,
        lead_points=leads,
        log_det_V=np.concatenate([lead.log_det_V for lead in leads])[back],
        log_det_S=np.concatenate([lead.log_det_S for lead in leads])[back],
        unscaled=np.swapaxes(white_L, 1, 2) @ white_L,
    )


def _lead_point(
    structure: Structure, phi: Array, index: NDArray[np.int64], rest_phi: Array, contrast: Array
) -> _LeadPoint:
    r, T, shared, n = structure.r, structure.shared.T, structure.shared, index.size
    gamma = np.zeros((r, r))
    for (a, b), value in zip(structure.groupings[0].pairs, phi, strict=True):
        gamma[a, b] = gamma[b, a] = value
    inflated = np.eye(r) + np.swapaxes(T, 1, 2) @ gamma @ T
    H, m = np.linalg.inv(inflated), len(T)
    blocks = sparse.csr_array(sparse.bsr_array((H, np.arange(m), np.arange(m + 1))))
    Hz, Hx = sparse.csr_array(blocks @ structure.lead_z), blocks @ structure.lead_x
    log_det_rest, K = _rest(structure, sparse.csr_array(structure.within_zz + structure.lead_z.T @ Hz), rest_phi)
    N_zx = shared.within_zx + structure.lead_z.T @ Hx
    F_x = (K @ N_zx).reshape(n, *N_zx.shape)
    S = shared.within_xx + structure.lead_x.T @ Hx - N_zx.T @ F_x
    inverse = np.linalg.inv(np.linalg.cholesky(S))  # triangular, of a few columns on which numerics are safe
    identity = np.broadcast_to(np.eye(structure.p), S.shape)
    whiten = inverse @ np.concatenate([-np.swapaxes(F_x, 1, 2), identity], axis=2)
    u, v = np.triu_indices(r)
    return _LeadPoint(
        which=index,
        to_z=_light(sparse.csr_array(Hz.T)),
        to_x=Hx.T,
        weights=np.asarray(H[:, u, v] * np.where(u == v, 1.0, 2.0), dtype=np.float64).ravel(),
        K=K,
        whiten=whiten.reshape(n * structure.p, -1),
        white_L=inverse @ contrast.T,
        log_det_V=float(np.linalg.slogdet(inflated)[1].sum()) + log_det_rest,
        log_det_S=structure.log_det_basis - 2 * np.log(np.diagonal(inverse, axis1=1, axis2=2)).sum(axis=1),
    )


def _rest(structure: Structure, N_zz: sparse.csr_array, phi: Array) -> tuple[Array, Matrix]:
    """log|I + G N_zz| (n,), and K = (I + G N_zz)^-1 G (n q2, q2), block diagonal by component, at `phi` (n, k2)."""
    begin, n, q2 = structure.shared.at.rest, len(phi), structure.within_zz.shape[0]
    log_det, entries = np.zeros(n), []
    for c, (start, stop) in enumerate(zip(begin[:-1], begin[1:], strict=True)):
        gamma = structure.rest_gamma(c, phi)
        inflated = np.eye(stop - start) + gamma @ N_zz[start:stop, start:stop].toarray()
        log_det += np.linalg.slogdet(inflated)[1]
        K = np.linalg.solve(inflated, gamma)
        rows = np.arange(n)[:, None, None] * q2 + np.arange(start, stop)[:, None]
        columns = np.broadcast_to(np.arange(start, stop), K.shape)
        entries.append((K.ravel(), np.broadcast_to(rows, K.shape).ravel(), columns.ravel()))
    values, rows, columns = (np.concatenate(part) for part in zip(*entries, strict=True))
    return log_det, _light(sparse.csr_array((values, (rows, columns)), shape=(n * q2, q2)))


def _light(matrix: sparse.csr_array) -> Matrix:
    return matrix if matrix.nnz < _SPARSE * matrix.shape[0] * matrix.shape[1] else matrix.toarray()


def _squares(columns: Array, r: int) -> Array:
    """Products of the rows of each level of c_y (m r, G), (m r (r + 1) / 2, G)."""
    of_level = columns.reshape(-1, r, columns.shape[1])
    u, v = np.triu_indices(r)
    return (of_level[:, u] * of_level[:, v]).reshape(-1, columns.shape[1])
