"""The lead grouping, eliminated level by level: log|V_lead|, and the weights that make N = U' V_lead^-1 U and derivatives.

Of a level with Z = Q T', and H = (I + T' Gamma T)^-1, V^-1 = I - Q Q' + Q H Q'. With t_i the rows of T, h_i = H t_i,
s = T H T', and E_a the symmetric matrix that multiplies the a-th free entry phi_a of Gamma,

    log|V|:   log|H^-1|     a: tr(s E_a)              ab: -tr(s E_a s E_b)
    weights:  H             a: -h' E_a h              ab: h' (E_a s E_b + E_b s E_a) h              h the rows h_i

and N = W + sum c' weight c. Weights of a level are packed: the entries (u, v), u <= v, of the symmetric matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .compiled import compiled
from .small import add_product, fill, invert_definite, multiply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Indices = NDArray[np.int64]

# Factors of the determinant under one logarithm: each is far below 1e19, so that 16 of them do not overflow.
_FACTORS = 16


@compiled
def pair(a: int, b: int) -> int:
    """Position of (a, b) among the pairs a >= b."""
    return a * (a + 1) // 2 + b if a >= b else b * (b + 1) // 2 + a


@compiled
def n_matrices(k: int, order: int) -> int:
    """A value, or with it its first and second derivatives in k parameters."""
    return 1 + k + k * (k + 1) // 2 if order > 0 else 1


@compiled
def level_weights(phi: Array, pairs: Indices, T: Array, order: int, weights: Array) -> None:
    """Fill `weights` (matrices, m * r (r + 1) / 2) for levels `T` (m, r, r)."""
    if T.shape[1] == 1:
        _scalar_weights(phi[0], T, order, weights)
        return
    r, k = T.shape[1], len(pairs)
    gamma = gamma_of(phi, pairs, r)
    S, h, s, X = np.empty((r, r)), np.empty((r, r)), np.empty((r, r)), np.empty((r, r))
    width = r * (r + 1) // 2
    for j in range(len(T)):
        invert_level(gamma, T[j], S, h, s)
        _pack(S, weights[0, j * width :])
        if order == 0:
            continue
        for a in range(k):
            fill(X, 0.0)
            _add_entry(pairs[a], X, -1.0)
            _pack_sandwich(h, X, weights[1 + a, j * width :])
            for b in range(a + 1):
                _second(pairs[a], pairs[b], s, X)
                _pack_sandwich(h, X, weights[1 + k + pair(a, b), j * width :])


@compiled
def _scalar_weights(g: float, T: Array, order: int, weights: Array) -> None:
    for j in range(len(T)):
        n = T[j, 0, 0] * T[j, 0, 0]
        h = 1 / (1 + g * n)
        weights[0, j] = h
        if order > 0:
            weights[1, j] = -h * h * n
            weights[2, j] = 2 * h * h * h * n * n


@compiled
def log_determinant(phi: Array, pairs: Indices, T: Array, order: int, l1: Array, l2: Array) -> float:
    """log|V_lead|; adds its derivatives to `l1` (k) and the lower triangle of `l2` (k, k)."""
    r, k = T.shape[1], len(pairs)
    gamma = gamma_of(phi, pairs, r)
    S, h, s = np.empty((r, r)), np.empty((r, r)), np.empty((r, r))
    total, product = 0.0, 1.0
    for j in range(len(T)):
        product *= invert_level(gamma, T[j], S, h, s)
        if j % _FACTORS == _FACTORS - 1 or product > 1e150:
            total += np.log(product)
            product = 1.0
        if order == 0:
            continue
        for a in range(k):
            l1[a] += _trace_entry(pairs[a], s)
            for b in range(a + 1):
                l2[a, b] -= _trace_entries(pairs[a], pairs[b], s)
    return total + np.log(product)


@compiled
def gamma_of(phi: Array, pairs: Indices, r: int) -> Array:
    """Gamma (r, r) from its free entries."""
    gamma = np.zeros((r, r))
    for a in range(len(pairs)):
        i, j = pairs[a, 0], pairs[a, 1]
        gamma[i, j] = gamma[j, i] = phi[a]
    return gamma


@compiled
def invert_level(gamma: Array, T: Array, H: Array, h: Array, s: Array) -> float:
    """Overwrite H, the rows h_i = H t_i, and s = T H T', each (r, r); |H^-1|."""
    r = len(gamma)
    if r == 1:
        n = T[0, 0] * T[0, 0]
        factor = 1 + gamma[0, 0] * n
        H[0, 0], h[0, 0], s[0, 0] = 1 / factor, T[0, 0] / factor, n / factor
        return factor
    multiply(gamma, T, h)
    fill(H, 0.0)
    for u in range(r):
        H[u, u] = 1.0
    add_product(T, h, 1.0, H)
    determinant = invert_definite(H)
    multiply(T, H, h)
    for u in range(r):
        for v in range(r):
            s[u, v] = (h[u] * T[v]).sum()
    return determinant


@compiled
def _add_entry(entry: Indices, X: Array, sign: float) -> None:
    """Add sign E_a to X."""
    i, j = entry[0], entry[1]
    X[i, j] += sign
    if i != j:
        X[j, i] += sign


@compiled
def _trace_entry(entry: Indices, s: Array) -> float:
    """tr(s E_a)."""
    i, j = entry[0], entry[1]
    return s[i, i] if i == j else 2 * s[i, j]


@compiled
def _trace_entries(one: Indices, other: Indices, s: Array) -> float:
    """tr(s E_a s E_b)."""
    i, j, k, l = one[0], one[1], other[0], other[1]
    if i == j and k == l:
        return s[i, k] * s[i, k]
    product = 2 * (s[j, k] * s[l, i] + s[j, l] * s[k, i])
    return product / 2 if i == j or k == l else product


@compiled
def _second(one: Indices, other: Indices, s: Array, X: Array) -> None:
    """Overwrite X by E_a s E_b + E_b s E_a."""
    fill(X, 0.0)
    for swap_one in range(1 if one[0] == one[1] else 2):
        i, j = one[swap_one], one[1 - swap_one]
        for swap_other in range(1 if other[0] == other[1] else 2):
            k, l = other[swap_other], other[1 - swap_other]
            X[i, l] += s[j, k]
            X[l, i] += s[j, k]


@compiled
def _pack_sandwich(h: Array, X: Array, packed: Array) -> None:
    """Pack h' X h."""
    r, at = len(h), 0
    for u in range(r):
        for v in range(u, r):
            total = 0.0
            for i in range(r):
                for j in range(r):
                    total += h[i, u] * X[i, j] * h[j, v]
            packed[at] = total
            at += 1


@compiled
def _pack(A: Array, packed: Array) -> None:
    at = 0
    for u in range(len(A)):
        for v in range(u, len(A)):
            packed[at] = A[u, v]
            at += 1
