"""Colours, and how a plot ends: what all plots share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito: told apart by colour-blind readers too. Up is the colour of the first level after the reference.
UP, DOWN, NEUTRAL = "#D55E00", "#0072B2", "#BDBDBD"
LEVELS = (DOWN, UP, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5C5C5C")


def single_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the axes given, or those of a new figure of `size` inches."""
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def shown(*, show: bool | None) -> bool:
    """Show the figure if asked to, or if scanpy's settings say so; whether it was."""
    import scanpy as sc
    from matplotlib import pyplot as plt

    wanted = bool(sc.settings.autoshow if show is None else show)
    if wanted:
        plt.show()
    return wanted
