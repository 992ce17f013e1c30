"""A point per donor: the unit of evidence."""

from __future__ import annotations

from dataclasses import replace
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._captions import Axis, Wording, axis_of, format_p, is_number, levels_of, word_comparison
from .._docs import doc_params
from .._donors import along, donor_table, in_model, pairs
from .._errors import alternatives, listing
from .._words import counted, one, unit
from ..get import lmm_de_df
from ._style import LEVELS, comparison_of_run, shown, without_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_PANEL_HEIGHT, _LEVEL_WIDTH, _LEGEND_WIDTH = 3.1, 1.05, 1.5  # inches
_SMALLEST, _LARGEST = 18.0, 150.0  # areas of the points
_POINT: dict[str, Any] = {"alpha": 0.75, "edgecolors": "white", "linewidths": 0.6, "zorder": 2}
_LETTERS_PER_LEVEL = 15  # of the caption that fit above a level
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
    r"""Mean expression of each donor's cells in what was compared, a panel per gene and a point per donor.

    The cells are those of the comparison: of a contrast of two conditions, or of a term in an interaction, no others. What
    is subtracted is to the left. The size of a point is the number of cells. A covariate that is constant within donors is
    judged against the spread of these points: more cells make a point more certain, only more donors make more points.

    Parameters
    ----------
    {adata}
    genes
        Genes to show. By default the `n_genes` with the smallest p-values.
    comparison
        Comparison to show, with its p-values. By default the first one of the run.
    {key}
    n_genes
        Number of genes if `genes` is not given.
    groupby
        Column of ``adata.obs`` to show the means by, of all cells of the model. This is not what was tested, so that no
        p-value is shown.
    layer
        Layer with the expression. By default what was tested; of another one no p-value is shown.
    {gene_symbols}
    ncols
        Panels in a row.
    axes
        Where to draw, one for each gene. By default in a new figure.
    {show}

    Returns
    -------
    The axes, one for each gene, if ``show=False``, else ``None``.

    Raises
    ------
    KeyError
        If a gene or a column does not exist.
    ValueError
        If the comparison is not one of conditions that could stand side by side, as a test of several terms.

    Notes
    -----
    Means are of the expression as it is. The model's test also adjusts for the other terms of the formula and weighs
    cells, so it may differ from the impression that the points give; where it even has the other sign, the panel says
    so. A bar is the mean of its donors. Donors with cells in several conditions are joined by lines, and so are the
    samples of a donor that is a factor of the formula. For a number, a line has the model's slope: one for all, or, of
    a number that varies within donors, one through each.

    A p-value is shown if it is of the points: not for a combination of more than two conditions, nor for a test at 0 of a
    number with which the term interacts.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> axes = sl.pl.donor_means(adata, n_genes=2, show=False)
    >>> [label.get_text() for label in axes[0].get_xticklabels()]
    ['control\n4 samples', 'Alzheimer\n4 samples']
    """
    name, params = comparison_of_run(adata, comparison, key)
    table = lmm_de_df(adata, name, key=key, gene_symbols=gene_symbols, sort=False)
    axis = _tested_axis(params, name) if groupby is None else _other_axis(adata.obs, groupby, params, name)
    if layer is not None and layer != params["layer"]:
        axis = replace(axis, note=axis.note or f"the test is not of layer {layer}")
    chosen = _choose(table, genes, n_genes)
    x = along(_known(adata.obs, axis), params, axis)
    donors = donor_table(adata, chosen.index, x, params, layer)
    donors["pair"] = pairs(donors, adata.obs, params, axis)
    axes = _new_axes(len(chosen), max(2, len(axis.labels)), ncols) if axes is None else _checked(axes, len(chosen))

    areas = _areas(donors["n_cells"])
    words = word_comparison(name, params)
    for ax, (position, result) in zip(axes, chosen.iterrows(), strict=True):
        points = donors[["donor", "x", "pair", "spread"]].assign(y=donors[position], area=areas)
        if axis.number:
            _draw_number(ax, points, axis, np.nan if axis.note else result["coef"] / axis.step)
        else:
            _draw_levels(ax, points, axis.labels, params["group"])
        _describe(ax, result["names"], _caption(axis, points, result, words))
    _label_edges(axes, f"mean expression of a {one(params['group'])}")
    line = f"mean of {unit(params['group'])}" if axis.labels else "" if axis.note else "slope of the model"
    _add_legend(max(axes, key=_top_right), donors["n_cells"], areas, line, params["group"])
    return None if shown(show=show) else axes


