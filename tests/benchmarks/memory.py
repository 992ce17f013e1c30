"""Peak memory above the loaded matrix, for every layout in which a matrix can be held; a fresh process each."""

from __future__ import annotations

from typing import Any

from .bench import Bench, Outcome, Section, say
from .data import LAYOUTS
from .measure import run_child

_LIMIT_MB = 300.0


def layouts(bench: Bench) -> Section:
    """Measure the whole call for each layout."""
    section = Section()
    for layout in LAYOUTS:
        # What AnnData copies when a view is written to is shown too, but is not sc_lmm's to change.
        for write in (True, False) if layout.endswith("view") else (True,):
            name = layout if write else f"{layout}, not written"
            say(name)
            section.rows.append(row := {"layout": name, **_measure(bench, layout, write=write)})
            peak = row.get("peak_mb", float("inf"))  # a layout that fails misses the target
            section.outcomes.append(Outcome("4", f"peak memory, {name}", peak, "MB", bench.limit(_LIMIT_MB)))
    return section


def _measure(bench: Bench, layout: str, *, write: bool) -> dict[str, Any]:
    n_genes = bench.plan.dense_genes if layout.startswith("dense") else bench.plan.size.n_genes
    paths = {"path": str(bench.path(bench.plan.size)), "small": str(bench.path(bench.plan.first_call))}
    try:
        return run_child("memory", layout=layout, n_genes=n_genes, write=write, **paths)
    except RuntimeError as error:
        return {"error": str(error)}
