"""Formula + cell annotations -> Design: the fixed-effect matrix X, the random grouping Z, and which cells enter.

    y = X beta + Z u + e,   u ~ N(0, sigma_u^2 I),   e ~ N(0, sigma^2 I)

X and Z are the same for every gene, so everything that can be wrong with a model is found here, before the expression
matrix is read. Z is never formed: a random intercept is one level code per cell. Of several random terms or slopes
(:mod:`sc_lmm._design.random`) the first grouping is the one that a design is described by.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from formulaic.errors import FormulaicError
from formulaic.parser.types import Factor

from .._errors import DesignError, alternatives, listing
from .._names import INTERCEPT
from .aliases import names_in
from .annotations import as_factor, as_levels, as_value, is_number, level_text, read_annotation
from .coding import Annotation, Coding
from .columns import Columns, columns_by_level
from .formula import MixedFormula, parse_formula
from .random import RandomEffects, RandomTerm, check_effects, code_effects, random_intercept_of
from .transforms import group_transforms
from .weights import cell_weights, relative_weights, weight_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from formulaic import Formula, ModelMatrix
    from numpy.typing import NDArray

    from .aliases import Aliases, Use


@dataclass(frozen=True)
class Design:
    """The model of every gene, for the n cells whose annotations are complete."""

    X: NDArray[np.float64]  # (n, p) fixed-effect columns in the user's units
    columns: Columns  # the same by level of the grouping
    random: RandomTerm
    kept: NDArray[np.bool_]  # (n_obs,) cells without missing annotations
    coding: Coding
    data: pd.DataFrame  # (n, n_annotations) annotations by what `coding` calls them, factors as categoricals
    effects: tuple[RandomEffects, ...] = ()  # the random terms; empty if `random` is the only one, an intercept
    weighed_by: frozenset[str] = frozenset()  # columns of obs that the weights are made of

    @property
    def n_cells(self) -> int:
        """Cells that enter the model, n."""
        return self.X.shape[0]

    @property
    def formula(self) -> MixedFormula:
        """The formula, taken apart."""
        return self.coding.formula

    @property
    def coef_names(self) -> tuple[str, ...]:
        """Columns of X, (p,)."""
        return self.coding.coef_names

    @property
    def terms(self) -> dict[str, slice]:
        """Fixed-effect term -> its columns of X."""
        return self.coding.terms

    @property
    def constant(self) -> tuple[float, ...] | None:
        """Coefficients that give every cell a 1, (p,), None if the columns of X cannot."""
        return self.coding.constant

    @property
    def obs_columns(self) -> set[str]:
        """Columns of obs that the model names."""
        fixed = {used.column for used in self.coding.annotations.values()} | self.weighed_by
        return fixed | {use.column for use in self.formula.random_uses} | set(self.formula.group_columns)

    def regrouped(self, random: RandomTerm) -> Design:
        """The same cells and columns under another grouping."""
        return replace(self, columns=_by_level(self.X, self.coef_names, random), random=random)

    def codes_of(self, factor: str) -> NDArray[np.int64]:
        """Level of each cell in an annotation that is a factor, (n,)."""
        found = (
            a for a, used in self.coding.annotations.items() if used.column == factor and used.categories is not None
        )
        return self.data[next(found)].cat.codes.to_numpy().astype(np.int64)

    def factor_of(self, term: str) -> str | None:
        """Name the annotation behind a term that is one categorical column, None for any other term."""
        return self.coding.factor_of(term)

    def number_of(self, column: str | None) -> NDArray[np.float64] | None:
        """Values of a column (n,) that the formula uses as a number, None if it is used otherwise or not."""
        aliases = [
            a for a, used in self.coding.annotations.items() if used.column == column and used.categories is None
        ]
        return self.data[aliases[0]].to_numpy(dtype=np.float64) if aliases else None

    def levels_of(self, column: str) -> pd.Series:
        """Levels (n,) of a column that the formula uses as a factor."""
        used = self.coding.annotations.items()
        return self.data[next(a for a, u in used if u.column == column and u.categories is not None)]

    def categoricals(self, term: str) -> list[pd.Series | None]:
        """Levels (n,) of each factor of a term, None for one that is not made of one categorical column."""
        return [self._categorical(factor) for factor in self.coding.spec_terms[term].factors]

    def _categorical(self, factor: Factor) -> pd.Series | None:
        used = [name for name in names_in(factor.expr) if name in self.data]
        if self.coding.kind_of(factor) is not Factor.Kind.CATEGORICAL or len(used) != 1:
            return None
        return self.data[used[0]] if self.coding.annotations[used[0]].categories is not None else None


def build_design(
    formula: str, obs: pd.DataFrame, *, reference: Mapping[str, str] | None = None, weights: str | None = None
) -> Design:
    """Code `formula` on the cells of `obs`.

    Parameters
    ----------
    formula
        lme4's syntax.
    obs
        One row per cell, shape (n_obs, n_annotations).
    reference
        Factor -> the level that the others are compared with, by default its first.
    weights
        Column of `obs`, or a transform of one as a formula writes it, with a weight for each cell.
    """
    parsed = parse_formula(formula)
    for factor, level in (reference or {}).items():
        _check_is_factor(factor, level, parsed, obs)
    found = {use: _annotation(obs, use) for use in dict.fromkeys((*parsed.uses, *parsed.random_uses))}
    groups = {name: as_levels(read_annotation(obs, name)) for name in parsed.group_columns}
    weighed = None if weights is None else cell_weights(weights, obs)
    kept = np.logical_and.reduce([column.notna().to_numpy() for column in (*found.values(), *groups.values())])
    kept &= True if weighed is None else ~np.isnan(weighed)
    if not kept.any():
        names = [*(use.column for use in found), *groups, *(weight_columns(weights) if weights else ())]
        columns = listing(dict.fromkeys(names))
        msg = f"No cell has a value in every column of the model ({columns}). Fill the gaps or drop a column."
        raise DesignError(msg)
    used = {use: _of_cells(column, kept) for use, column in found.items()}
    for use, column in used.items():
        _check_levels(use.column, column)
    for factor, level in (reference or {}).items():
        used |= {use: _with_reference(column, level) for use, column in used.items() if use.column == factor}
    groups = {name: _of_cells(column, kept) for name, column in groups.items()}
    primary = next(spec for spec in parsed.random if spec.grouping == parsed.group)
    random = random_intercept_of(primary, groups)
    random = random if weighed is None else replace(random, weights=relative_weights(weighed[kept]))
    design = _coded(parsed, {use: used[use] for use in parsed.uses}, random, kept)
    design = design if weights is None else replace(design, weighed_by=weight_columns(weights))
    return _with_effects(design, used, groups)


def _with_effects(design: Design, used: Mapping[Use, pd.Series], groups: Mapping[str, pd.Series]) -> Design:
    """Add what there is beside one random intercept."""

    def evaluate(parsed: MixedFormula, formula: Formula, aliases: Aliases, data: pd.DataFrame) -> ModelMatrix:
        return _matrix(parsed, formula, aliases, data, design.random)

    effects = code_effects(design.formula, used, groups, evaluate)
    if not effects:
        return design
    check_effects(effects, design.X)
    levels = {term.grouping: term.levels for term in effects}
    return replace(design, effects=effects, coding=replace(design.coding, groupings=levels))


def _check_is_factor(factor: str, level: object, parsed: MixedFormula, obs: pd.DataFrame) -> None:
    if factor not in parsed.variables:
        msg = (
            f"reference={level!r} needs a factor that is a column of the formula, and {factor!r} is not one of "
            f"{listing(parsed.variables)}."
        )
        raise DesignError(msg)
    if factor in obs and is_number(obs[factor]):
        msg = f"reference={level!r} needs a factor, and {factor!r} is numeric. Leave reference out."
        raise DesignError(msg)


def _annotation(obs: pd.DataFrame, use: Use) -> pd.Series:
    column = read_annotation(obs, use.column)
    return as_factor(column) if use.as_factor else as_value(column)


def _of_cells(column: pd.Series, kept: NDArray[np.bool_]) -> pd.Series:
    """Values of the cells used, and no level that none of them has."""
    values = column[kept].reset_index(drop=True)
    return values.cat.remove_unused_categories() if _is_categorical(values) else values


def _is_categorical(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.CategoricalDtype)


def _check_levels(name: str, column: pd.Series) -> None:
    levels = [level_text(level) for level in column.cat.categories] if _is_categorical(column) else []
    if len(levels) == 1:
        msg = f"Factor {name!r} has one level, {levels[0]!r}, in the cells used. Drop it from the formula."
        raise DesignError(msg)
    hidden = [level for level in levels if level.startswith("__")]
    if hidden:  # formulaic takes these for notes of its own and makes no column of them
        msg = f"Factor {name!r} has levels that begin with two underscores: {listing(hidden)}. Rename them."
        raise DesignError(msg)


def _with_reference(column: pd.Series, reference: object) -> pd.Series:
    levels, wanted = list(column.cat.categories), level_text(reference)
    if wanted not in levels:
        msg = f"reference={reference!r} is not a level of {str(column.name)!r}. {alternatives(wanted, levels)}"
        raise DesignError(msg)
    others = [level for level in levels if level != wanted]
    return column.cat.reorder_categories([wanted, *others], ordered=False)


def _coded(parsed: MixedFormula, used: Mapping[Use, pd.Series], random: RandomTerm, kept: NDArray[np.bool_]) -> Design:
    """Code the columns of X with formulaic, and give everything the name that the formula gives it."""
    levels = {use: column.cat.categories if _is_categorical(column) else None for use, column in used.items()}
    formula, aliases = parsed.aliased(
        avoid=[str(level) for found in levels.values() if found is not None for level in found]
    )
    called = aliases.used_in(formula)
    data = pd.DataFrame({alias: used[use] for alias, use in called.items()}, index=range(int(kept.sum())))
    matrix = _matrix(parsed, formula, aliases, data, random)
    spec = matrix.model_spec
    names = tuple(aliases.restore(str(name)) for name in spec.column_names)
    X = np.ascontiguousarray(matrix.to_numpy(dtype=np.float64))
    _check_columns(X, names)
    columns = _by_level(X, names, random)
    terms = {aliases.term_text(term) if str(term) != "1" else INTERCEPT: term for term in spec.term_slices}
    coding = Coding(
        formula=parsed,
        coef_names=names,
        terms={name: spec.term_slices[term] for name, term in terms.items()},
        group=random.name,
        group_levels=random.levels,
        constant=_constant(columns, names),
        annotations={alias: Annotation(use.column, levels[use]) for alias, use in called.items()},
        spec=spec,
        spec_terms=terms,
    )
    return Design(X, columns, random, kept, coding, data)


def _matrix(
    parsed: MixedFormula, formula: Formula, aliases: Aliases, data: pd.DataFrame, random: RandomTerm
) -> ModelMatrix:
    group = pd.Series(pd.Categorical.from_codes(random.codes, pd.Index(random.levels)))
    try:
        return formula.get_model_matrix(data, context=group_transforms(group), na_action="ignore")
    except (FormulaicError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        msg = f"formula {parsed.text!r} cannot be evaluated on adata.obs: {aliases.restore(str(error))}"
        raise DesignError(msg) from error


def _check_columns(X: NDArray[np.float64], names: Sequence[str]) -> None:
    if not names:
        msg = "The formula has no fixed effect, not even an intercept. Leave out '0 +' or '- 1', or add a covariate."
        raise DesignError(msg)
    for name, column in zip(names, X.T, strict=True):
        if not np.isfinite(column).all():
            n_bad = int((~np.isfinite(column)).sum())
            msg = f"Fixed-effect column {name!r} is not finite in {n_bad} cells. Check the transform for these values."
            raise DesignError(msg)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        msg = f"Several coefficients would be called {listing(repeated)}. Rename the level or the column."
        raise DesignError(msg)


def _by_level(X: NDArray[np.float64], names: Sequence[str], random: RandomTerm) -> Columns:
    intercept = names.index(INTERCEPT) if INTERCEPT in names else None
    return columns_by_level(X, random.codes, random.sizes, intercept, random.weights)


def _constant(columns: Columns, names: Sequence[str]) -> tuple[float, ...] | None:
    """Coefficients that give every cell a 1, (p,), None if the columns of X cannot."""
    return tuple(float(name == INTERCEPT) for name in names) if INTERCEPT in names else columns.constant
