"""What the likelihood knows of the genes: SufficientStatistics.

Let D (n, w) be an orthonormal basis of the columns of X about their level means. A gene enters the likelihood through
its coordinates Z'y (q) and D'y (w), and the sum of squares that these leave, alone: a cohort of any number of cells
becomes q + w + 1 numbers per gene. The statistics of disjoint sets of cells add.

Z and D are orthogonal, so that every later product is a sum of squares of coordinates and never a difference of large
numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg

from .._design import TOLERANCE, unit
from .._errors import DesignError
from .standard import Standard, factor, is_independent, standardised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Hypothesis
    from .terms import Grouping

    Array = NDArray[np.float64]

# A combination of columns is a column of ones if it is in all digits: what is not would be a part of every mean.
_ONE = 1e-12


@dataclass(frozen=True)
class SufficientStatistics:
    """What the likelihood of every gene needs to know of the cells: q levels, p columns, w within levels, G genes."""

    sizes: Array  # (q,) cells per level, the diagonal of Z'Z (with weights W: of Z'WZ, and so on)
    ZtX: Array  # (q, p) in standardised columns
    DtX: Array  # (w, p)
    ZtY: Array  # (q, G)
    DtY: Array  # (w, G)
    rest: Array  # (G,) what is left of y'y beside Z and D
    nonzero: NDArray[np.int64]  # (G,) cells that express the gene
    shift: Array  # (G,) what was subtracted from y
    basis: Array  # (p_user, p) standardised columns = user's columns @ basis, so beta = basis @ beta_standardised
    columns: Array  # (p, p_user) and back: user's columns = standardised columns @ columns + origin
    origin: Array  # (p_user,)
    negative: int = 0  # above 0 if an entry that was read is below 0
    log_weights: float = 0.0  # sum of the logarithms of the weights, which are one on average
    # With several random terms, or slopes: what these are. Levels are then combinations of theirs, and D begins with what
    # slope columns have within combinations. Empty for one random intercept.
    groupings: tuple[Grouping, ...] = ()

    @property
    def n_cells(self) -> int:
        """Cells, n."""
        return round(self.sizes.sum())

    @property
    def n_genes(self) -> int:
        """Genes, G."""
        return self.rest.size

    @property
    def n_columns(self) -> int:
        """Columns, p."""
        return self.ZtX.shape[1]

    @property
    def rest_df(self) -> int:
        """Degrees of freedom of `rest`: cells less levels and columns of D."""
        return self.n_cells - len(self.ZtX) - len(self.DtX)

    @property
    def XtX(self) -> Array:
        """Products of the standardised columns, (p, p)."""
        return self.DtX.T @ self.DtX + self.ZtX.T @ (self.ZtX / self.sizes[:, None])

    @property
    def XtY(self) -> Array:
        """Products of the standardised columns with y, (p, G)."""
        return self.DtX.T @ self.DtY + (self.ZtX / self.sizes[:, None]).T @ self.ZtY

    @property
    def yty(self) -> Array:
        """Sum of squares of y, (G,)."""
        return self.rest + squares(self.DtY) + squares(self.ZtY / np.sqrt(self.sizes)[:, None])

    @property
    def mean(self) -> Array:
        """Mean expression per gene, (G,)."""
        return self.ZtY.sum(axis=0) / self.n_cells + self.shift

    @property
    def total_ss(self) -> Array:
        """Sum of squares about the gene's mean, (G,)."""
        with np.errstate(invalid="ignore"):  # genes with infinite entries, which the caller refuses
            about = self.with_shift(self.mean)
        return about.yty

    @property
    def root_mean_square(self) -> Array:
        """Root of the mean square of expression per gene, (G,)."""
        return np.sqrt(self.mean**2 + self.total_ss / self.n_cells)

    @cached_property
    def is_constant(self) -> NDArray[np.bool_]:
        """Standardised columns that are constant in every level, (p,)."""
        return np.asarray(np.linalg.norm(self.DtX, axis=0) <= TOLERANCE * np.sqrt(self.n_cells))

    @cached_property
    def directions(self) -> Array:
        """The user's columns less their means, in units of their spread, (p, p_user); 0 for one that is constant."""
        mean = 0.0 if self.ones is None else np.outer(self.ones, self.ones @ self.columns)
        length, spread = np.linalg.norm(self.columns, axis=0), np.linalg.norm(self.columns - mean, axis=0)
        length = np.hypot(length, self.origin)
        varies = spread > TOLERANCE * unit(spread, length)
        return np.where(varies, (self.columns - mean) / np.where(varies, spread, 1.0), 0.0)

    @cached_property
    def ones(self) -> Array | None:
        """Coefficients (p,) of the standardised columns that give a column of ones, None if they cannot."""
        rows, target = factor(self._standard, self.sizes), np.append(np.zeros(len(self.DtX)), np.sqrt(self.sizes))
        ones = np.asarray(np.linalg.lstsq(rows, target, rcond=None)[0])
        exact = np.linalg.norm(rows @ ones - target) <= _ONE * np.linalg.norm(target)
        return ones if exact else None

    @property
    def coordinates_X(self) -> Array:
        """Standardised columns on the orthonormal basis (D, levels), (w + q, p)."""
        return factor(self._standard, self.sizes)

    @property
    def coordinates_Y(self) -> Array:
        """The genes on the same basis, (w + q, G)."""
        return np.vstack([self.DtY, self.ZtY / np.sqrt(self.sizes)[:, None]])

    @property
    def _standard(self) -> Standard:
        return Standard(self.basis, self.columns, self.ZtX, self.DtX)

    def genes(self, index: slice | NDArray[Any]) -> SufficientStatistics:
        """Statistics of some of the genes, contiguous, so that another process computes with the same arrays."""
        per_gene = ("ZtY", "DtY", "rest", "nonzero", "shift")
        some: dict[str, Any] = {name: np.ascontiguousarray(getattr(self, name)[..., index]) for name in per_gene}
        return replace(self, **some)

    def restrict(self, span: Array) -> SufficientStatistics:
        """Statistics of the model whose fixed effects are X span, with `span` (p, p0).

        The null hypothesis L beta = 0 is the model with span = null space of L.
        """
        back: Any = np.linalg.pinv(span)
        design = standardised(self._standard.times(span, back), self.sizes)
        restricted = replace(self, **design._asdict())
        # A model that cannot absorb a constant needs the means as they are.
        return restricted if restricted.ones is not None else restricted.with_shift(np.zeros(self.n_genes))

    def with_design(self, sizes: Array, ZtX: Array, DtX: Array) -> SufficientStatistics:
        """The same genes with other products of the standardised columns, or an error if these determine each other."""
        design = self._standard._replace(ZtX=ZtX, DtX=DtX)
        if not is_independent(design, sizes):
            msg = "With these donors the columns of the design determine each other."
            raise DesignError(msg)
        return replace(self, sizes=sizes, **standardised(design, sizes)._asdict())

    def with_shift(self, shift: Array) -> SufficientStatistics:
        """Express the same statistics with another shift, by algebra."""
        step = self.shift - shift
        return replace(self, ZtY=self.ZtY + np.outer(self.sizes, step), shift=shift) if step.any() else self

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        """Statistics of two disjoint sets of cells under one design.

        About the means of a level over both sets, the cells differ as they do in each, and by one coordinate more: the
        difference of the two means.
        """
        if self.groupings or other.groupings:
            msg = "Statistics of several random terms do not add yet: read the cells of both sets together."
            raise ValueError(msg)
        if not np.array_equal(self.basis, other.basis):
            msg = "Statistics add only if they come from one design: their standardised columns differ."
            raise ValueError(msg)
        other = other.with_shift(self.shift)
        apart = np.sqrt(self.sizes * other.sizes / (self.sizes + other.sizes))[:, None]

        def within(name: str) -> Array:
            levels = [getattr(part, f"Zt{name}") / part.sizes[:, None] for part in (self, other)]
            return np.vstack([getattr(self, f"Dt{name}"), getattr(other, f"Dt{name}"), apart * (levels[0] - levels[1])])

        Q, DtX = np.linalg.qr(within("X"), mode="complete")
        DtY, w = Q.T @ within("Y"), min(DtX.shape)
        summed = {
            f: getattr(self, f) + getattr(other, f)
            for f in ("sizes", "ZtX", "ZtY", "nonzero", "negative", "log_weights")
        }
        rest = self.rest + other.rest + squares(DtY[w:])
        return replace(self, **summed, DtX=DtX[:w], DtY=DtY[:w], rest=rest)


