"""Likelihood ratios under several random terms, judged by simulated genes.

In the coordinates of the statistics a gene under a null hypothesis is sum_g Z_g b_g + e, and its fit takes microseconds, so
that null distributions are found by fitting: the mean of the ratio of fixed effects, which calibrates it (Bartlett's
correction), as a smooth function of the variances; and the restricted ratio of one random term given the others, at
variances of these near the gene's own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import DesignError
from .._model import fit_terms, point_table, structure
from .._statistics import null_model
from .random_effect import VarianceTest, log_tail
from .term_moderation import logs_of, support_points

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Hypothesis, RandomSpec
    from .._model import TermFit
    from .._statistics import SufficientStatistics
    from .base_estimates import Workers

    Array = NDArray[np.float64]

_FACTOR_POINTS, _FACTOR_DRAWS = 40, 800
_TEST_POINTS, _TEST_DRAWS = 8, 4_000


def ratio_factor(
    stats: SufficientStatistics, hypothesis: Hypothesis, null: TermFit, seed: int, workers: Workers
) -> Array:
    """Mean of the ratio over its degrees of freedom at each gene's variances, (G,), from restricted null fits."""
    design, rng = structure(stats.genes(slice(0, 1))), np.random.default_rng(seed)
    points = support_points(null, design.units, most=_FACTOR_POINTS, inflated=(1.0,))
    draws = _concatenated([draw_genes(stats, null, phi, _FACTOR_DRAWS, rng) for phi in points])
    full, restricted = fit_terms([draws, null_model(draws, hypothesis)], (), **workers.choices)
    ratio = np.maximum(restricted.deviance - full.deviance, 0.0).reshape(len(points), -1)
    means = np.nanmean(ratio, axis=1) / hypothesis.df
    at_points, at_genes = (_polynomial(logs_of(null.groupings, design.units, phi)) for phi in (points, null.phi))
    width = at_points.shape[1] if len(points) > at_points.shape[1] else 1
    slopes, *_ = np.linalg.lstsq(at_points[:, :width], means, rcond=None)
    return np.clip(at_genes[:, :width] @ slopes, means.min(), means.max())


def term_variance_test(
    stats: SufficientStatistics, full: TermFit, term: RandomSpec, seed: int, workers: Workers
) -> VarianceTest:
    """Restricted ratio of a random term given the others."""
    reduced = without_term(stats, term)
    rng = np.random.default_rng(seed)
    parameters = full.phi.shape[1] - sum(len(g.pairs) for g in reduced.groupings)
    null = fit_terms([reduced], (), reml=True, **workers.choices)[0] if reduced.groupings else None
    ratio = _fall(stats, reduced, full, null)
    if null is None:
        draws = draw_genes(stats, full, np.zeros(full.phi.shape[1]), 4 * _TEST_DRAWS, rng)
        return VarianceTest(ratio, log_tail(ratio, _simulated(draws, reduced, workers)), parameters)
    units = structure(reduced.genes(slice(0, 1))).units
    points = support_points(null, units, most=_TEST_POINTS, inflated=(1.0,))
    places, log_p = (logs_of(null.groupings, units, phi) for phi in (points, null.phi)), np.full(ratio.size, np.nan)
    at_points, at_genes = places
    nearest = ((at_genes[:, None, :] - at_points) ** 2).sum(axis=2).argmin(axis=1)
    for k, phi in enumerate(points):
        genes = np.flatnonzero((nearest == k) & ~np.isnan(ratio))
        if genes.size:
            draws = draw_genes(reduced, null, phi, _TEST_DRAWS, rng)
            draws = replace(draws, groupings=stats.groupings)
            log_p[genes] = log_tail(ratio[genes], _simulated(draws, reduced, workers))
    return VarianceTest(ratio, log_p, parameters)


def draw_genes(
    stats: SufficientStatistics, fit: TermFit, phi: Array, n_draws: int, rng: np.random.Generator
) -> SufficientStatistics:
    """Genes with beta = 0, sigma = 1 and the covariances of `phi` (k,), entries in the order of the fit's groupings."""
    K, w = stats.coordinates_X.shape[0], len(stats.DtX)
    y = rng.standard_normal((K, n_draws))
    one = replace(fit, phi=phi[None, :])
    for grouping in fit.groupings:
        values, vectors = np.linalg.eigh(one.gamma(grouping)[0])
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        u = rng.standard_normal((grouping.n_levels, grouping.r, n_draws))
        y += grouping.coordinates.matrix @ np.einsum("ab,jbg->jag", root, u).reshape(-1, n_draws)
    rest = rng.chisquare(stats.rest_df, n_draws)
    return replace(
        stats,
        DtY=y[:w],
        ZtY=np.sqrt(stats.sizes)[:, None] * y[w:],
        rest=rest,
        nonzero=np.full(n_draws, stats.n_cells),
        shift=np.zeros(n_draws),
    )


def without_term(stats: SufficientStatistics, term: RandomSpec) -> SufficientStatistics:
    """Statistics of the model without a random term."""
    groupings = list(stats.groupings)
    place = next(k for k, g in enumerate(groupings) if g.name == term.grouping)
    grouping = groupings[place]
    terms = grouping.terms
    k = terms.index(str(term)) if str(term) in terms else -1
    if k < 0:
        msg = f"{term} cannot be tested on its own. The random terms on {term.grouping} are {', '.join(terms)}."
        raise DesignError(msg)
    left = grouping.without_term(k)
    groupings[place : place + 1] = [] if left is None else [left]
    return replace(stats, groupings=tuple(groupings))


def _simulated(draws: SufficientStatistics, reduced: SufficientStatistics, workers: Workers) -> Array:
    """Sorted restricted ratios of drawn genes."""
    (full,) = fit_terms([draws], (), reml=True, **workers.choices)
    null = replace(draws, groupings=reduced.groupings)
    fit = fit_terms([null], (), reml=True, **workers.choices)[0] if reduced.groupings else None
    ratio = _fall(draws, null, full, fit)
    return np.sort(ratio[~np.isnan(ratio)])


def _fall(stats: SufficientStatistics, reduced: SufficientStatistics, full: TermFit, null: TermFit | None) -> Array:
    """Fall of the restricted deviance by a term, (G,)."""
    if null is not None:
        deviance = null.deviance
    else:
        table = point_table(structure(stats), np.zeros((1, full.phi.shape[1])))
        deviance = table.deviance(table.own(stats).rss, reml=True)[:, 0] - reduced.log_weights
    fall = np.maximum(deviance - full.deviance, 0.0)
    return np.where(fall < 1e-8, 0.0, fall)


def _concatenated(parts: list[SufficientStatistics]) -> SufficientStatistics:
    names = ("ZtY", "DtY", "rest", "nonzero", "shift")
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names}
    return replace(parts[0], **arrays)


def _polynomial(logs: Array) -> Array:
    """Columns of a polynomial of second degree, the constant first."""
    k = logs.shape[1]
    i, j = np.triu_indices(k)
    return np.concatenate([np.ones((len(logs), 1)), logs, logs[:, i] * logs[:, j]], axis=1)
