"""The random term itself: is its variance zero, and what are its values?

Restricted likelihood-ratio test with its exact null distribution. Under sigma_u = 0 the spectral coordinates are
standard normals, eta_k^2 ~ chi2(1) and rss_0 ~ chi2(nu), so the distribution depends on the design alone and one
simulation serves all genes (Crainiceanu & Ruppert 2004, theorem 1). The chi-square mixture that is often used instead
assumes many donors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
from scipy import stats as distributions

from .._model import BaseFit, Profile
from .tail import chi2_logsf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._model import Fit
    from .._statistics import SufficientStatistics

    Array = NDArray[np.float64]

AnyFit = TypeVar("AnyFit", bound=BaseFit)

_N_DRAWS = 100_000
_BLOCK = 10_000
# Beyond this quantile of the simulated distribution its tail is a scaled chi-square.
_TAIL = 0.99


@dataclass(frozen=True)
class VarianceTest:
    """Restricted likelihood ratio of the random term for G genes."""

    stat: Array  # (G,)
    log_pval: Array  # (G,)
    df: int = 1  # variance parameters that are tested


def variance_test(objective: Profile, fit: Fit, *, seed: int = 0, n_draws: int = _N_DRAWS) -> VarianceTest:
    """Test sigma_u = 0 for every gene from its restricted deviance `objective` and REML `fit`."""
    ratio = np.full(fit.rho.size, np.nan)
    sound = np.flatnonzero(fit.usable)
    if sound.size == 0:
        return VarianceTest(ratio, ratio)
    ratio[sound] = _ratio(objective.genes(sound), fit.rho[sound], fit.deviance[sound])
    return VarianceTest(ratio, log_tail(ratio, null_distribution(objective, seed=seed, n_draws=n_draws)))


def null_distribution(objective: Profile, *, seed: int, n_draws: int = _N_DRAWS) -> Array:
    """Draws of the restricted likelihood ratio under sigma_u = 0, sorted, (n_draws,)."""
    rng = np.random.default_rng(seed)
    model = objective.spectrum
    parts = []
    for start in range(0, n_draws, _BLOCK):
        size = min(_BLOCK, n_draws - start)
        eta2 = np.ascontiguousarray(rng.standard_normal((model.d.size, size)).T ** 2)
        draw = Profile(model, eta2, rng.chisquare(model.dof - model.d.size, size))
        parts.append(_ratio(draw, *draw.minimum()))
    return np.sort(np.concatenate(parts))


def _ratio(objective: Profile, rho: Array, deviance: Array) -> Array:
    """Fall of the deviance from rho = 0 to its minimum, where rho is as given; exactly 0 if that is at 0."""
    fall = objective.deviance(np.zeros(rho.size)) - deviance
    return np.where(rho == 0, 0.0, np.maximum(fall, 0.0))


def log_tail(ratio: Array, draws: Array) -> Array:
    """Share of draws at least as large; beyond the 99th percentile a chi-square(1) tail scaled to the draws' own."""
    share = (draws.size - np.searchsorted(draws, ratio, side="left")) / draws.size
    edge = float(np.quantile(draws, _TAIL))
    far = float(np.quantile(draws, 1 - (1 - _TAIL) / 10))
    # The scale for which the tail falls tenfold from `edge` to `far`, as the draws do.
    scale = _tail_scale(edge, far)
    beyond = np.log(1 - _TAIL) + chi2_logsf(ratio / scale, 1) - chi2_logsf(np.array(edge / scale), 1)
    with np.errstate(divide="ignore"):
        return np.where(np.isnan(ratio), np.nan, np.where(ratio > edge, beyond, np.log(share)))


def _tail_scale(edge: float, far: float) -> float:
    scales = np.geomspace(0.2, 5, 400)
    fall = chi2_logsf(far / scales, 1) - chi2_logsf(edge / scales, 1)
    return float(scales[np.argmin(np.abs(fall + np.log(10)))])


def random_effects(stats: SufficientStatistics, fit: Fit) -> tuple[Array, Array]:
    """Best linear unbiased predictions of the random intercepts and their conditional sd, each (G, q).

    b_j = rho n_j / (1 + rho n_j) (mean of y - X beta in level j), var(b_j | y) = sigma^2 rho / (1 + rho n_j).
    """
    n, rho = stats.sizes, fit.rho[:, None]
    mean_y = (stats.ZtY / n[:, None]).T + stats.shift[:, None]
    mean_x = (stats.ZtX / n[:, None]) @ stats.columns + stats.origin
    residual = mean_y - fit.beta @ mean_x.T
    return rho * n / (1 + rho * n) * residual, np.sqrt(fit.sigma2[:, None] * rho / (1 + rho * n))


def effect_table(effects: Array, sd: Array, conf_level: float, sizes: Array, index: pd.Index) -> pd.DataFrame:
    """Predictions of one gene with normal limits, a row per level."""
    width = distributions.norm.ppf((1 + conf_level) / 2) * sd
    columns = {"effect": effects, "sd": sd, "ci_low": effects - width, "ci_high": effects + width, "n_cells": sizes}
    return pd.DataFrame(columns, index=index)


def one_gene(fit: AnyFit, index: int) -> AnyFit:
    """Estimates of one gene."""
    per_gene = [name for name in ("beta", "vcov", "rho", "phi", "sigma2", "deviance", "status") if hasattr(fit, name)]
    return replace(fit, **{name: getattr(fit, name)[index : index + 1] for name in per_gene})
