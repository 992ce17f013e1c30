"""Columns of obs that are not in the formula -> cautions: a unit (donor, sample) that the model leaves out.

Conservative: a column counts as a unit only if its name says so in every part ("donor_id", not "donor_group").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._errors import listing
from .._names import quoted
from .anatomy import cross
from .facts import Verdict
from .wording import formula_with, one, unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .anatomy import Anatomy, Crossing

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


def neighbour_verdicts(a: Anatomy, tested: Sequence[str], obs: pd.DataFrame) -> list[Verdict]:
    """Cautions about units in `obs` (n_obs, n_annotations) that are not in the formula."""
    found: list[Verdict] = []
    for name in obs.columns:
        if not _unit(str(name)) or name in a.design.obs_columns:
            continue
        column = obs[name]
        if isinstance(column, pd.DataFrame):  # several columns of this name
            continue
        crossing = cross(column[a.design.kept], a.design)
        if crossing is not None and _is_unit(a, crossing):
            found += _verdict(a, tested, str(name), crossing, column[a.design.kept])
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


def _verdict(a: Anatomy, tested: Sequence[str], name: str, crossing: Crossing, column: pd.Series) -> Iterator[Verdict]:
    if crossing.constant:
        if _unit(name) == "donor":
            yield _samples_of_donor(a, name, crossing)
        return
    left_out = [term for term in tested if a.within[a.columns(term)].any() and _constant_in(a, term, column)]
    if left_out:
        yield _unit_left_out(a, left_out[0], name, len(crossing.levels))
    elif crossing.divides:
        yield _nested_samples(a, name, crossing)


def _samples_of_donor(a: Anatomy, name: str, crossing: Crossing) -> Verdict:
    several = [level for level, n in zip(crossing.levels, crossing.donors_per_level, strict=True) if n > 1]
    return Verdict(
        "caution",
        "samples_of_donor",
        f"adata.obs[{name!r}] (not in the formula) groups the {unit(a.group, a.sizes.size)} into "
        f"{len(crossing.levels)}; with several: {listing(several, 5)}. What the {unit(a.group)} of one {one(name)} share "
        f"is not in the model, so they count as independent (pseudoreplication).",
        f'If they are not, use "{formula_with(a, group=name)}" or keep one {one(a.group)} per {one(name)}. '
        f"Nested intercepts (1 | {quoted(name)}/{quoted(a.group)}) are not supported yet.",
    )


def _unit_left_out(a: Anatomy, test: str, name: str, k: int) -> Verdict:
    return Verdict(
        "caution",
        "unit_left_out",
        f"{test} is constant within adata.obs[{name!r}] ({k} levels), which is not in the formula, but varies within "
        f"{a.group}. The cells of one {one(name)} count as independent replicates of {test} (pseudoreplication).",
        f'Use it as the random intercept: "{_unit_formula(a, name)}".',
    )


def _unit_formula(a: Anatomy, name: str) -> str:
    """Write the formula with the left-out unit as random intercept, the present grouping kept as a fixed block."""
    blocked = len(a.design.random.levels) > 1 and quoted(a.group) not in a.design.terms
    return formula_with(a, first=quoted(a.group) if blocked else "", group=name)


def _nested_samples(a: Anatomy, name: str, crossing: Crossing) -> Verdict:
    several = int((crossing.levels_per_donor > 1).sum())
    return Verdict(
        "caution",
        "nested_samples",
        f"adata.obs[{name!r}] (not in the formula) splits {several} of the {unit(a.group, a.sizes.size)} "
        f"({len(crossing.levels)} {unit(name)} in all). Cells of one {one(name)} may be more alike than others of the "
        f"same {one(a.group)}: what varies within {a.group} then looks too certain (pseudoreplication).",
        f"Terms that are constant within {a.group} are judged between its levels and stay safe. Nested intercepts "
        f"(1 | {quoted(a.group)}/{quoted(name)}) are not supported yet.",
    )


def _constant_in(a: Anatomy, test: str, column: pd.Series) -> bool:
    """Whether each level of a column has one value of every tested column."""
    codes = pd.factorize(column)[0]
    known = np.flatnonzero(codes >= 0)
    tested = a.design.X[known][:, a.columns(test)]
    first = np.unique(codes[known], return_index=True)[1]
    return bool((tested == tested[first][codes[known]]).all())
