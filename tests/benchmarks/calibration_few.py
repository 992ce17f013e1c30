"""How few genes can a prior be learned from?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from .calibration_genes import population
from .calibration_methods import DEFAULT, ORACLE, RATIO, Truth
from .calibration_simulate import draw, fit_of, make_cohort
from .calibration_table import markdown

if TYPE_CHECKING:
    from pathlib import Path

    from .calibration_study import Plan

DONORS, GENES = (4, 8), (20, 50, 100, 200, 500)
METHODS = (ORACLE, DEFAULT, RATIO, "between-within squeezed")


def few_genes(plan: Plan, output: Path, n_jobs: int) -> str:
    """Table of levels, and of changed genes with p below .01, by the number of genes tested together."""
    cells = [(donors, name) for donors in DONORS for name in plan.populations]
    rows = Parallel(n_jobs=n_jobs)(delayed(_cell)(plan, *cell, size) for cell in cells for size in GENES)
    table = pd.DataFrame(rows)
    table.to_csv(output / "few.csv", index=False)
    return markdown(table)


def _cell(plan: Plan, n_donors: int, name: str, size: int) -> dict[str, object]:
    """Sets of `size` genes, a tenth of them changed, as many as make the null genes of the plan."""
    cohort = make_cohort(n_donors, balanced=False)
    rng = np.random.default_rng([plan.seed, n_donors, size, *map(ord, name)])
    n_null = size - size // 10
    pvals = {method: [] for method in METHODS}
    changed = []
    for _ in range(plan.n_sets * plan.n_null // n_null):
        genes = population(cohort, name, n_null, rng)
        truth = Truth(cohort, genes, fit_of(cohort, draw(cohort, genes, rng)))
        changed.append(genes.changed)
        for method in METHODS:
            pvals[method].append(truth.pvals(method))
    is_changed = np.concatenate(changed)
    joined = {method: np.concatenate(parts) for method, parts in pvals.items()}
    entries = {method: _entry(p[~is_changed], p[is_changed]) for method, p in joined.items()}
    return {"donors": n_donors, "population": name, "genes": size, **entries}


def _entry(null: np.ndarray, changed: np.ndarray) -> str:
    at_05, at_001 = (null < 0.05).mean(), 1000 * (null < 0.001).mean()
    return f"{at_05:.3f} / {at_001:.1f} / {(changed < 0.01).mean():.2f}"
