"""The command: run the sections asked for, print each as it ends, save everything."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import against, count_speed, grouped, memory, report, scaling, speed, terms
from .bench import Bench, say
from .peers import QUESTION
from .plan import FULL, QUICK, SECTIONS
from .profiling import print_profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from .bench import Section

_RUN: dict[str, Callable[[Bench], Section]] = {
    "call": speed.call,
    "pass": speed.visit,
    "fits": speed.fits,
    "memory": memory.layouts,
    "cells": speed.cells,
    "groups": grouped.groups,
    "terms": terms.terms,
    "counts": count_speed.counts,
    "donors": speed.donors,
    "first": speed.first,
    "import": speed.importing,
    "peers": against.peers,
    "scaling": scaling.scaling,
}


def main() -> None:
    """Run the benchmarks."""
    sys.stdout.reconfigure(line_buffering=True)  # in step with what is said on stderr
    options = _options()
    plan = QUICK if options.quick else FULL
    plan = replace(plan, rounds=options.rounds or plan.rounds)
    bench, about = Bench(plan), report.machine()
    _print_head(bench, about)
    sections: dict[str, Section] = {}
    for name in options.only:
        say(name)
        sections[name] = _RUN[name](bench)
        report.print_section(name, sections[name])
    if options.profile:
        print_profile(bench)
    _conclude(options, bench, sections, about)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure sc_lmm against its targets and its peers.")
    parser.add_argument("--quick", action="store_true", help="small data, two minutes; ratios are rougher")
    parser.add_argument("--only", nargs="*", default=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, help="interleaved repeats of each call")
    parser.add_argument("--profile", action="store_true", help="print where one call spends its time")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of JSON and figure")
    options = parser.parse_args()
    options.only = [name for group in options.only for name in group.split(",")]
    unknown = [name for name in options.only if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return options


def _print_head(bench: Bench, about: dict[str, object]) -> None:
    size = bench.plan.size
    adata = bench.adata
    density = adata.X.nnz / (size.n_cells * size.n_genes)
    print(f"# sc_lmm benchmark: {QUESTION}")
    print(f"{size.n_cells:,} cells x {size.n_genes:,} genes, {size.n_donors} donors, CSR float32, {density:.1%} stored")
    report.print_table([{key: value for key, value in about.items() if key != "versions"}])
    print(about["versions"])


def _conclude(
    options: argparse.Namespace, bench: Bench, sections: dict[str, Section], about: dict[str, object]
) -> None:
    outcomes = [outcome for section in sections.values() for outcome in section.outcomes if outcome.limit is not None]
    print("\n## targets")
    report.print_outcomes(sorted(outcomes, key=lambda outcome: outcome.target))
    print(f"{sum(o.hit is True for o in outcomes)} hits, {sum(o.hit is False for o in outcomes)} misses")
    options.out.mkdir(parents=True, exist_ok=True)
    stem = "quick" if options.quick else "full"
    report.save(options.out / f"{stem}.json", bench.plan, sections, about)
    if "scaling" in sections:
        _draw(sections["scaling"], options.out / f"{stem}_scaling.png")


def _draw(section: Section, path: Path) -> None:
    report.print_table(scaling.slopes(section.rows))
    try:
        scaling.draw(section.rows, path)
    except ImportError:
        print("No figure: matplotlib is not installed.", file=sys.stderr)
