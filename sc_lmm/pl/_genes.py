"""Genes as points, coloured by direction where there is evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .._errors import listing
from ._style import DOWN, MANY, NEUTRAL, UP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from .._captions import Wording


def draw_genes(
    ax: Axes, x: ArrayLike, y: ArrayLike, found: NDArray[np.bool_], effect: ArrayLike, words: Wording
) -> None:
    """Draw a point per gene, those with evidence by the sign of their effect, each kind with its number."""
    x, y, rising = np.asarray(x), np.asarray(y), np.asarray(effect) > 0
    kinds = (
        ("no evidence", NEUTRAL, ~found, 10, 0.6),
        (words.down, DOWN, found & ~rising, 18, 0.9),
        (words.up, UP, found & rising, 18, 0.9),
    )
    for label, colour, rows, size, alpha in kinds:
        look: dict[str, Any] = {"s": size, "c": colour, "alpha": alpha, "linewidths": 0, "rasterized": x.size > MANY}
        ax.scatter(x[rows], y[rows], label=f"{label} ({int(rows.sum()):,})", **look)


def refuse_undirected(name: str, params: Mapping[str, Any]) -> NoReturn:
    """Say that a comparison has no effect with a direction, and which have."""
    others = [c for c in params["comparisons"] if c != name]
    msg = (
        f"comparison={name!r} has no effect with a direction to show: it tests several coefficients at once or a "
        f"variance, or no gene has a result. " + (f"Choose one of {listing(others)}." if others else "")
    )
    raise ValueError(msg.strip())
