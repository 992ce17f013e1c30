"""Anatomy of a design -> verdicts on a tested term that varies within donors: paired designs and cell-level slopes.

Their p-values take every donor to respond alike, and are too small where donors do not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .._design import read_term
from .._errors import listing
from .._names import quoted
from .._words import one, unit
from .facts import Verdict
from .formulas import sloped_formula

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from .anatomy import Anatomy
    from .facts import TestFacts


def within_verdicts(a: Anatomy, tests: Sequence[TestFacts], left_out: Collection[str]) -> Iterator[Verdict]:
    """Verdicts on tested terms; one that is in `left_out` is warned of by the unit that is not in the formula."""
    warned = any(test.term in left_out for test in tests)
    yield from map(_own_term, (test for test in tests if test.judged_by))
    for test in (test for test in tests if not test.judged_by):
        crossing = a.crossings.get(test.term)
        if test.level == "within":
            verdict = _cell_level(a, test) if crossing is None else _paired(a, test)
        elif crossing is not None and not crossing.constant and len(read_term(test.term)) == 1:
            verdict = _partly_within(a, test)
        else:
            continue
        yield replace(verdict, warning="") if warned else verdict
        warned = True


def _own_term(test: TestFacts) -> Verdict:
    if test.df <= 0:
        return Verdict(
            "refused",
            "no_df",
            f"{test.term} is judged by {test.judged_by}, of which other terms leave none.",
            "Drop a covariate or a random term, or add donors.",
        )
    return Verdict(
        "ok",
        "random_effect_of_term",
        f"{test.term} is judged by {test.judged_by}, {test.df:,} df, as the random terms say.",
    )


def _own_response(a: Anatomy, term: str) -> str:
    """Write the formula in which each level of the grouping responds to a term in its own way."""
    group, coding = quoted(a.group), a.design.coding
    parts = [name for name in read_term(term) if not _is_constant(a, name)] or [term]
    factors = [factor for name in parts if (factor := a.design.factor_of(name)) is not None]
    if len(parts) == 1:
        effects = f"({parts[0]} | {group})"
    elif len(factors) == len(parts):
        effects = f"(1 | {group}/{':'.join(map(quoted, factors))})"
    else:
        effects = f"(1 + {term} | {group})"
    return sloped_formula(coding, effects, a.group)


def _cell_level(a: Anatomy, test: TestFacts) -> Verdict:
    term, units = test.term, unit(a.group)
    return Verdict(
        "caution",
        "cell_level_test",
        f"{term} varies from cell to cell, and its slope is taken to be the same in all {units}. If slopes differ "
        f"between them, as they do in most data, p-values are too small: cells are then not the replicates.",
        f'Give each a slope of its own: "{_own_response(a, term)}".',
        warning=f"The p-values of {term} take its slope to be the same in all {units} and are too small where it is "
        f'not: type "{_own_response(a, term)}".',
    )


def _paired(a: Anatomy, test: TestFacts) -> Verdict:
    term, units = test.term, unit(a.group)
    several = int((a.crossings[term].levels_per_donor > 1).sum())
    typed = _own_response(a, term)
    return Verdict(
        "caution",
        "paired",
        f"{term} varies within {a.group} (paired: {several} of {unit(a.group, a.sizes.size)} have several levels), so "
        f"each is its own control. But the model lets none respond differently: {term} is judged against the spread of "
        f"cells ({test.df:,} df), and p-values are too small if responses differ between {units}.",
        f'Type "{typed}", which lets each respond in its own way, and judges {term} by them.',
        warning=f"The p-values of {term} are too small where {units} respond to it differently, because its cells count as "
        f'replicates within a {one(a.group)}: type "{typed}".',
    )


def _is_constant(a: Anatomy, term: str) -> bool:
    crossing = a.crossings.get(term)
    return crossing is not None and crossing.constant


def _partly_within(a: Anatomy, test: TestFacts) -> Verdict:
    mixed = np.array(a.design.random.levels)[a.crossings[test.term].levels_per_donor > 1]
    few = f"{unit(a.group, len(mixed))} ({listing(mixed, 5)})"
    column = next(iter(a.design.coding.columns_of(test.term)))
    return Verdict(
        "caution",
        "partly_within",
        f"{test.term} is constant within most {unit(a.group)} but varies within {few}: the test mixes comparisons "
        f"between and within {unit(a.group)}.",
        f"Check the annotation of these. If {test.term} does change within a {one(a.group)} (time points), use the "
        f"column of the finer unit, e.g. the sample, as the random intercept.",
        warning=f"{test.term} varies within {few}, where its cells count as replicates, so that its p-values may be too "
        f"small: see pd.crosstab(adata.obs[{a.group!r}], adata.obs[{column!r}]), and if it is no error of annotation "
        f"use the column of the finer unit, e.g. the sample, as the random intercept.",
    )
