# ruff: noqa: T201 - a program that prints
"""The command line of the fuzz run, and its table of figures."""

from __future__ import annotations

import argparse
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from . import lme4
from .bad import judge_bad
from .draw import draw
from .judge import Outcome, Trial

# Rows that must be zero.
ZEROS = (
    "log-likelihood below lme4's",
    "log-likelihood is not the exact one",
    "log-likelihood is not scipy's density",
    "a higher log-likelihood on the grid",
    "coefficient is not the exact one",
    "a gene that can be fitted was not",
    "a design that can be fitted was refused",
    "another model",
    "exceptions that are not ours",
    "warnings that are not ours",
    "bad input was taken",
    "valid status with NaN",
    "NaN p without a reason",
    "impossible numbers",
    "adata touched by a failed call",
    "adata changed beyond its results",
    "check_design and lmm_de disagree",
    "lmm_de and lmm_fit disagree",
    "get differs from varm",
    "relabelling changes the answer",
    "not stored",
    "the fuzz itself fails",
)
_BATCH = 50
BAD = 8  # every so many a case is of bad input


def run_case(seed: int, number: int) -> Outcome:
    """Draw and judge one case."""
    try:
        if number % BAD == 0:
            return judge_bad(seed, number // BAD, number)
        return Trial(draw(seed, number), seed).run()
    except Exception:  # noqa: BLE001 - reported with the number that repeats it
        outcome = Outcome(number)
        outcome.fail("the fuzz itself fails", traceback.format_exc(limit=-6))
        return outcome


def run(seed: int, numbers: list[int], *, with_r: bool) -> tuple[Counter[str], list[Outcome]]:
    """Judge cases; figures of all, and the outcomes with failures."""
    outcomes = [run_case(seed, number) for number in numbers]
    if with_r:
        lme4.compare(outcomes)
    figures = Counter({"designs drawn": len(numbers)})
    for outcome in outcomes:
        outcome.genes.clear()
        figures.update(outcome.figures)
    return figures, [outcome for outcome in outcomes if outcome.failures]


def run_all(seed: int, numbers: list[int], *, with_r: bool, jobs: int) -> tuple[Counter[str], list[Outcome]]:
    """The same in batches, several at a time."""
    figures: Counter[str] = Counter()
    failed: list[Outcome] = []
    with ProcessPoolExecutor(jobs) as pool:
        batches = [numbers[start : start + _BATCH] for start in range(0, len(numbers), _BATCH)]
        for of_batch, outcomes in pool.map(partial(run, seed, with_r=with_r), batches):
            figures.update(of_batch)
            failed += outcomes
            for outcome in outcomes:
                print(f"\ndesign {outcome.number}: hatch run fuzz --seed {seed} --only {outcome.number}")
                for row, text in outcome.failures:
                    print(f"    {row}: {text}")
            print(f"{figures['designs drawn']} designs, {len(failed)} with failures", flush=True)
    return figures, failed


def main() -> int:
    """Run, print the table, and say by the exit code whether all that must be zero is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", type=int, default=200, help="how many to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of designs to repeat")
    parser.add_argument("--no-r", action="store_true", help="leave lme4 out where it is")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    chosen = parser.parse_args()
    start = time.monotonic()
    with_r = not chosen.no_r and lme4.is_there()
    numbers = chosen.only if chosen.only else list(range(chosen.designs))
    figures, outcomes = run_all(chosen.seed, numbers, with_r=with_r, jobs=chosen.jobs)
    shown = Counter(row for outcome in outcomes for row, _ in outcome.failures)
    print(f"\nseed {chosen.seed}, {time.monotonic() - start:.0f} s{'' if with_r else ', without lme4'}")
    for name, count in sorted(figures.items(), key=lambda item: -item[1]):
        print(f"{count:8d}  {name}")
    print("must be 0:")
    for row in ZEROS:
        print(f"{shown[row]:8d}  {row}")
    return int(bool(outcomes))
