"""One model, one answer: no layout, order, block or thread changes what dense algebra gives."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import anndata as ad
import joblib
import numba
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import sc_lmm as sl
from sc_lmm import LmmWarning
from sc_lmm._design.model_matrix import build_design
from sc_lmm._model.fit import fit_models
from sc_lmm._statistics import SufficientStatistics, sufficient_statistics
from sc_lmm._statistics import visit as _visit

FORMULA = "~ x + diagnosis + (1 | donor)"
quick = settings(deadline=None, max_examples=12, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def draw_obs(rng: np.random.Generator, n_cells: int, n_donors: int) -> pd.DataFrame:
    """Donors in no order, the first two with one cell each; `x` varies within donors, `diagnosis` and `age` do not."""
    rest = rng.integers(2, n_donors, size=n_cells - n_donors)
    donor = rng.permutation(np.concatenate([np.arange(n_donors), rest]))
    age = rng.normal(70, 8, n_donors)
    obs = {
        "donor": pd.Categorical([f"d{j}" for j in donor]),
        "diagnosis": np.where(donor % 2 == 1, "AD", "control"),
        "age": age[donor],
        "x": rng.normal(3, 2, n_cells),
    }
    return pd.DataFrame(obs, index=[f"c{i}" for i in range(n_cells)])


def draw_values(rng: np.random.Generator, n_cells: int, n_genes: int) -> np.ndarray:
    """Whole numbers, so that every dtype holds them; empty rows and empty genes among them."""
    values = rng.poisson(rng.uniform(0.2, 4, n_genes), size=(n_cells, n_genes)) % 100
    values[rng.random(n_cells) < 0.1] = 0
    values[:, rng.random(n_genes) < 0.15] = 0
    return values


def user_statistics(stats: SufficientStatistics) -> tuple[np.ndarray, ...]:
    """X'X, Z'X, X'Y, Z'Y, y'y and the number of nonzero entries in the user's columns and units."""
    stats = stats.with_shift(np.zeros(stats.n_genes))
    back = np.linalg.inv(stats.basis)
    return back.T @ stats.XtX @ back, stats.ZtX @ back, back.T @ stats.XtY, stats.ZtY, stats.yty, stats.nonzero


def dense_statistics(values: np.ndarray, obs: pd.DataFrame, formula: str = FORMULA) -> tuple[np.ndarray, ...]:
    """The same by dense products in float64."""
    Y, X = values.astype(np.float64), build_design(formula, obs).X
    Z = pd.get_dummies(obs["donor"]).to_numpy(np.float64)
    return X.T @ X, Z.T @ X, X.T @ Y, Z.T @ Y, (Y**2).sum(axis=0), (Y != 0).sum(axis=0)


def assert_equal_statistics(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...], rtol=1e-12) -> None:
    for name, a, b in zip(("XtX", "ZtX", "XtY", "ZtY", "yty", "nonzero"), found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(1.0, np.abs(b).max()), err_msg=name)


def statistics(matrix: object, obs: pd.DataFrame, formula: str = FORMULA, **kwargs) -> SufficientStatistics:
    return sufficient_statistics(matrix, build_design(formula, obs), show_progress=False, **kwargs)


def untidy_csr(values: np.ndarray, rng: np.random.Generator, dtype: type = np.float64) -> sparse.csr_matrix:
    """Entries in random order, some stored in two parts, some zeros stored."""
    data, indices, lengths = [], [], [0]
    for row in values:
        entries = [(g, v) for g, v in enumerate(row) if v != 0 or rng.random() < 0.1]
        split = [(g, part) for g, v in entries for part in ((v - v // 2, v // 2) if rng.random() < 0.3 else (v,))]
        order = rng.permutation(len(split))
        indices += [split[k][0] for k in order]
        data += [split[k][1] for k in order]
        lengths.append(len(data))
    parts = (np.array(data, dtype=dtype), np.array(indices, dtype=np.int32), np.array(lengths, dtype=np.int32))
    return sparse.csr_matrix(parts, shape=values.shape)


def transposed_layout(matrix: sparse.csr_matrix, shape: tuple[int, int]) -> sparse.csc_matrix:
    return sparse.csc_matrix((matrix.data, matrix.indices, matrix.indptr), shape=shape)


def with_explicit_zeros(values: np.ndarray) -> sparse.csr_matrix:
    full = sparse.csr_matrix(np.ones(values.shape))
    full.data = values.ravel().astype(np.float64)
    return full


def with_int64_indices(matrix: sparse.spmatrix) -> sparse.spmatrix:
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    return matrix


LAYOUTS = {
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "csc_array": sparse.csc_array,
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "neither": lambda values: np.repeat(np.repeat(values, 2, axis=0), 2, axis=1)[::2, ::2],
    "backwards": lambda values: np.ascontiguousarray(values[::-1, ::-1])[::-1, ::-1],
    "read-only": lambda values: np.frombuffer(values.tobytes(), dtype=values.dtype).reshape(values.shape),
    "zeros stored, csr": with_explicit_zeros,
    "zeros stored, csc": lambda values: with_explicit_zeros(values).tocsc(),
    "int64 csr": lambda values: with_int64_indices(sparse.csr_matrix(values)),
    "int64 csc": lambda values: with_int64_indices(sparse.csc_matrix(values)),
}


# ------------------------------------------------------------------------------------------------ layouts


# None, one and three columns that vary within donors.
COVARIATES = ["~ age + diagnosis + (1 | donor)", FORMULA, "~ x + I(x**2) + x:diagnosis + diagnosis + (1 | donor)"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("formula", COVARIATES)
@settings(quick, max_examples=4)
@given(seed=seeds, n_cells=st.integers(20, 120), n_genes=st.integers(1, 40), n_donors=st.integers(5, 10))
def test_statistics_equal_dense_algebra(formula, layout, seed, n_cells, n_genes, n_donors):
    rng = np.random.default_rng(seed)
    obs, values = draw_obs(rng, n_cells, n_donors), draw_values(rng, n_cells, n_genes)
    found = statistics(LAYOUTS[layout](values), obs, formula)
    assert_equal_statistics(user_statistics(found), dense_statistics(values, obs, formula))


@quick
@given(seeds, st.integers(12, 80), st.integers(1, 25), st.booleans())
def test_untidy_entries_are_summed(seed, n_cells, n_genes, by_column):
    rng = np.random.default_rng(seed)
    obs, values = draw_obs(rng, n_cells, 6), draw_values(rng, n_cells, n_genes)
    matrix = untidy_csr(values.T if by_column else values, rng)
    matrix = transposed_layout(matrix, values.shape) if by_column else matrix
    np.testing.assert_array_equal(matrix.toarray(), values)
    before = matrix.data.copy(), matrix.indices.copy(), matrix.indptr.copy()
    assert_equal_statistics(user_statistics(statistics(matrix, obs)), dense_statistics(values, obs))
    for old, new in zip(before, (matrix.data, matrix.indices, matrix.indptr), strict=True):
        np.testing.assert_array_equal(old, new, err_msg="the user's matrix was changed")


NUMBERS = ["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "g"]


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [(layout, dtype) for layout in ("csr_matrix", "csc_matrix", "C", "F") for dtype in NUMBERS]
    + [(layout, dtype) for layout in ("C", "F") for dtype in ("f2", ">f4", ">f8", ">i4")],  # scipy has no such matrices
)
def test_types_of_number(layout, dtype):
    rng = np.random.default_rng(5)
    obs, values = draw_obs(rng, 60, 6), draw_values(rng, 60, 9).astype(dtype)
    found = statistics(LAYOUTS[layout](values), obs)
    assert_equal_statistics(user_statistics(found), dense_statistics(values, obs))
    assert {found.XtY.dtype, found.ZtY.dtype, found.yty.dtype} == {np.dtype(np.float64)}


def test_float32_is_squared_in_float64():
    rng = np.random.default_rng(0)
    obs, values = draw_obs(rng, 200, 6), rng.normal(1000, 1, size=(200, 4)).astype(np.float32)
    for layout in ("C", "F", "csr_matrix", "csc_matrix"):
        found = statistics(LAYOUTS[layout](values), obs)
        assert_equal_statistics(user_statistics(found), dense_statistics(values, obs))


@quick
@given(seeds, st.sampled_from(["csr_matrix", "csc_matrix", "C", "F"]))
def test_some_rows_and_columns_of_the_matrix(seed, layout):
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(90)[:60], rng.permutation(30)[:11]
    obs, values = draw_obs(rng, 60, 6), draw_values(rng, 90, 30)
    found = statistics(LAYOUTS[layout](values), obs, rows=rows, columns=columns)
    assert_equal_statistics(user_statistics(found), dense_statistics(values[np.ix_(rows, columns)], obs))


@pytest.mark.parametrize("layout", ["csr_matrix", "csc_matrix", "C", "F"])
def test_neighbouring_columns_in_another_order(layout):
    # Every task of a dense matrix gets four columns whose ends look like those of a contiguous stripe.
    rng = np.random.default_rng(0)
    columns = (4 * np.arange(16)[:, None] + [0, 2, 1, 3]).ravel()
    obs, values = draw_obs(rng, 60, 6), draw_values(rng, 60, 64)
    found = statistics(LAYOUTS[layout](values), obs, columns=columns)
    assert_equal_statistics(user_statistics(found), dense_statistics(values[:, columns], obs))


def test_values_outside_the_chosen_rows_and_columns_are_not_looked_at():
    rng = np.random.default_rng(2)
    obs, values = draw_obs(rng, 40, 6), draw_values(rng, 60, 12).astype(float)
    rows, columns = np.arange(5, 45), np.array([1, 4, 7])
    values[:5], values[45:], values[:, 0] = np.nan, np.inf, np.nan
    for layout in ("csr_matrix", "csc_matrix", "C", "F"):
        found = statistics(LAYOUTS[layout](values), obs, rows=rows, columns=columns)
        assert_equal_statistics(user_statistics(found), dense_statistics(values[np.ix_(rows, columns)], obs))


# ------------------------------------------------------------------------------------------------ on disk and lazy


def backed_layouts(values: np.ndarray, folder, block: int) -> dict[str, object]:
    """The matrix in every form that is not in memory, in blocks that do not divide it evenly."""
    obs = pd.DataFrame(index=[f"c{i}" for i in range(len(values))])
    forms = {}
    for name, form in (("csr", sparse.csr_matrix), ("csc", sparse.csc_matrix), ("dense", np.asarray)):
        ad.AnnData(form(values.astype(np.float32)), obs=obs).write_h5ad(folder / f"{name}.h5ad")
        forms[f"h5ad {name}"] = ad.read_h5ad(folder / f"{name}.h5ad", backed="r").X
    dask = pytest.importorskip("dask.array")
    chunked = dask.from_array(values.astype(np.float32), chunks=(block, -1))
    forms["dask dense"] = chunked
    forms["dask, columns cut too"] = chunked.rechunk((block, 4))
    forms["dask csr"] = chunked.map_blocks(sparse.csr_matrix)
    forms["dask csr_array"] = chunked.map_blocks(sparse.csr_array)
    return forms


# of anndata with pandas 3
@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option is deprecated")
@pytest.mark.parametrize("block_rows", [7, 4096])
def test_matrices_not_in_memory(tmp_path, monkeypatch, block_rows):
    monkeypatch.setattr(_visit, "_BLOCK_ROWS", block_rows)
    rng = np.random.default_rng(11)
    obs, values = draw_obs(rng, 64, 6), draw_values(rng, 64, 10)
    columns = np.array([8, 0, 3])
    for name, matrix in backed_layouts(values, tmp_path, 13).items():
        assert not isinstance(matrix, np.ndarray), name
        assert_equal_statistics(user_statistics(statistics(matrix, obs)), dense_statistics(values, obs))
        part = statistics(matrix, obs, columns=columns)
        assert_equal_statistics(user_statistics(part), dense_statistics(values[:, columns], obs))


@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option is deprecated")
def test_backed_adata_gives_the_table_of_the_one_in_memory(tmp_path):
    rng = np.random.default_rng(12)
    obs, values = draw_obs(rng, 64, 6), np.log1p(draw_values(rng, 64, 10)) * 1.1
    memory = ad.AnnData(values, obs=obs, uns={"log1p": {"base": None}})
    with pytest.warns(LmmWarning, match="Only 3 donors"):
        sl.tl.lmm_de(memory, FORMULA, "diagnosis")
    for name, matrix in backed_layouts(values, tmp_path, 13).items():
        lazy = ad.AnnData(
            matrix if "dask" in name else values.astype(np.float32), obs=obs, uns={"log1p": {"base": None}}
        )
        if "h5ad" in name:
            form = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[name.removeprefix("h5ad ")]
            lazy.X = form(lazy.X)
            lazy.write_h5ad(tmp_path / "lazy.h5ad")
            lazy = ad.read_h5ad(tmp_path / "lazy.h5ad", backed="r")
        with pytest.warns(LmmWarning, match="Only 3 donors"):
            sl.tl.lmm_de(lazy, FORMULA, "diagnosis")
        pd.testing.assert_frame_equal(lazy.varm["lmm_de"], memory.varm["lmm_de"], rtol=1e-4, atol=1e-5)
        if lazy.isbacked:
            lazy.file.close()


@pytest.mark.parametrize("form", ["coo", "lil", "dok", "bsr", "dia", "list", "text", "complex"])
def test_types_that_cannot_be_read_are_refused_with_those_that_can(form):
    rng = np.random.default_rng(1)
    obs, values = draw_obs(rng, 40, 6), draw_values(rng, 40, 5)
    convert = {
        "list": np.ndarray.tolist,
        "text": lambda v: v.astype(str),
        "complex": lambda v: v + 1j,
    }
    matrix = convert[form](values) if form in convert else sparse.csr_matrix(values).asformat(form)
    with pytest.raises((TypeError, ValueError), match="CSR"):
        statistics(matrix, obs, columns=np.arange(5))


# ------------------------------------------------------------------------------------------------ corrupt matrices


def swap_first_entries(matrix: sparse.csr_matrix) -> None:
    """Entries out of order send a matrix another way, through scipy's own compiled code."""
    matrix.indices[:2] = matrix.indices[1::-1].copy()


