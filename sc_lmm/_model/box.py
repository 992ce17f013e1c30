"""A step of Newton's method on a box: s with a small g's + s'As/2, lower <= x + s <= upper and |s| at most `_LONGEST`.

From s = 0 it goes towards the minimum over the free variables as far as the box allows; the variable that is stopped by
its side is held there, and so on from where it stands with the others, so that these know of it and the model falls all
the way. To project the unconstrained step instead jams: a clipped variable drags the others along the bound. A is the
exact Hessian where it is positive definite in the free variables, and the expected one elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .compiled import bare
from .small import cholesky, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Steps beyond this in t = log(1 + d / unit) are not to be trusted.
_LONGEST = 3.0
_RIDGE = 1e-6


class Box(NamedTuple):
    """The box and the step; overwritten."""

    lower: Array  # (k,)
    upper: Array  # (k,)
    step: Array  # (k,)
    target: Array  # (k,) where the step would go but for the box
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
        target=np.zeros(k),
        A=np.zeros((k, k)),
        free=np.zeros(k, dtype=np.bool_),
        where=np.zeros(k, dtype=np.int64),
        factor=np.zeros((k, k)),
        right=np.zeros(k),
    )


@bare
def box_step(x: Array, gradient: Array, hessian: Array, expected: Array, box: Box) -> float:
    """Overwrite ``box.step``; the decrease that the quadratic model promises, NaN if it has no minimum."""
    k = x.size
    for i in range(k):
        low, high = x[i] <= box.lower[i], x[i] >= box.upper[i]
        box.free[i] = not ((low and gradient[i] >= 0) or (high and gradient[i] <= 0))
        box.step[i] = 0.0
        for j in range(k):
            box.A[i, j] = hessian[i, j]
    if not _aim(gradient, box):
        for i in range(k):
            for j in range(k):
                box.A[i, j] = expected[i, j]
            box.A[i, i] += _RIDGE * (1 + expected[i, i])
        if not _aim(gradient, box):
            return np.nan
    while _is_stopped(x, box):
        _aim(gradient, box)
    promise = 0.0
    for i in range(k):
        promise -= gradient[i] * box.step[i]
        for j in range(k):
            promise -= box.step[i] * box.A[i, j] * box.step[j] / 2
    return promise


@bare
def _is_stopped(x: Array, box: Box) -> bool:
    """Go towards the target; whether a side is in the way, whose variable is held there."""
    share, stopped, side = 1.0, -1, 0.0
    for i in range(x.size):
        if box.free[i]:
            low, high = max(box.lower[i] - x[i], -_LONGEST), min(box.upper[i] - x[i], _LONGEST)
            bound = low if box.target[i] < low else high
            if not low <= box.target[i] <= high:
                within = (bound - box.step[i]) / (box.target[i] - box.step[i])
                if within < share:
                    share, stopped, side = within, i, bound
    for i in range(x.size):
        if box.free[i]:
            box.step[i] += share * (box.target[i] - box.step[i])
    if stopped < 0:
        return False
    box.step[stopped], box.free[stopped] = side, False
    return True


@bare
def _aim(gradient: Array, box: Box) -> bool:
    """Overwrite the target of the free variables given the others; whether A is positive definite in them."""
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
        box.target[where[i]] = right[i]
    return True
