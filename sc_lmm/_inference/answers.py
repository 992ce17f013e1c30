"""Estimates and a hypothesis -> Answer: the test that was chosen, and the limits of its coefficient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .intervals import profile_interval
from .random_effect import variance_test
from .tests import Test, check_choices, f_test, likelihood_ratio, t_interval, unusable_as_nan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Hypothesis
    from .._model import Fit
    from .estimates import Estimates

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Choices:
    """How a question is to be answered; see :func:`sc_lmm.tl.lmm_de`."""

    method: str = "lrt"
    calibrate: bool = True
    moderate: bool = False
    conf_level: float | None = 0.95
    corr_method: str = "benjamini-hochberg"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what does not exist or does not go together."""
        check_choices(self.method, self.corr_method, moderate=self.moderate, conf_level=self.conf_level)


@dataclass(frozen=True)
class Answer:
    """One comparison: its test, the limits of its coefficient, and the estimates that it was made from."""

    test: Test
    ci_low: Array  # (G,) NaN for several degrees of freedom
    ci_high: Array  # (G,)
    fit: Fit


def answer(estimates: Estimates, hypothesis: Hypothesis, choices: Choices) -> Answer:
    """Test a hypothesis about fixed effects in every gene, with confidence limits."""
    test = test_of(estimates, hypothesis, choices)
    low, high = _limits(estimates, test, hypothesis, choices.conf_level)
    return Answer(test, low, high, estimates.ml if test.method == "lrt" else estimates.reml)


def test_of(estimates: Estimates, hypothesis: Hypothesis, choices: Choices) -> Test:
    """Test without limits."""
    if choices.method != "lrt":
        stats, fit = estimates.stats, estimates.reml
        test = f_test(stats, estimates.restricted, fit, hypothesis, choices.method, moderate=choices.moderate)
        return unusable_as_nan(test, fit)
    null = estimates.under(hypothesis)
    factor = np.ones(estimates.stats.n_genes)
    if choices.calibrate:  # at each gene's rho under the null model, estimated by REML
        factor = estimates.calibration(hypothesis, choices.seed).at(null.reml_rho)
    return likelihood_ratio(estimates.ml, null.ml, hypothesis, factor)


def answer_variance(estimates: Estimates, name: str, seed: int) -> Answer:
    """Test whether the variance of the random term is zero."""
    fit = estimates.reml
    result = variance_test(estimates.restricted, fit, seed=seed)
    nothing = np.full(fit.rho.size, np.nan)
    test = Test(
        name=name,
        method="rlrt",
        coef=nothing,
        se=nothing,
        stat=result.stat,
        df=np.where(np.isnan(result.stat), np.nan, 1.0),
        log_pval=result.log_pval,
        log_pval_chi2=nothing,
        factor=np.ones(fit.rho.size),
        loglik_null=fit.loglik - result.stat / 2,
    )
    return Answer(test, nothing, nothing, fit)


def _limits(estimates: Estimates, test: Test, hypothesis: Hypothesis, conf_level: float | None) -> tuple[Array, Array]:
    if hypothesis.df > 1 or conf_level is None:
        nothing = np.full(estimates.stats.n_genes, np.nan)
        return nothing, nothing
    if test.method != "lrt":
        return t_interval(test, conf_level)
    workers = estimates.workers
    return profile_interval(
        estimates.stats,
        estimates.ml,
        hypothesis,
        conf_level,
        test.factor,
        n_jobs=workers.n_jobs,
        show_progress=workers.show_progress,
    )
