"""The `family` argument -> whether counts are modelled, with what size factors, and what then has no meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import alternatives
from .._read_counts import SizeFactors, size_factors_of

if TYPE_CHECKING:
    import pandas as pd

GAUSSIAN, COUNTS = "gaussian", "nb"


def read_family(
    family: str, obs: pd.DataFrame, *, weights: str | None, size_factors: str | None, offset: str | None
) -> SizeFactors | None:
    """Size factors of a model of counts, None for a model of expression."""
    if family not in (GAUSSIAN, COUNTS):
        msg = f"family={family!r} is unknown. {alternatives(str(family), (GAUSSIAN, COUNTS))}"
        raise ValueError(msg)
    given = {"size_factors": size_factors, "offset": offset}
    if family == COUNTS:
        if weights is not None:
            msg = (
                f"weights={weights!r} has no meaning for family='nb', in which deep cells count for more as they have more "
                f"counts. Leave weights out; size_factors names the depth of the cells."
            )
            raise ValueError(msg)
        return size_factors_of(obs, **given)
    for name, value in given.items():
        if value is not None:
            msg = f"{name}={value!r} is of a model of counts. Type family='nb' with it, or leave it out."
            raise ValueError(msg)
    return None
