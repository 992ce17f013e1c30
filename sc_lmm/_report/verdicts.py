"""Anatomy of a design -> graded sentences: what is right, what deserves care, what cannot be tested, and what to do.

One generator per question; it yields nothing where the question does not arise. Codes are stable names for programs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import stats

from .._design import TOLERANCE, read_column, read_term
from .._errors import listing
from .._names import quoted, random_intercept
from .facts import Verdict
from .precision import REFERENCE_ICC
from .refusals import refusals
from .wording import formula_with, named, one, unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from .anatomy import Anatomy
    from .facts import TestFacts

_FEW_DONORS, _FEW_DF = 4, 6  # 4 donors in each of two arms leave 6 degrees of freedom
_INFLATION = 2.0  # standard error 1.4 times as large
_DOMINANT = 0.5
_DROPPED = 0.05
_CODE_NAMES = {
    *("id", "ids", "idx", "index", "batch", "batches", "cluster", "clusters", "leiden", "louvain", "plate", "lane"),
    *("run", "chip", "pool", "well", "site", "center", "centre", "channel", "library", "code", "codes", "group"),
}
_MAX_CODES = 12


def design_verdicts(a: Anatomy, tests: Sequence[TestFacts], dropped: Mapping[str, int]) -> list[Verdict]:
    """All verdicts that the model's own columns allow, each once."""
    verdicts = [*refusals(a, tests)]
    if not verdicts:
        for test in tests:
            verdicts += _test_verdicts(a, test)
    if not tests:
        verdicts += _constant_within(a, [t for t, c in a.crossings.items() if c.constant and not c.divides])
    for question in (_redundant_intercept, _thin_interaction, _contextual, _dominant_donor, _numeric_codes):
        verdicts += question(a)
    return list(dict.fromkeys([*verdicts, *_dropped_cells(a, dropped)]))


def _test_verdicts(a: Anatomy, test: TestFacts) -> Iterator[Verdict]:
    constant = not a.within[a.columns(test.term)].any()
    yield from _constant_within(a, [test.term] if constant else [])
    for question in (_varies_within, _partly_within, _few_donors, _inflation, _confounded_covariates):
        yield from question(a, test)


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


def _varies_within(a: Anatomy, test: TestFacts) -> Iterator[Verdict]:
    if test.level != "within":
        return
    term, units = test.term, unit(a.group)
    slope = f"A random slope (1 + {term} | {quoted(a.group)}) would allow for that; it is not supported yet."
    crossing = a.crossings.get(term)
    if crossing is None:
        yield Verdict(
            "caution",
            "cell_level_test",
            f"{term} varies from cell to cell, and its slope is taken to be the same in all {units}. If slopes differ "
            f"between them, as they do in most data, p-values are too small: cells are then not the replicates.",
            f"{slope} Rank genes by the effect, and take those that show in most {units}.",
        )
        return
    several = int((crossing.levels_per_donor > 1).sum())
    yield Verdict(
        "caution",
        "paired",
        f"{term} varies within {a.group} (paired: {several} of {unit(a.group, a.sizes.size)} have several levels), so "
        f"each is its own control. But the model lets none respond differently: {term} is judged against the spread of "
        f"cells ({test.df:,} df), and p-values are too small if responses differ between {units}.",
        f"{slope} {_paired_advice(a, term)}",
    )


def _paired_advice(a: Anatomy, term: str) -> str:
    joined = f"{a.group}_{term}"
    text = formula_with(a, first=quoted(a.group), group=joined)
    if a.design.factor_of(term) is None or quoted(a.group) in a.design.terms:
        return f"Until then join {a.group} and {term} into one column and use that as the random intercept."
    return (
        f'Until then: adata.obs["{joined}"] = adata.obs["{a.group}"].astype(str) + "_" + '
        f'adata.obs["{a.design.factor_of(term)}"].astype(str) and "{text}", which judges {term} between these, within {a.group}.'
    )


def _partly_within(a: Anatomy, test: TestFacts) -> Iterator[Verdict]:
    crossing = a.crossings.get(test.term)
    if crossing is None or crossing.constant or test.level == "within":
        return
    mixed = np.array(a.design.random.levels)[crossing.levels_per_donor > 1]
    yield Verdict(
        "caution",
        "partly_within",
        f"{test.term} is constant within most {unit(a.group)} but varies within {unit(a.group, len(mixed))} "
        f"({listing(mixed, 5)}): the test mixes comparisons between and within {unit(a.group)}.",
        f"Check the annotation of these. If {test.term} does change within a {one(a.group)} (time points), use the "
        f"column of the finer unit, e.g. the sample, as the random intercept.",
    )


