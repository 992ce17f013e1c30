"""A run -> one picture of it: the volcano, and the donors behind the genes at its top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import get, pl
from ._captions import axis_of, family

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.figure import FigureBase

_HEIGHT, _VOLCANO, _PANEL, _LEVEL = 6.0, 6.0, 1.5, 2.6  # inches


def draw_run(adata: AnnData, key: str, params: Mapping[str, Any], path: Path, *, pval_cutoff: float) -> bool:
    """Draw what there is to show of a run: a first comparison with a direction, and conditions; whether there is any."""
    from matplotlib.figure import Figure

    directed = _directed(adata, key, params)[:1]
    shown = [name for name in [*directed, *params["comparisons"]] if _has_axis(params, name)][:1]
    if not directed and not shown:
        return False
    axis = axis_of(params, shown[0]) if shown else None
    donors = _PANEL + _LEVEL * max(2, len(axis.labels) if axis else 1)
    figure = Figure(figsize=(_VOLCANO * len(directed) + donors * len(shown), _HEIGHT), layout="constrained")
    left: FigureBase = figure
    right: FigureBase = figure
    if directed and shown:
        grid = figure.add_gridspec(1, 2, width_ratios=(_VOLCANO, donors))
        left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    for name in shown:
        _draw_donors(right, adata, key, name)
    for name in directed:
        pl.volcano(adata, name, key=key, pval_cutoff=pval_cutoff, ax=left.subplots(), show=False)
    figure.savefig(path, dpi=150)
    return True


def drawings_of(adata: AnnData, key: str, params: Mapping[str, Any]) -> dict[str, str]:
    """Plots that can be drawn of a run -> the comparison to ask for, "" for the first one."""
    names = params["comparisons"]
    found = {
        "volcano": _directed(adata, key, params),
        "dotplot": [name for name in names if family(params, name) is not None],
        "donor_means": [name for name in names if _has_axis(params, name)],
    }
    return {plot: "" if names[0] in can else can[0] for plot, can in found.items() if can}


def _directed(adata: AnnData, key: str, params: Mapping[str, Any]) -> list[str]:
    """Comparisons whose effect has a direction in some gene."""
    return [name for name in params["comparisons"] if get.lmm_de_df(adata, name, key=key)["coef"].notna().any()]


def _has_axis(params: Mapping[str, Any], name: str) -> bool:
    return axis_of(params, name) is not None or params["reference"] == "no variance"


def _draw_donors(figure: FigureBase, adata: AnnData, key: str, name: str) -> None:
    """The four genes with the smallest p-values."""
    genes = get.lmm_de_df(adata, name, key=key).dropna(subset="log10_pvals").head(4)["names"].tolist()
    panels = figure.subplots(2, 2).ravel()
    for unused in panels[len(genes) :]:
        unused.remove()
    if genes:
        pl.donor_means(adata, genes, name, key=key, axes=panels[: len(genes)], show=False)