def _tested_axis(params: Mapping[str, Any], name: str) -> Axis:
    """What the run compared; donors by themselves, as in a test of their variance, are all in one column."""
    if params["reference"] == "no variance":
        return Axis(({},), ("all",))
    axis = axis_of(params, name)
    if axis is None:
        others = [other for other in params["comparisons"] if axis_of(params, other) is not None]
        msg = (
            f"comparison={name!r} has no conditions that could stand side by side. "
            + (f"Choose one of {listing(others)} with comparison=, or name" if others else "Name")
            + " a column of adata.obs with groupby=, which shows no p-value."
        )
        raise ValueError(msg)
    return axis


def _other_axis(obs: pd.DataFrame, column: str, params: Mapping[str, Any], name: str) -> Axis:
    """A column of obs that the test is not of, unless it is the one that was compared."""
    if column not in obs:
        msg = f"{column!r} is not a column of adata.obs. Name one with groupby=. {alternatives(column, obs.columns)}"
        raise KeyError(msg)
    note = f"the test is of {word_comparison(name, params).contrast}"
    if is_number(obs[column]):
        tested = axis_of(params, name)
        same = tested is not None and tested.number == column and not tested.place
        return tested if tested is not None and same else Axis(({},), (), column, note=note)
    labels = levels_of(obs[column][in_model(obs, params)])
    tested = axis_of(params, name)
    if (
        tested is not None
        and not tested.place
        and sorted(tested.labels) == sorted(labels)
        and column in tested.conditions[0]
    ):
        return tested
    return Axis(tuple({column: label} for label in labels), tuple(labels), note=note)


def _known(obs: pd.DataFrame, axis: Axis) -> pd.DataFrame:
    """The annotations, if those of the comparison are still there."""
    wanted = [axis.number] if axis.number else []
    wanted += [column for where in axis.conditions for column in where]
    gone = [column for column in wanted if column not in obs]
    if gone:
        msg = f"{gone[0]!r}, which was compared, is not a column of adata.obs any more. {alternatives(gone[0], obs.columns)}"
        raise KeyError(msg)
    return obs


def _choose(table: pd.DataFrame, genes: str | Sequence[str] | None, n_genes: int) -> pd.DataFrame:
    """Results of the genes to show, labelled by their positions in adata."""
    if genes is None:
        return table.dropna(subset="log10_pvals").sort_values("log10_pvals", kind="stable").head(n_genes)
    wanted = list(dict.fromkeys([genes] if isinstance(genes, str) else map(str, genes)))
    positions = pd.Series(table.index, index=table["names"].astype(str)).groupby(level=0).first()
    unknown = [gene for gene in wanted if gene not in positions]
    if unknown or not wanted:
        close = alternatives(unknown[0] if unknown else "", table["names"])
        msg = f"genes={listing(unknown) or 'none'} not found. {close}"
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


def _draw_levels(ax: Axes, points: pd.DataFrame, levels: Sequence[str], group: str) -> None:
    paired = bool(points["pair"].notna().any())
    points = points.assign(place=points["x"].map({level: k for k, level in enumerate(levels)}))
    if paired:
        for _, pair in points.sort_values("place").groupby("pair"):
            ax.plot(pair["place"], pair["y"], color="0.75", linewidth=0.8, zorder=1)
    for k, level in enumerate(levels):
        here = points[points["x"] == level].sort_values("y")
        apart = 0.0 if paired else 0.5 * ((np.arange(len(here)) * _GOLDEN) % 1 - 0.5)
        colour = LEVELS[k % len(LEVELS)]
        ax.scatter(k + apart + np.zeros(len(here)), here["y"], s=here["area"], c=colour, **_POINT)
        ax.hlines(here["y"].mean(), k - 0.34, k + 0.34, color="black", linewidth=1.6, zorder=3)
    counts = points["x"].value_counts()
    labels = [f"{fill(level, 12)}\n{fill(unit(group, int(counts.get(level, 0))), 14)}" for level in levels]
    ax.set_xticks(range(len(levels)), labels)
    ax.set_xlim(-0.55, len(levels) - 0.45)


