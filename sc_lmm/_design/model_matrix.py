"""Formula + cell annotations -> Design: the fixed-effect matrix X, the random grouping Z, and which cells enter.

    y = X beta + Z u + e,   u ~ N(0, sigma_u^2 I),   e ~ N(0, sigma^2 I)

X and Z are the same for every gene, so everything that can be wrong with a model is found here, before the expression
matrix is read. Z is never formed: a random intercept is one level code per cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec
from formulaic.errors import FormulaicError
from natsort import natsorted
from pandas.api import types

from .._errors import DesignError, alternatives, listing
from .columns import Columns, columns_by_level
from .formula import MixedFormula, group_transforms, parse_formula

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True)
class RandomTerm:
    """A random intercept ``(1 | name)``: one level per donor."""

    name: str
    levels: tuple[str, ...]  # (q,)
    codes: NDArray[np.int32]  # (n,) level of each cell

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Cells per level, the diagonal of Z'Z, shape (q,)."""
        return np.bincount(self.codes, minlength=len(self.levels)).astype(np.float64)


@dataclass(frozen=True)
class Coding:
    """How the columns of X were made; holds no cells, so that it can live beside a fit."""

    formula: MixedFormula
    coef_names: tuple[str, ...]  # (p,)
    terms: dict[str, slice]  # fixed-effect term -> its columns of X
    levels: dict[str, tuple[str, ...]]  # factor -> its levels, the reference first
    group: str
    group_levels: tuple[str, ...]  # (q,)
    constant: tuple[float, ...] | None  # (p,) coefficients that give every cell a 1, None if X cannot
    spec: ModelSpec  # formulaic's state: how new data or a contrast is coded the same way

    def factor_of(self, term: str) -> str | None:
        """Name the annotation behind a term that is one categorical column, None for any other term."""
        column = term.strip("`")
        return column if column in self.levels else None

    def without(self, term: str) -> Coding:
        """Coding of the model that lacks one term; the other columns are as they were."""
        gone = self.terms[term]
        width = gone.stop - gone.start
        rest = {name: columns for name, columns in self.terms.items() if name != term}
        written = [name for name in rest if name != "Intercept"]
        fixed = " + ".join(written if "Intercept" in rest else ["0", *written]) or "1"
        kept = [k for k in range(len(self.coef_names)) if not gone.start <= k < gone.stop]
        return replace(
            self,
            formula=parse_formula(f"~ {fixed} + (1 | {self.group})"),
            coef_names=tuple(self.coef_names[k] for k in kept),
            terms={n: slice(s.start - width, s.stop - width) if s.start > gone.start else s for n, s in rest.items()},
            constant=None
            if self.constant is None or any(self.constant[gone])
            else tuple(self.constant[k] for k in kept),
            spec=self.spec.subset(fixed),
        )


@dataclass(frozen=True)
class Design:
    """The model of every gene, for the n cells whose annotations are complete."""

    X: NDArray[np.float64]  # (n, p) fixed-effect columns in the user's units
    coef_names: tuple[str, ...]  # (p,)
    terms: dict[str, slice]  # fixed-effect term -> its columns of X
    random: RandomTerm
    kept: NDArray[np.bool_]  # (n_obs,) cells without missing annotations
    data: pd.DataFrame  # (n, n_columns) the annotations used, factors as categoricals
    formula: MixedFormula
    spec: ModelSpec  # formulaic's state: how new data or a contrast is coded the same way

    @property
    def n_cells(self) -> int:
        """Cells that enter the model, n."""
        return self.X.shape[0]

    @property
    def coding(self) -> Coding:
        """The design without its cells."""
        factors = [c for c in self.formula.variables if isinstance(self.data[c].dtype, pd.CategoricalDtype)]
        levels = {name: tuple(map(str, self.data[name].cat.categories)) for name in factors}
        return Coding(
            formula=self.formula,
            coef_names=self.coef_names,
            terms=self.terms,
            levels=levels,
            group=self.random.name,
            group_levels=self.random.levels,
            constant=self.constant,
            spec=self.spec,
        )

    @cached_property
    def columns(self) -> Columns:
        """The columns of X by level of the grouping."""
        intercept = self.coef_names.index("Intercept") if "Intercept" in self.coef_names else None
        return columns_by_level(self.X, self.random.codes, self.random.sizes, intercept)

    @cached_property
    def constant(self) -> tuple[float, ...] | None:
        """Coefficients that give every cell a 1, (p,), None if the columns of X cannot."""
        if "Intercept" in self.coef_names:
            return tuple(float(name == "Intercept") for name in self.coef_names)
        return self.columns.constant

    def factor_of(self, term: str) -> str | None:
        """Name the annotation behind a term that is one categorical column, None for any other term."""
        return self.coding.factor_of(term)


def build_design(formula: str, obs: pd.DataFrame, *, reference: Mapping[str, str] | None = None) -> Design:
    """Code `formula` on the cells of `obs`.

    Parameters
    ----------
    formula
        lme4's syntax, one random intercept.
    obs
        One row per cell, shape (n_obs, n_annotations).
    reference
        Factor -> the level that the others are compared with, by default its first.
    """
    parsed = parse_formula(formula)
    for factor, level in (reference or {}).items():
        _check_is_factor(factor, level, parsed, obs)
    columns = list(dict.fromkeys([*parsed.variables, parsed.group]))
    data = pd.DataFrame({name: _annotation(obs, name) for name in columns}, index=obs.index)
    kept = data.notna().all(axis=1).to_numpy()
    if not kept.any():
        msg = f"No cell has a value in every column of the model ({listing(columns)}). Fill the gaps or drop a column."
        raise DesignError(msg)
    data = _drop_unused_levels(data[kept], parsed.variables)
    for factor, level in (reference or {}).items():
        data[factor] = _with_reference(data[factor], factor, level)
    random = _random_intercept(data[parsed.group], parsed.group)
    X, names, terms, spec = _fixed_effects(parsed, data)
    return Design(X, names, terms, random, kept, data, parsed, spec)


