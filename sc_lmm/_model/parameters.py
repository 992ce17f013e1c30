"""Parameters that an optimiser can move: Gamma = U D U' of each block of columns, D >= 0, U with ones on its diagonal.

    t_i = log(1 + d_i / unit) >= 0        u_ik (i > k), the entries of U

t is linear near 0 and logarithmic beyond, where likelihoods are smooth; a boundary, where Gamma loses rank, is a bound
t = 0 at which the derivative is seen. The columns are in an order of their own for each gene, the one with the largest
variance left first: when the pivot d_k vanishes all that follow have, and u is never large. Where d_k = 0 the column
u_.k has no effect; it is turned to where the deviance falls most, so that its derivative in t_k decides whether the point
is a minimum over all Gamma >= 0.

phi holds the lower triangle of Gamma, row by row, of one block after the other; x holds the t and then the u, likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .compiled import bare, compiled
from .lead import pair
from .small import fill

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .structure import Structure

    Array = NDArray[np.float64]
    Indices = NDArray[np.int64]

# A remaining variance that exceeds the pivot's by this factor takes its place.
_PIVOT_RATIO = 2.0
# A variance below this share of the block's largest is 0.
_ZERO = 1e-14


class Blocks(NamedTuple):
    """Blocks of columns that correlate with each other: where each is among the parameters."""

    width: Indices  # (B,)
    parameter: Indices  # (B,) first one
    column: Indices  # (B,) first one
    unit: Array  # (B,) natural unit of d: one over the mean squared length of a column in a level


def blocks_of(structure: Structure) -> Blocks:
    """Blocks of a design, in the order of its groupings."""
    widths, units = [], []
    for grouping, unit in zip(structure.groupings, structure.units, strict=True):
        widths += [block.stop - block.start for block in grouping.blocks]
        units += [unit] * len(grouping.blocks)
    width = np.array(widths, dtype=np.int64)
    size = width * (width + 1) // 2
    return Blocks(width, np.cumsum(size) - size, np.cumsum(width) - width, np.array(units))


@bare
def to_phi(x: Array, order: Indices, blocks: Blocks, phi: Array) -> None:
    """Overwrite `phi` by the entries of Gamma at `x`, with the columns of each block in `order`."""
    for a in range(phi.size):
        phi[a] = 0.0
    for b in range(blocks.width.size):
        r, first, position = blocks.width[b], blocks.parameter[b], order[blocks.column[b] :]
        for k in range(r):
            d = blocks.unit[b] * np.expm1(x[first + k])
            for i in range(k, r):
                for j in range(k, i + 1):
                    phi[first + pair(position[i], position[j])] += d * _u(x, first, r, i, k) * _u(x, first, r, j, k)


@bare
def _u(x: Array, first: int, r: int, i: int, k: int) -> float:
    return 1.0 if i == k else x[_place(first, r, i, k)]


@bare
def _place(first: int, r: int, i: int, k: int) -> int:
    """Where u_ik, i > k, is in x."""
    return first + r + i * (i - 1) // 2 + k


@compiled
def from_phi(phi: Array, blocks: Blocks, x: Array, order: Indices) -> None:
    """Overwrite `x` and the order of the columns by those of the Gamma in `phi`."""
    for b in range(blocks.width.size):
        r, first = blocks.width[b], blocks.parameter[b]
        A = np.empty((r, r))
        for i in range(r):
            for j in range(i + 1):
                A[i, j] = A[j, i] = phi[first + pair(i, j)]
        factorise(A, order[blocks.column[b] : blocks.column[b] + r], x, first, blocks.unit[b])


@bare
def bounds(x: Array, blocks: Blocks, last_t: float, lower: Array, upper: Array) -> None:
    """Overwrite the box: t >= 0, and u where it is if it has no effect."""
    for i in range(x.size):
        lower[i], upper[i] = -np.inf, np.inf
    for b in range(blocks.width.size):
        r, first = blocks.width[b], blocks.parameter[b]
        for k in range(r):
            lower[first + k], upper[first + k] = 0.0, last_t
            if x[first + k] == 0:
                for i in range(k + 1, r):
                    at = _place(first, r, i, k)
                    lower[at] = upper[at] = x[at]


class Local(NamedTuple):
    """Derivatives in x; overwritten."""

    gradient: Array  # (k,)
    hessian: Array  # (k, k)
    expected: Array  # (k, k)
    jacobian: Array  # (k, k) of phi in x
    slope: Array  # (R, R) derivative in Gamma of one block, of up to R columns
    slope_u: Array  # (R,) the same times a column of U


def local_memory(k: int, width: int) -> Local:
    """Memory for `k` parameters in blocks of up to `width` columns."""
    square = (np.zeros((k, k)) for _ in range(3))
    hessian, expected, jacobian = square
    return Local(np.zeros(k), hessian, expected, jacobian, np.zeros((width, width)), np.zeros(width))


@bare
def pull_back(
    x: Array,
    order: Indices,
    blocks: Blocks,
    gradient: Array,  # (k,) in phi
    hessian: Array,  # (k, k)
    expected: Array,  # (k, k)
    local: Local,
) -> None:
    """Derivatives in x from those in phi."""
    k, J = x.size, local.jacobian
    fill(J, 0.0)
    fill(local.hessian, 0.0)
    for b in range(blocks.width.size):
        _add_block(x, order[blocks.column[b] :], blocks, b, gradient, local)
    for i in range(k):
        local.gradient[i] = 0.0
        for a in range(k):
            local.gradient[i] += J[a, i] * gradient[a]
        for j in range(i + 1):
            exact, mean = local.hessian[i, j], 0.0
            for a in range(k):
                if J[a, i] != 0:
                    for c in range(k):
                        exact += J[a, i] * hessian[a, c] * J[c, j]
                        mean += J[a, i] * expected[a, c] * J[c, j]
            local.hessian[i, j] = local.hessian[j, i] = exact
            local.expected[i, j] = local.expected[j, i] = mean


@bare
def _add_block(x: Array, position: Indices, blocks: Blocks, b: int, gradient: Array, local: Local) -> None:
    """The Jacobian of block `b`, and the part of the Hessian, lower triangle, that the curvature of phi adds."""
    r, first, J, curvature = blocks.width[b], blocks.parameter[b], local.jacobian, local.hessian
    G, Gu = local.slope, local.slope_u
    _gradient_matrix(gradient, first, position, r, G)
    for k in range(r):
        slope = blocks.unit[b] * np.exp(x[first + k])  # the first and second derivative of d in t
        d = blocks.unit[b] * np.expm1(x[first + k])
        for i in range(r):
            Gu[i] = 0.0
            for j in range(k, r):
                Gu[i] += G[i, j] * _u(x, first, r, j, k)
        for i in range(k, r):
            u_i = _u(x, first, r, i, k)
            curvature[first + k, first + k] += slope * u_i * Gu[i]
            for j in range(k, i + 1):
                J[first + pair(position[i], position[j]), first + k] += slope * u_i * _u(x, first, r, j, k)
        for i in range(k + 1, r):
            at = _place(first, r, i, k)
            curvature[at, first + k] += 2 * slope * Gu[i]
            for j in range(k, r):
                twice = 2.0 if i == j else 1.0
                J[first + pair(position[i], position[j]), at] += d * twice * _u(x, first, r, j, k)
            for j in range(k + 1, i + 1):
                curvature[at, _place(first, r, j, k)] += 2 * d * G[i, j]


@bare
def _gradient_matrix(gradient: Array, first: int, position: Indices, r: int, G: Array) -> None:
    """Overwrite G by the derivative in the symmetric Gamma, in the order of `position`."""
    for i in range(r):
        for j in range(r):
            slope = gradient[first + pair(position[i], position[j])]
            G[i, j] = slope if i == j else slope / 2


@compiled
def orient(x: Array, order: Indices, blocks: Blocks, gradient: Array) -> None:
    """Choose the order of the columns again where it no longer suits, and the direction in which Gamma may grow."""
    for b in range(blocks.width.size):
        r = blocks.width[b]
        if r > 1:
            position = order[blocks.column[b] : blocks.column[b] + r]
            if _has_small_pivot(x, blocks.parameter[b], r):
                _factorise_again(x, position, blocks.parameter[b], blocks.unit[b])
            _turn(x, position, blocks.parameter[b], gradient)


@bare
def _has_small_pivot(x: Array, first: int, r: int) -> bool:
    for k in range(r):
        for i in range(k + 1, r):
            left = 0.0
            for l in range(k, i + 1):
                left += np.expm1(x[first + l]) * _u(x, first, r, i, l) ** 2
            if left > _PIVOT_RATIO * np.expm1(x[first + k]):
                return True
    return False


@compiled
def _factorise_again(x: Array, position: Indices, first: int, unit: float) -> None:
    """Pivoted U D U' of the present Gamma of a block."""
    r = position.size
    A = np.zeros((r, r))
    for k in range(r):
        d = unit * np.expm1(x[first + k])
        for i in range(k, r):
            for j in range(k, r):
                A[position[i], position[j]] += d * _u(x, first, r, i, k) * _u(x, first, r, j, k)
    factorise(A, position, x, first, unit)


