"""Fits -> Test: likelihood ratio, t and F, their p-values in log space, and the adjustment for many genes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats as distributions
from statsmodels.stats.multitest import multipletests

from .._errors import alternatives
from .degrees_of_freedom import FTest
from .squeeze import squeeze
from .tail import chi2_log_isf, chi2_logsf, f_logsf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Hypothesis
    from .._model import BaseFit
    from .._statistics import SufficientStatistics
    from .moderation import Moderated

    Array = NDArray[np.float64]

CORRECTIONS = {"benjamini-hochberg": "fdr_bh", "bonferroni": "bonferroni"}
METHODS = ("lrt", "between-within", "satterthwaite", "kenward-roger", "wald")


@dataclass(frozen=True)
class Test:
    """One comparison for G genes; NaN where a gene could not be fitted."""

    name: str
    method: str
    coef: Array  # (G,) L beta for one df, NaN otherwise
    se: Array  # (G,)
    stat: Array  # (G,) chi-square for "lrt", F otherwise, before calibration
    df: Array  # (G,) degrees of freedom of the ratio, denominator degrees of freedom of an F
    log_pval: Array  # (G,) natural logarithm
    log_pval_chi2: Array  # (G,) of the chi-square distribution alone, as lme4 prints
    factor: Array  # (G,) what the ratio was divided by, 1 without calibration, NaN where p is not the ratio's
    loglik_null: Array  # (G,) NaN where no null model is fitted
    evidence: Array  # (G,) the statistic whose tail is the p-value
    icc_moderated: Array  # (G,) posterior mean, NaN without moderation

    @property
    def pval(self) -> Array:
        """P-values, (G,)."""
        return np.exp(self.log_pval)

    @property
    def scores(self) -> Array:
        """Signed root of the statistic for one df, the statistic otherwise, (G,)."""
        return np.where(np.isnan(self.coef), self.evidence, np.sign(self.coef) * np.sqrt(self.evidence))


def likelihood_ratio(full: BaseFit, null: BaseFit, hypothesis: Hypothesis, factor: Array | None = None) -> Test:
    """Likelihood-ratio test of the full against the null model, the ratio divided by its calibration factor.

    Both fits must be by maximum likelihood: restricted likelihoods of models with different fixed effects are of
    different data.
    """
    # The null model is inside the full one, so a negative ratio is rounding.
    ratio = np.where(full.usable & null.usable, np.maximum(null.deviance - full.deviance, 0.0), np.nan)
    factor = np.ones(ratio.size) if factor is None else factor
    coef, se = contrast(full, hypothesis)
    return Test(
        name=hypothesis.name,
        method="lrt",
        coef=coef,
        se=se,
        stat=ratio,
        df=np.where(np.isnan(ratio), np.nan, float(hypothesis.df)),
        log_pval=chi2_logsf(ratio / factor, hypothesis.df),
        log_pval_chi2=chi2_logsf(ratio, hypothesis.df),
        factor=factor,
        loglik_null=np.where(np.isnan(ratio), np.nan, null.loglik),
        evidence=ratio / factor,
        icc_moderated=np.full(ratio.size, np.nan),
    )


def moderate_ratio(test: Test, found: Moderated, hypothesis: Hypothesis) -> Test:
    """The ratio as it is, with the p-value, estimate and standard error averaged over what rho can be."""
    log_pval = np.where(np.isnan(test.stat), np.nan, found.log_pval)
    with np.errstate(divide="ignore"):
        evidence = chi2_log_isf(log_pval, hypothesis.df)
    return replace(
        test,
        coef=np.where(np.isnan(test.stat), np.nan, found.coef),
        se=np.where(np.isnan(test.stat), np.nan, found.se),
        log_pval=log_pval,
        factor=np.full(log_pval.size, np.nan),
        evidence=evidence,
        icc_moderated=np.where(np.isnan(test.stat), np.nan, found.icc),
    )


def f_test(result: FTest, fit: BaseFit, hypothesis: Hypothesis, method: str) -> Test:
    """t (one df) or F test of REML estimates, given the statistic and how it was made."""
    q = hypothesis.df
    coef, _ = contrast(fit, hypothesis)
    log_p = f_logsf(result.F, q, result.df)
    return Test(
        name=hypothesis.name,
        method=method,
        coef=coef,
        se=np.sqrt(result.vcov[:, 0, 0]) if q == 1 else np.full(coef.shape, np.nan),
        stat=result.F,
        df=result.df,
        log_pval=log_p,
        log_pval_chi2=chi2_logsf(result.F * q, q),
        factor=np.ones(coef.size),
        loglik_null=np.full(coef.size, np.nan),
        evidence=result.F,
        icc_moderated=np.full(coef.size, np.nan),
    )


def squeezed(result: FTest, stats: SufficientStatistics) -> FTest:
    """Squeeze the scale of the covariance of L beta: its variance for one df, the q-th root of its determinant."""
    q = result.vcov.shape[1]
    sign, log_det = np.linalg.slogdet(np.where(np.isfinite(result.vcov), result.vcov, np.eye(q)))
    scale = np.where((sign > 0) & np.isfinite(result.F), np.exp(log_det / q), np.nan)
    prior = squeeze(scale, result.df, stats.mean)
    ratio = prior.variance / scale
    return FTest(result.F / ratio, prior.df, result.vcov * ratio[:, None, None])


def contrast(fit: BaseFit, hypothesis: Hypothesis) -> tuple[Array, Array]:
    """Estimate and standard error of L beta, each (G,); NaN for several df."""
    if hypothesis.df != 1:
        return np.full(fit.sigma2.size, np.nan), np.full(fit.sigma2.size, np.nan)
    L = hypothesis.L[0]
    return fit.beta @ L, np.sqrt(np.einsum("i,gij,j->g", L, fit.vcov, L))


def t_interval(test: Test, conf_level: float) -> tuple[Array, Array]:
    """Confidence limits coef -+ t se, each (G,)."""
    width = distributions.t.ppf((1 + conf_level) / 2, test.df) * test.se
    return test.coef - width, test.coef + width


def unusable_as_nan(test: Test, fit: BaseFit) -> Test:
    """Blank the genes whose fit is not a maximum."""
    names = ("coef", "se", "stat", "df", "log_pval", "log_pval_chi2", "loglik_null", "evidence")
    blanked: dict[str, Any] = {name: np.where(fit.usable, getattr(test, name), np.nan) for name in names}
    return replace(test, **blanked)


def adjust(pval: Array, corr_method: str) -> Array:
    """Adjust for testing many genes; genes without a p-value do not count."""
    adjusted = np.full(pval.shape, np.nan)
    tested = ~np.isnan(pval)
    if tested.any():
        adjusted[tested] = multipletests(pval[tested], method=CORRECTIONS[corr_method])[1]
    return adjusted


def check_seed(seed: object) -> None:
    """Refuse what is no seed: results depend on it, so it is a number that can be written down."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        msg = f"seed={seed!r} must be a whole number, 0 or more."
        raise ValueError(msg)


