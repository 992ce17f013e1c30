"""Ways of calibrating the likelihood ratio, 4 to 8 donors: what each does to the level and to power."""

from __future__ import annotations

import os
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats as distributions
from statsmodels.stats.multitest import multipletests

from sc_lmm._design.hypothesis import hypotheses_of
from sc_lmm._model.fit import fit_models
from sc_lmm._statistics import null_model

from .calibration_simulate import Genes, draw, fit_of, make_cohort, null_genes, varied_genes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sc_lmm._statistics.sufficient import SufficientStatistics

    from .calibration_simulate import Cohort
    from .calibration_study import Plan

    Array = NDArray[np.float64]

_GRID = np.concatenate([[0.0], np.logspace(-1.5, 2.5, 13)])  # of rho times the mean number of cells
_DRAWS = 20_000  # per value of the grid
_BINS = 30
_LOG10_P = -np.linspace(0, 3.5, 71)[1:]


def compare(plan: Plan) -> pd.DataFrame:
    """Row per design, ICC and way of calibrating, of 4 to 8 donors."""
    designs = [(n, balanced) for n, balanced in product(plan.donors, (True, False)) if n <= 8]
    parts = Parallel(n_jobs=min(len(designs), os.cpu_count() or 1))(delayed(_design)(plan, *d) for d in designs)
    return pd.concat(parts, ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Row per number of donors and way: the range of its levels, and mean power."""
    named = {
        "lowest_05": ("at_05", "min"),
        "highest_05": ("at_05", "max"),
        "highest_per_1000": ("per_1000", "max"),
        "mean_power_05": ("power_05", "mean"),
        "mean_power_fdr": ("power_fdr", "mean"),
        "highest_fdr": ("fdr", "max"),
    }
    return table.groupby(["donors", "way"], sort=False).agg(**named).reset_index()


def _design(plan: Plan, n_donors: int, balanced: bool) -> pd.DataFrame:
    cohort = make_cohort(n_donors, balanced=balanced)
    rng = np.random.default_rng([plan.seed, 1, n_donors, balanced])
    table = Table(cohort, rng)
    rows = []
    for icc in plan.icc:
        null = dict(table.pvals(draw(cohort, null_genes(icc, plan.genes), rng)))
        genes = varied_genes(cohort, icc, plan.genes, rng)
        varied = dict(table.pvals(draw(cohort, genes, rng)))
        for way in null:
            p, q = null[way], varied[way]
            found = multipletests(q, method="fdr_bh")[0]
            rows.append(
                {
                    "donors": n_donors,
                    "cells": "balanced" if balanced else "unbalanced",
                    "icc": icc,
                    "way": way,
                    "at_05": (p < 0.05).mean(),
                    "per_1000": 1000 * (p < 0.001).mean(),
                    "varied_at_05": (q[~genes.changed] < 0.05).mean(),
                    "power_05": (q[genes.changed] < 0.05).mean(),
                    "power_fdr": found[genes.changed].mean(),
                    "fdr": (found & ~genes.changed).sum() / max(found.sum(), 1),
                }
            )
    return pd.DataFrame(rows)


class Table:
    """Simulated ratios of one design over a grid of rho, with the rho that each draw's null model estimates."""

    def __init__(self, cohort: Cohort, rng: np.random.Generator) -> None:
        self.cohort = cohort
        self.hypothesis = hypotheses_of(cohort.design.coding, "diagnosis")[0]
        self.grid = _GRID * cohort.sizes.size / cohort.sizes.sum()
        one, zero = np.ones(_DRAWS), np.zeros(_DRAWS)
        draws = [self._fits(draw(cohort, Genes(rho * one, one, zero, zero), rng)) for rho in self.grid]
        ratio, _, reml = (np.stack(column) for column in zip(*draws, strict=True))  # (n_grid, n_draws)
        self.factor = ratio.mean(axis=1)
        self.quantiles = np.quantile(ratio, 1 - 10**_LOG10_P, axis=1).T  # (n_grid, n_p)
        self.centres, self.conditional = _conditional_mean(reml.ravel(), ratio.ravel(), self.grid[1])

    def pvals(self, stats: SufficientStatistics) -> Iterator[tuple[str, Array]]:
        """P-values of each way of calibrating."""
        ratio, ml, reml = self._fits(stats)
        package = fit_of(self.cohort, stats).calibration(self.hypothesis)
        yield "chi-square", _chi2(ratio)
        yield "mean ratio at ML null rho", _chi2(ratio / package.at(ml))
        yield "mean ratio at REML null rho (package)", _chi2(ratio / package.at(reml))
        at = np.interp(np.log1p(reml / self.grid[1]), self.centres, self.conditional)
        yield "mean ratio given REML null rho", _chi2(ratio / at)
        yield "distribution at REML null rho", self._tail(ratio, reml)

    def _fits(self, stats: SufficientStatistics) -> tuple[Array, Array, Array]:
        names = self.cohort.design.coef_names
        models = [stats, null_model(stats, self.hypothesis)]
        full, null = fit_models(models, names, show_progress=False)
        (reml,) = fit_models(models[1:], names, reml=True, show_progress=False)
        return np.maximum(null.deviance - full.deviance, 0.0), null.rho, reml.rho

    def _tail(self, ratio: Array, rho: Array) -> Array:
        """Interpolate the quantiles in rho, then log p in the ratio; beyond the table a scaled chi-square."""
        where = np.interp(np.log1p(rho / self.grid[1]), np.log1p(self.grid / self.grid[1]), np.arange(self.grid.size))
        low = np.minimum(where.astype(int), self.grid.size - 2)
        share = (where - low)[:, None]
        quantiles = (1 - share) * self.quantiles[low] + share * self.quantiles[low + 1]
        quantiles = np.column_stack([np.zeros(ratio.size), quantiles])
        log_p = np.concatenate([[0.0], _LOG10_P])
        k = np.clip((quantiles < ratio[:, None]).sum(axis=1) - 1, 0, log_p.size - 2)
        rows = np.arange(ratio.size)
        left, right = quantiles[rows, k], quantiles[rows, k + 1]
        inside = 10 ** (log_p[k] + (ratio - left) / (right - left) * (log_p[k + 1] - log_p[k]))
        last = quantiles[:, -1]
        beyond = _chi2(ratio / (last / distributions.chi2.isf(10 ** log_p[-1], 1)))
        return np.where(ratio > last, beyond, np.minimum(inside, 1.0))


def _conditional_mean(rho: Array, ratio: Array, scale: float) -> tuple[Array, Array]:
    """E[ratio | estimated rho] where every value of the grid is as likely: the lump at 0 and equal bins above it."""
    x = np.log1p(rho / scale)
    edges = np.quantile(x[rho > 0], np.linspace(0, 1, _BINS + 1))
    position = np.where(rho > 0, np.clip(np.searchsorted(edges, x, side="right"), 1, _BINS), 0)
    counts = np.bincount(position, minlength=_BINS + 1)
    centres, means = (np.bincount(position, v, minlength=_BINS + 1) / np.maximum(counts, 1) for v in (x, ratio))
    return centres, means


def _chi2(ratio: Array) -> Array:
    return distributions.chi2.sf(ratio, 1)
