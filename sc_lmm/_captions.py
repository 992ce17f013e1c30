"""What a comparison and a p-value are called in a figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Wording:
    """The direction of an effect in plain words."""

    up: str  # "higher in COVID"
    down: str  # "lower in COVID"
    contrast: str  # "COVID against Healthy"


def is_number(column: pd.Series) -> bool:
    """Whether an annotation is a number and not a factor."""
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def levels_of(column: pd.Series, first: Iterable[str] = ()) -> list[str]:
    """Levels that occur in an annotation, as text: those in `first` first."""
    found = column.dropna()
    ordered = found.cat.categories if isinstance(found.dtype, pd.CategoricalDtype) else sorted(found.unique())
    present = {str(level) for level in found.unique()}
    levels = [str(level) for level in ordered if str(level) in present]
    return list(dict.fromkeys([*(level for level in first if level in present), *levels]))


def tested_levels(params: Mapping[str, Any], obs: pd.DataFrame) -> list[str]:
    """Levels of the tested factor, the reference first; none if the test does not compare levels with a reference."""
    column = params["groupby"]
    if column not in obs or is_number(obs[column]):
        return []
    levels = levels_of(obs[column], [params["reference"], *params["comparisons"]])
    return levels if params["reference"] in levels else []


def word_comparison(name: str, params: Mapping[str, Any], obs: pd.DataFrame) -> Wording:
    """Say what more and less mean for the comparison `name`."""
    if name in tested_levels(params, obs):
        return Wording(f"higher in {name}", f"lower in {name}", f"{name} against {params['reference']}")
    if params["reference"] == "zero slope":
        return Wording(f"rises with {name}", f"falls with {name}", f"per unit of {name}")
    return Wording(f"{name} above 0", f"{name} below 0", name)


def format_p(log10_p: float) -> str:
    """Write a p-value given in log10, also where it would underflow."""
    if math.isnan(log10_p):
        return "none"
    if log10_p > -3:
        return f"{10**log10_p:.2g}"
    if math.isinf(log10_p):
        return "< 1e-300"
    exponent = math.floor(log10_p)
    mantissa = round(10 ** (log10_p - exponent))
    return f"1e{exponent + 1}" if mantissa == 10 else f"{mantissa}e{exponent}"