def null_model(stats: SufficientStatistics, hypothesis: Hypothesis) -> SufficientStatistics:
    """Statistics of the model in which the hypothesis holds: beta in the null space of L.

    It is spanned by combinations of the user's columns, each of which is known to all its digits, also where those that
    the hypothesis takes out all but determine the others. A hypothesis about the intercept is of means far from zero,
    which `columns` are without, and is put in standardised coefficients.
    """
    rows = standard_rows(stats, hypothesis.L)
    if stats.origin.any() and stats.ones is not None and np.abs(rows @ stats.ones).max() > TOLERANCE:
        return stats.restrict(linalg.null_space(rows))
    length = np.linalg.norm(stats.columns, axis=0)
    length[length == 0] = 1.0
    rows = hypothesis.L / np.abs(hypothesis.L).max(axis=1, keepdims=True) / length
    kept = linalg.null_space(rows / np.abs(rows).max(axis=1, keepdims=True))
    return stats.restrict(np.linalg.qr(stats.columns / length @ kept)[0])


def standard_rows(stats: SufficientStatistics, L: Array) -> Array:
    """Rows of L in standardised coefficients, each of unit length whatever the units of its columns, (df, p)."""
    rows = L @ stats.basis
    rows /= np.abs(rows).max(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def within_products(stats: SufficientStatistics) -> Array:
    """Cross-products of X about its level means, W (p, p)."""
    return stats.DtX.T @ stats.DtX


def squares(coordinates: Array) -> Array:
    """Sums of squares of columns."""
    return np.asarray((coordinates**2).sum(axis=0))
