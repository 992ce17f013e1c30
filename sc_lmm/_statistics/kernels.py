"""Compiled loops over stored matrix entries, one per memory layout: the only code that visits a cell's expression.

Each adds, for the genes and cells of one task, with y the entry less the gene's shift,

    ZtY[j, g] = sum of y over the cells of level j          (q, G)
    CtY[k, g] = sum of c_ik y over cells                    (n_columns, G)   C: the columns of X that vary within levels
    yty[g]    = sum of y^2                                  (G,)
    nonzero[g]= number of entries that are not 0            (G,)
    StY[k, j, g] = sum of s_ik y over the cells of level j  (n_slopes, q, G) S: columns whose slopes differ by level

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
    S: NDArray[np.float64],  # (n, n_slopes)
    gene_of: NDArray[np.uint32] | None,  # (n_vars,), G where it is not tested; None if every column is a gene
    shift: NDArray[np.float64] | None,  # (G + 1,) zero for a gene that some cell does not express; None if all are zero
    start: int,
    stop: int,
    acc: NDArray[np.float64],  # (G + 1, N_SLOTS + n_columns + n_slopes) zeros; this task's sums over all its cells
    head: NDArray[np.float64],  # (1 + n_slopes, G) zeros; its first level's sums, which the task before may share
    ZtY: NDArray[np.float64],  # (q, G)
    StY: NDArray[np.float64],  # (n_slopes, q, G)
) -> int:
    """Visit rows `start` to `stop`. Tests for None are resolved by the compiler, not per entry."""
    for i in range(start, stop):
        begin, end = indptr[rows[i]], indptr[rows[i] + 1]
        columns, values = indices[begin:end], data[begin:end]
        if not _add_row(columns, values, n_vars, C[i, 0], gene_of, shift, acc):
            return UNTIDY
        for k in range(1, C.shape[1]):
            _add_products(columns, values, C[i, k], gene_of, shift, acc[:, N_SLOTS + k])
        for k in range(S.shape[1]):
            _add_products(columns, values, S[i, k], gene_of, shift, acc[:, N_SLOTS + C.shape[1] + k])
        if i + 1 == stop or codes[i + 1] != codes[i]:
            first = codes[i] == codes[start]
            _hand_over(acc[:, SUM], head[0] if first else ZtY[codes[i]])
            for k in range(S.shape[1]):
                _hand_over(acc[:, N_SLOTS + C.shape[1] + k], head[1 + k] if first else StY[k, codes[i]])
    return OK


@njit(nogil=True, cache=True)
def _hand_over(running: NDArray[np.float64], target: NDArray[np.float64]) -> None:
    """Add one level's sums to where they belong and start the next."""
    for g in range(target.size):
        target[g] += running[g]
        running[g] = 0.0


@njit(nogil=True, cache=True)
def _add_row(
    columns: NDArray,  # (m,) of one row
    values: NDArray,  # (m,)
    n_vars: int,
    c: float,  # the usual single covariate
    gene_of: NDArray[np.uint32] | None,
    shift: NDArray[np.float64] | None,
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
        if shift is not None:
            y -= shift[g]
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
    shift: NDArray[np.float64] | None,
    products: NDArray[np.float64],  # (G,) added to
) -> None:
    """One more cell-level column, while the row is in cache."""
    for e in range(columns.size):
        g = np.uint32(columns[e])
        if gene_of is not None:
            g = gene_of[g]
        y = np.float64(values[e])
        if shift is not None:
            y -= shift[g]
        products[g] += c * y


@njit(nogil=True, cache=True)
def csc_columns(
    data: NDArray,
    indices: NDArray,
    indptr: NDArray,
    columns: NDArray[np.int64],  # (G,) matrix columns
    code_of: NDArray[np.int32],  # (n_obs,) level of a matrix row, -1 where the cell is left out
    C_of: NDArray[np.float64],  # (n_obs, n_columns)
    S_of: NDArray[np.float64],  # (n_obs, n_slopes)
    shift: NDArray[np.float64],
    start: int,
    stop: int,
    ZtY: NDArray[np.float64],
    CtY: NDArray[np.float64],
    yty: NDArray[np.float64],
    nonzero: NDArray[np.int64],
    StY: NDArray[np.float64],
) -> int:
    """Visit genes `start` to `stop`."""
    sums, products, sloped = np.zeros(ZtY.shape[0]), np.zeros(C_of.shape[1]), np.zeros(StY.shape[:2])
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
            y = np.float64(values[e]) - shift[g]
            sums[np.uint32(code_of[i])] += y
            square += y * y
            count += 1
            for k in range(products.size):
                products[k] += C_of[i, k] * y
            for k in range(S_of.shape[1]):
                sloped[k, np.uint32(code_of[i])] += S_of[i, k] * y
        yty[g], nonzero[g] = square, count
        for j in range(sums.size):
            ZtY[j, g], sums[j] = sums[j], 0.0
            for k in range(S_of.shape[1]):
                StY[k, j, g], sloped[k, j] = sloped[k, j], 0.0
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
    S: NDArray[np.float64],
    shift: NDArray[np.float64],
    start: int,
    stop: int,
    ZtY: NDArray[np.float64],
    CtY: NDArray[np.float64],
    yty: NDArray[np.float64],
    nonzero: NDArray[np.int64],
    StY: NDArray[np.float64],
) -> int:
    """Visit genes `start` to `stop` of every row, along the rows, in loops of one stride each that become vectors."""
    n = stop - start
    y, level, square, count = np.empty(n), np.zeros((1 + S.shape[1], n)), np.zeros(n), np.zeros(n)
    products = np.zeros((C.shape[1], n))
    away, wanted = shift[start:stop], columns[start:stop]
    adjacent = (np.diff(wanted) == 1).all()
    for i in range(rows.size):
        _gather(Y[rows[i]], wanted, adjacent, y)
        for g in range(n):
            count[g] += y[g] != 0
        for g in range(n):
            y[g] -= away[g]
            level[0, g] += y[g]
            square[g] += y[g] * y[g]
        _add_multiples(C[i], y, products)
        _add_multiples(S[i], y, level[1:])
        if i + 1 == rows.size or codes[i + 1] != codes[i]:
            _hand_over(level[0], ZtY[codes[i], start:stop])
            for k in range(S.shape[1]):
                _hand_over(level[1 + k], StY[k, codes[i], start:stop])
    for g in range(n):
        yty[start + g], nonzero[start + g] = square[g], np.int64(count[g])
        for k in range(C.shape[1]):
            CtY[k, start + g] = products[k, g]
    return OK


@njit(nogil=True, cache=True)
def _add_multiples(factors: NDArray[np.float64], y: NDArray[np.float64], products: NDArray[np.float64]) -> None:
    """Add each factor times y to its row of products."""
    for k in range(factors.size):
        c = factors[k]
        for g in range(y.size):
            products[k, g] += c * y[g]


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
    S: NDArray[np.float64],
    shift: NDArray[np.float64],
    start: int,
    stop: int,
    ZtY: NDArray[np.float64],
    CtY: NDArray[np.float64],
    yty: NDArray[np.float64],
    nonzero: NDArray[np.int64],
    StY: NDArray[np.float64],
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
                y[i] -= shift[g]
                level += y[i]
                square += y[i] * y[i]
            for k in range(S.shape[1]):
                sloped = 0.0
                for i in range(first, end):
                    sloped += S[i, k] * y[i]
                StY[k, codes[first], g] = sloped
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
