"""Profile-likelihood intervals against a dense likelihood, against lme4's `confint`, and against the test itself."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import optimize
from scipy.stats import chi2

from cohorts import fitted
from sc_lmm._design.model_matrix import build_design
from sc_lmm._inference import intervals
from sc_lmm._model.deviance import Profile

HERE = Path(__file__).parents[1] / "reference"
FORMULA = "~ x + age + diagnosis + (1 | sample_id)"
LME4 = {
    "S60sub": "~ sequencing_saturation + diagnosis + (1 | sample_id)",
    "C60sub": "~ log_libsize + sex + age + diagnosis + (1 | sample_id)",
}


def cohort(seed: int, n_donors: int = 8, n_genes: int = 6, mean: float = 3.0, sd_donor: float = 1.0):
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(n_donors), rng.integers(3, 12, n_donors))
    obs = pd.DataFrame(
        {
            "sample_id": pd.Categorical(donor.astype(str)),
            "x": rng.normal(size=donor.size) + donor / 5,
            "age": rng.normal(70, 8, n_donors)[donor],
            "diagnosis": np.where(donor % 2, "case", "control"),
        }
    )
    effects = rng.normal(0, sd_donor, (n_donors, n_genes)) * np.linspace(0, 1.5, n_genes)
    return obs, rng.normal(mean, 1, (donor.size, n_genes)) + effects[donor], donor


def dense_profile(X: np.ndarray, donor: np.ndarray, y: np.ndarray) -> float:
    """Smallest -2 log L of y ~ N(X beta, s (I + rho ZZ')) over beta, s and rho >= 0, by scipy on dense matrices."""
    Z = (donor[:, None] == np.unique(donor)).astype(float)
    n = y.size

    def deviance(rho: float) -> float:
        V = np.eye(n) + rho * Z @ Z.T
        root = np.linalg.cholesky(V)
        Xw, yw = np.linalg.solve(root, X), np.linalg.solve(root, y)
        rss = np.sum((yw - Xw @ np.linalg.lstsq(Xw, yw, rcond=None)[0]) ** 2)
        return n * (np.log(2 * np.pi * rss / n) + 1) + 2 * np.log(np.diag(root)).sum()

    grid = np.concatenate([[0.0], np.logspace(-4, 9, 53)])
    values = [deviance(rho) for rho in grid]
    k = int(np.argmin(values))
    low, high = grid[max(k - 1, 0)], grid[min(k + 1, grid.size - 1)]
    inside = optimize.minimize_scalar(deviance, bounds=(low, high), method="bounded", options={"xatol": 1e-10})
    return min(inside.fun, values[0])


@pytest.mark.parametrize("conf_level", [0.8, 0.95])
@pytest.mark.parametrize("term", ["x", "age", "diagnosis"])
def test_deviance_rises_by_the_chi_square_quantile_at_both_limits(term, conf_level):
    obs, Y, donor = cohort(1)
    table = fitted(Y, obs, FORMULA).test(term, calibrate=False, conf_level=conf_level).table
    X = build_design(FORMULA, obs).X
    column = {"x": 1, "age": 2, "diagnosis": 3}[term]
    rest = np.delete(X, column, axis=1)
    assert {"ok", "boundary"} == set(table["status"])
    for g in (0, 2, 5):
        at_estimate = dense_profile(X, donor, Y[:, g])
        for limit in (table["ci_low"].iloc[g], table["ci_high"].iloc[g]):
            rise = dense_profile(rest, donor, Y[:, g] - limit * X[:, column]) - at_estimate
            np.testing.assert_allclose(rise, chi2.ppf(conf_level, 1), rtol=1e-6)
        assert table["ci_low"].iloc[g] < table["coef"].iloc[g] < table["ci_high"].iloc[g]


@pytest.mark.parametrize("name", LME4)
def test_intervals_are_those_of_lme4(name):
    # lme4 draws splines through a few points of its profile and inverts them. Where the donor variance of the profile
    # goes to 0 the profile has a kink, and the spline is off by up to a tenth of a standard error; the test above is
    # what says which is right.
    adata = ad.read_h5ad(HERE / f"{name}.h5ad")
    reference = pd.read_csv(HERE / f"ref_{name}_lme4.csv", index_col=0).loc[adata.var_names]
    table = fitted(adata.X, adata.obs, LME4[name]).test("diagnosis", calibrate=False).table
    for ours, theirs in (("ci_low", "ML_profCI_lo"), ("ci_high", "ML_profCI_hi")):
        off = np.abs(table[ours].to_numpy() - reference[theirs].to_numpy()) / table["se"].to_numpy()
        assert (off < 1e-3).mean() >= 0.9
        assert off.max() < 0.1
        assert off[reference["ML_theta1"] > 0.1].max(initial=0) < 1e-3


def test_where_lme4_is_off_the_deviance_says_that_we_are_not():
    adata = ad.read_h5ad(HERE / "S60sub.h5ad")
    reference = pd.read_csv(HERE / "ref_S60sub_lme4.csv", index_col=0).loc[adata.var_names]
    fit = fitted(adata.X, adata.obs, LME4["S60sub"])
    table = fit.test("diagnosis", calibrate=False).table
    off = np.abs(table["ci_low"].to_numpy() - reference["ML_profCI_lo"].to_numpy()) / table["se"].to_numpy()
    g = int(np.argmax(off))
    assert off[g] > 0.01
    design = build_design(LME4["S60sub"], adata.obs)
    rest, column = np.delete(design.X, 2, axis=1), design.X[:, 2]

    def rise(limit: float) -> float:
        # The null model of y - c x, fitted from its cells.
        response = (adata.X[:, g] - limit * column)[:, None]
        null = fitted(response, adata.obs, "~ sequencing_saturation + (1 | sample_id)")
        return float(null.ml.deviance[0] - fit.ml.deviance[g])

    assert rest.shape[1] == 2
    np.testing.assert_allclose(rise(table["ci_low"].iloc[g]), chi2.ppf(0.95, 1), rtol=1e-6)
    assert abs(rise(reference["ML_profCI_lo"].iloc[g]) - chi2.ppf(0.95, 1)) > 0.01


@pytest.mark.parametrize("calibrate", [True, False])
@pytest.mark.parametrize("term", ["x", "diagnosis"])
def test_interval_leaves_out_zero_exactly_when_the_test_rejects(term, calibrate):
    obs, Y, _ = cohort(2, n_genes=500)
    table = fitted(Y, obs, FORMULA).test(term, calibrate=calibrate).table
    without_zero = (table["ci_low"] > 0) | (table["ci_high"] < 0)
    assert 5 < without_zero.sum() < 250
    np.testing.assert_array_equal(without_zero, table["pvals"] < 0.05)


def test_bisection_finds_what_newton_finds(monkeypatch):
    obs, Y, _ = cohort(8, n_genes=40)
    fit = fitted(Y, obs, FORMULA)
    table = fit.test("diagnosis", calibrate=False).table
    monkeypatch.setattr(intervals, "_STEPS", 0)
    bisected = fit.test("diagnosis", calibrate=False).table
    for limit in ("ci_low", "ci_high"):
        assert (bisected[limit] != table[limit]).any()
        np.testing.assert_allclose(bisected[limit], table[limit], rtol=1e-5, atol=1e-6)


def test_newton_leaves_next_to_nothing_to_bisection(monkeypatch):
    obs, Y, _ = cohort(9, n_genes=500)
    fit = fitted(Y, obs, FORMULA)
    minimised = []
    real = Profile.minimum

    def counting(objective):
        minimised.append(objective.rss_0.size)
        return real(objective)

    monkeypatch.setattr(Profile, "minimum", counting)
    fit.test("diagnosis", calibrate=False)
    # Both limits of every gene are confirmed once.
    assert 1000 <= sum(minimised) < 1050


def test_calibrated_intervals_are_wider_with_few_donors():
    obs, Y, _ = cohort(3, n_genes=50)
    fit = fitted(Y, obs, FORMULA)
    plain, calibrated = fit.test("diagnosis", calibrate=False).table, fit.test("diagnosis").table
    assert (calibrated["ci_low"] < plain["ci_low"]).all()
    assert (calibrated["ci_high"] > plain["ci_high"]).all()
    assert (calibrated["calibration"] > 1).all()


def test_intervals_follow_the_units_and_the_sign_of_the_response():
    obs, Y, _ = cohort(4, n_genes=20)
    table = fitted(Y, obs, FORMULA).test("diagnosis", calibrate=False).table
    moved = fitted(100 - 10 * Y, obs, FORMULA).test("diagnosis", calibrate=False).table
    np.testing.assert_allclose(moved["ci_low"], -10 * table["ci_high"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(moved["ci_high"], -10 * table["ci_low"], rtol=1e-6, atol=1e-7)


def test_genes_far_from_zero_and_models_without_intercept():
    # The statistics of such genes are kept about a shift, which a model without an intercept cannot absorb.
    obs, Y, donor = cohort(5, mean=2000.0)
    table = fitted(Y, obs, "~ 0 + x + age + (1 | sample_id)").test("x", calibrate=False).table
    X = obs[["x", "age"]].to_numpy()
    rise = dense_profile(X[:, 1:], donor, Y[:, 3] - table["ci_low"].iloc[3] * X[:, 0]) - dense_profile(
        X, donor, Y[:, 3]
    )
    np.testing.assert_allclose(rise, chi2.ppf(0.95, 1), rtol=1e-4)
    near = fitted(Y - 2000.0, obs, FORMULA).test("diagnosis", calibrate=False).table
    far = fitted(Y, obs, FORMULA).test("diagnosis", calibrate=False).table
    np.testing.assert_allclose(far[["ci_low", "ci_high"]], near[["ci_low", "ci_high"]], rtol=1e-6, atol=1e-6)


def test_interval_of_the_intercept_of_genes_far_from_zero():
    # The shift is undone for the null model, which has no constant to absorb it.
    obs, Y, _ = cohort(5, mean=0.0)
    near, far = (fitted(y, obs, "~ x + diagnosis + (1 | sample_id)") for y in (Y, Y + 2000.0))
    assert (far.stats.shift > 1000).all()
    table, shifted = (f.contrast("cond()", calibrate=False).table for f in (near, far))
    for column in ("coef", "ci_low", "ci_high"):
        np.testing.assert_allclose(shifted[column] - 2000.0, table[column], atol=1e-5)


def test_a_contrast_of_levels_has_the_interval_of_the_recoded_factor():
    obs, Y, donor = cohort(6, n_donors=9)
    groups = np.array(["a", "b", "c"])[donor % 3]
    obs["stage"] = pd.Categorical(groups)
    contrast = "cond(stage='c') - cond(stage='b')"
    direct = fitted(Y, obs, "~ x + stage + (1 | sample_id)").contrast(contrast, calibrate=False).table
    obs["stage"] = pd.Categorical(groups, ["b", "a", "c"])
    recoded = fitted(Y, obs, "~ x + stage + (1 | sample_id)").test("stage", calibrate=False).tables["c"]
    for column in ("coef", "se", "ci_low", "ci_high", "pvals"):
        np.testing.assert_allclose(direct[column], recoded[column], rtol=1e-6, atol=1e-9)


def test_genes_without_a_fit_and_joint_tests_have_no_interval():
    obs, Y, donor = cohort(7)
    Y[:, 1], Y[:, 2] = 1.0, donor
    fit = fitted(Y, obs, FORMULA)
    table = fit.test("diagnosis").table
    assert table["ci_low"].isna().tolist() == [False, True, True, False, False, False]
    assert fit.test(["age", "diagnosis"]).table["ci_low"].isna().all()
