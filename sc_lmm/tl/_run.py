"""A test and the cells -> what `lmm_de` stores: of all cells together, or of each group of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._captions import axis_of, pack_comparisons
from .._design import Comparison, build_design, comparisons_of, tested_column
from .._errors import listing, warn
from .._groups import fit_family, fit_groups, groups_of, warn_of_groups, warn_of_missing
from .._report import audit
from .._words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .._design import Design, TestSpec
    from .._expression import Expression
    from .._groups import Group, Grouping, Model
    from .._inference import CountFit, GroupedResult, LmmFit

    Choices = Mapping[str, Any]


_FAILED = ("max_iter", "failed")


@dataclass(frozen=True)
class Run:
    """Results, and what describes them."""

    tables: dict[str, pd.DataFrame]  # comparison -> results by position among the genes of adata
    described: dict[str, Any]  # entries of uns
    line: str  # for the log
    of_group: Mapping[str, tuple[str, str]] | None = None  # comparison -> group of cells, comparison there


def run_all(
    source: Expression, obs: pd.DataFrame, model: Model, test: TestSpec, choices: Choices, workers: Choices
) -> Run:
    """Fit and test one model of all cells.

    Parameters
    ----------
    source
        The matrix, and which cells and genes of it are meant.
    obs
        Annotations of the cells.
    model, test
        What is fitted, and what is asked.
    choices
        Arguments of the test.
    workers
        Arguments of the fit that change no result.
    """
    design = build_design(model.formula, obs, reference=model.reference(obs), weights=model.weights)
    report = audit(design, test, obs)
    report.raise_if_refused()
    everything = np.arange(len(obs))
    model.check(design, everything)
    report.warn()

    (fit,) = fit_family(source, [(design, everything)], model.factors, **workers)
    result = fit.test(test, **choices)
    _warn_of_failures([(fit.var_names, result.table)])
    remarks = [v.advice for v in report.verdicts if v.code == "unequal_depth" and model.factors is None]
    compared = _packed({name: (found, {}) for name, found in _comparisons(design, test).items()}, [design])
    described = {
        "params": _params(fit, test, _made(fit, choices, moderated=result.moderated)) | _named(compared, design, test),
        "design": report.to_uns(),
        **_describe(fit, [result.table]),
    }
    genes = np.flatnonzero(source.tested)
    tables = {name: table.set_axis(genes) for name, table in result.tables.items()}
    return Run(tables, described, " ".join([repr(result).splitlines()[0], *remarks]))


def run_groups(
    source: Expression,
    obs: pd.DataFrame,
    grouping: Grouping,
    model: Model,
    test: TestSpec,
    choices: Choices,
    workers: Choices,
) -> Run:
    """Fit and test a model of each group of cells, read once; arguments as for `run_all`."""
    groups = groups_of(obs, grouping, model, test)
    fits = fit_groups(source, groups, grouping, model.factors, **workers)
    warn_of_groups(groups, grouping.column)
    result = fits.test(test, **choices)
    late = {name: why for name, why in result.groups["reason"].items() if why and name in fits}
    warn_of_missing({str(name): str(why) for name, why in late.items()}, len(groups), grouping.column)

    designs = {group.name: group.design for group in groups if group.design is not None}
    first = next(iter(result.found))
    _warn_of_failures((fits[name].var_names, found.table) for name, found in result.found.items())
    params = _params(fits[first], test, _made(fits[first], choices, moderated=any(result.moderated.values())))
    described = {
        "params": params | {"compared": _of_groups(result, designs, test), "groupby": grouping.column},
        "design": _joint(groups, designs),
        "groups": _stored_groups(result, groups),
        **_describe(fits[first], [found.table for found in result.found.values()]),
    }
    genes = np.flatnonzero(source.tested)
    tables = {name: table.set_axis(genes[fits.seen[result.of_group[name][0]]]) for name, table in result.tables.items()}
    return Run(tables, described, repr(result).splitlines()[0], result.of_group)


def _made(fit: LmmFit | CountFit, choices: Choices, *, moderated: bool) -> dict[str, Any]:
    """The choices as they were carried out."""
    calibrated = choices["calibrate"] and choices["method"] == "lrt" and (fit.family == "nb" or not moderated)
    return {**choices, "calibrate": calibrated, "moderate": moderated}


def _warn_of_failures(found: Iterable[tuple[pd.Index, pd.DataFrame]]) -> None:
    failed = [name for names, table in found for name in names[table["status"].isin(_FAILED)]]
    if failed:
        warn(
            f"{counted(len(failed), 'gene')} could not be fitted, with NaN results and the reason in the column status: "
            f"{listing(failed, 5)}."
        )


def _params(fit: LmmFit | CountFit, test: TestSpec, choices: dict[str, Any]) -> dict[str, Any]:
    """What scanpy's functions look for, and what was asked; only types that h5ad and zarr can hold."""
    coding = fit.coding
    groupby, reference = tested_column(coding, test)
    return {
        "groupby": groupby,
        "reference": reference,
        **choices,
        "formula": coding.formula.text,
        "test": test if isinstance(test, str) else json.dumps(test),
        "log_base": fit.log_base,
        "family": fit.family,
        "size_factors": fit.size_factors,
    }


