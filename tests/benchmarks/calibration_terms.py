"""Null genes rejected, and changed genes found, by the default test under several random terms.

``python -m tests.benchmarks.calibration_terms``. Cohorts of 6 to 12 donors, unbalanced; variances differ between genes and
are often zero; a tenth of the genes change. Genes are drawn in the coordinates of the statistics, so that no cell is made.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd

from sc_lmm._design import build_design
from sc_lmm._inference.estimates import Estimates
from sc_lmm._inference.fitted import LmmFit
from sc_lmm._statistics import SufficientStatistics, sufficient_statistics

DESIGNS = {
    "crossed": ("~ arm + (1 | donor) + (1 | batch)", "arm"),
    "nested": ("~ arm + (1 | donor/sample)", "arm"),
    "paired, slope": ("~ condition + (condition | donor)", "condition"),
    "paired, nested": ("~ condition + (1 | donor/condition)", "condition"),
}
RATIOS = np.array([0.0, 0.0, 0.02, 0.1, 0.3])
CHANGED, EFFECT = 0.1, 0.6


def cohort(n_donors: int, rng: np.random.Generator) -> pd.DataFrame:
    """Cells of donors in two arms, each in two samples and under two conditions, in batches that cross them."""
    sizes = rng.integers(40, 160, n_donors)
    donor = np.repeat(np.arange(n_donors), sizes)
    n = donor.size
    return pd.DataFrame(
        {
            "donor": [f"d{k}" for k in donor],
            "arm": np.array(["a", "b"])[donor % 2],
            "batch": [f"b{k}" for k in rng.integers(0, 4, n)],
            "sample": [f"s{k}" for k in rng.integers(0, 2, n)],
            "condition": np.array(["c", "t"])[rng.integers(0, 2, n)],
        }
    )


def draw(formula: str, test: str, n_donors: int, n_genes: int, seed: int) -> tuple[LmmFit, np.ndarray]:
    """A fit of simulated genes, and which of them change."""
    rng = np.random.default_rng(seed)
    obs = cohort(n_donors, rng)
    design = build_design(formula, obs)
    stats = sufficient_statistics(np.zeros((len(obs), 1)), design, show_progress=False)
    y = rng.standard_normal((len(stats.coordinates_X), n_genes))
    for grouping in stats.groupings:
        sd = np.sqrt(RATIOS[rng.integers(0, RATIOS.size, (grouping.r, n_genes))])
        u = rng.standard_normal((grouping.n_levels, grouping.r, n_genes)) * sd
        back = np.linalg.inv(grouping.basis)  # coefficients of the user's columns -> of standardised ones
        y += grouping.coordinates.matrix @ np.einsum("ab,jbg->jag", back, u).reshape(-1, n_genes)
    changed = rng.random(n_genes) < CHANGED
    column = design.coef_names.index(next(name for name in design.coef_names if name.startswith(test)))
    y += np.outer(stats.coordinates_X @ stats.columns[:, column], EFFECT * changed)
    return LmmFit(design.coding, _genes(stats, y, rng), pd.Index([f"g{k}" for k in range(n_genes)])), changed


def _genes(stats: SufficientStatistics, y: np.ndarray, rng: np.random.Generator) -> SufficientStatistics:
    n_genes, w = y.shape[1], len(stats.DtX)
    y = y + np.outer(stats.coordinates_X @ stats.ones, rng.uniform(0, 3, n_genes))
    return replace(
        stats,
        DtY=y[:w],
        ZtY=np.sqrt(stats.sizes)[:, None] * y[w:],
        rest=rng.chisquare(stats.rest_df, n_genes),
        nonzero=np.full(n_genes, stats.n_cells),
        shift=np.zeros(n_genes),
    )


def study(name: str, n_donors: int, n_genes: int, seed: int) -> dict[str, float]:
    """Rejections of null genes, genes found, and false ones among them."""
    formula, test = DESIGNS[name]
    fit, changed = draw(formula, test, n_donors, n_genes, seed)
    assert not isinstance(fit.estimates, Estimates)
    table = fit.test(test, conf_level=None).table
    pvals, found = table["pvals"].to_numpy(), (table["pvals_adj"] < 0.05).to_numpy()
    return {
        "at .05": float((pvals[~changed] < 0.05).mean()),
        "per 1,000 at .001": 1000 * float((pvals[~changed] < 0.001).mean()),
        "chi2 at .05": float((table["pvals_chi2"].to_numpy()[~changed] < 0.05).mean()),
        "found": float(found[changed].mean()),
        "false": float(found[~changed].sum() / max(found.sum(), 1)),
    }


def main() -> None:
    """Tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genes", type=int, default=4000)
    parser.add_argument("--donors", type=int, nargs="*", default=[6, 8, 12])
    parser.add_argument("--seeds", type=int, default=2)
    chosen = parser.parse_args()
    rows = {}
    for name in DESIGNS:
        for n_donors in chosen.donors:
            parts = [study(name, n_donors, chosen.genes, seed) for seed in range(chosen.seeds)]
            rows[name, n_donors] = pd.DataFrame(parts).mean()
    print(pd.DataFrame(rows).T.round(3).to_string())


if __name__ == "__main__":
    main()
