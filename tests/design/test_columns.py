"""The columns of X by level against dense algebra: every origin, every scale, and a relation is a matter of length alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sc_lmm._design import TOLERANCE
from sc_lmm._design.columns import columns_by_level
from sc_lmm._design.model_matrix import build_design

quick = settings(deadline=None, max_examples=25, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def cohort(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns 1, constant in each level, varying within; and the levels."""
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(6), rng.integers(6, size=40)]).astype(np.int32)
    return np.column_stack([np.ones(46), rng.normal(size=6)[codes], rng.normal(size=(46, 2)) + codes[:, None]]), codes


def taken_apart(X: np.ndarray, codes: np.ndarray, intercept: int | None = 0):
    return columns_by_level(X, codes, np.bincount(codes).astype(float), intercept)


@quick
@given(seeds, st.floats(-150, 150), st.floats(-3, 9))
def test_means_and_triangle_are_those_of_dense_algebra(seed, exponent, origin):
    X, codes = cohort(seed)
    X[:, 1:] += 10.0**origin  # then the spread is a small part of the length
    expected = np.stack([X[codes == j].mean(axis=0) for j in range(6)])
    unit = 10.0 ** np.array([0.0, exponent, -exponent, exponent])
    columns = taken_apart(X * unit, codes)
    means = columns.scale * (columns.shift + columns.means) / unit
    np.testing.assert_allclose(means, expected, rtol=1e-14)
    R = columns.scale * columns.R / unit
    centred = X - expected[codes]
    rounding = 1e-15 * 10.0**origin
    np.testing.assert_allclose(np.linalg.norm(R, axis=0), np.linalg.norm(centred, axis=0), atol=1e-9 + 50 * rounding)
    assert not columns.R[:, :2].any()  # exactly 0
    assert columns.rank_within == 2


def test_the_users_columns_are_left_as_they_are():
    X, codes = cohort(0)
    for before in (4.0 * X, np.asfortranarray(4.0 * X), 4.0 * X[:, 1:2]):
        after = before.copy(order="K")
        taken_apart(after, codes, None)
        np.testing.assert_array_equal(after, before)


@quick
@given(seeds, st.floats(-6.9, 0), st.booleans())
def test_a_twin_is_independent_as_long_as_seven_digits_tell_it_apart(seed, log_gap, within):
    X, codes = cohort(seed)
    rng = np.random.default_rng(seed + 1)
    other = rng.normal(size=46) if within else rng.normal(size=6)[codes]
    for gap, expected in ((10.0**log_gap, True), (1e-8, False)):
        twin = X[:, 2] + gap * 3 * other / other.std()
        columns = taken_apart(np.column_stack([X, twin]), codes)
        assert columns.are_independent is expected
        if expected:
            assert columns.rank_within == 2 + within


def test_the_unit_of_a_column_is_its_spread():
    X, codes = cohort(3)
    seconds = 1.7e9 + 100 * X[:, 2]  # a spread of 6e-8 of the length, and nothing that the intercept determines
    assert taken_apart(np.column_stack([X[:, :2], seconds]), codes).are_independent
    assert not taken_apart(np.column_stack([X, seconds]), codes).are_independent
    # Without an intercept nothing makes up for the mean, and the two columns are as far apart as ever.
    assert taken_apart(np.column_stack([seconds, 1.7e9 + 100 * X[:, 3]]), codes, None).are_independent
    assert TOLERANCE < 6e-8 * 1e6


def test_some_columns():
    X, codes = cohort(4)
    some = taken_apart(X, codes).take(np.array([0, 2]))
    assert some.intercept == 0
    assert some.rank_within == 1
    expected = taken_apart(X[:, [0, 2]], codes).triangle
    np.testing.assert_allclose(np.abs(some.triangle), np.abs(expected), atol=1e-13)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("~ 0 + arm + x + (1 | donor)", [1, 1, 0]),
        ("~ 0 + arm + day + I(day**2) + I(day**3) + (1 | donor)", [1, 1, 0, 0, 0]),
        ("~ 0 + x + (1 | donor)", None),
        ("~ 0 + day + (1 | donor)", None),
    ],
)
def test_how_the_columns_give_a_constant(formula, expected):
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(6), 20)
    day = 19_000.0 + rng.integers(-100, 100, 120)
    obs = pd.DataFrame({"donor": donor.astype(str), "arm": np.where(donor % 2, "a", "b"), "day": day})
    obs["x"] = rng.normal(size=120)
    found = build_design(formula, obs).constant
    assert (found is None) is (expected is None)
    if expected is not None:
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_columns_follow_the_design():
    obs = pd.DataFrame({"donor": list("aabbcc"), "x": [1.0, 2, 3, 4, 5, 7]})
    design = build_design("~ x + (1 | donor)", obs)
    doubled = build_design("~ x + (1 | donor)", obs.assign(x=2 * obs["x"]))
    assert (doubled.columns.scale == design.columns.scale * [1, 2]).all()
    other = design.regrouped(replace(design.random, codes=design.random.codes[::-1]))
    assert (other.columns.means[:, 1] != design.columns.means[:, 1]).any()
