"""What the likelihood of every gene needs to know of the cells when there are several random terms, or slopes.

With U = [Z X] the columns of all groupings (see :mod:`sc_lmm._statistics.terms`) and the fixed ones, a gene enters the
likelihood through U'y and y'y alone, and the design through U'U, whose part of Z is sparse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

    from .terms import Grouping

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class TermStatistics:
    """Products of q random columns, p fixed columns and the expression of G genes."""

    groupings: tuple[Grouping, ...]
    ZtZ: sparse.csr_array  # (q, q) in the standardised columns of the groupings
    ZtX: Array  # (q, p)
    Zt1: Array  # (q,)
    XtX: Array  # (p, p) in well-conditioned columns
    Xt1: Array  # (p,)
    n_cells: int
    ZtY: Array  # (q, G)
    XtY: Array  # (p, G)
    total: Array  # (G,) sum of y
    yty: Array  # (G,)
    nonzero: NDArray[np.int64]  # (G,) cells that express the gene
    shift: Array  # (G,) what was subtracted from y
    basis: Array  # (p_user, p) columns = user's columns @ basis
    ones: Array | None  # (p,) coefficients that give a column of ones, None if X cannot

    @property
    def n_genes(self) -> int:
        """Genes, G."""
        return self.yty.size

    @property
    def mean(self) -> Array:
        """Mean expression per gene, (G,)."""
        return self.total / self.n_cells + self.shift

    @property
    def total_ss(self) -> Array:
        """Sum of squares about the gene's mean, (G,)."""
        with np.errstate(invalid="ignore"):  # genes with infinite entries, which the caller refuses
            return np.maximum(self.yty - self.total**2 / self.n_cells, 0.0)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where the columns of each grouping begin in Z, and where the last ones end."""
        return np.cumsum([0, *(grouping.q for grouping in self.groupings)])

    def genes(self, index: slice | NDArray[Any]) -> TermStatistics:
        """Statistics of some of the genes."""
        per_gene = ("ZtY", "XtY", "total", "yty", "nonzero", "shift")
        chosen: dict[str, Any] = {name: np.ascontiguousarray(getattr(self, name)[..., index]) for name in per_gene}
        return replace(self, **chosen)

    def restrict(self, span: Array) -> TermStatistics:
        """Statistics of the model whose fixed effects are X span, with `span` (p, p0)."""
        ones: Any = None if self.ones is None else np.linalg.lstsq(span, self.ones, rcond=None)[0]
        stats = self
        if self.ones is None or ones is None or not np.allclose(span @ ones, self.ones, atol=1e-9):
            # The restricted model cannot absorb a constant, so the shift has to be undone.
            stats, ones = self.with_shift(np.zeros(self.n_genes)), None
        return replace(
            stats,
            ZtX=stats.ZtX @ span,
            XtX=span.T @ stats.XtX @ span,
            Xt1=span.T @ stats.Xt1,
            XtY=span.T @ stats.XtY,
            basis=stats.basis @ span,
            ones=ones,
        )

    def with_shift(self, shift: Array) -> TermStatistics:
        """Express the same statistics with another shift, by algebra."""
        step = self.shift - shift
        if not step.any():
            return self
        return replace(
            self,
            ZtY=self.ZtY + np.outer(self.Zt1, step),
            XtY=self.XtY + np.outer(self.Xt1, step),
            total=self.total + step * self.n_cells,
            yty=self.yty + 2 * step * self.total + step**2 * self.n_cells,
            shift=shift,
        )

    def null_model(self, L: Array) -> TermStatistics:
        """Statistics of the model in which L beta = 0, with `L` (df, p_user)."""
        return self.restrict(linalg.null_space(L @ self.basis))
