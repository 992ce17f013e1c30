"""The study: cohorts x populations of genes x methods, rejections among null genes, what is found and what of it is false."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from statsmodels.stats.multitest import multipletests

from .calibration_factor import factor_readings
from .calibration_few import few_genes
from .calibration_figure import draw_figure
from .calibration_genes import POPULATIONS, population
from .calibration_methods import METHODS, Truth
from .calibration_simulate import EXTREMES, cohort_of, draw, fit_of, make_cohort
from .calibration_table import markdown, misses, sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .calibration_simulate import Cohort

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """Size of the study."""

    donors: tuple[int, ...] = (4, 6, 8, 12, 24, 50)
    populations: tuple[str, ...] = tuple(POPULATIONS)
    extremes: tuple[str, ...] = tuple(EXTREMES)
    n_null: int = 5_000  # genes without effect in a set that is tested together
    n_sets: int = 4
    seed: int = 0


QUICK = Plan(donors=(4, 8, 24), populations=("ICC 0.05", "mixture"), extremes=tuple(EXTREMES)[:1], n_sets=1)


@dataclass(frozen=True)
class Cell:
    """One cohort with one population of genes."""

    design: str  # "unbalanced" or the name of an extreme one
    donors: int
    question: str
    population: str

    def cohort(self) -> Cohort:
        """Its donors and cells."""
        if self.design in EXTREMES:
            return cohort_of(EXTREMES[self.design], self.question, np.random.default_rng(self.donors))
        return make_cohort(self.donors, balanced=False, question=self.question)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few designs and genes, in seconds")
    parser.add_argument("--sets", type=int, help="sets of 5,000 null genes per cell (4)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (all cores)")
    parser.add_argument("--output", type=Path, default=Path("calibration"), help="directory for tables and figures")
    parser.add_argument("--few", action="store_true", help="priors learned from 20 to 500 genes instead")
    parser.add_argument("--factor", action="store_true", help="readings of the ratio's calibration factor instead")
    chosen = parser.parse_args(arguments)
    plan = QUICK if chosen.quick else Plan()
    plan = plan if chosen.sets is None else replace(plan, n_sets=chosen.sets)
    start = time.perf_counter()
    chosen.output.mkdir(parents=True, exist_ok=True)
    if chosen.few:
        print(few_genes(plan, chosen.output, chosen.jobs))
    elif chosen.factor:
        print(factor_readings(plan, chosen.output, chosen.jobs))
    else:
        print(report(run(plan, chosen.jobs), chosen.output))
    print(f"\n{time.perf_counter() - start:.0f} s wall in {chosen.jobs} processes")


def cells_of(plan: Plan) -> list[Cell]:
    """Every combination that leaves two directions to tell the donors' variance from."""
    usual = [Cell("unbalanced", n, "two groups", p) for n, p in product(plan.donors, plan.populations)]
    stages = [replace(cell, question="four stages") for cell in usual if cell.donors >= 6]
    within = [replace(cell, question="within donors") for cell in usual]
    extreme = [Cell(d, len(EXTREMES[d]), "two groups", p) for d, p in product(plan.extremes, plan.populations)]
    return [*usual, *stages, *within, *extreme]


def run(plan: Plan, n_jobs: int) -> pd.DataFrame:
    """Row per cell and method."""
    parts = Parallel(n_jobs=n_jobs)(delayed(_cell)(plan, cell) for cell in cells_of(plan))
    return pd.concat(parts, ignore_index=True)


def report(results: pd.DataFrame, output: Path) -> str:
    """Write the table and the figures, and say what misses its target."""
    results.to_csv(output / "calibration.csv", index=False, float_format="%.6g")
    missed = misses(results)
    text = "\n\n".join([*sections(results), f"## Targets missed\n\n{markdown(missed) if len(missed) else 'None.'}"])
    (output / "calibration.md").write_text(text + "\n")
    for question in results["question"].unique():
        draw_figure(results, question, output / f"{question.replace(' ', '_')}.png")
    return text


def _cell(plan: Plan, cell: Cell) -> pd.DataFrame:
    cohort = cell.cohort()
    rng = np.random.default_rng([plan.seed, *map(ord, "".join(map(str, asdict(cell).values())))])
    tallies = {method: Tally() for method in METHODS}
    for _ in range(plan.n_sets):
        genes = population(cohort, cell.population, plan.n_null, rng)
        truth = Truth(cohort, genes, fit_of(cohort, draw(cohort, genes, rng)))
        for method, tally in tallies.items():
            tally.add(truth.pvals(method), genes.changed)
    return pd.DataFrame([{**asdict(cell), "method": method, **tally.row()} for method, tally in tallies.items()])


class Tally:
    """Counts over sets of genes."""

    def __init__(self) -> None:
        self.n_null = self.n_changed = self.missing = 0
        self.at_05 = self.at_001 = self.found = self.false = 0

    def add(self, pvals: Array, changed: NDArray[np.bool_]) -> None:
        """Count a set that is adjusted by itself, at a false discovery rate of 5 %."""
        self.missing += int(np.isnan(pvals).sum())
        p = np.where(np.isnan(pvals), 1.0, pvals)
        called = multipletests(p, method="fdr_bh")[0]
        self.n_null += int((~changed).sum())
        self.n_changed += int(changed.sum())
        self.at_05 += int((p[~changed] < 0.05).sum())
        self.at_001 += int((p[~changed] < 0.001).sum())
        self.found += int(called[changed].sum())
        self.false += int(called[~changed].sum())

    def row(self) -> dict[str, float]:
        """Shares: of null genes, of changed genes found, and of false ones among all that are called."""
        return {
            "n_null": self.n_null,
            "at_05": self.at_05 / self.n_null,
            "at_001": self.at_001 / self.n_null,
            "called": self.found + self.false,
            "found": self.found / self.n_changed,
            "fdp": self.false / max(self.found + self.false, 1),
            "missing": self.missing,
        }
