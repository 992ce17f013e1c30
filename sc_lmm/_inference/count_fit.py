"""CountFit: the donor sums of every gene and the dispersions learned from them, to be asked many questions. Holds no cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from scipy import special

from .._design import Hypothesis, TestSpec, hypotheses_of, is_random_term
from .._errors import DesignError
from .._words import unit
from .count_summary import CountSummary
from .count_table import count_table
from .count_tests import answer_counts
from .dispersion import Dispersions, Workers, learned_dispersions, own_dispersions
from .fitted_genes import FittedGenes
from .prior import ENOUGH_GENES, FEWEST_GENES
from .summary import TestResult
from .tests import check_choices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._design import Coding
    from .._statistics import CountStatistics


@dataclass(frozen=True, repr=False)
class CountFit(FittedGenes):
    """A mixed model of every gene's counts, read from the cells once.

    Made by :func:`sc_lmm.tl.lmm_fit` with ``family="nb"``. Its methods answer from one sum per gene and donor.
    """

    family: ClassVar[str] = "nb"
    log_base: ClassVar[None] = None  # of expression

    coding: Coding
    stats: CountStatistics
    var_names: pd.Index
    size_factors: str  # where the exposures come from
    n_dropped: int = 0  # cells left out for missing annotations
    n_jobs: int | None = None
    show_progress: bool | None = None
    cautions: Callable[[Coding, TestSpec], Iterable[str]] | None = None  # what to warn of when a test is asked for

    @cached_property
    def learned(self) -> Dispersions:
        """Dispersions learned from all genes."""
        return learned_dispersions(self.stats, self._workers)

    @cached_property
    def own(self) -> Dispersions:
        """Each gene's own dispersion."""
        return own_dispersions(self.stats, self._workers)

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
        """Test a term, several terms or contrasts; see :func:`sc_lmm.tl.lmm_de`."""
        check_choices(method, corr_method, conf_level=conf_level)
        check_count_choices(method, calibrate=calibrate)
        self.warn(test)
        moderated = self.is_moderated(moderate)
        found = self.learned if moderated else self.own
        how: dict[str, Any] = {"conf_level": conf_level, "workers": self._workers}
        tables = {
            h.name: count_table(answer_counts(self.stats, found, h, **how), found, self, corr_method=corr_method)
            for h in self._hypotheses(test)
        }
        return TestResult(tables, method, moderated=moderated)

    def is_moderated(self, moderate: bool | None) -> bool:  # noqa: FBT001 - lmm_de's argument
        """Whether an answer uses what all genes say of the dispersion of one."""
        n_genes = int(self.stats.sums.any(axis=1).sum())
        if moderate and n_genes < FEWEST_GENES:
            msg = (
                f"moderate=True learns from all genes how much donors differ, and needs at least {FEWEST_GENES} genes with "
                f"counts; there are {n_genes}. Test more genes together, or leave moderate out."
            )
            raise ValueError(msg)
        return n_genes >= ENOUGH_GENES if moderate is None else bool(moderate)

    def drop(self, term: str) -> CountFit:
        """The model without a fixed-effect term, from the same sums."""
        _, coding, keep = self._without(term)
        rows = self.stats.X @ np.linalg.inv(self.stats.basis)
        return replace(self, coding=coding, stats=self.stats.with_columns(rows[:, keep]))

    def gene(self, name: str) -> CountSummary:
        """Summary of one gene's model, with the factors of its donors."""
        g = self._position(name)
        found = self._found.genes(slice(g, g + 1))
        return CountSummary.of(name, self.stats.genes(slice(g, g + 1)), found, self.coding, self.ranef(name))

    def ranef(self, gene: str, *, conf_level: float = 0.95) -> pd.DataFrame:
        """Logarithms of the factors of the donors in one gene, a row per donor with its conditional sd and limits.

        Given its counts y a donor's factor is gamma distributed of shape 1/phi + y and rate 1/phi + mu.
        """
        g = self._position(gene)
        effect, sd = _log_factors(self.stats.genes(slice(g, g + 1)), self._found.genes(slice(g, g + 1)))
        width = special.ndtri((1 + conf_level) / 2) * sd
        columns = {"effect": effect, "sd": sd, "ci_low": effect - width, "ci_high": effect + width}
        index = pd.Index(self.coding.group_levels, name=self.coding.group)
        return pd.DataFrame(columns | {"n_cells": self.stats.sizes}, index=index)

    def __repr__(self) -> str:
        """Say what was fitted."""
        stats = self.stats
        return (
            f"CountFit of {stats.n_genes:,} genes, negative binomial: {self.coding.formula.text}\n"
            f"    {stats.n_cells:,} cells of {unit(self.coding.group, stats.sizes.size)}, "
            f"{int(stats.sizes.min())} to {int(stats.sizes.max())} cells each; size factors: {self.size_factors}\n"
            f"    coefficients: {', '.join(self.coding.coef_names)}\n"
            f"    .test(term) .contrast(...) .drop(term) .gene(name) .ranef(gene) .save(path)"
        )

    @property
    def _workers(self) -> Workers:
        return Workers(self.n_jobs, self.show_progress)

    @property
    def _found(self) -> Dispersions:
        return self.learned if self.is_moderated(None) else self.own

    def _hypotheses(self, test: TestSpec) -> list[Hypothesis]:
        """Hypotheses of the test, or an error where it has no answer here."""
        if is_random_term(test, self.coding):
            msg = (
                f"test={test!r} is the random term, whose variance family='nb' does not test: the column sd_donor says how "
                f"large it is. Test a fixed effect, or use family='gaussian' on log-normalised expression."
            )
            raise DesignError(msg)
        if self.stats.dof < 1:
            msg = (
                f"The coefficients use up all {self.stats.sizes.size} {unit(self.coding.group)}: nothing is left to see "
                f"their variance in. Drop a covariate, or add donors."
            )
            raise DesignError(msg)
        return hypotheses_of(self.coding, test)


def check_count_choices(method: str, *, calibrate: bool) -> None:
    """Refuse what has no meaning for counts."""
    if method != "lrt":
        msg = (
            f"method={method!r} has degrees of freedom of a normal residual, which counts do not have. family='nb' has "
            f"method='lrt'; for t and F tests use family='gaussian' on log-normalised expression."
        )
        raise ValueError(msg)
    if not calibrate:
        msg = (
            "calibrate=False has no meaning for family='nb', whose ratio is always corrected by Bartlett's factor. The "
            "column pvals_chi2 has the plain chi-square p-value."
        )
        raise ValueError(msg)


def _log_factors(one: CountStatistics, found: Dispersions) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the logarithm of each donor's factor in one gene, averaged over its points, (q,)."""
    points, weights = found.points, found.weights[0]
    if not found.usable[0]:
        return np.full(one.sizes.size, np.nan), np.full(one.sizes.size, np.nan)
    mu = one.exposure * np.exp(points.beta[0] @ one.X.T)  # (K, q)
    phi = points.phi[0][:, None] * points.relative
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = 1 / phi + one.sums[0]
        mean = np.where(phi > 0, special.digamma(shape) - np.log(1 / phi + mu), 0.0)
        variance = np.where(phi > 0, special.polygamma(1, shape), 0.0)
    effect = weights @ mean
    return effect, np.sqrt(weights @ (variance + (mean - effect) ** 2))
