"""The variance ratio at which one gene's deviance is smallest, globally. Knows neither cells nor covariates.

Up to a constant the deviance of a random intercept is (see :mod:`sc_lmm._model.deviance`)

    D(rho) = dof log(rss_0 + sum_k e_k / (1 + rho d_k)) + sum_j log(1 + rho n_j),    rho >= 0

with e_k and rss_0 a gene's own and all else shared. Its derivative on a grid, two matrix products for a block of genes,
brackets every local minimum; a compiled Newton iteration finishes each, and the deepest wins. The few genes whose
deviance still falls at the end of the grid are followed as far as it takes: unless rss_0 is 0, D rises in the end. Each
gene is minimised by itself, in the same order of operations wherever it stands, so results do not depend on blocks or
threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._compile import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

AT_ZERO, INSIDE, NOT_CONVERGED, NONE = range(4)

# Decades of rho times the mean number of cells per level that are searched: below them the donor effect is invisible,
# above them donors are ten thousand times as far apart as their cells. At the end no digit of y is left to the cells.
_FIRST, _LAST, _END = -4, 9, 36
# Sums of squares between 1 / this and this are taken as they are.
_LARGE = 1e100
_MAX_STEPS = 60
# Newton converges quadratically, so a step this small leaves an error of its square.
_STEP_TOLERANCE = 1e-6

# Sums may be reordered into vector registers, the same way for every gene; nothing else of IEEE arithmetic is given up.
_compiled = compiled(error_model="numpy", fastmath={"reassoc", "contract"})


class Terms(NamedTuple):
    """What D has beside a gene's e and rss_0."""

    d: Array  # (r,)
    log_terms: Array  # (k,) n_j
    dof: float


class Shared(NamedTuple):
    """What all genes share: the terms, and tables on a grid of m values of rho."""

    terms: Terms
    unit: float  # one over the mean number of cells per level, the natural unit of rho
    grid: Array  # (m,)
    weight: Array  # (r, m) 1 / (1 + rho d)
    slope: Array  # (r, m) d / (1 + rho d)^2
    log_slope: Array  # (m,) derivative of the sum of log terms


def _exponents(terms: Array) -> Array:
    """Decimal logarithms of the grid: whole ones, and thirds where one of the terms (k,) times rho can be near 1."""
    low, high = np.log10(0.03 / terms.max(initial=1.0)), np.log10(30 / terms.min(initial=1.0))
    first, last = max(np.floor(low), _FIRST), min(np.ceil(high), _LAST)
    return np.unique(np.concatenate([np.arange(_FIRST, _LAST + 1), np.arange(3 * first, 3 * last + 1) / 3]).round(9))


def shared(d: Array, log_terms: Array, dof: int, unit: float) -> Shared:
    """Lay the grid.

    Where rho d_k is near 1 for some k the deviance has features, decades wide: three points a decade separate its
    minima (none missed among 300,000 noise-free genes of spectra over six decades; with one point, 45). Where all rho d_k
    are small, or all large, its slope is monotone but for a factor, and one point is enough.
    """
    terms = Terms(np.ascontiguousarray(d), np.ascontiguousarray(log_terms), float(dof))
    exponents = _exponents(np.concatenate([d, log_terms]) * unit)
    return _tables(terms, unit, unit * np.concatenate([[0.0], 10**exponents]))


def _beyond(s: Shared) -> Shared:
    """The grid from the end of the other one on, in thirds of a decade."""
    return _tables(s.terms, s.unit, s.unit * 10 ** np.linspace(_LAST, _END, 3 * (_END - _LAST) + 1))


def _tables(terms: Terms, unit: float, grid: Array) -> Shared:
    d, log_terms = terms.d[:, None], terms.log_terms[:, None]
    weight = 1 / (1 + d * grid)
    return Shared(terms, unit, grid, weight, weight**2 * d, (log_terms / (1 + log_terms * grid)).sum(axis=0))


def _gradient_on_grid(e: Array, rss_0: Array, s: Shared) -> Array:
    """Derivative of the deviance of each row of `e` (G, r) at the shared values of rho, (G, m)."""
    rss = e @ s.weight
    rss += rss_0[:, None]
    gradient = e @ s.slope
    with np.errstate(invalid="ignore"):  # a constant gene
        gradient /= rss
    gradient *= -s.terms.dof
    gradient += s.log_slope
    return gradient


class Minima(NamedTuple):
    """Per gene, NaN where the deviance has no minimum on the grid."""

    rho: Array  # (G,)
    rss: Array  # (G,) the argument of the first logarithm there
    value: Array  # (G,) D there
    outcome: NDArray[np.int8]  # (G,)


def minimise(e: Array, rss_0: Array, s: Shared) -> Minima:
    """Minimise the deviance of each row of `e` (G, r)."""
    scale = _scale(e, rss_0)
    if (scale != 1).any():
        e, rss_0 = e / scale[:, None], rss_0 / scale
    found, falling = _minimise_on(s, e, rss_0)
    if falling.size:
        beyond, _ = _minimise_on(_beyond(s), e[falling], rss_0[falling])
        deeper = (found.outcome[falling] == NONE) | (beyond.value < found.value[falling])
        for name in Minima._fields:
            getattr(found, name)[falling[deeper]] = getattr(beyond, name)[deeper]
    return found._replace(rss=found.rss * scale, value=found.value + s.terms.dof * np.log(scale))


