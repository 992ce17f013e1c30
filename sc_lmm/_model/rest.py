"""The other groupings of one component, eliminated from what the lead leaves by dense algebra, with derivatives.

In: N_zz and N_zR over the q columns z of the rest and R = [X y], and their derivatives in the lead's phi; what the lead
leaves of R, N_RR, is in M already. With G = blockdiag(Gamma) over the levels of the rest, everything comes from one
inverse that exists for every Gamma >= 0 and in which nothing cancels or is divided by Gamma:

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

from .compiled import bare
from .lead import pair
from .small import add, add_product, log_det_and_inverse, multiply, multiply_transposed, trace_of_product

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


class Entries(NamedTuple):
    """The free entries of Gamma of the rest, and where their levels are in the component."""

    phi: Array  # (k2,)
    pairs: Indices  # (k2, 3) columns per level, row and column of Gamma
    at: Indices  # (k2, 2) first column, number of levels


class RestMemory(NamedTuple):
    """What the lead leaves of a component of up to Q columns of the rest, and what comes of it; overwritten.

    `matrices` are the value, k1 first and k1 (k1 + 1) / 2 second derivatives in the lead's parameters.
    """

    zz: Array  # (matrices, Q, Q) N_zz
    zR: Array  # (matrices, Q, P) N_zR
    P: Array  # (Q, Q)
    K: Array  # (Q, Q)
    T: Array  # (Q, Q)
    NP: Array  # (Q, Q)
    PNP: Array  # (Q, Q)
    KN: Array  # (k1, Q, Q)
    F: Array  # (Q, P)
    v: Array  # (Q, P)
    g: Array  # (k1, Q, P)
    Kg: Array  # (k1, Q, P)
    d: Array  # (k1, Q, P)
    Ev: Array  # (Q, P)
    TEv: Array  # (Q, P)
    swaps: Indices  # (Q,)


def rest_memory(Q: int, k1: int, size: int) -> RestMemory:
    """Memory for components of up to `Q` columns and `size` columns of R."""
    matrices = 1 + k1 + k1 * (k1 + 1) // 2
    return RestMemory(
        zz=np.zeros((matrices, Q, Q)),
        zR=np.zeros((matrices, Q, size)),
        P=np.zeros((Q, Q)),
        K=np.zeros((Q, Q)),
        T=np.zeros((Q, Q)),
        NP=np.zeros((Q, Q)),
        PNP=np.zeros((Q, Q)),
        KN=np.zeros((k1, Q, Q)),
        F=np.zeros((Q, size)),
        v=np.zeros((Q, size)),
        g=np.zeros((k1, Q, size)),
        Kg=np.zeros((k1, Q, size)),
        d=np.zeros((k1, Q, size)),
        Ev=np.zeros((Q, size)),
        TEv=np.zeros((Q, size)),
        swaps=np.zeros(Q, dtype=np.int64),
    )


@bare
def eliminate(q: int, entries: Entries, k1: int, order: int, w: RestMemory, out: Moments) -> None:
    """Add the share of a component of `q` columns to `out`, whose first `k1` parameters are the lead's."""
    if q == 1 and order > 0 and len(entries.phi) == 1:
        _eliminate_one(entries.phi[0], k1, w, out)
        return
    size = w.F.shape[1]
    _times_gamma(entries, w.zz[0], q, q, w.P)
    for i in range(q):
        w.P[i, i] += 1
    out.log_det[0] += log_det_and_inverse(w.P, q, w.swaps)
    _times_gamma(entries, w.zR[0], q, size, w.Ev)
    multiply(w.P, w.Ev, q, q, size, w.F)
    add_product(w.zR[0], w.F, size, q, size, -1.0, out.M)
    if order > 0:
        multiply_transposed(w.P, w.zR[0], q, q, size, w.v)
        _lead_parameters(q, entries, k1, w, out)
        _rest_parameters(q, entries, k1, w, out)
        _mixed_parameters(q, entries, k1, w, out)


