"""Columns of obs that are not in the formula -> cautions: a unit (donor, sample) that the model leaves out.

Conservative: a column counts as a unit only if its name says so in every part ("donor_id", not "donor_group").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._errors import listing
from .._names import quoted, random_intercept
from .._words import one, unit
from .anatomy import Crossing, cross
from .facts import Verdict
from .formulas import blocked_formula, formula_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .anatomy import Anatomy

_DONORS = {
    *("donor", "donors", "patient", "patients", "subject", "subjects", "individual", "individuals", "individualid"),
    *("person", "participant", "participants", "animal", "mouse", "rat", "pig", "monkey", "macaque", "case", "brain"),
    *("donorid", "patientid", "subjectid", "volunteer", "indiv", "projid", "twin"),
}
_SAMPLES = {
    *("sample", "samples", "sampleid", "library", "libraries", "specimen", "biopsy", "biosample", "capture", "channel"),
    *("visit", "ident", "replicate", "gem"),
}
_AFFIXES = {
    *("id", "ids", "name", "names", "label", "code", "no", "nr", "num", "number", "guess", "key", "orig", "original"),
    *("source", "accession", "alias", "geo", "gsm", "uuid", "unique"),
}
_MIN_LEVELS, _MIN_CELLS = 3, 10


@dataclass(frozen=True)
class Neighbour:
    """A column of obs that is a unit and not in the formula."""

    name: str
    column: pd.Series  # (n,) of the model's cells
    crossing: Crossing  # with the grouping


def neighbours(a: Anatomy, obs: pd.DataFrame) -> list[Neighbour]:
    """Units in `obs` (n_obs, n_annotations), of those that divide the cells alike the first."""
    found: list[Neighbour] = []
    for name in obs.columns:
        if not _unit(str(name)) or name in a.design.obs_columns:
            continue
        column = obs[name]
        if isinstance(column, pd.DataFrame):  # several columns of this name
            continue
        column = column[a.design.kept]
        crossing = cross(column, a.design)
        if crossing is None or not _is_unit(a, crossing) or any(_same(column, other.column) for other in found):
            continue
        found.append(Neighbour(str(name), column, crossing))
    return found


def _unit(name: str) -> str:
    """Say whether a column's name is one of donors or of samples; "" if of neither."""
    tokens = [t for t in re.split(r"[\W_\d]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()) if t]
    if not tokens or not set(tokens) <= _DONORS | _SAMPLES | _AFFIXES:
        return ""
    return "sample" if set(tokens) & _SAMPLES else "donor" if set(tokens) & _DONORS else ""


def _is_unit(a: Anatomy, crossing: Crossing) -> bool:
    same = crossing.constant and crossing.divides
    enough = len(crossing.levels) >= _MIN_LEVELS and a.design.n_cells >= _MIN_CELLS * len(crossing.levels)
    return enough and not same


def _same(one: pd.Series, other: pd.Series) -> bool:
    """Whether two columns divide the cells alike."""
    first, second = (pd.factorize(column)[0].astype(np.int64) for column in (one, other))
    pairs = len(np.unique(first * (second.max() + 2) + second))
    return pairs == len(np.unique(first)) == len(np.unique(second))


def unit_left_out(a: Anatomy, term: str, units: Sequence[Neighbour]) -> Neighbour | None:
    """Find the unit of which a term that varies within the grouping is a property: the largest within which it is constant."""
    if not a.within[a.columns(term)].any():
        return None
    found = [unit for unit in units if not unit.crossing.constant and _constant_in(a, term, unit.column)]
    return min(found, key=lambda unit: len(unit.crossing.levels), default=None)


def neighbour_verdicts(a: Anatomy, tested: Sequence[str], units: Sequence[Neighbour]) -> Iterator[Verdict]:
    """Cautions about units that are not in the formula."""
    left_out = {term: found for term in tested if (found := unit_left_out(a, term, units)) is not None}
    for term, found in list(left_out.items())[:1]:
        yield _unit_left_out(a, term, found)
    for neighbour in units:
        if neighbour.crossing.constant and _unit(neighbour.name) == "donor":
            yield _donor_left_out(a, tested, neighbour)
        elif neighbour.crossing.divides and not neighbour.crossing.constant and not left_out:
            yield _nested_samples(a, neighbour)


def _donor_left_out(a: Anatomy, tested: Sequence[str], donor: Neighbour) -> Verdict:
    """Samples of one donor: replicates of what differs between donors, pairs for what differs within them."""
    several = float((_levels_per(donor, a.design.random.codes) > 1).mean())
    paired = [term for term in tested if not _constant_in(a, term, donor.column)]
    if paired and len(paired) == len(tested) and several > 0.5:
        return _pairs_left_out(a, paired[0], donor)
    return _samples_of_donor(a, donor)


def _levels_per(unit: Neighbour, codes: np.ndarray) -> np.ndarray:
    """Levels of the grouping in each level of a unit."""
    pairs = pd.DataFrame({"unit": unit.column.to_numpy(), "group": codes}).drop_duplicates()
    return pairs["unit"].value_counts().to_numpy()


def _samples_of_donor(a: Anatomy, donor: Neighbour) -> Verdict:
    name, crossing = donor.name, donor.crossing
    several = [level for level, n in zip(crossing.levels, crossing.donors_per_level, strict=True) if n > 1]
    coding = a.design.coding
    formula = formula_with(coding, random=f"{coding.formula.random_text} + {random_intercept(name)}")
    return Verdict(
        "caution",
        "samples_of_donor",
        f"adata.obs[{name!r}] (not in the formula) groups the {unit(a.group, a.sizes.size)} into "
        f"{len(crossing.levels)}; with several: {listing(several, 5)}. What the {unit(a.group)} of one {one(name)} share "
        f"is not in the model, so they count as independent (pseudoreplication).",
        f'If they are not, type "{formula}", or keep one {one(a.group)} per {one(name)}.',
        warning=f"The {unit(a.group)} of one {one(name)} count as independent, and adata.obs[{name!r}] has several of "
        f"{listing(several, 3)}: p-values are too small if these are alike, so type "
        f'"{formula}" or keep one {one(a.group)} per {one(name)}.',
    )


def _pairs_left_out(a: Anatomy, term: str, donor: Neighbour) -> Verdict:
    name = donor.name
    constant = [t for t in a.design.terms if t != "Intercept" and _constant_in(a, t, donor.column)]
    formula = blocked_formula(a.design.coding, name, constant, a.group)
    return Verdict(
        "caution",
        "pairs_left_out",
        f"{term} varies within adata.obs[{name!r}] ({len(donor.crossing.levels)} levels, not in the formula), so that "
        f"each {one(name)} could be its own control. The model compares the {unit(a.group, a.sizes.size)} as if each "
        f"came from another {one(name)}: what {unit(name)} differ by counts as noise, and p-values of {term} are too "
        f"large.",
        f'Compare within them: "{formula}".',
        warning=f"{term} is compared between {unit(a.group)} as if each came from another {one(name)}, so that its "
        f"p-values are too large where {unit(name)} differ: compare within adata.obs[{name!r}] by typing "
        f'"{formula}".',
    )


def _unit_left_out(a: Anatomy, test: str, left_out: Neighbour) -> Verdict:
    name = left_out.name
    block = a.group if len(a.design.random.levels) > 1 and quoted(a.group) not in a.design.terms else ""
    constant = [t for t in a.design.terms if t != "Intercept" and not a.within[a.columns(t)].any()]
    formula = (
        blocked_formula(a.design.coding, block, constant, name) if block else formula_with(a.design.coding, group=name)
    )
    return Verdict(
        "caution",
        "unit_left_out",
        f"{test} is constant within adata.obs[{name!r}] ({len(left_out.crossing.levels)} levels), which is not in the "
        f"formula, but varies within {a.group}. The cells of one {one(name)} count as independent replicates of {test} "
        f"(pseudoreplication).",
        f'Use it as the random intercept: "{formula}".',
        warning=f"The p-values of {test} are too small, because the cells of one {one(name)} count as independent "
        f"replicates of it while adata.obs[{name!r}], within which it is constant, is not in the formula: type "
        f'"{formula}".',
    )


def _nested_samples(a: Anatomy, samples: Neighbour) -> Verdict:
    """What varies within the grouping is told by the verdicts of its test, and the rest is safe: nothing to warn of."""
    name, crossing, coding = samples.name, samples.crossing, a.design.coding
    several = int((crossing.levels_per_donor > 1).sum())
    return Verdict(
        "caution",
        "nested_samples",
        f"adata.obs[{name!r}] (not in the formula) splits {several} of the {unit(a.group, a.sizes.size)} "
        f"({len(crossing.levels)} {unit(name)} in all). Cells of one {one(name)} may be more alike than others of the "
        f"same {one(a.group)}: what varies within {a.group} then looks too certain (pseudoreplication).",
        f"Terms that are constant within {a.group} are judged between its levels and stay safe. For the others type "
        f'"{formula_with(coding, random=f"{coding.formula.random_text} + {random_intercept(name)}")}".',
    )


def _constant_in(a: Anatomy, test: str, column: pd.Series) -> bool:
    """Whether each level of a column has one value of every tested column."""
    codes = pd.factorize(column)[0]
    known = np.flatnonzero(codes >= 0)
    tested = a.design.X[known][:, a.columns(test)]
    first = np.unique(codes[known], return_index=True)[1]
    return bool((tested == tested[first][codes[known]]).all())
