"""The design report: facts about each term, graded verdicts, and their forms as text, HTML, dict and stored string.

In names and comments "donor" stands for a level of the random grouping; texts call it what its column is called.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._errors import DesignError, warn
from .._names import random_intercept
from .._words import one, unit
from .render import Page, Remark, Table, to_html, to_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GRADES = ("ok", "caution", "refused")
_MAX_LEVELS = 4  # more are summarised
_MAX_RELATIONS = 4


@dataclass(frozen=True)
class TermFacts:
    """Where one fixed-effect term varies and what it can be judged against."""

    name: str
    columns: tuple[str, ...]  # its coefficients
    varies: Literal["between", "within", "both"]  # donors
    between_share: float  # of its variance
    donors: dict[str, int]  # level -> donors with cells in it; empty for a numeric term
    cells: dict[str, int]  # level -> cells
    max_df: int  # denominator degrees of freedom at most, 0 if it is not estimable
    estimable: bool
    aliases: tuple[str, ...]  # exact relations with other columns


@dataclass(frozen=True)
class RandomFacts:
    """The levels of a random term."""

    name: str
    levels: int
    smallest: int  # cells per level
    median: float
    largest: int
    effective_levels: float  # n^2 / sum n_j^2: as many levels of equal size would weigh the same
    effective_cells: float  # per level, harmonic mean
    relations: tuple[str, ...]  # nested in, crossed with
    text: str = ""  # the term as the formula writes it, "" for (1 | name)


@dataclass(frozen=True)
class Detectable:
    """The smallest effect that the test finds with 80 % power at level .05, if the ICC is this."""

    comparison: str
    icc: float
    design_effect: float  # variance of the coefficient over that from as many independent cells
    effective_cells: float
    sd_cell: float  # effect in standard deviations of a cell
    sd_donor_mean: float  # effect in standard deviations of a donor's mean
    sd_cell_endless: float  # sd_cell, had every donor endlessly many cells


@dataclass(frozen=True)
class TestFacts:
    """The information behind the test."""

    __test__ = False  # not a test class of pytest's

    term: str
    level: Literal["between", "within"]  # where most of the information is, at an ICC of .05
    donors: int
    donors_per_level: dict[str, int]  # of the levels compared; empty for a numeric term
    df: int
    inflation: float  # of the variance of its coefficient by all other terms (the largest, for several)
    inflation_by: dict[str, float]  # the part of it that would go with each other term
    per: str  # what the detectable effects are of: a difference between levels, a slope times an sd
    enough_cells_icc: float  # from this ICC on endless cells would lower sd_cell by less than 10 %; 1 if none
    detectable: tuple[Detectable, ...]
    judged_by: str = ""  # of several random terms, in words; "" for one random intercept, or the cells


@dataclass(frozen=True)
class Verdict:
    """One judgement of the design, in a plain sentence, and what to do about it."""

    grade: Literal["ok", "caution", "refused"]
    code: str
    message: str
    advice: str = ""
    warning: str = ""  # one sentence, with what to type, if p-values do not mean what they would without it


@dataclass(frozen=True, repr=False)
class DesignReport:
    """What a design can and cannot answer. ``print`` shows it as text, Jupyter as HTML, ``to_dict`` gives the facts."""

    formula: str
    n_cells: int  # that enter the model
    n_dropped: int  # left out for a missing annotation
    dropped_by_donor: dict[str, int]
    terms: tuple[TermFacts, ...]
    random: tuple[RandomFacts, ...]  # empty if the formula could not be read
    tests: tuple[TestFacts, ...]  # one for each tested term; empty if none was named
    verdicts: tuple[Verdict, ...]  # the gravest first

    @property
    def test(self) -> TestFacts | None:
        """Facts of the tested term, the first if there are several."""
        return self.tests[0] if self.tests else None

    @property
    def grade(self) -> str:
        """The gravest grade among the verdicts: "ok", "caution" or "refused"."""
        return max((v.grade for v in self.verdicts), key=GRADES.index, default="ok")

    @property
    def refused(self) -> bool:
        """Whether :func:`sc_lmm.tl.lmm_de` would raise."""
        return self.grade == "refused"

    def raise_if_refused(self) -> None:
        """Raise a ``DesignError`` with the words of the verdicts that refuse the design."""
        if self.refused:
            raise DesignError(
                " ".join(f"{v.message} {v.advice}".strip() for v in self.verdicts if v.grade == "refused")
            )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What changes the meaning of a p-value, a sentence each."""
        return tuple(dict.fromkeys(v.warning for v in self.verdicts if v.warning))

    def warn(self) -> None:
        """Warn of what changes the meaning of a p-value."""
        for sentence in self.warnings:
            warn(sentence)

    def to_dict(self) -> dict[str, Any]:
        """Give all facts as dicts, lists, strings, numbers and booleans."""
        return {**json.loads(json.dumps(asdict(self))), "grade": self.grade, "refused": self.refused}

    def to_uns(self) -> dict[str, Any]:
        """Give a form that h5ad and zarr can store: the report as one string, and the counts that others read."""
        sizes = [[r.smallest, r.median, r.largest] for r in self.random]
        return {
            "group": self.random[0].name if self.random else "",
            "n_cells": self.n_cells,
            "n_cells_dropped": self.n_dropped,
            "n_donors": self.random[0].levels if self.random else 0,
            "cells_per_donor": np.array(sizes[0] if sizes else [], dtype=np.float64),
            "grade": self.grade,
            "report": json.dumps(self.to_dict()),
        }

    def __repr__(self) -> str:
        """Write the report as text of at most 100 columns."""
        return to_text(_page(self))

    def _repr_html_(self) -> str:
        return to_html(_page(self))


