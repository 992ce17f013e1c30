"""LmmFit: the statistics of every gene and the fits made of them so far, to be asked many questions. Holds no cells.

Estimates are computed once per likelihood (ML, REML) and kept; every test, contrast, reduced model or gene summary
starts from the same statistics.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._design import Hypothesis, TestSpec, check_marginal, find_term, hypotheses_of, is_random_term
from .._errors import DesignError, alternatives
from .._model import STATUS, Fit, Profile, fit_models, profile, spectrum
from .._statistics import null_model
from .calibration import Calibration, calibrate
from .degrees_of_freedom import judged_between
from .intervals import profile_interval
from .random_effect import random_effect_interval, random_effects, variance_test
from .summary import GeneSummary, TestResult
from .tests import Test, adjust, check_choices, f_test, likelihood_ratio, t_interval, unusable_as_nan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Coding
    from .._statistics import SufficientStatistics


@dataclass
class LmmFit:
    """A linear mixed model of every gene, fitted to the cells once.

    Made by :func:`sc_lmm.tl.lmm_fit`. Its methods answer from p + q + 1 numbers per gene.
    """

    coding: Coding
    stats: SufficientStatistics
    var_names: pd.Index
    log_base: float | None = None  # base of the declared logarithm of the expression
    n_dropped: int = 0  # cells left out for missing annotations
    n_jobs: int | None = None
    show_progress: bool | None = None
    _models: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ml(self) -> Fit:
        """Maximum-likelihood estimates of the full model."""
        return self._kept("ml", lambda: self._fit(self.stats, reml=False))

    @property
    def reml(self) -> Fit:
        """Restricted maximum-likelihood estimates of the full model."""
        return self._kept("reml", lambda: self._fit(self.stats, reml=True))

    def test(
        self,
        test: TestSpec,
        *,
        method: str = "lrt",
        calibrate: bool = True,
        moderate: bool = False,
        conf_level: float | None = 0.95,
        corr_method: str = "benjamini-hochberg",
        seed: int = 0,
    ) -> TestResult:
        """Test a term, several terms, contrasts, or the random term; see :func:`sc_lmm.tl.lmm_de`."""
        check_choices(method, corr_method, moderate=moderate, conf_level=conf_level)
        if is_random_term(test, self.coding):
            return TestResult({f"(1 | {self.coding.group})": self._variance_table(seed, corr_method)}, "rlrt")
        tables = {}
        for hypothesis in hypotheses_of(self.coding, test):
            outcome = self._outcome(hypothesis, method, calibrate=calibrate, moderate=moderate, seed=seed)
            limits = self._limits(outcome, hypothesis, conf_level)
            tables[hypothesis.name] = self._table(outcome, limits, corr_method)
        return TestResult(tables, method)

    def pvals(
        self, test: TestSpec, *, method: str = "lrt", calibrate: bool = True, moderate: bool = False, seed: int = 0
    ) -> NDArray[np.float64]:
        """P-values of the first comparison alone, (G,), without intervals or tables: for simulations."""
        check_choices(method, "benjamini-hochberg", moderate=moderate)
        hypothesis = hypotheses_of(self.coding, test)[0]
        return self._outcome(hypothesis, method, calibrate=calibrate, moderate=moderate, seed=seed).pval

    def contrast(self, contrast: str | dict[str, str], **choices: Any) -> TestResult:
        """Test contrasts of conditions, e.g. ``"cond(diagnosis='AD') - cond(diagnosis='control')"``."""
        return self.test(contrast, **choices)

    def drop(self, term: str) -> LmmFit:
        """The model without a fixed-effect term, from the same statistics."""
        name = find_term(self.coding, term)
        check_marginal(self.coding, name, "dropped")
        coding = self.coding.without(name)
        keep = [self.coding.coef_names.index(c) for c in coding.coef_names]
        eye = np.eye(len(self.coding.coef_names))
        stats = null_model(self.stats, Hypothesis(name, eye[self.coding.terms[name]]))
        return replace(
            self,
            coding=coding,
            stats=replace(stats, basis=stats.basis[keep], columns=stats.columns[:, keep], origin=stats.origin[keep]),
            _models={},
        )

    def gene(self, name: str) -> GeneSummary:
        """Summary of one gene's fit as lme4 prints it, with its random effects."""
        index = self._position(name)
        return GeneSummary.of(
            name, self._one(self.ml, index), self._one(self.reml, index), self.coding, self.ranef(name)
        )

    def ranef(self, gene: str, *, conf_level: float = 0.95) -> pd.DataFrame:
        """Predicted random intercepts of one gene (REML), a row per level with its conditional sd and limits."""
        index = self._position(gene)
        one = self.stats.genes(slice(index, index + 1))
        effects, sd = random_effects(one, self._one(self.reml, index))
        low, high = random_effect_interval(effects, sd, conf_level)
        columns = {"effect": effects[0], "sd": sd[0], "ci_low": low[0], "ci_high": high[0], "n_cells": one.sizes}
        return pd.DataFrame(columns, index=pd.Index(self.coding.group_levels, name=self.coding.group))

    def calibration(self, hypothesis: Hypothesis, seed: int = 0) -> Calibration:
        """Calibration table of the likelihood ratio of one hypothesis."""
        one = self.stats.genes(slice(0, 1))
        return self._kept(f"calibration {seed} {hypothesis.L.tolist()}", lambda: calibrate(one, hypothesis, seed=seed))

    def save(self, path: str | Path) -> None:
        """Write the fit to a file. Load it with :meth:`load`, and only from sources you trust: it is a pickle."""
        with Path(path).open("wb") as file:
            pickle.dump(self, file)

    @staticmethod
    def load(path: str | Path) -> LmmFit:
        """Read a fit that :meth:`save` wrote."""
        with Path(path).open("rb") as file:
            fit = pickle.load(file)
        if not isinstance(fit, LmmFit):
            msg = f"{str(path)!r} does not hold an LmmFit but a {type(fit).__name__}."
            raise TypeError(msg)
        return fit

    def __repr__(self) -> str:
        """Say what was fitted."""
        stats = self.stats
        return (
            f"LmmFit of {stats.n_genes:,} genes: {self.coding.formula.text}\n"
            f"    {stats.n_cells:,} cells of {stats.sizes.size} {self.coding.group}, "
            f"{int(stats.sizes.min())} to {int(stats.sizes.max())} cells each\n"
            f"    coefficients: {', '.join(self.coding.coef_names)}\n"
            f"    .test(term) .contrast(...) .drop(term) .gene(name) .ranef(gene) .save(path)"
        )

    def _repr_html_(self) -> str:
        lines = [line.strip() for line in repr(self).splitlines()]
        return f"<b>{lines[0]}</b><br>" + "<br>".join(lines[1:])

    def _outcome(self, hypothesis: Hypothesis, method: str, *, calibrate: bool, moderate: bool, seed: int) -> Test:
        if self._n_directions == 0 and judged_between(self.stats, hypothesis.L):
            msg = (
                f"The coefficients that differ between {self.coding.group} use up all {self.stats.sizes.size} of them: "
                f"nothing is left to estimate their variance from. Drop such a covariate, or add donors."
            )
            raise DesignError(msg)
        if method != "lrt":
            objective = self._objective()
            outcome = f_test(self.stats, objective, self.reml, hypothesis, method, moderate=moderate)
            return unusable_as_nan(outcome, self.reml)
        null = self._kept(
            f"null {hypothesis.L.tolist()}",
            lambda: self._fit(null_model(self.stats, hypothesis), reml=False, estimates=False),
        )
        factor = self._factor(hypothesis, seed) if calibrate else np.ones(self.stats.n_genes)
        return likelihood_ratio(self.ml, null, hypothesis, factor)

    def _limits(self, test: Test, hypothesis: Hypothesis, conf_level: float | None) -> tuple[Any, Any]:
        if hypothesis.df > 1 or conf_level is None:
            nothing = np.full(self.stats.n_genes, np.nan)
            return nothing, nothing
        if test.method == "lrt":
            choices: dict[str, Any] = {"n_jobs": self.n_jobs, "show_progress": self.show_progress}
            return profile_interval(self.stats, self.ml, hypothesis, conf_level, test.factor, **choices)
        return t_interval(test, conf_level)

    def _factor(self, hypothesis: Hypothesis, seed: int) -> Any:
        """Calibration factor at each gene's rho under the null model, estimated by REML."""
        null = null_model(self.stats, hypothesis)
        rho = self._kept(f"null rho {hypothesis.L.tolist()}", lambda: self._fit(null, reml=True, estimates=False).rho)
        return self.calibration(hypothesis, seed).at(rho)

    def _variance_table(self, seed: int, corr_method: str) -> pd.DataFrame:
        fit = self.reml
        result = variance_test(self._objective(), fit, seed=seed)
        nothing = np.full(fit.rho.size, np.nan)
        outcome = Test(
            name=f"(1 | {self.coding.group})",
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
        return self._table(outcome, (nothing, nothing), corr_method)

    def _table(self, test: Test, limits: tuple[Any, Any], corr_method: str) -> pd.DataFrame:
        fit = self.ml if test.method == "lrt" else self.reml
        missing = np.isnan(test.stat)
        log2_per_unit = np.nan if self.log_base is None else np.log2(self.log_base)
        is_ratio = test.method in ("lrt", "rlrt")
        columns = {
            "coef": test.coef,
            "se": test.se,
            "ci_low": limits[0],
            "ci_high": limits[1],
            "logfoldchanges": test.coef * log2_per_unit,
            "scores": test.scores,
            "df": test.df,
            "pvals": test.pval,
            "pvals_adj": adjust(test.pval, corr_method),
            "log10_pvals": test.log_pval / np.log(10),
            "lrt": test.stat if is_ratio else np.full(missing.size, np.nan),
            "pvals_chi2": np.exp(test.log_pval_chi2),
            "calibration": test.factor,
            f"sd_{self.coding.group}": fit.sd_random,
            "sd_residual": np.sqrt(fit.sigma2),
            "icc": fit.icc,
            "loglik": np.where(missing, np.nan, fit.loglik),
            "loglik_null": test.loglik_null,
            "pct_expressed": self.stats.nonzero / self.stats.n_cells,
            "status": pd.Categorical.from_codes(fit.status.astype(int), dtype=pd.CategoricalDtype(list(STATUS))),
        }
        return pd.DataFrame(columns, index=self.var_names)

    @property
    def _n_directions(self) -> int:
        """Directions in which levels differ beside the fixed effects: what the donor variance is estimated from."""
        one = self.stats.genes(slice(0, 1))
        return self._kept("n directions", lambda: spectrum(one, reml=True).d.size)

    def _objective(self) -> Profile:
        return self._kept("objective", lambda: profile(self.stats, spectrum(self.stats, reml=True)))

    def _fit(self, stats: SufficientStatistics, *, reml: bool, estimates: bool = True) -> Fit:
        names = self.coding.coef_names
        choices: dict[str, Any] = {"n_jobs": self.n_jobs, "show_progress": self.show_progress}
        (fit,) = fit_models([stats], names, reml=reml, estimates=estimates, **choices)
        return fit

    def _kept(self, name: str, compute: Any) -> Any:
        if name not in self._models:
            self._models[name] = compute()
        return self._models[name]

    def _position(self, gene: str) -> int:
        found = np.flatnonzero(self.var_names == gene)
        if found.size == 0:
            msg = f"gene {gene!r} is not among the {self.stats.n_genes} fitted genes. {alternatives(gene, self.var_names)}"
            raise KeyError(msg)
        return int(found[0])

    @staticmethod
    def _one(fit: Fit, index: int) -> Fit:
        names = ("beta", "vcov", "rho", "sigma2", "deviance", "status")
        return replace(fit, **{name: getattr(fit, name)[index : index + 1] for name in names})
