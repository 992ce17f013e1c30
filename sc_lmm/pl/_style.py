"""Colours, and how a plot begins and ends: what all plots share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..get import lmm_de_params

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

# Okabe & Ito: told apart by colour-blind readers too. Up is the colour of the first level after the reference.
UP, DOWN, NEUTRAL = "#D55E00", "#0072B2", "#BDBDBD"
LEVELS = (DOWN, UP, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5C5C5C")

MANY = 5_000  # points; from here on they are stored as an image in vector files


def comparison_of_run(adata: AnnData, comparison: str | None, key: str) -> tuple[str, dict[str, Any]]:
    """Name of the comparison that is meant, the first by default, and the settings of the run."""
    params = lmm_de_params(adata, key=key)
    return params["comparisons"][0] if comparison is None else str(comparison), params


def single_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the axes given, or those of a new figure of `size` inches."""
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def without_frame(ax: Axes) -> None:
    """Leave out what holds no data: the upper and right edge, and the grid of some styles."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=False)


def shown(*, show: bool | None) -> bool:
    """Show the figure if asked to, or if scanpy's settings say so; whether it was."""
    import scanpy as sc
    from matplotlib import pyplot as plt

    wanted = bool(sc.settings.autoshow if show is None else show)
    if wanted:
        plt.show()
    return wanted
