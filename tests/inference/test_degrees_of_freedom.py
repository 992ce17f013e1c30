"""Satterthwaite and Kenward-Roger against lmerTest and pbkrtest, exact F tests, and derivatives taken another way."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions

from cohorts import fitted
from sc_lmm._design.model_matrix import build_design
from sc_lmm._inference.degrees_of_freedom import _expected_information, _moments
from sc_lmm._model.fit import fit_models
from sc_lmm._statistics import sufficient_statistics

if TYPE_CHECKING:
    from sc_lmm._inference.fitted import LmmFit

HERE = Path(__file__).parents[1] / "reference"
LIBSIZE = "~ log_libsize + sex + age + diagnosis + (1 | sample_id)"
CASES = {
    "S60sub": ("~ sequencing_saturation + diagnosis + (1 | sample_id)", "diagnosis"),
    "C60sub": (LIBSIZE, "diagnosis"),
    "C60": (LIBSIZE, "diagnosis"),
    "X_factor3": ("~ x + group3 + (1 | sample_id)", "group3"),
}
KENWARD_ROGER = ["S60sub", "C60sub", "X_factor3"]
# lmerTest differentiates numerically on the scale of standard deviations with a fixed step of 1e-4, and so loses digits
# where theta is of that order: this gene has theta = .0047. `test_where_lmertest_is_inaccurate` shows that we do not.
SMALL_THETA = {"C60sub": 0.006}


_FITS: dict[str, tuple[LmmFit, pd.DataFrame]] = {}


def reference_case(name: str) -> tuple[LmmFit, pd.DataFrame]:
    if name not in _FITS:
        adata = ad.read_h5ad(HERE / f"{name}.h5ad")
        table = pd.read_csv(HERE / f"ref_{name}_lme4.csv", index_col=0).loc[adata.var_names]
        _FITS[name] = fitted(adata.X, adata.obs, CASES[name][0]), table.reset_index(drop=True)
    return _FITS[name]


def run(fit: LmmFit, test: str, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """F, degrees of freedom, p-values and standard errors."""
    table = fit.test(test, method=method).table
    F = table["scores"] ** 2 if table["coef"].notna().any() else table["scores"]
    return F.to_numpy(), table["df"].to_numpy(), table["pvals"].to_numpy(), table["se"].to_numpy()


# ------------------------------------------------------------------------------------- lmerTest and pbkrtest


@pytest.mark.parametrize("name", CASES)
def test_satterthwaite_is_that_of_lmertest(name):
    fit, reference = reference_case(name)
    F, df, pval, _ = run(fit, CASES[name][1], "satterthwaite")
    inside = ~reference["REML_singular"].to_numpy()
    theta = np.sqrt(fit.reml.rho)
    exact = inside & (theta > SMALL_THETA.get(name, 0))
    assert inside.sum() - exact.sum() <= 1
    np.testing.assert_allclose(df[exact], reference["Satt_F_dendf"][exact], rtol=1e-4)
    np.testing.assert_allclose(df[inside], reference["Satt_F_dendf"][inside], rtol=1.5e-4)
    np.testing.assert_allclose(F[inside], reference["Satt_F"][inside], rtol=1e-4)
    # One p-value of C60 is off by 1.2e-6: lme4 stopped at theta .006156, .006157 has the same likelihood to 1e-9.
    np.testing.assert_allclose(
        pval[inside], reference["Satt_F_p"][inside], rtol=0, atol=2e-6 if name == "C60" else 1e-6
    )


@pytest.mark.parametrize("name", KENWARD_ROGER)
def test_kenward_roger_is_that_of_pbkrtest(name):
    fit, reference = reference_case(name)
    F, df, pval, se = run(fit, CASES[name][1], "kenward-roger")
    # At the boundary too.
    np.testing.assert_allclose(df, reference["KR_ddf"], rtol=1e-6)
    np.testing.assert_allclose(F, reference["KR_F"], rtol=1e-4)
    np.testing.assert_allclose(pval, reference["KR_p"], rtol=0, atol=1e-6)
    if "KR_se" in reference:
        np.testing.assert_allclose(se, reference["KR_se"], rtol=1e-5)


@pytest.mark.parametrize("name", KENWARD_ROGER)
def test_boundary_genes_do_not_get_the_degrees_of_freedom_of_cells(name):
    # lmerTest returns n - p there, an artefact of its scale; for one contrast Satterthwaite from the expected
    # information is Kenward and Roger's.
    fit, reference = reference_case(name)
    _, df, _, _ = run(fit, CASES[name][1], "satterthwaite")
    boundary = reference["REML_singular"].to_numpy()
    assert boundary.any()
    assert (df[boundary] < fit.stats.sizes.size).all()
    rtol = 1e-4 if name == "X_factor3" else 1e-6  # for two df the two combine the contrasts differently
    np.testing.assert_allclose(df[boundary], reference["KR_ddf"][boundary], rtol=rtol)


# --------------------------------------------------------------------------- derivatives by differences


def restricted_deviance(variances, X, codes, sizes, y):
    """-2 log restricted L at (sigma_u^2, sigma^2) and the covariance of beta, in 80-bit floats, by sums over donors."""
    tau, s = variances
    groups = [(X[codes == j], y[codes == j]) for j in range(sizes.size)]
    p = X.shape[1]
    M = np.zeros((p, p + 1), dtype=np.longdouble)
    yy, log_det = np.longdouble(0), np.longdouble(0)
    for (Xj, yj), n in zip(groups, sizes, strict=True):
        # Sigma_j^-1 = (I - 11' tau / (s + n tau)) / s
        w, joint = tau / (s + n * tau), np.column_stack([Xj, yj])
        total = joint.sum(axis=0)
        products = (joint.T @ joint - w * np.outer(total, total)) / s
        M += products[:p]
        yy += products[p, p]
        log_det += (n - 1) * np.log(s) + np.log(s + n * tau)
    A, a = M[:, :p].copy(), M[:, p].copy()
    inverse, det = invert(A)
    return log_det + np.log(det) + yy - a @ inverse @ a, inverse


def invert(A):
    """Gauss-Jordan; numpy's solvers know nothing beyond double precision."""
    p = A.shape[0]
    work, det = np.concatenate([A, np.eye(p, dtype=np.longdouble)], axis=1), np.longdouble(1)
    for k in range(p):
        det *= work[k, k]
        work[k] /= work[k, k]
        for i in range(p):
            if i != k:
                work[i] -= work[i, k] * work[k]
    return work[:, p:], det


