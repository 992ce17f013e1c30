"""A level to compare with, given by itself or in a dict, means the same to every function that takes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

import sc_lmm as sl

if TYPE_CHECKING:
    from anndata import AnnData

# what the design report cautions of is not the matter here
pytestmark = [pytest.mark.filterwarnings("ignore:sequencing_saturation goes along", "ignore:Only ")]

FORMULA = "~ batch + diagnosis + (1 | sample_id)"


@pytest.fixture
def adata() -> AnnData:
    adata = sl.datasets.brain_cohort(n_donors=8, n_cells=400, n_genes=5)
    control = adata.obs["sample_id"][adata.obs["diagnosis"] == "control"].iloc[0]
    adata.obs["twin"] = adata.obs["diagnosis"].astype(str).where(adata.obs["sample_id"] != control, "Alzheimer")
    return adata


@pytest.mark.parametrize("reference", ["Alzheimer", {"diagnosis": "Alzheimer"}])
def test_of_every_function(adata: AnnData, reference: str | dict[str, str]) -> None:
    fit = sl.tl.lmm_fit(adata, FORMULA, reference=reference)
    assert fit.coding.levels["diagnosis"] == ("Alzheimer", "control")
    run = sl.tl.lmm_de(adata, FORMULA, "diagnosis", reference=reference, copy=True)
    pd.testing.assert_series_equal(run.varm["lmm_de"]["coef"], fit.test("diagnosis").table["coef"])
    report = sl.tl.check_design(adata, FORMULA, "diagnosis", reference=reference)
    assert [d.comparison for d in report.test.detectable][0] == "control"
    sl.tl.power(adata, FORMULA, "diagnosis", effect=1.0, reference=reference)


@pytest.mark.parametrize(
    ("formula", "test"),
    [
        ("~ C(diagnosis) + (1 | sample_id)", "C(diagnosis)"),
        ("~ diagnosis * batch + (1 | sample_id)", "diagnosis:batch"),
        ("~ diagnosis + (1 | sample_id)", "cond(diagnosis='control') - cond(diagnosis='Alzheimer')"),
        ("~ diagnosis + age + (1 | sample_id)", ["diagnosis", "age"]),
    ],
)
def test_where_the_test_is_not_the_factor_itself(adata: AnnData, formula: str, test: str) -> None:
    report = sl.tl.check_design(adata, formula, test, reference="Alzheimer")
    column = next(column for term in report.terms for column in term.columns if "diagnosis" in column)
    assert "[T.control]" in column


def test_of_several_factors_or_none_it_has_to_be_said(adata: AnnData) -> None:
    with pytest.raises(sl.DesignError, match=r"level of 'diagnosis', 'twin'.*reference=\{'diagnosis': 'Alzheimer'\}"):
        sl.tl.lmm_fit(adata, "~ diagnosis + twin + (1 | sample_id)", reference="Alzheimer")
    fit = sl.tl.lmm_fit(adata, "~ diagnosis + twin + (1 | sample_id)", reference={"twin": "control"})
    assert fit.coding.levels["twin"][0] == "control"
    with pytest.raises(sl.DesignError, match=r"reference='ctrl' is not a level of any factor.*\{'batch': 'ctrl'\}"):
        sl.tl.lmm_fit(adata, FORMULA, reference="ctrl")
    with pytest.raises(sl.DesignError, match=r"Did you mean 'Alzheimer'"):
        sl.tl.lmm_de(adata, FORMULA, "diagnosis", reference="alzheimer")


def test_names_are_recognised_whatever_their_case(adata: AnnData) -> None:
    fit = sl.tl.lmm_fit(adata, "~ diagnosis + (1 | sample_id)")
    name = adata.var_names[0]
    assert name != name.lower()
    with pytest.raises(KeyError, match=f"Did you mean '{name}'"):
        fit.gene(name.lower())
    with pytest.raises(sl.DesignError, match="Did you mean 'sample_id'"):
        sl.tl.lmm_fit(adata, "~ diagnosis + (1 | SAMPLE_ID)")
