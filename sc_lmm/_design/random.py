"""Random terms of a formula, coded on the cells: levels, and columns whose coefficients vary between them.

A slope's columns are coded as fixed effects are: ``(condition | donor)`` is an intercept and a difference for each donor.
After ``||`` every column has a variance of its own and no correlation with another, of a factor too, as in lme4 2: what
that says then depends on the reference level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._errors import DesignError
from .._names import INTERCEPT
from .columns import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from formulaic import Formula, ModelMatrix
    from numpy.typing import NDArray

    from .aliases import Aliases, Use
    from .formula import MixedFormula, RandomSpec

    Array = NDArray[np.float64]
    Evaluate = Callable[[MixedFormula, Formula, Aliases, pd.DataFrame], ModelMatrix]

# Variance parameters, levels of the groupings beside the largest, and combinations of levels of all, at most.
_MOST_PARAMETERS, _MOST_REST, _MOST_COMBINATIONS = 12, 400, 50_000


@dataclass(frozen=True)
class RandomTerm:
    """A random intercept ``(1 | name)``: one level per donor."""

    name: str
    levels: tuple[str, ...]  # (q,)
    codes: NDArray[np.int32]  # (n,) level of each cell
    weights: NDArray[np.float64] | None = None  # (n,) of the cells, one on average; None if all are one

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Cells per level as their weights count them, the diagonal of Z'WZ, shape (q,)."""
        return np.bincount(self.codes, self.weights, minlength=len(self.levels)).astype(np.float64)


@dataclass(frozen=True)
class RandomEffects:
    """Coefficients of some columns that vary between the levels of a grouping, for n cells."""

    grouping: str
    levels: tuple[str, ...]  # (m,)
    codes: NDArray[np.int32]  # (n,) level of each cell
    columns: Array  # (n, r), ones for an intercept
    column_names: tuple[str, ...]  # (r,)
    correlated: bool
    written: str  # as the formula writes the term

    @property
    def text(self) -> str:
        """The term in messages."""
        return f"({' + '.join('1' if n == INTERCEPT else n for n in self.column_names)} | {self.grouping})"


