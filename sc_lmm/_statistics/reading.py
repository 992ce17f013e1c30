"""Expression x Design -> SufficientStatistics, in one visit of the matrix. After this file nothing sees a cell.

The one difference of large numbers is what is left of y'y in the visit; where that costs digits, in a gene whose mean,
donors or covariates dwarf the spread that is left, the gene is visited a second time, less what they explain.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._blas import one_blas_thread
from .._progress import progress_bar
from .residuals import visit_residuals
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
    forms = [standard_form(design) for design, _ in groups]
    cells = [_cells(design, rows, D) for (design, rows), (_, D) in zip(groups, forms, strict=True)]
    with progress_bar(total=1.0, bar_format=READING, doing="reading", show_progress=show_progress) as bar:
        sums = visit_each(matrix, cells, columns, bar.update)
    found = zip(groups, forms, cells, sums, strict=True)
    return [_statistics(design, form, matrix, of, columns, summed) for (design, _), (form, _), of, summed in found]


def _cells(design: Design, rows: NDArray[np.int64], D: Array) -> Cells:
    random = design.random
    order = np.argsort(random.codes, kind="stable")
    weights = None if random.weights is None else random.weights[order]
    return Cells(
        rows[order].astype(np.int64), random.codes[order], np.ascontiguousarray(D[order]), random.sizes.size, weights
    )


def _statistics(
    design: Design, standard: Standard, matrix: Any, cells: Cells, columns: NDArray[np.int64], sums: Sums
) -> SufficientStatistics:
    sizes = design.random.sizes
    stats = SufficientStatistics(
        sizes=sizes,
        **standard._asdict(),
        origin=design.columns.origin,
        ZtY=sums.ZtY,
        DtY=sums.CtY,
        rest=_rest(sums, sizes),
        nonzero=sums.nonzero,
        shift=np.zeros(columns.size),
        negative=int(sums.negative[0]),
        log_weights=0.0 if cells.weights is None else float(np.log(cells.weights).sum()),
    )
    return _without_loss(stats, sums, matrix, cells, columns)


def _rest(sums: Sums, sizes: Array) -> Array:
    """What is left of the squares of y beside its coordinates on Z and D, (G,)."""
    with np.errstate(invalid="ignore"):  # genes with infinite entries, which the caller refuses
        left = sums.yty - squares(sums.ZtY / np.sqrt(sizes)[:, None]) - squares(sums.CtY)
    return np.maximum(left, 0.0)


def _without_loss(
    stats: SufficientStatistics, sums: Sums, matrix: Any, cells: Cells, columns: NDArray[np.int64]
) -> SufficientStatistics:
    """Visit the genes again of which little is left, less their level means and what the columns of D explain."""
    few = np.flatnonzero(stats.rest < _ENOUGH_LEFT * sums.yty)
    if few.size == 0:
        return stats
    sizes = stats.sizes[:, None]
    means, slopes = stats.ZtY[:, few] / sizes, stats.DtY[:, few]
    left = visit_residuals(matrix, cells, columns[few], means, slopes)
    shift = stats.mean[few] if stats.ones is not None else np.zeros(few.size)
    found = {"ZtY": left.ZtY + sizes * (means - shift), "DtY": left.CtY + slopes, "rest": _rest(left, stats.sizes)}
    arrays = {name: getattr(stats, name).copy() for name in ("ZtY", "DtY", "rest", "shift")}
    for name, array in arrays.items():
        array[..., few] = found.get(name, shift)
    return replace(stats, **arrays)
