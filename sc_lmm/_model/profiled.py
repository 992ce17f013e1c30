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

from .compiled import compiled
from .small import cholesky, solve

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


@compiled
def profile_moments(m: Moments, dof: float, reml: bool, order: int, out: Profiled) -> None:  # noqa: FBT001
    """Overwrite `out`; infinite or NaN where S is not positive definite."""
    p = out.beta.size
    out.factor[:] = m.M[:p, :p]
    out.beta[:] = m.M[:p, p]
    if not cholesky(out.factor):
        out.value[0] = np.inf
        return
    solve(out.factor, out.beta)
    rss, log_det = m.M[p, p], m.log_det[0]
    for i in range(p):
        rss -= out.beta[i] * m.M[i, p]
        if reml:
            log_det += 2 * np.log(out.factor[i, i])
    out.rss[0] = rss
    out.value[0] = log_det + dof * (np.log(rss) + np.log(2 * np.pi / dof) + 1)
    if order > 0:
        _derivatives(m, dof, reml, out)


@compiled
def _derivatives(m: Moments, dof: float, reml: bool, out: Profiled) -> None:  # noqa: FBT001
    p, k, rss = out.beta.size, out.gradient.size, out.rss[0]
    w, h, solved, rss_a = np.empty(p + 1), np.empty((k, p)), np.empty((k, p)), np.empty(k)
    w[:p] = -out.beta
    w[p] = 1.0
    A, log_a = np.zeros((k, p, p)), m.l1.copy()
    for a in range(k):
        rss_a[a] = 0.0
        for i in range(p + 1):
            product = (m.M1[a, i] * w).sum()
            rss_a[a] += w[i] * product
            if i < p:
                h[a, i] = solved[a, i] = product
        solve(out.factor, solved[a])
        if reml:
            log_a[a] += _scaled(m.M1[a], out.factor, A[a])
        out.gradient[a] = log_a[a] + dof * rss_a[a] / rss
    B = np.empty((p, p))
    for a in range(k):
        for b in range(a + 1):
            M = m.M2[a, b]
            rss_ab, log_ab = -2 * (h[a] * solved[b]).sum(), m.l2[a, b]
            for i in range(p + 1):
                rss_ab += w[i] * (M[i] * w).sum()
            if reml:
                log_ab += _scaled(M, out.factor, B) - (A[a] * A[b].T).sum()
            exact = log_ab + dof * (rss_ab / rss - rss_a[a] * rss_a[b] / (rss * rss))
            out.hessian[a, b] = out.hessian[b, a] = exact
            out.expected[a, b] = out.expected[b, a] = -log_ab - log_a[a] * log_a[b] / dof


@compiled
def _scaled(M: Array, factor: Array, scaled: Array) -> float:
    """Overwrite `scaled` by M_XX S^-1; its trace."""
    p, trace = len(factor), 0.0
    for i in range(p):
        scaled[i] = M[i, :p]
        solve(factor, scaled[i])
        trace += scaled[i, i]
    return trace


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
    )
