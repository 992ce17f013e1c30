"""Results <-> the slots of AnnData. Their names live here and nowhere else; writing happens once, last, with everything computed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import ImplicitModificationWarning

from ._errors import alternatives, warn
from ._fingerprints import fingerprints, unknown_rows
from ._names import check_key, record_fields, table_keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def check_destination(adata: AnnData, key: str, *, copy: bool) -> None:
    """Refuse, before anything is computed, a place that cannot be written to or whose content is not a run's to lose."""
    check_key(key)
    if adata.isbacked and (copy or adata.is_view):
        what = "a copy" if copy else "a view that is written to"
        msg = f"adata is backed by a file, and {what} would need a file of its own. Load it first: adata.to_memory()."
        raise ValueError(msg)
    in_uns, in_varm = adata.uns.get(key), adata.varm.get(key)
    _check_ours(f"adata.uns[{key!r}]", in_uns, ours=_is_record(in_uns) or _is_ranking(in_uns))
    owner = _owner(adata, key)
    if owner is not None and owner != key:
        msg = (
            f"adata.varm[{key!r}] is a table of the run under {owner!r}. Choose another key_added, or delete that run: "
            f"del adata.uns[{owner!r}], adata.varm[{key!r}]."
        )
        raise ValueError(msg)
    _check_ours(f"adata.varm[{key!r}]", in_varm, ours=_is_table(in_varm))


def _check_ours(place: str, found: Any, *, ours: bool) -> None:
    if found is not None and not ours:
        what = f"holds a {type(found).__name__} that sc_lmm did not write"
        msg = f"{place} {what}. Choose another key_added, or delete it: del {place}."
        raise ValueError(msg)


