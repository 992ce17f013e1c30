"""The columns of X by level of the grouping, in units that lose no digits, and the one rule for what is nothing.

With n_j cells in level j, x_c the row of X of cell c and xbar_j the mean row of level j,

    X'V^-1 X = R'R + sum_j h_j xbar_j xbar_j',   R'R = sum_jc (x_c - xbar_j)(x_c - xbar_j)',   h_j = n_j / (1 + rho n_j)

so the q x p means and the p x p triangle R hold everything that a report, a test or a likelihood asks of X. They are
lengths, not squared lengths: of a column that is all but determined by others 1e-6 of its length is left, which is a
direction with ten good digits, but 1e-12 of its square, which is four.

What is left of a column after others, or within the levels, is nothing if it is at most `TOLERANCE` of the column's
spread: R's ``lm`` has the same figure. In columns of unit length this is a length of `TOLERANCE`. No other tolerance
decides what is collinear.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

TOLERANCE = 1e-7
# A spread below this share of a column's length has lost its own digits to the mean, which is then the measure; earlier
# where no intercept takes the mean out.
_SMALLEST_SPREAD, _WITH_THE_MEAN = 1e-6, 1e-2
_BLOCK = 1 << 12  # small enough for the cache, where a tall QR runs three times as fast


@dataclass(frozen=True)
class Columns:
    """The columns of X about their means, in units of `scale`: p columns, q levels."""

    sizes: Array  # (q,) cells per level
    scale: Array  # (p,) a power of two near each column's largest entry, so that squares neither overflow nor vanish
    shift: Array  # (p,) mean over all cells
    means: Array  # (q, p) mean in each level, less the shift
    R: Array  # (p, p) triangle of the deviations from the level means, exactly 0 where a column has none
    intercept: int | None  # which column is the constant
    root: Array | None = None  # (n,) square roots of the weights of the cells, None if all are one

    @cached_property
    def unit(self) -> Array:
        """What the rest of each column is measured by, (p,)."""
        spread = np.sqrt(np.einsum("ij,ij->j", self.R, self.R) + self.sizes @ self.means**2)
        length = np.hypot(spread, np.sqrt(self.sizes.sum()) * self.shift)
        return unit(spread, length, intercept=self.intercept is not None)

    @cached_property
    def model_means(self) -> Array:
        """Level means as the model can have them, (q, p): less the shift if there is an intercept to make up for it."""
        if self.intercept is None:
            return self.shift + self.means
        means = self.means.copy()
        means[:, self.intercept] = 1.0
        return means

    @property
    def origin(self) -> Array:
        """What `model_means` are less than the user's, in the user's units, (p,)."""
        if self.intercept is None:
            return np.zeros(self.scale.size)
        return np.where(np.arange(self.scale.size) == self.intercept, 0.0, self.scale * self.shift)

    @cached_property
    def triangle(self) -> Array:
        """Triangular factor of X, X being R and `model_means`: what each column has beside earlier ones is its diagonal."""
        return np.asarray(np.linalg.qr(np.vstack([self.R, np.sqrt(self.sizes)[:, None] * self.model_means]), mode="r"))

    @property
    def are_independent(self) -> bool:
        """Whether something is left of each column beside the earlier ones."""
        left = np.abs(np.diag(self.triangle))
        return left.size == self.unit.size and bool((left > TOLERANCE * self.unit).all())

    def orthonormal(self, rows: Array) -> Array:
        """Rows of X (n_rows, p) in columns that are orthonormal over all cells: X times the inverse of `triangle`.

        By substitution: each column is what the ones before, as they were computed, leave of a column of X, so that a
        direction that is known to ten digits only does not cost the columns after it any. A product would.
        """
        return np.asarray(linalg.solve_triangular(self.triangle, rows.T, trans="T").T)

    @property
    def rank_within(self) -> int:
        """Dimensions in which the columns differ within levels."""
        return int((linalg.svdvals(self.orthonormal(self.R)) > TOLERANCE).sum())

    def take(self, some: NDArray[np.int64]) -> Columns:
        """Some of the columns."""
        place = [k for k, column in enumerate(some) if column == self.intercept]
        arrays = {name: getattr(self, name)[..., some] for name in ("scale", "shift", "means", "R")}
        return replace(self, **arrays, intercept=place[0] if place else None)

    @property
    def constant(self) -> tuple[float, ...] | None:
        """Coefficients that give every cell a 1, (p,), None if the columns cannot."""
        level = np.sqrt(self.sizes)[:, None] * (self.shift + self.means)
        rows, ones = np.vstack([self.R, level]), np.append(np.zeros(len(self.R)), np.sqrt(self.sizes))
        length = np.linalg.norm(rows, axis=0)
        length[length == 0] = 1.0
        shares = np.linalg.lstsq(rows / length, ones, rcond=None)[0]
        n = float(np.linalg.norm(ones))
        if np.linalg.norm(rows / length @ shares - ones) > TOLERANCE * n:
            return None
        return tuple(np.where(np.abs(shares) > TOLERANCE * n, shares / length / self.scale, 0.0).tolist())

    def deviations(self, X: Array, codes: NDArray[np.int32], rows: slice = slice(None)) -> Array:
        """Entries of some rows of X about their level means, times the root of the cell's weight, (n_rows, p)."""
        about = X[rows] / self.scale - self.shift - self.means[codes[rows]]
        return about if self.root is None else about * self.root[rows, None]


