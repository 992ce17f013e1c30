"""log|V| and M = [X y]' V^-1 [X y] of every gene at its own phi, with first and second derivatives.

All that likelihood, estimates, tests and degrees of freedom need of a structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .compiled import bare, compiled
from .lead import LeadMemory, eliminate_levels, lead_memory, n_matrices, pair
from .rest import Entries, Moments, RestMemory, eliminate, rest_memory
from .small import fill

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._statistics import SufficientStatistics
    from .structure import GeneRows, Shared, Structure

    Array = NDArray[np.float64]


class Gene(NamedTuple):
    """One row of :class:`GeneRows`."""

    lead: Array  # (m r,)
    z: Array  # (q2,)
    x: Array  # (p,)
    yy: float


class Work(NamedTuple):
    """Memory that evaluations share."""

    level: LeadMemory
    weights: Array  # (matrices, m r (r + 1) / 2) of the levels
    node_weights: Array  # (matrices, nodes r (r + 1) / 2)
    weighted: Array  # (matrices, m r) weights times c_j of y
    xx: Array  # (matrices, p (p + 1) / 2) packed sums over nodes
    z: Array  # (matrices, Q (Q + 1) / 2 + Q p) packed sums over the nodes of a component
    zy: Array  # (matrices, Q)
    rest: RestMemory
    moments: Moments


@bare
def evaluate(phi: Array, shared: Shared, gene: Gene, order: int, work: Work) -> None:
    """Overwrite the moments in `work`, with derivatives if `order` is 2."""
    at, out, k1 = shared.at, work.moments, len(shared.entries.pairs)
    if shared.has_nodes:
        eliminate_levels(phi[:k1], shared.entries, shared.node_T, order, work.level, work.node_weights, out.l1, out.l2)
    for a in range(phi.size):
        out.l1[a] = 0.0
        for b in range(a + 1):
            out.l2[a, b] = 0.0
    out.log_det[0] = eliminate_levels(
        phi[:k1], shared.entries, shared.T, order, work.level, work.weights, out.l1, out.l2
    )
    node_weights = work.node_weights if shared.has_nodes else work.weights
    matrices = n_matrices(k1, order)
    _weigh(work.weights, shared.T.shape[1], gene.lead, matrices, work.weighted)
    _without_rest(shared, gene, node_weights, matrices, k1, work)
    for c in range(at.levels.size - 1):
        q = at.rest[c + 1] - at.rest[c]
        if q > 0:
            _left(c, q, shared, gene, node_weights, matrices, work)
            eliminate(q, Entries(phi[k1:], shared.rest_pairs, shared.rest_at[c]), k1, order, work.rest, out)


@bare
def _weigh(weights: Array, r: int, y: Array, matrices: int, weighted: Array) -> None:
    """Overwrite `weighted` (matrices, m r) by each level's packed matrix times its part of y."""
    if r == 1:
        for d in range(matrices):
            for j in range(y.size):
                weighted[d, j] = weights[d, j] * y[j]
        return
    for d in range(matrices):
        at = 0
        for j in range(0, y.size, r):
            for u in range(r):
                weighted[d, j + u] = 0.0
            for u in range(r):
                weighted[d, j + u] += weights[d, at] * y[j + u]
                at += 1
                for v in range(u + 1, r):
                    weighted[d, j + u] += weights[d, at] * y[j + v]
                    weighted[d, j + v] += weights[d, at] * y[j + u]
                    at += 1


@bare
def _without_rest(shared: Shared, gene: Gene, node_weights: Array, matrices: int, k1: int, work: Work) -> None:
    """Overwrite M and its derivatives by what the lead leaves of X and y."""
    out, p = work.moments, gene.x.size
    add_rows(node_weights, 0, shared.outer_xx, matrices, work.xx)
    _overwrite(0, work.xx, shared.lead_x, work.weighted, gene.lead, out.M)
    for i in range(p):
        for j in range(p):
            out.M[i, j] += shared.within_xx[i, j]
        out.M[i, p] += gene.x[i]
        out.M[p, i] += gene.x[i]
    out.M[p, p] += gene.yy
    if matrices == 1:
        return
    for a in range(out.l1.size):
        if a < k1:
            _overwrite(1 + a, work.xx, shared.lead_x, work.weighted, gene.lead, out.M1[a])
        else:
            fill(out.M1[a], 0.0)
        for b in range(a + 1):
            if a < k1:
                _overwrite(1 + k1 + pair(a, b), work.xx, shared.lead_x, work.weighted, gene.lead, out.M2[a, b])
            else:
                fill(out.M2[a, b], 0.0)


@bare
def _overwrite(d: int, packed: Array, lead_x: Array, weighted: Array, y: Array, M: Array) -> None:
    """Overwrite M by matrix `d` of X and y."""
    p, at, of_y = lead_x.shape[1], 0, M[lead_x.shape[1]]
    for i in range(p):
        for j in range(i, p):
            M[i, j] = M[j, i] = packed[d, at]
            at += 1
    for i in range(p + 1):
        of_y[i] = 0.0
    for j in range(y.size):
        weight = weighted[d, j]
        of_y[p] += weight * y[j]
        for i in range(p):
            of_y[i] += weight * lead_x[j, i]
    for i in range(p):
        M[i, p] = of_y[i]


