"""Profile-likelihood confidence limits of one coefficient for every gene at once.

For L beta = c the model is the null model of y - c x_L, whose deviance, minimised over rho, is the profile D(c). Its
spectral coordinates are linear in c, so D(c) costs what a null fit costs. The limits solve

    D(c) = D(coef) + factor * chi2 quantile

by Newton steps in (c, log rho) together: in rho towards its minimum, in c on the signed root of the rise, which is nearly
linear in c. What they find is confirmed by a minimum over rho that is known to be global, or else bisected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import linalg
from scipy import stats as distributions

from .._blas import one_blas_thread
from .._compile import compiled
from .._model import (
    Profile,
    Spectrum,
    Terms,
    derivatives,
    evaluate,
    for_blocks,
    gene_blocks,
    profile,
    project,
    spectrum,
    within_projections,
)
from .._statistics import null_model
from .tests import contrast

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Hypothesis
    from .._model import Fit
    from .._statistics import SufficientStatistics

    Array = NDArray[np.float64]

_STEPS = 20
_BISECTIONS = 100
# Convergence is quadratic, so a step this small leaves an error of its square.
_TOLERANCE = 1e-5
# How far the rise may be from its goal, as a root.
_ROOT_TOLERANCE = 1e-7


@dataclass(frozen=True)
class _Line:
    """The null model of y - c x for every gene, as a function of c."""

    model: Spectrum
    eta_y: Array  # (G, r)
    eta_x: Array  # (r,)
    yy: Array  # (G,) residual products beside the null model's X and a free mean per level
    xy: Array  # (G,)
    xx: float

    def genes(self, index: slice | NDArray[np.int64]) -> _Line:
        return replace(self, eta_y=self.eta_y[index], yy=self.yy[index], xy=self.xy[index])

    def at(self, c: Array) -> Profile:
        rss_0 = self.yy - 2 * c * self.xy + c**2 * self.xx
        return Profile(self.model, (self.eta_y - c[:, None] * self.eta_x) ** 2, np.maximum(rss_0, 0.0))

    def derivatives(self, genes: NDArray[np.int64], c: Array, rho: Array) -> tuple[Array, ...]:
        """Deviance of the genes, and its derivatives: first and second in rho, first in c; (4, len(genes))."""
        out = np.empty((4, genes.size))
        _derivatives(genes, c, rho, self.eta_y, self.eta_x, self.yy, self.xy, self.xx, self.model.shared.terms, out)
        return out[0] + self.model.offset, out[1], out[2], out[3]


def profile_interval(
    stats: SufficientStatistics,
    full: Fit,
    hypothesis: Hypothesis,
    conf_level: float,
    factor: Array,
    *,
    n_jobs: int | None = None,
    show_progress: bool | None = None,
) -> tuple[Array, Array]:
    """Profile-likelihood limits of L beta, each (G,), NaN where there is no fit.

    `factor` is the calibration factor of the likelihood ratio, so that the interval leaves out 0 exactly when the
    calibrated test rejects.
    """
    coef, se = contrast(full, hypothesis)
    root = np.sqrt(factor * distributions.chi2.ppf(conf_level, 1))
    goal = _Goal(coef, full.rho, full.deviance, root, se)
    with one_blas_thread():
        column, null, xty = _column(stats, hypothesis)
    blocks = gene_blocks(stats.n_genes, stats.sizes.size)
    arguments = ((column, null.genes(block), xty[block], goal.genes(block)) for block in blocks)
    choices: dict[str, Any] = {"n_blocks": len(blocks), "n_jobs": n_jobs, "show_progress": show_progress}
    low, high = np.concatenate(for_blocks(_block_limits, arguments, **choices, doing="intervals"), axis=1)
    return low, high


class _Goal(NamedTuple):
    """What the limits of some genes start from and have to reach, each (G,)."""

    coef: Array
    rho: Array  # at the estimate
    deviance: Array  # at the estimate
    root: Array  # signed root of the rise in deviance at the limit
    se: Array  # negative for the lower limit

    def genes(self, index: slice | NDArray[np.int64]) -> _Goal:
        return _Goal(*(values[index] for values in self))


class _Column(NamedTuple):
    """The column x whose coefficient is L beta, beside the null model."""

    model: Spectrum  # of the null model
    level_sums: Array  # (q,)
    eta: Array  # (r,)
    within: Array  # (w,) its coordinates about the level means
    rss_0: float


def _column(stats: SufficientStatistics, hypothesis: Hypothesis) -> tuple[_Column, SufficientStatistics, Array]:
    """The column, the statistics of the null model, and x'y (G,)."""
    L = (hypothesis.L @ stats.basis)[0]
    direction = (L / (L @ L))[:, None]  # X direction is the column
    # Where the null model cannot absorb a constant the shift is undone, so y is taken from the restricted statistics.
    null = null_model(stats, hypothesis)
    unshifted = stats if null.shift is stats.shift else stats.with_shift(np.zeros(stats.n_genes))
    span = linalg.null_space(L[None, :])
    x = replace(
        null,
        XtY=span.T @ stats.XtX @ direction,
        ZtY=stats.ZtX @ direction,
        yty=(direction.T @ stats.XtX @ direction)[0],
        nonzero=np.zeros(1, dtype=np.int64),
        shift=np.zeros(1),
    )
    model = spectrum(null, reml=False)
    within, rss_0 = within_projections(x, model)[:, 0], float(profile(x, model).rss_0[0])
    return _Column(model, x.ZtY[:, 0], project(x, model)[0], within, rss_0), null, (direction.T @ unshifted.XtY)[0]