def richardson(values):
    """Extrapolate central differences of steps h, h/2, h/4 to h = 0."""
    first = [(4 * fine - coarse) / 3 for coarse, fine in pairwise(values)]
    return (16 * first[1] - first[0]) / 15


def differences(function, point, steps):
    """Gradient and Hessian of `function` at `point` by extrapolated central differences."""
    unit = np.diag(steps)
    shifts = [np.longdouble(1) / 2**k for k in range(3)]
    gradient = [
        richardson([(function(point + h * e) - function(point - h * e)) / (2 * h * e.sum()) for h in shifts])
        for e in unit
    ]

    def second(a, b, h):
        corners = function(point + h * (a + b)) + function(point - h * (a + b))
        corners = corners - function(point + h * (a - b)) - function(point - h * (a - b))
        return corners / (4 * h * h * a.sum() * b.sum())

    hessian = [[richardson([second(a, b, h) for h in shifts]) for b in unit] for a in unit]
    return np.array(gradient), np.array(hessian)


def satterthwaite_by_differences(X, codes, y, L, start):
    """Degrees of freedom from the definition 2 v^2 / (g' A g), at an optimum found with the same differences."""
    sizes = np.bincount(codes).astype(np.longdouble)
    X, y = X.astype(np.longdouble), y.astype(np.longdouble)
    X = np.column_stack([X[:, 0], X[:, 1:] - X[:, 1:].mean(axis=0)])  # the deviance changes by a constant
    point = np.array(start, dtype=np.longdouble)

    def deviance(v):
        return restricted_deviance(v, X, codes, sizes, y)[0]

    def variance(v):
        return L @ restricted_deviance(v, X, codes, sizes, y)[1] @ L

    for _ in range(4):
        gradient, hessian = differences(deviance, point, point / 16)
        point = point - invert(hessian)[0] @ gradient
    _, hessian = differences(deviance, point, point / 16)
    slope, _ = differences(variance, point, point / 16)
    return float(2 * variance(point) ** 2 / (slope @ (2 * invert(hessian)[0]) @ slope)), point


def test_where_lmertest_is_inaccurate():
    adata = ad.read_h5ad(HERE / "C60sub.h5ad")
    fit, reference = reference_case("C60sub")
    _, df, _, _ = run(fit, "diagnosis", "satterthwaite")
    rho = np.where(reference["REML_singular"], np.inf, fit.reml.rho)
    g = int(np.argmin(rho))
    design = build_design(LIBSIZE, adata.obs)
    L = (np.array(design.coef_names) == "diagnosis").astype(np.longdouble)
    start = [fit.reml.sd_random[g] ** 2, fit.reml.sigma2[g]]
    exact, point = satterthwaite_by_differences(design.X, design.random.codes, adata.X[:, g], L, start)
    np.testing.assert_allclose(point.astype(float), start, rtol=1e-6)
    np.testing.assert_allclose(df[g], exact, rtol=1e-6)
    assert abs(reference["Satt_F_dendf"][g] / exact - 1) > 1e-4


