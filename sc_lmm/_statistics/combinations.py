"""Expression x fixed columns x random terms -> TermStatistics, in one visit of the matrix for any number of terms.

The cells are sorted by the combination of levels to which they belong (one donor's cells of one batch), and the visit
adds up y, and s y of each slope column s, within each combination: the sums of every grouping are sums of these. Columns
that are constant within combinations cost nothing, nor does a fixed column that is a slope column too.

Beside the statistics the visit holds the sums of some combinations at a time. When there are more than fit `_BUDGET`,
the cells are visited in parts, each cell still once; only of a matrix whose columns are contiguous does every part pass
over all indices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import linalg, sparse

from .._blas import one_blas_thread
from .sufficient import _SHIFT_RATIO, _bar
from .term_statistics import TermStatistics
from .terms import grouped
from .visit import Cells, Genes, visit_in_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from .terms import GroupedCells, Term

    Array = NDArray[np.float64]

# Bytes of the sums per combination that are held at a time.
_BUDGET = 1 << 28
# A column that varies within combinations by less than this share of its length is constant there.
_CONSTANT = 1e-10


class _Plan(NamedTuple):
    """How the sums over combinations make Z'Y and X'Y: c combinations, L slope columns."""

    cells: Cells
    of_sums: sparse.csr_array  # (q, c)
    of_slopes: tuple[sparse.csr_array, ...]  # L times (q, c)
    X_of_sums: Array  # (c, p)
    X_of_slopes: Array  # (L, p)
    X_of_rest: Array  # (n_columns, p)


@one_blas_thread()
def term_statistics(
    matrix: Any,
    X: Array,
    terms: Sequence[Term],
    *,
    basis: Array,
    ones: Array | None,
    rows: NDArray[np.int64] | None = None,
    columns: NDArray[np.int64] | None = None,
    show_progress: bool | None = None,
) -> TermStatistics:
    """Read the expression matrix once.

    Parameters
    ----------
    matrix
        Expression, cells x genes, of any layout that is supported.
    X
        Fixed columns of the n cells, well-conditioned: the user's columns @ `basis`.
    terms
        Random terms.
    basis, ones
        How `X` was made, and the coefficients with which it gives a column of ones.
    rows, columns
        Which matrix row each of the n cells is, and which matrix columns are the genes; by default all.
    show_progress
        Show a bar: always, never, or (None) if reading takes longer than a second.
    """
    rows = np.arange(len(X)) if rows is None else rows
    columns = np.arange(matrix.shape[1]) if columns is None else columns
    groups = grouped(terms)
    Z = sparse.csr_array(sparse.hstack([group.Z for group in groups]))
    plan = _plan(groups, X, rows.astype(np.int64))

    def read(columns: NDArray[np.int64], shift: Array) -> TermStatistics:
        with _bar(show_progress=show_progress) as bar:
            sums = _visit(matrix, plan, Genes(columns.astype(np.int64), shift), bar.update)
        return TermStatistics(
            groupings=tuple(group.grouping for group in groups),
            ZtZ=sparse.csr_array(Z.T @ Z),
            ZtX=Z.T @ X,
            Zt1=Z.sum(axis=0),
            XtX=X.T @ X,
            Xt1=X.sum(axis=0),
            n_cells=len(X),
            **sums,
            shift=shift,
            basis=basis,
            ones=ones,
        )

    stats = read(columns, np.zeros(columns.size))
    far = _far_from_zero(stats)
    return stats if far.size == 0 else _replace_genes(stats, far, read(columns[far], stats.mean[far]))


def _plan(groups: Sequence[GroupedCells], X: Array, rows: NDArray[np.int64]) -> _Plan:
    codes = _combinations(groups)
    order = np.argsort(codes, kind="stable")
    mean = _Means(codes, order, np.searchsorted(codes[order], np.arange(codes.max() + 1)))
    S, of_sums, of_slopes = _random_columns(groups, mean)
    X_mean, S_mean = mean(X), mean(S)
    X_within, S_within = X - X_mean[codes], S - S_mean[codes]
    X_of_slopes: Array = np.linalg.lstsq(S_within, X_within, rcond=None)[0]
    C, X_of_rest = _independent(X_within - S_within @ X_of_slopes)
    cells = Cells(
        rows=rows[order],
        codes=codes[order].astype(np.int32),
        C=np.ascontiguousarray(C[order]),
        S=np.ascontiguousarray(S[order]),
        n_levels=mean.starts.size,
    )
    return _Plan(cells, of_sums, of_slopes, X_mean - S_mean @ X_of_slopes, X_of_slopes, X_of_rest)


def _independent(columns: Array) -> tuple[Array, Array]:
    """As few columns C as `columns` (n, p) are combinations of, and how: columns = C @ the second."""
    Q, R, order = linalg.qr(columns, mode="economic", pivoting=True)
    rank = int((np.abs(np.diag(R)) > _CONSTANT * np.sqrt(len(columns))).sum())
    return Q[:, :rank], R[:rank, np.argsort(order)]


def _combinations(groups: Sequence[GroupedCells]) -> NDArray[np.int64]:
    """Combination of levels of each cell, (n,)."""
    codes = np.zeros(groups[0].codes.size, dtype=np.int64)
    for group in groups:
        _, codes = np.unique(codes * group.grouping.n_levels + group.codes, return_inverse=True)
    return codes


class _Means(NamedTuple):
    """Means over the cells of each combination."""

    codes: NDArray[np.int64]  # (n,)
    order: NDArray[np.int64]  # (n,) cells sorted by combination
    starts: NDArray[np.int64]  # (c,)

    def __call__(self, columns: Array) -> Array:
        """Means (c, k) of columns (n, k)."""
        counts = np.diff(self.starts, append=self.order.size)
        return np.add.reduceat(columns[self.order], self.starts) / counts[:, None]


def _random_columns(
    groups: Sequence[GroupedCells], mean: _Means
) -> tuple[Array, sparse.csr_array, tuple[sparse.csr_array, ...]]:
    """Slope columns that vary within combinations, each once, (n, L), and how sums of y and of s y make Z'Y."""
    slopes: list[Array] = []
    of_sums = _Entries([], [])
    of_slopes: list[_Entries] = []
    offset = 0
    for group in groups:
        for a, column in enumerate(group.columns.T):
            value = mean(column[:, None])[:, 0]
            at = offset + group.codes[mean.order[mean.starts]].astype(np.int64) * group.grouping.r + a
            if np.abs(column - value[mean.codes]).max() <= _CONSTANT * np.abs(column).max():
                of_sums.add(value, at)
                continue
            known = [k for k, slope in enumerate(slopes) if np.array_equal(slope, column)]
            if not known:
                slopes.append(column)
                of_slopes.append(_Entries([], []))
            (of_slopes[known[0]] if known else of_slopes[-1]).add(np.ones(value.size), at)
        offset += group.grouping.q
    S = np.column_stack(slopes) if slopes else np.empty((mean.codes.size, 0))
    shape = (offset, mean.starts.size)
    return S, of_sums.matrix(shape), tuple(entries.matrix(shape) for entries in of_slopes)


