"""Contrasts by name against linear combinations made by hand, joint tests against independent fits, and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl
from cohorts import fitted
from sc_lmm._errors import DesignError

if TYPE_CHECKING:
    from sc_lmm._inference.fitted import LmmFit

FORMULA = "~ x + age + sex * diagnosis + (1 | sample_id)"


@pytest.fixture(scope="module")
def cohort() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(24), rng.integers(5, 15, 24))
    obs = pd.DataFrame(
        {
            "sample_id": [f"d{j:02d}" for j in donor],
            "x": rng.normal(size=donor.size),
            "age": rng.normal(70, 8, 24)[donor],
            "sex": np.array(["F", "M"])[(donor // 3) % 2],
            "diagnosis": pd.Categorical(np.array(["control", "AD", "PD"])[donor % 3], ["control", "AD", "PD"]),
        }
    )
    Y = rng.normal(3, 1, (donor.size, 8)) + rng.normal(0, 0.5, (24, 8))[donor]
    return obs, Y


@pytest.fixture(scope="module")
def fit(cohort) -> LmmFit:
    return fitted(cohort[1], cohort[0], FORMULA)


BY_HAND = {
    "cond(diagnosis='AD') - cond(diagnosis='control')": {"diagnosis[T.AD]": 1},
    "cond(diagnosis='AD') - cond(diagnosis='PD')": {"diagnosis[T.AD]": 1, "diagnosis[T.PD]": -1},
    "cond(diagnosis='AD', sex='M') - cond(diagnosis='PD', sex='M')": {
        "diagnosis[T.AD]": 1,
        "diagnosis[T.PD]": -1,
        "sex[T.M]:diagnosis[T.AD]": 1,
        "sex[T.M]:diagnosis[T.PD]": -1,
    },
    "(cond(diagnosis='AD', sex='M') - cond(diagnosis='AD')) - (cond(sex='M') - cond())": {
        "sex[T.M]:diagnosis[T.AD]": 1
    },
    "(cond(diagnosis='AD') + cond(diagnosis='PD')) / 2 - cond(diagnosis='control')": {
        "diagnosis[T.AD]": 0.5,
        "diagnosis[T.PD]": 0.5,
    },
    "cond(age=80) - cond(age=60)": {"age": 20},
    "-2 * cond(x=1, age=3) + 2 * cond(age=3)": {"x": -2},
    "cond(diagnosis='PD', age=70, x=0.5)": {"Intercept": 1, "diagnosis[T.PD]": 1, "age": 70, "x": 0.5},
}


def combination(fit: LmmFit, weights: dict[str, float]) -> np.ndarray:
    return np.array([weights.get(name, 0.0) for name in fit.coding.coef_names])


@pytest.mark.parametrize("contrast", BY_HAND)
def test_contrast_is_the_combination_of_coefficients(fit, contrast):
    assert set(BY_HAND[contrast]) <= set(fit.coding.coef_names)
    L = combination(fit, BY_HAND[contrast])
    for method, model in (("lrt", fit.ml), ("wald", fit.reml)):
        table = fit.contrast(contrast, method=method, calibrate=False).table
        np.testing.assert_allclose(table["coef"], model.beta @ L, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(table["se"], np.sqrt(np.einsum("i,gij,j->g", L, model.vcov, L)), rtol=1e-9)


def test_ratio_of_a_contrast_is_that_of_the_model_without_it(cohort, fit):
    # AD = PD: one dummy for both, recoded by hand.
    obs, Y = cohort
    both = obs.assign(diagnosis=np.where(obs["diagnosis"] == "control", "control", "patient"))
    simple = fitted(Y, obs, "~ x + diagnosis + (1 | sample_id)")
    table = simple.contrast("cond(diagnosis='AD') - cond(diagnosis='PD')", calibrate=False).table
    both["diagnosis"] = pd.Categorical(both["diagnosis"], ["control", "patient"])
    null = fitted(Y, both, "~ x + diagnosis + (1 | sample_id)")
    np.testing.assert_allclose(table["lrt"], null.ml.deviance - simple.ml.deviance, atol=1e-8)
    np.testing.assert_allclose(table["loglik_null"], null.ml.loglik, rtol=1e-10)


def test_a_term_with_one_coefficient_is_its_contrast(cohort):
    obs, Y = cohort
    fit = fitted(Y, obs, "~ x + sex + (1 | sample_id)")
    term, contrast = fit.test("sex").table, fit.contrast("cond(sex='M') - cond(sex='F')").table
    pd.testing.assert_frame_equal(term, contrast, rtol=1e-9)


def test_a_dict_gives_one_comparison_each_from_one_fit(fit):
    contrasts = {
        "AD": "cond(diagnosis='AD') - cond(diagnosis='control')",
        "PD": "cond(diagnosis='PD') - cond(diagnosis='control')",
        "ten years": "cond(age=10) - cond(age=0)",
    }
    result = fit.test(contrasts)
    assert list(result.tables) == list(contrasts)
    for name, contrast in contrasts.items():
        pd.testing.assert_frame_equal(result.tables[name], fit.contrast(contrast).table)
    pd.testing.assert_frame_equal(result.table, result.tables["AD"])
    assert repr(result).count("genes at an adjusted p-value") == 3


def test_a_list_of_terms_is_their_joint_test(cohort, fit):
    obs, Y = cohort
    simple = fitted(Y, obs, "~ x + age + sex + diagnosis + (1 | sample_id)")
    table = simple.test(["age", "diagnosis"], calibrate=False).table
    assert (table["df"] == 3).all()
    null = fitted(Y, obs, "~ x + sex + (1 | sample_id)")
    np.testing.assert_allclose(table["lrt"], null.ml.deviance - simple.ml.deviance, atol=1e-8)
    assert table["coef"].isna().all()
    reordered = simple.test(["diagnosis", "age", "age"], calibrate=False).table
    np.testing.assert_allclose(reordered["lrt"], table["lrt"], atol=1e-9)
    pd.testing.assert_frame_equal(simple.test(["age"]).table, simple.test("age").table)


@pytest.mark.parametrize("method", ["between-within", "satterthwaite", "kenward-roger", "wald"])
def test_joint_F_does_not_depend_on_the_reference_level(cohort, method):
    obs, Y = cohort
    tables = []
    for levels in (["control", "AD", "PD"], ["PD", "control", "AD"]):
        obs = obs.assign(diagnosis=pd.Categorical(obs["diagnosis"].astype(str), levels))
        tables.append(fitted(Y, obs, "~ x + diagnosis + (1 | sample_id)").test("diagnosis", method=method).table)
    # Satterthwaite's df for several contrasts is that of Fai & Cornelius, as in lmerTest: it takes apart the covariance
    # of the coefficients at hand, and another reference level gives other coefficients.
    changes = ["df", "pvals", "pvals_adj", "log10_pvals"] if method == "satterthwaite" else []
    one, other = tables
    pd.testing.assert_frame_equal(one.drop(columns=changes), other.drop(columns=changes), rtol=1e-6)
    np.testing.assert_allclose(one[changes], other[changes], rtol=5e-3)


def test_contrasts_need_the_transform_of_the_formula(cohort):
    # What formulaic learnt from the cells (a centre, a scale, knots) is applied to the conditions.
    obs, Y = cohort
    plain, centred = (fitted(Y, obs, f"~ x + {age} + (1 | sample_id)") for age in ("age", "scale(age)"))
    contrast = "cond(age=80) - cond(age=60)"
    for column in ("coef", "se", "lrt"):
        one, other = (fit.contrast(contrast, calibrate=False).table[column] for fit in (plain, centred))
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("cond(diagnosis='ALS') - cond()", r"no cell has this level, so it is not estimable. Available: 'control'"),
        ("cond(diagnosis='AD') - cond(diagnosis='AD')", "is zero for every coefficient"),
        ("cond(diagnosis='control') - cond()", "is zero for every coefficient"),
        ("cond(batch='1') - cond()", r"names a column that is not in the formula. Available: 'x'"),
        ("cond(diagnosis='AD'", "cannot be read"),
        ("cond('AD') - cond('PD')", "cannot be read"),
        ("cond(diagnosis='AD') - diagnosis", "cannot be read"),
        ("__import__('os').getcwd() + cond()", "cannot be read"),
        ("cond(diagnosis='AD').mean()", "is not a combination of conditions|cannot be read"),
        ("[cond(age=1), cond(age=0)]", "is not a combination of conditions|cannot be read"),
        # What numpy would do without a word:
        ("cond(diagnosis='AD') - cond() + 1", "is not a combination of conditions|cannot be read"),
        ("cond(diagnosis='AD') * cond(sex='M')", "is not a combination of conditions|cannot be read"),
        ("cond(diagnosis='AD') ** 2", "is not a combination of conditions|cannot be read"),
        ("cond(age=1) > cond(age=0)", "is not a combination of conditions|cannot be read"),
        # What would end in an error from elsewhere:
        ("cond(age='old') - cond(age=1)", "cond|cannot be read"),
        ("cond(diagnosis='AD') / 0", "cannot be read|not a combination"),
        ("1 / 0 - cond(age=1)", "cannot be read|not a combination"),
        ("cond(age=1e999) - cond()", "cannot be read|not a combination|finite"),
        ("'cond('", "not a fixed-effect term"),
        ("cond(diagnosis='AD').spread - cond()", "cannot be read|not a combination"),
        ({"named": "age"}, "cannot be read"),
        ({}, "empty"),
        ([], "empty"),
        (["age", "nothing"], "not a fixed-effect term"),
        ("sample_id", "the random grouping, not a fixed effect"),
        ("(1 | sex)", "not a fixed-effect term"),
        ("Intercept", "not a fixed-effect term"),
        ("", "not a fixed-effect term"),
    ],
)
def test_what_cannot_be_tested_is_a_design_error_that_says_why(fit, test, message):
    with pytest.raises(DesignError, match=message):
        fit.test(test)


def test_lmm_de_writes_every_contrast(cohort):
    obs, Y = cohort
    obs = obs.set_index(pd.Index([f"c{i}" for i in range(len(obs))]))
    adata = ad.AnnData(np.abs(Y), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(Y.shape[1])]))
    contrasts = {"AD/PD": "cond(diagnosis='AD') - cond(diagnosis='PD')", "age": "cond(age=1) - cond(age=0)"}
    sl.tl.lmm_de(adata, "~ x + age + diagnosis + (1 | sample_id)", test=contrasts, show_progress=False)
    fit = sl.tl.lmm_fit(adata, "~ x + age + diagnosis + (1 | sample_id)", show_progress=False)
    keys = adata.uns["lmm_de"]["comparisons"]["varm_key"]
    assert list(keys.index) == list(contrasts)
    assert adata.uns["lmm_de"]["params"]["groupby"] == "diagnosis"
    for name, contrast in contrasts.items():
        columns = ["coef", "ci_low", "ci_high", "pvals"]
        expected = fit.contrast(contrast).table[columns]
        pd.testing.assert_frame_equal(adata.varm[keys[name]][columns], expected, check_names=False)
