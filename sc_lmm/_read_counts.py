"""AnnData and a formula -> CountFit: what is refused before the counts are read, and the one read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ._design import Design, build_design
from ._errors import DesignError, alternatives, listing
from ._expression import Expression, read_expression
from ._inference import CountFit, check_workers
from ._names import quoted
from ._report import audit_terms
from ._statistics import (
    MEDIAN_RATIO,
    TOTAL,
    check_matrix,
    count_statistics,
    donor_sums_of_each,
    library_exposure,
    looks_like_counts,
    varying_columns,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from ._statistics import Sums

    Array = NDArray[np.float64]

_WHERE = "Name the layer that holds the counts, for example layer='counts'"


class SizeFactors(NamedTuple):
    """What the counts of a cell are measured by."""

    name: str | None  # None and the two of `library_exposure` are found in the counts, any other is a column
    values: Array | None = None  # (n_obs,) of the cells, None if they are found in the counts

    def of(self, cells: NDArray[np.int64]) -> SizeFactors:
        """Those of some of the cells."""
        return self if self.values is None else self._replace(values=self.values[cells])


def size_factors_of(obs: pd.DataFrame, size_factors: str | None, offset: str | None) -> SizeFactors:
    """Read the columns that `size_factors` or `offset`, a logarithm of these, name."""
    if size_factors is not None and offset is not None:
        msg = (
            f"size_factors={size_factors!r} and offset={offset!r} say the same twice: an offset is the logarithm of a size "
            f"factor. Give one of them."
        )
        raise ValueError(msg)
    if offset is not None:
        return SizeFactors(f"exp({offset})", np.exp(_column(obs, "offset", offset)))
    if size_factors is None or size_factors in (TOTAL, MEDIAN_RATIO):
        return SizeFactors(size_factors)
    return SizeFactors(size_factors, _column(obs, "size_factors", size_factors))


def _column(obs: pd.DataFrame, argument: str, name: str) -> Array:
    if name not in obs:
        known = [TOTAL, MEDIAN_RATIO] if argument == "size_factors" else []
        msg = f"{argument}={name!r} is not a column of adata.obs. {alternatives(str(name), [*known, *obs.columns])}"
        raise KeyError(msg)
    values = obs[name]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        msg = f"{argument}={name!r} must be a column of numbers, not of {values.dtype}."
        raise ValueError(msg)
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def check_count_design(design: Design, factors: SizeFactors) -> None:
    """Refuse what sums by donor do not tell of: columns that vary within donors, and size factors that are none."""
    if factors.values is not None:
        used = factors.values[design.kept]
        bad = ~(np.isfinite(used) & (used > 0))
        if bad.any():
            msg = (
                f"Size factors {factors.name!r} are missing, infinite or not above 0 in {int(bad.sum())} cells. Leave these "
                f"cells out, or use size_factors='median-ratio' or 'total'."
            )
            raise ValueError(msg)
    if design.effects:
        msg = (
            "family='nb' models counts with one random intercept, and the formula has other random terms. Keep that of the "
            "donors or samples, or use family='gaussian' on log-normalised expression."
        )
        raise DesignError(msg)
    varying = varying_columns(design)
    names = [term for term, columns in design.terms.items() if varying[columns].any()]
    if names:
        raise DesignError(_varies(names, design))


def _varies(names: list[str], design: Design) -> str:
    group, name = quoted(design.random.name), names[0]
    factor = next((n for n in names if design.factor_of(n) is not None), None)
    if factor is None:
        way = (
            f"Leave {name!r} out (the size factors already stand for the depth of cells) or add its mean per {group} as a "
            f"column of adata.obs"
        )
    else:
        way = (
            f"For a factor within donors let samples be the groups and donors a fixed effect: adata.obs['sample'] = "
            f"adata.obs[{design.random.name!r}].astype(str) + ' ' + adata.obs[{factor!r}].astype(str) and "
            f'"~ {group} + {quoted(factor)} + (1 | sample)"'
        )
    return (
        f"family='nb' reads the sum of counts of each {design.random.name}, so that all fixed effects must be constant "
        f"within it, and {listing(names)} is not. {way}; or use family='gaussian' on log-normalised expression."
    )


def fit_count_formula(
    adata: AnnData,
    formula: str,
    *,
    reference: Mapping[str, str] | None,
    factors: SizeFactors,
    layer: str | None,
    use_raw: bool,
    mask_var: Any,
    n_jobs: int | None,
    show_progress: bool | None,
) -> CountFit:
    """Check the design, then read the counts; see :func:`sc_lmm.tl.lmm_fit`."""
    source = read_expression(adata, layer=layer, use_raw=use_raw, mask_var=mask_var)
    design = build_design(formula, adata.obs, reference=reference)
    report, cautions = audit_terms(design, adata.obs)
    report.raise_if_refused()
    check_count_design(design, factors)
    everything = [(design, np.arange(source.rows.size))]
    (fit,) = fit_counts_each(source, everything, factors, n_jobs=n_jobs, show_progress=show_progress)
    return replace(fit, cautions=cautions)


def fit_counts_each(
    source: Expression,
    groups: Sequence[tuple[Design, NDArray[np.int64]]],
    factors: SizeFactors,
    *,
    n_jobs: int | None,
    show_progress: bool | None,
) -> list[CountFit]:
    """Visit the counts of several checked designs, each with the positions in obs of the cells that it was made of.

    Those of genes that are not tested are read for the size factors alone.
    """
    check_workers(n_jobs)
    check_matrix(source.matrix)
    if not looks_like_counts(source.matrix):
        msg = (
            f"family='nb' is for counts, and the matrix has values that are negative or not whole, as log-normalised or "
            f"scaled expression has. {_WHERE}, or use family='gaussian' for expression."
        )
        raise ValueError(msg)
    each = [(design, source.rows[cells[design.kept]]) for design, cells in groups]
    found = donor_sums_of_each(source.matrix, each, columns=source.present, show_progress=show_progress)
    genes = np.searchsorted(source.present, source.columns)
    how: dict[str, Any] = {"n_jobs": n_jobs, "show_progress": show_progress}
    return [
        _fit(source, design, sums, genes, factors.of(cells), how)
        for (design, cells), sums in zip(groups, found, strict=True)
    ]


def _fit(
    source: Expression,
    design: Design,
    sums: Sums,
    genes: NDArray[np.int64],
    factors: SizeFactors,
    how: Mapping[str, Any],
) -> CountFit:
    _check_sums(sums, genes, source.var_names)
    exposure, name = _exposure(sums, design, factors)
    stats = count_statistics(sums, design, exposure, genes)
    n_dropped = int((~design.kept).sum())
    return CountFit(design.coding, stats, source.var_names, size_factors=name, n_dropped=n_dropped, **how)


def _exposure(sums: Sums, design: Design, factors: SizeFactors) -> tuple[Array, str]:
    if factors.values is None:
        return library_exposure(sums.ZtY, design.random.sizes, factors.name)
    used, q = factors.values[design.kept], len(design.random.levels)
    return np.bincount(design.random.codes, used, minlength=q).astype(np.float64), str(factors.name)


def _check_sums(sums: Sums, genes: NDArray[np.int64], var_names: pd.Index) -> None:
    """Refuse what only the whole matrix shows."""
    tested = sums.ZtY[:, genes]
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(tested).all(axis=0) | (tested % 1 != 0).any(axis=0)
    if bad.any() or sums.negative[0] > 0 or not np.isfinite(sums.ZtY).all():
        which = f" in {int(bad.sum())} genes: {listing(var_names[bad], 5)}" if bad.any() else ""
        msg = f"family='nb' is for counts, and the matrix has values that are negative, missing or not whole{which}. {_WHERE}."
        raise ValueError(msg)
