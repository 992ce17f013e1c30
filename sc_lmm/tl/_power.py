"""`power`: how likely a test is to find an effect, before the donors are recruited."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp

from .._design import build_design
from .._docs import doc_params
from .._errors import DesignError, alternatives
from .._inference import (
    DEFAULT_ICC,
    Choices,
    LmmFit,
    Pilot,
    Power,
    Simulation,
    balanced_power,
    balanced_statistics,
    cohorts,
    known_power,
    only_hypothesis,
    pilot_of_fit,
    simulated_power,
)
from .._read import fit_formula
from .._report import audit
from .._statistics import sufficient_statistics
from ._power_arguments import (
    check_balanced,
    check_choices,
    check_design_arguments,
    check_simulated,
    cohort_grid,
    iccs_of,
    numbers_of,
)
from ._reference import reference_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from .._design import TestSpec

    Array = NDArray[np.float64]

_N_SIMULATIONS = 2_000


@doc_params
def power(
    adata: AnnData | LmmFit | None = None,
    formula: str | None = None,
    test: TestSpec | None = None,
    *,
    effect: float | Sequence[float],
    n_donors: int | Sequence[int] | None = None,
    n_cells: int | Sequence[int] | None = None,
    icc: float | Sequence[float] | None = None,
    gene: str | None = None,
    paired: bool = False,
    reference: str | dict[str, str] | None = None,
    weights: str | None = None,
    alpha: float = 0.05,
    method: Literal["lrt", "between-within", "satterthwaite", "kenward-roger", "wald"] = "lrt",
    moderate: bool | None = None,
    n_simulations: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Power of a test: the share of genes with this effect that it finds, for every combination of the arguments.

    With few donors, power depends on what the test knows of the variance between them. The default test of
    :func:`sc_lmm.tl.lmm_de` learns it from all genes of a study:

    - Given a pilot with many genes (a fit by :func:`sc_lmm.tl.lmm_fit`), genes are simulated, as sufficient statistics and
      not as cells, and tested with what the pilot's genes have taught.
    - Without one, the intraclass correlation (ICC) is taken to be known, the most that can be learned (see Notes). The power
      is then that of a noncentral F on :math:`(1, n - p)`, :math:`n` cells and :math:`p` coefficients, with noncentrality

    .. math:: \delta^2 \Big/ L \left(X' V^{-1} X\right)^{-1} L', \quad V = \rho Z Z' + (1 - \rho) I

    Where :math:`\delta` is the effect :math:`L \beta` in standard deviations of a cell and :math:`\rho` the ICC, the share
    of the variance that is between donors. In two groups of :math:`m_1` and :math:`m_2` donors with :math:`k` cells each
    the denominator is :math:`(\rho + (1 - \rho) / k) (1 / m_1 + 1 / m_2)`.

    Parameters
    ----------
    adata
        A design or pilot: a fitted object from :func:`sc_lmm.tl.lmm_fit`, or annotated data, of which only ``adata.obs`` is
        used unless `gene` is given. ``None`` for two balanced groups.
    {formula}
        Only with annotated data.
    test
        Term or contrast with one degree of freedom, as in :func:`sc_lmm.tl.lmm_de`. Only with a design.
    effect
        Difference between the groups (the coefficient) in standard deviations of a cell, which are
        :math:`\sqrt{\sigma_u^2 + \sigma^2}`; with `gene`, in units of the matrix.
    n_donors
        Donors in all. With a design, by default its own; else these are repeated, the tested groups keeping their shares.
    n_cells
        Cells per donor; with a design, on average, the donors keeping their shares. By default as in the design.
    icc
        Intraclass correlation. By default 0.05; with `gene`, what was estimated for that gene; with a pilot of many genes,
        each simulated gene's own, drawn from what the pilot's genes have taught (``"learned"`` in the table).
    gene
        Gene of the pilot, with its own ICC and standard deviation of a cell, and the prior of genes of its mean expression.
    paired
        Without a design: every donor has half its cells in each group, and the difference is the same in all donors. If it
        is not, this is too optimistic.
    reference
        Level that the others are compared with, as in :func:`sc_lmm.tl.lmm_de`, for annotated data.
    {weights}
        For annotated data; a fit has its own. A cell is then one of average weight.
    alpha
        Level of one test. For a Bonferroni threshold over 10,000 genes, 0.05 / 10,000.
    method
        The test, as in :func:`sc_lmm.tl.lmm_de`.
    moderate
        For ``"lrt"``, as in :func:`sc_lmm.tl.lmm_de`: by default a fit of 200 genes or more is a pilot to learn from;
        ``True`` insists (20 genes); ``False`` is the power of the calibrated ratio, which learns nothing from other genes.
    n_simulations
        Simulated genes for each combination, 2,000 by default. None are for ``"lrt"`` at a known ICC, nor, unless asked for,
        for two balanced groups and ``"between-within"`` (a noncentral t with :math:`m - 2` degrees of freedom).
    seed
        Of the simulation. All combinations of effect and ICC share the random numbers, so that curves are smooth.

    Returns
    -------
    Table with a row per combination of ``n_donors``, ``n_cells``, ``icc`` and ``effect``, and the columns ``power``, ``error``
    (Monte-Carlo), ``alpha`` and ``method`` (``"lrt calibrated"`` for ``moderate=False``). See :func:`sc_lmm.pl.power`.

    Raises
    ------
    DesignError
        If the design cannot answer the test, or the cohort is too small for it.
    ValueError
        If an argument is missing, out of range or without a meaning here.

    Notes
    -----
    Expression is taken to be normal given the donor. *A known ICC is optimistic with few donors and a small alpha*, unless all
    genes have the same. Shares found of genes with log-normal ICC (mean 0.05, two of three within a factor of 2.7 of the
    median) in two groups with 500 cells per donor, of an effect that is found in 80 % if each gene's ICC is known:

    =====  ==================  ========  ====  ====  ====
    alpha  method              6 donors     8    12    24
    =====  ==================  ========  ====  ====  ====
    0.05   ``lrt``                 0.78  0.79  0.79  0.80
    0.05   ``between-within``      0.65  0.71  0.75  0.78
    0.001  ``lrt``                 0.59  0.66  0.71  0.76
    0.001  ``between-within``      0.24  0.44  0.61  0.73
    =====  ==================  ========  ====  ====  ====

    Nor is the power at the mean ICC that of the genes: 0.33 where 12 such donors find 0.47 of them at 0.05. So fit a pilot
    before a decision (same tissue and chemistry, be it small): with 6 to 12 donors they foretold such studies of 6 to 100
    within 0.02. An `icc` that is rare among the pilot's genes is taken for less than it is: see what ``effect=0`` gives.

    The noncentral t is within 0.01 of simulated ``"between-within"`` tests, but up to 0.03 above where the donor variance is
    often estimated as zero (few donors, an ICC below one over the cells per donor).

    References
    ----------
    Snijders, Bosker (1993). Standard errors and sample sizes for two-level research. J. Educ. Stat. 18(3), 237-259.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> sl.tl.power(effect=0.3, n_donors=[12, 24], n_cells=500)["power"].round(2).tolist()
    [0.63, 0.9]
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=250)
    >>> formula = "~ sequencing_saturation + diagnosis + (1 | sample_id)"
    >>> sl.tl.power(adata, formula, "diagnosis", effect=[0.2, 0.4], icc=0.1)["power"].round(2).tolist()
    [0.13, 0.39]
    >>> sl.tl.power(sl.tl.lmm_fit(adata, formula), test="diagnosis", effect=0.4, n_donors=16)["icc"].tolist()
    ['learned']
    """
    check_choices(alpha, method, n_simulations, seed, moderate=moderate)
    effects, pilot = numbers_of("effect", effect), None
    if adata is None:
        check_balanced(formula, test, reference, weights, gene, n_donors, n_cells)
        grid = cohort_grid(n_donors, n_cells, iccs_of(icc, DEFAULT_ICC), effects)
    else:
        check_design_arguments(paired=paired, gene=gene, icc=icc)
        pilot = _pilot(adata, formula, test, reference, weights, gene, Choices(method, moderate=moderate))
        sizes = pilot.stats.sizes
        cells = float(sizes.mean()) if n_cells is None else n_cells
        grid = cohort_grid(sizes.size if n_donors is None else n_donors, cells, iccs_of(icc, pilot.icc), effects)
    moderation = None if pilot is None else pilot.moderation
    known = method == "lrt" and moderate is not False and moderation is None
    check_simulated(n_simulations, moderate=moderate, known=known)
    how = Simulation(method, alpha, n_simulations or _N_SIMULATIONS, seed, moderation)
    exact = known or (method == "between-within" and pilot is None and n_simulations is None)
    choices: dict[str, Any] = {"exact": exact, "paired": paired, "rescale": n_cells is not None}
    parts = [_of_cohort(part, pilot, how, **choices) for _, part in grid.groupby(["n_donors", "n_cells"], sort=False)]
    found, error = (np.concatenate([column.ravel() for column in columns]) for columns in zip(*parts, strict=True))
    name = "lrt calibrated" if method == "lrt" and moderate is False else method
    return grid.assign(power=found, error=error, alpha=alpha, method=name)


