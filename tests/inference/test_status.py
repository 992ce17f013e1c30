"""A status means what it says: valid is valid in every column, and a gene without a p-value has a status that says why."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions

from sc_lmm._design.model_matrix import build_design
from sc_lmm._inference.fitted import LmmFit
from sc_lmm._statistics import sufficient_statistics

METHODS = ("lrt", "between-within", "satterthwaite", "kenward-roger", "wald")
FORMULA = "~ x + arm + type + (1 | donor)"
M, K = 10, 12
DONOR = np.repeat(np.arange(M), K)


def cohort() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"donor": pd.Categorical([f"d{j}" for j in DONOR]), "x": rng.normal(size=M * K) + DONOR / 4})
    obs = obs.assign(arm=np.where(DONOR % 2, "case", "control"), type=rng.choice(["B", "NK", "T"], M * K))
    return obs.assign(depth=10 ** rng.uniform(-3, 3, M * K))


def fitted(Y: np.ndarray, formula: str = FORMULA, weights: str | None = None) -> LmmFit:
    design = build_design(formula, cohort(), weights=weights)
    stats = sufficient_statistics(Y, design, show_progress=False)
    return LmmFit(design.coding, stats, pd.RangeIndex(Y.shape[1]).astype(str), show_progress=False)


def genes() -> dict[str, np.ndarray]:
    """What a gene can be, from nothing to what fills the range of doubles."""
    rng, obs = np.random.default_rng(1), cohort()
    u, e = rng.normal(size=M)[DONOR], rng.normal(size=M * K)
    within = np.tile(rng.normal(size=K), M)
    arm = (obs["arm"] == "case").to_numpy(float)
    found = {
        "zero": 0 * e,
        "constant": 0 * e + 0.1,
        "of the donor": u,
        "of the covariates": 2 + obs["x"].to_numpy() - arm,
        "in one cell": np.eye(M * K)[5],
        "in one donor": e * (DONOR == 3),
        "absent from an arm": np.abs(e) * arm,
        "parted exactly": within + 1e5 * arm,
        "parted by far": within + 1e9 * arm,
        "of the covariates but for a hair": obs["x"].to_numpy() + 1e-6 * e,
    }
    found |= {f"donors {ratio:g} times apart": ratio * u + e for ratio in (0.0, 1e-3, 0.5, 1e2, 1e4, 1e6)}
    return found | {f"mean {mean:g}": mean + u / 2 + e for mean in (1e2, 1e4, 1e8)}


INVALID = {"zero": "constant", "constant": "constant", "of the donor": "failed", "of the covariates": "failed"}


@pytest.mark.parametrize("formula", [FORMULA, "~ 0 + arm + x + type + (1 | donor)", "~ x * arm + type + (1 | donor)"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unit", [1.0, 1e-140, 1e140])
def test_valid_is_valid_in_every_column(formula, method, unit):
    check_valid(formula, method, unit)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unit", [1.0, 1e-140, 1e140])
def test_valid_is_valid_with_weights_of_six_decades(method, unit):
    check_valid(FORMULA, method, unit, "depth")


def check_valid(formula: str, method: str, unit: float, weights: str | None = None) -> None:
    names, Y = list(genes()), np.column_stack(list(genes().values())) * unit
    fit = fitted(Y, formula, weights)
    tests = ["x", "type", "(1 | donor)", "cond(arm='case') - cond(arm='control')"]
    for test in tests:
        for table in fit.test(test, method=method).tables.values():
            columns = ["pvals", "log10_pvals", "scores", "df", "sd_donor", "sd_residual", "icc", "loglik", "pvals_adj"]
            several = table["coef"].isna().all()
            columns = [name for name in columns if name != "df" or method != "wald"]  # which has infinite ones
            columns += [] if several else ["coef", "se", "ci_low", "ci_high"]
            for name, (_, row) in zip(names, table.iterrows(), strict=True):
                expected = INVALID.get(name)
                assert row["status"] == expected if expected else row["status"] in ("ok", "boundary"), name
                valid = np.isfinite(row[columns].astype(float)) if expected is None else row[columns].isna()
                assert valid.all(), (name, test, row)
            usable = table.loc[[str(k) for k, name in enumerate(names) if name not in INVALID]]
            assert usable["pvals"].between(0, 1).all()
            if not several:
                assert (usable["ci_low"] <= usable["coef"]).all()
                assert (usable["coef"] <= usable["ci_high"]).all()


@settings(deadline=None, max_examples=10, derandomize=True)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(-150, 150),
    st.sampled_from([0.0, 1e-2, 1.0, 1e3, 1e6]),
    st.sampled_from([None, "depth"]),
)
def test_units_of_expression_change_units_alone(seed, exponent, ratio, weights):
    rng = np.random.default_rng(seed)
    unit = 2.0 ** round(exponent / np.log10(2))
    Y = (ratio * rng.normal(size=(M, 6))[DONOR] + rng.normal(size=(M * K, 6))) / max(10 * ratio, 10)
    one, other = fitted(Y, weights=weights), fitted(unit * Y, weights=weights)
    for method in METHODS:
        for test in ("x", "arm", "type"):
            plain, scaled = (fit.test(test, method=method).table for fit in (one, other))
            same = ["pvals", "log10_pvals", "scores", "df", "icc", "calibration", "status"]
            pd.testing.assert_frame_equal(scaled[same], plain[same], rtol=1e-6, atol=1e-9)
            in_units = ["coef", "se", "ci_low", "ci_high", "sd_donor", "sd_residual"]
            pd.testing.assert_frame_equal(scaled[in_units] / unit, plain[in_units], rtol=1e-6, atol=1e-9)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    st.integers(0, 2**32 - 1), st.floats(0, 6), st.sampled_from(["between-within", "satterthwaite", "kenward-roger"])
)
def test_balanced_donors_are_the_t_test_of_their_means(seed, log_ratio, method):
    rng = np.random.default_rng(seed)
    Y = 10.0**log_ratio * rng.normal(size=(M, 5))[DONOR] + rng.normal(size=(M * K, 5))
    means = Y.reshape(M, K, 5).mean(axis=1)
    table = fitted(Y, "~ arm + (1 | donor)").test("arm", method=method).table
    above_zero = (table["sd_donor"] > 0).to_numpy()
    expected = distributions.ttest_ind(means[::2], means[1::2])
    np.testing.assert_allclose(table["pvals"][above_zero], expected.pvalue[above_zero], rtol=1e-6)
    if method != "between-within":
        np.testing.assert_allclose(table["df"][above_zero], M - 2, rtol=1e-5)
    assert above_zero.any()


@pytest.mark.parametrize("distance", [1.0, 1e3, 1e6, 1e9])
def test_arms_that_part_all_donors_have_the_ratio_of_the_two_closed_forms(distance):
    within = np.tile(np.linspace(-1, 1, K), M)
    arm = (DONOR % 2).astype(float)
    table = fitted((within + distance * arm)[:, None], "~ arm + (1 | donor)").test("arm", calibrate=False).table
    cells = within @ within
    full = M * K * np.log(cells / (M * K))  # no variance between donors is left
    null = M * (K - 1) * np.log(cells / (M * (K - 1))) + M * np.log(K * distance**2 / 4)
    row = table.iloc[0]
    np.testing.assert_allclose(row["lrt"], null - full, rtol=1e-9)
    np.testing.assert_allclose(row["pvals"], distributions.chi2.sf(null - full, 1), rtol=1e-6)
    assert row["status"] == "boundary"