def _check_is_factor(factor: str, level: str, parsed: MixedFormula, obs: pd.DataFrame) -> None:
    if factor not in parsed.variables:
        msg = (
            f"reference={level!r} needs a factor that is a column of the formula, and {factor!r} is not one of "
            f"{listing(parsed.variables)}."
        )
        raise DesignError(msg)
    if factor in obs and _is_number(obs[factor]):
        msg = f"reference={level!r} needs a factor, and {factor!r} is numeric. Leave reference out."
        raise DesignError(msg)


def _is_number(column: pd.Series) -> bool:
    return types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)


def _annotation(obs: pd.DataFrame, name: str) -> pd.Series:
    """Read a column as a number or as a categorical, with scanpy's convention for strings (natural order)."""
    if name not in obs.columns:
        msg = f"formula names {name!r}, which is not a column of adata.obs. {alternatives(name, obs.columns)}"
        raise DesignError(msg)
    column = obs[name]
    if isinstance(column, pd.DataFrame):
        msg = f"adata.obs has several columns named {name!r}. Rename them."
        raise DesignError(msg)
    if column.isna().all() and len(column):
        msg = f"Column {name!r} of adata.obs has no value in any cell. Drop it from the formula."
        raise DesignError(msg)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return _with_text_levels(column, name)
    if _is_number(column):
        return _finite(column.astype(np.float64), name)
    if types.is_bool_dtype(column.dtype) or column.map(type).isin((str, bool)).loc[column.notna()].all():
        text = column.map(str, na_action="ignore")
        return text.astype(pd.CategoricalDtype(list(natsorted(text.dropna().unique()))))
    msg = f"Column {name!r} of adata.obs has dtype {column.dtype}. Use numbers, strings or categories."
    raise DesignError(msg)


def _with_text_levels(column: pd.Series, name: str) -> pd.Series:
    levels = [str(c) for c in column.cat.categories]
    repeated = sorted({level for level in levels if levels.count(level) > 1})
    if repeated:
        msg = f"Column {name!r} of adata.obs has several categories that read {listing(repeated)}. Rename them."
        raise DesignError(msg)
    return column.cat.rename_categories(levels)


def _finite(column: pd.Series, name: str) -> pd.Series:
    infinite = int(np.isinf(column.to_numpy()).sum())
    if infinite:
        msg = f"Column {name!r} of adata.obs is infinite in {infinite} cells. Set them to NaN to leave these cells out."
        raise DesignError(msg)
    return column


def _drop_unused_levels(data: pd.DataFrame, fixed: list[str]) -> pd.DataFrame:
    data = data.copy()
    for name in data.columns:
        if not isinstance(data[name].dtype, pd.CategoricalDtype):
            continue
        data[name] = data[name].cat.remove_unused_categories()
        levels = data[name].cat.categories
        if name in fixed and len(levels) < 2:
            msg = f"Factor {name!r} has one level, {str(levels[0])!r}, in the cells used. Drop it from the formula."
            raise DesignError(msg)
    return data


def _with_reference(column: pd.Series, factor: str, reference: str) -> pd.Series:
    levels = [str(c) for c in column.cat.categories]
    if str(reference) not in levels:
        msg = f"reference={reference!r} is not a level of {factor!r}. {alternatives(str(reference), levels)}"
        raise DesignError(msg)
    others = [level for level in levels if level != str(reference)]
    return column.cat.reorder_categories([str(reference), *others], ordered=False)


def _fixed_effects(
    parsed: MixedFormula, data: pd.DataFrame
) -> tuple[NDArray[np.float64], tuple[str, ...], dict[str, slice], ModelSpec]:
    try:
        context = group_transforms(data[parsed.group])
        matrix = Formula(parsed.fixed).get_model_matrix(data, context=context, na_action="ignore")
    except FormulaicError as error:
        msg = f"formula {parsed.text!r} cannot be evaluated on adata.obs: {error}"
        raise DesignError(msg) from error
    spec = matrix.model_spec
    X = np.ascontiguousarray(matrix.to_numpy(dtype=np.float64))
    names = tuple(str(name) for name in spec.column_names)
    for name, column in zip(names, X.T, strict=True):
        if not np.isfinite(column).all():
            n_bad = int((~np.isfinite(column)).sum())
            msg = f"Fixed-effect column {name!r} is not finite in {n_bad} cells. Check the transform for these values."
            raise DesignError(msg)
    terms = {_term_name(term): columns for term, columns in spec.term_slices.items()}
    return X, names, terms, spec


def _term_name(term: object) -> str:
    return "Intercept" if str(term) == "1" else str(term)


def _random_intercept(column: pd.Series, name: str) -> RandomTerm:
    if not isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(pd.CategoricalDtype(sorted(column.unique())))
    levels = tuple(str(c).removesuffix(".0") for c in column.cat.categories)
    supported = "A random intercept needs several cells in each of several donors."
    if len(levels) < 2:
        msg = f"Random term (1 | {name}) has one level, {levels[0]!r}. {supported}"
        raise DesignError(msg)
    if len(levels) >= len(column):
        msg = f"Random term (1 | {name}) has as many levels as cells ({len(levels)}). {supported}"
        raise DesignError(msg)
    return RandomTerm(name, levels, np.asarray(column.cat.codes, dtype=np.int32))
