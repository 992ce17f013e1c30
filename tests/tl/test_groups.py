"""A model for each group of cells: as each alone, from one reading, and no group silently absent."""

from __future__ import annotations

import warnings

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from statsmodels.stats.multitest import multipletests

import sc_lmm as sl
from sc_lmm import DesignError
from sc_lmm._statistics import visit

pytestmark = pytest.mark.filterwarnings("ignore::sc_lmm.LmmWarning")

FORMULA = "~ depth + arm + (1 | donor)"
TYPES = ("B cell", "NK/T", "a:b", "rare")


def cohort(n_donors: int = 8, n_genes: int = 30, seed: int = 0) -> ad.AnnData:
    """Three types of cells in all donors, and one in two donors of one arm."""
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(n_donors), 36)
    kind = np.tile(np.repeat(np.arange(3), 12), n_donors)
    extra = np.repeat([0, 2], 5)
    donor, kind = np.r_[donor, extra], np.r_[kind, np.full(extra.size, 3)]
    shuffled = rng.permutation(donor.size)
    donor, kind = donor[shuffled], kind[shuffled]
    obs = pd.DataFrame(
        {
            "donor": [f"d{j}" for j in donor],
            "arm": np.where(donor % 2, "case", "control"),
            "type": pd.Categorical([TYPES[k] for k in kind], [*TYPES, "absent"]),
            "depth": rng.normal(8, 1, donor.size),
        },
        index=[f"cell{i}" for i in range(donor.size)],
    )
    effects = rng.normal(0, 0.3, (n_donors, n_genes))
    mean = 1 + effects[donor] + 0.3 * kind[:, None] + 0.1 * (kind * (donor % 2))[:, None] * rng.normal(0, 2, n_genes)
    X = np.maximum(mean + rng.normal(0, 1, (donor.size, n_genes)), 0.0) * (rng.random((donor.size, n_genes)) < 0.6)
    return ad.AnnData(sparse.csr_matrix(X), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    adata = cohort()
    sl.tl.lmm_de(adata, FORMULA, "arm", reference="control", groupby="type")
    return adata


@pytest.mark.parametrize("group", TYPES[:3])
@pytest.mark.parametrize("layout", ["csr", "csc", "dense", "blocks"])
def test_each_group_is_what_its_cells_alone_would_be(layout, group, tmp_path):
    adata = cohort()
    make = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": lambda X: X.toarray(), "blocks": lambda X: X}
    adata.X = make[layout](adata.X)
    alone = adata[adata.obs["type"] == group].copy()
    if layout == "blocks":
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    fits = sl.tl.lmm_fit(adata, FORMULA, reference="control", groupby="type")
    found = fits.test("arm").tables[group].drop(columns="pvals_adj_global")
    expected = sl.tl.lmm_fit(alone, FORMULA, reference="control").test("arm").table
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9)
    if layout == "blocks":
        adata.file.close()


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_every_entry_is_read_once(make, monkeypatch):
    """Groups are disjoint, and so are the rows that visits of the matrix ask for."""
    adata, rows = cohort(), []
    adata.X = make(adata.X.toarray())
    plain = visit._visit_memory
    monkeypatch.setattr(
        visit, "_visit_memory", lambda matrix, cells, *rest: (rows.extend(cells.rows), plain(matrix, cells, *rest))[1]
    )
    sl.tl.lmm_fit(adata, FORMULA, groupby="type")
    assert len(rows) == len(set(rows)) == int(adata.obs["type"].isin(TYPES[:3]).sum())


def test_blocks_are_read_once_for_all_groups(tmp_path, monkeypatch):
    cohort().write_h5ad(tmp_path / "cells.h5ad")
    adata, blocks = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r"), []
    monkeypatch.setattr(visit, "_BLOCK_ROWS", 50)
    plain = visit.row_blocks
    monkeypatch.setattr(
        visit, "row_blocks", lambda matrix: (blocks.append(start) or (start, block) for start, block in plain(matrix))
    )
    sl.tl.lmm_fit(adata, FORMULA, groupby="type")
    assert blocks == list(range(0, adata.n_obs, 50))
    adata.file.close()


def test_results_are_where_they_are_looked_for(data):
    record, groups = data.uns["lmm_de"], data.uns["lmm_de"]["groups"]
    assert list(data.varm) == ["lmm_de_B_cell", "lmm_de_NK_T", "lmm_de_a_b"]
    assert record["names"].dtype.names == ("B cell", "NK/T", "a.b")
    assert groups.index.tolist() == list(TYPES)
    assert groups["n_cells"].tolist() == [96, 96, 96, 10]
    assert groups["n_donors"].tolist() == [8, 8, 8, 2]
    assert groups["n_genes"].tolist() == [30, 30, 30, 0]
    assert "arm" in groups.loc["rare", "reason"]
    assert (groups.loc[list(TYPES[:3]), "reason"] == "").all()
    params = sl.get.lmm_de_params(data)
    assert (params["groupby"], params["n_donors"], params["n_cells"]) == ("type", 8, 288)
    assert sl.get.design_report(data, "NK/T").n_cells == 96
    assert sl.get.design_report(data, "rare").refused
    with pytest.raises(KeyError, match="group=None is not one of those of the run"):
        sl.get.design_report(data)


