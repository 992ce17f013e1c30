"""Genes of a mixed model drawn as sufficient statistics, by other means than the package's own calibration.

A gene y = mean + effect diagnosis + u_j + e of donor j enters its statistics through the mean of each donor,

    y_j = mean + effect diagnosis_j + sigma (sqrt(rho) u_j + e_j / sqrt(n_j)),     u_j, e_j ~ N(0, 1)

and through the products within donors, which are independent of these means: with W the sum of squares of the cell
covariate x about its donor means, x'y = sigma sqrt(W) z, y'y = sigma^2 (z^2 + chi2(n - m - 1)), z ~ N(0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats as distributions

from sc_lmm._design.model_matrix import build_design
from sc_lmm._inference.fitted import LmmFit
from sc_lmm._statistics.sufficient import SufficientStatistics, sufficient_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_lmm._design.model_matrix import Design

    Array = NDArray[np.float64]

FORMULA = "~ x + diagnosis + (1 | sample_id)"
CELLS_PER_DONOR = 100
_SD_LOG_CELLS = 1.0  # the largest of 50 donors has about 100 times the cells of the smallest


@dataclass(frozen=True)
class Cohort:
    """Donors and cells of one design; everything but expression."""

    design: Design
    stats: SufficientStatistics  # of one gene, for the products of X and Z
    donor: NDArray[np.int64]  # (n,) donor of each cell

    @property
    def sizes(self) -> Array:
        """Cells per donor, (m,)."""
        return self.stats.sizes


@dataclass(frozen=True)
class Genes:
    """What is true of G genes."""

    rho: Array  # (G,) sigma_u^2 / sigma^2
    sigma: Array  # (G,) residual standard deviation
    mean: Array  # (G,)
    effect: Array  # (G,) of diagnosis

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Genes with an effect, (G,)."""
        return self.effect != 0


def make_cohort(n_donors: int, *, balanced: bool, cells_per_donor: int = CELLS_PER_DONOR, seed: int = 0) -> Cohort:
    """Half of the donors are cases; unbalanced, their cell numbers are the quantiles of a log-normal distribution."""
    rng = np.random.default_rng([seed, n_donors])
    sizes = np.full(n_donors, cells_per_donor)
    if not balanced:
        z = rng.permutation(distributions.norm.ppf((np.arange(n_donors) + 0.5) / n_donors))
        sizes = np.maximum(3, np.round(cells_per_donor * np.exp(_SD_LOG_CELLS * z - _SD_LOG_CELLS**2 / 2))).astype(int)
    donor = np.repeat(np.arange(n_donors), sizes)
    names = pd.Categorical.from_codes(donor, [f"d{j:03d}" for j in range(n_donors)])
    obs = pd.DataFrame(
        {
            "sample_id": names,
            "diagnosis": pd.Categorical(np.where(donor % 2, "case", "control"), ["control", "case"]),
            "x": rng.normal(size=donor.size) + rng.normal(0, 0.3, n_donors)[donor],
        },
        index=[f"c{i}" for i in range(donor.size)],
    )
    design = build_design(FORMULA, obs)
    return Cohort(design, sufficient_statistics(rng.normal(size=(donor.size, 1)), design, show_progress=False), donor)


def null_genes(icc: float, n_genes: int) -> Genes:
    """Genes alike in everything and without effect."""
    one = np.ones(n_genes)
    return Genes(icc / (1 - icc) * one, one, 0 * one, 0 * one)


def varied_genes(
    cohort: Cohort, icc: float, n_null: int, rng: np.random.Generator, *, share: float = 0.1, strength: float = 4.0
) -> Genes:
    """Genes with their own ICC (Beta, mean `icc`), residual variance (half of it following the mean) and mean.

    A share of them changes by `strength` standard errors at the nominal ICC, up or down.
    """
    n_changed = round(n_null * share / (1 - share))
    size = n_null + n_changed
    own = rng.beta(1.2, 1.2 * (1 - icc) / icc, size)
    mean = rng.uniform(0, 3, size)
    sigma = np.exp(0.3 * (mean - 1.5) + rng.normal(0, 0.15, size))
    X, n = cohort.design.X, cohort.sizes
    h = (icc / (1 - icc)) / (1 + n * icc / (1 - icc))
    sums = cohort.stats.ZtX @ np.linalg.inv(cohort.stats.basis)
    information = X.T @ X - sums.T @ (h[:, None] * sums)
    se = np.sqrt(np.linalg.inv(information)[-1, -1])
    effect = np.zeros(size)
    effect[:n_changed] = strength * se * sigma[:n_changed] * rng.choice([-1, 1], n_changed)
    return Genes(own / (1 - own), sigma, mean, effect)


def draw(cohort: Cohort, genes: Genes, rng: np.random.Generator) -> SufficientStatistics:
    """Sufficient statistics of genes, one each."""
    X, n, G = cohort.design.X, cohort.sizes, genes.rho.size
    m = n.size
    xbar = np.stack([np.bincount(cohort.donor, column) / n for column in X.T], axis=1)  # (m, p)
    u, e, z = rng.standard_normal((m, G)), rng.standard_normal((m, G)), rng.standard_normal(G)
    rest = rng.chisquare(X.shape[0] - m - 1, G)
    level = genes.sigma * (np.sqrt(genes.rho) * u + e / np.sqrt(n)[:, None])
    level += genes.mean + xbar[:, 2:] * genes.effect
    return replace(
        cohort.stats,
        ZtY=n[:, None] * level,
        DtY=genes.sigma * z[None, :],
        rest=genes.sigma**2 * rest,
        nonzero=np.full(G, X.shape[0]),
        shift=np.zeros(G),
    )


def draw_cells(cohort: Cohort, genes: Genes, rng: np.random.Generator) -> SufficientStatistics:
    """The same through the expression of every cell, to check the short cut."""
    n, G = cohort.donor.size, genes.rho.size
    u, e = rng.standard_normal((cohort.sizes.size, G)), rng.standard_normal((n, G))
    Y = genes.mean + cohort.design.X[:, 2:] * genes.effect + genes.sigma * (np.sqrt(genes.rho) * u[cohort.donor] + e)
    return sufficient_statistics(Y, cohort.design, show_progress=False)


def fit_of(cohort: Cohort, stats: SufficientStatistics) -> LmmFit:
    """The fitted object that users hold."""
    names = pd.RangeIndex(stats.n_genes).astype(str)
    return LmmFit(cohort.design.coding, stats, names, n_jobs=1, show_progress=False)
