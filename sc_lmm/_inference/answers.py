"""Estimates and a hypothesis -> Answer: the test that was chosen, and the limits of its coefficient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .effects import Effects, shrink_effects
from .prior import ENOUGH_GENES, FEWEST_GENES
from .tail import chi2_log_isf
from .tests import Test, check_choices, f_test, likelihood_ratio, moderate_ratio, squeezed, t_interval, unusable_as_nan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Hypothesis, RandomSpec
    from .._model import BaseFit
    from .base_estimates import BaseEstimates

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Choices:
    """How a question is to be answered; see :func:`sc_lmm.tl.lmm_de`."""

    method: str = "lrt"
    calibrate: bool = True
    moderate: bool | None = None
    conf_level: float | None = 0.95
    corr_method: str = "benjamini-hochberg"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what does not exist or does not go together."""
        check_choices(self.method, self.corr_method, conf_level=self.conf_level, seed=self.seed)


@dataclass(frozen=True)
class Answer:
    """One comparison: its test, the limits of its coefficient, and the estimates that it was made from."""

    test: Test
    ci_low: Array  # (G,) NaN for several degrees of freedom
    ci_high: Array  # (G,)
    effects: Effects  # NaN for several degrees of freedom and where too few genes tell their distribution
    fit: BaseFit


def answer(estimates: BaseEstimates[Any], hypothesis: Hypothesis, choices: Choices) -> Answer:
    """Test a hypothesis about fixed effects in every gene, with confidence limits."""
    if choices.method != "lrt":
        test = _f_test(estimates, hypothesis, choices)
        limits = None if choices.conf_level is None else t_interval(test, choices.conf_level)
        return _complete(estimates, test, limits, hypothesis, estimates.reml)
    if is_moderated(estimates, choices):
        return _moderated(estimates, hypothesis, choices)
    test = _ratio(estimates, hypothesis, choices)
    limits = None
    if hypothesis.df == 1 and choices.conf_level is not None:
        limits = estimates.ratio_limits(hypothesis, choices.conf_level, test.factor)
    return _complete(estimates, test, limits, hypothesis, estimates.ml)


def is_moderated(estimates: BaseEstimates[Any], choices: Choices) -> bool:
    """Whether the answer uses what all genes say of the variances of one.

    A likelihood ratio does unasked where enough genes tell, unless a plain chi-square was asked for. A t or F does if
    asked to.
    """
    if choices.method != "lrt" or choices.moderate is False:
        return bool(choices.moderate)
    n_genes = int(estimates.ml.usable.sum())
    if choices.moderate and n_genes < FEWEST_GENES:
        msg = (
            f"moderate=True learns from all genes how much donors differ, and needs at least {FEWEST_GENES} genes that "
            f"can be fitted; there are {n_genes}. Test more genes together, or leave moderate out."
        )
        raise ValueError(msg)
    return bool(choices.moderate) or (choices.calibrate and n_genes >= ENOUGH_GENES)


def _f_test(estimates: BaseEstimates[Any], hypothesis: Hypothesis, choices: Choices) -> Test:
    result = estimates.with_df(hypothesis.L, choices.method)
    if choices.moderate:
        result = squeezed(result, estimates.stats)
    return unusable_as_nan(f_test(result, estimates.reml, hypothesis, choices.method), estimates.reml)


def _ratio(estimates: BaseEstimates[Any], hypothesis: Hypothesis, choices: Choices) -> Test:
    null = estimates.under(hypothesis)
    factor = np.ones(estimates.stats.n_genes)
    if choices.calibrate:
        factor = estimates.ratio_factor(hypothesis, choices.seed)
    return likelihood_ratio(estimates.ml, null.ml, hypothesis, factor)


def _moderated(estimates: BaseEstimates[Any], hypothesis: Hypothesis, choices: Choices) -> Answer:
    found = estimates.moderated(hypothesis.L, choices.conf_level)
    ratio = likelihood_ratio(estimates.ml, estimates.under(hypothesis).ml, hypothesis)
    test, limits = moderate_ratio(ratio, found, hypothesis), (found.ci_low, found.ci_high)
    return _complete(estimates, test, limits, hypothesis, estimates.ml)


def _complete(
    estimates: BaseEstimates[Any], test: Test, limits: tuple[Array, Array] | None, hypothesis: Hypothesis, fit: BaseFit
) -> Answer:
    """Limits where there are any and the gene was tested, and the effects under their common distribution."""
    nothing = np.full(test.stat.size, np.nan)
    if hypothesis.df > 1:
        return Answer(test, nothing, nothing, Effects(nothing, nothing), fit)
    low, high = (np.where(np.isnan(test.stat), np.nan, limit) for limit in (limits or (nothing, nothing)))
    enough = np.count_nonzero(~np.isnan(test.log_pval)) >= ENOUGH_GENES
    score = test.scores if test.method == "lrt" else np.sign(test.coef) * np.sqrt(chi2_log_isf(test.log_pval, 1))
    unit = estimates.stats.root_mean_square
    effects = shrink_effects(test.coef, score, unit) if enough else Effects(nothing, nothing)
    return Answer(test, low, high, effects, fit)


def answer_variance(estimates: BaseEstimates[Any], term: RandomSpec, seed: int) -> Answer:
    """Test whether a random term has no variance."""
    fit, result = estimates.reml, estimates.variance_test(term, seed)
    nothing = np.full(fit.sigma2.size, np.nan)
    test = Test(
        name=str(term),
        method="rlrt",
        coef=nothing,
        se=nothing,
        stat=result.stat,
        df=np.where(np.isnan(result.stat), np.nan, float(result.df)),
        log_pval=result.log_pval,
        log_pval_chi2=nothing,
        factor=np.ones(fit.sigma2.size),
        loglik_null=fit.loglik - result.stat / 2,
        evidence=result.stat,
        icc_moderated=nothing,
    )
    return Answer(test, nothing, nothing, Effects(nothing, nothing), fit)
