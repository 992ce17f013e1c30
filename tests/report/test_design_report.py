"""The forms of a design report: text, HTML, dict, and what files keep of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import anndata as ad
import pandas as pd
import pytest

import sc_lmm as sl
from cohorts import samples
from sc_lmm._report.facts import GRADES, DesignReport, from_dict, from_uns

if TYPE_CHECKING:
    from pathlib import Path


def cohort(**per_sample: list) -> ad.AnnData:
    """12 samples of 20 cells, 6 of each diagnosis, each diagnosis in a batch of its own."""
    return samples(diagnosis=["control"] * 6 + ["case"] * 6, batch=["b1"] * 6 + ["b2"] * 6, **per_sample)


def examples() -> list[DesignReport]:
    long = "a_covariate_with_a_very_long_name_that_does_not_fit_any_column_of_a_table_because_it_goes_on_and_on_so"
    levels = [f"a level <b>&{'x' * 40} {j % 4}" for j in range(12)]
    adata = cohort(**{long: levels})
    return [
        sl.tl.check_design(adata, f"~ {fixed} + (1 | {group})", test)
        for fixed in (
            "depth + diagnosis",
            f"{long} + diagnosis",
            f"diagnosis * {long}",
            "sample_id + batch + diagnosis",
        )
        for group in ("sample_id", "batch", long)
        for test in (None, "diagnosis", fixed.split()[0])
    ] + [sl.tl.check_design(adata, "~ nothing + (1 | sample_id)")]


def test_every_form_of_the_report() -> None:
    for report in examples():
        assert max(len(line) for line in str(report).splitlines()) <= 100
        root = ElementTree.fromstring(report._repr_html_())
        words = " ".join("".join(root.itertext()).split())
        assert report.verdicts == () or " ".join(report.verdicts[0].message.split()) in words
        facts = report.to_dict()
        assert facts["grade"] in GRADES
        assert from_dict(json.loads(json.dumps(facts, allow_nan=False))) == report
        assert from_uns(report.to_uns()) == report


# anndata 0.12 still writes the older zarr format by default, and says so
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_report_is_read_back_from_files(form: str, tmp_path: Path) -> None:
    adata = sl.datasets.brain_cohort(n_donors=8, n_cells=400, n_genes=5)
    report = sl.tl.check_design(adata, "~ diagnosis + (1 | sample_id)", "diagnosis")
    comparisons = pd.DataFrame({"varm_key": ["lmm_de"]}, index=["diagnosis"])
    adata.uns["lmm_de"] = {"design": report.to_uns(), "comparisons": comparisons}
    path = f"{tmp_path}/run.{form}"
    getattr(adata, f"write_{form}")(path)
    back = ad.read_h5ad(path) if form == "h5ad" else ad.read_zarr(path)
    assert sl.get.design_report(back) == report
    assert back.uns["lmm_de"]["design"]["n_donors"] == 8


def test_no_report_is_a_key_error() -> None:
    adata = cohort()
    with pytest.raises(KeyError, match="Run it first"):
        sl.get.design_report(adata)
    adata.uns["lmm_de"] = {"design": {"n_cells": 3}, "comparisons": pd.DataFrame()}
    with pytest.raises(KeyError, match="holds no result"):
        sl.get.design_report(adata)
