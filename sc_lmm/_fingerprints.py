"""Table -> a number for each row that tells it from other rows: what a run remembers of the tables that it wrote.

A row keeps its number when genes are selected, put in another order or renamed, and when the table goes through a file.
Another table has other numbers: two different rows agree with a probability of 2^-32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: odd, with no pattern in its bits


def fingerprints(table: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int32]:
    """Mix the bits of the numbers of each row, (n_rows,). Signed and short, because R reads no other integers."""
    values = table[list(columns)].to_numpy(dtype=np.float64, copy=True)
    values[np.isnan(values)] = np.nan  # there are many
    values += 0.0  # -0 becomes 0
    mixed = np.zeros(len(values), dtype=np.uint64)
    for bits in np.ascontiguousarray(values.T).view(np.uint64):
        mixed = (mixed ^ bits) * _MULTIPLIER
        mixed ^= mixed >> np.uint64(32)
    return mixed.astype(np.uint32).view(np.int32)


def unknown_rows(table: pd.DataFrame, columns: Sequence[str], known: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Rows that were not among those with the `known` numbers, (n_rows,). A row without a value says nothing."""
    strange = ~np.isin(fingerprints(table, columns), known)
    return strange & table[list(columns)].notna().any(axis=1).to_numpy()
