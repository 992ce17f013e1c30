"""Effect against evidence, a point per gene."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from .._captions import Wording, word_comparison
from .._docs import doc_params
from ..get import lmm_de_df
from ._genes import draw_genes, refuse_undirected
from ._labels import label_points
from ._style import comparison_of_run, shown, single_axes, without_frame

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

_LETTERS_PER_INCH = 12


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
    {n_labels}
    {gene_symbols}
    {ax}
    {show}

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
    name, params = comparison_of_run(adata, comparison, key)
    table = lmm_de_df(adata, name, key=key, gene_symbols=gene_symbols)
    table, unit = _with_effect(table)
    if table.empty:
        refuse_undirected(name, params)
    words = word_comparison(name, params)

    ax = single_axes(ax, (6.4, 5.6))
    draw_genes(
        ax, table["effect"], table["height"], (table["pvals_adj"] < pval_cutoff).to_numpy(), table["effect"], words
    )
    _draw_cutoff(ax, table, pval_cutoff)
    _describe(ax, table, f"{unit}, {words.contrast}", words)
    top = table.head(n_labels)
    cloud = table[["effect", "height"]].to_numpy()
    label_points(ax, cloud[: len(top)], [str(gene) for gene in top["names"]], cloud)
    return None if shown(show=show) else ax


def _with_effect(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Genes that have a result, with their ``effect`` and ``height``, and what the effect is called."""
    logged = table["logfoldchanges"].notna().any()
    effect = table["logfoldchanges" if logged else "coef"]
    table = table.assign(effect=effect, height=-table["log10_pvals"])
    return table[table["effect"].notna() & table["height"].notna()], "log2 fold change" if logged else "coefficient"


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
    without_frame(ax)
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
