"""Questions about models with one random intercept, answered from their fits.

:class:`Estimates` is of one random intercept, whose likelihood is spectral and whose degrees of freedom have closed forms;
:class:`sc_lmm._inference.term_estimates.TermEstimates` answers the same questions for any random terms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any

import pandas as pd

from .._model import Fit, Profile, profile, spectrum
from .._names import sd_columns
from .base_estimates import BaseEstimates
from .calibration import Calibration, calibrate
from .degrees_of_freedom import f_statistic, judged_between
from .intervals import profile_interval
from .moderation import Moderated, Moderation, at_support, learn_moderation, moderated_test
from .random_effect import effect_table, one_gene, random_effects, variance_test

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .._design import Hypothesis, RandomSpec
    from .degrees_of_freedom import FTest
    from .random_effect import VarianceTest

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimates(BaseEstimates[Fit]):
    """Fits of one model with one random intercept."""

    _calibrations: dict[tuple[bytes, int], Calibration] = field(default_factory=dict, repr=False)

    @cached_property
    def restricted(self) -> Profile:
        """Restricted deviance of every gene as a function of rho."""
        return profile(self.stats, spectrum(self.stats, reml=True))

    @cached_property
    def moderation(self) -> Moderation:  # type: ignore[override]
        """What all genes say of the variance ratio of one of them."""
        return learn_moderation(self.stats, self.restricted, self.ml.usable)

    @cached_property
    def n_directions(self) -> int:
        """Directions in which levels differ beside the fixed effects: what the donor variance is estimated from."""
        return spectrum(self.stats.genes(slice(0, 1)), reml=True).d.size

    def is_answerable(self, L: Array) -> bool:
        """Whether anything is left to judge L beta by."""
        return self.n_directions > 0 or not judged_between(self.stats, L)

    def moderated(self, L: Array, conf_level: float | None) -> Moderated:
        """Test L beta = 0 averaged over the learned prior."""
        genes = at_support(self.stats, self.restricted, self.moderation, L)
        return moderated_test(genes, self.moderation, conf_level=conf_level, **self.workers.choices)

    def with_df(self, L: Array, method: str) -> FTest:
        """F statistic of the REML estimates, and its denominator degrees of freedom."""
        return f_statistic(self.stats, self.restricted, self.reml, L, method)

    def ratio_factor(self, hypothesis: Hypothesis, seed: int) -> Array:
        """What calibrates the ratio of each gene, (G,): at its rho under the null model, estimated by REML."""
        return self.calibration(hypothesis, seed).at(self.under(hypothesis).reml.rho)

    def ratio_limits(self, hypothesis: Hypothesis, conf_level: float, factor: Array) -> tuple[Array, Array]:
        """Limits that leave out zero when the ratio rejects, each (G,)."""
        return profile_interval(self.stats, self.ml, hypothesis, conf_level, factor, **self.workers.choices)

    def variance_test(self, term: RandomSpec, seed: int) -> VarianceTest:
        """Restricted ratio of the random term."""
        return variance_test(self.restricted, self.reml, seed=seed)

    def ranef(self, index: int, level_names: Mapping[str, Sequence[str]], conf_level: float) -> pd.DataFrame:
        """Predicted random intercepts of one gene, given the names of levels."""
        one = self.stats.genes(slice(index, index + 1))
        effects, sd = random_effects(one, one_gene(self.reml, index))
        ((group, levels),) = level_names.items()
        return effect_table(effects[0], sd[0], conf_level, one.sizes, pd.Index(levels, name=group))

    def random_columns(self, fit: Fit, group: str) -> dict[str, Any]:
        """Standard deviations of the random terms, by the names of their columns in the results."""
        return {sd_columns([group])[0]: fit.sd_random}

    def calibration(self, hypothesis: Hypothesis, seed: int = 0) -> Calibration:
        """Calibration table of the likelihood ratio of a hypothesis."""
        key = (hypothesis.L.tobytes(), seed)
        if key not in self._calibrations:
            self._calibrations[key] = calibrate(self.stats.genes(slice(0, 1)), hypothesis, seed=seed)
        return self._calibrations[key]


def check_workers(n_jobs: object) -> None:
    """Refuse what joblib has no meaning for, before anything is read."""
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, Integral) or n_jobs == 0):
        msg = (
            f"n_jobs={n_jobs!r} must be a number of workers, 1 or more, or -1 for one per processor. "
            f"Leave it out to follow joblib.parallel_config."
        )
        raise ValueError(msg)
