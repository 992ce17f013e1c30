"""Anatomy and tested comparisons -> Detectability: at which level a term is judged, and what its test can find.

One call answers all that the report asks of the precision of a design, so that the design passes through here once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._design import read_term
from .facts import Detectable
from .precision import (
    REFERENCE_ICC,
    endless_standard_errors,
    enough_cells_icc,
    noncentrality,
    standard_errors,
    within_share,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .anatomy import Anatomy

    Array = NDArray[np.float64]

ICCS = (0.01, 0.05, 0.3)


@dataclass(frozen=True)
class Detectability:
    """What the test of one term can find."""

    within: bool  # judged within donors: most of the information is there, at an ICC of .05
    df: int
    inflation: float  # of the variance of its coefficient by all other terms (the largest, for several)
    inflation_by: dict[str, float]  # the part of it that would go with each other term
    enough_cells_icc: float  # from this ICC on endless cells would gain less than 10 %; 1 if none
    detectable: tuple[Detectable, ...]


def max_df(a: Anatomy, columns: Sequence[int]) -> int:
    """Degrees of freedom at the level that most of the information comes from, for the worst of the columns."""
    return a.df_within if _judged_within(a, [np.eye(a.design.X.shape[1])[[k]] for k in columns]) else a.df_between


def detectability(a: Anatomy, term: str, rows: Mapping[str, Array]) -> Detectability:
    """Say what the test of a term can find, in the comparisons (name -> row of L) in which it takes part."""
    if a.aliases_of(term):
        return Detectability(within=False, df=0, inflation=1.0, inflation_by={}, enough_cells_icc=1.0, detectable=())
    within = _judged_within(a, list(rows.values()))
    df = a.df_within if within else a.df_between
    inflation, by = _inflation(a, term)
    first = next(iter(rows.values()))
    return Detectability(
        within=within,
        df=df,
        inflation=inflation,
        inflation_by=by,
        enough_cells_icc=enough_cells_icc(a, first) if df > 0 and not within else 1.0,
        detectable=tuple(d for name, L in rows.items() for d in _detectable(a, name, L, df)) if df > 0 else (),
    )


def _judged_within(a: Anatomy, rows: Sequence[Array]) -> bool:
    return min(within_share(a, L) for L in rows) > 0.5


def _inflation(a: Anatomy, term: str) -> tuple[float, dict[str, float]]:
    """How much the other terms inflate the variance of the term's coefficients, together and each on top of the rest.

    An interaction goes along with its main effects by construction, so terms that share a factor do not count.
    """
    others = [
        name for name in a.design.terms if name != "Intercept" and not set(read_term(name)) & set(read_term(term))
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
    size = noncentrality(df) * _scale(a, L)
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
                sd_donor_mean=float(size * se / np.sqrt(icc + (1 - icc) / a.harmonic_mean)),
                sd_cell_endless=float(size * endless_standard_errors(a, icc, columns, L)[0]),
            )
        )
    return found


def _scale(a: Anatomy, L: Array) -> float:
    """Standard deviation of a numeric column whose slope is tested, else 1: the comparison as it is."""
    (columns,) = np.nonzero(L[0])
    numeric = {k for term in a.design.terms if term not in a.crossings for k in a.columns(term)}
    if len(columns) != 1 or columns[0] not in numeric:
        return 1.0
    k = int(columns[0])
    return float(np.sqrt((a.within + a.between)[k] / a.sizes.sum()))
