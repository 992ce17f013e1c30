"""The random columns of any number of terms, as coordinates in which a visit of the cells is complete.

The cells are taken by the *combination* of levels to which they belong, one donor's cells of one batch: a column of Z
that is constant within combinations is a sum of their indicators. A slope column that varies there has, in each level of
its grouping, a part beside them. Let Q be an orthonormal basis of these parts, level by level. With D the rest of X
beside both, N the sizes of the combinations and Zc their indicators,

    (Q'y, D'y, N^-1/2 Zc'y)        and what is left of y'y

are all that a likelihood with these terms needs, whatever their variances. So the sufficient statistics are those of one
grouping, the combinations, with Q in front of D; and a term is its columns of Z in these coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .._design import TOLERANCE, RandomTerm
from .terms import Entries, GroupedCells, Grouping, grouped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._design import Design

    Array = NDArray[np.float64]
    Indices = NDArray[np.int64]

# Squared lengths of a level's slope columns below this share of the longest are rounding.
_NOTHING = 1e-12


@dataclass(frozen=True)
class Slopes:
    """Slope columns that vary within combinations, L of them, and their orthonormal basis Q level by level."""

    S: Array  # (n, L) about the means of combinations, times the root of the cell's weight
    codes: Indices  # (n,) block of each cell: a combination of levels of the groupings that have such slopes
    T: Array  # (B, L, L) Q of block b = S of block b @ T[b]
    used: NDArray[np.bool_]  # (B, L) columns of it that are not nothing

    @property
    def size(self) -> int:
        """Columns of Q."""
        return int(self.used.sum())

    def coordinates(self, columns: Array) -> Array:
        """Q' columns, for columns (n, k)."""
        return self.of_blocks(_sums(self.S[:, :, None] * columns[:, None, :], self.codes, len(self.T)))

    def of_blocks(self, products: Array) -> Array:
        """Q'y, (size, G), from the sums of s y in each block, (B, L, G)."""
        return np.asarray(np.swapaxes(self.T, 1, 2) @ products)[self.used]

    def expand(self, coordinates: Array) -> Array:
        """Coefficients of S in each block, (B, L, G), of coordinates (size, G)."""
        full = np.zeros((*self.used.shape, coordinates.shape[1]))
        full[self.used] = coordinates
        return np.asarray(self.T @ full)

    def without(self, columns: Array) -> Array:
        """What is left of columns (n, k) beside Q."""
        explained = self.expand(self.coordinates(columns))[self.codes]
        return columns - np.einsum("nl,nlk->nk", self.S, explained)


@dataclass(frozen=True)
class Space:
    """Groupings over combinations of their levels."""

    groups: list[GroupedCells]
    combinations: RandomTerm
    slopes: Slopes

    def groupings(self, n_rest: int) -> tuple[Grouping, ...]:
        """Groupings in the coordinates (Q, D, combinations), with `n_rest` columns of D."""
        return tuple(self._grouping(group, n_rest) for group in self.groups)

    def on_slopes(self, StY: Array) -> Array:
        """Q'y (size, G), from the sums of s y over combinations, (L, c, G)."""
        return self.slopes.of_blocks(_sums(np.swapaxes(StY, 0, 1), self._block_of_combination, len(self.slopes.T)))

    def split(self, within: Array) -> tuple[Array, Array]:
        """Coefficients of S in each combination, (L, c, G), and those of D, of coordinates (size + w, G)."""
        own = self.slopes.expand(within[: self.slopes.size])
        return np.ascontiguousarray(own[self._block_of_combination].swapaxes(0, 1)), within[self.slopes.size :]

    @property
    def _block_of_combination(self) -> Indices:
        """Block of slopes in which each combination lies, (c,)."""
        return _first(self.slopes.codes, self.combinations.codes)

    def _grouping(self, group: GroupedCells, n_rest: int) -> Grouping:
        root, sizes = _root(self.combinations), self.combinations.sizes
        weighted = root[:, None] * group.columns
        means = _sums(root[:, None] * weighted, self.combinations.codes, sizes.size) / np.sqrt(sizes)[:, None]
        within = self.slopes.coordinates(weighted)
        within *= np.abs(within) > TOLERANCE
        parts = [
            _spread(within, _first(group.codes, self.slopes.codes)[np.nonzero(self.slopes.used)[0]], group.n_levels),
            sparse.csr_array((n_rest, group.n_levels * group.columns.shape[1])),
            _spread(means, _first(group.codes, self.combinations.codes), group.n_levels),
        ]
        return Grouping(
            name=group.name,
            n_levels=group.n_levels,
            column_names=group.column_names,
            widths=group.widths,
            basis=group.basis,
            terms=group.terms,
            term_columns=group.term_columns,
            sizes=np.bincount(group.codes, root**2, minlength=group.n_levels).astype(np.float64),
            coordinates=Entries.of(sparse.csr_array(sparse.vstack(parts))),
        )


