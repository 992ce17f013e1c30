"""A matrix of any layout -> the sums of one visit over its entries. Picks the compiled loop, its tasks and threads.

One function per array type; matrices that are not in memory, or whose entries need tidying first, come as blocks of
rows whose sums add. Nothing of the size of the matrix is allocated.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from scipy import sparse

from . import kernels
from .sums import Cells, InBlocks, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Tasks per visit: of a number that follows from the size alone, so that no result depends on threads; enough of them to
# even out a few threads, and of rows no more than pay for the sums per gene that each makes.
_N_TASKS, _ROWS_PER_TASK = 16, 1024
# Rows of an on-disk, lazy or untidy matrix held in memory at a time.
_BLOCK_ROWS = 4096


_SUPPORTED = (
    "Supported: numpy arrays, scipy CSR and CSC, and on-disk or lazy (dask) versions of these, of real numbers. "
    "Convert other sparse formats with .tocsr()."
)
_CORRUPT = "The sparse matrix has an index outside its shape: it is corrupt. Rebuild or reload it."


def check_matrix(matrix: Any) -> None:
    """Refuse what cannot be read, before anything is."""
    dtype = getattr(matrix, "dtype", None)
    readable = hasattr(matrix, "shape") and hasattr(matrix, "__getitem__") and not isinstance(matrix, np.ma.MaskedArray)
    if not readable or (sparse.issparse(matrix) and matrix.format not in ("csr", "csc")):
        msg = f"The matrix is a {type(matrix).__name__}, which cannot be read. {_SUPPORTED}"
        raise TypeError(msg)
    if dtype is None or np.dtype(dtype).kind not in "biuf":
        msg = f"The matrix holds values of type {dtype}, which are not real numbers. {_SUPPORTED}"
        raise TypeError(msg)


def visit(matrix: Any, cells: Cells, columns: NDArray[np.int64], advance: Callable[[float], object]) -> Sums:
    """Add up the entries of `matrix`; `advance` is told the share of the work that is done."""
    return visit_each(matrix, [cells], columns, advance)[0]


def visit_each(
    matrix: Any, groups: Sequence[Cells], columns: NDArray[np.int64], advance: Callable[[float], object]
) -> list[Sums]:
    """Add up the entries of disjoint groups of cells, every row being read once.

    In memory the rows of a group are looked up where they are. Of a matrix that comes in blocks, each block serves all
    groups before the next one is read.
    """
    check_matrix(matrix)
    in_memory = isinstance(matrix, np.ndarray) or sparse.issparse(matrix)
    if not (in_memory and _is_compiled(matrix.dtype)):
        return _visit_blocks(matrix, groups, columns, advance)
    n_cells = max(sum(cells.rows.size for cells in groups), 1)
    sums = []
    for cells in groups:

        def advance_of_all(done: float, share: float = cells.rows.size / n_cells) -> None:
            advance(share * done)

        sums.append(_visit_memory(matrix, cells, columns, advance_of_all))
    return sums


def _is_compiled(dtype: np.dtype) -> bool:
    """Whether the kernels take the type of number as it is; others are converted a block of rows at a time."""
    return dtype.isnative and dtype.itemsize <= 8 and dtype != np.float16


def _visit_blocks(
    matrix: Any, groups: Sequence[Cells], columns: NDArray[np.int64], advance: Callable[[float], object]
) -> list[Sums]:
    sums = [Sums.zeros(cells, columns.size) for cells in groups]
    in_blocks = [InBlocks(cells) for cells in groups]
    for start, block in row_blocks(matrix):
        known = block if _is_compiled(block.dtype) else block.astype(np.float64)
        for summed, cells in zip(sums, in_blocks, strict=True):
            levels, inside = cells.within(start, start + block.shape[0])
            if levels.size:
                summed.add(_visit_memory(known, inside, columns, _ignore), levels)
        advance(block.shape[0] / matrix.shape[0])
    return sums


@singledispatch
def _visit_memory(matrix: Any, cells: Cells, columns: NDArray[np.int64], advance: Callable[[float], object]) -> Sums:
    msg = f"A block of the matrix is a {type(matrix).__name__}, which cannot be read. {_SUPPORTED}"
    raise TypeError(msg)


@_visit_memory.register(np.ndarray)
def _visit_dense(
    matrix: np.ndarray, cells: Cells, columns: NDArray[np.int64], advance: Callable[[float], object]
) -> Sums:
    sums = Sums.zeros(cells, columns.size)
    by_column = matrix.flags.f_contiguous and not matrix.flags.c_contiguous
    kernel: Any = kernels.dense_columns if by_column else kernels.dense_rows
    weights, cells = _split_weights(cells)

    def task(start: int, stop: int) -> int:
        return kernel(matrix, cells, weights, columns, start, stop, sums)

    sums.negative[0] = sum(_run(task, _even_cuts(columns.size), advance))
    return sums


@_visit_memory.register(sparse.csc_matrix)
@_visit_memory.register(sparse.csc_array)
def _visit_csc(matrix: Any, cells: Cells, columns: NDArray[np.int64], advance: Callable[[float], object]) -> Sums:
    _check_pointers(matrix)
    sums = Sums.zeros(cells, columns.size)
    row_of = np.full(matrix.shape[0], -1, dtype=np.int32)
    row_of[cells.rows] = np.arange(cells.rows.size)
    stored = kernels.Stored(matrix.data, matrix.indices, matrix.indptr, matrix.shape[0])
    kernel: Any = kernels.csc_columns
    weights, cells = _split_weights(cells)

    def task(start: int, stop: int) -> int:
        return kernel(stored, row_of, cells, weights, columns, start, stop, sums)

    outcomes = list(_run(task, _even_cuts(columns.size), advance))
    sums.negative[0] = sum(outcomes)
    return _visit_tidied(matrix, cells._replace(weights=weights), columns) if kernels.UNTIDY in outcomes else sums


@_visit_memory.register(sparse.csr_matrix)
@_visit_memory.register(sparse.csr_array)
def _visit_csr(matrix: Any, cells: Cells, columns: NDArray[np.int64], advance: Callable[[float], object]) -> Sums:
    _check_pointers(matrix)
    sums, n_genes, n_columns = Sums.zeros(cells, columns.size), columns.size, cells.C.shape[1]
    stored = kernels.Stored(matrix.data, matrix.indices, matrix.indptr, matrix.shape[1])
    kernel: Any = kernels.csr_rows
    weights, padded = _split_weights(cells)
    padded = padded if n_columns else padded._replace(C=np.zeros((cells.rows.size, 1)))
    given: tuple[Any, ...] = (stored, padded, weights, _gene_of(columns, matrix.shape[1]))

    def task(start: int, stop: int) -> tuple[int, Array, Array]:
        acc = np.zeros((n_genes + 1, kernels.N_SLOTS + padded.C.shape[1] + padded.S.shape[1]))
        head = np.zeros((1 + padded.S.shape[1], n_genes))
        return kernel(*given, start, stop, acc, head, sums), acc, head

    cuts = _even_cuts(cells.rows.size, -(-cells.rows.size // _ROWS_PER_TASK))
    # Tasks arrive in the order of the cells, whichever thread was first, and their memory serves the next ones.
    for (start, _), (outcome, acc, head) in zip(cuts, _run(task, cuts, advance), strict=True):
        if outcome == kernels.UNTIDY:
            break
        sums.ZtY[cells.codes[start]] += head[0]
        sums.StY[:, cells.codes[start]] += head[1:]
        acc = acc[:-1]  # without the spare gene
        sums.yty[:] += acc[:, kernels.SQUARE]
        sums.nonzero[:] += acc[:, kernels.NONZERO].astype(np.int64)
        sums.CtY[:] += acc[:, kernels.N_SLOTS :][:, :n_columns].T
        sums.negative[0] += outcome
    else:
        return sums
    return _visit_tidied(matrix, cells, columns)


def _split_weights(cells: Cells) -> tuple[Array, Cells]:
    """Weights as an array, and the cells without them: one compiled loop then serves weighted and other cells."""
    weights = np.ones(cells.rows.size) if cells.weights is None else cells.weights
    return weights, cells._replace(weights=None)


def _gene_of(columns: NDArray[np.int64], n_vars: int) -> NDArray[np.uint32] | None:
    """Gene of each matrix column, G where it is not tested; None if that is the column itself."""
    if np.array_equal(columns, np.arange(n_vars)):
        return None
    gene_of = np.full(n_vars, columns.size, dtype=np.uint32)
    gene_of[columns] = np.arange(columns.size)
    return gene_of


def row_blocks(matrix: Any) -> Iterator[tuple[int, Any]]:
    """Blocks of rows in memory, each with its first row, of a matrix that is on disk or lazy."""
    for start in range(0, matrix.shape[0], _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS]
        block = block.compute() if hasattr(block, "compute") else block
        yield start, block if sparse.issparse(block) else np.asarray(block)


def _visit_tidied(matrix: Any, cells: Cells, columns: NDArray[np.int64]) -> Sums:
    """Visit blocks of rows whose entries were sorted and duplicates summed, leaving the matrix as it is."""
    if matrix.indices.min() < 0 or matrix.indices.max() >= matrix.shape[0 if matrix.format == "csc" else 1]:
        raise ValueError(_CORRUPT)  # scipy would not notice
    sums, in_blocks = Sums.zeros(cells, columns.size), InBlocks(cells)
    for start, block in row_blocks(matrix):
        tidy = sparse.csr_array(block)
        tidy = tidy.copy() if np.may_share_memory(tidy.data, matrix.data) else tidy  # a slice usually is a copy
        tidy.sum_duplicates()
        levels, inside = in_blocks.within(start, start + tidy.shape[0])
        if levels.size:
            sums.add(_visit_memory(tidy, inside, columns, _ignore), levels)
    return sums


def _run(
    task: Callable[[int, int], Any], cuts: Sequence[tuple[int, int]], advance: Callable[[float], object]
) -> Iterator[Any]:
    """Results of the tasks in their order, computed by threads."""
    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        for result in pool.map(lambda cut: task(*cut), cuts):
            yield result
            advance(1 / len(cuts))


def _even_cuts(size: int, most: int = _N_TASKS) -> list[tuple[int, int]]:
    edges = np.linspace(0, size, min(_N_TASKS, most, size) + 1).astype(int)
    return [(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _check_pointers(matrix: Any) -> None:
    pointers, n_stored = matrix.indptr, min(matrix.indices.size, matrix.data.size)
    major = matrix.shape[1 if matrix.format == "csc" else 0]
    if pointers.size != major + 1 or pointers[0] < 0 or pointers[-1] > n_stored or (np.diff(pointers) < 0).any():
        msg = "The sparse matrix has row pointers that decrease or point past its data: it is corrupt. Reload it."
        raise ValueError(msg)


def _ignore(share: float) -> None:
    pass
