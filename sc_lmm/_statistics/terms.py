"""Random terms -> groupings: what the random effects of a model are, in columns on which numerics are safe.

A term ``(1 + x | donor)`` gives each of the m levels of a grouping r coefficients, b_j ~ N(0, sigma^2 Gamma), on r columns
of the cells: the intercept and x. Terms on one grouping, such as ``(1 | donor) + (0 + x | donor)``, are one grouping
whose Gamma has a block per term; ``(1 + x || donor)`` is blocks of one column each. Z has the columns of all groupings,
for each the levels in order and for each level its r columns, q in all. It is never dense.

Columns are made orthonormal over the cells within each block, so that no result depends on where x has its zero or what
its unit is: with columns = standardised columns @ R, Gamma of the user's columns is R^-1 Gamma R^-T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, sparse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Columns of a block that leave less than this share of their length beside the columns before are a combination of them.
_RANK_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Term:
    """Coefficients of some columns that vary between the levels of a grouping, for n cells."""

    grouping: str
    codes: NDArray[np.int32]  # (n,) level of each cell
    n_levels: int
    columns: Array  # (n, r), ones for an intercept
    column_names: tuple[str, ...]  # (r,)
    correlated: bool = True  # False: ``||``, a variance for each column and no correlations


@dataclass(frozen=True)
class Grouping:
    """All random coefficients of the levels of one grouping; holds no cells."""

    name: str
    n_levels: int
    column_names: tuple[str, ...]  # (r,)
    blocks: tuple[slice, ...]  # columns that correlate with each other
    basis: Array  # (r, r) standardised columns = user's columns @ basis, block diagonal

    @property
    def r(self) -> int:
        """Coefficients of a level."""
        return len(self.column_names)

    @property
    def q(self) -> int:
        """Columns of Z."""
        return self.n_levels * self.r

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Free entries (a, b), a >= b, of Gamma."""
        return tuple((a, b) for s in self.blocks for a in range(s.start, s.stop) for b in range(s.start, a + 1))


@dataclass(frozen=True)
class GroupedCells:
    """A grouping and its cells, in standardised columns."""

    grouping: Grouping
    codes: NDArray[np.int32]  # (n,)
    columns: Array  # (n, r)

    @property
    def Z(self) -> sparse.csr_array:
        """Columns of Z, (n, m r)."""
        n, r = self.columns.shape
        positions = self.codes[:, None] * r + np.arange(r)
        pointers = np.arange(0, n * r + 1, r)
        return sparse.csr_array((self.columns.ravel(), positions.ravel(), pointers), shape=(n, self.grouping.q))


def grouped(terms: Sequence[Term]) -> list[GroupedCells]:
    """Merge terms on one grouping and standardise their columns."""
    of_name: dict[str, list[Term]] = {}
    for term in terms:
        of_name.setdefault(term.grouping, []).append(term)
    return [_merge(name, same) for name, same in of_name.items()]


def _merge(name: str, terms: Sequence[Term]) -> GroupedCells:
    widths = [width for term in terms for width in _block_widths(term)]
    edges = np.concatenate([[0], np.cumsum(widths)])
    blocks = tuple(slice(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True))
    columns = np.concatenate([term.columns for term in terms], axis=1)
    names = tuple(column for term in terms for column in term.column_names)
    basis = linalg.block_diag(*(_orthonormalising(columns[:, block], name, names[block]) for block in blocks))
    grouping = Grouping(name, terms[0].n_levels, names, blocks, basis)
    return GroupedCells(grouping, terms[0].codes, np.ascontiguousarray(columns @ basis))


def _block_widths(term: Term) -> list[int]:
    r = term.columns.shape[1]
    return [r] if term.correlated else [1] * r


def _orthonormalising(columns: Array, grouping: str, names: tuple[str, ...]) -> Array:
    """Transform (r, r) to columns whose products over the cells are n I, the first kept but for its length."""
    lengths = np.sqrt((columns**2).mean(axis=0))
    if not (lengths > 0).all():
        msg = f"The random term ({' + '.join(names)} | {grouping}) has a column of zeros. Leave the column out."
        raise ValueError(msg)
    R = np.linalg.qr(columns / lengths, mode="r") / np.sqrt(len(columns))
    if len(R) < R.shape[1] or (np.abs(np.diag(R)) < _RANK_TOLERANCE).any():
        msg = (
            f"The columns of the random term ({' + '.join(names)} | {grouping}) are linear combinations of each other, "
            "so that their variances cannot be told apart. Leave one of them out."
        )
        raise ValueError(msg)
    inverse: Array = linalg.solve_triangular(R * np.sign(np.diag(R))[:, None], np.eye(len(R)))
    return inverse / lengths[:, None]
