"""How long several random terms take: crossed batches, samples nested in donors, slopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import sc_lmm as sl

from .bench import Bench, Outcome, Section
from .measure import cpu, interleave, wall
from .plan import COVARIATE, FORMULA, GROUP, TEST

if TYPE_CHECKING:
    from anndata import AnnData

# Name -> random terms beside the fixed effects of the cohort, and seconds for 36,000 genes on two cores.
DESIGNS = {
    "24 donors + 10 batches": (f"(1 | {GROUP}) + (1 | batch)", 12.0),
    "60 samples in 24 donors": (f"(1 | {GROUP}/part)", 25.0),
    "slope within donors": (f"(1 + {COVARIATE} | {GROUP})", 10.0),
    "one intercept": (f"(1 | {GROUP})", None),
}


def terms(bench: Bench) -> Section:
    """Time the whole call with its default test."""
    adata = _with_columns(bench.adata)
    fixed = FORMULA.rsplit("+", 1)[0]
    calls = {
        name: lambda random=random: sl.tl.lmm_de(
            adata, f"{fixed} + {random}", TEST, n_jobs=2, show_progress=False, key_added="terms"
        )
        for name, (random, _) in DESIGNS.items()
    }
    times = interleave(calls, 1)
    outcomes = [
        Outcome("terms", name, wall(times[name]), "s", bench.limit(limit), cpu=cpu(times[name]))
        for name, (_, limit) in DESIGNS.items()
        if limit is not None
    ]
    return Section(outcomes, [{"design": name, "wall s": wall(t), "CPU s": cpu(t)} for name, t in times.items()])


def _with_columns(adata: AnnData) -> AnnData:
    """Ten batches that cross the donors, and two or three parts of each donor."""
    rng, donors = np.random.default_rng(0), adata.obs[GROUP].astype("category").cat.codes.to_numpy()
    typed = adata.copy()
    typed.obs["batch"] = [f"b{k}" for k in rng.integers(0, 10, adata.n_obs)]
    typed.obs["part"] = [f"p{k}" for k in rng.integers(0, 2 + donors % 2)]
    return typed
