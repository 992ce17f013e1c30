"""Bad input: the message says what to do, `adata` is left as it was, and the matrix was never read."""

from __future__ import annotations

import re
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sc_lmm as sl
from sc_lmm._errors import DesignError, LmmWarning

# what the design report cautions of is not the matter here
pytestmark = pytest.mark.filterwarnings("ignore:The p-values of x take its slope")

FORMULA = "~ x + diagnosis + (1 | donor)"
N_CELLS, N_DONORS, N_GENES = 96, 12, 6


def make_adata(matrix=None) -> ad.AnnData:
    """Twelve donors in two arms; `x` varies within donors, everything else is constant within them."""
    rng = np.random.default_rng(20)
    donor = np.arange(N_CELLS) % N_DONORS
    obs = pd.DataFrame(
        {
            "donor": [f"d{j}" for j in donor],
            "diagnosis": np.where(donor % 2 == 1, "AD", "control"),
            "sex": np.where(donor // 2 % 2 == 1, "male", "female"),
            "age": 60.0 + 3 * donor + donor % 3,
            "x": rng.normal(size=N_CELLS),
        },
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    if matrix is None:
        dense = 0.1 + np.abs(rng.normal(size=(N_CELLS, N_GENES)) + rng.normal(size=(N_DONORS, N_GENES))[donor])
        matrix = sparse.csr_matrix(np.where(rng.random(dense.shape) < 0.3, 0, dense))
    var = pd.DataFrame({"gc": np.linspace(0.3, 0.6, N_GENES)}, index=[f"gene{g}" for g in range(N_GENES)])
    return ad.AnnData(matrix, obs=obs, var=var, uns={"log1p": {"base": None}, "mine": [1, 2]})


@pytest.fixture
def adata() -> ad.AnnData:
    return make_adata()


@pytest.fixture
def unreadable() -> ad.AnnData:
    """An adata whose matrix raises as soon as a single entry is asked for."""
    array = pytest.importorskip("dask.array")
    delayed = pytest.importorskip("dask").delayed

    def explode() -> np.ndarray:
        msg = "the matrix was read"
        raise RuntimeError(msg)

    return make_adata(array.from_delayed(delayed(explode)(), shape=(N_CELLS, N_GENES), dtype=np.float64))


class Snapshot:
    """Everything in `adata` that a failed call could have touched."""

    def __init__(self, adata: ad.AnnData) -> None:
        self.adata, self.matrix = adata, adata.X
        self.obs, self.var = adata.obs.copy(), adata.var.copy()
        self.slots = self._slots()

    def _slots(self) -> dict[str, list[str]]:
        names = ("uns", "obsm", "varm", "obsp", "varp", "layers")
        return {name: sorted(map(str, getattr(self.adata, name))) for name in names}

    def assert_unchanged(self) -> None:
        assert self.adata.X is self.matrix
        pd.testing.assert_frame_equal(self.adata.obs, self.obs)
        pd.testing.assert_frame_equal(self.adata.var, self.var)
        assert self._slots() == self.slots


def assert_refused(adata: ad.AnnData, error: type[Exception], *parts: str, formula=FORMULA, test="diagnosis", **kwargs):
    """The call raises `error` with every one of `parts` in its message and leaves adata alone."""
    before = Snapshot(adata)
    with pytest.raises(error) as caught:
        sl.tl.lmm_de(adata, formula, test, **kwargs)
    message = str(caught.value)
    for part in parts:
        assert part in message, f"{part!r} is missing in: {message}"
    assert "the matrix was read" not in message
    before.assert_unchanged()


def test_the_unreadable_matrix_is_read_by_a_valid_call(unreadable):
    # Without this the tests that rely on the fixture could pass for a fixture that is never read.
    with pytest.raises(RuntimeError, match="the matrix was read"):
        sl.tl.lmm_de(unreadable, FORMULA, "diagnosis")


# ------------------------------------------------------------------------------------------------ the formula's text

SUPPORTED = "slopes (1 + x | a)"

BAD_FORMULAS = {
    "unbalanced": ("~ x + (1 | donor", DesignError, ["parentheses"]),
    "operator": ("~ x +* age + (1 | donor)", DesignError, ["cannot be read"]),
    "open quote": ("~ x + 'age + (1 | donor)", DesignError, ["cannot be read"]),
    "empty": ("", DesignError, ["for example"]),
    "nothing right of the tilde": ("y ~ ", DesignError, ["for example"]),
    "two tildes": ("y ~ x ~ (1 | donor)", DesignError, ["one '~'"]),
    "no random term": ("~ x + diagnosis", DesignError, ["no random term", "(1 | sample_id)"]),
    "bar without parentheses": ("~ x + 1 | donor", DesignError, ["(1 | sample_id)"]),
    "no group": ("~ x + (1 | )", DesignError, [SUPPORTED]),
    "three bars": ("~ x + (1 | | | donor)", DesignError, ["3 bars", SUPPORTED]),
    "no effects": ("~ x + ( | donor)", DesignError, ["nothing to the left", SUPPORTED]),
    "sum of groups": ("~ x + (1 | donor + sex)", DesignError, ["must name columns", SUPPORTED]),
    "the same term twice": ("~ x + (x | donor) + (1 + x | donor)", DesignError, ["(1 + x | donor)", "twice"]),
    "subtracted": ("~ x - (1 | donor)", DesignError, ["'+'"]),
    "unknown function": ("~ foo(x) + (1 | donor)", DesignError, ["foo"]),
    "function of a factor": ("~ np.log(sex) + (1 | donor)", DesignError, ["np.log(sex)"]),
    "not text": (None, TypeError, ["formula", "string", "NoneType"]),
    "a list": (["x", "donor"], TypeError, ["formula", "string", "list"]),
}


@pytest.mark.parametrize("name", BAD_FORMULAS)
def test_formula_that_cannot_be_read(unreadable, name):
    formula, error, parts = BAD_FORMULAS[name]
    assert_refused(unreadable, error, *parts, formula=formula, test="x")


def test_transform_that_is_not_finite(unreadable):
    unreadable.obs["x"] = np.where(np.arange(N_CELLS) < 3, -1.0, 2.0 + unreadable.obs["x"] ** 2)
    with np.errstate(invalid="ignore"):
        assert_refused(unreadable, DesignError, "np.log(x)", "3 cells", formula="~ np.log(x) + (1 | donor)", test="x")


# ------------------------------------------------------------------------------------------------ the columns of obs


@pytest.mark.parametrize(
    ("formula", "found", "meant"),
    [
        ("~ x + diagnossis + (1 | donor)", "'diagnossis'", "Did you mean 'diagnosis'?"),
        ("~ x + diagnosis + (1 | doner)", "'doner'", "Did you mean 'donor'?"),
        ("~ np.log1p(agee) + (1 | donor)", "'agee'", "Did you mean 'age'?"),
        ("~ zzz + (1 | donor)", "'zzz'", ""),
    ],
)
def test_unknown_column_lists_the_columns(unreadable, formula, found, meant):
    everything = [repr(name) for name in unreadable.obs.columns]
    assert_refused(unreadable, DesignError, found, meant, *everything, formula=formula, test="x")


@pytest.mark.parametrize("column", ["k", "donor"])
def test_column_without_values(unreadable, column):
    unreadable.obs[column] = np.nan
    assert_refused(unreadable, DesignError, repr(column), "no value", formula=f"{FORMULA} + {column}")


def test_columns_whose_values_never_meet(unreadable):
    late = np.arange(N_CELLS) >= 48
    unreadable.obs["k"], unreadable.obs["m"] = np.where(late, np.nan, 1.0), np.where(late, 2.0, np.nan)
    assert_refused(unreadable, DesignError, "'k'", "'m'", formula=f"{FORMULA} + k + m")


def test_infinite_annotation(unreadable):
    unreadable.obs.loc[["cell3", "cell9"], "x"] = [np.inf, -np.inf]
    assert_refused(unreadable, DesignError, "adata.obs is infinite", "'x'", "2 cells")


def _dates() -> pd.DatetimeIndex:
    return pd.date_range("2020-01-01", periods=N_CELLS)


@pytest.mark.parametrize("values", [_dates(), _dates() - _dates()[0]], ids=["datetime", "timedelta"])
def test_dates_are_not_guessed(unreadable, values):
    unreadable.obs["when"] = values
    assert_refused(unreadable, DesignError, "'when'", str(values.dtype), formula="~ when + (1 | donor)", test="when")


def test_objects_that_are_not_text(unreadable):
    unreadable.obs["k"] = [(i,) for i in range(N_CELLS)]
    assert_refused(unreadable, DesignError, "'k'", "object", formula="~ k + (1 | donor)", test="k")


def test_repeated_columns(unreadable):
    unreadable.obs = pd.concat([unreadable.obs, unreadable.obs[["x"]]], axis=1)
    assert_refused(unreadable, DesignError, "several columns", "'x'")


def test_repeated_columns_outside_the_formula_do_no_harm(adata):
    adata.obs = pd.concat([adata.obs, adata.obs[["age"]]], axis=1)
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    assert adata.varm["lmm_de"]["pvals"].notna().all()


def test_factor_with_one_level(unreadable):
    unreadable.obs["site"] = "Lund"
    assert_refused(unreadable, DesignError, "'site'", "'Lund'", "one level", formula=f"{FORMULA} + site")


def test_factor_with_one_level_among_the_cells_used(unreadable):
    unreadable.obs["site"] = np.where(unreadable.obs["diagnosis"] == "AD", "Lund", "Oslo")
    unreadable.obs.loc[unreadable.obs["site"] == "Oslo", "x"] = np.nan
    assert_refused(unreadable, DesignError, "'Lund'", "one level", formula="~ x + site + (1 | donor)", test="x")


def test_one_donor(unreadable):
    unreadable.obs["donor"] = "d1"
    assert_refused(
        unreadable, DesignError, "(1 | donor)", "'d1'", "several donors", formula="~ x + (1 | donor)", test="x"
    )


def test_as_many_donors_as_cells(unreadable):
    unreadable.obs["donor"] = unreadable.obs_names
    assert_refused(unreadable, DesignError, "(1 | donor)", f"as many levels as cells ({N_CELLS})")


def test_diagnosis_that_varies_only_between_two_donors_cannot_be_tested(unreadable):
    # One donor per arm: the donor effect and the diagnosis are the same column, whatever the number of cells.
    unreadable.obs["donor"] = np.where(unreadable.obs["diagnosis"] == "AD", "d1", "d2")
    assert_refused(unreadable, DesignError, "diagnosis", "donor", formula="~ x + diagnosis + (1 | donor)")


# ------------------------------------------------------------------------------------------------ rank


def test_batch_that_is_the_diagnosis(unreadable):
    unreadable.obs["batch"] = np.where(unreadable.obs["diagnosis"] == "AD", "b2", "b1")
    relation = "diagnosis[T.control] = 1 - batch[T.b2]"
    assert_refused(unreadable, DesignError, relation, formula="~ batch + diagnosis + (1 | donor)")


def test_batches_that_determine_the_diagnosis(unreadable):
    unreadable.obs["batch"] = unreadable.obs["donor"].str.replace("d", "b")  # a batch per donor, odd ones AD
    relation = "diagnosis[T.control] = 1 - " + " - ".join(f"batch[T.b{j}]" for j in range(1, N_DONORS, 2))
    assert_refused(unreadable, DesignError, relation, formula="~ batch + diagnosis + (1 | donor)")


def test_rank_deficiency_beside_the_tested_term(unreadable):
    unreadable.obs["site"] = np.where(unreadable.obs["sex"] == "male", "Lund", "Oslo")
    formula = "~ sex + site + x + (1 | donor)"
    assert_refused(unreadable, DesignError, "site[T.Oslo] = 1 - sex[T.male]", formula=formula, test="x")


def test_tested_number_that_others_determine(unreadable):
    unreadable.obs["total"] = 2 * unreadable.obs["x"] - 0.5 * unreadable.obs["age"]
    formula = "~ x + age + total + (1 | donor)"
    assert_refused(unreadable, DesignError, "total = 2 * x - 0.5 * age", formula=formula, test="total")


def test_tested_constant(unreadable):
    unreadable.obs["k"] = 3.0
    assert_refused(unreadable, DesignError, "k = 3", formula="~ k + (1 | donor)", test="k")


# ------------------------------------------------------------------------------------------------ what is tested


@pytest.mark.parametrize("test", ["diagnosi", "Diagnosis", "sex", "Intercept", "1", "", "AD"])
def test_tested_term_that_is_not_in_the_formula(unreadable, test):
    assert_refused(unreadable, DesignError, f"test={test!r}", "'x'", "'diagnosis'", test=test)


def test_tested_random_group(unreadable):
    assert_refused(unreadable, DesignError, "'donor'", "random", "'diagnosis'", test="donor")


@pytest.mark.parametrize(
    ("formula", "test"),
    [
        ("~ 0 + diagnosis + x + (1 | donor)", "diagnosis"),
        ("~ x + diagnosis - 1 + (1 | donor)", "diagnosis"),
        ("~ 0 + diagnosis + (1 | donor)", "diagnosis"),
        ("~ 0 + C(diagnosis) + x + (1 | donor)", "C(diagnosis)"),
        ("~ 0 + diagnosis:sex + x + (1 | donor)", "diagnosis:sex"),
    ],
)
def test_group_means_are_not_a_comparison(unreadable, formula, test):
    assert_refused(unreadable, DesignError, "intercept", formula=formula, test=test)


def test_model_without_intercept_whose_null_has_no_fixed_effect(adata):
    # y = x b + u + e against y = u + e
    sl.tl.lmm_de(adata, "~ 0 + x + (1 | donor)", "x")
    assert (adata.varm["lmm_de"]["lrt"] >= 0).all()


def test_unknown_reference(unreadable):
    assert_refused(unreadable, DesignError, "'contrl'", "'AD'", "Did you mean 'control'?", reference="contrl")


def test_reference_of_a_number(unreadable):
    assert_refused(unreadable, DesignError, "reference='1'", "'x'", "numeric", test="x", reference="1")


# ------------------------------------------------------------------------------------------------ the other arguments

BAD_ARGUMENTS = {
    "method": (dict(method="lrtt"), ValueError, ["'lrtt'", "'lrt'"]),
    "corr_method": (dict(corr_method="fdr"), ValueError, ["'fdr'", "'benjamini-hochberg'", "'bonferroni'"]),
    "layer": (dict(layer="cuonts"), KeyError, ["'cuonts'", "'counts'"]),
    "raw": (dict(use_raw=True), ValueError, ["adata.raw", "use_raw=False"]),
    "raw and layer": (dict(use_raw=True, layer="counts"), ValueError, ["use_raw", "layer='counts'"]),
    "mask too short": (dict(mask_var=np.ones(N_GENES - 1, bool)), ValueError, ["(6,)", "(5,)"]),
    "mask per cell": (dict(mask_var=np.ones((N_CELLS, N_GENES), bool)), ValueError, ["(6,)", "(96, 6)"]),
    "mask of numbers": (dict(mask_var=np.ones(N_GENES)), ValueError, ["boolean", "float64"]),
    "mask of positions": (dict(mask_var=np.arange(N_GENES)), ValueError, ["boolean", "int64"]),
    "mask column of numbers": (dict(mask_var="gc"), ValueError, ["boolean", "float64"]),
    "mask column": (dict(mask_var="gcc"), KeyError, ["'gcc'", "Did you mean 'gc'?"]),
    "empty mask": (dict(mask_var=np.zeros(N_GENES, bool)), ValueError, ["no gene"]),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_argument_without_meaning(unreadable, name):
    kwargs, error, parts = BAD_ARGUMENTS[name]
    unreadable.layers["counts"] = unreadable.X
    assert_refused(unreadable, error, *parts, **kwargs)


def test_layers_listed_are_those_that_can_be_named(unreadable):
    assert_refused(unreadable, KeyError, "There are none", layer="counts")
    unreadable.layers["scaled"] = unreadable.X
    before = Snapshot(unreadable)
    with pytest.raises(KeyError) as caught:
        sl.tl.lmm_de(unreadable, FORMULA, "diagnosis", layer="counts")
    assert "None" not in str(caught.value)
    before.assert_unchanged()


def test_no_matrix():
    adata = make_adata()
    adata.layers["logged"] = adata.X
    del adata.X
    with pytest.raises(ValueError, match="adata.X is empty.*'logged'"):
        sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    sl.tl.lmm_de(adata, FORMULA, "diagnosis", layer="logged")


@pytest.mark.parametrize("part", [np.s_[:0], np.s_[:, :0]], ids=["cells", "genes"])
def test_empty_adata(adata, part):
    assert_refused(adata[part].copy(), ValueError, "empty")


def test_raw_without_the_genes(adata):
    adata.raw = adata[:, 1:].copy()
    assert_refused(adata, ValueError, "'gene0'", "use_raw=False", use_raw=True)


def test_raw_without_the_untested_genes(adata):
    adata.raw = adata[:, [4, 2, 3]].copy()
    mask = np.isin(np.arange(N_GENES), [2, 3, 4])
    with_raw = sl.tl.lmm_de(adata, FORMULA, "diagnosis", use_raw=True, mask_var=mask, copy=True)
    sl.tl.lmm_de(adata, FORMULA, "diagnosis", mask_var=mask)
    pd.testing.assert_frame_equal(with_raw.varm["lmm_de"], adata.varm["lmm_de"])


@pytest.mark.filterwarnings("ignore:Variable names are not unique")  # anndata's
def test_raw_with_repeated_names(adata):
    adata.var_names = ["gene0", "gene1", "gene1", "gene3", "gene4", "gene5"]
    adata.raw = adata.copy()
    part = adata[:, [0, 3]].copy()
    expected = adata[:, [0, 3]].copy()
    sl.tl.lmm_de(expected, FORMULA, "diagnosis")
    sl.tl.lmm_de(part, FORMULA, "diagnosis", use_raw=True)
    pd.testing.assert_frame_equal(part.varm["lmm_de"], expected.varm["lmm_de"])


# ------------------------------------------------------------------------------------------------ values of the matrix


@pytest.mark.parametrize(
    "form", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, np.asarray, np.asfortranarray]
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_expression_that_is_not_finite(adata, form, value):
    values = adata.X.toarray()
    values[[3, 70], [1, 4]] = value
    adata.X = form(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)  # -inf is negative
        assert_refused(adata, ValueError, "NaN or infinite", "2 genes", "'gene1'", "'gene4'", "mask_var")
        sl.tl.lmm_de(adata, FORMULA, "diagnosis", mask_var=~np.isin(np.arange(N_GENES), [1, 4]))
    assert adata.varm["lmm_de"]["pvals"].isna().tolist() == [False, True, False, False, True, False]


def test_expression_that_is_not_finite_in_cells_left_out_does_no_harm(adata):
    adata.X[3, 1] = np.nan
    adata.obs.loc["cell3", "x"] = np.nan
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    assert adata.varm["lmm_de"]["pvals"].notna().all()


def one_warning(adata: ad.AnnData, **kwargs) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sl.tl.lmm_de(adata, FORMULA, "diagnosis", **kwargs)
    assert [w.category for w in caught] == [LmmWarning]
    assert caught[0].filename == __file__, "the warning should point at the user's line"
    return str(caught[0].message)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_counts_warn_once(adata, form, dtype):
    adata.layers["counts"] = form(np.random.default_rng(0).poisson(3.0, adata.shape).astype(dtype))
    message = one_warning(adata, layer="counts")
    assert "raw counts" in message
    assert "sc.pp.log1p" in message
    assert adata.varm["lmm_de"]["logfoldchanges"].isna().all()
    assert adata.varm["lmm_de"]["pvals"].notna().all()


def test_negative_values_warn_once(adata):
    adata.X = adata.X.toarray() - 1.5
    assert "negative" in one_warning(adata)
    assert adata.varm["lmm_de"]["logfoldchanges"].isna().all()
    assert adata.varm["lmm_de"]["pvals"].notna().all()


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray, np.asfortranarray])
def test_constant_genes_have_a_status_and_no_warning(adata, form):
    values = adata.X.toarray()
    values[:, 1], values[:, 4] = 0.0, 0.1  # 0.1 is not a binary fraction, so sums of it round
    adata.X = form(values)
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    table = adata.varm["lmm_de"]
    constant = np.isin(np.arange(N_GENES), [1, 4])
    assert (table["status"] == "constant").tolist() == constant.tolist()
    results = table.drop(columns=["status", "pct_expressed"]).dropna(axis=1, how="all")
    assert results[constant].isna().all(axis=None)
    assert results[~constant].notna().all(axis=None)
    assert table["pct_expressed"].tolist() == pytest.approx((values != 0).mean(axis=0))
    assert adata.uns["lmm_de"]["status"]["constant"] == 2


def test_gene_without_variation_within_donors_is_one_warning(adata):
    values = adata.X.toarray()
    values[:, 2] = adata.obs["donor"].str[1:].astype(float) + 0.5
    adata.X = values
    assert "'gene2'" in one_warning(adata)
    table = adata.varm["lmm_de"]
    assert (table["status"] == "failed").tolist() == [False, False, True, False, False, False]
    assert table["pvals"].isna().tolist() == [False, False, True, False, False, False]


# ---------------------------------------------------------------------------------------- what works all the same


def test_repeated_gene_names(adata):
    expected = sl.tl.lmm_de(adata, FORMULA, "diagnosis", copy=True).varm["lmm_de"]
    adata.var_names = ["a", "b", "a", "a", "c", "b"]
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    found = adata.varm["lmm_de"]
    assert found.index.tolist() == ["a", "b", "a", "a", "c", "b"]
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True))
    assert sorted(adata.uns["lmm_de"]["names"]["control"]) == ["a", "a", "a", "b", "b", "c"]


