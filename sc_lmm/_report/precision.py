"""Anatomy of a design -> how well a coefficient can be known: its variance, design effect and detectable effect.

In units of the standard deviation of a cell, V = (1 - ICC) I + ICC ZZ' and

    var(beta_hat) = (X'V^-1 X)^-1,   X'V^-1 X = R'R / (1 - ICC) + sum_j n_j xbar_j xbar_j' / (1 - ICC + n_j ICC)

No n x n matrix is formed. The effect found with given power solves P(|t'| > t_crit) = power for the noncentrality of
t', times the standard error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, optimize, special, stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .anatomy import Anatomy

    Array = NDArray[np.float64]

REFERENCE_ICC = 0.05  # a usual value for single cells, where one has to be chosen


def standard_errors(anatomy: Anatomy, icc: float, columns: Sequence[int], L: Array | None = None) -> Array:
    """Standard errors of L beta in a model of independent `columns`, or of each coefficient if L (k, p) is not given."""
    cols = list(columns)
    weight = anatomy.sizes / (1 - icc + anatomy.sizes * icc)
    rows = np.vstack([anatomy.R[:, cols] / np.sqrt(1 - icc), np.sqrt(weight)[:, None] * anatomy.means[:, cols]])
    scale = np.linalg.norm(rows, axis=0)
    triangle = np.linalg.qr(rows / scale, mode="r")
    wanted = (np.eye(len(cols)) if L is None else L[:, cols]) / scale
    return np.asarray(np.linalg.norm(linalg.solve_triangular(triangle, wanted.T, trans="T"), axis=0))


def endless_standard_errors(anatomy: Anatomy, icc: float, columns: Sequence[int], L: Array | None = None) -> Array:
    """Limit of the standard errors for endlessly many cells per donor: what varies within donors is then known."""
    cols = list(columns)
    R = anatomy.R[:, cols]
    length = np.linalg.norm(R, axis=0)
    scale = np.where(length > 0, length, 1.0)
    unknown = linalg.null_space(R / scale, rcond=1e-7) / scale[:, None]
    wanted = unknown if L is None else L[:, cols] @ unknown
    if not unknown.size:
        return np.zeros(len(wanted))
    triangle = np.linalg.qr(anatomy.means[:, cols] @ unknown, mode="r")
    return np.asarray(np.sqrt(icc) * np.linalg.norm(linalg.solve_triangular(triangle, wanted.T, trans="T"), axis=0))


def within_share(anatomy: Anatomy, L: Array, icc: float = REFERENCE_ICC) -> float:
    """Share of the information on L beta, L (1, p), that comes from differences within donors.

    That information alone is 1 / (L (R'R)^+ L') / (1 - ICC), and none if R'R does not determine L beta.
    """
    columns = list(anatomy.independent)
    R, wanted = anatomy.R[:, columns], L[0, columns]
    length = np.linalg.norm(R, axis=0)
    scale = np.where(length > 0, length, 1.0)
    z, *_ = np.linalg.lstsq((R / scale).T, wanted / scale, rcond=1e-10)
    if np.linalg.norm((R / scale).T @ z - wanted / scale) > 1e-7 * np.linalg.norm(wanted / scale):
        return 0.0
    se = standard_errors(anatomy, icc, columns, L)[0]
    return float(se**2 / (z @ z) / (1 - icc))


def noncentrality(df: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Noncentrality at which a two-sided t test at level `alpha` has the given power, 0.5 or more.

    Rejections in the wrong direction, less than 1e-6 of all, are neglected.
    """
    return float(special.nctdtrinc(df, 1 - power, stats.t.isf(alpha / 2, df)))


def enough_cells_icc(anatomy: Anatomy, L: Array, gain: float = 0.1) -> float:
    """Smallest ICC from which endless cells would lower the standard error of L (1, p) by less than `gain`, 1 if none."""
    columns = list(anatomy.independent)

    def short(log_icc: float) -> float:
        icc = float(np.exp(log_icc))
        now, endless = (f(anatomy, icc, columns, L)[0] for f in (standard_errors, endless_standard_errors))
        return float(endless / now) - (1 - gain)

    low, high = float(np.log(1e-6)), float(np.log(0.99))
    if short(high) < 0:
        return 1.0
    return float(np.exp(optimize.brentq(short, low, high, xtol=1e-4))) if short(low) < 0 else 1e-6
