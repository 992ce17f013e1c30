"""`lmm_de`: the conductor. Names the steps in order and does no arithmetic."""

from __future__ import annotations

import json
import logging
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._anndata import DEFAULT_KEY, check_destination, read_expression, write_results, written_view
from .._captions import axis_of, pack_comparisons
from .._design import TestSpec, build_design, comparisons_of, parse_formula, read_test, tested_column
from .._docs import doc_params
from .._errors import listing, warn
from .._inference import check_choices
from .._model import STATUS
from .._read import fit_cells
from .._report import audit
from .._words import counted
from ._reference import reference_levels

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from .._design import Design
    from .._inference import LmmFit

_LOG = logging.getLogger("sc_lmm")


@doc_params
def lmm_de(  # noqa: PLR0913 - one call is the interface; everything after `test` is keyword-only
    adata: AnnData,
    formula: str,
    test: TestSpec,
    *,
    reference: str | dict[str, str] | None = None,
    weights: str | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    mask_var: NDArray[np.bool_] | pd.Series | str | None = None,
    method: Literal["lrt", "between-within", "satterthwaite", "kenward-roger", "wald"] = "lrt",
    calibrate: bool = True,
    moderate: bool | None = None,
    reml: bool | None = None,
    conf_level: float | None = 0.95,
    corr_method: Literal["benjamini-hochberg", "bonferroni"] = "benjamini-hochberg",
    seed: int = 0,
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
    term, as ``anova`` of two ``lme4::lmer(REML = FALSE)`` fits does [1]_, and calibrates it for the number of donors.

    With several random terms or slopes, ``Z u`` is a sum of such parts and the coefficients of a level have a covariance.
    A term is judged by what its random terms say: ``condition`` in ``~ condition + (condition | donor)`` by how donors
    differ in their response, ``diagnosis`` in ``~ diagnosis + (1 | donor) + (1 | batch)`` by how donors differ.

    Parameters
    ----------
    {adata}
    {formula}
    test
        What to test: a fixed-effect term, e.g. ``"diagnosis"`` (a factor with more than two levels is tested jointly
        first and then level by level); a list of terms (jointly); a contrast of conditions,
        ``"cond(diagnosis='AD') - cond(diagnosis='PD')"``, where columns that are not named are at their reference or
        0; a dict of named contrasts (several comparisons from one fit); or a random term as the formula has it, e.g.
        ``"(1 | sample_id)"``: is its variance zero, given the others?
    reference
        Level that the others are compared with, of the tested factor or else of the only one that has it, or a dict
        from factors to levels. By default the first category.
    {weights}
    {layer}
    {use_raw}
    {mask_var}
    method
        ``"lrt"``: likelihood-ratio test of two maximum-likelihood fits. The others are t or F tests of REML estimates
        and differ in the denominator degrees of freedom: ``"between-within"`` (donors less donor-level coefficients),
        ``"satterthwaite"`` [2]_, ``"kenward-roger"`` (with its adjusted standard error [3]_), ``"wald"`` (infinite).
    calibrate
        Where nothing is learned from other genes: divide the ratio by its expectation under the null hypothesis for this
        design and the gene's rho, which a chi-square takes to be 1. With few donors it is larger and uncalibrated p-values
        are too small. ``calibrate=False`` alone asks for the chi-square. With several random terms the expectation is
        found from simulated genes at variances like those of the data.
    moderate
        Learn from all genes how much donors differ. For ``"lrt"``: the prior of the variance ratio rho (of all ratios, and
        correlations of slopes) is the distribution that makes all genes most likely, varying with mean expression [5]_, and ``pvals``, ``coef``, ``se`` and limits are
        those of the exact F and t at known rho, averaged over what it says of the gene's own. ``None`` does so from 200
        genes on, ``True`` insists. Genes that are added or left out change others only through this prior. For t and F:
        squeeze the variance of the contrast across genes (limma's empirical Bayes [4]_).
    reml
        Restricted likelihood or not. ``None`` follows the method: ``"lrt"`` needs maximum likelihood, t and F tests
        need REML, and asking for the other is an error that says why.
    conf_level
        Level of ``ci_low`` and ``ci_high``: with ``"lrt"`` those of the average, or of the profile likelihood where
        nothing is learned (t for several random terms), and t otherwise. ``None`` leaves them out.
    corr_method
        How p-values are adjusted for the number of genes tested.
    seed
        Of the simulation behind calibration and the test of the random term.
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
        per gene: ``coef`` and ``se`` in units of the matrix, ``ci_low`` and ``ci_high``, ``coef_shrunken`` and ``lfsr``
        (the effect and the probability that its sign is wrong under the distribution of all genes' effects [6]_),
        ``logfoldchanges`` (log2, by scanpy's convention at the model's adjusted means; only
        where ``sc.pp.log1p`` has declared the logarithm, else NaN), ``scores`` (signed root of the statistic for one
        degree of freedom, the statistic for several), ``df``, ``pvals``, ``pvals_adj``, ``log10_pvals`` (exact where
        ``pvals`` underflows), ``lrt`` (the ratio before calibration), ``pvals_chi2`` (what lme4 prints),
        ``calibration`` (what the ratio was divided by), ``sd_<group>`` (standard deviation between donors; with several
        random terms one for each, ``sd_<group>_<slope>``, ``cor_<group>_<slope>``, and ``at_zero``, which of them are
        zero),
        ``sd_residual``, ``icc`` (share of the variance that is between donors), ``icc_moderated`` (its posterior mean), ``loglik``, ``loglik_null``,
        ``pct_expressed`` (share of cells in which the gene is not zero) and ``status``.
    ``adata.varm[f"{key_added}_{comparison}"]``
        The same for each further comparison.
    ``adata.uns[key_added]``
        scanpy's structure (``names``, ``scores``, ``pvals``, ``pvals_adj``, ``logfoldchanges``, ``params``), which
        ``sc.pl.rank_genes_groups*`` and ``sc.get.rank_genes_groups_df`` read, with a field per comparison (":" in its
        name is "." there), ``comparisons`` (comparison -> key in ``varm``), ``fingerprints`` by which the run knows its
        tables, the ``coef_names``, the ``design``, the number of genes per ``status`` and the ``versions``.

    An earlier run under the same key is replaced. What another run or another program has in these places is not.

    Raises
    ------
    DesignError
        If the formula, the annotations or the test do not define a model that can be estimated. Nothing was read.
    ValueError
        If the matrix holds NaN or infinite values, an argument has no meaning, or the results cannot be stored.
    KeyError
        If a layer or column does not exist.

    Warns
    -----
    LmmWarning
        Once per call each: for whatever of the design changes the meaning of a p-value (see
        :func:`sc_lmm.tl.check_design`, ``warnings`` of the report), raw counts, negative values, genes that could not
        be fitted, and a view that had to become a copy to be written to.

    Notes
    -----
    ``status`` is ``ok``; ``boundary`` (the variance between donors is estimated as zero: a normal result, and the
    test is valid); ``constant`` (no variation); ``failed`` (no variation within any donor, or explained exactly);
    ``max_iter``; or ``not_tested`` (left out by `mask_var`). All but the first two have NaN results.

    Sizes: random terms may have 12 variance parameters together, their levels 50,000 combinations, and the groupings
    beside the largest 400 coefficients where they cross it, because time grows with the cube of these; memory beyond the
    matrix is then :math:`8 c` bytes per gene, c the combinations. More is refused before anything is read.

    Cells with a missing value in a column of the formula are left out and counted in the design. Memory beyond the
    matrix is about :math:`8 (p + q + 3)` bytes per gene, whatever the number of cells.

    ``sc.pl.rank_genes_groups_dotplot(values_to_plot=...)`` fails in scanpy whenever there is a reference level; use
    :func:`sc_lmm.pl.dotplot`.

    References
    ----------
    .. [1] Bates, Maechler, Bolker, Walker (2015). Fitting linear mixed-effects models using lme4.
       J. Stat. Softw. 67(1).
    .. [2] Kuznetsova, Brockhoff, Christensen (2017). lmerTest package. J. Stat. Softw. 82(13).
    .. [3] Kenward, Roger (1997). Small sample inference for fixed effects from REML. Biometrics 53, 983-997.
    .. [4] Smyth (2004). Linear models and empirical Bayes methods. Stat. Appl. Genet. Mol. Biol. 3(1).
    .. [5] Koenker, Mizera (2014). Convex optimization, shape constraints, compound decisions, and empirical Bayes rules.
       J. Am. Stat. Assoc. 109, 674-685.
    .. [6] Stephens (2017). False discovery rates: a new deal. Biostatistics 18(2), 275-294.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ sequencing_saturation + diagnosis + (1 | sample_id)", test="diagnosis")
    >>> table = sl.get.lmm_de_df(adata)
    >>> table.columns[:4].tolist()
    ['names', 'coef', 'se', 'ci_low']
    """
    check_choices(method, corr_method, conf_level=conf_level, reml=reml)
    check_destination(adata, key_added, copy=copy)
    test = read_test(test)
    source = read_expression(adata, layer=layer, use_raw=use_raw, mask_var=mask_var)
    levels = reference_levels(reference, formula, adata.obs, test)
    design = build_design(formula, adata.obs, reference=levels, weights=weights)
    report = audit(design, test, adata.obs)
    report.raise_if_refused()
    report.warn()

    fit = fit_cells(source, design, n_jobs=n_jobs, show_progress=show_progress)
    choices: dict[str, Any] = {"method": method, "conf_level": conf_level, "corr_method": corr_method, "seed": seed}
    result = fit.test(test, calibrate=calibrate, moderate=moderate, **choices)

    _warn_of_failures(fit, np.asarray(result.table["status"].cat.codes))
    calibrated = calibrate and method == "lrt" and not result.moderated
    choices |= {
        "calibrate": calibrated,
        "moderate": result.moderated,
        "use_raw": use_raw,
        "layer": layer,
        "weights": weights,
    }
    _LOG.info("%s", repr(result).splitlines()[0])
    adata = adata.copy() if copy else adata
    described = {
        "params": _params(fit, test, choices) | _compared(design, test, weights),
        "design": report.to_uns(),
        **_describe(fit, result.table),
    }
    with written_view(adata):
        write_results(adata, key_added, result.tables, described, source.tested)
    return adata if copy else None


def _warn_of_failures(fit: LmmFit, status: NDArray[Any]) -> None:
    failed = status > STATUS.index("constant")
    if failed.any():
        found = counted(int(failed.sum()), "gene")
        warn(
            f"{found} could not be fitted, with NaN results and the reason in the column status: "
            f"{listing(fit.var_names[failed], 5)}."
        )


def _params(fit: LmmFit, test: TestSpec, choices: dict[str, Any]) -> dict[str, Any]:
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
    }


def _compared(design: Design, test: TestSpec, weights: str | None) -> dict[str, str]:
    """What stands against each other in each comparison, and the columns that the cells have values in: for figures.

    A factor that the formula writes as ``C(diagnosis)`` is also named by its column, where scanpy's plots look for it.
    """
    used = design.obs_columns | set(parse_formula(f"~ 0 + {weights} + (1 | cells)").variables if weights else ())
    comparisons = comparisons_of(design.coding, test)
    stored = {"compared": pack_comparisons(comparisons, sorted(used), factors=design.coding.levels)}
    axis, column = axis_of(stored, next(iter(comparisons))), tested_column(design.coding, test)[0]
    if column in used or axis is None or not axis.labels or len(axis.conditions[0]) > 1:
        return stored
    return stored | {"groupby": next(iter(axis.conditions[0])), "reference": axis.labels[0]}


def _describe(fit: LmmFit, table: pd.DataFrame) -> dict[str, Any]:
    return {
        "coef_names": np.array(fit.coding.coef_names, dtype=object),
        "status": {str(name): int(count) for name, count in table["status"].value_counts(sort=False).items()},
        "versions": dict(_versions()),
    }


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("sc-lmm", "anndata", "numpy", "scipy")}
