"""The standardised columns: orthonormal to rounding whatever the user's columns, and still the user's columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sc_lmm import DesignError
from sc_lmm._design.model_matrix import build_design
from sc_lmm._statistics import sufficient_statistics
from sc_lmm._statistics.standard import standard_form

quick = settings(deadline=None, max_examples=8, derandomize=True)
N_DONORS = 9

# Formula -> dimensions within donors.
FORMULAS = {
    "~ 1 + (1 | donor)": 0,
    "~ age + arm + (1 | donor)": 0,
    "~ x + arm + (1 | donor)": 1,
    "~ x + within(x) + arm + (1 | donor)": 1,
    "~ within(x) + between(x) + age + (1 | donor)": 1,
    "~ x + twin + age + old + (1 | donor)": 2,
    "~ day + I(day**2) + I(day**3) + arm + (1 | donor)": 3,
    "~ year * arm + x:arm + (1 | donor)": 2,
    "~ 0 + arm + day + (1 | donor)": 1,
    "~ 0 + x + year + (1 | donor)": 1,
}


def cohort(seed: int, exponent: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    donor = rng.permutation(np.concatenate([np.tile(np.arange(N_DONORS), 3), rng.integers(3, N_DONORS, 50)]))
    obs = pd.DataFrame({"donor": pd.Categorical([f"d{j}" for j in donor]), "arm": np.where(donor % 2, "a", "b")})
    obs["age"] = rng.normal(70, 8, N_DONORS)[donor]
    obs["old"] = obs["age"] + 1e-5 * rng.normal(size=N_DONORS)[donor]
    obs["x"] = rng.normal(size=donor.size) + donor / 3
    obs["twin"] = obs["x"] + 1e-6 * rng.normal(size=donor.size)
    obs["day"], obs["year"] = 19_000.0 + rng.integers(-100, 100, donor.size), 2000.0 + donor % 5
    numbers = ["age", "old", "x", "twin", "year"]
    obs[numbers] *= 10.0 ** (exponent * np.linspace(-1, 1, len(numbers)))
    return obs


@pytest.mark.parametrize("formula", FORMULAS)
@quick
@given(st.integers(0, 2**32 - 1), st.floats(-75, 75))
def test_standardised_columns(formula, seed, exponent):
    design = build_design(formula, cohort(seed, exponent))
    standard, D = standard_form(design)
    codes, sizes, n = design.random.codes, design.random.sizes, design.n_cells
    w = FORMULAS[formula]
    assert D.shape == (n, w)
    np.testing.assert_allclose(D.T @ D, np.eye(w), atol=1e-14)
    for column in D.T:
        np.testing.assert_allclose(np.bincount(codes, column), 0, atol=1e-14)
    W = standard.DtX.T @ standard.DtX / n
    total = W + standard.ZtX.T @ (standard.ZtX / sizes[:, None]) / n
    np.testing.assert_allclose(total, np.eye(len(total)), atol=1e-14)
    np.testing.assert_allclose(W, np.diag(np.diag(W)), atol=1e-13)
    assert (np.diff(np.diag(W)) >= -1e-13).all()
    assert (standard.DtX[:, : len(W) - w] == 0).all()
    # They are the columns of the user to the last digits, however few of these tell two of them apart.
    made = standard.ZtX[codes] / sizes[codes, None] + D @ standard.DtX
    length = np.linalg.norm(design.X, axis=0)
    found = made @ (standard.columns / length) + design.columns.origin / length
    np.testing.assert_allclose(found, design.X / length, atol=2e-15)


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_basis_leads_there_and_back(formula):
    obs = cohort(1)
    design = build_design(formula, obs)
    stats = sufficient_statistics(np.zeros((len(obs), 1)), design, show_progress=False)
    largest = np.abs(design.X).max(axis=0)
    condition = np.hypot(np.linalg.norm(stats.columns / largest), 1) * np.linalg.norm(stats.basis * largest[:, None])
    columns = stats.columns if stats.ones is None else stats.columns + np.outer(stats.ones, stats.origin)
    np.testing.assert_allclose(columns @ stats.basis, np.eye(stats.n_columns), atol=1e-15 * condition)
    level_means = np.stack([design.X[design.random.codes == j].mean(axis=0) for j in range(N_DONORS)])
    found = stats.ZtX / stats.sizes[:, None] @ stats.columns + stats.origin
    np.testing.assert_allclose(found / largest, level_means / largest, atol=1e-14)
    if "0 + x" in formula:
        assert stats.ones is None
    else:
        np.testing.assert_allclose(stats.basis @ stats.ones * largest, design.constant * largest, atol=1e-7)
    spread = np.linalg.norm(stats.directions, axis=0)
    np.testing.assert_allclose(spread, [name != "Intercept" for name in design.coef_names], atol=1e-12)


def test_columns_that_determine_each_other_are_refused():
    obs = cohort(2)
    for gap in (0.0, 1e-9):
        design = build_design("~ x + twin + (1 | donor)", obs.assign(twin=obs["x"] + gap * np.arange(len(obs))))
        with pytest.raises(DesignError, match="determine each other"):
            standard_form(design)


def test_restricted_statistics_are_standardised_too():
    obs = cohort(3)
    design = build_design("~ x + twin + day + I(day**2) + arm + (1 | donor)", obs)
    stats = sufficient_statistics(np.random.default_rng(0).normal(size=(len(obs), 2)), design, show_progress=False)
    null = stats.restrict(np.random.default_rng(1).normal(size=(6, 3)))
    np.testing.assert_allclose(null.XtX, stats.n_cells * np.eye(3), atol=1e-11)
    np.testing.assert_allclose(null.yty, stats.with_shift(null.shift).yty, rtol=1e-14)
    assert null.DtY is stats.DtY  # no array of the size of the genes is made
