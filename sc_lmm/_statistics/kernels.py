"""Compiled loops over stored matrix entries, one per memory layout: the only code that visits a cell's expression.

Each adds up :class:`~sc_lmm._statistics.sums.Sums` over the genes and cells of one task, with y the entry and w the weight
of its cell, and returns a number that is 0 if no entry is negative and above 0 otherwise.

Tasks are cut by the data alone, never by the number of threads, and each owns what it writes, so any number of
threads gives the same bits. Sums are float64 and entries are converted before they are squared. All kernels release
the GIL. Indices known not to be negative are unsigned, so that the compiler leaves out Python's counting from the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._compile import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .sums import Cells, Sums

    Array = NDArray[np.float64]

UNTIDY = -1  # returned where indices are out of range or not strictly ascending, so that an entry may be stored twice

# Slots of acc in `csr_rows`: one gene's running sums side by side, so that an entry touches one cache line.
SUM, SQUARE, NONZERO, N_SLOTS = 0, 1, 2, 3


class Stored(NamedTuple):
    """A sparse matrix."""

    data: NDArray
    indices: NDArray
    indptr: NDArray
    n_minor: int  # columns of a CSR, rows of a CSC matrix


@compiled()
def csr_rows(
    stored: Stored,
    cells: Cells,  # n_columns >= 1
    weights: Array,  # (n,)
    gene_of: NDArray[np.uint32] | None,  # (n_vars,), G where it is not tested; None if every column is a gene
    start: int,
    stop: int,
    acc: Array,  # (G + 1, N_SLOTS + n_columns + n_slopes) zeros; this task's sums over all its cells
    head: Array,  # (1 + n_slopes, G) zeros; sums of the first level of the task, which the task before may share
    sums: Sums,  # of which those of levels are added to
) -> int:
    """Visit rows `start` to `stop`. Tests for None are resolved by the compiler, not per entry."""
    codes, negative, first_slope = cells.codes, 0, N_SLOTS + cells.C.shape[1]
    for i in range(start, stop):
        begin, end = stored.indptr[cells.rows[i]], stored.indptr[cells.rows[i] + 1]
        columns, values = stored.indices[begin:end], stored.data[begin:end]
        found = _add_row(columns, values, stored.n_minor, weights[i], cells.C[i, 0], gene_of, acc)
        if found == UNTIDY:
            return UNTIDY
        negative += found
        for k in range(1, cells.C.shape[1]):
            _add_products(columns, values, weights[i] * cells.C[i, k], gene_of, acc[:, N_SLOTS + k])
        for k in range(cells.S.shape[1]):
            _add_products(columns, values, weights[i] * cells.S[i, k], gene_of, acc[:, first_slope + k])
        if i + 1 == stop or codes[i + 1] != codes[i]:
            is_first = codes[i] == codes[start]
            _hand_over(acc[:, SUM], head[0] if is_first else sums.ZtY[codes[i]])
            for k in range(cells.S.shape[1]):
                _hand_over(acc[:, first_slope + k], head[1 + k] if is_first else sums.StY[k, codes[i]])
    return negative


@compiled()
def _hand_over(running: Array, target: Array) -> None:
    """Add one level's sums to where they belong, and start those of the next level."""
    for g in range(target.size):
        target[g] += running[g]
        running[g] = 0.0


@compiled()
def _add_row(
    columns: NDArray,  # (m,) of one row
    values: NDArray,  # (m,)
    n_vars: int,
    w: float,
    c: float,  # the usual single covariate
    gene_of: NDArray[np.uint32] | None,
    acc: Array,
) -> int:
    """The inner loop of a visit; nothing may be added to it that is not needed for every entry."""
    previous, lowest = -1, 0.0
    for e in range(columns.size):
        column = columns[e]
        if column <= previous or column >= n_vars:
            return UNTIDY
        previous = column
        g = np.uint32(column)
        if gene_of is not None:  # columns that are not tested share a spare gene, which is cheaper than to pass by
            g = gene_of[g]
        y = np.float64(values[e])
        if y == 0:
            continue
        lowest = min(lowest, y)
        wy = w * y
        acc[g, SUM] += wy
        acc[g, SQUARE] += wy * y
        acc[g, NONZERO] += 1.0
        acc[g, N_SLOTS] += c * wy
    return int(lowest < 0)


@compiled()
def _add_products(
    columns: NDArray,  # (m,) of one row, in range
    values: NDArray,  # (m,)
    c: float,
    gene_of: NDArray[np.uint32] | None,
    products: Array,  # (G,) added to
) -> None:
    """One more cell-level column, while the row is in cache."""
    for e in range(columns.size):
        g = np.uint32(columns[e])
        if gene_of is not None:
            g = gene_of[g]
        products[g] += c * np.float64(values[e])


@compiled()
def csc_columns(
    stored: Stored,
    row_of: NDArray[np.int32],  # (n_obs,) which of the cells a matrix row is, -1 where it is left out
    cells: Cells,
    weights: Array,
    columns: NDArray[np.int64],  # (G,) matrix columns of the genes
    start: int,
    stop: int,
    sums: Sums,
) -> int:
    """Visit genes `start` to `stop`."""
    level, products, negative = np.zeros(cells.n_levels), np.zeros(cells.C.shape[1]), 0
    sloped = np.zeros((cells.S.shape[1], cells.n_levels))
    for g in range(start, stop):
        begin, end = stored.indptr[columns[g]], stored.indptr[columns[g] + 1]
        rows, values = stored.indices[begin:end], stored.data[begin:end]
        square, count, previous = 0.0, 0, -1
        for e in range(rows.size):
            row = rows[e]
            if row <= previous or row >= row_of.size:
                return UNTIDY
            previous = row
            place = row_of[np.uint32(row)]
            if place < 0 or values[e] == 0:
                continue
            negative += values[e] < 0
            i = np.uint32(place)
            y = np.float64(values[e])
            wy = weights[i] * y
            level[np.uint32(cells.codes[i])] += wy
            square += wy * y
            count += 1
            for k in range(products.size):
                products[k] += cells.C[i, k] * wy
            for k in range(sloped.shape[0]):
                sloped[k, np.uint32(cells.codes[i])] += cells.S[i, k] * wy
        _keep(g, level, products, sloped, square, count, sums)
    return negative


