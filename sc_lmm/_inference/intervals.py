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
    project,
    project_beside,
    spectrum,
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
    xx: float  # square of x beside the null model's X and a free mean per level, rss_0 = xx (c - centre)^2 + lowest
    centre: Array  # (G,)
    lowest: Array  # (G,)

    def genes(self, index: slice | NDArray[np.int64]) -> _Line:
        return replace(self, eta_y=self.eta_y[index], centre=self.centre[index], lowest=self.lowest[index])

    def at(self, c: Array) -> Profile:
        rss_0 = self.xx * (c - self.centre) ** 2 + self.lowest
        return Profile(self.model, (self.eta_y - c[:, None] * self.eta_x) ** 2, rss_0)

    def derivatives(self, genes: NDArray[np.int64], c: Array, rho: Array) -> tuple[Array, ...]:
        """Deviance of the genes, and its derivatives: first and second in rho, first in c; (4, len(genes))."""
        out = np.empty((4, genes.size))
        line = (self.eta_y, self.eta_x, self.xx, self.centre, self.lowest)
        _derivatives(genes, c, rho, *line, self.model.shared.terms, out)
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
        column, null = _column(stats, hypothesis)
    blocks = gene_blocks(stats.n_genes, stats.sizes.size)
    arguments = ((column, null.genes(block), goal.genes(block)) for block in blocks)
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

    def in_units(self, unit: Array, x: _Column) -> _Goal:
        """The same for y and the coefficient in their units."""
        deviance = self.deviance - 2 * x.model.dof * np.log(unit)
        return self._replace(coef=self.coef / unit / x.unit, se=self.se / unit / x.unit, deviance=deviance)


class _Column(NamedTuple):
    """The column x whose coefficient is L beta, beside the null model."""

    model: Spectrum  # of the null model
    eta: Array  # (r,)
    beside: Array  # (k,) its coordinates beside the null model and the levels
    unit: float  # the coefficient is L beta over this


def _column(stats: SufficientStatistics, hypothesis: Hypothesis) -> tuple[_Column, SufficientStatistics]:
    """The column and the statistics of the null model."""
    L = (hypothesis.L @ stats.basis)[0]
    unit = float(np.abs(L).max())
    direction = np.linalg.pinv(L[None, :] / unit)  # X direction is the column
    x = replace(
        stats,
        ZtY=stats.ZtX @ direction,
        DtY=stats.DtX @ direction,
        rest=np.zeros(1),
        nonzero=np.zeros(1, dtype=np.int64),
        shift=np.zeros(1),
    )
    null = null_model(stats, hypothesis)
    model = spectrum(null, reml=False)
    return _Column(model, project(x, model)[0], project_beside(x, model)[0], unit), null


def _block_limits(x: _Column, null: SufficientStatistics, goal: _Goal) -> Array:
    """Lower and upper limits, (2, G)."""
    line, unit = _line(x, null)
    sound = np.flatnonzero(~np.isnan(goal.coef))
    both = goal.genes(np.tile(sound, 2)).in_units(np.tile(unit[sound], 2), x)
    both = both._replace(se=both.se * np.repeat([-1.0, 1.0], sound.size))
    limits = np.full((2, goal.coef.size), np.nan)
    limits[:, sound] = _limit(line, np.tile(sound, 2), both).reshape(2, -1) * unit[sound] * x.unit
    return limits


def _line(x: _Column, null: SufficientStatistics) -> tuple[_Line, Array]:
    """The model of y - c x, and the units of each gene's y, (G,): powers of two, in which no square is too large."""
    eta, beside, xx = project(null, x.model), project_beside(null, x.model), float(x.beside @ x.beside)
    centre = beside @ x.beside / xx if xx > 0 else np.zeros(len(beside))
    lowest = null.rest + ((beside - centre[:, None] * x.beside) ** 2).sum(axis=1)
    unit = np.ldexp(1.0, np.frexp(lowest + (eta**2).sum(axis=1))[1] // 2)
    return _Line(x.model, eta / unit[:, None], x.eta, xx, centre / unit, lowest / unit**2), unit


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
    xx: float,
    centre: Array,
    lowest: Array,
    terms: Terms,
    out: Array,  # (4, len(genes)) written
) -> None:
    e = np.empty(eta_x.size)
    for i in range(genes.size):
        g, away = genes[i], c[i] - centre[genes[i]]
        product = -away * xx
        for k in range(e.size):
            residual = eta_y[g, k] - c[i] * eta_x[k]
            e[k] = residual * residual
            product += eta_x[k] * residual / (1 + rho[i] * terms.d[k])
        rss_0 = xx * away * away + lowest[g]
        rss, out[0, i] = evaluate(rho[i], e, rss_0, terms)
        out[1, i], out[2, i] = derivatives(rho[i], e, rss_0, terms)
        out[3, i] = -2 * terms.dof * product / rss
