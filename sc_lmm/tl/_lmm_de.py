"""`lmm_de`: the conductor. Names the steps in order and does no arithmetic."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from .._anndata import DEFAULT_KEY, check_destination, write_results, written_view
from .._design import TestSpec, read_test
from .._docs import doc_params
from .._expression import read_expression
from .._groups import Model, grouping_of
from .._inference import check_choices, check_count_choices
from ._family import read_family
from ._reference import reference_levels
from ._run import run_all, run_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

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
    family: Literal["gaussian", "nb"] = "gaussian",
    size_factors: str | None = None,
    offset: str | None = None,
    groupby: str | None = None,
    groups: Sequence[str] | None = None,
    min_cells: int = 1,
    min_donors: int = 2,
    min_pct: float = 0.0,
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
    term, as ``anova`` of two ``lme4::lmer(REML = FALSE)`` fits does [1]_. With few donors the chi-square of that ratio is too
    optimistic, so p-values are those of the exact test at known variances, averaged over what all genes together say of a
    gene's own (`moderate`), or, of few genes, of the ratio divided by what it is on average when nothing changes.

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
    {family}
    {size_factors}
    {offset}
    {groupby}
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
        squeeze the variance of the contrast across genes (limma's empirical Bayes [4]_). That keeps a statistic with its own
        degrees of freedom, and finds less: of the genes that change in two groups of donors, ``"between-within"`` squeezed
        found 24, 33, 38 and 42 % with 4, 6, 8 and 12 donors in all, the default 28, 37, 40 and 44 % (averages of eight
        distributions of rho, ``tests/benchmarks/calibration.py``).
    reml
        Restricted likelihood or not. ``None`` follows the method: ``"lrt"`` needs maximum likelihood, t and F tests
        need REML, and asking for the other is an error that says why.
    conf_level
        Level of ``ci_low`` and ``ci_high``: of the averaged t where the prior was learned, profile likelihood for ``"lrt"``
        otherwise (t with several random terms), t for the other methods. ``None`` leaves them out.
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
        With `groupby`, one for each group (and comparison), none under `key_added` itself, with a further column
        ``pvals_adj_global``, adjusted over the genes of all groups.
    ``adata.uns[key_added]``
        scanpy's structure (``names``, ``scores``, ``pvals``, ``pvals_adj``, ``logfoldchanges``, ``params``), which
        ``sc.pl.rank_genes_groups*`` and ``sc.get.rank_genes_groups_df`` read, with a field per comparison (":" in its
        name is "." there), ``comparisons`` (comparison -> key in ``varm``), ``fingerprints`` by which the run knows its
        tables, the ``coef_names``, the ``design``, the number of genes per ``status`` and the ``versions``. With `groupby`, a
        field per group, and ``groups``, a row per group: its cells, donors, genes, how many were found, and the reason if
        there is no result.

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
    With `groupby`, p-values are those of a call with the cells of one group, ``pvals_adj`` is within the group, and a group
    that cannot be fitted is a row in ``uns[key_added]["groups"]``, not an error. Whether an effect *differs* between cell
    types is a question about one model of all of them, an interaction: test ``"cell_type:diagnosis"`` of
    ``"~ cell_type * diagnosis + (1 | sample_id)"``.

    ``status`` is ``ok``; ``boundary`` (the variance between donors is estimated as zero: a normal result, and the
    test is valid); ``constant`` (no variation); ``failed`` (no variation within any donor, or explained exactly);
    ``max_iter``; or ``not_tested`` (left out by `mask_var`). All but the first two have NaN results.

    Sizes: random terms may have 12 variance parameters together, their levels 50,000 combinations, and the groupings
    beside the largest 400 coefficients where they cross it, because time grows with the cube of these; memory beyond the
    matrix is then :math:`8 c` bytes per gene, c the combinations. More is refused before anything is read.

    **Counts.** With ``family="nb"`` raw counts are modelled, and donors differ by a factor:

    .. math:: y_{ij} \sim \mathrm{Poisson}(s_i e^{x_j' \beta} v_j), \quad v_j \sim \mathrm{Gamma}, \quad E v_j = 1, \quad \mathrm{var}\, v_j = \phi

    Where :math:`s_i` is the size factor of cell i, of donor j. If x is constant within donors, the sums of a donor's counts
    and size factors tell all of it [7]_, and other terms are refused: for conditions within donors let samples be the
    groups, ``"~ donor + condition + (1 | sample)"``. The prior of :math:`\phi` is learned as that of rho, from adjusted
    profile likelihoods [8]_ [9]_, with a share of .03 for genes like no others; the likelihood ratio at known :math:`\phi`,
    divided by Bartlett's factor [10]_, is chi-square and averaged over what :math:`\phi` can be. ``moderate=False``, and fewer
    than 200 genes, take each gene's own :math:`\phi` and refer its ratio to F with donors less columns for denominator, which
    is cautious. `weights`, another `method`, ``calibrate=False`` and the test of the random term have no meaning for counts
    and are refused. In the table ``coef`` is the logarithm of a fold change and ``logfoldchanges`` its log2; ``calibration``
    is Bartlett's factor; ``lrt``, ``pvals_chi2``, ``loglik`` are at the likeliest :math:`\phi`; ``dispersion``
    (:math:`\phi` of an average donor, posterior mean) and ``sd_donor`` (of :math:`\log v`) stand in place of standard
    deviations and ICC. A ``status`` more is ``separated``: some combination of donors has no counts, the ratio is the limit
    it has there, and ``coef`` that of half a count more per column [11]_. Median ratios are those of [12]_.

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

    .. [7] Lee, Han (2024). Pseudobulk with proper offsets has the same statistical properties as generalized linear mixed
       models in single-cell case-control studies. Bioinformatics 40(8), btae498.
    .. [8] Cox, Reid (1987). Parameter orthogonality and approximate conditional inference. J. R. Stat. Soc. B 49, 1-39.
    .. [9] Robinson, Smyth (2008). Small-sample estimation of negative binomial dispersion. Biostatistics 9, 321-332.
       McCarthy, Chen, Smyth (2012). Differential expression analysis of multifactor RNA-Seq experiments. Nucleic Acids
       Res. 40, 4288-4297.
    .. [10] Cordeiro (1983). Improved likelihood ratio statistics for generalized linear models. J. R. Stat. Soc. B 45, 404-413.
    .. [11] Firth (1993). Bias reduction of maximum likelihood estimates. Biometrika 80, 27-38.
    .. [12] Anders, Huber (2010). Differential expression analysis for sequence count data. Genome Biol. 11, R106.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ sequencing_saturation + diagnosis + (1 | sample_id)", test="diagnosis")
    >>> table = sl.get.lmm_de_df(adata)
    >>> table.columns[:4].tolist()
    ['names', 'coef', 'se', 'ci_low']
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis", family="nb", layer="counts")
    >>> "dispersion" in sl.get.lmm_de_df(adata)
    True
    """
    check_choices(method, corr_method, conf_level=conf_level, reml=reml, seed=seed)
    check_destination(adata, key_added, copy=copy)
    factors = read_family(family, adata.obs, weights=weights, size_factors=size_factors, offset=offset)
    if factors is not None:
        check_count_choices(method, calibrate=calibrate)
    test = read_test(test)
    grouping = grouping_of(groupby, groups, min_cells=min_cells, min_donors=min_donors, min_pct=min_pct)
    source = read_expression(adata, layer=layer, use_raw=use_raw, mask_var=mask_var)
    choices: dict[str, Any] = {"method": method, "conf_level": conf_level, "corr_method": corr_method, "seed": seed}
    choices |= {"calibrate": calibrate, "moderate": moderate}
    workers: dict[str, Any] = {"n_jobs": n_jobs, "show_progress": show_progress}
    levels = partial(reference_levels, reference, formula, test=test)
    model = Model(formula, levels, weights, factors)
    if grouping is None:
        run = run_all(source, adata.obs, model, test, choices, workers)
    else:
        run = run_groups(source, adata.obs, grouping, model, test, choices, workers)
    _LOG.info("%s", run.line)

    adata = adata.copy() if copy else adata
    run.described["params"] |= {"use_raw": use_raw, "layer": layer, "weights": weights, "offset": offset}
    with written_view(adata):
        write_results(adata, key_added, run.tables, run.described, of_group=run.of_group)
    return adata if copy else None