@bare
def _left(c: int, q: int, shared: Shared, gene: Gene, node_weights: Array, matrices: int, work: Work) -> None:
    """Overwrite what the lead leaves of the rest of component `c`."""
    at, p, r, rest = shared.at, gene.x.size, shared.T.shape[1], work.rest
    n, width = (at.levels[c + 1] - at.levels[c]) * r, q * (q + 1) // 2 + q * p
    outer = shared.outer_z[at.outer[c] : at.outer[c + 1]].reshape((at.outer[c + 1] - at.outer[c]) // width, width)
    if shared.z_has_nodes:
        add_rows(node_weights, 0, outer, matrices, work.z)
    else:
        add_rows(work.weights, at.levels[c] * r * (r + 1) // 2, outer, matrices, work.z)
    lead = shared.lead_z[at.lead[c] : at.lead[c + 1]].reshape(n, q)
    add_rows(work.weighted, at.levels[c] * r, lead, matrices, work.zy)
    within = shared.within_zz[at.within[c] : at.within[c + 1]].reshape(q, q)
    for d in range(matrices):
        place = 0
        for i in range(q):
            for j in range(i, q):
                rest.zz[d, i, j] = rest.zz[d, j, i] = work.z[d, place] + (within[i, j] if d == 0 else 0.0)
                place += 1
            for j in range(p):
                rest.zR[d, i, j] = work.z[d, place] + (shared.within_zx[at.rest[c] + i, j] if d == 0 else 0.0)
                place += 1
            rest.zR[d, i, p] = work.zy[d, i] + (gene.z[at.rest[c] + i] if d == 0 else 0.0)


@bare
def add_rows(weights: Array, start: int, rows: Array, matrices: int, out: Array) -> None:
    """Overwrite row d of `out` by the sum of `rows` with weights[d, start:]; four at a time, so that it stays in cache."""
    whole, width = len(rows) // 4 * 4, rows.shape[1]
    for d in range(matrices):
        for i in range(width):
            out[d, i] = 0.0
    for j in range(0, whole, 4):
        one, two, three, four = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
        for d in range(matrices):
            target, at = out[d], start + j
            a, b, c, e = weights[d, at], weights[d, at + 1], weights[d, at + 2], weights[d, at + 3]
            for i in range(width):
                target[i] += a * one[i] + b * two[i] + c * three[i] + e * four[i]
    for j in range(whole, len(rows)):
        row = rows[j]
        for d in range(matrices):
            target, weight = out[d], weights[d, start + j]
            for i in range(width):
                target[i] += weight * row[i]


@compiled
def _evaluate_rows(phi: Array, shared: Shared, rows: GeneRows, work: Work, out: Moments) -> None:
    m, k = work.moments, phi.shape[1]
    for g in range(len(phi)):
        evaluate(phi[g], shared, Gene(rows.lead[g], rows.z[g], rows.x[g], rows.yy[g]), 2, work)
        out.log_det[g], out.l1[g], out.M[g], out.M1[g] = m.log_det[0], m.l1, m.M, m.M1
        for a in range(k):
            for b in range(a + 1):
                out.l2[g, a, b] = out.l2[g, b, a] = m.l2[a, b]
                out.M2[g, a, b] = m.M2[a, b]
                out.M2[g, b, a] = m.M2[a, b]


def work_for(structure: Structure) -> Work:
    """Memory for evaluations of one structure."""
    shared, k, p = structure.shared, structure.n_parameters, structure.p
    r, k1, Q = structure.r, len(shared.entries.pairs), int(np.diff(shared.at.rest).max())
    width, matrices, size = r * (r + 1) // 2, 1 + k1 + k1 * (k1 + 1) // 2, p + 1
    return Work(
        level=lead_memory(r),
        weights=np.zeros((matrices, len(shared.T) * width)),
        node_weights=np.zeros((matrices, len(shared.node_T) * width)),
        weighted=np.zeros((matrices, len(shared.T) * r)),
        xx=np.zeros((matrices, p * (p + 1) // 2)),
        z=np.zeros((matrices, Q * (Q + 1) // 2 + Q * p)),
        zy=np.zeros((matrices, Q)),
        rest=rest_memory(Q, k1, size),
        moments=Moments(
            log_det=np.zeros(1),
            l1=np.zeros(k),
            l2=np.zeros((k, k)),
            M=np.zeros((size, size)),
            M1=np.zeros((k, size, size)),
            M2=np.zeros((k, k, size, size)),
        ),
    )


def moments_at(structure: Structure, stats: SufficientStatistics, phi: Array) -> Moments:
    """Moments and derivatives of some genes at their own `phi` (G, k): the fields have a first axis of genes."""
    (G, k), size = phi.shape, structure.p + 1
    out = Moments(
        log_det=np.empty(G),
        l1=np.empty((G, k)),
        l2=np.empty((G, k, k)),
        M=np.empty((G, size, size)),
        M1=np.empty((G, k, size, size)),
        M2=np.empty((G, k, k, size, size)),
    )
    _evaluate_rows(phi, structure.shared, structure.rows(stats), work_for(structure), out)
    return out
