"""Small words of the design report: counts, lists of names, and the formula with a term changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .._design import read_term
from .._names import random_intercept

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .anatomy import Anatomy

_UNITS = {
    "batch": "batches",
    "library": "libraries",
    "mouse": "mice",
    "person": "persons",
    **{
        name: f"{name}s"
        for name in ("sample", "donor", "patient", "subject", "individual", "participant", "animal", "specimen", "pool")
    },
}


def unit(group: str, n: int | None = None) -> str:
    """Name the levels of a grouping, counted if `n` is given: "24 samples" of sample_id, "3 levels of x" of x."""
    core = re.sub(r"[\W_]*(id|ID|Id)$", "", group).lower()
    plural = _UNITS.get(core, f"levels of {group}")
    if n is None:
        return plural
    return f"{n:,} {plural}" if n != 1 else f"1 {core if core in _UNITS else f'level of {group}'}"


def one(group: str) -> str:
    """Name one level of a grouping: "sample"."""
    return unit(group, 1).removeprefix("1 ")


def named(names: Sequence[str]) -> str:
    """Join names: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def formula_with(
    a: Anatomy,
    *,
    drop: Sequence[str] = (),
    replace: Mapping[str, str] | None = None,
    first: str = "",
    group: str = "",
) -> str:
    """Write the formula without terms (and what contains them), with terms replaced, one put first, or regrouped."""
    new = dict(replace or {})
    out = {"Intercept", *drop}
    kept = [new.get(name, name) for name in a.design.terms if not out & {name, *read_term(name)}]
    fixed = [*([] if "Intercept" in a.design.terms else ["0"]), *([first] if first else []), *kept]
    return f"~ {' + '.join(fixed) or '1'} + {random_intercept(group or a.group)}"
