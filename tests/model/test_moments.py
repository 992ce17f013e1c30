"""Moments of every kind of random term against dense algebra, their derivatives against differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from sc_lmm._model.moments import Gene, evaluate, moments_at, work_for
from sc_lmm._model.nodes import nodes
from sc_lmm._model.profiled import Profiled, profile_moments, profiled_for
from sc_lmm._model.structure import Structure, structure
from sc_lmm._model.term_points import point_table


def dense_covariance(cells, kind, gammas):
    V = np.eye(len(cells.X))
    for name, Z in cells.Z(kind).items():
        V += Z @ np.kron(np.eye(Z.shape[1] // len(gammas[name])), gammas[name]) @ Z.T
    return V


def profiled(design: Structure, stats, phi: np.ndarray, g: int, reml: bool, order: int = 2) -> Profiled:
    rows, work, out = design.rows(stats), work_for(design), profiled_for(design)
    gene = Gene(rows.lead[g], rows.z[g], rows.x[g], rows.yy[g])
    dof = float(design.n_cells - design.p if reml else design.n_cells)
    evaluate(phi, design.shared, gene, order, work)
    profile_moments(work.moments, dof, reml, order, out)
    return out


@pytest.fixture(params=[0, 1])
def case(request, kind, make_cells, make_phi):
    cells = make_cells(request.param)
    stats = cells.statistics(kind)
    design = structure(stats)
    phi, gammas = make_phi(stats, design.groupings, request.param)
    return cells, stats, design, phi, dense_covariance(cells, kind, gammas)


def test_deviance_is_minus_two_log_density(case):
    cells, stats, design, phi, V = case
    for g in range(stats.n_genes):
        found = profiled(design, stats, phi, g, reml=False)
        beta = stats.basis @ found.beta
        density = multivariate_normal(cells.X @ beta, found.rss[0] / len(V) * V).logpdf(cells.Y[:, g])
        np.testing.assert_allclose(found.value[0], -2 * density, rtol=1e-10)


def test_restricted_deviance_and_estimates_by_dense_algebra(case):
    cells, stats, design, phi, V = case
    X, (n, p), Vi = cells.X, cells.X.shape, np.linalg.inv(V)
    A = X.T @ Vi @ X
    for g in range(stats.n_genes):
        beta = np.linalg.solve(A, X.T @ Vi @ cells.Y[:, g])
        residual = cells.Y[:, g] - X @ beta
        rss = residual @ Vi @ residual
        log_dets = np.linalg.slogdet(V)[1] + np.linalg.slogdet(A)[1]
        expected = (n - p) * (np.log(2 * np.pi * rss / (n - p)) + 1) + log_dets
        found = profiled(design, stats, phi, g, reml=True)
        np.testing.assert_allclose(found.value[0] + design.log_det_basis, expected, rtol=1e-10)
        np.testing.assert_allclose(stats.basis @ found.beta, beta, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(stats.basis @ found.inverse @ stats.basis.T, np.linalg.inv(A), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("reml", [False, True])
def test_derivatives_by_central_differences(case, reml):
    _, stats, design, phi, _ = case
    h = 1e-5

    def gradient(phi: np.ndarray) -> np.ndarray:
        return profiled(design, stats, phi, 1, reml).gradient.copy()

    def value(phi: np.ndarray) -> float:
        return profiled(design, stats, phi, 1, reml, order=0).value[0]

    found = profiled(design, stats, phi, 1, reml)
    slopes = np.array([(value(phi + h * e) - value(phi - h * e)) / (2 * h) for e in np.eye(phi.size)])
    curvatures = np.array([(gradient(phi + h * e) - gradient(phi - h * e)) / (2 * h) for e in np.eye(phi.size)])
    np.testing.assert_allclose(found.gradient, slopes, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.hessian, curvatures, rtol=1e-6, atol=1e-6)


def test_expected_information_by_dense_algebra(case):
    """tr(P G_a P G_b) less what is lost by profiling sigma^2, with P of the restricted likelihood."""
    cells, stats, design, phi, V = case
    X, Vi = cells.X, np.linalg.inv(V)
    P = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    G = [(dense_gradient(cells, design, k)) for k in range(phi.size)]
    traces = np.array([np.trace(P @ G_a) for G_a in G])
    expected = np.array([[np.trace(P @ G_a @ P @ G_b) for G_b in G] for G_a in G])
    expected -= np.outer(traces, traces) / (len(X) - X.shape[1])
    found = profiled(design, stats, phi, 0, reml=True)
    np.testing.assert_allclose(found.expected, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


def dense_gradient(cells, design: Structure, k: int) -> np.ndarray:
    """dV / dphi_k."""
    at = 0
    for grouping in design.groupings:
        for a, b in grouping.pairs:
            if at == k:
                unit = np.zeros((grouping.r, grouping.r))
                unit[a, b] = unit[b, a] = 1.0
                columns = np.column_stack([cells.values[name] for name in grouping.column_names]) @ grouping.basis
                same = cells.codes[grouping.name][:, None] == cells.codes[grouping.name]
                return same * (columns @ unit @ columns.T)
            at += 1
    raise IndexError(k)


def test_any_grouping_may_lead(case, make_phi):
    _, stats, design, phi, _ = case
    by_name = dict(zip([g.name for g in design.groupings], _split(design, phi), strict=True))
    for lead in range(len(stats.groupings)):
        other = structure(stats, lead=lead)
        its_phi = np.concatenate([by_name[g.name] for g in other.groupings])
        for reml in (False, True):
            one, two = profiled(design, stats, phi, 0, reml), profiled(other, stats, its_phi, 0, reml)
            np.testing.assert_allclose(two.value[0], one.value[0], rtol=1e-11)
            np.testing.assert_allclose(np.sort(two.gradient), np.sort(one.gradient), rtol=1e-7, atol=1e-8)


def _split(design: Structure, phi: np.ndarray) -> list[np.ndarray]:
    return np.split(phi, np.cumsum([len(g.pairs) for g in design.groupings])[:-1])


def test_points_are_evaluations(case):
    """The matrix products over shared points give what each gene's own evaluation gives."""
    _, stats, design, phi, _ = case
    points = np.stack([np.zeros(phi.size), phi, 30 * phi, np.where(np.arange(phi.size) < 1, 0.5, 0)])
    L = np.eye(len(stats.basis))[1:]
    table = point_table(design, points, L @ stats.basis)
    found = table.own(stats)
    for reml in (False, True):
        deviance = table.deviance(found.rss, reml=reml)
        for k, point in enumerate(points):
            for g in range(stats.n_genes):
                single = profiled(design, stats, point, g, reml)
                constant = design.log_det_basis if reml else 0
                np.testing.assert_allclose(deviance[g, k], single.value[0] + constant, rtol=1e-11)
                np.testing.assert_allclose(found.coef[k, :, g], (stats.basis @ single.beta)[1:], rtol=1e-7, atol=1e-9)
            unscaled = stats.basis @ single.inverse @ stats.basis.T
            np.testing.assert_allclose(table.unscaled[k], unscaled[1:, 1:], rtol=1e-7, atol=1e-12)


