"""The study: cohorts x methods, rejections among null genes, power and false discoveries, targets."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from statsmodels.stats.multitest import multipletests

from .calibration_compare import compare, summary
from .calibration_figure import draw_figure
from .calibration_simulate import draw, fit_of, make_cohort, null_genes, varied_genes
from .calibration_table import markdown, misses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

METHODS: dict[str, dict[str, object]] = {
    "lrt": {"method": "lrt"},
    "lrt uncalibrated": {"method": "lrt", "calibrate": False},
    "between-within": {"method": "between-within"},
    "satterthwaite": {"method": "satterthwaite"},
    "kenward-roger": {"method": "kenward-roger"},
    "wald": {"method": "wald"},
    "between-within moderated": {"method": "between-within", "moderate": True},
    "satterthwaite moderated": {"method": "satterthwaite", "moderate": True},
}


@dataclass(frozen=True)
class Plan:
    """Size of the study."""

    donors: tuple[int, ...] = (4, 6, 8, 12, 24, 50)
    icc: tuple[float, ...] = (0.005, 0.01, 0.05, 0.3)
    genes: int = 20_000
    seed: int = 0


QUICK = Plan(donors=(4, 8, 24), icc=(0.01, 0.3), genes=2_000)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few designs and genes, in seconds")
    parser.add_argument("--genes", type=int, help="null genes per design and ICC (20000)")
    parser.add_argument("--output", type=Path, default=Path("calibration"), help="directory for tables and figures")
    parser.add_argument("--compare", action="store_true", help="ways of calibrating the ratio, 4 to 8 donors")
    chosen = parser.parse_args(arguments)
    plan = QUICK if chosen.quick else Plan()
    if chosen.genes:
        plan = Plan(plan.donors, plan.icc, chosen.genes, plan.seed)
    start = time.perf_counter()
    chosen.output.mkdir(parents=True, exist_ok=True)
    if chosen.compare:
        table = compare(plan)
        table.to_csv(chosen.output / "comparison.csv", index=False, float_format="%.6g")
        print(markdown(table), markdown(summary(table)), sep="\n\n")
    else:
        report(run(plan), plan, chosen.output)
    print(f"\n{time.perf_counter() - start:.0f} s wall on {os.cpu_count()} cores")


def run(plan: Plan) -> pd.DataFrame:
    """Row per design, ICC, kind of genes and method."""
    designs = list(product(plan.donors, (True, False)))
    # The largest cohorts first, so that the last worker to finish has little left to do.
    tasks = [delayed(_design)(plan, n_donors, balanced) for n_donors, balanced in reversed(designs)]
    parts = Parallel(n_jobs=min(len(tasks), os.cpu_count() or 1))(tasks)
    return pd.concat(reversed(parts), ignore_index=True)


def report(results: pd.DataFrame, plan: Plan, output: Path) -> None:
    """Write the tables and figures, print the tables and what misses its target."""
    results.to_csv(output / "calibration.csv", index=False, float_format="%.6g")
    missed = misses(results)
    text = "\n\n".join([*sections(results), f"## Targets missed\n\n{markdown(missed) if len(missed) else 'None.'}"])
    (output / "calibration.md").write_text(text + "\n")
    facts = {"genes": plan.genes, "seed": plan.seed, "results": results.to_dict("records")}
    (output / "calibration.json").write_text(json.dumps(facts, indent=1))
    for cells in results["cells"].unique():
        draw_figure(results[results["cells"] == cells], output / f"calibration_{cells}.png")
    print(text)


def sections(results: pd.DataFrame) -> list[str]:
    """One wide table per question: a row per design, a column per method."""
    titles = {
        ("alike", "level"): "Null genes rejected at .05 / per 1,000 at .001; genes of one ICC",
        ("varied", "level"): "The same; genes of varied ICC and variance, a tenth of them changed",
        ("varied", "power"): "Changed genes found at FDR 5 % / share false among those found",
    }
    texts = []
    for (genes, what), title in titles.items():
        rows = results[results["genes"] == genes]
        entry = [
            f"{r.at_05:.3f} / {1000 * r.at_001:.1f}" if what == "level" else f"{r.power:.2f} / {r.fdr:.3f}"
            for r in rows.itertuples()
        ]
        wide = rows.assign(entry=entry).pivot_table(
            index=["donors", "cells", "icc"], columns="method", values="entry", aggfunc="first", sort=False
        )
        texts.append(f"## {title}\n\n{markdown(wide.reset_index())}")
    n = int(results["n_null"].max())
    error = f"Monte-Carlo errors ({n:,} null genes): {np.sqrt(0.05 * 0.95 / n):.4f} at .05, "
    return [*texts, error + f"{1000 * np.sqrt(0.001 * 0.999 / n):.2f} per 1,000 at .001."]


def _design(plan: Plan, n_donors: int, balanced: bool) -> pd.DataFrame:
    cohort = make_cohort(n_donors, balanced=balanced)
    rng = np.random.default_rng([plan.seed, n_donors, balanced])
    where = {"donors": n_donors, "cells": "balanced" if balanced else "unbalanced"}
    alike = {icc: null_genes(icc, plan.genes) for icc in plan.icc}
    varied = {icc: varied_genes(cohort, icc, plan.genes, rng) for icc in plan.icc}
    rows = []
    for kind, by_icc in (("alike", alike), ("varied", varied)):
        for icc, genes in by_icc.items():
            fit = fit_of(cohort, draw(cohort, genes, rng))
            for name, choices in METHODS.items():
                pvals = fit.pvals("diagnosis", **choices)
                rows.append({**where, "icc": icc, "genes": kind, "method": name, **outcome(pvals, genes.changed)})
    return pd.DataFrame(rows)


def outcome(pvals: Array, changed: NDArray[np.bool_]) -> Mapping[str, float]:
    """Rejections among null genes with Monte-Carlo errors, and what BH at 5 % finds."""
    null = pvals[~changed]
    at_05, at_001 = (null < 0.05).mean(), (null < 0.001).mean()
    found = multipletests(np.where(np.isnan(pvals), 1.0, pvals), method="fdr_bh")[0]
    return {
        "n_null": null.size,
        "at_05": at_05,
        "se_05": np.sqrt(at_05 * (1 - at_05) / null.size),
        "at_001": at_001,
        "se_001": np.sqrt(at_001 * (1 - at_001) / null.size),
        "found": int(found.sum()),
        "power": found[changed].mean() if changed.any() else np.nan,
        "power_05": (pvals[changed] < 0.05).mean() if changed.any() else np.nan,
        "fdr": (found & ~changed).sum() / max(found.sum(), 1),
        "missing": int(np.isnan(pvals).sum()),
    }
