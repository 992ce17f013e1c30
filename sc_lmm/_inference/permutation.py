"""Statistics of the cohort in which the donors' values of a term were dealt out anew. No cell is visited.

A column that is constant within levels enters the statistics through its level means alone: Z'X and X'X are sums over
levels and X'y = (level means)' Z'y.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .._errors import DesignError
from .._statistics import within_products

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._statistics import SufficientStatistics

_MOST_TRIES = 50
_SINGULAR = 1e12  # condition number of X'X in standardised columns


def check_permutable(stats: SufficientStatistics, columns: slice, term: str) -> None:
    """Refuse a term that varies within levels: its values belong to cells, not donors."""
    if np.diag(within_products(stats))[columns].max() > 1e-10 * stats.n_cells:
        msg = (
            f"Term {term!r} varies within donors, so its values cannot be dealt out anew to donors. Permute a term "
            f"that is constant within each donor."
        )
        raise DesignError(msg)


def permute_levels(stats: SufficientStatistics, columns: slice, order: NDArray[np.int64]) -> SufficientStatistics:
    """Give level j the values of `columns` that level ``order[j]`` had."""
    means = stats.ZtX / stats.sizes[:, None]
    means[:, columns] = means[order, columns]
    ZtX, XtY = means * stats.sizes[:, None], stats.XtY.copy()
    XtY[columns] = means[:, columns].T @ stats.ZtY
    return replace(stats, ZtX=ZtX, XtX=within_products(stats) + means.T @ ZtX, XtY=XtY)


def draw_orders(
    stats: SufficientStatistics, columns: slice, n_orders: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Random orders of the levels; one that makes the term a combination of other columns is drawn again."""
    orders: list[NDArray[np.int64]] = []
    for _ in range(_MOST_TRIES * n_orders):
        if len(orders) == n_orders:
            break
        order = rng.permutation(stats.sizes.size)
        if np.linalg.cond(permute_levels(stats.genes(slice(0, 0)), columns, order).XtX) < _SINGULAR:
            orders.append(order)
    return orders
