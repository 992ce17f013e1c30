"""Anatomy of a design -> graded sentences: what is right, what deserves care, what cannot be tested, and what to do.

One generator per question; it yields nothing where the question does not arise. Codes are stable names for programs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from .._design import TOLERANCE, read_term
from .._words import named, one, unit
from .columns import column_verdicts
from .facts import Verdict
from .formulas import formula_with
from .precision import REFERENCE_ICC
from .refusals import refusals
from .within import within_verdicts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from .anatomy import Anatomy
    from .facts import TestFacts

_FEW_DONORS, _FEW_DF = 4, 6  # 4 donors in each of two arms leave 6 degrees of freedom
_INFLATION = 2.0  # standard error 1.4 times as large


def design_verdicts(a: Anatomy, tests: Sequence[TestFacts], left_out: Collection[str]) -> Iterator[Verdict]:
    """Verdicts that the model's own columns allow.

    Parameters
    ----------
    a
        The design.
    tests
        The tested terms.
    left_out
        Those of them whose unit is a column of obs that is not in the formula.
    """
    refused = [*refusals(a, tests)]
    yield from refused
    if tests and not refused:
        yield from _test_verdicts(a, tests, left_out)
    if not tests and not a.design.effects:
        yield from _constant_within(a, [t for t, c in a.crossings.items() if c.constant and not c.divides])
    yield from column_verdicts(a, [test.term for test in tests])


def _test_verdicts(a: Anatomy, tests: Sequence[TestFacts], left_out: Collection[str]) -> Iterator[Verdict]:
    for test in tests:
        is_told = test.judged_by or a.within[a.columns(test.term)].any()
        yield from _constant_within(a, [] if is_told else [test.term])
    yield from within_verdicts(a, tests, left_out)
    yield from _few_donors(a, tests)
    for test in tests:
        yield from _inflation(a, test)
        yield from _confounded_covariates(a, test)


def _constant_within(a: Anatomy, terms: Sequence[str]) -> Iterator[Verdict]:
    """The question of the package: constant within donors, with a random intercept, is no confounding."""
    if not terms or a.df_between == 0:
        return
    what, verb, units = named(terms), "is" if len(terms) == 1 else "are", unit(a.group)
    yield Verdict(
        "ok",
        "constant_within",
        f"{what} {verb} constant within {a.group}, and that is no confounding. The {a.sizes.size} effects of {a.group} "
        f"are not free coefficients but draws from one N(0, s^2), and the likelihood charges each for its size: they "
        f"cannot absorb {what} for free, as fixed effects of {a.group} would. {what} {verb} judged against the spread "
        f"between the {unit(a.group, a.sizes.size)}, with {a.df_between} df, not against the {a.design.n_cells:,} cells.",
        f"Keep both in the formula. More {units} sharpen this test; more cells in each soon do not.",
    )


def _few_donors(a: Anatomy, tests: Sequence[TestFacts]) -> Iterator[Verdict]:
    """The test that rests on the fewest donors, if these are few."""
    test = min(tests, key=lambda test: (min(test.donors_per_level.values(), default=test.donors), test.df))
    arms = sorted((n, level) for level, n in test.donors_per_level.items() if n < _FEW_DONORS)
    if not arms and not (test.level == "between" and test.df < _FEW_DF):
        return
    found = [f"{unit(a.group, n)} with {test.term} {level}" for n, level in arms]
    shown = [*found[:2], *([f"{len(found) - 2} more such"] if len(found) > 2 else [])]
    what = f"{named(shown)} ({test.df:,} df)" if found else f"{test.df:,} df between {unit(a.group, a.sizes.size)}"
    at_usual = [d.sd_cell for d in test.detectable if d.icc == REFERENCE_ICC]
    missed = (
        f"at an ICC of {REFERENCE_ICC} effects below {max(at_usual):.2g} standard deviations of a cell are missed more "
        f"often than in 20 % of cases"
        if at_usual
        else "only large effects are found"
    )
    yield Verdict(
        "caution",
        "few_donors",
        f"Only {what}: {missed}, and the chi-square of the likelihood ratio is far too optimistic.",
        f"Use pvals, never pvals_chi2, and read the list as candidates. More {unit(a.group)} help, more cells do not.",
        warning=f"Only {what}: the default pvals allow for that and pvals_chi2 do not, but a large p-value is no "
        f"evidence that nothing changes, because {missed}: type "
        f'print(sl.tl.check_design(adata, "{a.design.formula.text}", "{test.term}")) to see what can be found.',
    )


def _inflation(a: Anatomy, test: TestFacts) -> Iterator[Verdict]:
    """A batch that is partly confounded with the tested term, or one that overlaps with it well."""
    worst = max(test.inflation_by, key=lambda name: test.inflation_by[name], default="")
    if test.inflation >= _INFLATION:
        yield Verdict(
            "caution",
            "variance_inflation",
            f"{test.term} is partly confounded with {worst}{_overlap(a, test.term, worst)}: the other terms inflate "
            f"the variance of its coefficient {test.inflation:.3g}-fold (its standard error "
            f"{np.sqrt(test.inflation):.2g}-fold).",
            f"Keep {worst} if it matters: without it, its effect would count as that of {test.term}. What helps is "
            f"more {unit(a.group)} of all levels of {test.term} at the same {worst}.",
        )
        return
    for name, inflation in test.inflation_by.items():
        overlap = _overlap(a, test.term, name)
        if overlap:
            yield Verdict(
                "ok",
                "batch_overlaps",
                f"{name} overlaps with {test.term}{overlap}, so both can be estimated. {name} inflates the variance "
                f"of the tested coefficient {inflation:.2f}-fold.",
            )


def _overlap(a: Anatomy, term: str, other: str) -> str:
    """Say how many donors are in levels of the other factor that hold several levels of the term, "" for no factor."""
    tested, rival = a.crossings.get(term), a.crossings.get(other)
    if tested is None or rival is None or not (rival.constant and tested.constant):
        return ""
    table = (rival.cells > 0).astype(int).T @ (tested.cells > 0).astype(int)  # donors in (rival, tested) levels
    shared = int(table[(table > 0).sum(axis=1) > 1].sum())
    return f" ({shared} of {unit(a.group, a.sizes.size)} are in levels of {other} with several levels of {term})"


def _confounded_covariates(a: Anatomy, test: TestFacts) -> Iterator[Verdict]:
    """Cell-level covariates whose donor means go along with the tested term."""
    if test.level != "between":
        return
    for name in a.design.terms:
        columns = a.columns(name)
        if name in ("Intercept", test.term) or name in a.crossings or test.term in read_term(name):
            continue
        if len(columns) == 1 and a.within[columns[0]] > 0 and a.between[columns[0]] > 0:
            yield from _confounded_covariate(a, test, name, columns[0])


def _confounded_covariate(a: Anatomy, test: TestFacts, name: str, column: int) -> Iterator[Verdict]:
    found = _donor_level_difference(a, test.term, column)
    if found is None or found[3] >= 0.05:
        return
    k, size, t, p, df = found
    against = a.design.coef_names[a.columns(test.term)[k]]
    level = re.sub(r".*\[T\.(.*)\]$", r"\1", against)
    what = (
        f"its {one(a.group)} means are {abs(size):.2g} sd {'higher' if size > 0 else 'lower'} in {level}"
        if test.term in a.crossings
        else f"its {one(a.group)} means change by {size:.2g} sd per unit of {against}"
    )
    split = formula_with(a.design.coding, replace={name: f"within({name}) + between({name})"})
    yield Verdict(
        "caution",
        "confounded_covariate",
        f"{name} goes along with {test.term}: {what} (t = {t:.2f}, {df} df, p = {p:.2g}). Its one slope comes mostly "
        f"from differences between cells; if {unit(a.group)} differ by another slope, the rest is put on {test.term}.",
        f'Compare with "{split}": a slope of its own between {unit(a.group)}, at the cost of one df.',
        warning=f"{name} goes along with {test.term} ({what}, p = {p:.2g}), so that p-values of {test.term} mean what "
        f"they should only if the slope of {name} is the same between {unit(a.group)} as between cells: compare with "
        f'"{split}".',
    )


def _donor_level_difference(a: Anatomy, term: str, column: int) -> tuple[int, float, float, float, int] | None:
    """Regress a covariate's donor means on the tested columns: the largest coefficient, in sd of what is left."""
    means, tested = a.design.columns.means, a.columns(term)  # about their means, in units near their size
    y, D = means[:, column], np.column_stack([np.ones(a.sizes.size), means[:, tested]])
    df = y.size - D.shape[1]
    beta, *_ = np.linalg.lstsq(D, y, rcond=None)
    sd = float(np.sqrt(((y - D @ beta) ** 2).sum() / df)) if df > 0 else 0.0
    if sd <= TOLERANCE * float(np.abs(y).max()):
        return None
    t = beta / (sd * np.linalg.norm(np.linalg.pinv(D), axis=1))
    k = int(np.abs(t[1:]).argmax())
    p = min(1.0, 2 * stats.t.sf(abs(t[1 + k]), df) * (t.size - 1))  # Bonferroni over the levels
    return k, float(beta[1 + k] / sd / a.design.columns.scale[tested[k]]), float(t[1 + k]), float(p), df
