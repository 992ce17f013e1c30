"""A second visit, of the few genes that need it: the same sums of y less what level means and covariates explain.

Of a gene whose mean is 1e8 times the spread of its cells, or whose donors are 1e6 times as far apart as their cells,
the squares of y hold no digit of that spread; the squares of residuals hold all that y has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from .sums import Cells, InBlocks, Sums
from .visit import row_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Entries held in memory at a time, as doubles.
_BLOCK_ENTRIES = 1 << 22


class Explained(NamedTuple):
    """What is taken from the entries of G genes."""

    means: Array  # (q, G) of levels
    slopes: Array  # (n_columns, G) of C
    own: Array  # (n_slopes, q, G) of S, of each level its own


def visit_residuals(matrix: Any, cells: Cells, columns: NDArray[np.int64], explained: Explained) -> Sums:
    """Add up over cells what is left of y, its products with C and S, and its squares."""
    sums, in_blocks = Sums.zeros(cells, columns.size), InBlocks(cells)
    for start, genes, block in _dense_blocks(matrix, columns):
        levels, inside = in_blocks.within(start, start + len(block))
        if levels.size == 0:
            continue
        codes = levels[inside.codes]
        y = block[inside.rows].astype(np.float64) - explained.means[:, genes][codes]
        y -= inside.C @ explained.slopes[:, genes]
        for s, own in zip(inside.S.T, explained.own, strict=True):
            y -= s[:, None] * own[:, genes][codes]
        first = np.unique(codes, return_index=True)[1]
        weighted = y if inside.weights is None else inside.weights[:, None] * y
        sums.ZtY[levels, genes] += np.add.reduceat(weighted, first)
        sums.CtY[:, genes] += inside.C.T @ weighted
        for s, products in zip(inside.S.T, sums.StY, strict=True):
            products[levels, genes] += np.add.reduceat(s[:, None] * weighted, first)
        sums.yty[genes] += (weighted * y).sum(axis=0)
    return sums


def _dense_blocks(matrix: Any, columns: NDArray[np.int64]) -> Iterator[tuple[int, slice, NDArray[Any]]]:
    """Blocks of some columns in memory, each with its first row and which of the columns they are."""
    by_column = sparse.issparse(matrix) and matrix.format == "csc"
    rows = iter([(0, matrix)]) if by_column else row_blocks(matrix)
    for start, block in rows:
        width = max(_BLOCK_ENTRIES // max(block.shape[0], 1), 1)
        for first in range(0, columns.size, width):
            genes = slice(first, first + width)
            part = block[:, columns[genes]]
            yield start, genes, part.toarray() if sparse.issparse(part) else np.asarray(part)
