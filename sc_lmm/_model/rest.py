"""The other groupings of one component, eliminated from what the lead leaves by dense algebra, with derivatives.

In: N_zz, N_zR and N_RR over the q columns z of the rest and R = [X y], and their derivatives in the lead's phi. With
G = blockdiag(Gamma) over the levels of the rest, everything comes from one inverse that exists for every Gamma >= 0 and
in which nothing cancels or is divided by Gamma:

    P = (I + G N_zz)^-1     K = P G     F = K N_zR     v = P' N_zR = Z' V^-1 R     T = N_zz P = Z' V^-1 Z

    M    = N_RR - N_zR' F                                          log|V|:  -log|P|
    M_a  = N_a,RR - N_a,zR' F - F' g_a                             tr(K N_a)               a, b of the lead
    M_ab = [F; -I]' N_ab [F; -I] - g_a' K g_b - g_b' K g_a         tr(K N_ab) - tr(K N_a K N_b)
    M_i  = -v' E_i v                                               tr(T E_i)               i, j of the rest
    M_ij = v' (E_i T E_j + E_j T E_i) v                            -tr(T E_i T E_j)
    M_ai = -(v' E_i d_a + d_a' E_i v)                              tr(P' N_a P E_i)

with g_a = N_a,zR - N_a,zz F and d_a = P' g_a = dv / dphi_a, and E_i the symmetric indicator of entry i of Gamma in
every level of its grouping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .compiled import compiled
from .lead import pair
from .small import add, add_product, fill, log_det_and_inverse, multiply, multiply_transposed, trace_of_product

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Indices = NDArray[np.int64]


class Moments(NamedTuple):
    """log|V| and M = [X y]' V^-1 [X y], (P, P), with first and second derivatives in k parameters; overwritten."""

    log_det: Array  # (1,)
    l1: Array  # (k,)
    l2: Array  # (k, k) lower triangle
    M: Array  # (P, P)
    M1: Array  # (k, P, P)
    M2: Array  # (k, k, P, P) lower triangle of the first two


class Left(NamedTuple):
    """What the lead leaves of a component: `matrices` are the value, k1 first and k1 (k1 + 1) / 2 second derivatives."""

    zz: Array  # (matrices, q, q)
    zR: Array  # (matrices, q, P)
    RR: Array  # (matrices, P, P)


class Entries(NamedTuple):
    """The free entries of Gamma of the rest, and where their levels are in the component."""

    phi: Array  # (k2,)
    pairs: Indices  # (k2, 3) columns per level, row and column of Gamma
    at: Indices  # (k2, 2) first column, number of levels


@compiled
def eliminate(left: Left, entries: Entries, k1: int, order: int, out: Moments) -> None:
    """Add a component's share to `out`, whose first `k1` parameters are the lead's."""
    q, n_R = left.zR.shape[1:]
    P, F, v, work = np.empty((q, q)), np.empty((q, n_R)), np.empty((q, n_R)), np.empty((q, n_R))
    _times_gamma(entries, left.zz[0], P)
    for i in range(q):
        P[i, i] += 1
    out.log_det[0] += log_det_and_inverse(P)
    _times_gamma(entries, left.zR[0], work)
    multiply(P, work, F)
    add(out.M, left.RR[0], 1.0)
    add_product(left.zR[0], F, -1.0, out.M)
    if order == 0:
        return
    multiply_transposed(P, left.zR[0], v)
    D = np.empty((k1, q, n_R))
    _lead_parameters(left, entries, P, F, D, out)
    _rest_parameters(left.zz[0], entries, k1, P, v, out)
    _mixed_parameters(left.zz, entries, k1, P, v, D, out)


@compiled
def _times_gamma(entries: Entries, A: Array, product: Array) -> None:
    """Overwrite `product` by G A."""
    fill(product, 0.0)
    for i in range(len(entries.phi)):
        r, a, b = entries.pairs[i, 0], entries.pairs[i, 1], entries.pairs[i, 2]
        start, n_levels = entries.at[i, 0], entries.at[i, 1]
        for j in range(n_levels):
            at = start + j * r
            for c in range(A.shape[1]):
                product[at + a, c] += entries.phi[i] * A[at + b, c]
            if a != b:
                for c in range(A.shape[1]):
                    product[at + b, c] += entries.phi[i] * A[at + a, c]


