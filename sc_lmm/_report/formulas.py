"""A design's formula with something changed: what a report tells to type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._design import read_term
from .._names import quoted, random_intercept

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
    random: str = "",
) -> str:
    """Write the formula without terms (and what contains them), with terms replaced, one put first, or regrouped.

    `group` takes the place of all groupings, `random` that of all random terms.
    """
    new = dict(replace or {})
    out = {"Intercept", *drop}
    kept = [new.get(name, name) for name in coding.terms if not out & {name, *read_term(name)}]
    fixed = [*([] if "Intercept" in coding.terms else ["0"]), *([quoted(first)] if first else []), *kept]
    return f"~ {' + '.join(fixed) or '1'} + {random or _random(coding, group)}"


def _random(coding: Coding, group: str) -> str:
    return coding.formula.random_text if group in ("", coding.group) else random_intercept(group)


def blocked_formula(coding: Coding, block: str, constant: Sequence[str], group: str) -> str:
    """Write the formula with `block` as a fixed factor, which takes the place of the terms that are `constant` within it.

    Where one of these takes part in an interaction that is not, the block would change what the interaction means, and
    is left out.
    """
    kept = [name for name in coding.terms if name not in constant]
    if quoted(block) in coding.terms or any(set(read_term(name)) & set(constant) for name in kept):
        return formula_with(coding, group=group)
    return formula_with(coding, drop=constant, first=block, group=group)


def sloped_formula(coding: Coding, effects: str, group: str) -> str:
    """Write the formula with random effects beside, or in place of, the intercept of a grouping."""
    kept = [str(spec) for spec in coding.formula.random if not (spec.is_intercept and spec.grouping == group)]
    return formula_with(coding, random=" + ".join([*kept, effects]))
