"""The house rules that a machine can check: layers, imports, signatures, and no assert or print."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import sc_lmm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(sc_lmm.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Room -> the rooms below it, which it may import: the path of the data, read from the end. What stands beside the rooms
# is for all of them (TOOLS) or stands where AnnData comes in (_anndata, _read, _groups). Imports for types alone count too: a room that
# names a type of a room above it knows too much.
TOOLS = {"_blas", "_by_group", "_compile", "_docs", "_errors", "_fingerprints", "_names", "_progress", "_words"}
ROOMS: dict[str, set[str]] = {
    "_design": set(),
    "_statistics": {"_design"},
    "_model": {"_statistics", "_design"},
    "_inference": {"_model", "_statistics", "_design"},
    "_report": {"_design"},
    "_anndata": set(),
    "_expression": set(),
    "datasets": set(),
    "_read": {"_expression", "_design", "_inference", "_report", "_statistics"},
    "_read_counts": {"_expression", "_design", "_inference", "_report", "_statistics"},
    "_groups": {"_expression", "_design", "_inference", "_read", "_read_counts", "_report"},
    "tl": {
        *(
            "_anndata",
            "_captions",
            "_design",
            "_expression",
            "_groups",
            "_inference",
            "_model",
            "_read",
            "_read_counts",
            "_report",
        ),
        "_statistics",
    },
    "get": {"_anndata", "_inference", "_read", "_read_counts", "_report"},
    "_captions": {"_design"},
    "_donors": {"_captions", "_design"},
    "pl": {"_anndata", "_captions", "_donors", "get"},
}
ROOMS["sc_lmm"] = {"datasets", "get", "pl", "tl"}
ROOMS["_picture"] = {"_captions", "get", "pl"}
ROOMS["_telling"] = {"_captions", "_donors", "get"}
ROOMS["__main__"] = {
    "_anndata",
    "_expression",
    "_inference",
    "_picture",
    "_statistics",
    "_telling",
    "datasets",
    "get",
    "tl",
}

# Library -> the only rooms that may import it.
LIBRARIES: dict[str, set[str]] = {
    "anndata": {"__main__", "_anndata", "datasets", "pl"},
    "joblib": {"_model"},
    "matplotlib": {"_picture", "pl"},
    "numba": {"_compile", "_statistics"},
    "scanpy": {"__main__", "_donors", "pl"},
    "scipy.stats": {"_inference", "_report"},
    "statsmodels": {"_inference"},
}

# Slow to import or optional: only ever imported inside the function that needs it.
DEFERRED = {"dask", "matplotlib", "scanpy"}


class Import(NamedTuple):
    """One imported module."""

    file: Path
    line: int
    target: str  # absolute dotted name; for `from a import b`, "a.b"
    deferred: bool  # inside a function

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT.parent)}:{self.line} imports {self.target}"


def module_name(file: Path) -> str:
    """sc_lmm/tl/_lmm_de.py -> sc_lmm.tl._lmm_de, sc_lmm/tl/__init__.py -> sc_lmm.tl."""
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file) for file in FILES}


def room(module: str) -> str:
    """sc_lmm.tl._lmm_de -> tl."""
    return module.split(".")[1] if "." in module else module


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def import_nodes(
    node: ast.AST, *, deferred: bool = False, types: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import statement that runs (and with `types` those for types alone), and whether it waits for a call."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, deferred
    for_types = isinstance(node, ast.If) and is_type_checking(node.test)
    children = node.orelse if for_types and not types else ast.iter_child_nodes(node)
    deferred = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in children:
        yield from import_nodes(child, deferred=deferred, types=types)


def absolute(node: ast.ImportFrom, file: Path) -> str:
    """The dotted name after `from`."""
    if node.level == 0:
        return node.module or ""
    package = file.relative_to(ROOT.parent).parent.parts
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


@cache
def imports(file: Path, *, types: bool = False) -> tuple[Import, ...]:
    found = []
    for node, deferred in import_nodes(tree(file), types=types):
        prefix = absolute(node, file) + "." if isinstance(node, ast.ImportFrom) else ""
        found += [Import(file, node.lineno, prefix + alias.name, deferred) for alias in node.names]
    return tuple(found)


def all_imports(file: Path) -> tuple[Import, ...]:
    return imports(file, types=True)


def own_module(target: str) -> str | None:
    """The module of this package that an imported name is or lives in: sc_lmm._model.fit.Fit -> sc_lmm._model.fit."""
    parts = target.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in MODULES), None)


def is_from(target: str, library: str) -> bool:
    return target == library or target.startswith(library + ".")


def identifier(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


each_file = pytest.mark.parametrize("file", FILES, ids=identifier)


@each_file
def test_imports_come_from_rooms_below(file: Path) -> None:
    here = room(module_name(file))
    assert here in ROOMS | dict.fromkeys(TOOLS), f"{here} has no row in ROOMS; decide which rooms it may import"
    allowed = ROOMS.get(here, set()) | TOOLS | {here}
    targets = {i: own_module(i.target) for i in all_imports(file)}
    assert [str(i) for i, module in targets.items() if module is not None and room(module) not in allowed] == []


@each_file
def test_a_room_is_entered_by_its_door(file: Path) -> None:
    """Other rooms see what a room's __init__ hands on, and no private name."""
    here, around = module_name(file), []
    for found in all_imports(file):
        module = own_module(found.target)
        if module is None or room(module) in {room(here), "sc_lmm"} or not (ROOT / room(module)).is_dir():
            continue
        door = importlib.import_module(f"sc_lmm.{room(module)}")
        name = found.target.removeprefix(door.__name__).removeprefix(".")
        if name and name not in door.__all__:
            around.append(str(found))
    assert around == []


