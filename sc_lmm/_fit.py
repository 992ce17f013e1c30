"""SufficientStatistics -> Fit: maximum-likelihood (or REML) estimates of every gene, in blocks of genes through joblib.

A block is fitted by one shared grid, which brackets every local minimum of each gene's deviance, and Newton steps in
lockstep; the deepest minimum wins, rho = 0 included. Blocks are cut by size alone and use one BLAS thread, so results
do not depend on the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from ._deviance import Profile, Spectrum, coefficients, profile, spectrum
from ._optimize import best_per_row, bracket_minima, refine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ._statistics import SufficientStatistics

    Array = NDArray[np.float64]

BLOCK_SIZE = 4096
OK, BOUNDARY, CONSTANT, MAX_ITER, FAILED = range(5)
STATUS = ("ok", "boundary", "constant", "max_iter", "failed")

# Grid of rho times the mean number of cells per level: below it the donor effect is invisible, above it only noise-free
# data live. Features of the deviance are decades wide, so three points a decade separate its minima.
_GRID = np.concatenate([[0.0], np.logspace(-4, 9, 3 * 13 + 1)])


@dataclass(frozen=True)
class Fit:
    """Estimates of one model for G genes, in the user's units."""

    coef_names: tuple[str, ...]  # (p,)
    beta: Array  # (G, p)
    vcov: Array  # (G, p, p) covariance of beta
    rho: Array  # (G,) sigma_u^2 / sigma^2
    sigma2: Array  # (G,) residual variance
    deviance: Array  # (G,) -2 log L (ML) or -2 log restricted L (REML)
    status: NDArray[np.int8]  # (G,) position in STATUS
    reml: bool

    @property
    def se(self) -> Array:
        """Standard errors of beta, (G, p)."""
        return np.sqrt(np.diagonal(self.vcov, axis1=1, axis2=2))

    @property
    def loglik(self) -> Array:
        """Log-likelihood, restricted if `reml`, (G,)."""
        return -self.deviance / 2

    @property
    def icc(self) -> Array:
        """Share of the variance between donors, rho / (1 + rho), (G,)."""
        return self.rho / (1 + self.rho)

    @property
    def sd_random(self) -> Array:
        """Standard deviation of the random intercept, (G,)."""
        return np.sqrt(self.rho * self.sigma2)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Genes whose estimates are a maximum of the likelihood, (G,)."""
        return self.status <= BOUNDARY


def fit_models(
    models: Sequence[SufficientStatistics],
    coef_names: Sequence[str],
    *,
    reml: bool = False,
    estimates: bool = True,
    n_jobs: int | None = None,
    block_size: int = BLOCK_SIZE,
    show_progress: bool | None = None,
) -> list[Fit]:
    """Fit every gene under each of several models of the same genes.

    Parameters
    ----------
    models
        Statistics per model, for the full model and its restrictions.
    coef_names
        Names of the coefficients, (p,). Under a restriction they are still all reported.
    reml
        Maximise the restricted likelihood.
    estimates
        Find the coefficients too; a null model is only asked for its deviance and rho.
    n_jobs
        Workers, in joblib's convention; None follows ``joblib.parallel_config``.
    block_size
        Genes per task.
    show_progress
        Show a bar: always, never, or (None) if fitting takes longer than a second.
    """
    with threadpool_limits(1, user_api="blas"):
        spectra = [spectrum(stats, reml=reml) for stats in models]
    n_genes = models[0].n_genes
    blocks = [slice(start, start + block_size) for start in range(0, n_genes, block_size)]
    tasks = (
        delayed(_fit_block)(
            [stats.genes(block) for stats in models], spectra, coef_names, reml=reml, estimates=estimates
        )
        for block in blocks
    )
    done = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(tasks)
    delay = 0 if show_progress else 1
    bar = tqdm(done, total=len(blocks), desc="fitting", delay=delay, disable=show_progress is False, leave=False)
    return [_concatenate(parts) for parts in zip(*bar, strict=True)]


def _fit_block(
    models: Sequence[SufficientStatistics],
    spectra: Sequence[Spectrum],
    coef_names: Sequence[str],
    *,
    reml: bool,
    estimates: bool,
) -> list[Fit]:
    with threadpool_limits(1, user_api="blas"):
        names = tuple(coef_names)
        return [
            _fit_one(stats, spectrum, names, reml=reml, estimates=estimates)
            for stats, spectrum in zip(models, spectra, strict=True)
        ]


def _fit_one(
    stats: SufficientStatistics, spectrum: Spectrum, names: tuple[str, ...], *, reml: bool, estimates: bool
) -> Fit:
    objective = profile(stats, spectrum)
    status = _degenerate(stats, objective)
    sound = np.flatnonzero(status == OK)
    rho = np.full(stats.n_genes, np.nan)
    deviance = np.full(stats.n_genes, np.nan)
    rho[sound], deviance[sound], status[sound] = minimise_deviance(objective.genes(sound), stats.n_cells)
    failed = status > BOUNDARY
    rho[failed], deviance[failed] = np.nan, np.nan
    with np.errstate(invalid="ignore"):
        sigma2 = objective.sigma2(rho)
    beta, unscaled = _coefficients(stats, rho, ~failed if estimates else np.zeros_like(failed))
    return Fit(names, beta, sigma2[:, None, None] * unscaled, rho, sigma2, deviance, status, reml)


def minimise_deviance(objective: Profile, n_cells: int) -> tuple[Array, Array, NDArray[np.int8]]:
    """Global minimum of each gene's deviance over rho >= 0: rho, the deviance there, and the status, each (G,)."""
    scale = objective.spectrum.log_terms.size / n_cells  # one over the mean number of cells per level
    grid = scale * _GRID
    at_zero, brackets = bracket_minima(objective.gradient_on_grid(grid), grid)
    inside, converged = refine(objective.derivatives, brackets, scale)
    rows = np.concatenate([at_zero, brackets.rows])
    rho = np.concatenate([np.zeros(at_zero.size), inside])
    deviance = objective.genes(rows).deviance(rho)
    best = best_per_row(rows, deviance, objective.rss_0.size)
    # No minimum on the grid (position -1): the deviance falls without end, as for a gene constant within every donor.
    status = np.concatenate([np.full(at_zero.size, BOUNDARY), np.where(converged, OK, MAX_ITER), [FAILED]])
    return np.append(rho, np.nan)[best], np.append(deviance, np.nan)[best], status.astype(np.int8)[best]


def _degenerate(stats: SufficientStatistics, objective: Profile) -> NDArray[np.int8]:
    """Genes without variation, or without any that the fixed effects or the donors do not explain exactly."""
    rounding = np.finfo(float).eps * (stats.yty + stats.n_cells * stats.mean**2)
    constant = stats.total_ss <= 16 * rounding
    explained = objective.rss_0 <= 1e-13 * stats.total_ss
    return np.select([constant, explained], [CONSTANT, FAILED], OK).astype(np.int8)


def _coefficients(stats: SufficientStatistics, rho: Array, sound: NDArray[np.bool_]) -> tuple[Array, Array]:
    p = stats.basis.shape[0]
    beta, unscaled = np.full((rho.size, p), np.nan), np.full((rho.size, p, p), np.nan)
    beta[sound], unscaled[sound] = coefficients(stats.genes(np.flatnonzero(sound)), rho[sound])
    return beta, unscaled


def _concatenate(parts: Sequence[Fit]) -> Fit:
    names = ("beta", "vcov", "rho", "sigma2", "deviance", "status")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Fit(coef_names=parts[0].coef_names, reml=parts[0].reml, **arrays)
