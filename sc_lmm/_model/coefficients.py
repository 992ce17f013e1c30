"""Fixed effects of every gene at its own rho, by generalised least squares, all genes of a block in lockstep.

With h_j = n_j / (1 + rho n_j), x_j and y_j the level means, and W, w the products within levels,

    A = X'V^-1 X = W + sum_j h_j x_j x_j'        a = X'V^-1 y = w + sum_j h_j x_j y_j        beta = A^-1 a

a form that loses no digits when rho is large. With A = L L' and U = L^-1 basis' the estimates in the user's columns are
U' (L^-1 a) and their covariance over sigma^2 is U' U. Genes are the last axis, so that each step is one of long vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class Moments(NamedTuple):
    """Products of the columns with each other and with y: q levels, p columns, G genes."""

    sizes: Array  # (q,)
    level_means: Array  # (q, p) x_j
    within: Array  # (p, p) W
    within_y: Array  # (p, G) w
    ZtY: Array  # (q, G)


def least_squares(rho: Array, moments: Moments, basis: Array) -> tuple[Array, Array]:
    """Estimates (p_user, G) and their covariance over sigma^2 (p_user, p_user, G), with `basis` (p_user, p)."""
    A, a = _normal_equations(rho, moments)
    _cholesky(A)
    U = np.repeat(basis.T[:, :, None], rho.size, axis=2)  # (p, p_user, G)
    _solve(A, U)
    _solve(A, a)
    beta = (U * a[:, None]).sum(axis=0)
    unscaled = np.empty((len(basis), *beta.shape))
    for i in range(len(basis)):
        for k in range(i + 1):
            unscaled[i, k] = unscaled[k, i] = (U[:, i] * U[:, k]).sum(axis=0)
    return beta, unscaled


def _normal_equations(rho: Array, m: Moments) -> tuple[Array, Array]:
    """A (p, p, G) and a (p, G)."""
    p = len(m.within)
    n, x = m.sizes[:, None], m.level_means
    inflated = 1 + rho * n  # (q, G), h = n / inflated and h y_j = Z'y / inflated
    outer = (x[:, :, None] * x[:, None, :]).reshape(-1, p * p)
    A = m.within[:, :, None] + (outer.T @ (n / inflated)).reshape(p, p, -1)
    return A, m.within_y + x.T @ (m.ZtY / inflated)


def _cholesky(A: Array) -> None:
    """Overwrite the lower triangle of A (p, p, G) by L."""
    for j in range(len(A)):
        A[j, j] = np.sqrt(A[j, j] - (A[j, :j] ** 2).sum(axis=0))
        for i in range(j + 1, len(A)):
            A[i, j] = (A[i, j] - (A[i, :j] * A[j, :j]).sum(axis=0)) / A[j, j]


def _solve(L: Array, b: Array) -> None:
    """Overwrite b (p, ..., G) by L^-1 b."""
    for i in range(len(L)):
        for k in range(i):
            b[i] -= L[i, k] * b[k]
        b[i] /= L[i, i]
