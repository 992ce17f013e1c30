"""What a person reads of one gene's model of counts."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._model import COUNT_STATUS, contrast_variances, log_likelihoods
from .averaged import normal_mixture

if TYPE_CHECKING:
    from .._design import Coding
    from .._statistics import CountStatistics
    from .dispersion import Dispersions


@dataclass(frozen=True)
class CountSummary:
    """One gene's model in the layout of a summary of a generalised linear mixed model."""

    gene: str
    formula: str
    group: str
    fixed: pd.DataFrame  # a row per coefficient: estimate, se, z
    dispersion: float
    sd_donor: float  # of the logarithm of a donor's factor
    loglik: float
    status: str
    ranef: pd.DataFrame  # a row per donor

    @classmethod
    def of(
        cls, gene: str, one: CountStatistics, found: Dispersions, coding: Coding, ranef: pd.DataFrame
    ) -> CountSummary:
        """Summary from the statistics and dispersions of one gene."""
        estimates = [_estimate(one, found, row) for row in one.basis]
        fixed = pd.DataFrame(estimates, columns=["estimate", "se"], index=list(coding.coef_names))
        return cls(
            gene=gene,
            formula=coding.formula.text,
            group=coding.group,
            fixed=fixed.assign(z=fixed["estimate"] / fixed["se"]),
            dispersion=float(found.mean[0]),
            sd_donor=float(found.sd[0]),
            loglik=float(log_likelihoods(one, found.points, found.weights.argmax(axis=1))[0]),
            status=COUNT_STATUS[int(found.points.status[0])],
            ranef=ranef,
        )

    def __repr__(self) -> str:
        """Print the model."""
        return (
            f"{self.gene}: {self.formula}, negative binomial\n"
            f"log-likelihood {self.loglik:.4f}; status {self.status}\n\n"
            f"Factors of {self.group}\n"
            f"  dispersion {self.dispersion:.4g}, sd of logarithms {self.sd_donor:.4g}\n\n"
            f"Fixed effects (logarithms of counts)\n{self.fixed.to_string(float_format='{:.5g}'.format)}"
        )

    def _repr_html_(self) -> str:
        head, *_ = repr(self).split("Fixed effects")
        return f"<pre>{escape(head)}</pre>{self.fixed.to_html(float_format='{:.5g}'.format)}{self.ranef.to_html()}"


def _estimate(one: CountStatistics, found: Dispersions, row: np.ndarray) -> tuple[float, float]:
    if not found.usable[0]:
        return np.nan, np.nan
    variance = contrast_variances(one, found.points, np.ascontiguousarray(row), found.weights > 0)
    mixture = normal_mixture(found.points.beta @ row, variance, found.weights, conf_level=None)
    return float(mixture.coef[0]), float(mixture.se[0])
