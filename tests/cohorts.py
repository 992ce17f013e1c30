"""Small cohorts and fits that several tests share."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from sc_lmm._design import build_design
from sc_lmm._inference import LmmFit
from sc_lmm._statistics import sufficient_statistics


def fitted(Y: np.ndarray, obs: pd.DataFrame, formula: str) -> LmmFit:
    """Fit a formula to expression (n, G) in memory, genes named g0, g1, ..."""
    design = build_design(formula, obs)
    names = pd.Index([f"g{i}" for i in range(Y.shape[1])])
    return LmmFit(design.coding, sufficient_statistics(Y, design), names, show_progress=False)


def samples(n: int = 12, cells: int | list[int] = 20, seed: int = 0, **per_sample: list) -> ad.AnnData:
    """Samples of two diagnoses in turn, with what else is constant within samples; no expression."""
    rng = np.random.default_rng(seed)
    sample = np.repeat(np.arange(n), np.broadcast_to(cells, n))
    columns = {"diagnosis": ["control", "case"] * (n // 2) + ["control"] * (n % 2), **per_sample}
    obs = pd.DataFrame(
        {
            "sample_id": [f"s{j:02d}" for j in sample],
            **{name: pd.Series(values).iloc[sample].to_numpy() for name, values in columns.items()},
            "depth": rng.normal(8, 1, sample.size),
            "cell_type": rng.choice(["T", "B", "NK"], sample.size),
        }
    )
    obs.index = [f"cell{i}" for i in range(len(obs))]
    return ad.AnnData(np.zeros((len(obs), 1)), obs=obs)
