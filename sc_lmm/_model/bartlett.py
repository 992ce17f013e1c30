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

NOTHING = 1e-8  # counts


@_compiled
def excess(mu: Array, phi: Array, X: Array, factor: Array) -> float:
    """e(X) at means `mu` (q,) and the Cholesky `factor` of the information of X there.

    With H = X factor'^-1, Z_jk = H_j'H_k, so that the double sums are inner products of sums over donors of the third powers
    H_j x H_j x H_j, and of their traces Z_jj H_j.
    """
    q, p = X.shape
    cubes, traces, h = np.zeros((2, p, p, p)), np.zeros((2, p)), np.empty(p)
    total = 0.0
    for j in range(q):
        if mu[j] < NOTHING:
            continue
        h[:] = X[j]
        half_solve(factor, h)
        t, z = phi[j] * mu[j], 0.0
        second = mu[j] / (1 + t) ** 2  # -k2', and -k3 is (1 - t) times this
        for a in range(p):
            z += h[a] * h[a]
        total -= second * (0.25 + t + t * t / 4) / (1 + t) * z * z
        for a in range(p):
            traces[0, a] += second * z * h[a]
            traces[1, a] += second * (1 - t) * z * h[a]
            for b in range(a + 1):
                square = second * h[a] * h[b]
                for c in range(b + 1):
                    cubes[0, a, b, c] += square * h[c]
                    cubes[1, a, b, c] += (1 - t) * square * h[c]
    for a in range(p):
        total += _pair(traces[0, a], traces[1, a], 4)
        for b in range(a + 1):
            for c in range(b + 1):  # once for each order of the three
                orders = 6 if a > b > c else 1 if a == c else 3
                total += orders * _pair(cubes[0, a, b, c], cubes[1, a, b, c], 6)
    return total


@_compiled
def _pair(second: float, third: float, share: int) -> float:
    """k3 k3 / share - k3 k2' + k2' k2', given -k2' and -k3."""
    return third * third / share + (second - third) * second