def corrupt(form: type, what: str) -> sparse.csr_matrix:  # noqa: C901 - a list of ways
    matrix = form(1.0 + np.random.default_rng(3).poisson(1.0, (50, 50)))
    start = matrix.indptr[20]
    if "untidy" in what:
        swap_first_entries(matrix)
    if "index too large" in what:
        matrix.indices[start + 49] = 50
    if "index far too large" in what:
        matrix.indices[start + 49] = 2**31 - 1
    if "index negative" in what:
        matrix.indices[start] = -(2**31)
    if "pointers decrease" in what:
        matrix.indptr[20] = matrix.indptr[30] + 1
    if "pointer negative" in what:
        matrix.indptr[0] = -5
    if "pointers past the data" in what:
        matrix.indptr[-1] += 1000
    if "data too short" in what:
        matrix.data = matrix.data[:-10]
    if "indices too short" in what:
        matrix.indices = matrix.indices[:-10]
    if "pointers too short" in what:
        matrix.indptr = matrix.indptr[:-10]
    return matrix


FORMS = {f.__name__: f for f in (sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.csc_array)}
CORRUPT = [
    "index too large",
    "index far too large",
    "index negative",
    "pointers decrease",
    "pointer negative",
    "pointers past the data",
    "data too short",
    "indices too short",
    "pointers too short",
    "untidy, index too large",
    "untidy, index far too large",
    "untidy, index negative",
]


