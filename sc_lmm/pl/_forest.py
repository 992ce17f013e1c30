"""One gene over cell types or contrasts: estimates and their confidence limits below each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._captions import format_p, word_comparison
from .._docs import doc_params
from .._errors import alternatives, listing
from ..get import lmm_de_df, lmm_de_params
from ._style import DOWN, NEUTRAL, UP, shown, single_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

_SMALLEST_P = 1e-300
_ROW = 0.34  # inches


@doc_params
def forest(
    adata: AnnData,
    gene: str,
    comparisons: Sequence[str] | None = None,
    *,
    key: str = "lmm_de",
    pval_cutoff: float = 0.05,
    sort: bool = False,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    """Estimates of one gene in several comparisons, such as the cell types of a run with `groupby`.

    A point is ``coef`` and a line its confidence interval, in units of the matrix. Comparisons with an adjusted p-value
    below the cutoff are coloured by direction.

    Parameters
    ----------
    {adata}
    gene
        Gene to show.
    comparisons
        Comparisons to show, from above. By default all that test one coefficient.
    {key}
    pval_cutoff
        Level of the adjusted p-values.
    sort
        Order by the estimate, the largest above.
    {gene_symbols}
    {ax}
    {show}

    Returns
    -------
    The axes if ``show=False``, else ``None``.

    Raises
    ------
    KeyError
        If the gene or a comparison does not exist.
    ValueError
        If the gene has no result in any of them.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=12, n_cells=2_400, n_genes=20)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis", groupby="cell_type")
    >>> ax = sl.pl.forest(adata, adata.var_names[0], show=False)
    >>> [label.get_text() for label in ax.get_yticklabels()] == list(adata.uns["lmm_de"]["comparisons"].index)
    True
    """
    params = lmm_de_params(adata, key=key)
    names = list(params["comparisons"] if comparisons is None else comparisons)
    rows = pd.DataFrame([_row(adata, name, gene, key, gene_symbols) for name in names], index=names)
    rows = rows.dropna(subset="coef")
    if rows.empty:
        msg = f"Gene {gene!r} has no estimate in {listing(names, 5)}: it was not tested there, or several coefficients were at once."
        raise ValueError(msg)
    rows = rows.sort_values("coef", ascending=False) if sort else rows
    ax = single_axes(ax, (5.6, 1.3 + _ROW * len(rows)))
    _draw(ax, rows, pval_cutoff)
    words = {word_comparison(name, params).contrast for name in rows.index}
    what = words.pop() if len(words) == 1 else "coefficient"
    ax.set_xlabel(f"{what}, in units of the matrix" if len(rows) == 1 else "difference, in units of the matrix")
    ax.set_title(gene, fontsize=11)
    return None if shown(show=show) else ax


def _row(adata: AnnData, name: str, gene: str, key: str, gene_symbols: str | None) -> pd.Series:
    table = lmm_de_df(adata, name, key=key, sort=False, gene_symbols=gene_symbols)
    found = table[table["names"] == gene]
    if found.empty:
        msg = f"gene {gene!r} is not in the results. {alternatives(gene, table['names'])}"
        raise KeyError(msg)
    return found.iloc[0][["coef", "ci_low", "ci_high", "pvals_adj"]]


def _draw(ax: Axes, rows: pd.DataFrame, cutoff: float) -> None:
    y = np.arange(len(rows))[::-1]
    coef, adjusted = rows["coef"].to_numpy(float), rows["pvals_adj"].to_numpy(float)
    colours = np.where(adjusted < cutoff, np.where(coef > 0, UP, DOWN), NEUTRAL).tolist()
    ax.hlines(y, rows["ci_low"].to_numpy(float), rows["ci_high"].to_numpy(float), colors=colours, lw=2)
    ax.scatter(coef, y, c=colours, s=42, zorder=3)
    ax.axvline(0, color="0.7", lw=0.8, zorder=0)
    ax.set_yticks(y, list(rows.index))
    ax.set_ylim(-0.7, len(rows) - 0.3)
    for place, log10_p in zip(y, np.log10(np.maximum(adjusted, _SMALLEST_P)), strict=True):
        ax.text(
            1.02,
            place,
            f"adjusted p {format_p(log10_p)}",
            transform=ax.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color="0.3",
        )
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)