def from_dict(facts: Mapping[str, Any]) -> DesignReport:
    """Rebuild a report from what ``to_dict`` gave."""
    return DesignReport(
        formula=facts["formula"],
        n_cells=facts["n_cells"],
        n_dropped=facts["n_dropped"],
        dropped_by_donor=dict(facts["dropped_by_donor"]),
        terms=tuple(TermFacts(**_tuples(term)) for term in facts["terms"]),
        random=tuple(RandomFacts(**_tuples(term)) for term in facts["random"]),
        tests=tuple(
            TestFacts(**{**test, "detectable": tuple(Detectable(**d) for d in test["detectable"])})
            for test in facts["tests"]
        ),
        verdicts=tuple(Verdict(**verdict) for verdict in facts["verdicts"]),
    )


def from_uns(stored: Mapping[str, Any]) -> DesignReport:
    """Rebuild a report from what ``to_uns`` gave, also after a file."""
    return from_dict(json.loads(str(stored["report"])))


def _tuples(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}


def _page(report: DesignReport) -> Page:
    counts = [sum(v.grade == grade for v in report.verdicts) for grade in GRADES]
    grade = report.grade + (f" ({counts[1]})" if report.grade == "caution" and counts[1] > 1 else "")
    tests = [_test_table(test, report.random[0].name) for test in report.tests]
    tables = [_term_table(report), _random_table(report), *tests]
    return Page(
        title="Design report",
        grade=grade,
        lines=(report.formula, *_size_line(report)),
        tables=tuple(table for table in tables if table is not None),
        remarks=tuple(Remark(v.grade, v.code, v.message, v.advice) for v in report.verdicts),
    )


def _size_line(report: DesignReport) -> list[str]:
    if not report.random:
        return []
    dropped = f" ({report.n_dropped:,} left out for missing annotations)" if report.n_dropped else ""
    random = report.random[0]
    return [f"{report.n_cells:,} cells{dropped} of {unit(random.name, random.levels)}"]


