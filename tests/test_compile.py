"""Compiled code runs wherever the package is installed, and is never older than its source."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numba
import pytest

import sc_lmm
from sc_lmm import _compile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

SOURCE = """
from sc_lmm._compile import compiled

@compiled()
def double(x):
    return 2 * x
"""
RUN = """
import sc_lmm
adata = sc_lmm.datasets.brain_cohort(n_donors=6, n_cells=120, n_genes=5)
sc_lmm.tl.lmm_de(adata, "~ (1 | sample_id) + age", "age")
print(sc_lmm.__file__, adata.varm["lmm_de"]["pvals"].notna().sum())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compile, "_stamps", {})
        patch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
        numba.config.reload_config()
        yield tmp_path
    numba.config.reload_config()


def load(folder: Path, source: str = SOURCE, name: str = "module") -> ModuleType:
    """Import a file as a new process would: its functions know nothing of earlier ones."""
    path = folder / f"{name}.py"
    if not path.exists() or path.read_text(encoding="utf-8") != source:
        path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def hits(function: object) -> int:
    return sum(function.stats.cache_hits.values())


def test_what_was_compiled_is_loaded(folder: Path) -> None:
    assert load(folder).double(2) == 4
    again = load(folder)
    assert again.double(3) == 6
    assert hits(again.double) == 1


@pytest.mark.parametrize("kept", [0, 40])
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_broken_file_is_replaced(folder: Path, suffix: str, kept: int) -> None:
    load(folder).double(2)
    (file,) = folder.rglob(f"*.{suffix}")
    file.write_bytes(file.read_bytes()[:kept])
    broken = load(folder)
    assert broken.double(3) == 6
    assert hits(broken.double) == 0
    mended = load(folder)
    assert mended.double(3) == 6
    assert hits(mended.double) == 1


def test_code_of_other_types_is_not_run(folder: Path) -> None:
    """As two processes may leave it that compile for two types at the same time."""
    first = load(folder)
    first.double(2)
    first.double(2.5)
    whole, fractional = sorted(folder.rglob("*.nbc"))
    shutil.copy(whole, fractional)
    again = load(folder)
    assert again.double(2.5) == 5.0
    assert hits(again.double) == 0


def nowhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file stand where each of numba's folders would be: even an administrator cannot write into it."""
    (folder / "file").touch()
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(folder / "file"))


def test_without_a_folder_it_is_compiled_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "__pycache__").touch()
    with monkeypatch.context() as patch:
        nowhere(folder, patch)
        numba.config.reload_config()
        assert load(folder).double(2) == 4


def test_a_folder_that_is_lost_on_the_way(folder: Path) -> None:
    module = load(folder)
    shutil.rmtree(folder / "cache")
    (folder / "cache").touch()
    assert module.double(2) == 4
    assert module.double(2.5) == 5.0


def test_code_is_as_new_as_the_code_that_it_calls(folder: Path) -> None:
    """Numba itself looks at the file of a function, and not at those of the functions compiled into it."""
    caller = (
        "from module import double\nfrom sc_lmm._compile import compiled\n\n"
        "@compiled()\ndef twice(x):\n    return double(double(x))\n"
    )
    load(folder)
    assert load(folder, caller, "caller").twice(1) == 4
    _compile._stamps.clear()
    load(folder, SOURCE.replace("2 * x", "3 * x"))
    assert load(folder, caller, "caller").twice(1) == 9


def test_the_package_runs_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "site" / "sc_lmm"
    shutil.copytree(Path(sc_lmm.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for each in [copy, *(path for path in copy.iterdir() if path.is_dir())]:
        (each / "__pycache__").touch()
    nowhere(tmp_path, monkeypatch)
    environment = os.environ | {"PYTHONPATH": str(copy.parent), "MPLCONFIGDIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(copy / "__init__.py"), "5"]
