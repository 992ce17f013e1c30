"""How the columns of X were made, so that new conditions can be coded the same way."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from formulaic.errors import FormulaicError
from formulaic.parser.types import Factor

from .._errors import DesignError, alternatives
from .._names import INTERCEPT, quoted
from .aliases import names_in
from .annotations import level_text
from .code import translate
from .formula import MixedFormula, parse_formula, read_column
from .transforms import group_transforms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from formulaic import ModelSpec
    from formulaic.parser.types import Term
    from numpy.typing import NDArray


class Annotation(NamedTuple):
    """A column of obs as the formula uses it."""

    column: str
    categories: pd.Index | None  # the levels of a factor, the reference first; None for a number


@dataclass(frozen=True)
class Coding:
    """How the columns of X were made; holds no cells, so that it can live beside a fit."""

    formula: MixedFormula
    coef_names: tuple[str, ...]  # (p,)
    terms: dict[str, slice]  # fixed-effect term, as a formula writes it -> its columns of X
    group: str
    group_levels: tuple[str, ...]  # (q,)
    constant: tuple[float, ...] | None  # (p,) coefficients that give every cell a 1, None if X cannot
    annotations: dict[str, Annotation]  # what a column is called in `spec` -> the column
    spec: ModelSpec  # formulaic's state
    spec_terms: dict[str, Term]  # term -> the same in `spec`
    groupings: dict[str, tuple[str, ...]] = field(default_factory=dict)  # levels of each; empty for one intercept

    @cached_property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """Factor -> its levels, the reference first; a number is no factor, unless C() is all that it is used in."""
        numbers = {used.column for used in self.annotations.values() if used.categories is None}
        return {
            used.column: tuple(map(level_text, used.categories))
            for used in self.annotations.values()
            if used.categories is not None and used.column not in numbers
        }

    def factor_of(self, term: str) -> str | None:
        """Name the annotation behind a term that is one categorical column, None for any other term."""
        column = read_column(term)
        return column if column in self.levels else None

    def is_categorical(self, term: str) -> bool:
        """Whether a term is made of factors alone, so that its columns are levels and their combinations."""
        kinds = [self.kind_of(factor) for factor in self.spec_terms[term].factors]
        return all(kind is Factor.Kind.CATEGORICAL for kind in kinds)

    def kind_of(self, factor: Factor) -> Factor.Kind | None:
        """What formulaic took a factor of a term for, None for a literal number."""
        kind: Factor.Kind | None = self.spec.encoder_state.get(factor.expr, (None,))[0]
        return kind

    def columns_of(self, term: str) -> set[str]:
        """Columns of obs in a term."""
        found = [name for factor in self.spec_terms[term].factors for name in names_in(factor.expr)]
        return {self.annotations[name].column for name in found if name in self.annotations}

    def is_as_it_is(self, term: str) -> bool:
        """Whether a term is a product of columns as they are and of factors, and no transform of a number."""
        factors = self.spec_terms[term].factors
        return all(f.expr in self.annotations or self.kind_of(f) is Factor.Kind.CATEGORICAL for f in factors)

    def values_of(self, column: str) -> tuple[Any, ...]:
        """What a column may be in a condition, the usual first: its levels, numbers for ``C(number)``, or 0 and 1."""
        factor = self._factor(column)
        return (0.0, 1.0) if factor is None else tuple(factor.tolist())

    def condition(self, where: Mapping[str, object]) -> dict[str, Any]:
        """Check what is said of columns, and give levels as `values_of` does."""
        known: dict[str, Any] = {}
        for name, value in where.items():
            if name not in self.formula.variables:
                found = alternatives(name, self.formula.variables)
                msg = f"cond({name}=...) names a column that is not in the formula. {found}"
                raise DesignError(msg)
            factor = self._factor(name) if name in self.levels else None
            known[name] = _number(name, value) if factor is None else factor.tolist()[_code(name, factor, value)]
        return known

    def row(self, where: Mapping[str, object]) -> NDArray[np.float64]:
        """Row of X (p,) for a condition, see `rows`."""
        return self.rows([self.condition(where)])[0]

    def rows(self, conditions: Sequence[Mapping[str, Any]], terms: Sequence[str] | None = None) -> NDArray[np.float64]:
        """Rows of X (n, p) for n conditions; columns that are not named are at their reference level, or 0 for numbers.

        With `terms`, these terms' columns alone. A row that is not finite is no condition, which is said where it matters.
        """
        usual = {name: self.values_of(name)[0] for name in self.formula.variables}
        values = {name: [where.get(name, usual[name]) for where in conditions] for name in usual}
        used = {alias: a for alias, a in self.annotations.items() if a.column in usual}
        coded = {alias: _coded(a, values[a.column]) for alias, a in used.items()}
        data = pd.DataFrame(coded, index=range(len(conditions)))
        spec = self.spec if terms is None else self.spec.subset([self.spec_terms[term] for term in terms])
        try:
            with np.errstate(all="ignore"):  # log(0)
                context = group_transforms(pd.Series([None] * len(conditions), dtype=object))
                return spec.get_model_matrix(data, context=context).to_numpy(dtype=np.float64)
        except (FormulaicError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            msg = (
                f"{self.formula.text!r} has no value at this condition: {self.restore(str(error))} Name the columns of "
                f"transforms in cond(); those that are not named are at their reference level or 0."
            )
            raise DesignError(msg) from error

    def restore(self, text: str) -> str:
        """Text with the names of columns in place of what they are called in `spec`."""
        aliases = "|".join(self.annotations) or "(?!)"
        return re.sub(rf"\b({aliases})\b", lambda found: quoted(self.annotations[found[0]].column), text)

    def _factor(self, column: str) -> pd.Index | None:
        """Levels of a column that is a factor in some term."""
        levels = (used.categories for used in self.annotations.values() if used.column == column)
        return next((found for found in levels if found is not None), None)

    def check_code(self) -> None:
        """Refuse code that no formula can have held, as in a file that was not written here."""
        for term in self.spec.formula:
            for factor in term.factors:
                translate(factor.expr, lambda column, **_: column)

    def without(self, term: str) -> Coding:
        """Coding of the model that lacks one term; the other columns are as they were."""
        gone = self.terms[term]
        width = gone.stop - gone.start
        rest = {name: columns for name, columns in self.terms.items() if name != term}
        written = [name for name in rest if name != INTERCEPT]
        fixed = " + ".join(written if INTERCEPT in rest else ["0", *written]) or "1"
        kept = [k for k in range(len(self.coef_names)) if not gone.start <= k < gone.stop]
        return replace(
            self,
            formula=parse_formula(f"~ {fixed} + {self.formula.random_text}"),
            coef_names=tuple(self.coef_names[k] for k in kept),
            terms={n: slice(s.start - width, s.stop - width) if s.start > gone.start else s for n, s in rest.items()},
            constant=None
            if self.constant is None or any(self.constant[gone])
            else tuple(self.constant[k] for k in kept),
            spec=self.spec.subset([self.spec_terms[name] for name in rest]),
            spec_terms={name: self.spec_terms[name] for name in rest},
        )


def _number(name: str, value: object) -> float:
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        msg = f"cond({name}={value!r}): {name!r} is numeric. Give a number."
        raise DesignError(msg)
    return float(value)


def _coded(annotation: Annotation, values: Sequence[Any]) -> Any:
    """Values (n,) as the column has them."""
    if annotation.categories is None:
        return values
    codes = [_code(annotation.column, annotation.categories, value) for value in values]
    return pd.Categorical.from_codes(codes, categories=annotation.categories)


def _code(column: str, categories: pd.Index, value: object) -> int:
    """Position of a level, or an error that lists the levels."""
    levels = [level_text(level) for level in categories]
    if level_text(value) not in levels:
        found = alternatives(level_text(value), levels)
        msg = f"cond({column}={value!r}): no cell has this level, so it is not estimable. {found}"
        raise DesignError(msg)
    return levels.index(level_text(value))