def report_corrupt_matrix(form: str, what: str) -> None:
    """Print what reading the matrix leads to."""
    try:
        statistics(corrupt(FORMS[form], what), draw_obs(np.random.default_rng(3), 50, 6))
        print("no error", flush=True)  # noqa: T201 - read by the parent process
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        print(type(error).__name__, str(error).replace("\n", " "), flush=True)  # noqa: T201 - read by the parent process


def report_in_another_process(cases: list[tuple[str, str]]) -> tuple[list[str], str]:
    """Outcomes in the order of `cases`, up to one that kills the process, and its last words."""
    code = f"import runpy; m = runpy.run_path({__file__!r}); [m['report_corrupt_matrix'](*c) for c in {cases!r}]"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return run.stdout.splitlines(), f"the process died: {run.returncode} {run.stderr[-300:]}"


@pytest.fixture(scope="module")
def reports() -> dict[tuple[str, str], str]:
    """What becomes of each corrupt matrix. A case that kills its process is found by its silence."""
    cases, outcomes = [(form, what) for form in FORMS for what in CORRUPT], []
    for _ in range(4):
        lines, last_words = report_in_another_process(cases[len(outcomes) :])
        outcomes += lines if len(outcomes) + len(lines) == len(cases) else [*lines, last_words]
        if len(outcomes) == len(cases):
            break
    return dict(zip(cases, outcomes, strict=False))


