"""Whatever carries labels is read by them: a boolean Series as `mask_var` selects the genes that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl

if TYPE_CHECKING:
    import anndata as ad

FORMULA = "~ diagnosis + (1 | sample_id)"
_COHORT = sl.datasets.brain_cohort(n_donors=8, n_cells=240, n_genes=20, seed=3, library_size=40)
WANTED = ["GENE00001", "GENE00002"]


@pytest.fixture
def adata() -> ad.AnnData:
    return _COHORT.copy()


@pytest.fixture
def mask(adata) -> pd.Series:
    return pd.Series(adata.var_names.isin(WANTED), index=adata.var_names)


def genes_of(adata: ad.AnnData, mask_var: object) -> list[str]:
    fit = sl.tl.lmm_fit(adata, FORMULA, mask_var=mask_var, show_progress=False)
    return fit.var_names.tolist()


FORMS = {
    "in order": lambda m: m,
    "backwards": lambda m: m[::-1],
    "shuffled": lambda m: m.sample(frac=1, random_state=0),
    "with more genes": lambda m: pd.concat([pd.Series(True, index=["other"]), m]),
    "with others several times": lambda m: pd.concat([pd.Series([True, False], index=["other"] * 2), m]),
    "labels as objects": lambda m: m.set_axis(m.index.astype(object))[::-1],
    "labels as strings": lambda m: m.set_axis(m.index.astype("string"))[::-1],
    "labels as categories": lambda m: m.set_axis(pd.CategoricalIndex(m.index))[::-1],
    "nullable": lambda m: m.astype("boolean")[::-1],
    "sparse": lambda m: m[::-1].astype(pd.SparseDtype(bool)),
    "dict": lambda m: m[::-1].to_dict(),
    "array": lambda m: m.to_numpy(),
    "list": lambda m: m.tolist(),
    "nullable array": lambda m: m.astype("boolean").array,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_selects_the_genes_that_it_names(adata, mask, form):
    assert genes_of(adata, FORMS[form](mask)) == WANTED


def test_a_mask_of_xarray_is_read_by_its_labels(adata, mask):
    xarray = pytest.importorskip("xarray")
    backwards = mask[::-1]
    assert (
        genes_of(adata, xarray.DataArray(backwards.to_numpy(), coords={"gene": backwards.index.to_numpy()})) == WANTED
    )


def test_a_column_of_a_part_selects_in_the_whole_by_name(adata):
    part = adata[:, ::-1][:, :15]
    column = pd.Series(part.var_names.isin(WANTED), index=part.var_names)
    with pytest.raises(ValueError, match="no value for 'GENE00001', 'GENE00002'"):
        genes_of(adata, column)
    assert genes_of(adata, column.reindex(adata.var_names, fill_value=True))[:2] == WANTED


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda m: m.reset_index(drop=True), "no value for 'GENE00001'"),
        (lambda m: m.iloc[1:], "no value for 'GENE00001'"),
        (lambda m: m.set_axis(m.index.str.lower()), "no value for 'GENE00001'"),
        (lambda m: pd.concat([m, m.iloc[:1]]), "several values for 'GENE00001'"),
        (lambda m: m.astype("boolean").where(m.index != "GENE00003"), "no value for 'GENE00003'"),
    ],
    ids=["numbers", "one less", "other case", "one twice", "missing"],
)
def test_labels_that_do_not_name_every_gene_once_are_refused(adata, mask, change, found):
    with pytest.raises(ValueError, match=f"mask_var.*{found}"):
        genes_of(adata, change(mask))


def test_genes_of_one_name_are_masked_by_position_or_all_together(adata):
    adata.var_names = ["a", "a", *adata.var_names[2:]]
    by_position = np.arange(20) == 1
    assert genes_of(adata, by_position) == ["a"]
    assert genes_of(adata, pd.Series(by_position, index=adata.var_names)) == ["a"]  # the labels in their order
    assert genes_of(adata, {name: name == "a" for name in adata.var_names}) == ["a", "a"]


@pytest.mark.parametrize("dtype", [bool, "boolean"])
def test_a_column_of_var_may_be_nullable(adata, mask, dtype):
    adata.var["some"] = mask.astype(dtype)
    assert genes_of(adata, "some") == WANTED


def test_a_table_is_no_mask(adata, mask):
    with pytest.raises(ValueError, match=r"shape \(20,\), not bool of shape \(20, 1\)"):
        genes_of(adata, mask.to_frame())


def test_the_result_is_that_of_the_array(adata, mask):
    choices = {"test": "diagnosis", "show_progress": False, "copy": True}
    by_label = sl.tl.lmm_de(adata, FORMULA, mask_var=mask.sample(frac=1, random_state=1), **choices)
    by_position = sl.tl.lmm_de(adata, FORMULA, mask_var=mask.to_numpy(), **choices)
    pd.testing.assert_frame_equal(by_label.varm["lmm_de"], by_position.varm["lmm_de"])
    assert by_label.varm["lmm_de"].index[by_label.varm["lmm_de"]["status"] != "not_tested"].tolist() == WANTED
