"""Dispersions and a hypothesis -> CountAnswer: the likelihood ratio at known dispersion, averaged over what it can be.

At a known dispersion phi_k the ratio of full and null model, divided by Bartlett's factor, is chi-square to second order:

    p_g  = sum_k w_gk P(chi2_df > ratio_gk / factor_gk)
    coef, se, limits: those of the mixture over k of N(L beta_gk, L I_gk^-1 L'), w_gk the posterior weights

A gene's own dispersion, where nothing is learned from others, is one point, known as badly as q - p degrees of freedom tell:
there the ratio is referred to F(df, q - p), which is about exact where counts are many and cautious where they are few.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import special

from .._blas import one_blas_thread
from .._model import contrast_variances, corrected_ratios, for_blocks, gene_blocks, log_likelihoods
from .averaged import normal_mixture
from .dispersion import Dispersions, Workers
from .effects import Effects, shrink_effects
from .prior import ENOUGH_GENES
from .tail import chi2_log_isf, chi2_logsf, f_logsf
from .tests import Test

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Hypothesis
    from .._statistics import CountStatistics

    Array = NDArray[np.float64]

# Points of less weight are passed over, unless the p-value is so small that they could change it by 1 in 10,000.
LITTLE, _SMALL = 1e-7, np.log(0.03)


@dataclass(frozen=True)
class CountAnswer:
    """One comparison of G genes."""

    test: Test
    ci_low: Array  # (G,) NaN for several degrees of freedom
    ci_high: Array  # (G,)
    effects: Effects  # NaN for several degrees of freedom and where too few genes tell their distribution
    loglik: Array  # (G,) of the full model at the point of largest weight, as the ratio and the null model's


def answer_counts(
    counts: CountStatistics,
    found: Dispersions,
    hypothesis: Hypothesis,
    *,
    conf_level: float | None,
    workers: Workers = Workers(),
) -> CountAnswer:
    """Test L beta = 0 in every gene."""
    with one_blas_thread():
        null = counts.restrict(hypothesis.L)
    blocks = gene_blocks(counts.n_genes, counts.sizes.size + 4 * found.weights.shape[1])
    arguments = (
        (counts.genes(block), replace(null, sums=counts.sums[block]), found.genes(block), hypothesis, conf_level)
        for block in blocks
    )
    how: dict[str, Any] = {"n_blocks": len(blocks), "n_jobs": workers.n_jobs, "show_progress": workers.show_progress}
    columns = (
        np.concatenate(part) for part in zip(*for_blocks(_test_block, arguments, **how, doing="testing"), strict=True)
    )
    found_or_nan = _Columns(*(np.where(found.usable, column, np.nan) for column in columns))
    test = _test(hypothesis, found_or_nan)
    return CountAnswer(test, found_or_nan.ci_low, found_or_nan.ci_high, _effects(test), found_or_nan.loglik)


class _Columns(NamedTuple):
    """What a test finds in G genes, each (G,)."""

    log_pval: Array
    ratio: Array  # at the point of largest weight
    factor: Array  # there
    loglik: Array
    coef: Array
    se: Array
    ci_low: Array
    ci_high: Array


def _test_block(
    counts: CountStatistics, null: CountStatistics, found: Dispersions, hypothesis: Hypothesis, conf_level: float | None
) -> _Columns:
    likeliest = found.weights.argmax(axis=1)
    ratio, factor, log_pval = _average(counts, null, found, hypothesis.df)
    at = (np.arange(counts.n_genes), likeliest)
    estimates = _estimates(counts, found, hypothesis, conf_level)
    loglik = log_likelihoods(counts, found.points, likeliest)
    return _Columns(log_pval, ratio[at], factor[at], loglik, *estimates)


def _average(counts: CountStatistics, null: CountStatistics, found: Dispersions, df: int) -> tuple[Array, Array, Array]:
    """Ratios and factors (G, K), and the averaged log p-value (G,), with every point where it could count."""
    wanted = found.weights > LITTLE
    ratio, factor = corrected_ratios(counts, null, found.points, wanted)
    log_pval = _log_pvals(ratio / factor, wanted, found, df)
    few = np.flatnonzero((log_pval < _SMALL) & ~wanted.all(axis=1))
    if few.size:
        some, all_points = found.genes(few), np.ones((few.size, wanted.shape[1]), dtype=bool)
        given = (counts.genes(few), replace(null, sums=null.sums[few]), some.points, all_points)
        ratio[few], factor[few] = corrected_ratios(*given)
        log_pval[few] = _log_pvals(ratio[few] / factor[few], all_points, some, df)
    return ratio, factor, log_pval


def _log_pvals(ratio: Array, wanted: NDArray[np.bool_], found: Dispersions, df: int) -> Array:
    if found.is_own:
        return np.asarray(f_logsf(ratio[:, 0] / df, df, np.full(len(ratio), float(found.dof))))
    joint = found.points.loglik + np.log(found.prior)
    log_tails = np.where(wanted, chi2_logsf(ratio, df), -np.inf)
    summed = special.logsumexp(joint + log_tails, axis=1) - special.logsumexp(joint, axis=1)
    return np.minimum(summed, 0.0)


def _estimates(
    counts: CountStatistics, found: Dispersions, hypothesis: Hypothesis, conf_level: float | None
) -> tuple[Array, Array, Array, Array]:
    """Estimate, standard error and limits of L beta for one degree of freedom, each (G,), else NaN."""
    if hypothesis.df > 1:
        nothing = np.full(counts.n_genes, np.nan)
        return nothing, nothing, nothing, nothing
    row = hypothesis.L[0] @ counts.basis
    variance = contrast_variances(counts, found.points, row, found.weights > LITTLE)
    _, coef, se, low, high = normal_mixture(found.points.beta @ row, variance, found.weights, conf_level=conf_level)
    return coef, se, low, high


def _test(hypothesis: Hypothesis, found: _Columns) -> Test:
    nothing = np.full(found.ratio.size, np.nan)
    with np.errstate(divide="ignore"):
        evidence = chi2_log_isf(found.log_pval, hypothesis.df)
    return Test(
        name=hypothesis.name,
        method="lrt",
        coef=found.coef,
        se=found.se,
        stat=found.ratio,
        df=np.where(np.isnan(found.ratio), np.nan, float(hypothesis.df)),
        log_pval=found.log_pval,
        log_pval_chi2=chi2_logsf(found.ratio, hypothesis.df),
        factor=found.factor,
        loglik_null=found.loglik - found.ratio / 2,
        evidence=evidence,
        icc_moderated=nothing,
    )


def _effects(test: Test) -> Effects:
    nothing = np.full(test.stat.size, np.nan)
    enough = np.count_nonzero(~np.isnan(test.coef)) >= ENOUGH_GENES
    return shrink_effects(test.coef, test.scores, np.ones(test.coef.size)) if enough else Effects(nothing, nothing)
