"""Closed form of the model in extended precision, by another way than the package's: rotation and Gram-Schmidt.

    y = X beta + Z u + e,   var(e_i) = sigma^2 / w_i,   V = W^-1 + rho Z Z'

V^(-1/2) shrinks each donor's weighted mean. What is left of the rotated y beside the rotated X is the residual sum of
squares, and the profile likelihood is that of the multivariate normal distribution at the best beta and sigma^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Long = NDArray[np.longdouble]

ALIASED = 1e-15  # share of a column's length that is left beside the others: rounding
RHO = np.concatenate([[0.0], np.logspace(-4, 12, 33)])  # donors up to 1e6 times as far apart as cells


def orthonormal(A: Long, least: float = 0.0) -> tuple[Long, Long]:
    """Gram-Schmidt, twice each: directions (n, r), and the length that is left of each column as a share of its own (p,)."""
    Q: list[Long] = []
    left = np.zeros(A.shape[1], dtype=np.longdouble)
    for k, column in enumerate(A.T):
        length = np.sqrt(column @ column)
        rest = column / length if length > 0 else column
        for _ in range(2):
            for q in Q:
                rest = rest - q * (q @ rest)
        left[k] = np.sqrt(rest @ rest)
        if left[k] > least:
            Q.append(rest / left[k])
    return np.array(Q, dtype=np.longdouble).reshape(len(Q), A.shape[0]).T, left


def stacked(columns: Sequence[NDArray[Any]]) -> Long:
    """Columns side by side, each at most one: their units do not count."""
    A = np.array(columns, dtype=np.longdouble).T
    return A / np.maximum(np.abs(A).max(axis=0), np.finfo(np.longdouble).tiny)


@dataclass(frozen=True)
class Likelihood:
    """Profile likelihood of some genes under one set of fixed columns."""

    Q: Long  # (n, r) directions of the weighted X
    Y: Long  # (n, G) weighted
    root: Long  # (n,) roots of the weights
    codes: NDArray[np.int64]  # (n,) donors, in order
    starts: NDArray[np.int64]  # (m,) first cell of each donor
    sizes: Long  # (m,) sums of weights
    condition: float  # smallest share of a column that is left beside the others, of those kept
    rank: int
    order: NDArray[np.int64]  # (n,) of the cells as they were given

    @classmethod
    def of(
        cls, columns: Sequence[NDArray[Any]], codes: NDArray[Any], weights: NDArray[Any], Y: NDArray[Any]
    ) -> Likelihood:
        """Bring cells into the order of donors."""
        codes = np.unique(codes, return_inverse=True)[1]
        order = np.argsort(codes, kind="stable")
        codes, starts = codes[order], np.flatnonzero(np.diff(codes[order], prepend=-1))
        root = np.sqrt((weights / weights.mean()).astype(np.longdouble))[order]
        X = stacked(columns)[order] if columns else np.empty((order.size, 0), dtype=np.longdouble)
        Q, left = orthonormal(X * root[:, None], ALIASED)
        kept = left[left > ALIASED]
        Y = Y.astype(np.longdouble)[order] * root[:, None]
        sizes = np.add.reduceat(root**2, starts)
        return cls(Q, Y, root, codes, starts, sizes, float(kept.min()) if kept.size else 1.0, Q.shape[1], order)

    def rotated(self, A: Long, rho: float) -> Long:
        """V^(-1/2) A, up to the roots of the weights that A has already."""
        shrink = (1 - 1 / np.sqrt(1 + self.sizes * np.longdouble(rho))) / self.sizes
        means = np.add.reduceat(self.root[:, None] * A, self.starts, axis=0) * shrink[:, None]
        return A - self.root[:, None] * means[self.codes]

    def rest(self, rho: float) -> tuple[Long, Long]:
        """Rotated y less what the rotated columns explain (n, G), and what is left of each direction (r,)."""
        Q, left = orthonormal(self.rotated(self.Q, rho))
        lengths = np.sqrt((self.rotated(self.Q, rho) ** 2).sum(axis=0))
        Y = self.rotated(self.Y, rho)
        for _ in range(2):
            Y = Y - Q @ (Q.T @ Y)
        return Y, left * lengths

    def deviance(self, rho: float, *, reml: bool = False, genes: Any = slice(None)) -> Long:
        """-2 log L at the best beta and sigma^2, (G,); restricted for columns that are orthonormal at rho = 0."""
        few = Likelihood(self.Q, self.Y[:, genes], *list(vars(self).values())[2:])
        Y, left = few.rest(rho)
        n = self.codes.size - (self.rank if reml else 0)
        log_v = np.log1p(self.sizes * np.longdouble(rho)).sum() - 2 * np.log(self.root).sum()
        determinant = 2 * np.log(left).sum() if reml else 0
        with np.errstate(divide="ignore"):
            return n * (np.log(2 * np.pi * (Y**2).sum(axis=0) / n) + 1) + log_v + determinant

    def logdet(self, X: NDArray[Any]) -> float:
        """log |X'WX| of other columns (n, r) that span the same, cells in the order that they were given in."""
        A = X.astype(np.longdouble)[self.order] * self.root[:, None]
        lengths = np.sqrt((A**2).sum(axis=0))
        return float(2 * np.log(orthonormal(A)[1] * lengths).sum())

    def slope(self, x: NDArray[Any], rho: float, gene: int) -> tuple[float, float]:
        """Coefficient of a further column and the length that its rotation has beside the others."""
        column = self.rotated((x.astype(np.longdouble) * self.root)[:, None], rho)
        Q, _ = orthonormal(self.rotated(self.Q, rho))
        for _ in range(2):
            column = column - Q @ (Q.T @ column)
        y = self.rotated(self.Y[:, [gene]], rho)
        square = (column**2).sum()
        return float((column * y).sum() / square), float(np.sqrt(square))
