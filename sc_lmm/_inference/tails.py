"""Tails of t and F, compiled, one number at a time, for what sums over many of them.

P(F(df, nu) > Q/df) = I_w(nu/2, df/2), w = nu / (nu + Q), is built up from df = 1 or 2 by DLMF 8.17.20, a sum of positive
terms. The tail of t is that of a normal deviate z(t) for nu >= 200: near the middle by the series of Fisher (1926), farther
out by Hill's expansion (1970, CACM algorithm 395), with relative errors below 2e-10 up to t = 10. For fewer degrees of
freedom it is a finite sum where it is not small (Abramowitz & Stegun 26.7.3), and a continued fraction (DLMF 8.17.22)
farther out.
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

_MANY = 200  # degrees of freedom from which t is a transformed normal
_NEAR = 2e-3  # t^2 over degrees of freedom up to which the series is exact to 1e-11
_SMALL_TAIL = 1e-4  # below which one less the middle has lost digits
_FAR = 25.0  # z from which erfc is near underflow


@_compiled
def f_tail(q: float, df: int, dof: float) -> float:
    """P(F(df, dof) > q / df), 0 where that is below 1e-300."""
    return t_tail(q, dof) if df == 1 else math.exp(log_f_tail(q, df, dof))


@_compiled
def log_f_tail(q: float, df: int, dof: float) -> float:
    """Log of P(F(df, dof) > q / df)."""
    if df == 1:
        return log_t_tail(q, dof)
    a, log_w = dof / 2, -math.log1p(q / dof)
    log_p = log_t_tail(q, dof) if df % 2 else a * log_w
    log_rest = math.log(q / (dof + q)) if q > 0 else -np.inf  # of 1 - w
    for k in range(1 if df % 2 else 2, df - 1, 2):
        b = k / 2
        term = a * log_w + b * log_rest + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b + 1)
        log_p = max(log_p, term) + math.log1p(math.exp(-abs(log_p - term)))
    return log_p


@_compiled
def t_tail(q: float, dof: float) -> float:
    """P(|t| > sqrt(q)) for t with `dof` degrees of freedom, 0 where that is below 1e-300."""
    if dof >= _MANY:
        return math.erfc(normal_deviate(math.sqrt(q), dof) / math.sqrt(2))
    if dof == math.floor(dof):
        tail = 1 - _middle(q, int(dof))
        if tail > _SMALL_TAIL:
            return tail
    return math.exp(log_t_tail(q, dof))


@_compiled
def _middle(q: float, dof: int) -> float:
    """P(|t| < sqrt(q)) for whole degrees of freedom, a sum of half as many positive terms."""
    cosine2, sine = dof / (dof + q), math.sqrt(q / (dof + q))
    term = 1.0 if dof % 2 == 0 else math.sqrt(cosine2)
    total = term if dof > 1 else 0.0
    for k in range(2 + dof % 2, dof - 1, 2):
        term *= cosine2 * (k - 1) / k
        total += term
    return sine * total if dof % 2 == 0 else 2 / math.pi * (math.asin(sine) + sine * total)


@_compiled
def log_t_tail(q: float, dof: float) -> float:
    """Log of P(|t| > sqrt(q))."""
    if q <= 0:
        return 0.0
    if dof >= _MANY:
        return math.log(2) + _log_normal_tail(normal_deviate(math.sqrt(q), dof))
    w, rest = dof / (dof + q), q / (dof + q)
    if w < (dof / 2 + 1) / (dof / 2 + 2.5):
        return _log_beta_share(dof / 2, 0.5, w, rest)
    return math.log1p(-math.exp(_log_beta_share(0.5, dof / 2, rest, w)))


@_compiled
def t_lower(t: float, dof: float) -> tuple[float, float]:
    """P(T < t) and, about, its derivative."""
    if dof >= _MANY:
        z = normal_deviate(abs(t), dof)
        tail, height = 0.5 * math.erfc(z / math.sqrt(2)), math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    else:
        tail = 0.5 * t_tail(t * t, dof)
        height = math.exp(math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - (dof + 1) / 2 * math.log1p(t * t / dof))
        height /= math.sqrt(math.pi * dof)
    return (tail if t < 0 else 1 - tail), height


@_compiled
def normal_deviate(t: float, dof: float) -> float:
    """Normal deviate with the tail of t >= 0."""
    s = t * t
    if s < _NEAR * dof:
        u = 1 / dof
        third = (5 * s - 3) * ((7 * s + 8) * s + 5) / 384
        return t * (1 - u * ((s + 1) / 4 - u * (((13 * s + 8) * s + 3) / 96 - u * third)))
    a = dof - 0.5
    b, y = 48 * a * a, a * math.log1p(s / dof)
    inner = (((-0.4 * y - 3.3) * y - 24) * y - 85.5) / (0.8 * y * y + 100 + b)
    return math.sqrt(y) * ((inner + y + 3) / b + 1)


@_compiled
def _log_normal_tail(z: float) -> float:
    """Log of P(N(0, 1) > z), z >= 0."""
    if z < _FAR:
        return math.log(0.5 * math.erfc(z / math.sqrt(2)))
    ratio = z  # Laplace's continued fraction of the Mills ratio
    for k in range(30, 0, -1):
        ratio = z + k / ratio
    return -z * z / 2 - 0.5 * math.log(2 * math.pi) - math.log(ratio)


@_compiled
def _log_beta_share(a: float, b: float, w: float, rest: float) -> float:
    """Log of I_w(a, b), with `rest` = 1 - w, by the modified Lentz algorithm; w below (a + 1) / (a + b + 2)."""
    c, d = 1.0, 1 / (1 - (a + b) / (a + 1) * w)
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * w / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * w / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return a * math.log(w) + b * math.log(rest) - log_beta - math.log(a) + math.log(value)
