"""`permutation_check`: what each method rejects when the values of a term are dealt out at random."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._by_group import ByGroup
from .._design import build_design, check_one_intercept, find_term
from .._docs import doc_params
from .._errors import DesignError, alternatives
from .._expression import read_expression
from .._groups import Model, fit_groups, grouping_of, groups_of, warn_of_missing
from .._inference import ENOUGH_GENES, METHODS, Choices, check_seed, draw_orders, is_moderated, plan_exchange
from .._progress import progress_bar
from .._read import fit_cells
from .._report import audit_terms

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anndata import AnnData

    from .._expression import Expression
    from .._groups import Group, Grouping
    from .._inference import Exchange, LmmFit

_CHOICES: dict[str, dict[str, Any]] = {
    "lrt": {},
    "lrt calibrated": {"moderate": False},
    "lrt uncalibrated": {"calibrate": False},
    **{name: {} for name in METHODS[1:]},
    **{f"{name} moderated": {"moderate": True} for name in METHODS[1:]},
}
_METHODS = (
    "lrt",
    "lrt calibrated",
    "lrt uncalibrated",
    "between-within",
    "satterthwaite",
    "kenward-roger",
    "between-within moderated",
)


@dataclass(frozen=True)
class PermutationCheck:
    """Share of genes rejected by each method, in the data and under permutations of the tested term."""

    observed: pd.Series  # (n_methods x n_alphas,), index (method, alpha)
    permuted: pd.DataFrame  # (n_permutations, n_methods x n_alphas), columns (method, alpha)
    exchanged: str  # which values went where, in words
    complete: bool  # whether there is no other permutation
    notes: tuple[str, ...] = ()

    @property
    def distinct(self) -> int:
        """Different assignments among the permutations, beside the data's own: no two are the same."""
        return len(self.permuted)

    def summary(self) -> pd.DataFrame:
        """Per method and level: observed share, and mean, median and 95th percentile under permutation.

        The last column is the share of assignments, the data's own among them, with at least the observed rejections.
        """
        rows = {}
        for column in self.permuted.columns:
            shares, observed = self.permuted[column], float(self.observed[column])
            rows[column] = {
                "observed": observed,
                "mean": shares.mean(),
                "median": shares.median(),
                "95 %": shares.quantile(0.95),
                "permutations >= observed": float((1 + (shares >= observed).sum()) / (1 + len(shares))),
            }
        table = pd.DataFrame(rows).T
        return table.rename_axis(index=["method", "alpha"])

    def __repr__(self) -> str:
        """Show the summary."""
        return "\n".join([*self._head(), self.summary().to_string(float_format="{:.4f}".format)])

    def _repr_html_(self) -> str:
        return "<br>".join(map(escape, self._head())) + self.summary().to_html(float_format="{:.4f}".format)

    def _head(self) -> list[str]:
        there_are = "all that there are" if self.complete else "each different"
        count = f"{self.distinct} permutation{'s' * (self.distinct != 1)}, {there_are} beside the data's own"
        return [f"{self.exchanged}: {count}; share of genes rejected", *self.notes]


