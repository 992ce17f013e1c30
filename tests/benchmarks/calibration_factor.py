"""At which variance ratio is the calibration factor of the likelihood ratio read? For ``moderate=False``.

The ratio of a gene is divided by its mean under the null hypothesis, which depends on the gene's variance ratio rho, and
rho has to be estimated. A changed term inflates the estimate of the null model; that of the full model is coupled with
the ratio itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats as distributions
from statsmodels.stats.multitest import multipletests

from .calibration_genes import population
from .calibration_methods import Truth
from .calibration_simulate import draw, fit_of, make_cohort
from .calibration_table import markdown

if TYPE_CHECKING:
    from pathlib import Path

    from sc_lmm._inference import LmmFit

    from .calibration_simulate import Cohort
    from .calibration_study import Plan

    Array = np.ndarray

DONORS = (4, 6, 8, 12)
# Share of the way from the null to the full model's estimate, in log(1 + cells per donor x rho); None: the true rho.
READINGS: dict[str, float | None] = {"null": 0.0, "a third": 1 / 3, "half": 0.5, "full": 1.0, "true": None}


def factor_readings(plan: Plan, output: Path, n_jobs: int) -> str:
    """Table of levels, and of changed genes found at FDR 5 %, by reading."""
    cells = [(donors, name) for donors in DONORS for name in plan.populations]
    table = pd.DataFrame(Parallel(n_jobs=n_jobs)(delayed(_cell)(plan, *cell) for cell in cells))
    table.to_csv(output / "factor.csv", index=False)
    return markdown(table)


def _cell(plan: Plan, n_donors: int, name: str) -> dict[str, object]:
    cohort = make_cohort(n_donors, balanced=False)
    rng = np.random.default_rng([plan.seed, n_donors, *map(ord, name)])
    pvals: dict[str, list[Array]] = {reading: [] for reading in READINGS}
    changed = []
    for _ in range(plan.n_sets):
        genes = population(cohort, name, plan.n_null, rng)
        truth = Truth(cohort, genes, fit_of(cohort, draw(cohort, genes, rng)))
        changed.append(genes.changed)
        for reading, p in readings(cohort, truth.fit, genes.rho).items():
            pvals[reading].append(p)
    entries = {reading: _entry(np.array(parts), np.array(changed)) for reading, parts in pvals.items()}
    return {"donors": n_donors, "population": name, **entries}


def readings(cohort: Cohort, fit: LmmFit, rho: Array) -> dict[str, Array]:
    """P-values of each reading for genes of this rho."""
    calibration = fit.calibration(cohort.hypothesis)
    lrt = fit.test(cohort.test, moderate=False).table["lrt"].to_numpy()
    full, null = fit.estimates.reml.rho, fit.estimates.under(cohort.hypothesis).reml_rho
    unit = fit.stats.n_cells / fit.stats.sizes.size
    full, null = np.log1p(unit * full), np.log1p(unit * null)
    places = {
        k: rho if share is None else np.expm1(null + share * (full - null)) / unit for k, share in READINGS.items()
    }
    df = cohort.hypothesis.df
    return {k: distributions.chi2.sf(lrt / calibration.at(place), df) for k, place in places.items()}


def _entry(pvals: Array, changed: Array) -> str:
    called = np.stack([multipletests(p, method="fdr_bh")[0] for p in pvals])
    null = pvals[~changed]
    return f"{(null < 0.05).mean():.3f} / {1000 * (null < 0.001).mean():.1f} / {called[changed].mean():.2f}"
