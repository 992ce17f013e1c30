"""Statistics of every gene -> the fits that questions need, each made when first asked for and then kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .._model import Fit, Profile, fit_models, profile, spectrum
from .._statistics import null_model
from .calibration import Calibration, calibrate
from .moderation import Moderation, learn_moderation

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .._design import Hypothesis
    from .._statistics import SufficientStatistics


@dataclass(frozen=True)
class Workers:
    """How the fits are spread and shown; changes no result."""

    n_jobs: int | None = None
    show_progress: bool | None = None

    def fit(self, stats: SufficientStatistics, names: Sequence[str], *, reml: bool, estimates: bool = True) -> Fit:
        """Fit one model to every gene."""
        how: dict[str, Any] = {"n_jobs": self.n_jobs, "show_progress": self.show_progress}
        (fit,) = fit_models([stats], names, reml=reml, estimates=estimates, **how)
        return fit


@dataclass(frozen=True)
class NullEstimates:
    """Fits of the model in which a hypothesis holds, without coefficients."""

    stats: SufficientStatistics
    workers: Workers

    @cached_property
    def ml(self) -> Fit:
        """By maximum likelihood."""
        return self.workers.fit(self.stats, (), reml=False, estimates=False)

    @cached_property
    def reml_rho(self) -> NDArray[np.float64]:
        """Variance ratio by restricted maximum likelihood, (G,)."""
        return self.workers.fit(self.stats, (), reml=True, estimates=False).rho


@dataclass(frozen=True)
class Estimates:
    """Fits of one model, and of the models in which hypotheses about it hold."""

    stats: SufficientStatistics
    coef_names: tuple[str, ...]  # (p,)
    workers: Workers = field(default_factory=Workers)
    _nulls: dict[bytes, NullEstimates] = field(default_factory=dict, repr=False)
    _calibrations: dict[tuple[bytes, int], Calibration] = field(default_factory=dict, repr=False)

    @cached_property
    def ml(self) -> Fit:
        """Maximum-likelihood estimates."""
        return self.workers.fit(self.stats, self.coef_names, reml=False)

    @cached_property
    def reml(self) -> Fit:
        """Restricted maximum-likelihood estimates."""
        return self.workers.fit(self.stats, self.coef_names, reml=True)

    @cached_property
    def restricted(self) -> Profile:
        """Restricted deviance of every gene as a function of rho."""
        return profile(self.stats, spectrum(self.stats, reml=True))

    @cached_property
    def moderation(self) -> Moderation:
        """What all genes say of the variance ratio of one of them."""
        return learn_moderation(self.stats, self.restricted, self.ml.usable)

    @cached_property
    def n_directions(self) -> int:
        """Directions in which levels differ beside the fixed effects: what the donor variance is estimated from."""
        return spectrum(self.stats.genes(slice(0, 1)), reml=True).d.size

    def under(self, hypothesis: Hypothesis) -> NullEstimates:
        """Fits of the model in which the hypothesis holds."""
        key = hypothesis.L.tobytes()
        if key not in self._nulls:
            self._nulls[key] = NullEstimates(null_model(self.stats, hypothesis), self.workers)
        return self._nulls[key]

    def calibration(self, hypothesis: Hypothesis, seed: int = 0) -> Calibration:
        """Calibration table of the likelihood ratio of a hypothesis."""
        key = (hypothesis.L.tobytes(), seed)
        if key not in self._calibrations:
            self._calibrations[key] = calibrate(self.stats.genes(slice(0, 1)), hypothesis, seed=seed)
        return self._calibrations[key]
