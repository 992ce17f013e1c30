"""How fast: the whole call, the visit of the matrix, the fits, and the first call of a process."""

from __future__ import annotations

import tempfile
import warnings
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING, Any

from sc_lmm._design.model_matrix import build_design

from . import engine
from .bench import Bench, Outcome, Section
from .data import load
from .measure import cpu, interleave, ratio, run_child, wall
from .plan import FORMULA, TEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .measure import Timing


def call(bench: Bench) -> Section:
    """Time the whole call beside scanpy's t-test, and its steps."""
    adata, model = bench.adata, bench.model
    steps = {
        "tl.lmm_de": lambda: engine.call(adata),
        "design": lambda: build_design(FORMULA, adata.obs),
        "pass": lambda: engine.read(adata, model.design),
        "fits": lambda: engine.fit(model),
    }
    steps["tl.lmm_de, no intervals"] = lambda: engine.call(adata, conf_level=None)
    steps["tl.lmm_de, ratio test alone"] = lambda: engine.call(adata, conf_level=None, calibrate=False)
    if find_spec("scanpy"):
        steps["scanpy t-test"] = lambda: t_test(adata)
    times = interleave(steps, bench.plan.rounds)
    own = times["tl.lmm_de"]
    outcomes = [Outcome("1", "whole call", wall(own), "s", bench.limit(3.0), cpu=cpu(own))]
    for name in [name for name in times if name.startswith("tl.lmm_de") and "scanpy t-test" in times]:
        share = ratio(times[name], times["scanpy t-test"])
        outcomes.append(Outcome("1", f"{name} / scanpy t-test", share.wall, "x", bench.limit(0.25), cpu=share.cpu))
    return Section(outcomes, [_row(name, timings) for name, timings in times.items()])


def visit(bench: Bench) -> Section:
    """Time the statistics beside one streaming read of what is stored."""
    adata, model = bench.adata, bench.model
    calls = {"pass": lambda: engine.read(adata, model.design), "streaming read": lambda: read_once(adata.X)}
    times = interleave(calls, bench.plan.rounds * 3)
    share = ratio(times["pass"], times["streaming read"])
    outcome = Outcome("2", "pass / streaming read", share.wall, "x", bench.limit(10.0), cpu=share.cpu)
    return Section([outcome], [_row(*item) for item in times.items()])


def fits(bench: Bench) -> Section:
    """Time the full and the null fit of all genes; the ratio to peers is in their section."""
    times = interleave({"both fits": lambda: engine.fit(bench.model)}, bench.plan.rounds)["both fits"]
    outcome = Outcome("3", "both fits of all genes", wall(times), "s", bench.limit(1.0), cpu=cpu(times))
    return Section([outcome], [_row("both fits", times)])


def cells(bench: Bench) -> Section:
    """Compare with twice the cells: each cell once more, with the same donors."""
    from anndata import AnnData, concat

    half = AnnData(bench.adata.X, obs=bench.adata.obs, var=bench.adata.var)
    double = concat([half, half], index_unique="-")
    models = {"half": bench.model, "double": engine.prepare(double)}
    passes = interleave(
        {
            "half": lambda: engine.read(half, models["half"].design),
            "double": lambda: engine.read(double, models["double"].design),
        },
        bench.plan.rounds,
    )
    fit_times = interleave({name: _fit_of(model) for name, model in models.items()}, bench.plan.rounds)
    return Section(
        [
            _growth("pass, twice the cells", passes["double"], passes["half"], 2.2),
            _growth("fits, twice the cells", fit_times["double"], fit_times["half"], 1.1),
        ]
    )


def donors(bench: Bench) -> Section:
    """Compare the fits with more donors, and see that the largest number works and in what memory."""
    models, paths = {}, {}
    for n_donors in bench.plan.donors:
        paths[n_donors] = bench.path(bench.plan.with_donors(n_donors))
        models[n_donors] = engine.prepare(load(paths[n_donors]))  # its statistics; the cohort is not kept
    times = interleave({str(n): _fit_of(model) for n, model in models.items()}, bench.plan.rounds)
    few, *more = (str(n) for n in bench.plan.donors)
    outcomes = [_growth(f"fits, {n} donors / {few}", times[n], times[few], 6.0 if n == "200" else None) for n in more]
    rows = []
    for n_donors, path in paths.items():
        size = {"path": str(path), "layout": "CSR float32", "n_genes": bench.plan.size.n_genes}
        child = run_child("memory", **size, small=str(bench.path(bench.plan.first_call)))
        statistics_mb = n_donors * bench.plan.size.n_genes * 8 / 2**20
        figures = {"whole call s": child["seconds"], "peak MB": child["peak_mb"], "Z'Y alone MB": statistics_mb}
        rows.append({"donors": n_donors, "fits s": wall(times[str(n_donors)]), **figures})
    outcomes.append(Outcome("5", f"peak memory, {bench.plan.donors[-1]} donors", rows[-1]["peak MB"], "MB"))
    return Section(outcomes, rows)


def first(bench: Bench) -> Section:
    """Time the first call of a fresh process, with nothing compiled on disk and with everything."""
    path = str(bench.path(bench.plan.first_call))
    with tempfile.TemporaryDirectory() as cache:
        children = {
            state: run_child("first_call", {"NUMBA_CACHE_DIR": cache}, path=path)
            for state in ("nothing compiled", "compiled on disk")
        }
    rows = [
        {"first call": state, **child, "extra": child["first"] - child["second"]} for state, child in children.items()
    ]
    limits = {"nothing compiled": 3.0, "compiled on disk": None}
    outcomes = [
        Outcome("6", f"first call above a warm one, {row['first call']}", row["extra"], "s", limits[row["first call"]])
        for row in rows
    ]
    return Section(outcomes, rows)


def importing(bench: Bench) -> Section:
    """Time the import of the package alone."""
    children = [run_child("import_time") for _ in range(max(3, bench.plan.rounds))]
    own = median(child["own"] for child in children)
    # Where dask is installed, anndata loads it before sc_lmm could.
    unwanted = [name for name in children[0]["unwanted"] if name not in children[0]["unwanted_by_dependencies"]]
    rows = [{key: children[0][key] for key in ("unwanted", "unwanted_by_dependencies", "modules")}]
    return Section(
        [
            Outcome("7", "import beyond its dependencies", own, "s", 0.3),
            Outcome(
                "7",
                f"matplotlib, dask, scanpy loaded by sc_lmm ({', '.join(unwanted) or 'none'})",
                len(unwanted),
                "",
                0,
            ),
        ],
        rows,
    )


def t_test(adata: Any) -> None:
    """Run scanpy's t-test of the same question, which takes cells for independent."""
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.tl.rank_genes_groups(adata, TEST, method="t-test")


def read_once(X: Any) -> None:
    """Stream over what is stored: the floor of any method that looks at every entry."""
    X.data.sum()
    X.indices.max()


def _fit_of(model: engine.Model) -> Callable[[], object]:
    return lambda: engine.fit(model)


def _growth(what: str, above: Sequence[Timing], below: Sequence[Timing], limit: float | None) -> Outcome:
    share = ratio(above, below)
    return Outcome("5", what, share.wall, "x", limit, cpu=share.cpu)


def _row(name: str, timings: Sequence[Timing]) -> dict[str, Any]:
    return {"step": name, "wall s": wall(timings), "CPU s": cpu(timings)}
