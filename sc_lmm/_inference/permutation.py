"""Statistics of the cohort in which the donors' values of a term were dealt out anew. No cell is visited.

A column that is constant within levels enters the statistics through its level means alone.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from .._design import TOLERANCE
from .._errors import DesignError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._statistics import SufficientStatistics

_MOST_TRIES = 50


def check_permutable(stats: SufficientStatistics, columns: slice, term: str) -> None:
    """Refuse a term that varies within levels: its values belong to cells, not donors."""
    within = np.linalg.norm(stats.DtX @ stats.directions[:, columns], axis=0)
    if (within > TOLERANCE * np.sqrt(stats.n_cells)).any():
        msg = (
            f"Term {term!r} varies within donors, so its values cannot be dealt out anew to donors. Permute a term "
            f"that is constant within each donor."
        )
        raise DesignError(msg)


def permute_levels(stats: SufficientStatistics, columns: slice, order: NDArray[np.int64]) -> SufficientStatistics:
    """Give level j the values of `columns` that level ``order[j]`` had, or an error if other columns then give them."""
    values = stats.ZtX / stats.sizes[:, None] @ stats.columns[:, columns]
    moved = stats.sizes[:, None] * ((values[order] - values) @ stats.basis[columns])
    return stats.with_design(stats.sizes, stats.ZtX + moved, stats.DtX)


def draw_orders(
    stats: SufficientStatistics, columns: slice, n_orders: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Random orders of the levels; one that makes the term a combination of other columns is drawn again."""
    orders: list[NDArray[np.int64]] = []
    for _ in range(_MOST_TRIES * n_orders):
        if len(orders) == n_orders:
            break
        order = rng.permutation(stats.sizes.size)
        with suppress(DesignError):
            permute_levels(stats.genes(slice(0, 0)), columns, order)
            orders.append(order)
    return orders
