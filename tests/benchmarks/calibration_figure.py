"""Levels, false discoveries and what is found, against the number of donors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .calibration_methods import ORACLE

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

# Okabe & Ito 2008, colours that colour-blind readers can tell apart; shapes say the same again.
_STYLE = {
    "oracle": ("0.45", "", ":"),
    "default": ("#000000", "o", "-"),
    "calibrated ratio": ("#0072B2", "s", "-"),
    "chi-square": ("#D55E00", "X", "--"),
    "between-within": ("#009E73", "^", "--"),
    "between-within squeezed": ("#009E73", "v", "-"),
    "kenward-roger": ("#CC79A7", "d", "--"),
    "kenward-roger squeezed": ("#CC79A7", "D", "-"),
}
_ROWS = (  # column, axis label, scale, top of the axis, nominal
    ("at_05", "null genes\nbelow .05", 1.0, 0.12, 0.05),
    ("at_001", "null genes below\n.001, per 1,000", 1000.0, 5.0, 1.0),
    ("fdp", "false among genes\ncalled at FDR 5 %", 1.0, 0.2, 0.05),
    ("share", "found, share of what\nthe oracle finds", 1.0, 1.1, 1.0),
)


def draw_figure(results: pd.DataFrame, question: str, path: Path) -> None:
    """One column of panels per population of genes, one row per question."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    results = _with_share(results[(results["question"] == question) & (results["design"] == "unbalanced")])
    names, donors = list(results["population"].unique()), sorted(results["donors"].unique())
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(1.9 * len(names) + 1, 9), layout="constrained", dpi=130)
        axes = figure.subplots(len(_ROWS), len(names), sharex=True, sharey="row", squeeze=False)
        for row, what in zip(axes, _ROWS, strict=True):
            for ax, name in zip(row, names, strict=True):
                _panel(ax, results[results["population"] == name], what, donors)
            row[0].set_ylabel(what[1])
        for ax, name in zip(axes[0], names, strict=True):
            ax.set_title(name, fontsize=10, pad=12)
        for ax in axes[-1]:
            ax.set_xlabel("donors")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        n = int(results["n_null"].iloc[0])
        figure.suptitle(f"{question}, unbalanced cells, {n:,} null genes; band: nominal ± 2 Monte-Carlo errors")
        figure.savefig(path)


def _with_share(results: pd.DataFrame) -> pd.DataFrame:
    cell = ["donors", "population"]
    oracle = results[results["method"] == ORACLE].set_index(cell)["found"]
    return results.assign(share=results["found"] / oracle.loc[list(results[cell].itertuples(index=False))].to_numpy())


def _panel(ax: Axes, rows: pd.DataFrame, what: tuple, donors: list[int]) -> None:
    column, _, scale, top, nominal = what
    ax.axhline(nominal, color="0.4", lw=0.8)
    if column in ("at_05", "at_001"):
        p = nominal / scale
        error = 2 * np.sqrt(p * (1 - p) / rows["n_null"].iloc[0]) * scale
        ax.axhspan(nominal - error, nominal + error, color="0.87", lw=0)
    for name, (colour, marker, line) in _STYLE.items():
        mine = rows[rows["method"] == name]
        # A share of false discoveries among a handful of genes says nothing.
        values = np.where((column == "fdp") & (mine["called"] < 50), np.nan, mine[column] * scale)
        x = np.array([donors.index(n) for n in mine["donors"]])
        style = {"ls": line, "color": colour, "marker": marker, "ms": 4, "lw": 1.1}
        ax.plot(x, np.minimum(values, top), label=name, clip_on=False, **style)
        _say_beyond(ax, x, values, top, colour)
    ax.set_ylim(0, top)
    ax.set_xticks(range(len(donors)), [str(n) for n in donors])


def _say_beyond(ax: Axes, x: np.ndarray, values: np.ndarray, top: float, colour: str) -> None:
    """Numbers where a line leaves its panel."""
    for k in np.flatnonzero(values > top):
        place = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
        ax.annotate(f"{values[k]:.2g}", (x[k], top), fontsize=6, color=colour, **place)
