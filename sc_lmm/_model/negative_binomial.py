"""The negative binomial regression of donor sums at known dispersion, one gene at a time, compiled.

A donor's sum of counts y_j, of exposure S_j, is Poisson given the donor's own factor, which is gamma distributed with
mean 1 and variance phi_j, so that over donors it is negative binomial (McCullagh & Nelder 1989):

    mu_j = S_j exp(x_j' beta),   E y_j = mu_j,   var y_j = mu_j + phi_j mu_j^2
    l    = sum_j  y_j log mu_j - (y_j + 1/phi_j) log(1 + phi_j mu_j)  +  sum_{i < y_j} log(1 + i phi_j)  -  log y_j!
    score X'((y - mu) / (1 + phi mu)),   observed information X' diag(mu (1 + phi y) / (1 + phi mu)^2) X,
    expected information I = X' diag(mu / (1 + phi mu)) X

l is concave in beta, so Newton's steps climb to its one maximum; one after which the slope along it is steeper than before
has gone too far and is halved. Where a combination of donors has no counts the maximum is at infinity, and l there is
a limit. From l is therefore taken _LEAN / 2 times the square of beta, which leaves nine digits of any other maximum as they
are, and ends the way to infinity where the means are some 1e-9 counts and l is within as much of its limit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .._compile import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_compiled = compiled(error_model="numpy")

_STEPS = 100
_LEAN = 1e-10
_FARTHEST = 4.0
_ENOUGH = 1e-7  # twice what l is below its maximum before the last step, which squares it


@_compiled
def maximise(y: Array, log_exposure: Array, X: Array, phi: Array, beta: Array, mu: Array, information: Array) -> bool:
    """Overwrite `beta` (p,) by the maximum from there, and with it its means `mu` (q,), which must be those of `beta`.

    `information` (p, p) becomes a factor of I, lower triangular, its product with its transpose being I. Returns whether the
    steps came to an end.
    """
    step, score = np.zeros(beta.size), np.empty(beta.size)
    slope, done = np.inf, False
    for _ in range(_STEPS):
        _derivatives(y, X, phi, beta, mu, score, information)
        if abs(_dot(score, step)) > slope:
            for a in range(beta.size):
                step[a] /= 2
                beta[a] -= step[a]
            fitted_means(log_exposure, X, beta, mu)
            continue
        cholesky(information)
        step[:] = score
        solve(information, step)
        _shorten(X, step)
        slope = _dot(score, step)
        for a in range(beta.size):
            beta[a] += step[a]
        fitted_means(log_exposure, X, beta, mu)
        if slope < _ENOUGH:
            done = True
            break
    information_factor(mu, phi, X, information)
    return done


@_compiled
def _derivatives(y: Array, X: Array, phi: Array, beta: Array, mu: Array, score: Array, information: Array) -> None:
    """Score and observed information at beta."""
    p = beta.size
    information[:] = 0.0
    for a in range(p):
        score[a] = -_LEAN * beta[a]
        information[a, a] = _LEAN
    for j in range(y.size):
        inflated = 1 / (1 + phi[j] * mu[j])
        u = (y[j] - mu[j]) * inflated
        w = mu[j] * (1 + phi[j] * y[j]) * inflated * inflated
        for a in range(p):
            score[a] += X[j, a] * u
            xw = X[j, a] * w
            for b in range(a + 1):
                information[a, b] += xw * X[j, b]


@_compiled
def _shorten(X: Array, step: Array) -> None:
    """Keep a step from changing a mean by more than a factor of exp(_FARTHEST), beyond which l is not known from here."""
    farthest = 0.0
    for j in range(X.shape[0]):
        change = 0.0
        for a in range(step.size):
            change += X[j, a] * step[a]
        farthest = max(farthest, abs(change))
    if farthest > _FARTHEST:
        for a in range(step.size):
            step[a] *= _FARTHEST / farthest


@_compiled
def fitted_means(log_exposure: Array, X: Array, beta: Array, mu: Array) -> None:
    """Overwrite `mu` (q,) by the means at beta."""
    for j in range(mu.size):
        eta = log_exposure[j]
        for a in range(beta.size):
            eta += X[j, a] * beta[a]
        mu[j] = math.exp(eta)


@_compiled
def information_factor(mu: Array, phi: Array, X: Array, information: Array) -> None:
    """Overwrite `information` (p, p) by a factor of the expected information at means `mu`."""
    p = X.shape[1]
    information[:] = 0.0
    for a in range(p):
        information[a, a] = _LEAN
    for j in range(mu.size):
        w = mu[j] / (1 + phi[j] * mu[j])
        for a in range(p):
            xw = X[j, a] * w
            for b in range(a + 1):
                information[a, b] += xw * X[j, b]
    cholesky(information)


@_compiled
def loglik_of_means(y: Array, mu: Array, phi: Array) -> float:
    """The part of l that the means are in."""
    total = 0.0
    for j in range(y.size):
        if y[j] > 0:
            total += y[j] * math.log(mu[j])
        log_inflated = math.log1p(phi[j] * mu[j])
        total -= y[j] * log_inflated + (log_inflated / phi[j] if phi[j] > 0 else mu[j])
    return total


@_compiled
def loglik_of_counts(y: Array, phi: Array) -> float:
    """The rest of l, which the means are not in."""
    total = 0.0
    for j in range(y.size):
        total -= math.lgamma(y[j] + 1)
        if phi[j] > 0:
            total += math.lgamma(y[j] + 1 / phi[j]) - math.lgamma(1 / phi[j]) + y[j] * math.log(phi[j])
    return total


@_compiled
def log_determinant(factor: Array) -> float:
    """Log determinant of A, given its Cholesky factor."""
    total = 0.0
    for a in range(factor.shape[0]):
        total += 2 * math.log(factor[a, a])
    return total


@_compiled
def cholesky(A: Array) -> None:
    """Overwrite the lower triangle of A by its Cholesky factor."""
    for a in range(A.shape[0]):
        for b in range(a + 1):
            left = A[a, b]
            for c in range(b):
                left -= A[a, c] * A[b, c]
            A[a, b] = math.sqrt(max(left, _LEAN)) if a == b else left / A[b, b]


@_compiled
def half_solve(factor: Array, x: Array) -> None:
    """Overwrite x by the inverse of the factor times x."""
    for a in range(x.size):
        for c in range(a):
            x[a] -= factor[a, c] * x[c]
        x[a] /= factor[a, a]


@_compiled
def solve(factor: Array, x: Array) -> None:
    """Overwrite x by A^-1 x, given the Cholesky factor of A."""
    half_solve(factor, x)
    for a in range(x.size - 1, -1, -1):
        for c in range(a + 1, x.size):
            x[a] -= factor[c, a] * x[c]
        x[a] /= factor[a, a]


@_compiled
def _dot(x: Array, y: Array) -> float:
    total = 0.0
    for a in range(x.size):
        total += x[a] * y[a]
    return total
