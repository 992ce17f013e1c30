"""The lead grouping, eliminated level by level: log|V_lead|, and the weights that make N = U' V_lead^-1 U and derivatives.

Of a level with Z = Q T', and H = (I + T' Gamma T)^-1, V^-1 = I - Q Q' + Q H Q'. With t_i the rows of T, h_i = H t_i,
s = T H T', and E_a the symmetric matrix that multiplies the a-th free entry phi_a of Gamma,

    log|V|:   log|H^-1|     a: tr(s E_a)              ab: -tr(s E_a s E_b)
    weights:  H             a: -h' E_a h              ab: h' (E_a s E_b + E_b s E_a) h              h the rows h_i

and N = W + sum c' weight c. Symmetric r x r matrices are packed: their entries (u, v), u <= v, row by row. A weight is
then a combination of the packed products h_i h_j' + h_j h_i', and the second ones combine them by factors linear in s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .compiled import bare
from .small import add_product, fill, invert_definite, multiply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Indices = NDArray[np.int64]

# Factors of the determinant under one logarithm: each is far below 1e19, so that 16 of them do not overflow.
_FACTORS = 16


class LeadEntries(NamedTuple):
    """The k1 free entries of the lead's Gamma, r x r."""

    pairs: Indices  # (k1, 2) row and column
    packed: Indices  # (k1,) position in a packed matrix
    second: Array  # (k1 (k1 + 1) / 2, r (r + 1) / 2, r (r + 1) / 2) takes packed s to packed E_a s E_b + E_b s E_a


def lead_entries(pairs: Sequence[tuple[int, int]], r: int) -> LeadEntries:
    """Tabulate the entries (a, b), a >= b."""
    u, v = np.triu_indices(r)
    units = [np.zeros((r, r)) for _ in u]
    for unit, i, j in zip(units, u, v, strict=True):
        unit[i, j] = unit[j, i] = 1.0
    packed = [int(np.flatnonzero((u == b) & (v == a))[0]) for a, b in pairs]
    second = np.array(
        [
            [(units[one] @ unit @ units[other] + units[other] @ unit @ units[one])[u, v] for unit in units]
            for i, one in enumerate(packed)
            for other in packed[: i + 1]
        ]
    )
    return LeadEntries(np.array(pairs, dtype=np.int64), np.array(packed), np.ascontiguousarray(second.swapaxes(1, 2)))


class LeadMemory(NamedTuple):
    """One level; overwritten."""

    gamma: Array  # (r, r)
    H: Array  # (r, r)
    h: Array  # (r, r)
    s: Array  # (r, r)
    packed_s: Array  # (R,)
    products: Array  # (R, R)


def lead_memory(r: int) -> LeadMemory:
    """Memory for levels of `r` columns."""
    R = r * (r + 1) // 2
    square = (np.zeros((r, r)) for _ in range(4))
    gamma, H, h, s = square
    return LeadMemory(gamma, H, h, s, np.zeros(R), np.zeros((R, R)))


@bare
def pair(a: int, b: int) -> int:
    """Position of (a, b) among the pairs a >= b."""
    return a * (a + 1) // 2 + b if a >= b else b * (b + 1) // 2 + a


@bare
def n_matrices(k: int, order: int) -> int:
    """A value, or with it its first and second derivatives in k parameters."""
    return 1 + k + k * (k + 1) // 2 if order > 0 else 1


@bare
def eliminate_levels(
    phi: Array, entries: LeadEntries, T: Array, order: int, m: LeadMemory, weights: Array, l1: Array, l2: Array
) -> float:
    """Fill `weights` (matrices, levels * R) for levels `T` (m, r, r); log|V|, whose derivatives are added."""
    if T.shape[1] == 1:
        return _eliminate_scalars(phi[0], T, order, weights, l1, l2)
    _fill_gamma(phi, entries, m.gamma)
    total, factors, width = 0.0, 1.0, m.packed_s.size
    for j in range(len(T)):
        factors *= _invert_level(m.gamma, T[j], m.H, m.h, m.s)
        if j % _FACTORS == _FACTORS - 1 or factors > 1e150:
            total += np.log(factors)
            factors = 1.0
        _pack(m.H, weights[0], j * width)
        if order > 0:
            _pack(m.s, m.packed_s, 0)
            _pack_products(m.h, m.products)
            _weigh_derivatives(entries, m.products, m.packed_s, weights, j * width)
            _add_log_derivatives(entries, m.s, l1, l2)
    return total + np.log(factors)


