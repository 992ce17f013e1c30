"""Genes by levels: how many cells express a gene, and how it differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._captions import Axis, Wording, family, word_comparison
from .._docs import doc_params
from .._donors import along
from .._errors import alternatives
from ..get import lmm_de_df
from ._style import comparison_of_run, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from scanpy.pl import DotPlot

# What can be shown: its title, its value in the reference level, and whether it has a sign.
_VALUES = {
    "logfoldchanges": ("log2 fold change", 0.0, True),
    "coef": ("coefficient", 0.0, True),
    "scores": ("score", 0.0, True),
    "log10_pvals": ("$-\\log_{10}$ p-value", np.nan, False),
    "log10_pvals_adj": ("$-\\log_{10}$ adjusted\np-value", np.nan, False),
    "pvals": ("p-value", np.nan, False),
    "pvals_adj": ("adjusted p-value", np.nan, False),
}
_SMALLEST_P = 1e-300
_LETTERS_PER_GENE = 4  # that fit in the width of a gene


@doc_params
def dotplot(
    adata: AnnData,
    comparison: str | None = None,
    *,
    key: str = "lmm_de",
    n_genes: int = 10,
    values_to_plot: str | None = "logfoldchanges",
    layer: str | None = None,
    gene_symbols: str | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    **kwargs: Any,
) -> DotPlot | dict[str, Axes] | None:
    """Dot plot of the top genes in all levels that were compared with one reference, the reference included.

    The size of a dot is the share of a level's cells that express the gene, its colour how the level differs from the
    reference. The cells are those of the comparison, of a term in an interaction no others. This is what ``scanpy.pl.rank_genes_groups_dotplot(values_to_plot=...)`` cannot draw: it fails for a
    level without a result, as the reference is.

    Parameters
    ----------
    {adata}
    comparison
        Comparison that chooses the genes, and whose reference it is. By default the first one of the run. Each level has
        its own colours.
    {key}
    n_genes
        Number of genes, smallest p-values first.
    values_to_plot
        Colour: ``"logfoldchanges"``, ``"coef"``, ``"scores"``, ``"log10_pvals"`` or ``"log10_pvals_adj"`` (both shown
        as -log10), ``"pvals"`` or ``"pvals_adj"``. The reference is 0 in the first three and blank in the others.
        ``None`` shows the mean expression.
    layer
        Layer with the expression. By default what was tested.
    {gene_symbols}
    {show}
    return_fig
        Return scanpy's ``DotPlot``, which can be styled further.
    **kwargs
        Passed to :func:`scanpy.pl.dotplot`, e.g. ``swap_axes=True`` or ``cmap="PiYG"``.

    Returns
    -------
    ``DotPlot`` if ``return_fig=True``, the axes by name if ``show=False``, else ``None``.

    Raises
    ------
    ValueError
        If the test is not of a factor or `values_to_plot` is unknown.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> plot = sl.pl.dotplot(adata, n_genes=4, return_fig=True)
    >>> plot.dot_color_df.loc["control"].tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    import scanpy as sc

    name, params = comparison_of_run(adata, comparison, key)
    top = lmm_de_df(adata, name, key=key, sort=False).dropna(subset="log10_pvals")
    top = top.sort_values("log10_pvals", kind="stable").head(n_genes)
    axis, names = _levels(params, name, values_to_plot)
    small = _expression(adata, top.index, along(adata.obs, params, axis), params, layer, gene_symbols)
    style: dict[str, Any] = {"categories_order": list(axis.labels), "smallest_dot": 8}
    if axis.place:
        style["title"] = axis.place.strip()
    style["size_title"] = "Cells that express\nthe gene (%)"
    if values_to_plot is not None:
        colours = _colours(adata, key, axis.labels, names, values_to_plot, top.index)
        style |= {"dot_color_df": colours.set_axis(small.var_names, axis=1)} | _colour_scale(colours, values_to_plot)
    groups = _by_direction(top, small.var_names, word_comparison(name, params))
    if isinstance(groups, dict) and not kwargs.get("swap_axes"):
        groups, style["var_group_rotation"] = _across(groups)
    plot = sc.pl.dotplot(small, groups, small.obs.columns[0], return_fig=True, **(style | kwargs))
    if return_fig:
        return plot
    plot.make_figure()
    return None if shown(show=show) else plot.get_axes()


