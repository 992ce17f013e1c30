"""Identifiers are never numbers: donors stay apart whatever type they are stored as, and are called as the user knows them."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sc_lmm as sl
from cohorts import fitted
from sc_lmm._design import build_design, level_text
from sc_lmm._errors import DesignError

N_DONORS, N_CELLS = 16, 160
DONOR = np.arange(N_CELLS) % N_DONORS
BIG = 2**53  # from here on a float cannot tell all integers apart


def make_obs() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    arm = np.where(DONOR % 2 == 1, "case", "control")
    return pd.DataFrame({"donor": [f"d{j:02d}" for j in DONOR], "arm": arm, "x": rng.normal(size=N_CELLS)})


OBS = make_obs()
Y = np.random.default_rng(2).normal(3, 1, (N_CELLS, 4)) + np.random.default_rng(3).normal(0, 1, (N_DONORS, 4))[DONOR]
FORMULA = "~ x + arm + (1 | donor)"


def with_missing(values: list, dtype: object) -> pd.Series:
    return pd.Series([None if j == 0 else value for j, value in zip(DONOR, values, strict=True)], dtype=dtype)


WAYS = {
    "int64 above 2**53": pd.Series(DONOR + BIG),
    "uint64 above 2**63": pd.Series(DONOR.astype(np.uint64) + np.uint64(2**63)),
    "negative": pd.Series(DONOR - BIG - 100),
    "Int64 above 2**53": pd.Series(DONOR + BIG, dtype="Int64"),
    "objects above 2**64": pd.Series([int(j) + 2**64 for j in DONOR], dtype=object),
    "objects of numpy": pd.Series([np.int64(j + BIG) for j in DONOR], dtype=object),
    "np.str_": pd.Series([np.str_(f"d{j:02d}") for j in DONOR], dtype=object),
    "string": pd.Series([f"d{j:02d}" for j in DONOR], dtype="string"),
    "categories of integers": pd.Series(pd.Categorical(DONOR + BIG)),
    "fractions": pd.Series(DONOR / 7),
    "close fractions": pd.Series(1 + DONOR * 2.0**-50),
    "single precision": pd.Series(DONOR.astype(np.float32) / np.float32(3)),
    "dates": pd.Series([datetime.date(2020, 1, 1 + int(j)) for j in DONOR], dtype=object),
    "timestamps": pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(DONOR, unit="ns")),
    "pairs": pd.Series([("d", int(j)) for j in DONOR], dtype=object),
}


@pytest.mark.parametrize("way", WAYS)
def test_donors_stay_apart_whatever_they_are_stored_as(way):
    fit = fitted(Y, OBS.assign(donor=WAYS[way]), FORMULA)
    assert len(set(fit.coding.group_levels)) == N_DONORS
    np.testing.assert_allclose(fit.ml.deviance, fitted(Y, OBS, FORMULA).ml.deviance, rtol=1e-12)


MISSING = {
    "Int64": ([int(j) + BIG for j in DONOR], "Int64"),
    "object": ([int(j) + BIG for j in DONOR], object),
    "float": ([float(j) for j in DONOR], np.float64),
    "string": ([f"d{j}" for j in DONOR], "string"),
    "np.str_": ([np.str_(j) for j in DONOR], object),
}


@pytest.mark.parametrize("way", MISSING)
def test_a_missing_donor_is_left_out_and_the_others_keep_their_names(way):
    values, dtype = MISSING[way]
    design = build_design(FORMULA, OBS.assign(donor=with_missing(values, dtype)))
    assert design.kept.tolist() == (DONOR != 0).tolist()
    expected = [str(int(value)) if dtype is np.float64 else str(value) for value in values[1:N_DONORS]]
    assert sorted(design.random.levels) == sorted(expected)


@pytest.mark.parametrize("dtype", ["boolean", bool, object])
def test_truth_values_can_group(dtype):
    obs = OBS.assign(donor=pd.Series(DONOR < 8, dtype=dtype))
    assert build_design("~ x + (1 | donor)", obs).random.levels == ("False", "True")


def test_levels_are_called_as_the_user_knows_them():
    assert [level_text(v) for v in (7, 7.0, np.float64(7), np.int8(7), "7.0", 7.5, True)] == [
        *("7", "7", "7", "7", "7.0", "7.5", "True")
    ]
    obs = OBS.assign(donor=DONOR + 1)
    assert build_design(FORMULA, obs).random.levels == tuple(str(j + 1) for j in range(N_DONORS))
    # pandas makes floats of integers as soon as one is missing, and categories of these
    obs["donor"] = pd.Categorical(np.where(DONOR == 3, np.nan, DONOR))
    assert build_design(FORMULA, obs).random.levels == tuple(str(j) for j in range(N_DONORS) if j != 3)
    obs["arm"] = pd.Categorical(np.where(DONOR % 2, 1.0, 2.0))
    assert build_design(FORMULA, obs).coef_names[-1] == "arm[T.2]"
    assert build_design(FORMULA, obs, reference={"arm": 2}).coef_names[-1] == "arm[T.1]"


def test_dropped_donors_are_counted_by_the_names_of_the_levels():
    obs = OBS.assign(donor=(DONOR + 1_234_567).astype(np.float64))
    obs.loc[obs.index[:20], "x"] = np.nan
    report = sl.tl.check_design(_adata(obs), FORMULA)
    assert set(report.dropped_by_donor) == {str(j + 1_234_567) for j in range(N_DONORS)}
    (dropped,) = [v for v in report.verdicts if v.code == "dropped_cells"]
    assert "lost all cells" not in dropped.message


@pytest.mark.parametrize("pair", [(1, True), (True, "True"), (0.0, False)])
def test_what_python_takes_for_equal_is_refused(pair):
    obs = OBS.assign(donor=pd.Series([(*pair, "a")[j % 3] for j in DONOR], dtype=object))
    with pytest.raises(DesignError, match="truth values beside others. Make them all strings"):
        build_design("~ x + (1 | donor)", obs)


@pytest.mark.parametrize("pair", [(7, "7"), ("7", 7.0)])
def test_different_values_of_one_name_are_refused(pair):
    obs = OBS.assign(donor=pd.Series([(*pair, "a")[j % 3] for j in DONOR], dtype=object))
    with pytest.raises(DesignError, match="several values that read"):
        build_design("~ x + (1 | donor)", obs)


def test_values_that_cannot_be_levels_are_refused():
    with pytest.raises(DesignError, match="'donor'.*cannot be levels.*Make them strings"):
        build_design("~ x + (1 | donor)", OBS.assign(donor=[[int(j)] for j in DONOR]))


@settings(max_examples=30)
@given(
    st.one_of(
        st.lists(st.integers(-(2**70), 2**70), min_size=N_DONORS, max_size=N_DONORS, unique=True),
        st.lists(st.floats(allow_nan=False), min_size=N_DONORS, max_size=N_DONORS, unique=True),
        st.lists(st.text(max_size=5), min_size=N_DONORS, max_size=N_DONORS, unique=True),
    )
)
def test_a_fit_does_not_know_what_donors_are_called(names):
    column = pd.Series([names[j] for j in DONOR])
    fit = fitted(Y, OBS.assign(donor=column), FORMULA)
    assert set(fit.coding.group_levels) == {level_text(name) for name in names}
    np.testing.assert_allclose(fit.ml.deviance, fitted(Y, OBS, FORMULA).ml.deviance, rtol=1e-10)


# ------------------------------------------------------------------------------------------ numbers that are factors


def test_integers_in_C_stay_apart_too():
    batch = DONOR // 2 % 4
    text = fitted(Y, OBS.assign(batch=[f"b{k}" for k in batch]), "~ x + batch + (1 | donor)")
    number = fitted(Y, OBS.assign(batch=batch + BIG), "~ x + C(batch) + (1 | donor)")
    assert number.coding.coef_names[2:] == tuple(f"C(batch)[T.{BIG + k}]" for k in (1, 2, 3))
    np.testing.assert_allclose(number.ml.deviance, text.ml.deviance, rtol=1e-12)
    expected = text.test("cond(batch='b3') - cond(batch='b1')", method="wald").table
    found = number.test(f"cond(batch={BIG + 3}) - cond(batch={BIG + 1})", method="wald").table
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.uint8, "Int64", "Float64"])
def test_levels_of_C_are_whole_numbers_where_these_are_meant(dtype):
    obs = OBS.assign(batch=pd.Series(DONOR // 2 % 3 + 7).astype(dtype))
    assert build_design("~ C(batch) + (1 | donor)", obs).coef_names == ("Intercept", "C(batch)[T.8]", "C(batch)[T.9]")
    by_coding = build_design("~ C(batch, contr.treatment(8)) + (1 | donor)", obs).coef_names
    assert [name[-5:] for name in by_coding[1:]] == ["[T.7]", "[T.9]"]


def test_a_grouping_can_also_be_a_number():
    # A trend over days and what days have in common beside it: lme4 takes one column in both ways as well.
    fit = fitted(Y, OBS.assign(donor=DONOR + 1), "~ x + donor + (1 | donor)")
    assert fit.coding.coef_names == ("Intercept", "x", "donor")
    expected = fitted(Y, OBS.assign(day=DONOR + 1.0), "~ x + day + (1 | donor)")
    np.testing.assert_allclose(fit.ml.deviance, expected.ml.deviance, rtol=1e-12)


def _adata(obs: pd.DataFrame):
    import anndata as ad

    return ad.AnnData(np.zeros((len(obs), 1)), obs=obs.set_axis([f"c{i}" for i in range(len(obs))]))
