"""The conditions of a comparison are what its coefficients weigh, whatever the columns that they do not name."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from sc_lmm._design import Comparison, build_design, comparisons_of, hypotheses_of

LEVELS = {"g": ["a", "b", "c"], "t": ["x", "y"], "s": ["f", "m"], "age": [0.0, 1.0, 2.5], "depth": [0.0, 1.0, 3.0]}


def every_combination() -> pd.DataFrame:
    """One cell in each combination of levels, for each of two donors."""
    rows = list(product(*LEVELS.values(), ["d1", "d2"]))
    return pd.DataFrame(rows, columns=[*LEVELS, "donor"], index=[f"cell{k}" for k in range(len(rows))])


OBS = every_combination()

FORMULAS = {
    "g": "g",
    "t": "g + t + age",
    "g ": "g * t + age",
    " t": "g * t * s",
    "g:t": "g * t + s",
    "g:t ": "g + g:t",
    "age": "age + g",
    "age ": "age * t",
    "t ": "t * age",
    "t:age": "t * age",
    "C(g)": "C(g) * s",
    "t  ": "t * C(age)",
    "C(age)": "C(age) + t",
    "C(age) ": "C(age) * t",
    "cond(age=2.5, t='y') - cond(age=1, t='y')": "C(age) * t",
    " g ": "C(t, Treatment('y')) * g",
    "C(g, Treatment('b'))": "C(g, Treatment('b')) + t",
    "cond(g='b', t='y') - cond(g='a', t='y')": "g * t + age",
    "cond(g='b') - cond(g='a')": "g * t + age",
    "0.5 * cond(g='b') + 0.5 * cond(g='c') - cond(g='a')": "g + t",
    "cond(g='b', age=2.5) - cond(g='a', age=2.5)": "g + age",
    "cond(t='y', age=2.5) - cond(t='x', age=2.5)": "t * age",
    "cond(g='b', t='y') - cond(g='a')": "g + t",
    "cond(age=2.5) - cond(age=1)": "age + t",
}


def weighed(obs: pd.DataFrame, X: np.ndarray, comparison: Comparison, others: dict) -> np.ndarray:
    """The weighted sum of the rows of X of cells in the conditions that are alike in all other columns."""
    total = np.zeros(X.shape[1])
    for where, weight in zip(comparison.conditions, comparison.weights, strict=True):
        wanted = others | where
        rows = (obs[list(wanted)] == pd.Series(wanted)).all(axis=1) & (obs["donor"] == "d1")
        assert rows.sum() == 1
        total += weight * X[rows.to_numpy()][0]
    return total


@pytest.mark.parametrize("test", FORMULAS)
def test_conditions_weigh_what_the_coefficients_weigh(test: str) -> None:
    design = build_design(f"~ {FORMULAS[test]} + (1 | donor)", OBS)
    found = comparisons_of(design.coding, test.strip())
    hypotheses = hypotheses_of(design.coding, test.strip())
    assert list(found) == [h.name for h in hypotheses]
    for hypothesis in (h for h in hypotheses if h.df == 1):
        comparison = found[hypothesis.name]
        assert comparison.conditions
        free = [name for name in LEVELS if name not in comparison.conditions[0]]
        for values in product(*(LEVELS[name] for name in free)):
            others = dict(zip(free, values, strict=True))
            np.testing.assert_allclose(weighed(OBS, design.X, comparison, others), hypothesis.L[0], atol=1e-9)


@pytest.mark.parametrize("test", FORMULAS)
def test_what_is_subtracted_comes_first(test: str) -> None:
    coding = build_design(f"~ {FORMULAS[test]} + (1 | donor)", OBS).coding
    for comparison in comparisons_of(coding, test.strip()).values():
        if len(comparison.weights) in (2, 3):
            assert list(np.sign(comparison.weights)) == sorted(np.sign(comparison.weights))


@pytest.mark.parametrize(
    ("formula", "test", "held"),
    [
        ("g + t", "g", ()),
        ("g * t", "g", ("t",)),
        ("g * t", "g:t", ()),
        ("g * t", ["g", "g:t"], ()),
        ("g * t + age", ["g", "age"], ("t",)),
        ("t * age", "t", ("age",)),
        ("g * t", "cond(g='b') - cond(g='a')", ("t",)),
        ("g + t + s:t", "g", ()),
        ("C(t, Sum) * g", "g", ()),  # the average over t
    ],
)
def test_what_is_held_without_being_named(formula: str, test: str | list[str], held: tuple[str, ...]) -> None:
    coding = build_design(f"~ {formula} + (1 | donor)", OBS).coding
    for comparison in comparisons_of(coding, test).values():
        assert comparison.at == {name: coding.levels.get(name, (0.0,))[0] for name in held}
        assert comparison.unnamed == held


def test_a_contrast_is_made_where_it_says() -> None:
    coding = build_design("~ g * t + s + (1 | donor)", OBS).coding
    contrast = "cond(g='b', t='y', s='m') - cond(g='a', t='y', s='m')"
    (comparison,) = comparisons_of(coding, contrast).values()
    assert (comparison.at, comparison.unnamed) == ({"t": "y"}, ())


def test_a_joint_test_asks_whether_conditions_are_equal() -> None:
    coding = build_design("~ g * t + (1 | donor)", OBS, reference={"g": "b"}).coding
    joint = comparisons_of(coding, "g")["g"]
    assert [where["g"] for where in joint.conditions] == ["b", "a", "c"]
    assert {where["t"] for where in joint.conditions} == {"x"}
    assert joint.weights == ()


@pytest.mark.parametrize(
    ("formula", "test"),
    [
        ("log(age + 1)", "log(age + 1)"),
        ("log(age + 1) + age", "age"),
        ("poly(age, 2)", "poly(age, 2)"),
        ("within(age) + t", "within(age)"),
        ("C(g, Sum)", "C(g, Sum)"),
        ("g * t", "g:t"),  # the joint test, first
        ("g + t", ["g", "t"]),
        ("g", "(1 | donor)"),
    ],
)
def test_what_has_no_conditions_gets_none(formula: str, test: str | list[str]) -> None:
    coding = build_design(f"~ {formula} + (1 | donor)", OBS).coding
    assert next(iter(comparisons_of(coding, test).values())).conditions == ()


def test_where_a_number_has_no_logarithm_is_no_setting() -> None:
    coding = build_design("~ g * log(age) + (1 | donor)", OBS[OBS["age"] > 0]).coding
    assert comparisons_of(coding, "g")["b"].at == {"age": 1.0}


def test_columns_whose_names_are_no_words() -> None:
    obs = OBS.rename(columns={"g": "g of", "t": "t:"})
    coding = build_design("~ `g of` * `t:` + C(age) + (1 | donor)", obs).coding
    contrast = "cond(`g of`='b', `t:`='y') - cond(`g of`='a', `t:`='y')"
    for test, level in (("`g of`", "x"), (contrast, "y")):
        *_, comparison = comparisons_of(coding, test).values()
        assert comparison.at == {"t:": level}
        assert comparison.weights == (-1.0, 1.0)
        assert [where["g of"] for where in comparison.conditions] == ["a", "b" if level == "y" else "c"]
