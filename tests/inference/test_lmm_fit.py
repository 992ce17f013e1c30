"""The fitted object: each answer equals that of a fresh fit, and it holds no cells."""

from __future__ import annotations

import pickle
import types
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl
from sc_lmm._errors import DesignError

if TYPE_CHECKING:
    import anndata as ad

    from sc_lmm._inference.fitted import LmmFit

# what the design report cautions of is not the matter here
pytestmark = [
    pytest.mark.filterwarnings("ignore:The p-values of"),
    pytest.mark.filterwarnings("ignore:sequencing_saturation goes along"),
    pytest.mark.filterwarnings("ignore:Only "),
]

FORMULA = "~ sequencing_saturation + age + diagnosis + (1 | sample_id)"
N_CELLS = 701  # a number that is nothing else's


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    return sl.datasets.brain_cohort(n_donors=12, n_cells=N_CELLS, n_genes=20, seed=3, library_size=200)


@pytest.fixture(scope="module")
def fit(adata) -> LmmFit:
    return sl.tl.lmm_fit(adata, FORMULA, show_progress=False)


CHOICES = [
    {},
    {"calibrate": False, "conf_level": 0.8},
    {"method": "between-within", "moderate": True},
    {"method": "kenward-roger", "corr_method": "bonferroni"},
    {"seed": 5},
]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_lmm_de_is_the_fitted_object_used_once(adata, fit, choices):
    table = sl.tl.lmm_de(adata, FORMULA, "diagnosis", copy=True, show_progress=False, **choices).varm["lmm_de"]
    asked = fit.test("diagnosis", **choices).table
    assert table.columns.tolist() == asked.columns.tolist()
    pd.testing.assert_frame_equal(table, asked, rtol=1e-10, check_categorical=False)


@pytest.mark.parametrize("method", ["lrt", "satterthwaite"])
def test_pvals_alone_are_those_of_the_table(fit, method):
    np.testing.assert_array_equal(
        fit.pvals("diagnosis", method=method), fit.test("diagnosis", method=method).table["pvals"]
    )


