"""Small cohorts and fits that several tests share."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd

from sc_lmm._design import build_design
from sc_lmm._inference import LmmFit, balanced_statistics
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


def donor_means(means: np.ndarray, n_cells: int, rest: np.ndarray | float) -> LmmFit:
    """Fit ``~ group + (1 | donor)`` to genes with these means (donors, G) of `n_cells` cells each.

    The second half of the donors is the other group; `rest` is the sum of squares of cells about their donor's mean.
    No cell is made, so that there may be any number of them.
    """
    n_donors, n_genes = means.shape
    one = np.repeat(np.arange(n_donors), 2)
    groups = np.where(one >= n_donors // 2, "b", "a")
    obs = pd.DataFrame({"donor": pd.Categorical(one.astype(str), one[::2].astype(str)), "group": groups})
    design = build_design("~ group + (1 | donor)", obs)
    stats, _ = balanced_statistics(n_donors, n_cells, paired=False)
    stats = replace(
        stats,
        ZtY=n_cells * means,
        DtY=np.zeros((0, n_genes)),
        rest=np.broadcast_to(rest, n_genes).astype(float),
        nonzero=np.full(n_genes, n_donors * n_cells),
        shift=np.zeros(n_genes),
    )
    return LmmFit(design.coding, stats, pd.Index([f"g{i}" for i in range(n_genes)]), show_progress=False)
