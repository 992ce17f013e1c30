"""Weights of cells: the density of the multivariate normal, lme4, equal weights, and what is refused."""

from __future__ import annotations

import subprocess

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

import sc_lmm as sl
from sc_lmm import DesignError
from sc_lmm._design import build_design
from sc_lmm._inference import LmmFit
from sc_lmm._statistics import sufficient_statistics

FORMULA = "~ x + diagnosis + (1 | donor)"
N, LEVELS = 150, 9


def cohort(seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Cells of unequal weight; a gene without donor effect, one with, and one whose mean dwarfs everything."""
    rng = np.random.default_rng(seed)
    donor = np.concatenate([np.arange(LEVELS), rng.integers(0, LEVELS, N - LEVELS)])
    depth = rng.gamma(2, 3, N) + 0.1
    obs = pd.DataFrame(
        {
            "donor": [f"d{j}" for j in donor],
            "x": rng.normal(5, 2, N),
            "diagnosis": np.where(donor % 2, "case", "control"),
            "depth": depth,
            "root": np.sqrt(depth),
            "same": np.full(N, 3.0),
        },
        index=[f"c{i}" for i in range(N)],
    )
    noise = rng.normal(size=(N, 3)) / np.sqrt(depth / 6)[:, None]
    return obs, 3 + noise + rng.normal(size=(LEVELS, 3))[donor] * np.array([0, 0.7, 2]) + np.array([0, 0, 1e3])


def fitted(obs: pd.DataFrame, Y: object, weights: str | None) -> LmmFit:
    design = build_design(FORMULA, obs, weights=weights)
    names = pd.Index([f"g{i}" for i in range(Y.shape[1])])
    return LmmFit(design.coding, sufficient_statistics(Y, design), names, show_progress=False)


@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, sparse.csr_matrix, sparse.csc_array])
def test_likelihood_is_the_density_of_the_multivariate_normal(form):
    obs, Y = cohort()
    design = build_design(FORMULA, obs)
    Z = (obs["donor"].to_numpy()[:, None] == np.unique(obs["donor"])).astype(float)
    fit = fitted(obs, form(Y), "depth").ml
    relative = obs["depth"].to_numpy() / obs["depth"].mean()
    for g in range(Y.shape[1]):
        V = fit.sigma2[g] * (np.diag(1 / relative) + fit.rho[g] * Z @ Z.T)
        density = stats.multivariate_normal(design.X @ fit.beta[g], V).logpdf(Y[:, g])
        np.testing.assert_allclose(fit.loglik[g], density, rtol=1e-10)
        inverse = np.linalg.inv(V)
        vcov = np.linalg.inv(design.X.T @ inverse @ design.X)
        np.testing.assert_allclose(fit.vcov[g], vcov, rtol=1e-8)
        np.testing.assert_allclose(fit.beta[g], vcov @ design.X.T @ inverse @ Y[:, g], rtol=1e-9)


@pytest.mark.r
@pytest.mark.parametrize("reml", [False, True])
def test_lme4_agrees(tmp_path, reml):
    obs, Y = cohort(1)
    obs.assign(**{f"y{g}": Y[:, g] for g in range(3)}).to_csv(tmp_path / "cells.csv")
    script = f"""
    library(lme4); d <- read.csv("{tmp_path}/cells.csv"); d$diagnosis <- factor(d$diagnosis, c("case", "control"))
    for (y in c("y0", "y1", "y2")) {{
      f <- lmer(as.formula(paste(y, "~ x + diagnosis + (1 | donor)")), d, weights = depth, REML = {str(reml).upper()},
                control = lmerControl(optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-12)))
      cat(format(c(logLik(f), fixef(f), sqrt(diag(as.matrix(vcov(f)))), sigma(f)), digits = 15), "\\n")
    }}"""
    run = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=True)
    fit = fitted(obs, Y, "depth").reml if reml else fitted(obs, Y, "depth").ml
    for g, line in enumerate(run.stdout.splitlines()):
        loglik, *rest = map(float, line.split())
        beta, se, sigma = rest[:3], rest[3:6], rest[6]
        assert fit.loglik[g] > loglik - 1e-6
        np.testing.assert_allclose(fit.loglik[g], loglik, atol=1e-5)
        np.testing.assert_allclose((fit.beta[g] - beta) / se, 0, atol=1e-4)
        np.testing.assert_allclose(fit.se[g], se, rtol=1e-4)
        np.testing.assert_allclose(np.sqrt(fit.sigma2[g] * obs["depth"].mean()), sigma, rtol=1e-4)


def test_equal_weights_are_no_weights():
    obs, Y = cohort()
    plain, equal = (fitted(obs, Y, weights).test("diagnosis").table for weights in (None, "same"))
    pd.testing.assert_frame_equal(plain, equal, check_exact=True)


def test_only_ratios_of_weights_matter():
    obs, Y = cohort()
    obs["more"] = 1e6 * obs["depth"]
    one, other = (fitted(obs, Y, weights).test("diagnosis").table for weights in ("depth", "more"))
    pd.testing.assert_frame_equal(one, other, rtol=1e-9)


def test_a_transform_is_read_as_a_formula_reads_it():
    obs, Y = cohort()
    one, other = (fitted(obs, Y, weights).test("diagnosis").table for weights in ("np.sqrt(depth)", "root"))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_cell_of_weight_two_is_two_cells_for_the_means():
    """Donor means and their weights in V are those of cells that are there twice."""
    obs, Y = cohort()
    obs["count"] = 1.0 + (np.arange(N) % 2)
    twice = np.repeat(np.arange(N), obs["count"].astype(int))
    one = fitted(obs, Y, "count").stats
    other = fitted(obs.iloc[twice].assign(donor=obs["donor"].to_numpy()[twice]), Y[twice], None).stats
    np.testing.assert_allclose(one.sizes * obs["count"].mean(), other.sizes)
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-12)


def test_every_method_and_summary_takes_weights():
    obs, Y = cohort()
    fit = fitted(obs, Y, "depth")
    for method in ("lrt", "between-within", "satterthwaite", "kenward-roger"):
        assert fit.test("diagnosis", method=method).table["pvals"].notna().all()
    assert fit.test("(1 | donor)").table["pvals"].notna().all()
    assert fit.ranef("g1")["n_cells"].sum() == pytest.approx(N)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda w: -w, "zero, negative or not finite in 150 cells"),
        (lambda w: w.where(w.index != "c3", 0.0), "zero, negative or not finite in 1 cells"),
        (lambda w: w.where(w.index != "c3", np.inf), "infinite|not finite"),
        (lambda w: w.astype(str) + "x", "holds none"),
    ],
)
def test_what_is_no_weight_is_refused(values, message):
    obs, Y = cohort()
    adata = ad.AnnData(Y, obs=obs.assign(w=values(obs["depth"])))
    with pytest.raises(DesignError, match=message):
        sl.tl.lmm_de(adata, FORMULA, "diagnosis", weights="w")
    assert "lmm_de" not in adata.uns


@pytest.mark.parametrize("text", ["depth + x", "no_such", "1", "__import__('os')", "np.sqrt(depth"])
def test_what_is_no_column_is_refused(text):
    obs, Y = cohort()
    with pytest.raises(DesignError):
        sl.tl.lmm_de(ad.AnnData(Y, obs=obs), FORMULA, "diagnosis", weights=text)


def test_cells_without_a_weight_are_left_out():
    obs, Y = cohort()
    missing = obs.assign(depth=obs["depth"].where(np.arange(N) % 10 != 0))
    one = fitted(missing, Y, "depth").test("diagnosis").table
    kept = missing["depth"].notna().to_numpy()
    other = fitted(obs[kept], Y[kept], "depth").test("diagnosis").table
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_weights_of_a_run_are_kept_for_what_reads_its_cells_again():
    obs, Y = cohort()
    adata = ad.AnnData(np.abs(Y), obs=obs)
    sl.tl.lmm_de(adata, FORMULA, "diagnosis", weights="np.sqrt(depth)")
    assert sl.get.lmm_de_params(adata)["weights"] == "np.sqrt(depth)"
    fit = sl.tl.lmm_fit(adata, FORMULA, weights="np.sqrt(depth)")
    pd.testing.assert_frame_equal(sl.get.ranef_df(adata, "1"), fit.ranef("1"), rtol=1e-10)


def test_weights_spread_over_six_decades():
    obs, Y = cohort()
    obs["wide"] = np.geomspace(1, 1e6, N)
    table = fitted(obs, Y, "wide").test("diagnosis").table
    assert table["pvals"].between(0, 1).all()


def test_power_of_weighted_cells_is_that_of_their_precision():
    """A noncentral F by the dense covariance of cells whose residual variance is one over their weight."""
    rng = np.random.default_rng(6)
    donor = np.repeat(np.arange(10), 12)
    obs = pd.DataFrame({"donor": [f"d{j}" for j in donor], "arm": np.where(donor % 2, "case", "control")})
    obs["depth"], obs["x"] = rng.lognormal(8, 1.2, donor.size), rng.normal(size=donor.size)
    obs["x"] -= obs["x"].groupby(donor).transform("mean")  # so that it does not go along with the arm
    obs.index = [f"cell{i}" for i in range(len(obs))]
    icc, effect, adata = 0.1, 0.6, ad.AnnData(obs=obs)
    found = sl.tl.power(
        adata, "~ x + arm + (1 | donor)", "arm", effect=effect, icc=icc, weights="depth", reference="control"
    )

    w = obs["depth"].to_numpy() / obs["depth"].mean()
    X = np.column_stack([np.ones(donor.size), obs["x"], donor % 2])
    V = icc * (donor[:, None] == donor) + (1 - icc) * np.diag(1 / w)
    variance = np.linalg.inv(X.T @ np.linalg.solve(V, X))[2, 2]
    dof = donor.size - 3
    expected = stats.ncf.sf(stats.f.ppf(0.95, 1, dof), 1, dof, effect**2 / variance)
    np.testing.assert_allclose(found["power"], expected, rtol=1e-8)
    plain = sl.tl.power(adata, "~ x + arm + (1 | donor)", "arm", effect=effect, icc=icc, reference="control")
    assert abs(plain["power"][0] - expected) > 0.005


def test_weights_of_a_power_belong_to_the_design_or_the_fit():
    with pytest.raises(ValueError, match="weights describes a design, and none was given"):
        sl.tl.power(effect=0.5, n_donors=8, n_cells=100, weights="depth")
    adata = sl.datasets.brain_cohort(n_donors=8, n_cells=200, n_genes=5)
    fit = sl.tl.lmm_fit(adata, "~ diagnosis + (1 | sample_id)")
    with pytest.raises(ValueError, match="weights='age' belong to the fit"):
        sl.tl.power(fit, test="diagnosis", effect=0.5, weights="age")
