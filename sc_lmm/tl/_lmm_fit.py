"""`lmm_fit`: read the cells once and keep what the models need."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from .._docs import doc_params
from .._expression import read_expression
from .._groups import Model, fit_groups, grouping_of, groups_of
from .._read import fit_formula
from .._read_counts import fit_count_formula
from ._family import read_family
from ._reference import reference_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from .._inference import CountFit, LmmFit, LmmFits


@overload
def lmm_fit(
    adata: AnnData,
    formula: str,
    *,
    reference: str | dict[str, str] | None = None,
    weights: str | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    mask_var: NDArray[np.bool_] | pd.Series | str | None = None,
    family: Literal["gaussian"] = "gaussian",
    size_factors: str | None = None,
    offset: str | None = None,
    groupby: None = None,
    groups: Sequence[str] | None = None,
    min_cells: int = 1,
    min_donors: int = 2,
    min_pct: float = 0.0,
    n_jobs: int | None = None,
    show_progress: bool | None = None,
) -> LmmFit: ...


@overload
def lmm_fit(
    adata: AnnData,
    formula: str,
    *,
    reference: str | dict[str, str] | None = None,
    weights: str | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    mask_var: NDArray[np.bool_] | pd.Series | str | None = None,
    family: Literal["nb"],
    size_factors: str | None = None,
    offset: str | None = None,
    groupby: None = None,
    groups: Sequence[str] | None = None,
    min_cells: int = 1,
    min_donors: int = 2,
    min_pct: float = 0.0,
    n_jobs: int | None = None,
    show_progress: bool | None = None,
) -> CountFit: ...


@overload
def lmm_fit(
    adata: AnnData,
    formula: str,
    *,
    reference: str | dict[str, str] | None = None,
    weights: str | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    mask_var: NDArray[np.bool_] | pd.Series | str | None = None,
    family: Literal["gaussian", "nb"] = "gaussian",
    size_factors: str | None = None,
    offset: str | None = None,
    groupby: str,
    groups: Sequence[str] | None = None,
    min_cells: int = 1,
    min_donors: int = 2,
    min_pct: float = 0.0,
    n_jobs: int | None = None,
    show_progress: bool | None = None,
) -> LmmFits: ...


@doc_params
def lmm_fit(  # noqa: PLR0913 - as lmm_de
    adata: AnnData,
    formula: str,
    *,
    reference: str | dict[str, str] | None = None,
    weights: str | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    mask_var: NDArray[np.bool_] | pd.Series | str | None = None,
    family: Literal["gaussian", "nb"] = "gaussian",
    size_factors: str | None = None,
    offset: str | None = None,
    groupby: str | None = None,
    groups: Sequence[str] | None = None,
    min_cells: int = 1,
    min_donors: int = 2,
    min_pct: float = 0.0,
    n_jobs: int | None = None,
    show_progress: bool | None = None,
) -> LmmFit | LmmFits | CountFit:
    r"""Read the expression matrix once, to fit and test many models of it.

    The model of every gene is that of :func:`sc_lmm.tl.lmm_de`, which is this object used once. It holds
    :math:`p + q + 1` numbers per gene and no cell, so every question is answered in well under a second.

    Parameters
    ----------
    {adata}
    {formula}
    reference
        Level that the others are compared with, of the only factor that has it, or a dict from factors to levels. By
        default the first category of each factor.
    {weights}
    {layer}
    {use_raw}
    {mask_var}
    {family}
    {size_factors}
    {offset}
    {groupby}
    {n_jobs}
    {show_progress}

    Returns
    -------
    Fitted object with methods ``test`` (a term, terms, contrasts, or the random term), ``contrast``, ``drop`` (the
    model without a term), ``gene`` (a summary like lme4's), ``ranef``, ``save`` and ``load``. `adata` is not changed.
    With ``family="nb"`` it holds the sums of counts by donor, and does not test the random term.
    With `groupby`, a dictionary of these by group, which has a ``test`` of its own that asks all of them, and ``groups``, a
    table with a row per group and the reason if it has no model.

    Raises
    ------
    DesignError
        If the formula and the annotations do not define a model. Nothing was read.
    ValueError
        If the matrix holds NaN or infinite values, or an argument has no meaning.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=12, n_cells=800, n_genes=50)
    >>> fit = sl.tl.lmm_fit(adata, "~ sequencing_saturation + age + diagnosis + (1 | sample_id)")
    >>> table = fit.test("diagnosis", method="kenward-roger").table
    >>> fit.drop("age").coding.coef_names
    ('Intercept', 'sequencing_saturation', 'diagnosis[T.Alzheimer]')
    """
    factors = read_family(family, adata.obs, weights=weights, size_factors=size_factors, offset=offset)
    grouping = grouping_of(groupby, groups, min_cells=min_cells, min_donors=min_donors, min_pct=min_pct)
    workers: dict[str, Any] = {"n_jobs": n_jobs, "show_progress": show_progress}
    which: dict[str, Any] = {"layer": layer, "use_raw": use_raw, "mask_var": mask_var}
    if grouping is None:
        levels = reference_levels(reference, formula, adata.obs)
        if factors is not None:
            return fit_count_formula(adata, formula, reference=levels, factors=factors, **which, **workers)
        return fit_formula(adata, formula, reference=levels, weights=weights, **which, **workers)
    model = Model(formula, partial(reference_levels, reference, formula), weights, factors)
    source = read_expression(adata, **which)
    return fit_groups(source, groups_of(adata.obs, grouping, model, None), grouping, factors, **workers)
