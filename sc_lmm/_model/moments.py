"""log|V| and M = [X y]' V^-1 [X y] of every gene at its own phi, with first and second derivatives.

All that likelihood, estimates, tests and degrees of freedom need of a structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .compiled import compiled
from .lead import level_weights, log_determinant, n_matrices
from .rest import Entries, Left, Moments, eliminate
from .small import add, fill

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._statistics import TermStatistics
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

    weights: Array  # (matrices, m r (r + 1) / 2) of the levels
    node_weights: Array  # (matrices, nodes r (r + 1) / 2)
    moments: Moments


@compiled
def evaluate(phi: Array, shared: Shared, gene: Gene, order: int, work: Work) -> None:
    """Overwrite the moments in `work`, with derivatives if `order` is 2."""
    at, out, k1 = shared.at, work.moments, len(shared.lead_pairs)
    lead_phi, entries_phi = phi[:k1], phi[k1:]
    _start(shared, gene, out)
    out.log_det[0] = log_determinant(lead_phi, shared.lead_pairs, shared.T, order, out.l1, out.l2)
    level_weights(lead_phi, shared.lead_pairs, shared.T, order, work.weights)
    has_nodes = shared.node_T.size != shared.T.size
    if has_nodes:
        level_weights(lead_phi, shared.lead_pairs, shared.node_T, order, work.node_weights)
    shared_weights = work.node_weights if has_nodes else work.weights
    for c in range(at.levels.size - 1):
        left = _left(c, shared, gene, n_matrices(k1, order), work.weights, shared_weights)
        if left.zz.shape[1] == 0:
            _add_lead(left.RR, k1, order, out)
        else:
            eliminate(left, Entries(entries_phi, shared.rest_pairs, shared.rest_at[c]), k1, order, out)


@compiled
def _start(shared: Shared, gene: Gene, out: Moments) -> None:
    """What varies within the levels of the lead, and zeros."""
    p, k = gene.x.size, out.l1.size
    for a in range(k):
        out.l1[a] = 0.0
        fill(out.M1[a], 0.0)
        for b in range(a + 1):
            out.l2[a, b] = 0.0
            fill(out.M2[a, b], 0.0)
    for i in range(p):
        for j in range(p):
            out.M[i, j] = shared.within_xx[i, j]
        out.M[i, p] = out.M[p, i] = gene.x[i]
    out.M[p, p] = gene.yy


@compiled
def _left(c: int, shared: Shared, gene: Gene, matrices: int, weights: Array, node_weights: Array) -> Left:
    """What the lead leaves of component `c`."""
    at, p, r = shared.at, gene.x.size, shared.T.shape[1]
    q, n_levels = at.rest[c + 1] - at.rest[c], at.levels[c + 1] - at.levels[c]
    K, width = q + p, r * (r + 1) // 2
    packed, of_y, yy = np.zeros((matrices, K * (K + 1) // 2)), np.zeros((matrices, K)), np.zeros(matrices)
    n_weights = (at.nodes[c + 1] - at.nodes[c]) * width
    outer = shared.outer[at.outer[c] : at.outer[c + 1]].reshape(n_weights, K * (K + 1) // 2)
    _add_rows(node_weights, at.nodes[c] * width, outer, packed)
    lead = shared.lead[at.lead[c] : at.lead[c + 1]].reshape(n_levels * r, K)
    y = gene.lead[at.levels[c] * r : at.levels[c + 1] * r]
    weighted = np.empty((matrices, y.size))
    _weigh(weights, at.levels[c] * width, r, y, weighted)
    _add_rows(weighted, 0, lead, of_y)
    for d in range(matrices):
        for j in range(y.size):
            yy[d] += weighted[d, j] * y[j]
    left = Left(np.empty((matrices, q, q)), np.empty((matrices, q, p + 1)), np.empty((matrices, p + 1, p + 1)))
    _unpack(packed, of_y, yy, left)
    if q > 0:
        zz = shared.within_zz[at.within[c] : at.within[c + 1]].reshape(q, q)
        add(left.zz[0], zz, 1.0)
        for i in range(q):
            left.zR[0, i, p] += gene.z[at.rest[c] + i]
            for j in range(p):
                left.zR[0, i, j] += shared.within_zx[at.rest[c] + i, j]
    return left


@compiled
def _add_rows(weights: Array, start: int, rows: Array, out: Array) -> None:
    """Add to each row d of `out` the sum of `rows` with weights[d, start:]; four at a time, so that `out` stays."""
    n, whole = len(rows), len(rows) // 4 * 4
    for j in range(0, whole, 4):
        one, two, three, four = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
        for d in range(len(out)):
            a, b, c, e = (
                weights[d, start + j],
                weights[d, start + j + 1],
                weights[d, start + j + 2],
                weights[d, start + j + 3],
            )
            target = out[d]
            for i in range(target.size):
                target[i] += a * one[i] + b * two[i] + c * three[i] + e * four[i]
    for j in range(whole, n):
        row = rows[j]
        for d in range(len(out)):
            weight, target = weights[d, start + j], out[d]
            for i in range(target.size):
                target[i] += weight * row[i]


@compiled
def _weigh(weights: Array, start: int, r: int, y: Array, weighted: Array) -> None:
    """Overwrite `weighted` (matrices, m r) by each level's packed matrix times its part of y."""
    width = r * (r + 1) // 2
    for d in range(len(weighted)):
        if r == 1:
            for j in range(y.size):
                weighted[d, j] = weights[d, start + j] * y[j]
            continue
        for j in range(y.size):
            weighted[d, j] = 0.0
        for j in range(y.size // r):
            at = start + j * width
            for u in range(r):
                for v in range(u, r):
                    weighted[d, j * r + u] += weights[d, at] * y[j * r + v]
                    if u != v:
                        weighted[d, j * r + v] += weights[d, at] * y[j * r + u]
                    at += 1


@compiled
def _unpack(packed: Array, of_y: Array, yy: Array, left: Left) -> None:
    q, K = left.zz.shape[1], of_y.shape[1]
    for d in range(len(yy)):
        at = 0
        for i in range(K):
            for j in range(i, K):
                value = packed[d, at]
                at += 1
                if j < q:
                    left.zz[d, i, j] = left.zz[d, j, i] = value
                elif i < q:
                    left.zR[d, i, j - q] = value
                else:
                    left.RR[d, i - q, j - q] = left.RR[d, j - q, i - q] = value
        for i in range(q):
            left.zR[d, i, K - q] = of_y[d, i]
        for i in range(q, K):
            left.RR[d, i - q, K - q] = left.RR[d, K - q, i - q] = of_y[d, i]
        left.RR[d, K - q, K - q] = yy[d]


@compiled
def _add_lead(RR: Array, k1: int, order: int, out: Moments) -> None:
    """Without a rest, what the lead leaves is M."""
    add(out.M, RR[0], 1.0)
    if order > 0:
        which = 1 + k1
        for a in range(k1):
            add(out.M1[a], RR[1 + a], 1.0)
            for b in range(a + 1):
                add(out.M2[a, b], RR[which], 1.0)
                which += 1


def work_for(structure: Structure) -> Work:
    """Memory for evaluations of one structure."""
    shared, k, size = structure.shared, structure.n_parameters, structure.p + 1
    r, k1 = shared.T.shape[1], len(shared.lead_pairs)
    width, matrices = r * (r + 1) // 2, 1 + k1 + k1 * (k1 + 1) // 2
    moments = Moments(
        log_det=np.zeros(1),
        l1=np.zeros(k),
        l2=np.zeros((k, k)),
        M=np.zeros((size, size)),
        M1=np.zeros((k, size, size)),
        M2=np.zeros((k, k, size, size)),
    )
    weights, node_weights = (np.zeros((matrices, len(T) * width)) for T in (shared.T, shared.node_T))
    return Work(weights, node_weights, moments)


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


def moments_at(structure: Structure, stats: TermStatistics, phi: Array) -> Moments:
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
