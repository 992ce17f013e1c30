"""Genes by comparisons: the effects as colours, stars where there is evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._docs import doc_params
from .._errors import alternatives
from ..get import lmm_de_df, lmm_de_params
from ._style import shown, single_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

_VALUES = {
    "coef_shrunken": "shrunken coefficient",
    "coef": "coefficient",
    "logfoldchanges": "log2 fold change",
    "scores": "score",
}
_STARS = {"***": 0.001, "**": 0.01, "*": 0.05}
_SATURATED = (
    0.98  # share of the fields from which on colours do not deepen, so that one gene does not blanch the others
)
_CELL = 0.32, 0.24  # inches


@doc_params
def heatmap(
    adata: AnnData,
    genes: Sequence[str] | None = None,
    comparisons: Sequence[str] | None = None,
    *,
    key: str = "lmm_de",
    n_genes: int = 5,
    values: str | None = None,
    adjusted: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    """Effects on genes (rows) in several comparisons (columns), such as the cell types of a run with `groupby`.

    Stars are adjusted p-values below 0.05, 0.01 and 0.001. A grey field has no result: the gene was not tested there.

    Parameters
    ----------
    {adata}
    genes
        Genes to show, from above. By default the `n_genes` with the smallest p-values of each comparison.
    comparisons
        Comparisons to show. By default all that test one coefficient.
    {key}
    n_genes
        Number of genes of each comparison if `genes` is not given.
    values
        Colour: ``"coef_shrunken"``, ``"coef"``, ``"logfoldchanges"`` or ``"scores"``. By default the first of these that
        the run has.
    adjusted
        Column of the adjusted p-values, ``"pvals_adj"`` or, of a run with `groupby`, ``"pvals_adj_global"``, which is the
        default there.
    {gene_symbols}
    {ax}
    {show}

    Returns
    -------
    The axes if ``show=False``, else ``None``.

    Raises
    ------
    KeyError
        If a gene or a comparison does not exist.
    ValueError
        If `values` is unknown, or empty in all genes.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=12, n_cells=2_400, n_genes=20)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis", groupby="cell_type")
    >>> ax = sl.pl.heatmap(adata, n_genes=2, show=False)
    >>> [label.get_text() for label in ax.get_xticklabels()] == list(adata.uns["lmm_de"]["comparisons"].index)
    True
    """
    if values is not None and values not in _VALUES:
        msg = f"values={values!r} is unknown. {alternatives(str(values), _VALUES)}"
        raise ValueError(msg)
    names = list(lmm_de_params(adata, key=key)["comparisons"] if comparisons is None else comparisons)
    tables = {name: lmm_de_df(adata, name, key=key, sort=False, gene_symbols=gene_symbols) for name in names}
    tables = {name: table for name, table in tables.items() if table["coef"].notna().any()}
    known = [name for name in _VALUES if any(table[name].notna().any() for table in tables.values())]
    if not known or values not in (None, *known):
        what = (
            "These comparisons have no effect with a direction to show."
            if not known
            else f"values={values!r} is empty in all genes of the run."
        )
        msg = f"{what} {alternatives(str(values), known)}"
        raise ValueError(msg)
    values = values or known[0]
    rows = _chosen(tables, genes, n_genes)
    column = adjusted or ("pvals_adj_global" if "pvals_adj_global" in next(iter(tables.values())) else "pvals_adj")
    effects = pd.DataFrame({name: table[values].to_numpy()[rows] for name, table in tables.items()})
    evidence = pd.DataFrame({name: table[column].to_numpy()[rows] for name, table in tables.items()})
    labels = next(iter(tables.values()))["names"].to_numpy()[rows]
    ax = single_axes(ax, (2.6 + _CELL[0] * len(tables), 1.6 + _CELL[1] * len(rows)))
    _draw(ax, effects, evidence, [str(label) for label in labels], _VALUES[values])
    return None if shown(show=show) else ax


def _chosen(tables: dict[str, pd.DataFrame], genes: Sequence[str] | None, n_genes: int) -> list[int]:
    """Positions of the genes: those asked for, or the first of each comparison, each once."""
    if genes is None:
        best = [t["log10_pvals"].dropna().sort_values(kind="stable").index[:n_genes] for t in tables.values()]
        return list(dict.fromkeys(int(position) for positions in best for position in positions))
    known = pd.Series(range(len(first := next(iter(tables.values())))), index=first["names"])
    known = known[~known.index.duplicated()]
    missing = [gene for gene in genes if gene not in known.index]
    if missing:
        msg = f"gene {missing[0]!r} is not in the results. {alternatives(missing[0], known.index)}"
        raise KeyError(msg)
    return [int(known[gene]) for gene in genes]


def _draw(ax: Axes, effects: pd.DataFrame, evidence: pd.DataFrame, labels: list[str], title: str) -> None:
    import matplotlib as mpl

    shades = effects.to_numpy(float)
    largest = float(np.nanquantile(np.abs(shades), _SATURATED)) or 1.0
    colours = mpl.colormaps["RdBu_r"].with_extremes(bad="0.85")
    image = ax.imshow(shades, cmap=colours, vmin=-largest, vmax=largest, aspect="auto")
    for (i, j), p in np.ndenumerate(evidence.to_numpy()):
        stars = next((text for text, level in _STARS.items() if p < level), "")
        dark = abs(shades[i, j]) > 0.6 * largest
        ax.text(j, i + 0.1, stars, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ax.set_xticks(range(effects.shape[1]), list(effects.columns), rotation=60, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.6, pad=0.02, extend="both")
    bar.set_label(title)
    bar.outline.set_visible(False)
