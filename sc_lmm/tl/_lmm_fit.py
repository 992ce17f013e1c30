"""`lmm_fit`: read the cells once and keep what the models need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._anndata import Expression, read_expression
from .._audit import audit
from .._design import Design, build_design
from .._docs import doc_params
from .._errors import DesignError, listing, warn
from .._fitted import LmmFit
from .._formula import parse_formula
from .._statistics import SufficientStatistics, sufficient_statistics
from .._values import has_negative, looks_like_counts
from .._visit import check_matrix

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


@doc_params
def lmm_fit(
    adata: AnnData,
    formula: str,
    *,
    reference: dict[str, str] | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    mask_var: NDArray[np.bool_] | str | None = None,
    n_jobs: int | None = None,
    show_progress: bool | None = None,
) -> LmmFit:
    r"""Read the expression matrix once, to fit and test many models of it.

    The model of every gene is that of :func:`sc_lmm.tl.lmm_de`, which is this object used once. It holds
    :math:`p + q + 1` numbers per gene and no cell, so every question is answered in well under a second.

    Parameters
    ----------
    {adata}
    {formula}
    reference
        Factor -> level that the others are compared with. By default the first category of each factor.
    {layer}
    {use_raw}
    {mask_var}
    {n_jobs}
    {show_progress}

    Returns
    -------
    Fitted object with methods ``test`` (a term, terms, contrasts, or the random term), ``contrast``, ``drop`` (the
    model without a term), ``gene`` (a summary like lme4's), ``ranef``, ``save`` and ``load``. `adata` is not changed.

    Raises
    ------
    DesignError
        If the formula and the annotations do not define a model. Nothing was read.
    ValueError
        If the matrix holds NaN or infinite values, or an argument has no meaning.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> fit = sl.tl.lmm_fit(adata, "~ sequencing_saturation + age + diagnosis + (1 | sample_id)")
    >>> table = fit.test("diagnosis", method="kenward-roger").table
    >>> fit.drop("age").coding.coef_names
    ('Intercept', 'sequencing_saturation', 'diagnosis[T.Alzheimer]')
    """
    source = read_expression(adata, layer=layer, use_raw=use_raw, mask_var=mask_var)
    design = design_of(formula, adata.obs, reference or {})
    audit(design, None, adata.obs).raise_if_refused()
    return read_and_fit(source, design, n_jobs=n_jobs, show_progress=show_progress)


def design_of(formula: str, obs: pd.DataFrame, reference: dict[str, str]) -> Design:
    """Build the design with the reference levels asked for first."""
    parsed = parse_formula(formula)
    for factor, level in reference.items():
        if factor not in parsed.variables:
            msg = (
                f"reference={level!r} needs a factor that is a column of the formula, and {factor!r} is not one of "
                f"{listing(parsed.variables)}."
            )
            raise DesignError(msg)
        if factor in obs and _is_number(obs[factor]):
            msg = f"reference={level!r} needs a factor, and {factor!r} is numeric. Leave reference out."
            raise DesignError(msg)
    return build_design(formula, obs, reference=reference)


def read_and_fit(source: Expression, design: Design, *, n_jobs: int | None, show_progress: bool | None) -> LmmFit:
    """Visit the cells of a checked design."""
    check_matrix(source.matrix)
    log_base = _check_values(source)
    stats = _read(source, design, show_progress=show_progress)
    return LmmFit(
        coding=design.coding,
        stats=stats,
        var_names=source.var_names,
        log_base=log_base,
        n_dropped=int((~design.kept).sum()),
        n_jobs=n_jobs,
        show_progress=show_progress,
    )


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def _check_values(source: Expression) -> float | None:
    """Warn of a matrix that is not on a log scale; the base of its logarithm if it is declared and possible."""
    if looks_like_counts(source.matrix):
        warn(
            "The matrix seems to hold raw counts (whole numbers, none negative). The model is for log-normalised "
            "expression: run sc.pp.normalize_total and sc.pp.log1p first, or name the layer that holds it."
        )
        return None
    if has_negative(source.matrix):
        warn(
            "The matrix has negative values (scaled or corrected expression?). Coefficients are in its units and "
            "logfoldchanges are NaN. Test log-normalised expression to get fold changes."
        )
        return None
    return source.log_base


def _read(source: Expression, design: Design, *, show_progress: bool | None) -> SufficientStatistics:
    rows = source.rows[design.kept]
    stats = sufficient_statistics(source.matrix, design, rows=rows, columns=source.columns, show_progress=show_progress)
    bad = ~np.isfinite(stats.yty)
    if bad.any():
        msg = (
            f"The matrix has NaN or infinite values in {int(bad.sum())} genes: {listing(source.var_names[bad])}. "
            f"Replace them, or leave these genes out with mask_var."
        )
        raise ValueError(msg)
    return stats
