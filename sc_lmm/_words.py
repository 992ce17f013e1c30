"""Small words of reports, figures and messages: what the levels of a grouping are called, counts, lists of names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def counted(n: int, noun: str) -> str:
    """Count a regular noun: "1 gene", "2,000 genes"."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