@pytest.mark.parametrize("term", ["age", "sequencing_saturation", "diagnosis"])
def test_drop_is_a_fresh_fit_without_the_term(adata, fit, term):
    rest = " + ".join(t for t in ("sequencing_saturation", "age", "diagnosis") if t != term)
    fresh = sl.tl.lmm_fit(adata, f"~ {rest} + (1 | sample_id)", show_progress=False)
    dropped = fit.drop(term)
    assert dropped.coding.coef_names == fresh.coding.coef_names
    assert dropped.coding.terms == fresh.coding.terms
    again = sl.tl.lmm_fit(adata, dropped.coding.formula.text, show_progress=False)  # what the reduced model prints
    np.testing.assert_allclose(again.ml.deviance, fresh.ml.deviance, rtol=1e-10)
    for one, other in ((dropped.ml, fresh.ml), (dropped.reml, fresh.reml)):
        np.testing.assert_allclose(one.beta, other.beta, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(one.deviance, other.deviance, rtol=1e-10)
        np.testing.assert_allclose(one.rho, other.rho, rtol=1e-5, atol=1e-9)
    for other in rest.split(" + "):
        for choices in ({"calibrate": False}, {"method": "satterthwaite"}):
            one, another = dropped.test(other, **choices).table, fresh.test(other, **choices).table
            pd.testing.assert_frame_equal(one, another, rtol=1e-5, atol=1e-9)
    assert fit.coding.coef_names[0] == "Intercept"
    assert len(fit.coding.coef_names) == 4  # the fit itself is unchanged


def test_drop_gives_the_ratio_of_the_test(fit):
    ratio = fit.drop("age").ml.deviance - fit.ml.deviance
    np.testing.assert_allclose(fit.test("age", calibrate=False).table["lrt"], ratio, atol=1e-8)


def test_terms_can_be_dropped_one_after_the_other(adata, fit):
    bare = fit.drop("age").drop("diagnosis").drop("sequencing_saturation")
    fresh = sl.tl.lmm_fit(adata, "~ 1 + (1 | sample_id)", show_progress=False)
    np.testing.assert_allclose(bare.ml.deviance, fresh.ml.deviance, rtol=1e-10)
    assert "~ 1 + (1 | sample_id)" in repr(bare)
    with pytest.raises(DesignError, match="not a fixed-effect term"):
        bare.drop("age")


def test_a_reduced_model_answers_contrasts(adata, fit):
    contrast = "cond(diagnosis='Alzheimer') - cond()"
    fresh = sl.tl.lmm_fit(adata, "~ sequencing_saturation + diagnosis + (1 | sample_id)", show_progress=False)
    one, other = (f.contrast(contrast, method="wald").table for f in (fit.drop("age"), fresh))
    pd.testing.assert_frame_equal(one, other, rtol=1e-5, atol=1e-9)


def test_drop_from_a_model_without_intercept_adds_none(adata):
    fit = sl.tl.lmm_fit(adata, "~ 0 + sequencing_saturation + age + (1 | sample_id)", show_progress=False)
    dropped = fit.drop("age")
    assert dropped.coding.coef_names == ("sequencing_saturation",)
    fresh = sl.tl.lmm_fit(adata, dropped.coding.formula.text, show_progress=False)
    assert fresh.coding.coef_names == dropped.coding.coef_names
    np.testing.assert_allclose(dropped.ml.deviance, fresh.ml.deviance, rtol=1e-10)


def test_a_term_inside_an_interaction_cannot_be_dropped(adata):
    # What is left would be coded otherwise by a fresh fit of the formula that the reduced model prints.
    fit = sl.tl.lmm_fit(adata, "~ sequencing_saturation * diagnosis + (1 | sample_id)", show_progress=False)
    with pytest.raises(DesignError, match="interaction"):
        fit.drop("diagnosis")
    assert fit.drop("sequencing_saturation:diagnosis").coding.coef_names[-1] == "diagnosis[T.Alzheimer]"


# ------------------------------------------------------------------------------------------------- one gene


def test_summary_of_a_gene_is_its_row_of_the_fit(fit):
    name = fit.var_names[4]
    summary = fit.gene(name)
    assert summary.fixed.index.tolist() == list(fit.coding.coef_names)
    np.testing.assert_array_equal(summary.fixed["estimate"], fit.reml.beta[4])
    np.testing.assert_array_equal(summary.fixed["se"], fit.reml.se[4])
    np.testing.assert_allclose(summary.fixed["t"], fit.reml.beta[4] / fit.reml.se[4])
    assert (summary.loglik, summary.loglik_reml) == (fit.ml.loglik[4], fit.reml.loglik[4])
    pd.testing.assert_frame_equal(summary.ranef, fit.ranef(name))
    text = repr(summary)
    for word in (name, FORMULA, "sample_id", "residual", *fit.coding.coef_names):
        assert word in text
    assert "<table" in summary._repr_html_()


def test_an_unknown_gene_is_a_key_error_with_a_suggestion(fit):
    wrong = fit.var_names[3][:-1] + "x"
    for ask in (fit.gene, fit.ranef):
        with pytest.raises(KeyError, match=f"gene '{wrong}' is not among the 20 fitted genes.*Did you mean"):
            ask(wrong)


def test_a_gene_that_could_not_be_fitted_has_a_summary_too(adata):
    adata = adata.copy()
    adata.X = adata.X.toarray()
    adata.X[:, 2] = 0.0
    summary = sl.tl.lmm_fit(adata, FORMULA, show_progress=False).gene(adata.var_names[2])
    assert summary.status == "constant"
    assert "constant" in repr(summary)
    assert summary._repr_html_()


def test_results_and_fits_print(fit):
    text = repr(fit)
    for word in ("20 genes", FORMULA, "701 cells of 12 samples", "diagnosis[T.Alzheimer]"):
        assert word in text
    assert fit._repr_html_().startswith("<b>LmmFit of 20 genes")
    result = fit.test("diagnosis")
    assert "(lrt)" in repr(result)
    assert result.top(3).index.tolist() == result.table.sort_values("pvals").index[:3].tolist()
    assert "<table" in result._repr_html_()


# --------------------------------------------------------------------------------------------- no cells, files


def arrays_of(value: object, seen: set[int]) -> list[np.ndarray]:
    """Every array that can be reached from an object."""
    if id(value) in seen or isinstance(value, str | bytes | int | float | type(None) | type | types.ModuleType):
        return []
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return [value, *(arrays_of(value.base, seen) if value.base is not None else [])]
    if isinstance(value, pd.DataFrame | pd.Series | pd.Index):
        return [np.asarray(value)]
    parts: list[object] = []
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif is_dataclass(value):
        parts = [getattr(value, f.name) for f in fields(value)]
    if hasattr(value, "__dict__"):
        parts += list(vars(value).values())
    return [array for part in parts for array in arrays_of(part, seen)]


def test_no_array_has_the_length_of_the_cells(adata):
    fit = sl.tl.lmm_fit(adata, FORMULA, show_progress=False)
    fit.test("diagnosis")
    fit.test("age", method="satterthwaite", moderate=True)
    fit.test("(1 | sample_id)")
    fit.contrast("cond(age=1) - cond()")
    arrays = arrays_of(fit, set())
    assert len(arrays) > 30
    assert not [a.shape for a in arrays if N_CELLS in a.shape]
    # A pickle holds whatever can be reached, found above or not.
    assert len(pickle.dumps(fit)) < len(pickle.dumps(adata.obs["age"].to_numpy())) * 20


def test_estimates_are_computed_once(adata, monkeypatch):
    import sc_lmm._inference.base_estimates as module

    calls = []
    real = module.fit_models
    monkeypatch.setattr(module, "fit_models", lambda *a, **k: calls.append(k["reml"]) or real(*a, **k))
    fit = sl.tl.lmm_fit(adata, FORMULA, show_progress=False)
    fit.test("diagnosis")
    first = len(calls)
    fit.test("diagnosis", conf_level=0.9)
    fit.test("diagnosis", method="lrt", corr_method="bonferroni")
    assert len(calls) == first
    fit.test("diagnosis", method="satterthwaite")
    fit.test("age", method="kenward-roger")
    assert len(calls) == first + 1  # REML of the full model


def test_nothing_of_adata_changes(adata):
    before = adata.copy()
    fit = sl.tl.lmm_fit(adata, FORMULA, show_progress=False)
    fit.test("diagnosis")
    assert adata.uns.keys() == before.uns.keys()
    assert adata.varm.keys() == before.varm.keys()
    pd.testing.assert_frame_equal(adata.obs, before.obs)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"method": "lr"}, r"method='lr' is unknown. Available: 'lrt', 'between-within'"),
        ({"corr_method": "bh"}, "corr_method='bh' is unknown"),
        ({"conf_level": 95}, "conf_level"),
        ({"conf_level": 0}, "conf_level"),
    ],
)
def test_choices_without_meaning_are_refused(adata, fit, choices, message):
    with pytest.raises(ValueError, match=message):
        fit.test("diagnosis", **choices)
    with pytest.raises(ValueError, match=message):
        sl.tl.lmm_de(adata, FORMULA, "diagnosis", **choices)


def test_reml_with_a_likelihood_ratio_says_why_not(adata):
    with pytest.raises(ValueError, match="needs maximum likelihood"):
        sl.tl.lmm_de(adata, FORMULA, "diagnosis", reml=True)