def small_cohort(seed: int, n_genes: int = 5):
    """Seven donors with 3 to 15 cells."""
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(7), [3, 5, 6, 8, 9, 11, 15])
    obs = pd.DataFrame(
        {
            "sample_id": pd.Categorical(donor.astype(str)),
            "x": rng.normal(2, 1, donor.size) + donor / 4,
            "age": rng.normal(70, 8, 7)[donor],
            "diagnosis": pd.Categorical(np.array(["control", "AD", "PD"])[donor % 3], ["control", "AD", "PD"]),
        }
    )
    Y = rng.normal(3, 1, (donor.size, n_genes)) + rng.normal(0, 1, (7, n_genes))[donor] * np.linspace(0.5, 2, n_genes)
    return obs, Y, donor


@pytest.mark.parametrize("column", ["x", "diagnosis[T.AD]"])
def test_satterthwaite_by_definition_in_a_small_cohort(column):
    obs, Y, donor = small_cohort(0)
    formula = "~ x + diagnosis + (1 | sample_id)"
    fit = fitted(Y, obs, formula)
    X = build_design(formula, obs).X
    result = fit.test(column.split("[")[0], method="satterthwaite").tables
    df = result["x" if column == "x" else "AD"]["df"].to_numpy()
    L = (np.array(fit.coding.coef_names) == column).astype(np.longdouble)
    inside = np.flatnonzero(fit.reml.rho > 0)
    assert inside.size >= 3
    for g in inside:
        start = [fit.reml.sd_random[g] ** 2, fit.reml.sigma2[g]]
        np.testing.assert_allclose(df[g], satterthwaite_by_differences(X, donor, Y[:, g], L, start)[0], rtol=1e-6)


def test_expected_information_of_two_derivations_and_of_dense_algebra():
    # DESIGN section 6 has it as traces of p x p matrices, `_degrees_of_freedom` as sums over the spectrum, and the
    # definition is tr(P V_i P V_j) / 2 with V_i = ZZ', I and P the projection of restricted likelihood.
    obs, Y, donor = small_cohort(1)
    fit = fitted(Y, obs, "~ x + age + diagnosis + (1 | sample_id)")
    reml, stats = fit.reml, fit.stats
    moments = _moments(stats, reml)
    n, N = stats.sizes, stats.n_cells
    X = build_design("~ x + age + diagnosis + (1 | sample_id)", obs).X
    Z = (donor[:, None] == np.arange(7)).astype(float)
    spectral = _expected_information(fit.estimates.restricted, reml)
    for g in range(Y.shape[1]):
        s, tau = 1.0, reml.rho[g]  # in units of the gene's own variance
        d = s + n * tau
        traces = {(0, 0): (n**2 / d**2).sum(), (0, 1): (n / d**2).sum(), (1, 1): (N - 7) / s**2 + (1 / d**2).sum()}
        V = [Z @ Z.T, np.eye(N)]
        Si = np.linalg.inv(tau * V[0] + s * V[1])
        P = Si - Si @ X @ np.linalg.inv(X.T @ Si @ X) @ X.T @ Si
        for (i, j), trace in traces.items():
            Phi, P_i, P_j, Q = moments.Phi[g], moments.P[i][g], moments.P[j][g], moments.Q[i][j][g]
            closed = (trace - 2 * np.trace(Phi @ Q) + np.trace(Phi @ P_i @ Phi @ P_j)) / 2
            np.testing.assert_allclose(spectral[g, i, j], np.trace(P @ V[i] @ P @ V[j]) / 2, rtol=1e-8)
            np.testing.assert_allclose(spectral[g, i, j], closed, rtol=1e-8)


# ------------------------------------------------------------------------------------------ exact F tests


def balanced_cohort(levels: tuple[str, ...], seed: int, n_donors: int = 12, n_cells: int = 8, n_genes: int = 40):
    """Equal cells per donor, a donor-level factor, and a covariate whose donor means are all 0."""
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(n_donors), n_cells)
    x = rng.normal(size=(n_donors, n_cells))
    obs = pd.DataFrame(
        {
            "sample_id": pd.Categorical(donor.astype(str)),
            "x": (x - x.mean(axis=1, keepdims=True)).ravel(),
            "diagnosis": pd.Categorical(np.array(levels)[donor % len(levels)], levels),
        }
    )
    Y = rng.normal(3, 1, (donor.size, n_genes)) + rng.normal(0, 1, (n_donors, n_genes))[donor]
    return obs, Y, donor


