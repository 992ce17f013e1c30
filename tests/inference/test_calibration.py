"""The calibration factor against brute force and closed forms, and the level of the calibrated test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import special
from scipy import stats as distributions

from sc_lmm._design.hypothesis import hypotheses_of
from sc_lmm._design.model_matrix import build_design
from sc_lmm._inference.calibration import calibrate, draw_parts
from sc_lmm._inference.fitted import LmmFit
from sc_lmm._model.deviance import Profile
from sc_lmm._model.fit import fit_models
from sc_lmm._statistics import null_model, sufficient_statistics


def _load_simulation():
    """The benchmark's simulation, which was written apart from the package's."""
    path = Path(__file__).parents[1] / "benchmarks" / "calibration_simulate.py"
    spec = importlib.util.spec_from_file_location("calibration_simulate", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SIMULATION = _load_simulation()


def design_of(n_donors: int, n_cells: int, levels: int = 2, formula: str = "~ x + diagnosis + (1 | sample_id)"):
    rng = np.random.default_rng(n_donors)
    donor = np.repeat(np.arange(n_donors), n_cells)
    obs = pd.DataFrame(
        {
            "sample_id": pd.Categorical([f"d{j:02d}" for j in donor]),
            "x": rng.normal(size=donor.size),
            "diagnosis": np.array(["a", "b", "c"])[donor % levels],
        }
    )
    return build_design(formula, obs), donor


def ratios(stats, hypothesis, names) -> np.ndarray:
    full, null = fit_models([stats, null_model(stats, hypothesis)], names, show_progress=False)
    return np.maximum(null.deviance - full.deviance, 0)


@pytest.mark.parametrize("levels", [2, 3])
def test_factor_is_the_mean_ratio_of_simulated_cells(levels):
    """Six balanced donors, expression of every cell drawn."""
    design, donor = design_of(6, 20, levels)
    rng = np.random.default_rng(1)
    e, u = rng.standard_normal((120, 6000)), rng.standard_normal((6, 6000))[donor]
    stats = sufficient_statistics(e[:, :1], design, show_progress=False)
    hypothesis = hypotheses_of(design.coding, "diagnosis")[0]
    assert hypothesis.df == levels - 1
    table = calibrate(stats, hypothesis)
    for rho in (0.0, 0.02, 0.3, 10.0):
        cells = sufficient_statistics(np.sqrt(rho) * u + e, design, show_progress=False)
        ratio = ratios(cells, hypothesis, design.coef_names) / hypothesis.df
        error = ratio.std() / np.sqrt(ratio.size) + table.error.max() + 0.005  # the table is linear between its points
        assert abs(table.at(np.array([rho]))[0] - ratio.mean()) < 3 * error


@pytest.mark.parametrize(("n_donors", "levels"), [(6, 2), (9, 3), (20, 2)])
def test_factor_of_large_rho_is_that_of_the_donor_means(n_donors, levels):
    """Donor means are then all that counts: LRT = m log(1 + q F / nu) with F of q and nu = m - q - 1 df.

    So exp(-LRT/m) is Beta(nu/2, q/2), and E[LRT] = m (digamma((nu + q)/2) - digamma(nu/2)).
    """
    design, _ = design_of(n_donors, 30, levels)
    stats = sufficient_statistics(np.ones((30 * n_donors, 1)), design, show_progress=False)
    table = calibrate(stats, hypotheses_of(design.coding, "diagnosis")[0])
    q, nu = levels - 1, n_donors - levels
    exact = n_donors * (special.digamma((nu + q) / 2) - special.digamma(nu / 2)) / q
    assert table.error[-1] < 0.01
    np.testing.assert_allclose(table.factor[-1], exact, rtol=0.015)


def test_factor_of_a_cell_level_covariate_is_one():
    design, _ = design_of(8, 40)
    stats = sufficient_statistics(np.ones((320, 1)), design, show_progress=False)
    table = calibrate(stats, hypotheses_of(design.coding, "x")[0])
    np.testing.assert_allclose(table.factor, 1, atol=0.02)


def test_factor_falls_to_one_with_the_number_of_donors():
    factors = []
    for n_donors in (6, 12, 24, 100):
        design, _ = design_of(n_donors, 20)
        stats = sufficient_statistics(np.ones((20 * n_donors, 1)), design, show_progress=False)
        factors.append(calibrate(stats, hypotheses_of(design.coding, "diagnosis")[0]).factor[-1])
    assert (np.diff(factors) < 0).all()
    assert 1 < factors[-1] < 1.05


def test_seeded_and_reproducible():
    design, _ = design_of(8, 20)
    stats = sufficient_statistics(np.ones((160, 1)), design, show_progress=False)
    hypothesis = hypotheses_of(design.coding, "diagnosis")[0]
    one, same, other = (calibrate(stats, hypothesis, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.factor, same.factor)
    assert not np.array_equal(one.factor, other.factor)
    assert (np.abs(one.factor - other.factor) < 4 * np.hypot(one.error, other.error)).all()
    assert (one.error < 0.01 * one.factor).all()
    assert one.seed == 0


def test_work_does_not_grow_with_genes_or_cells(monkeypatch):
    fitted = []
    real = Profile.minimum

    def counting(objective):
        fitted.append(objective.eta2.size)
        return real(objective)

    monkeypatch.setattr(Profile, "minimum", counting)
    work, factors = [], []
    for n_cells, n_genes in ((15, 1), (15, 300), (600, 1)):
        design, donor = design_of(8, n_cells)
        Y = np.random.default_rng(0).normal(size=(donor.size, n_genes))
        stats = sufficient_statistics(Y, design, show_progress=False)
        fit = LmmFit(design.coding, stats, pd.RangeIndex(n_genes).astype(str), show_progress=False)
        fitted.clear()
        factors.append(fit.calibration(hypotheses_of(design.coding, "diagnosis")[0]).factor)
        work.append(sum(fitted))
    assert len(set(work)) == 1
    np.testing.assert_array_equal(factors[0], factors[1])


def test_the_factor_is_looked_up_at_the_null_rho_and_divides_the_ratio():
    design, donor = design_of(8, 15)
    rng = np.random.default_rng(2)
    Y = rng.normal(size=(120, 30)) + 0.4 * rng.normal(size=(8, 30))[donor]
    fit = LmmFit(design.coding, sufficient_statistics(Y, design), pd.RangeIndex(30).astype(str), show_progress=False)
    table, plain = fit.test("diagnosis").table, fit.test("diagnosis", calibrate=False).table
    factor = table["calibration"]
    assert factor.between(0.9, 1.6).all()  # with so few cells it falls a little below 1 where rho is small
    assert factor.nunique() > 5
    np.testing.assert_array_equal(table["lrt"], plain["lrt"])
    np.testing.assert_array_equal(table["pvals_chi2"], plain["pvals_chi2"])
    np.testing.assert_allclose(table["pvals"], distributions.chi2.sf(table["lrt"] / factor, 1), rtol=1e-9)
    np.testing.assert_array_equal(plain["pvals"], plain["pvals_chi2"])
    hypothesis = hypotheses_of(design.coding, "diagnosis")[0]
    (null,) = fit_models([null_model(fit.stats, hypothesis)], design.coef_names, reml=True, show_progress=False)
    np.testing.assert_allclose(factor, fit.calibration(hypothesis).at(null.rho), rtol=1e-10)


def test_genes_of_one_design_have_one_table_whatever_their_units():
    design, donor = design_of(8, 15)
    rng = np.random.default_rng(3)
    Y = rng.normal(size=(120, 10)) + 0.4 * rng.normal(size=(8, 10))[donor]
    names = pd.RangeIndex(10).astype(str)
    one, other = (
        LmmFit(design.coding, sufficient_statistics(y, design), names, show_progress=False).test("diagnosis").table
        for y in (Y, 1e3 * Y + 5)
    )
    np.testing.assert_allclose(one[["lrt", "calibration", "pvals"]], other[["lrt", "calibration", "pvals"]], rtol=1e-6)


def test_cohorts_without_degrees_of_freedom_within_donors_do_not_crash():
    rng = np.random.default_rng(4)
    donor = np.repeat(np.arange(6), 2)
    obs = pd.DataFrame(rng.normal(size=(12, 6)), columns=list("abcdef"))
    obs["sample_id"], obs["diagnosis"] = pd.Categorical(donor.astype(str)), np.where(donor % 2, "x", "y")
    design = build_design("~ a + b + c + d + e + f + diagnosis + (1 | sample_id)", obs)
    stats = sufficient_statistics(rng.normal(size=(12, 3)), design, show_progress=False)
    fit = LmmFit(design.coding, stats, pd.RangeIndex(3).astype(str), show_progress=False)
    for test in ("diagnosis", "(1 | sample_id)"):
        assert (fit.test(test).table["status"] == "failed").all()


# ---------------------------------------------------------------------------- the simulations agree


@pytest.mark.parametrize("balanced", [True, False])
def test_three_ways_of_drawing_statistics_agree(balanced):
    """From every cell, from donor means and products within donors, and the package's."""
    cohort = SIMULATION.make_cohort(6, balanced=balanced, cells_per_donor=15)
    rng = np.random.default_rng(5)
    genes = SIMULATION.null_genes(0.2, 4000)
    hypothesis = hypotheses_of(cohort.design.coding, "diagnosis")[0]
    donors, cells = draw_parts(cohort.stats, 4000, rng)
    root = np.sqrt(genes.rho[0])
    package = {name: root * getattr(donors, name) + getattr(cells, name) for name in ("XtY", "ZtY")}
    drawn = [SIMULATION.draw_cells(cohort, genes, rng), SIMULATION.draw(cohort, genes, rng)]
    moments = [np.cov(np.concatenate([s.XtY, s.ZtY])) for s in drawn]
    moments.append(np.cov(np.concatenate([package["XtY"], package["ZtY"]])))
    scale = np.sqrt(np.outer(np.diag(moments[0]), np.diag(moments[0])) + 1e-12)
    for other in moments[1:]:
        assert np.abs((other - moments[0]) / scale).max() < 0.1
    assert distributions.kstest(cells.yty, distributions.chi2(cohort.stats.n_cells).cdf).pvalue > 1e-3
    one, other = (ratios(s, hypothesis, cohort.design.coef_names) for s in drawn)
    assert distributions.ks_2samp(one, other).pvalue > 1e-3
    assert distributions.ks_2samp(drawn[0].yty, drawn[1].yty).pvalue > 1e-3
    mean = calibrate(cohort.stats, hypothesis).at(genes.rho[:1])[0]
    np.testing.assert_allclose([one.mean(), other.mean()], mean, rtol=0.1)


# ---------------------------------------------------------------------------------- the study in small


@pytest.mark.parametrize("icc", [0.01, 0.05])
def test_calibrated_ratio_holds_its_level_with_eight_unbalanced_donors(icc):
    """4,000 null genes, Monte-Carlo error .0034; tests/benchmarks/calibration.py is the whole study."""
    cohort = SIMULATION.make_cohort(8, balanced=False)
    stats = SIMULATION.draw(cohort, SIMULATION.null_genes(icc, 4000), np.random.default_rng(6))
    fit = SIMULATION.fit_of(cohort, stats)
    pvals = fit.pvals("diagnosis")
    assert 0.040 < (pvals < 0.05).mean() < 0.068
    assert (pvals < 0.001).mean() <= 0.0025
    assert (fit.pvals("diagnosis", calibrate=False) < 0.05).mean() > 0.075
