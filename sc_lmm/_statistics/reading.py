"""Expression x Design -> SufficientStatistics, in one visit of the matrix. After this file nothing sees a cell.

The one difference of large numbers is what is left of y'y in the visit; where that costs digits, in a gene whose mean,
donors or covariates dwarf the spread that is left, the gene is visited a second time, less what they explain.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._blas import one_blas_thread
from .._progress import progress_bar
from .residuals import Explained, visit_residuals
from .space import Space, random_space
from .standard import Standard, standard_form
from .sufficient import SufficientStatistics, squares
from .sums import Cells, Sums
from .visit import visit_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._design import Design

    Array = NDArray[np.float64]

# A gene with less than this share of y'y left beside Z and D has lost more than four of sixteen digits in the visit.
_ENOUGH_LEFT = 1e-4
READING = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"  # shares of the matrix cannot be counted


def sufficient_statistics(
    matrix: Any,
    design: Design,
    *,
    rows: NDArray[np.int64] | None = None,
    columns: NDArray[np.int64] | None = None,
    show_progress: bool | None = None,
) -> SufficientStatistics:
    """Read the expression matrix once.

    Parameters
    ----------
    matrix
        Expression, cells x genes: dense (C or F order), sparse (CSR, CSC), on disk or lazy, any real dtype.
    design
        The model of n cells.
    rows, columns
        Which matrix row each of the n cells is, and which matrix columns are the genes; by default all.
    show_progress
        Show a bar: always, never, or (None) if reading takes longer than a second.
    """
    rows = np.flatnonzero(design.kept) if rows is None else rows
    (stats,) = statistics_of_each(matrix, [(design, rows)], columns=columns, show_progress=show_progress)
    return stats


@one_blas_thread()
def statistics_of_each(
    matrix: Any,
    groups: Sequence[tuple[Design, NDArray[np.int64]]],
    *,
    columns: NDArray[np.int64] | None = None,
    show_progress: bool | None = None,
) -> list[SufficientStatistics]:
    """Read the expression matrix once for several models, each of cells of its own.

    Parameters
    ----------
    groups
        Models, each with the matrix row of each of its cells.
    matrix, columns, show_progress
        As in `sufficient_statistics`.
    """
    columns = (np.arange(matrix.shape[1]) if columns is None else columns).astype(np.int64)
    models = [_model(design) for design, _ in groups]
    cells = [_cells(model, rows) for model, (_, rows) in zip(models, groups, strict=True)]
    with progress_bar(total=1.0, bar_format=READING, doing="reading", show_progress=show_progress) as bar:
        sums = visit_each(matrix, cells, columns, bar.update)
    visited = zip(models, cells, sums, strict=True)
    return [_statistics(model, _Visited(matrix, of, columns, model.space), summed) for model, of, summed in visited]


class _Model(NamedTuple):
    """A model as the visit sees it."""

    design: Design  # by combinations of levels if there are several random terms
    standard: Standard
    D: Array  # (n, w)
    space: Space | None  # of several random terms or slopes


def _model(design: Design) -> _Model:
    space = random_space(design) if design.effects else None
    if space is not None:
        design = design.regrouped(space.combinations)
    return _Model(design, *standard_form(design, space.slopes if space else None), space)


def _cells(model: _Model, rows: NDArray[np.int64]) -> Cells:
    random = model.design.random
    order = np.argsort(random.codes, kind="stable")
    weights = None if random.weights is None else random.weights[order]
    S = np.empty((order.size, 0)) if model.space is None else np.ascontiguousarray(model.space.slopes.S[order])
    S = S if weights is None else S / np.sqrt(weights)[:, None]
    arrays = (random.codes[order], np.ascontiguousarray(model.D[order]), S)
    return Cells(rows[order].astype(np.int64), *arrays, random.sizes.size, weights)


class _Visited(NamedTuple):
    """What was visited, and how."""

    matrix: Any
    cells: Cells
    columns: NDArray[np.int64]
    space: Space | None


def _statistics(model: _Model, visited: _Visited, sums: Sums) -> SufficientStatistics:
    sizes, weights, space = model.design.random.sizes, visited.cells.weights, model.space
    within = _within(sums, space)
    stats = SufficientStatistics(
        sizes=sizes,
        **model.standard._asdict(),
        origin=model.design.columns.origin,
        ZtY=sums.ZtY,
        DtY=within,
        rest=_rest(sums, within, sizes),
        nonzero=sums.nonzero,
        shift=np.zeros(visited.columns.size),
        negative=int(sums.negative[0]),
        log_weights=0.0 if weights is None else float(np.log(weights).sum()),
        groupings=space.groupings(model.D.shape[1]) if space else (),
    )
    return _without_loss(stats, sums, visited)


def _within(sums: Sums, space: Space | None) -> Array:
    """Coordinates of y within levels, (w, G): those on the slopes of terms first."""
    return sums.CtY if space is None else np.vstack([space.on_slopes(sums.StY), sums.CtY])


def _rest(sums: Sums, DtY: Array, sizes: Array) -> Array:
    """What is left of the squares of y beside its coordinates on Z and D, (G,)."""
    with np.errstate(invalid="ignore"):  # genes with infinite entries, which the caller refuses
        left = sums.yty - squares(sums.ZtY / np.sqrt(sizes)[:, None]) - squares(DtY)
    return np.maximum(left, 0.0)


def _without_loss(stats: SufficientStatistics, sums: Sums, visited: _Visited) -> SufficientStatistics:
    """Visit the genes again of which little is left, less their level means and what slopes and columns of D explain."""
    few = np.flatnonzero(stats.rest < _ENOUGH_LEFT * sums.yty)
    if few.size == 0:
        return stats
    matrix, cells, columns, space = visited
    sizes = stats.sizes[:, None]
    means, within = stats.ZtY[:, few] / sizes, stats.DtY[:, few]
    own, rest = (np.empty((0, len(sizes), few.size)), within) if space is None else space.split(within)
    left = visit_residuals(matrix, cells, columns[few], Explained(means, rest, own))
    left_within = _within(left, space)
    shift = stats.mean[few] if stats.ones is not None else np.zeros(few.size)
    found = {"ZtY": left.ZtY + sizes * (means - shift), "DtY": left_within + within}
    found["rest"] = _rest(left, left_within, stats.sizes)
    arrays = {name: getattr(stats, name).copy() for name in ("ZtY", "DtY", "rest", "shift")}
    for name, array in arrays.items():
        array[..., few] = found.get(name, shift)
    return replace(stats, **arrays)
