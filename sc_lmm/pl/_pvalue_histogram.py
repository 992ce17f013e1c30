"""How the p-values of all genes are distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._captions import word_comparison
from .._docs import doc_params
from .._words import counted
from ..get import lmm_de_df
from ._style import DOWN, comparison_of_run, shown, single_axes, without_frame

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


@doc_params
def pvalue_histogram(
    adata: AnnData,
    comparison: str | None = None,
    *,
    key: str = "lmm_de",
    bins: int = 20,
    chi2: bool = True,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    """Histogram of the p-values, beside the line at which it would be if no gene changed.

    A flat histogram with a peak at the left is what a test that holds gives where some genes change. One that rises to
    the right is too cautious or has too few donors to say anything, one that falls all along is too optimistic or tells
    of a difference that concerns all genes.

    Parameters
    ----------
    {adata}
    {comparison}
    {key}
    bins
        Number of bars.
    chi2
        Show ``pvals_chi2`` as a line, what the chi-square of the ratio would have said.
    {ax}
    {show}

    Returns
    -------
    The axes if ``show=False``, else ``None``.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> sl.pl.pvalue_histogram(adata, show=False).get_xlabel()
    'p-value'
    """
    name, params = comparison_of_run(adata, comparison, key)
    table = lmm_de_df(adata, name, key=key)
    ax = single_axes(ax, (5.2, 3.8))
    edges, pvals = np.linspace(0, 1, bins + 1).tolist(), table["pvals"].dropna()
    ax.hist(pvals, bins=edges, color=DOWN, alpha=0.75, edgecolor="white", lw=0.6, label="pvals")
    if chi2 and table["pvals_chi2"].notna().any():
        ax.hist(table["pvals_chi2"].dropna(), bins=edges, histtype="step", color="0.35", lw=1.2, label="pvals_chi2")
    ax.axhline(len(pvals) / bins, color="0.2", lw=0.9, ls=(0, (4, 3)), label="if no gene changed")
    ax.set(xlabel="p-value", ylabel="genes", xlim=(0, 1))
    ax.set_title(f"{word_comparison(name, params).contrast}, {counted(len(pvals), 'gene')}", fontsize=10)
    ax.legend(frameon=False, fontsize=9)
    without_frame(ax)
    return None if shown(show=show) else ax
