"""What is written can be stored and read everywhere, whatever levels and columns are called, and errors come before work."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl
from sc_lmm._anndata import write_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N_DONORS, N_CELLS, N_GENES = 12, 96, 6
DONOR = np.arange(N_CELLS) % N_DONORS


def make_adata(levels: list[str] | None = None, *, stage: str = "stage", donor: str = "donor") -> ad.AnnData:
    """Twelve donors in the stages a and those given."""
    rng = np.random.default_rng(8)
    names = np.array(["a", *(levels or ["b"])], dtype=object)
    obs = pd.DataFrame(
        {
            donor: [f"d{j:02d}" for j in DONOR],
            stage: pd.Categorical(names[DONOR % len(names)], categories=names),
            "sex": np.where(DONOR // 2 % 2, "F", "M"),
            "x": rng.normal(size=N_CELLS),
        },
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    Y = np.abs(rng.normal(3, 1, (N_CELLS, N_GENES)))
    return ad.AnnData(Y, obs=obs, var=pd.DataFrame(index=[f"gene{g}" for g in range(N_GENES)]))


def run(adata: ad.AnnData, formula: str = "~ x + stage + (1 | donor)", test: object = "stage", **kwargs) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.LmmWarning)  # few donors
        sl.tl.lmm_de(adata, formula, test, show_progress=False, **kwargs)


def h5ad(adata: ad.AnnData, folder: Path) -> ad.AnnData:
    adata.write_h5ad(folder / "a.h5ad")
    return ad.read_h5ad(folder / "a.h5ad")


def zarr(version: int) -> Callable[[ad.AnnData, Path], ad.AnnData]:
    def through(adata: ad.AnnData, folder: Path) -> ad.AnnData:
        zarr = pytest.importorskip("zarr")
        ad.io.write_elem(zarr.open_group(folder / "a.zarr", mode="w", zarr_format=version), "/", adata)
        return ad.read_zarr(folder / "a.zarr")

    through.__name__ = f"zarr v{version}"
    return through


each_format = pytest.mark.parametrize("through", [h5ad, zarr(2), zarr(3)], ids=["h5ad", "zarr v2", "zarr v3"])
pytestmark = [  # of anndata and zarr, about formats to come
    pytest.mark.filterwarnings("ignore:Object at .* is not recognized as a component of a Zarr hierarchy"),
    pytest.mark.filterwarnings("ignore:The data type .* does not have a Zarr V3 specification"),
    pytest.mark.filterwarnings("ignore:The dtype .* is currently not part in the Zarr format 3 specification"),
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding will be the default"),
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part"),
]


def assert_read_back(adata: ad.AnnData, read: ad.AnnData, key: str = "lmm_de") -> None:
    """All that `get` gives is as it was."""
    params, expected = sl.get.lmm_de_params(read, key=key), sl.get.lmm_de_params(adata, key=key)
    assert {name: value for name, value in params.items() if value is not None} == {
        name: value for name, value in expected.items() if value is not None
    }
    for comparison in expected["comparisons"]:
        one, other = (sl.get.lmm_de_df(a, comparison, key=key, sort=False) for a in (read, adata))
        pd.testing.assert_frame_equal(one, other, check_exact=True, check_dtype=False, check_categorical=False)
    assert str(sl.get.design_report(read, key=key)) == str(sl.get.design_report(adata, key=key))
    assert str(sl.get.lmm_de_equation(read, key=key)) == str(sl.get.lmm_de_equation(adata, key=key))


LEVELS = {
    "plain": ["b", "c"],
    "colons": ["b:c", ":", "b.c", "b::c"],
    "slashes": ["b/c", "/", "b\\c", "b c"],
    "dots": [".", "..", ".b", "b."],
    "blanks": [" ", "b c", "b  c", "\t"],
    "letters of the world": ["ß→", "δ", "名前", "é", "e\u0301"],
    "empty": ["", "f0", "f1", "(empty)"],
    "long": ["x" * 300, "y" * 300, "x" * 301],
    "the same when made safe": ["b:c", "b/c", "b c", "b_c"],
    "the same in other case": ["B", "b", "Stage", "STAGE"],
    "words of the files": ["names", "params", "_index", "lmm_de"],
    "quotes": ['"', "'", "`", "b'c"],
    "Windows": ["CON", "b?", "b*", "<b>", "b|c"],
    "lines": ["b\nc", "b\rc"],
}


@pytest.mark.parametrize("name", LEVELS)
def test_levels_may_be_called_anything(tmp_path, name):
    adata = make_adata(LEVELS[name])
    run(adata)
    assert sl.get.lmm_de_params(adata)["comparisons"][1:] == LEVELS[name]
    assert_read_back(adata, h5ad(adata, tmp_path))


@each_format
def test_every_format_holds_them(tmp_path, through):
    adata = make_adata(["b:c", ".b", "", "名前 b/c\n", "x" * 300])
    run(adata)
    assert_read_back(adata, through(adata, tmp_path))


@pytest.mark.parametrize("name", LEVELS)
def test_places_of_tables_are_file_names_on_every_system(name):
    adata = make_adata(LEVELS[name])
    run(adata)
    places = [*adata.varm, *adata.uns["lmm_de"]]
    assert len({place.casefold() for place in adata.varm}) == len(adata.varm) == len(LEVELS[name]) + 1
    assert all(re.fullmatch(r"[\w.+-]*[\w+-]", place, re.ASCII) and len(place) < 250 for place in places)


@each_format
def test_products_of_levels(tmp_path, through):
    adata = make_adata(["b"])
    run(adata, "~ stage * sex + (1 | donor)", "stage:sex")
    read = through(adata, tmp_path)
    assert_read_back(adata, read)
    assert read.uns["lmm_de"]["names"].dtype.names == ("stage[T.b].sex[T.M]",)


WORST = "a:b. (1 | ?)\\ \"<é>*' "
COLUMNS = ["a:b", "a b", ".a", "a.", "é", "1", "Intercept", "np", "x" * 200, "a\\b", "(1 | donor)", "residual", "a/b"]
each_column = pytest.mark.parametrize(
    ("column", "through"), [*((name, h5ad) for name in COLUMNS), (WORST, zarr(2)), (WORST, zarr(3))]
)


@each_column
def test_columns_may_be_called_anything(tmp_path, column, through):
    adata = make_adata(["b", "c"], stage=column)
    run(adata, f"~ x + `{column}` + (1 | donor)", f"`{column}`")
    del adata.obs[column]  # anndata itself refuses some of these names
    assert_read_back(adata, through(adata, tmp_path))


@each_column
def test_groupings_may_be_called_anything(tmp_path, column, through):
    adata = make_adata(["b"], donor=column)
    run(adata, f"~ x + stage + (1 | `{column}`)")
    run(adata, f"~ x + stage + (1 | `{column}`)", f"(1 | `{column}`)", key_added="variance")
    del adata.obs[column]
    read = through(adata, tmp_path)
    assert_read_back(adata, read)
    assert_read_back(adata, read, "variance")


TESTS = {
    "term": "stage",
    "terms": ["stage", "x"],
    "tuple": ("stage", "x"),
    "set": {"x", "stage"},
    "array": np.array(["stage", "x"]),
    "index": pd.Index(["stage", "x"]),
    "contrast": "cond(stage='b') - cond(stage='a')",
    "contrasts": {"b/c": "cond(stage='b') - cond()", "b:c": "cond(stage='c') - cond(stage='b')"},
    "the mean of the reference": "cond()",
    "numpy's text": np.str_("stage"),
    "random term": "(1 | donor)",
}


@pytest.mark.parametrize("name", TESTS)
def test_every_way_to_ask_can_be_stored(tmp_path, name):
    adata = make_adata(["b", "c"])
    run(adata, np.str_("~ x + stage + (1 | donor)"), TESTS[name])
    assert_read_back(adata, h5ad(adata, tmp_path))


@pytest.mark.filterwarnings("ignore:The p-values of x take its slope")
def test_a_set_of_terms_is_the_list_of_them():
    results = [
        sl.tl.lmm_fit(make_adata(), "~ x + stage + (1 | donor)").test(t).table for t in ({"x", "stage"}, ["x", "stage"])
    ]
    pd.testing.assert_frame_equal(*results)


@pytest.mark.parametrize("test", [7, None, ["stage", 7], {"b": 7}, {7: "cond(x=1) - cond()"}, b"stage", {"b": ["x"]}])
def test_what_is_no_test_is_refused_before_anything_is_read(test):
    adata = make_adata()
    adata.X[:] = np.nan  # would be an error of its own
    with pytest.raises(sl.DesignError, match="neither a term, nor a list of terms, nor a dict"):
        run(adata, test=test)
    assert "lmm_de" not in adata.uns


def test_selected_genes_go_through_a_file(tmp_path):
    adata = make_adata(["b", "c"])
    run(adata)
    part = adata[:, [4, 1]].copy()
    assert_read_back(part, h5ad(part, tmp_path))


@pytest.mark.parametrize("dtype", ["string", object])
def test_names_of_genes_may_be_nullable_strings(tmp_path, dtype):
    # As another version of anndata reads them; what this one writes of them is its own affair, not that of the results.
    adata = make_adata(["b", "c"])
    adata.var_names, adata.obs_names = adata.var_names.astype(dtype), adata.obs_names.astype(dtype)
    run(adata)
    with _allowing_strings():
        assert_read_back(adata, h5ad(adata, tmp_path))


def _allowing_strings():
    return ad.settings.override(allow_write_nullable_strings=True)


def test_a_file_is_written_with_the_strings_that_were_read(tmp_path):
    adata = make_adata(["b"])
    adata.obs["note"] = pd.array(["yes", None] * (N_CELLS // 2), dtype="string")
    with _allowing_strings():
        adata.obs_names = adata.obs_names.astype("string")
        adata.write_h5ad(tmp_path / "read.h5ad")
    read = ad.read_h5ad(tmp_path / "read.h5ad")
    run(read)
    write_file(read, tmp_path / "written.h5ad")
    again = ad.read_h5ad(tmp_path / "written.h5ad")
    assert_read_back(read, again)
    pd.testing.assert_frame_equal(again.obs, read.obs)


# ------------------------------------------------------------------------------------------------------- backed


@pytest.fixture
def backed(tmp_path):
    adata = make_adata(["b"])
    adata.write_h5ad(tmp_path / "backed.h5ad")
    backed = ad.read_h5ad(tmp_path / "backed.h5ad", backed="r")
    yield backed
    backed.file.close()


@pytest.mark.filterwarnings("ignore:The matrix")
def test_a_backed_file_is_read_and_the_results_stay_in_memory(backed):
    run(backed)
    expected = make_adata(["b"])
    run(expected)
    pd.testing.assert_frame_equal(sl.get.lmm_de_df(backed), sl.get.lmm_de_df(expected), rtol=1e-10)


def test_what_would_need_a_file_of_its_own_is_refused_before_anything_is_read(backed, monkeypatch):
    monkeypatch.setattr("sc_lmm.tl._run.fit_cells", lambda *_, **__: pytest.fail("the cells were read"))
    with pytest.raises(ValueError, match=r"backed by a file, and a copy would need.*adata.to_memory\(\)"):
        run(backed, copy=True)
    with pytest.raises(ValueError, match=r"backed by a file, and a view that is written to would need.*to_memory\(\)"):
        run(backed[:, :3])
    assert "lmm_de" not in backed.uns


@pytest.mark.parametrize("part", [lambda a: a, lambda a: a[:, :4]], ids=["whole", "view"])
def test_the_advice_works(backed, part):
    adata = part(backed).to_memory()
    run(adata)
    assert sl.get.lmm_de_df(adata)["coef"].notna().all()