def test_repeated_cell_names(adata):
    expected = sl.tl.lmm_de(adata, FORMULA, "diagnosis", copy=True).varm["lmm_de"]
    adata.obs_names = ["cell"] * N_CELLS
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    pd.testing.assert_frame_equal(adata.varm["lmm_de"], expected)


@pytest.mark.parametrize("column", ["x", "diagnosis", "donor"])
@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_cells_with_missing_annotations_are_left_out(adata, column, form):
    adata.X = form(adata.X.toarray())
    gone = np.isin(np.arange(N_CELLS), [0, 5, 40, 41, 95])
    if column == "donor":
        gone |= (adata.obs["donor"] == "d3").to_numpy()
    subset = adata[~gone].copy()
    adata.obs[column] = adata.obs[column].astype(object if column != "x" else float).where(~gone, np.nan)
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    sl.tl.lmm_de(subset, FORMULA, "diagnosis")
    pd.testing.assert_frame_equal(adata.varm["lmm_de"], subset.varm["lmm_de"], rtol=1e-10)
    found, expected = (a.uns["lmm_de"]["design"] for a in (adata, subset))
    assert (found["n_cells_dropped"], expected["n_cells_dropped"]) == (int(gone.sum()), 0)
    assert found["n_cells"] == expected["n_cells"] == int((~gone).sum())
    assert found["n_donors"] == expected["n_donors"] == N_DONORS - (column == "donor")


