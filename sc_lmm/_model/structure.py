"""SufficientStatistics -> Structure: the random terms of a design, arranged so that log|V| and [X y]' V^-1 [X y] are cheap.

    V = I + sum over groupings of Z (I x Gamma) Z' = I + sum_a phi_a G_a,        phi the free entries of every Gamma

The *lead*, the grouping with most columns of Z, is eliminated level by level, because its part of V is block diagonal.
Let Q_j be an orthonormal basis of level j's columns, Z_j = Q_j T_j', and c_j = Q_j' U with U = [Z_rest X y]. Then

    N = U' V_lead^-1 U = W + sum_j c_j' (I + T_j' Gamma T_j)^-1 c_j             W = U'U - sum_j c_j' c_j

where W holds what varies within levels: no digit is lost when Gamma is large. All of these are products of coordinates
(see :mod:`sc_lmm._statistics.space`), those of W of what the lead leaves of them. The *rest* is eliminated by dense algebra. Levels that no cell connects, as the donors of one site and those of another, are separate *components*, whose
terms simply add: a nested grouping costs next to nothing, and only crossed ones meet in a dense matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from .deviance import log_det_basis
from .lead import LeadEntries, lead_entries
from .nodes import nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._statistics import Grouping, SufficientStatistics

    Array = NDArray[np.float64]
    Indices = NDArray[np.int64]

# Squared lengths of a level's columns below this share of the longest are rounding.
_RANK_TOLERANCE = 1e-12
# Directions of the other columns within the levels of the lead with less of their squared length than this are rounding.
_SPAN_TOLERANCE = 1e-11


class Components(NamedTuple):
    """Where the parts of each of the C components are: `begin[c]` to `begin[c + 1]` of flat arrays."""

    levels: Indices  # (C + 1,) lead levels
    rest: Indices  # (C + 1,) columns of the rest
    lead: Indices  # (C + 1,) entries of `lead_z`
    outer: Indices  # (C + 1,) entries of `outer_z`
    within: Indices  # (C + 1,) entries of `within_zz`


class Shared(NamedTuple):
    """What the compiled code needs of a design: m lead levels of r columns, q2 columns of the rest, p of X.

    Symmetric r x r matrices of weights and the products they are for are packed, R = r (r + 1) / 2. A component has m_c
    levels and q_c columns of the rest. *Nodes* are the levels, or fewer stand-ins (see :mod:`sc_lmm._model.nodes`).
    """

    entries: LeadEntries
    at: Components
    T: Array  # (m, r, r)
    node_T: Array  # (nodes, r, r)
    has_nodes: bool  # whether nodes are not the levels
    z_has_nodes: bool  # whether `outer_z` is of nodes: not where there are several components
    lead_x: Array  # (m r, p) c_j of X
    lead_z: Array  # flat (m_c r, q_c) per component: c_j of Z_rest
    outer_xx: Array  # (nodes R, p (p + 1) / 2) products of the rows of c_j of X, packed
    outer_z: (
        Array  # flat (levels or nodes R, q_c (q_c + 1) / 2 + q_c p) per component: those of Z_rest with Z_rest and X
    )
    within_zz: Array  # flat (q_c, q_c) per component
    within_zx: Array  # (q2, p)
    within_xx: Array  # (p, p)
    rest_pairs: Indices  # (k2, 3) columns per level, and entry of Gamma, of each parameter of the rest
    rest_at: Indices  # (C, k2, 2) first column in the component, and number of levels there


class GeneRows(NamedTuple):
    """What the compiled code needs of G genes."""

    lead: Array  # (G, m r) c_j of y
    z: Array  # (G, q2) W of Z_rest and y
    x: Array  # (G, p) W of X and y
    yy: Array  # (G,) W of y


@dataclass(frozen=True)
class Structure:
    """Random terms of a design with given fixed columns, for any genes."""

    groupings: tuple[Grouping, ...]  # the lead first
    units: tuple[float, ...]  # per grouping, one over the mean squared length of a column in a level
    Q: sparse.csr_array  # (K, m r) orthonormal basis of the columns of the lead, in coordinates
    within_z: sparse.csr_array  # (K, q2) what the lead leaves of Z_rest
    within_x: Array  # (K, p) and of X
    lead_z: sparse.csr_array  # (m r, q2) c_j of Z_rest
    lead_x: Array  # (m r, p) c_j of X
    within_zz: sparse.csr_array  # (q2, q2)
    whitening: Array  # (q2 + p, rank) S with S' W S = I, for W of [Z_rest X]
    shared: Shared
    n_cells: int
    log_det_basis: float  # log|X'X| of the user's columns less that of the ones here
    log_weights: float

    @property
    def p(self) -> int:
        """Fixed columns."""
        return self.lead_x.shape[1]

    @property
    def r(self) -> int:
        """Columns per level of the lead."""
        return self.groupings[0].r

    @property
    def n_parameters(self) -> int:
        """Free entries of all Gamma, k."""
        return sum(len(grouping.pairs) for grouping in self.groupings)

    def rest_gamma(self, c: int, phi: Array) -> Array:
        """Gamma of every level of the rest in component `c`, (n, q_c, q_c), from its entries (n, k2)."""
        s = self.shared
        q = s.at.rest[c + 1] - s.at.rest[c]
        gamma = np.zeros((len(phi), q, q))
        for (r, a, b), (start, n_levels), values in zip(s.rest_pairs, s.rest_at[c], phi.T, strict=True):
            first = start + r * np.arange(n_levels)
            gamma[:, first + a, first + b] = gamma[:, first + b, first + a] = values[:, None]
        return gamma

    def rows(self, stats: SufficientStatistics) -> GeneRows:
        """Project the statistics of some genes."""
        y = stats.coordinates_Y
        lead = self.Q.T @ y
        left = y - self.Q @ lead
        z, x = self.within_z.T @ left, self.within_x.T @ left
        yy = stats.rest + (left**2).sum(axis=0)
        lead, z, x = (np.ascontiguousarray(part.T) for part in (lead, z, x))
        return GeneRows(lead, z, x, yy)

    def unexplained(self, stats: SufficientStatistics) -> Array:
        """Residual sum of squares beside X and free effects of every level, (G,)."""
        rows = self.rows(stats)
        explained = np.concatenate([rows.z, rows.x], axis=1) @ self.whitening
        return np.maximum(rows.yy - (explained**2).sum(axis=1), 0.0)


def structure(stats: SufficientStatistics, *, lead: int | None = None) -> Structure:
    """Choose the lead, by default the grouping with most columns; find the components and lay out what genes share."""
    if lead is None:
        lead = int(np.argmax([grouping.q for grouping in stats.groupings]))
    groupings = (stats.groupings[lead], *(g for k, g in enumerate(stats.groupings) if k != lead))
    part_of = _components(groupings)
    Z = [grouping.coordinates.matrix for grouping in groupings]
    order = [_by_component(part_of[0]), _by_component(np.concatenate([np.empty(0, dtype=np.int64), *part_of[1:]]))]
    lead_part, rest_part = part_of[0][order[0]], np.sort(np.concatenate([np.empty(0, dtype=np.int64), *part_of[1:]]))
    Z_rest = sparse.csr_array(sparse.hstack(Z[1:])) if Z[1:] else sparse.csr_array((Z[0].shape[0], 0))
    Z_lead, Z_rest, X = Z[0][:, order[0]], Z_rest[:, order[1]], stats.coordinates_X
    T, Q = _bases(Z_lead, groupings[0].r)
    lead_z, lead_x = sparse.csr_array(Q.T @ Z_rest), Q.T @ X
    within_z, within_x = sparse.csr_array(Z_rest - Q @ lead_z), X - Q @ lead_x
    within_zz, within_zx = sparse.csr_array(within_z.T @ within_z), within_z.T @ within_x
    within_xx = within_x.T @ within_x
    lengths = np.concatenate([Z_rest.power(2).sum(axis=0), (X**2).sum(axis=0)])
    return Structure(
        groupings=groupings,
        units=tuple(grouping.n_levels / stats.n_cells for grouping in groupings),
        Q=Q,
        within_z=within_z,
        within_x=within_x,
        lead_z=lead_z,
        lead_x=lead_x,
        within_zz=within_zz,
        whitening=_whitening(within_zz, within_zx, within_xx, lengths),
        shared=_contiguous(
            Shared(
                **_flat(T, lead_z, lead_x, within_zz, lead_part, rest_part),
                within_zx=within_zx,
                within_xx=within_xx,
                entries=lead_entries(groupings[0].pairs, groupings[0].r),
                lead_x=lead_x,
                rest_pairs=np.array([(g.r, a, b) for g in groupings[1:] for a, b in g.pairs], dtype=np.int64).reshape(
                    -1, 3
                ),
                rest_at=_places(groupings[1:], part_of),
            )
        ),
        n_cells=stats.n_cells,
        log_det_basis=log_det_basis(stats),
        log_weights=stats.log_weights,
    )


def _contiguous(shared: Shared) -> Shared:
    """The same arrays in one layout, so that loops are compiled once."""
    arrays: dict[str, Any] = {
        name: np.ascontiguousarray(array) for name, array in shared._asdict().items() if isinstance(array, np.ndarray)
    }
    return shared._replace(**arrays)


def _components(groupings: Sequence[Grouping]) -> list[Indices]:
    """Component of each column of Z, per grouping; one for all where there is no rest, for which nothing is gained."""
    if len(groupings) == 1:
        return [np.zeros(groupings[0].q, dtype=np.int64)]
    indicators = []
    for grouping in groupings:
        Z = grouping.coordinates.matrix.tocoo()
        ones, shape = np.ones(Z.nnz), (Z.shape[0], grouping.n_levels)
        indicators.append(sparse.csr_array((ones, (Z.row, Z.col // grouping.r)), shape=shape))
    touching = sparse.csr_array(sparse.hstack(indicators))
    part = csgraph.connected_components(sparse.csr_array(touching.T @ touching), directed=False)[1].astype(np.int64)
    of_grouping = np.split(part, np.cumsum([g.n_levels for g in groupings])[:-1])
    return [np.repeat(levels, g.r) for levels, g in zip(of_grouping, groupings, strict=True)]


def _by_component(part: Indices) -> Indices:
    return np.argsort(part, kind="stable")


def _bases(Z: sparse.csr_array, r: int) -> tuple[Array, sparse.csr_array]:
    """T (m, r, r) with Z_j'Z_j = T_j T_j', and the orthonormal columns Q_j with Z_j = Q_j T_j'."""
    m, A = Z.shape[1] // r, sparse.csr_array(Z.T @ Z)
    at = (np.arange(m) * r)[:, None, None] + np.arange(r)[:, None], (np.arange(m) * r)[:, None, None] + np.arange(r)
    products = np.asarray(A[np.broadcast_to(at[0], (m, r, r)).ravel(), np.broadcast_to(at[1], (m, r, r)).ravel()])
    values, vectors = np.linalg.eigh(products.reshape(m, r, r))
    values = np.where(values > _RANK_TOLERANCE * values.max(), values, 0.0)
    lengths = np.sqrt(values)
    with np.errstate(divide="ignore"):
        inverse = np.where(lengths > 0, 1 / lengths, 0.0)
    blocks, pointers = vectors * inverse[:, None, :], np.arange(m + 1)
    to_Q = sparse.csr_array(sparse.bsr_array((blocks, pointers[:-1], pointers)))
    return vectors * lengths[:, None, :], sparse.csr_array(Z @ to_Q)


