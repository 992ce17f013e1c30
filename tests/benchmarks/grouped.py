"""How much more a model of each cell type costs than one of all cells, in memory and from a compressed file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import sc_lmm as sl

from .bench import Bench, Outcome, Section
from .measure import cpu, interleave, wall
from .plan import FORMULA, TEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

_TYPES, _GENES_ON_DISK = 20, 3_000


def groups(bench: Bench) -> Section:
    """Time one model, one of each of 20 types in one reading, and a loop over the types."""
    adata = bench.adata
    types = np.random.default_rng(0).integers(0, _TYPES, adata.n_obs)
    typed = adata.copy()
    typed.obs["type"] = [f"type {k}" for k in types]
    parts = {"in memory": _times(typed, bench.plan.rounds)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        typed[:, :_GENES_ON_DISK].copy().write_h5ad(path, compression="gzip")
        import anndata

        backed = anndata.read_h5ad(path, backed="r")
        parts["on disk, gzip"] = _times(backed, bench.plan.rounds)
        backed.file.close()
    rows = [{"matrix": name, **times} for name, times in parts.items()]
    return Section([_outcome(name, times, bench) for name, times in parts.items()], rows)


def _outcome(name: str, times: dict[str, float], bench: Bench) -> Outcome:
    """The whole of one reading against one model and the tests, which any way of asking 20 types has to make."""
    share = {
        clock: times[f"20 types{clock}"] / (times[f"one model{clock}"] + times[f"tests{clock}"])
        for clock in ("", ", CPU")
    }
    return Outcome(
        "groups", f"20 types / (one model + 20 tests), {name}", share[""], "x", bench.limit(1.5), cpu=share[", CPU"]
    )


def _times(adata: AnnData, rounds: int) -> dict[str, float]:
    quiet: dict[str, Any] = {"show_progress": False}
    fits = sl.tl.lmm_fit(adata, FORMULA, groupby="type", **quiet)

    def loop() -> None:
        for name in fits:
            part = adata[adata.obs["type"] == name]
            sl.tl.lmm_fit(part, FORMULA, **quiet).test(TEST)

    calls: dict[str, Callable[[], object]] = {
        "one model": lambda: sl.tl.lmm_fit(adata, FORMULA, **quiet),
        "20 models": lambda: sl.tl.lmm_fit(adata, FORMULA, groupby="type", **quiet),
        "tests": lambda: fits.test(TEST),
        "20 types": lambda: sl.tl.lmm_fit(adata, FORMULA, groupby="type", **quiet).test(TEST),
        "loop over 20 types": loop,
    }
    found = interleave(calls, min(rounds, 3))
    return {
        **{name: wall(times) for name, times in found.items()},
        **{f"{name}, CPU": cpu(times) for name, times in found.items()},
    }
