"""Methods of the study: name -> p-values of a fit. The oracle knows each gene's variance ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats as distributions

from sc_lmm._model import profile, spectrum
from sc_lmm._model.deviance import coefficients

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_lmm._inference import LmmFit

    from .calibration_simulate import Cohort, Genes

    Array = NDArray[np.float64]

ORACLE, DEFAULT, RATIO = "oracle", "default", "calibrated ratio"
CHOICES: dict[str, dict[str, object]] = {
    DEFAULT: {"moderate": True},
    RATIO: {"moderate": False},
    "chi-square": {"moderate": False, "calibrate": False},
    "between-within": {"method": "between-within"},
    "between-within squeezed": {"method": "between-within", "moderate": True},
    "kenward-roger": {"method": "kenward-roger"},
    "kenward-roger squeezed": {"method": "kenward-roger", "moderate": True},
}
METHODS = (ORACLE, *CHOICES)


@dataclass(frozen=True)
class Truth:
    """A set of genes as drawn and as fitted."""

    cohort: Cohort
    genes: Genes
    fit: LmmFit

    def pvals(self, method: str) -> Array:
        """P-values of the tested term, (G,)."""
        if method == ORACLE:
            return oracle(self.cohort, self.genes, self.fit)
        with np.errstate(invalid="ignore"):  # Kenward-Roger's F of several df is negative where its own df are below 2
            return self.fit.pvals(self.cohort.test, **CHOICES[method])


def oracle(cohort: Cohort, genes: Genes, fit: LmmFit) -> Array:
    """The exact F test at the true rho of each gene."""
    restricted = profile(fit.stats, spectrum(fit.stats, reml=True))
    L, dof = cohort.hypothesis.L, restricted.spectrum.dof
    beta, unscaled = coefficients(fit.stats, genes.rho)
    estimate = beta @ L.T
    Q = (estimate * np.linalg.solve(L @ unscaled @ L.T, estimate[:, :, None])[:, :, 0]).sum(axis=1)
    return distributions.f.sf(Q / len(L) / (restricted.rss(genes.rho) / dof), len(L), dof)
