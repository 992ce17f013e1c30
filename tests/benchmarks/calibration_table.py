"""Targets of the study, and tables as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FROM_DONORS = 8
LRT_05, LRT_001 = (0.045, 0.065), 0.0015
MODERATED_05 = (0.045, 0.056)


def misses(results: pd.DataFrame) -> pd.DataFrame:
    """Rows outside their target from eight donors on; `beyond` is by how many Monte-Carlo errors (within it, negative)."""
    enough = results["donors"] >= FROM_DONORS
    # Genes of one ICC make a prior without spread, which no data have: moderation is judged on varied genes.
    moderated = results["method"].str.endswith("moderated") & (results["genes"] == "varied")
    ratio = results["method"] == "lrt"
    low, high = (np.where(ratio, LRT_05[side], MODERATED_05[side]) for side in (0, 1))
    over = np.maximum(results["at_05"] - high, low - results["at_05"]) / results["se_05"]
    error_001 = np.sqrt(LRT_001 / results["n_null"])
    over_001 = np.where(ratio, (results["at_001"] - LRT_001) / error_001, np.nan)
    table = results.assign(beyond_05=over, beyond_001=over_001)
    table = table[enough & (ratio | moderated) & ((over > 0) | (over_001 > 0))]
    columns = [
        "donors",
        "cells",
        "icc",
        "genes",
        "method",
        "at_05",
        "se_05",
        "at_001",
        "se_001",
        "beyond_05",
        "beyond_001",
    ]
    return table[columns].round({"at_05": 4, "se_05": 4, "at_001": 5, "se_001": 5, "beyond_05": 1, "beyond_001": 1})


def markdown(table: pd.DataFrame) -> str:
    """Markdown without further packages."""
    rows = [list(map(str, table.columns)), *([_cell(v) for v in row] for row in table.itertuples(index=False))]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["| " + " | ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
