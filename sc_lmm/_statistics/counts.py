"""Cells and a Design -> CountStatistics: the sums of each gene's counts by donor, which tell all of a model of counts.

    y_ig ~ Poisson(s_i exp(x_i' beta_g) v_jg)     j the donor of cell i, s_i its size factor, v_jg a factor of the donor

If x is constant within donors, the likelihood of beta and of the distribution of v has the cells of donor j in it only by
their counts' sum Y_jg and their size factors' sum S_j, the *exposure* (Lee & Han 2024):

    prod_i Poisson(y_i; s_i m) = Poisson(Y; S m) x (a multinomial density that m is not in)

so that the model is one of q numbers per gene, found by the visit that the other models make.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg

from .._design import TOLERANCE
from .._errors import DesignError, listing
from .._progress import progress_bar
from .reading import READING
from .sums import Cells
from .visit import visit_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._design import Design
    from .sums import Sums

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class CountStatistics:
    """Sums of counts by donor: q donors, p columns, G genes."""

    sums: Array  # (G, q) counts over the cells of a donor
    exposure: Array  # (q,) size factors over the same cells
    sizes: Array  # (q,) cells
    X: Array  # (q, p) of each donor's cells, orthogonal and of length sqrt(q)
    basis: Array  # (p_user, p) these columns = user's columns @ basis, so beta = basis @ beta of these
    nonzero: NDArray[np.int64]  # (G,) cells that express the gene

    @property
    def n_genes(self) -> int:
        """Genes, G."""
        return len(self.sums)

    @property
    def n_cells(self) -> int:
        """Cells, n."""
        return round(self.sizes.sum())

    @property
    def mean(self) -> Array:
        """Counts per unit of exposure in the average donor, (G,)."""
        return np.asarray((self.sums / self.exposure).mean(axis=1))

    @property
    def dof(self) -> int:
        """Donors less columns: what the spread of donors is told by."""
        return self.X.shape[0] - self.X.shape[1]

    def genes(self, index: slice | NDArray[Any]) -> CountStatistics:
        """Statistics of some of the genes."""
        return replace(self, sums=np.ascontiguousarray(self.sums[index]), nonzero=self.nonzero[index])

    def with_columns(self, rows: Array) -> CountStatistics:
        """The same counts under other columns (q, p_user) of the donors, independent ones."""
        X, basis = _orthogonal(rows)
        return replace(self, X=X, basis=basis)

    def restrict(self, L: Array) -> CountStatistics:
        """The same counts under the model in which L beta = 0, `L` (df, p_user)."""
        rows = L @ self.basis
        span = linalg.null_space(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        return replace(self, X=np.ascontiguousarray(self.X @ span), basis=self.basis @ span)


def varying_columns(design: Design) -> NDArray[np.bool_]:
    """Columns of X that are not constant within levels, (p,)."""
    columns = design.columns
    return np.asarray(np.linalg.norm(columns.R, axis=0) > TOLERANCE * columns.unit)


def donor_sums_of_each(
    matrix: Any,
    groups: Sequence[tuple[Design, NDArray[np.int64]]],
    *,
    columns: NDArray[np.int64],
    show_progress: bool | None,
) -> list[Sums]:
    """Read the counts once for several models, each with the matrix row of each of its cells: sums over each level's cells."""
    cells = [_cells(design, rows) for design, rows in groups]
    with progress_bar(total=1.0, bar_format=READING, doing="reading", show_progress=show_progress) as bar:
        return list(visit_each(matrix, cells, columns.astype(np.int64), bar.update))


def _cells(design: Design, rows: NDArray[np.int64]) -> Cells:
    codes = design.random.codes
    order = np.argsort(codes, kind="stable")
    nothing = np.zeros((codes.size, 0))
    return Cells(rows[order].astype(np.int64), codes[order], nothing, nothing, design.random.sizes.size)


def count_statistics(sums: Sums, design: Design, exposure: Array, genes: NDArray[np.int64]) -> CountStatistics:
    """Statistics of some of the genes whose counts were summed, under a design that is constant within levels."""
    nothing = [level for level, size in zip(design.random.levels, exposure, strict=True) if size <= 0]
    if nothing:
        msg = (
            f"{design.random.name} {listing(nothing)} has no counts, so that no effect can be seen in it: leave its cells "
            f"out, adata[adata.obs[{design.random.name!r}] != {nothing[0]!r}]."
        )
        raise DesignError(msg)
    first = np.unique(design.random.codes, return_index=True)[1]
    X, basis = _orthogonal(design.X[first])
    counts = np.ascontiguousarray(sums.ZtY.T[genes])
    return CountStatistics(counts, exposure, design.random.sizes, X, basis, sums.nonzero[genes])


def _orthogonal(rows: Array) -> tuple[Array, Array]:
    """Orthogonal columns of length sqrt(q) in place of `rows` (q, p), and the basis that gives these, (p, p)."""
    scale = np.linalg.norm(rows, axis=0)
    Q, R = np.linalg.qr(rows / scale)
    root = np.sqrt(len(rows))
    return np.ascontiguousarray(root * Q), root * np.linalg.inv(R) / scale[:, None]