def _term_table(report: DesignReport) -> Table | None:
    if not report.terms:
        return None
    rows = tuple(
        (
            term.name,
            term.varies,
            f"{100 * term.between_share:.3g} %",
            f"{term.max_df:,}" if term.estimable else "-",
            "yes" if term.estimable else "no",
            _levels(term.donors),
            _levels(term.cells),
        )
        for term in report.terms
    )
    units = unit(report.random[0].name)
    header = ("term", "varies", "between", "df at most", "estimable", units, "cells")
    relations = list(dict.fromkeys(relation for term in report.terms for relation in term.aliases))
    explained = f'"varies": between or within {units}, "between": share of the variance between them'
    return Table("Fixed effects", header, rows, (explained, *shortened(relations)))


def _random_table(report: DesignReport) -> Table | None:
    if not report.random:
        return None
    header = ("term", "levels", "least cells", "median", "most", "effective levels", "effective cells per level")
    rows = tuple(
        (
            term.text or random_intercept(term.name),
            f"{term.levels:,}",
            f"{term.smallest:,}",
            f"{term.median:,.6g}",
            f"{term.largest:,}",
            f"{term.effective_levels:,.1f}",
            f"{term.effective_cells:,.1f}",
        )
        for term in report.random
    )
    return Table("Random effects", header, rows, tuple(note for term in report.random for note in term.relations))


def _test_table(test: TestFacts, group: str) -> Table:
    header = ("comparison", "ICC", "design effect", "cells count as", "sd of a cell", "endless cells")
    rows = tuple(
        (
            d.comparison,
            f"{d.icc:g}",
            f"{d.design_effect:,.3g}",
            f"{d.effective_cells:,.0f}",
            f"{d.sd_cell:.3g}",
            f"{d.sd_cell_endless:.3g}",
            f"{d.sd_donor_mean:.3g}",
        )
        for d in test.detectable
    )
    return Table(f"Test of {test.term}", (*header, f"sd of a {one(group)} mean"), rows, tuple(_test_notes(test, group)))


def _test_notes(test: TestFacts, group: str) -> list[str]:
    arms = f" ({_levels(test.donors_per_level)})" if test.donors_per_level else ""
    if not test.detectable and test.df > 0:
        return [
            f"{unit(group, test.donors)}{arms}; judged by {test.judged_by}, {test.df:,} df. What it can find depends on "
            f"the variances of the random terms."
        ]
    if not test.detectable:
        return [f"{unit(group, test.donors)}{arms}; no test is possible (0 df)."]
    notes = [
        f"{unit(group, test.donors)}{arms}; judged {test.level} {unit(group)}, {test.df:,} df. Last columns: the "
        f"smallest effect found with 80 % power at level 0.05, {test.per}, in standard deviations of a cell (as is, and "
        f"with endless cells per {one(group)}) and of a {one(group)} mean."
    ]
    if test.level == "between" and test.enough_cells_icc < 1:
        notes.append(f"More cells per {one(group)} gain less than 10 % from an ICC of {test.enough_cells_icc:.2g} on.")
    if test.inflation >= 1.005:
        notes.append(f"The other terms inflate the variance of its coefficient {test.inflation:.3g}-fold.")
    return notes


def _levels(counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    if len(counts) > _MAX_LEVELS:
        low, high = min(counts.values()), max(counts.values())
        return f"{len(counts)} levels, {f'{low:,}' if low == high else f'{low:,} to {high:,}'} each"
    return ", ".join(f"{level} {count:,}" for level, count in counts.items())


def shortened(relations: Sequence[str], limit: int = _MAX_RELATIONS, width: int = 180) -> list[str]:
    """Cut long relations and long lists of them; the whole is in ``TermFacts.aliases``."""
    cut = [r if len(r) <= width else r[:width].rsplit(" ", 2)[0] + " ..." for r in relations[:limit]]
    more = len(relations) - len(cut)
    return [*cut, *([f"and {more} more"] if more > 0 else [])]
