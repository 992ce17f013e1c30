"""Populations of genes: how the variance ratio rho is distributed over them, and which of them change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats as distributions

from .calibration_simulate import Genes, standard_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .calibration_simulate import Cohort

    Array = NDArray[np.float64]

_FOUR = (0.0, 0.005, 0.05, 0.3)
_MEDIAN = 0.05  # of the heavy-tailed rho
_SHARE_CHANGED, _STRENGTH, _TYPICAL = 0.1, 4.0, 0.05  # effects are in standard errors at this rho


def _of_icc(icc: Array) -> Array:
    return icc / (1 - icc)


def _alike(icc: float) -> Callable[[np.random.Generator, Array], Array]:
    return lambda rng, mean: np.full(mean.size, _of_icc(np.array(icc)))


def _mixture(rng: np.random.Generator, mean: Array) -> Array:
    return _of_icc(rng.choice(_FOUR, mean.size))


def _log_normal(rng: np.random.Generator, mean: Array) -> Array:
    return _MEDIAN * np.exp(1.5 * rng.standard_normal(mean.size))


def _half_cauchy(rng: np.random.Generator, mean: Array) -> Array:
    return _MEDIAN * np.abs(rng.standard_cauchy(mean.size))


def _trend(rng: np.random.Generator, mean: Array) -> Array:
    """Log-normal about an ICC that rises from .005 to .3 with mean expression."""
    rank = (distributions.rankdata(mean) - 0.5) / mean.size
    low, high = np.log(_of_icc(np.array([0.005, 0.3])))
    return np.exp(low + (high - low) * rank + 0.7 * rng.standard_normal(mean.size))


# Name -> rho of genes with these means.
POPULATIONS: dict[str, Callable[[np.random.Generator, Array], Array]] = {
    **{f"ICC {icc:g}": _alike(icc) for icc in _FOUR},
    "mixture": _mixture,
    "log-normal": _log_normal,
    "half-Cauchy": _half_cauchy,
    "trend": _trend,
}


def population(cohort: Cohort, name: str, n_null: int, rng: np.random.Generator) -> Genes:
    """Genes with their own rho, residual variance (half of it following the mean) and mean, a tenth of them changed.

    These change by N(0, 4^2) standard errors of a gene of the same sigma and a rho of .05, whatever their own rho.
    """
    n_changed = round(n_null * _SHARE_CHANGED / (1 - _SHARE_CHANGED))
    size = n_null + n_changed
    mean = rng.uniform(0, 3, size)
    sigma = np.exp(0.3 * (mean - 1.5) + rng.normal(0, 0.15, size))
    rho = POPULATIONS[name](rng, mean)
    se = standard_error(cohort, np.array([_TYPICAL]))
    effect = np.zeros((len(se), size))
    effect[:, :n_changed] = _STRENGTH * se * sigma[:n_changed] * rng.standard_normal((len(se), n_changed))
    return Genes(rho, sigma, mean, effect)