def _whitening(zz: sparse.csr_array, zx: Array, xx: Array, lengths: Array) -> Array:
    scale = 1 / np.sqrt(np.maximum(lengths, np.finfo(float).tiny))
    W = np.block([[zz.toarray(), zx], [zx.T, xx]]) * scale[:, None] * scale
    values, vectors = np.linalg.eigh(W)
    used = values > _SPAN_TOLERANCE
    return scale[:, None] * vectors[:, used] / np.sqrt(values[used])


def _places(groupings: Sequence[Grouping], part_of: Sequence[Indices]) -> Indices:
    """First column in its component, and levels there, of each parameter of the rest, (C, k2, 2)."""
    n_components = int(part_of[0].max()) + 1
    at = np.zeros((n_components, 1), dtype=np.int64)
    places = []
    for part, grouping in zip(part_of[1:], groupings, strict=True):
        columns = np.bincount(part, minlength=n_components)[:, None]
        places += [np.stack([at, columns // grouping.r], axis=2)] * len(grouping.pairs)
        at = at + columns
    return np.concatenate(places, axis=1) if places else np.zeros((n_components, 0, 2), dtype=np.int64)


def _flat(
    T: Array,
    lead_z: sparse.csr_array,
    lead_x: Array,
    within_zz: sparse.csr_array,
    part_of_lead: Indices,
    part_of_rest: Indices,
) -> dict[str, Any]:
    """The fields of Shared that are cut by component, or gathered in nodes."""
    r, n_components = T.shape[1], int(part_of_lead.max()) + 1
    levels = np.searchsorted(part_of_lead[::r], np.arange(n_components + 1))
    rest = np.searchsorted(part_of_rest, np.arange(n_components + 1))
    node_T, gather = nodes(T)
    z_has_nodes = gather is not None and n_components == 1
    parts: dict[str, list[Array]] = {"lead": [], "outer": [], "within": []}
    for c in range(n_components):
        rows, columns = slice(r * levels[c], r * levels[c + 1]), slice(rest[c], rest[c + 1])
        of_level = np.concatenate([lead_z[rows, columns].toarray(), lead_x[rows]], axis=1)
        products = _products(of_level, r, rest[c + 1] - rest[c])
        parts["lead"].append(lead_z[rows, columns].toarray())
        parts["outer"].append(_gathered(products, gather if z_has_nodes else None))
        parts["within"].append(within_zz[columns, columns].toarray())
    begin = {name: np.cumsum([0, *(part.size for part in pieces)]) for name, pieces in parts.items()}
    flat = {name: np.concatenate([part.ravel() for part in pieces]) for name, pieces in parts.items()}
    return {
        "at": Components(levels, rest, begin["lead"], begin["outer"], begin["within"]),
        "T": T,
        "node_T": node_T,
        "has_nodes": gather is not None,
        "z_has_nodes": z_has_nodes,
        "lead_z": flat["lead"],
        "outer_xx": _gathered(_products(lead_x, r, lead_x.shape[1]), gather),
        "outer_z": flat["outer"],
        "within_zz": flat["within"],
    }


def _gathered(products: Array, gather: Array | None) -> Array:
    return products if gather is None else gather @ products


def _products(of_level: Array, r: int, first: int) -> Array:
    """Packed products of the rows of each level's c (m r, K): the `first` columns with themselves and those after.

    (m r (r + 1) / 2, `first` (first + 1) / 2 + first (K - first)), for each of the first columns its products in order.
    """
    c = of_level.reshape(-1, r, of_level.shape[1])
    i, j = np.triu_indices(c.shape[2])
    i, j = i[i < first], j[i < first]
    u, v = np.triu_indices(r)
    products = c[:, u][:, :, i] * c[:, v][:, :, j]
    crossed = c[:, v][:, :, i] * c[:, u][:, :, j]
    return np.where((u == v)[:, None], products, products + crossed).reshape(len(c) * u.size, i.size)
