"""The steps of sc_lmm one by one, as ``tl.lmm_de`` calls them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import sc_lmm as sl
from sc_lmm._design.hypothesis import Hypothesis
from sc_lmm._design.model_matrix import Design, build_design
from sc_lmm._model.fit import Fit, fit_models
from sc_lmm._statistics import SufficientStatistics, null_model, sufficient_statistics

from .plan import FORMULA, TEST

if TYPE_CHECKING:
    from anndata import AnnData


class Model(NamedTuple):
    """A design and the statistics of its full and its null model."""

    design: Design
    full: SufficientStatistics
    null: SufficientStatistics


def call(adata: AnnData, **arguments: Any) -> None:
    """Run the whole tool."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sl.tl.lmm_de(adata, FORMULA, test=TEST, show_progress=False, **arguments)


def read(adata: AnnData, design: Design) -> SufficientStatistics:
    """Read the matrix."""
    return sufficient_statistics(adata.X, design, show_progress=False)


def prepare(adata: AnnData) -> Model:
    """Do everything that comes before the fits."""
    design = build_design(FORMULA, adata.obs)
    stats = read(adata, design)
    hypothesis = Hypothesis(TEST, np.eye(design.X.shape[1])[design.terms[TEST]])
    return Model(design, stats, null_model(stats, hypothesis))


def fit(model: Model) -> list[Fit]:
    """Fit the full and the null model of every gene; of the null only the likelihood is asked."""
    names = model.design.coef_names
    full = fit_models([model.full], names, show_progress=False)
    return full + fit_models([model.null], names, estimates=False, show_progress=False)


def likelihood_ratios(model: Model) -> np.ndarray:
    """Likelihood-ratio statistic of every gene, (G,)."""
    full, null = fit(model)
    return null.deviance - full.deviance