def _draw_number(ax: Axes, points: pd.DataFrame, axis: Axis, slope: float) -> None:
    """Points, and the slope: one line, or one through each donor as long as twice its standard deviation."""
    ax.scatter(points["x"], points["y"], s=points["area"], c=LEVELS[0], **_POINT)
    x, y, spread = (points[name].to_numpy(dtype=np.float64) for name in ("x", "y", "spread"))
    if not spread.any():
        x, y, spread = np.array([(x.min() + x.max()) / 2]), np.array([np.nan]), np.array([(x.max() - x.min()) / 2])
        y = points["y"].mean() + slope * (x - points["x"].mean())
    if np.isfinite(slope):
        ends = np.array([x - spread, x + spread])
        ax.plot(ends, y + slope * (ends - x), color="black", linewidth=1.6, zorder=3)
    ax.set_xlabel(axis.number)


def _caption(axis: Axis, points: pd.DataFrame, result: pd.Series, words: Wording) -> list[str]:
    """Lines under the name of a gene: where, and the p-values, or why they are not those of the points."""
    place = [axis.place.strip()] if axis.place else []
    if axis.note:
        return [*place, axis.note]
    with np.errstate(divide="ignore"):
        adjusted = np.log10(result["pvals_adj"])
    p = f"p = {format_p(result['log10_pvals'])}, adjusted {format_p(adjusted)}"
    turned = _difference(axis, points) * result["coef"] < 0
    return [p, *place, *([f"{words.up if result['coef'] > 0 else words.down}, adjusted"] if turned else [])]


def _difference(axis: Axis, points: pd.DataFrame) -> float:
    """How much the right bar is higher than the left one, 0 if there are not two."""
    if len(axis.labels) != 2:
        return 0.0
    left, right = (points.loc[points["x"] == label, "y"].mean() for label in axis.labels)
    return float(right - left)


def _describe(ax: Axes, gene: str, caption: Sequence[str]) -> None:
    low, high = ax.get_xlim()
    width = int(_LETTERS_PER_LEVEL * (high - low)) if ax.get_xlabel() == "" else 2 * _LETTERS_PER_LEVEL
    lines = [line for text in caption for line in wrap(text, max(width, 24))]
    ax.set_title(gene, fontweight="bold", fontsize=11, pad=6 + 11 * len(lines))
    ax.text(0.5, 1.02, "\n".join(lines), transform=ax.transAxes, ha="center", va="bottom", fontsize=8.5)
    without_frame(ax)
    ax.margins(y=0.1)


def _label_edges(axes: Sequence[Axes], label: str) -> None:
    left = min(ax.get_position().x0 for ax in axes)
    for ax in axes:
        if ax.get_position().x0 < left + 0.01:
            ax.set_ylabel(label)


def _top_right(ax: Axes) -> tuple[float, float]:
    place = ax.get_position()
    return round(place.x1, 2), place.y1


def _add_legend(ax: Axes, n_cells: pd.Series, areas: Array, line: str, group: str) -> None:
    """Sizes of the smallest and the largest donor, to the right of the first row."""
    from matplotlib.lines import Line2D

    ends = dict.fromkeys([int(n_cells.argmin()), int(n_cells.argmax())])
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            color="0.55",
            markersize=areas[k] ** 0.5,
            label=counted(int(n_cells[k]), "cell"),
        )
        for k in ends
    ]
    if line:
        handles.append(Line2D([], [], color="black", linewidth=1.6, label=line))
    ax.legend(
        handles=handles,
        title=f"one point: one {one(group)}",
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        labelspacing=0.8,
        alignment="left",
    )