def _block_limits(x: _Column, null: SufficientStatistics, xty: Array, goal: _Goal) -> Array:
    """Lower and upper limits, (2, G)."""
    within_xy = xty - x.level_sums / null.sizes @ null.ZtY
    line = _Line(
        model=x.model,
        eta_y=project(null, x.model),
        eta_x=x.eta,
        yy=profile(null, x.model).rss_0,
        xy=within_xy - x.within @ within_projections(null, x.model),
        xx=x.rss_0,
    )
    limits = np.full((2, goal.coef.size), np.nan)
    sound = np.flatnonzero(~np.isnan(goal.coef))
    both = goal.genes(np.tile(sound, 2))
    both = both._replace(se=both.se * np.repeat([-1.0, 1.0], sound.size))
    limits[:, sound] = _limit(line, np.tile(sound, 2), both).reshape(2, -1)
    return limits


def _limit(line: _Line, genes: NDArray[np.int64], goal: _Goal) -> Array:
    c, rho = goal.coef + goal.root * goal.se, goal.rho.copy()
    active = np.arange(c.size)
    for _ in range(_STEPS):
        if active.size == 0:
            break
        rho[active], stretch = _step(line, genes[active], goal.genes(active), c[active], rho[active])
        c[active] = goal.coef[active] + (c[active] - goal.coef[active]) * stretch
        active = active[np.abs(stretch - 1) > _TOLERANCE]
    return _confirmed(line.genes(genes), goal, c)


def _step(line: _Line, genes: NDArray[np.int64], goal: _Goal, c: Array, rho: Array) -> tuple[Array, Array]:
    """Rho a step nearer to its minimum at c, and the factor by which the distance of c from the estimate has to change.

    The deviance that c is judged by is the one that the step in rho is about to reach.
    """
    deviance, first, second, slope = line.derivatives(genes, c, rho)
    scale = rho + line.model.unit
    first, second = first * scale, second * scale**2 + first * scale  # in log(rho + unit)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(second > 0, -first / second, -np.sign(first))
        following = np.maximum(scale * np.exp(np.clip(step, -2, 2)) - line.model.unit, 0.0)
        step = np.log((following + line.model.unit) / scale)
        rise = deviance + step * (first + step * second / 2) - goal.deviance
        root = np.sqrt(np.maximum(rise, 1e-12))
        stretch = 1 + (goal.root - root) * 2 * root / slope / (c - goal.coef)
    # Stay on the limit's side of the estimate, and within three times the distance reached.
    return following, np.clip(np.nan_to_num(stretch, nan=2.0), 0.3, 3.0)


def _confirmed(line: _Line, goal: _Goal, c: Array) -> Array:
    """`c` where the profile rises there as it should, else what bisection finds."""
    inside, outside = goal.coef.copy(), np.inf * goal.se
    active = np.arange(c.size)
    for _ in range(_BISECTIONS):
        here = line.genes(active)
        rise = here.at(c[active]).minimum()[1] - goal.deviance[active]
        excess = np.sqrt(np.maximum(rise, 0.0)) - goal.root[active]
        short = excess < 0
        inside[active] = np.where(short, c[active], inside[active])
        outside[active] = np.where(short, outside[active], c[active])
        active = active[np.abs(excess) > _ROOT_TOLERANCE * (1 + goal.root[active])]
        if active.size == 0:
            break
        bounded = np.isfinite(outside[active])
        middle = (inside[active] + np.where(bounded, outside[active], 0.0)) / 2
        c[active] = np.where(bounded, middle, 2 * c[active] - goal.coef[active])
    return c


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _derivatives(
    genes: NDArray[np.int64],
    c: Array,
    rho: Array,
    eta_y: Array,
    eta_x: Array,
    yy: Array,
    xy: Array,
    xx: float,
    terms: Terms,
    out: Array,  # (4, len(genes)) written
) -> None:
    e = np.empty(eta_x.size)
    for i in range(genes.size):
        g, product = genes[i], xy[genes[i]] - c[i] * xx
        for k in range(e.size):
            residual = eta_y[g, k] - c[i] * eta_x[k]
            e[k] = residual * residual
            product += eta_x[k] * residual / (1 + rho[i] * terms.d[k])
        rss_0 = yy[g] - 2 * c[i] * xy[g] + c[i] ** 2 * xx
        rss, out[0, i] = evaluate(rho[i], e, rss_0, terms)
        out[1, i], out[2, i] = derivatives(rho[i], e, rss_0, terms)
        out[3, i] = -2 * terms.dof * product / rss
