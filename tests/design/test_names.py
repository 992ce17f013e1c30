"""Names cannot collide: a column may be called anything, and what is made of it is told from everything else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohorts import fitted
from sc_lmm._design import build_design, find_term, hypotheses_of, is_random_term, parse_formula, read_term
from sc_lmm._errors import DesignError
from sc_lmm._names import distinct, quoted, record_fields, sd_columns, table_keys, unquoted

N_DONORS, N_CELLS = 12, 120
DONOR = np.arange(N_CELLS) % N_DONORS


def make_obs() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    return pd.DataFrame(
        {
            "donor": [f"d{j:02d}" for j in DONOR],
            "arm": np.array(["a", "b", "c"])[DONOR % 3],
            "sex": np.array(["F", "M"])[DONOR // 3 % 2],
            "x": rng.uniform(1, 2, N_CELLS),
            "z": rng.uniform(1, 2, N_CELLS),
        }
    )


OBS = make_obs()
Y = np.random.default_rng(5).normal(3, 1, (N_CELLS, 3)) + np.random.default_rng(6).normal(0, 1, (N_DONORS, 3))[DONOR]

# Names that mean something to Python, to formulaic, to this package, or to the grammar of formulas.
NAMES = [
    *("1", "0", "-1", "1e5", "2x", ".", ".x", "a.b", "percent.mt", "x y", "x  y", " x", "\t", "x\ny"),
    *(
        "a:b",
        "a|b",
        "a||b",
        "a~b",
        "(a + b)",
        "a*b",
        "a/b",
        "a%in%b",
        "a**2",
        "a^2",
        "[T.b]",
        "x[T.b]",
        "{x}",
        "(1 | donor)",
    ),
    *("Intercept", "residual", "np", "C", "I", "Q", "log", "contr", "poly", "within", "between", "cond", "cond(x=1)"),
    *("lambda", "class", "True", "None", "in", "not", "if", "__class__", "__FORMULAIC_STATE__", "_state", "_context"),
    *(
        "column",
        "column000",
        "column001",
        "name_0_",
        "a new level",
        "é",
        "µ",
        "ﬁ",
        "x²",
        "名",
        "a'b",
        'a"b',
        "a\\b",
        "\\n",
        "%s",
        "$",
    ),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_column_may_be_called_anything(name):
    obs = OBS.rename(columns={"arm": name})
    q = quoted(name) if quoted(name) == name else f"`{name}`"
    design, plain = build_design(f"~ z + {q} + (1 | donor)", obs), build_design("~ z + arm + (1 | donor)", OBS)
    np.testing.assert_array_equal(design.X, plain.X)
    assert design.coef_names[2:] == (f"{quoted(name)}[T.b]", f"{quoted(name)}[T.c]")
    assert [h.name for h in hypotheses_of(design.coding, f"`{name}`")] == [name, "b", "c"]
    assert design.factor_of(find_term(design.coding, f"`{name}`")) == name


@pytest.mark.parametrize("name", NAMES)
def test_a_number_may_be_called_anything_in_calls_products_and_conditions(name):
    obs = OBS.rename(columns={"x": name})
    text = "~ z + np.log({0}) + scale({0}) + within({0}):z + C(arm) + (1 | donor)"
    named, plain = build_design(text.format(f"`{name}`"), obs).coding, build_design(text.format("x"), OBS).coding
    tests = (
        "np.log({0})",
        "z:within({0})",
        "cond({0}=1.5, z=0.2) - cond({0}=1, z=0.3)",
        "cond({0}=1.5) / 2 - cond({0}=2) / 2",
    )
    for test in tests:
        (found,), (expected,) = hypotheses_of(named, test.format(f"`{name}`")), hypotheses_of(plain, test.format("x"))
        np.testing.assert_array_equal(found.L, expected.L)
    reduced = named.without(find_term(named, f"np.log(`{name}`)"))  # its text is put together again from the terms
    assert reduced.formula.variables == parse_formula(reduced.formula.text).variables == ["z", name, "arm"]
    np.testing.assert_array_equal(reduced.row({name: 1.5, "z": 2.0}), np.delete(named.row({name: 1.5, "z": 2.0}), 2))


@pytest.mark.parametrize("name", NAMES)
def test_a_grouping_may_be_called_anything_and_can_be_tested(name):
    design = build_design(f"~ x + (1 | `{name}`)", OBS.rename(columns={"donor": name}))
    assert design.random.name == name
    for test in (f"(1 | `{name}`)", f"(1|`{name}`)", f" ( 1 | `{name}` ) "):
        assert is_random_term(test, design.coding)
    assert not is_random_term("(1 | x)", design.coding)


def test_a_random_term_in_backticks_is_tested_as_one_without():
    found = fitted(Y, OBS.rename(columns={"donor": "donor id"}), "~ x + (1 | `donor id`)").test("(1 | `donor id`)")
    expected = fitted(Y, OBS, "~ x + (1 | donor)").test("(1 | donor)")
    assert list(found.tables) == ["(1 | `donor id`)"]
    pd.testing.assert_frame_equal(found.table.rename(columns={"sd_donor id": "sd_donor"}), expected.table)


@given(st.text(st.characters(exclude_characters="`", exclude_categories=["Cs"]), min_size=1))
def test_a_formula_reads_a_quoted_name_as_that_name(name):
    formula = parse_formula(f"~ `{name}` + z:`{name}` + center(`{name}`) + C(`{name}`) + (1 | `{name}`)")
    assert formula.variables == [name, "z"]
    assert formula.group == name
    assert unquoted(quoted(name)) == (name if quoted(name) != name else name.strip())
    assert read_term(quoted(name)) == (quoted(name),)


def test_two_columns_that_python_takes_for_one_stay_two():
    # Python reads the letters of the ligature, and the micro sign as a Greek letter.
    obs = OBS.assign(**{"fi": OBS["x"], "ﬁ": OBS["z"], "μ": OBS["x"], "µ": OBS["z"]})
    for one, other in (("fi", "ﬁ"), ("μ", "µ")):
        design = build_design(f"~ np.log({one}) + np.log({other}) + (1 | donor)", obs)
        np.testing.assert_array_equal(design.X[:, 1:], np.log(OBS[["x", "z"]]))
        fit = fitted(Y, obs, f"~ {one} + {other} + (1 | donor)")
        np.testing.assert_array_equal(fit.coding.row({other: 2.0, one: 3.0}), [1, 3, 2])
        L = hypotheses_of(fit.coding, f"cond({other}=1) - cond({one}=1)")[0].L
        np.testing.assert_array_equal(L, [[0, -1, 1]])


def test_a_column_called_like_a_number_does_not_vanish():
    design = build_design("~ `1` + (1 | donor)", OBS.rename(columns={"x": "1"}))
    np.testing.assert_array_equal(design.X, np.column_stack([np.ones(N_CELLS), OBS["x"]]))


def test_a_column_called_intercept_is_not_the_intercept():
    design = build_design("~ 0 + Intercept + (1 | donor)", OBS.rename(columns={"x": "Intercept"}))
    assert design.coef_names == ("`Intercept`",)
    assert design.constant is None
    both = build_design("~ Intercept + (1 | donor)", OBS.rename(columns={"x": "Intercept"}))
    assert list(both.terms) == ["Intercept", "`Intercept`"]
    assert find_term(both.coding, "Intercept") == "`Intercept`"


def test_a_column_and_a_product_of_the_same_letters_are_two_terms():
    obs = OBS.assign(**{"x:z": OBS["x"] ** 2})
    fit = fitted(Y, obs, "~ x*z + `x:z` + (1 | donor)")
    assert list(fit.coding.terms) == ["Intercept", "x", "z", "`x:z`", "x:z"]
    by_hand = fitted(
        Y, obs.assign(square=obs["x:z"], product=obs["x"] * obs["z"]), "~ x + z + square + product + (1 | donor)"
    )
    for test, name in (("x:z", "product"), ("z:x", "product"), ("`x:z`", "square")):
        found, expected = (f.test(t, method="wald").table for f, t in ((fit, test), (by_hand, name)))
        pd.testing.assert_frame_equal(found, expected, rtol=1e-7)


def test_a_name_that_is_no_term_may_be_typed_without_backticks():
    coding = build_design("~ `age at onset` + (1 | donor)", OBS.rename(columns={"x": "age at onset"})).coding
    assert find_term(coding, "age at onset") == find_term(coding, " `age at onset` ") == "`age at onset`"


def test_a_column_called_like_a_coefficient_is_told_from_it():
    obs = OBS.assign(**{"sex[T.M]": OBS["x"]})
    design = build_design("~ sex + `sex[T.M]` + (1 | donor)", obs)
    assert design.coef_names == ("Intercept", "sex[T.M]", "`sex[T.M]`")


def test_levels_that_would_give_two_coefficients_one_name_are_refused():
    # The level "M]:arm[T.b" of sex, and the product of the levels M and b.
    obs = OBS.assign(sex=np.array(["F", "M", "M]:arm[T.b"])[DONOR // 3 % 3])
    with pytest.raises(DesignError, match=r"would be called 'sex\[T.M\]:arm\[T.b\]'. Rename the level"):
        build_design("~ sex * arm + (1 | donor)", obs)


@pytest.mark.parametrize("levels", [["column000", "column001"], ["name_0_", "arm"], ["x", "`x`"], ["a new level", ""]])
def test_levels_may_be_called_like_anything_that_is_used_inside(levels):
    obs = OBS.assign(sex=np.where(OBS["sex"] == "F", *levels))
    fit, plain = (fitted(Y, o, "~ within(x) + sex + (1 | donor)") for o in (obs, OBS))
    assert fit.coding.coef_names[2] == f"sex[T.{sorted(levels)[1]}]"
    np.testing.assert_allclose(fit.ml.deviance, plain.ml.deviance, rtol=1e-12)


def test_a_donor_called_like_the_place_of_a_new_one_has_no_say_in_contrasts():
    obs = OBS.assign(donor=OBS["donor"].replace("d03", "a new level"))
    for o in (obs, OBS):
        row = build_design("~ within(x) + between(x) + (1 | donor)", o).coding.row({"x": 1.5})
        np.testing.assert_array_equal(row, [1, 0, 1.5])


@pytest.mark.parametrize("term", ["arm", "C(arm)", "0 + arm", "z:arm"])
def test_a_level_that_formulaic_would_hide_is_refused(term):
    # It makes no column of a level that begins with two underscores, which would join it to the reference.
    obs = OBS.assign(arm=np.array(["a", "_b", "__c"])[DONOR % 3])
    with pytest.raises(DesignError, match="'arm' has levels that begin with two underscores: '__c'. Rename them"):
        build_design(f"~ {term} + (1 | donor)", obs)
    assert build_design("~ z + (1 | arm)", obs).random.levels == ("__c", "_b", "a")


def test_a_contrast_that_formulaic_would_hide_is_refused():
    with pytest.raises(DesignError, match="begins with two underscores"):
        parse_formula("~ C(arm, contr.custom({'__b': [1, -1, 0], 'c': [1, 0, -1]})) + (1 | donor)")


def test_the_joint_test_has_a_name_of_its_own():
    levels = ["arm", "arm (all levels)", "z"]
    coding = build_design("~ arm + (1 | donor)", OBS.assign(arm=np.array(levels)[DONOR % 3])).coding
    assert [h.name for h in hypotheses_of(coding, "arm")] == ["arm", "arm (all levels)", "z"]
    levels = ["a", "arm", "arm (all levels)"]
    coding = build_design("~ arm + (1 | donor)", OBS.assign(arm=np.array(levels)[DONOR % 3])).coding
    assert [h.name for h in hypotheses_of(coding, "arm")] == ["arm (all levels)_", "arm", "arm (all levels)"]


# --------------------------------------------------------------------------------------------------- names in files


def test_the_sd_of_a_term_is_never_that_of_the_residual():
    table = fitted(Y, OBS.rename(columns={"donor": "residual"}), "~ x + (1 | residual)").test("x").table
    expected = fitted(Y, OBS, "~ x + (1 | donor)").test("x").table
    np.testing.assert_array_equal(table["sd_residual"], expected["sd_residual"])
    np.testing.assert_array_equal(table["sd_residual_"], expected["sd_donor"])
    assert sd_columns(["donor", "Donor", "residual", "residual_", "a/b", "sample id"]) == [
        *("sd_donor", "sd_Donor_", "sd_residual_", "sd_residual__", "sd_a_b", "sd_sample id")
    ]


@given(st.lists(st.text(), min_size=1, unique=True), st.sets(st.text()))
def test_every_comparison_has_a_place_and_a_field_of_its_own(names, taken):
    keys = table_keys("lmm_de", names, taken)
    fields = record_fields(names)
    assert list(keys) == list(fields) == names
    assert len({key.casefold() for key in keys.values()} | {"lmm_de"}) == len(names)
    assert not set(list(keys.values())[1:]) & taken
    assert len(set(fields.values())) == len(names)
    assert not {"", *(f for f in fields.values() if ":" in f)} & set(fields.values())


def test_distinct_names_keep_their_order():
    assert distinct(["a", "A", "b", "a", "a_"], taken=["B"]) == ["a", "A_", "b_", "a__", "a___"]
    assert distinct(["a", "A", "a"], taken=["A"], fold=False) == ["a", "A_", "a_"]
