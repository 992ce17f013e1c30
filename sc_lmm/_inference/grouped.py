"""Fits of several groups of cells, such as cell types, asked the same question; p-values adjusted over all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._by_group import ByGroup
from .._errors import DesignError, warn_each
from .fitted import LmmFit
from .summary import TestResult
from .tests import adjust

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .._design import TestSpec

GLOBAL = "pvals_adj_global"


@dataclass(frozen=True, repr=False)
class LmmFits(ByGroup[LmmFit]):
    """A model of each group of cells, fitted in one reading of the matrix.

    Made by :func:`sc_lmm.tl.lmm_fit` with `groupby`. A dictionary from groups to their :class:`LmmFit`, and ``groups``, a
    table with a row per group: n_cells, n_donors, n_genes, and the reason if it has no model.
    """

    seen: Mapping[str, NDArray[np.int64]]  # positions of each group's genes among those that were read

    def test(self, test: TestSpec, **choices: Any) -> GroupedResult:
        """Ask every group; see :meth:`LmmFit.test`. A group that has no answer keeps the reason."""
        results, reasons, said = {}, {}, []
        for name, fit in self.found.items():
            try:
                said += [(name, sentence) for sentence in (fit.cautions(fit.coding, test) if fit.cautions else ())]
                results[name] = replace(fit, cautions=None).test(test, **choices)
            except DesignError as error:
                reasons[name] = str(error)
        warn_each(said)
        if not results:
            first, reason = next(iter(reasons.items()))
            msg = f"No group can answer the test. {first}: {reason}"
            raise DesignError(msg)
        groups = self.groups.assign(reason=[reasons.get(str(name), why) for name, why in self.groups["reason"].items()])
        return _collected(self.groupby, results, groups, choices.get("corr_method", "benjamini-hochberg"))


@dataclass(frozen=True, repr=False)
class GroupedResult(ByGroup[TestResult]):
    """Answers of all groups to one question; ``groups`` counts the genes ``found`` at an adjusted p-value of .05."""

    tables: Mapping[str, pd.DataFrame]  # comparison of a group -> results
    of_group: Mapping[str, tuple[str, str]]  # comparison of a group -> the group, the comparison

    @property
    def method(self) -> str:
        """The test."""
        return next(iter(self.found.values())).method

    @property
    def moderated(self) -> dict[str, bool]:
        """Whether p-values of a group use what all its genes say of the variances of one."""
        return {name: result.moderated for name, result in self.found.items()}

    @property
    def table(self) -> pd.DataFrame:
        """All comparisons, one below the other: the group, the comparison and the gene first."""
        parts = [
            table.reset_index(names="names").assign(**{self.groupby: group, "comparison": name})
            for table, (group, name) in zip(self.tables.values(), self.of_group.values(), strict=True)
        ]
        long = pd.concat(parts, ignore_index=True)
        first = [self.groupby, "comparison", "names"]
        return long[[*first, *(column for column in long.columns if column not in first)]]

    def _title(self) -> str:
        genes = int(self.groups["found"].sum())
        return f"{self.method}: {genes:,} genes at an adjusted p-value below 0.05 in {len(self)} of {len(self.groups)} groups of {self.groupby}"


def _collected(
    groupby: str, results: Mapping[str, TestResult], groups: pd.DataFrame, corr_method: str
) -> GroupedResult:
    """Name the comparisons of all groups, adjust their p-values together and count what was found."""
    several = any(len(result.tables) > 1 for result in results.values())
    parts = {(group, name): table for group, result in results.items() for name, table in result.tables.items()}
    names = [f"{group}, {name}" if several else group for group, name in parts]
    tables = dict(zip(names, _adjusted(parts, corr_method), strict=True))
    found = {group: int((result.table["pvals_adj"] < 0.05).sum()) for group, result in results.items()}
    counts = groups.drop(columns="reason").assign(
        found=[found.get(name, 0) for name in groups.index], reason=groups["reason"]
    )
    return GroupedResult(groupby, results, counts, tables, dict(zip(names, parts, strict=True)))


def _adjusted(parts: Mapping[tuple[str, str], pd.DataFrame], corr_method: str) -> list[pd.DataFrame]:
    """Tables with p-values adjusted over the genes of all groups, comparison by comparison."""
    comparison = np.repeat([name for _, name in parts], [len(table) for table in parts.values()])
    pvals = np.concatenate([table["pvals"].to_numpy() for table in parts.values()])
    adjusted = np.empty(pvals.size)
    for name in dict.fromkeys(comparison):
        adjusted[comparison == name] = adjust(pvals[comparison == name], corr_method)
    ends = np.cumsum([len(table) for table in parts.values()])[:-1]
    tables = []
    for table, values in zip(parts.values(), np.split(adjusted, ends), strict=True):
        columns = list(table.columns)
        place = columns.index("pvals_adj") + 1
        tables.append(table.assign(**{GLOBAL: values})[[*columns[:place], GLOBAL, *columns[place:]]])
    return tables