def random_space(design: Design) -> Space:
    """Lay out the coordinates of a design's random terms."""
    root = _root(design.random)
    groups = grouped(design.effects, root)
    codes = _combined(groups, len(root))
    names = tuple(map(str, range(int(codes.max()) + 1)))
    combinations = RandomTerm("combination", names, codes.astype(np.int32), design.random.weights)
    return Space(groups, combinations, _slopes(groups, combinations))


def _slopes(groups: Sequence[GroupedCells], combinations: RandomTerm) -> Slopes:
    """Collect the columns that vary within combinations, each once: as the user's columns, not the standardised ones."""
    root, sizes = _root(combinations), combinations.sizes
    columns: list[Array] = []
    sloped: list[GroupedCells] = []
    for group in groups:
        mean = _sums(root[:, None] ** 2 * group.columns, combinations.codes, sizes.size) / sizes[:, None]
        within = root[:, None] * (group.columns - mean[combinations.codes])
        varies = np.linalg.norm(within, axis=0) > TOLERANCE * np.sqrt(len(root))
        if varies.any():
            columns += list(within[:, varies].T)
            sloped.append(group)
    S = _independent(np.column_stack(columns)) if columns else np.empty((len(root), 0))
    codes = _combined(sloped, len(root))
    products = _sums(S[:, :, None] * S[:, None, :], codes, int(codes.max()) + 1)
    values, vectors = np.linalg.eigh(products)
    used = values > _NOTHING * values.max(initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        T = np.where(used[:, None, :], vectors / np.sqrt(values)[:, None, :], 0.0)
    return Slopes(S, codes, T, used)


def _independent(columns: Array) -> Array:
    """As few columns as span these, orthonormal over all cells."""
    U, lengths, _ = np.linalg.svd(columns, full_matrices=False)
    return np.ascontiguousarray(U[:, lengths > TOLERANCE * lengths[0]])


def _combined(groups: Sequence[GroupedCells], n: int) -> Indices:
    """Combination of levels of each cell, (n,)."""
    codes = np.zeros(n, dtype=np.int64)
    for group in groups:
        _, codes = np.unique(codes * group.n_levels + group.codes, return_inverse=True)
    return codes.ravel()


def _root(random: RandomTerm) -> Array:
    return np.ones(random.codes.size) if random.weights is None else np.sqrt(random.weights)


def _first(of_cells: NDArray, codes: NDArray) -> Indices:
    """Value of the cells of each code, which is the same in all of them."""
    return np.asarray(of_cells[np.unique(codes, return_index=True)[1]], dtype=np.int64)


def _sums(values: Array, codes: NDArray, n_levels: int) -> Array:
    """Sums over the cells of each level, (n_levels, ...)."""
    flat = values.reshape(len(values), -1)
    indicator = sparse.csr_array((np.ones(codes.size), (codes, np.arange(codes.size))), shape=(n_levels, codes.size))
    return np.asarray(indicator @ flat).reshape(n_levels, *values.shape[1:])


def _spread(values: Array, level: Indices, n_levels: int) -> sparse.csr_array:
    """Rows (k, r), each in the columns of its level, (k, n_levels r)."""
    k, r = values.shape
    columns = level[:, None] * r + np.arange(r)
    matrix = sparse.csr_array((values.ravel(), columns.ravel(), np.arange(0, k * r + 1, r)), shape=(k, n_levels * r))
    matrix.eliminate_zeros()
    return matrix