def group_levels(columns: Sequence[pd.Series]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Levels that occur of a grouping by one column or several, and the level of each cell, (n,)."""
    if len(columns) == 1:
        return tuple(columns[0].cat.categories), np.asarray(columns[0].cat.codes, dtype=np.int32)
    joined = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        joined = joined * len(column.cat.categories) + column.cat.codes.to_numpy()
    found, codes = np.unique(joined, return_inverse=True)
    names = []
    for code in found.tolist():
        parts = []
        for column in reversed(columns):
            code, place = divmod(code, len(column.cat.categories))
            parts.append(str(column.cat.categories[place]))
        names.append(":".join(reversed(parts)))
    return tuple(names), codes.ravel().astype(np.int32)


def random_intercept_of(spec: RandomSpec, groups: Mapping[str, pd.Series]) -> RandomTerm:
    """The grouping of a term as that of a random intercept."""
    levels, codes = group_levels([groups[name] for name in spec.columns])
    supported = "A random intercept needs several cells in each of several donors."
    if len(levels) < 2:
        msg = f"Random term {spec} has one level, {levels[0]!r}. {supported}"
        raise DesignError(msg)
    if len(levels) >= len(codes):
        msg = f"Random term {spec} has as many levels as cells ({len(levels)}). {supported}"
        raise DesignError(msg)
    return RandomTerm(spec.grouping, levels, codes)


def code_effects(
    parsed: MixedFormula, used: Mapping[Use, pd.Series], groups: Mapping[str, pd.Series], evaluate: Evaluate
) -> tuple[RandomEffects, ...]:
    """Code the random terms; none for one random intercept, which needs no columns."""
    if parsed.is_one_intercept:
        return ()
    return tuple(_coded(parsed, spec, used, groups, evaluate) for spec in parsed.random)


def _coded(
    parsed: MixedFormula,
    spec: RandomSpec,
    used: Mapping[Use, pd.Series],
    groups: Mapping[str, pd.Series],
    evaluate: Evaluate,
) -> RandomEffects:
    random = random_intercept_of(spec, groups)
    formula, aliases = parsed.aliased(avoid=_texts(used.values()), of=spec.effects)
    data = pd.DataFrame({a: used[use] for a, use in aliases.used_in(formula).items()}, index=range(random.codes.size))
    matrix = evaluate(parsed, formula, aliases, data)
    names = tuple(aliases.restore(str(name)) for name in matrix.model_spec.column_names)
    columns = np.ascontiguousarray(matrix.to_numpy(dtype=np.float64))
    if not np.isfinite(columns).all() or not names:
        msg = f"Random term {spec} has columns that are not finite, or none. Check its transforms."
        raise DesignError(msg)
    return RandomEffects(random.name, random.levels, random.codes, columns, names, spec.correlated, str(spec))


def _texts(columns: Iterable[pd.Series]) -> list[str]:
    found = [column for column in columns if isinstance(column.dtype, pd.CategoricalDtype)]
    return [str(level) for column in found for level in column.cat.categories]


def check_effects(effects: Sequence[RandomEffects], X: Array) -> None:
    """Refuse terms whose variances no data can tell, and designs that are too large."""
    _check_names(effects)
    for term in effects:
        _check_size(term)
        _check_slopes(term)
    _check_divisions(effects)
    _check_limits(effects)
    _check_fixed(effects, X)


def check_one_intercept(formula: MixedFormula, what: str) -> None:
    """Refuse what is made for one random intercept."""
    if not formula.is_one_intercept:
        msg = (
            f"{what} is of models with one random intercept, and {formula.text!r} has {formula.random_text}. Use the "
            f"intercept of the unit that the tested term is judged by: (1 | donor) for what differs between donors, and "
            f"(1 | donor:condition) with donor as a fixed factor for what differs within them."
        )
        raise DesignError(msg)


def _check_names(effects: Sequence[RandomEffects]) -> None:
    seen: set[tuple[str, str]] = set()
    for term in effects:
        for name in term.column_names:
            if (term.grouping, name) in seen:
                msg = (
                    f"Column {name!r} has two random terms on {term.grouping}, whose variances cannot be told apart. Write "
                    f"(0 + x | {term.grouping}) for a slope beside (1 | {term.grouping})."
                )
                raise DesignError(msg)
            seen.add((term.grouping, name))


def _check_size(term: RandomEffects) -> None:
    m, (n, r) = len(term.levels), term.columns.shape
    if m * r >= n:
        msg = (
            f"Random term {term.text} has {m * r} coefficients for {n} cells, which cannot be told from the residual. It "
            f"needs several cells in each level."
        )
        raise DesignError(msg)


def _check_slopes(term: RandomEffects) -> None:
    sizes = np.bincount(term.codes, minlength=len(term.levels))
    for name, column in zip(term.column_names, term.columns.T, strict=True):
        if name == INTERCEPT:
            continue
        mean = np.bincount(term.codes, weights=column, minlength=sizes.size) / sizes
        spread = np.linalg.norm(column - column.mean())
        if np.linalg.norm(column - mean[term.codes]) <= TOLERANCE * max(spread, TOLERANCE * np.linalg.norm(column)):
            msg = (
                f"Random slope of {name!r} in {term.text}: the column is constant within every level of {term.grouping}, "
                f"so that a level tells no slope. Leave it out of the random term: (1 | {term.grouping})."
            )
            raise DesignError(msg)


def _check_divisions(effects: Sequence[RandomEffects]) -> None:
    """Refuse groupings that are the same division of the cells."""
    of_name = {term.grouping: term for term in effects}
    terms = list(of_name.values())
    for k, term in enumerate(terms):
        for other in terms[:k]:
            pairs = np.unique(term.codes.astype(np.int64) * len(other.levels) + other.codes).size
            if pairs == len(term.levels) == len(other.levels):
                msg = (
                    f"{other.grouping} and {term.grouping} are the same division of the cells, so that their variances "
                    f"cannot be told apart. Keep one of the random terms."
                )
                raise DesignError(msg)


def _check_limits(effects: Sequence[RandomEffects]) -> None:
    parameters = sum(r * (r + 1) // 2 if t.correlated else r for t in effects for r in [len(t.column_names)])
    if parameters > _MOST_PARAMETERS:
        msg = (
            f"The random terms have {parameters} variance parameters, and {_MOST_PARAMETERS} are the most. Drop slopes, or "
            f"their correlations: (1 + x || g)."
        )
        raise DesignError(msg)
    of_name: dict[str, int] = {}
    joined = np.zeros(effects[0].codes.size, dtype=np.int64)
    for term in effects:
        if term.grouping not in of_name:
            joined = np.unique(joined * len(term.levels) + term.codes, return_inverse=True)[1].ravel()
        of_name[term.grouping] = of_name.get(term.grouping, 0) + len(term.levels) * len(term.column_names)
    rest = sum(of_name.values()) - max(of_name.values())
    if rest > _MOST_REST and _crossed(effects):
        msg = (
            f"The groupings beside the largest have {rest} random coefficients together, and {_MOST_REST} are the most "
            f"where groupings cross: time grows with their cube. Make the one with few levels a fixed factor."
        )
        raise DesignError(msg)
    if int(joined.max()) >= _MOST_COMBINATIONS:
        msg = (
            f"The groupings have {int(joined.max()) + 1:,} combinations of levels, and {_MOST_COMBINATIONS:,} are the most. "
            f"Merge levels, or leave a grouping out."
        )
        raise DesignError(msg)


def _crossed(effects: Sequence[RandomEffects]) -> bool:
    """Whether some grouping is not nested in the finest one."""
    finest = max(effects, key=lambda term: len(term.levels))
    return any(
        np.unique(finest.codes.astype(np.int64) * len(t.levels) + t.codes).size > len(finest.levels) for t in effects
    )


def _check_fixed(effects: Sequence[RandomEffects], X: Array) -> None:
    """Refuse a term all of whose columns are combinations of fixed ones."""
    length = np.linalg.norm(X, axis=0)
    U, values, _ = np.linalg.svd(X / np.where(length > 0, length, 1.0), full_matrices=False)
    Q = U[:, values > TOLERANCE * values[0]]
    for term in effects:
        m = len(term.levels)
        left = 0.0
        for column in term.columns.T:
            own = np.bincount(term.codes, weights=column**2, minlength=m)
            on_X = np.stack([np.bincount(term.codes, weights=column * q, minlength=m) for q in Q.T], axis=1)
            left = max(left, float((1 - (on_X**2).sum(axis=1) / np.where(own > 0, own, 1.0))[own > 0].max(initial=0.0)))
        if left <= TOLERANCE:
            msg = (
                f"Fixed effects tell all levels of {term.text} apart, so that nothing is left to estimate its variance "
                f"from. Drop the random term, or the fixed factor."
            )
            raise DesignError(msg)
