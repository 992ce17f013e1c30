"""`power`: how likely a test is to find an effect, before the donors are recruited."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .._design import Hypothesis, TestSpec, build_design, hypotheses_of, is_random_term
from .._docs import doc_params
from .._errors import DesignError, alternatives, listing
from .._inference import METHODS, LmmFit, Simulation, balanced_power, balanced_statistics, cohorts, simulated_power
from .._read import fit_formula
from .._report import audit
from .._statistics import SufficientStatistics, sufficient_statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from .._design import Coding

    Array = NDArray[np.float64]

_ICC = 0.05  # a usual value for single cells, where one has to be chosen
_N_SIMULATIONS = 2_000


@dataclass(frozen=True)
class _Pilot:
    """A design to draw cohorts from, and the scale of a gene in it."""

    stats: SufficientStatistics
    hypothesis: Hypothesis
    sd: float = 1.0  # of a cell, in units of the effect
    icc: float | None = None


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
    reference: dict[str, str] | None = None,
    alpha: float = 0.05,
    method: Literal["between-within", "lrt", "satterthwaite", "kenward-roger", "wald"] = "between-within",
    n_simulations: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Power of a test: the share of genes with this effect that it finds, for every combination of the arguments.

    Without `adata`, for two groups of donors of equal size (as nearly as can be) with the same number of cells each,
    by the noncentral t distribution with :math:`m - 2` degrees of freedom, whose noncentrality is

    .. math:: \delta \Big/ \sqrt{\left(\rho + \frac{1 - \rho}{n}\right)
              \left(\frac{1}{m_1} + \frac{1}{m_2}\right)}

    Where :math:`\delta` is the effect in standard deviations of a cell, :math:`\rho` the intraclass correlation (ICC,
    the share of the variance that is between donors), :math:`n` the cells per donor and :math:`m = m_1 + m_2` the
    donors. With `adata` or a fit, for that design, whatever its covariates and its balance: the sufficient statistics
    of genes with the effect are simulated (no cells are) and tested by the package's own code.

    Parameters
    ----------
    adata
        A design or pilot: annotated data, of which only ``adata.obs`` is used unless `gene` is given, or a fitted
        object from :func:`sc_lmm.tl.lmm_fit`. ``None`` for two balanced groups.
    {formula}
        Only with annotated data.
    test
        Term or contrast with one degree of freedom, as in :func:`sc_lmm.tl.lmm_de`. Only with a design.
    effect
        Difference between the groups (the coefficient) in standard deviations of a cell, which are
        :math:`\sqrt{\sigma_u^2 + \sigma^2}`; with `gene`, in units of the matrix.
    n_donors
        Number of donors in all. With a design: by default its own; otherwise its donors are repeated, the groups of
        the tested term keeping their shares.
    n_cells
        Cells per donor; with a design, on average, the donors keeping their shares. By default as in the design.
    icc
        Intraclass correlation, 0.05 by default; with `gene`, what was estimated for that gene.
    gene
        Gene of the pilot, of which the ICC and the standard deviation of a cell are estimated (REML).
    paired
        Without a design: every donor has half its cells in each group (a comparison within donors). The difference is
        taken to be the same in all donors; if it is not, this is too optimistic.
    reference
        Factor -> level that the others are compared with, for annotated data.
    alpha
        Level of one test. For a Bonferroni threshold over 10,000 genes, 0.05 / 10,000.
    method
        The test, as in :func:`sc_lmm.tl.lmm_de`; ``"lrt"`` is the calibrated likelihood ratio.
    n_simulations
        Simulated genes for each combination. By default 2,000, or none where the noncentral t serves: two balanced
        groups and ``method="between-within"``.
    seed
        Of the simulation. All combinations of effect and ICC share the random numbers, so that curves are smooth.

    Returns
    -------
    Table with a row per combination of ``n_donors``, ``n_cells``, ``icc`` and ``effect``, and the columns ``power``,
    ``error`` (Monte-Carlo standard error, 0 for the noncentral t), ``alpha`` and ``method``. Plot it with
    :func:`sc_lmm.pl.power`.

    Raises
    ------
    DesignError
        If the design cannot answer the test, or the cohort is too small for it.
    ValueError
        If an argument is missing, out of range or has no meaning here.

    Notes
    -----
    Expression is taken to be normal given the donor. The noncentral t agrees with the ``"between-within"`` test of
    simulated genes within 0.01, except where the donor variance is often estimated as zero (few donors and an ICC below
    one over the cells per donor): there the test is conservative, and its power up to 0.03 lower. With 6 donors and a
    small ICC the calibrated ratio rejects up to 0.06 of null genes at 0.05, and its power is higher by a little of that.

    References
    ----------
    Snijders, Bosker (1993). Standard errors and sample sizes for two-level research. J. Educ. Stat. 18(3), 237-259.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> sl.tl.power(effect=0.3, n_donors=[12, 24], n_cells=500)["power"].round(2).tolist()
    [0.54, 0.87]
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> formula = "~ sequencing_saturation + diagnosis + (1 | sample_id)"
    >>> table = sl.tl.power(adata, formula, "diagnosis", effect=[0.2, 0.4], n_donors=[8, 16], n_simulations=200)
    >>> table.columns.tolist()
    ['n_donors', 'n_cells', 'icc', 'effect', 'power', 'error', 'alpha', 'method']
    """
    _check_choices(alpha, method, n_simulations, seed)
    effects = _numbers("effect", effect)
    if adata is None:
        _check_balanced(formula, test, reference, gene, n_donors, n_cells)
        grid = _grid(n_donors, n_cells, _numbers("icc", _ICC if icc is None else icc), effects)
        if method == "between-within" and n_simulations is None:
            columns = (grid["effect"], grid["n_donors"], grid["n_cells"], grid["icc"])
            return grid.assign(
                power=balanced_power(*columns, alpha, paired=paired), error=0.0, alpha=alpha, method=method
            )
        pilot = None
    else:
        _check_design_arguments(paired=paired, gene=gene, icc=icc)
        pilot = _pilot(adata, formula, test, reference, gene)
        sizes = pilot.stats.sizes
        grid = _grid(
            sizes.size if n_donors is None else n_donors,
            float(sizes.mean()) if n_cells is None else n_cells,
            _numbers("icc", icc if icc is not None else pilot.icc if pilot.icc is not None else _ICC),
            effects,
        )
    how = Simulation(method, alpha, n_simulations or _N_SIMULATIONS, seed)
    blocks = grid.groupby(["n_donors", "n_cells"], sort=False)
    simulated = [_simulate(block, pilot, how, paired=paired, rescale=n_cells is not None) for _, block in blocks]
    share = np.concatenate(simulated)
    error = np.sqrt(share * (1 - share) / how.n_simulations)
    return grid.assign(power=share, error=error, alpha=alpha, method=method)


