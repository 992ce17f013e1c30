"""Statistics of the cohort in which the values of a term were dealt out anew. No cell is visited after the one read.

Values change hands between *units*, sets of cells of one level in which the term is constant, within *blocks* of units:

    term constant within levels    units = levels                         one block, or one per set of matched levels
    term varies within levels      units = levels x values of the term    one block per level

Under the null hypothesis expression does not tell which unit of a block has which value; all other columns stay. A column
that is constant within units enters the statistics through its unit means alone: Z'X and X'X are sums over units and
X'y = (unit means)' Z'y. The units of a level then add up to the level.

Anderson & ter Braak 2003 for what may be exchanged with what where a factor divides the units into blocks.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._design import RandomTerm, check_marginal
from .._errors import DesignError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Design
    from .._statistics import SufficientStatistics

    Array = NDArray[np.float64]
    Integers = NDArray[np.int64]

_MOST_VALUES = 10  # of a number per level, on average; one with more, or in single cells, belongs to cells
_DIGITS = 9  # by which values are told apart, of their range
_MOST_TRIES, _PATIENCE = 50, 20  # draws per order wanted, and in vain per assignment known


@dataclass(frozen=True)
class Exchange:
    """Which sets of cells may exchange their values of a term."""

    term: str
    design: Design  # the model, but with units for its levels
    parents: Integers  # (u,) level that a unit is part of, ascending
    blocks: Integers  # (u,) units exchange with those of their block
    values: Integers  # (u,) which value of the term a unit has
    among: str  # what a block is, in words
    nameless: bool  # two values that change places throughout leave the test as it is

    def key(self, order: Integers) -> bytes:
        """The same for two orders in which the term says the same of the units that have partners."""
        dealt = self.values[order][np.bincount(self.blocks)[self.blocks] > 1]
        return bytes((pd.factorize(dealt)[0] if self.nameless else dealt).astype(np.int32))

    def deal(self, stats: SufficientStatistics, order: Integers) -> SufficientStatistics:
        """Statistics by level, from those by unit, when unit k has the values that unit ``order[k]`` had."""
        return pool(permute_levels(stats, self.design.terms[self.term], order), self.parents)


def plan_exchange(design: Design, term: str) -> Exchange:
    """Find the units and blocks of a term, or say why its values cannot be dealt out anew."""
    check_marginal(design.coding, term, "permuted")
    codes, random = _value_codes(design.X[:, design.terms[term]]), design.random
    n_values = int(codes.max()) + 1
    found, unit = np.unique(random.codes.astype(np.int64) * n_values + codes, return_inverse=True)
    parents, values = found // n_values, found % n_values
    df = design.terms[term].stop - design.terms[term].start
    nameless = design.constant is not None and n_values == df + 1
    if found.size == len(random.levels):
        among, blocks = _matched_levels(design, values)
        return Exchange(term, design, parents, blocks, values, among, nameless)
    _check_exchangeable(design, term, found.size)
    names = tuple(f"{random.levels[level]} {value}" for level, value in zip(parents, values, strict=True))
    by_unit = design.regrouped(RandomTerm(random.name, names, unit.ravel().astype(np.int32), random.weights))
    return Exchange(term, by_unit, parents, parents, values, f"within {random.name}", nameless)


def _value_codes(T: Array) -> Integers:
    """Which of its different rows each row of T is, (n,)."""
    codes = np.zeros(len(T), dtype=np.int64)
    for column in T.T:
        scale = np.ptp(column) or 1.0
        values, new = np.unique(np.round((column - column.min()) / scale, _DIGITS), return_inverse=True)
        codes = np.unique(codes * values.size + new.ravel(), return_inverse=True)[1].ravel()
    return codes


def _matched_levels(design: Design, values: Integers) -> tuple[str, Integers]:
    """Blocks of levels that a factor of the formula matches, the smallest there are; one of all levels if none does."""
    name = design.random.name
    first = np.unique(design.random.codes, return_index=True)[1]
    best, among = np.zeros(values.size, dtype=np.int64), f"among all {name}"
    for factor in filter(None, map(design.factor_of, design.terms)):
        codes = design.codes_of(factor)
        blocks = codes[first]
        if (
            np.array_equal(blocks[design.random.codes], codes)
            and _matches(blocks, values)
            and blocks.max() > best.max()
        ):
            best, among = blocks, f"among the {name} of each {factor}"
    return among, best


def _matches(blocks: Integers, values: Integers) -> bool:
    """Whether each block of several units has several values, all equally often, and most units are in such a block."""
    table = np.zeros((blocks.max() + 1, values.max() + 1), dtype=np.int64)
    np.add.at(table, (blocks, values), 1)
    table = table[table.sum(axis=1) > 1]
    even = [np.unique(row[row > 0]).size == 1 and (row > 0).sum() > 1 for row in table]
    return all(even) and 2 * int(table.sum()) > values.size


def _check_exchangeable(design: Design, term: str, n_units: int) -> None:
    """Refuse what varies within levels and belongs to cells, or to a relation of two terms."""
    group = design.random.name
    if ":" in term:
        msg = (
            f"Interaction {term!r} varies within {group}: exchanging its values would leave those of its parts. Check a "
            f"term without it, or an interaction of columns that are constant within {group}."
        )
        raise DesignError(msg)
    most = min(_MOST_VALUES * len(design.random.levels), design.n_cells // 2)
    if design.factor_of(term) is None and n_units > most:
        msg = (
            f"Term {term!r} varies from cell to cell: only single cells could exchange its values, and these are not "
            f"exchangeable. Check a term that is constant within {group} or takes a few values in each, for example "
            f"{term!r} cut into a factor (pandas.cut)."
        )
        raise DesignError(msg)


def permute_levels(stats: SufficientStatistics, columns: slice, order: Integers) -> SufficientStatistics:
    """Give level j the values of `columns`, which are constant within levels, that level ``order[j]`` had."""
    values = stats.ZtX / stats.sizes[:, None] @ stats.columns[:, columns]
    moved = stats.sizes[:, None] * ((values[order] - values) @ stats.basis[columns])
    return stats.with_design(stats.sizes, stats.ZtX + moved, stats.DtX)


def pool(stats: SufficientStatistics, parents: Integers) -> SufficientStatistics:
    """Add levels up to coarser ones: level j becomes a part of level ``parents[j]``, ascending.

    What levels differ by within their parent becomes a part of what varies within levels.
    """
    starts = np.flatnonzero(np.diff(parents, prepend=-1))
    sizes = np.add.reduceat(stats.sizes, starts)
    share = np.sqrt(stats.sizes)[:, None]

    def within(name: str) -> tuple[Array, Array]:
        sums = getattr(stats, f"Zt{name}")
        added = np.add.reduceat(sums, starts)
        apart = sums / stats.sizes[:, None] - (added / sizes[:, None])[parents]
        return added, np.vstack([getattr(stats, f"Dt{name}"), share * apart])

    (ZtX, X), (ZtY, Y) = within("X"), within("Y")
    Q, DtX = np.linalg.qr(X, mode="complete")
    DtY, w = Q.T @ Y, min(X.shape)
    rest = stats.rest + (DtY[w:] ** 2).sum(axis=0)
    return replace(stats, ZtY=ZtY, DtY=DtY[:w], rest=rest, sizes=sizes).with_design(sizes, ZtX, DtX[:w])


def draw_orders(
    exchange: Exchange, stats: SufficientStatistics, n_orders: int, rng: np.random.Generator
) -> list[Integers]:
    """Random orders of the units, no two of which say the same, nor what the data say; all of them if there are fewer.

    One that makes the term a combination of other columns is left out. `stats` are by unit.
    """
    n_units, bare = exchange.parents.size, stats.genes(slice(0, 0))
    by_block = np.argsort(exchange.blocks, kind="stable")
    orders: list[Integers] = []
    known, in_vain = {exchange.key(np.arange(n_units))}, 0
    for _ in range(_MOST_TRIES * n_orders):
        if len(orders) == n_orders or in_vain > _PATIENCE * len(known):
            break
        order = np.empty(n_units, dtype=np.int64)
        order[by_block] = np.lexsort((rng.random(n_units), exchange.blocks))
        if (key := exchange.key(order)) in known:
            in_vain += 1
            continue
        known.add(key)
        in_vain = 0
        with suppress(DesignError):
            exchange.deal(bare, order)
            orders.append(order)
    return orders