def unit(spread: Array, length: Array, *, intercept: bool = True) -> Array:
    """What the rest of a column is measured by: its spread, or its length where a large mean has taken its digits."""
    return np.maximum(spread, (_SMALLEST_SPREAD if intercept else _WITH_THE_MEAN) * length)


def columns_by_level(
    X: Array, codes: NDArray[np.int32], sizes: Array, intercept: int | None, weights: Array | None = None
) -> Columns:
    """Take the columns of X (n, p) apart; cells are visited in blocks.

    Cells of weight w (n,) count as w cells: `sizes` are sums of weights, means weighted, and deviations times sqrt(w).
    """
    by_column = np.array(X.T, order="C")
    scale = _power_of_two(np.maximum(by_column.max(axis=1), -by_column.min(axis=1)))
    by_column /= scale[:, None]
    shift, w = by_column.mean(axis=1), np.ones(len(X)) if weights is None else weights
    means = np.stack([_level_means(x - s, codes, w, sizes) for x, s in zip(by_column, shift, strict=True)], axis=1)
    root = None if weights is None else np.sqrt(weights)
    columns = Columns(sizes, scale, shift, means, np.zeros((X.shape[1], X.shape[1])), intercept, root)
    blocks = (columns.deviations(X, codes, slice(start, start + _BLOCK)) for start in range(0, len(X), _BLOCK))
    columns = replace(columns, R=triangle(blocks, X.shape[1]))
    varies = np.linalg.norm(columns.R, axis=0) > TOLERANCE * columns.unit
    return replace(columns, R=columns.R * varies)


def _level_means(x: Array, codes: NDArray[np.int32], weights: Array, sizes: Array) -> Array:
    """Weighted means of x (n,) in each level, (q,): twice, the second time for the rounding of the first."""
    means = np.bincount(codes, weights=weights * x, minlength=sizes.size) / sizes
    return means + np.bincount(codes, weights=weights * (x - means[codes]), minlength=sizes.size) / sizes


def _power_of_two(largest: Array) -> Array:
    """Powers of two by which numbers can be divided without rounding, 1 for 0."""
    return np.ldexp(1.0, np.where(largest > 0, np.frexp(largest)[1] - 1, 0))


def triangle(blocks: Iterable[Array], n_columns: int) -> Array:
    """Triangular factor (p, p) of a tall matrix that comes in blocks of rows."""
    R = np.zeros((n_columns, n_columns))
    for block in blocks:
        R = np.asarray(np.linalg.qr(np.vstack([R, block]), mode="r"))
    return R
