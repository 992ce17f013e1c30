"""What `lmm_de` writes and `get` reads: columns, comparisons, keys, masks, formulas, fold changes, views."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse, stats
from statsmodels.stats.multitest import multipletests

import sc_lmm as sl
from sc_lmm._expression import read_expression
from sc_lmm._inference.tests import chi2_logsf

pytestmark = [  # of anndata and scanpy with pandas 3
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated"),
    pytest.mark.filterwarnings("ignore:The 'future.infer_string' option is deprecated"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.drop"),
    # what the design report cautions of is not the matter here
    pytest.mark.filterwarnings("ignore:The p-values of"),
    pytest.mark.filterwarnings("ignore:sequencing_saturation goes along"),
    pytest.mark.filterwarnings("ignore:Only "),
]

FORMULA = "~ sequencing_saturation + diagnosis + (1 | sample_id)"
COLUMNS = [
    "coef",
    "se",
    "ci_low",
    "ci_high",
    "coef_shrunken",
    "lfsr",
    "logfoldchanges",
    "scores",
    "df",
    "pvals",
    "pvals_adj",
    "log10_pvals",
    "lrt",
    "pvals_chi2",
    "calibration",
    "sd_sample_id",
    "sd_residual",
    "icc",
    "icc_moderated",
    "loglik",
    "loglik_null",
    "pct_expressed",
    "status",
]
_COHORT = sl.datasets.brain_cohort(n_donors=12, n_cells=720, n_genes=20, seed=3, library_size=40)


@pytest.fixture
def adata() -> ad.AnnData:
    """Twelve donors; `stage` has three levels that vary between donors, with names that no file format likes."""
    adata = _COHORT.copy()
    position = adata.obs["sample_id"].cat.codes.to_numpy()
    adata.obs["stage"] = np.array(["1 none", "2 mid/low", "3 very high"])[position % 3]
    return adata


def run(adata: ad.AnnData, formula: str = FORMULA, test: str = "diagnosis", **kwargs) -> pd.DataFrame:
    return sl.tl.lmm_de(adata, formula, test, copy=True, **kwargs).varm["lmm_de"]


def dense(adata: ad.AnnData) -> np.ndarray:
    return adata.X.toarray().astype(np.float64)


# ------------------------------------------------------------------------------------------------ the table


def test_columns_order_and_types(adata):
    table = run(adata)
    assert table.columns.tolist() == COLUMNS
    assert table.index.equals(adata.var_names)
    assert {str(dtype) for dtype in table.dtypes.drop("status")} == {"float64"}
    assert isinstance(table["status"].dtype, pd.CategoricalDtype)
    assert set(table["status"]) <= {"ok", "boundary"}
    assert (table["status"] == "boundary").tolist() == (table["sd_sample_id"] == 0).tolist()


def test_estimates_have_the_log_likelihood_they_claim(adata):
    # scipy's multivariate normal at the reported parameters, with beta by numpy's generalised least squares.
    adata = adata[:240].copy()
    table, Y = run(adata), dense(adata)
    Z = pd.get_dummies(adata.obs["sample_id"]).to_numpy(float)
    full = np.column_stack(
        [np.ones(adata.n_obs), adata.obs["sequencing_saturation"], adata.obs["diagnosis"] == "Alzheimer"]
    )
    for g in range(0, adata.n_vars, 5):
        row = table.iloc[g]
        V = row["sd_residual"] ** 2 * np.eye(adata.n_obs) + row["sd_sample_id"] ** 2 * Z @ Z.T
        inverse = np.linalg.inv(V)
        vcov = np.linalg.inv(full.T @ inverse @ full)
        beta = vcov @ full.T @ inverse @ Y[:, g]
        assert row["coef"] == pytest.approx(beta[2], rel=1e-8)
        assert row["se"] == pytest.approx(np.sqrt(vcov[2, 2]), rel=1e-8)
        density = stats.multivariate_normal(full @ beta, V)
        assert row["loglik"] == pytest.approx(density.logpdf(Y[:, g]), rel=1e-9)
        assert row["icc"] == pytest.approx(
            row["sd_sample_id"] ** 2 / (row["sd_sample_id"] ** 2 + row["sd_residual"] ** 2)
        )


def test_statistics_of_the_test(adata):
    table = run(adata)
    np.testing.assert_allclose(table["lrt"], 2 * (table["loglik"] - table["loglik_null"]), atol=1e-8)
    np.testing.assert_allclose(table["scores"] ** 2, table["lrt"] / table["calibration"], rtol=1e-12)
    np.testing.assert_allclose(table["pvals"], stats.chi2.sf(table["scores"] ** 2, 1), rtol=1e-10)
    assert (np.sign(table["scores"]) == np.sign(table["coef"])).all()
    assert (table["coef"] > 0).any()
    assert (table["coef"] < 0).any()
    assert (table["df"] == 1).all()
    np.testing.assert_allclose(table["pvals_chi2"], stats.chi2.sf(table["lrt"], 1), rtol=1e-10)
    np.testing.assert_allclose(10 ** table["log10_pvals"], table["pvals"], rtol=1e-10)
    np.testing.assert_allclose(table["pvals_adj"], stats.false_discovery_control(table["pvals"]), rtol=1e-12)


def test_null_log_likelihood_is_that_of_the_model_without_the_term(adata):
    without = run(adata, "~ sequencing_saturation + (1 | sample_id)", "sequencing_saturation")
    np.testing.assert_allclose(run(adata)["loglik_null"], without["loglik"], rtol=1e-10)


def test_bonferroni(adata):
    table = run(adata, corr_method="bonferroni")
    np.testing.assert_allclose(table["pvals_adj"], np.minimum(1, table["pvals"] * adata.n_vars), rtol=1e-12)


def test_pct_expressed(adata):
    np.testing.assert_allclose(run(adata)["pct_expressed"], (dense(adata) != 0).mean(axis=0), rtol=1e-12)


def test_reference_turns_the_sign(adata):
    forward, backward = run(adata), run(adata, reference="Alzheimer")
    np.testing.assert_allclose(backward[["coef", "scores"]], -forward[["coef", "scores"]], rtol=1e-7)
    np.testing.assert_allclose(backward["pvals"], forward["pvals"], rtol=1e-7)
    result = sl.tl.lmm_de(adata, FORMULA, "diagnosis", reference="Alzheimer", copy=True)
    assert result.uns["lmm_de"]["params"]["reference"] == "Alzheimer"
    assert result.uns["lmm_de"]["comparisons"].index.tolist() == ["control"]


def test_params(adata):
    adata.layers["logged"] = adata.X
    sl.tl.lmm_de(adata, FORMULA, " diagnosis ", layer="logged", corr_method="bonferroni")
    entry = adata.uns["lmm_de"]
    expected = {
        "groupby": "diagnosis",
        "reference": "control",
        "method": "lrt",
        "use_raw": False,
        "layer": "logged",
        "corr_method": "bonferroni",
        "formula": FORMULA,
        "test": "diagnosis",
    }
    assert {name: entry["params"][name] for name in expected} == expected
    assert entry["params"]["log_base"] == pytest.approx(np.e)
    assert list(entry["coef_names"]) == ["Intercept", "sequencing_saturation", "diagnosis[T.Alzheimer]"]
    assert entry["design"]["group"] == "sample_id"
    assert (entry["design"]["n_cells"], entry["design"]["n_donors"]) == (720, 12)
    sizes = adata.obs["sample_id"].value_counts()
    assert entry["design"]["cells_per_donor"].tolist() == [sizes.min(), sizes.median(), sizes.max()]
    assert sum(entry["status"].values()) == adata.n_vars


def test_scanpy_reads_the_records(adata):
    sc = pytest.importorskip("scanpy")
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    theirs = sc.get.rank_genes_groups_df(adata, group="Alzheimer", key="lmm_de").set_index("names")
    ours = adata.varm["lmm_de"].loc[theirs.index]
    assert theirs["scores"].is_monotonic_decreasing
    for column, tolerance in {"scores": 1e-6, "logfoldchanges": 1e-6, "pvals": 1e-12, "pvals_adj": 1e-12}.items():
        np.testing.assert_allclose(theirs[column], ours[column], rtol=tolerance)


# ------------------------------------------------------------------------------------------------ several comparisons

STAGES = "~ sequencing_saturation + stage + (1 | sample_id)"


def test_factor_with_three_levels(adata):
    sl.tl.lmm_de(adata, STAGES, "stage")
    keys = {"stage": "lmm_de", "2 mid/low": "lmm_de_2_mid_low", "3 very high": "lmm_de_3_very_high"}
    assert adata.uns["lmm_de"]["comparisons"]["varm_key"].to_dict() == keys
    assert list(adata.uns["lmm_de"]["comparisons"].index) == list(keys)
    assert set(adata.varm) == set(keys.values())
    joint = adata.varm["lmm_de"]
    assert (joint["df"] == 2).all()
    assert joint[["coef", "se", "logfoldchanges"]].isna().all(axis=None)
    np.testing.assert_allclose(joint["pvals_chi2"], stats.chi2.sf(joint["lrt"], 2), rtol=1e-10)
    np.testing.assert_allclose(joint["scores"], joint["lrt"] / joint["calibration"])
    without = run(adata, "~ sequencing_saturation + (1 | sample_id)", "sequencing_saturation")
    np.testing.assert_allclose(joint["lrt"], 2 * (joint["loglik"] - without["loglik"]), atol=1e-8)


def same_but_fold_changes(found: pd.DataFrame, expected: pd.DataFrame, rtol: float) -> None:
    """A fold change starts from the mean of the reference level, and a number has none."""
    for table in (found, expected):
        assert table["logfoldchanges"].notna().all()
    pd.testing.assert_frame_equal(*(t.drop(columns="logfoldchanges") for t in (found, expected)), rtol=rtol)


def test_each_level_has_its_own_test_of_one_df(adata):
    sl.tl.lmm_de(adata, STAGES, "stage")
    adata.obs["low"] = (adata.obs["stage"] == "2 mid/low").astype(float)
    adata.obs["high"] = (adata.obs["stage"] == "3 very high").astype(float)
    for name, key in (("low", "lmm_de_2_mid_low"), ("high", "lmm_de_3_very_high")):
        by_hand = run(adata, "~ sequencing_saturation + low + high + (1 | sample_id)", name)
        same_but_fold_changes(adata.varm[key], by_hand, rtol=1e-7)
        assert (adata.varm[key]["df"] == 1).all()
    assert list(adata.uns["lmm_de"]["names"].dtype.names) == ["2 mid/low", "3 very high"]


def test_level_names_that_become_one_key_stay_apart(adata):
    adata.obs["stage"] = adata.obs["stage"].map({"1 none": "a", "2 mid/low": "b/c", "3 very high": "b c"})
    sl.tl.lmm_de(adata, STAGES, "stage")
    keys = adata.uns["lmm_de"]["comparisons"]["varm_key"]
    assert keys.is_unique
    assert not keys.str.contains("[/ ]").any()
    low, high = (sl.get.lmm_de_df(adata, name, sort=False) for name in ("b/c", "b c"))
    assert not np.allclose(low["coef"], high["coef"])


def test_level_named_like_its_factor_does_not_replace_the_joint_test(adata):
    adata.obs["MCI"] = adata.obs["stage"].map({"1 none": "AD", "2 mid/low": "MCI", "3 very high": "no"})
    sl.tl.lmm_de(adata, "~ MCI + (1 | sample_id)", "MCI")
    assert (adata.varm["lmm_de"]["df"] == 2).all()
    assert len(adata.uns["lmm_de"]["comparisons"]) == 3


def test_reference_of_three_levels(adata):
    sl.tl.lmm_de(adata, STAGES, "stage", reference="2 mid/low")
    assert adata.uns["lmm_de"]["comparisons"].index.tolist() == ["stage", "1 none", "3 very high"]
    other = sl.tl.lmm_de(adata, STAGES, "stage", copy=True)
    pd.testing.assert_frame_equal(adata.varm["lmm_de"], other.varm["lmm_de"], rtol=1e-7)
    np.testing.assert_allclose(adata.varm["lmm_de_1_none"]["coef"], -other.varm["lmm_de_2_mid_low"]["coef"], rtol=1e-6)


def test_rerun_leaves_no_stale_tables(adata):
    adata.varm["mine"] = np.ones((adata.n_vars, 2))
    sl.tl.lmm_de(adata, STAGES, "stage")
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    assert set(adata.varm) == {"mine", "lmm_de"}
    assert adata.uns["lmm_de"]["comparisons"].index.tolist() == ["Alzheimer"]
    pd.testing.assert_frame_equal(adata.varm["lmm_de"], run(adata))


def test_rerun_after_h5ad_leaves_no_stale_tables(adata, tmp_path):
    sl.tl.lmm_de(adata, STAGES, "stage")
    adata.write_h5ad(tmp_path / "cohort.h5ad")
    read = ad.read_h5ad(tmp_path / "cohort.h5ad")
    pd.testing.assert_frame_equal(sl.get.lmm_de_df(read, "2 mid/low"), sl.get.lmm_de_df(adata, "2 mid/low"))
    assert str(sl.get.lmm_de_equation(read)) == str(sl.get.lmm_de_equation(adata))
    sl.tl.lmm_de(read, FORMULA, "diagnosis")
    assert set(read.varm) == {"lmm_de"}


def test_failed_rerun_keeps_the_earlier_results(adata):
    sl.tl.lmm_de(adata, STAGES, "stage")
    before = {key: table.copy() for key, table in adata.varm.items()}
    with pytest.raises(ValueError, match="not a column"):
        sl.tl.lmm_de(adata, "~ oops + (1 | sample_id)", "oops")
    assert set(adata.varm) == set(before)
    for key, table in before.items():
        pd.testing.assert_frame_equal(adata.varm[key], table)
    assert adata.uns["lmm_de"]["params"]["test"] == "stage"


def test_two_keys_side_by_side(adata):
    sl.tl.lmm_de(adata, STAGES, "stage", key_added="by_stage")
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    assert set(adata.varm) == {"by_stage", "by_stage_2_mid_low", "by_stage_3_very_high", "lmm_de"}
    assert sl.get.lmm_de_df(adata, key="by_stage")["df"].eq(2).all()
    assert sl.get.lmm_de_df(adata)["df"].eq(1).all()
    assert "stage" in str(sl.get.lmm_de_equation(adata, key="by_stage"))


def test_tables_of_others_are_not_overwritten(adata):
    # key "lmm_de" with the level "x" and the key "lmm_de_x" want the same place in varm.
    adata.obs["stage"] = adata.obs["stage"].map({"1 none": "a", "2 mid/low": "b", "3 very high": "c"})
    sl.tl.lmm_de(adata, FORMULA, "diagnosis", key_added="lmm_de_b")
    expected = sl.get.lmm_de_df(adata, key="lmm_de_b")
    sl.tl.lmm_de(adata, STAGES, "stage")
    pd.testing.assert_frame_equal(sl.get.lmm_de_df(adata, key="lmm_de_b"), expected)


def test_copy_leaves_adata_alone(adata):
    slots = {name: set(getattr(adata, name)) for name in ("obs", "var", "uns", "varm", "obsm")}
    result = sl.tl.lmm_de(adata, FORMULA, "diagnosis", copy=True)
    assert {name: set(getattr(adata, name)) for name in slots} == slots
    assert "lmm_de" in result.uns
    assert not np.shares_memory(result.X.data, adata.X.data)
    assert sl.tl.lmm_de(adata, FORMULA, "diagnosis") is None
    pd.testing.assert_frame_equal(adata.varm["lmm_de"], result.varm["lmm_de"])


def test_annotations_are_not_changed(adata):
    obs, var, values = adata.obs.copy(), adata.var.copy(), adata.X.data.copy()
    sl.tl.lmm_de(adata, STAGES, "stage", reference="3 very high")
    pd.testing.assert_frame_equal(adata.obs, obs)
    pd.testing.assert_frame_equal(adata.var, var)
    np.testing.assert_array_equal(adata.X.data, values)


# ------------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("method", ["benjamini-hochberg", "bonferroni"])
@pytest.mark.parametrize("by_name", [True, False])
def test_mask(adata, method, by_name):
    mask = np.arange(adata.n_vars) % 3 != 0
    adata.var["some"] = mask
    table = run(adata, mask_var="some" if by_name else mask, corr_method=method)
    assert (table["status"] == "not_tested").tolist() == (~mask).tolist()
    assert table.drop(columns="status")[~mask].isna().all(axis=None)
    everything = run(adata).drop(columns="pvals_adj")[mask]
    everything["status"] = everything["status"].cat.set_categories(table["status"].cat.categories)
    pd.testing.assert_frame_equal(table.drop(columns="pvals_adj")[mask], everything)
    statsmodels = {"benjamini-hochberg": "fdr_bh", "bonferroni": "bonferroni"}[method]
    np.testing.assert_allclose(table["pvals_adj"][mask], multipletests(table["pvals"][mask], method=statsmodels)[1])


def test_masked_genes_come_last_in_the_records(adata):
    mask = np.arange(adata.n_vars) >= 5
    sl.tl.lmm_de(adata, FORMULA, "diagnosis", mask_var=mask)
    entry = adata.uns["lmm_de"]
    assert sorted(entry["names"]["Alzheimer"]) == sorted(adata.var_names)
    assert set(entry["names"]["Alzheimer"][-5:]) == set(adata.var_names[:5])
    assert np.isnan(entry["pvals"]["Alzheimer"][-5:]).all()


# ------------------------------------------------------------------------------------------------ formulas


def product(adata: ad.AnnData) -> np.ndarray:
    return ((adata.obs["diagnosis"] == "Alzheimer") & (adata.obs["sex"] == "male")).astype(float).to_numpy()


@pytest.mark.parametrize("test", ["diagnosis:sex", "diagnosis : sex", "sex:diagnosis"])
def test_interaction(adata, test):
    # Both sexes in both arms, with several donors each: the fixture's own sexes are drawn at random.
    donors = adata.obs.groupby("sample_id", observed=True)["diagnosis"].first().sort_values(kind="stable")
    sexes = dict(zip(donors.index, ["male", "female"] * 6, strict=True))
    adata.obs["sex"] = adata.obs["sample_id"].astype(str).map(sexes).astype("category")
    adata.obs["both"] = product(adata)
    with pytest.warns(sl.LmmWarning, match="Only 3 samples"):
        found = run(adata, "~ diagnosis * sex + (1 | sample_id)", test)
    by_hand = run(adata, "~ diagnosis + sex + both + (1 | sample_id)", "both")
    same_but_fold_changes(found, by_hand, rtol=1e-6)


def test_interaction_with_a_number(adata):
    adata.obs["product"] = adata.obs["sequencing_saturation"] * (adata.obs["diagnosis"] == "Alzheimer")
    base = "~ sequencing_saturation + diagnosis"
    found = run(adata, f"{base} + sequencing_saturation:diagnosis + (1 | sample_id)", "sequencing_saturation:diagnosis")
    by_hand = run(adata, f"{base} + product + (1 | sample_id)", "product")
    same_but_fold_changes(found, by_hand, rtol=1e-6)


# transform in the formula, the column it stands for, and coef(transform) / coef(column)
TRANSFORMS = {
    "np.log1p(age)": (lambda obs: np.log1p(obs["age"]), lambda obs: 1.0),
    "I(age ** 2)": (lambda obs: obs["age"] ** 2.0, lambda obs: 1.0),
    "scale(age)": (lambda obs: obs["age"], lambda obs: obs["age"].std()),
    "center(age)": (lambda obs: obs["age"], lambda obs: 1.0),
    "C(diagnosis)": (lambda obs: (obs["diagnosis"] == "Alzheimer") * 1.0, lambda obs: 1.0),
    "np.sqrt(sequencing_saturation)": (lambda obs: obs["sequencing_saturation"] ** 0.5, lambda obs: 1.0),
}


@pytest.mark.parametrize("term", TRANSFORMS)
def test_transforms(adata, term):
    column, factor = TRANSFORMS[term]
    adata.obs["by_hand"] = column(adata.obs)
    found = run(adata, f"~ sex + {term} + (1 | sample_id)", term)
    expected = run(adata, "~ sex + by_hand + (1 | sample_id)", "by_hand")
    expected[["coef", "se", "ci_low", "ci_high", "logfoldchanges"]] *= factor(adata.obs)
    same_but_fold_changes(found, expected, rtol=1e-6)


def test_polynomial_is_tested_jointly(adata):
    sl.tl.lmm_de(adata, "~ diagnosis + poly(age, 2) + (1 | sample_id)", "poly(age, 2)")
    joint = adata.varm["lmm_de"]
    powers = run(adata, "~ diagnosis + age + I(age ** 2) + (1 | sample_id)", "age")
    without = run(adata, "~ diagnosis + (1 | sample_id)", "diagnosis")
    np.testing.assert_allclose(joint["loglik"], powers["loglik"], rtol=1e-9)
    np.testing.assert_allclose(joint["lrt"], 2 * (joint["loglik"] - without["loglik"]), atol=1e-7)
    assert (joint["df"] == 2).all()
    assert len(adata.uns["lmm_de"]["comparisons"]) == 3


def test_number_as_tested_term(adata):
    sl.tl.lmm_de(adata, FORMULA, "sequencing_saturation")
    assert adata.uns["lmm_de"]["comparisons"].index.tolist() == ["sequencing_saturation"]
    table = adata.varm["lmm_de"]
    adata.obs["sequencing_saturation"] *= 100
    per_cent = run(adata, FORMULA, "sequencing_saturation")
    np.testing.assert_allclose(per_cent[["coef", "se"]] * 100, table[["coef", "se"]], rtol=1e-8)
    np.testing.assert_allclose(per_cent["lrt"], table["lrt"], rtol=1e-8)


@pytest.mark.parametrize(
    "convert",
    [
        lambda diseased: diseased,
        lambda diseased: pd.array(diseased, dtype="boolean"),
        lambda diseased: np.where(diseased, "yes", "no"),
        lambda diseased: pd.array(np.where(diseased, "yes", "no"), dtype="string"),
        lambda diseased: pd.Categorical(np.where(diseased, "yes", "no")),
        lambda diseased: pd.Categorical(np.where(diseased, "yes", "no"), ordered=True),
        lambda diseased: pd.Categorical(np.where(diseased, 10, 9)),
        lambda diseased: np.where(diseased, "10", "9"),  # natural order, as scanpy sorts strings
        lambda diseased: diseased.astype(np.int8),
        lambda diseased: pd.array(diseased.astype(int), dtype="Int64"),
    ],
    ids=["bool", "boolean", "object", "string", "category", "ordered", "numbers", "natural", "int8", "Int64"],
)
def test_types_of_annotation(adata, convert):
    diseased = (adata.obs["diagnosis"] == "Alzheimer").to_numpy()
    adata.obs["case"] = convert(diseased)
    found = run(adata, "~ sequencing_saturation + case + (1 | sample_id)", "case")
    compare = same_but_fold_changes if adata.obs["case"].dtype.kind == "i" else pd.testing.assert_frame_equal
    compare(found, run(adata), rtol=1e-8)


@pytest.mark.parametrize("reference", [True, "True"], ids=["bool", "str"])
def test_reference_of_a_boolean(adata, reference):
    adata.obs["control"] = adata.obs["diagnosis"] == "control"
    adata.obs["case"] = ~adata.obs["control"]
    found = run(adata, "~ sequencing_saturation + control + (1 | sample_id)", "control", reference=reference)
    expected = run(adata, "~ sequencing_saturation + case + (1 | sample_id)", "case")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-8)


@pytest.mark.parametrize("dtype", [np.int32, np.float64, np.uint8, "Int64", "category"])
def test_numeric_sample_ids(adata, dtype):
    adata.obs["id"] = (10 * adata.obs["sample_id"].cat.codes.astype(int)).astype(dtype)
    found = run(adata, "~ sequencing_saturation + diagnosis + (1 | id)")
    expected = run(adata).rename(columns={"sd_sample_id": "sd_id"})
    pd.testing.assert_frame_equal(found, expected, rtol=1e-10)


def test_column_names_with_spaces(adata):
    adata.obs = adata.obs.rename(columns={"diagnosis": "clinical diagnosis", "sample_id": "sample id"})
    sl.tl.lmm_de(adata, "~ sequencing_saturation + `clinical diagnosis` + (1 | `sample id`)", "clinical diagnosis")
    expected = run(_COHORT).rename(columns={"sd_sample_id": "sd_sample id"})
    pd.testing.assert_frame_equal(adata.varm["lmm_de"], expected)
    assert adata.uns["lmm_de"]["comparisons"].index.tolist() == ["Alzheimer"]


@pytest.mark.parametrize(
    "formula",
    [
        "gene_expression ~ sequencing_saturation + diagnosis + (1 | sample_id)",
        "sequencing_saturation+diagnosis+(1|sample_id)",
        "~ (1 | sample_id) + sequencing_saturation + diagnosis",
        "y ~ 1 + sequencing_saturation + (1 | sample_id) + diagnosis",
        "~ (sequencing_saturation + diagnosis) + ( 1 | `sample_id` )",
    ],
)
def test_ways_to_write_one_model(adata, formula):
    pd.testing.assert_frame_equal(run(adata, formula), run(adata), rtol=1e-8)


# ------------------------------------------------------------------------------------------------ fold changes


@pytest.mark.parametrize(
    ("declared", "base"), [({"base": None}, np.e), ({}, np.e), ({"base": 2}, 2), ({"base": 10}, 10)]
)
def test_fold_changes_are_those_of_scanpy_where_the_model_is_of_two_means(adata, declared, base):
    """In donors of equal size the model's adjusted means are the groups' means, which scanpy compares."""
    donors = adata.obs["sample_id"].to_numpy()
    adata = adata[np.concatenate([np.flatnonzero(donors == d)[:20] for d in np.unique(donors)])].copy()
    adata.X = (adata.X / np.log(base)).astype(np.float64)
    adata.uns["log1p"] = declared
    table = run(adata, "~ diagnosis + (1 | sample_id)")
    sc.tl.rank_genes_groups(adata, "diagnosis", reference="control", groups=["Alzheimer"], method="t-test")
    scanpys = sc.get.rank_genes_groups_df(adata, "Alzheimer").set_index("names")["logfoldchanges"][adata.var_names]
    np.testing.assert_allclose(table["logfoldchanges"], scanpys, rtol=1e-4)


def test_fold_changes_of_a_number_are_per_unit_about_its_average(adata):
    table = run(adata, test="sequencing_saturation")
    fit = sl.tl.lmm_fit(adata, FORMULA)
    X = np.column_stack(
        [np.ones(adata.n_obs), adata.obs["sequencing_saturation"], adata.obs["diagnosis"] == "Alzheimer"]
    )
    mean = fit.ml.beta @ X.mean(axis=0)
    low, high = (np.maximum(np.expm1(mean + half * table["coef"]), 0) for half in (-0.5, 0.5))
    np.testing.assert_allclose(table["logfoldchanges"], np.log2((high + 1e-9) / (low + 1e-9)), rtol=1e-6)


def test_fold_changes_turn_their_sign_with_the_comparison(adata):
    there, back = (run(adata, STAGES, {"x": f"cond(stage={a!r}) - cond(stage={b!r})"}) for a, b in
                   (("2 mid/low", "3 very high"), ("3 very high", "2 mid/low")))  # fmt: skip
    np.testing.assert_allclose(there["logfoldchanges"], -back["logfoldchanges"], rtol=1e-9)


@pytest.mark.parametrize("scale", ["linear", "corrected", "counts per 10,000"])
def test_a_layer_on_another_scale_has_no_fold_changes(adata, scale):
    linear = np.expm1(adata.X.toarray()) + 0.25 * (scale == "corrected")
    adata.layers["other"] = linear if scale != "counts per 10,000" else linear / 100
    assert run(adata, layer="other")["logfoldchanges"].isna().all()
    adata.layers["same"] = adata.X.copy()
    pd.testing.assert_frame_equal(run(adata, layer="same"), run(adata))


def test_no_fold_changes_without_a_declared_logarithm(adata):
    del adata.uns["log1p"]
    table = run(adata)
    assert table["logfoldchanges"].isna().all()
    assert table["coef"].notna().all()


# ------------------------------------------------------------------------------------------------ get


@pytest.fixture(scope="module")
def strong() -> ad.AnnData:
    """Genes with p-values far below the smallest double, a constant gene, and a symbol for each."""
    rng = np.random.default_rng(0)
    n, donor = 3000, np.arange(3000) % 6
    x = rng.normal(size=n)
    slope = np.array([1.5, 0.1, 2.0, 1.0, 0.0, 1.2])
    noise = rng.normal(size=(n, 6)) + 0.5 * rng.normal(size=(6, 6))[donor]
    Y = 30 + x[:, None] * slope + noise
    Y[:, 4] = 30.5
    obs = pd.DataFrame({"x": x, "donor": [f"d{j}" for j in donor]}, index=[f"c{i}" for i in range(n)])
    var = pd.DataFrame({"symbol": list("ABCDEF")}, index=[f"ENSG{g}" for g in range(6)])
    adata = ad.AnnData(Y, obs=obs, var=var)
    sl.tl.lmm_de(adata, "~ x + (1 | donor)", "x")
    return adata


def test_order_does_not_suffer_from_underflow(strong):
    table = sl.get.lmm_de_df(strong)
    assert (table["pvals"] == 0).sum() >= 3
    assert np.isfinite(table["log10_pvals"][:5]).all()
    assert table["names"].tolist() == ["ENSG2", "ENSG0", "ENSG5", "ENSG3", "ENSG1", "ENSG4"]
    assert table["lrt"][0] > 2000
    assert table["lrt"][:5].is_monotonic_decreasing
    assert np.isnan(table["pvals"][5])


# R 4.2.2: pchisq(x, df, lower.tail = FALSE, log.p = TRUE) / log(10), by (df, x)
EXPECTED_LOG10 = {
    (1, 0.001): -0.0110965624826169,
    (1, 0.5): -0.31921127782572,
    (1, 30): -7.36446970395315,
    (1, 2000): -436.043273716073,
    (1, 5000): -1087.68383651432,
    (2, 0.001): -0.000217147240951626,
    (2, 0.5): -0.108573620475813,
    (2, 30): -6.51441722854878,
    (2, 2000): -434.294481903252,
    (2, 5000): -1085.73620475813,
    (3, 0.001): -3.65152820209693e-06,
    (3, 0.5): -0.0367358075535487,
    (3, 30): -5.8601029658711,
    (3, 2000): -432.74180985932,
    (3, 5000): -1083.98469286162,
    (6, 0.001): -9.04440945926297e-12,
    (6, 0.5): -0.000939742075983438,
    (6, 30): -4.40551410088146,
    (6, 2000): -428.59464331053,
    (6, 5000): -1079.2410073009,
}


def test_log_p_values_equal_those_of_r():
    for (df, x), log10 in EXPECTED_LOG10.items():
        assert chi2_logsf(np.array([x]), df)[0] / np.log(10) == pytest.approx(log10, rel=1e-12, abs=1e-14)


def test_unsorted_rows_follow_var_names(strong):
    table = sl.get.lmm_de_df(strong, sort=False)
    assert table["names"].tolist() == strong.var_names.tolist()
    pd.testing.assert_frame_equal(table.drop(columns="names"), strong.varm["lmm_de"].reset_index(drop=True))


def test_cutoff_is_on_adjusted_p_values(adata):
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    table = adata.varm["lmm_de"]
    cutoff = float(table["pvals_adj"].median())
    found = sl.get.lmm_de_df(adata, pval_cutoff=cutoff)
    assert set(found["names"]) == set(table.index[table["pvals_adj"] < cutoff])
    assert 0 < len(found) < adata.n_vars
    assert found.index.tolist() == list(range(len(found)))
    assert sl.get.lmm_de_df(adata, pval_cutoff=0.0).empty


def test_gene_symbols(strong):
    assert sl.get.lmm_de_df(strong, gene_symbols="symbol")["names"].tolist() == ["C", "A", "F", "D", "B", "E"]


def test_errors_of_get_list_what_exists(adata):
    with pytest.raises(KeyError, match="'lmm_de'.*There are none"):
        sl.get.lmm_de_df(adata)
    sl.tl.lmm_de(adata, STAGES, "stage", key_added="by_stage")
    with pytest.raises(KeyError, match="'lmm_de'.*'by_stage'"):
        sl.get.lmm_de_df(adata)
    with pytest.raises(KeyError, match="'lmm_de'.*'by_stage'"):
        sl.get.lmm_de_equation(adata)
    with pytest.raises(KeyError, match="'log1p'.*'by_stage'"):  # an entry of another tool
        sl.get.lmm_de_df(adata, key="log1p")
    with pytest.raises(KeyError, match="'2 mid.low'.*'stage', '2 mid/low', '3 very high'.*Did you mean '2 mid/low'"):
        sl.get.lmm_de_df(adata, "2 mid-low", key="by_stage")
    with pytest.raises(KeyError, match="'chnged'.*Did you mean 'changed'"):
        sl.get.lmm_de_df(adata, key="by_stage", gene_symbols="chnged")


def test_table_is_a_copy(adata):
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    for sort in (True, False):
        table = sl.get.lmm_de_df(adata, sort=sort)
        table.loc[:, "coef"] = 0.0
    assert (adata.varm["lmm_de"]["coef"] != 0).all()


def test_equation(adata):
    sl.tl.lmm_de(adata, "~ sequencing_saturation + diagnosis * sex + (1 | sample_id)", "sequencing_saturation")
    equation = sl.get.lmm_de_equation(adata)
    assert str(equation).splitlines() == [
        r"\begin{aligned}",
        r"y_{ij} &= \beta_0 + \beta_{1}\,\mathrm{sequencing\_saturation}_{ij}"
        r" + \beta_{2}\,\mathrm{diagnosis[Alzheimer]}_{ij} + \beta_{3}\,\mathrm{sex[male]}_{ij}"
        r" + \beta_{4}\,\mathrm{diagnosis[Alzheimer]}_{ij}\,\mathrm{sex[male]}_{ij} + u_j + \varepsilon_{ij} \\",
        r"u_j &\sim N(0, \sigma_u^2), \quad j = 1, \dots, 12 \text{ levels of } \mathrm{sample\_id} \\",
        r"\varepsilon_{ij} &\sim N(0, \sigma^2), \quad 720 \text{ cells}",
        r"\end{aligned}",
    ]
    assert equation._repr_latex_() == f"$${equation}$$"


# ------------------------------------------------------------------------------------------------ views


VIEWS = {
    "genes by mask": lambda a: a[:, np.arange(a.n_vars) % 3 == 1],
    "genes by position": lambda a: a[:, [7, 2, 11]],
    "genes by slice": lambda a: a[:, 3:15:2],
    "genes by name": lambda a: a[:, ["GENE00004", "GENE00001"]],
    "cells by mask": lambda a: a[(np.arange(a.n_obs) % 5 > 0)],
    "cells by position": lambda a: a[np.random.default_rng(0).permutation(a.n_obs)[:500]],
    "cells and genes": lambda a: a[100:650, 2:9],
    "view of a view": lambda a: a[np.arange(a.n_obs) % 4 > 0][::-1][:, 4:18][:, [9, 1, 5]],
}


@pytest.mark.parametrize(
    "form", [sparse.csr_matrix, sparse.csc_matrix, lambda X: X.toarray()], ids=["csr", "csc", "dense"]
)
@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("where", ["X", "layer", "raw"])
def test_view_gives_the_numbers_of_its_copy(adata, form, name, where):
    adata.X = form(adata.X)
    kwargs = {}
    if where == "layer":
        adata.layers["half"] = adata.X / 2
        kwargs = {"layer": "half"}
    if where == "raw":
        adata.raw = adata.copy()
        kwargs = {"use_raw": True}
    view = VIEWS[name](adata)
    assert view.is_view
    copied = view.copy()
    found = run(view, **kwargs)
    pd.testing.assert_frame_equal(found, run(copied, **kwargs), rtol=1e-8, atol=1e-8)  # the root of an LRT near 0
    assert found.index.equals(view.var_names)
    assert view.is_view
    expected = np.asarray((copied.X != 0).mean(axis=0)).ravel()
    np.testing.assert_allclose(found["pct_expressed"], expected)


def test_view_becomes_actual_when_it_is_written_to_which_is_said_once(adata):
    view = adata[:, :8]
    with pytest.warns(sl.LmmWarning, match=r"is a view.*type adata = adata\[...\].copy\(\)") as caught:
        sl.tl.lmm_de(view, FORMULA, "diagnosis")
    assert [w.filename for w in caught] == [__file__]  # and anndata says nothing
    assert not view.is_view
    assert "lmm_de" not in adata.uns
    assert len(adata.varm) == 0
    pd.testing.assert_frame_equal(view.varm["lmm_de"], run(adata[:, :8].copy()))


def test_matrix_of_a_view_is_not_copied(adata, monkeypatch):
    matrix = ad.AnnData.X
    asked = []

    def watch(self: ad.AnnData) -> object:
        asked.append(self.is_view)
        return matrix.fget(self)

    view = adata[::2, ::2]
    monkeypatch.setattr(ad.AnnData, "X", property(watch, matrix.fset, matrix.fdel))
    source = read_expression(view, layer=None, use_raw=False, mask_var=None)
    assert source.matrix is matrix.fget(adata)
    assert asked
    assert not any(asked), "reading .X of a view copies the part that it selects"
