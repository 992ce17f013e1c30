"""How much larger than its degrees of freedom a likelihood ratio of donor sums is on average: Bartlett's correction.

For a regression with independent y_j, known dispersion and p columns (Lawley 1956; Cordeiro 1983), with Z = X I^-1 X',

    E 2 (l(beta_hat) - l(beta)) = p + e(X) + O(n^-2)
    e(X) = sum_j Z_jj^2 (k4/4 - k3' + k2'')_j
         + sum_jk Z_jk^3 (k3_j k3_k / 6 - k3_j k2'_k + k2'_j k2'_k) + Z_jj Z_jk Z_kk (k3_j k3_k / 4 - k3_j k2'_k + k2'_j k2'_k)

where k2, k3, k4 are expected second to fourth derivatives of l_j in eta_j = log mu_j and a prime is one more. Here, with
t = phi mu and r = 1 + t,

    k2' = -mu / r^2,   k3 = -mu (1 - t) / r^2,   k4/4 - k3' + k2'' = -mu (1/4 + t + t^2/4) / r^3

The ratio of full and null model has expectation df + e(X) - e(X_0), taken at the null model's estimates. Divided by its
share per degree of freedom it is chi-square to order n^-2: two groups of Poisson sums a and b are corrected by
1 + (1/a + 1/b - 1/(a + b)) / 6, and two groups of n gamma variables of variance phi by 1 + phi / (4 n). A donor whose
fitted mean is nothing has no counts whatever happens, and adds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._compile import compiled
from .negative_binomial import half_solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_compiled = compiled(error_model="numpy")

NOTHING = 1e-6  # counts


@_compiled
def excess(mu: Array, phi: Array, X: Array, factor: Array) -> float:
    """e(X) at means `mu` (q,) and the Cholesky `factor` of the information of X there."""
    q = mu.size
    H, third, second = X.copy(), np.empty(q), np.empty(q)
    total = 0.0
    for j in range(q):
        half_solve(factor, H[j])
        t = phi[j] * mu[j]
        second[j] = mu[j] / (1 + t) ** 2 if mu[j] > NOTHING else 0.0  # -k2'
        third[j] = second[j] * (1 - t)  # -k3
        z = _product(H[j], H[j])
        total -= second[j] * (0.25 + t + t * t / 4) / (1 + t) * z * z
    for j in range(q):
        for k in range(q):
            z = _product(H[j], H[k])
            both, rest = third[j] * third[k], (second[j] - third[j]) * second[k]
            total += z * z * z * (both / 6 + rest)
            total += _product(H[j], H[j]) * z * _product(H[k], H[k]) * (both / 4 + rest)
    return total


@_compiled
def _product(x: Array, y: Array) -> float:
    total = 0.0
    for a in range(x.size):
        total += x[a] * y[a]
    return total
