"""Anatomy of a design -> the verdicts that refuse it: columns that determine each other, tests without replication."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from .._design import read_term
from .._errors import listing
from .._names import random_intercept
from .._words import named, one, unit
from .facts import Verdict, shortened
from .formulas import formula_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .alias import Alias
    from .anatomy import Anatomy
    from .facts import TestFacts


def refusals(a: Anatomy, tests: Sequence[TestFacts]) -> Iterator[Verdict]:
    """Reasons why the model or the test cannot be had."""
    kinds: dict[tuple[str, tuple[str, ...], str], list[Alias]] = defaultdict(list)
    for alias in a.aliases:
        terms = a.terms_of(alias)
        tested = next((test.term for test in tests if test.term in terms), "")
        kinds[_kind(a, alias, terms, tested), terms, tested].append(alias)
    for (kind, terms, tested), aliases in kinds.items():
        relations = "; ".join(shortened([str(alias) for alias in aliases], limit=3, width=150))
        yield _ALIASED[kind](a, terms, tested, relations)
    for test in tests:
        if not a.aliases_of(test.term):
            yield from _no_replication(a, test)


def _kind(a: Anatomy, alias: Alias, terms: tuple[str, ...], tested: str) -> str:
    if set(alias.others) <= {"Intercept"}:
        return "empty_interaction" if _empty_cells(a, terms) else "constant_column"
    if _grouping_term(a, terms):
        return "grouping_fixed"
    if _empty_cells(a, terms):
        return "empty_interaction"
    if _close_powers_of(a, terms):
        return "close_powers"
    if tested:
        return "aliased_with_test"
    return "identical_columns" if len(alias.others) == 1 and abs(alias.coefficients[0] - 1) < 1e-9 else "aliased"


def _grouping_term(a: Anatomy, terms: tuple[str, ...]) -> str:
    """Name the term that is the grouping itself as a fixed factor, "" if none is."""
    found = [name for name in terms if name in a.crossings and a.crossings[name].constant and a.crossings[name].divides]
    return found[0] if found else ""


def _empty_cells(a: Anatomy, terms: tuple[str, ...]) -> dict[str, list[str]]:
    """Combinations of levels without cells, by interaction."""
    tables = {name: a.crossings[name] for name in terms if len(read_term(name)) > 1 and name in a.crossings}
    empty = {
        name: [level for level, n in zip(t.levels, t.cells.sum(axis=0), strict=True) if n == 0]
        for name, t in tables.items()
    }
    return {name: levels for name, levels in empty.items() if levels}


def _power(term: str) -> tuple[str, int]:
    """Take a term such as ``I(day ** 2)`` apart; any other is its own first power."""
    found = re.fullmatch(r"I\((.+?) ?\*\* ?(\d+)\)", term)
    return (found[1], int(found[2])) if found else (term, 1)


def _close_powers_of(a: Anatomy, terms: Sequence[str]) -> str:
    """Name the annotation of which the terms are powers that numbers closer to zero would tell apart, "" if none."""
    bases, degrees = zip(*map(_power, terms), strict=True)
    numbers = a.design.number_of(bases[0].strip("`"))
    if len(terms) < 2 or len(set(bases)) > 1 or numbers is None or len(np.unique(numbers)) <= max(degrees):
        return ""
    return str(bases[0])


def _constant_column(a: Anatomy, terms: tuple[str, ...], _tested: str, relations: str) -> Verdict:
    return Verdict(
        "refused",
        "constant_column",
        f"{named(terms)} is the same in all cells used, so it has no coefficient: {relations}.",
        f'Drop it: "{formula_with(a.design.coding, drop=terms[:1])}".',
    )


def _identical_columns(a: Anatomy, terms: tuple[str, ...], _tested: str, relations: str) -> Verdict:
    return Verdict(
        "refused",
        "identical_columns",
        f"{named(terms)} hold the same values, to seven digits, in all cells used: {relations}.",
        f'Keep one of them, e.g. "{formula_with(a.design.coding, drop=terms[-1:])}".',
    )


def _grouping_fixed(a: Anatomy, terms: tuple[str, ...], tested: str, relations: str) -> Verdict:
    term = _grouping_term(a, terms)
    others = [name for name in terms if name != term]
    what = tested if tested in others else named(others)
    return Verdict(
        "refused",
        "grouping_fixed",
        f"{term} is a fixed factor beside {named(others)}: its {a.sizes.size} levels have a free coefficient each, "
        f"which together reproduce {what} exactly ({relations}). Any difference between {unit(a.group)} can be put on either "
        f"at no cost, so the data cannot tell them apart.",
        f'Leave {term} to the random intercept, where its effects have to be paid for: "{formula_with(a.design.coding, drop=[term])}".',
    )


def _empty_interaction(a: Anatomy, terms: tuple[str, ...], _tested: str, relations: str) -> Verdict:
    empty = _empty_cells(a, terms)
    levels = [level for found in empty.values() for level in found]
    return Verdict(
        "refused",
        "empty_interaction",
        f"{named(list(empty))} has combinations of levels without cells ({listing(levels, 6)}), and with them "
        f"coefficients that nothing determines: {relations}.",
        f"Leave out the cells of a level that is not in every combination, or drop the interaction: "
        f'"{formula_with(a.design.coding, drop=list(empty))}".',
    )


def _close_powers(a: Anatomy, terms: tuple[str, ...], _tested: str, relations: str) -> Verdict:
    name, _ = _power(terms[0])
    powers = [term for term in a.design.terms if term != name and _power(term)[0] == name]
    poly = f"poly({name}, {max(_power(term)[1] for term in powers)})"
    put: dict[str, Any] = {"replace": {name: poly}} if name in a.design.terms else {"first": poly}
    return Verdict(
        "refused",
        "close_powers",
        f"{named(terms)} are powers of numbers that vary little for their size, and determine each other to seven digits "
        f"of what varies: {relations}.",
        f'Type "{formula_with(a.design.coding, drop=powers, **put)}", which has the same fit, or powers of {name} less its mean.',
    )


def _aliased_with_test(a: Anatomy, terms: tuple[str, ...], tested: str, relations: str) -> Verdict:
    others = [name for name in terms if name != tested]
    if not others:
        return _aliased(a, terms, tested, relations)
    return Verdict(
        "refused",
        "aliased_with_test",
        f"{tested} cannot be told apart from {named(others)}: {relations}. Their effects always come together in these "
        f"cells, so no method can say to which of them a difference belongs.",
        f'Without {named(others)} ("{formula_with(a.design.coding, drop=others)}") the coefficient of {tested} stands for the sum '
        f"of these effects. To part them, {unit(a.group)} are needed in which they do not come together.",
    )


def _aliased(a: Anatomy, terms: tuple[str, ...], _tested: str, relations: str) -> Verdict:
    return Verdict(
        "refused",
        "aliased",
        f"The columns of {named(terms)} determine each other: {relations}. Their coefficients have no single solution.",
        f'Drop one of them, e.g. "{formula_with(a.design.coding, drop=[terms[-1]])}".',
    )


_ALIASED = {
    "constant_column": _constant_column,
    "identical_columns": _identical_columns,
    "grouping_fixed": _grouping_fixed,
    "empty_interaction": _empty_interaction,
    "close_powers": _close_powers,
    "aliased_with_test": _aliased_with_test,
    "aliased": _aliased,
}


def _no_replication(a: Anatomy, test: TestFacts) -> Iterator[Verdict]:
    single = [level for level, n in test.donors_per_level.items() if n < 2]
    if test.df == 0 and single and len(single) == len(test.donors_per_level):
        yield _random_aliased(a, test)
    elif single:
        yield Verdict(
            "refused",
            "one_donor_level",
            f"{listing(single)} of {test.term} {'has' if len(single) == 1 else 'have'} cells of only one "
            f"{one(a.group)}: what is special about it cannot be told from what is special about the level.",
            f"Add {unit(a.group)}, or leave the level out: "
            f"adata[~adata.obs[{_column(a, test.term)!r}].astype(str).isin({single[:3]!r})].copy().",
        )
    elif test.df == 0:
        yield Verdict(
            "refused",
            "no_df",
            f"{test.term} is judged between {unit(a.group)}, and as many coefficients that differ between them use up all "
            f"{a.sizes.size}: nothing is left to judge it against (0 df).",
            f"Drop covariates that are constant within {a.group}, or add {unit(a.group)}.",
        )


def _random_aliased(a: Anatomy, test: TestFacts) -> Verdict:
    return Verdict(
        "refused",
        "random_aliased",
        f"Each level of {test.term} is one level of {a.group}, so a difference between levels of {test.term} and one "
        f"between draws of {random_intercept(a.group)} are the same numbers. The fit would run, but its p-value would rest on the "
        f"prior variance of {a.group} alone: {unit(a.group, a.sizes.size)}, 0 df, however many the cells.",
        f"Use the column of donors or samples as the random intercept, if there are several in each level of "
        f"{test.term}; {a.group} itself stays confounded with {test.term}. Else there is no replication to test with.",
    )


def _column(a: Anatomy, term: str) -> str:
    return a.design.factor_of(term) or term