@doc_params
def permutation_check(
    adata: AnnData,
    formula: str,
    test: str,
    *,
    n_permutations: int = 200,
    methods: Sequence[str] = _METHODS,
    alphas: Sequence[float] = (0.05, 0.001),
    weights: str | None = None,
    layer: str | None = None,
    groupby: str | None = None,
    groups: Sequence[str] | None = None,
    min_cells: int = 1,
    min_donors: int = 2,
    min_pct: float = 0.0,
    seed: int = 0,
    n_jobs: int | None = None,
    show_progress: bool | None = None,
) -> PermutationCheck | ByGroup[PermutationCheck]:
    r"""Count rejections when the values of the tested term are dealt out at random.

    A permutation breaks the relation of the term with expression and keeps everything else: the donors, the correlation
    of genes, the distribution of the data. Only :math:`p` numbers per gene change, so that the cells are read once. A
    method that holds its level rejects a share alpha on average. Genes are correlated, so that a single permutation may
    reject many; look at the mean.

    What changes hands are the values of whole sets of cells, never of single cells, whose expression is alike within
    a sample:

    - A term that is constant within donors (the levels of the random term, ``diagnosis`` for ``(1 | donor)``) is dealt
      out to all donors.
    - A term that varies within donors (``condition`` for ``(1 | donor)``, each donor with cells in several conditions) is
      exchanged between the conditions of each donor. The cells of one donor and condition stay together, whatever the
      formula says of them: if they share more than their donor, a formula without a term for that is found out here.
    - A term of matched samples (``condition`` in ``~ donor + condition + (1 | sample_id)``, one sample or equally many of
      every donor in each condition) is exchanged between the samples of each donor. This is so for any factor of the
      formula that holds every value of the term equally often; other factors and numbers stay with the donors, and the
      term is dealt out irrespective of them.

    Donors that the formula does not mention are not known: under ``~ condition + (1 | sample_id)`` alone every sample
    counts as a donor of its own.

    Parameters
    ----------
    {adata}
    {formula}
    test
        Fixed-effect term that is constant within donors, e.g. ``"diagnosis"``, or takes a few values in each. It must
        not be part of an interaction.
    n_permutations
        Random assignments, each different from the others and from the data's own. If there are fewer, they are all
        taken, so that nothing is left to chance. Assignments that differ in the names of the levels alone (cases and
        controls swapped) are one.
    methods
        Methods of :func:`sc_lmm.tl.lmm_de`. ``"lrt"`` is its default test, with what all genes say of their variances
        learned anew in each permutation; ``"lrt calibrated"`` is the ratio with ``moderate=False``, ``"lrt
        uncalibrated"`` with ``calibrate=False``; the others may be followed by ``" moderated"``.
    alphas
        Levels at which rejections are counted.
    {weights}
    {layer}
    {groupby}
    seed
        Of the permutations.
    {n_jobs}
    {show_progress}

    Returns
    -------
    Object with ``observed`` (share of genes rejected in the data), ``permuted`` (a row per permutation), ``distinct``
    (their number), ``complete`` (whether these are all) and ``summary()``. `adata` is not changed. With `groupby`, a
    dictionary of these by group, and ``groups``, a row per group with what is rejected on average, and the reason if it has
    no permutations.

    Raises
    ------
    DesignError
        If the term varies from cell to cell or is part of an interaction, if there is no other assignment, or if the
        design does not define a model.
    ValueError
        If a method is unknown.

    Notes
    -----
    The data's own assignment is left out of ``permuted``: with few donors it would be a large part of all (1 of 10 for
    3 cases and 3 controls), and what it rejects because something has changed would count as errors. It is as good as
    any other if nothing has, so that the mean of the others is not biased. True effects do not vanish in permuted data:
    they become variation between donors, and single assignments that are near the data's own reject more.

    With fewer genes than a prior can be learned from, ``"lrt"`` is what :func:`sc_lmm.tl.lmm_de` would do, the
    calibrated ratio, and the result says so.

    References
    ----------
    Anderson, ter Braak (2003). Permutation tests for multi-factorial analysis of variance. J. Stat. Comput. Simul. 73(2).

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> formula = "~ sequencing_saturation + diagnosis + (1 | sample_id)"
    >>> check = sl.tl.permutation_check(adata, formula, "diagnosis", n_permutations=5, methods=["lrt"])
    >>> check.permuted.shape
    (5, 2)
    >>> check.exchanged
    'diagnosis dealt out anew among all sample_id'
    """
    check_seed(seed)
    how = _Permuting(_choices_of(methods), tuple(alphas), n_permutations, seed)
    workers: dict[str, Any] = {"n_jobs": n_jobs, "show_progress": show_progress}
    grouping = grouping_of(groupby, groups, min_cells=min_cells, min_donors=min_donors, min_pct=min_pct)
    source = read_expression(adata, layer=layer, use_raw=False, mask_var=None)
    if grouping is not None:
        model = Model(formula, lambda _: {}, weights)
        return _of_groups(source, groups_of(adata.obs, grouping, model, None), grouping, test, how, workers)
    design = build_design(formula, adata.obs, weights=weights)
    check_one_intercept(design.formula, "The permutation check")
    report, cautions = audit_terms(design, adata.obs)
    report.raise_if_refused()
    exchange = plan_exchange(design, find_term(design.coding, test))
    by_unit = fit_cells(source, exchange.design, **workers)
    return _check(replace(by_unit, coding=design.coding, cautions=cautions), exchange, how, show_progress=show_progress)


@dataclass(frozen=True)
class _Permuting:
    """What is counted in which permutations."""

    choices: Mapping[str, dict[str, Any]]  # method -> what it asks of ``LmmFit.pvals``
    alphas: tuple[float, ...]
    n_permutations: int
    seed: int


