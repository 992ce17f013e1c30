"""Small-sample calibration of the likelihood ratio by simulating sufficient statistics under the null hypothesis.

Under H0 the distribution of the ratio depends on the design and rho alone: it does not change with beta or sigma. So,
once per design, statistics are drawn (r normals and a chi-square per draw, no cells), fitted by the package's own code
and E[LRT]/df is tabulated over rho. A gene's ratio is divided by the factor at its rho, estimated under the null model
by REML: the ML estimate is biased to zero and its factor too small (rejections at 5 % with 8 donors .063, with REML
.055, nominal .050), and the full model's estimate is coupled with the ratio itself (with 4 donors up to .138, and 22 per
1,000 at .001). A place half way between the two finds no more where it holds (6 to 12 donors) and rejects up to .084 with
4 (tests/benchmarks/calibration_factor.py).

Bartlett 1937 for the idea; Zucker, Lieberman & Manor 2000 and Manor & Zucker 2004 for mixed models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from .._blas import one_blas_thread
from .._model import Profile, profile, project, spectrum
from .._statistics import null_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Hypothesis
    from .._statistics import SufficientStatistics

    Array = NDArray[np.float64]

# rho times the mean number of cells per level: the factor is flat below and above.
_GRID = np.concatenate([[0.0], np.logspace(-1.5, 2.5, 13)])
# Draws times levels: the Monte-Carlo error of a factor is about 1 % (measured .7 to 1.2); large designs need fewer draws
# because their factors are nearer to 1 and the control variate is closer.
_BUDGET = 48_000
_MOST_DRAWS, _FEWEST_DRAWS = 4_000, 100


@dataclass(frozen=True)
class Calibration:
    """E[LRT]/df under H0 as a function of rho for one design and hypothesis."""

    rho: Array  # (n_grid,)
    factor: Array  # (n_grid,)
    error: Array  # (n_grid,) Monte-Carlo standard errors of the factors
    n_draws: int
    seed: int

    def at(self, rho: Array) -> Array:
        """Factor at each gene's rho, linear in log(1 + rho / rho_1) and constant beyond the table."""
        scale = self.rho[1]
        return np.interp(np.log1p(rho / scale), np.log1p(self.rho / scale), self.factor)


def calibrate(stats: SufficientStatistics, hypothesis: Hypothesis, *, seed: int = 0) -> Calibration:
    """Tabulate E[LRT]/df for the design behind `stats`."""
    n_levels = stats.sizes.size
    n_draws = int(np.clip(_BUDGET // n_levels, _FEWEST_DRAWS, _MOST_DRAWS))
    rho = _GRID * n_levels / stats.n_cells
    if stats.rest_df <= 0:  # nothing is left to estimate sigma from: no gene can be fitted
        return Calibration(rho, np.ones(rho.size), np.zeros(rho.size), 0, seed)
    donors, cells = draw_parts(stats, n_draws, np.random.default_rng(seed))
    with one_blas_thread():
        full = _profiles(donors, cells, rho)
        null = _profiles(null_model(donors, hypothesis), null_model(cells, hypothesis), rho)
        means = [_mean_ratio(f, n, r, stats, hypothesis) for f, n, r in zip(full, null, rho, strict=True)]
    factor, error = (np.array(column) / hypothesis.df for column in zip(*means, strict=True))
    return Calibration(rho, factor, error, n_draws, seed)


def draw_parts(
    stats: SufficientStatistics, n_draws: int, rng: np.random.Generator
) -> tuple[SufficientStatistics, SufficientStatistics]:
    """Statistics of B genes u ~ N(0, 1) per level and B genes e ~ N(0, 1) per cell, for the design behind `stats`.

    A gene under the null hypothesis with beta = 0 and sigma = 1 is sqrt(rho) u + e.
    """
    q, sizes = stats.sizes.size, stats.sizes[:, None]
    rank, within = _canonical(stats)
    u, e = rng.standard_normal((2, q, n_draws))[:, rank]
    z = within @ rng.standard_normal((within.shape[1], n_draws))
    rest = rng.chisquare(stats.rest_df, n_draws)
    nothing = np.zeros(n_draws)
    common: dict[str, Any] = {"nonzero": np.full(n_draws, stats.n_cells), "shift": nothing}
    donors = replace(stats, ZtY=sizes * u, DtY=np.zeros_like(z), rest=nothing, **common)
    cells = replace(stats, ZtY=np.sqrt(sizes) * e, DtY=z, rest=rest, **common)
    return donors, cells


def _canonical(stats: SufficientStatistics) -> tuple[NDArray[np.int64], Array]:
    """Rank of each level by what it is (q,), and axes within levels (w, w), whatever the order of levels and columns.

    Draws belong to these, so that neither order changes a factor. Both are found in the user's columns, in units of
    their spread.
    """
    means = stats.ZtX / stats.sizes[:, None] @ stats.directions
    keys = np.round([(means**2).sum(axis=1), means.sum(axis=1), stats.sizes], 9)
    axes, values, vectors = np.linalg.svd(stats.DtX @ stats.directions)
    signs = np.ones(len(axes))
    signs[: values.size] = np.sign([v[np.abs(v).argmax()] for v in vectors[: values.size]])
    return np.argsort(np.lexsort(keys)), (axes * signs)[:, ::-1]


def _profiles(donors: SufficientStatistics, cells: SufficientStatistics, rho: Array) -> list[Profile]:
    """Deviances of the draws at each rho: eta is linear in y, so one projection of each part serves all."""
    model = spectrum(cells, reml=False)
    eta_u, eta_e = project(donors, model), project(cells, model)
    rss_0 = profile(cells, model).rss_0
    return [Profile(model, (np.sqrt(r) * eta_u + eta_e) ** 2, rss_0) for r in rho]


def _mean_ratio(
    full: Profile, null: Profile, rho: float, stats: SufficientStatistics, hypothesis: Hypothesis
) -> tuple[float, float]:
    """Mean of the ratio over the draws and its standard error, after regression on controls of known mean."""
    ratio = null.minimum()[1] - full.minimum()[1]
    controls = _controls(full, null, np.full(ratio.size, rho), stats, hypothesis)
    slopes, *_ = np.linalg.lstsq(controls - controls.mean(axis=0), ratio - ratio.mean(), rcond=None)
    adjusted = ratio - controls @ slopes
    return float(adjusted.mean()), float(adjusted.std() / np.sqrt(adjusted.size))


def _controls(full: Profile, null: Profile, rho: Array, stats: SufficientStatistics, hypothesis: Hypothesis) -> Array:
    """Two ratios at the true rho, less their exact means, (B, 2): what the LRT is near for small and for large rho.

    The residual sums of squares of all cells, and of the level means alone, are independent chi-squares in the full
    model and its difference to the null, so their ratio is Beta and E[-log] a difference of digamma functions.
    """
    n, p, df = stats.n_cells, stats.n_columns, hypothesis.df
    rss, rss_null = full.rss(rho), null.rss(rho)
    cells = n * np.log(rss_null / rss)
    cells -= n * (special.digamma((n - p + df) / 2) - special.digamma((n - p) / 2))
    r, r_null = full.spectrum.d.size, null.spectrum.d.size
    if r == r_null or r == 0:
        return cells[:, None]
    levels = np.log((rss_null - null.rss_0) / (rss - full.rss_0))
    levels -= special.digamma(r_null / 2) - special.digamma(r / 2)
    return np.column_stack([cells, levels])