@compiled
def factorise(A: Array, position: Indices, x: Array, first: int, unit: float) -> None:
    """Overwrite a block's part of `x` and the order of its columns by those of A, which is destroyed."""
    r, largest = len(A), 0.0
    for i in range(r):
        position[i] = i
        largest = max(largest, A[i, i])
    for k in range(r):
        best = k
        for i in range(k + 1, r):
            if A[position[i], position[i]] > A[position[best], position[best]]:
                best = i
        _swap(x, position, first, k, best)
        pivot = A[position[k], position[k]]
        zero = not pivot > _ZERO * largest
        x[first + k] = 0.0 if zero else np.log1p(pivot / unit)
        for i in range(k + 1, r):
            x[_place(first, r, i, k)] = 0.0 if zero else A[position[i], position[k]] / pivot
        if not zero:
            for i in range(k + 1, r):
                for j in range(k + 1, r):
                    A[position[i], position[j]] -= x[_place(first, r, i, k)] * pivot * x[_place(first, r, j, k)]


@bare
def _swap(x: Array, position: Indices, first: int, k: int, i: int) -> None:
    """Exchange two columns that are not factorised yet."""
    if i == k:
        return
    r = position.size
    position[k], position[i] = position[i], position[k]
    for l in range(k):
        one, other = _place(first, r, k, l), _place(first, r, i, l)
        x[one], x[other] = x[other], x[one]


@compiled
def _turn(x: Array, position: Indices, first: int, gradient: Array) -> None:
    """Turn the first column of U whose d is 0 to where the deviance falls most, if it falls anywhere."""
    r = position.size
    rank = 0
    while rank < r and x[first + rank] > 0:
        rank += 1
    if r - rank < 2:
        return
    G = np.empty((r, r))
    _gradient_matrix(gradient, first, position, r, G)
    values, vectors = np.linalg.eigh(G[rank:, rank:].copy())
    if values[0] >= 0:
        return
    best = int(np.argmax(np.abs(vectors[:, 0])))
    direction = vectors[:, 0] / vectors[best, 0]
    direction[best] = direction[0]
    _swap(x, position, first, rank, rank + best)
    for i in range(rank + 1, r):
        x[_place(first, r, i, rank)] = direction[i - rank]
