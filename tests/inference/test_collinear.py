"""Columns that all but determine each other: the answer of the same model in columns that are far apart, or a refusal.

The twin of x is x + 2^-k z with x and z few binary digits, so that both parameterisations are the same doubles and the
difference of the two is exact.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sc_lmm as sl
from sc_lmm import DesignError
from sc_lmm._design.model_matrix import build_design
from sc_lmm._inference.degrees_of_freedom import judged_between
from sc_lmm._inference.fitted import LmmFit
from sc_lmm._statistics import sufficient_statistics

if TYPE_CHECKING:
    from pathlib import Path

N_DONORS, N_GENES = 10, 4
METHODS = ("lrt", "between-within", "satterthwaite", "kenward-roger")
quick = settings(deadline=None, max_examples=8, derandomize=True)


def cohort(seed: int) -> pd.DataFrame:
    """`x` and `z` vary within donors, `age` and `bmi` do not; multiples of 2^-10 all."""
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(N_DONORS), rng.integers(8, 25, N_DONORS))
    n = donor.size
    numbers = {
        "x": rng.normal(size=n) + donor / 4,
        "z": rng.normal(size=n),
        "age": rng.normal(6, 1, N_DONORS)[donor],
        "bmi": rng.normal(size=N_DONORS)[donor],
    }
    obs = pd.DataFrame({name: np.round(values * 1024) / 1024 for name, values in numbers.items()})
    obs["day"] = 19_000.0 + rng.integers(-100, 100, n)
    obs["first_day"] = 19_000.0 + rng.permutation(np.linspace(-90, 90, N_DONORS).round())[donor]
    obs["donor"], obs["arm"] = pd.Categorical([f"d{j}" for j in donor]), np.where(donor % 2, "case", "control")
    obs.index = obs.index.astype(str)
    return obs


def expression(obs: pd.DataFrame, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, 1])
    donor = obs["donor"].cat.codes.to_numpy()
    effects = 0.1 * obs["z"] + 0.1 * obs["bmi"] + 0.001 * (obs["day"] - 19_000)
    return (
        rng.normal(5, 1, (len(obs), N_GENES))
        + 0.4 * rng.normal(size=(N_DONORS, N_GENES))[donor]
        + effects.to_numpy()[:, None]
    )


def fitted(obs: pd.DataFrame, formula: str, Y: np.ndarray | None = None) -> LmmFit:
    Y = expression(obs) if Y is None else Y
    design = build_design(f"~ {formula} + (1 | donor)", obs)
    names = pd.RangeIndex(Y.shape[1]).astype(str)
    return LmmFit(design.coding, sufficient_statistics(Y, design, show_progress=False), names, show_progress=False)


def table(fit: LmmFit, test: str, method: str) -> pd.DataFrame:
    found = fit.test(test, method=method, calibrate=False).table.drop(columns=["status", "calibration"])
    return found if method == "lrt" else found.drop(columns="loglik")  # a restricted one depends on the units of X


def assert_same(one: pd.DataFrame, other: pd.DataFrame, gap: float = 1.0, rtol: float = 1e-6) -> None:
    one = one.copy()
    one[["coef", "se", "ci_low", "ci_high"]] *= gap
    pd.testing.assert_frame_equal(one, other, rtol=rtol, atol=rtol * 1e-2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pair", [("x", "z"), ("age", "bmi")])  # within donors, and between them
@quick
@given(st.integers(0, 2**32 - 1), st.integers(0, 22))
def test_a_twin_is_fitted_as_what_tells_it_apart(pair, method, seed, digits):
    base, other = pair
    gap = 2.0**-digits
    obs = cohort(seed)
    obs["twin"] = obs[base] + gap * obs[other]
    assert (obs["twin"] - obs[base] == gap * obs[other]).all()
    twin, apart = fitted(obs, f"{base} + twin + day + arm"), fitted(obs, f"{base} + {other} + day + arm")
    assert_same(table(twin, "twin", method), table(apart, other, method), gap)
    for term in ("day", "arm"):  # after two columns that are known to few digits
        assert_same(table(twin, term, method), table(apart, term, method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["day", "first_day"])
def test_raw_powers_are_fitted_as_centred_ones(name, method):
    obs = cohort(1)
    obs["c"] = obs[name] - 19_000
    raw, centred = (
        fitted(obs, f"{name} + I({name}**2) + I({name}**3) + arm"),
        fitted(obs, "c + I(c**2) + I(c**3) + arm"),
    )
    poly = fitted(obs, f"poly({name}, 3) + arm")
    assert_same(table(raw, f"I({name} ** 3)", method), table(centred, "I(c ** 3)", method))
    for other in (centred, poly):
        assert_same(table(raw, "arm", method), table(other, "arm", method))


@pytest.mark.parametrize("name", ["x", "age"])
def test_a_large_origin_changes_the_intercept_alone(name):
    obs = cohort(2)
    far = obs.assign(**{name: obs[name] + 2.0**30})  # exact: a spread of 1e-9 of the length
    for method in METHODS:
        assert_same(
            table(fitted(far, f"{name} + arm"), name, method), table(fitted(obs, f"{name} + arm"), name, method)
        )


@pytest.mark.parametrize("formula", ["x + twin + arm", "age + old + arm", "0 + arm + x + twin"])
def test_twins_that_nothing_tells_apart_are_refused_with_their_relation(formula):
    obs = cohort(3)
    obs["twin"], obs["old"] = obs["x"] + 2.0**-26 * obs["z"], obs["age"] + 2.0**-26 * obs["bmi"]
    adata = ad.AnnData(expression(obs), obs=obs)
    with pytest.raises(DesignError, match=r"(twin = x|old = age)"):
        sl.tl.lmm_fit(adata, f"~ {formula} + (1 | donor)")
    with pytest.raises(DesignError, match="determine each other"):
        fitted(obs, formula)


def test_powers_that_nothing_tells_apart_are_refused_with_poly():
    obs = cohort(4)
    adata = ad.AnnData(expression(obs), obs=obs)
    raw = "day + I(day**2) + I(day**3) + I(day**4)"
    with pytest.raises(DesignError, match=r'Type "~ arm \+ poly\(day, 4\) \+ \(1 \| donor\)"'):
        sl.tl.lmm_de(adata, f"~ arm + {raw} + (1 | donor)", "arm")
    assert not sl.tl.check_design(adata, "~ arm + poly(day, 4) + (1 | donor)", "arm").refused


@pytest.mark.parametrize("method", METHODS)
def test_units_of_columns_from_1e_150_to_1e150(method):
    obs = cohort(5)
    formula, plain = "x + age + z + arm", fitted(cohort(5), "x + age + z + arm")
    for unit in (2.0**-498, 2.0**-40, 2.0**40, 2.0**498):
        scaled = fitted(obs.assign(x=obs["x"] * unit, age=obs["age"] / unit), formula)
        assert_same(table(scaled, "x", method), table(plain, "x", method), unit)
        assert_same(table(scaled, "age", method), table(plain, "age", method), 1 / unit)
        for test in ("arm", ["arm", "z"]):
            assert_same(table(scaled, test, method), table(plain, test, method))
        if method != "satterthwaite":  # whose contrasts of several coefficients depend on their units, as lmerTest's
            assert_same(table(scaled, ["x", "age"], method), table(plain, ["x", "age"], method))
        assert_same(table(scaled.drop("age"), "x", method), table(plain.drop("age"), "x", method), unit)
        assert_same(table(scaled.drop("x"), "age", method), table(plain.drop("x"), "age", method), 1 / unit)
        np.testing.assert_allclose(scaled.ranef("0")["effect"], plain.ranef("0")["effect"], rtol=1e-7, atol=1e-9)


def test_what_is_judged_between_donors_does_not_depend_on_units():
    obs = cohort(6)
    for unit in (1e-20, 1.0, 1e20):
        scaled = obs.assign(age=obs["age"] * unit, x=obs["x"] * unit)
        fit = fitted(scaled, "x + age + arm")
        eye = np.eye(4)
        names = fit.coding.coef_names
        for name, between in (("x", False), ("age", True), ("arm[T.control]", True)):
            assert judged_between(fit.stats, eye[[names.index(name)]]) is between


def test_a_column_and_its_part_within_donors():
    """x b + within(x) c is between(x) b + within(x) (b + c), so b is judged between donors, and c too."""
    obs = cohort(7)
    mixed, split = fitted(obs, "x + within(x) + arm"), fitted(obs, "within(x) + between(x) + arm")
    np.testing.assert_allclose(mixed.ml.loglik, split.ml.loglik, rtol=1e-12)
    for method in ("between-within", "satterthwaite", "kenward-roger"):
        assert_same(table(mixed, "x", method), table(split, "between(x)", method))
        assert_same(table(mixed, "arm", method), table(split, "arm", method))
    df = mixed.test("x", method="between-within").table["df"]
    assert (df == N_DONORS - 3).all()
    assert (split.test("within(x)", method="between-within").table["df"] == len(obs) - N_DONORS - 1).all()


@pytest.mark.parametrize(("unit", "origin"), [(1.0, 0.0), (1e-12, 0.0), (1.0, 2.0**30), (1e12, 0.0)])
def test_permutations_of_columns_of_any_unit_and_origin(unit, origin):
    obs = cohort(8)
    adata = ad.AnnData(np.abs(expression(obs)), obs=obs)
    arguments = {"test": "age", "n_permutations": 6, "methods": ["lrt uncalibrated", "between-within"], "alphas": [0.3]}
    formula = "~ x + age + (1 | donor)"
    expected = sl.tl.permutation_check(adata, formula, show_progress=False, **arguments)
    adata.obs["age"] = adata.obs["age"] * unit + origin
    found = sl.tl.permutation_check(adata, formula, show_progress=False, **arguments)
    pd.testing.assert_frame_equal(found.permuted, expected.permuted)
    assert found.distinct == expected.distinct == 6
    adata.obs["x"] = adata.obs["x"] * unit + origin
    with pytest.raises(DesignError, match="varies from cell to cell"):
        sl.tl.permutation_check(adata, formula, "x", show_progress=False, n_permutations=2)


def test_permutations_beside_a_twin():
    obs = cohort(9)
    obs["old"] = obs["age"] + 2.0**-20 * obs["bmi"]
    adata = ad.AnnData(np.abs(expression(obs)), obs=obs)
    arguments = {"n_permutations": 6, "methods": ["between-within", "lrt uncalibrated"], "alphas": [0.3]}
    twin, apart = (
        sl.tl.permutation_check(
            adata, f"~ x + age + {other} + arm + (1 | donor)", "arm", show_progress=False, **arguments
        )
        for other in ("old", "bmi")
    )
    pd.testing.assert_frame_equal(twin.permuted, apart.permuted)


@pytest.mark.parametrize("n_donors", [10, 14])
def test_power_of_a_pilot_with_columns_of_any_unit_and_origin(n_donors):
    obs = cohort(10)
    formula, choices = "~ x + age + arm + (1 | donor)", {"n_donors": n_donors, "n_simulations": 400, "moderate": False}
    test = "cond(arm='control') - cond(arm='case')"

    def powers(**change: pd.Series) -> list[float]:
        adata, methods = ad.AnnData(obs=obs.assign(**change)), ("between-within", "lrt")
        return [sl.tl.power(adata, formula, test, effect=0.5, method=m, **choices)["power"][0] for m in methods]

    plain = powers()
    np.testing.assert_allclose(powers(age=1e-12 * obs["age"], x=1e12 * obs["x"]), plain, atol=0.005)
    np.testing.assert_allclose(powers(age=obs["age"] + 2.0**30), plain, atol=0.005)


SCRIPT = """
suppressMessages(library(lme4))
d <- read.csv("cells.csv")
control <- lmerControl(check.rankX = "stop.deficient", optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-14))
for (fixed in commandArgs(TRUE)) {
  m <- suppressMessages(suppressWarnings(lmer(as.formula(paste("y ~", fixed, "+ (1 | donor)")), d, REML = FALSE, control = control)))
  cat(sprintf("%.17g", as.numeric(logLik(m))), "\\n")
}
"""


@pytest.mark.r
def test_the_ratio_of_twins_is_that_of_lme4(tmp_path: Path):
    obs = cohort(11)
    obs["y"] = expression(obs)[:, 0]
    formulas = ["x + arm"]
    for digits in (4, 10, 16, 20):
        obs[f"twin{digits}"] = obs["x"] + 2.0**-digits * obs["z"]
        formulas.append(f"x + twin{digits} + arm")
    obs.to_csv(tmp_path / "cells.csv", index=False, float_format="%.17g")
    (tmp_path / "script.R").write_text(SCRIPT)
    command = ["Rscript", "script.R", *formulas]
    loglik = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()
    ours = [fitted(obs, formula, obs[["y"]].to_numpy()).ml.loglik[0] for formula in formulas]
    assert ours[1] - ours[0] > 0.1  # there is something to be lost
    np.testing.assert_allclose(ours, np.array(loglik, dtype=float), atol=1e-6)


@pytest.mark.parametrize("ratio", [1.0, 1e2, 1e4])
def test_taking_one_of_a_pair_out_is_the_fit_without_it(ratio):
    """The null model is the one that is fitted to the other columns, also where a twin in it differs within donors alone."""
    obs = cohort(3)
    obs["twin"] = obs["age"] + 2.0**-21 * obs["z"]
    rng = np.random.default_rng(5)
    donor = obs["donor"].cat.codes.to_numpy()
    Y = ratio * (obs["age"].to_numpy()[:, None] + 0.1 * rng.normal(size=(N_DONORS, 6))[donor]) + rng.normal(
        size=(len(obs), 6)
    )
    fit = fitted(obs, "x + age + twin + day", Y)
    for tested, rest in ((["age", "x"], "twin + day"), (["age"], "x + twin + day"), (["twin", "day"], "x + age")):
        alone = fitted(obs, rest, Y)
        for got in (fit.test(tested, calibrate=False).table["loglik_null"], _without(fit, tested).ml.loglik):
            np.testing.assert_allclose(got, alone.ml.loglik, rtol=0, atol=1e-7)


def _without(fit: LmmFit, terms: list[str]) -> LmmFit:
    for term in terms:
        fit = fit.drop(term)
    return fit


@pytest.mark.parametrize("unit", [1.0, 2.0**-30])
def test_the_restricted_likelihood_keeps_its_digits_under_powers_of_a_far_number(unit):
    """log|X'X| does not depend on the origin of x: the powers of x are those of its deviations and a unit triangle."""
    obs = cohort(4)
    step = obs["x"]
    far = obs.assign(x=unit * (step + 4096.0))  # its square is exact as well
    near = obs.assign(x=unit * step)
    restricted = [fitted(data, "x + I(x**2) + arm").reml.loglik for data in (far, near)]
    np.testing.assert_allclose(*restricted, rtol=0, atol=1e-7)


