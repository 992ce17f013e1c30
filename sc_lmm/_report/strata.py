"""Several random terms -> by which of them a fixed term is judged, and how the groupings lie to each other.

A term that is constant within the levels of a grouping is judged by these levels, by the coarsest such grouping if there
are several; one that has a random slope, by the slopes of its levels; any other by the cells. What coarser groupings and
other fixed columns take of the levels is not left to judge by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._design import TOLERANCE, RandomTerm
from .._errors import listing
from .._words import named, unit
from .facts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from .._design import Design, RandomEffects

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Stratum:
    """What a fixed term is judged by."""

    effects: RandomEffects
    by_slope: bool
    df: int

    @property
    def words(self) -> str:
        """What it is, in a note."""
        what = "how its slope differs between" if self.by_slope else "the spread between"
        return f"{what} the {unit(self.effects.grouping, len(self.effects.levels))}"


def stratum(design: Design, columns: Sequence[int]) -> Stratum | None:
    """What fixed columns are judged by; None if that is the cells, or if there is one random intercept."""
    X = design.X[:, list(columns)]
    by_size = sorted(design.effects, key=lambda effects: len(effects.levels))
    for effects in by_size:
        if _is_constant(X, effects.codes):
            return Stratum(effects, by_slope=False, df=_df_of_levels(design, effects))
    for effects in by_size:
        slopes = [s for s in effects.columns.T if not _is_constant(s[:, None], effects.codes)]
        if slopes and all(any(_is_multiple(x, s, effects.codes) for s in slopes) for x in X.T):
            taken = sum(any(_is_multiple(x, s, effects.codes) for s in slopes) for x in design.X.T)
            return Stratum(effects, by_slope=True, df=max(len(effects.levels) - taken // len(slopes), 0))
    return None


def described_by(design: Design, columns: Sequence[int]) -> Design:
    """The design as one of the grouping by whose levels these columns are judged."""
    found = stratum(design, columns) if columns else None
    if found is None or found.effects.grouping == design.random.name:
        return design
    effects = found.effects
    return design.regrouped(RandomTerm(effects.grouping, effects.levels, effects.codes, design.random.weights))


def relations(effects: RandomEffects, later: Sequence[RandomEffects]) -> tuple[str, ...]:
    """How a grouping lies to those that come after it."""
    others = {e.grouping: e for e in later if e.grouping != effects.grouping}
    return tuple(_relation(effects, other) for other in others.values())


def effect_verdicts(design: Design) -> Iterator[Verdict]:
    """What deserves care in the random terms themselves."""
    yield from _slopes_without_fixed(design)
    yield from _reused_labels(design)


def _slopes_without_fixed(design: Design) -> Iterator[Verdict]:
    Q, _ = np.linalg.qr(design.X / np.maximum(np.linalg.norm(design.X, axis=0), 1e-300))
    for effects in design.effects:
        left = effects.columns - Q @ (Q.T @ effects.columns)
        lacking = np.linalg.norm(left, axis=0) > 1e-6 * np.linalg.norm(effects.columns, axis=0)
        names = [name for name, lacks in zip(effects.column_names, lacking, strict=True) if lacks]
        if names:
            yield Verdict(
                "caution",
                "slope_without_fixed",
                f"{named(names)} in {effects.written} is no fixed effect, so that the slopes of all "
                f"{unit(effects.grouping)} are taken to be zero on average.",
                f"Add {named(names)} to the fixed effects, unless that is what is meant.",
            )


def _reused_labels(design: Design) -> Iterator[Verdict]:
    """Labels of a nested column that stand for different things in different levels of the outer one."""
    for spec in design.formula.random:
        outer = ":".join(spec.columns[:-1])
        nested = outer in {effects.grouping for effects in design.effects}
        if not nested or spec.columns[-1] in design.formula.variables:
            continue
        inner = next(effects for effects in design.effects if effects.grouping == spec.grouping)
        labels: dict[str, int] = {}
        for level in inner.levels:
            label = level.rsplit(":", 1)[-1]
            labels[label] = labels.get(label, 0) + 1
        reused = [label for label, n in labels.items() if n > 1]
        if reused:
            yield Verdict(
                "ok",
                "nested_labels",
                f"{spec.columns[-1]} has labels that occur in several {unit(outer)} ({listing(reused, 4)}). In {spec} each "
                f"stands for another thing in each of them, {len(inner.levels)} in all.",
                f"If they are the same things everywhere, they are crossed: (1 | {outer}) + (1 | {spec.columns[-1]}).",
            )


def _relation(one: RandomEffects, other: RandomEffects) -> str:
    pairs = np.unique(one.codes.astype(np.int64) * len(other.levels) + other.codes).size
    if pairs == len(one.levels):
        return f"{one.grouping} is nested in {other.grouping}."
    if pairs == len(other.levels):
        return f"{other.grouping} is nested in {one.grouping}."
    return f"{one.grouping} is crossed with {other.grouping}: {pairs} combinations of levels."


def _df_of_levels(design: Design, effects: RandomEffects) -> int:
    """Levels less what fixed columns that are constant within them, and coarser groupings, take of them."""
    m = len(effects.levels)
    first = np.unique(effects.codes, return_index=True)[1]
    constant = [k for k in range(design.X.shape[1]) if _is_constant(design.X[:, [k]], effects.codes)]
    taken: list[Array] = [design.X[first][:, constant]]
    coarser = [e for e in {e.grouping: e for e in design.effects}.values() if _is_nested(effects, e)]
    taken += [(other.codes[first][:, None] == np.arange(len(other.levels))).astype(np.float64) for other in coarser]
    return m - int(np.linalg.matrix_rank(np.hstack(taken)))


def _is_nested(one: RandomEffects, other: RandomEffects) -> bool:
    """Whether each level of one grouping lies in one level of another."""
    return one.grouping != other.grouping and _is_constant(other.codes[:, None].astype(np.float64), one.codes)


def _is_constant(columns: Array, codes: NDArray[Any]) -> bool:
    """Whether columns (n, k) are constant within the levels."""
    first = np.unique(codes, return_index=True)[1]
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-300)
    return bool((np.abs(columns - columns[first][codes]) <= TOLERANCE * scale).all())


def _is_multiple(x: Array, slope: Array, codes: NDArray[Any]) -> bool:
    """Whether x is a multiple of the slope column, beside a constant, within every level."""
    centred = []
    for column in (x, slope):
        sizes = np.bincount(codes)
        centred.append(column - (np.bincount(codes, weights=column) / sizes)[codes])
    products = np.bincount(codes, weights=centred[0] * centred[1])
    squares = np.bincount(codes, weights=centred[1] ** 2)
    ratio = products / np.where(squares > 0, squares, 1.0)
    left = np.linalg.norm(centred[0] - ratio[codes] * centred[1])
    return bool(np.linalg.norm(centred[0]) > 0 and left <= TOLERANCE * np.linalg.norm(x))