def _levels(params: Mapping[str, Any], name: str, values_to_plot: str | None) -> tuple[Axis, dict[str, str]]:
    """Levels that were compared with one reference, or an error where there are none or the values are unknown."""
    if values_to_plot is not None and values_to_plot not in _VALUES:
        msg = f"values_to_plot={values_to_plot!r} is unknown. {alternatives(str(values_to_plot), _VALUES)}"
        raise ValueError(msg)
    found = family(params, name)
    if found is None:
        msg = (
            f"The test of {params['test']!r} does not compare the levels of a factor with a reference. "
            f"Use sc_lmm.pl.volcano or sc_lmm.pl.donor_means."
        )
        raise ValueError(msg)
    return found


def _expression(
    adata: AnnData,
    positions: pd.Index,
    levels: pd.Series,
    params: Mapping[str, Any],
    layer: str | None,
    gene_symbols: str | None,
) -> AnnData:
    """Put the genes at `positions` in the cells with a level in an AnnData of their own under the names to show."""
    import scanpy as sc
    from anndata import AnnData
    from anndata.utils import make_index_unique

    layer = params["layer"] if layer is None else layer
    use_raw = bool(params["use_raw"]) and layer is None
    expression = sc.get.obs_df(adata, list(adata.var_names[positions]), layer=layer, use_raw=use_raw)
    known = levels.notna().to_numpy()
    names = adata.var_names if gene_symbols is None else adata.var[gene_symbols].astype(str)
    return AnnData(
        expression.to_numpy()[known],
        obs=pd.DataFrame({params["groupby"]: levels[known]}, index=adata.obs_names[known]),
        var=pd.DataFrame(index=make_index_unique(pd.Index(names)[positions])),
    )


def _colours(
    adata: AnnData, key: str, labels: Sequence[str], names: Mapping[str, str], values_to_plot: str, positions: pd.Index
) -> pd.DataFrame:
    """Levels by genes; the reference has the value that says "no difference"."""
    rows = {labels[0]: np.full(len(positions), _VALUES[values_to_plot][1])}
    for label, comparison in names.items():
        table = lmm_de_df(adata, comparison, key=key, sort=False)
        rows[label] = _values(table, values_to_plot)[positions].to_numpy()
    return pd.DataFrame.from_dict(rows, orient="index")


def _values(table: pd.DataFrame, name: str) -> pd.Series:
    if name == "log10_pvals":
        return -table[name]
    if name == "log10_pvals_adj":
        return -np.log10(table["pvals_adj"].clip(lower=_SMALLEST_P))
    return table[name]


def _colour_scale(colours: pd.DataFrame, values_to_plot: str) -> dict[str, Any]:
    """White at no difference; darker is more evidence."""
    title, _, signed = _VALUES[values_to_plot]
    largest = float(np.nanmax(np.abs(colours.to_numpy()), initial=0)) or 1.0
    cmap = "RdBu_r" if signed else "Reds_r" if values_to_plot.startswith("pvals") else "Reds"
    return {"cmap": cmap, "vmin": -largest if signed else 0.0, "vmax": largest, "colorbar_title": title}


def _by_direction(top: pd.DataFrame, names: pd.Index, words: Wording) -> dict[str, list[str]] | list[str]:
    """Names of the genes under the direction of their effect; a plain list for a joint test, which has none."""
    if top["coef"].isna().all():
        return list(names)
    rising = (top["coef"] > 0).to_numpy()
    groups = {words.up: list(names[rising]), words.down: list(names[~rising])}
    return {label: genes for label, genes in groups.items() if genes}


def _across(groups: dict[str, list[str]]) -> tuple[dict[str, list[str]], int]:
    """Break the names of groups in two lines, and turn them if they are still too wide for their genes."""
    broken = {label.replace(" in ", " in\n", 1): genes for label, genes in groups.items()}
    fit = all(max(map(len, label.splitlines())) <= _LETTERS_PER_GENE * len(genes) for label, genes in broken.items())
    return broken, 0 if fit else 90
