"""The text of a contrast -> a linear combination of conditions. Arithmetic is read; nothing is run.

    cond(diagnosis='AD', sex='F') - cond(diagnosis='control', sex='F')

The language is that of formulaic-contrasts: sums, differences and multiples of conditions, each the row of X of a cell
with these annotations.
"""

from __future__ import annotations

import ast
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import DesignError
from .code import mask
from .tokens import OPAQUE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_HOW = (
    "Add, subtract and scale conditions, for example \"cond(diagnosis='AD') - cond(diagnosis='control')\", with the name "
    "of a column in backticks if it is no plain word."
)
_OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def is_contrast(text: str) -> bool:
    """Whether a text is a contrast and not a term: a condition stands in it, not as a part of a name or of a string."""
    return re.search(r"\bcond\s*\(", OPAQUE.sub("", text)) is not None


def read_contrast(text: str, row: Callable[[dict[str, object]], Array]) -> Combination:
    """Weights of the coefficients, and of the conditions as typed.

    Parameters
    ----------
    text
        The contrast.
    row
        Annotations of a condition -> its row of X, (p,).
    """
    code, names = mask(text)
    try:
        value = _value(ast.parse(code, mode="eval").body, lambda where: _condition(dict(where), names, row))
    except (ArithmeticError, MemoryError, RecursionError, SyntaxError, TypeError) as error:
        reason = str(error)
        for placeholder, name in names.items():
            reason = reason.replace(placeholder, f"`{name}`")
        msg = f"contrast {text!r} cannot be read: {reason}. {_HOW}"
        raise DesignError(msg) from error
    if not isinstance(value, Combination) or not np.isfinite(value.row).all():
        msg = f"contrast {text!r} is not a combination of conditions. {_HOW}"
        raise DesignError(msg)
    return value


@dataclass(frozen=True)
class Combination:
    """Conditions that can be added, subtracted, and multiplied by numbers, but not by each other."""

    row: Array  # (p,) the same of their rows of X
    written: tuple[tuple[float, Mapping[str, object]], ...]  # each condition as typed, with its weight

    def __add__(self, other: object) -> Combination:
        if not isinstance(other, Combination):
            return NotImplemented
        return Combination(self.row + other.row, self.written + other.written)

    def __sub__(self, other: object) -> Combination:
        return self + -other if isinstance(other, Combination) else NotImplemented

    def __mul__(self, number: object) -> Combination:
        if not isinstance(number, float):
            return NotImplemented
        return Combination(self.row * number, tuple((weight * number, where) for weight, where in self.written))

    __rmul__ = __mul__

    def __truediv__(self, number: float) -> Combination:
        return self * (1 / number)

    def __neg__(self) -> Combination:
        return self * -1.0

    def __pos__(self) -> Combination:
        return self


def _condition(
    where: Mapping[str, object], names: Mapping[str, str], row: Callable[[dict[str, object]], Array]
) -> Combination:
    """One condition, its columns called by their names."""
    named = {names.get(name, name): value for name, value in where.items()}
    return Combination(row(named), ((1.0, named),))


def _value(node: ast.expr, condition: Callable[[list[tuple[str, object]]], Combination]) -> float | Combination:
    """Number or combination that a part of the contrast stands for."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left, condition), _value(node.right, condition))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.operand, condition))
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "cond":
        return condition(_annotations(node))
    msg = f"{ast.unparse(node)!r} is neither a condition nor a number"
    raise TypeError(msg)


def _annotations(node: ast.Call) -> list[tuple[str, object]]:
    """Columns and values of a condition."""
    names = [keyword.arg for keyword in node.keywords]
    if node.args or None in names or len(set(names)) < len(names):
        msg = f"{ast.unparse(node)!r} must name each column once, as in cond(diagnosis='AD')"
        raise TypeError(msg)
    return [(str(keyword.arg), _literal(keyword.value)) for keyword in node.keywords]


def _literal(node: ast.expr) -> object:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = None
    if not isinstance(value, bool | int | float | str):
        msg = f"{ast.unparse(node)!r} is neither a string nor a number"
        raise TypeError(msg)
    return value
