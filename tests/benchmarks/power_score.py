"""Data of ../shared/power x calls -> what is found, what of it is false, and how genes are ranked.

found   share of the changed genes with an adjusted p below .05
fdp     share of false ones among all that are called
AP      average precision: mean over changed genes of the share of changed ones among those ranked as high
.05, .001 per 1,000, calls      share of p below, and genes called, where nothing was changed
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

import sc_lmm as sl

from .calibration_table import markdown
from .power_calls import CALLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from .power_calls import Call

    Array = NDArray[np.float64]

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "power"
_COLUMNS = ("found", "fdp", "AP", ".05", ".001 per 1,000", "calls")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every setting and deal from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file for a row per setting, deal, kind and method (csv)")
    chosen = parser.parse_args(arguments)
    if not FOLDER.is_dir():
        print(f"Nothing was run: the counts with planted effects are not here, there is no {FOLDER}.")
        return
    rows = pd.DataFrame(list(run(CALLS)))
    if chosen.output:
        rows.to_csv(chosen.output, index=False, float_format="%.6g")
    for setting, table in rows.groupby("setting", sort=False):
        print(f"## {setting}, {table['deal'].nunique()} deals\n\n{markdown(summary(table))}\n")


def run(calls: dict[str, Callable[[ad.AnnData], Call]]) -> Iterator[dict[str, Any]]:
    """Score the calls and the stored p-values of other programs on every set of data."""
    sys.path.insert(0, str(FOLDER))
    plant, score = import_module("plant"), import_module("score")
    for setting, deal, kind in product(plant.SETTINGS, score.REPS, ("effect", "null")):
        made = plant.make(setting, deal, kind)
        adata = as_anndata(made)
        pvals = {name: pvals_of(adata, call(adata)) for name, call in calls.items()}
        pvals |= {name: column.to_numpy() for name, column in score.peers(setting, deal, kind).items()}
        for method, p in pvals.items():
            yield {"setting": setting, "deal": deal, "method": method, **outcome(p, made["lfc"] != 0)}


def as_anndata(made: dict[str, Any]) -> ad.AnnData:
    """The data as a scanpy user would have them: X log1p of counts per 10,000, counts in a layer."""
    obs = made["obs"].assign(depth=made["depth"]).set_index(pd.RangeIndex(len(made["obs"])).astype(str))
    obs["n_genes"] = np.asarray((made["X"] > 0).sum(axis=1)).ravel()
    adata = ad.AnnData(made["X"].astype(np.float64), obs=obs, var=pd.DataFrame(index=made["genes"]))
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.multiply(1e4 / made["depth"][:, None]).tocsr().log1p()
    adata.uns["log1p"] = {"base": None}
    return adata


def pvals_of(adata: ad.AnnData, call: Call) -> Array:
    """P-values of the groups."""
    how: dict[str, Any] = {"reference": "A", "conf_level": None, "show_progress": False, "copy": True}
    tested = sl.tl.lmm_de(adata, call.formula, "group", **how, **call.arguments())
    return tested.varm["lmm_de"]["pvals"].to_numpy()


def outcome(pvals: Array, changed: NDArray[np.bool_]) -> dict[str, float]:
    """What adjusted p-values find among changed genes, or find wrongly where there are none."""
    p = np.where(np.isnan(pvals), 1.0, pvals)
    called = multipletests(p, method="fdr_bh")[0]
    if not changed.any():
        tested = p[~np.isnan(pvals)]
        return {".05": (tested < 0.05).mean(), ".001 per 1,000": 1000 * (tested < 0.001).mean(), "calls": called.sum()}
    false = (called & ~changed).sum() / max(called.sum(), 1)
    return {"found": called[changed].mean(), "fdp": false, "AP": average_precision(p, changed)}


def average_precision(p: Array, changed: NDArray[np.bool_]) -> float:
    """Mean over changed genes of the share of changed ones among genes with a p-value as small."""
    order = np.sort(p)
    as_small = np.searchsorted(order, p[changed], side="right")
    changed_as_small = np.searchsorted(np.sort(p[changed]), p[changed], side="right")
    return float((changed_as_small / as_small).mean())


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Row per method, the means over deals, most found first."""
    means = rows.groupby("method")[list(_COLUMNS)].mean().sort_values("found", ascending=False)
    return means.round(3).reset_index()
