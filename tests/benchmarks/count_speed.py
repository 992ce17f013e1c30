"""How fast: the mixed model of counts, beside the programs for counts in R."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

import sc_lmm as sl

from . import data, peers_r
from .bench import Bench, Outcome, Section, say
from .measure import Timing, cpu, interleave, wall
from .plan import GROUP, TEST

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMULA = f"~ {TEST} + (1 | {GROUP})"  # constant within donors, as the other programs have it
_GENES_OF_NEBULA = 20


def counts(bench: Bench) -> Section:
    """Time the whole call on counts and on expression, and edgeR and NEBULA where R has them."""
    of_counts = AnnData(data.counts(bench.path(bench.plan.size), bench.adata), bench.adata.obs, bench.adata.var)
    calls = {
        "counts": lambda: _call(of_counts, family="nb", n_jobs=2),
        "counts, one worker": lambda: _call(of_counts, family="nb"),
        "expression": lambda: _call(bench.adata),
    }
    times: dict[str, Sequence[Timing]] = dict(interleave(calls, bench.plan.rounds))
    own, n_genes = times["counts"], bench.adata.n_vars
    outcomes = [Outcome("16", "counts, whole call", wall(own), "s", bench.limit(3.0), cpu=cpu(own))]
    rows = [_row(name, timings, n_genes) for name, timings in times.items()]
    for name, package, n_fitted in (("edgeR", "edgeR", n_genes), ("NEBULA", "nebula", _GENES_OF_NEBULA)):
        reason = peers_r.missing(package)
        if reason is not None:
            rows.append({"call": name, "skipped": reason})
            continue
        say(name)
        timing = _edger(of_counts) if name == "edgeR" else _nebula(of_counts)
        rows.append(_row(name, [timing], n_fitted))
        share = timing.cpu / n_fitted / (cpu(own) / n_genes)
        limit = bench.limit(300.0) if name == "NEBULA" else None
        outcomes.append(Outcome("16", f"{name} / counts, CPU per gene", share, "x", limit, at_least=True))
    return Section(outcomes, rows)


def _call(adata: AnnData, **choices: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sl.tl.lmm_de(adata, _FORMULA, TEST, show_progress=False, **choices)


def _edger(adata: AnnData) -> Timing:
    codes = adata.obs[GROUP].cat.codes.to_numpy(np.int64)
    diagnosis = adata.obs[TEST].cat.codes.to_numpy(float)
    return peers_r.edger(adata.X, codes, diagnosis[np.unique(codes, return_index=True)[1]])[0]


def _nebula(adata: AnnData) -> Timing:
    """Some genes that at least 1 % of the cells express."""
    codes = adata.obs[GROUP].cat.codes.to_numpy(np.int64)
    X = adata.X.tocsc()
    expressed = np.flatnonzero(np.diff(X.indptr) >= 0.01 * adata.n_obs)
    genes = np.sort(np.random.default_rng(5).choice(expressed, _GENES_OF_NEBULA, replace=False))
    design = np.column_stack([adata.obs[TEST].cat.codes, codes, np.asarray(adata.X.sum(axis=1)).ravel()])
    order = np.argsort(codes, kind="stable")  # NEBULA wants the cells of a donor together
    return peers_r.nebula(design[order].astype(float), X[:, genes].toarray()[order].astype(int))[0]


def _row(name: str, times: Sequence[Timing], n_genes: int) -> dict[str, Any]:
    return {"call": name, "wall s": wall(times), "CPU s": cpu(times), "CPU s per 1,000": 1000 * cpu(times) / n_genes}
