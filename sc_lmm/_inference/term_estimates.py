"""The questions of :class:`sc_lmm._inference.estimates.Estimates`, answered for any random terms.

Everything comes of the moments log|V| and [X y]' V^-1 [X y] and their derivatives. Of one random intercept they have the
closed forms that `Estimates` uses, at a twentieth of the time, which is why there are two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats as distributions

from .._model import TermFit, structure
from .base_estimates import BaseEstimates
from .degrees_of_freedom import wald
from .moderation import moderated_test
from .random_effect import one_gene
from .term_description import describe_terms
from .term_effects import predicted_effects
from .term_levels import denominator_df
from .term_moderation import at_term_support, learn_term_moderation
from .term_ratios import ratio_factor, term_variance_test
from .term_tests import f_test_in_blocks
from .tests import contrast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from .._design import Hypothesis, RandomSpec
    from .._model import Structure
    from .degrees_of_freedom import FTest
    from .moderation import Moderated, Moderation
    from .random_effect import VarianceTest

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class TermEstimates(BaseEstimates[TermFit]):
    """Fits of one model with any random terms."""

    @cached_property
    def structure(self) -> Structure:
        """The random terms, laid out for all genes."""
        return structure(self.stats.genes(slice(0, 1)))

    @cached_property
    def moderation(self) -> Moderation:  # type: ignore[override]
        """What all genes say of the variances of one of them."""
        return learn_term_moderation(self.stats, self.structure, self.ml)

    def is_answerable(self, L: Array) -> bool:
        """Whether anything is left to judge L beta by."""
        return denominator_df(self.stats, L) > 0

    def moderated(self, L: Array, conf_level: float | None) -> Moderated:
        """Test L beta = 0 averaged over the learned prior."""
        genes = at_term_support(self.stats, self.structure, self.moderation, L)
        return moderated_test(genes, self.moderation, conf_level=conf_level, **self.workers.choices)

    def with_df(self, L: Array, method: str) -> FTest:
        """F statistic of the REML estimates, and its denominator degrees of freedom."""
        fit = self.reml
        if method in ("satterthwaite", "kenward-roger"):
            return f_test_in_blocks(self.stats, self.structure, fit, L, method, self.workers)
        df = denominator_df(self.stats, L) if method == "between-within" else np.inf
        return wald(fit, L, np.full(fit.sigma2.size, float(df)))

    def ratio_factor(self, hypothesis: Hypothesis, seed: int) -> Array:
        """What calibrates the ratio of each gene, (G,), by simulation at points near its variances."""
        return ratio_factor(self.stats, hypothesis, self.under(hypothesis).reml, seed, self.workers)

    def ratio_limits(self, hypothesis: Hypothesis, conf_level: float, factor: Array) -> tuple[Array, Array]:
        """Limits coef -+ t se with the se of maximum likelihood, as many times as wide as the factor's root, each (G,)."""
        coef, se = contrast(self.ml, hypothesis)
        width = distributions.t.ppf((1 + conf_level) / 2, denominator_df(self.stats, hypothesis.L)) * np.sqrt(factor)
        return coef - width * se, coef + width * se

    def variance_test(self, term: RandomSpec, seed: int) -> VarianceTest:
        """Restricted ratio of one random term given the others."""
        return term_variance_test(self.stats, self.reml, term, seed, self.workers)

    def ranef(self, index: int, level_names: Mapping[str, Sequence[str]], conf_level: float) -> pd.DataFrame:
        """Predicted random effects of one gene, given the names of the levels of each grouping."""
        one = self.stats.genes(slice(index, index + 1))
        return predicted_effects(one, one_gene(self.reml, index), level_names, conf_level)

    def random_columns(self, fit: TermFit, group: str) -> dict[str, Any]:
        """Standard deviations and correlations, and which variances are zero, by the names of columns of the results."""
        return describe_terms(fit, self.stats.groupings)
