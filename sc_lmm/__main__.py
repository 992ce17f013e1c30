"""``python -m sc_lmm``: a whole analysis in one command, on a simulated cohort or on a file, told in plain words."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import datasets, get, tl
from ._anndata import DEFAULT_KEY, read_expression, write_file
from ._captions import axis_of, family, format_p, word_comparison
from ._donors import along, donor_table, group_of, pairs
from ._errors import LmmWarning
from ._names import random_intercept
from ._picture import draw_run, drawings_of
from ._statistics import looks_like_counts
from ._words import one, unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData

_FORMULA, _TEST = "~ sequencing_saturation + diagnosis + (1 | sample_id)", "diagnosis"
_CUTOFF = 0.05
_NAME = "sc_lmm_quickstart"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the analysis that the command line describes; the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.file is not None and (args.formula is None or args.test is None):
        parser.error(
            'FILE needs --formula and --test, e.g. --formula "~ age + diagnosis + (1 | donor)" --test diagnosis'
        )
    try:
        return _analyse(args)
    except (ValueError, KeyError, OSError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {_for_command_line(str(text))}", file=sys.stderr)
        return 2


def _for_command_line(text: str) -> str:
    """Message of a function in which arguments are called what they are called here."""
    text = re.sub(r"reference=\{'([^']*)': '([^']*)'\}", r'--reference "\1=\2"', text)
    text = re.sub(
        r"\b(layer|key_added|reference|formula|test)=", lambda found: f"--{found[1].replace('_', '-')} ", text
    )
    return text.replace("Give a dict from the factor to its level, for example", "Name the factor too, for example")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sc_lmm",
        description="Which genes change, across donors? Fits and tests a linear mixed model per gene, prints the top "
        "genes and what they mean, and writes a figure and the results. Without FILE on a simulated cohort.",
    )
    parser.add_argument("file", nargs="?", metavar="FILE.h5ad", help="cells x genes with annotations of the cells")
    parser.add_argument("--formula", help=f'model of each gene, e.g. "{_FORMULA}"')
    parser.add_argument("--test", help="term of the formula to test, e.g. diagnosis")
    parser.add_argument(
        "--reference", help="level that the others are compared with, or FACTOR=LEVEL (default: the first)"
    )
    parser.add_argument("--layer", help="layer with the expression (default: X)")
    parser.add_argument("--key-added", default=DEFAULT_KEY, help="name to store the results under (default: lmm_de)")
    parser.add_argument("--output-dir", type=Path, default=Path(), help="where to write (default: here)")
    parser.add_argument(
        "--normalise",
        "--normalize",
        action="store_true",
        help="the matrix holds raw counts: normalise to 10,000 per cell and take log(1 + x) first",
    )
    return parser


def _analyse(args: argparse.Namespace) -> int:
    simulated = args.file is None
    adata = _simulate() if simulated else _read(args.file)
    layer = _prepare(adata, args.layer, normalise=args.normalise)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", LmmWarning)
        tl.lmm_de(
            adata,
            args.formula or _FORMULA,
            args.test or _TEST,
            reference=_reference(args.reference, adata.obs),
            layer=layer,
            key_added=args.key_added,
        )
    seconds = time.perf_counter() - start
    params = get.lmm_de_params(adata, key=args.key_added)
    _print_model(adata, params, seconds)
    for note in (n for n in notes if issubclass(n.category, LmmWarning)):
        print("\n" + textwrap.fill(f"Note: {_for_command_line(str(note.message))}", 110, subsequent_indent="      "))
    _print_results(adata, args.key_added, params, simulated=simulated)
    if simulated:
        _print_truth(adata, args.key_added)
    data = _write(adata, args.key_added, params, args.output_dir)
    if data is None:
        return 1
    _print_next(data, args.key_added, drawings_of(adata, args.key_added, params), simulated=simulated)
    return 0


def _simulate() -> AnnData:
    print("Simulating a cohort whose truth is known (a few seconds) ...")
    return datasets.brain_cohort(n_donors=24, n_cells=12_000, n_genes=1_000)


def _reference(text: str | None, obs: pd.DataFrame) -> str | dict[str, str] | None:
    """A level, or a factor and its level with "=" between them."""
    factor, equals, level = (text or "").partition("=")
    return {factor: level} if equals and factor in obs else text


def _read(file: str) -> AnnData:
    from anndata import read_h5ad

    print(f"Reading {file} ...")
    return read_h5ad(file)


def _prepare(adata: AnnData, layer: str | None, *, normalise: bool) -> str | None:
    """Make sure that the matrix is log-normalised, or do it; the layer to test."""
    counts = looks_like_counts(read_expression(adata, layer=layer, use_raw=False, mask_var=None).matrix)
    name = "X" if layer is None else f"Layer {layer!r}"
    if counts and not normalise:
        msg = (
            f"{name} seems to hold raw counts (whole numbers), and the model is for log-normalised expression. Add "
            f"--normalise to normalise to 10,000 per cell and take log(1 + x), or name another layer with --layer."
        )
        raise ValueError(msg)
    if normalise and not counts:
        msg = (
            f"{name} does not hold raw counts, so --normalise would be wrong. Leave it out, or name the counts' layer."
        )
        raise ValueError(msg)
    if not normalise:
        return layer
    import scanpy as sc

    if layer is not None:
        adata.X = adata.layers[layer].copy()
    adata.uns.pop("log1p", None)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return None


def _print_model(adata: AnnData, params: dict[str, Any], seconds: float) -> None:
    dropped = params["n_cells_dropped"]
    left_out = f" ({dropped:,} more left out: a value is missing)" if dropped else ""
    print(f"\nData    {params['n_cells']:,} cells{left_out} of {_donors(adata, params)}, {adata.n_vars:,} genes")
    print(f"Model   {params['formula']}")
    donor = one(params["group"])
    print(f"        for each gene; {random_intercept(params['group'])}: the cells of one {donor} share what is its own")
    print(f"Test    {params['test']}, by comparing the likelihoods of the models with and without it")
    print(f"Time    {seconds:.1f} s")


def _donors(adata: AnnData, params: dict[str, Any]) -> str:
    total, found = unit(params["group"], params["n_donors"]), family(params, params["comparisons"][0])
    if found is None:
        return total
    axis, _ = found
    counts = group_of(adata.obs, params["group"]).groupby(along(adata.obs, params, axis), observed=False).nunique()
    return f"{total} ({', '.join(f'{counts[label]} {label}' for label in axis.labels)}{axis.place})"


def _print_results(adata: AnnData, key: str, params: dict[str, Any], *, simulated: bool) -> None:
    names = params["comparisons"]
    for name in names:
        table = get.lmm_de_df(adata, name, key=key, sort=False).dropna(subset="log10_pvals")
        found = int((table["pvals_adj"] < _CUTOFF).sum())
        contrast = word_comparison(name, params).contrast
        alone = (
            "differences between " + unit(params["group"])
            if params["reference"] == "no variance"
            else f"{name}, all levels at once"
        )
        title = contrast if _has_direction(table) else alone
        print(f"\n{title}: {found:,} of {len(table):,} genes have adjusted p < {_CUTOFF:g}")
        if not found:
            print("None: what follows is in order of evidence, and not a list of findings.")
        top = table.sort_values("log10_pvals", kind="stable").head(10 if len(names) == 1 else 5)
        shown = _top_table(adata, name, top, params)
        if simulated:
            truth = adata.var["log_fold_change"].iloc[top.index]
            shown.insert(3, "true log2 FC", truth.map("{:+.2f}".format).to_numpy())
        print(shown.to_string(index=False))
    _print_meaning(adata, key, params)


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
        f"among the genes with adjusted p < {_CUTOFF:g}, about {_CUTOFF:.0%} or fewer are expected to be false alarms, "
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


def _print_truth(adata: AnnData, key: str) -> None:
    table = get.lmm_de_df(adata, key=key, sort=False)
    changed = adata.var["changed"].to_numpy()
    found = (table["pvals_adj"] < _CUTOFF).to_numpy()
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


def _write(adata: AnnData, key: str, params: dict[str, Any], folder: Path) -> Path | None:
    """Draw, then write the data, and say where; the file of the data, None if it could not be written."""
    folder.mkdir(parents=True, exist_ok=True)
    figure, data = folder / f"{_NAME}.png", folder / f"{_NAME}.h5ad"
    print("\nWritten")
    if draw_run(adata, key, params, figure, pval_cutoff=_CUTOFF):
        print(f"  {figure}   the picture")
    else:
        print("  no picture: the test has neither an effect with a direction nor conditions to compare")
    try:
        write_file(adata, data)
    except Exception as error:  # noqa: BLE001 - what an AnnData may hold is not all that a file may
        data.unlink(missing_ok=True)
        table = data.with_suffix(".csv")
        get.lmm_de_df(adata, key=key).to_csv(table, index=False)
        print(f"  {table}   the results as a table")
        what = " ".join([str(error), *getattr(error, "__notes__", ())]).split("\n")[0]
        print(f"error: {data} cannot be written: {what}. Delete or convert what is named.", file=sys.stderr)
        return None
    print(f"  {data}  the data with the results")
    return data


def _print_next(data: Path, key: str, drawings: Mapping[str, str], *, simulated: bool) -> None:
    name = "" if key == DEFAULT_KEY else f', key="{key}"'
    print("\nNext, in Python")
    print("  import scanpy as sc, sc_lmm as sl")
    print(f'  adata = sc.read_h5ad("{data.as_posix()}")')
    print(f"  sl.get.lmm_de_df(adata{name})  # all genes as a table")
    for plot, comparison in drawings.items():
        print(f"  sl.pl.{plot}(adata{comparison and f', comparison={comparison!r}'}{name})")
    print(f'  sc.pl.rank_genes_groups(adata, key="{key}")  # scanpy\'s own plots')
    if simulated:
        print("\nWith your own data")
        print(f'  hatch run quickstart FILE.h5ad --formula "{_FORMULA}" --test {_TEST}')


if __name__ == "__main__":
    sys.exit(main())
