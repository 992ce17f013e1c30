"""Cohorts on disk, built once, and the layouts in which a matrix can be held."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from numpy.typing import NDArray

    from .plan import Size

_DEPTH_PER_GENE = 6_000 / 36_000
# Change where cohorts are kept (0.8 GB each at full size) with this variable.
CACHE = Path(os.environ.get("SC_LMM_BENCH_CACHE", Path(__file__).parent / ".cache"))


def cohort_path(size: Size) -> Path:
    """File of a cohort; its name changes with the code that simulates it, so that no stale data are used."""
    from sc_lmm import datasets

    source = Path(datasets.__file__).with_name("_brain_cohort.py").read_bytes()
    version = hashlib.sha256(source + repr(_DEPTH_PER_GENE).encode()).hexdigest()[:8]
    return CACHE / f"cohort_{size.n_cells}x{size.n_genes}_{size.n_donors}donors_{version}.h5ad"


def build(path: Path, size: Size) -> None:
    """Simulate a cohort: log-normalised CSR float32, and beside it the counts of the same stored entries."""
    from sc_lmm.datasets import brain_cohort

    # Depth in proportion to the genes keeps the share of stored entries near 8 % at any size.
    depth = _DEPTH_PER_GENE * size.n_genes
    adata = brain_cohort(size.n_donors, size.n_cells, size.n_genes, library_size=depth)
    counts = adata.layers.pop("counts")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(counts_path(path), counts.data)
    unfinished = path.with_suffix(".unfinished")
    adata.write_h5ad(unfinished)
    unfinished.rename(path)


def counts_path(path: Path) -> Path:
    """Where the counts of a cohort are."""
    return path.with_suffix(".counts.npy")


def load(path: Path | str) -> AnnData:
    """Read a cohort into memory."""
    import anndata

    return anndata.read_h5ad(path)


def counts(path: Path | str, adata: AnnData) -> sparse.csr_matrix:
    """Counts of a cohort, sharing the indices of its X."""
    values = np.load(counts_path(Path(path)))
    return sparse.csr_matrix((values, adata.X.indices, adata.X.indptr), shape=adata.shape)


def _replace_X(change: Callable[[Any], Any]) -> Callable[[AnnData], tuple[AnnData, dict[str, Any]]]:
    def laid_out(adata: AnnData) -> tuple[AnnData, dict[str, Any]]:
        adata.X = change(adata.X)
        return adata, {}

    return laid_out


def _dense(order: str, dtype: type = np.float32) -> Callable[[Any], NDArray[Any]]:
    return lambda X: X.astype(dtype).toarray(order=order)


def _wide_indices(X: Any) -> Any:
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def _unsorted(X: Any) -> Any:
    """Reverse the entries of every row in place of sorting them."""
    ends = X.indptr
    order = np.repeat(ends[:-1] + ends[1:] - 1, np.diff(ends)) - np.arange(X.nnz)
    X.data, X.indices = X.data[order], X.indices[order]
    X.has_sorted_indices = False
    return X


def _view(adata: AnnData) -> tuple[AnnData, dict[str, Any]]:
    """Take nine cells in ten. AnnData itself copies a view twice when anything is written to it, by any tool."""
    return adata[np.arange(adata.n_obs) % 10 > 0], {}


def _masked(adata: AnnData) -> tuple[AnnData, dict[str, Any]]:
    return adata, {"mask_var": np.arange(adata.n_vars) % 2 == 0}


# Name -> how to lay out a loaded CSR cohort, and the arguments of the call. Dense ones are cut to fewer genes before.
LAYOUTS: dict[str, Callable[[AnnData], tuple[AnnData, dict[str, Any]]]] = {
    "CSR float32": lambda adata: (adata, {}),
    "CSC float32": _replace_X(lambda X: X.tocsc()),
    "CSR float64": _replace_X(lambda X: X.astype(np.float64)),
    "CSR int32": _replace_X(lambda X: X.astype(np.int32)),
    "CSR int64 indices": _replace_X(_wide_indices),
    "CSR unsorted": _replace_X(_unsorted),
    "CSR view": _view,
    "CSR masked genes": _masked,
    "dense C float32": _replace_X(_dense("C")),
    "dense F float32": _replace_X(_dense("F")),
    "dense C float64": _replace_X(_dense("C", np.float64)),
    "dense C int32": _replace_X(_dense("C", np.int32)),
    "dense view": lambda adata: _view(_replace_X(_dense("C"))(adata)[0]),
    "dense masked genes": lambda adata: _masked(_replace_X(_dense("C"))(adata)[0]),
}
