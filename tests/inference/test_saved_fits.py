"""A fit in a file: it answers alike, the file is whole or not there, and nothing that a file holds is run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl
from sc_lmm._inference import LmmFit, storage

if TYPE_CHECKING:
    from pathlib import Path

FORMULA = "~ sequencing_saturation + age + diagnosis + (1 | sample_id)"


@pytest.fixture(scope="module")
def adata():
    adata = sl.datasets.brain_cohort(n_donors=12, n_cells=600, n_genes=8, seed=3, library_size=200)
    adata.obs["batch"] = np.arange(adata.n_obs) % 3 + 2**53
    return adata


@pytest.fixture(scope="module")
def fit(adata) -> LmmFit:
    return sl.tl.lmm_fit(adata, FORMULA, show_progress=False)


def through_a_file(fit: LmmFit, folder: Path) -> LmmFit:
    fit.save(folder / "fit")
    return LmmFit.load(folder / "fit")


def test_saved_and_loaded_fits_answer_alike(fit, tmp_path):
    fit.test("diagnosis")
    loaded = through_a_file(fit, tmp_path)
    contrast = "cond(diagnosis='Alzheimer', age=70) - cond(age=60)"
    for ask in (
        lambda f: f.test("diagnosis").table,
        lambda f: f.contrast(contrast, method="kenward-roger").table,
        lambda f: f.drop("age").test("diagnosis", method="wald").table,
        lambda f: f.test("(1 | sample_id)").table,
        lambda f: f.ranef(f.var_names[0]),
    ):
        pd.testing.assert_frame_equal(ask(loaded), ask(fit))
    assert repr(loaded) == repr(fit)
    assert repr(loaded.gene(fit.var_names[2])) == repr(fit.gene(fit.var_names[2]))


FORMULAS = {
    "~ poly(age, 2) + bs(sequencing_saturation, df=4) + (1 | sample_id)": "cond(age=80, sequencing_saturation=0.6)"
    " - cond(age=70, sequencing_saturation=0.6)",
    "~ within(sequencing_saturation) + between(sequencing_saturation) + scale(age) + (1 | sample_id)": "cond(age=80) - cond()",
    "~ C(batch, contr.sum) + C(diagnosis, contr.custom({'a': [1, -1]})) + (1 | sample_id)": "cond(diagnosis='control')"
    " - cond(diagnosis='Alzheimer')",
    "~ C(batch, contr.helmert) + np.log(age) + (1 | sample_id)": "cond(age=80) - cond(age=70)",
    "~ C(batch, Poly) + sex:age + (1 | sample_id)": "cond(age=80, sex='male') - cond(age=70, sex='male')",
    "~ cr(sequencing_saturation, df=3) - 1 + (1 | sample_id)": "",
    "~ C(batch, contr.diff) + C(sex, contr.SAS) + {age / 2} + (1 | sample_id)": "cond(age=80) - cond(age=70)",
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_everything_that_a_formula_may_hold_can_be_saved(adata, tmp_path, formula):
    fit = sl.tl.lmm_fit(adata, formula, show_progress=False)
    loaded = through_a_file(fit, tmp_path)
    for name in ("coef_names", "terms", "levels", "group", "group_levels", "constant"):
        assert getattr(loaded.coding, name) == getattr(fit.coding, name)
    np.testing.assert_array_equal(loaded.stats.ZtY, fit.stats.ZtY)
    if FORMULAS[formula]:
        one, other = (f.contrast(FORMULAS[formula], method="wald").table for f in (loaded, fit))
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize("dtype", [object, "string", None])
def test_names_of_genes_keep_their_type(adata, tmp_path, dtype):
    adata = adata.copy()
    if dtype is not None:
        adata.var_names = adata.var_names.astype(dtype)
    fit = sl.tl.lmm_fit(adata, "~ age + (1 | sample_id)", show_progress=False)
    loaded = through_a_file(fit, tmp_path)
    assert loaded.var_names.tolist() == fit.var_names.tolist()
    assert isinstance(loaded.var_names.dtype, pd.StringDtype) or dtype != "string"


def test_a_file_holds_no_estimate_and_no_cell(adata, tmp_path, fit):
    fit.test("diagnosis")
    fit.save(tmp_path / "used")
    sl.tl.lmm_fit(adata, FORMULA, show_progress=False).save(tmp_path / "new")
    sizes = [(tmp_path / name).stat().st_size for name in ("used", "new")]
    assert abs(sizes[0] - sizes[1]) < 500  # what was warned of is remembered
    assert max(sizes) < 40_000


# ------------------------------------------------------------------------------------------------------- atomic


def test_a_write_that_fails_leaves_the_old_file(fit, tmp_path, monkeypatch):
    path = tmp_path / "fit"
    fit.save(path)
    old = path.read_bytes()

    def fail(_: int) -> None:
        msg = "No space left on device"
        raise OSError(msg)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        fit.drop("age").save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_writes_nothing(fit, tmp_path):
    from dataclasses import replace

    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        replace(fit, cautions=lambda *_: []).save(tmp_path / "fit")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_leaves_the_old_file(fit, tmp_path):
    path = tmp_path / "fit"
    fit.save(path)
    code = (
        "import os, sys\nfrom sc_lmm._inference import LmmFit\nfit = LmmFit.load(sys.argv[1])\n"
        "os.fsync = lambda _: os._exit(9)\nfit.drop('age').save(sys.argv[1])"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    assert LmmFit.load(path).coding.coef_names == fit.coding.coef_names


def test_a_fit_is_written_through_a_link(fit, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "fit")
    fit.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert LmmFit.load(tmp_path / "fit").var_names.equals(fit.var_names)


# ---------------------------------------------------------------------------------------------- damaged, foreign


def test_every_truncation_is_told(fit, tmp_path):
    fit.save(tmp_path / "fit")
    whole = (tmp_path / "fit").read_bytes()
    for length in (0, 1, 5, 13, 14, 44, 45, 46, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "part").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"no file that LmmFit.save wrote|damaged or not complete.*lmm_fit"):
            LmmFit.load(tmp_path / "part")


def test_a_changed_byte_is_told(fit, tmp_path):
    fit.save(tmp_path / "fit")
    content = bytearray((tmp_path / "fit").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "fit").write_bytes(content)
    with pytest.raises(ValueError, match="'.*fit' is damaged or not complete"):
        LmmFit.load(tmp_path / "fit")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04.", pickle.dumps({"not": "a fit"}), b"\x89HDF\r\n", b"some text"], ids=repr
)
def test_a_file_of_something_else_is_told(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ValueError, match="'.*other' is no file that LmmFit.save wrote"):
        LmmFit.load(tmp_path / "other")


def test_a_folder_and_a_missing_file_are_told_by_the_system(tmp_path):
    with pytest.raises(OSError, match="nothing"):
        LmmFit.load(tmp_path / "nothing")


# ------------------------------------------------------------------------------------------------- data, not code


def forged(path: Path, content: bytes) -> Path:
    """A file with the right line and digest."""
    path.write_bytes(storage._MAGIC + sha256(content).digest() + content)
    return path


class Calls:
    """Pickles to the call of a function."""

    def __init__(self, function, *args) -> None:
        self.call = function, args

    def __reduce__(self):
        return self.call


def named(module: str, name: str, *args: str) -> bytes:
    """A pickle that calls something by any name, dots included."""
    text = lambda s: b"\x8c" + bytes([len(s.encode())]) + s.encode()
    return b"\x80\x04" + text(module) + text(name) + b"\x93(" + b"".join(map(text, args)) + b"tR."


def test_a_file_that_calls_a_function_is_refused(tmp_path):
    target = tmp_path / "written"
    content = pickle.dumps(Calls(os.system, f"echo > {target}"))
    with pytest.raises(ValueError, match=f"it names {os.system.__module__}.system, which is no part of a fit"):
        LmmFit.load(forged(tmp_path / "fit", content))
    assert not target.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("builtins", "open"),
        ("subprocess", "Popen"),
        ("numpy", "load"),
        ("numpy", "ndarray.tofile"),
        ("numpy._core.multiarray", "fromfile"),
        ("numpy", "f2py.os.system"),
        ("pandas", "read_pickle"),
        ("pandas.io.pickle", "read_pickle"),
        ("formulaic.transforms.contrasts", "inspect.os.system"),
        ("formulaic.transforms.contrasts", "TreatmentContrasts.apply"),
        ("formulaic.model_spec", "ModelSpec.get_model_matrix"),
        ("formulaic.utils.stateful_transforms", "stateful_eval"),
        ("formulaic", "model_matrix"),
        ("sc_lmm._inference.storage", "os.system"),
        ("sc_lmm._inference.storage", "pickle.loads"),
        ("sc_lmm._inference.storage", "load"),
        ("sc_lmm._inference.storage", "Path"),
        ("sc_lmm._inference.storage", "_Reader"),
        ("sc_lmm._inference.fitted", "LmmFit.save"),
        ("sc_lmm._design", "build_design"),
        ("sc_lmm._design.code", "ast.parse"),
        ("sc_lmm.__main__", "main"),
        ("sc_lmm.tl", "lmm_fit"),
        ("joblib", "load"),
        ("importlib", "import_module"),
    ],
)
def test_no_name_but_those_of_a_fit_is_found(tmp_path, module, name):
    with pytest.raises(ValueError, match="it names .*, which is no part of a fit. Fit again"):
        LmmFit.load(forged(tmp_path / "fit", named(module, name, "x")))


def test_a_file_does_not_make_modules_be_imported(tmp_path):
    code = (
        "import sys\nfrom sc_lmm._inference import LmmFit\n"
        "try:\n    LmmFit.load(sys.argv[1])\nexcept ValueError as error:\n    print(error)\n"
        "print('sc_lmm.__main__' in sys.modules, 'antigravity' in sys.modules)"
    )
    for module in ("sc_lmm.__main__", "antigravity"):
        path = forged(tmp_path / "fit", named(module, "main", "x"))
        run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        assert "no part of a fit" in run.stdout
        assert run.stdout.strip().endswith("False False")


def test_code_in_a_formula_of_a_file_is_refused(adata, tmp_path):
    # formulaic would evaluate it as soon as a contrast is asked for.
    fit = sl.tl.lmm_fit(adata, "~ np.log(age) + (1 | sample_id)", show_progress=False)
    fit.coding.spec.formula[1].factors[0].expr = "__import__('os').getcwd()"
    fit.save(tmp_path / "fit")
    with pytest.raises(sl.DesignError, match="which is no function that a formula may call"):
        LmmFit.load(tmp_path / "fit")


@pytest.mark.parametrize("value", [{"not": "a fit"}, 7, np.ones(3), None], ids=["dict", "int", "array", "None"])
def test_data_that_are_no_fit_are_told(tmp_path, value):
    with pytest.raises(TypeError, match=f"does not hold an LmmFit but a {type(value).__name__}"):
        LmmFit.load(forged(tmp_path / "fit", pickle.dumps(value)))


@pytest.mark.parametrize("cut", [10, 100, 1000, 3000])
def test_a_forged_file_that_ends_early_is_told(fit, tmp_path, cut):
    content = BytesIO()
    storage._Writer(content, protocol=5).dump(fit)
    with pytest.raises(ValueError, match="cannot be read.*Fit again"):
        LmmFit.load(forged(tmp_path / "fit", content.getvalue()[:-cut]))
