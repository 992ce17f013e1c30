"""A column of obs -> numbers or levels. Levels keep the values that the user gave them, whatever they are stored as.

A number 7 is the level "7" also where missing values made it a 7.0, and integers are never rounded to floats on the way:
identifiers may be longer than a float is exact.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from natsort import natsorted
from pandas.api import types

from .._errors import DesignError, alternatives, listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_TRUTH = bool | np.bool_


def level_text(value: object) -> str:
    """What a value is called as a level."""
    if isinstance(value, float | np.floating) and np.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)


def is_number(column: pd.Series) -> bool:
    """Whether an annotation is a number and not a factor."""
    is_real = types.is_numeric_dtype(column.dtype) and not types.is_complex_dtype(column.dtype)
    return is_real and not types.is_bool_dtype(column.dtype)


def read_annotation(obs: pd.DataFrame, name: str) -> pd.Series:
    """Find a column by its name, or say which there are."""
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
    return column


def as_value(column: pd.Series) -> pd.Series:
    """Column as a fixed effect: a number, or levels that were categories, strings or truth values."""
    if is_number(column):
        return _finite(column.astype(np.float64))
    if isinstance(column.dtype, pd.CategoricalDtype | pd.StringDtype) or types.is_bool_dtype(column.dtype):
        return as_levels(column)
    if column.dtype == object and all(issubclass(kind, str | _TRUTH) for kind in _kinds(column)):
        return as_levels(column)
    msg = f"Column {column.name!r} of adata.obs has dtype {column.dtype}. Use numbers, strings or categories."
    raise DesignError(msg)


def as_factor(column: pd.Series) -> pd.Series:
    """Column as the argument of C(): numbers are levels, but stay numbers, so that a coding can name them."""
    if not is_number(column):
        return as_value(column)
    codes, values = pd.factorize(column, sort=True)
    numbers = np.asarray(values, dtype=np.float64)
    whole = bool((np.isfinite(numbers) & (numbers == np.floor(numbers))).all())
    return _categorical(column, codes, [int(value) for value in values] if whole else list(values))


def as_levels(column: pd.Series) -> pd.Series:
    """Column as a categorical of texts: categories in their order, numbers by size, anything else in natural order."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.rename_categories(_texts(column.cat.categories, column.name))
    kinds = [issubclass(kind, _TRUTH) for kind in _kinds(column)]
    if any(kinds) and not all(kinds):
        # For Python 1 and True are equal, for a reader they are not.
        msg = f"Column {column.name!r} of adata.obs holds truth values beside others. Make them all strings."
        raise DesignError(msg)
    try:
        codes, values = pd.factorize(column, sort=is_number(column))
    except TypeError as error:
        msg = f"Column {column.name!r} of adata.obs has values that cannot be levels: {error}. Make them strings."
        raise DesignError(msg) from error
    texts = _texts(values, column.name)
    levels = _categorical(column, codes, texts)
    return levels if is_number(column) else levels.cat.reorder_categories(list(natsorted(texts)))


def _kinds(column: pd.Series) -> list[type]:
    """Types of the values of a column of objects, none for any other column."""
    return list(column.dropna().map(type).unique()) if column.dtype == object else []


def _texts(values: Iterable[object], name: object) -> list[str]:
    texts = [level_text(value) for value in values]
    repeated = sorted(text for text, count in Counter(texts).items() if count > 1)
    if repeated:
        msg = f"Column {name!r} of adata.obs has several values that read {listing(repeated)}. Rename them."
        raise DesignError(msg)
    return texts


def _categorical(column: pd.Series, codes: NDArray[np.int64], levels: Sequence[Any]) -> pd.Series:
    values = pd.Categorical.from_codes(codes, categories=pd.Index(levels))
    return pd.Series(values, index=column.index, name=column.name)


def _finite(column: pd.Series) -> pd.Series:
    infinite = int(np.isinf(column.to_numpy()).sum())
    if infinite:
        msg = f"Column {column.name!r} of adata.obs is infinite in {infinite} cells. Set them to NaN to leave these cells out."
        raise DesignError(msg)
    return column