def _comparisons(design: Design, test: TestSpec) -> dict[str, Comparison]:
    return comparisons_of(design.coding, test)


def _packed(comparisons: Mapping[str, tuple[Comparison, Mapping[str, str]]], designs: Iterable[Design]) -> str:
    """What stands against each other in each comparison, in which group, and the columns that cells have values in."""
    designs = list(designs)
    columns = {column for design in designs for column in design.obs_columns}
    factors = {column for design in designs for column in design.coding.levels}
    placed = {
        name: replace(found, conditions=tuple({**group, **where} for where in found.conditions))
        for name, (found, group) in comparisons.items()
    }
    groups = {column for _, group in comparisons.values() for column in group}
    return pack_comparisons(placed, sorted(columns | groups), factors=factors | groups)


def _of_groups(result: GroupedResult, designs: Mapping[str, Design], test: TestSpec) -> str:
    found = {
        label: (_comparisons(designs[group], test)[name], {result.groupby: group})
        for label, (group, name) in result.of_group.items()
    }
    return _packed(found, designs.values())


def _named(compared: str, design: Design, test: TestSpec) -> dict[str, str]:
    """A factor that the formula writes as ``C(diagnosis)`` is also named by its column, where scanpy's plots look for it."""
    stored = {"compared": compared}
    axis = axis_of(stored, next(iter(_comparisons(design, test))))
    column = tested_column(design.coding, test)[0]
    if column in design.obs_columns or axis is None or not axis.labels or len(axis.conditions[0]) > 1:
        return stored
    return stored | {"groupby": next(iter(axis.conditions[0])), "reference": axis.labels[0]}


def _joint(groups: Iterable[Group], designs: Mapping[str, Design]) -> dict[str, Any]:
    """What all groups together are made of."""
    donors = {level for design in designs.values() for level in design.random.levels}
    reports = [group.report for group in groups if group.design is not None]
    return {
        "group": next(iter(designs.values())).random.name,
        "n_cells": sum(report.n_cells for report in reports),
        "n_cells_dropped": sum(report.n_dropped for report in reports),
        "n_donors": len(donors),
        "report": reports[0].to_uns()["report"],
    }


def _stored_groups(result: GroupedResult, groups: Iterable[Group]) -> pd.DataFrame:
    """The table of groups, with the report on each as a string."""
    reports = [json.dumps(group.report.to_dict()) for group in groups]
    moderated = [result.moderated.get(str(name), False) for name in result.groups.index]
    return result.groups.assign(moderated=moderated, report=reports)


def _describe(fit: LmmFit | CountFit, tables: Iterable[pd.DataFrame]) -> dict[str, Any]:
    status = pd.concat([table["status"] for table in tables]).value_counts(sort=False)
    return {
        "coef_names": np.array(fit.coding.coef_names, dtype=object),
        "status": {str(name): int(count) for name, count in status.items()},
        "versions": dict(_versions()),
    }


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("sc-lmm", "anndata", "numpy", "scipy")}
