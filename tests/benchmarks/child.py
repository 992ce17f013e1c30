"""Tasks for a fresh process: ``python -m benchmarks.child TASK JSON`` prints its result as JSON on the last line."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Sub-modules included: what sc_lmm's own code is timed beyond.
_DEPENDENCIES = (
    "anndata",
    "formulaic",
    "joblib",
    "natsort",
    "numba",
    "numpy",
    "pandas",
    "scipy.linalg",
    "scipy.sparse",
    "scipy.special",
    "scipy.stats",
    "statsmodels.stats.multitest",
    "threadpoolctl",
    "tqdm.auto",
)
_UNWANTED = ("matplotlib", "dask", "scanpy")


def build_cohort(path: str, size: dict[str, int]) -> dict[str, Any]:
    """Simulate a cohort into a file; its memory is returned to the system with the process."""
    from .data import build
    from .plan import Size

    build(Path(path), Size(**size))
    return {}


def import_time() -> dict[str, Any]:
    """Seconds to import sc_lmm once its dependencies are there, and what was loaded that should not be."""
    start = time.perf_counter()
    for name in _DEPENDENCIES:
        importlib.import_module(name)
    loaded = set(sys.modules)
    middle = time.perf_counter()
    importlib.import_module("sc_lmm")
    own = time.perf_counter() - middle
    return {
        "own": own,
        "dependencies": middle - start,
        "unwanted": [name for name in _UNWANTED if name in sys.modules],
        "unwanted_by_dependencies": [name for name in _UNWANTED if name in loaded],
        "modules": sorted(name for name in set(sys.modules) - loaded if not name.startswith("sc_lmm")),
    }


def first_call(path: str) -> dict[str, Any]:
    """Seconds of the first and the second call, and the memory that the first took with its compilation."""
    from .data import load

    adata = load(path)
    from .engine import call
    from .measure import peak_mb, time_call

    times: list[float] = []
    peak = peak_mb(lambda: times.append(time_call(lambda: call(adata)).wall))
    return {"first": times[0], "second": time_call(lambda: call(adata)).wall, "peak_mb": peak}


def memory(path: str, layout: str, n_genes: int, small: str, *, write: bool = True) -> dict[str, Any]:
    """Peak memory of the whole call above a loaded matrix of some layout, compiled code loaded before."""
    from .data import LAYOUTS, load
    from .engine import call
    from .measure import peak_mb, time_call

    warm, arguments = LAYOUTS[layout](load(small))
    call(warm, **arguments)
    adata = load(path)
    if n_genes < adata.n_vars:
        adata = adata[:, :n_genes].copy()
    adata, arguments = LAYOUTS[layout](adata)
    if not write:
        importlib.import_module("sc_lmm.tl._lmm_de").write_results = lambda *_: None
    matrix_mb, seconds = _matrix_mb(adata), list[float]()
    peak = peak_mb(lambda: seconds.append(time_call(lambda: call(adata, **arguments)).wall))
    return {"peak_mb": peak, "seconds": seconds[0], "matrix_mb": matrix_mb, "shape": list(adata.shape)}


def peer(path: str, name: str, n_genes: int | None, rounds: int) -> dict[str, Any]:
    """Time a peer in turn with sc_lmm, and compare both with the exact likelihood ratios."""
    from . import engine
    from .data import load
    from .measure import interleave, peak_mb
    from .peers import PEERS, Answer, problem

    adata = load(path)
    task, model = problem(adata, Path(path), n_genes), engine.prepare(adata)
    run = PEERS[name].prepare(task)
    answers: list[Answer] = []
    peak = peak_mb(lambda: answers.append(run()))
    ours = {"fits": lambda: engine.fit(model), "call": lambda: engine.call(adata)}
    timings = interleave({**ours, "peer": lambda: answers.append(run())}, rounds, warm_up=False)
    own_clock = [answer.timing for answer in answers[1:] if answer.timing is not None]
    return {
        "timings": {**timings, "peer": own_clock or timings["peer"]},
        "peak_mb": peak if answers[0].peak_mb is None else answers[0].peak_mb,
        "own_peak_mb": peak_mb(lambda: engine.call(adata)),
        "n_genes": adata.n_vars if n_genes is None else task.genes.size,
        **({} if answers[0].loglik is None else _agreement(task, answers[0].loglik, model)),
    }


def _agreement(task: Any, loglik: Any, model: Any) -> dict[str, Any]:
    """How far the likelihood ratios of a peer and of sc_lmm are from the exact ones."""
    import numpy as np

    from .engine import likelihood_ratios
    from .exact import Oracle

    oracles = [Oracle(X, task.codes) for X in (task.X, task.null_X)]
    columns = [task.column(j) for j in range(task.genes.size)]
    exact = 2 * np.subtract(*(np.array([oracle.loglik(y) for y in columns]) for oracle in oracles))
    found = {"peer": 2 * (loglik[:, 0] - loglik[:, 1]), "own": likelihood_ratios(model)[task.genes]}
    result: dict[str, Any] = {}
    for who, ratios in found.items():
        off = np.abs(ratios - exact)
        finite = np.isfinite(off)
        result[f"{who}_max_off"] = float(off[finite].max()) if finite.any() else None
        result[f"{who}_share_off"] = float(np.mean(~(off <= 0.01)))
        result[f"{who}_failed"] = int((~finite).sum())
    return result


def _matrix_mb(adata: Any) -> float:
    from scipy import sparse

    X = (adata._adata_ref if adata.is_view else adata).X
    parts = (X.data, X.indices, X.indptr) if sparse.issparse(X) else (X,)
    return sum(part.nbytes for part in parts) / 2**20


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    task.__name__: task for task in (build_cohort, import_time, first_call, memory, peer)
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
