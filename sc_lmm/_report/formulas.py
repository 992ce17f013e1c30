"""A design's formula with something changed: what a report tells to type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._design import Coding


def formula_with(
    coding: Coding,
    *,
    drop: Sequence[str] = (),
    replace: Mapping[str, str] | None = None,
    first: str = "",
    group: str = "",
) -> str:
    """Write the formula without terms (and what contains them), with terms replaced, one put first, or regrouped."""
    new = dict(replace or {})
    out = {"Intercept", *drop}
    kept = [new.get(name, name) for name in coding.terms if not out & {name, *name.split(":")}]
    fixed = [*([] if "Intercept" in coding.terms else ["0"]), *([quoted(first)] if first else []), *kept]
    return f"~ {' + '.join(fixed) or '1'} + (1 | {group or coding.group})"


def blocked_formula(coding: Coding, block: str, constant: Sequence[str], group: str) -> str:
    """Write the formula with `block` as a fixed factor, which takes the place of the terms that are `constant` within it.

    Where one of these takes part in an interaction that is not, the block would change what the interaction means, and
    is left out.
    """
    kept = [name for name in coding.terms if name not in constant]
    if block in coding.terms or any(set(name.split(":")) & set(constant) for name in kept):
        return formula_with(coding, group=group)
    return formula_with(coding, drop=constant, first=block, group=group)


def quoted(name: str) -> str:
    """Write a column's name as a formula takes it."""
    return name if re.fullmatch(r"[^\W\d]\w*", name) else f"`{name}`"


def unquoted(name: str) -> str:
    """Name of the column that a formula's factor is, if it is one."""
    return name.strip("`")
