"""Expression x Design -> SufficientStatistics, in one visit of the matrix. After this file nothing sees a cell.

A gene enters the likelihood through X'y (p), Z'y (q) and y'y (1) alone, so a cohort of any number of cells becomes
p + q + 1 numbers per gene. The statistics of disjoint sets of cells add.

Numerics: columns of X are centred and scaled, and y is taken from a shift, because a sum of squares by subtraction
loses twice the digits of mean/sd. The shift is 0 unless the visit finds a gene whose mean dwarfs its spread; only
such genes are visited a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg
from tqdm.auto import tqdm

from .._blas import one_blas_thread
from .visit import Cells, Genes, Sums, visit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Design, Hypothesis

    Array = NDArray[np.float64]

# A gene with mean^2 / variance above this loses more than four of sixteen digits and is shifted by its mean.
_SHIFT_RATIO = 1e4


@dataclass(frozen=True)
class SufficientStatistics:
    """What the likelihood of every gene needs to know of the cells: q levels, p columns, G genes."""

    sizes: Array  # (q,) cells per level, the diagonal of Z'Z
    XtX: Array  # (p, p) in standardised columns
    ZtX: Array  # (q, p)
    XtY: Array  # (p, G)
    ZtY: Array  # (q, G)
    yty: Array  # (G,)
    nonzero: NDArray[np.int64]  # (G,) cells that express the gene
    shift: Array  # (G,) what was subtracted from y
    basis: Array  # (p_user, p) standardised columns = user's columns @ basis, so beta = basis @ beta_standardised
    ones: Array | None  # (p,) standardised coefficients that give a column of ones, None if X cannot

    @property
    def n_cells(self) -> int:
        """Cells, n."""
        return int(self.sizes.sum())

    @property
    def n_genes(self) -> int:
        """Genes, G."""
        return self.yty.size

    @cached_property
    def total(self) -> Array:
        """Sum of y per gene, (G,)."""
        return self.ZtY.sum(axis=0)

    @property
    def mean(self) -> Array:
        """Mean expression per gene, (G,)."""
        return self.total / self.n_cells + self.shift

    @property
    def total_ss(self) -> Array:
        """Sum of squares about the gene's mean, (G,)."""
        with np.errstate(invalid="ignore"):  # genes with infinite entries, which the caller refuses
            return np.maximum(self.yty - self.total**2 / self.n_cells, 0.0)

    def genes(self, index: slice | NDArray[Any]) -> SufficientStatistics:
        """Statistics of some of the genes, contiguous, so that another process computes with the same arrays."""
        per_gene = ("XtY", "ZtY", "yty", "nonzero", "shift")
        return replace(self, **{name: np.ascontiguousarray(getattr(self, name)[..., index]) for name in per_gene})

    def restrict(self, span: Array) -> SufficientStatistics:
        """Statistics of the model whose fixed effects are X span, with `span` (p, p0).

        The null hypothesis L beta = 0 is the model with span = null space of L.
        """
        ones: Any = None if self.ones is None else np.linalg.lstsq(span, self.ones, rcond=None)[0]
        stats = self
        if self.ones is None or ones is None or not np.allclose(span @ ones, self.ones, atol=1e-9):
            # The restricted model cannot absorb a constant, so the shift has to be undone.
            stats, ones = self.with_shift(np.zeros(self.n_genes)), None
        return replace(
            stats,
            XtX=span.T @ stats.XtX @ span,
            ZtX=stats.ZtX @ span,
            XtY=span.T @ stats.XtY,
            basis=stats.basis @ span,
            ones=ones,
        )

    def with_shift(self, shift: Array) -> SufficientStatistics:
        """Express the same statistics with another shift, by algebra."""
        step = self.shift - shift
        if not step.any():
            return self
        return replace(
            self,
            XtY=self.XtY + np.outer(self.ZtX.sum(axis=0), step),
            ZtY=self.ZtY + np.outer(self.sizes, step),
            yty=self.yty + 2 * step * self.total + step**2 * self.n_cells,
            shift=shift,
        )

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        """Statistics of two disjoint sets of cells under one design."""
        if not np.array_equal(self.basis, other.basis):
            msg = "Statistics add only if they come from one design: their standardised columns differ."
            raise ValueError(msg)
        other = other.with_shift(self.shift)
        summed = [f.name for f in fields(self) if f.name not in ("shift", "basis", "ones")]
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in summed})


def null_model(stats: SufficientStatistics, hypothesis: Hypothesis) -> SufficientStatistics:
    """Statistics of the model in which the hypothesis holds: beta in the null space of L."""
    return stats.restrict(linalg.null_space(hypothesis.L @ stats.basis))