def check_choices(
    method: str, corr_method: str, *, conf_level: float | None = None, reml: bool | None = None, seed: int = 0
) -> None:
    """Refuse choices that do not exist or do not go together."""
    check_seed(seed)
    if method not in METHODS:
        msg = f"method={method!r} is unknown. {alternatives(str(method), METHODS)}"
        raise ValueError(msg)
    if corr_method not in CORRECTIONS:
        msg = f"corr_method={corr_method!r} is unknown. {alternatives(str(corr_method), CORRECTIONS)}"
        raise ValueError(msg)
    if conf_level is not None and not 0 < conf_level < 1:
        msg = f"conf_level={conf_level!r} must be between 0 and 1, for example 0.95, or None for no intervals."
        raise ValueError(msg)
    if method == "lrt" and reml:
        msg = (
            "method='lrt' needs maximum likelihood: the restricted likelihoods of models with different fixed effects "
            "are of different data and cannot be compared. Leave reml out, or use method='satterthwaite', "
            "'kenward-roger' or 'between-within', which use REML."
        )
        raise ValueError(msg)
    if method != "lrt" and reml is False:
        msg = (
            f"method={method!r} needs REML: maximum likelihood underestimates the variance between donors by the "
            f"degrees of freedom of the fixed effects. Leave reml out, or use method='lrt'."
        )
        raise ValueError(msg)
