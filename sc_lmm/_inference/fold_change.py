"""Coefficient on a logarithmic scale -> log2 fold change as scanpy defines it, at the model's adjusted means.

    mu_0 = x_0' beta, mu_1 = mu_0 + L beta        log2 ((expm1(mu_1) + 1e-9) / (expm1(mu_0) + 1e-9))

x_0 is the average row of X, but for the columns of the tested factors: these are as in the condition that is compared
with (the negative part of L). A numeric column is compared over one unit about its average. scanpy takes the same ratio of plain group means, so that the two can be compared gene by gene; a coefficient in log2 units would be much
smaller for a gene that few cells express, because most of its values are zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Coding, Hypothesis
    from .._statistics import SufficientStatistics

    Array = NDArray[np.float64]

_SMALLEST = 1e-9  # scanpy's


def log2_fold_changes(
    stats: SufficientStatistics, coding: Coding, hypothesis: Hypothesis, beta: Array, coef: Array, log_base: float
) -> Array:
    """Log2 fold change of the estimates `coef` (G,) of one comparison, given those of all coefficients, (G, p)."""
    if hypothesis.df > 1:
        return np.full(coef.size, np.nan)
    reference = beta @ reference_row(stats, coding, hypothesis.L[0])
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # NaN where no number holds the means, so that they are no logarithms
        low, high = (np.maximum(np.expm1(mean * np.log(log_base)), 0.0) for mean in (reference, reference + coef))
        return np.where(np.isfinite(low + high), np.log2((high + _SMALLEST) / (low + _SMALLEST)), np.nan)


def reference_row(stats: SufficientStatistics, coding: Coding, L: Array) -> Array:
    """The row of X of the condition that a comparison `L` (p,) starts from, in the user's columns, (p,)."""
    row = average_row(stats)
    for term, columns in coding.terms.items():
        if L[columns].any():
            row[columns] = np.maximum(-L[columns], 0) if coding.is_categorical(term) else row[columns] - L[columns] / 2
    return row


def average_row(stats: SufficientStatistics) -> Array:
    """Average of the rows of X, in the user's columns, (p,)."""
    mean = stats.ZtX.sum(axis=0) / stats.sizes.sum()
    return np.linalg.solve(stats.basis.T, mean)
