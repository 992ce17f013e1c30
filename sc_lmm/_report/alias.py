"""Columns of a design matrix -> those that are linear combinations of earlier ones, with the combination.

Columns are taken in the formula's order and the later one of a relation is called aliased, as R's ``lm`` does. The
search runs on the p x p triangular factor of the standardised columns, so cells enter once, in one QR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# R's lm calls a column aliased when 1e-7 of its length is left; columns are centred here, so the same figure is safe.
_TOLERANCE = 1e-7


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


def find_aliases(X: NDArray[np.float64], names: Sequence[str]) -> list[Alias]:
    """Columns of `X` (n, p) that earlier columns determine, each with its exact relation."""
    scale = _spread(X)
    R: NDArray[np.float64] = np.asarray(np.linalg.qr(X / scale, mode="r"))
    spread = np.array([_deviation(R, j) for j in range(X.shape[1])])
    independent: list[int] = []
    aliases: list[Alias] = []
    for j in range(X.shape[1]):
        solution: NDArray[np.float64] = np.asarray(
            np.linalg.lstsq(R[:, independent], R[:, j], rcond=None)[0], dtype=np.float64
        )
        left = R[:, j] - R[:, independent] @ solution
        if np.linalg.norm(left) > _TOLERANCE * spread[j]:
            independent.append(j)
        else:
            # A coefficient is rounding if what it adds is, beside the spread of the column that it explains.
            real = (np.abs(solution) * spread[independent] > 1e-6 * spread[j]) & (np.abs(solution) > 1e-9)
            used = np.flatnonzero(real)
            aliases.append(_relation(j, [independent[k] for k in used], solution[used], scale, names))
    return aliases


def _spread(X: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.sqrt(np.einsum("ij,ij->j", X, X))
    return np.where(length > 0, length, 1.0)


def _deviation(R: NDArray[np.float64], j: int) -> float:
    """Length of column j beyond its mean, since a large mean would hide a small but real spread."""
    if j == 0:
        return float(np.linalg.norm(R[:, 0]))
    direction = R[:, 0] / max(float(np.linalg.norm(R[:, 0])), np.finfo(float).tiny)
    beyond = R[:, j] - direction * (direction @ R[:, j])
    # A constant column has only rounding left beyond its mean: then its own length is the measure.
    return max(float(np.linalg.norm(beyond)), float(np.linalg.norm(R[:, j])) * 1e-6)


def _relation(
    j: int, used: list[int], solution: NDArray[np.float64], scale: NDArray[np.float64], names: Sequence[str]
) -> Alias:
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