@compiled
def _lead_parameters(left: Left, entries: Entries, P: Array, F: Array, D: Array, out: Moments) -> None:
    """Derivatives in the lead's phi; fills D (k1, q, P) with d_a."""
    k1, q, n_R = D.shape
    g, Kg = np.empty((k1, q, n_R)), np.empty((k1, q, n_R))
    K, KN, product = np.empty((q, q)), np.empty((k1, q, q)), np.empty((q, n_R))
    _transposed_K(entries, P, K)
    for a in range(k1):
        multiply(left.zz[1 + a], F, g[a])
        for i in range(q):
            for j in range(n_R):
                g[a, i, j] = left.zR[1 + a, i, j] - g[a, i, j]
        multiply_transposed(P, g[a], D[a])
        multiply_transposed(K, g[a], Kg[a])
        multiply_transposed(K, left.zz[1 + a], KN[a])
        for i in range(q):
            out.l1[a] += KN[a, i, i]
        add(out.M1[a], left.RR[1 + a], 1.0)
        add_product(left.zR[1 + a], F, -1.0, out.M1[a])
        add_product(F, g[a], -1.0, out.M1[a])
    for a in range(k1):
        for b in range(a + 1):
            which = 1 + k1 + pair(a, b)
            out.l2[a, b] += trace_of_product(K, left.zz[which]) - trace_of_product(KN[a], KN[b])
            M = out.M2[a, b]
            add(M, left.RR[which], 1.0)
            multiply(left.zz[which], F, product)
            add(product, left.zR[which], -1.0)
            add_product(F, product, 1.0, M)
            add_product(left.zR[which], F, -1.0, M)
            add_product(g[a], Kg[b], -1.0, M)
            add_product(Kg[b], g[a], -1.0, M)


@compiled
def _transposed_K(entries: Entries, P: Array, K: Array) -> None:
    """Overwrite K, which is symmetric, by G P'."""
    transposed = np.empty(P.shape)
    for i in range(len(P)):
        for j in range(len(P)):
            transposed[i, j] = P[j, i]
    _times_gamma(entries, transposed, K)


@compiled
def _rest_parameters(N: Array, entries: Entries, k1: int, P: Array, v: Array, out: Moments) -> None:
    q, n_R = v.shape
    T, Ev, TEv = np.empty((q, q)), np.empty((q, n_R)), np.empty((q, n_R))
    multiply(N, P, T)
    for j in range(len(entries.phi)):
        _select(entries, j, v, Ev)
        add_product(v, Ev, -1.0, out.M1[k1 + j])
        out.l1[k1 + j] += _trace(entries, j, T)
        multiply(T, Ev, TEv)
        for i in range(j, len(entries.phi)):
            _select(entries, i, v, Ev)
            add_product(Ev, TEv, 1.0, out.M2[k1 + i, k1 + j])
            add_product(TEv, Ev, 1.0, out.M2[k1 + i, k1 + j])
            out.l2[k1 + i, k1 + j] -= _trace_of_two(entries, i, j, T)


@compiled
def _mixed_parameters(N: Array, entries: Entries, k1: int, P: Array, v: Array, D: Array, out: Moments) -> None:
    q, n_R = v.shape
    Ev, NP, PNP = np.empty((q, n_R)), np.empty((q, q)), np.empty((q, q))
    for a in range(k1):
        multiply(N[1 + a], P, NP)
        multiply_transposed(P, NP, PNP)
        for i in range(len(entries.phi)):
            _select(entries, i, v, Ev)
            add_product(Ev, D[a], -1.0, out.M2[k1 + i, a])
            add_product(D[a], Ev, -1.0, out.M2[k1 + i, a])
            out.l2[k1 + i, a] += _trace(entries, i, PNP)


@compiled
def _select(entries: Entries, i: int, v: Array, selected: Array) -> None:
    """Overwrite `selected` by E_i v."""
    r, a, b = entries.pairs[i, 0], entries.pairs[i, 1], entries.pairs[i, 2]
    start, n_levels = entries.at[i, 0], entries.at[i, 1]
    fill(selected, 0.0)
    for j in range(n_levels):
        at = start + j * r
        for c in range(v.shape[1]):
            selected[at + a, c] = v[at + b, c]
            selected[at + b, c] = v[at + a, c]


@compiled
def _trace(entries: Entries, i: int, A: Array) -> float:
    """tr(A E_i)."""
    r, a, b = entries.pairs[i, 0], entries.pairs[i, 1], entries.pairs[i, 2]
    start, n_levels = entries.at[i, 0], entries.at[i, 1]
    total = 0.0
    for j in range(n_levels):
        at = start + j * r
        total += A[at + a, at + b] if a == b else A[at + a, at + b] + A[at + b, at + a]
    return total


@compiled
def _trace_of_two(entries: Entries, i: int, j: int, T: Array) -> float:
    """tr(T E_i T E_j) of a symmetric T."""
    r, a, b = entries.pairs[i, 0], entries.pairs[i, 1], entries.pairs[i, 2]
    other_r, c, d = entries.pairs[j, 0], entries.pairs[j, 1], entries.pairs[j, 2]
    start, n_levels, other_start, other_n = entries.at[i, 0], entries.at[i, 1], entries.at[j, 0], entries.at[j, 1]
    total = 0.0
    for one in range(n_levels):
        row = T[start + one * r + a]
        other_row = T[start + one * r + b]
        for other in range(other_n):
            at = other_start + other * other_r
            total += row[at + d] * other_row[at + c]
            if a != b or c != d:
                total += row[at + c] * other_row[at + d]
            if a != b and c != d:
                total += row[at + d] * other_row[at + c] + row[at + c] * other_row[at + d]
    return total
