"""Smooth functions of one bounded variable, minimised side by side in lockstep. Knows nothing of mixed models.

Each row is one function on [0, inf). A grid shared by all rows brackets every local minimum by the sign of the
derivative; a safeguarded Newton iteration finishes the brackets, converged ones dropping out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Rows = NDArray[np.int64]

_MAX_STEPS = 60
# Newton converges quadratically, so a step this small leaves an error of its square.
_STEP_TOLERANCE = 1e-8


class Brackets(NamedTuple):
    """Intervals of one row each in which the derivative goes from negative to not negative."""

    rows: Rows  # (n_brackets,)
    low: Array  # (n_brackets,)
    high: Array  # (n_brackets,)


def bracket_minima(gradient: Array, grid: Array) -> tuple[Rows, Brackets]:
    """Rows with a minimum at 0, and the brackets of all interior minima, from `gradient` (n_grid, n_rows) on `grid`."""
    negative = gradient < 0
    cell, rows = np.nonzero(negative[:-1] & ~negative[1:])
    return np.flatnonzero(~negative[0]), Brackets(rows, grid[cell], grid[cell + 1])


def refine(
    derivatives: Callable[[Array, Rows], tuple[Array, Array]], brackets: Brackets, scale: float
) -> tuple[Array, NDArray[np.bool_]]:
    """Find the zero of the derivative in each bracket, and say which converged.

    Parameters
    ----------
    derivatives
        First and second derivative of the functions of the given rows at the given points.
    brackets
        Where to look.
    scale
        Newton works on t = log(1 + x / scale): linear near 0, logarithmic beyond, where likelihoods are smooth.
    """
    low, high = np.log1p(brackets.low / scale), np.log1p(brackets.high / scale)
    t = (low + high) / 2
    active = np.arange(t.size)
    for _ in range(_MAX_STEPS):
        if active.size == 0:
            break
        here = t[active]
        gradient, curvature = derivatives(scale * np.expm1(here), brackets.rows[active])
        slope = scale * np.exp(here)  # dx/dt
        gradient, curvature = gradient * slope, curvature * slope**2 + gradient * slope
        low[active] = np.where(gradient < 0, here, low[active])
        high[active] = np.where(gradient < 0, high[active], here)
        t[active] = _newton_or_bisect(here, gradient, curvature, low[active], high[active])
        moved = np.abs(t[active] - here) > _STEP_TOLERANCE
        active = active[moved & (gradient != 0)]
    converged = np.ones(t.size, dtype=bool)
    converged[active] = False
    return scale * np.expm1(t), converged


def _newton_or_bisect(here: Array, gradient: Array, curvature: Array, low: Array, high: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        step = here - gradient / curvature
    inside = (curvature > 0) & (step >= low) & (step <= high)
    return np.where(inside, step, np.where(gradient == 0, here, (low + high) / 2))


def best_per_row(rows: Rows, values: Array, n_rows: int) -> Rows:
    """Position of the smallest value of each row, -1 for a row without one; the first of equals wins."""
    order = np.lexsort((values, rows))
    _, first = np.unique(rows[order], return_index=True)
    best = np.full(n_rows, -1)
    best[rows[order[first]]] = order[first]
    return best
