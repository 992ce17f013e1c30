"""The spectral deviance against the multivariate normal density, and its derivatives against differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from sc_lmm._design.model_matrix import build_design
from sc_lmm._model.deviance import coefficients, profile, spectrum
from sc_lmm._model.fit import fit_models
from sc_lmm._model.optimize import derivatives
from sc_lmm._statistics import sufficient_statistics

FORMULAS = [
    "~ x + age + diagnosis + (1 | donor)",
    "~ x + (1 | donor)",
    "~ 1 + (1 | donor)",
    "~ age + diagnosis + (1 | donor)",
    "~ 0 + x + age + (1 | donor)",
    "~ 0 + diagnosis + x:diagnosis + (1 | donor)",
]


def cohort(seed: int, n_genes: int = 6):
    rng = np.random.default_rng(seed)
    donor = np.sort(rng.choice(9, 90, p=rng.dirichlet(np.full(9, 3.0))))
    donor[:18] = np.repeat(np.arange(9), 2)
    rng.shuffle(donor)
    age = rng.normal(70, 8, 9)[donor]
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical(donor.astype(str)),
            "x": rng.normal(5, 2, 90) + donor / 3,
            "age": age,
            "diagnosis": pd.Categorical(np.where(donor % 2, "case", "control")),
        }
    )
    Y = rng.normal(3, 1, (90, n_genes)) + rng.normal(0, 1, (9, n_genes))[donor] * np.linspace(0, 2, n_genes)
    return obs, Y, donor


@pytest.fixture(params=FORMULAS)
def model(request):
    obs, Y, donor = cohort(1)
    design = build_design(request.param, obs)
    return design, Y, donor, sufficient_statistics(Y, design)


def dense_covariance(donor, rho):
    Z = (donor[:, None] == np.unique(donor)).astype(float)
    return np.eye(donor.size) + rho * Z @ Z.T


@pytest.mark.parametrize("rho", [0.0, 1e-3, 0.2, 7.0, 1e4])
def test_deviance_is_minus_two_log_density(model, rho):
    design, Y, donor, stats = model
    rhos = np.full(stats.n_genes, rho)
    objective = profile(stats, spectrum(stats, reml=False))
    beta, _ = coefficients(stats, rhos)
    sigma2 = objective.rss(rhos) / objective.spectrum.dof
    V = dense_covariance(donor, rho)
    for g in range(stats.n_genes):
        density = multivariate_normal(design.X @ beta[g], sigma2[g] * V).logpdf(Y[:, g])
        np.testing.assert_allclose(objective.deviance(rhos)[g], -2 * density, rtol=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.05, 3.0])
def test_restricted_deviance_by_dense_algebra(model, rho):
    """Harville 1974: the density of n - p contrasts, times |X'X|^(1/2) as lme4 scales it."""
    design, Y, donor, stats = model
    X, n, p = design.X, *design.X.shape
    objective = profile(stats, spectrum(stats, reml=True))
    Vi = np.linalg.inv(dense_covariance(donor, rho))
    A = X.T @ Vi @ X
    for g in range(stats.n_genes):
        r = Y[:, g] - X @ np.linalg.solve(A, X.T @ Vi @ Y[:, g])
        rss = r @ Vi @ r
        log_dets = -np.linalg.slogdet(Vi)[1] + np.linalg.slogdet(A)[1]
        expected = (n - p) * (np.log(2 * np.pi * rss / (n - p)) + 1) + log_dets
        np.testing.assert_allclose(objective.deviance(np.full(stats.n_genes, rho))[g], expected, rtol=1e-9)


def test_coefficients_are_generalised_least_squares(model):
    design, Y, donor, stats = model
    rho = 0.7
    Vi = np.linalg.inv(dense_covariance(donor, rho))
    inverse = np.linalg.inv(design.X.T @ Vi @ design.X)
    beta, unscaled = coefficients(stats, np.full(stats.n_genes, rho))
    np.testing.assert_allclose(beta.T, inverse @ design.X.T @ Vi @ Y, rtol=1e-8)
    np.testing.assert_allclose(unscaled[0], inverse, rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize("reml", [False, True])
def test_derivatives_by_central_differences(model, reml):
    *_, stats = model
    objective = profile(stats, spectrum(stats, reml=reml))
    terms = objective.spectrum.shared.terms

    def slopes(rho: float) -> tuple[np.ndarray, np.ndarray]:
        pairs = [derivatives(rho, e, rss_0, terms) for e, rss_0 in zip(objective.eta2, objective.rss_0, strict=True)]
        gradient, curvature = np.array(pairs).T
        return gradient, curvature

    for rho in (0.01, 0.3, 5.0):
        rhos, h = np.full(stats.n_genes, rho), 1e-5 * rho
        gradient, curvature = slopes(rho)
        up, down = objective.deviance(rhos + h), objective.deviance(rhos - h)
        np.testing.assert_allclose(gradient, (up - down) / (2 * h), rtol=1e-4, atol=1e-5 / rho)
        np.testing.assert_allclose(curvature, (slopes(rho + h)[0] - slopes(rho - h)[0]) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_minimum_is_global(seed, reml):
    obs, Y, _ = cohort(seed, n_genes=12)
    design = build_design("~ x + diagnosis + (1 | donor)", obs)
    stats = sufficient_statistics(Y, design)
    (fit,) = fit_models([stats], design.coef_names, reml=reml)
    objective = profile(stats, spectrum(stats, reml=reml))
    dense = np.concatenate([[0.0], np.logspace(-7, 5, 4000)])
    values = np.array([objective.deviance(np.full(stats.n_genes, rho)) for rho in dense])
    assert (fit.deviance <= values.min(axis=0) + 1e-9).all()


def test_two_minima_and_the_deeper_one_wins():
    """REML-like profiles can be bimodal; here one is built by hand from two groups of donors of very unequal size."""
    from sc_lmm._model.deviance import Profile, Spectrum

    sizes = np.array([1e5, 1e5, 1e5, 1.0, 1.0, 1.0])
    s = Spectrum(sizes, np.eye(6), np.zeros((0, 6)), sizes, 200, 0.0)
    rng = np.random.default_rng(0)
    eta2 = rng.gamma(0.3, 1.0, (80, 6)) * np.array([1e2, 1e2, 1e2, 30, 30, 30])
    objective = Profile(s, eta2, np.full(80, 30.0))
    deviance = objective.minimum()[1]
    values = np.array([objective.deviance(np.full(80, rho)) for rho in np.logspace(-12, 5, 600)])
    falls = np.diff(values, axis=0) < 0
    found_two = (falls[:-1] & ~falls[1:]).sum(axis=0) + ~falls[0] > 1
    assert found_two.sum() >= 5
    for g in range(80):
        one = objective.genes(np.array([g]))
        candidates = [
            minimize_scalar(
                lambda t, one=one: one.deviance(np.exp([t]))[0], bounds=(t - 1, t + 1), method="bounded"
            ).fun
            for t in np.arange(-27, 12, 1.0)
        ]
        assert deviance[g] <= min([*candidates, one.deviance(np.zeros(1))[0]]) + 1e-6