def _simulate(block: pd.DataFrame, pilot: _Pilot | None, how: Simulation, *, paired: bool, rescale: bool) -> Array:
    """Power for the rows of the grid that share a design, (n_rows,)."""
    n_donors, n_cells = int(block["n_donors"].iloc[0]), block["n_cells"].iloc[0]
    iccs, effects = block["icc"].unique(), block["effect"].unique()
    if pilot is None:
        stats, hypothesis = balanced_statistics(n_donors, int(n_cells), paired=paired)
        return simulated_power([stats], hypothesis, effects, iccs, how).ravel()
    designs = cohorts(pilot.stats, pilot.hypothesis, n_donors, n_cells if rescale else None, how.seed)
    if not designs:
        msg = (
            f"n_donors={n_donors} is too few for this formula: its {pilot.stats.basis.shape[0]} coefficients cannot be "
            f"estimated and judged with so many donors of the design. Ask for more donors or drop terms."
        )
        raise DesignError(msg)
    return simulated_power(designs, pilot.hypothesis, effects / pilot.sd, iccs, how).ravel()


def _pilot(
    adata: AnnData | LmmFit,
    formula: str | None,
    test: TestSpec | None,
    reference: dict[str, str] | None,
    gene: str | None,
) -> _Pilot:
    if test is None or (isinstance(adata, LmmFit) != (formula is None)):
        msg = (
            "The power of a design needs power(adata, formula, test, effect=...), or power(fit, test=..., effect=...) "
            "with a fitted object, whose formula is known."
        )
        raise ValueError(msg)
    if isinstance(adata, LmmFit):
        adata.warn(test)
        return _of_fit(adata, _only_hypothesis(adata.coding, test), gene)
    design = build_design(str(formula), adata.obs, reference=reference)
    hypothesis = _only_hypothesis(design.coding, test)
    report = audit(design, test, adata.obs)
    report.raise_if_refused()
    report.warn()
    if gene is None:
        nothing = sp.csc_matrix((adata.n_obs, 1))
        return _Pilot(sufficient_statistics(nothing, design, show_progress=False), hypothesis)
    wanted = np.asarray(adata.var_names == gene)
    if not wanted.any():
        msg = f"gene={gene!r} is not in adata.var_names. {alternatives(gene, adata.var_names)}"
        raise KeyError(msg)
    fit = fit_formula(adata, str(formula), reference=reference, mask_var=wanted, show_progress=False)
    return _of_fit(fit, hypothesis, gene)


