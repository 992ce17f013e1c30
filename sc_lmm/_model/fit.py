"""SufficientStatistics -> Fit: maximum-likelihood (or REML) estimates of every gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._blas import one_blas_thread
from .base import BOUNDARY, CONSTANT, FAILED, MAX_ITER, OK, ROUNDING, BaseFit
from .blocks import for_blocks, gene_blocks
from .deviance import Profile, Spectrum, coefficients, profile, spectrum
from .optimize import minimise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._statistics import SufficientStatistics

    Array = NDArray[np.float64]

# In the order of the outcomes of `optimize`. Without a minimum the deviance falls without end, as for a gene that is
# constant within every donor.
_STATUS_OF = np.array([BOUNDARY, OK, MAX_ITER, FAILED], dtype=np.int8)


@dataclass(frozen=True)
class Fit(BaseFit):
    """Estimates under one random intercept."""

    rho: Array  # (G,) sigma_u^2 / sigma^2

    @property
    def icc(self) -> Array:
        """Share of the variance between donors, rho / (1 + rho), (G,)."""
        return self.rho / (1 + self.rho)

    @property
    def sd_random(self) -> Array:
        """Standard deviation of the random intercept, (G,)."""
        return np.sqrt(self.rho * self.sigma2)


def fit_models(
    models: Sequence[SufficientStatistics],
    coef_names: Sequence[str],
    *,
    reml: bool = False,
    estimates: bool = True,
    n_jobs: int | None = None,
    block_size: int | None = None,
    show_progress: bool | None = None,
) -> list[Fit]:
    """Fit every gene under each of several models of the same genes, with one random intercept.

    Parameters
    ----------
    models
        Statistics per model, for the full model and its restrictions.
    coef_names
        Names of the coefficients, (p,). Under a restriction they are still all reported.
    reml
        Maximise the restricted likelihood.
    estimates
        Find the coefficients too; a null model is only asked for its deviance and rho, and has none.
    n_jobs
        Workers, in joblib's convention; None follows ``joblib.parallel_config``.
    block_size
        Genes per task; by default what suits the cache.
    show_progress
        Show a bar: always, never, or (None) if fitting takes longer than a second.
    """
    with one_blas_thread():
        spectra = [spectrum(stats, reml=reml) for stats in models]
    blocks = gene_blocks(models[0].n_genes, models[0].sizes.size, block_size)
    arguments = (
        ([stats.genes(block) for stats in models], spectra, tuple(coef_names), reml, estimates) for block in blocks
    )
    choices: dict[str, Any] = {"n_blocks": len(blocks), "n_jobs": n_jobs, "show_progress": show_progress}
    parts = for_blocks(_fit_block, arguments, **choices, doing="fitting")
    return [_concatenate(of_model) for of_model in zip(*parts, strict=True)]


def _fit_block(
    models: Sequence[SufficientStatistics],
    spectra: Sequence[Spectrum],
    names: tuple[str, ...],
    reml: bool,  # noqa: FBT001 - joblib passes by position
    estimates: bool,  # noqa: FBT001
) -> list[Fit]:
    return [
        _fit_one(stats, spectrum, names, reml=reml, estimates=estimates)
        for stats, spectrum in zip(models, spectra, strict=True)
    ]


def _fit_one(
    stats: SufficientStatistics, spectrum: Spectrum, names: tuple[str, ...], *, reml: bool, estimates: bool
) -> Fit:
    objective = profile(stats, spectrum)
    found = minimise(objective.eta2, objective.rss_0, spectrum.shared)
    degenerate = _degenerate(stats, objective)
    status = np.where(degenerate == OK, _STATUS_OF[found.outcome], degenerate)
    rho, sigma2, deviance = (
        np.where(status <= BOUNDARY, values, np.nan)
        for values in (found.rho, found.rss / spectrum.dof, found.value + spectrum.offset)
    )
    beta, vcov = _estimates(stats, rho, sigma2) if estimates else (np.empty((rho.size, 0)), np.empty((rho.size, 0, 0)))
    return Fit(names, beta, vcov, sigma2, deviance, status, reml, rho)


def _estimates(stats: SufficientStatistics, rho: Array, sigma2: Array) -> tuple[Array, Array]:
    beta, unscaled = coefficients(stats, rho)
    return beta, sigma2[:, None, None] * unscaled


def _degenerate(stats: SufficientStatistics, objective: Profile) -> NDArray[np.int8]:
    """Genes without variation, or without any that the fixed effects or the donors do not explain exactly."""
    explained = np.flatnonzero(objective.rss_0 <= ROUNDING * stats.with_shift(np.zeros(stats.n_genes)).yty)
    status = np.full(stats.n_genes, OK, dtype=np.int8)
    if explained.size:
        few = stats.genes(explained)
        constant = few.total_ss <= ROUNDING * (few.total_ss + few.n_cells * few.mean**2)
        status[explained] = np.where(constant, CONSTANT, FAILED)
    return status


def _concatenate(parts: Sequence[Fit]) -> Fit:
    names = ("beta", "vcov", "rho", "sigma2", "deviance", "status")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Fit(coef_names=parts[0].coef_names, reml=parts[0].reml, **arrays)
