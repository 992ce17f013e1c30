"""Levels, false discoveries and power against the number of donors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

# Okabe & Ito 2008, colours that colour-blind readers can tell apart; shapes say the same again.
_STYLE = {
    "lrt uncalibrated": ("#D55E00", "X", "--"),
    "lrt": ("#000000", "o", "-"),
    "between-within": ("#0072B2", "s", "-"),
    "satterthwaite": ("#009E73", "^", "-"),
    "kenward-roger": ("#56B4E9", "v", ":"),
    "between-within moderated": ("#CC79A7", "D", "-"),
}
_ROWS = (  # column, genes, axis label, scale, top of the axis, nominal
    ("at_05", "alike", "null genes at .05\n(one ICC)", 1.0, 0.16, 0.05),
    ("at_001", "alike", "per 1,000 at .001\n(one ICC)", 1000.0, 8.0, 1.0),
    ("at_05", "varied", "null genes at .05\n(varied ICC)", 1.0, 0.16, 0.05),
    ("fdr", "varied", "false among\ngenes found", 1.0, 0.4, 0.05),
    ("power", "varied", "changed genes\nfound (FDR 5 %)", 1.0, 1.0, None),
)


def draw_figure(results: pd.DataFrame, path: Path) -> None:
    """One column of panels per ICC, one row per question."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        iccs = results["icc"].unique()
        figure = Figure(figsize=(2.7 * iccs.size + 0.6, 10.5), layout="constrained", dpi=130)
        axes = figure.subplots(len(_ROWS), iccs.size, sharex=True, sharey="row", squeeze=False)
        for row, question in zip(axes, _ROWS, strict=True):
            for ax, icc in zip(row, iccs, strict=True):
                here = results[(results["icc"] == icc) & (results["genes"] == question[1])]
                _panel(ax, here, question, sorted(results["donors"].unique()))
            row[0].set_ylabel(question[2])
        for ax, icc in zip(axes[0], iccs, strict=True):
            ax.set_title(f"ICC {icc:g}", fontsize=10)
        for ax in axes[-1]:
            ax.set_xlabel("donors")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        cells, n = results["cells"].iloc[0], int(results["n_null"].iloc[0])
        figure.suptitle(f"{cells.capitalize()} cells per donor, {n:,} null genes; band: nominal ± 2 Monte-Carlo errors")
        figure.savefig(path)


def _panel(ax: Axes, rows: pd.DataFrame, question: tuple, donors: list[int]) -> None:
    column, _, _, scale, top, nominal = question
    positions = {n: k for k, n in enumerate(donors)}
    if nominal is not None:
        ax.axhline(nominal, color="0.4", lw=0.8)
    if column in ("at_05", "at_001"):
        p = nominal / scale
        error = 2 * np.sqrt(p * (1 - p) / rows["n_null"].iloc[0]) * scale
        ax.axhspan(nominal - error, nominal + error, color="0.85", lw=0)
    for name, (colour, marker, line) in _STYLE.items():
        mine = rows[rows["method"] == name]
        # A share of false discoveries among a handful of genes says nothing.
        values = np.where((column == "fdr") & (mine["found"] < 50), np.nan, mine[column] * scale)
        x = np.array([positions[n] for n in mine["donors"]])
        ax.plot(
            x, np.minimum(values, top), ls=line, color=colour, marker=marker, ms=4.5, lw=1.2, label=name, clip_on=False
        )
        for k in np.flatnonzero(values > top):
            ax.annotate(
                f"{values[k]:.2g}",
                (x[k], top),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=colour,
            )
    ax.set_ylim(0, top)
    ax.set_xticks(range(len(donors)), [str(n) for n in donors])