def within_products(stats: SufficientStatistics) -> Array:
    """Cross-products of X about its level means, W (p, p)."""
    return stats.XtX - stats.ZtX.T @ (stats.ZtX / stats.sizes[:, None])


@one_blas_thread()
def sufficient_statistics(
    matrix: Any,
    design: Design,
    *,
    rows: NDArray[np.int64] | None = None,
    columns: NDArray[np.int64] | None = None,
    show_progress: bool | None = None,
) -> SufficientStatistics:
    """Read the expression matrix once.

    Parameters
    ----------
    matrix
        Expression, cells x genes: dense (C or F order), sparse (CSR, CSC), on disk or lazy, any real dtype.
    design
        The model of n cells.
    rows, columns
        Which matrix row each of the n cells is, and which matrix columns are the genes; by default all.
    show_progress
        Show a bar: always, never, or (None) if reading takes longer than a second.
    """
    rows = np.flatnonzero(design.kept) if rows is None else rows
    columns = np.arange(matrix.shape[1]) if columns is None else columns
    basis, ones = _standardising_basis(design)
    X, level = design.X @ basis, design.random
    order = np.argsort(level.codes, kind="stable")
    starts = np.searchsorted(level.codes[order], np.arange(len(level.levels)))
    ZtX = np.add.reduceat(X[order], starts)
    varies = _varies_within(X[order], starts)
    C = np.ascontiguousarray(X[order][:, varies])
    cells = Cells(rows[order].astype(np.int64), level.codes[order], C, C[:, :0], len(level.levels))

    def read(columns: NDArray[np.int64], shift: Array) -> SufficientStatistics:
        with _bar(show_progress=show_progress) as bar:
            sums = visit(matrix, cells, Genes(columns.astype(np.int64), shift), bar.update)
        return SufficientStatistics(
            sizes=level.sizes,
            XtX=X.T @ X,
            ZtX=ZtX,
            XtY=_fixed_products(sums, ZtX / level.sizes[:, None], varies),
            ZtY=sums.ZtY,
            yty=sums.yty,
            nonzero=sums.nonzero,
            shift=shift,
            basis=basis,
            ones=ones,
        )

    stats = read(columns, np.zeros(columns.size))
    far = _far_from_zero(stats)
    return stats if far.size == 0 else _replace_genes(stats, far, read(columns[far], stats.mean[far]))


def _standardising_basis(design: Design) -> tuple[Array, Array | None]:
    """Transform (p, p) to columns of unit length per cell, centred if X can give a constant, and how it gives it."""
    X = design.X
    if "Intercept" not in design.coef_names:
        length = np.sqrt((X**2).mean(axis=0))
        return np.diag(1 / length), None if design.constant is None else length * design.constant
    intercept = design.coef_names.index("Intercept")
    mean, spread = X.mean(axis=0), X.std(axis=0)
    spread[intercept], mean[intercept] = 1.0, 0.0
    basis = np.diag(1 / spread)
    basis[intercept] -= mean / spread
    return basis, np.eye(X.shape[1])[intercept]


def _varies_within(X: Array, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Columns that are not constant in every level, (p,); the others follow from the sums per level."""
    spread = np.maximum.reduceat(X, starts) - np.minimum.reduceat(X, starts)
    return spread.max(axis=0) > 1e-12 * np.abs(X).max(axis=0)


def _fixed_products(sums: Sums, level_means: Array, varies: NDArray[np.bool_]) -> Array:
    XtY = level_means.T @ sums.ZtY
    XtY[varies] = sums.CtY
    return XtY


def _far_from_zero(stats: SufficientStatistics) -> NDArray[np.int64]:
    """Genes that every cell expresses at nearly the same level: only they can be shifted, and only they need it."""
    everywhere = stats.nonzero == stats.n_cells
    variance = stats.total_ss / stats.n_cells
    far = (
        everywhere & (stats.mean**2 > _SHIFT_RATIO * variance) if stats.ones is not None else np.zeros_like(everywhere)
    )
    return np.flatnonzero(far)


def _replace_genes(
    stats: SufficientStatistics, index: NDArray[np.int64], part: SufficientStatistics
) -> SufficientStatistics:
    arrays = {name: getattr(stats, name).copy() for name in ("XtY", "ZtY", "yty", "nonzero", "shift")}
    for name, array in arrays.items():
        array[..., index] = getattr(part, name)
    return replace(stats, **arrays)


def _bar(*, show_progress: bool | None) -> tqdm:
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    delay = 0 if show_progress else 1
    return tqdm(total=1.0, desc="reading", bar_format=form, delay=delay, disable=show_progress is False, leave=False)
