"""A stored table belongs to one run: nobody overwrites what is another's, and a reader refuses what is not its run's."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sc_lmm as sl
from sc_lmm._fingerprints import fingerprints, unknown_rows

FORMULA, STAGES = "~ diagnosis + (1 | sample_id)", "~ stage + (1 | sample_id)"
_COHORT = sl.datasets.brain_cohort(n_donors=12, n_cells=480, n_genes=12, seed=3, library_size=40)


@pytest.fixture
def adata() -> ad.AnnData:
    adata = _COHORT.copy()
    adata.obs["stage"] = np.array(["none", "AD", "PD"])[adata.obs["sample_id"].cat.codes.to_numpy() % 3]
    return adata


def run(adata: ad.AnnData, formula: str = FORMULA, test: str = "diagnosis", **kwargs) -> None:
    sl.tl.lmm_de(adata, formula, test, show_progress=False, **kwargs)


def stages(adata: ad.AnnData, **kwargs) -> None:
    run(adata, STAGES, "stage", reference="none", **kwargs)


def state(adata: ad.AnnData) -> dict[str, object]:
    return {**{f"uns {k}": v for k, v in adata.uns.items()}, **{f"varm {k}": v for k, v in adata.varm.items()}}


def assert_refused(adata: ad.AnnData, match: str, **kwargs) -> None:
    """Refused before the matrix is read, with nothing changed."""
    before = state(adata)
    dask = pytest.importorskip("dask.array")
    adata.layers["unread"] = dask.from_delayed(_explode(), shape=adata.shape, dtype=float)
    with pytest.raises(ValueError, match=match):
        run(adata, layer="unread", **kwargs)
    del adata.layers["unread"]
    after = state(adata)
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def _explode():
    def read() -> None:
        msg = "the matrix was read"
        raise RuntimeError(msg)

    return pytest.importorskip("dask").delayed(read)()


# -------------------------------------------------------------------------------------------------------- writing


def test_a_key_that_is_the_place_of_another_runs_table_is_refused(adata):
    stages(adata)
    expected = sl.get.lmm_de_df(adata, "AD")
    assert "lmm_de_AD" in adata.varm
    assert_refused(adata, r"adata.varm\['lmm_de_AD'\] is a table of the run under 'lmm_de'.*del", key_added="lmm_de_AD")
    pd.testing.assert_frame_equal(sl.get.lmm_de_df(adata, "AD"), expected)


def test_what_the_message_says_to_delete_is_enough(adata):
    stages(adata)
    del adata.uns["lmm_de"], adata.varm["lmm_de_AD"]
    run(adata, key_added="lmm_de_AD")
    assert sl.get.lmm_de_df(adata, key="lmm_de_AD")["coef"].notna().all()


@pytest.mark.parametrize("value", [{"a": 1}, "lmm", 7, [1, 2], np.zeros(3), pd.DataFrame({"a": [1]})], ids=str)
def test_a_record_of_something_else_is_not_lost(adata, value):
    adata.uns["lmm_de"] = value
    assert_refused(adata, r"adata.uns\['lmm_de'\] holds a .* that sc_lmm did not write.*del adata.uns\['lmm_de'\]")


@pytest.mark.parametrize("value", [np.zeros((12, 2)), pd.DataFrame({"coef": np.zeros(12)})], ids=["array", "frame"])
def test_loadings_of_something_else_are_not_lost(adata, value):
    adata.varm["PCs"] = value.set_index(adata.var_names) if isinstance(value, pd.DataFrame) else value
    assert_refused(adata, r"adata.varm\['PCs'\] holds a .* that sc_lmm did not write", key_added="PCs")


def test_scanpys_own_ranking_is_replaced_as_scanpy_does(adata):
    sc = pytest.importorskip("scanpy")
    sc.tl.rank_genes_groups(adata, "diagnosis")
    run(adata, key_added="rank_genes_groups")
    assert sl.get.lmm_de_params(adata, key="rank_genes_groups")["formula"] == FORMULA


def test_a_table_without_its_record_is_replaced(adata):
    run(adata)
    del adata.uns["lmm_de"]
    stages(adata)
    assert sl.get.lmm_de_df(adata)["df"].eq(2).all()


def test_a_copy_of_a_record_owns_no_table(adata):
    # scanpy's filter copies the whole entry.
    stages(adata)
    adata.uns["lmm_de_filtered"] = adata.uns["lmm_de"].copy()
    pd.testing.assert_frame_equal(sl.get.lmm_de_df(adata, key="lmm_de_filtered"), sl.get.lmm_de_df(adata))
    run(adata, key_added="lmm_de_filtered")
    assert set(adata.varm) == {"lmm_de", "lmm_de_AD", "lmm_de_PD", "lmm_de_filtered"}
    assert sl.get.lmm_de_df(adata, "PD")["coef"].notna().all()
    run(adata)
    assert set(adata.varm) == {"lmm_de", "lmm_de_filtered"}


def test_what_was_put_in_the_place_of_a_table_stays(adata):
    stages(adata)
    adata.varm["lmm_de_AD"] = mine = np.ones((adata.n_vars, 2))
    stages(adata)
    np.testing.assert_array_equal(adata.varm["lmm_de_AD"], mine)
    assert adata.uns["lmm_de"]["comparisons"].loc["AD", "varm_key"] == "lmm_de_AD_"
    assert sl.get.lmm_de_df(adata, "AD")["coef"].notna().all()


@pytest.mark.parametrize(
    "key", ["", ".", "..", ".hidden", "__private", "a/b", "a\\b", "a:b", "a b ", " a", "a.", "a\n", "x" * 300, 7, None]
)
def test_keys_that_a_file_could_not_hold_are_refused(adata, key):
    assert_refused(adata, "key_added=.* cannot be stored everywhere.*lmm_de", key_added=key)


# -------------------------------------------------------------------------------------------------------- reading

FOREIGN = {
    "table of another run": lambda a: a.varm.update(lmm_de_AD=a.varm["other"]),
    "tables exchanged": lambda a: a.varm.update(lmm_de_AD=a.varm["lmm_de_PD"]),
    "one number changed": lambda a: a.varm.update(
        lmm_de_AD=a.varm["lmm_de_AD"].assign(coef=a.varm["lmm_de_AD"]["coef"] * (1 + 1e-12))
    ),
    "columns exchanged": lambda a: a.varm.update(
        lmm_de_AD=a.varm["lmm_de_AD"].rename(columns={"coef": "se", "se": "coef"})
    ),
    "rounded": lambda a: a.varm.update(lmm_de_AD=a.varm["lmm_de_AD"].round(6)),
    "column gone": lambda a: a.varm.update(lmm_de_AD=a.varm["lmm_de_AD"].drop(columns="icc")),
    "an array": lambda a: a.varm.update(lmm_de_AD=np.zeros((a.n_vars, 3))),
    "record of another run": lambda a: a.uns["lmm_de"].update(fingerprints=a.uns["other"]["fingerprints"]),
    "record without fingerprints": lambda a: a.uns["lmm_de"].pop("fingerprints"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_reader_refuses_what_its_run_did_not_write(adata, name):
    stages(adata)
    run(adata, key_added="other")
    sl.get.lmm_de_df(adata, "AD")
    FOREIGN[name](adata)
    with pytest.raises(
        ValueError, match=r"adata.varm\['lmm_de_AD'\] is not the table that the run 'lmm_de' wrote.*again"
    ):
        sl.get.lmm_de_df(adata, "AD")
    with pytest.raises(ValueError, match="is not the table"):
        sl.pl.volcano(adata, "AD", show=False)


def test_a_table_that_is_gone_is_said_to_be_gone(adata):
    stages(adata)
    del adata.varm["lmm_de_AD"]
    with pytest.raises(KeyError, match="'lmm_de_AD'.*comparison 'AD' of the run 'lmm_de', is gone"):
        sl.get.lmm_de_df(adata, "AD")


@pytest.mark.parametrize(
    "entry", ["comparisons", ["comparisons"], np.array(["comparisons"]), {"comparisons": 1}, None], ids=repr
)
def test_what_is_no_record_is_not_read_as_one(adata, entry):
    adata.uns["lmm_de"] = entry
    with pytest.raises(KeyError, match="holds no result of sc_lmm.tl.lmm_de"):
        sl.get.lmm_de_df(adata)


KEPT = {
    "genes selected": lambda a: a[:, [3, 1, 7]],
    "genes selected and copied": lambda a: a[:, a.var_names[::-1]].copy(),
    "cells selected": lambda a: a[:100].copy(),
    "no gene": lambda a: a[:, :0].copy(),
    "genes renamed": lambda a: _renamed(a),
    "genes of one name": lambda a: _renamed(a, same=True),
    "copied": lambda a: a.copy(),
    "column added": lambda a: _with_column(a),
    "concatenated": lambda a: ad.concat([a[:100], a[100:]], merge="first", uns_merge="first"),
    "concatenated with other genes": lambda a: ad.concat(
        [a, a[:, :3].copy()], join="outer", merge="first", uns_merge="first", index_unique="-"
    ),
}


def _renamed(adata: ad.AnnData, *, same: bool = False) -> ad.AnnData:
    adata = adata.copy()
    adata.var_names = ["gene"] * adata.n_vars if same else [f"new {name}" for name in adata.var_names]
    return adata


def _with_column(adata: ad.AnnData) -> ad.AnnData:
    adata.varm["lmm_de_AD"]["mine"] = 1.0
    return adata


@pytest.mark.filterwarnings("ignore:Variable names are not unique")  # anndata's
@pytest.mark.parametrize("name", KEPT)
def test_a_table_is_its_runs_whatever_becomes_of_the_genes_and_cells(adata, name):
    stages(adata, mask_var=np.arange(adata.n_vars) != 3)
    other = KEPT[name](adata)
    table = sl.get.lmm_de_df(other, "AD", sort=False)
    assert len(table) == other.n_vars
    if name == "genes selected":
        expected = sl.get.lmm_de_df(adata, "AD", sort=False).iloc[[3, 1, 7]].reset_index(drop=True)
        pd.testing.assert_frame_equal(table.astype({"status": str}), expected.astype({"status": str}))


def test_genes_without_a_result_in_another_cohort_are_no_reason_to_refuse(adata):
    part = adata[:, :6].copy()
    run(part)
    both = ad.concat([part, adata[:20]], join="outer", merge="first", uns_merge="first", index_unique="-")
    table = sl.get.lmm_de_df(both, sort=False)
    assert table["coef"].notna().sum() == 6
    assert len(table) == adata.n_vars


# ---------------------------------------------------------------------------------------------------- fingerprints

tables = hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 5)), elements=st.floats(width=64))


@given(tables, st.randoms())
def test_rows_keep_their_numbers_in_any_order_and_selection(values, random):
    table = pd.DataFrame(values).rename(columns=str)
    columns = list(table.columns)
    order = [random.randrange(len(table)) for _ in range(len(table))]
    np.testing.assert_array_equal(fingerprints(table.iloc[order], columns), fingerprints(table, columns)[order])
    assert not unknown_rows(table.iloc[order], columns, fingerprints(table, columns)).any()


@given(tables, st.data())
def test_a_change_of_one_bit_is_seen(values, data):
    changed = values.copy()
    row, column = (data.draw(st.integers(0, size - 1)) for size in values.shape)
    bits = changed.view(np.uint64)
    bits[row, column] ^= np.uint64(1) << np.uint64(data.draw(st.integers(0, 63)))
    same = np.array_equal(changed, values, equal_nan=True)  # the sign of zero and the kind of nan do not count
    one, other = (fingerprints(pd.DataFrame(v), list(range(v.shape[1]))) for v in (values, changed))
    assert (one == other).all() == same


def test_random_rows_have_different_numbers():
    values = pd.DataFrame(np.random.default_rng(0).normal(size=(200_000, 3)))
    found = fingerprints(values, [0, 1, 2])
    # n^2 / 2 / 2^32 = 4.7 pairs are expected to agree by chance
    assert 200_000 - np.unique(found).size < 25
    assert np.abs(np.mean(found.astype(float))) < 2**31 / 100  # spread over all of them


def test_fingerprints_do_not_change_between_versions():
    table = pd.DataFrame({"a": [0.0, 1.0, np.nan, 1e-300], "b": [-0.0, 2.5, 3.0, np.inf]})
    expected = [0, -192795577, -1386543957, -1719457716]
    assert fingerprints(table, ["a", "b"]).tolist() == expected
