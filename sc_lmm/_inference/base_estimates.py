"""Statistics of every gene -> the fits that questions need, each made when first asked for and then kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._model import BaseFit, fit_models, fit_terms
from .._statistics import null_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from .._design import Hypothesis, RandomSpec
    from .._statistics import SufficientStatistics
    from .degrees_of_freedom import FTest
    from .moderation import Moderated, Moderation
    from .random_effect import VarianceTest

    Array = NDArray[np.float64]

F = TypeVar("F", bound=BaseFit)


@dataclass(frozen=True)
class Workers:
    """How the fits are spread and shown; changes no result."""

    n_jobs: int | None = None
    show_progress: bool | None = None

    @property
    def choices(self) -> dict[str, Any]:
        """Arguments of what runs over blocks of genes."""
        return {"n_jobs": self.n_jobs, "show_progress": self.show_progress}

    def fit(self, stats: SufficientStatistics, names: Sequence[str], *, reml: bool, estimates: bool = True) -> Any:
        """Fit one model to every gene."""
        if stats.groupings:
            (of_terms,) = fit_terms([stats], names, reml=reml, **self.choices)
            return of_terms
        (fit,) = fit_models([stats], names, reml=reml, estimates=estimates, **self.choices)
        return fit


@dataclass(frozen=True)
class NullEstimates:
    """Fits of the model in which a hypothesis holds, without coefficients."""

    stats: SufficientStatistics
    workers: Workers

    @cached_property
    def ml(self) -> BaseFit:
        """By maximum likelihood."""
        fit: BaseFit = self.workers.fit(self.stats, (), reml=False, estimates=False)
        return fit

    @cached_property
    def reml(self) -> Any:
        """By restricted maximum likelihood."""
        return self.workers.fit(self.stats, (), reml=True, estimates=False)


@dataclass(frozen=True)
class BaseEstimates(ABC, Generic[F]):
    """Fits of one model, and of the models in which hypotheses about it hold; and what tests ask of them."""

    stats: SufficientStatistics
    coef_names: tuple[str, ...]  # (p,)
    workers: Workers = field(default_factory=Workers)
    _nulls: dict[bytes, NullEstimates] = field(default_factory=dict, repr=False)

    @cached_property
    def ml(self) -> F:
        """Maximum-likelihood estimates."""
        fit: F = self.workers.fit(self.stats, self.coef_names, reml=False)
        return fit

    @cached_property
    def reml(self) -> F:
        """Restricted maximum-likelihood estimates."""
        fit: F = self.workers.fit(self.stats, self.coef_names, reml=True)
        return fit

    def under(self, hypothesis: Hypothesis) -> NullEstimates:
        """Fits of the model in which the hypothesis holds."""
        key = hypothesis.L.tobytes()
        if key not in self._nulls:
            self._nulls[key] = NullEstimates(null_model(self.stats, hypothesis), self.workers)
        return self._nulls[key]

    @property
    @abstractmethod
    def moderation(self) -> Moderation:
        """What all genes say of the variance ratios of one of them."""

    @abstractmethod
    def is_answerable(self, L: Array) -> bool:
        """Whether anything is left to judge L beta by."""

    @abstractmethod
    def moderated(self, L: Array, conf_level: float | None) -> Moderated:
        """Test L beta = 0 averaged over the learned prior."""

    @abstractmethod
    def with_df(self, L: Array, method: str) -> FTest:
        """F statistic of the REML estimates, and its denominator degrees of freedom."""

    @abstractmethod
    def ratio_factor(self, hypothesis: Hypothesis, seed: int) -> Array:
        """What calibrates the ratio of each gene, (G,)."""

    @abstractmethod
    def ratio_limits(self, hypothesis: Hypothesis, conf_level: float, factor: Array) -> tuple[Array, Array]:
        """Limits that go with the ratio, each (G,)."""

    @abstractmethod
    def variance_test(self, term: RandomSpec, seed: int) -> VarianceTest:
        """Restricted ratio of a random term."""

    @abstractmethod
    def ranef(self, index: int, level_names: Mapping[str, Sequence[str]], conf_level: float) -> pd.DataFrame:
        """Predicted random effects of one gene, given the names of the levels of each grouping."""

    @abstractmethod
    def random_columns(self, fit: F, group: str) -> dict[str, Any]:
        """What there is to say of the random terms, by the names of columns of the results."""
