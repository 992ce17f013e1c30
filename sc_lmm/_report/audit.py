"""Design -> DesignReport: what is estimable, at which level, with how many degrees of freedom, and why not.

Nothing is fitted and no expression is read. A design whose columns determine each other is reported, not raised.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._blas import one_blas_thread
from .._design import TestSpec, hypotheses_of, is_random_term, level_text
from .._errors import DesignError
from .._names import quoted
from .._words import unit
from .anatomy import anatomy, cross
from .cautions import Cautions, place_verdicts
from .columns import dropped_cells
from .depth import depth_verdict
from .detectable import detectability, max_df
from .facts import GRADES, DesignReport, RandomFacts, TermFacts, TestFacts, Verdict
from .neighbours import Neighbour, neighbour_verdicts, neighbours, unit_left_out
from .strata import described_by, effect_verdicts, relations, stratum
from .verdicts import design_verdicts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .._design import Design, RandomEffects
    from .anatomy import Anatomy

    Array = NDArray[np.float64]


@one_blas_thread()
def audit(design: Design, test: TestSpec | None = None, obs: pd.DataFrame | None = None) -> DesignReport:
    """Report on a design.

    Parameters
    ----------
    design
        May be rank deficient.
    test
        What is to be tested, as in ``lmm_de``. Without it the report is about the terms alone.
    obs
        All annotations of all cells, (n_obs, n_annotations). They tell which donors' cells were left out, and whether
        a unit such as the donor of several samples was left out of the formula.
    """
    return _report(_subject(design, obs, test), test)


@one_blas_thread()
def audit_terms(design: Design, obs: pd.DataFrame) -> tuple[DesignReport, Cautions]:
    """Report on a design, and keep what will concern the test of each of its terms when the cells are gone."""
    subject = _subject(design, obs)
    report = _report(subject, None)
    if report.refused:
        return report, Cautions()
    of_term = {"": report.warnings}
    for term in design.terms:
        with suppress(DesignError):  # a term that cannot be tested
            of_this = _subject(design, obs, term) if design.effects else subject
            of_term[term] = tuple(filter(None, map(_of_term, _report(of_this, term).verdicts)))
    return report, Cautions(of_term, subject.varying)


def _of_term(verdict: Verdict) -> str:
    """What a verdict on a term's test warns of; also of what is refused before a fit, which has been made here."""
    if verdict.code in ("reference_level", "one_level"):  # depend on the test, and not on its terms alone
        return ""
    refused = f"{verdict.message} {verdict.advice}" if verdict.grade == "refused" else ""
    return refused or verdict.warning


@dataclass(frozen=True)
class _Subject:
    """What there is to report on."""

    a: Anatomy
    units: list[Neighbour]  # columns of obs that are units and not in the formula
    depth: tuple[Verdict, ...]  # on cells that differ in it
    dropped: dict[str, int]  # cells left out, by donor
    varying: frozenset[str]  # factors that vary within donors


def _subject(design: Design, obs: pd.DataFrame | None, test: TestSpec | None = None) -> _Subject:
    a = anatomy(described_by(design, _tested_columns(design, test)) if design.effects else design)
    design = a.design
    tables = {
        name: a.crossings.get(quoted(name)) or cross(design.levels_of(name), design) for name in design.coding.levels
    }
    varying = frozenset(name for name, table in tables.items() if table is None or not table.constant)
    units, depth = ([], ()) if obs is None else (neighbours(a, obs), tuple(depth_verdict(a, obs)))
    return _Subject(a, units, depth, _dropped_by_donor(design, obs), varying)


def _tested_columns(design: Design, test: TestSpec | None) -> list[int]:
    """Columns of X that a test weighs."""
    coding = design.coding
    if test is None or is_random_term(test, coding):
        return []
    L = np.concatenate([hypothesis.L for hypothesis in hypotheses_of(coding, test)])
    return [int(k) for k in np.flatnonzero(np.abs(L).max(axis=0) > 0)]


def _report(subject: _Subject, test: TestSpec | None) -> DesignReport:
    a, design = subject.a, subject.a.design
    tests = tuple(_test_facts(a, term, rows) for term, rows in _tested_rows(a, test).items())
    terms = [facts.term for facts in tests]
    left_out = [term for term in terms if unit_left_out(a, term, subject.units) is not None]
    verdicts = [
        *design_verdicts(a, tests, left_out),
        *([] if test is None else place_verdicts(design.coding, test, subject.varying)),
        *neighbour_verdicts(a, terms, subject.units),
        *dropped_cells(a, subject.dropped),
        *effect_verdicts(design),
        *subject.depth,
    ]
    return DesignReport(
        formula=design.formula.text,
        n_cells=design.n_cells,
        n_dropped=int((~design.kept).sum()),
        dropped_by_donor=subject.dropped,
        terms=tuple(_term_facts(a, name) for name in design.terms if name != "Intercept"),
        random=_all_random_facts(a),
        tests=tests,
        verdicts=tuple(sorted(dict.fromkeys(verdicts), key=lambda v: -GRADES.index(v.grade))),
    )


def refused_report(formula: str, error: DesignError) -> DesignReport:
    """Turn the refusal of a formula that could not be made a design into a report with the same words."""
    verdict = Verdict("refused", "invalid", str(error))
    return DesignReport(formula, 0, 0, {}, terms=(), random=(), tests=(), verdicts=(verdict,))


