"""Linear relations between columns: planted ones are found exactly as planted, full rank is never refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sc_lmm._report.alias import find_aliases

quick = settings(deadline=None, max_examples=25, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
exponents = st.floats(-6, 6)
N = 60


def covariates(seed: int, n_columns: int, *, offset: float = 0.0) -> np.ndarray:
    """Intercept and independent normal columns, with means of `offset` standard deviations."""
    rng = np.random.default_rng(seed)
    return np.column_stack([np.ones(N), offset + rng.normal(size=(N, n_columns))])


def dummies(codes: np.ndarray) -> np.ndarray:
    return (codes[:, None] == np.arange(1, codes.max() + 1)).astype(float)


def names_of(X: np.ndarray) -> list[str]:
    return ["Intercept", *(f"x{j}" for j in range(1, X.shape[1]))]


def assert_relation(X: np.ndarray, expected: dict[str, float], *, rtol: float = 1e-6) -> None:
    """The last column is the only alias, and its equation has just the terms of `expected`."""
    names = names_of(X)
    (alias,) = find_aliases(X, names)
    assert (alias.index, alias.column) == (X.shape[1] - 1, names[-1])
    found = dict(zip(alias.others, alias.coefficients, strict=True))
    assert set(found) == set(expected), str(alias)
    for name, coefficient in expected.items():
        assert found[name] == pytest.approx(coefficient, rel=rtol)
    parts = np.array([X[:, -1], *(-c * X[:, names.index(name)] for name, c in found.items())])
    np.testing.assert_allclose(parts.sum(axis=0), 0, atol=1e-9 * np.abs(parts).max())


@quick
@given(seeds, st.integers(1, 8), exponents)
def test_full_rank_covariates_are_not_refused(seed, n_columns, exponent):
    X = covariates(seed, n_columns)
    X[:, 1:] *= 10.0 ** (exponent * np.linspace(-1, 1, n_columns))
    assert np.linalg.matrix_rank(X / np.linalg.norm(X, axis=0)) == X.shape[1]
    assert find_aliases(X, names_of(X)) == []


@quick
@given(seeds, st.integers(2, 6), st.floats(0, 8))
def test_large_means_do_not_look_like_the_intercept(seed, n_columns, exponent):
    # counts per cell (1e4 +- 1e3), years, dates as numbers: the spread is a small part of the length
    X = covariates(seed, n_columns, offset=10.0**exponent)
    assert find_aliases(X, names_of(X)) == []


@quick
@given(seeds, st.integers(2, 5), st.integers(2, 5))
def test_crossed_factors_are_not_refused(seed, n_first, n_second):
    rng = np.random.default_rng(seed)
    grid = np.array([(a, b) for a in range(n_first) for b in range(n_second)])
    cells = np.vstack([grid, grid[rng.integers(len(grid), size=N)]])
    X = np.column_stack([np.ones(len(cells)), dummies(cells[:, 0]), dummies(cells[:, 1])])
    X = X[:, rng.permutation(X.shape[1])]  # no place of the intercept is special
    assert find_aliases(X, names_of(X)) == []


@quick
@given(seeds, st.integers(1, 6))
def test_rare_level_is_not_refused(seed, n_columns):
    # One cell of a level among many thousand is little length, but no relation.
    X = np.column_stack([np.tile(covariates(seed, n_columns), (400, 1)), np.zeros(400 * N)])
    X[7, -1] = 1.0
    assert find_aliases(X, names_of(X)) == []


@quick
@given(seeds, st.integers(1, 6), st.data(), exponents)
def test_scaled_duplicate(seed, n_columns, data, exponent):
    X = covariates(seed, n_columns)
    twin = data.draw(st.integers(1, n_columns))
    factor = 10.0**exponent
    assert_relation(np.column_stack([X, factor * X[:, twin]]), {f"x{twin}": factor})


@quick
@given(seeds, st.integers(2, 6), st.data())
def test_combination_of_columns_in_any_units(seed, n_columns, data):
    X = covariates(seed, n_columns)
    X[:, 1:] *= 10.0 ** np.array(data.draw(st.lists(exponents, min_size=n_columns, max_size=n_columns)))
    used = data.draw(st.sets(st.integers(0, n_columns), min_size=1))
    spread = np.append(1.0, X[:, 1:].std(axis=0))
    expected = {names_of(X)[j]: data.draw(st.sampled_from([-3.0, -1.0, 0.5, 1.0, 2.0])) / spread[j] for j in used}
    planted = sum(c * X[:, names_of(X).index(name)] for name, c in expected.items())
    assert_relation(np.column_stack([X, planted]), expected)


@quick
@given(seeds, st.integers(1, 5), exponents)
def test_constant(seed, n_columns, exponent):
    X = covariates(seed, n_columns)
    assert_relation(np.column_stack([X, np.full(N, 10.0**exponent)]), {"Intercept": 10.0**exponent})


@quick
@given(seeds, st.integers(1, 5))
def test_column_of_zeros(seed, n_columns):
    X = covariates(seed, n_columns)
    assert_relation(np.column_stack([X, np.zeros(N)]), {})
    assert str(find_aliases(np.column_stack([X, np.zeros(N)]), names_of(X) + ["none"])[0]) == "none = 0"


@quick
@given(seeds, st.floats(1, 7), st.sampled_from([-1.0, 1.0, 2.5]))
def test_covariate_with_another_origin(seed, exponent, slope):
    # e.g. year of birth = 2020 - age: the slope must be told, however large the origin
    X, origin = covariates(seed, 2), 10.0**exponent
    assert_relation(np.column_stack([X, origin + slope * X[:, 1]]), {"Intercept": origin, "x1": slope})


@quick
@given(seeds, st.floats(0, 5))
def test_sum_of_covariates_with_large_means(seed, exponent):
    # total counts = nuclear + mitochondrial counts
    X = covariates(seed, 3, offset=10.0**exponent)
    assert_relation(np.column_stack([X, X[:, 1] + X[:, 3]]), {"x1": 1.0, "x3": 1.0})


@quick
@given(seeds, st.integers(2, 6), st.integers(0, 5))
def test_batches_nested_in_arms(seed, n_batches, last):
    # Every batch has donors of one arm alone, so the arm is the sum of its batches.
    rng = np.random.default_rng(seed)
    arm_of = rng.permutation(np.arange(n_batches) % 2)
    batch = np.concatenate([np.arange(n_batches), rng.integers(n_batches, size=N)])
    arm = arm_of[batch].astype(float)
    X = np.column_stack([np.ones(len(batch)), dummies(batch), arm])
    own = np.flatnonzero(arm_of == 1)
    if 0 in own:
        expected = {"Intercept": 1.0} | {f"x{j}": -1.0 for j in range(1, n_batches) if j not in own}
    else:
        expected = {f"x{j}": 1.0 for j in own}
    assert_relation(X, expected)


@quick
@given(seeds, st.integers(2, 5))
def test_the_same_factor_twice(seed, n_levels):
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(n_levels), rng.integers(n_levels, size=N)])
    first, second = dummies(codes), dummies((codes + 1) % n_levels)
    X = np.column_stack([np.ones(len(codes)), first, second])
    aliases = find_aliases(X, names_of(X))
    assert [alias.index for alias in aliases] == list(range(n_levels, 2 * n_levels - 1))
    for alias in aliases:
        rebuilt = sum(c * X[:, names_of(X).index(k)] for c, k in zip(alias.coefficients, alias.others, strict=True))
        np.testing.assert_allclose(rebuilt, X[:, alias.index], atol=1e-9)


@quick
@given(seeds, st.integers(1, 4), st.integers(1, 4))
def test_all_relations_are_found_and_no_more(seed, n_free, n_bound):
    rng = np.random.default_rng(seed)
    free = covariates(seed, n_free)
    bound = free @ rng.integers(1, 4, size=(n_free + 1, n_bound))
    X = np.column_stack([free, bound])[:, rng.permutation(1 + n_free + n_bound)]
    aliases = find_aliases(X, names_of(X))
    assert len(aliases) == X.shape[1] - np.linalg.matrix_rank(X) == n_bound
    kept = np.setdiff1d(np.arange(X.shape[1]), [alias.index for alias in aliases])
    assert np.linalg.matrix_rank(X[:, kept]) == kept.size


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (lambda a, b: 1 - a, "c = 1 - a"),
        (lambda a, b: a + b, "c = a + b"),
        (lambda a, b: -a, "c = - a"),
        (lambda a, b: 0.25 * a - 3 * b, "c = 0.25 * a - 3 * b"),
        (lambda a, b: 2020 - b, "c = 2020 - b"),
        (lambda a, b: 0 * a + 3, "c = 3"),
        (lambda a, b: 0 * a, "c = 0"),
    ],
)
def test_equation_as_it_is_told(column, text):
    a, b = np.arange(N) % 2.0, np.linspace(20, 90, N)
    (alias,) = find_aliases(np.column_stack([np.ones(N), a, b, column(a, b)]), ["Intercept", "a", "b", "c"])
    assert str(alias) == text
