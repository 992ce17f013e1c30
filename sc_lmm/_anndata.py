"""The only reader and writer of AnnData slots. Slot and column names live here and nowhere else.

Reading never copies the matrix, not even of a view; writing happens once, last, with everything computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._errors import alternatives, listing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DEFAULT_KEY = "lmm_de"
# scanpy's names, its dtypes, and the varm columns they are filled from.
_RECORDS = {
    "names": "O",
    "scores": "float32",
    "logfoldchanges": "float32",
    "pvals": "float64",
    "pvals_adj": "float64",
}
# scanpy plots -log10(p), which must stay finite; log10_pvals in varm is exact.
_SMALLEST_P = 1e-300
_FIRST_CELLS = 20  # enough to tell on which scale a layer is


@dataclass(frozen=True)
class Expression:
    """The expression matrix as stored, and which of it is meant."""

    matrix: Any  # cells x genes, as stored
    rows: NDArray[np.int64]  # (n_obs,) rows of the cells of adata
    columns: NDArray[np.int64]  # (n_genes,) columns of the genes to test
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
    return Expression(matrix, rows, columns[tested], tested, adata.var_names[tested], _log_base(adata, layer, matrix))


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
    mask = np.asarray(mask_var)
    if mask.dtype != bool or mask.shape != (adata.n_vars,):
        msg = (
            f"mask_var must be a boolean per gene, shape ({adata.n_vars},), not {mask.dtype} of shape {mask.shape}. "
            f"Give an array or the name of a column of adata.var."
        )
        raise ValueError(msg)
    if not mask.any():
        msg = "mask_var selects no gene."
        raise ValueError(msg)
    return mask


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


def check_key(key: str) -> None:
    """Refuse a key that a file could not hold."""
    if not isinstance(key, str) or not key or "/" in key:
        msg = f"key_added={key!r} must be a name without '/', which h5ad files use for folders."
        raise ValueError(msg)


def write_results(
    adata: AnnData,
    key: str,
    tables: Mapping[str, pd.DataFrame],
    uns: Mapping[str, Any],
    tested: NDArray[np.bool_],
) -> None:
    """Store everything: one table per comparison in ``varm``, scanpy's record arrays and the metadata in ``uns``.

    Parameters
    ----------
    adata, key
        Where to.
    tables
        Comparison -> results of the tested genes, the first one being what ``varm[key]`` shows.
    uns
        What else describes the run.
    tested
        The tested genes among all, (n_vars,); the others get NaN.
    """
    old = stored_keys(adata, key)
    keys = comparison_keys(key, list(tables), taken=set(adata.varm) - set(old))
    frames = {name: _all_genes(table, adata.var_names, tested) for name, table in tables.items()}
    per_level = {n: f for n, f in frames.items() if f["coef"].notna().any() or len(frames) == 1}
    records = _records(per_level or frames)
    comparisons = pd.DataFrame({"varm_key": list(keys.values())}, index=pd.Index(list(keys), name="comparison"))
    for name in old:
        if name in adata.varm:
            del adata.varm[name]
    for name, frame in frames.items():
        adata.varm[keys[name]] = frame
    adata.uns[key] = {**records, **uns, "comparisons": comparisons}


def stored_keys(adata: AnnData, key: str) -> list[str]:
    """Names in ``varm`` that an earlier run under `key` wrote."""
    entry = adata.uns.get(key)
    if not isinstance(entry, dict) or "comparisons" not in entry:
        return []
    return list(entry["comparisons"]["varm_key"])


def comparison_keys(key: str, names: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Comparison -> its place in ``varm``, none of them `taken` by others but for `key`, which was asked for.

    "/" would make a group in an h5ad file, so names are made safe.
    """
    keys: dict[str, str] = {}
    for position, name in enumerate(names):
        safe = key if position == 0 else f"{key}_{re.sub('[^0-9A-Za-z_.+-]', '_', name)}"
        while position and (safe in taken or safe in keys.values()):
            safe += "_"
        keys[name] = safe
    return keys


def read_entry(adata: AnnData, key: str) -> dict[str, Any]:
    """What a run stored under `key` in ``uns``."""
    if key not in adata.uns or "comparisons" not in adata.uns[key]:
        found = [k for k, v in adata.uns.items() if hasattr(v, "keys") and "comparisons" in v]
        msg = f"adata.uns[{key!r}] holds no result of sc_lmm.tl.lmm_de. Run it first. {alternatives(key, found)}"
        raise KeyError(msg)
    return adata.uns[key]


def read_table(adata: AnnData, key: str, comparison: str | None) -> pd.DataFrame:
    """Results of one comparison, the first by default, rows aligned to ``adata.var_names``."""
    comparisons = read_entry(adata, key)["comparisons"]
    name = comparisons.index[0] if comparison is None else str(comparison)
    if name not in comparisons.index:
        msg = f"comparison={comparison!r} is not in adata.uns[{key!r}]. {alternatives(name, comparisons.index)}"
        raise KeyError(msg)
    return adata.varm[comparisons.loc[name, "varm_key"]]


def _all_genes(table: pd.DataFrame, var_names: pd.Index, tested: NDArray[np.bool_]) -> pd.DataFrame:
    """Rows for every gene of adata, NaN and status "not_tested" for those left out."""
    position = np.full(tested.size, -1)
    position[tested] = np.arange(int(tested.sum()))
    full = table.reset_index(drop=True).reindex(position)
    full.index = var_names
    status = full["status"].cat.add_categories("not_tested") if not tested.all() else full["status"]
    return full.assign(status=status.fillna("not_tested") if not tested.all() else status)


def _records(frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """scanpy's structure: per statistic a record array with one field per comparison, genes by descending score."""
    columns: dict[str, dict[str, Any]] = {name: {} for name in _RECORDS}
    for comparison, frame in frames.items():
        order = np.argsort(-frame["scores"].to_numpy(), kind="stable")  # NaN last
        ranked = frame[[name for name in _RECORDS if name != "names"]].iloc[order]
        for name in _RECORDS:
            columns[name][comparison] = _record_values(ranked, name)
    return {
        name: pd.DataFrame(fields).to_records(index=False, column_dtypes=_RECORDS[name])
        for name, fields in columns.items()
    }


def _record_values(ranked: pd.DataFrame, name: str) -> Any:
    if name == "names":
        return ranked.index.to_numpy(dtype=object)
    values = ranked[name].to_numpy()
    return np.maximum(values, _SMALLEST_P) if name.startswith("pvals") else values
