"""Random terms -> groupings: what the random effects of a model are, in columns on which numerics are safe.

A term ``(1 + x | donor)`` gives each of the m levels of a grouping r coefficients, b_j ~ N(0, sigma^2 Gamma), on r columns
of the cells: the intercept and x. Terms on one grouping, such as ``(1 | donor) + (0 + x | donor)``, are one grouping
whose Gamma has a block per term; ``(1 + x || donor)`` is blocks of one column each. Z has the columns of all groupings,
for each the levels in order and for each level its r columns, q in all. It is never dense.

Columns are made orthonormal over the cells within each block, so that no result depends on where x has its zero or what
its unit is: with columns = standardised columns @ R, Gamma of the user's columns is R^-1 Gamma R^-T.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import linalg, sparse

from .._design import TOLERANCE
from .._errors import DesignError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._design import RandomEffects

    Array = NDArray[np.float64]


class Entries(NamedTuple):
    """A sparse matrix as plain arrays, which a file may hold."""

    data: Array
    indices: NDArray[np.int64]
    indptr: NDArray[np.int64]
    shape: tuple[int, int]

    @classmethod
    def of(cls, matrix: sparse.csr_array) -> Entries:
        """Take a matrix apart."""
        rows, columns = matrix.shape
        return cls(matrix.data, matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64), (rows, columns))

    @property
    def matrix(self) -> sparse.csr_array:
        """The matrix."""
        return sparse.csr_array((self.data, self.indices, self.indptr), shape=self.shape)


@dataclass(frozen=True)
class Grouping:
    """All random coefficients of the levels of one grouping; holds no cells."""

    name: str
    n_levels: int
    column_names: tuple[str, ...]  # (r,)
    widths: tuple[int, ...]  # of the blocks of columns that correlate with each other
    basis: Array  # (r, r) standardised columns = user's columns @ basis, block diagonal
    terms: tuple[str, ...]  # as the formula writes them
    term_columns: tuple[int, ...]  # how many columns each of them has, in order
    sizes: Array  # (m,) cells of each level, as their weights count them
    coordinates: Entries  # (K, m r) standardised columns of Z in the coordinates of the statistics

    @property
    def r(self) -> int:
        """Coefficients of a level."""
        return len(self.column_names)

    @property
    def q(self) -> int:
        """Columns of Z."""
        return self.n_levels * self.r

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Columns that correlate with each other."""
        edges = np.cumsum([0, *self.widths]).tolist()
        return tuple(slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True))

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Free entries (a, b), a >= b, of Gamma."""
        return tuple((a, b) for s in self.blocks for a in range(s.start, s.stop) for b in range(s.start, a + 1))

    def without_term(self, k: int) -> Grouping | None:
        """The grouping without one of its terms, None if it was the only one."""
        if len(self.terms) == 1:
            return None
        edges = np.cumsum([0, *self.term_columns])
        kept = np.array([a for a in range(self.r) if not edges[k] <= a < edges[k + 1]])
        columns = (np.arange(self.n_levels)[:, None] * self.r + kept).ravel()
        widths, first = [], 0
        for width in self.widths:
            widths += [width] if first in kept else []
            first += width
        return replace(
            self,
            column_names=tuple(self.column_names[a] for a in kept),
            widths=tuple(widths),
            basis=self.basis[np.ix_(kept, kept)],
            terms=tuple(term for i, term in enumerate(self.terms) if i != k),
            term_columns=tuple(n for i, n in enumerate(self.term_columns) if i != k),
            coordinates=Entries.of(sparse.csr_array(self.coordinates.matrix[:, columns])),
        )


class GroupedCells(NamedTuple):
    """The cells of a grouping, in standardised columns."""

    name: str
    codes: NDArray[np.int32]  # (n,)
    n_levels: int
    columns: Array  # (n, r)
    column_names: tuple[str, ...]
    widths: tuple[int, ...]
    basis: Array  # (r, r)
    terms: tuple[str, ...]
    term_columns: tuple[int, ...]


def grouped(effects: Sequence[RandomEffects], root: Array) -> list[GroupedCells]:
    """Merge terms on one grouping and standardise their columns; `root` (n,) has the roots of the cells' weights."""
    of_name: dict[str, list[RandomEffects]] = {}
    for term in effects:
        of_name.setdefault(term.grouping, []).append(term)
    return [_merge(name, same, root) for name, same in of_name.items()]


def _merge(name: str, terms: Sequence[RandomEffects], root: Array) -> GroupedCells:
    widths = tuple(w for t in terms for w in ([len(t.column_names)] if t.correlated else [1] * len(t.column_names)))
    edges = np.cumsum([0, *widths])
    columns = np.concatenate([term.columns for term in terms], axis=1)
    names = tuple(column for term in terms for column in term.column_names)
    bases = [
        _orthonormalising(root[:, None] * columns[:, a:b], name, names[a:b])
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    basis = linalg.block_diag(*bases)
    first, written = terms[0], tuple(term.written for term in terms)
    counts = tuple(len(term.column_names) for term in terms)
    return GroupedCells(name, first.codes, len(first.levels), columns @ basis, names, widths, basis, written, counts)


def _orthonormalising(columns: Array, grouping: str, names: tuple[str, ...]) -> Array:
    """Transform (r, r) to columns whose products over the cells are n I, the first kept but for its length."""
    term = f"random term ({' + '.join(names)} | {grouping})"
    lengths = np.sqrt((columns**2).mean(axis=0))
    if not (lengths > 0).all():
        msg = f"The {term} has a column of zeros. Leave the column out."
        raise DesignError(msg)
    R = np.linalg.qr(columns / lengths, mode="r") / np.sqrt(len(columns))
    if len(R) < R.shape[1] or (np.abs(np.diag(R)) < TOLERANCE).any():
        msg = (
            f"The columns of the {term} are linear combinations of each other, so that their variances cannot be told "
            f"apart. Leave one of them out."
        )
        raise DesignError(msg)
    inverse: Array = linalg.solve_triangular(R * np.sign(np.diag(R))[:, None], np.eye(len(R)))
    return inverse / lengths[:, None]
