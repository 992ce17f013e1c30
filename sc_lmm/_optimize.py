"""The variance ratio at which one gene's deviance is smallest, globally. Compiled; knows neither cells nor covariates.

Up to a constant the deviance of a random intercept is (see :mod:`sc_lmm._deviance`)

    D(rho) = dof log(rss_0 + sum_k e_k / (1 + rho d_k)) + sum_j log(1 + rho n_j),    rho >= 0

with e_k and rss_0 a gene's own and all else shared. Its derivative on a grid brackets every local minimum, a safeguarded
Newton iteration finishes each, and the deepest wins. Features of D are decades wide, so three points a decade separate
its minima. Each gene is minimised by itself, in the same order of operations wherever it stands, so results do not
depend on blocks or threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

AT_ZERO, INSIDE, NOT_CONVERGED, NONE = range(4)

# Grid of rho times the mean number of cells per level: below it the donor effect is invisible, above it only noise-free
# data live.
_GRID = np.concatenate([[0.0], np.logspace(-4, 9, 3 * 13 + 1)])
_MAX_STEPS = 60
# Newton converges quadratically, so a step this small leaves an error of its square.
_STEP_TOLERANCE = 1e-8
_HUGE = 1e200

# Sums may be reordered into vector registers, the same way for every gene; nothing else of IEEE arithmetic is given up.
_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})


class Shared(NamedTuple):
    """What the deviances of all genes have in common: r directions, k log terms, m grid points."""

    d: Array  # (r,)
    log_terms: Array  # (k,)
    dof: float
    scale: float  # one over the mean number of cells per level, the unit of rho
    grid: Array  # (m,)
    weight: Array  # (r, m) 1 / (1 + rho d)
    slope: Array  # (r, m) d / (1 + rho d)^2
    log_slope: Array  # (m,) derivative of the log terms


def shared(d: Array, log_terms: Array, dof: int, scale: float) -> Shared:
    """Tabulate what the grid needs."""
    grid = scale * _GRID
    weight = 1 / (1 + d[:, None] * grid)
    log_slope = (log_terms[:, None] / (1 + log_terms[:, None] * grid)).sum(axis=0)
    parts = (np.ascontiguousarray(d), np.ascontiguousarray(log_terms), float(dof), scale, grid, weight)
    return Shared(*parts, weight**2 * d[:, None], log_slope)


@_compiled
def minima(e: Array, rss_0: Array, s: Shared, rho: Array, outcome: NDArray[np.int8]) -> None:
    """Minimise the deviance of each row of `e` (G, r): writes rho (G,), NaN where there is no minimum, and outcome."""
    gradient, rss = np.empty(s.grid.size), np.empty(s.grid.size)
    for g in range(rss_0.size):
        _gradient_on_grid(e[g], rss_0[g], s, gradient, rss)
        best, outcome[g] = np.nan, NONE
        if gradient[0] >= 0:
            best, outcome[g] = 0.0, AT_ZERO
        for m in range(1, gradient.size):
            if gradient[m - 1] < 0 <= gradient[m]:
                here, converged = _zero_between(e[g], rss_0[g], s, m, gradient)
                if outcome[g] == NONE or _rise(best, here, e[g], rss_0[g], s) < 0:
                    best, outcome[g] = here, INSIDE if converged else NOT_CONVERGED
        rho[g] = best


@_compiled
def _gradient_on_grid(e: Array, rss_0: float, s: Shared, gradient: Array, rss: Array) -> None:
    for m in range(s.grid.size):
        gradient[m], rss[m] = 0.0, rss_0
    for k in range(s.d.size):
        for m in range(s.grid.size):
            rss[m] += e[k] * s.weight[k, m]
            gradient[m] -= e[k] * s.slope[k, m]
    for m in range(s.grid.size):
        gradient[m] = s.dof * gradient[m] / rss[m] + s.log_slope[m]


@_compiled
def _zero_between(e: Array, rss_0: float, s: Shared, m: int, gradient: Array) -> tuple[float, bool]:
    """Zero of the derivative between grid points m - 1 and m.

    Newton works on t = log(1 + rho / scale): linear near 0, logarithmic beyond, where likelihoods are smooth.
    """
    low, high = np.log1p(s.grid[m - 1] / s.scale), np.log1p(s.grid[m] / s.scale)
    left, right = gradient[m - 1] * np.exp(low), gradient[m] * np.exp(high)
    t = low + (high - low) * left / (left - right)
    for _ in range(_MAX_STEPS):
        first, second = derivatives(s.scale * np.expm1(t), e, rss_0, s)
        unit = s.scale * np.exp(t)  # d rho / dt
        first, second = first * unit, second * unit**2 + first * unit
        low, high = (t, high) if first < 0 else (low, t)
        step = t - first / second
        following = step if second > 0 and low <= step <= high else (low + high) / 2
        moved, t = abs(following - t), following
        if moved <= _STEP_TOLERANCE or first == 0:
            return s.scale * np.expm1(t), True
    return s.scale * np.expm1(t), False


@_compiled
def derivatives(rho: float, e: Array, rss_0: float, s: Shared) -> tuple[float, float]:
    """First and second derivative of D."""
    rss, first, second = rss_0, 0.0, 0.0
    for k in range(s.d.size):
        weight = 1 / (1 + rho * s.d[k])
        part, slope = e[k] * weight, s.d[k] * weight
        rss += part
        first -= part * slope
        second += 2 * part * slope * slope
    log_first, log_second = 0.0, 0.0
    for j in range(s.log_terms.size):
        slope = s.log_terms[j] / (1 + rho * s.log_terms[j])
        log_first += slope
        log_second -= slope * slope
    ratio = first / rss
    return s.dof * ratio + log_first, s.dof * (second / rss - ratio * ratio) + log_second


@_compiled
def _rise(low: float, high: float, e: Array, rss_0: float, s: Shared) -> float:
    """D(high) - D(low), for the rare gene with several minima."""
    rss_low, rss_high, log_det = rss_0, rss_0, 0.0
    for k in range(s.d.size):
        rss_low += e[k] / (1 + low * s.d[k])
        rss_high += e[k] / (1 + high * s.d[k])
    for j in range(s.log_terms.size):
        log_det += np.log((1 + high * s.log_terms[j]) / (1 + low * s.log_terms[j]))
    return s.dof * np.log(rss_high / rss_low) + log_det