def _tested_rows(a: Anatomy, test: TestSpec | None) -> dict[str, dict[str, Array]]:
    """Tested terms -> comparisons (name -> row of L) in which the term takes part, each with one degree of freedom."""
    coding = a.design.coding
    if test is None or is_random_term(test, coding):
        return {}
    hypotheses = hypotheses_of(coding, test)
    rows = {h.name: h.L for h in hypotheses if h.df == 1}
    joint = np.concatenate([h.L for h in hypotheses])
    rows = rows or {coding.coef_names[int(np.argmax(row))]: row[None, :] for row in joint}
    terms = {term: {n: L for n, L in rows.items() if L[0, columns].any()} for term, columns in coding.terms.items()}
    return {term: found for term, found in terms.items() if found and term != "Intercept"}


def _term_facts(a: Anatomy, name: str) -> TermFacts:
    columns = a.columns(name)
    aliases = a.aliases_of(name)
    own = stratum(a.design, columns)
    within, between = a.within[columns].sum(), a.between[columns].sum()
    crossing = a.crossings.get(name)
    levels = crossing.levels if crossing else ()
    donors = crossing.donors_per_level if crossing else ()
    cells = crossing.cells.sum(axis=0) if crossing else ()
    return TermFacts(
        name=name,
        columns=tuple(a.design.coef_names[k] for k in columns),
        varies="between" if within == 0 else "within" if between == 0 else "both",
        between_share=_between_share(a, columns),
        donors={level: int(n) for level, n in zip(levels, donors, strict=True)},
        cells={level: int(n) for level, n in zip(levels, cells, strict=True)},
        max_df=0 if aliases else max_df(a, columns) if own is None else own.df,
        estimable=not aliases,
        aliases=tuple(str(alias) for alias in aliases),
    )


def _between_share(a: Anatomy, columns: Sequence[int]) -> float:
    """Share of the variance that is between donors, averaged over the columns that vary, so that units do not count."""
    total = (a.within + a.between)[columns]
    varies = total > 0
    return float((a.between[columns][varies] / total[varies]).mean()) if varies.any() else 1.0


def _all_random_facts(a: Anatomy) -> tuple[RandomFacts, ...]:
    """Facts of every random term, those on the grouping that the report is about first."""
    design = a.design
    if not design.effects:
        return (_random_facts(a),)
    ordered = sorted(design.effects, key=lambda effects: effects.grouping != a.group)
    return tuple(_effect_facts(design, effects, ordered[k + 1 :]) for k, effects in enumerate(ordered))


def _effect_facts(design: Design, effects: RandomEffects, later: Sequence[RandomEffects]) -> RandomFacts:
    sizes = np.bincount(effects.codes, design.random.weights, minlength=len(effects.levels)).astype(np.float64)
    return RandomFacts(
        name=effects.grouping,
        levels=sizes.size,
        smallest=int(sizes.min()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
        effective_levels=float(sizes.sum() ** 2 / (sizes @ sizes)),
        effective_cells=float(sizes.size / (1 / sizes).sum()),
        relations=relations(effects, later),
        text=effects.written,
    )


def _random_facts(a: Anatomy) -> RandomFacts:
    sizes = a.sizes
    return RandomFacts(
        name=a.group,
        levels=sizes.size,
        smallest=int(sizes.min()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
        effective_levels=float(sizes.sum() ** 2 / (sizes @ sizes)),
        effective_cells=a.harmonic_mean,
        relations=tuple(_relation(a, name) for name in a.crossings if name not in ("Intercept", a.group)),
    )


def _relation(a: Anatomy, name: str) -> str:
    crossing = a.crossings[name]
    if crossing.constant and crossing.divides:
        return f"{a.group} and {name} are the same division of the cells."
    if crossing.constant:
        return f"{a.group} is nested in {name}."
    if crossing.divides:
        return f"{name} is nested in {a.group}."
    several = int((crossing.levels_per_donor > 1).sum())
    return f"{a.group} is crossed with {name}: {several} of {unit(a.group, a.sizes.size)} have several levels of it."


def _test_facts(a: Anatomy, term: str, rows: Mapping[str, Array]) -> TestFacts:
    found = detectability(a, term, rows)
    own = stratum(a.design, a.columns(term))
    return TestFacts(
        term=term,
        level="within" if found.within else "between",
        donors=a.sizes.size,
        donors_per_level=_donors_compared(a, term, rows),
        df=found.df if own is None else own.df,
        inflation=found.inflation,
        inflation_by=found.inflation_by,
        per="as a difference between levels" if term in a.crossings else f"per standard deviation of {term}",
        enough_cells_icc=found.enough_cells_icc,
        detectable=found.detectable if own is None or not a.design.effects else (),
        judged_by="" if own is None else own.words,
    )


def _donors_compared(a: Anatomy, term: str, rows: Mapping[str, Array]) -> dict[str, int]:
    """Donors in each level of a factor that takes part in a comparison."""
    crossing = a.crossings.get(term)
    if crossing is None:
        return {}
    donors = {level: int(n) for level, n in zip(crossing.levels, crossing.donors_per_level, strict=True)}
    columns = a.columns(term)
    if a.design.factor_of(term) is None or len(columns) != len(crossing.levels) - 1:
        return donors
    weights = np.concatenate([L[:, columns] for L in rows.values()])
    compared = [np.abs(weights.sum(axis=1)).max() > 1e-9, *(np.abs(weights).max(axis=0) > 0)]  # the reference first
    return {level: n for (level, n), used in zip(donors.items(), compared, strict=True) if used}


def _dropped_by_donor(design: Design, obs: pd.DataFrame | None) -> dict[str, int]:
    if obs is None or design.kept.all():
        return {}
    counts = obs.loc[~design.kept, design.random.name].value_counts(dropna=False)
    return {_level_name(level): int(n) for level, n in counts.items() if n > 0}


def _level_name(level: Any) -> str:
    return "(no value)" if pd.api.types.is_scalar(level) and pd.isna(level) else level_text(level)
