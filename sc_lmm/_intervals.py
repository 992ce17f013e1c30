"""Profile-likelihood confidence limits of one coefficient for every gene at once.

For L beta = c the model is the null model of y - c x_L, whose deviance, minimised over rho, is the profile D(c). Its
spectral coordinates are linear in c, so D(c) costs what a null fit costs. The limits solve

    D(c) = D(coef) + factor * chi2 quantile

by secant steps in the signed root of D(c) - D(coef), which is nearly linear in c, inside a bracket.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import linalg
from scipy import stats as distributions
from threadpoolctl import threadpool_limits

from ._deviance import Profile, Spectrum, profile, project, spectrum, within_projections
from ._fit import minimise_deviance
from ._hypothesis import null_model
from ._inference import contrast

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._fit import Fit
    from ._hypothesis import Hypothesis
    from ._statistics import SufficientStatistics

    Array = NDArray[np.float64]

_STEPS = 15
_BISECTIONS = 60
_TOLERANCE = 1e-8
_BLOCK = 4096  # genes at a time, so that the arrays stay in cache


@dataclass(frozen=True)
class _Line:
    """The null model of y - c x for every gene, as a function of c."""

    model: Spectrum
    eta_y: Array  # (r, G)
    eta_x: Array  # (r, 1)
    yy: Array  # (G,) residual products beside the null model's X and a free mean per level
    xy: Array  # (G,)
    xx: float

    def genes(self, index: NDArray[np.int64]) -> _Line:
        return replace(self, eta_y=self.eta_y[:, index], yy=self.yy[index], xy=self.xy[index])

    def at(self, c: Array) -> Profile:
        rss_0 = self.yy - 2 * c * self.xy + c**2 * self.xx
        return Profile(self.model, (self.eta_y - c * self.eta_x) ** 2, np.maximum(rss_0, 0.0))

    def slope(self, c: Array, rho: Array) -> Array:
        """Derivative of the deviance in c at fixed rho; of the profile too where rho minimises it."""
        residual = self.eta_y - c * self.eta_x
        weighted = (self.eta_x * residual / (1 + rho * self.model.d[:, None])).sum(axis=0)
        return -2 * self.model.dof * (weighted + self.xy - c * self.xx) / self.at(c).rss(rho)


def profile_interval(
    stats: SufficientStatistics, full: Fit, hypothesis: Hypothesis, conf_level: float, factor: Array
) -> tuple[Array, Array]:
    """Profile-likelihood limits of L beta, each (G,), NaN where there is no fit.

    `factor` is the calibration factor of the likelihood ratio, so that the interval leaves out 0 exactly when the
    calibrated test rejects.
    """
    line = _line(stats, hypothesis)
    coef, se = contrast(full, hypothesis)
    height = factor * distributions.chi2.ppf(conf_level, 1)
    sound = np.flatnonzero(full.usable & (se > 0))
    limits = np.full((2, coef.size), np.nan)
    with threadpool_limits(1, user_api="blas"):
        for block in np.array_split(sound, -(-sound.size // _BLOCK) or 1):
            here, root = line.genes(block), np.sqrt(height[block])
            for side, sign in enumerate((-1.0, 1.0)):
                start = _Start(coef[block], full.rho[block], full.deviance[block], root, sign * se[block])
                limits[side, block] = _limit(here, start, stats.n_cells)
    return limits[0], limits[1]


class _Start(NamedTuple):
    """Per gene, where a limit is looked for."""

    coef: Array
    rho: Array
    deviance: Array  # at the estimate
    root: Array  # signed root of the rise in deviance that the limit has to reach
    se: Array  # negative for the lower limit

    def genes(self, index: NDArray[np.int64]) -> _Start:
        return _Start(*(values[index] for values in self))


def _line(stats: SufficientStatistics, hypothesis: Hypothesis) -> _Line:
    L = (hypothesis.L @ stats.basis)[0]
    direction = (L / (L @ L))[:, None]  # X direction is the column whose coefficient is L beta
    # Where the null model cannot absorb a constant the shift is undone, so y is taken from the restricted statistics.
    null = null_model(stats, hypothesis)
    span = linalg.null_space(L[None, :])
    column = replace(
        null,
        XtY=span.T @ stats.XtX @ direction,
        ZtY=stats.ZtX @ direction,
        yty=(direction.T @ stats.XtX @ direction)[0],
        nonzero=np.zeros(1, dtype=np.int64),
        shift=np.zeros(1),
    )
    model = spectrum(null, reml=False)
    xty = (direction.T @ stats.XtY)[0] if null.shift is stats.shift else _unshifted_product(stats, direction)
    left_y, left_x = within_projections(null), within_projections(column)
    within_xy = xty - (column.ZtY * null.ZtY / null.sizes[:, None]).sum(axis=0)
    return _Line(
        model=model,
        eta_y=project(null, model),
        eta_x=project(column, model),
        yy=profile(null, model).rss_0,
        xy=within_xy - (left_x * left_y).sum(axis=0),
        xx=float(profile(column, model).rss_0[0]),
    )


def _unshifted_product(stats: SufficientStatistics, direction: Array) -> Array:
    return (direction.T @ stats.with_shift(np.zeros(stats.n_genes)).XtY)[0]


def _limit(line: _Line, start: _Start, n_cells: int) -> Array:
    """Newton steps in the signed root, rho following; genes that do not settle are bisected with a global rho."""
    c, rho = start.coef + start.root * start.se, start.rho.copy()
    active = np.arange(c.size)
    for _ in range(_STEPS):
        if active.size == 0:
            break
        here, origin = line.genes(active), start.genes(active)
        rho[active], stretch = _step(here, origin, c[active], rho[active], n_cells)
        c[active] = origin.coef + (c[active] - origin.coef) * stretch
        active = active[np.abs(stretch - 1) > _TOLERANCE]
    # The rise is checked with a global minimum over rho, in case the local one that was followed is not it.
    rise = minimise_deviance(line.at(c), n_cells)[1] - start.deviance
    lost = np.flatnonzero(np.abs(np.sqrt(np.maximum(rise, 0.0)) - start.root) > 1e-6 * (1 + start.root))
    if lost.size:
        c[lost] = _bisect(line.genes(lost), start.genes(lost), n_cells)
    return c


def _step(line: _Line, start: _Start, c: Array, rho: Array, n_cells: int) -> tuple[Array, Array]:
    """Rho that follows to c, and the factor by which the distance of c from the estimate has to change."""
    objective = line.at(c)
    rho = _follow(objective, rho, n_cells)
    root = np.sqrt(np.maximum(objective.deviance(rho) - start.deviance, 1e-12))
    with np.errstate(divide="ignore", invalid="ignore"):
        step = (start.root - root) * 2 * root / line.slope(c, rho)
    # Stay on the limit's side of the estimate, and within three times the distance reached.
    return rho, np.clip(np.nan_to_num(1 + step / (c - start.coef), nan=2.0), 0.3, 3.0)


def _follow(objective: Profile, rho: Array, n_cells: int) -> Array:
    """Two Newton steps in log(rho + 1/mean size), bounded, towards the minimum over rho nearby."""
    unit = objective.spectrum.log_terms.size / n_cells
    for _ in range(2):
        gradient, curvature = objective.derivatives(rho)
        scale = rho + unit
        gradient, curvature = gradient * scale, curvature * scale**2 + gradient * scale
        step = np.where(curvature > 0, -gradient / np.maximum(curvature, 1e-300), -np.sign(gradient))
        rho = np.maximum(scale * np.exp(np.clip(step, -2, 2)) - unit, 0.0)
    return rho


def _bisect(line: _Line, start: _Start, n_cells: int) -> Array:
    def excess(c: Array) -> Array:
        return minimise_deviance(line.at(c), n_cells)[1] - start.deviance - start.root**2

    inside, outside = start.coef.copy(), start.coef + start.root * start.se
    for _ in range(40):
        short = excess(outside) < 0
        if not short.any():
            break
        inside, outside = np.where(short, outside, inside), np.where(short, 2 * outside - start.coef, outside)
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        short = excess(middle) < 0
        inside, outside = np.where(short, middle, inside), np.where(short, outside, middle)
    return (inside + outside) / 2
