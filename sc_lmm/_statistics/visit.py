"""A matrix of any layout -> the sums of one visit over its entries. Picks the compiled loop, its tasks and threads.

One function per array type; matrices that are not in memory, or whose entries need tidying first, come as blocks of
rows whose sums add. Nothing of the size of the matrix is allocated.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import singledispatch
from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np
from scipy import sparse

from . import kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Tasks per visit: fixed, so that no result depends on threads; enough of them to even out a few threads.
_N_TASKS = 16
# Rows of an on-disk, lazy or untidy matrix held in memory at a time.
_BLOCK_ROWS = 4096


class Cells(NamedTuple):
    """The cells of a design sorted by level, with what each contributes beside its expression."""

    rows: NDArray[np.int64]  # (n,) position in the matrix
    codes: NDArray[np.int32]  # (n,) level, ascending
    C: Array  # (n, n_columns) columns of X that vary within levels
    S: Array  # (n, n_slopes) columns whose products are wanted per level
    n_levels: int

    def within(self, start: int, stop: int) -> Cells:
        """Take the cells in matrix rows `start` to `stop`, counted from there."""
        chosen = self._take((self.rows >= start) & (self.rows < stop))
        return chosen._replace(rows=chosen.rows - start)

    def between(self, first: int, last: int) -> Cells:
        """Take the cells `first` to `last` in their present order."""
        return self._take(slice(first, last))

    def _take(self, index: slice | NDArray[np.bool_]) -> Cells:
        return self._replace(rows=self.rows[index], codes=self.codes[index], C=self.C[index], S=self.S[index])


class Genes(NamedTuple):
    """The genes to visit."""

    columns: NDArray[np.int64]  # (G,) position in the matrix
    shift: Array  # (G,) subtracted from every entry; not 0 only where all entries are stored


class Sums(NamedTuple):
    """What a visit adds up over cells; see :mod:`sc_lmm._statistics.kernels`."""

    ZtY: Array  # (q, G)
    CtY: Array  # (n_columns, G)
    yty: Array  # (G,)
    nonzero: NDArray[np.int64]  # (G,)
    StY: Array  # (n_slopes, q, G)

    def plus(self, other: Sums) -> Sums:
        """Sums over both sets of cells."""
        return Sums(*map(np.add, self, other))

    @classmethod
    def zeros(cls, cells: Cells, genes: Genes) -> Sums:
        """Sums over no cells."""
        n_genes = genes.columns.size
        return cls(
            ZtY=np.zeros((cells.n_levels, n_genes)),
            CtY=np.zeros((cells.C.shape[1], n_genes)),
            yty=np.zeros(n_genes),
            nonzero=np.zeros(n_genes, dtype=np.int64),
            StY=np.zeros((cells.S.shape[1], cells.n_levels, n_genes)),
        )


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


def visit(matrix: Any, cells: Cells, genes: Genes, advance: Callable[[float], object]) -> Sums:
    """Add up the entries of `matrix`; `advance` is told the share of the work that is done."""
    check_matrix(matrix)
    if _is_in_memory(matrix):
        return _visit_memory(matrix, cells, genes, advance)
    sums = Sums.zeros(cells, genes)
    for start, block in _compiled_blocks(matrix):
        sums = sums.plus(_visit_memory(block, cells.within(start, start + block.shape[0]), genes, _ignore))
        advance(block.shape[0] / matrix.shape[0])
    return sums


def visit_in_parts(
    matrix: Any, cells: Cells, genes: Genes, most_levels: int, advance: Callable[[float], object]
) -> Iterator[tuple[NDArray[np.int64], Sums]]:
    """Visit each cell once, the sums of a limited number of levels at a time: pairs of which levels, and their sums."""
    check_matrix(matrix)
    for start, block in [(0, matrix)] if _is_in_memory(matrix) else _compiled_blocks(matrix):
        inside = cells.within(start, start + block.shape[0])
        runs = np.flatnonzero(np.diff(inside.codes, prepend=-1))[::most_levels]
        for first, last in zip(runs, np.append(runs[1:], inside.codes.size), strict=True):
            levels, codes = np.unique(inside.codes[first:last], return_inverse=True)
            part = inside.between(first, last)._replace(codes=codes.astype(np.int32), n_levels=levels.size)
            yield levels.astype(np.int64), _visit_memory(block, part, genes, _ignore)
            advance(part.rows.size / cells.rows.size)


def _is_compiled(dtype: np.dtype) -> bool:
    """Whether the kernels take the type of number as it is; others are converted a block of rows at a time."""
    return dtype.isnative and dtype.itemsize <= 8 and dtype != np.float16


def _is_in_memory(matrix: Any) -> bool:
    return (isinstance(matrix, np.ndarray) or sparse.issparse(matrix)) and _is_compiled(matrix.dtype)


def _compiled_blocks(matrix: Any) -> Iterator[tuple[int, Any]]:
    """Blocks of rows that the kernels take, each with its first row."""
    for start, block in row_blocks(matrix):
        yield start, block if _is_compiled(block.dtype) else block.astype(np.float64)


@singledispatch
def _visit_memory(matrix: Any, cells: Cells, genes: Genes, advance: Callable[[float], object]) -> Sums:
    msg = f"A block of the matrix is a {type(matrix).__name__}, which cannot be read. {_SUPPORTED}"
    raise TypeError(msg)


@_visit_memory.register(np.ndarray)
def _visit_dense(matrix: np.ndarray, cells: Cells, genes: Genes, advance: Callable[[float], object]) -> Sums:
    sums = Sums.zeros(cells, genes)
    by_column = matrix.flags.f_contiguous and not matrix.flags.c_contiguous
    kernel: Any = kernels.dense_columns if by_column else kernels.dense_rows

    def task(start: int, stop: int) -> int:
        inputs: tuple[Any, ...] = (matrix, cells.rows, genes.columns, cells.codes, cells.C, cells.S, genes.shift)
        return kernel(*inputs, start, stop, *sums)

    for _ in _run(task, _even_cuts(genes.columns.size), advance):
        pass
    return sums


@_visit_memory.register(sparse.csc_matrix)
@_visit_memory.register(sparse.csc_array)
def _visit_csc(matrix: Any, cells: Cells, genes: Genes, advance: Callable[[float], object]) -> Sums:
    _check_pointers(matrix)
    sums = Sums.zeros(cells, genes)
    code_of = np.full(matrix.shape[0], -1, dtype=np.int32)
    code_of[cells.rows] = cells.codes
    kernel: Any = kernels.csc_columns
    C_of, S_of = (np.zeros((matrix.shape[0], columns.shape[1])) for columns in (cells.C, cells.S))
    C_of[cells.rows], S_of[cells.rows] = cells.C, cells.S

    def task(start: int, stop: int) -> int:
        stored = (matrix.data, matrix.indices, matrix.indptr)
        return kernel(*stored, genes.columns, code_of, C_of, S_of, genes.shift, start, stop, *sums)

    outcomes = list(_run(task, _even_cuts(genes.columns.size), advance))
    return _visit_tidied(matrix, cells, genes) if kernels.UNTIDY in outcomes else sums


@_visit_memory.register(sparse.csr_matrix)
@_visit_memory.register(sparse.csr_array)
def _visit_csr(matrix: Any, cells: Cells, genes: Genes, advance: Callable[[float], object]) -> Sums:
    _check_pointers(matrix)
    n_genes = genes.columns.size
    sums = Sums.zeros(cells, genes)
    C = cells.C if cells.C.shape[1] else np.zeros((cells.rows.size, 1))
    gene_of = _gene_of(genes, matrix.shape[1])
    shift = np.append(genes.shift, 0.0) if genes.shift.any() else None
    kernel: Any = kernels.csr_rows

    def task(start: int, stop: int) -> tuple[int, Array, Array]:
        n_slopes = cells.S.shape[1]
        acc, head = np.zeros((n_genes + 1, kernels.N_SLOTS + C.shape[1] + n_slopes)), np.zeros((1 + n_slopes, n_genes))
        stored = (matrix.data, matrix.indices, matrix.indptr, matrix.shape[1])
        place: tuple[Any, ...] = (cells.rows, cells.codes, C, cells.S, gene_of, shift, start, stop)
        return kernel(*stored, *place, acc, head, sums.ZtY, sums.StY), acc, head

    cuts = _even_cuts(cells.rows.size)
    # Tasks arrive in the order of the cells, whichever thread was first, and their memory serves the next ones.
    for (start, _), (outcome, acc, head) in zip(cuts, _run(task, cuts, advance), strict=True):
        if outcome == kernels.UNTIDY:
            break
        sums.ZtY[cells.codes[start]] += head[0]
        sums.StY[:, cells.codes[start]] += head[1:]
        acc = acc[:-1]  # without the spare gene
        sums.yty[:] += acc[:, kernels.SQUARE]
        sums.nonzero[:] += acc[:, kernels.NONZERO].astype(np.int64)
        sums.CtY[:] += acc[:, kernels.N_SLOTS :][:, : cells.C.shape[1]].T
    else:
        return sums
    return _visit_tidied(matrix, cells, genes)


def _gene_of(genes: Genes, n_vars: int) -> NDArray[np.uint32] | None:
    """Gene of each matrix column, G where it is not tested; None if that is the column itself."""
    if np.array_equal(genes.columns, np.arange(n_vars)):
        return None
    gene_of = np.full(n_vars, genes.columns.size, dtype=np.uint32)
    gene_of[genes.columns] = np.arange(genes.columns.size)
    return gene_of


def row_blocks(matrix: Any) -> Iterator[tuple[int, Any]]:
    """Blocks of rows in memory, each with its first row, of a matrix that is on disk or lazy."""
    for start in range(0, matrix.shape[0], _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS]
        block = block.compute() if hasattr(block, "compute") else block
        yield start, block if sparse.issparse(block) else np.asarray(block)


def _visit_tidied(matrix: Any, cells: Cells, genes: Genes) -> Sums:
    """Visit blocks of rows whose entries were sorted and duplicates summed, leaving the matrix as it is."""
    if matrix.indices.min() < 0 or matrix.indices.max() >= matrix.shape[0 if matrix.format == "csc" else 1]:
        raise ValueError(_CORRUPT)  # scipy would not notice
    sums = Sums.zeros(cells, genes)
    for start, block in row_blocks(matrix):
        tidy = sparse.csr_array(block)
        tidy = tidy.copy() if np.may_share_memory(tidy.data, matrix.data) else tidy  # a slice usually is a copy
        tidy.sum_duplicates()
        sums = sums.plus(_visit_memory(tidy, cells.within(start, start + tidy.shape[0]), genes, _ignore))
    return sums


def _run(
    task: Callable[[int, int], Any], cuts: Sequence[tuple[int, int]], advance: Callable[[float], object]
) -> Iterator[Any]:
    """Results of the tasks in their order, computed by threads."""
    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        for result in pool.map(lambda cut: task(*cut), cuts):
            yield result
            advance(1 / len(cuts))


def _even_cuts(size: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, size, min(_N_TASKS, size) + 1).astype(int)
    return [(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _check_pointers(matrix: Any) -> None:
    pointers, n_stored = matrix.indptr, min(matrix.indices.size, matrix.data.size)
    major = matrix.shape[1 if matrix.format == "csc" else 0]
    if pointers.size != major + 1 or pointers[0] < 0 or pointers[-1] > n_stored or (np.diff(pointers) < 0).any():
        msg = "The sparse matrix has row pointers that decrease or point past its data: it is corrupt. Reload it."
        raise ValueError(msg)


def _ignore(share: float) -> None:
    pass
