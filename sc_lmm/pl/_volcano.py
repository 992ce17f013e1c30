"""Effect against evidence, a point per gene."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .._captions import Wording, word_comparison
from .._docs import doc_params
from .._errors import listing
from ..get import lmm_de_df, lmm_de_params
from ._labels import label_points
from ._style import DOWN, NEUTRAL, UP, shown, single_axes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

_LETTERS_PER_INCH = 12
_MANY = 5_000  # points; from here on they are stored as an image in vector files


@doc_params
def volcano(
    adata: AnnData,
    comparison: str | None = None,
    *,
    key: str = "lmm_de",
    pval_cutoff: float = 0.05,
    n_labels: int = 10,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    r"""Volcano plot: the effect on each gene against -log10 of its p-value.

    Parameters
    ----------
    {adata}
    {comparison}
    {key}
    pval_cutoff
        Genes with an adjusted p-value below this are coloured and counted by direction.
    n_labels
        Number of genes to name, smallest p-values first. Names do not overlap; one that finds no place is left out.
    {gene_symbols}
    ax
        Where to draw. By default in a new figure.
    show
        Show the figure and return nothing. By default as in ``scanpy.settings.autoshow``.

    Returns
    -------
    The axes if ``show=False``, else ``None``.

    Raises
    ------
    ValueError
        If the comparison tests several coefficients at once, which have no single effect.

    Notes
    -----
    The effect is ``logfoldchanges``, or ``coef`` where no logarithm was declared. P-values are read in log space, so
    that none is infinitely high.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> ax = sl.pl.volcano(adata, show=False)
    >>> ax.get_ylabel()
    '$-\\log_{10}$ p-value'
    """
    params = lmm_de_params(adata, key=key)
    name = params["comparisons"][0] if comparison is None else str(comparison)
    table = lmm_de_df(adata, name, key=key, gene_symbols=gene_symbols)
    table, unit = _with_effect(table)
    if table.empty:
        _refuse(name, params)
    words = word_comparison(name, params)

    ax = single_axes(ax, (6.4, 5.6))
    _draw_points(ax, table, pval_cutoff, words)
    _draw_cutoff(ax, table, pval_cutoff)
    _describe(ax, table, f"{unit}, {words.contrast}", words)
    top = table.head(n_labels)
    cloud = table[["effect", "height"]].to_numpy()
    label_points(ax, cloud[: len(top)], [str(gene) for gene in top["names"]], cloud)
    return None if shown(show=show) else ax


def _refuse(name: str, params: Mapping[str, Any]) -> NoReturn:
    others = [c for c in params["comparisons"] if c != name]
    msg = (
        f"comparison={name!r} has no effect with a direction to show: it tests several coefficients at once or a "
        f"variance, or no gene has a result. " + (f"Choose one of {listing(others)}." if others else "")
    )
    raise ValueError(msg.strip())


def _with_effect(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Genes that have a result, with their ``effect`` and ``height``, and what the effect is called."""
    logged = table["logfoldchanges"].notna().any()
    effect = table["logfoldchanges" if logged else "coef"]
    table = table.assign(effect=effect, height=-table["log10_pvals"])
    return table[table["effect"].notna() & table["height"].notna()], "log2 fold change" if logged else "coefficient"


def _draw_points(ax: Axes, table: pd.DataFrame, cutoff: float, words: Wording) -> None:
    found = (table["pvals_adj"] < cutoff).to_numpy()
    rising = (table["effect"] > 0).to_numpy()
    groups = (
        ("no evidence", NEUTRAL, ~found, 10, 0.6),
        (words.down, DOWN, found & ~rising, 18, 0.9),
        (words.up, UP, found & rising, 18, 0.9),
    )
    for label, colour, rows, size, alpha in groups:
        ax.scatter(
            table["effect"][rows],
            table["height"][rows],
            s=size,
            c=colour,
            alpha=alpha,
            linewidths=0,
            rasterized=len(table) > _MANY,
            label=f"{label} ({int(rows.sum()):,})",
        )


def _draw_cutoff(ax: Axes, table: pd.DataFrame, cutoff: float) -> None:
    """Draw a line between the genes on both sides of the cutoff, if there are any."""
    found = table["pvals_adj"] < cutoff
    if found.any() and not found.all():
        height = (table["height"][found].min() + table["height"][~found].max()) / 2
        ax.axhline(
            height, color="0.4", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0, label=f"adjusted p = {cutoff:g}"
        )


def _describe(ax: Axes, table: pd.DataFrame, effect: str, words: Wording) -> None:
    width = 1.08 * np.abs(table["effect"]).max() or 1.0
    ax.set(xlim=(-width, width), ylim=(0, 1.06 * table["height"].max() or 1.0))
    ax.set_ylabel(r"$-\log_{10}$ p-value")
    ax.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=False)
    ax.figure.canvas.figure.draw_without_rendering()  # the layout gives the width
    room = int(_LETTERS_PER_INCH * ax.bbox.width / ax.figure.dpi)
    down, up = (words.down, words.up) if len(words.down + words.up) + 14 <= room else ("less", "more")
    ax.set_xlabel(f"$\\longleftarrow$ {down}        {up} $\\longrightarrow$\n{fill(effect, room)}")
    _add_legend(ax, room)


def _add_legend(ax: Axes, room: int) -> None:
    """Put the legend above the axes, in two columns if they fit: up over the rest, down over the cutoff."""
    handles, labels = ax.get_legend_handles_labels()
    ncols = 2 if 2 * max(map(len, labels)) + 12 <= room else 1
    order = [k for k in ((2, 0, 1, 3) if ncols == 2 else (2, 1, 0, 3)) if k < len(handles)]
    ax.legend(
        [handles[k] for k in order],
        [fill(labels[k], room) for k in order],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=ncols,
        frameon=False,
        borderaxespad=0.3,
        fontsize=9,
    )
