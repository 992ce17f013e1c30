"""Expression of some genes of any scale, and an AnnData that holds it in any layout."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .columns import Term

    Array = NDArray[Any]
    Rng = np.random.Generator

N_GENES = 6
_FORMS = ("C", "F", "csr", "csr_array", "csc", "csc_array", "dask", "backed", "backed csr")


def draw_genes(rng: Rng, donor: Array, terms: list[Term]) -> Array:
    """Genes (n, G): donors 0 to 1e6 times as far apart as cells, about a mean up to 1e8 times their spread, of any unit."""
    n, m = donor.size, int(donor.max()) + 1
    n_genes = N_GENES if rng.random() < 0.96 else 210  # from which on lmm_de learns from all genes
    Y = np.empty((n, n_genes))
    for g in range(n_genes):
        ratio = rng.choice([0.0, 0.1, 1.0, 10.0, 1e3, 1e6], p=[0.2, 0.25, 0.3, 0.1, 0.1, 0.05])
        mean = rng.choice([0.0, 2.0, -5.0, 1e3, 1e8], p=[0.2, 0.4, 0.2, 0.12, 0.08])
        Y[:, g] = mean + ratio * rng.normal(size=m)[donor] + rng.normal(size=n)
        if rng.random() < 0.3:
            column = np.nan_to_num(terms[rng.integers(len(terms))].spans[0])
            Y[:, g] += 10.0 ** rng.integers(-1, 6) * (column - column.mean()) / max(np.ptp(column), 1e-300)
    special = rng.random(n_genes)
    Y[:, special < 0.04] = rng.choice([0.0, 0.1, -7.0])
    Y[rng.random(n) < 0.7, np.argmax(special)] = 0.0
    if rng.random() < 0.08:
        Y[:, 0] = rng.normal(size=m)[donor]  # no variation within donors
    if rng.random() < 0.08:
        Y[:, 1] = np.tile([-1.0, 1.0], n)[:n] + 1e5 * (donor % 2)  # donors parted
    if rng.random() < 0.3:
        Y *= 10.0 ** rng.uniform(-149, 140)
    return Y


def laid_out(rng: Rng, Y: Array, obs: pd.DataFrame) -> tuple[ad.AnnData, dict[str, Any], Array, list[ad.AnnData]]:
    """AnnData with this expression, how to read it, the expression of the genes that are read, and a view's parent."""
    largest = np.abs(Y).max()
    dtype = "float64"
    if 1e-3 < largest < 1e4 and rng.random() < 0.3:
        dtype = str(rng.choice(["float32", "int64", "int32", "int16"]))
        Y = np.rint(3 * Y) if dtype.startswith("int") else Y
    Y = Y.astype(dtype)
    form = str(rng.choice(_FORMS))
    reading: dict[str, Any] = {}
    parents: list[ad.AnnData] = []
    var = pd.DataFrame(index=pd.Index([f"g{g}" if g % 3 else f"gène {g}/é" for g in range(Y.shape[1])]))
    place = str(rng.choice(["X", "layer", "raw", "view"], p=[0.5, 0.2, 0.1, 0.2]))
    if form.startswith("backed"):
        adata = backed(Y if form == "backed" else sparse.csr_matrix(Y), obs, var)
    elif place == "layer":
        adata = ad.AnnData(np.ones(Y.shape), obs=obs, var=var, layers={"log | é": formed(Y, form)})
        reading["layer"] = "log | é"
    elif place == "raw":
        adata = ad.AnnData(formed(Y, form if form != "dask" else "csr"), obs=obs, var=var)
        adata.raw = adata.copy()
        adata.X = np.ones(Y.shape)
        reading["use_raw"] = True
    elif place == "view":
        rows, columns = rng.permutation(2 * len(obs))[: len(obs)], rng.permutation(Y.shape[1] + 3)[: Y.shape[1]]
        wide = np.ones((2 * len(obs), Y.shape[1] + 3), dtype=dtype)
        wide[np.ix_(rows, columns)] = Y
        parents.append(_wide(formed(wide, form), obs, var, rows, columns))
        adata = parents[0][rows, columns]
    else:
        adata = ad.AnnData(formed(Y, form), obs=obs, var=var)
    if rng.random() < 0.3 and place != "view":
        mask = rng.random(Y.shape[1]) < 0.7
        mask[rng.integers(Y.shape[1])] = True
        adata.var["keep é"] = mask
        shuffled = pd.Series(mask, index=var.index).iloc[rng.permutation(Y.shape[1])]
        reading["mask_var"] = [mask, "keep é", shuffled][rng.integers(3)]
        Y = Y[:, mask]
    if rng.random() < 0.5 and place != "view":
        adata.uns["log1p"] = {"base": None}
    return adata, reading, Y.astype(np.float64), parents


def _wide(matrix: Any, obs: pd.DataFrame, var: pd.DataFrame, rows: Array, columns: Array) -> ad.AnnData:
    """AnnData of which ours is a view: other cells and genes between."""
    n, G = matrix.shape
    position = np.zeros(n, dtype=int)
    position[rows] = np.arange(len(obs))
    more = obs.iloc[position].copy()
    more.index = pd.Index([f"wide{i}" for i in range(n)])
    names = np.array([f"other{i}" for i in range(G)], dtype=object)
    names[columns] = var.index
    return ad.AnnData(matrix, obs=more, var=pd.DataFrame(index=pd.Index(names)))


def formed(Y: Array, form: str) -> Any:
    """Matrix in a layout."""
    if form == "dask":
        try:
            import dask.array as da
        except ImportError:
            return Y
        return da.from_array(Y, chunks=(17, -1))
    if form.startswith("cs"):
        return getattr(sparse, form if form.endswith("array") else f"{form}_matrix")(Y)
    return np.array(Y, order="F" if form == "F" else "C")


_FOLDER = tempfile.TemporaryDirectory(prefix="sc_lmm_fuzz")


def backed(X: Any, obs: pd.DataFrame, var: pd.DataFrame) -> ad.AnnData:
    """AnnData whose matrix is in a file that this process removes at its end."""
    path = Path(_FOLDER.name) / f"{os.getpid()}.h5ad"
    path.unlink(missing_ok=True)
    ad.AnnData(X, var=var, obs=pd.DataFrame(index=obs.index)).write_h5ad(path)
    adata = ad.read_h5ad(path, backed="r")
    adata.obs = obs
    return adata