def _minimise_on(s: Shared, e: Array, rss_0: Array) -> tuple[Minima, NDArray[np.int64]]:
    """Minima on a grid, and the genes whose deviance still falls at its end."""
    n, gradient = rss_0.size, _gradient_on_grid(e, rss_0, s)
    found = Minima(np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan), np.full(n, NONE, dtype=np.int8))
    _minimise_rows(gradient, e, rss_0, s.terms, s.grid, s.unit, *found)
    return found, np.flatnonzero(gradient[:, -1] < 0)


@_compiled
def _scale(e: Array, rss_0: Array) -> Array:
    """Scale of the squares of each gene, (G,): 1, or their sum where products of it would overflow or vanish."""
    scale = np.ones(rss_0.size)
    for g in range(rss_0.size):
        total = rss_0[g]
        for k in range(e.shape[1]):
            total += e[g, k]
        if total > _LARGE or 0 < total < 1 / _LARGE:
            scale[g] = total
    return scale


@_compiled
def _minimise_rows(
    gradient: Array,
    e: Array,
    rss_0: Array,
    terms: Terms,
    grid: Array,
    unit: float,
    rho: Array,
    rss: Array,
    value: Array,
    outcome: NDArray[np.int8],
) -> None:
    for g in range(rss_0.size):
        for m in range(grid.size):
            if gradient[g, m] >= 0 and (m == 0 or gradient[g, m - 1] < 0):
                here, ended = _finish(m, gradient[g], grid, unit, e[g], rss_0[g], terms)
                rss_here, value_here = evaluate(here, e[g], rss_0[g], terms)
                if outcome[g] == NONE or value_here < value[g]:
                    rho[g], rss[g], value[g], outcome[g] = here, rss_here, value_here, ended


@_compiled
def _finish(
    m: int, gradient: Array, grid: Array, unit: float, e: Array, rss_0: float, terms: Terms
) -> tuple[float, int]:
    """The minimum at 0, or between grid points m - 1 and m, where the derivative turns from negative.

    Newton works on t = log(1 + rho / unit): linear near 0, logarithmic beyond, where likelihoods are smooth.
    """
    if m == 0:
        return 0.0, AT_ZERO
    low, high = grid[m - 1], grid[m]
    left, right = gradient[m - 1] * (unit + low), gradient[m] * (unit + high)  # d rho / dt = unit + rho
    low, high = np.log1p(low / unit), np.log1p(high / unit)
    t, moved = low + (high - low) * left / (left - right), high - low
    for _ in range(_MAX_STEPS):
        first, second = derivatives(unit * np.expm1(t), e, rss_0, terms)
        scale = unit * np.exp(t)
        first, second = first * scale, second * scale**2 + first * scale
        low, high = (t, high) if first < 0 else (low, t)
        step = t - first / second
        # A step that does not halve the one before would not end in time.
        sound = second > 0 and low <= step <= high and abs(step - t) <= moved / 2
        following = step if sound else (low + high) / 2
        moved, t = abs(following - t), following
        if moved <= _STEP_TOLERANCE or first == 0:
            return unit * np.expm1(t), INSIDE
    return unit * np.expm1(t), NOT_CONVERGED


@_compiled
def derivatives(rho: float, e: Array, rss_0: float, terms: Terms) -> tuple[float, float]:
    """First and second derivative of D."""
    rss, first, second = rss_0, 0.0, 0.0
    for k in range(terms.d.size):
        weight = 1 / (1 + rho * terms.d[k])
        part, slope = e[k] * weight, terms.d[k] * weight
        rss += part
        first -= part * slope
        second += 2 * part * slope * slope
    log_first, log_second = 0.0, 0.0
    for j in range(terms.log_terms.size):
        slope = terms.log_terms[j] / (1 + rho * terms.log_terms[j])
        log_first += slope
        log_second -= slope * slope
    ratio = first / rss
    return terms.dof * ratio + log_first, terms.dof * (second / rss - ratio * ratio) + log_second


@_compiled
def evaluate(rho: float, e: Array, rss_0: float, terms: Terms) -> tuple[float, float]:
    """The argument of the first logarithm, and D."""
    rss = rss_0
    for k in range(terms.d.size):
        rss += e[k] / (1 + rho * terms.d[k])
    return rss, terms.dof * np.log(rss) + _log_det(rho, terms.log_terms)


@_compiled
def _log_det(rho: float, log_terms: Array) -> float:
    """Sum of log(1 + rho n_j), one logarithm for 16 factors, or for each where 16 would overflow."""
    total = 0.0
    for start in range(0, log_terms.size, 16):
        product = 1.0
        for j in range(start, min(start + 16, log_terms.size)):
            product *= 1 + rho * log_terms[j]
        total += np.log(product)
    if total == np.inf:
        total = 0.0
        for n in log_terms:
            total += np.log1p(rho * n)
    return total
