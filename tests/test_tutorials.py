"""Every tutorial runs from top to bottom, and what is stored of it is fit to be read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.ipynb"))
PROGRESS = re.compile(r"\s*(reading|fitting|testing|permuting):\s+\d+%.*")
each_tutorial = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


def outputs(notebook: dict) -> list[dict]:
    return [output for cell in notebook["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]


def complaints(notebook: dict) -> list[str]:
    """What was written to stderr, progress bars apart."""
    streams = [output for output in outputs(notebook) if output.get("name") == "stderr"]
    lines = [line for stream in streams for line in re.split(r"[\r\n]+", "".join(stream["text"]))]
    return [line for line in lines if line.strip() and not PROGRESS.fullmatch(line)]


def test_there_are_tutorials() -> None:
    if not FOLDER.is_dir():
        pytest.skip("a source distribution has no tutorials")
    assert TUTORIALS != []


@each_tutorial
def test_stored_outputs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert path.stat().st_size < 1_500_000
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert [cell["id"] for cell in notebook["cells"] if cell["metadata"]] == []
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert complaints(notebook) == []
    assert re.findall(r"/(?:home|Users|tmp|work|root)/\w+|\bat 0x[0-9a-f]+", text) == []
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))


@pytest.mark.slow
@each_tutorial
# the kernel's process and its sockets are not ours
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
def test_runs(path: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (group tutorial)")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (group tutorial)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (group tutorial)")
    notebook = nbformat.read(path, as_version=4)
    stored = [output["text"] for output in outputs(notebook) if output.get("name") == "stdout"]
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    assert complaints(notebook) == []
    fresh = [output["text"] for output in outputs(notebook) if output.get("name") == "stdout"]
    assert "".join(fresh).split() != []
    assert len("".join(fresh).splitlines()) == len("".join(stored).splitlines())
