"""Effect against how widely a gene is expressed, a point per gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._captions import word_comparison
from .._docs import doc_params
from ..get import lmm_de_df
from ._genes import draw_genes, refuse_undirected
from ._labels import label_points
from ._style import comparison_of_run, shown, single_axes, without_frame

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


@doc_params
def ma(
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
    """Effect on each gene (``coef``, in units of the matrix) against the share of cells that express it.

    What is found should not depend on how widely genes are expressed alone, and genes that do not change lie around zero
    at every share. A cloud that bends tells of depth that differs between the conditions.

    Parameters
    ----------
    {adata}
    {comparison}
    {key}
    pval_cutoff
        Genes with an adjusted p-value below this are coloured.
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

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> sl.pl.ma(adata, show=False).get_xlabel()
    'cells that express the gene (%)'
    """
    name, params = comparison_of_run(adata, comparison, key)
    table = lmm_de_df(adata, name, key=key, gene_symbols=gene_symbols).dropna(subset=["coef", "log10_pvals"])
    if table.empty:
        refuse_undirected(name, params)
    words, effect = word_comparison(name, params), table["coef"].to_numpy()
    x, found = 100 * table["pct_expressed"].to_numpy(), (table["pvals_adj"] < pval_cutoff).to_numpy()
    ax = single_axes(ax, (6.4, 4.6))
    draw_genes(ax, x, effect, found, effect, words)
    ax.axhline(0, color="0.4", lw=0.8, zorder=0)
    width = 1.1 * np.abs(effect).max() or 1.0
    ax.set(ylim=(-width, width), xlabel="cells that express the gene (%)")
    ax.set_ylabel(f"coefficient, {words.contrast}")
    ax.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    without_frame(ax)
    top, cloud = table.head(n_labels), np.column_stack([x, effect])
    label_points(ax, cloud[: len(top)], [str(gene) for gene in top["names"]], cloud)
    return None if shown(show=show) else ax
