"""LmmFit: the statistics of every gene and the fits made of them so far, to be asked many questions. Holds no cells.

Estimates are computed once per likelihood (ML, REML) and kept; every test, contrast, reduced model or gene summary
starts from the same statistics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._design import Hypothesis, TestSpec, hypotheses_of, random_term_of
from .._errors import DesignError
from .._statistics import null_model
from .._words import unit
from .answers import Answer, Choices, answer, answer_variance, is_moderated
from .base_estimates import BaseEstimates, Workers
from .estimates import Estimates
from .fitted_genes import FittedGenes
from .fold_change import log2_fold_changes
from .random_effect import one_gene
from .summary import GeneSummary, TestResult
from .table import result_table
from .term_estimates import TermEstimates
from .variance_partition import variance_partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd
    from numpy.typing import NDArray

    from .._design import Coding
    from .._model import Fit, TermFit
    from .._statistics import SufficientStatistics
    from .calibration import Calibration


@dataclass(frozen=True, repr=False)
class LmmFit(FittedGenes):
    """A linear mixed model of every gene, fitted to the cells once.

    Made by :func:`sc_lmm.tl.lmm_fit`. Its methods answer from p + q + 1 numbers per gene.
    """

    family: ClassVar[str] = "gaussian"
    size_factors: ClassVar[None] = None  # of counts

    coding: Coding
    stats: SufficientStatistics
    var_names: pd.Index
    log_base: float | None = None  # base of the declared logarithm of the expression
    n_dropped: int = 0  # cells left out for missing annotations
    n_jobs: int | None = None
    show_progress: bool | None = None
    cautions: Callable[[Coding, TestSpec], Iterable[str]] | None = None  # what to warn of when a test is asked for

    @cached_property
    def estimates(self) -> BaseEstimates[Any]:
        """Fits made so far."""
        kind: type[BaseEstimates[Any]] = TermEstimates if self.stats.groupings else Estimates
        return kind(self.stats, self.coding.coef_names, Workers(self.n_jobs, self.show_progress))

    @property
    def ml(self) -> Fit | TermFit:
        """Maximum-likelihood estimates of the full model."""
        fit: Fit | TermFit = self.estimates.ml
        return fit

    @property
    def reml(self) -> Fit | TermFit:
        """Restricted maximum-likelihood estimates of the full model."""
        fit: Fit | TermFit = self.estimates.reml
        return fit

    def test(
        self,
        test: TestSpec,
        *,
        method: str = "lrt",
        calibrate: bool = True,
        moderate: bool | None = None,
        conf_level: float | None = 0.95,
        corr_method: str = "benjamini-hochberg",
        seed: int = 0,
    ) -> TestResult:
        """Test a term, several terms, contrasts, or the random term; see :func:`sc_lmm.tl.lmm_de`."""
        choices = Choices(method, calibrate, moderate, conf_level, corr_method, seed)
        self.warn(test)
        random = random_term_of(test, self.coding)
        if random is not None:
            found = answer_variance(self.estimates, random, seed)
            return TestResult({str(random): self._table(found, corr_method)}, "rlrt")
        tables = {}
        for hypothesis in self._hypotheses(test):
            found = answer(self.estimates, hypothesis, choices)
            tables[hypothesis.name] = self._table(found, corr_method, hypothesis)
        return TestResult(tables, method, moderated=is_moderated(self.estimates, choices))

    def pvals(
        self,
        test: TestSpec,
        *,
        method: str = "lrt",
        calibrate: bool = True,
        moderate: bool | None = None,
        seed: int = 0,
    ) -> NDArray[np.float64]:
        """P-values of the first comparison alone, (G,), without intervals or tables: for simulations."""
        choices = Choices(method, calibrate, moderate, conf_level=None, seed=seed)
        return answer(self.estimates, self._hypotheses(test)[0], choices).test.pval

    def drop(self, term: str) -> LmmFit:
        """The model without a fixed-effect term, from the same statistics."""
        name, coding, keep = self._without(term)
        eye = np.eye(len(self.coding.coef_names))
        stats = null_model(self.stats, Hypothesis(name, eye[self.coding.terms[name]]))
        columns, origin = stats.columns[:, keep], stats.origin[keep]
        return replace(
            self, coding=coding, stats=replace(stats, basis=stats.basis[keep], columns=columns, origin=origin)
        )

    def gene(self, name: str) -> GeneSummary:
        """Summary of one gene's fit as lme4 prints it, with its random effects."""
        index = self._position(name)
        ml, reml = one_gene(self.ml, index), one_gene(self.reml, index)
        columns = self.estimates.random_columns(reml, self.coding.group)
        return GeneSummary.of(name, ml, reml, self.coding, columns, self.ranef(name))

    def ranef(self, gene: str, *, conf_level: float = 0.95) -> pd.DataFrame:
        """Predicted random effects of one gene (REML), a row per level with its conditional sd and limits."""
        levels = self.coding.groupings or {self.coding.group: self.coding.group_levels}
        return self.estimates.ranef(self._position(gene), levels, conf_level)

    def variance_partition(self) -> pd.DataFrame:
        """Shares of the variance of every gene; see :func:`sc_lmm.get.variance_partition_df`."""
        return variance_partition(self.stats, self.ml, self.coding, self.var_names)

    def calibration(self, hypothesis: Hypothesis, seed: int = 0) -> Calibration:
        """Calibration table of the likelihood ratio of one hypothesis, under one random intercept."""
        if not isinstance(self.estimates, Estimates):
            msg = "A table by the variance ratio is of one random intercept. Use test(..., moderate=False) for these terms."
            raise DesignError(msg)
        return self.estimates.calibration(hypothesis, seed)

    def __repr__(self) -> str:
        """Say what was fitted."""
        stats = self.stats
        return (
            f"LmmFit of {stats.n_genes:,} genes: {self.coding.formula.text}\n"
            f"    {stats.n_cells:,} cells of {self._levels()}\n"
            f"    coefficients: {', '.join(self.coding.coef_names)}\n"
            f"    .test(term) .contrast(...) .drop(term) .gene(name) .ranef(gene) .save(path)"
        )

    def _levels(self) -> str:
        """How many levels there are, and how large they are."""
        sizes = {g.name: g.sizes for g in self.stats.groupings} or {self.coding.group: self.stats.sizes}
        return " and ".join(
            f"{unit(name, n.size)}, {int(n.min())} to {int(n.max())} cells each" for name, n in sizes.items()
        )

    def _hypotheses(self, test: TestSpec) -> list[Hypothesis]:
        """Hypotheses of the test, or an error where no degrees of freedom are left to judge one by."""
        hypotheses = hypotheses_of(self.coding, test)
        if not all(self.estimates.is_answerable(h.L) for h in hypotheses):
            msg = (
                f"The coefficients that differ between {self.coding.group} use up all {len(self.coding.group_levels)} of "
                f"them: nothing is left to estimate their variance from. Drop such a covariate, or add donors."
            )
            raise DesignError(msg)
        return hypotheses

    def _table(self, found: Answer, corr_method: str, hypothesis: Hypothesis | None = None) -> pd.DataFrame:
        changes = np.full(self.stats.n_genes, np.nan)
        if hypothesis is not None and self.log_base is not None:
            estimates = (found.fit.beta, found.test.coef)
            changes = log2_fold_changes(self.stats, self.coding, hypothesis, *estimates, self.log_base)
        columns = self.estimates.random_columns(found.fit, self.coding.group)
        described: dict[str, Any] = {"random_columns": columns, "logfoldchanges": changes}
        return result_table(found, self.stats, self.var_names, corr_method=corr_method, **described)