def _check(by_unit: LmmFit, exchange: Exchange, how: _Permuting, *, show_progress: bool | None) -> PermutationCheck:
    """Count rejections; `by_unit` has the units that are exchanged as its levels."""
    by_unit = replace(by_unit, show_progress=False)
    orders = draw_orders(exchange, by_unit.stats, how.n_permutations, np.random.default_rng(how.seed))
    _check_any(orders, exchange)
    by_unit.warn(exchange.term)
    bar = progress_bar(orders, doing="permuting", show_progress=show_progress)
    shares = [_shares(_dealt(by_unit, exchange, order), exchange.term, how) for order in bar]
    fit = _dealt(by_unit, exchange, np.arange(exchange.parents.size))
    return PermutationCheck(
        observed=_shares(fit, exchange.term, how),
        permuted=pd.DataFrame(shares).reset_index(drop=True),
        exchanged=f"{exchange.term} dealt out anew {exchange.among}",
        complete=len(orders) < how.n_permutations,
        notes=_notes(fit, how.choices),
    )


def _of_groups(
    source: Expression,
    groups: Sequence[Group],
    grouping: Grouping,
    test: str,
    how: _Permuting,
    workers: dict[str, Any],
) -> ByGroup[PermutationCheck]:
    """Check each group, all cells being read once."""
    exchanges, asked = {}, []
    for group in groups:
        if group.design is None:
            asked.append(group)
            continue
        try:
            exchange = plan_exchange(group.design, find_term(group.design.coding, test))
            exchanges[group.name] = (exchange, group.design.coding)
            asked.append(replace(group, design=exchange.design))
        except DesignError as error:
            asked.append(replace(group, design=None, reason=str(error)))
    fits = fit_groups(source, asked, grouping, **workers)
    found, reasons = {}, dict(fits.groups["reason"])
    for name, fit in fits.items():
        exchange, coding = exchanges[name]
        try:
            found[name] = _check(replace(fit, coding=coding, cautions=None), exchange, how, show_progress=False)
        except DesignError as error:
            reasons[name] = str(error)
    warn_of_missing({str(name): why for name, why in reasons.items() if why}, len(groups), grouping.column)
    means = {
        f"{method}, {alpha:g}": [
            found[g].permuted[method, alpha].mean() if g in found else np.nan for g in fits.groups.index
        ]
        for method in how.choices
        for alpha in how.alphas
    }
    table = fits.groups.assign(**means, reason=list(reasons.values()))
    table = table[[*(column for column in table.columns if column != "reason"), "reason"]]
    return ByGroup(grouping.column, found, table)


def _choices_of(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Method -> what it asks of ``LmmFit.pvals``."""
    unknown = [name for name in methods if name not in _CHOICES]
    if unknown:
        msg = f"methods has {unknown[0]!r}, which is unknown. {alternatives(unknown[0], _CHOICES)}"
        raise ValueError(msg)
    return {name: {"method": name.split(" ")[0], **_CHOICES[name]} for name in methods}


def _check_any(orders: Sequence[np.ndarray], exchange: Exchange) -> None:
    if not orders:
        msg = (
            f"There is no other way to deal out {exchange.term!r} {exchange.among} than that of the data (names of levels "
            f"do not count) from which it could be estimated. Permutations need more donors."
        )
        raise DesignError(msg)


def _dealt(by_unit: LmmFit, exchange: Exchange, order: np.ndarray) -> LmmFit:
    return replace(by_unit, stats=exchange.deal(by_unit.stats, order))


def _shares(fit: LmmFit, term: str, how: _Permuting) -> pd.Series:
    shares: dict[tuple[str, float], float] = {}
    for name, choices in how.choices.items():
        pvals = fit.pvals(term, **choices)
        shares |= {(name, alpha): float((pvals[~np.isnan(pvals)] < alpha).mean()) for alpha in how.alphas}
    return pd.Series(shares)


def _notes(fit: LmmFit, methods: Collection[str]) -> tuple[str, ...]:
    if "lrt" not in methods or is_moderated(fit.estimates, Choices()):
        return ()
    few = f"fewer than {ENOUGH_GENES} genes, too few to learn their variances from"
    return (f"'lrt' is the calibrated ratio here, as in lmm_de: {few}.",)
