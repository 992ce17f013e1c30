"""Cells of one donor that differ in depth: a remark, with weights to type, that is gone when they are given."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl

FORMULA = "~ arm + (1 | donor)"


def cells(spread: float, name: str = "total_counts", *, between: float = 0.0, **columns) -> ad.AnnData:
    """Eight donors whose cells' depths have this standard deviation, of logarithms."""
    rng = np.random.default_rng(3)
    donor = np.repeat(np.arange(8), 50)
    noise = rng.normal(size=donor.size)
    noise -= np.bincount(donor, noise)[donor] / 50
    noise *= spread / np.sqrt((noise**2).sum() / (donor.size - 8))
    depth = np.exp(8 + between * (donor % 3) + noise)
    obs = pd.DataFrame({"donor": [f"d{j}" for j in donor], "arm": np.where(donor % 2, "case", "control"), name: depth})
    obs.index = [f"cell{i}" for i in range(donor.size)]
    return ad.AnnData(rng.gamma(2.0, 1.0, (donor.size, 3)), obs=obs.assign(**columns))


def remarks(adata: ad.AnnData, **choices) -> list:
    return [v for v in sl.tl.check_design(adata, FORMULA, "arm", **choices).verdicts if v.code == "unequal_depth"]


@pytest.mark.parametrize("name", ["total_counts", "nCount_RNA", "n_counts", "nUMI", "n_umi"])
def test_depths_that_differ_are_remarked_under_the_names_in_use(name):
    (found,) = remarks(cells(0.8, name))
    assert found.grade == "ok"
    assert not found.warning
    assert f"log {name} has a standard deviation of 0.8." in found.message
    assert f'weights="np.sqrt({name})"' in found.advice


def test_the_advice_can_be_typed():
    adata = cells(0.8, "total counts")
    (found,) = remarks(adata)
    weights = found.advice.split('"')[1]
    assert weights == "np.sqrt(`total counts`)"
    assert remarks(adata, weights=weights) == []
    sl.tl.lmm_de(adata, FORMULA, "arm", weights=weights)


@pytest.mark.parametrize(
    "adata",
    [
        cells(0.3),
        cells(0.3, between=2.0),
        cells(0.8, "quality"),
        cells(0.8, total_counts=0.0),
        cells(0.8, total_counts="many"),
        cells(0.8, total_counts=np.nan),
    ],
    ids=["alike", "donors", "no depth", "zero", "text", "missing"],
)
def test_there_is_no_remark_without_reason(adata):
    assert remarks(adata) == []


def test_the_line_of_a_run_has_it(caplog):
    with caplog.at_level(logging.INFO):
        sl.tl.lmm_de(cells(0.8), FORMULA, "arm")
    assert 'weights="np.sqrt(total_counts)" lets it count less' in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        sl.tl.lmm_de(cells(0.3), FORMULA, "arm")
    assert "weights" not in caplog.text


def test_cells_without_a_value_of_the_weights_are_told_by_its_column():
    adata = cells(0.8)
    adata.obs.iloc[:100, adata.obs.columns.get_loc("total_counts")] = np.nan
    found = sl.tl.check_design(adata, FORMULA, "arm", weights="np.sqrt(total_counts)").verdicts
    (dropped,) = [v for v in found if v.code == "dropped_cells"]
    assert "adata.obs[['arm', 'donor', 'total_counts']].isna().sum()" in dropped.warning
