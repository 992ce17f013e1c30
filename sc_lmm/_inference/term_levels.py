"""By how many levels a fixed effect is judged under several random terms.

A random column z of a grouping has a coefficient for each of its m levels. Fixed columns that are combinations of z times
the indicators of the levels, p of them, are estimated from these m coefficients, with m - p degrees of freedom: diagnosis
from the intercepts of donors, the slope of x from the slopes of donors. A hypothesis that touches such columns of several
random columns has the fewest of their degrees of freedom, as between-within has it (Schluchter & Elashoff 1990); one that
touches none has those of the residual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, sparse

from .._design import TOLERANCE
from .._statistics import standard_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .._statistics import SufficientStatistics

    Array = NDArray[np.float64]

# Random and fixed columns of which the rank is found; of more, they are taken to be independent.
_MOST_COLUMNS = 3_000


def denominator_df(stats: SufficientStatistics, L: Array) -> int:
    """Degrees of freedom by which L beta, with `L` (df, p_user), is judged."""
    rows = standard_rows(stats, L)
    found = [df for df, N in _strata(stats) if np.abs(rows @ N).max(initial=0.0) > TOLERANCE]
    return min([*found, _residual_df(stats)])


def _strata(stats: SufficientStatistics) -> Iterator[tuple[int, Array]]:
    """Degrees of freedom of the coefficients of each random column, and the directions (p, k) of X that they make up.

    A coarser grouping takes as many as it has levels: of donors' samples, those between donors.
    """
    X, columns = stats.coordinates_X, list(_random_columns(stats))
    for Q in columns:
        others = [Q.T @ P for P in columns if P is not Q and _lies_in(P, Q)]
        *_, values, Vt = linalg.svd(X - Q @ (Q.T @ X), full_matrices=True)
        padded = np.zeros(X.shape[1])
        padded[: values.size] = values
        N = Vt[padded <= TOLERANCE * np.sqrt(stats.n_cells)].T
        taken = np.hstack([Q.T @ (X @ N) / np.sqrt(stats.n_cells), *(P.toarray() for P in others)])
        rank = int((linalg.svdvals(taken) > TOLERANCE).sum()) if taken.size else 0
        yield Q.shape[1] - rank, N


def _random_columns(stats: SufficientStatistics) -> Iterator[sparse.csr_array]:
    """Orthonormal columns of each random column of each grouping, one per level, (K, m)."""
    for grouping in stats.groupings:
        Z = grouping.coordinates.matrix
        for a in range(grouping.r):
            columns = sparse.csr_array(Z[:, a :: grouping.r])
            lengths = np.sqrt(np.asarray(columns.power(2).sum(axis=0)).ravel())
            yield sparse.csr_array(sparse.csr_array(columns[:, lengths > 0]) / lengths[lengths > 0])


def _lies_in(P: sparse.csr_array, Q: sparse.csr_array) -> bool:
    """Whether all columns of P are combinations of those of Q."""
    left = np.asarray((Q.T @ P).power(2).sum(axis=0)).ravel()
    return bool((1 - left <= TOLERANCE).all())


def _residual_df(stats: SufficientStatistics) -> int:
    """Cells less the dimensions of the random and fixed columns together."""
    Z = [grouping.coordinates.matrix for grouping in stats.groupings]
    columns = sparse.hstack([*Z, sparse.csr_array(stats.coordinates_X)])
    lengths = np.sqrt(np.asarray(columns.power(2).sum(axis=0)).ravel())
    columns = sparse.csr_array(columns / np.where(lengths > 0, lengths, 1.0))
    if columns.shape[1] > _MOST_COLUMNS:
        return stats.n_cells - columns.shape[1]
    values = np.linalg.eigvalsh((columns.T @ columns).toarray())
    return stats.n_cells - int((values > TOLERANCE).sum())
