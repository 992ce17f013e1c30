"""Power of the test of one coefficient: noncentral F where the variance ratio is known or judged by t, else simulation.

Everything is in units of the standard deviation of a cell: sigma_u^2 = ICC and sigma^2 = 1 - ICC, rho = ICC / (1 - ICC).
The estimate of L beta = effect at the true rho has the variance sigma^2 L A^-1 L', A = X'V^-1 X, and the ratio of full and
null model there is exactly F, so that with p coefficients and n cells

    power = P(F' > F_crit),   F' noncentral F on (1, n - p) with noncentrality effect^2 / (sigma^2 L A^-1 L')

This is the default test of a study whose genes tell all of rho. In m donors of n cells each, in two groups of m_1 and m_2
donors (or paired, half the cells of every donor in each group), the variance, and the degrees of freedom of the t, are

    (sigma_u^2 + sigma^2 / n) (1 / m_1 + 1 / m_2)      m - 2            between donors
    4 sigma^2 / (m n)                                  m n - m - 1      within donors

Any other test is simulated without cells: statistics of the design are drawn (see `calibration`), shifted by the effect,
and tested by the package's own code, with the prior that a pilot's genes have taught where there is one. A larger cohort
repeats the donors of the design.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

from .._design import Hypothesis
from .._errors import DesignError
from .._model import fit_models, profile, spectrum, support
from .._statistics import SufficientStatistics, null_model
from .calibration import calibrate, draw_parts
from .degrees_of_freedom import f_statistic
from .moderation import Moderation, at_support, moderated_test
from .tests import f_test, likelihood_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from .calibration import Calibration

    Array = NDArray[np.float64]

DEFAULT_ICC = 0.05  # a usual value for single cells, where one has to be chosen
LEARNED = "learned"  # for an ICC: each gene has its own, drawn from what a pilot's genes have taught

_RESAMPLES = 8  # cohorts drawn from the pilot where its donors cannot all be taken equally often
_MAX_ENTRIES = 2_000_000  # of Z'y held at once


class Power(NamedTuple):
    """Power and its Monte-Carlo standard error, (n_iccs, n_effects)."""

    power: Array
    error: Array


@dataclass(frozen=True)
class Simulation:
    """The test whose power is simulated, and how."""

    method: str
    alpha: float
    n_simulations: int
    seed: int
    moderation: Moderation | None = None  # for "lrt", with the ranks that genes can have; None for the calibrated ratio


def balanced_power(
    effect: ArrayLike,
    n_donors: ArrayLike,
    n_cells: ArrayLike,
    icc: ArrayLike,
    alpha: float,
    *,
    paired: bool,
    known: bool,
) -> Array:
    """Power of the test of two groups where rho is known, or else of the t test; the arguments broadcast."""
    effect, m, n, icc = (np.asarray(x, dtype=np.float64) for x in (effect, n_donors, n_cells, icc))
    first = np.floor(m / 2)
    between = (icc + (1 - icc) / n) * (1 / first + 1 / (m - first))
    variance, df = (4 * (1 - icc) / (m * n), m * n - m - 1) if paired else (between, m - 2)
    return _noncentral(effect**2 / variance, m * n - 2 if known else df, alpha)


def known_power(
    designs: list[SufficientStatistics], hypothesis: Hypothesis, effects: Array, iccs: Array, alpha: float
) -> Power:
    """Power where rho is known, averaged over several designs."""
    powers = []
    for stats in designs:
        points = support(stats, spectrum(stats, reml=True), iccs / (1 - iccs), hypothesis.L)
        variance = (1 - iccs) * points.unscaled[:, 0, 0]
        powers.append(_noncentral(effects**2 / variance[:, None], points.dof, alpha))
    several = len(powers) > 1
    error = np.std(powers, axis=0, ddof=1) / np.sqrt(len(powers)) if several else np.zeros_like(powers[0])
    return Power(np.mean(powers, axis=0), error)


def _noncentral(noncentrality: Array, df: ArrayLike, alpha: float) -> Array:
    """Share of noncentral F on (1, df) beyond the critical point of the central one."""
    critical = special.stdtrit(df, alpha / 2) ** 2
    power = 1 - special.ncfdtr(1.0, df, noncentrality, critical)
    # Beyond the range of ncfdtr the effect is so large that the power is 1.
    return np.where(np.isnan(power), 1.0, np.clip(power, 0.0, 1.0))


def balanced_statistics(n_donors: int, n_cells: int, *, paired: bool) -> tuple[SufficientStatistics, Hypothesis]:
    """Statistics of the balanced layout with columns (1, group), and the hypothesis that the groups are equal."""
    share = np.full(n_donors, 0.5) if paired else (np.arange(n_donors) >= n_donors // 2).astype(np.float64)
    sizes = np.full(n_donors, float(n_cells))
    n_second = float(sizes @ share)
    within = np.array([[0.0, np.sqrt(n_second - sizes @ share**2)]])[: int(paired)]
    stats = SufficientStatistics(
        sizes=sizes,
        ZtX=np.column_stack([sizes, sizes * share]),
        DtX=within,
        ZtY=np.zeros((n_donors, 1)),
        DtY=np.zeros((len(within), 1)),
        rest=np.zeros(1),
        nonzero=np.zeros(1, dtype=np.int64),
        shift=np.zeros(1),
        basis=np.eye(2),
        columns=np.eye(2),
        origin=np.zeros(2),
    )
    return stats.restrict(np.eye(2)), Hypothesis("group", np.array([[0.0, 1.0]]))


def cohorts(
    stats: SufficientStatistics, hypothesis: Hypothesis, n_donors: int, n_cells: float | None, seed: int
) -> list[SufficientStatistics]:
    """Designs of `n_donors` made of the donors of `stats`, with `n_cells` per donor on average (None: as they are).

    Donors are taken equally often within each group of the tested columns, the groups keeping their shares; where
    that leaves a remainder, it is drawn at random in several cohorts.
    """
    groups = _groups(stats, hypothesis)
    shares = _apportion(np.bincount(groups), n_donors)
    even = bool((shares % np.bincount(groups) == 0).all())
    rng = np.random.default_rng(seed)
    chosen = [_draw_donors(groups, shares, rng) for _ in range(1 if even else _RESAMPLES)]
    made = [_cohort(stats, donors, n_cells) for donors in chosen if donors.size == n_donors]
    return [cohort for cohort in made if cohort is not None and n_donors > cohort.is_constant.sum()]


def simulated_power(
    designs: list[SufficientStatistics],
    hypothesis: Hypothesis,
    effects: Array,
    iccs: Sequence[float | str],
    how: Simulation,
) -> Power:
    """Share of genes rejected, by simulation of several designs in equal parts; an ICC may be ``LEARNED``."""
    n_simulations, seed = how.n_simulations, how.seed
    parts = [len(part) for part in np.array_split(np.arange(n_simulations), len(designs))]
    rejected = np.zeros((len(iccs), effects.size))
    for k, (stats, n_genes) in enumerate(zip(designs, parts, strict=True)):
        donors, cells = draw_parts(stats, n_genes, np.random.default_rng([seed, k, 1]))
        knowledge, deltas = _knowledge(stats, hypothesis, how, n_genes), _shifts(stats, hypothesis, effects)
        for i, value in enumerate(iccs):
            icc = _draw_iccs(value, knowledge, n_genes, np.random.default_rng([seed, k, 2]))
            for block in np.array_split(np.arange(effects.size), -(-effects.size * donors.ZtY.size // _MAX_ENTRIES)):
                genes = _combine(donors, cells, icc, deltas[:, block])
                log_p = _log_pvals(genes, hypothesis, how.method, knowledge)
                rejected[i, block] += (log_p.reshape(block.size, n_genes) < np.log(how.alpha)).sum(axis=1)
    share = rejected / n_simulations
    return Power(share, np.sqrt(share * (1 - share) / n_simulations))


def _knowledge(
    stats: SufficientStatistics, hypothesis: Hypothesis, how: Simulation, n_genes: int
) -> Moderation | Calibration | None:
    """What a likelihood ratio is judged with; the ranks of simulated genes are spread over those there can be."""
    if how.moderation is None:
        return calibrate(stats, hypothesis, seed=how.seed) if how.method == "lrt" else None
    return replace(how.moderation, rank=np.quantile(how.moderation.rank, (np.arange(n_genes) + 0.5) / n_genes))


def _draw_iccs(
    icc: float | str, knowledge: Moderation | Calibration | None, n_genes: int, rng: np.random.Generator
) -> Array:
    """ICC of each simulated gene."""
    if not isinstance(knowledge, Moderation) or icc != LEARNED:
        return np.full(n_genes, float(icc))
    passed = knowledge.prior.at(knowledge.rank).cumsum(axis=1)[:, :-1] < rng.random((n_genes, 1))
    rho = knowledge.rho[passed.sum(axis=1)]
    return rho / (1 + rho)


def _combine(
    donors: SufficientStatistics, cells: SufficientStatistics, icc: Array, deltas: Array
) -> SufficientStatistics:
    """Statistics of sqrt(icc) u + sqrt(1 - icc) e + X delta for each of the columns of `deltas` in turn."""
    a, b = np.sqrt(icc), np.sqrt(1 - icc)
    ZtY, DtY = (a * getattr(donors, name) + b * getattr(cells, name) for name in ("ZtY", "DtY"))
    rest = np.tile(b**2 * cells.rest, deltas.shape[1])
    return replace(
        cells,
        ZtY=(ZtY[:, None, :] + (cells.ZtX @ deltas)[:, :, None]).reshape(len(ZtY), rest.size),
        DtY=(DtY[:, None, :] + (cells.DtX @ deltas)[:, :, None]).reshape(len(DtY), rest.size),
        rest=rest,
        nonzero=np.full(rest.size, cells.n_cells),
        shift=np.zeros(rest.size),
    )


def _shifts(stats: SufficientStatistics, hypothesis: Hypothesis, effects: Array) -> Array:
    """Coefficients of the standardised columns with L beta = effect, (p, n_effects); the rest are free in both models."""
    return np.linalg.pinv(hypothesis.L @ stats.basis) * effects


def _log_pvals(
    genes: SufficientStatistics, hypothesis: Hypothesis, method: str, knowledge: Moderation | Calibration | None
) -> Array:
    names = [""] * genes.basis.shape[0]
    if knowledge is None:
        (fit,) = fit_models([genes], names, reml=True, show_progress=False)
        objective = profile(genes, spectrum(genes, reml=True))
        result = f_statistic(genes, objective, fit, hypothesis.L, method)
        return f_test(result, fit, hypothesis, method).log_pval
    if isinstance(knowledge, Moderation):
        objective = profile(genes, spectrum(genes, reml=True))
        of_all = replace(knowledge, rank=np.resize(knowledge.rank, genes.n_genes))
        return moderated_test(
            at_support(genes, objective, of_all, hypothesis.L), of_all, conf_level=None, show_progress=False
        ).log_pval
    null = null_model(genes, hypothesis)
    full_fit, null_fit = fit_models([genes, null], names, show_progress=False)
    (restricted,) = fit_models([null], names, reml=True, show_progress=False)
    factor = knowledge.at(np.nan_to_num(restricted.rho))
    return likelihood_ratio(full_fit, null_fit, hypothesis, factor).log_pval


def _groups(stats: SufficientStatistics, hypothesis: Hypothesis) -> NDArray[np.int64]:
    """Group of each donor: equal donor means of the tested columns, or one group if these differ throughout."""
    means = (stats.ZtX / stats.sizes[:, None]) @ stats.directions
    tested = np.abs(hypothesis.L).max(axis=0) > 0
    values, groups = np.unique(np.round(means[:, tested], 8), axis=0, return_inverse=True)
    return np.zeros(stats.sizes.size, dtype=np.int64) if len(values) > stats.sizes.size / 2 else groups.ravel()


def _apportion(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Split `total` donors in the proportions of `counts` by largest remainders, at least one each."""
    exact = counts / counts.sum() * total
    shares = np.maximum(np.floor(exact).astype(np.int64), 1)
    for k in np.argsort(shares - exact, kind="stable")[: max(total - shares.sum(), 0)]:
        shares[k] += 1
    while shares.sum() > total and shares.max() > 1:
        shares[shares.argmax()] -= 1
    return shares


def _draw_donors(groups: NDArray[np.int64], shares: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    drawn = []
    for group, share in enumerate(shares):
        members = np.flatnonzero(groups == group)
        rounds = [rng.permutation(members) for _ in range(-(-int(share) // members.size))]
        drawn.append(np.concatenate(rounds)[:share])
    return np.concatenate(drawn)


def _cohort(
    stats: SufficientStatistics, donors: NDArray[np.int64], n_cells: float | None
) -> SufficientStatistics | None:
    """Design of these donors with `n_cells` on average (None: as they are), None if it cannot tell all coefficients.

    The donors keep their means and shares; products within donors are taken to be like those of all.
    """
    means = (stats.ZtX / stats.sizes[:, None])[donors]
    sizes = stats.sizes[donors]
    if n_cells is not None:
        sizes = np.maximum(np.round(sizes * n_cells / sizes.mean()), 1.0)
    more = (sizes.sum() - sizes.size) / (stats.n_cells - stats.sizes.size)
    try:
        return stats.with_design(sizes, sizes[:, None] * means, stats.DtX * np.sqrt(more))
    except DesignError:
        return None