@pytest.mark.parametrize("what", CORRUPT)
@pytest.mark.parametrize("form", FORMS)
def test_corrupt_matrix_is_an_error(reports, form, what):
    assert re.match("ValueError .*corrupt", reports.get((form, what), "not reached: other cases killed the process"))


# ------------------------------------------------------------------------------------------------ order and blocks


def log_values(rng: np.random.Generator, obs: pd.DataFrame, n_genes: int) -> np.ndarray:
    """Log-normalised-like expression with donor effects."""
    codes = obs["donor"].cat.codes.to_numpy()
    effect = rng.normal(0, 0.5, (codes.max() + 1, n_genes))[codes]
    return np.log1p(rng.poisson(np.exp(0.3 + effect + 0.1 * obs["x"].to_numpy()[:, None])) * 1.7)


def fit(matrix: object, obs: pd.DataFrame, formula: str = FORMULA, **kwargs):
    stats = statistics(matrix, obs, formula)
    return fit_models([stats], build_design(formula, obs).coef_names, show_progress=False, **kwargs)[0]


FIELDS = ("beta", "vcov", "rho", "sigma2", "deviance", "status")


def assert_equal_fits(found, expected, rtol=1e-8) -> None:
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.deviance, expected.deviance, rtol=1e-10)
    # The deviance is flat at its minimum, so the arguments of the minimum have about half of its digits.
    for name in ("beta", "se", "sigma2", "sd_random"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=rtol, atol=rtol, err_msg=name)


