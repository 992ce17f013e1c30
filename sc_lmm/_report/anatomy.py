"""Design -> what its columns amount to for any random intercept: donor means, deviations from them, cross tables.

With n_j cells in donor j, x_c the row of X of cell c and xbar_j the mean row of donor j,

    X'V^-1 X = R'R / sigma^2 + sum_j w_j xbar_j xbar_j',   R'R = sum_jc (x_c - xbar_j)(x_c - xbar_j)'

so the m x p means and the p x p triangle R hold everything that a report asks of X. Cells are visited twice, in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import linalg

from .._design import level_text
from .alias import Alias, find_aliases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._design import Design

    Array = NDArray[np.float64]

_BLOCK = 1 << 12  # small enough for the cache, where a tall QR runs three times as fast
_MAX_TABLE = 20_000_000
# What is left of a column's length after others are taken out, when nothing is: as in _alias.
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Crossing:
    """A factor (or a product of factors) against the grouping."""

    levels: tuple[str, ...]  # (k,)
    cells: NDArray[np.int64]  # (m, k) cells of each donor in each level

    @property
    def donors_per_level(self) -> NDArray[np.int64]:
        """Donors with cells in each level, (k,)."""
        return np.asarray((self.cells > 0).sum(axis=0))

    @property
    def levels_per_donor(self) -> NDArray[np.int64]:
        """Levels in which each donor has cells, (m,)."""
        return np.asarray((self.cells > 0).sum(axis=1))

    @property
    def constant(self) -> bool:
        """Whether each donor is in one level."""
        return bool((self.levels_per_donor == 1).all())

    @property
    def divides(self) -> bool:
        """Whether each level is in one donor."""
        return bool((self.donors_per_level <= 1).all())


@dataclass(frozen=True)
class Anatomy:
    """A design, its moments, its relations and its cross tables."""

    design: Design
    means: Array  # (m, p) of the columns of X in each donor
    R: Array  # (p, p) triangle of the deviations from the donor means, exactly 0 where a column has none
    aliases: tuple[Alias, ...]
    crossings: dict[str, Crossing]  # term -> table, for terms made of factors

    @cached_property
    def sizes(self) -> Array:
        """Cells per donor, (m,)."""
        return self.design.random.sizes

    @cached_property
    def harmonic_mean(self) -> float:
        """Harmonic mean of the cells per donor."""
        return float(self.sizes.size / (1 / self.sizes).sum())

    @property
    def group(self) -> str:
        """Column of the grouping."""
        return self.design.random.name

    @cached_property
    def independent(self) -> NDArray[np.int64]:
        """Columns that are not determined by earlier ones."""
        aliased = {alias.index for alias in self.aliases}
        return np.array([k for k in range(self.design.X.shape[1]) if k not in aliased], dtype=np.int64)

    @cached_property
    def within(self) -> Array:
        """Sum of squares of each column within donors, (p,)."""
        return np.einsum("ij,ij->j", self.R, self.R)

    @cached_property
    def between(self) -> Array:
        """Sum of squares of each column's donor means about its mean, (p,)."""
        centred = self.means - self.sizes @ self.means / self.sizes.sum()
        between = self.sizes @ centred**2
        total = between + self.within
        return np.where(between > _TOLERANCE**2 * total, between, 0.0)

    @cached_property
    def df_between(self) -> int:
        """Donors less the coefficients that differ between donors only."""
        rank = self.independent.size
        return max(len(self.sizes) - (rank - rank_of(self.R[:, self.independent])), 0)

    @cached_property
    def df_within(self) -> int:
        """Cells less donors less the coefficients that differ within donors."""
        return max(int(self.sizes.sum()) - len(self.sizes) - rank_of(self.R[:, self.independent]), 0)

    def columns(self, term: str) -> list[int]:
        """Positions of a term's columns in X."""
        return list(range(*self.design.terms[term].indices(self.design.X.shape[1])))

    def aliases_of(self, term: str) -> list[Alias]:
        """Relations in which a column of the term takes part."""
        names = {self.design.coef_names[k] for k in self.columns(term)}
        return [alias for alias in self.aliases if names & {alias.column, *alias.others}]

    def terms_of(self, alias: Alias) -> tuple[str, ...]:
        """Terms, other than the intercept, that take part in a relation."""
        names = {alias.column, *alias.others}
        owners = {t: names & {self.design.coef_names[k] for k in self.columns(t)} for t in self.design.terms}
        return tuple(t for t, hit in owners.items() if hit and t != "Intercept")


