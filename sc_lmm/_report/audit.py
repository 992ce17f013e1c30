"""Design -> DesignReport: what is estimable, at which level, with how many degrees of freedom, and why not.

Nothing is fitted and no expression is read. A design whose columns determine each other is reported, not raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._blas import one_blas_thread
from .._design import TestSpec, hypotheses_of, is_random_term
from .anatomy import anatomy
from .facts import GRADES, DesignReport, Detectable, RandomFacts, TermFacts, TestFacts, Verdict
from .neighbours import neighbour_verdicts
from .precision import (
    REFERENCE_ICC,
    endless_standard_errors,
    enough_cells_icc,
    noncentrality,
    standard_errors,
    within_share,
)
from .verdicts import design_verdicts
from .wording import unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .._design import Design
    from .._errors import DesignError
    from .anatomy import Anatomy

    Array = NDArray[np.float64]

ICCS = (0.01, 0.05, 0.3)


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
    a = anatomy(design)
    tests = tuple(_test_facts(a, term, rows) for term, rows in _tested_rows(a, test).items())
    dropped = _dropped_by_donor(design, obs)
    verdicts = [*design_verdicts(a, tests, dropped)]
    if obs is not None:
        verdicts += neighbour_verdicts(a, [facts.term for facts in tests], obs)
    return DesignReport(
        formula=design.formula.text,
        n_cells=design.n_cells,
        n_dropped=int((~design.kept).sum()),
        dropped_by_donor=dropped,
        terms=tuple(_term_facts(a, name) for name in design.terms if name != "Intercept"),
        random=(_random_facts(a),),
        tests=tests,
        verdicts=tuple(sorted(verdicts, key=lambda v: -GRADES.index(v.grade))),
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
        max_df=0 if aliases else _max_df(a, columns),
        estimable=not aliases,
        aliases=tuple(str(alias) for alias in aliases),
    )


def _between_share(a: Anatomy, columns: Sequence[int]) -> float:
    """Share of the variance that is between donors, averaged over the columns that vary, so that units do not count."""
    total = (a.within + a.between)[columns]
    varies = total > 0
    return float((a.between[columns][varies] / total[varies]).mean()) if varies.any() else 1.0


def _max_df(a: Anatomy, columns: Sequence[int]) -> int:
    """Degrees of freedom at the level that most of the information comes from, for the worst column."""
    return a.df_within if _judged_within(a, columns) else a.df_between


def _judged_within(a: Anatomy, columns: Sequence[int]) -> bool:
    return min(within_share(a, k) for k in columns) > 0.5


def _random_facts(a: Anatomy) -> RandomFacts:
    sizes = a.sizes
    return RandomFacts(
        name=a.group,
        levels=sizes.size,
        smallest=int(sizes.min()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
        effective_levels=float(sizes.sum() ** 2 / (sizes @ sizes)),
        effective_cells=_harmonic_mean(a),
        relations=tuple(_relation(a, name) for name in a.crossings if name not in ("Intercept", a.group)),
    )


def _harmonic_mean(a: Anatomy) -> float:
    return float(a.sizes.size / (1 / a.sizes).sum())


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
    tested = [k for k in a.columns(term) if any(L[0, k] for L in rows.values())]
    estimable = not a.aliases_of(term)
    within = estimable and _judged_within(a, tested)
    df = (a.df_within if within else a.df_between) if estimable else 0
    inflation, by = _inflation(a, term) if estimable else (1.0, {})
    first = next(iter(rows.values()))
    return TestFacts(
        term=term,
        level="within" if within else "between",
        donors=a.sizes.size,
        donors_per_level=_donors_compared(a, term, rows),
        df=df,
        inflation=inflation,
        inflation_by=by,
        per="as a difference between levels" if term in a.crossings else f"per standard deviation of {term}",
        enough_cells_icc=enough_cells_icc(a, first) if df > 0 and not within else 1.0,
        detectable=tuple(d for name, L in rows.items() for d in _detectable(a, name, L, df)) if df > 0 else (),
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


def _inflation(a: Anatomy, term: str) -> tuple[float, dict[str, float]]:
    """How much the other terms inflate the variance of the term's coefficients, together and each on top of the rest.

    An interaction goes along with its main effects by construction, so terms that share a factor do not count.
    """
    others = [
        name for name in a.design.terms if name != "Intercept" and not set(name.split(":")) & set(term.split(":"))
    ]
    full = _variances(a, term, without=[])
    by = {name: float((full / _variances(a, term, without=[name])).max()) for name in others}
    return float((full / _variances(a, term, without=others)).max()), by


def _variances(a: Anatomy, term: str, without: Sequence[str]) -> Array:
    left_out = {k for name in without for k in a.columns(name)}
    columns = [k for k in a.independent if k not in left_out]
    places = [columns.index(k) for k in a.columns(term)]
    return standard_errors(a, REFERENCE_ICC, columns)[places] ** 2


def _detectable(a: Anatomy, name: str, L: Array, df: int) -> list[Detectable]:
    columns = list(a.independent)
    size = noncentrality(df) * _unit(a, L)
    independent = standard_errors(a, 0.0, columns, L)[0]
    found = []
    for icc in ICCS:
        se = standard_errors(a, icc, columns, L)[0]
        found.append(
            Detectable(
                comparison=name,
                icc=icc,
                design_effect=float((se / independent) ** 2),
                effective_cells=float(a.sizes.sum() * (independent / se) ** 2),
                sd_cell=float(size * se),
                sd_donor_mean=float(size * se / np.sqrt(icc + (1 - icc) / _harmonic_mean(a))),
                sd_cell_endless=float(size * endless_standard_errors(a, icc, columns, L)[0]),
            )
        )
    return found


def _unit(a: Anatomy, L: Array) -> float:
    """Standard deviation of a numeric column whose slope is tested, else 1: the comparison as it is."""
    (columns,) = np.nonzero(L[0])
    numeric = {k for term in a.design.terms if term not in a.crossings for k in a.columns(term)}
    if len(columns) != 1 or columns[0] not in numeric:
        return 1.0
    k = int(columns[0])
    return float(np.sqrt((a.within + a.between)[k] / a.sizes.sum()))


def _dropped_by_donor(design: Design, obs: pd.DataFrame | None) -> dict[str, int]:
    if obs is None or design.kept.all():
        return {}
    counts = obs.loc[~design.kept, design.random.name].value_counts(dropna=False)
    return {_level_name(level): int(n) for level, n in counts.items() if n > 0}


def _level_name(level: object) -> str:
    if isinstance(level, float):
        return "(no value)" if np.isnan(level) else f"{level:g}"
    return "(no value)" if level is pd.NA or level is None else str(level)
