"""Design -> what its columns amount to for any random intercept: donor means, deviations from them, cross tables.

Everything that a report asks of X is in the m x p donor means and the p x p triangle R of the deviations from them (see
`_design.columns`); no cell is visited here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._design import TOLERANCE, level_text
from .alias import Alias, find_aliases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._design import Design

    Array = NDArray[np.float64]

_MAX_TABLE = 20_000_000


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
        columns = self.design.columns
        between = columns.scale * np.sqrt(self.sizes @ columns.means**2)
        return np.where(between > TOLERANCE * columns.scale * columns.unit, between, 0.0) ** 2

    @cached_property
    def rank_within(self) -> int:
        """Coefficients that differ within donors."""
        return self.design.columns.take(self.independent).rank_within

    @cached_property
    def df_between(self) -> int:
        """Donors less the coefficients that differ between donors only."""
        return max(len(self.sizes) - (self.independent.size - self.rank_within), 0)

    @cached_property
    def df_within(self) -> int:
        """Cells less donors less the coefficients that differ within donors."""
        return max(self.design.n_cells - len(self.sizes) - self.rank_within, 0)

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
    columns, sizes = design.columns, design.random.sizes
    means, R = columns.scale * (columns.shift + columns.means), columns.scale * columns.R
    rows = np.vstack([R, np.sqrt(sizes)[:, None] * means])  # the same cross-products as X
    ones = np.append(np.zeros(len(R)), np.sqrt(sizes))
    aliases = tuple(find_aliases(rows, design.coef_names, ones, intercept=columns.intercept is not None))
    crossings = {
        term: _term_crossing(design, design.categoricals(term)) for term in design.terms if term != "Intercept"
    }
    return Anatomy(design, means, R, aliases, {name: c for name, c in crossings.items() if c is not None})


def cross(column: pd.Series, design: Design) -> Crossing | None:
    """Tabulate a column of annotations of the model's cells against the grouping, None if the table is too large."""
    codes, levels = pd.factorize(column, sort=not isinstance(column.dtype, pd.CategoricalDtype))
    return _crossing(codes, [level_text(level) for level in levels], design)


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
