"""Denominator degrees of freedom and small-sample covariance of REML estimates, in closed form for a random intercept.

On the variance scale (tau, s) = (sigma_u^2, sigma^2), Sigma = s I + tau Z Z'. With d_j = s + n_j tau, W the products of
X within levels and B_j = n_j x_j x_j' of its level means,

    Phi^-1 = X' Sigma^-1 X                 = W/s      + sum B_j / d_j
    P_1 = -X' Sigma^-1 ZZ' Sigma^-1 X      =          - sum n_j B_j / d_j^2
    P_2 = -X' Sigma^-2 X                   = -W/s^2   - sum B_j / d_j^2
    Q_11, Q_12, Q_22                       = sum n_j^2 B_j / d_j^3,  sum n_j B_j / d_j^3,  W/s^3 + sum B_j / d_j^3

and, in the spectral coordinates of `deviance` with v_k = s + tau d_k and nu = n - p - r, the restricted deviance is
sum log v_k + sum eta_k^2 / v_k + nu log s + rss_0 / s, so its information in (tau, s) is three sums. Everything but
the covariances of beta is computed in units of the gene's own variance, s = 1, so that no power of it is too large.

The variance scale matters: on the standard-deviation scale of the usual programs the derivative vanishes at
sigma_u = 0, and a boundary gene would be given n - p degrees of freedom.

Kenward & Roger 1997; Halekoh & Hojsgaard 2014 (pbkrtest); Fai & Cornelius 1996; Kuznetsova et al. 2017 (lmerTest).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._design import TOLERANCE
from .._model import BOUNDARY, coefficients
from .._statistics import standard_rows, within_products

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._model import BaseFit, Fit, Profile
    from .._statistics import SufficientStatistics

    Array = NDArray[np.float64]


# Standard errors further apart than this are of columns in different units, and half of the digits of their products go.
_APART = 1e4


class FTest(NamedTuple):
    """F statistic of L beta = 0 with q = L.shape[0] numerator degrees of freedom, per gene."""

    F: Array  # (G,)
    df: Array  # (G,) denominator degrees of freedom
    vcov: Array  # (G, q, q) covariance of L beta, or of independent combinations of it, that the statistic used


class _Moments(NamedTuple):
    """The p x p matrices above, in standardised columns."""

    Phi: Array  # (G, p, p)
    P: tuple[Array, Array]
    Q: tuple[tuple[Array, Array], tuple[Array, Array]]


def f_statistic(stats: SufficientStatistics, objective: Profile, fit: Fit, L: Array, method: str) -> FTest:
    """F statistic of L beta, its degrees of freedom by a method; "wald" takes them as infinite.

    `objective` is the restricted deviance of which `fit` is the minimum.
    """
    if method == "between-within":
        return between_within(stats, fit, L)
    if method == "satterthwaite":
        return satterthwaite(stats, objective, fit, L)
    if method == "kenward-roger":
        return kenward_roger(stats, objective, fit, L)
    return wald_at_rho(stats, fit, L, np.full(fit.rho.size, np.inf))


def between_within(stats: SufficientStatistics, fit: Fit, L: Array) -> FTest:
    """Levels less donor-constant columns if the hypothesis touches one of these, else cells less everything.

    Schluchter & Elashoff 1990, the DDFM=BW of SAS: exact for balanced donors, never more than the donors can give.
    """
    constant, q = stats.is_constant, stats.sizes.size
    df = q - constant.sum() if judged_between(stats, L) else stats.n_cells - q - (~constant).sum()
    return wald_at_rho(stats, fit, L, np.full(fit.rho.size, float(df)))


def judged_between(stats: SufficientStatistics, L: Array) -> bool:
    """Whether the hypothesis touches a column that is constant within every level."""
    return bool((np.abs(standard_rows(stats, L)[:, stats.is_constant]) > TOLERANCE).any())


def wald(fit: BaseFit, L: Array, df: Array) -> FTest:
    """F = (L beta)' (L vcov L')^-1 (L beta) / q with given degrees of freedom."""
    vcov = L @ fit.vcov @ L.T
    return FTest(_quadratic(fit.beta @ L.T, vcov) / L.shape[0], df, vcov)


def wald_at_rho(stats: SufficientStatistics, fit: Fit, L: Array, df: Array) -> FTest:
    """The same; of several coefficients by independent combinations of them.

    F does not depend on which combinations L beta = 0 is written in, and the coefficients of columns that all but
    determine each other have a covariance that cannot be inverted.
    """
    if len(L) == 1:
        return wald(fit, L, df)
    estimates, unscaled = coefficients(replace(stats, basis=_independent_rows(stats, L)), fit.rho)
    vcov = fit.sigma2[:, None, None] * unscaled
    return FTest(_quadratic(estimates, vcov) / len(L), df, vcov)


def _independent_rows(stats: SufficientStatistics, L: Array) -> Array:
    """Orthonormal rows in standardised coefficients that span those of L, (q, p)."""
    return np.asarray(np.linalg.qr(standard_rows(stats, L).T)[0].T)


def satterthwaite(stats: SufficientStatistics, objective: Profile, fit: Fit, L: Array) -> FTest:
    """Match the moments of the variance of each independent contrast; the harmonic rule of lmerTest for several.

    The information is the observed one, as lmerTest's, and the expected one at the boundary or where the observed one
    is not positive.
    """
    vcov = _finite(L @ fit.vcov @ L.T) / fit.sigma2[:, None, None]
    unit = _units(vcov)
    variances, vectors = np.linalg.eigh(_finite(vcov / unit[:, :, None] / unit[:, None, :]))
    # (G, q, p) rows are independent contrasts
    contrasts = np.swapaxes(vectors, 1, 2) @ ((L @ stats.basis) / unit[:, :, None])
    moments = _moments(stats, fit)
    gradient = np.stack([-_sandwich(contrasts, moments.Phi @ P @ moments.Phi) for P in moments.P], axis=-1)
    spread = np.einsum("gqi,gij,gqj->gq", gradient, _covariance_of_variances(objective, fit), gradient)
    df = _combine(2 * variances**2 / spread)
    return wald_at_rho(stats, fit, L, np.where(fit.usable, df, np.nan))


def _units(vcov: Array) -> Array:
    """Units for the coefficients of a joint test, (G, q): one for all, as lmerTest has it, unless that loses some.

    Independent contrasts of coefficients in very different units would be rounding for all but the largest.
    """
    se = np.sqrt(np.diagonal(vcov, axis1=1, axis2=2))
    largest = se.max(axis=1, keepdims=True)
    return np.where(largest > _APART * se.min(axis=1, keepdims=True), se, largest)


def kenward_roger(stats: SufficientStatistics, objective: Profile, fit: Fit, L: Array) -> FTest:
    """Adjusted covariance and the F approximation of Kenward & Roger 1997, as in pbkrtest."""
    q = L.shape[0]
    K = L @ stats.basis if q == 1 else _independent_rows(stats, L)
    moments = _moments(stats, fit)
    cov = _inverse(_expected_information(objective, fit))
    Phi, P = moments.Phi, moments.P
    inner = sum(cov[:, i, j, None, None] * (moments.Q[i][j] - P[i] @ Phi @ P[j]) for i in range(2) for j in range(2))
    adjusted = fit.sigma2[:, None, None] * (K @ (Phi + 2 * Phi @ inner @ Phi) @ K.T)
    Theta = K.T @ np.linalg.inv(K @ Phi @ K.T) @ K
    T = [Theta @ Phi @ P_i @ Phi for P_i in P]
    trace = [np.trace(T_i, axis1=1, axis2=2) for T_i in T]
    pairs = [(i, j) for i in range(2) for j in range(2)]
    A1 = sum(cov[:, i, j] * trace[i] * trace[j] for i, j in pairs)
    A2 = sum(cov[:, i, j] * np.einsum("gab,gba->g", T[i], T[j]) for i, j in pairs)
    df, scale = _kenward_roger_moments(A1, A2, q)
    estimates = fit.beta @ L.T if q == 1 else coefficients(replace(stats, basis=K), fit.rho)[0]
    return FTest(scale * _quadratic(estimates, adjusted) / q, df, adjusted)


def _kenward_roger_moments(A1: Array, A2: Array, q: int) -> tuple[Array, Array]:
    """Denominator df m and scale lambda that match the first two moments of the statistic (their section 3)."""
    B = (A1 + 6 * A2) / (2 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    c = 3 * q + 2 * (1 - g)
    c1, c2, c3 = g / c, (q - g) / c, (q + 2 - g) / c
    V0, V1, V2 = (np.where(np.abs(v) < 1e-10, 0.0, v) for v in (1 + c1 * B, 1 - c2 * B, 1 - c3 * B))
    shrink = 1 - A2 / q
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((np.abs(shrink) < 1e-10) & (V1 == 0), 1.0, shrink / V1)
        rho = ratio**2 * V0 / V2 / q
        df = 4 + (q + 2) / (q * rho - 1)
        scale = df * shrink / (df - 2)
    return df, np.where(np.abs(df - 2) < 1e-2, 1.0, scale)


def _moments(stats: SufficientStatistics, fit: Fit) -> _Moments:
    """The matrices of the module's docstring for every gene."""
    p, n = stats.n_columns, stats.sizes
    xbar = stats.ZtX / n[:, None]
    outer = (xbar[:, :, None] * xbar[:, None, :]).reshape(-1, p * p)
    W = within_products(stats)
    d = 1 + fit.rho[:, None] * n  # (G, q)

    def between(weight: Array) -> Array:
        return (weight @ outer).reshape(-1, p, p)

    Phi: Any = np.linalg.inv(_finite(W + between(n / d)))
    P = (-between(n**2 / d**2), -(W + between(n / d**2)))
    Q11, Q12, Q22 = between(n**3 / d**3), between(n**2 / d**3), W + between(n / d**3)
    return _Moments(Phi, P, ((Q11, Q12), (Q12, Q22)))


