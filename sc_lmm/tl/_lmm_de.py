"""`lmm_de`: the conductor. Names the steps in order and does no arithmetic."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .._anndata import DEFAULT_KEY, Expression, has_negative, looks_like_counts, read_expression, write_results
from .._design import Design, build_design, check_full_rank
from .._docs import doc_params
from .._errors import DesignError, LmmWarning, alternatives, listing
from .._fit import STATUS, Fit, fit_models
from .._formula import parse_formula
from .._hypothesis import Hypothesis, find_term, null_model, term_hypotheses
from .._inference import Test, check_correction, likelihood_ratio
from .._statistics import SufficientStatistics, sufficient_statistics

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

_METHODS = ("lrt",)


@doc_params
def lmm_de(
    adata: AnnData,
    formula: str,
    test: str,
    *,
    reference: str | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    mask_var: NDArray[np.bool_] | str | None = None,
    method: Literal["lrt"] = "lrt",
    corr_method: Literal["benjamini-hochberg", "bonferroni"] = "benjamini-hochberg",
    n_jobs: int | None = None,
    key_added: str = DEFAULT_KEY,
    copy: bool = False,
    show_progress: bool | None = None,
) -> AnnData | None:
    r"""Differential expression across donors: a linear mixed model per gene, tested by a likelihood ratio.

    The cells of one donor are not independent. A random intercept per donor says so, and its variance is estimated
    with everything else, so a covariate that is constant within donors is judged against the spread *between* donors:

    .. math:: y = X \beta + Z u + e, \quad u \sim N(0, \sigma_u^2 I), \quad e \sim N(0, \sigma^2 I)

    Where :math:`y` is a gene's expression in the :math:`n` cells, :math:`X` (:math:`n \times p`) the fixed effects of
    the formula, :math:`Z` (:math:`n \times q`) the donor of each cell, and :math:`\beta, \sigma_u^2, \sigma^2` the
    maximum-likelihood estimates. The test compares twice the log-likelihood with that of the model without the tested
    term, as ``anova`` of two ``lme4::lmer(REML = FALSE)`` fits does [1]_.

    Parameters
    ----------
    {adata}
    {formula}
    test
        Fixed-effect term of the formula to test, e.g. ``"diagnosis"``. A factor with more than two levels is tested
        jointly first and then level by level.
    reference
        Level of the tested factor that the others are compared with. By default its first category.
    {layer}
    {use_raw}
    mask_var
        Genes to test: a boolean per gene or the name of a boolean column of ``adata.var``. By default all.
    method
        ``"lrt"``: likelihood-ratio test of two maximum-likelihood fits.
    corr_method
        How p-values are adjusted for the number of genes tested.
    {n_jobs}
    key_added
        Where results are stored.
    copy
        Return a copy with the results instead of writing to `adata`.
    {show_progress}

    Returns
    -------
    ``None``, or the copy if ``copy=True``. These slots are written, in the last step, so that a call that fails leaves
    `adata` as it was:

    ``adata.varm[key_added]``
        Table of the first comparison (the joint test of a factor with more than two levels, else the only one), a row
        per gene: ``coef`` and ``se`` in units of the matrix, ``logfoldchanges`` (log2; only where ``sc.pp.log1p`` has
        declared the logarithm, else NaN), ``scores`` (signed root of the statistic for one degree of freedom, the
        statistic for several), ``df``, ``pvals``, ``pvals_adj``, ``log10_pvals`` (exact where ``pvals`` underflows),
        ``lrt``, ``pvals_chi2``, ``sd_<group>`` (standard deviation between donors), ``sd_residual``, ``icc``
        (share of the variance that is between donors), ``loglik``, ``loglik_null``, ``pct_expressed`` (share of cells
        in which the gene is not zero) and ``status``.
    ``adata.varm[f"{key_added}_{level}"]``
        The same for each further comparison.
    ``adata.uns[key_added]``
        scanpy's structure (``names``, ``scores``, ``pvals``, ``pvals_adj``, ``logfoldchanges``, ``params``), which
        ``sc.pl.rank_genes_groups*`` and ``sc.get.rank_genes_groups_df`` read, ``comparisons`` (comparison -> key in
        ``varm``), the ``coef_names``, the ``design``, the number of genes per ``status`` and the ``versions``.

    Raises
    ------
    DesignError
        If the formula, the annotations or the test do not define a model that can be estimated. Nothing was read.
    ValueError
        If the matrix holds NaN or infinite values, or an argument has no meaning.
    KeyError
        If a layer or column does not exist.

    Warns
    -----
    LmmWarning
        Once per call: for raw counts, negative values, or genes that could not be fitted.

    Notes
    -----
    ``status`` is ``ok``; ``boundary`` (the variance between donors is estimated as zero: a normal result, and the
    test is valid); ``constant`` (no variation); ``failed`` (no variation within any donor, or explained exactly);
    ``max_iter``; or ``not_tested`` (left out by `mask_var`). All but the first two have NaN results.

    Cells with a missing value in a column of the formula are left out and counted in the design. Memory beyond the
    matrix is about :math:`8 (p + q + 3)` bytes per gene, whatever the number of cells.

    ``sc.pl.rank_genes_groups_dotplot(values_to_plot=...)`` fails in scanpy whenever there is a reference level; use
    :func:`sc_lmm.pl.dotplot`.

    References
    ----------
    .. [1] Bates, Maechler, Bolker, Walker (2015). Fitting linear mixed-effects models using lme4.
       J. Stat. Softw. 67(1).

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ sequencing_saturation + diagnosis + (1 | sample_id)", test="diagnosis")
    >>> table = sl.get.lmm_de_df(adata)
    >>> table.columns[:4].tolist()
    ['names', 'coef', 'se', 'logfoldchanges']
    """
    _check_method(method)
    check_correction(corr_method)
    source = read_expression(adata, layer=layer, use_raw=use_raw, mask_var=mask_var)
    design = _design_for_test(formula, test, reference, adata.obs)
    hypotheses = term_hypotheses(design, test)
    log_base = _check_values(source)

    stats = _read(source, design, show_progress)
    full, *nulls = _fit(stats, design, hypotheses, n_jobs, show_progress)
    tests = [likelihood_ratio(full, null, h, corr_method) for h, null in zip(hypotheses, nulls, strict=True)]
    tables = {t.name: _table(t, full, stats, design, log_base) for t in tests}

    _warn_of_failures(full, source)
    params = {"reference": reference, "method": method, "use_raw": use_raw, "layer": layer, "corr_method": corr_method}
    adata = adata.copy() if copy else adata
    write_results(adata, key_added, tables, _describe(design, test, full, params, log_base), source.tested)
    return adata if copy else None


def _check_method(method: str) -> None:
    if method not in _METHODS:
        msg = f"method={method!r} is unknown. {alternatives(str(method), _METHODS)}"
        raise ValueError(msg)


def _design_for_test(formula: str, test: str, reference: str | None, obs: pd.DataFrame) -> Design:
    """Build the design with the tested factor's reference first, refusing what cannot be tested."""
    factor = None
    if reference is not None:
        factor = str(test).strip().strip("`")
        parsed = parse_formula(formula)
        if factor in obs and factor in parsed.variables and pd.api.types.is_numeric_dtype(obs[factor].dtype):
            msg = f"reference={reference!r} needs a factor, and {factor!r} is numeric. Leave reference out."
            raise DesignError(msg)
        if factor not in parsed.variables:
            factor = None
    design = build_design(formula, obs, factor=factor, reference=reference)
    term = find_term(design, test)
    if reference is not None and factor is None:
        msg = f"reference={reference!r} needs test to be one factor of the formula, and {term!r} is not a plain column."
        raise DesignError(msg)
    check_full_rank(design, design.terms[term])
    return design