@bare
def _eliminate_one(gamma: float, k1: int, w: RestMemory, out: Moments) -> None:
    """The same for one column, as where donors are nested in sites: all but R is a number."""
    size, N, R = w.F.shape[1], w.zz[0, 0, 0], w.zR[0, 0]
    F, v, P = w.F[0], w.v[0], 1 / (1 + gamma * N)
    K, T = P * gamma, N * P
    out.log_det[0] -= np.log(P)
    out.l1[k1] += T
    out.l2[k1, k1] -= T * T
    for i in range(size):
        F[i], v[i] = K * R[i], P * R[i]
    for i in range(size):
        for j in range(size):
            out.M[i, j] -= R[i] * F[j]
            out.M1[k1, i, j] -= v[i] * v[j]
            out.M2[k1, k1, i, j] += 2 * T * v[i] * v[j]
    for a in range(k1):
        _one_and_lead(a, k1, K, P, w, out)


@bare
def _one_and_lead(a: int, k1: int, K: float, P: float, w: RestMemory, out: Moments) -> None:
    """The derivatives in the lead's parameter `a`."""
    size, F, v = w.F.shape[1], w.F[0], w.v[0]
    N_a, R_a, g, d = w.zz[1 + a, 0, 0], w.zR[1 + a, 0], w.g[a, 0], w.d[a, 0]
    out.l1[a] += K * N_a
    out.l2[k1, a] += P * P * N_a
    for i in range(size):
        g[i] = R_a[i] - N_a * F[i]
        d[i] = P * g[i]
    for i in range(size):
        for j in range(size):
            out.M1[a, i, j] -= R_a[i] * F[j] + F[i] * g[j]
            out.M2[k1, a, i, j] -= v[i] * d[j] + d[i] * v[j]
    for b in range(a + 1):
        which, h = 1 + k1 + pair(a, b), w.g[b, 0]
        N_ab, R_ab = w.zz[which, 0, 0], w.zR[which, 0]
        out.l2[a, b] += K * N_ab - K * K * N_a * w.zz[1 + b, 0, 0]
        for i in range(size):
            for j in range(size):
                first = F[i] * (N_ab * F[j] - R_ab[j]) - R_ab[i] * F[j]
                out.M2[a, b, i, j] += first - K * (g[i] * h[j] + h[i] * g[j])


@bare
def _times_gamma(entries: Entries, A: Array, q: int, columns: int, product: Array) -> None:
    """Overwrite `product` by G A."""
    for i in range(q):
        for j in range(columns):
            product[i, j] = 0.0
    for i in range(len(entries.phi)):
        r, a, b = entries.pairs[i, 0], entries.pairs[i, 1], entries.pairs[i, 2]
        for j in range(entries.at[i, 1]):
            at = entries.at[i, 0] + j * r
            for c in range(columns):
                product[at + a, c] += entries.phi[i] * A[at + b, c]
            if a != b:
                for c in range(columns):
                    product[at + b, c] += entries.phi[i] * A[at + a, c]


@bare
def _lead_parameters(q: int, entries: Entries, k1: int, w: RestMemory, out: Moments) -> None:
    size = w.F.shape[1]
    for i in range(q):
        for j in range(q):
            w.NP[i, j] = w.P[j, i]
    _times_gamma(entries, w.NP, q, q, w.K)  # K = K' = G P'
    for a in range(k1):
        g = w.g[a]
        multiply(w.zz[1 + a], w.F, q, q, size, g)
        for i in range(q):
            for j in range(size):
                g[i, j] = w.zR[1 + a, i, j] - g[i, j]
        multiply_transposed(w.P, g, q, q, size, w.d[a])
        multiply(w.K, g, q, q, size, w.Kg[a])
        multiply(w.K, w.zz[1 + a], q, q, q, w.KN[a])
        for i in range(q):
            out.l1[a] += w.KN[a, i, i]
        add_product(w.zR[1 + a], w.F, size, q, size, -1.0, out.M1[a])
        add_product(w.F, g, size, q, size, -1.0, out.M1[a])
    for a in range(k1):
        for b in range(a + 1):
            which, M = 1 + k1 + pair(a, b), out.M2[a, b]
            out.l2[a, b] += trace_of_product(w.K, w.zz[which], q) - trace_of_product(w.KN[a], w.KN[b], q)
            multiply(w.zz[which], w.F, q, q, size, w.Ev)
            add(w.Ev, w.zR[which], -1.0, q, size)
            add_product(w.F, w.Ev, size, q, size, 1.0, M)
            add_product(w.zR[which], w.F, size, q, size, -1.0, M)
            add_product(w.g[a], w.Kg[b], size, q, size, -1.0, M)
            add_product(w.Kg[b], w.g[a], size, q, size, -1.0, M)


