"""The text of a mixed-model formula -> its fixed part (formulaic's syntax) and its random terms (lme4's).

    gene_expression ~ sequencing_saturation + diagnosis + (1 | sample_id)

The response is always the expression matrix, so the left-hand side is optional and not interpreted. A random term is
a parenthesis with a bar, ``(effects | group)`` as in Bates et al. 2015 (section 2.1); what is left is the fixed part.
In it ``between(x)`` is the mean of x in the cell's group and ``within(x)`` the deviation from that (Mundlak 1978).
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from formulaic import Formula
from formulaic.errors import FormulaicError
from formulaic.parser.types import Factor
from formulaic.transforms import TRANSFORMS
from formulaic.utils.stateful_transforms import stateful_transform

from .._errors import DesignError

if TYPE_CHECKING:
    from collections.abc import Callable

_EXAMPLE = '"~ sequencing_saturation + diagnosis + (1 | sample_id)"'


@dataclass(frozen=True)
class MixedFormula:
    """A formula taken apart."""

    text: str  # as typed
    fixed: str  # right-hand side without the random terms, e.g. "sequencing_saturation + diagnosis"
    group: str  # the obs column of the random intercept, e.g. "sample_id"

    @property
    def variables(self) -> list[str]:
        """Names that the fixed part looks up, in the order of the formula."""
        factors = [f for term in Formula(self.fixed) for f in term.factors]
        return list(dict.fromkeys(name for factor in factors for name in _names(factor)))


def parse_formula(text: str) -> MixedFormula:
    """Split `text` into its fixed part and its random intercept, or say what cannot be read."""
    if not isinstance(text, str):
        msg = f"formula must be a string such as {_EXAMPLE}, not {type(text).__name__}."
        raise TypeError(msg)
    right = _right_hand_side(text)
    terms, fixed = _split_random_terms(right, text)
    _check_fixed(fixed, text)
    return MixedFormula(text=text, fixed=fixed, group=_random_intercept(terms, text))


def group_transforms(group: pd.Series) -> dict[str, Callable[..., Any]]:
    """``within`` and ``between`` for cells in these groups; formulaic keeps the means by level for new data."""

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

    return {"between": between, "within": within}


def _numeric(x: Any, name: str) -> pd.Series:
    column = pd.Series(x)
    if not pd.api.types.is_numeric_dtype(column.dtype):
        msg = f"{name}() needs a numeric column, not one of dtype {column.dtype}."
        raise DesignError(msg)
    return column


def _right_hand_side(text: str) -> str:
    parts = text.split("~")
    if len(parts) > 2 or not parts[-1].strip():
        msg = f"formula {text!r} must have one '~' with terms to its right, for example {_EXAMPLE}."
        raise DesignError(msg)
    return parts[-1].strip()


def _split_random_terms(right: str, text: str) -> tuple[list[str], str]:
    """Cut every top-level parenthesis that holds a bar, with the operator before it, out of the right-hand side."""
    terms: list[str] = []
    kept, depth, start = "", 0, 0
    for position, character in enumerate(right):
        depth += (character == "(") - (character == ")")
        if character == "(" and depth == 1:
            start = position
        if depth == 0 and character == ")" and "|" in right[start:position]:
            terms.append(right[start + 1 : position])
        elif depth == 0:
            kept += right[start : position + 1] if character == ")" else character
        if depth < 0:
            break
    if depth != 0:
        msg = f"formula {text!r} has parentheses that do not match."
        raise DesignError(msg)
    if "|" in kept:
        msg = f"formula {text!r} has a '|' outside parentheses. Write a random term as (1 | sample_id)."
        raise DesignError(msg)
    return terms, _join(kept, text)


def _join(kept: str, text: str) -> str:
    """Close the gaps that the removed terms left between operators ("a + + b" -> "a + b")."""
    pieces = [piece.strip() for piece in kept.split("+")]
    if re.search(r"-\s*(\+|$)", kept):
        msg = f"formula {text!r} subtracts a random term or nothing. Join terms with '+', for example {_EXAMPLE}."
        raise DesignError(msg)
    return " + ".join(piece for piece in pieces if piece) or "1"


def _random_intercept(terms: list[str], text: str) -> str:
    supported = "Supported: one random intercept, (1 | column)."
    if not terms:
        msg = f"formula {text!r} has no random term. Add the donor or sample of each cell, for example (1 | sample_id)."
        raise DesignError(msg)
    if len(terms) > 1:
        msg = f"formula {text!r} has {len(terms)} random terms. {supported}"
        raise DesignError(msg)
    effects, *groups = terms[0].split("|")
    if len(groups) != 1:
        msg = f"random term ({terms[0]}) has {len(groups)} bars. {supported}"
        raise DesignError(msg)
    group = groups[0].strip().strip("`")
    if effects.strip() != "1":
        msg = f"random term ({terms[0]}) has effects {effects.strip()!r} other than the intercept. {supported}"
        raise DesignError(msg)
    if not re.fullmatch(r"[^:/*+()~]+", group):
        msg = f"random term ({terms[0]}) must name one column of adata.obs to the right of its bar. {supported}"
        raise DesignError(msg)
    return group


def _check_fixed(fixed: str, text: str) -> None:
    try:
        Formula(fixed)
    except (FormulaicError, SyntaxError, TypeError) as error:
        reason = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()[0]
        msg = f"formula {text!r} cannot be read: {reason} Fixed effects follow formulaic's grammar, e.g. {_EXAMPLE}."
        raise DesignError(msg) from error


def _names(factor: Factor) -> list[str]:
    if factor.eval_method is Factor.EvalMethod.LITERAL:
        return []
    if factor.eval_method is Factor.EvalMethod.LOOKUP:
        return [factor.expr]
    quoted = re.findall(r"`([^`]+)`", factor.expr)
    tree = ast.parse(re.sub(r"`[^`]+`", "None", factor.expr), mode="eval")
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name)]
    return quoted + [name for name in names if name not in called and name not in TRANSFORMS]