def _check_values(source: Expression) -> float | None:
    """Warn of a matrix that is not on a log scale; the base of its logarithm if it is declared and possible."""
    if looks_like_counts(source.matrix):
        warnings.warn(
            "The matrix seems to hold raw counts (whole numbers, none negative). The model is for log-normalised "
            "expression: run sc.pp.normalize_total and sc.pp.log1p first, or name the layer that holds it.",
            LmmWarning,
            stacklevel=3,
        )
        return None
    if has_negative(source.matrix):
        warnings.warn(
            "The matrix has negative values (scaled or corrected expression?). Coefficients are in its units and "
            "logfoldchanges are NaN. Test log-normalised expression to get fold changes.",
            LmmWarning,
            stacklevel=3,
        )
        return None
    return source.log_base


def _read(source: Expression, design: Design, show_progress: bool | None) -> SufficientStatistics:
    rows = source.rows[design.kept]
    stats = sufficient_statistics(
        source.matrix, design, rows=rows, columns=source.columns, show_progress=show_progress
    )
    bad = ~np.isfinite(stats.yty)
    if bad.any():
        msg = (
            f"The matrix has NaN or infinite values in {int(bad.sum())} genes: {listing(source.var_names[bad])}. "
            f"Replace them, or leave these genes out with mask_var."
        )
        raise ValueError(msg)
    return stats