def test_moments_of_many_genes_are_those_of_each(case):
    _, stats, design, phi, _ = case
    phis = phi * np.linspace(0.5, 2, stats.n_genes)[:, None]
    together = moments_at(design, stats, phis)
    for g in range(stats.n_genes):
        alone = moments_at(design, stats.genes(slice(g, g + 1)), phis[[g]])
        for name in together._fields:
            np.testing.assert_allclose(getattr(together, name)[g], getattr(alone, name)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fold", [1.0, 3.0, 100.0])
def test_nodes_stand_for_levels(fold):
    """Sums over 300 levels of h(g n) and its derivatives, for every g, from a few nodes."""
    rng = np.random.default_rng(0)
    sizes = 50 * fold ** rng.random(300)
    T, gather = nodes(np.sqrt(sizes).reshape(-1, 1, 1))
    assert len(T) < 60
    matrices = rng.normal(0, 1, (300, 7))
    n = T[:, 0, 0] ** 2
    for g in [0, *10.0 ** np.arange(-8, 9)]:
        for derivative in range(3):
            exact = (sizes**derivative / (1 + g * sizes) ** (derivative + 1)) @ matrices
            close = (n**derivative / (1 + g * n) ** (derivative + 1)) @ (gather @ matrices)
            scale = (sizes**derivative / (1 + g * sizes) ** (derivative + 1)) @ np.abs(matrices)
            np.testing.assert_allclose(close / scale, exact / scale, atol=1e-13)


def test_levels_equal_but_for_rounding_have_one_node():
    sizes = 1000 * (1 + np.finfo(float).eps * np.arange(12))
    T, gather = nodes(np.sqrt(sizes).reshape(-1, 1, 1))
    assert T.shape == (1, 1, 1)
    np.testing.assert_array_equal(gather, np.ones((1, 12)))


def test_levels_without_length_have_no_nodes():
    T, gather = nodes(np.zeros((5, 1, 1)))
    assert T.shape == (0, 1, 1)
    assert gather.shape == (0, 5)
