"""Power against the effect, a line per number of donors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from .._docs import doc_params
from .._errors import alternatives
from ._style import shown, without_frame

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

    Column = Literal["effect", "n_donors", "n_cells", "icc"]

_WORDS = {
    "effect": "effect (standard deviations of a cell)",
    "n_donors": "donors",
    "n_cells": "cells per donor",
    "icc": "ICC (share of variance between donors)",
}
_SHORT = {"effect": "effect {:g}", "n_donors": "{:g} donors", "n_cells": "{:,.0f} cells per donor", "icc": "ICC {:g}"}
_LEARNED = "learned"  # an ICC that is each gene's own
_PANEL = (3.9, 3.2)  # inches
_LABEL_BAND = (0.34, 0.68)  # power at which the lines are labelled, the lowest and the highest


@doc_params
def power(
    table: pd.DataFrame,
    *,
    x: Column = "effect",
    lines: Column = "n_donors",
    target: float = 0.8,
    xlabel: str | None = None,
    show: bool | None = None,
) -> list[Axes] | None:
    r"""Power against the effect, a line per number of donors and a panel for each ICC and number of cells.

    Parameters
    ----------
    table
        What :func:`sc_lmm.tl.power` returned.
    x
        Column along the horizontal axis.
    lines
        Column that the lines of a panel differ in. The others of ``effect``, ``n_donors``, ``n_cells`` and ``icc`` make
        the panels.
    target
        Power that a dashed line marks.
    xlabel
        Words along the horizontal axis, for effects in other units.
    {show}

    Returns
    -------
    The axes of the panels, row by row, if ``show=False``, else ``None``.

    Raises
    ------
    ValueError
        If the table has not the columns of :func:`sc_lmm.tl.power`, or one of them is asked for twice.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> table = sl.tl.power(effect=[0.1, 0.2, 0.3, 0.4], n_donors=[8, 24], n_cells=500, icc=[0.01, 0.1])
    >>> axes = sl.pl.power(table, show=False)
    >>> [ax.get_title() for ax in axes]
    ['ICC 0.01', 'ICC 0.1']
    """
    from matplotlib import pyplot as plt

    _check(table, x, lines)
    down, across = (name for name in ("n_cells", "icc", "n_donors", "effect") if name not in (x, lines))
    if len(table[across].unique()) == 1:
        down, across = across, down
    rows, columns = table[down].unique(), table[across].unique()
    size = (_PANEL[0] * len(columns), _PANEL[1] * len(rows) + 0.3)
    figure, grid = plt.subplots(
        len(rows), len(columns), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, row in zip(grid, rows, strict=True):
        for ax, column in zip(axes, columns, strict=True):
            _draw_panel(ax, table[(table[down] == row) & (table[across] == column)], x, lines, target)
            several = ((down, row, len(rows)), (across, column, len(columns)))
            ax.set_title(", ".join(_describe(name, value) for name, value, n in several if n > 1), fontsize=10)
    learned = "; ICC learned from a pilot" if (table["icc"] == _LEARNED).all() else ""
    figure.suptitle(f"number on a line: {_WORDS[lines].split(' (')[0]}{learned}", x=0.01, ha="left", fontsize=9)
    for ax in grid[-1]:
        ax.set_xlabel(xlabel or _WORDS[x])
    for ax in grid[:, 0]:
        ax.set_ylabel("power")
    return None if shown(show=show) else list(grid.ravel())


def _check(table: pd.DataFrame, x: str, lines: str) -> None:
    missing = [name for name in (*_WORDS, "power") if name not in table]
    if missing:
        msg = f"table has no column {missing[0]!r}. Give what sc_lmm.tl.power returned."
        raise ValueError(msg)
    for argument, name in (("x", x), ("lines", lines)):
        if name not in _WORDS:
            msg = f"{argument}={name!r} is not a column to plot by. {alternatives(str(name), _WORDS)}"
            raise ValueError(msg)
        if name == "icc" and (table["icc"] == _LEARNED).any():
            msg = f"{argument}='icc' needs numbers, and the table has {_LEARNED!r}. Choose another column, or give icc to tl.power."
            raise ValueError(msg)
    if x == lines:
        msg = f"x and lines are both {x!r}. Choose two different columns."
        raise ValueError(msg)


def _describe(name: str, value: float | str) -> str:
    return "ICC learned from a pilot" if value == _LEARNED else _SHORT[name].format(value)


def _draw_panel(ax: Axes, part: pd.DataFrame, x: str, lines: str, target: float) -> None:
    from matplotlib import colormaps
    from matplotlib.patheffects import withStroke

    values = np.sort(part[lines].unique())
    shades = colormaps["viridis"](np.linspace(0.8, 0.05, values.size) if values.size > 1 else [0.25])
    bands = np.linspace(*_LABEL_BAND, values.size) if values.size > 1 else np.array([np.mean(_LABEL_BAND)])
    ax.axhline(target, color="0.35", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for value, shade, band in zip(values, shades, bands, strict=True):
        curve = part[part[lines] == value].sort_values(x)
        across, up, error = (curve[name].to_numpy(dtype=np.float64) for name in (x, "power", "error"))
        if error.any():
            ax.fill_between(across, up - 2 * error, up + 2 * error, color=shade, alpha=0.2, linewidth=0)
        ax.plot(across, up, color=shade, linewidth=1.8, marker="o" if across.size < 3 else None, markersize=4)
        _label(ax, across, up, float(band), f"{value:,g}", shade)
    ax.set(ylim=(0, 1.02))
    ax.annotate(
        f"{target:.0%}",
        (1, target),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        size=8,
        color="0.35",
        path_effects=[withStroke(linewidth=3, foreground="white")],
        zorder=4,
    )
    without_frame(ax)


def _label(ax: Axes, x: Array, y: Array, band: float, text: str, colour: Array) -> None:
    """Write the name of a line on it where it passes the height `band`, or at the point nearest to that."""
    from matplotlib.patheffects import withStroke

    passes = np.flatnonzero((y[:-1] < band) & (y[1:] >= band))
    if passes.size:
        k = passes[0]
        share = (band - y[k]) / (y[k + 1] - y[k])
        point = (x[k] + share * (x[k + 1] - x[k]), band)
    else:
        k = int(np.abs(y - band).argmin())
        point = (x[k], y[k])
    last = point[0] == x.max()
    ax.annotate(
        text,
        point,
        xytext=(5 if last and len(x) < 3 else 0, 0),
        textcoords="offset points",
        ha=("left" if len(x) < 3 else "right") if last else "center",
        va="center",
        size=9,
        weight="bold",
        color=colour,
        path_effects=[withStroke(linewidth=4, foreground="white")],
        zorder=4,
    )
