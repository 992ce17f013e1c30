"""What a visit of the matrix is given, and what it adds up: plain tuples of arrays, which compiled loops take as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class Cells(NamedTuple):
    """The cells of a design sorted by level, with what each contributes beside its expression."""

    rows: NDArray[np.int64]  # (n,) position in the matrix
    codes: NDArray[np.int32]  # (n,) level, ascending
    C: Array  # (n, n_columns) orthonormal basis of what varies in X within levels
    S: Array  # (n, n_slopes) what has a slope of its own in each level
    n_levels: int
    weights: Array | None = None  # (n,) of the cells, None if all are one


class InBlocks:
    """Cells of one block of rows after the other, found without looking at those of other blocks."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._order = np.argsort(cells.rows, kind="stable")
        self._rows = cells.rows[self._order]

    def within(self, start: int, stop: int) -> tuple[NDArray[np.int64], Cells]:
        """Take the cells in matrix rows `start` to `stop`, counted from there, and the levels that they have.

        Their codes are positions in these levels, so that what a block adds up is no larger than what is in it.
        """
        first, last = np.searchsorted(self._rows, (start, stop))
        inside, cells = np.sort(self._order[first:last]), self._cells
        levels, codes = np.unique(cells.codes[inside], return_inverse=True)
        weights = None if cells.weights is None else cells.weights[inside]
        arrays = (cells.rows[inside] - start, codes.astype(np.int32), cells.C[inside], cells.S[inside])
        return levels.astype(np.int64), Cells(*arrays, levels.size, weights)


class Sums(NamedTuple):
    """Sums over cells of an entry y times what its cell contributes; w is the weight of the cell."""

    ZtY: Array  # (q, G) w y over the cells of a level
    CtY: Array  # (n_columns, G) c w y
    yty: Array  # (G,) w y^2
    nonzero: NDArray[np.int64]  # (G,) entries that are not 0
    negative: NDArray[np.int64]  # (1,) 0 if no entry is below 0, above 0 otherwise
    StY: Array  # (n_slopes, q, G) s w y over the cells of a level

    def add(self, part: Sums, levels: NDArray[np.int64]) -> None:
        """Add the sums over other cells, which have these levels."""
        self.ZtY[levels] += part.ZtY
        self.StY[:, levels] += part.StY
        for mine, more in ((self.CtY, part.CtY), (self.yty, part.yty), (self.nonzero, part.nonzero)):
            mine += more
        self.negative[0] += part.negative[0]

    @classmethod
    def zeros(cls, cells: Cells, n_genes: int) -> Sums:
        """Sums over no cells."""
        return cls(
            ZtY=np.zeros((cells.n_levels, n_genes)),
            CtY=np.zeros((cells.C.shape[1], n_genes)),
            yty=np.zeros(n_genes),
            nonzero=np.zeros(n_genes, dtype=np.int64),
            negative=np.zeros(1, dtype=np.int64),
            StY=np.zeros((cells.S.shape[1], cells.n_levels, n_genes)),
        )
