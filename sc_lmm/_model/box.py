"""A step of Newton's method on a box: the minimiser of g's + s'As/2 over lower <= x + s <= upper.

Variables that would leave the box are held at its side and the others solved for again, so that these know of it; to
project the unconstrained step instead jams: a clipped variable drags the others along the bound. A is the exact Hessian
where it is positive definite in the free variables, and the expected one elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .compiled import bare
from .small import cholesky, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Steps in t = log(1 + d / unit) beyond this are not to be trusted.
_LONGEST = 3.0
_RIDGE = 1e-6


class Box(NamedTuple):
    """The box and the step; overwritten."""

    lower: Array  # (k,)
    upper: Array  # (k,)
    step: Array  # (k,)
    A: Array  # (k, k)
    free: NDArray[np.bool_]  # (k,)
    where: NDArray[np.int64]  # (k,) the free ones
    factor: Array  # (k, k)
    right: Array  # (k,)


def box_memory(k: int) -> Box:
    """Memory for `k` variables."""
    return Box(
        lower=np.zeros(k),
        upper=np.zeros(k),
        step=np.zeros(k),
        A=np.zeros((k, k)),
        free=np.zeros(k, dtype=np.bool_),
        where=np.zeros(k, dtype=np.int64),
        factor=np.zeros((k, k)),
        right=np.zeros(k),
    )


@bare
def box_step(x: Array, gradient: Array, hessian: Array, expected: Array, box: Box) -> float:
    """Overwrite ``box.step``; the decrease that the quadratic model promises."""
    k = x.size
    for i in range(k):
        low, high = x[i] <= box.lower[i], x[i] >= box.upper[i]
        box.free[i] = not ((low and gradient[i] >= 0) or (high and gradient[i] <= 0))
        box.step[i] = 0.0
        for j in range(k):
            box.A[i, j] = hessian[i, j]
    if not _solve_free(gradient, box):
        for i in range(k):
            for j in range(k):
                box.A[i, j] = expected[i, j]
            box.A[i, i] += _RIDGE * (1 + expected[i, i])
        _solve_free(gradient, box)
    for _ in range(k):
        if not _hold(x, box):
            break
        _solve_free(gradient, box)
    _shorten(box.step)
    promise = 0.0
    for i in range(k):
        promise -= gradient[i] * box.step[i]
        for j in range(k):
            promise -= box.step[i] * box.A[i, j] * box.step[j] / 2
    return promise


@bare
def _hold(x: Array, box: Box) -> bool:
    """Hold the variables that would leave the box at its side; whether there are any."""
    held = False
    for i in range(x.size):
        if box.free[i] and not box.lower[i] <= x[i] + box.step[i] <= box.upper[i]:
            side = box.lower[i] if x[i] + box.step[i] < box.lower[i] else box.upper[i]
            box.step[i], box.free[i] = side - x[i], False
            held = True
    return held


@bare
def _shorten(step: Array) -> None:
    longest = 0.0
    for i in range(step.size):
        longest = max(longest, abs(step[i]))
    if longest > _LONGEST:
        for i in range(step.size):
            step[i] *= _LONGEST / longest


@bare
def _solve_free(gradient: Array, box: Box) -> bool:
    """Overwrite the free entries of the step given the others; whether A is positive definite in them."""
    n, where, right = 0, box.where, box.right
    for i in range(gradient.size):
        if box.free[i]:
            where[n] = i
            n += 1
    for i in range(n):
        right[i] = -gradient[where[i]]
        for j in range(gradient.size):
            if not box.free[j]:
                right[i] -= box.A[where[i], j] * box.step[j]
        for j in range(n):
            box.factor[i, j] = box.A[where[i], where[j]]
    if not cholesky(box.factor, n):
        return False
    solve(box.factor, right, n)
    for i in range(n):
        box.step[where[i]] = right[i]
    return True
