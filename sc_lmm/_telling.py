"""A run -> what the command line tells of it, in plain words."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from . import get
from ._captions import axis_of, family, format_p, word_comparison
from ._donors import along, donor_table, group_of, pairs
from ._names import random_intercept
from ._words import one, unit

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

CUTOFF = 0.05
_MOST_TABLES = 4  # with five genes each; of more only three genes are shown


def print_model(adata: AnnData, params: dict[str, Any], seconds: float) -> None:
    """Say what was fitted."""
    dropped = params["n_cells_dropped"]
    left_out = f" ({dropped:,} more left out: a value is missing)" if dropped else ""
    print(f"\nData    {params['n_cells']:,} cells{left_out} of {_donors(adata, params)}, {adata.n_vars:,} genes")
    print(f"Model   {params['formula']}")
    donor = one(params["group"])
    print(f"        for each gene; {random_intercept(params['group'])}: the cells of one {donor} share what is its own")
    print(f"Test    {params['test']}, by comparing the likelihoods of the models with and without it")
    print(f"Time    {seconds:.1f} s")


def print_groups(groups: pd.DataFrame, column: str) -> None:
    """Say what each group of cells has, and why one has nothing."""
    print(f"\nGroups of {column}, each with a model of its own")
    print(groups.drop(columns=["report", "moderated", "reason"]).to_string())
    for name, reason in groups["reason"].items():
        if reason:
            print(textwrap.fill(f"{name}: no result. {reason}", 110, initial_indent="  ", subsequent_indent="      "))


def _donors(adata: AnnData, params: dict[str, Any]) -> str:
    total, found = unit(params["group"], params["n_donors"]), family(params, params["comparisons"][0])
    if found is None:
        return total
    axis, _ = found
    counts = group_of(adata.obs, params["group"]).groupby(along(adata.obs, params, axis), observed=False).nunique()
    return f"{total} ({', '.join(f'{counts[label]} {label}' for label in axis.labels)}{axis.place})"


def print_results(adata: AnnData, key: str, params: dict[str, Any], *, simulated: bool) -> None:
    """Say which genes were found, and how to read the tables."""
    names = params["comparisons"]
    for name in names:
        table = get.lmm_de_df(adata, name, key=key, sort=False).dropna(subset="log10_pvals")
        found = int((table["pvals_adj"] < CUTOFF).sum())
        contrast = word_comparison(name, params).contrast
        alone = (
            "differences between " + unit(params["group"])
            if params["reference"] == "no variance"
            else f"{name}, all levels at once"
        )
        title = contrast if _has_direction(table) else alone
        print(f"\n{title}: {found:,} of {len(table):,} genes have adjusted p < {CUTOFF:g}")
        if not found:
            print("None: what follows is in order of evidence, and not a list of findings.")
        top = table.sort_values("log10_pvals", kind="stable").head(_shown(len(names)))
        shown = _top_table(adata, name, top, params)
        if simulated:
            truth = adata.var["log_fold_change"].iloc[top.index]
            shown.insert(3, "true log2 FC", truth.map("{:+.2f}".format).to_numpy())
        print(shown.to_string(index=False))
    _print_meaning(adata, key, params)


def _shown(n_tables: int) -> int:
    """How many genes of each table."""
    return 10 if n_tables == 1 else 5 if n_tables <= _MOST_TABLES else 3


def _has_direction(table: pd.DataFrame) -> bool:
    return bool(table["coef"].notna().any())


def _top_table(adata: AnnData, name: str, top: pd.DataFrame, params: dict[str, Any]) -> pd.DataFrame:
    words = word_comparison(name, params)
    shown = top[["names"]].rename(columns={"names": "gene"})
    if _has_direction(top):
        shown["direction"] = np.where(top["coef"] > 0, words.up, words.down)
        logged = top["logfoldchanges"].notna().any()
        effect = top["logfoldchanges"] if logged else top["coef"]
        shown["log2 FC" if logged else "coefficient"] = effect.map(("{:+.2f}" if logged else "{:+.3g}").format)
    shown["adjusted p"] = [format_p(np.log10(p)) if p > 0 else "< 1e-300" for p in top["pvals_adj"]]
    shown[unit(params["group"])] = _donors_behind(adata, name, top, params)
    shown["cells"] = top["pct_expressed"].map("{:.0%}".format)
    shown["ICC"] = top["icc"].map("{:.1%}".format)
    shown["status"] = top["status"].astype(str)
    return shown


def _donors_behind(adata: AnnData, name: str, table: pd.DataFrame, params: dict[str, Any]) -> list[str]:
    """How many donors of the level lie on the gene's side of themselves, or of the average donor, in the reference."""
    axis = axis_of(params, name)
    if axis is None or axis.note or len(axis.labels) != 2 or table["coef"].isna().all():
        return [str(params["n_donors"])] * len(table)
    means = donor_table(adata, table.index, along(adata.obs, params, axis), params, None)
    means["pair"] = pairs(means, adata.obs, params, axis)
    reference, level = (means[means["x"] == label] for label in axis.labels)
    difference = level[table.index] - reference[table.index].mean()
    if means["pair"].notna().all():
        both = [part.set_index("pair")[table.index] for part in (level, reference)]
        difference = (both[0] - both[1]).dropna()
    side = np.sign(difference) == np.sign(table["coef"])
    return [f"{int(side[gene].sum())} of {len(difference)}" for gene in table.index]