def assert_same_bits(found, expected) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@quick
@given(seeds, st.sampled_from(["csr_matrix", "csc_matrix", "C", "F"]))
def test_order_of_cells(seed, layout):
    rng = np.random.default_rng(seed)
    obs = draw_obs(rng, 80, 6)
    values = log_values(rng, obs, 6)
    order = rng.permutation(80)
    assert_equal_fits(fit(LAYOUTS[layout](values[order]), obs.iloc[order]), fit(LAYOUTS[layout](values), obs))


@quick
@given(seeds, st.sampled_from(["csr_matrix", "csc_matrix", "C", "F"]))
def test_order_and_choice_of_genes_change_no_bit_of_the_statistics(seed, layout):
    rng = np.random.default_rng(seed)
    obs = draw_obs(rng, 80, 6)
    values = log_values(rng, obs, 20)
    everything = statistics(LAYOUTS[layout](values), obs)
    chosen = rng.permutation(20)[: rng.integers(1, 20)]
    part = statistics(LAYOUTS[layout](values), obs, columns=chosen)
    np.testing.assert_array_equal(part.ZtY, everything.ZtY[:, chosen])
    np.testing.assert_array_equal(part.yty, everything.yty[chosen])
    np.testing.assert_array_equal(part.nonzero, everything.nonzero[chosen])
    np.testing.assert_allclose(part.XtY, everything.XtY[:, chosen], rtol=1e-13, atol=1e-10)
    assert_equal_fits(fit(LAYOUTS[layout](values[:, chosen]), obs), fit_part(fit(LAYOUTS[layout](values), obs), chosen))


def fit_part(whole, genes: np.ndarray):
    return replace(whole, **{name: getattr(whole, name)[genes] for name in FIELDS})