def _of_fit(fit: LmmFit, hypothesis: Hypothesis, gene: str | None) -> _Pilot:
    one = fit.stats.genes(slice(0, 1))
    if gene is None:
        return _Pilot(one, hypothesis)
    position = np.flatnonzero(fit.var_names == gene)
    if position.size == 0:
        msg = f"gene={gene!r} is not among the fitted genes. {alternatives(gene, fit.var_names)}"
        raise KeyError(msg)
    k, estimates = int(position[0]), fit.reml
    if not estimates.usable[k]:
        msg = f"gene={gene!r} could not be fitted, so that it has no ICC. Choose a gene that varies within donors."
        raise ValueError(msg)
    sd = float(np.hypot(estimates.sd_random[k], np.sqrt(estimates.sigma2[k])))
    return _Pilot(one, hypothesis, sd, float(estimates.icc[k]))


def _only_hypothesis(coding: Coding, test: TestSpec) -> Hypothesis:
    """Find the hypothesis of a test with one degree of freedom."""
    if is_random_term(test, coding):
        msg = f"test={test!r} is the random term. Power is of fixed effects; name one of them."
        raise ValueError(msg)
    hypotheses = hypotheses_of(coding, test)
    if len(hypotheses) == 1 and hypotheses[0].df == 1:
        return hypotheses[0]
    msg = (
        f"test={test!r} has several comparisons ({listing(h.name for h in hypotheses)}) and power is of one effect. "
        f"Name one, for example test={_example(coding, test)}."
    )
    raise ValueError(msg)


def _example(coding: Coding, test: TestSpec) -> str:
    if not isinstance(test, str):
        return repr(next(iter(test.values() if hasattr(test, "values") else test), ""))
    factor = coding.factor_of(test)
    if factor is None:
        return '"cond(...) - cond(...)"'
    reference, other = coding.levels[factor][:2]
    return f"\"cond({factor}='{other}') - cond({factor}='{reference}')\""


def _grid(
    n_donors: int | Sequence[int] | None, n_cells: float | Sequence[int] | None, iccs: Array, effects: Array
) -> pd.DataFrame:
    """All combinations, a row each, effects varying fastest."""
    donors, cells = _numbers("n_donors", n_donors), _numbers("n_cells", n_cells)
    _check_range("n_donors", donors, (donors >= 3) & (donors == np.round(donors)), "a whole number, 3 or more")
    _check_range("n_cells", cells, cells >= 2, "2 or more")
    _check_range("icc", iccs, (iccs >= 0) & (iccs < 1), "at least 0 and less than 1")
    whole = bool((cells == np.round(cells)).all())
    rows = list(product(donors.astype(int), cells.astype(int) if whole else cells, iccs, effects))
    return pd.DataFrame(rows, columns=["n_donors", "n_cells", "icc", "effect"])


def _numbers(name: str, value: object) -> Array:
    numbers = np.unique(np.atleast_1d(np.asarray(value, dtype=np.float64)))
    _check_range(name, numbers, np.isfinite(numbers), "a finite number")
    if numbers.size == 0:
        msg = f"{name} is empty. Give a number or several."
        raise ValueError(msg)
    return numbers


def _check_range(name: str, values: Array, allowed: NDArray[np.bool_], words: str) -> None:
    if not allowed.all():
        msg = f"{name}={values[~allowed][0]:g} is out of range: it must be {words}."
        raise ValueError(msg)


def _check_choices(alpha: float, method: str, n_simulations: int | None, seed: int) -> None:
    if not 0 < alpha < 1:
        msg = f"alpha={alpha!r} is out of range: it must be between 0 and 1."
        raise ValueError(msg)
    if method not in METHODS:
        msg = f"method={method!r} is unknown. {alternatives(str(method), METHODS)}"
        raise ValueError(msg)
    if n_simulations is not None and n_simulations < 100:
        msg = f"n_simulations={n_simulations!r} is too few to tell a power by: give 100 or more."
        raise ValueError(msg)
    if seed < 0:
        msg = f"seed={seed!r} is out of range: it must be 0 or more."
        raise ValueError(msg)


def _check_balanced(
    formula: object, test: object, reference: object, gene: object, n_donors: object, n_cells: object
) -> None:
    of_design = {"formula": formula, "test": test, "reference": reference, "gene": gene}
    given = [name for name, value in of_design.items() if value is not None]
    if given:
        msg = f"{given[0]} describes a design, and none was given. Add adata or a fit, or leave it out."
        raise ValueError(msg)
    missing = [name for name, value in {"n_donors": n_donors, "n_cells": n_cells}.items() if value is None]
    if missing:
        msg = (
            f"Without a design, power needs {' and '.join(missing)}: for example power(effect=0.3, n_donors=24, "
            f"n_cells=500). Or give a design: power(adata, formula, test, effect=0.3)."
        )
        raise ValueError(msg)


def _check_design_arguments(*, paired: bool, gene: str | None, icc: object) -> None:
    if paired:
        msg = "paired=True is for two balanced groups. With a design the formula and the annotations say it; leave it out."
        raise ValueError(msg)
    if gene is not None and icc is not None:
        msg = f"icc={icc!r} and gene={gene!r} say the same thing twice. Leave one of them out."
        raise ValueError(msg)
