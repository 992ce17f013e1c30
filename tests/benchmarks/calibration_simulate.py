"""Genes of a mixed model drawn as sufficient statistics, by other means than the package's own calibration.

A gene y = mean + X beta + u_j + e of donor j enters its statistics through the mean of each donor,

    y_j = mean + x_j beta + sigma (sqrt(rho) u_j + e_j / sqrt(n_j)),     u_j, e_j ~ N(0, 1)

and through the products within donors, which are independent of these means: with D (n, w) an orthonormal basis of X
about its donor means,

    D'y = D'X beta + sigma z,   what is left of y'y = sigma^2 chi2(n - m - w),     z ~ N(0, I_w)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats as distributions

from sc_lmm._design import build_design, hypotheses_of
from sc_lmm._inference import LmmFit
from sc_lmm._statistics import SufficientStatistics, sufficient_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_lmm._design import Design, Hypothesis

    Array = NDArray[np.float64]

CELLS_PER_DONOR = 100
_SD_LOG_CELLS = 1.0  # the largest of 50 donors has about 100 times the cells of the smallest
# What is asked -> the formula and the term. Donors come in two groups or four stages in turn; x varies within them.
QUESTIONS = {
    "two groups": ("~ x + diagnosis + (1 | sample_id)", "diagnosis"),
    "four stages": ("~ x + stage + (1 | sample_id)", "stage"),
    "within donors": ("~ x + diagnosis + (1 | sample_id)", "x"),
}
# Cells of each donor, by turns control and case.
EXTREMES = {
    "one of 2,000, seven of 25": [2_000, *[25] * 7],
    "two of 800 on one side, eight of 15": [800, 15, 800, *[15] * 7],
    "ten of 3 to 6": [3, 4, 5, 6, 3, 6, 5, 4, 3, 6],
    "ten of 8 to 1,000": [1_000, 8, 20, 300, 600, 45, 12, 150, 80, 30],
}


@dataclass(frozen=True)
class Cohort:
    """Donors and cells of one design; everything but expression."""

    design: Design
    stats: SufficientStatistics  # of one gene, for the products of X and Z
    donor: NDArray[np.int64]  # (n,) donor of each cell
    test: str

    @property
    def sizes(self) -> Array:
        """Cells per donor, (m,)."""
        return self.stats.sizes

    @property
    def hypothesis(self) -> Hypothesis:
        """The joint one of the tested term."""
        return hypotheses_of(self.design.coding, self.test)[0]


@dataclass(frozen=True)
class Genes:
    """What is true of G genes."""

    rho: Array  # (G,) sigma_u^2 / sigma^2
    sigma: Array  # (G,) residual standard deviation
    mean: Array  # (G,)
    effect: Array  # (df, G) of the tested columns

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Genes with an effect, (G,)."""
        return (self.effect != 0).any(axis=0)


def make_cohort(
    n_donors: int,
    *,
    balanced: bool,
    question: str = "two groups",
    cells_per_donor: int = CELLS_PER_DONOR,
    seed: int = 0,
) -> Cohort:
    """Donors with as many cells each, or with quantiles of a log-normal distribution in random order."""
    rng = np.random.default_rng([seed, n_donors])
    sizes = np.full(n_donors, cells_per_donor)
    if not balanced:
        z = rng.permutation(distributions.norm.ppf((np.arange(n_donors) + 0.5) / n_donors))
        sizes = np.maximum(3, np.round(cells_per_donor * np.exp(_SD_LOG_CELLS * z - _SD_LOG_CELLS**2 / 2))).astype(int)
    return cohort_of(sizes, question, rng)


def cohort_of(sizes: Array | list[int], question: str, rng: np.random.Generator) -> Cohort:
    """Donors with these numbers of cells."""
    formula, test = QUESTIONS[question]
    n_donors = len(sizes)
    donor = np.repeat(np.arange(n_donors), sizes)
    names = pd.Categorical.from_codes(donor, [f"d{j:03d}" for j in range(n_donors)])
    obs = pd.DataFrame(
        {
            "sample_id": names,
            "diagnosis": pd.Categorical(np.where(donor % 2, "case", "control"), ["control", "case"]),
            "stage": pd.Categorical(np.array(list("abcd"))[donor % 4]),
            "x": rng.normal(size=donor.size) + rng.normal(0, 0.3, n_donors)[donor],
        },
        index=[f"c{i}" for i in range(donor.size)],
    )
    design = build_design(formula, obs)
    stats = sufficient_statistics(rng.normal(size=(donor.size, 1)), design, show_progress=False)
    return Cohort(design, stats, donor, test)


def null_genes(icc: float, n_genes: int) -> Genes:
    """Genes alike in everything and without effect."""
    one = np.ones(n_genes)
    return Genes(icc / (1 - icc) * one, one, 0 * one, np.zeros((1, n_genes)))


def standard_error(cohort: Cohort, rho: Array) -> Array:
    """Of the tested coefficients at each rho, for sigma = 1, (df, K)."""
    X, n = cohort.design.X, cohort.sizes
    sums = np.stack([np.bincount(cohort.donor, column) for column in X.T], axis=1)
    h = rho[:, None] / (1 + rho[:, None] * n)
    covariance = np.linalg.inv(X.T @ X - np.einsum("jp,kj,jr->kpr", sums, h, sums))
    L = cohort.hypothesis.L
    return np.sqrt(np.einsum("dp,kpr,dr->dk", L, covariance, L))


def draw(cohort: Cohort, genes: Genes, rng: np.random.Generator) -> SufficientStatistics:
    """Sufficient statistics of genes, one each."""
    stats, n, G = cohort.stats, cohort.sizes, genes.rho.size
    beta = np.linalg.solve(stats.basis, _beta(cohort, genes))  # in standardised columns
    u, e, z = (rng.standard_normal((rows, G)) for rows in (n.size, n.size, len(stats.DtX)))
    level = stats.ZtX / n[:, None] @ beta + genes.sigma * (np.sqrt(genes.rho) * u + e / np.sqrt(n)[:, None])
    return replace(
        stats,
        ZtY=n[:, None] * level,
        DtY=stats.DtX @ beta + genes.sigma * z,
        rest=genes.sigma**2 * rng.chisquare(stats.rest_df, G),
        nonzero=np.full(G, stats.n_cells),
        shift=np.zeros(G),
    )


def draw_cells(cohort: Cohort, genes: Genes, rng: np.random.Generator) -> SufficientStatistics:
    """The same through the expression of every cell, to check the short cut."""
    n, G = cohort.donor.size, genes.rho.size
    u, e = rng.standard_normal((cohort.sizes.size, G)), rng.standard_normal((n, G))
    Y = cohort.design.X @ _beta(cohort, genes) + genes.sigma * (np.sqrt(genes.rho) * u[cohort.donor] + e)
    return sufficient_statistics(Y, cohort.design, show_progress=False)


def fit_of(cohort: Cohort, stats: SufficientStatistics) -> LmmFit:
    """The fitted object that users hold."""
    names = pd.RangeIndex(stats.n_genes).astype(str)
    return LmmFit(cohort.design.coding, stats, names, n_jobs=1, show_progress=False)


def _beta(cohort: Cohort, genes: Genes) -> Array:
    """Coefficients of the user's columns, (p, G)."""
    beta = cohort.hypothesis.L.T @ np.broadcast_to(genes.effect, (cohort.hypothesis.df, genes.rho.size))
    beta[cohort.design.coef_names.index("Intercept")] += genes.mean
    return beta
