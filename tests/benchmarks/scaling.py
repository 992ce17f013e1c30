"""How time grows with cells, genes and donors: one is varied, the others stay as they are."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from . import engine
from .bench import Bench, Section, say
from .data import load
from .measure import interleave, wall
from .speed import t_test

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData

_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
_COLOURS = {"whole call": "#1b6ca8", "pass": "#3a9e6f", "both fits": "#c8553d", "scanpy t-test": "#8a8a8a"}


def scaling(bench: Bench) -> Section:
    """Time the steps over three axes."""
    rows = []
    for axis, value, adata in _cohorts(bench):
        say(f"{value:,} {axis}")
        rows.append({"axis": axis, "value": value, **_times(adata)})
    return Section(rows=rows)


def _cohorts(bench: Bench) -> Iterator[tuple[str, int, AnnData]]:
    """Cells and genes come in random order, so the first of them are a sample."""
    whole = bench.adata
    for share in _SHARES:
        n = int(share * whole.n_obs)
        yield "cells", n, whole[:n].copy()
    for share in _SHARES:
        n = int(share * whole.n_vars)
        yield "genes", n, whole[:, :n].copy()
    for n_donors in bench.plan.donors:
        yield "donors", n_donors, load(bench.path(bench.plan.with_donors(n_donors)))


def _times(adata: AnnData) -> dict[str, float]:
    model = engine.prepare(adata)
    calls = {
        "whole call": lambda: engine.call(adata),
        "pass": lambda: engine.read(adata, model.design),
        "both fits": lambda: engine.fit(model),
    }
    if find_spec("scanpy"):
        calls["scanpy t-test"] = lambda: t_test(adata)
    return {name: wall(times) for name, times in interleave(calls, 3).items()}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw seconds over each axis, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for panel, axis in zip(panels, ("cells", "genes", "donors"), strict=True):
        here = [row for row in rows if row["axis"] == axis]
        for name, colour in _COLOURS.items():
            if here and name in here[0]:
                panel.plot([r["value"] for r in here], [r[name] for r in here], "o-", color=colour, label=name, ms=4)
        panel.set(xscale="log", yscale="log", xlabel=axis)
        ticks = [row["value"] for row in here]
        panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=7)
        panel.minorticks_off()
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("seconds")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def slopes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exponent of growth of each step over each axis: 0 is constant, 1 proportional."""
    table = []
    for axis in ("cells", "genes", "donors"):
        here = [row for row in rows if row["axis"] == axis]
        x = np.log([row["value"] for row in here])
        found = {
            name: float(np.polyfit(x, np.log([r[name] for r in here]), 1)[0]) for name in _COLOURS if name in here[0]
        }
        table.append({"axis": axis, **found})
    return table
