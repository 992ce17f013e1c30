"""lme4's grammar of random terms, and how their levels and columns are coded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sc_lmm._design import build_design, parse_formula, random_term_of

GRAMMAR = {
    "(1 | a)": ["(1 | a)"],
    "(1 | a) + (1 | b)": ["(1 | a)", "(1 | b)"],
    "(1 | a/b)": ["(1 | a)", "(1 | a:b)"],
    "(1 | a/b/c)": ["(1 | a)", "(1 | a:b)", "(1 | a:b:c)"],
    "(x | a/b)": ["(x | a)", "(x | a:b)"],
    "(1 | a:b)": ["(1 | a:b)"],
    "(1 + x || a)": ["(1 + x || a)"],
    "(0 + x | a) + (1 | a)": ["(0 + x | a)", "(1 | a)"],
    "(1 | `donor id`/`the sample`)": ["(1 | `donor id`)", "(1 | `donor id`:`the sample`)"],
}


@pytest.mark.parametrize("text", GRAMMAR)
def test_terms(text):
    parsed = parse_formula(f"~ x + {text}")
    assert [str(spec) for spec in parsed.random] == GRAMMAR[text]
    assert parse_formula(f"~ x + {parsed.random_text}").random_text == parsed.random_text


def test_the_first_grouping_of_one_column_is_the_one_a_design_is_described_by():
    assert parse_formula("~ x + (1 | a:b) + (1 | b)").group == "b"
    assert parse_formula("~ x + (1 | a:b)").group == "a:b"


@pytest.fixture
def obs() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = {"donor": list("abcd"), "batch": list("uvw"), "f": ["k", "l", "m"]}
    return pd.DataFrame({**{n: rng.choice(v, 200) for n, v in labels.items()}, "x": rng.normal(0, 1, 200)})


def test_levels_of_combinations_and_columns_of_slopes(obs):
    design = build_design("~ x + f + (f | donor) + (0 + x || donor:batch)", obs)
    factor, slope = design.effects
    assert factor.column_names == ("Intercept", "f[T.l]", "f[T.m]")
    np.testing.assert_array_equal(factor.columns[:, 1], obs["f"] == "l")
    assert factor.levels == ("a", "b", "c", "d")
    joined = obs["donor"] + ":" + obs["batch"]
    np.testing.assert_array_equal(np.array(slope.levels)[slope.codes], joined)
    np.testing.assert_array_equal(slope.columns[:, 0], obs["x"])
    assert (factor.correlated, slope.correlated) == (True, False)
    assert design.coding.groupings["donor:batch"] == slope.levels


def test_one_intercept_of_combinations_is_one_intercept(obs):
    design = build_design("~ x + (1 | donor:batch)", obs)
    assert design.effects == ()
    joined = obs["donor"] + ":" + obs["batch"]
    np.testing.assert_array_equal(np.array(design.random.levels)[design.random.codes], joined)


def test_cells_without_a_value_in_a_random_term_are_left_out(obs):
    obs.loc[:9, "batch"] = None
    obs.loc[5:14, "x"] = np.nan
    assert build_design("~ f + (1 + x | donor) + (1 | batch)", obs).kept.sum() == 185


def test_a_random_term_is_found_however_it_is_written(obs):
    coding = build_design("~ x + (1 + x | donor) + (1 | donor:batch)", obs).coding
    assert str(random_term_of("(x|donor)", coding)) == "(1 + x | donor)"
    assert str(random_term_of("(1 | batch:donor)", coding)) == "(1 | donor:batch)"
    assert random_term_of("(1 | donor)", coding) is None
    assert random_term_of("x", coding) is None
