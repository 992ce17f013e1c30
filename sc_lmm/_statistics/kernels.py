"""Compiled loops over stored matrix entries, one per memory layout: the only code that visits a cell's expression.

Each adds, for the genes and cells of one task, with y the entry,

    ZtY[j, g] = sum of y over the cells of level j          (q, G)
    CtY[k, g] = sum of c_ik y over cells                    (n_columns, G)   C: a basis of what varies in X within levels
    yty[g]    = sum of y^2                                  (G,)
    nonzero[g]= number of entries that are not 0            (G,)

Tasks are cut by the data alone, never by the number of threads, and each owns what it writes, so any number of
threads gives the same bits. Sums are float64 and entries are converted before they are squared. All kernels release
the GIL. Indices known not to be negative are unsigned, so that the compiler leaves out Python's counting from the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

OK, UNTIDY = 0, 1  # UNTIDY: indices out of range or not strictly ascending, so that an entry may be stored twice

# Slots of acc in `csr_rows`: one gene's running sums side by side, so that an entry touches one cache line.
SUM, SQUARE, NONZERO, N_SLOTS = 0, 1, 2, 3


@njit(nogil=True, cache=True)
def csr_rows(
    data: NDArray,
    indices: NDArray,
    indptr: NDArray,
    n_vars: int,
    rows: NDArray[np.int64],  # (n,) matrix rows, sorted by level
    codes: NDArray[np.int32],  # (n,) their levels, ascending
    C: NDArray[np.float64],  # (n, n_columns), n_columns >= 1
    gene_of: NDArray[np.uint32] | None,  # (n_vars,), G where it is not tested; None if every column is a gene
    start: int,
    stop: int,
    acc: NDArray[np.float64],  # (G + 1, N_SLOTS + n_columns) zeros; this task's sums over all its cells
    head: NDArray[np.float64],  # (G,) zeros; sums of the first level of the task, which the task before may share
    ZtY: NDArray[np.float64],  # (q, G)
) -> int:
    """Visit rows `start` to `stop`. Tests for None are resolved by the compiler, not per entry."""
    for i in range(start, stop):
        begin, end = indptr[rows[i]], indptr[rows[i] + 1]
        columns, values = indices[begin:end], data[begin:end]
        if not _add_row(columns, values, n_vars, C[i, 0], gene_of, acc):
            return UNTIDY
        for k in range(1, C.shape[1]):
            _add_products(columns, values, C[i, k], gene_of, acc[:, N_SLOTS + k])
        if i + 1 == stop or codes[i + 1] != codes[i]:
            target = head if codes[i] == codes[start] else ZtY[codes[i]]
            for g in range(head.size):
                target[g] += acc[g, SUM]
                acc[g, SUM] = 0.0
    return OK


@njit(nogil=True, cache=True)
def _add_row(
    columns: NDArray,  # (m,) of one row
    values: NDArray,  # (m,)
    n_vars: int,
    c: float,  # the usual single covariate
    gene_of: NDArray[np.uint32] | None,
    acc: NDArray[np.float64],
) -> bool:
    """The inner loop of a visit; nothing may be added to it that is not needed for every entry."""
    previous = -1
    for e in range(columns.size):
        column = columns[e]
        if column <= previous or column >= n_vars:
            return False
        previous = column
        g = np.uint32(column)
        if gene_of is not None:  # columns that are not tested share a spare gene, which is cheaper than to pass by
            g = gene_of[g]
        y = np.float64(values[e])
        if y == 0:
            continue
        acc[g, SUM] += y
        acc[g, SQUARE] += y * y
        acc[g, NONZERO] += 1.0
        acc[g, N_SLOTS] += c * y
    return True


@njit(nogil=True, cache=True)
def _add_products(
    columns: NDArray,  # (m,) of one row, in range
    values: NDArray,  # (m,)
    c: float,
    gene_of: NDArray[np.uint32] | None,
    products: NDArray[np.float64],  # (G,) added to
) -> None:
    """One more cell-level column, while the row is in cache."""
    for e in range(columns.size):
        g = np.uint32(columns[e])
        if gene_of is not None:
            g = gene_of[g]
        products[g] += c * np.float64(values[e])


@njit(nogil=True, cache=True)
def csc_columns(
    data: NDArray,
    indices: NDArray,
    indptr: NDArray,
    columns: NDArray[np.int64],  # (G,) matrix columns
    code_of: NDArray[np.int32],  # (n_obs,) level of a matrix row, -1 where the cell is left out
    C_of: NDArray[np.float64],  # (n_obs, n_columns)
    start: int,
    stop: int,
    ZtY: NDArray[np.float64],
    CtY: NDArray[np.float64],
    yty: NDArray[np.float64],
    nonzero: NDArray[np.int64],
) -> int:
    """Visit genes `start` to `stop`."""
    sums, products = np.zeros(ZtY.shape[0]), np.zeros(C_of.shape[1])
    for g in range(start, stop):
        begin, end = indptr[columns[g]], indptr[columns[g] + 1]
        rows, values = indices[begin:end], data[begin:end]
        square, count, previous = 0.0, 0, -1
        for e in range(rows.size):
            row = rows[e]
            if row <= previous or row >= code_of.size:
                return UNTIDY
            previous = row
            i = np.uint32(row)
            if code_of[i] < 0 or values[e] == 0:
                continue
            y = np.float64(values[e])
            sums[np.uint32(code_of[i])] += y
            square += y * y
            count += 1
            for k in range(products.size):
                products[k] += C_of[i, k] * y
        yty[g], nonzero[g] = square, count
        for j in range(sums.size):
            ZtY[j, g], sums[j] = sums[j], 0.0
        for k in range(products.size):
            CtY[k, g], products[k] = products[k], 0.0
    return OK


@njit(nogil=True, cache=True)
def dense_rows(
    Y: NDArray,  # (n_obs, n_vars), rows contiguous
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    codes: NDArray[np.int32],
    C: NDArray[np.float64],
    start: int,
    stop: int,
    ZtY: NDArray[np.float64],
    CtY: NDArray[np.float64],
    yty: NDArray[np.float64],
    nonzero: NDArray[np.int64],
) -> int:
    """Visit genes `start` to `stop` of every row, along the rows, in loops of one stride each that become vectors."""
    n = stop - start
    y, level, square, count = np.empty(n), np.zeros(n), np.zeros(n), np.zeros(n)
    products = np.zeros((C.shape[1], n))
    wanted = columns[start:stop]
    adjacent = (np.diff(wanted) == 1).all()
    for i in range(rows.size):
        _gather(Y[rows[i]], wanted, adjacent, y)
        for g in range(n):
            count[g] += y[g] != 0
        for g in range(n):
            level[g] += y[g]
            square[g] += y[g] * y[g]
        for k in range(C.shape[1]):
            c = C[i, k]
            for g in range(n):
                products[k, g] += c * y[g]
        if i + 1 == rows.size or codes[i + 1] != codes[i]:
            for g in range(n):
                ZtY[codes[i], start + g], level[g] = level[g], 0.0
    for g in range(n):
        yty[start + g], nonzero[start + g] = square[g], np.int64(count[g])
        for k in range(C.shape[1]):
            CtY[k, start + g] = products[k, g]
    return OK


@njit(nogil=True, cache=True)
def _gather(row: NDArray, columns: NDArray[np.int64], adjacent: bool, y: NDArray[np.float64]) -> None:  # noqa: FBT001
    """Copy some entries of a row to `y`; adjacent ones, the usual case, become vectors."""
    if adjacent:
        stripe = row[columns[0] : columns[0] + y.size]
        for g in range(y.size):
            y[g] = stripe[g]
    else:
        for g in range(y.size):
            y[g] = row[np.uint64(columns[g])]


@njit(nogil=True, cache=True, fastmath={"reassoc"})  # sums may be reordered, the same way for every gene
def dense_columns(
    Y: NDArray,  # (n_obs, n_vars), columns contiguous
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    codes: NDArray[np.int32],
    C: NDArray[np.float64],
    start: int,
    stop: int,
    ZtY: NDArray[np.float64],
    CtY: NDArray[np.float64],
    yty: NDArray[np.float64],
    nonzero: NDArray[np.int64],
) -> int:
    """Visit genes `start` to `stop` of every row, along the columns, in loops that become vectors."""
    y, ends = np.empty(rows.size), _ends(codes)
    for g in range(start, stop):
        column = Y[:, columns[g]]
        count, square, first = 0, 0.0, 0
        for i in range(rows.size):
            y[i] = column[np.uint64(rows[i])]
            count += y[i] != 0
        for end in ends:
            level = 0.0
            for i in range(first, end):
                level += y[i]
                square += y[i] * y[i]
            ZtY[codes[first], g], first = level, end
        yty[g], nonzero[g] = square, count
        for k in range(C.shape[1]):
            product = 0.0
            for i in range(rows.size):
                product += C[i, k] * y[i]
            CtY[k, g] = product
    return OK


@njit(nogil=True, cache=True)
def _ends(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """One past the last cell of each level; none without cells."""
    last = np.append(codes[1:] != codes[:-1], True) if codes.size else np.zeros(0, dtype=np.bool_)
    return np.flatnonzero(last) + 1
