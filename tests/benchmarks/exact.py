"""An independent oracle: the maximum of the likelihood of one gene, by exhaustive search over rho.

Shares nothing with sc_lmm. With V = I + rho Z Z', V^-1 = I - Z diag(rho / (1 + rho n_j)) Z', so that

    -2 log L(rho) = n (log(2 pi rss / n) + 1) + sum_j log(1 + rho n_j)

is cheap at any rho. Every local minimum on a fine grid is refined, and rho = 0 is tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, optimize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_LOG_RHO = np.linspace(np.log(1e-9), np.log(1e5), 130)


class Oracle:
    """Exact maximum-likelihood fits of genes that share one design."""

    def __init__(self, X: Array, codes: NDArray[np.integer]) -> None:
        self.Q = np.linalg.qr(X)[0]  # the likelihood depends on the span of X alone
        self.codes, self.sizes = codes, np.bincount(codes).astype(float)
        self.ZtQ = np.stack([np.bincount(codes, column) for column in self.Q.T], axis=1)

    def loglik(self, y: Array) -> float:
        """Maximised log-likelihood of one gene; X must contain a constant."""
        y = y - y.mean()
        sums = np.bincount(self.codes, y), self.Q.T @ y, float(y @ y)
        values = np.array([self._deviance(t, *sums) for t in _LOG_RHO])
        low = (values[1:-1] <= values[:-2]) & (values[1:-1] <= values[2:])
        candidates = [self._deviance(-np.inf, *sums)]
        for i in np.flatnonzero(low) + 1:
            span = (_LOG_RHO[i - 1], _LOG_RHO[i + 1])
            found = optimize.minimize_scalar(
                self._deviance, args=sums, bounds=span, method="bounded", options={"xatol": 1e-9}
            )
            candidates.append(float(found.fun))
        return -min(candidates) / 2

    def _deviance(self, log_rho: float, Zty: Array, Qty: Array, yty: float) -> float:
        rho, n = np.exp(log_rho), self.codes.size
        weight = rho / (1 + rho * self.sizes)
        A = np.eye(Qty.size) - (self.ZtQ * weight[:, None]).T @ self.ZtQ
        a = Qty - self.ZtQ.T @ (weight * Zty)
        rss = yty - weight @ Zty**2 - a @ linalg.solve(A, a, assume_a="pos")
        return float(n * (np.log(2 * np.pi * rss / n) + 1) + np.log1p(rho * self.sizes).sum())