def anatomy(design: Design) -> Anatomy:
    """Take a design apart, whether or not its columns are independent."""
    means, R = _moments(design)
    rows = np.vstack([R, np.sqrt(design.random.sizes)[:, None] * means])  # the same cross-products as X
    aliases = tuple(find_aliases(rows, design.coef_names))
    crossings = {
        term: _term_crossing(design, design.categoricals(term)) for term in design.terms if term != "Intercept"
    }
    return Anatomy(design, means, R, aliases, {name: c for name, c in crossings.items() if c is not None})


def rank_of(R: Array) -> int:
    """Rank of a triangle whose columns may have any scale."""
    length = np.linalg.norm(R, axis=0)
    if not length.any():
        return 0
    return int((linalg.svdvals(R[:, length > 0] / length[length > 0]) > _TOLERANCE).sum())


def cross(column: pd.Series, design: Design) -> Crossing | None:
    """Tabulate a column of annotations of the model's cells against the grouping, None if the table is too large."""
    codes, levels = pd.factorize(column, sort=not isinstance(column.dtype, pd.CategoricalDtype))
    return _crossing(codes, [level_text(level) for level in levels], design)


def _moments(design: Design) -> tuple[Array, Array]:
    X, codes, sizes = design.X, design.random.codes, design.random.sizes
    shift = X.mean(axis=0)  # sums about the mean keep the digits of a column such as a year
    sums = [np.bincount(codes, weights=x - s, minlength=sizes.size) for x, s in zip(X.T, shift, strict=True)]
    centred = np.stack(sums, axis=1) / sizes[:, None]
    R = np.zeros((0, X.shape[1]))
    for start in range(0, len(X), _BLOCK):
        rows = slice(start, start + _BLOCK)
        R = np.asarray(np.linalg.qr(np.vstack([R, X[rows] - shift - centred[codes[rows]]]), mode="r"))
    return shift + centred, _without_rounding(R, centred, sizes, shift)


def _without_rounding(R: Array, centred: Array, sizes: Array, shift: Array) -> Array:
    """Zero the deviations of columns that are constant within donors."""
    within = np.linalg.norm(R, axis=0)
    spread = np.sqrt(within**2 + sizes @ centred**2)
    rounding = 1e-12 * np.abs(shift) * np.sqrt(sizes.sum())
    return R * (within > np.maximum(_TOLERANCE * spread, rounding))


def _term_crossing(design: Design, factors: Sequence[pd.Series | None]) -> Crossing | None:
    """Tabulate a term made of factors against the grouping, None for any other term or if the table is too large."""
    codes, levels = np.zeros(design.n_cells, dtype=np.int64), [""]
    for factor in factors:
        if factor is None:
            return None
        new_levels = [level_text(level) for level in factor.cat.categories]
        codes = codes * len(new_levels) + factor.cat.codes.to_numpy().astype(np.int64)
        levels = [f"{old}:{new}" if old else new for old in levels for new in new_levels]
        if len(levels) * len(design.random.levels) > _MAX_TABLE:
            return None
    return _crossing(codes, levels, design)


def _crossing(codes: NDArray[np.int64], levels: Sequence[str], design: Design) -> Crossing | None:
    m, k = len(design.random.levels), len(levels)
    if m * k > _MAX_TABLE:
        return None
    known = codes >= 0
    pairs = design.random.codes[known].astype(np.int64) * k + codes[known]
    return Crossing(tuple(levels), np.bincount(pairs, minlength=m * k).reshape(m, k))