@pytest.mark.parametrize("name", [name for name in ROOMS if (ROOT / name).is_dir()])
def test_a_room_says_in_one_sentence_what_it_is(name: str) -> None:
    module = importlib.import_module(f"sc_lmm.{name}")
    assert len((module.__doc__ or "").strip().splitlines()) == 1
    assert module.__all__ == sorted(module.__all__)


@each_file
def test_libraries_stay_in_their_layers(file: Path) -> None:
    here = room(module_name(file))
    forbidden = [library for library, rooms in LIBRARIES.items() if here not in rooms]
    assert [str(i) for i in imports(file) if any(is_from(i.target, library) for library in forbidden)] == []


@each_file
def test_heavy_libraries_are_imported_late(file: Path) -> None:
    at_import = [i for i in imports(file) if not i.deferred and file.name != "__main__.py"]
    assert [str(i) for i in at_import if any(is_from(i.target, library) for library in DEFERRED)] == []


def test_no_import_cycles() -> None:
    graph = {}
    for file in FILES:
        name = module_name(file)
        graph[name] = {own_module(i.target) for i in imports(file)} - {None, name}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_no_room_is_above_itself() -> None:
    assert set().union(*ROOMS.values()) <= ROOMS.keys()
    graphlib.TopologicalSorter(ROOMS).prepare()


def test_import_loads_no_heavy_library() -> None:
    code = f"""
import sys
import anndata  # which imports dask itself where it is installed
before = set(sys.modules)
import sc_lmm
print(sorted(name for name in sys.modules.keys() - before if name.partition(".")[0] in {DEFERRED}))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_import_in_a_notebook_without_widgets_says_nothing() -> None:
    code = """
import sys, types
shell = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell)
sys.modules["ipykernel.zmqshell"] = types.SimpleNamespace()
sys.modules["ipywidgets"] = None
if sys.argv[1:]:
    import tqdm.auto
else:
    import sc_lmm
"""
    runs = [[], ["tqdm alone"]]
    found = [
        subprocess.run([sys.executable, "-c", code, *run], capture_output=True, text=True, check=True) for run in runs
    ]
    assert ["TqdmWarning" in run.stderr for run in found] == [False, True]


@each_file
def test_no_assert_and_no_print(file: Path) -> None:
    found = [f"{file.name}:{node.lineno} asserts" for node in ast.walk(tree(file)) if isinstance(node, ast.Assert)]
    if file.name not in ("__main__.py", "_telling.py"):
        calls = [node for node in ast.walk(tree(file)) if isinstance(node, ast.Call)]
        found += [
            f"{file.name}:{c.lineno} prints" for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"
        ]
    assert found == []


def exported(*namespaces: str) -> list[Callable]:
    """Functions, not the classes of what they return."""
    modules = [importlib.import_module(f"sc_lmm.{namespace}") for namespace in namespaces]
    objects = [getattr(module, name) for module in modules for name in module.__all__]
    return [obj for obj in objects if inspect.isfunction(obj)]


def qualified(function: Callable) -> str:
    return f"{function.__module__.split('.')[1]}.{function.__name__}"


each_public = pytest.mark.parametrize("function", exported("tl", "get", "pl", "datasets"), ids=qualified)


@pytest.mark.parametrize("namespace", ["sc_lmm", "sc_lmm.tl", "sc_lmm.get", "sc_lmm.pl", "sc_lmm.datasets"])
def test_all_is_sorted_and_public(namespace: str) -> None:
    names = importlib.import_module(namespace).__all__
    assert names == sorted(names)
    assert [name for name in names if name.startswith("_")] == []


@pytest.mark.parametrize("function", exported("tl", "get", "pl"), ids=qualified)
def test_first_parameter_is_adata(function: Callable) -> None:
    first = next(iter(inspect.signature(function).parameters.values()))
    if qualified(function) == "pl.power":
        pytest.skip("it draws a table, not annotated data")
    assert first.name == "adata"
    assert str(first.annotation).split(" | ")[0] == "AnnData"  # what get reads may also come as a fitted object


@each_public
def test_at_most_three_positional_parameters(function: Callable) -> None:
    kinds = inspect.Parameter
    parameters = inspect.signature(function).parameters.values()
    assert [p.name for p in parameters if p.kind is kinds.VAR_POSITIONAL] == []
    assert len([p for p in parameters if p.kind in {kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD}]) <= 3


@each_public
def test_everything_is_annotated(function: Callable) -> None:
    signature = inspect.signature(function)
    assert [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty] == []
    assert signature.return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("function", exported("tl"), ids=qualified)
def test_copy(function: Callable) -> None:
    """A function that writes to adata offers a copy, as in scanpy."""
    parameters = inspect.signature(function).parameters
    if "key_added" in parameters:
        assert "copy" in parameters
    if "copy" in parameters:
        assert parameters["copy"].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters["copy"].default is False
        assert inspect.signature(function).return_annotation == "AnnData | None"


@each_public
def test_docstring_names_every_parameter_and_has_an_example(function: Callable) -> None:
    doc = inspect.getdoc(function) or ""
    assert "\nExamples\n--------\n" in doc
    assert ">>> " in doc
    lines = [line.strip("*") for line in doc.splitlines()]  # **kwargs
    assert [name for name in inspect.signature(function).parameters if name not in lines] == []


@each_public
def test_shared_paragraphs_are_filled_in(function: Callable) -> None:
    assert re.findall(r"^ *\{[a-z_]+\}$", inspect.getdoc(function) or "", flags=re.MULTILINE) == []
