"""The functions that asv runs still run, on data of a size that costs nothing."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType


BENCHMARKS = Path(__file__).parent / "benchmarks"


def _load_suite() -> ModuleType:
    """Load it by its path, as asv does, whatever the way in which tests are imported."""
    spec = importlib.util.spec_from_file_location("asv_suite", BENCHMARKS / "asv_suite.py")
    suite = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(suite)
    suite.N_CELLS, suite.N_GENES = 800, 12
    return suite


SUITE = _load_suite()
CLASSES = [cls for _, cls in inspect.getmembers(SUITE, inspect.isclass) if cls.__module__ == SUITE.__name__]
CASES = [(cls, value) for cls in CLASSES for value in getattr(cls, "params", (None,))]


@pytest.mark.parametrize(("cls", "value"), CASES, ids=[f"{cls.__name__}-{value}" for cls, value in CASES])
@pytest.mark.filterwarnings("ignore::sc_lmm._errors.LmmWarning")  # so few counts may leave a gene without a fit
def test_benchmark_runs(cls: type, value: object) -> None:
    arguments = () if value is None else (value,)
    benchmark = cls()
    benchmark.setup(*arguments)
    for name in _benchmarks(cls):
        getattr(benchmark, name)(*arguments)


@pytest.mark.parametrize("cls", CLASSES)
def test_time_and_memory_are_measured_in_pairs(cls: type) -> None:
    timed = {name.removeprefix("time_") for name in _benchmarks(cls) if name.startswith("time_")}
    weighed = {name.removeprefix("peakmem_") for name in _benchmarks(cls) if name.startswith("peakmem_")}
    assert timed == weighed != set()


@pytest.mark.parametrize("file", sorted(BENCHMARKS.glob("*.py")), ids=lambda file: file.stem)
def test_what_a_benchmark_imports_is_there(file: Path) -> None:
    """The programs themselves run for minutes and are not tests; a name that moved must not go unnoticed in them."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith("sc_lmm"):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def _benchmarks(cls: type) -> list[str]:
    return [name for name in vars(cls) if name.startswith(("time_", "peakmem_"))]
