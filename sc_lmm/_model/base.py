"""What the fit of a gene gives, whatever the random terms, and how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

OK, BOUNDARY, CONSTANT, MAX_ITER, FAILED = range(5)
STATUS = ("ok", "boundary", "constant", "max_iter", "failed")

# What is left of y'y is rounding below this share: twelve of the digits of y are gone, and fewer than four are left.
ROUNDING = 2.0**-80


@dataclass(frozen=True)
class BaseFit(ABC):
    """Estimates of one model for G genes, in the user's units."""

    coef_names: tuple[str, ...]  # (p,)
    beta: Array  # (G, p)
    vcov: Array  # (G, p, p) covariance of beta
    sigma2: Array  # (G,) residual variance
    deviance: Array  # (G,) -2 log L (ML) or -2 log restricted L (REML)
    status: NDArray[np.int8]  # (G,) position in STATUS
    reml: bool

    @property
    def se(self) -> Array:
        """Standard errors of beta, (G, p)."""
        return np.sqrt(np.diagonal(self.vcov, axis1=1, axis2=2))

    @property
    def loglik(self) -> Array:
        """Log-likelihood, restricted if `reml`, (G,)."""
        return -self.deviance / 2

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Genes whose estimates are a maximum of the likelihood, (G,)."""
        return self.status <= BOUNDARY

    @property
    @abstractmethod
    def icc(self) -> Array:
        """Share of the random terms in the variance of a cell, (G,)."""
