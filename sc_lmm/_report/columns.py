"""Anatomy of a design -> verdicts on its columns, whatever is tested: how they were read, and what they rest on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import numpy as np

from .._design import read_column, read_term
from .._errors import listing
from .._names import quoted, random_intercept
from .._words import one, unit
from .facts import Verdict
from .formulas import formula_with

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from .anatomy import Anatomy

_DOMINANT = 0.5
_DROPPED, _MANY_DROPPED = 0.05, 0.2  # shares: to be careful of, and to change which cells a result is of
_CODE_NAMES = {
    *("id", "ids", "idx", "index", "batch", "batches", "cluster", "clusters", "leiden", "louvain", "plate", "lane"),
    *("run", "chip", "pool", "well", "site", "center", "centre", "channel", "library", "code", "codes", "group"),
}
_MAX_CODES = 12
_NOT_NUMBERS = 2  # levels such as "unknown" that a column of numbers may have


def column_verdicts(a: Anatomy, tested: Collection[str]) -> Iterator[Verdict]:
    """Verdicts that do not ask which comparison is made; `tested` are the terms that take part in one."""
    yield from _redundant_intercept(a)
    yield from _thin_interaction(a, tested)
    yield from _contextual(a)
    yield from _dominant_donor(a)
    yield from _numeric_codes(a)
    yield from _text_numbers(a)


def _redundant_intercept(a: Anatomy) -> Iterator[Verdict]:
    for name, crossing in a.crossings.items():
        if name != "Intercept" and crossing.constant and crossing.divides and not a.aliases_of(name):
            yield Verdict(
                "caution",
                "grouping_twice",
                f"{name} is a fixed factor and {random_intercept(a.group)} has the same levels: the fixed coefficients "
                f"take all differences between {unit(a.group)}, the random intercept is left with none, and no term that is "
                f"constant within {a.group} can be added.",
                f'Keep one of them: "{formula_with(a.design.coding, drop=[name])}".',
            )


def _thin_interaction(a: Anatomy, tested: Collection[str]) -> Iterator[Verdict]:
    for name, crossing in a.crossings.items():
        if len(read_term(name)) < 2 or a.aliases_of(name):
            continue
        thin = [level for level, n in zip(crossing.levels, crossing.donors_per_level, strict=True) if n < 2]
        if thin:
            yield Verdict(
                "caution",
                "thin_interaction",
                f"Some combinations in {name} have cells of only one {one(a.group)}: {listing(thin, 6)}. Their "
                f"coefficients rest on it alone.",
                "Leave out these levels, or merge them with others.",
                warning=f"The coefficients of {name} at {listing(thin, 3)} rest on one {one(a.group)} alone, whose cells "
                f"count as replicates, so that their p-values are too small: leave out these levels, or merge them."
                if name in tested
                else "",
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
        typed = formula_with(a.design.coding, replace={name: f"C({name})"})
        range_ = f"{len(values)} whole numbers ({values[0]:g} to {values[-1]:g})"
        yield Verdict(
            "caution",
            "numeric_codes",
            f"{name} holds {range_} and gets one slope, as if "
            f"{values[-1]:g} were that much more than {values[0]:g}. If they are codes, this is not what was meant.",
            f'For codes type "{typed}". For a true scale leave it as it is.',
            warning=f"{name} holds {range_} and gets one slope, as if they were a scale: if they are codes, neither its "
            f'p-values nor those that are adjusted for it mean what was meant, so type "{typed}".',
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
    return _has_code_name(name) or (constant and len(values) <= _MAX_CODES and _is_consecutive(values))


def _has_code_name(name: str) -> bool:
    return bool(set(re.split(r"[\W_\d]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())) & _CODE_NAMES)


def _is_consecutive(values: NDArray[np.float64]) -> bool:
    return bool(values[0] in (0, 1) and (np.diff(values) == 1).all())


def _text_numbers(a: Anatomy) -> Iterator[Verdict]:
    """Numbers that were read as text or categories, and so got a coefficient for each value."""
    for name in dict.fromkeys(factor for term in a.design.terms for factor in read_term(term)):
        column = a.design.factor_of(name)
        if column is None:
            continue
        levels = a.design.coding.levels[column]
        if not _looks_numeric(column, levels, n_donors=a.sizes.size):
            continue
        make = f'adata.obs["{column}"] = pd.to_numeric(adata.obs["{column}"].astype(str), errors="coerce")'
        found = f"adata.obs[{column!r}] holds numbers as text or categories ({listing(levels, 4)})"
        coefficients = f"each of its {len(levels)} values gets a mean of its own"
        yield Verdict(
            "refused" if a.aliases_of(name) else "caution",
            "text_numbers",
            f"{found}: {coefficients} instead of all one slope.",
            f'For a number type {make} first. If each value is a group, rename the values or write "C({quoted(column)})".',
            warning=f"{found}, so that {coefficients} instead of all one slope, and p-values are of differences between "
            f"values: for a number type {make} first.",
        )


def _looks_numeric(name: str, levels: Sequence[str], *, n_donors: int) -> bool:
    """Whether levels are more likely the values of a scale than codes: fractions, or so many that they cannot be groups."""
    values = np.array([value for level in levels if np.isfinite(value := _number(level))])
    if len(values) < 3 or len(levels) - len(values) > _NOT_NUMBERS or len(values) < 2 * (len(levels) - len(values)):
        return False
    if (values != np.round(values)).any():
        return True
    coded = _has_code_name(name) or _is_consecutive(np.unique(values))
    return not coded and (len(values) > _MAX_CODES or (len(values) >= 5 and 2 * len(levels) >= n_donors))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def dropped_cells(a: Anatomy, dropped: Mapping[str, int]) -> Iterator[Verdict]:
    """Cells of each donor that a missing value leaves out."""
    n = int((~a.design.kept).sum())
    if not n:
        return
    lost = [donor for donor in dropped if donor not in a.design.random.levels and donor != "(no value)"]
    share = n / a.design.kept.size
    grade: Literal["ok", "caution"] = "caution" if lost or share > _DROPPED else "ok"
    donors = ", ".join(f"{donor}: {count:,}" for donor, count in list(dropped.items())[:5])
    rest = f" and {len(dropped) - 5} more" if len(dropped) > 5 else ""
    gone = f" {unit(a.group, len(lost))} lost all cells: {listing(lost, 5)}." if lost else ""
    what = f"{n:,} of {a.design.kept.size:,} cells ({100 * share:.2g} %) lack a value in a column of the model"
    columns = list(dict.fromkeys([*a.design.formula.variables, a.group, *sorted(a.design.weighed_by)]))
    whole = f", all those of {unit(a.group, len(lost))} ({listing(lost, 3)}) among them" if lost else ""
    yield Verdict(
        grade,
        "dropped_cells",
        f"{what} and are left out" + (f" ({donors}{rest})" if donors else "") + f".{gone}",
        "Fill the gaps or drop the column if these cells matter.",
        warning=f"{what}, and p-values are of the others{whole}: see adata.obs[{columns}].isna().sum()."
        if lost or share > _MANY_DROPPED
        else "",
    )