class _Entries(NamedTuple):
    """What each combination adds to which row of Z'Y, random column by random column."""

    values: list[Array]  # (c,) each
    rows: list[NDArray[np.int64]]  # (c,) each

    def add(self, values: Array, rows: NDArray[np.int64]) -> None:
        self.values.append(values)
        self.rows.append(rows)

    def matrix(self, shape: tuple[int, int]) -> sparse.csr_array:
        """The map from combinations to Z'Y, (q, c)."""
        rows = np.concatenate([np.empty(0, dtype=np.int64), *self.rows])
        combinations = np.tile(np.arange(shape[1]), len(self.rows))
        return sparse.csr_array((np.concatenate([np.empty(0), *self.values]), (rows, combinations)), shape=shape)


def _visit(matrix: Any, plan: _Plan, genes: Genes, advance: Callable[[float], object]) -> dict[str, Any]:
    """Sums over the cells, by the names of their fields in TermStatistics."""
    n_genes, n_slopes = genes.columns.size, plan.cells.S.shape[1]
    most = max(1, _BUDGET // (8 * max(1, n_genes) * (1 + n_slopes)))
    ZtY, XtY = np.zeros((plan.of_sums.shape[0], n_genes)), np.zeros((plan.X_of_sums.shape[1], n_genes))
    total, yty, nonzero = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes, dtype=np.int64)
    for present, sums in visit_in_parts(matrix, plan.cells, genes, most, advance):
        ZtY += plan.of_sums[:, present] @ sums.ZtY
        for place, products in zip(plan.of_slopes, sums.StY, strict=True):
            ZtY += place[:, present] @ products
        XtY += plan.X_of_sums[present].T @ sums.ZtY
        XtY += plan.X_of_slopes.T @ sums.StY.sum(axis=1) + plan.X_of_rest.T @ sums.CtY
        total += sums.ZtY.sum(axis=0)
        yty += sums.yty
        nonzero += sums.nonzero
    return {"ZtY": ZtY, "XtY": XtY, "total": total, "yty": yty, "nonzero": nonzero}


def _far_from_zero(stats: TermStatistics) -> NDArray[np.int64]:
    """Genes that every cell expresses at nearly the same level: only they can be shifted, and only they need it."""
    if stats.ones is None:
        return np.empty(0, dtype=np.int64)
    far = stats.mean**2 > _SHIFT_RATIO * stats.total_ss / stats.n_cells
    return np.flatnonzero((stats.nonzero == stats.n_cells) & far)


def _replace_genes(stats: TermStatistics, index: NDArray[np.int64], part: TermStatistics) -> TermStatistics:
    for name in ("ZtY", "XtY", "total", "yty", "nonzero", "shift"):
        getattr(stats, name)[..., index] = getattr(part, name)
    return stats
