"""A test -> what to warn of, for a fit that has no cells left to look at: what changes the meaning of its p-values.

Most of it was found for each term when there were cells. What depends on the test alone, the level at which it leaves
what it does not name, is found when it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._design import comparisons_of, hypotheses_of, is_random_term, read_term
from .._names import quoted
from .._words import named, unit
from .facts import Verdict
from .formulas import formula_with

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from .._design import Coding, Comparison, TestSpec


@dataclass(frozen=True)
class Cautions:
    """Sentences, each of which is said once."""

    of_term: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # "" for a test of the random term
    varying: frozenset[str] = frozenset()  # factors that vary within donors
    _said: set[str] = field(default_factory=set, repr=False)

    def __call__(self, coding: Coding, test: TestSpec) -> list[str]:
        """What is to be said of a test and was not said before."""
        found = [sentence for term in _concerned(coding, test) for sentence in self.of_term.get(term, ())]
        found += [verdict.warning for verdict in place_verdicts(coding, test, self.varying)]
        new = [sentence for sentence in dict.fromkeys(found) if sentence not in self._said]
        self._said.update(new)
        return new


def tested_terms(coding: Coding, test: TestSpec) -> list[str]:
    """Fixed-effect terms of which a test weighs coefficients; none of a test of the random term."""
    if is_random_term(test, coding):
        return []
    hypotheses = hypotheses_of(coding, test)
    return [
        term
        for term, columns in coding.terms.items()
        if term != "Intercept" and any(h.L[:, columns].any() for h in hypotheses)
    ]


def _concerned(coding: Coding, test: TestSpec) -> list[str]:
    """Terms whose test says most of this one: of a contrast, those that are not interactions of others in it."""
    terms = tested_terms(coding, test)
    if is_random_term(test, coding):
        return [""]
    if not any(h.written for h in hypotheses_of(coding, test)):
        return terms
    return [term for term in terms if not any(set(read_term(other)) < set(read_term(term)) for other in terms)]


def place_verdicts(coding: Coding, test: TestSpec, varying: Collection[str]) -> Iterator[Verdict]:
    """Judge a test that is made at one level of a column with which what it compares interacts.

    Parameters
    ----------
    coding, test
        What is tested.
    varying
        Factors that vary within donors.
    """
    comparisons = [*comparisons_of(coding, test).values()]
    at = {name: value for found in comparisons for name, value in found.at.items()}
    if not at:
        return
    terms = tested_terms(coding, test)
    what, places = named(terms), named([f"{name} = {_said(value)}" for name, value in at.items()])
    subset = _subset(coding, comparisons, at, varying)
    small = f"are too small where {unit(coding.group)} do not differ from each other there as they do elsewhere"
    if unnamed := {name: at[name] for found in comparisons for name in found.unnamed}:
        columns = set().union(*(coding.columns_of(term) for term in terms))
        inside = [t for t in coding.terms if (used := coding.columns_of(t)) & columns and used & at.keys()]
        typed = f'{_elsewhere(coding, unnamed)}, or "{formula_with(coding, drop=inside)}" for one effect throughout'
        yield Verdict(
            "caution",
            "reference_level",
            f"{what} also stands in {named(inside)}, so that what is tested is its effect at {places} and nowhere "
            f"else: the reference level of a factor, or 0 of a number." + (f" Its p-values {small}." if subset else ""),
            f"Type {typed}." + (f" To judge it there, type {subset}." if subset else ""),
            warning=f"The p-values of {what} are of its effect at {places} alone, because it also stands in "
            f"{named(inside)}{f', and {small}' if subset else ''}: type {typed}{f', or {subset}' if subset else ''}.",
        )
    elif subset:
        yield Verdict(
            "caution",
            "one_level",
            f"The effect at {places} is judged against {unit(coding.group)} that are taken to differ from each other "
            f"there as they do elsewhere. Where they do not, its p-values are too small.",
            f"To judge it by these cells alone, type {subset}.",
            warning=f"The p-values of the effect at {places} {small}: type {subset}.",
        )


def _subset(coding: Coding, comparisons: Sequence[Comparison], at: Mapping[str, Any], varying: Collection[str]) -> str:
    """How to fit a comparison of donors to the cells of one level alone; "" where donors are not what is compared."""
    compared = {name for found in comparisons for where in found.conditions for name in where} - at.keys()
    levels = {name: value for name, value in at.items() if name in varying}
    if not levels or not compared or compared & set(varying):
        return ""
    chosen = " & ".join(f'(adata.obs["{name}"] == {value!r})' for name, value in levels.items())
    chosen = chosen[1:-1] if len(levels) == 1 else chosen
    settled = [term for term in coding.terms if coding.columns_of(term) & levels.keys()]
    return f'adata[{chosen}].copy() and "{formula_with(coding, drop=settled)}" for these cells'


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _elsewhere(coding: Coding, unnamed: Mapping[str, Any]) -> str:
    """How to ask for the effect at another level of what was not named."""
    name, value = next(iter(unnamed.items()))
    if name not in coding.levels:
        return f'adata.obs["{name}"] -= adata.obs["{name}"].mean() for its average'
    other = next(level for level in coding.values_of(name) if level != value)
    # Levels of C(number) are numbers, which have no reference to choose.
    reference = f"reference={{{name!r}: {other!r}}} or " if isinstance(other, str) else ""
    return f"{reference}cond(..., {quoted(name, in_code=True)}={other!r}) for another level"
