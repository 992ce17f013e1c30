"""Fits of the full and the null models -> Test: statistics, p-values (in log space too) and their adjustment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

from ._errors import alternatives

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._fit import Fit
    from ._hypothesis import Hypothesis

    Array = NDArray[np.float64]

CORRECTIONS = {"benjamini-hochberg": "fdr_bh", "bonferroni": "bonferroni"}


@dataclass(frozen=True)
class Test:
    """One comparison for G genes; NaN where a gene could not be fitted."""

    name: str
    coef: Array  # (G,) L beta for one df, NaN otherwise
    se: Array  # (G,)
    stat: Array  # (G,) the statistic the p-value is read from
    df: Array  # (G,) its degrees of freedom
    pval: Array  # (G,)
    log10_pval: Array  # (G,) finite where pval underflows to 0
    pval_adj: Array  # (G,)
    loglik_null: Array  # (G,)
    kind: str  # "chi2"

    @property
    def scores(self) -> Array:
        """Signed root of the statistic for one df, the statistic otherwise, (G,)."""
        return np.where(np.isnan(self.coef), self.stat, np.sign(self.coef) * np.sqrt(self.stat))


def likelihood_ratio(full: Fit, null: Fit, hypothesis: Hypothesis, corr_method: str) -> Test:
    """Likelihood-ratio test of the full against the null model by the chi-square distribution.

    Both fits must be by maximum likelihood: restricted likelihoods of models with different fixed effects are of
    different data.
    """
    # The null model is inside the full one, so a negative ratio is rounding.
    ratio = np.where(full.usable & null.usable, np.maximum(null.deviance - full.deviance, 0.0), np.nan)
    log_p = chi2_logsf(ratio, hypothesis.df)
    coef, se = contrast(full, hypothesis)
    return Test(
        name=hypothesis.name,
        coef=coef,
        se=se,
        stat=ratio,
        df=np.where(np.isnan(ratio), np.nan, float(hypothesis.df)),
        pval=np.exp(log_p),
        log10_pval=log_p / np.log(10),
        pval_adj=adjust(np.exp(log_p), corr_method),
        loglik_null=np.where(np.isnan(ratio), np.nan, null.loglik),
        kind="chi2",
    )


def contrast(fit: Fit, hypothesis: Hypothesis) -> tuple[Array, Array]:
    """Estimate and standard error of L beta, each (G,); NaN for several df."""
    if hypothesis.df != 1:
        return np.full(fit.rho.size, np.nan), np.full(fit.rho.size, np.nan)
    L = hypothesis.L[0]
    return fit.beta @ L, np.sqrt(np.einsum("i,gij,j->g", L, fit.vcov, L))


def chi2_logsf(x: Array, df: int) -> Array:
    """Log upper tail of the chi-square distribution for whole df, exact where the tail underflows.

    Q(x; k) = Q(x; k-2) + (x/2)^(k/2-1) e^(-x/2) / Gamma(k/2), a sum of positive terms (Abramowitz & Stegun 26.4.8)
    that starts from 2 Phi(-sqrt(x)) for odd and e^(-x/2) for even k.
    """
    x = np.asarray(x, dtype=np.float64)
    log_q = np.log(2) + stats.norm.logsf(np.sqrt(x)) if df % 2 else -x / 2
    with np.errstate(divide="ignore"):
        log_half = np.log(x / 2)
    for k in range(3 if df % 2 else 4, df + 1, 2):
        log_q = np.logaddexp(log_q, (k / 2 - 1) * log_half - x / 2 - special.gammaln(k / 2))
    return log_q


def adjust(pval: Array, corr_method: str) -> Array:
    """Adjust for testing many genes; genes without a p-value do not count."""
    adjusted = np.full(pval.shape, np.nan)
    tested = ~np.isnan(pval)
    if tested.any():
        adjusted[tested] = multipletests(pval[tested], method=CORRECTIONS[corr_method])[1]
    return adjusted


def check_correction(corr_method: str) -> None:
    """Refuse an unknown way to adjust."""
    if corr_method not in CORRECTIONS:
        msg = f"corr_method={corr_method!r} is unknown. {alternatives(str(corr_method), CORRECTIONS)}"
        raise ValueError(msg)
