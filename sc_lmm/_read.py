"""AnnData and a formula -> LmmFit: the steps that every function which needs cells goes through."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ._design import Design, build_design
from ._errors import listing, warn
from ._expression import Expression, read_expression
from ._inference import LmmFit, check_workers
from ._report import audit_terms
from ._statistics import (
    SufficientStatistics,
    check_matrix,
    looks_like_counts,
    statistics_of_each,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray


def fit_formula(
    adata: AnnData,
    formula: str,
    *,
    reference: Mapping[str, str] | None = None,
    weights: str | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    mask_var: Any = None,
    n_jobs: int | None = None,
    show_progress: bool | None = None,
) -> LmmFit:
    """Check the design, then read the cells; see :func:`sc_lmm.tl.lmm_fit`."""
    source = read_expression(adata, layer=layer, use_raw=use_raw, mask_var=mask_var)
    design = build_design(formula, adata.obs, reference=reference, weights=weights)
    report, cautions = audit_terms(design, adata.obs)
    report.raise_if_refused()
    fit = fit_cells(source, design, n_jobs=n_jobs, show_progress=show_progress)
    return replace(fit, cautions=cautions)


def fit_cells(source: Expression, design: Design, *, n_jobs: int | None, show_progress: bool | None) -> LmmFit:
    """Visit the cells of a checked design."""
    (fit,) = fit_each(source, [(design, np.arange(source.rows.size))], n_jobs=n_jobs, show_progress=show_progress)
    return fit


def fit_each(
    source: Expression,
    groups: Sequence[tuple[Design, NDArray[np.int64]]],
    *,
    n_jobs: int | None,
    show_progress: bool | None,
) -> list[LmmFit]:
    """Visit the cells of several checked designs, each with the positions in obs of the cells that it was made of."""
    check_workers(n_jobs)
    check_matrix(source.matrix)
    counts = _warn_of_counts(source)
    each = [(design, source.rows[cells[design.kept]]) for design, cells in groups]
    stats = statistics_of_each(source.matrix, each, columns=source.columns, show_progress=show_progress)
    _check_finite(stats, source.var_names)
    negative = _warn_of_negative(stats)
    known: dict[str, Any] = {
        "var_names": source.var_names,
        "log_base": None if counts or negative else source.log_base,
        "n_jobs": n_jobs,
        "show_progress": show_progress,
    }
    return [
        LmmFit(design.coding, found, n_dropped=int((~design.kept).sum()), **known)
        for (design, _), found in zip(groups, stats, strict=True)
    ]


def _warn_of_counts(source: Expression) -> bool:
    counts = looks_like_counts(source.matrix)
    if counts:
        warn(
            "The matrix seems to hold raw counts (whole numbers, none negative), so that coef and pvals are of counts, "
            "which differ with the depth of a cell and are far from normal: type sc.pp.normalize_total(adata, "
            "target_sum=1e4) and sc.pp.log1p(adata) first, or name the layer with log-normalised expression, layer=."
        )
    return counts


def _warn_of_negative(stats: Sequence[SufficientStatistics]) -> bool:
    negative = any(found.negative for found in stats)
    if negative:
        warn(
            "The matrix has negative values (scaled or corrected expression?): pvals are valid, coef is in its units, "
            "and logfoldchanges are NaN, so name the layer with log-normalised expression, layer=, to get them."
        )
    return negative


def _check_finite(stats: Sequence[SufficientStatistics], var_names: pd.Index) -> None:
    bad = np.logical_or.reduce([~np.isfinite(found.yty) for found in stats])
    if bad.any():
        msg = (
            f"The matrix has NaN or infinite values in {int(bad.sum())} genes: {listing(var_names[bad])}. "
            f"Replace them, or leave these genes out with mask_var."
        )
        raise ValueError(msg)