@pytest.mark.parametrize("method", ["between-within", "satterthwaite", "kenward-roger"])
@pytest.mark.parametrize("levels", [("control", "AD"), ("control", "AD", "PD")])
def test_balanced_donors_have_the_exact_F_of_donor_means(levels, method):
    obs, Y, donor = balanced_cohort(levels, seed=len(levels))
    fit = fitted(Y, obs, "~ x + diagnosis + (1 | sample_id)")
    F, df, pval, _ = run(fit, "diagnosis", method)
    means = np.stack([Y[donor == j].mean(axis=0) for j in range(12)])
    groups = [means[k :: len(levels)] for k in range(len(levels))]
    expected = distributions.f_oneway(*groups)
    inside = fit.reml.rho > 0  # at the boundary the restricted estimate is not the mean square of the donors
    assert inside.sum() > 30
    np.testing.assert_allclose(F[inside], expected.statistic[inside], rtol=1e-8)
    np.testing.assert_allclose(df[inside], 12 - len(levels), rtol=1e-8)
    np.testing.assert_allclose(pval[inside], expected.pvalue[inside], rtol=1e-8)


@pytest.mark.parametrize("method", ["between-within", "satterthwaite", "kenward-roger"])
def test_balanced_cell_level_covariate_has_the_exact_t_within_donors(method):
    obs, Y, donor = balanced_cohort(("control", "AD"), seed=5)
    fit = fitted(Y, obs, "~ x + diagnosis + (1 | sample_id)")
    F, df, _, _ = run(fit, "x", method)
    within = np.stack([np.bincount(donor, y) for y in Y.T], axis=1)[donor] / 8
    residual, x = Y - within, obs["x"].to_numpy()
    slope = x @ residual / (x @ x)
    left = ((residual - np.outer(x, slope)) ** 2).sum(axis=0) / (96 - 12 - 1)
    inside = fit.reml.rho > 0
    np.testing.assert_allclose(F[inside], (slope**2 * (x @ x) / left)[inside], rtol=1e-8)
    np.testing.assert_allclose(df[inside], 96 - 12 - 1, rtol=1e-8)


# ------------------------------------------------------------------------------------------ between-within


def test_between_within_counts_donors_for_donor_level_terms_and_cells_for_the_others():
    obs, Y, _ = small_cohort(2)
    fit = fitted(Y, obs, "~ x + age + diagnosis + (1 | sample_id)")
    expected = {"x": 57 - 7 - 1, "age": 7 - 4, "diagnosis": 7 - 4}
    for term, df in expected.items():
        assert (fit.test(term, method="between-within").table["df"] == df).all()
    # A hypothesis on both kinds is judged by the donors.
    assert (fit.test(["x", "age"], method="between-within").table["df"] == 3).all()


def test_wald_is_the_normal_limit():
    obs, Y, _ = small_cohort(3)
    fit = fitted(Y, obs, "~ x + diagnosis + (1 | sample_id)")
    table = fit.test("x", method="wald").table
    z = table["coef"] / table["se"]
    np.testing.assert_allclose(table["pvals"], 2 * distributions.norm.sf(np.abs(z)), rtol=1e-10)
    np.testing.assert_allclose(table["ci_high"], table["coef"] + distributions.norm.ppf(0.975) * table["se"])


@pytest.mark.parametrize("method", ["between-within", "satterthwaite", "kenward-roger"])
def test_t_intervals_leave_out_zero_when_the_test_rejects(method):
    obs, Y, _ = balanced_cohort(("control", "AD"), seed=9, n_genes=400)
    table = fitted(Y, obs, "~ x + diagnosis + (1 | sample_id)").test("diagnosis", method=method).table
    without_zero = (table["ci_low"] > 0) | (table["ci_high"] < 0)
    assert without_zero.any()
    np.testing.assert_array_equal(without_zero, table["pvals"] < 0.05)


def test_genes_without_a_fit_have_no_test():
    obs, Y, donor = small_cohort(4)
    Y[:, 1], Y[:, 3] = 2.0, donor  # constant; constant in every donor
    stats = sufficient_statistics(Y, build_design("~ x + diagnosis + (1 | sample_id)", obs))
    fit = fitted(Y, obs, "~ x + diagnosis + (1 | sample_id)")
    (reml,) = fit_models([stats], fit.coding.coef_names, reml=True, show_progress=False)
    assert (reml.usable == [True, False, True, False, True]).all()
    for method in ("between-within", "satterthwaite", "kenward-roger", "wald"):
        table = fit.test("diagnosis", method=method).table
        assert (table["pvals"].notna() == reml.usable).all()
        assert (table["df"].notna() == reml.usable).all()
