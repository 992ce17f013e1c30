"""Weights of cells: a column of obs or a transform of one, read as a formula reads it.

A cell of weight w has residual variance sigma^2 / w, as in lme4. Only ratios of weights matter, so they are kept as ones
that are one on average: a cell of average weight counts as one cell, and sigma is the standard deviation of such a cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from formulaic.errors import FormulaicError

from .._errors import DesignError
from .annotations import as_factor, as_value, is_number, read_annotation
from .formula import parse_formula

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .formula import MixedFormula

    Array = NDArray[np.float64]

_EXAMPLE = 'a column of adata.obs or a transform of one, for example weights="np.sqrt(total_counts)"'


def cell_weights(text: str, obs: pd.DataFrame) -> Array:
    """Weights of all cells of `obs`, (n_obs,), NaN where an annotation is missing."""
    if not isinstance(text, str):
        msg = f"weights must be {_EXAMPLE}, not a {type(text).__name__}. Put an array into adata.obs first."
        raise TypeError(msg)
    columns = _columns(text, obs)
    known = np.logical_and.reduce([column.notna().to_numpy() for column in columns.values()])
    weights = np.full(len(obs), np.nan)
    weights[known] = _evaluated(text, {name: column[known] for name, column in columns.items()})
    _check(text, weights[known])
    return weights


def weight_columns(text: str) -> frozenset[str]:
    """Columns of obs that weights are made of."""
    return frozenset(_expression(text).variables)


def relative_weights(weights: Array) -> Array | None:
    """The same, one on average; None if all are equal."""
    return None if np.ptp(weights) == 0 else weights / weights.mean()


def _expression(text: str) -> MixedFormula:
    return parse_formula(f"~ 0 + {text} + (1 | cells)")


def _columns(text: str, obs: pd.DataFrame) -> dict[str, pd.Series]:
    """Columns that the expression names, by what the coded formula calls them."""
    coded, aliases = _expression(text).aliased()
    columns = {}
    for alias, use in aliases.used_in(coded).items():
        column = read_annotation(obs, use.column)
        if not is_number(column):
            msg = f"weights={text!r} needs numbers, and column {use.column!r} holds none. Give {_EXAMPLE}."
            raise DesignError(msg)
        columns[alias] = as_factor(column) if use.as_factor else as_value(column)
    if len(coded) != 1 or not columns:
        msg = f"weights={text!r} is not one column. Give {_EXAMPLE}."
        raise DesignError(msg)
    return columns


def _evaluated(text: str, columns: dict[str, pd.Series]) -> Array:
    coded, _ = _expression(text).aliased()
    data = pd.DataFrame({alias: column.to_numpy() for alias, column in columns.items()})
    try:
        matrix = coded.get_model_matrix(data, na_action="ignore")
    except (FormulaicError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        msg = f"weights={text!r} cannot be evaluated on adata.obs: {error}. Give {_EXAMPLE}."
        raise DesignError(msg) from error
    if matrix.shape[1] != 1:
        msg = f"weights={text!r} is {matrix.shape[1]} columns. Give {_EXAMPLE}."
        raise DesignError(msg)
    return np.asarray(matrix.to_numpy(dtype=np.float64)[:, 0])


def _check(text: str, weights: Array) -> None:
    bad = int((~(np.isfinite(weights) & (weights > 0))).sum())
    if bad:
        msg = (
            f"weights={text!r} is zero, negative or not finite in {bad:,} cells, and weights must be positive numbers. "
            f"Leave these cells out, or set the column to NaN there."
        )
        raise DesignError(msg)
