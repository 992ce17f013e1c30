"""What degrees of freedom need of the variance parameters, any number of them, from the moments of a structure.

On the variance scale Sigma = s V = s I + sum_a tau_a G_a, with s = sigma^2 and tau_a = s phi_a the entries of the
covariances of the random coefficients. With A_a = X'V^-1 G_a V^-1 X = -M_a and A_ab = M_ab / 2 (symmetrised), and l, rss
the restricted log-determinant and the residual sum of squares of :mod:`sc_lmm._model.profiled`,

    tr(P G_a) = l_a         tr(P G_a P G_b) = -l_ab         y'P G_a P y = -rss_a         y'P G_a P G_b P y = rss_ab / 2

The residual needs no matrices of its own: it is I = V - sum phi_a G_a, so that every form with I is the form with V, which
is S, n - p or rss, less that of the G_a; twice for the second order. Then

    Phi = s S^-1     P_i = -A_i / s^2     Q_ij = A_ij / s^3     information: expected T_ij / (2 s^2), observed
    -T_ij / (2 s^2) + Y_ij / s^3          for T_ij = tr(P G_i P G_j), Y_ij = y'P G_i P G_j P y, i = 0 the residual

The scale matters: see :mod:`sc_lmm._inference.degrees_of_freedom`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._model import Moments

    Array = NDArray[np.float64]


class VarianceParameters(NamedTuple):
    """Matrices and information in c = k + 1 variance parameters, the residual first, for G genes."""

    Phi: Array  # (G, p, p) covariance of beta
    P: Array  # (G, c, p, p)
    Q: Array  # (G, c, c, p, p)
    expected: Array  # (G, c, c)
    observed: Array  # (G, c, c)


def variance_parameters(moments: Moments, phi: Array, sigma2: Array, n: int) -> VarianceParameters:
    """Collect them at restricted estimates `phi` (G, k) and `sigma2` (G,), of n cells."""
    p = moments.M.shape[1] - 1
    S = moments.M[:, :p, :p]
    inverse = np.linalg.inv(S)
    w = np.concatenate([-inverse @ moments.M[:, :p, p:], np.ones((len(phi), 1, 1))], axis=1)[:, :, 0]
    A1, A2 = -moments.M1[:, :, :p, :p], moments.M2[:, :, :, :p, :p] / 2
    first, second = _with_residual(S, A1, A2, phi)
    scaled = inverse[:, None] @ A1
    l1 = moments.l1 - np.einsum("gaii->ga", scaled)
    l2 = moments.l2 + 2 * np.einsum("gij,gabji->gab", inverse, A2) - np.einsum("gaij,gbji->gab", scaled, scaled)
    _, T = _with_residual(np.full(len(phi), float(n - p)), l1, -l2, phi)
    Mw = np.einsum("gaij,gj->gai", moments.M1, w)
    rss, rss1 = np.einsum("gi,gij,gj->g", w, moments.M, w), np.einsum("gi,gai->ga", w, Mw)
    h = Mw[:, :, :p]
    rss2 = np.einsum("gi,gabij,gj->gab", w, moments.M2, w) - 2 * np.einsum("gai,gij,gbj->gab", h, inverse, h)
    _, Y = _with_residual(rss, -rss1, rss2 / 2, phi)
    s = sigma2[:, None, None]
    return VarianceParameters(
        Phi=s * inverse,
        P=-first / s[..., None] ** 2,
        Q=second / s[..., None, None] ** 3,
        expected=T / (2 * s**2),
        observed=-T / (2 * s**2) + Y / s**3,
    )


def _with_residual(of_V: Array, first: Array, second: Array, phi: Array) -> tuple[Array, Array]:
    """Forms with G_a, (G, k, ...), and with G_a and G_b, joined by those with I = V - sum phi_a G_a at position 0."""
    residual = of_V - _contract(phi, first)
    mixed = first - _contract(phi, second)
    both = residual - _contract(phi, mixed)
    joined = np.concatenate([residual[:, None], first], axis=1)
    top = np.concatenate([both[:, None], mixed], axis=1)[:, None]
    return joined, np.concatenate([top, np.concatenate([mixed[:, :, None], second], axis=2)], axis=1)


def _contract(phi: Array, forms: Array) -> Array:
    """Sum over a of phi_a times the form of a, on the axis after the genes."""
    total: Any = np.einsum("ga,ga...->g...", phi, forms)
    return total