def _finite(matrices: Array) -> Array:
    """Genes without a fit get an identity, which numpy can invert; their results are NaN by their degrees of freedom."""
    return np.where(np.isfinite(matrices), matrices, np.eye(matrices.shape[-1]))


def _expected_information(objective: Profile, fit: Fit) -> Array:
    """Information of the restricted likelihood in (tau, s), (G, 2, 2)."""
    d, nu = objective.spectrum.d[:, None], objective.spectrum.dof - objective.spectrum.d.size
    v = 1 + fit.rho * d
    tt, ts, ss = (d**2 / v**2).sum(axis=0), (d / v**2).sum(axis=0), (1 / v**2).sum(axis=0) + nu
    return _finite(_symmetric(tt, ts, ss) / 2)


def _observed_information(objective: Profile, fit: Fit) -> Array:
    """Half the Hessian of the restricted deviance in (tau, s), (G, 2, 2)."""
    d, nu = objective.spectrum.d[:, None], objective.spectrum.dof - objective.spectrum.d.size
    v = 1 + fit.rho * d
    curvature = 2 * (objective.eta2.T / fit.sigma2) / v**3 - 1 / v**2
    tt, ts = (d**2 * curvature).sum(axis=0), (d * curvature).sum(axis=0)
    ss = curvature.sum(axis=0) + 2 * objective.rss_0 / fit.sigma2 - nu
    return _finite(_symmetric(tt, ts, ss) / 2)


