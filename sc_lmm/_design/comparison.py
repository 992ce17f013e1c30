"""Hypothesis -> Comparison: the conditions that L beta weighs against each other, for whoever shows or explains a result.

A condition names columns of the annotations and what they are. With x(c) the row of X of condition c,

    L = sum_c weight_c x(c)

A contrast says its conditions itself. For a coefficient they are sought among the levels of its term: two of them for a
treatment-coded level or a slope (0 and 1), four for a product of two. Where the same coefficient has such conditions at
one level of another column alone, with which it interacts, it is made there. What is not found is not invented.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import DesignError
from .hypothesis import hypotheses_of, random_term_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .coding import Coding
    from .hypothesis import Hypothesis, TestSpec

    Array = NDArray[np.float64]

_MAX_CONDITIONS = 1_000


@dataclass(frozen=True)
class Comparison:
    """What a hypothesis compares."""

    conditions: tuple[dict[str, Any], ...] = ()  # column -> level or number, what is subtracted first; () if unknown
    weights: tuple[float, ...] = ()  # of the conditions; () if they are asked to be all equal
    at: dict[str, Any] = field(default_factory=dict)  # where it is made: other columns on which its answer depends
    unnamed: tuple[str, ...] = ()  # those of them that the test did not name, and that are as usual


def comparisons_of(coding: Coding, test: TestSpec) -> dict[str, Comparison]:
    """Comparisons of a test by name, in order."""
    random = random_term_of(test, coding)
    if random is not None:
        return {str(random): Comparison()}
    grids: dict[str, _Grid | None] = {}
    return {
        h.name: _of_contrast(coding, h) if h.written else _of_terms(coding, h, grids)
        for h in hypotheses_of(coding, test)
    }


def _of_contrast(coding: Coding, hypothesis: Hypothesis) -> Comparison:
    weights: dict[tuple[tuple[str, Any], ...], float] = {}
    for weight, where in hypothesis.written:
        key = tuple(sorted(where.items()))
        weights[key] = weights.get(key, 0.0) + weight
    kept = sorted((item for item in weights.items() if item[1]), key=lambda item: item[1] > 0)
    typed = {name for where, _ in kept for name, _ in where}
    named = [name for name in coding.formula.variables if name in typed]
    conditions = [{name: coding.values_of(name)[0] for name in named} | dict(where) for where, _ in kept]
    differing = {name for name in named if len({where[name] for where in conditions}) > 1}
    beside = _beside(coding, differing)
    unnamed = tuple(name for name in beside if name not in named)
    at = {name: conditions[0].get(name, coding.values_of(name)[0]) for name in beside}
    cancelled = {name for name in typed - differing if name not in coding.levels and name not in beside}
    return Comparison(
        tuple({name: where[name] for name in where if name not in cancelled} | at for where in conditions),
        tuple(weight for _, weight in kept),
        at,
        unnamed,
    )


def _beside(coding: Coding, columns: set[str]) -> list[str]:
    """Other columns that stand in one term with some of the columns."""
    terms = [coding.columns_of(term) for term in coding.terms]
    found = set().union(*(names for names in terms if names & columns)) - columns
    return [name for name in coding.formula.variables if name in found]


@dataclass(frozen=True)
class _Grid:
    """All combinations of levels of a term's columns, once for each combination of those with which it interacts."""

    sizes: tuple[int, ...]  # levels of each column of the term
    conditions: tuple[dict[str, Any], ...]  # (n,)
    settings: tuple[dict[str, Any], ...]  # (s,)
    rows: Array  # (s, n, k) of X, in the columns that are not the same throughout
    columns: NDArray[np.int64]  # (k,) these columns
    own: NDArray[np.bool_]  # (k,) whether one is of the term


