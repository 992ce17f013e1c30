"""AnnData -> the expression matrix that is meant, as it is stored: nothing is copied, not even of a view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._errors import alternatives, listing

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_FIRST_CELLS = 20  # enough to tell on which scale a layer is


@dataclass(frozen=True)
class Expression:
    """The expression matrix as stored, and which of it is meant."""

    matrix: Any  # cells x genes, as stored
    rows: NDArray[np.int64]  # (n_obs,) rows of the cells of adata
    columns: NDArray[np.int64]  # (n_genes,) columns of the genes to test
    present: NDArray[np.int64]  # columns of all genes of adata that it has, ascending
    tested: NDArray[np.bool_]  # (n_vars,) the genes to test among those of adata
    var_names: pd.Index  # (n_genes,) of the genes to test
    log_base: float | None  # base of the declared logarithm, e for log1p; None if none is declared


def read_expression(adata: AnnData, *, layer: str | None, use_raw: bool, mask_var: Any) -> Expression:
    """Find the matrix that `layer` and `use_raw` mean and the genes that `mask_var` selects."""
    if 0 in adata.shape:
        msg = f"adata is empty: {adata.n_obs} cells x {adata.n_vars} genes."
        raise ValueError(msg)
    if use_raw:
        matrix, rows, columns = _raw(adata, layer)
    else:
        matrix, rows, columns = _stored(adata, layer)
    tested = _mask(adata, mask_var)
    missing = columns < 0
    if (missing & tested).any():
        msg = f"adata.raw lacks genes of adata, or has them several times: {listing(adata.var_names[missing & tested])}. Use use_raw=False."
        raise ValueError(msg)
    return Expression(
        matrix=matrix,
        rows=rows,
        columns=columns[tested],
        present=np.unique(columns[~missing]),
        tested=tested,
        var_names=adata.var_names[tested],
        log_base=_log_base(adata, layer, matrix),
    )


def _stored(adata: AnnData, layer: str | None) -> tuple[Any, NDArray[np.int64], NDArray[np.int64]]:
    layers = [name for name in adata.layers if name is not None]  # anndata 0.13 has X there under None
    if layer is not None and layer not in layers:
        msg = f"layer={layer!r} is not in adata.layers. {alternatives(str(layer), layers)}"
        raise KeyError(msg)
    # A view's own X would be a copy of the selected part, so the parent is read at the view's positions.
    parent = adata._adata_ref if adata.is_view else adata
    matrix = parent.X if layer is None else parent.layers[layer]
    if matrix is None:
        msg = f"adata.X is empty. Name a layer with layer=. {alternatives('', layers)}"
        raise ValueError(msg)
    rows, columns = np.arange(parent.n_obs), np.arange(parent.n_vars)
    return (matrix, rows[adata._oidx], columns[adata._vidx]) if adata.is_view else (matrix, rows, columns)


def _raw(adata: AnnData, layer: str | None) -> tuple[Any, NDArray[np.int64], NDArray[np.int64]]:
    if layer is not None:
        msg = f"use_raw=True and layer={layer!r} name two matrices. Give one of them."
        raise ValueError(msg)
    if adata.raw is None:
        msg = "use_raw=True, but adata.raw is empty. Set adata.raw or use use_raw=False."
        raise ValueError(msg)
    columns = np.arange(adata.raw.n_vars)
    if not adata.raw.var_names.equals(adata.var_names):
        # A name that adata.raw has several times cannot be matched and counts as missing.
        single = columns[~adata.raw.var_names.duplicated(keep=False)]
        found = adata.raw.var_names[single].get_indexer(adata.var_names)
        columns = np.where(found < 0, -1, np.append(single, -1)[found])
    return adata.raw.X, np.arange(adata.n_obs), columns


def _mask(adata: AnnData, mask_var: Any) -> NDArray[np.bool_]:
    if mask_var is None:
        return np.ones(adata.n_vars, dtype=bool)
    if isinstance(mask_var, str):
        if mask_var not in adata.var:
            msg = f"mask_var={mask_var!r} is not a column of adata.var. {alternatives(mask_var, adata.var.columns)}"
            raise KeyError(msg)
        mask_var = adata.var[mask_var]
    mask = _by_label(mask_var, adata.var_names)
    if mask.dtype != bool or mask.shape != (adata.n_vars,):
        msg = (
            f"mask_var must be a boolean per gene, shape ({adata.n_vars},), not {mask.dtype} of shape {mask.shape}. "
            f"Give an array, a Series with the names of genes, or the name of a column of adata.var."
        )
        raise ValueError(msg)
    if not mask.any():
        msg = "mask_var selects no gene."
        raise ValueError(msg)
    return mask


def _by_label(mask: Any, var_names: pd.Index) -> NDArray[Any]:
    """Values in the order of the genes: by their labels if they have any, which must then name every gene once."""
    mask = pd.Series(mask) if isinstance(mask, Mapping) else mask.to_series() if hasattr(mask, "coords") else mask
    if not isinstance(mask, pd.Series):
        return np.asarray(mask)
    if not mask.index.equals(var_names):
        wrong = {
            "no value": var_names[~var_names.isin(mask.index)],
            "several values": var_names.intersection(mask.index[mask.index.duplicated()]),
        }
        for what, names in wrong.items():
            if len(names):
                msg = f"mask_var is read by its labels and has {what} for {listing(names, 5)}. Give it index=adata.var_names."
                raise ValueError(msg)
        mask = mask.loc[var_names]
    if mask.isna().any():
        msg = f"mask_var has no value for {listing(mask.index[mask.isna()], 5)}. Set these to True or False."
        raise ValueError(msg)
    return mask.to_numpy(dtype=bool if pd.api.types.is_bool_dtype(mask.dtype) else None)


def _log_base(adata: AnnData, layer: str | None, matrix: Any) -> float | None:
    """Base of the logarithm that ``sc.pp.log1p`` declared, None if it was not used or not on the matrix that is read.

    The declaration does not say of which matrix it speaks, and means X (and raw, which scanpy's workflow sets from it). A
    layer is believed if it holds what X holds, or if its cells add up to one total once the logarithm is undone, as they do
    after ``normalize_total`` and ``log1p``.
    """
    if "log1p" not in adata.uns:
        return None
    base = adata.uns["log1p"].get("base")
    base = float(np.e if base is None else base)
    return base if layer is None or _is_log_of_totals(matrix, base) or _is_like_x(adata, matrix) else None


def _is_log_of_totals(matrix: Any, base: float) -> bool:
    """Whether base^y - 1 has the same sum in all of the first cells."""
    block = _first_cells(matrix)
    with np.errstate(over="ignore", invalid="ignore"):
        totals = np.expm1(block * np.log(base)).sum(axis=1)
    totals = totals[totals != 0]
    return totals.size > 1 and bool(np.isfinite(totals).all() and np.ptp(totals) <= 1e-3 * np.abs(totals).max())


def _is_like_x(adata: AnnData, matrix: Any) -> bool:
    parent = adata._adata_ref if adata.is_view else adata
    return parent.X is not None and np.array_equal(_first_cells(parent.X), _first_cells(matrix))


def _first_cells(matrix: Any) -> Array:
    block = matrix[:_FIRST_CELLS]
    block = block.compute() if hasattr(block, "compute") else block
    return np.asarray(block.toarray() if hasattr(block, "toarray") else block, dtype=np.float64)
