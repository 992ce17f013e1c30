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
from scipy import linalg, sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._statistics import TermStatistics
    from .structure import Structure

    Array = NDArray[np.float64]
    Matrix: TypeAlias = Array | sparse.csr_array

# Below this share of entries that are not 0 a sparse product is the faster one.
_SPARSE = 0.1


class AtPoints(NamedTuple):
    """G genes at K points: what a gene has of its own, for a contrast of df rows."""

    rss: Array  # (G, K) minimised over beta
    coef: Array  # (K, df, G) L beta in the user's columns


class _RestPoint(NamedTuple):
    """One point."""

    which: int
    K: Matrix  # (q2, q2)
    whiten: Array  # (p, q2 + p) takes N_y to white
    white_L: Array  # (p, df)
    log_det_V: float
    log_det_S: float


class _LeadPoint(NamedTuple):
    """All points of one value of the lead's phi."""

    to_z: Matrix  # (q2, m r) (H C_z)'
    to_x: Array  # (p, m r) (H C_x)'
    weights: Array  # (m r (r + 1) / 2,) of the products of c_y
    points: tuple[_RestPoint, ...]


@dataclass(frozen=True)
class PointTable:
    """K points of phi for a design, and a contrast L beta of df rows in the user's columns."""

    structure: Structure
    contrast: Array  # (df, p)
    lead_points: tuple[_LeadPoint, ...]
    log_det_V: Array  # (K,) log|V|
    log_det_S: Array  # (K,) log|X'V^-1 X| of the user's columns
    unscaled: Array  # (K, df, df) covariance of L beta over sigma^2

    def genes(self, stats: TermStatistics) -> AtPoints:
        """Evaluate some genes."""
        rows = self.structure.rows(stats)
        columns = np.ascontiguousarray(rows.lead.T)
        quadratic = np.stack([lead.weights for lead in self.lead_points]) @ _squares(columns, self.structure.r)
        K, df, _ = self.unscaled.shape
        found = AtPoints(np.empty((stats.n_genes, K)), np.empty((K, df, stats.n_genes)))
        for i, lead in enumerate(self.lead_points):
            zy, yy = rows.z.T + lead.to_z @ columns, rows.yy + quadratic[i]
            of_genes = np.concatenate([zy, rows.x.T + lead.to_x @ columns])
            for point in lead.points:
                white = point.whiten @ of_genes
                found.rss[:, point.which] = yy - (zy * (point.K @ zy)).sum(axis=0) - (white**2).sum(axis=0)
                found.coef[point.which] = point.white_L.T @ white
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
    members = [np.flatnonzero(which.ravel() == i) for i in range(len(values))]
    leads = tuple(
        _lead_point(structure, phi, index, points[index, k1:], contrast)
        for phi, index in zip(values, members, strict=True)
    )
    by_index = sorted((point for lead in leads for point in lead.points), key=lambda point: point.which)
    return PointTable(
        structure=structure,
        contrast=contrast,
        lead_points=leads,
        log_det_V=np.array([point.log_det_V for point in by_index]),
        log_det_S=np.array([point.log_det_S for point in by_index]),
        unscaled=np.stack([point.white_L.T @ point.white_L for point in by_index]),
    )


def _lead_point(
    structure: Structure, phi: Array, index: NDArray[np.int64], rest_phi: Array, contrast: Array
) -> _LeadPoint:
    r, T = structure.r, structure.shared.T
    gamma = np.zeros((r, r))
    for (a, b), value in zip(structure.groupings[0].pairs, phi, strict=True):
        gamma[a, b] = gamma[b, a] = value
    inflated = np.eye(r) + np.swapaxes(T, 1, 2) @ gamma @ T
    H, m = np.linalg.inv(inflated), len(T)
    blocks = sparse.csr_array(sparse.bsr_array((H, np.arange(m), np.arange(m + 1))))
    Hz, Hx = sparse.csr_array(blocks @ structure.lead_z), blocks @ structure.lead_x
    N_zz = sparse.csr_array(structure.within_zz + structure.lead_z.T @ Hz)
    N_zx = structure.shared.within_zx + structure.lead_z.T @ Hx
    N_xx = structure.shared.within_xx + structure.lead_x.T @ Hx
    log_det = float(np.linalg.slogdet(inflated)[1].sum())
    points = []
    for i, of_point in zip(index, rest_phi, strict=True):
        log_det_rest, K = _rest(structure, N_zz, of_point)
        F_x = K @ N_zx
        L = linalg.cholesky(N_xx - N_zx.T @ F_x, lower=True)
        whiten = linalg.solve_triangular(L, np.concatenate([-F_x.T, np.eye(len(L))], axis=1), lower=True)
        log_det_S = 2 * float(np.log(np.diag(L)).sum()) + structure.log_det_basis
        white_L = linalg.solve_triangular(L, contrast.T, lower=True)
        points.append(_RestPoint(int(i), K, whiten, white_L, log_det + log_det_rest, log_det_S))
    u, v = np.triu_indices(r)
    weights = H[:, u, v] * np.where(u == v, 1.0, 2.0)
    return _LeadPoint(_light(sparse.csr_array(Hz.T)), Hx.T, weights.ravel(), tuple(points))


def _rest(structure: Structure, N_zz: sparse.csr_array, phi: Array) -> tuple[float, Matrix]:
    """log|I + G N_zz| and K = (I + G N_zz)^-1 G, block diagonal by component."""
    begin = structure.shared.at.rest
    if begin[-1] == 0:
        return 0.0, np.zeros((0, 0))
    gamma = structure.rest_gamma(phi)
    log_det, blocks = 0.0, []
    for start, stop in zip(begin[:-1], begin[1:], strict=True):
        part = slice(start, stop)
        of_part = gamma[part, part].toarray()
        inflated = np.eye(stop - start) + of_part @ N_zz[part, part].toarray()
        log_det += float(np.linalg.slogdet(inflated)[1])
        blocks.append(sparse.csr_array(np.linalg.solve(inflated, of_part)))
    return log_det, _light(sparse.csr_array(sparse.block_diag(blocks)))


def _light(matrix: sparse.csr_array) -> Matrix:
    return matrix if matrix.nnz < _SPARSE * matrix.shape[0] * matrix.shape[1] else matrix.toarray()


def _squares(columns: Array, r: int) -> Array:
    """Products of the rows of each level of c_y (m r, G), (m r (r + 1) / 2, G)."""
    of_level = columns.reshape(-1, r, columns.shape[1])
    u, v = np.triu_indices(r)
    return (of_level[:, u] * of_level[:, v]).reshape(-1, columns.shape[1])