def _of_cohort(
    block: pd.DataFrame, pilot: Pilot | None, how: Simulation, *, exact: bool, paired: bool, rescale: bool
) -> Power:
    """Power for the rows of the grid that share a cohort, (n_iccs, n_effects) each."""
    n_donors, n_cells = int(block["n_donors"].iloc[0]), block["n_cells"].iloc[0]
    iccs, effects = block["icc"].unique(), block["effect"].unique()
    if pilot is None and exact:
        known = how.method == "lrt"
        found = balanced_power(effects, n_donors, n_cells, iccs[:, None], how.alpha, paired=paired, known=known)
        return Power(found, np.zeros_like(found))
    if pilot is None:
        stats, hypothesis = balanced_statistics(n_donors, int(n_cells), paired=paired)
        return simulated_power([stats], hypothesis, effects, list(iccs), how)
    designs = cohorts(pilot.stats, pilot.hypothesis, n_donors, n_cells if rescale else None, how.seed)
    if not designs:
        msg = (
            f"n_donors={n_donors} is too few for this formula: its {pilot.stats.basis.shape[0]} coefficients cannot be "
            f"estimated and judged with so many donors of the design. Ask for more donors or drop terms."
        )
        raise DesignError(msg)
    if exact:
        return known_power(designs, pilot.hypothesis, effects / pilot.sd, iccs, how.alpha)
    return simulated_power(designs, pilot.hypothesis, effects / pilot.sd, list(iccs), how)


