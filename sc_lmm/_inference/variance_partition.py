"""Fits -> shares of the variance of a gene, as variancePartition defines them (Hoffman & Schadt 2016).

    var(X_t beta_t)  of each fixed term          over the cells
    sigma^2 tr(Gamma_g) in standardised columns  of each grouping: the variance of Z_g b_g in an average cell
    sigma^2                                      of the residual

each divided by the sum of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._model import Fit, shares
from .._names import INTERCEPT, RESIDUAL, distinct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._design import Coding
    from .._model import TermFit
    from .._statistics import Grouping, SufficientStatistics

    Array = NDArray[np.float64]


def variance_partition(
    stats: SufficientStatistics, fit: Fit | TermFit, coding: Coding, var_names: pd.Index
) -> pd.DataFrame:
    """Tabulate the shares: a row per gene, a column per fixed term, grouping, and the residual."""
    covariance = _column_covariance(stats)
    fixed = {
        term: np.einsum("gi,ij,gj->g", fit.beta[:, columns], covariance[columns, columns], fit.beta[:, columns])
        for term, columns in coding.terms.items()
        if term != INTERCEPT
    }
    random = _random(fit, coding.group, stats.groupings)
    names = distinct([*fixed, *random, RESIDUAL], taken=())
    values = np.stack([*fixed.values(), *random.values(), fit.sigma2], axis=1)
    return pd.DataFrame(values / values.sum(axis=1, keepdims=True), index=var_names, columns=names)


def _random(fit: Fit | TermFit, group: str, groupings: Sequence[Grouping]) -> dict[str, Array]:
    if isinstance(fit, Fit):
        return {group: fit.rho * fit.sigma2}
    share = shares(fit.groupings, fit.phi)
    relative = share / (1 - share.sum(axis=1, keepdims=True))
    found = {g.name: fit.sigma2 * values for g, values in zip(fit.groupings, relative.T, strict=True)}
    return {grouping.name: found[grouping.name] for grouping in groupings}


def _column_covariance(stats: SufficientStatistics) -> Array:
    """Covariance of the user's columns over cells, (p, p)."""
    mean = stats.ZtX.sum(axis=0) / stats.n_cells
    centred = stats.XtX / stats.n_cells - np.outer(mean, mean)
    return stats.columns.T @ centred @ stats.columns * (stats.n_cells / (stats.n_cells - 1))
