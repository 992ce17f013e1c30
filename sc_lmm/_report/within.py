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
from .._words import named, one, unit
from .facts import Verdict
from .formulas import blocked_formula

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from .anatomy import Anatomy
    from .facts import TestFacts


def within_verdicts(a: Anatomy, tests: Sequence[TestFacts], left_out: Collection[str]) -> Iterator[Verdict]:
    """Verdicts on tested terms; one that is in `left_out` is warned of by the unit that is not in the formula."""
    warned = any(test.term in left_out for test in tests)
    for test in tests:
        crossing = a.crossings.get(test.term)
        if test.level == "within":
            verdict = _cell_level(a, test) if crossing is None else _paired(a, test, left_out)
        elif crossing is not None and not crossing.constant and len(read_term(test.term)) == 1:
            verdict = _partly_within(a, test)
        else:
            continue
        yield replace(verdict, warning="") if warned else verdict
        warned = True


def _slope(a: Anatomy, term: str) -> str:
    return f"A random slope (1 + {term} | {quoted(a.group)}) would allow for that; it is not supported yet."


def _cell_level(a: Anatomy, test: TestFacts) -> Verdict:
    term, units = test.term, unit(a.group)
    return Verdict(
        "caution",
        "cell_level_test",
        f"{term} varies from cell to cell, and its slope is taken to be the same in all {units}. If slopes differ "
        f"between them, as they do in most data, p-values are too small: cells are then not the replicates.",
        f"{_slope(a, term)} Rank genes by the effect, and take those that show in most {units}.",
        warning=f"The p-values of {term} take its slope to be the same in all {units} and are too small where it is "
        f'not: rank genes by the effect, sl.get.lmm_de_df(adata).sort_values("coef", key=abs), and take those that '
        f"show in most {units}.",
    )


def _paired(a: Anatomy, test: TestFacts, left_out: Collection[str]) -> Verdict:
    term, units = test.term, unit(a.group)
    several = int((a.crossings[term].levels_per_donor > 1).sum())
    until, spoken = _joined_advice(a, term)
    return Verdict(
        "caution",
        "paired",
        f"{term} varies within {a.group} (paired: {several} of {unit(a.group, a.sizes.size)} have several levels), so "
        f"each is its own control. But the model lets none respond differently: {term} is judged against the spread of "
        f"cells ({test.df:,} df), and p-values are too small if responses differ between {units}.",
        _slope(a, term) + ("" if term in left_out else f" Until then{until}"),
        warning=f"The p-values of {term} are too small where {units} respond to it differently, because its cells count as "
        f"replicates within a {one(a.group)}: {spoken}",
    )


def _joined_advice(a: Anatomy, term: str) -> tuple[str, str]:
    """How to make the unit of a paired design, the grouping by the factors that vary within it, as advice and as a warning."""
    parts = [name for name in read_term(term) if not _is_constant(a, name)]
    factors = [factor for name in parts if (factor := a.design.factor_of(name)) is not None]
    if not parts or len(factors) < len(parts):
        what = f"join {a.group} and {named(parts or [term])} into one column and use that as the random intercept."
        return f" {what}", what
    columns = [a.group, *factors]
    joined = "_".join(columns)
    text = ' + "_" + '.join(f'adata.obs["{name}"].astype(str)' for name in columns)
    formula = blocked_formula(a.design.coding, a.group, _constant_terms(a), joined)
    make = f'adata.obs["{joined}"] = {text}'
    return (
        f': {make} and "{formula}", which judges {term} between these, within {a.group}.',
        f'type {make} and "{formula}".',
    )


def _is_constant(a: Anatomy, term: str) -> bool:
    crossing = a.crossings.get(term)
    return crossing is not None and crossing.constant


def _constant_terms(a: Anatomy) -> Sequence[str]:
    """Terms that do not vary within the grouping."""
    return [name for name in a.design.terms if name != "Intercept" and not a.within[a.columns(name)].any()]


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