def _pilot(
    adata: AnnData | LmmFit,
    formula: str | None,
    test: TestSpec | None,
    reference: str | dict[str, str] | None,
    weights: str | None,
    gene: str | None,
    choices: Choices,
) -> Pilot:
    if test is None or (isinstance(adata, LmmFit) != (formula is None)):
        msg = (
            "The power of a design needs power(adata, formula, test, effect=...), or power(fit, test=..., effect=...) "
            "with a fitted object, whose formula is known."
        )
        raise ValueError(msg)
    if isinstance(adata, LmmFit):
        if weights is not None:
            msg = f"weights={weights!r} belong to the fit, which has been made. Give them to sc_lmm.tl.lmm_fit."
            raise ValueError(msg)
        adata.warn(test)
        return pilot_of_fit(adata, only_hypothesis(adata.coding, test), gene, choices)
    levels = reference_levels(reference, str(formula), adata.obs, test)
    design = build_design(str(formula), adata.obs, reference=levels, weights=weights)
    hypothesis = only_hypothesis(design.coding, test)
    report = audit(design, test, adata.obs)
    report.raise_if_refused()
    report.warn()
    if gene is None:
        nothing = sp.csc_matrix((adata.n_obs, 1))
        return Pilot(sufficient_statistics(nothing, design, show_progress=False), hypothesis)
    wanted = np.asarray(adata.var_names == gene)
    if not wanted.any():
        msg = f"gene={gene!r} is not in adata.var_names. {alternatives(gene, adata.var_names)}"
        raise KeyError(msg)
    how: dict[str, Any] = {"reference": levels, "weights": weights, "mask_var": wanted, "show_progress": False}
    fit = fit_formula(adata, str(formula), **how)
    return pilot_of_fit(fit, hypothesis, gene, replace(choices, moderate=False))
