"""Targets of the study, and tables as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .calibration_methods import DEFAULT, METHODS, ORACLE

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_05, AT_001, FDP = (0.043, 0.057), 0.0016, 0.055
# Share of what the oracle finds that the default must find, between donors: population -> donors -> share.
FOUND = {
    "mixture": {6: 0.25, 8: 0.67, 12: 0.88, 24: 0.95, 50: 0.95},
    "half-Cauchy": {6: 0.76, 8: 0.83, 12: 0.95, 24: 0.95, 50: 0.95},
}
_CELL = ["design", "donors", "question", "population"]
_FEW = 50  # genes called, of which a false share says nothing


def misses(results: pd.DataFrame) -> pd.DataFrame:
    """Where the default misses a target, and by how many Monte-Carlo errors."""
    oracle = results[results["method"] == ORACLE].set_index(_CELL)["found"]
    rows = [
        {**{name: getattr(r, name) for name in _CELL}, **miss}
        for r in results[results["method"] == DEFAULT].itertuples()
        for miss in _missed(r, float(oracle[tuple(getattr(r, name) for name in _CELL)]))
    ]
    return pd.DataFrame(rows)


def _missed(row: tuple, oracle: float) -> Iterator[dict[str, object]]:
    low, high = AT_05
    yield from _beyond("at .05", row.at_05, max(row.at_05 - high, low - row.at_05), row.n_null, min(row.at_05, high))
    yield from _beyond("at .001", row.at_001, row.at_001 - AT_001, row.n_null, AT_001)
    if row.called >= _FEW:
        yield from _beyond("false", row.fdp, row.fdp - FDP, row.called, FDP)
    target = FOUND.get(row.population, {}).get(row.donors) if row.question == "two groups" else None
    if target is not None and row.design == "unbalanced":
        yield from _beyond("found / oracle", row.found / oracle, target - row.found / oracle, row.called, row.found)


def _beyond(target: str, value: float, excess: float, n: int, share: float) -> Iterator[dict[str, object]]:
    if excess > 0:
        error = np.sqrt(share * (1 - share) / n)
        yield {"target": target, "value": round(value, 4), "beyond": f"{excess / error:.1f} errors"}


def sections(results: pd.DataFrame) -> list[str]:
    """One wide table per question: a row per cohort and population, a column per method."""
    texts = [f"## {title}\n\n{markdown(wide(results, entry))}" for title, entry in _ENTRIES.items()]
    n = int(results["n_null"].max())
    error = f"Monte-Carlo errors ({n:,} null genes): {np.sqrt(0.05 * 0.95 / n):.4f} at .05, "
    return [*texts, error + f"{1000 * np.sqrt(0.001 * 0.999 / n):.2f} per 1,000 at .001."]


def wide(results: pd.DataFrame, entry: object) -> pd.DataFrame:
    """Entries of the rows, a column per method."""
    entries = results.assign(entry=[entry(row) for row in results.itertuples()])
    table = entries.pivot_table(index=_CELL, columns="method", values="entry", aggfunc="first", sort=False)
    return table[[m for m in METHODS if m in table.columns]].reset_index()


_ENTRIES = {
    "Null genes rejected at .05 / per 1,000 at .001": lambda r: f"{r.at_05:.3f} / {1000 * r.at_001:.1f}",
    "Changed genes found at FDR 5 % / share false among those called": lambda r: f"{r.found:.2f} / {r.fdp:.3f}",
}


def markdown(table: pd.DataFrame) -> str:
    """Markdown without further packages."""
    rows = [list(map(str, table.columns)), *([_text(v) for v in row] for row in table.itertuples(index=False))]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["| " + " | ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
