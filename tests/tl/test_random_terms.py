"""Crossed, nested and sloped random terms through the public functions: results, storage, reports, texts."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl
from sc_lmm._errors import DesignError

FORMULAS = {
    "slope": ("~ condition + (condition | donor)", "condition", ["sd_donor", "sd_donor_condition[T.stim]"]),
    "uncorrelated": ("~ condition + (1 + condition || donor)", "condition", ["sd_donor", "sd_donor_condition[T.stim]"]),
    "crossed": ("~ arm + (1 | donor) + (1 | batch)", "arm", ["sd_donor", "sd_batch"]),
    "nested": ("~ condition + (1 | donor/condition)", "condition", ["sd_donor", "sd_donor_condition"]),
    "all": ("~ arm + condition + (condition | donor) + (1 | batch)", "condition", ["sd_donor", "sd_batch"]),
}


def cells(n_donors: int = 8, n_genes: int = 240, n: int = 960, seed: int = 0) -> ad.AnnData:
    """Donors seen under both conditions, batches that cross them; the first genes change with the condition."""
    rng = np.random.default_rng(seed)
    donor, batch = rng.permutation(np.arange(n) % n_donors), rng.integers(0, 4, n)
    stim = rng.integers(0, 2, n)
    obs = pd.DataFrame(
        {
            "donor": [f"d{k}" for k in donor],
            "batch": [f"b{k}" for k in batch],
            "condition": np.array(["ctrl", "stim"])[stim],
            "arm": np.array(["a", "b"])[donor % 2],
            "depth": rng.normal(0, 1, n),
        },
        index=[f"c{k}" for k in range(n)],
    )
    sd = rng.choice([0.0, 0.2, 0.4], (3, n_genes))
    Y = 10 + rng.normal(0, 1, (n, n_genes))
    Y += (sd[0] * rng.normal(0, 1, (n_donors, n_genes)))[donor] + (sd[1] * rng.normal(0, 1, (4, n_genes)))[batch]
    Y += stim[:, None] * (sd[2] * rng.normal(0, 1, (n_donors, n_genes)))[donor]
    Y[:, :20] += 1.5 * stim[:, None]
    return ad.AnnData(Y, obs=obs, var=pd.DataFrame(index=[f"g{k}" for k in range(n_genes)]))


def run(adata: ad.AnnData, formula: str, test: str, **choices) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl._errors.LmmWarning)
        sl.tl.lmm_de(adata, formula, test, **choices)
    return adata.varm["lmm_de"]


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    return cells()


@pytest.mark.parametrize("name", FORMULAS)
def test_a_run_is_complete_and_survives_a_file(adata, name, tmp_path):
    formula, test, columns = FORMULAS[name]
    table = run(adata, formula, test)
    assert set(columns) <= set(table.columns)
    assert table["status"].isin(["ok", "boundary"]).all()
    assert ((table["at_zero"] != "") == (table["status"] == "boundary")).mean() > 0.99
    assert table["pvals"].between(0, 1).all()
    if test == "condition":
        assert (table["pvals_adj"][:20] < 0.05).mean() > 0.8
    assert (table["pvals"][20:] < 0.05).mean() < 0.1
    adata.write_h5ad(tmp_path / "run.h5ad")
    back = ad.read_h5ad(tmp_path / "run.h5ad")
    assert sl.get.lmm_de_df(back).shape == sl.get.lmm_de_df(adata).shape
    report = sl.get.design_report(back)
    assert report.formula == formula
    assert len(report.random) == len(sl.tl.lmm_fit(adata, formula).coding.formula.random)
    assert "levels of" in str(sl.get.lmm_de_equation(back))


@pytest.mark.parametrize("method", ["satterthwaite", "kenward-roger", "between-within"])
def test_degrees_of_freedom_are_of_donors(adata, method):
    for name, df in {"slope": 7, "crossed": 6, "nested": 7}.items():
        formula, test, _ = FORMULAS[name]
        assert run(adata, formula, test, method=method)["df"].median() == pytest.approx(df, abs=0.3)


def test_fits_are_saved_and_answer_as_before(adata, tmp_path):
    fit = sl.tl.lmm_fit(adata, FORMULAS["all"][0])
    fit.save(tmp_path / "fit")
    again = type(fit).load(tmp_path / "fit")
    pd.testing.assert_frame_equal(again.test("condition").table, fit.test("condition").table)
    assert "g5" in repr(again.gene("g5"))


def test_predictions_are_those_of_the_scalar_formula_where_the_other_term_is_zero(adata):
    fit = sl.tl.lmm_fit(adata, FORMULAS["crossed"][0])
    only = sl.tl.lmm_fit(adata, "~ arm + (1 | donor)")
    gone = np.flatnonzero((fit.reml.sd(fit.stats.groupings[1])[:, 0] == 0) & (only.reml.rho > 0))[:3]
    assert gone.size == 3
    for gene in fit.var_names[gone]:
        effects = sl.get.ranef_df(fit, gene).loc["donor"].droplevel("effect_of")
        expected = sl.get.ranef_df(only, gene)
        for column in ("effect", "sd"):
            np.testing.assert_allclose(effects[column], expected[column], rtol=1e-4, atol=1e-6)


def test_shares_of_variance_sum_to_one_and_are_those_of_the_estimates(adata):
    fit = sl.tl.lmm_fit(adata, FORMULAS["all"][0])
    shares = sl.get.variance_partition_df(fit)
    assert list(shares.columns) == ["arm", "condition", "donor", "batch", "residual"]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    X = pd.get_dummies(adata.obs["condition"])["stim"].to_numpy(float)
    fixed = np.var(X, ddof=1) * fit.ml.beta[:, 2] ** 2
    np.testing.assert_allclose(shares["condition"] / shares["residual"], fixed / fit.ml.sigma2, rtol=1e-8)
    donor = fit.stats.groupings[0]
    covariance = fit.ml.covariance(donor)
    Z = np.column_stack([np.ones_like(X), X])
    average = np.einsum("ni,gij,nj->g", Z, covariance, Z) / len(Z)
    np.testing.assert_allclose(shares["donor"] / shares["residual"], average / fit.ml.sigma2, rtol=1e-8, atol=1e-12)


def test_a_random_term_is_tested_given_the_others(adata):
    rng = np.random.default_rng(3)
    without = adata.copy()
    without.X = 10 + adata.X - pd.DataFrame(adata.X).groupby(adata.obs["batch"].to_numpy()).transform("mean").to_numpy()
    without.X += rng.normal(0, 0.3, (8, adata.n_vars))[adata.obs["donor"].astype("category").cat.codes]
    fit = sl.tl.lmm_fit(without, FORMULAS["crossed"][0])
    assert (fit.test("(1 | donor)").table["pvals"] < 0.05).mean() > 0.6
    assert (fit.test("(1 | batch)").table["pvals"] < 0.05).mean() < 0.05


def test_a_ratio_alone_is_calibrated_by_simulation(adata):
    fit = sl.tl.lmm_fit(adata, FORMULAS["crossed"][0])
    table = fit.test("arm", moderate=False).table
    varies = (table["sd_donor"] > 0.2).to_numpy()
    # As of one intercept with these donors, whose factor is found in another way.
    one = sl.tl.lmm_fit(adata, "~ arm + (1 | donor)").test("arm", moderate=False).table["calibration"]
    np.testing.assert_allclose(table["calibration"][varies].mean(), one[varies].mean(), rtol=0.06)
    assert (table["pvals"] > table["pvals_chi2"])[varies].all()


def test_what_a_report_tells_to_type_can_be_typed(adata):
    report = sl.tl.check_design(adata, "~ condition + (1 | donor)", "condition")
    (paired,) = (v for v in report.verdicts if v.code == "paired")
    assert '"~ condition + (condition | donor)"' in paired.warning
    sloped = sl.tl.check_design(adata, "~ condition + (condition | donor)", "condition")
    assert (sloped.test.df, sloped.grade) == (7, "ok")
    nested = sl.tl.check_design(adata, FORMULAS["nested"][0], "condition")
    assert nested.test.df == 7
    reused = adata.copy()
    reused.obs["part"] = np.array(["1", "2"])[np.arange(adata.n_obs) // 8 % 2]
    verdicts = sl.tl.check_design(reused, "~ arm + (1 | donor/part)", "arm").verdicts
    assert "nested_labels" in {v.code for v in verdicts}
    assert any("donor:condition is nested in donor." in term.relations for term in nested.random)
    lacking = sl.tl.check_design(adata, "~ arm + (depth | donor)", "arm")
    assert "slope_without_fixed" in {v.code for v in lacking.verdicts}


REFUSED = {
    "one level": ("~ arm + (1 | donor) + (1 | one)", "one level"),
    "a level per cell": ("~ arm + (1 | donor) + (1 | cell)", "as many levels as cells"),
    "the same division": ("~ condition + (1 | donor) + (1 | same)", "same division"),
    "slope constant in groups": ("~ arm + (arm | donor)", "constant within every level"),
    "aliased with fixed": ("~ batch + condition + (1 | donor) + (1 | batch)", "tell all levels"),
    "a column twice": ("~ condition + (1 | donor) + (condition | donor)", "cannot be told apart"),
    "columns that determine each other": ("~ depth + (1 + depth + twice | donor)", "linear combinations"),
    "too many parameters": ("~ depth + (1 + depth + x2 + x3 + x4 | donor)", "12 are the most"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_data_can_tell_is_refused_before_anything_is_read(adata, name):
    formula, reason = REFUSED[name]
    rng = np.random.default_rng(0)
    obs = adata.obs.assign(
        one="x", cell=adata.obs_names, same=adata.obs["donor"].astype(str) + "s", twice=2 * adata.obs["depth"]
    )
    obs = obs.assign(**{f"x{k}": rng.normal(0, 1, adata.n_obs) for k in (2, 3, 4)})
    with pytest.raises(DesignError, match=reason):
        sl.tl.lmm_de(
            ad.AnnData(adata.X, obs=obs, var=adata.var), formula, "depth" if "depth" in formula else "condition"
        )


def test_power_and_permutations_say_what_they_are_of(adata):
    for call in (sl.tl.power, sl.tl.permutation_check):
        choices = {"effect": 1.0} if call is sl.tl.power else {}
        with pytest.raises(DesignError, match="one random intercept"):
            call(adata, FORMULAS["slope"][0], "condition", **choices)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("method", ["lrt", "satterthwaite"])
def test_genes_without_variation_are_told_and_leave_the_others(name, method):
    formula, test, _ = FORMULAS[name]
    plain, odd = cells(n_genes=30), cells(n_genes=30)
    odd.X[:, 0], odd.X[:, 1] = 0.0, 3.7
    odd.X[:, 2] = 5.0 + odd.obs["condition"].eq("stim") * 0.25
    expected, found = (run(a, formula, test, method=method, moderate=False) for a in (plain, odd))
    assert found["status"].astype(str).tolist()[:2] == ["constant", "constant"]
    assert found["pvals"].iloc[:2].isna().all()
    if "condition" in formula:  # which then explains the third gene exactly
        assert (found["status"].iloc[2], found["pvals"].isna().iloc[2]) == ("failed", True)
    columns = ["coef", "se", "loglik", "sd_residual", "lrt"]
    pd.testing.assert_frame_equal(found[columns].iloc[3:], expected[columns].iloc[3:])
