"""The `reference` argument -> the factor whose level it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from .._design import parse_formula
from .._errors import DesignError, listing

if TYPE_CHECKING:
    from .._design import TestSpec


def reference_levels(
    reference: str | Mapping[str, str] | None, formula: str, obs: pd.DataFrame, test: TestSpec | None = None
) -> dict[str, str]:
    """Find the factor of a level that is given by itself: the tested one, else the only one that has it."""
    if reference is None or isinstance(reference, Mapping):
        return dict(reference or {})
    columns = parse_formula(formula).variables
    tested = test.strip().strip("`") if isinstance(test, str) else ""
    if tested in columns:
        return {tested: reference}
    found = [name for name in columns if name in obs and _has_level(obs[name], str(reference))]
    if len(found) == 1:
        return {found[0]: reference}
    what = f"is a level of {listing(found)}" if found else f"is not a level of any factor of {formula!r}"
    msg = f"reference={reference!r} {what}. Give a dict from the factor to its level, for example {_example(found or columns, reference)}."
    raise DesignError(msg)


def _has_level(column: pd.Series | pd.DataFrame, level: str) -> bool:
    if isinstance(column, pd.DataFrame):  # several columns of this name, which is an error of its own
        return False
    is_number = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    return not is_number and level in {str(value) for value in column.dropna().unique()}


def _example(columns: list[str], reference: object) -> str:
    return f"reference={{{columns[0] if columns else 'diagnosis'!r}: {str(reference)!r}}}"