def write_results(
    adata: AnnData,
    key: str,
    tables: Mapping[str, pd.DataFrame],
    uns: Mapping[str, Any],
    *,
    of_group: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """Store everything: one table per comparison in ``varm``, scanpy's record arrays and the metadata in ``uns``.

    Parameters
    ----------
    adata, key
        Where to.
    tables
        Comparison -> results of the tested genes, by position among all genes; the others get NaN.
    uns
        What else describes the run.
    of_group
        Comparison -> group of cells and comparison there. Each then has its own place; else ``varm[key]`` shows the first.
    """
    frames = {name: _all_genes(table, adata.var_names) for name, table in tables.items()}
    old = [name for name in adata.varm if _owner(adata, name) == key and _is_of_run(adata, key, name)]
    keys = table_keys(key, tables, taken=set(adata.varm) - {*old, key}, first_in_key=of_group is None)
    record = {**_records(frames), **uns, **_remembered(frames, keys, of_group or {})}
    for name in {*old, key} & set(adata.varm):
        del adata.varm[name]
    for name, frame in frames.items():
        adata.varm[keys[name]] = frame
    adata.uns[key] = record


def write_file(adata: AnnData, path: Path) -> None:
    """Write an h5ad file, also of nullable strings: anndata 0.12 reads these and refuses to write them unless told to."""
    from anndata import settings

    with settings.override(allow_write_nullable_strings=settings.allow_write_nullable_strings is not None or None):
        adata.write_h5ad(path)


def read_entry(adata: AnnData, key: str) -> dict[str, Any]:
    """What a run stored under `key` in ``uns``."""
    if key not in adata.uns or not _is_record(adata.uns[key]):
        found = [name for name, entry in adata.uns.items() if _is_record(entry)]
        msg = f"adata.uns[{key!r}] holds no result of sc_lmm.tl.lmm_de. Run it first. {alternatives(key, found)}"
        raise KeyError(msg)
    entry: dict[str, Any] = adata.uns[key]
    return entry


def read_table(adata: AnnData, key: str, comparison: str | None) -> pd.DataFrame:
    """Results of one comparison, the first by default, rows aligned to ``adata.var_names``; refused if not the run's."""
    comparisons = read_entry(adata, key)["comparisons"]
    name = comparisons.index[0] if comparison is None else str(comparison)
    if name not in comparisons.index:
        msg = f"comparison={comparison!r} is not in adata.uns[{key!r}]. {alternatives(name, comparisons.index)}"
        raise KeyError(msg)
    place = str(comparisons.loc[name, "varm_key"])
    if place not in adata.varm:
        msg = f"adata.varm[{place!r}], the table of comparison {name!r} of the run {key!r}, is gone. Run sc_lmm.tl.lmm_de again."
        raise KeyError(msg)
    if not _is_of_run(adata, key, place):
        msg = (
            f"adata.varm[{place!r}] is not the table that the run {key!r} wrote: it was overwritten, or its numbers were "
            f"changed. Run sc_lmm.tl.lmm_de again, with a key_added of its own."
        )
        raise ValueError(msg)
    return adata.varm[place]


def read_groups(adata: AnnData, key: str) -> pd.DataFrame | None:
    """Group of cells of each comparison and what is compared there (``group``, ``within_group``), None for a run of all cells."""
    comparisons: pd.DataFrame = read_entry(adata, key)["comparisons"]
    return comparisons[["group", "within_group"]].astype(str) if "group" in comparisons else None


def _is_record(entry: Any) -> bool:
    """Whether an entry of ``uns`` is that of a run."""
    comparisons = entry.get("comparisons") if isinstance(entry, Mapping) else None
    return isinstance(comparisons, pd.DataFrame) and "varm_key" in comparisons


def _is_ranking(entry: Any) -> bool:
    """Whether it is what scanpy's own ``rank_genes_groups`` writes, and overwrites."""
    return isinstance(entry, Mapping) and {"names", "params"} <= set(entry)


def _is_table(value: Any) -> bool:
    return isinstance(value, pd.DataFrame) and {"coef", "log10_pvals", "status"} <= set(value.columns)


def _owner(adata: AnnData, name: str) -> str | None:
    """Key of the run that `name` in ``varm`` belongs to: it lists it, and what it writes begins with its key."""
    records = {key: entry for key, entry in adata.uns.items() if _is_record(entry)}
    owners = [key for key, entry in records.items() if name in set(entry["comparisons"]["varm_key"])]
    return next((key for key in sorted(owners, key=len, reverse=True) if f"{name}_".startswith(f"{key}_")), None)


def _is_of_run(adata: AnnData, key: str, place: str) -> bool:
    """Whether a table holds the rows that the run under `key` wrote there, or some of them."""
    record, table = adata.uns[key], adata.varm[place]
    known, columns = record.get("fingerprints", {}).get(place), record.get("columns")
    if known is None or columns is None or not isinstance(table, pd.DataFrame) or not set(columns) <= set(table):
        return False
    return not unknown_rows(table, list(columns), known).any()


def _remembered(
    frames: Mapping[str, pd.DataFrame], keys: Mapping[str, str], of_group: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """What tells the tables of a run from others: their places, their columns of numbers, and those numbers."""
    first = next(iter(frames.values()))
    columns = list(first.columns[first.dtypes == np.float64])
    index = pd.Index(list(keys), name="comparison", dtype=object)
    comparisons = pd.DataFrame({"varm_key": list(keys.values())}, index=index)
    if of_group:
        comparisons["group"], comparisons["within_group"] = zip(*(of_group[name] for name in keys), strict=True)
    return {
        "comparisons": comparisons,
        "columns": np.array(columns, dtype=object),
        "fingerprints": {keys[name]: fingerprints(frame, columns) for name, frame in frames.items()},
    }


def _all_genes(table: pd.DataFrame, var_names: pd.Index) -> pd.DataFrame:
    """Rows for every gene of adata, NaN and status "not_tested" for those that are not in the table."""
    full = table.reindex(np.arange(len(var_names)))
    full.index = var_names
    status = full["status"]
    return full.assign(
        status=status.cat.add_categories("not_tested").fillna("not_tested") if len(table) < len(var_names) else status
    )


def _records(frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """scanpy's structure: per statistic a record array with one field per comparison, genes by descending score."""
    with_direction = {name: frame for name, frame in frames.items() if frame["coef"].notna().any()}
    shown = frames if len(frames) == 1 or not with_direction else with_direction
    fields = record_fields(shown)
    columns: dict[str, dict[str, Any]] = {name: {} for name in _RECORDS}
    for comparison, frame in shown.items():
        order = np.argsort(-frame["scores"].to_numpy(), kind="stable")  # NaN last
        ranked = frame[[name for name in _RECORDS if name != "names"]].iloc[order]
        for name in _RECORDS:
            columns[name][fields[comparison]] = _record_values(ranked, name)
    return {
        name: pd.DataFrame(values).to_records(index=False, column_dtypes=_RECORDS[name])
        for name, values in columns.items()
    }


def _record_values(ranked: pd.DataFrame, name: str) -> Any:
    if name == "names":
        return ranked.index.to_numpy(dtype=object)
    values = ranked[name].to_numpy()
    return np.maximum(values, _SMALLEST_P) if name.startswith("pvals") else values


@contextmanager
def written_view(adata: AnnData) -> Iterator[None]:
    """Context in which a view may be written to: it becomes an object of its own, which is said in our words."""
    if not adata.is_view:
        yield
        return
    warn(
        "adata is a view, so that it becomes a copy of its own to hold the results, and the object that it was taken "
        "from does not get them: type adata = adata[...].copy() before, or result = sl.tl.lmm_de(..., copy=True)."
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        yield