def test_a_long_table_has_all_groups(data):
    long = sl.get.lmm_de_df(data)
    assert long.columns[:3].tolist() == ["type", "comparison", "names"]
    assert len(long) == 90
    assert long["log10_pvals"].is_monotonic_increasing
    assert set(long["comparison"]) == {"case"}
    for group in TYPES[:3]:
        part = long[long["type"] == group].drop(columns=["type", "comparison"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(part, sl.get.lmm_de_df(data, group))
        np.testing.assert_allclose(part["pvals_adj"], multipletests(part["pvals"], method="fdr_bh")[1])
    np.testing.assert_allclose(long["pvals_adj_global"], multipletests(long["pvals"], method="fdr_bh")[1])


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.filterwarnings(
    "ignore:zarr v3 autosharding", "ignore:Consolidated metadata", "ignore:.*Zarr V?3? ?(format|specification)"
)
def test_results_survive_a_file(data, suffix, tmp_path):
    path = tmp_path / f"cells.{suffix}"
    adata = data.copy()
    adata.obs["type"] = adata.obs["type"].astype(object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (adata.write_h5ad if suffix == "h5ad" else adata.write_zarr)(path)
        back = (ad.read_h5ad if suffix == "h5ad" else ad.read_zarr)(path)
    pd.testing.assert_frame_equal(sl.get.lmm_de_df(back), sl.get.lmm_de_df(data), check_dtype=False)
    assert sl.get.design_report(back, "B cell").to_dict() == sl.get.design_report(data, "B cell").to_dict()


def test_scanpy_shows_a_panel_for_each_group(data):
    table = sc.get.rank_genes_groups_df(data, None, key="lmm_de")
    assert set(table["group"]) == {"B cell", "NK/T", "a.b"}
    sc.pl.rank_genes_groups(data, key="lmm_de", show=False)
    assert len(plt.gcf().axes) == 3
    plt.close("all")


def test_figures_are_of_the_cells_of_the_group(data):
    for ax in sl.pl.donor_means(data, ["g0"], "NK/T", show=False):
        heights = sorted(np.concatenate([c.get_offsets()[:, 1] for c in ax.collections if len(c.get_offsets()) == 4]))
        cells = data[data.obs["type"] == "NK/T"]
        means = pd.Series(cells[:, "g0"].X.toarray().ravel()).groupby(cells.obs["donor"].to_numpy()).mean()
        np.testing.assert_allclose(heights, sorted(means))
        assert "in NK/T" in ax.get_title() + "".join(text.get_text() for text in ax.texts)
    sl.pl.volcano(data, "B cell", show=False)
    sl.pl.dotplot(data, "B cell", n_genes=3, show=False)
    plt.close("all")


def test_several_comparisons_of_each_group():
    adata = cohort(n_donors=9)
    adata.obs["arm"] = [("a", "b", "c")[int(d[1:]) % 3] for d in adata.obs["donor"]]
    sl.tl.lmm_de(adata, "~ arm + (1 | donor)", "arm", groupby="type", groups=["B cell", "NK/T"])
    record = adata.uns["lmm_de"]["comparisons"]
    assert record.index.tolist() == [f"{g}, {c}" for g in ("B cell", "NK/T") for c in ("arm", "b", "c")]
    long = sl.get.lmm_de_df(adata, sort=False)
    for comparison, part in long.groupby("comparison"):
        assert len(part) == 60, comparison
        np.testing.assert_allclose(part["pvals_adj_global"], multipletests(part["pvals"], method="fdr_bh")[1])


def test_genes_of_a_group_are_those_it_sees():
    adata = cohort()
    adata.X = sparse.csr_matrix(adata.X.toarray() * (np.arange(30) >= 3))
    seen = {g: np.asarray((adata[adata.obs["type"] == g].X > 0).mean(axis=0)).ravel() for g in TYPES[:3]}
    sl.tl.lmm_de(adata, FORMULA, "arm", groupby="type", min_pct=0.5)
    for group, share in seen.items():
        table = sl.get.lmm_de_df(adata, group, sort=False)
        np.testing.assert_array_equal(table["status"] == "not_tested", share < 0.5)
        alone = adata[adata.obs["type"] == group].copy()
        sl.tl.lmm_de(alone, FORMULA, "arm", mask_var=share >= 0.5, key_added="alone")
        pd.testing.assert_series_equal(table["pvals"], sl.get.lmm_de_df(alone, key="alone", sort=False)["pvals"])


def test_donors_with_few_cells_and_groups_with_few_donors_are_left_out():
    adata = cohort()
    few = (adata.obs["type"] == "B cell") & (adata.obs["donor"] == "d3")
    adata = adata[~few | (few.cumsum() <= 2)].copy()
    fits = sl.tl.lmm_fit(adata, FORMULA, groupby="type", min_cells=3, min_donors=8)
    assert fits.groups["n_donors"].tolist() == [7, 8, 8, 2]
    assert list(fits) == ["NK/T", "a:b"]
    exact = sl.tl.lmm_fit(adata, FORMULA, groupby="type", groups=["B cell"], min_cells=2)  # as many as the donor has
    assert exact.groups["n_donors"].tolist() == [8]
    assert fits.groups.loc["B cell", "reason"] == "It has cells of 7 donors, fewer than min_donors=8."
    with pytest.raises(KeyError, match="'B cell' was left out: It has cells of 7 donors"):
        fits["B cell"]


def test_a_contrast_that_a_group_cannot_answer_is_a_reason_not_an_error():
    adata = cohort()
    adata.obs["stage"] = np.where(adata.obs["depth"] > 8, "late", "early")
    early = (adata.obs["type"] == "B cell") & (adata.obs["stage"] == "late")
    adata.obs.loc[early, "stage"] = "middle"
    adata.obs.loc[adata.obs["type"] == "a:b", "stage"] = np.where(adata.obs["depth"] > 8, "middle", "early")[
        adata.obs["type"] == "a:b"
    ]
    sl.tl.lmm_de(
        adata, "~ stage + (1 | donor)", "cond(stage='late') - cond(stage='early')", groupby="type", groups=TYPES[:3]
    )
    groups = adata.uns["lmm_de"]["groups"]
    assert groups["reason"].astype(bool).tolist() == [True, False, True]
    assert "late" in groups.loc["B cell", "reason"]


@pytest.mark.filterwarnings("default::sc_lmm.LmmWarning")
def test_a_caution_of_many_groups_is_said_once():
    with pytest.warns(sl.LmmWarning) as found:
        sl.tl.lmm_de(cohort(n_donors=4), "~ arm + (1 | donor)", "arm", groupby="type")
    texts = [str(w.message) for w in found]
    assert sum("large p-value is no evidence" in text for text in texts) == 1
    (few,) = [text for text in texts if "large p-value is no evidence" in text]
    assert few.startswith("In B cell: ")
    assert few.endswith("Likewise, with numbers of their own: 'NK/T', 'a:b'.")
    assert sum(text.startswith("1 of 4 groups of type have no result: rare (") for text in texts) == 1


def test_reports_of_groups_are_told_before_anything_is_read():
    adata = cohort()
    adata.X = np.full(adata.shape, np.nan)
    reports = sl.tl.check_design(adata, FORMULA, "arm", groupby="type")
    assert reports.groups["grade"].tolist()[-1] == "refused"
    assert reports["B cell"].n_cells == 96
    assert "reason" in repr(reports)


def test_permutations_of_groups_are_those_of_each_alone():
    adata = cohort()
    how = {"n_permutations": 5, "methods": ["lrt calibrated", "between-within"], "alphas": [0.3]}
    found = sl.tl.permutation_check(adata, FORMULA, "arm", groupby="type", **how)
    assert list(found) == list(TYPES[:3])
    alone = sl.tl.permutation_check(adata[adata.obs["type"] == "NK/T"].copy(), FORMULA, "arm", **how)
    pd.testing.assert_frame_equal(found["NK/T"].permuted, alone.permuted)
    mean = alone.permuted["lrt calibrated", 0.3].mean()
    assert found.groups.loc["NK/T", "lrt calibrated, 0.3"] == pytest.approx(mean)


BAD = {
    "no column": ({"groupby": "typ"}, KeyError, "Did you mean 'type'"),
    "the donor": ({"groupby": "donor"}, DesignError, "is the random intercept"),
    "of the formula": ({"groupby": "arm"}, DesignError, "is in the formula"),
    "no group": ({"groupby": "type", "groups": ["NK"]}, KeyError, "which is no level of adata.obs"),
    "an absent group": ({"groupby": "type", "groups": ["absent"]}, KeyError, "with cells"),
    "no groups": ({"groupby": "type", "groups": []}, ValueError, "groups is empty"),
    "without groupby": ({"groups": ["B cell"]}, ValueError, "Add groupby="),
    "a share": ({"groupby": "type", "min_pct": 5}, ValueError, "between 0 and 1"),
    "cells": ({"groupby": "type", "min_cells": 0}, ValueError, "1 or more"),
    "only the rare": ({"groupby": "type", "groups": "rare"}, DesignError, "No group of type has a model"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_changes_nothing(case):
    arguments, error, words = BAD[case]
    adata = cohort()
    with pytest.raises(error, match=words):
        sl.tl.lmm_de(adata, FORMULA, "arm", **arguments)
    assert not adata.uns
    assert not adata.varm


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(298)))
def test_the_order_of_cells_does_not_matter(order):
    adata = cohort()
    plain, shuffled = (
        sl.tl.lmm_fit(a, FORMULA, groupby="type").test("arm", moderate=False).table
        for a in (adata, adata[list(order)].copy())
    )
    pd.testing.assert_frame_equal(shuffled, plain, rtol=1e-7)
