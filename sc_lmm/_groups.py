"""A column of obs and a formula -> the groups of cells that have a model of their own each, such as cell types.

A group is what its cells alone would be: its own levels, design, report and cautions. One that has no model keeps the
reason, so that no group is silently absent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._design import as_levels, build_design, parse_formula, read_annotation
from ._errors import DesignError, alternatives, warn, warn_each
from ._inference import CountFit, LmmFit, LmmFits
from ._read import fit_each
from ._read_counts import SizeFactors, check_count_design, fit_counts_each
from ._report import audit, audit_terms, refused_report
from ._words import unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from ._design import Design, TestSpec
    from ._expression import Expression
    from ._report import Cautions, DesignReport


@dataclass(frozen=True)
class Grouping:
    """How cells are grouped, and which of them take part."""

    column: str
    groups: Sequence[str] | None = None  # which levels, all by default
    min_cells: int = 1  # of a donor in a group; fewer are left out of it
    min_donors: int = 2  # of a group
    min_pct: float = 0.0  # of the cells of a group that a gene is seen in

    def __post_init__(self) -> None:
        """Refuse numbers without a meaning."""
        for name, value, allowed in (
            ("min_cells", self.min_cells, self.min_cells >= 1),
            ("min_donors", self.min_donors, self.min_donors >= 1),
            ("min_pct", self.min_pct, 0 <= self.min_pct <= 1),
        ):
            if not allowed:
                bound = "between 0 and 1" if name == "min_pct" else "1 or more"
                msg = f"{name}={value!r} is out of range: it must be {bound}."
                raise ValueError(msg)


@dataclass(frozen=True)
class Group:
    """The cells of one level, and their model or why they have none."""

    name: str
    cells: NDArray[np.int64]  # positions in obs
    n_donors: int
    report: DesignReport
    design: Design | None = None
    cautions: Cautions | None = None
    reason: str = ""  # why there is no model, "" if there is one

    @property
    def rows(self) -> NDArray[np.int64]:
        """Positions in obs of the cells of the model, (n,)."""
        return self.cells if self.design is None else self.cells[self.design.kept]


def grouping_of(
    column: str | None, groups: Sequence[str] | None, *, min_cells: int, min_donors: int, min_pct: float
) -> Grouping | None:
    """The grouping that the arguments of a call describe, None without one."""
    if column is None:
        given = {
            "groups": groups is not None,
            "min_cells": min_cells != 1,
            "min_donors": min_donors != 2,
            "min_pct": min_pct != 0,
        }
        unused = [name for name, is_given in given.items() if is_given]
        if unused:
            msg = f'{unused[0]} is about groups of cells, and none were asked for. Add groupby=, for example groupby="cell_type".'
            raise ValueError(msg)
        return None
    return Grouping(column, groups, min_cells, min_donors, min_pct)


@dataclass(frozen=True)
class Model:
    """What every group is a model of; see :func:`sc_lmm.tl.lmm_de`."""

    formula: str
    reference: Callable[
        [pd.DataFrame], Mapping[str, str]
    ]  # cells -> reference levels; raises where they have none such
    weights: str | None = None
    factors: SizeFactors | None = None  # of a model of counts, None for one of expression

    def check(self, design: Design, cells: NDArray[np.int64]) -> None:
        """Refuse what the family of the model cannot have; `cells` are the positions in obs that the design is made of."""
        if self.factors is not None:
            check_count_design(design, self.factors.of(cells))


def groups_of(obs: pd.DataFrame, grouping: Grouping, model: Model, test: TestSpec | None) -> list[Group]:
    """Make the model of every group of cells in `obs`, in the order of the levels.

    What is tested, if that is known, decides what is reported; else all is kept that may concern a test that comes later.
    """
    levels = _levels(obs, grouping, model.formula)
    donors = read_annotation(obs, parse_formula(model.formula).group)
    members = [(name, np.flatnonzero(levels == name)) for name in _chosen(levels, grouping)]
    enough = [(name, _with_enough(cells, donors, grouping.min_cells)) for name, cells in members]
    return [_group(name, cells, obs.iloc[cells], grouping, model, test) for name, cells in enough]


def _levels(obs: pd.DataFrame, grouping: Grouping, formula: str) -> pd.Series:
    """Level of each cell as text."""
    column = grouping.column
    if column not in obs:
        msg = f"groupby={column!r} is not a column of adata.obs. {alternatives(str(column), obs.columns)}"
        raise KeyError(msg)
    parsed = parse_formula(formula)
    if column == parsed.group:
        msg = f"groupby={column!r} is the random intercept: each group would be one of {unit(column)}. Group by another column, such as the cell type."
        raise DesignError(msg)
    if column in parsed.variables:
        msg = f"groupby={column!r} is in the formula, and is the same in all cells of a group. Drop it from the formula, or leave groupby out and test it there."
        raise DesignError(msg)
    return as_levels(read_annotation(obs, column))


def _chosen(levels: pd.Series, grouping: Grouping) -> list[str]:
    present = [str(name) for name in levels.cat.categories if (levels == name).any()]
    if grouping.groups is None:
        return present
    chosen = [grouping.groups] if isinstance(grouping.groups, str) else list(dict.fromkeys(map(str, grouping.groups)))
    for name in chosen:
        if name not in present:
            msg = f"groups has {name!r}, which is no level of adata.obs[{grouping.column!r}] with cells. {alternatives(name, present)}"
            raise KeyError(msg)
    if not chosen:
        msg = "groups is empty. Leave it out for all groups."
        raise ValueError(msg)
    return chosen


def _with_enough(cells: NDArray[np.int64], donors: pd.Series, min_cells: int) -> NDArray[np.int64]:
    """Leave out the cells of donors that have too few in the group."""
    codes = pd.factorize(donors.iloc[cells])[0]
    counts = np.bincount(codes[codes >= 0], minlength=1)
    return cells[(codes < 0) | (counts[codes] >= min_cells)]


def _group(
    name: str, cells: NDArray[np.int64], obs: pd.DataFrame, grouping: Grouping, model: Model, test: TestSpec | None
) -> Group:
    """Model of some cells, or why they have none."""
    group = parse_formula(model.formula).group
    n_donors = int(obs[group].nunique())
    try:
        if n_donors < grouping.min_donors:
            msg = f"It has cells of {unit(group, n_donors)}, fewer than min_donors={grouping.min_donors}."
            raise DesignError(msg)
        design = build_design(model.formula, obs, reference=model.reference(obs), weights=model.weights)
        report, cautions = audit_terms(design, obs) if test is None else (audit(design, test, obs), None)
        report.raise_if_refused()
        model.check(design, cells)
    except DesignError as error:
        return Group(name, cells, n_donors, refused_report(model.formula, error), reason=str(error))
    return Group(name, cells, n_donors, report, design, cautions)


def warn_of_groups(groups: Sequence[Group], column: str) -> None:
    """Warn of what changes the meaning of p-values, and of groups without a model."""
    warn_each((group.name, sentence) for group in groups if group.design for sentence in group.report.warnings)
    warn_of_missing({group.name: group.reason for group in groups if group.reason}, len(groups), column)


def warn_of_missing(reasons: Mapping[str, str], n_groups: int, column: str) -> None:
    """Warn of groups that have no answer."""
    if reasons:
        shown = [f"{name} ({reason})" for name, reason in list(reasons.items())[:3]]
        more = f", and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        warn(f"{len(reasons)} of {n_groups} groups of {column} have no result: {'; '.join(shown)}{more}.")


def fit_groups(
    source: Expression,
    groups: Sequence[Group],
    grouping: Grouping,
    factors: SizeFactors | None = None,
    **workers: Any,
) -> LmmFits:
    """Read the cells once for the models of all groups, and keep the genes that each has seen often enough."""
    with_model = [group for group in groups if group.design is not None]
    if not with_model:
        msg = f"No group of {grouping.column} has a model. {groups[0].name}: {groups[0].reason}"
        raise DesignError(msg)
    designs = [(group.design, group.cells) for group in with_model if group.design is not None]
    found = fit_family(source, designs, factors, **workers)
    seen = {group.name: _seen(fit, grouping.min_pct) for group, fit in zip(with_model, found, strict=True)}
    fits = {
        group.name: replace(_of_genes(fit, seen[group.name]), cautions=group.cautions)
        for group, fit in zip(with_model, found, strict=True)
    }
    table = table_of_groups(groups)
    table.insert(2, "n_genes", [seen[group.name].size if group.name in seen else 0 for group in groups])
    return LmmFits(grouping.column, fits, table, seen)


def fit_family(
    source: Expression,
    designs: Sequence[tuple[Design, NDArray[np.int64]]],
    factors: SizeFactors | None,
    **workers: Any,
) -> Sequence[Any]:
    """An LmmFit of each design, or with size factors a CountFit, which answers the same questions."""
    if factors is not None:
        return fit_counts_each(source, designs, factors, **workers)
    return fit_each(source, designs, **workers)


def _seen(fit: LmmFit | CountFit, min_pct: float) -> NDArray[np.int64]:
    """Positions of the genes that enough of the cells express."""
    seen = np.flatnonzero(fit.stats.nonzero >= min_pct * fit.stats.n_cells)
    if seen.size == 0:
        msg = f"No gene is seen in {100 * min_pct:g} % of the cells of a group. Lower min_pct, or leave the group out with groups=."
        raise ValueError(msg)
    return seen


def _of_genes(fit: Any, genes: NDArray[np.int64]) -> Any:
    all_of_them = genes.size == fit.stats.n_genes
    return fit if all_of_them else replace(fit, stats=fit.stats.genes(genes), var_names=fit.var_names[genes])


def table_of_groups(groups: Iterable[Group]) -> pd.DataFrame:
    """Row per group: its cells and donors, and why it has no model."""
    rows = [
        {
            "n_cells": group.rows.size,
            "n_donors": group.n_donors,
            "reason": group.reason,
        }
        for group in groups
    ]
    return pd.DataFrame(rows, index=pd.Index([group.name for group in groups], dtype=object))