@compiled()
def _keep(g: int, level: Array, products: Array, sloped: Array, square: float, count: int, sums: Sums) -> None:
    """Hand over one gene's sums and start the next one's at zero."""
    sums.yty[g], sums.nonzero[g] = square, count
    for j in range(level.size):
        sums.ZtY[j, g], level[j] = level[j], 0.0
    for k in range(products.size):
        sums.CtY[k, g], products[k] = products[k], 0.0
    for k in range(sloped.shape[0]):
        for j in range(level.size):
            sums.StY[k, j, g], sloped[k, j] = sloped[k, j], 0.0


@compiled()
def dense_rows(
    Y: NDArray,  # (n_obs, n_vars), rows contiguous
    cells: Cells,
    weights: Array,
    columns: NDArray[np.int64],  # (G,) matrix columns of the genes
    start: int,
    stop: int,
    sums: Sums,
) -> int:
    """Visit genes `start` to `stop` of every row, along the rows, in loops of one stride each that become vectors."""
    n, codes, negative = stop - start, cells.codes, 0
    y, level, square, count = np.empty(n), np.zeros(n), np.zeros(n), np.zeros(n)
    products, sloped = np.zeros((cells.C.shape[1], n)), np.zeros((cells.S.shape[1], n))
    wanted = columns[start:stop]
    adjacent = (np.diff(wanted) == 1).all()
    for i in range(cells.rows.size):
        _gather(Y[cells.rows[i]], wanted, adjacent, y)
        w = weights[i]
        for g in range(n):
            count[g] += y[g] != 0
            negative += y[g] < 0
        for g in range(n):
            level[g] += w * y[g]
            square[g] += w * y[g] * y[g]
        _add_multiples(w, cells.C[i], y, products)
        _add_multiples(w, cells.S[i], y, sloped)
        if i + 1 == codes.size or codes[i + 1] != codes[i]:
            for g in range(n):
                sums.ZtY[codes[i], start + g], level[g] = level[g], 0.0
            for k in range(cells.S.shape[1]):
                _hand_over(sloped[k], sums.StY[k, codes[i], start:stop])
    for g in range(n):
        sums.yty[start + g], sums.nonzero[start + g] = square[g], np.int64(count[g])
        for k in range(cells.C.shape[1]):
            sums.CtY[k, start + g] = products[k, g]
    return negative


@compiled()
def _add_multiples(w: float, factors: Array, y: Array, products: Array) -> None:
    """Add each factor times w y to its row of products."""
    for k in range(factors.size):
        c = w * factors[k]
        for g in range(y.size):
            products[k, g] += c * y[g]


@compiled()
def _gather(row: NDArray, columns: NDArray[np.int64], adjacent: bool, y: Array) -> None:  # noqa: FBT001
    """Copy some entries of a row to `y`; adjacent ones, the usual case, become vectors."""
    if adjacent:
        stripe = row[columns[0] : columns[0] + y.size]
        for g in range(y.size):
            y[g] = stripe[g]
    else:
        for g in range(y.size):
            y[g] = row[np.uint64(columns[g])]


@compiled(fastmath={"reassoc"})  # sums may be reordered, the same way for every gene
def dense_columns(
    Y: NDArray,  # (n_obs, n_vars), columns contiguous
    cells: Cells,
    weights: Array,
    columns: NDArray[np.int64],  # (G,) matrix columns of the genes
    start: int,
    stop: int,
    sums: Sums,
) -> int:
    """Visit genes `start` to `stop` of every row, along the columns, in loops that become vectors."""
    y, ends, negative = np.empty(cells.rows.size), _ends(cells.codes), 0
    level, products = np.zeros(cells.n_levels), np.zeros(cells.C.shape[1])
    sloped = np.zeros((cells.S.shape[1], cells.n_levels))
    for g in range(start, stop):
        column = Y[:, columns[g]]
        count, square, first = 0, 0.0, 0
        for i in range(y.size):
            y[i] = column[np.uint64(cells.rows[i])]
            count += y[i] != 0
            negative += y[i] < 0
        for end in ends:
            total = 0.0
            for i in range(first, end):
                square += weights[i] * y[i] * y[i]
                y[i] *= weights[i]
                total += y[i]
            for k in range(sloped.shape[0]):
                for i in range(first, end):
                    sloped[k, cells.codes[first]] += cells.S[i, k] * y[i]
            level[cells.codes[first]], first = total, end
        for k in range(products.size):
            for i in range(y.size):
                products[k] += cells.C[i, k] * y[i]
        _keep(g, level, products, sloped, square, count, sums)
    return negative


@compiled()
def _ends(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """One past the last cell of each level; none without cells."""
    last = np.append(codes[1:] != codes[:-1], True) if codes.size else np.zeros(0, dtype=np.bool_)
    return np.flatnonzero(last) + 1