def _covariance_of_variances(objective: Profile, fit: Fit) -> Array:
    observed, expected = _observed_information(objective, fit), _expected_information(objective, fit)
    positive = (observed[:, 0, 0] > 0) & (np.linalg.det(observed) > 0)
    use_observed = positive & (fit.status != BOUNDARY)
    return _inverse(np.where(use_observed[:, None, None], observed, expected))


def _inverse(information: Array) -> Array:
    """Covariance of (tau, s), each in units of its own: with 1e6 times the variance their information is 1e-12 times.

    No information on tau at all, where fixed effects tell every level apart, leaves that of sigma^2.
    """
    unit = np.sqrt(np.diagonal(information, axis1=1, axis2=2))
    unit = np.where(unit > 0, unit, 1.0)
    unit = unit[:, :, None] * unit[:, None, :]
    return np.linalg.pinv(information / unit, hermitian=True) / unit


def _symmetric(a: Array, b: Array, c: Array) -> Array:
    return np.stack([np.stack([a, b], axis=-1), np.stack([b, c], axis=-1)], axis=-2)


def _sandwich(contrasts: Array, matrices: Array) -> Array:
    """c' M c for each row c of each gene, (G, q)."""
    return np.einsum("gqi,gij,gqj->gq", contrasts, matrices, contrasts)


def _combine(df: Array) -> Array:
    """Degrees of freedom of the average of independent squared t, from those of each, (G, q) -> (G,)."""
    q = df.shape[1]
    if q == 1:
        return df[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        expectation = np.where(df > 2, df / (df - 2), 0.0).sum(axis=1)
        combined = np.where(expectation > q, 2 * expectation / (expectation - q), 0.0)
    even = np.ptp(df, axis=1) < 1e-8
    return np.where(even, df.mean(axis=1), np.where((df <= 2).any(axis=1), 2.0, combined))


def _quadratic(values: Array, matrices: Array) -> Array:
    """x' M^-1 x per gene, in units of its standard errors, NaN where there is no estimate."""
    unit = np.sqrt(np.diagonal(_finite(matrices), axis1=1, axis2=2))
    values, matrices = values / unit, matrices / unit[:, :, None] / unit[:, None, :]
    solved = np.linalg.solve(_finite(matrices), np.nan_to_num(values)[:, :, None])[:, :, 0]
    return np.where(np.isnan(values).any(axis=1), np.nan, (values * solved).sum(axis=1))
