"""Compiled loops over stored matrix entries, one per memory layout: the only code that visits a cell's expression.

Each adds, for the genes and cells of one task, with y the entry less the gene's shift,

    ZtY[j, g] = sum of y over the cells of level j          (q, G)
    CtY[k, g] = sum of c_ik y over cells                    (n_columns, G)   C: the columns of X that vary within levels
    yty[g]    = sum of y^2                                  (G,)
    nonzero[g]= number of entries that are not 0            (G,)

Tasks are cut by the data alone, never by the number of threads, and each owns what it writes, so any number of
threads gives the same bits. Sums are float64 and entries are converted before they are squared. All kernels release
the GIL. ``gene_of`` maps a matrix column to its gene, -1 where it is not tested.
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
    gene_of: NDArray[np.int32] | None,  # (n_vars,), None if every column is a gene
    shift: NDArray[np.float64] | None,  # (G,) zero for a gene that some cell does not express, None if all are zero
    start: int,
    stop: int,
    acc: NDArray[np.float64],  # (G, N_SLOTS + n_columns) zeros; this task's sums over all its cells
    head: NDArray[np.float64],  # (G,) zeros; sums of the first level of the task, which the task before may share
    ZtY: NDArray[np.float64],  # (q, G)
) -> int:
    """Visit rows `start` to `stop`. Tests for None are resolved by the compiler, not per entry."""
    for i in range(start, stop):
        begin, end = indptr[rows[i]], indptr[rows[i] + 1]
        columns, values = indices[begin:end], data[begin:end]
        if not _add_row(columns, values, n_vars, C[i, 0], gene_of, shift, acc):
            return UNTIDY
        for k in range(1, C.shape[1]):
            _add_products(columns, values, C[i, k], gene_of, shift, acc[:, N_SLOTS + k])
        if i + 1 == stop or codes[i + 1] != codes[i]:
            target = head if codes[i] == codes[start] else ZtY[codes[i]]
            for g in range(acc.shape[0]):
                target[g] += acc[g, SUM]
                acc[g, SUM] = 0.0
    return OK


@njit(nogil=True, cache=True)
def _add_row(
    columns: NDArray,  # (m,) of one row
    values: NDArray,  # (m,)
    n_vars: int,
    c: float,  # the usual single covariate
    gene_of: NDArray[np.int32] | None,
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
        gene = column
        if gene_of is not None:
            gene = gene_of[column]
            if gene < 0:
                continue
        g = np.uint32(gene)  # unsigned: the compiler leaves out Python's counting from the end
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
    gene_of: NDArray[np.int32] | None,
    shift: NDArray[np.float64] | None,
    products: NDArray[np.float64],  # (G,) added to
) -> None:
    """One more cell-level column, while the row is in cache."""
    for e in range(columns.size):
        gene = columns[e]
        if gene_of is not None:
            gene = gene_of[gene]
            if gene < 0:
                continue
        g = np.uint32(gene)
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
    shift: NDArray[np.float64],
    start: int,
    stop: int,
    ZtY: NDArray[np.float64],
    CtY: NDArray[np.float64],
    yty: NDArray[np.float64],
    nonzero: NDArray[np.int64],
) -> int:
    """Visit genes `start` to `stop`."""
    n_obs, n_columns = code_of.size, C_of.shape[1]
    for g in range(start, stop):
        square, count, previous = 0.0, 0, -1
        for e in range(indptr[columns[g]], indptr[columns[g] + 1]):
            row = indices[e]
            if row <= previous or row >= n_obs:
                return UNTIDY
            previous = row
            j = code_of[row]
            if j < 0:
                continue
            stored = np.float64(data[e])
            y = stored - shift[g]
            ZtY[j, g] += y
            square += y * y
            count += stored != 0
            for k in range(n_columns):
                CtY[k, g] += C_of[row, k] * y
        yty[g] = square
        nonzero[g] = count
    return OK


@njit(nogil=True, cache=True)
def dense_rows(
    Y: NDArray,  # (n_obs, n_vars), rows contiguous
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    codes: NDArray[np.int32],
    C: NDArray[np.float64],
    shift: NDArray[np.float64],
    start: int,
    stop: int,
    ZtY: NDArray[np.float64],
    CtY: NDArray[np.float64],
    yty: NDArray[np.float64],
    nonzero: NDArray[np.int64],
) -> int:
    """Visit genes `start` to `stop` of every row, along the rows."""
    for i in range(rows.size):
        row, sums = Y[rows[i]], ZtY[codes[i]]
        for g in range(start, stop):
            stored = np.float64(row[columns[g]])
            y = stored - shift[g]
            sums[g] += y
            yty[g] += y * y
            nonzero[g] += stored != 0
        for k in range(C.shape[1]):
            c = C[i, k]
            for g in range(start, stop):
                CtY[k, g] += c * (np.float64(row[columns[g]]) - shift[g])
    return OK


@njit(nogil=True, cache=True)
def dense_columns(
    Y: NDArray,  # (n_obs, n_vars), columns contiguous
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    codes: NDArray[np.int32],
    C: NDArray[np.float64],
    shift: NDArray[np.float64],
    start: int,
    stop: int,
    ZtY: NDArray[np.float64],
    CtY: NDArray[np.float64],
    yty: NDArray[np.float64],
    nonzero: NDArray[np.int64],
) -> int:
    """Visit genes `start` to `stop` of every row, along the columns."""
    for g in range(start, stop):
        column = Y[:, columns[g]]
        for i in range(rows.size):
            stored = np.float64(column[rows[i]])
            y = stored - shift[g]
            ZtY[codes[i], g] += y
            yty[g] += y * y
            nonzero[g] += stored != 0
            for k in range(C.shape[1]):
                CtY[k, g] += C[i, k] * y
    return OK
