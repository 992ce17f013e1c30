"""Other programs for the same question. Each is used if it is installed and skipped, with the reason, if not.

    pip install scanpy statsmodels flash-mm mixedlm-rs lme-python polars
    R: install.packages("lme4"); BiocManager::install(c("limma", "edgeR"))

A peer is prepared (imports, formats that it wants) before the clock starts, and used as its documentation advises for
many responses of one design. Two models per gene, full and null, as sc_lmm fits.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from . import peers_r
from .data import counts
from .plan import COVARIATE, FORMULA, GROUP, TEST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from .measure import Timing

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """The genes that a peer is given, with the design as plain arrays."""

    adata: AnnData
    path: Path  # of the cohort
    genes: NDArray[np.int64]  # (g,) positions of the genes fitted
    Y: Any  # (n, g) their expression, CSC float64
    X: Array  # (n, 3) constant, covariate, diagnosis as 0 and 1
    codes: NDArray[np.int64]  # (n,) donor

    @property
    def null_X(self) -> Array:
        """Fixed effects without diagnosis, (n, 2)."""
        return self.X[:, :-1]

    def column(self, j: int) -> Array:
        """Expression of one gene, (n,)."""
        return np.asarray(self.Y[:, [j]].toarray()).ravel()


class Answer(NamedTuple):
    """What a peer returns; the clock and the memory of a peer in another process are its own."""

    loglik: Array | None  # (g, 2) full and null, None if it is another model
    timing: Timing | None = None
    peak_mb: float | None = None


class Peer(NamedTuple):
    """One program."""

    missing: Callable[[], str | None]  # why it cannot be used, None if it can
    prepare: Callable[[Problem], Callable[[], Answer]]
    mixed_model: bool  # the same model, so that likelihoods must agree


def problem(adata: AnnData, path: Path, n_genes: int | None) -> Problem:
    """Choose genes that at least 50 cells express, at random, and lay out the design."""
    X = adata.X.tocsc()
    expressed = np.flatnonzero(np.diff(X.indptr) >= 50)
    n_genes = min(n_genes or 50, expressed.size)
    genes = np.sort(np.random.default_rng(5).choice(expressed, n_genes, replace=False))
    diagnosis = adata.obs[TEST].cat.codes.to_numpy(float)
    design = np.column_stack([np.ones(adata.n_obs), adata.obs[COVARIATE].to_numpy(float), diagnosis])
    codes = adata.obs[GROUP].cat.codes.to_numpy(np.int64)
    return Problem(adata, path, genes, X[:, genes].astype(np.float64), design, codes)


def _per_gene(problem: Problem, fit: Callable[[Array], tuple[float, float]]) -> Answer:
    """Fit gene by gene; one that fails is NaN. Systems this small are solved fastest by one BLAS thread."""
    loglik = np.full((problem.genes.size, 2), np.nan)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        for j in range(problem.genes.size):
            try:
                loglik[j] = fit(problem.column(j))
            except (ArithmeticError, RuntimeError, ValueError):  # LinAlgError is a ValueError
                continue
    return Answer(loglik)


def _scanpy(problem: Problem) -> Callable[[], Answer]:
    import scanpy as sc

    def run() -> Answer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sc.tl.rank_genes_groups(problem.adata, TEST, method="t-test")
        return Answer(None)

    return run


def _statsmodels(problem: Problem) -> Callable[[], Answer]:
    from statsmodels.regression.mixed_linear_model import MixedLM

    def fit(y: Array) -> tuple[float, float]:
        models = (MixedLM(y, X, problem.codes) for X in (problem.X, problem.null_X))
        full, null = (model.fit(reml=False, method="powell").llf for model in models)
        return full, null

    return lambda: _per_gene(problem, fit)


def _flash_mm(problem: Problem) -> Callable[[], Answer]:
    """Its own statistics need a dense matrix, so they are given as sums of the sparse one."""
    from flash_mm import lmm

    n, q = problem.codes.size, int(problem.codes.max()) + 1
    Z = np.zeros((n, q))
    Z[np.arange(n), problem.codes] = 1.0

    def fit(X: Array, ZtY: Array, yty: Array) -> Array:
        sums = (X.T @ X, (problem.Y.T @ X).T, Z.T @ X, ZtY, Z.T @ Z, yty)
        return np.ravel(lmm(*sums, n, [q], method="ML")["logLik"])

    def run() -> Answer:
        ZtY = np.asarray(problem.Y.T @ Z).T
        yty = np.asarray(problem.Y.multiply(problem.Y).sum(axis=0)).ravel()
        with warnings.catch_warnings(), np.errstate(all="ignore"), threadpool_limits(1):
            warnings.simplefilter("ignore")
            return Answer(np.column_stack([fit(X, ZtY, yty) for X in (problem.X, problem.null_X)]))

    return run


def _mixedlm_rs(problem: Problem) -> Callable[[], Answer]:
    from mixedlm_rs import MixedLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [MixedLM(problem.column(0), X, problem.codes) for X in (problem.X, problem.null_X)]

    def fit(y: Array) -> tuple[float, float]:
        full, null = (model.with_endog(y).fit(reml=False).llf for model in models)
        return full, null

    return lambda: _per_gene(problem, fit)


def _lme_python(problem: Problem) -> Callable[[], Answer]:
    import polars as pl
    from lme_python import prepare_lmer

    donors = [f"d{code:04d}" for code in problem.codes]
    frame = pl.DataFrame({"y": problem.column(0), "x": problem.X[:, 1], "d": problem.X[:, 2], "donor": donors})
    models = [prepare_lmer(formula, frame) for formula in ("y ~ x + d + (1|donor)", "y ~ x + (1|donor)")]

    def fit(y: Array) -> tuple[float, float]:
        values = y.tolist()
        full, null = (model.fit(y=values, reml=False).log_likelihood for model in models)
        return full, null

    return lambda: _per_gene(problem, fit)


def _lme4(problem: Problem) -> Callable[[], Answer]:
    Y = np.column_stack([problem.column(j) for j in range(problem.genes.size)])
    return lambda: Answer(*peers_r.lme4(problem.X, problem.codes, Y))


def _voom(problem: Problem) -> Callable[[], Answer]:
    matrix = counts(problem.path, problem.adata)
    of_donor = np.unique(problem.codes, return_index=True)[1]
    return lambda: Answer(None, *peers_r.voom(matrix, problem.codes, problem.X[of_donor, -1]))


def _python(*modules: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        absent = [module for module in modules if find_spec(module) is None]
        return f"{', '.join(absent)} not installed" if absent else None

    return missing


PEERS: dict[str, Peer] = {
    "scanpy t-test": Peer(_python("scanpy"), _scanpy, mixed_model=False),
    "limma-voom pseudobulk": Peer(lambda: peers_r.missing("limma", "edgeR"), _voom, mixed_model=False),
    "flash-mm": Peer(_python("flash_mm"), _flash_mm, mixed_model=True),
    "lme-python": Peer(_python("lme_python", "polars"), _lme_python, mixed_model=True),
    "mixedlm-rs": Peer(_python("mixedlm_rs"), _mixedlm_rs, mixed_model=True),
    "lme4": Peer(lambda: peers_r.missing("lme4"), _lme4, mixed_model=True),
    "statsmodels": Peer(_python("statsmodels"), _statsmodels, mixed_model=True),
}
QUESTION = f"{FORMULA}, tested for {TEST}"
