"""Columns of a design matrix -> those that are linear combinations of earlier ones, with the combination.

Columns are taken in the formula's order and the later one of a relation is called aliased, as R's ``lm`` does. The
search runs on the p x p triangular factor of the standardised columns, so cells enter once, in one QR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._design import TOLERANCE, unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Alias:
    """One column that others determine: ``column = sum(coefficients * columns)``."""

    index: int  # position of the aliased column
    column: str
    others: tuple[str, ...]  # the columns that determine it, empty for a column of zeros
    coefficients: tuple[float, ...]

    def __str__(self) -> str:
        """Write the relation as an equation, e.g. ``batch[T.b2] = Intercept - diagnosis[T.AD]``."""
        text = "".join(_signed(c, name) for c, name in zip(self.coefficients, self.others, strict=True)) or " + 0"
        return f"{self.column} = {text.removeprefix(' + ').removeprefix(' ')}"


def find_aliases(X: Array, names: Sequence[str], ones: Array | None = None, *, intercept: bool = True) -> list[Alias]:
    """Columns of `X` (n, p) that earlier columns determine, each with its exact relation.

    Where the rows of X are not cells but have the same cross-products, `ones` (n,) is what a column of ones is in them.
    Without an intercept among them, columns are told apart with their means.
    """
    length = _length(X)
    ones = np.ones(len(X)) if ones is None else ones
    R = np.asarray(np.linalg.qr(np.column_stack([ones, X / length]), mode="r"))
    spread, R = np.linalg.norm(R[1:, 1:], axis=0), R[:, 1:]
    measure = unit(spread, np.linalg.norm(R, axis=0), intercept=intercept)
    adds = np.where(spread > TOLERANCE * measure, measure, 1.0)  # the column of a constant adds its length
    independent: list[int] = []
    aliases: list[Alias] = []
    for j in range(X.shape[1]):
        solution = np.asarray(np.linalg.lstsq(R[:, independent], R[:, j], rcond=None)[0], dtype=np.float64)
        left = R[:, j] - R[:, independent] @ solution
        if np.linalg.norm(left) > TOLERANCE * measure[j]:
            independent.append(j)
        else:
            # A coefficient is rounding if what it adds is, beside the spread of the column that it explains.
            real = (np.abs(solution) * adds[independent] > 1e-6 * measure[j]) & (np.abs(solution) > 1e-9)
            used = np.flatnonzero(real)
            aliases.append(_relation(j, [independent[k] for k in used], solution[used], length, names))
    return aliases


def _length(X: Array) -> Array:
    """Length of each column, in units in which no square is too large; 1 for a column of zeros."""
    largest = np.abs(X).max(axis=0)
    largest[largest == 0] = 1.0
    length = np.linalg.norm(X / largest, axis=0)
    return largest * np.where(length > 0, length, 1.0)


def _relation(j: int, used: list[int], solution: Array, scale: Array, names: Sequence[str]) -> Alias:
    return Alias(
        index=j,
        column=names[j],
        others=tuple(names[k] for k in used),
        coefficients=tuple(float(c * scale[j] / scale[k]) for k, c in zip(used, solution, strict=True)),
    )


def _signed(coefficient: float, name: str) -> str:
    size = f"{abs(coefficient):.6g}"
    product = size if name == "Intercept" else name if size == "1" else f"{size} * {name}"
    return f" {'-' if coefficient < 0 else '+'} {product}"