def _fit(
    stats: SufficientStatistics,
    design: Design,
    hypotheses: list[Hypothesis],
    n_jobs: int | None,
    show_progress: bool | None,
) -> list[Fit]:
    models = [stats, *(null_model(stats, h) for h in hypotheses)]
    return fit_models(models, design.coef_names, n_jobs=n_jobs, show_progress=show_progress)


def _table(
    test: Test, full: Fit, stats: SufficientStatistics, design: Design, log_base: float | None
) -> pd.DataFrame:
    log2_per_unit = np.nan if log_base is None else np.log2(log_base)
    tested = np.where(np.isnan(test.stat), np.nan, 1.0)
    return pd.DataFrame(
        {
            "coef": test.coef,
            "se": test.se,
            "logfoldchanges": test.coef * log2_per_unit,
            "scores": test.scores,
            "df": test.df,
            "pvals": test.pval,
            "pvals_adj": test.pval_adj,
            "log10_pvals": test.log10_pval,
            "lrt": test.stat,
            "pvals_chi2": test.pval,
            f"sd_{design.random.name}": full.sd_random,
            "sd_residual": np.sqrt(full.sigma2),
            "icc": full.icc,
            "loglik": full.loglik * tested,
            "loglik_null": test.loglik_null,
            "pct_expressed": stats.nonzero / stats.n_cells,
            "status": pd.Categorical.from_codes(full.status, list(STATUS)),
        }
    )


def _warn_of_failures(full: Fit, source: Expression) -> None:
    failed = full.status > STATUS.index("constant")
    if failed.any():
        warnings.warn(
            f"{int(failed.sum())} genes could not be fitted and have NaN results (see their status): "
            f"{listing(source.var_names[failed], 5)}.",
            LmmWarning,
            stacklevel=3,
        )


def _describe(
    design: Design, test: str, full: Fit, params: dict[str, Any], log_base: float | None
) -> dict[str, Any]:
    """Everything in ``uns`` but the record arrays; only types that h5ad and zarr can hold."""
    term = find_term(design, test)
    factor = design.factor_of(term)
    levels = [] if factor is None else list(design.data[factor].cat.categories)
    groupby = factor or term.strip("`")
    counts = np.bincount(full.status, minlength=len(STATUS))
    return {
        "params": {
            "groupby": groupby,
            **params,
            "reference": levels[0] if levels else "zero slope",
            "formula": design.formula.text,
            "test": term,
            "log_base": log_base,
        },
        "coef_names": np.array(design.coef_names, dtype=object),
        "design": _design_facts(design),
        "status": {name: int(count) for name, count in zip(STATUS, counts, strict=True)},
        "versions": {name: version(name) for name in ("sc-lmm", "anndata", "numpy", "scipy")},
    }


def _design_facts(design: Design) -> dict[str, Any]:
    sizes = design.random.sizes
    return {
        "group": design.random.name,
        "n_cells": design.n_cells,
        "n_cells_dropped": int((~design.kept).sum()),
        "n_donors": len(design.random.levels),
        "cells_per_donor": np.array([sizes.min(), np.median(sizes), sizes.max()]),
    }
