"""Peers in R: arrays go out as text, and time and memory come back as R measured them, its start left out."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from .measure import Timing, peak_mb, time_call

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_SCRIPTS = Path(__file__).parent / "r"


@cache
def missing(*packages: str) -> str | None:
    """Why R cannot run a peer, None if it can."""
    if shutil.which("Rscript") is None:
        return "Rscript not found"
    absent = [package for package in packages if not _loads(package)]
    return f"R package {', '.join(absent)} not installed" if absent else None


def lme4(X: Array, codes: NDArray[np.int64], Y: Array) -> tuple[Array, Timing, float]:
    """Log-likelihoods (g, 2) of the genes in Y (n, g), time and memory."""
    return _run("lme4.R", design=np.column_stack([X[:, 1:], codes]), genes=Y)


def voom(counts: Any, codes: NDArray[np.int64], diagnosis: Array) -> tuple[Timing, float]:
    """Time and memory of limma-voom."""
    return _pseudobulk("voom.R", counts, codes, diagnosis)


def edger(counts: Any, codes: NDArray[np.int64], diagnosis: Array) -> tuple[Timing, float]:
    """Time and memory of edgeR."""
    return _pseudobulk("edger.R", counts, codes, diagnosis)


def nebula(design: Array, counts: NDArray[np.int64]) -> tuple[Timing, float]:
    """Time and memory of NEBULA on the genes in `counts` (n, g); `design` has diagnosis, donor and depth of each cell."""
    _, timing, peak = _run("nebula.R", design=design, genes=counts)
    return timing, peak


def _pseudobulk(script: str, counts: Any, codes: NDArray[np.int64], diagnosis: Array) -> tuple[Timing, float]:
    """Time and memory of an analysis of all genes: sums per donor here, the rest in R."""
    sums: list[Array] = []

    def aggregate() -> None:
        indicator = sparse.csr_matrix((np.ones(codes.size, np.float32), (codes, np.arange(codes.size))))
        sums.append((indicator @ counts).toarray())

    peaks, times = [], []
    peaks.append(peak_mb(lambda: times.append(time_call(aggregate))))
    _, timing, peak = _run(script, design=diagnosis[:, None], genes=sums[0].astype(int))
    return Timing(times[0].wall + timing.wall, times[0].cpu + timing.cpu), max(peak, *peaks)


def version(package: str) -> str:
    """Version of an R package."""
    return _rscript("-e", f'cat(as.character(packageVersion("{package}")))')


def _run(script: str, **arrays: Array) -> tuple[Array, Timing, float]:
    """Run a script on arrays; it writes ``values`` and the line "wall cpu peak_mb"."""
    with tempfile.TemporaryDirectory() as folder:
        for name, array in arrays.items():
            form = "%d" if array.dtype.kind == "i" else "%.17g"
            np.savetxt(Path(folder) / name, array, fmt=form)
        line = _rscript(str(_SCRIPTS / script), folder).splitlines()[-1]
        wall, cpu, peak = (float(word) for word in line.replace("NA", "nan").split())
        values = Path(folder) / "values"
        return (np.loadtxt(values, ndmin=2) if values.exists() else np.empty((0, 2))), Timing(wall, cpu), peak


def _loads(package: str) -> bool:
    command = ["Rscript", "-e", f'quit(status = !requireNamespace("{package}", quietly = TRUE))']
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _rscript(*arguments: str) -> str:
    return subprocess.run(["Rscript", *arguments], capture_output=True, text=True, check=True).stdout