@bare
def _fill_gamma(phi: Array, entries: LeadEntries, gamma: Array) -> None:
    fill(gamma, 0.0)
    for a in range(len(entries.pairs)):
        i, j = entries.pairs[a, 0], entries.pairs[a, 1]
        gamma[i, j] = gamma[j, i] = phi[a]


@bare
def _eliminate_scalars(g: float, T: Array, order: int, weights: Array, l1: Array, l2: Array) -> float:
    """One column per level."""
    total, factors, slope, curvature = 0.0, 1.0, 0.0, 0.0
    for j in range(len(T)):
        weights[0, j] = 1 / (1 + g * T[j, 0, 0] * T[j, 0, 0])
    for j in range(len(T)):
        factors *= weights[0, j]
        if j % _FACTORS == _FACTORS - 1:
            total -= np.log(factors)
            factors = 1.0
    if order > 0:
        for j in range(len(T)):
            h = weights[0, j]
            s = h * T[j, 0, 0] * T[j, 0, 0]
            weights[1, j] = -h * s
            weights[2, j] = 2 * h * s * s
            slope += s
            curvature += s * s
        l1[0] += slope
        l2[0, 0] -= curvature
    return total - np.log(factors)


@bare
def _invert_level(gamma: Array, T: Array, H: Array, h: Array, s: Array) -> float:
    """Overwrite H, the rows h_i = H t_i, and s = T H T', each (r, r); |H^-1|."""
    r = len(gamma)
    multiply(gamma, T, r, r, r, h)
    fill(H, 0.0)
    for u in range(r):
        H[u, u] = 1.0
    add_product(T, h, r, r, r, 1.0, H)
    determinant = invert_definite(H)
    multiply(T, H, r, r, r, h)
    for u in range(r):
        for v in range(r):
            s[u, v] = 0.0
            for i in range(r):
                s[u, v] += h[u, i] * T[v, i]
    return determinant


@bare
def _pack(A: Array, packed: Array, at: int) -> None:
    for u in range(len(A)):
        for v in range(u, len(A)):
            packed[at] = A[u, v]
            at += 1


@bare
def _pack_products(h: Array, products: Array) -> None:
    """Overwrite row (i, j), i <= j, by the packed h_i h_j' + h_j h_i', once if i = j."""
    row = 0
    for i in range(len(h)):
        for j in range(i, len(h)):
            at = 0
            for u in range(len(h)):
                for v in range(u, len(h)):
                    products[row, at] = h[i, u] * h[i, v] if i == j else h[i, u] * h[j, v] + h[j, u] * h[i, v]
                    at += 1
            row += 1


@bare
def _weigh_derivatives(entries: LeadEntries, products: Array, s: Array, weights: Array, at: int) -> None:
    k, width = len(entries.packed), s.size
    for a in range(k):
        for w in range(width):
            weights[1 + a, at + w] = -products[entries.packed[a], w]
    for which in range(len(entries.second)):
        target = weights[1 + k + which]
        for w in range(width):
            target[at + w] = 0.0
        for e in range(width):
            factor = 0.0
            for f in range(width):
                factor += entries.second[which, e, f] * s[f]
            for w in range(width):
                target[at + w] += factor * products[e, w]


@bare
def _add_log_derivatives(entries: LeadEntries, s: Array, l1: Array, l2: Array) -> None:
    """Add tr(s E_a), and -tr(s E_a s E_b) to the lower triangle."""
    for a in range(len(entries.pairs)):
        i, j = entries.pairs[a, 0], entries.pairs[a, 1]
        l1[a] += s[i, i] if i == j else 2 * s[i, j]
        for b in range(a + 1):
            k, l = entries.pairs[b, 0], entries.pairs[b, 1]
            trace = s[j, k] * s[l, i] + s[j, l] * s[k, i]
            if i == j and k == l:
                trace /= 2
            elif i != j and k != l:
                trace *= 2
            l2[a, b] -= trace
