"""Time and peak memory of each hot function, in the form that airspeed velocity (asv) runs on every commit.

Sizes are small, to be compared between commits and not with other programs. The functions run without asv too.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

import sc_lmm as sl
from sc_lmm._design.hypothesis import Hypothesis
from sc_lmm._design.model_matrix import build_design
from sc_lmm._inference.calibration import calibrate
from sc_lmm._inference.intervals import profile_interval
from sc_lmm._model.deviance import spectrum
from sc_lmm._model.fit import fit_models
from sc_lmm._statistics import null_model, sufficient_statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sc_lmm._statistics.sufficient import SufficientStatistics

FORMULA, TEST = "~ sequencing_saturation + diagnosis + (1 | sample_id)", "diagnosis"
N_CELLS, N_GENES = 6_000, 4_000
LAYOUTS = ("CSR", "CSC", "dense C", "dense F")
DONORS = (24, 200)


@cache
def _cohort(n_cells: int, n_genes: int, n_donors: int) -> AnnData:
    return sl.datasets.brain_cohort(n_donors, n_cells, n_genes, library_size=max(1.0, n_genes / 6))


def _laid_out(layout: str, n_donors: int = 24) -> AnnData:
    adata = _cohort(N_CELLS, N_GENES, n_donors).copy()
    if layout != "CSR":
        adata.X = adata.X.tocsc() if layout == "CSC" else adata.X.toarray(order=layout[-1])
    return adata


def _problem(n_donors: int) -> tuple[Sequence[str], SufficientStatistics, Hypothesis]:
    """Coefficients, statistics of the full model, and what is tested."""
    adata = _laid_out("CSR", n_donors)
    design = build_design(FORMULA, adata.obs)
    hypothesis = Hypothesis(TEST, np.eye(design.X.shape[1])[design.terms[TEST]])
    return design.coef_names, sufficient_statistics(adata.X, design, show_progress=False), hypothesis


class Pass:
    """The visit of the matrix."""

    params = LAYOUTS
    param_names = ("layout",)

    def setup(self, layout: str) -> None:
        """Lay out a cohort and compile the loops."""
        self.adata = _laid_out(layout)
        self.design = build_design(FORMULA, self.adata.obs)
        sufficient_statistics(self.adata.X, self.design, show_progress=False)

    def time_statistics(self, _layout: str) -> None:
        """Time the statistics of all genes."""
        sufficient_statistics(self.adata.X, self.design, show_progress=False)

    def peakmem_statistics(self, _layout: str) -> None:
        """Measure the memory of the statistics of all genes."""
        sufficient_statistics(self.adata.X, self.design, show_progress=False)


class Fits:
    """What follows the visit, which knows nothing of cells."""

    params = DONORS
    param_names = ("donors",)

    def setup(self, donors: int) -> None:
        """Take the statistics of the full and the null model."""
        self.names, full, hypothesis = _problem(donors)
        self.models = [full, null_model(full, hypothesis)]

    def time_spectrum(self, _donors: int) -> None:
        """Time the eigendecomposition that all genes share."""
        spectrum(self.models[0], reml=False)

    def peakmem_spectrum(self, _donors: int) -> None:
        """Measure the memory of the eigendecomposition that all genes share."""
        spectrum(self.models[0], reml=False)

    def time_fits(self, _donors: int) -> None:
        """Time the full and the null fit of all genes."""
        fit_models(self.models, self.names, show_progress=False)

    def peakmem_fits(self, _donors: int) -> None:
        """Measure the memory of the full and the null fit of all genes."""
        fit_models(self.models, self.names, show_progress=False)


class Inference:
    """What follows the fits of a likelihood-ratio test."""

    params = DONORS
    param_names = ("donors",)

    def setup(self, donors: int) -> None:
        """Fit the full model."""
        names, self.stats, self.hypothesis = _problem(donors)
        (self.full,) = fit_models([self.stats], names, show_progress=False)

    def time_calibration(self, _donors: int) -> None:
        """Time the simulation behind the calibration."""
        self._calibrate()

    def peakmem_calibration(self, _donors: int) -> None:
        """Measure the memory of the simulation behind the calibration."""
        self._calibrate()

    def time_intervals(self, _donors: int) -> None:
        """Time the profile-likelihood intervals of all genes."""
        self._limits()

    def peakmem_intervals(self, _donors: int) -> None:
        """Measure the memory of the profile-likelihood intervals of all genes."""
        self._limits()

    def _calibrate(self) -> None:
        calibrate(self.stats.genes(slice(0, 1)), self.hypothesis)

    def _limits(self) -> None:
        one = np.ones(self.stats.n_genes)
        profile_interval(self.stats, self.full, self.hypothesis, 0.95, one, show_progress=False)


class Call:
    """The whole tool."""

    params = LAYOUTS
    param_names = ("layout",)

    def setup(self, layout: str) -> None:
        """Lay out a cohort and compile the loops."""
        self.adata = _laid_out(layout)
        self._call()

    def time_lmm_de(self, _layout: str) -> None:
        """Time the whole call."""
        self._call()

    def peakmem_lmm_de(self, _layout: str) -> None:
        """Measure the memory of the whole call."""
        self._call()

    def _call(self) -> None:
        sl.tl.lmm_de(self.adata, FORMULA, test=TEST, show_progress=False)


class Design:
    """Formula and annotations to X and Z."""

    def setup(self) -> None:
        """Take a cohort's annotations."""
        self.obs = _cohort(N_CELLS, N_GENES, 24).obs

    def time_design(self) -> None:
        """Time the coding of the formula."""
        build_design(FORMULA, self.obs)

    def peakmem_design(self) -> None:
        """Measure the memory of the coding of the formula."""
        build_design(FORMULA, self.obs)
