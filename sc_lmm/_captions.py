"""What a comparison and a p-value are called in a figure, and what has to stand beside each other in one.

All of it follows the conditions that the run compared, which it has stored, so that the cells, the order, the words and
the p-value of a figure are those of the test.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ._design import Comparison, level_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_SQUARE = (1.0, -1.0, -1.0, 1.0)  # weights of a difference of differences


@dataclass(frozen=True)
class Wording:
    """The direction of an effect in plain words."""

    up: str  # "higher in COVID"
    down: str  # "lower in COVID"
    contrast: str  # "COVID against Healthy"


@dataclass(frozen=True)
class Axis:
    """What a figure shows side by side, or along a number."""

    conditions: tuple[dict[str, Any], ...]  # column -> level, what is subtracted first; one for a number
    labels: tuple[str, ...]  # of the conditions; () for a number
    number: str = ""  # the column
    step: float = 1.0  # difference of the number that the coefficient is of
    place: str = ""  # " in B cell" if all conditions have this in common
    note: str = ""  # why the p-value is not of what is shown; "" if it is


def is_number(column: pd.Series) -> bool:
    """Whether an annotation is a number and not a factor."""
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def levels_of(column: pd.Series, first: Iterable[str] = ()) -> list[str]:
    """Levels that occur in an annotation, as text: those in `first` first."""
    found = column.dropna()
    ordered = found.cat.categories if isinstance(found.dtype, pd.CategoricalDtype) else sorted(found.unique())
    present = {level_text(level) for level in found.unique()}
    levels = [level_text(level) for level in ordered if level_text(level) in present]
    return list(dict.fromkeys([*(level for level in first if level in present), *levels]))


def pack_comparisons(comparisons: Mapping[str, Comparison], columns: Iterable[str], factors: Collection[str]) -> str:
    """Write what a run compared as one string, which any file can hold: levels of factors as text, numbers as they are.

    Parameters
    ----------
    comparisons
        By name.
    columns
        Those of obs in which the cells of the run have values.
    factors
        Those of obs that are factors, among them numbers that are codes.
    """

    def plain(where: Mapping[str, Any]) -> dict[str, str | float]:
        return {
            name: level_text(value) if name in factors or isinstance(value, str) else float(value)
            for name, value in where.items()
        }

    parts = {
        name: {
            "conditions": [plain(where) for where in found.conditions],
            "weights": list(found.weights),
            "at": plain(found.at),
            "unnamed": list(found.unnamed),
        }
        for name, found in comparisons.items()
    }
    return json.dumps({"columns": list(columns), "comparisons": parts})


def _stored(params: Mapping[str, Any]) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(str(params.get("compared", "{}")))
    return stored


def model_columns(params: Mapping[str, Any]) -> list[str]:
    """Columns of obs in which the cells of the model have values."""
    return list(_stored(params).get("columns", [params["group"]]))


def comparison_of(params: Mapping[str, Any], name: str) -> Comparison:
    """What the run compared under this name."""
    found = _stored(params).get("comparisons", {}).get(name, {})
    return Comparison(
        tuple(found.get("conditions", ())),
        tuple(found.get("weights", ())),
        found.get("at", {}),
        tuple(found.get("unnamed", ())),
    )


def axis_of(params: Mapping[str, Any], name: str) -> Axis | None:
    """What to show of a comparison; None where no conditions stand for it."""
    return _axis(comparison_of(params, name))


def _axis(found: Comparison) -> Axis | None:
    if not found.conditions:
        return None
    differing = _differing(found)
    numbers = [column for column in differing if isinstance(found.conditions[0][column], float)]
    if numbers and (len(differing) > 1 or len(found.conditions) > 2):
        return None
    common = {column: value for column, value in found.conditions[0].items() if column not in differing}
    factors = tuple({c: v for c, v in where.items() if not isinstance(v, float)} for where in found.conditions)
    note = _note(found, common)
    if numbers:
        (low, high) = (float(where[numbers[0]]) for where in found.conditions)
        return Axis(factors[:1], (), numbers[0], high - low, _place(common), note)
    labels = [", ".join(str(where[column]) for column in differing) or "all" for where in factors]
    return Axis(factors, tuple(labels), place=_place(common), note=note)


def _differing(found: Comparison) -> list[str]:
    first = found.conditions[0]
    return [column for column in first if any(where[column] != first[column] for where in found.conditions)]


def _note(found: Comparison, common: Mapping[str, Any]) -> str:
    if any(isinstance(value, float) for value in common.values()):
        return "which the points do not show"  # after the place
    if not found.weights or (len(found.weights) == 2 and sum(found.weights) == 0):
        return ""
    if found.weights == _SQUARE:
        return "the test is of the difference between the two differences"
    return f"the test weighs these {', '.join(f'{weight:+.3g}' for weight in found.weights)}"


def _place(common: Mapping[str, Any]) -> str:
    """Say where all conditions are, with a blank before it."""
    levels = [_level(column, str(value)) for column, value in common.items() if not isinstance(value, float)]
    numbers = [f"{column} = {value:g}" for column, value in common.items() if isinstance(value, float)]
    return "".join(f" {word} {', '.join(said)}" for word, said in (("in", levels), ("at", numbers)) if said)


def _level(column: str, level: str) -> str:
    """Name a level, with its column where the level alone says nothing."""
    return level if any(map(str.isalpha, level)) and level not in ("True", "False") else f"{column} {level}"


def family(params: Mapping[str, Any], name: str) -> tuple[Axis, dict[str, str]] | None:
    """All levels that the run compared with the reference of this comparison: side by side, and label -> comparison.

    None if the comparison is none of levels with a reference.
    """
    wanted = comparison_of(params, name)
    if not wanted.conditions or axis_of(params, name) is None:
        return None
    first = wanted.conditions[0]
    found = {c: comparison_of(params, c) for c in params["comparisons"]}
    pairs = {c: one for c, one in found.items() if one.weights == (-1.0, 1.0) and one.conditions[0] == first}
    conditions = (first, *(one.conditions[1] for one in pairs.values()))
    shown = _axis(Comparison(conditions, at=wanted.at))
    if shown is None or not shown.labels or not pairs or (wanted.weights and name not in pairs):
        return None
    return shown, dict(zip(shown.labels[1:], pairs, strict=True))


def word_comparison(name: str, params: Mapping[str, Any]) -> Wording:
    """Say what more and less mean for the comparison `name`."""
    found, axis = comparison_of(params, name), axis_of(params, name)
    if axis is not None and axis.number and len(found.weights) == 2:
        what = f"per unit of {axis.number}" if axis.step == 1 else f"per {axis.step:g} of {axis.number}"
        return Wording(f"rises with {axis.number}", f"falls with {axis.number}", what + axis.place)
    if axis is not None and len(axis.labels) == 2 and len(found.weights) == 2 and sum(found.weights) == 0:
        reference, level = axis.labels
        return Wording(f"higher in {level}", f"lower in {level}", f"{level} against {reference}{axis.place}")
    if axis is not None and found.weights == _SQUARE:
        return _word_interaction(found, axis)
    return Wording(f"{name} above 0", f"{name} below 0", name)


def _word_interaction(found: Comparison, axis: Axis) -> Wording:
    first, second = _differing(found)
    low, high = (found.conditions[k][first] for k in (0, 3))
    here, there = (found.conditions[k][second] for k in (3, 0))
    what = f"{high} against {low}"
    return Wording(
        f"{what}: more in {here} than in {there}",
        f"{what}: less in {here} than in {there}",
        f"{what} in {here}, less the same in {there}{axis.place}",
    )


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
