"""Moments -> deviance, its derivatives, and the estimates of beta and sigma^2: the same for every structure.

With S = M_XX, beta = S^-1 M_Xy and w = (-beta, 1), and subscripts a, b for derivatives in phi,

    rss = w' M w                rss_a = w' M_a w        rss_ab = w' M_ab w - 2 h_a' S^-1 h_b,     h_a = (M_a w)_X
    D    = log|V| (+ log|S|) + dof log rss + dof (log(2 pi / dof) + 1)          dof = n (ML), n - p (REML)
    D_a  = l_a + dof rss_a / rss
    D_ab = l_ab + dof (rss_ab / rss - rss_a rss_b / rss^2)                      expected: -l_ab - l_a l_b / dof

where l is log|V|, and for REML also log|S|: its derivatives tr(S^-1 M_a), tr(S^-1 M_ab) - tr(S^-1 M_a S^-1 M_b).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .compiled import bare
from .small import cholesky, multiply, solve, trace_of_product

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .rest import Moments
    from .structure import Structure

    Array = NDArray[np.float64]


class Profiled(NamedTuple):
    """The deviance at one phi; overwritten."""

    value: Array  # (1,)
    rss: Array  # (1,)
    beta: Array  # (p,)
    factor: Array  # (p, p) lower triangle: S = L L'
    gradient: Array  # (k,)
    hessian: Array  # (k, k)
    expected: Array  # (k, k)
    inverse: Array  # (p, p) S^-1
    w: Array  # (p + 1,)
    h: Array  # (k, p)
    solved: Array  # (k, p) S^-1 h
    scaled: Array  # (k, p, p) M_a S^-1, for REML
    log_slope: Array  # (k,)
    rss_slope: Array  # (k,)


@bare
def profile_moments(m: Moments, dof: float, reml: bool, order: int, out: Profiled) -> None:  # noqa: FBT001
    """Overwrite `out`; NaN where S is not positive definite."""
    p = out.beta.size
    for i in range(p):
        for j in range(p):
            out.factor[i, j] = m.M[i, j]
        out.beta[i] = m.M[i, p]
    if not cholesky(out.factor, p):
        out.value[0] = np.nan
        return
    solve(out.factor, out.beta, p)
    rss, log_det = m.M[p, p], m.log_det[0]
    for i in range(p):
        rss -= out.beta[i] * m.M[i, p]
        if reml:
            log_det += 2 * np.log(out.factor[i, i])
    out.rss[0] = rss
    out.value[0] = log_det + dof * (np.log(rss) + np.log(2 * np.pi / dof) + 1)
    if order > 0:
        _derivatives(m, dof, reml, out)


@bare
def invert(L: Array, inverse: Array) -> None:
    """Overwrite `inverse` by (L L')^-1."""
    for i in range(len(L)):
        for j in range(len(L)):
            inverse[i, j] = 1.0 if i == j else 0.0
        solve(L, inverse[i], len(L))


@bare
def _derivatives(m: Moments, dof: float, reml: bool, out: Profiled) -> None:  # noqa: FBT001
    p, k, rss = out.beta.size, out.gradient.size, out.rss[0]
    invert(out.factor, out.inverse)
    for i in range(p):
        out.w[i] = -out.beta[i]
    out.w[p] = 1.0
    for a in range(k):
        out.log_slope[a] = m.l1[a]
        out.rss_slope[a] = _rss_slope(m.M1[a], out.w, out.inverse, out.h[a], out.solved[a])
        if reml:
            multiply(m.M1[a], out.inverse, p, p, p, out.scaled[a])
            for i in range(p):
                out.log_slope[a] += out.scaled[a, i, i]
        out.gradient[a] = out.log_slope[a] + dof * out.rss_slope[a] / rss
    for a in range(k):
        for b in range(a + 1):
            M, log_ab = m.M2[a, b], m.l2[a, b]
            if reml:
                log_ab += trace_of_product(out.inverse, M, p) - trace_of_product(out.scaled[a], out.scaled[b], p)
            rss_ab = _rss_curvature(M, out.w, out.h[a], out.solved[b])
            exact = log_ab + dof * (rss_ab / rss - out.rss_slope[a] * out.rss_slope[b] / (rss * rss))
            out.hessian[a, b] = out.hessian[b, a] = exact
            out.expected[a, b] = out.expected[b, a] = -log_ab - out.log_slope[a] * out.log_slope[b] / dof


@bare
def _rss_curvature(M: Array, w: Array, h: Array, solved: Array) -> float:
    """rss_ab of h_a and S^-1 h_b."""
    total = 0.0
    for i in range(w.size):
        for j in range(w.size):
            total += w[i] * M[i, j] * w[j]
    for i in range(h.size):
        total -= 2 * h[i] * solved[i]
    return total


@bare
def _rss_slope(M: Array, w: Array, inverse: Array, h: Array, solved: Array) -> float:
    """Overwrite h_a and S^-1 h_a; rss_a."""
    p, slope = h.size, 0.0
    for i in range(p + 1):
        product = 0.0
        for j in range(p + 1):
            product += M[i, j] * w[j]
        slope += w[i] * product
        if i < p:
            h[i] = product
    for i in range(p):
        solved[i] = 0.0
        for j in range(p):
            solved[i] += inverse[i, j] * h[j]
    return slope


def profiled_for(structure: Structure) -> Profiled:
    """Memory for evaluations of one structure."""
    p, k = structure.p, structure.n_parameters
    return Profiled(
        value=np.zeros(1),
        rss=np.zeros(1),
        beta=np.zeros(p),
        factor=np.zeros((p, p)),
        gradient=np.zeros(k),
        hessian=np.zeros((k, k)),
        expected=np.zeros((k, k)),
        inverse=np.zeros((p, p)),
        w=np.zeros(p + 1),
        h=np.zeros((k, p)),
        solved=np.zeros((k, p)),
        scaled=np.zeros((k, p, p)),
        log_slope=np.zeros(k),
        rss_slope=np.zeros(k),
    )