@pytest.mark.parametrize("mean", [1e3, 1e5])
def test_without_an_intercept_columns_are_told_apart_with_their_means(mean):
    """What two columns of a large mean differ by is refused, or fitted as the columns of its sum and difference are."""
    obs = cohort(12)
    obs["far"] = mean + obs["x"]
    obs["near"] = obs["far"] + 2.0**-16 * obs["z"]
    adata = ad.AnnData(expression(obs), obs=obs)
    report = sl.tl.check_design(adata, "~ 0 + far + near + (1 | donor)", "near")
    assert report.refused == (mean > 1e4)
    if report.refused:
        assert "near = far" in report.verdicts[0].message
        with pytest.raises(DesignError, match="near = far"):
            sl.tl.lmm_fit(adata, "~ 0 + far + near + (1 | donor)")
        return
    obs["apart"] = (obs["near"] - obs["far"]) * 2.0**16
    pd.testing.assert_series_equal(
        fitted(obs, "0 + far + near").test("near").table["lrt"],
        fitted(obs, "0 + far + apart").test("apart").table["lrt"],
        rtol=1e-5,
    )


@pytest.mark.parametrize("method", ["between-within", "satterthwaite", "kenward-roger", "wald"])
@pytest.mark.parametrize("apart", [2.0**-10, 2.0**-20])
def test_a_joint_test_of_twins_is_that_of_one_and_their_difference(method, apart):
    obs = cohort(13)
    obs["twin"] = obs["x"] + apart * obs["z"]
    twins = fitted(obs, "x + twin + arm").test(["x", "twin"], method=method).table
    plain = fitted(obs, "x + z + arm").test(["x", "z"], method=method).table
    np.testing.assert_allclose(twins["scores"], plain["scores"], rtol=1e-6)
    if method != "satterthwaite":  # whose degrees of freedom depend on how a joint hypothesis is written
        np.testing.assert_allclose(twins["pvals"], plain["pvals"], rtol=1e-6)