def test_unused_categories_are_not_levels(adata):
    expected = sl.tl.lmm_de(adata, FORMULA, "diagnosis", copy=True)
    for column, more in (("donor", ["d98", "d99"]), ("diagnosis", ["aMCI", "zMCI"])):
        adata.obs[column] = pd.Categorical(adata.obs[column], categories=[*sorted(set(adata.obs[column])), *more])
    sl.tl.lmm_de(adata, FORMULA, "diagnosis")
    pd.testing.assert_frame_equal(adata.varm["lmm_de"], expected.varm["lmm_de"])


def test_donor_that_is_also_a_fixed_effect(adata):
    # Then no variance is left between donors and the model is a linear regression on cells.
    sl.tl.lmm_de(adata, "~ donor + x + (1 | donor)", "x")
    table = adata.varm["lmm_de"]
    assert (table["status"] == "boundary").all()
    X = np.column_stack([pd.get_dummies(adata.obs["donor"]).to_numpy(float), adata.obs["x"]])
    Y = adata.X.toarray()
    residual = [((Y - A @ np.linalg.lstsq(A, Y, rcond=None)[0]) ** 2).sum(axis=0) for A in (X[:, :-1], X)]
    np.testing.assert_allclose(table["lrt"], N_CELLS * np.log(residual[0] / residual[1]), rtol=1e-8)


@pytest.mark.parametrize("formula", ["~ x +* age + (1 | donor)", "~ x + age) + (1 | donor)", "~ foo(x) + (1 | donor)"])
def test_messages_are_one_line_without_the_colours_of_the_parser(unreadable, formula):
    with pytest.raises(DesignError) as caught:
        sl.tl.lmm_de(unreadable, formula, "x")
    assert not re.search(r"[\x1b\n]", str(caught.value))