@quick
@given(seeds, st.permutations(["x", "diagnosis", "age", "(1 | donor)"]))
def test_order_of_covariates(seed, terms):
    rng = np.random.default_rng(seed)
    obs = draw_obs(rng, 80, 8)
    values = log_values(rng, obs, 5)
    plain = fit(values, obs, "~ x + diagnosis + age + (1 | donor)")
    other = fit(values, obs, "~ " + " + ".join(terms))
    back = [other.coef_names.index(name) for name in plain.coef_names]
    vcov = other.vcov[:, back][:, :, back]
    assert_equal_fits(
        replace(other, beta=other.beta[:, back], vcov=vcov, coef_names=plain.coef_names), plain, rtol=1e-6
    )


@quick
@given(seeds, st.sampled_from(["x", "age"]), st.floats(-4, 4), st.floats(-100, 100))
def test_units_and_origin_of_a_covariate(seed, name, exponent, origin):
    rng = np.random.default_rng(seed)
    obs = draw_obs(rng, 80, 8)
    values = log_values(rng, obs, 5)
    formula = "~ diagnosis + x + age + (1 | donor)"
    plain = fit(values, obs, formula)
    changed = obs.assign(**{name: 10.0**exponent * obs[name] + origin})
    other = fit(values, changed, formula)
    k = plain.coef_names.index(name)
    np.testing.assert_allclose(other.deviance, plain.deviance, rtol=1e-9)
    np.testing.assert_allclose(other.beta[:, k] * 10.0**exponent, plain.beta[:, k], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(other.se[:, k] * 10.0**exponent, plain.se[:, k], rtol=1e-5)


@quick
@given(seeds)
def test_names_of_donors(seed):
    rng = np.random.default_rng(seed)
    obs = draw_obs(rng, 80, 8)
    values = log_values(rng, obs, 5)
    renamed = obs.assign(donor=obs["donor"].cat.rename_categories(rng.permutation([f"s{j}" for j in range(8)])))
    assert_equal_fits(fit(values, renamed), fit(values, obs))


@pytest.fixture(scope="module")
def cohort() -> tuple[np.ndarray, pd.DataFrame]:
    rng = np.random.default_rng(42)
    obs = draw_obs(rng, 400, 10)
    return log_values(rng, obs, 60), obs


@pytest.mark.parametrize("block_size", [1, 7, 59, 1000])
def test_block_size(cohort, block_size):
    assert_equal_fits(fit(*cohort, block_size=block_size), fit(*cohort), rtol=1e-7)


@pytest.mark.parametrize("reml", [False, True])
def test_number_of_jobs_changes_no_bit(cohort, reml):
    one, two = (fit(*cohort, block_size=9, n_jobs=n, reml=reml) for n in (1, 2))
    assert_same_bits(two, one)


@pytest.mark.parametrize("layout", ["csr_matrix", "csc_matrix", "C", "F"])
@pytest.mark.parametrize("n_threads", [2, 3, 4, 16])
def test_number_of_threads_changes_no_bit(cohort, monkeypatch, layout, n_threads):
    values, obs = cohort
    matrix = LAYOUTS[layout](values)
    monkeypatch.setattr(numba, "get_num_threads", lambda: 1)
    one = statistics(matrix, obs)
    monkeypatch.setattr(numba, "get_num_threads", lambda: n_threads)
    for _ in range(3):
        many = statistics(matrix, obs)
        for name in ("XtY", "ZtY", "yty", "nonzero"):
            np.testing.assert_array_equal(getattr(many, name), getattr(one, name), err_msg=name)


def test_number_of_jobs_of_the_call(cohort):
    values, obs = cohort
    adata = ad.AnnData(sparse.csr_matrix(values), obs=obs)
    one, two = (sl.tl.lmm_de(adata, FORMULA, "diagnosis", n_jobs=n, copy=True).varm["lmm_de"] for n in (1, 2))
    pd.testing.assert_frame_equal(one, two, rtol=0, atol=0, check_exact=True)


def test_workers_in_other_processes_change_no_bit(cohort):
    values, obs = cohort
    adata = ad.AnnData(sparse.csr_matrix(np.tile(values, 80)), obs=obs)
    assert adata.n_vars > 4096  # two blocks
    one = sl.tl.lmm_de(adata, FORMULA, "diagnosis", copy=True).varm["lmm_de"]
    with joblib.parallel_config(backend="loky", n_jobs=2):
        two = sl.tl.lmm_de(adata, FORMULA, "diagnosis", copy=True).varm["lmm_de"]
    pd.testing.assert_frame_equal(one, two, rtol=0, atol=0, check_exact=True)


# ------------------------------------------------------------------------------------------------ units of expression


@quick
@given(seeds, st.sampled_from([-1e4, 1e3, 1e4, 1e6]), st.sampled_from(["C", "F", "csr_matrix", "csc_matrix"]))
def test_large_means_lose_no_digits(seed, offset, layout):
    # With an intercept a constant added to y changes the intercept and nothing else.
    rng = np.random.default_rng(seed)
    obs = draw_obs(rng, 120, 6)
    shifted = log_values(rng, obs, 5) + rng.normal(size=(120, 5)) + offset
    near_zero = shifted - offset  # exact, so both are fits of the same doubles
    plain, other = fit(near_zero, obs), fit(LAYOUTS[layout](shifted), obs)
    np.testing.assert_array_equal(other.status, plain.status)
    np.testing.assert_allclose(other.loglik, plain.loglik, rtol=1e-8)
    np.testing.assert_allclose(other.beta[:, 1:], plain.beta[:, 1:], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(other.beta[:, 0] - offset, plain.beta[:, 0], rtol=1e-5, atol=1e-13 * abs(offset) + 1e-6)
    np.testing.assert_allclose(other.sigma2, plain.sigma2, rtol=1e-6)


def test_large_means_beside_genes_with_zeros():
    # Only some genes are shifted; the others must stay what they are.
    rng = np.random.default_rng(8)
    obs = draw_obs(rng, 120, 6)
    values = log_values(rng, obs, 8)
    values[:, [1, 6]] += rng.normal(size=(120, 2)) + 1e5
    expected = values.copy()
    expected[:, [1, 6]] -= 1e5
    for layout in ("C", "F", "csr_matrix", "csc_matrix"):
        found, plain = fit(LAYOUTS[layout](values), obs), fit(expected, obs)
        np.testing.assert_allclose(found.loglik, plain.loglik, rtol=1e-8)


@quick
@given(seeds, st.floats(-6, 6))
def test_units_of_expression(seed, exponent):
    rng = np.random.default_rng(seed)
    obs = draw_obs(rng, 80, 6)
    values, c = log_values(rng, obs, 5), 10.0**exponent
    plain, other = fit(values, obs), fit(c * values, obs)
    np.testing.assert_allclose(other.loglik, plain.loglik - 80 * np.log(c), rtol=1e-10, atol=1e-8)
    np.testing.assert_allclose(other.beta, c * plain.beta, rtol=1e-6, atol=c * 1e-9)
    np.testing.assert_allclose(other.sigma2, c**2 * plain.sigma2, rtol=1e-7)
    np.testing.assert_allclose(other.icc, plain.icc, rtol=1e-5, atol=1e-9)


# ------------------------------------------------------------------------------------------------ sums


def twice(obs: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([obs, obs.set_index(obs.index + "b")])


@quick
@given(seeds, st.sampled_from([0.0, 1e5]))
def test_statistics_of_disjoint_cells_add(seed, offset):
    # Both halves have the same annotations, hence one standardisation; `offset` gives the halves different shifts.
    rng = np.random.default_rng(seed)
    obs = draw_obs(rng, 60, 6)
    first, second = log_values(rng, obs, 5), log_values(rng, obs, 5) + rng.normal(size=(60, 5)) + offset
    added = statistics(first, obs) + statistics(second, obs)
    assert added.n_cells == 120
    assert_equal_statistics(user_statistics(added), dense_statistics(np.vstack([first, second]), twice(obs)), 1e-11)
    whole = statistics(np.vstack([first, second]), twice(obs))
    found, expected = (fit_models([s], ["a", "b", "c"], show_progress=False)[0] for s in (added, whole))
    np.testing.assert_allclose(found.loglik, expected.loglik, rtol=1e-8)


def test_statistics_of_two_designs_do_not_add():
    rng = np.random.default_rng(0)
    one, other = draw_obs(rng, 40, 6), draw_obs(rng, 40, 6)
    with pytest.raises(ValueError, match="one design"):
        statistics(log_values(rng, one, 3), one) + statistics(log_values(rng, other, 3), other)