@bare
def _rest_parameters(q: int, entries: Entries, k1: int, w: RestMemory, out: Moments) -> None:
    size = w.F.shape[1]
    multiply(w.zz[0], w.P, q, q, q, w.T)
    for j in range(len(entries.phi)):
        _select(entries, j, w.v, q, w.Ev)
        add_product(w.v, w.Ev, size, q, size, -1.0, out.M1[k1 + j])
        out.l1[k1 + j] += _trace(entries, j, w.T)
        multiply(w.T, w.Ev, q, q, size, w.TEv)
        for i in range(j, len(entries.phi)):
            M = out.M2[k1 + i, k1 + j]
            _select(entries, i, w.v, q, w.Ev)
            add_product(w.Ev, w.TEv, size, q, size, 1.0, M)
            add_product(w.TEv, w.Ev, size, q, size, 1.0, M)
            out.l2[k1 + i, k1 + j] -= _trace_of_two(entries, i, j, w.T)


@bare
def _mixed_parameters(q: int, entries: Entries, k1: int, w: RestMemory, out: Moments) -> None:
    size = w.F.shape[1]
    for a in range(k1):
        multiply(w.zz[1 + a], w.P, q, q, q, w.NP)
        multiply_transposed(w.P, w.NP, q, q, q, w.PNP)
        for i in range(len(entries.phi)):
            M = out.M2[k1 + i, a]
            _select(entries, i, w.v, q, w.Ev)
            add_product(w.Ev, w.d[a], size, q, size, -1.0, M)
            add_product(w.d[a], w.Ev, size, q, size, -1.0, M)
            out.l2[k1 + i, a] += _trace(entries, i, w.PNP)


@bare
def _select(entries: Entries, i: int, v: Array, q: int, selected: Array) -> None:
    """Overwrite `selected` by E_i v."""
    r, a, b = entries.pairs[i, 0], entries.pairs[i, 1], entries.pairs[i, 2]
    for j in range(q):
        for c in range(v.shape[1]):
            selected[j, c] = 0.0
    for j in range(entries.at[i, 1]):
        at = entries.at[i, 0] + j * r
        for c in range(v.shape[1]):
            selected[at + a, c] = v[at + b, c]
            selected[at + b, c] = v[at + a, c]


@bare
def _trace(entries: Entries, i: int, A: Array) -> float:
    """tr(A E_i)."""
    r, a, b = entries.pairs[i, 0], entries.pairs[i, 1], entries.pairs[i, 2]
    total = 0.0
    for j in range(entries.at[i, 1]):
        at = entries.at[i, 0] + j * r
        total += A[at + a, at + b] if a == b else A[at + a, at + b] + A[at + b, at + a]
    return total


@bare
def _trace_of_two(entries: Entries, i: int, j: int, T: Array) -> float:
    """tr(T E_i T E_j) of a symmetric T."""
    r, a, b = entries.pairs[i, 0], entries.pairs[i, 1], entries.pairs[i, 2]
    other_r, c, d = entries.pairs[j, 0], entries.pairs[j, 1], entries.pairs[j, 2]
    total = 0.0
    for one in range(entries.at[i, 1]):
        at = entries.at[i, 0] + one * r
        row, other_row = T[at + a], T[at + b]
        for other in range(entries.at[j, 1]):
            at = entries.at[j, 0] + other * other_r
            straight = row[at + d] * other_row[at + c]
            crossed = row[at + c] * other_row[at + d]
            if a != b and c != d:
                total += 2 * (straight + crossed)
            elif a != b or c != d:
                total += straight + crossed
            else:
                total += straight
    return total
