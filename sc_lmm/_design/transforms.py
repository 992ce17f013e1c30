"""Functions that a formula may call beyond formulaic's: ``within``, ``between`` (Mundlak 1978), and powers of ten.

``between(x)`` is the mean of x in the cell's group and ``within(x)`` the deviation from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from formulaic.utils.stateful_transforms import stateful_transform

from .._errors import DesignError

if TYPE_CHECKING:
    from collections.abc import Callable


def group_transforms(group: pd.Series) -> dict[str, Callable[..., Any]]:
    """Functions for cells in these groups; formulaic keeps the means by level for new data. A missing group is a new one."""

    @stateful_transform
    def between(x: Any, _state: dict[str, Any]) -> Any:
        column = _numeric(x, "between")
        if "means" not in _state:
            _state["means"] = column.groupby(group.to_numpy(), observed=True).mean()
        # A level without a mean is new: its cells are taken to be its mean.
        return group.map(_state["means"]).astype(float).set_axis(column.index).fillna(column)

    @stateful_transform
    def within(x: Any, _state: dict[str, Any]) -> Any:
        column = _numeric(x, "within")
        return column - between(column, _state=_state)

    # formulaic's own exp10 is the tenth power.
    return {"between": between, "within": within, "exp10": lambda x: np.power(10.0, x)}


def _numeric(x: Any, name: str) -> pd.Series:
    column = pd.Series(x)
    if not pd.api.types.is_numeric_dtype(column.dtype):
        msg = f"{name}() needs a numeric column, not one of dtype {column.dtype}."
        raise DesignError(msg)
    return column