def _few_donors(a: Anatomy, test: TestFacts) -> Iterator[Verdict]:
    arms = {level: n for level, n in test.donors_per_level.items() if n < _FEW_DONORS}
    if not arms and not (test.level == "between" and test.df < _FEW_DF):
        return
    found = [f"{unit(a.group, n)} with {test.term} {level}" for level, n in list(arms.items())[:3]]
    what = f"{named(found)} ({test.df:,} df)" if found else f"{test.df:,} df between {unit(a.group, a.sizes.size)}"
    smallest = max((d for d in test.detectable if d.icc == REFERENCE_ICC), key=lambda d: d.sd_cell)
    yield Verdict(
        "caution",
        "few_donors",
        f"Only {what}: at an ICC of {REFERENCE_ICC} effects "
        f"below {smallest.sd_cell:.2g} standard deviations of a cell are missed more often than in 20 % of cases, and "
        f"the chi-square of the likelihood ratio is far too optimistic.",
        f"Use the calibrated pvals, never pvals_chi2, and read the list as candidates. More {unit(a.group)} help, more "
        f"cells do not.",
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
    split = formula_with(a, replace={name: f"within({name}) + between({name})"})
    yield Verdict(
        "caution",
        "confounded_covariate",
        f"{name} goes along with {test.term}: {what} (t = {t:.2f}, {df} df, p = {p:.2g}). Its one slope comes mostly "
        f"from differences between cells; if {unit(a.group)} differ by another slope, the rest is put on {test.term}.",
        f'Compare with "{split}": a slope of its own between {unit(a.group)}, at the cost of one df.',
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


def _redundant_intercept(a: Anatomy) -> Iterator[Verdict]:
    for name, crossing in a.crossings.items():
        if name != "Intercept" and crossing.constant and crossing.divides and not a.aliases_of(name):
            yield Verdict(
                "caution",
                "grouping_twice",
                f"{name} is a fixed factor and {random_intercept(a.group)} has the same levels: the fixed coefficients take all "
                f"differences between {unit(a.group)}, the random intercept is left with none, and no term that is "
                f"constant within {a.group} can be added.",
                f'Keep one of them: "{formula_with(a, drop=[name])}".',
            )


def _thin_interaction(a: Anatomy) -> Iterator[Verdict]:
    for name, crossing in a.crossings.items():
        if ":" not in name or a.aliases_of(name):
            continue
        thin = [level for level, n in zip(crossing.levels, crossing.donors_per_level, strict=True) if n < 2]
        if thin:
            yield Verdict(
                "caution",
                "thin_interaction",
                f"Some combinations in {name} have cells of only one {one(a.group)}: {listing(thin, 6)}. Their "
                f"coefficients rest on it alone.",
                "Leave out these levels, or merge them with others.",
            )


def _contextual(a: Anatomy) -> Iterator[Verdict]:
    for name in a.design.terms:
        inner = re.fullmatch(r"within\((.*)\)", name)
        if inner and f"between({inner.group(1)})" in a.design.terms:
            x = inner.group(1)
            yield Verdict(
                "ok",
                "within_between",
                f"{x} has a slope within and one between {unit(a.group)}. If the two differ, {x} has a contextual effect: "
                f"a {one(a.group)}'s mean {x} goes with expression beyond what its cells' own {x} explains (a trait of "
                f"the {one(a.group)}, or a batch). One common slope would put that on the other terms.",
                f"If they agree, {x} alone is simpler and spares one df between {unit(a.group)}.",
            )


def _dominant_donor(a: Anatomy) -> Iterator[Verdict]:
    largest = int(a.sizes.argmax())
    share = a.sizes[largest] / a.sizes.sum()
    if share > _DOMINANT and a.sizes.size > 2:
        yield Verdict(
            "caution",
            "dominant_donor",
            f"{a.design.random.levels[largest]!r} has {100 * share:.0f} % of the cells. What varies within {a.group} is "
            f"estimated mostly from there, and so is the residual variance.",
            f"Repeat without it, or with its cells thinned to {int(np.median(a.sizes)):,} (the median).",
        )


def _numeric_codes(a: Anatomy) -> Iterator[Verdict]:
    for name in a.design.terms:
        column = a.design.number_of(read_column(name))
        if column is None:
            continue
        values = _whole_numbers(column)
        if not _looks_coded(name, values, constant=not a.within[a.columns(name)].any()):
            continue
        yield Verdict(
            "caution",
            "numeric_codes",
            f"{name} holds {len(values)} whole numbers ({values[0]:g} to {values[-1]:g}) and gets one slope, as if "
            f"{values[-1]:g} were that much more than {values[0]:g}. If they are codes, this is not what was meant.",
            f'For codes type "{formula_with(a, replace={name: f"C({name})"})}". For a true scale leave it as it is.',
        )


def _whole_numbers(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distinct values in order, none if a value is not a whole number; the first cells usually tell."""
    for cells in (column[:1000], column):
        if (cells != np.round(cells)).any():
            return np.empty(0)
    return np.unique(column)


def _looks_coded(name: str, values: NDArray[np.float64], *, constant: bool) -> bool:
    if len(values) < 3:
        return False
    tokens = set(re.split(r"[\W_\d]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
    consecutive = len(values) <= _MAX_CODES and values[0] in (0, 1) and bool((np.diff(values) == 1).all())
    return bool(tokens & _CODE_NAMES) or (constant and consecutive)


def _dropped_cells(a: Anatomy, dropped: Mapping[str, int]) -> Iterator[Verdict]:
    n = int((~a.design.kept).sum())
    if not n:
        return
    lost = [donor for donor in dropped if donor not in a.design.random.levels and donor != "(no value)"]
    share = n / a.design.kept.size
    grade: Literal["ok", "caution"] = "caution" if lost or share > _DROPPED else "ok"
    donors = ", ".join(f"{donor}: {count:,}" for donor, count in list(dropped.items())[:5])
    rest = f" and {len(dropped) - 5} more" if len(dropped) > 5 else ""
    gone = f" {unit(a.group, len(lost))} lost all cells: {listing(lost, 5)}." if lost else ""
    yield Verdict(
        grade,
        "dropped_cells",
        f"{n:,} of {a.design.kept.size:,} cells ({100 * share:.2g} %) lack a value in a column of the model and are "
        f"left out" + (f" ({donors}{rest})" if donors else "") + f".{gone}",
        "Fill the gaps or drop the column if these cells matter.",
    )