def _grid(coding: Coding, term: str) -> _Grid | None:
    """Grid of a term; None for a transform, which has no conditions 0 and 1, and for one that is too large."""
    names = sorted(coding.columns_of(term), key=coding.formula.variables.index)
    beside = _beside(coding, set(names))
    levels = {name: coding.values_of(name) for name in [*names, *beside]}
    if not coding.is_as_it_is(term) or np.prod([len(values) for values in levels.values()]) > _MAX_CONDITIONS:
        return None
    conditions, settings = _combinations(levels, names), _combinations(levels, beside)
    touched = [t for t in coding.terms if coding.columns_of(t) & set(names)]
    slices = {t: np.arange(*coding.terms[t].indices(len(coding.coef_names))) for t in touched}
    columns = np.concatenate(list(slices.values()))
    try:
        X = coding.rows([where | setting for setting in settings for where in conditions], touched)
    except DesignError:  # a spline at 0, where it has no value
        return None
    return _Grid(
        sizes=tuple(len(levels[name]) for name in names),
        conditions=conditions,
        settings=settings,
        rows=X.reshape(len(settings), len(conditions), len(columns)),
        columns=columns,
        own=np.isin(columns, slices[term]),
    )


def _combinations(levels: Mapping[str, Sequence[Any]], names: Sequence[str]) -> tuple[dict[str, Any], ...]:
    return tuple(dict(zip(names, values, strict=True)) for values in product(*(levels[name] for name in names)))


def _of_terms(coding: Coding, hypothesis: Hypothesis, grids: dict[str, _Grid | None]) -> Comparison:
    rows = {term: hypothesis.L[hypothesis.L[:, columns].any(axis=1)] for term, columns in coding.terms.items()}
    tested = [term for term in rows if rows[term].size]
    for term in set(tested) - grids.keys():
        grids[term] = _grid(coding, term)
    found = [_search(grid, rows[term]) for term in tested if (grid := grids[term]) is not None]
    if len(tested) == 1:
        return found[0] if found else Comparison()
    # Several terms are not shown as conditions, but what an interaction leaves at its reference is there all the same.
    named = set().union(*(coding.columns_of(term) for term in tested))
    at = {name: value for one in found for name, value in one.at.items() if name not in named}
    return Comparison(at=at, unnamed=tuple(at))


def _search(grid: _Grid, L: Array) -> Comparison:
    """Find conditions for the rows of L (df, p), at every setting or at the only one that has them."""
    wanted = L[:, grid.columns]
    find = _find_one if len(L) == 1 else _find_equal
    with np.errstate(invalid="ignore"):  # log(0) less log(0): such a setting has no conditions
        found = [find(grid, rows, wanted) for rows in grid.rows]
    first = next((k for k, places in enumerate(found) if places), None)
    if first is None:
        return Comparison()
    places = found[first]
    at = {} if all(other == places for other in found) else grid.settings[first]
    weights = {2: (-1.0, 1.0), 4: (1.0, -1.0, -1.0, 1.0)}[len(places)] if len(L) == 1 else ()
    return Comparison(tuple(grid.conditions[k] | at for k in places), weights, at, tuple(at))


def _find_one(grid: _Grid, rows: Array, L: Array) -> tuple[int, ...]:
    """Two conditions whose rows differ by L (1, k), or four that do so as a difference of differences."""
    return _pair(grid, rows, L[0]) or _square(grid, rows, L[0])


def _find_equal(grid: _Grid, rows: Array, L: Array) -> tuple[int, ...]:
    """Conditions that all rows of L (df, k) compare with one and the same."""
    pairs = [_pair(grid, rows, row) for row in L]
    if not all(pairs) or len({pair[0] for pair in pairs}) > 1:
        return ()
    return (pairs[0][0], *(pair[1] for pair in pairs))


def _pair(grid: _Grid, rows: Array, L: Array) -> tuple[int, ...]:
    """Where the term is zero, and another condition."""
    for first in np.flatnonzero(~rows[:, grid.own].any(axis=1)):
        second = np.flatnonzero(np.abs(rows - rows[first] - L).max(axis=1) < 1e-9)
        if second.size:
            return int(first), int(second[0])
    return ()


def _square(grid: _Grid, rows: Array, L: Array) -> tuple[int, ...]:
    """Both columns at their first level or at another, in all four combinations."""
    if len(grid.sizes) != 2:
        return ()
    places = np.arange(len(rows)).reshape(grid.sizes)
    for k, m in product(*(range(1, size) for size in grid.sizes)):
        corners = [int(places[corner]) for corner in ((0, 0), (0, m), (k, 0), (k, m))]
        if np.abs(np.array([1, -1, -1, 1]) @ rows[corners] - L).max() < 1e-9:
            return tuple(corners)
    return ()
