"""Sums of counts by donor -> exposures: how many counts a donor would have of a gene that is the same in all.

    total           S_j = sum_g Y_jg                                        all counts
    median-ratio    S_j = median_g Y_jg / (prod_k Y_kg)^(1/q)               Anders & Huber 2010, eq. 5

The second is not moved by a few genes that rise and take their share of a total from all others. It needs genes that
have counts in every donor. Both are scaled to one per cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

TOTAL, MEDIAN_RATIO = "total", "median-ratio"
_FEWEST_GENES = 50  # in all donors, for a median of them to be a size factor


def library_exposure(sums: Array, sizes: Array, how: str | None) -> tuple[Array, str]:
    """Exposures (q,) from the sums (q, G) of all genes, and which of the two they are.

    Parameters
    ----------
    sums
        Counts of all genes, also those that are not tested.
    sizes
        Cells per donor.
    how
        One of the two; None for the second where enough genes have counts in every donor, and else the first.
    """
    shared = (sums > 0).all(axis=0)
    enough = int(shared.sum()) >= _FEWEST_GENES
    if how == TOTAL or (how is None and not enough):
        return _per_cell(sums.sum(axis=1), sizes), TOTAL
    if not enough:
        msg = (
            f"size_factors='median-ratio' needs {_FEWEST_GENES} genes with counts in every donor, and there are "
            f"{int(shared.sum())}. Use size_factors='total', or leave out donors with few cells."
        )
        raise ValueError(msg)
    logs = np.log(sums[:, shared])
    return _per_cell(np.exp(np.median(logs - logs.mean(axis=0), axis=1)), sizes), MEDIAN_RATIO


def _per_cell(exposure: Array, sizes: Array) -> Array:
    return exposure * sizes.sum() / exposure.sum() if exposure.any() else exposure