def _print_meaning(adata: AnnData, key: str, params: dict[str, Any]) -> None:
    print("\nHow to read this")
    directed = [c for c in params["comparisons"] if _has_direction(get.lmm_de_df(adata, c, key=key))]
    if directed:
        contrasts = ", ".join(word_comparison(name, params).contrast for name in directed)
        _say("direction", f"{contrasts}, the other terms of the model being equal.")
        _say(
            "log2 FC",
            "log2 of the ratio of the mean expression, the other terms being equal: +1 is twice as high, -1 half as high, "
            "and beyond 20 the gene is not expressed at all in one of the two.",
        )
    _say(
        "adjusted p",
        f"among the genes with adjusted p < {CUTOFF:g}, about {CUTOFF:.0%} or fewer are expected to be false alarms, "
        f"if the model holds.",
    )
    donor, donors = one(params["group"]), unit(params["group"])
    if any((axis := axis_of(params, name)) is not None and len(axis.labels) == 2 for name in directed):
        _say(
            donors,
            f"how many {donors} of the group lie on the gene's side of the average {donor} of the reference, or, where "
            f"they come in pairs, of the one that they are paired with. They are the evidence: more cells of the same "
            f"{donors} do not replace more {donors}.",
        )
    _say("cells", "share of the cells that express the gene.")
    _say(
        "ICC",
        f"share of the variation between cells that is due to differences between {donors}, beyond what the other terms "
        f"explain. At 0% the cells of one {donor} are no more alike than cells of different {donors}.",
    )
    _say("status", _describe_status(params["status"]))


def _say(word: str, text: str) -> None:
    print(textwrap.fill(text, 110, initial_indent=f"  {word:<12}", subsequent_indent=" " * 14))


def _describe_status(status: dict[str, int]) -> str:
    meaning = {
        "ok": "ok",
        "boundary": "boundary (ICC of 0: a normal result, and the test is valid)",
        "constant": "constant (no variation, not tested)",
        "max_iter": "max_iter (no solution found, not tested)",
        "failed": "failed (no variation within any level of the random term, not tested)",
    }
    counts = [f"{int(count):,} {meaning.get(name, name)}" for name, count in status.items() if count]
    return "; ".join(counts) + "."


def print_truth(adata: AnnData, key: str) -> None:
    """Say how much of what was found in a simulated cohort is true."""
    table = get.lmm_de_df(adata, key=key, sort=False)
    changed = adata.var["changed"].to_numpy()
    found = (table["pvals_adj"] < CUTOFF).to_numpy()
    hit = found & changed
    right = np.sign(table["coef"].to_numpy()[hit]) == np.sign(adata.var["log_fold_change"].to_numpy()[hit])
    frequent = changed & (table["pct_expressed"] > 0.1).to_numpy()
    print("\nWas it right? The cohort is simulated, so the truth is known.")
    text = (
        f"{changed.sum()} of {len(changed):,} genes really change. {hit.sum()} of them were found, {right.sum()} of "
        f"these with the right direction. Of the {found.sum()} genes found, {(found & ~changed).sum()} do not change. "
        f"Of the {frequent.sum()} changing genes that at least a tenth of the cells express, {(hit & frequent).sum()} "
        f"were found."
    )
    print(textwrap.fill(text, 110, initial_indent="  ", subsequent_indent="  "))
