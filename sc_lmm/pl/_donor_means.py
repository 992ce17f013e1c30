"""A point per donor: the unit of evidence."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._captions import format_p, is_number, levels_of
from .._docs import doc_params
from .._donors import donor_table
from .._errors import alternatives, listing
from ..get import lmm_de_df, lmm_de_params
from ._style import LEVELS, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_PANEL_HEIGHT, _LEVEL_WIDTH, _LEGEND_WIDTH = 3.1, 0.95, 1.5  # inches
_SMALLEST, _LARGEST = 18.0, 150.0  # areas of the points
_POINT: dict[str, Any] = {"alpha": 0.75, "edgecolors": "white", "linewidths": 0.6, "zorder": 2}
_GOLDEN = 0.618034  # consecutive multiples, modulo 1, keep apart


@doc_params
def donor_means(
    adata: AnnData,
    genes: str | Sequence[str] | None = None,
    comparison: str | None = None,
    *,
    key: str = "lmm_de",
    n_genes: int = 4,
    groupby: str | None = None,
    layer: str | None = None,
    gene_symbols: str | None = None,
    ncols: int = 4,
    axes: Sequence[Axes] | None = None,
    show: bool | None = None,
) -> list[Axes] | None:
    r"""Mean expression of each donor's cells by the tested column, a panel per gene and a point per donor.

    The size of a point is the number of cells. A covariate that is constant within donors is judged against the
    spread of these points: more cells make a point more certain, only more donors make more points.

    Parameters
    ----------
    {adata}
    genes
        Genes to show. By default the `n_genes` with the smallest p-values.
    comparison
        Comparison of which the title gives the p-values. By default the first one of the run.
    {key}
    n_genes
        Number of genes if `genes` is not given.
    groupby
        Column of ``adata.obs`` to show the means by. By default the tested one.
    layer
        Layer with the expression. By default what was tested.
    {gene_symbols}
    ncols
        Panels in a row.
    axes
        Where to draw, one for each gene. By default in a new figure.
    show
        Show the figure and return nothing. By default as in ``scanpy.settings.autoshow``.

    Returns
    -------
    The axes, one for each gene, if ``show=False``, else ``None``.

    Raises
    ------
    KeyError
        If a gene or a column does not exist.

    Notes
    -----
    Means are of the expression as it is. The model's test also adjusts for the other terms of the formula, so it may
    differ from the impression that the points give. A bar is the mean of its donors. The donors of a study in which
    each has cells in several levels are joined by lines. For a number, a line has the model's slope.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> axes = sl.pl.donor_means(adata, n_genes=2, show=False)
    >>> [label.get_text() for label in axes[0].get_xticklabels()]
    ['control\n4 donors', 'Alzheimer\n4 donors']
    """
    params = lmm_de_params(adata, key=key)
    column = params["groupby"] if groupby is None else groupby
    x = _annotation(adata.obs, column, params)
    table = lmm_de_df(adata, comparison, key=key, gene_symbols=gene_symbols, sort=False)
    chosen = _choose(table, genes, n_genes)
    levels = [] if is_number(x) else levels_of(x, [params["reference"], *params["comparisons"]])
    donors = donor_table(adata, chosen.index, x, params, layer)
    axes = _new_axes(len(chosen), max(2, len(levels)), ncols) if axes is None else _checked(axes, len(chosen))

    areas = _areas(donors["n_cells"])
    for ax, (position, result) in zip(axes, chosen.iterrows(), strict=True):
        points = donors[["donor", "x"]].assign(y=donors[position], area=areas)
        if levels:
            _draw_levels(ax, points, levels)
        else:
            _draw_number(ax, points, column, result["coef"] if column == params["groupby"] else np.nan)
        _describe(ax, result)
    _label_edges(axes)
    _add_legend(max(axes, key=_top_right), donors["n_cells"], areas, _line_name(levels, column, params))
    return None if shown(show=show) else axes


def _annotation(obs: pd.DataFrame, column: str, params: Mapping[str, Any]) -> pd.Series:
    """What the horizontal axis shows; donors by themselves, as in a test of their variance, are all in one column."""
    if column not in obs:
        msg = f"{column!r} is not a column of adata.obs. Name one with groupby=. {alternatives(column, obs.columns)}"
        raise KeyError(msg)
    return obs[column] if column != params["group"] else pd.Series("all", index=obs.index)


def _choose(table: pd.DataFrame, genes: str | Sequence[str] | None, n_genes: int) -> pd.DataFrame:
    """Results of the genes to show, labelled by their positions in adata."""
    if genes is None:
        return table.dropna(subset="log10_pvals").sort_values("log10_pvals", kind="stable").head(n_genes)
    wanted = list(dict.fromkeys([genes] if isinstance(genes, str) else map(str, genes)))
    positions = pd.Series(table.index, index=table["names"].astype(str)).groupby(level=0).first()
    unknown = [gene for gene in wanted if gene not in positions]
    if unknown or not wanted:
        msg = f"genes={listing(unknown) or 'none'} not found. {alternatives(str(unknown[:1]), table['names'])}"
        raise KeyError(msg)
    return table.loc[positions[wanted]]


def _checked(axes: Sequence[Axes], n_genes: int) -> list[Axes]:
    axes = list(axes)
    if len(axes) != n_genes:
        msg = f"axes has {len(axes)} axes for {n_genes} genes. Give one for each gene."
        raise ValueError(msg)
    return axes


def _new_axes(n_panels: int, n_levels: int, ncols: int) -> list[Axes]:
    from matplotlib import pyplot as plt

    ncols = min(ncols, n_panels)
    nrows = -(-n_panels // ncols)
    size = (ncols * (_LEVEL_WIDTH * n_levels + 0.4) + _LEGEND_WIDTH, nrows * _PANEL_HEIGHT)
    grid = plt.subplots(nrows, ncols, figsize=size, layout="constrained", squeeze=False)[1]
    for unused in grid.flat[n_panels:]:
        unused.remove()
    return list(grid.flat[:n_panels])


def _areas(n_cells: pd.Series) -> Array:
    """Areas of points proportional to the number of cells, down to what can be seen."""
    return np.maximum(_SMALLEST, _LARGEST * n_cells.to_numpy() / n_cells.max())


def _draw_levels(ax: Axes, points: pd.DataFrame, levels: Sequence[str]) -> None:
    paired = points["donor"].duplicated().any()
    place = points["x"].map({level: k for k, level in enumerate(levels)})
    if paired:
        for _, donor in points.assign(place=place).sort_values("place").groupby("donor"):
            ax.plot(donor["place"], donor["y"], color="0.75", linewidth=0.8, zorder=1)
    for k, level in enumerate(levels):
        here = points[points["x"] == level].sort_values("y")
        apart = 0.0 if paired else 0.5 * ((np.arange(len(here)) * _GOLDEN) % 1 - 0.5)
        colour = LEVELS[k % len(LEVELS)]
        ax.scatter(k + apart + np.zeros(len(here)), here["y"], s=here["area"], c=colour, **_POINT)
        ax.hlines(here["y"].mean(), k - 0.34, k + 0.34, color="black", linewidth=1.6, zorder=3)
    counts = points["x"].value_counts()
    labels = [f"{fill(level, 12)}\n{counts.get(level, 0)} donors" for level in levels]
    ax.set_xticks(range(len(levels)), labels)
    ax.set_xlim(-0.55, len(levels) - 0.45)


def _draw_number(ax: Axes, points: pd.DataFrame, column: str, slope: float) -> None:
    ax.scatter(points["x"], points["y"], s=points["area"], c=LEVELS[0], **_POINT)
    ends = np.array([points["x"].min(), points["x"].max()])
    ax.plot(ends, points["y"].mean() + slope * (ends - points["x"].mean()), color="black", linewidth=1.6, zorder=3)
    ax.set_xlabel(column)


def _describe(ax: Axes, result: pd.Series) -> None:
    with np.errstate(divide="ignore"):
        adjusted = np.log10(result["pvals_adj"])
    text = f"p = {format_p(result['log10_pvals'])}, adjusted {format_p(adjusted)}"
    ax.set_title(result["names"], fontweight="bold", fontsize=11, pad=17)
    ax.text(0.5, 1.02, text, transform=ax.transAxes, ha="center", va="bottom", fontsize=8.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=False)
    ax.margins(y=0.1)


def _label_edges(axes: Sequence[Axes]) -> None:
    left = min(ax.get_position().x0 for ax in axes)
    for ax in axes:
        if ax.get_position().x0 < left + 0.01:
            ax.set_ylabel("mean expression of a donor")


def _top_right(ax: Axes) -> tuple[float, float]:
    place = ax.get_position()
    return round(place.x1, 2), place.y1


def _line_name(levels: Sequence[str], column: str, params: Mapping[str, Any]) -> str | None:
    if levels:
        return "mean of donors"
    return "slope of the model" if column == params["groupby"] else None


def _add_legend(ax: Axes, n_cells: pd.Series, areas: Array, line: str | None) -> None:
    """Sizes of the smallest and the largest donor, to the right of the first row."""
    from matplotlib.lines import Line2D

    ends = dict.fromkeys([int(n_cells.argmin()), int(n_cells.argmax())])
    handles = [
        Line2D(
            [], [], linestyle="", marker="o", color="0.55", markersize=areas[k] ** 0.5, label=f"{n_cells[k]:,} cells"
        )
        for k in ends
    ]
    if line is not None:
        handles.append(Line2D([], [], color="black", linewidth=1.6, label=line))
    ax.legend(
        handles=handles,
        title="one point: one donor",
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        labelspacing=0.8,
        alignment="left",
    )
