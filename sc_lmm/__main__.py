"""``python -m sc_lmm``: a whole analysis in one command, on a simulated cohort or on a file, told in plain words."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
import time
import warnings
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import datasets, get, tl
from ._anndata import DEFAULT_KEY, write_file
from ._errors import LmmWarning
from ._expression import read_expression
from ._inference import METHODS
from ._picture import draw_run, drawings_of
from ._statistics import looks_like_counts
from ._telling import CUTOFF, print_groups, print_model, print_results, print_truth

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData

_FORMULA, _TEST = "~ sequencing_saturation + diagnosis + (1 | sample_id)", "diagnosis"
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
        r"\b(layer|key_added|reference|formula|test|weights|groupby|method|moderate)=",
        lambda found: f"--{found[1].replace('_', '-')} ",
        text,
    )
    return text.replace("Give a dict from the factor to its level, for example", "Name the factor too, for example")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sc_lmm" if Path(sys.argv[0]).name == "__main__.py" else "sc-lmm",
        epilog="Exit status: 0 if all was written, 1 if the data could not be stored (the results then are in a table), 2 if "
        "something was wrong with what was asked or with the data, and nothing was written.",
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
    parser.add_argument("--weights", help='weights of the cells, e.g. "np.sqrt(total_counts)"')
    parser.add_argument("--groupby", help="column such as cell_type: a model of each of its groups of cells")
    parser.add_argument("--method", choices=METHODS, default="lrt", help="test (default: lrt)")
    parser.add_argument(
        "--moderate",
        action=argparse.BooleanOptionalAction,
        help="learn from all genes how much donors differ (default: with lrt and 200 genes or more)",
    )
    parser.add_argument("--key-added", default=DEFAULT_KEY, help="name to store the results under (default: lmm_de)")
    parser.add_argument(
        "--out", "--output-dir", type=Path, default=Path(), metavar="FOLDER", help="where to write (default: here)"
    )
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
            weights=args.weights,
            groupby=args.groupby,
            method=args.method,
            moderate=args.moderate,
            key_added=args.key_added,
        )
    seconds = time.perf_counter() - start
    params = get.lmm_de_params(adata, key=args.key_added)
    print_model(adata, params, seconds)
    for note in (n for n in notes if issubclass(n.category, LmmWarning)):
        print("\n" + textwrap.fill(f"Note: {_for_command_line(str(note.message))}", 110, subsequent_indent="      "))
    if args.groupby is not None:
        print_groups(adata.uns[args.key_added]["groups"], args.groupby)
    print_results(adata, args.key_added, params, simulated=simulated)
    if simulated:
        print_truth(adata, args.key_added)
    data = _write(adata, args.key_added, params, args.out)
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


def _write(adata: AnnData, key: str, params: dict[str, Any], folder: Path) -> Path | None:
    """Draw, then write the data, and say where; the file of the data, None if it could not be written."""
    folder.mkdir(parents=True, exist_ok=True)
    name = _free_name(folder)
    figure, data = folder / f"{name}.png", folder / f"{name}.h5ad"
    print("\nWritten")
    if draw_run(adata, key, params, figure, pval_cutoff=CUTOFF):
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


def _free_name(folder: Path) -> str:
    """Name of the files, with a number if an earlier run has them."""
    names = (_NAME if k == 1 else f"{_NAME}_{k}" for k in count(1))
    return next(
        name for name in names if not any((folder / f"{name}.{end}").exists() for end in ("png", "h5ad", "csv"))
    )


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
