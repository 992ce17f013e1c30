"""`check_design`: the design report on its own, before any fit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .._by_group import ByGroup
from .._design import build_design
from .._docs import doc_params
from .._errors import DesignError
from .._groups import Model, grouping_of, groups_of, table_of_groups
from .._report import audit, refused_report
from ._reference import reference_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from .._design import TestSpec
    from .._groups import Group
    from .._report import DesignReport


@doc_params
def check_design(
    adata: AnnData,
    formula: str,
    test: TestSpec | None = None,
    *,
    reference: str | dict[str, str] | None = None,
    weights: str | None = None,
    groupby: str | None = None,
    groups: Sequence[str] | None = None,
    min_cells: int = 1,
    min_donors: int = 2,
) -> DesignReport | ByGroup[DesignReport]:
    r"""Report what a design can answer, and what it cannot and why, before anything is fitted.

    Is diagnosis confounded with the sample? A covariate that is constant within samples is not, under a random
    intercept: it is judged against the spread between samples. A batch that is constant within each diagnosis is. The
    report tells such cases apart in words, and computes what the test can find: the information on a coefficient is

    .. math:: \mathrm{var}(\hat\beta) = (X^T V^{-1} X)^{-1}, \quad V = (1 - \rho) I + \rho Z Z^T

    Where :math:`X` are the fixed effects, :math:`Z` the donor of each cell and :math:`\rho` the intraclass correlation
    (ICC), in units of the standard deviation of a cell.

    Parameters
    ----------
    {adata}
    {formula}
        In addition, ``within(x)`` is the cell's deviation from its donor's mean of x and ``between(x)`` that mean.
    test
        What is to be tested, as in :func:`sc_lmm.tl.lmm_de`, e.g. ``"diagnosis"``. Without it the report has no power
        and no verdict on the test.
    reference
        Level that the others are compared with, of the tested factor or else of the only one that has it, or a dict
        from factors to levels. By default the first category.
    {weights}
    groupby
        Column of ``adata.obs``, such as the cell type: report on the design of each of its groups of cells.
    groups
        Groups to report on. By default all that have cells.
    min_cells
        Cells that a donor needs in a group; those of a donor with fewer are left out of it.
    min_donors
        Donors that a group needs.

    Returns
    -------
    Report that ``print`` shows as text and Jupyter as a page, with:

    ``grade``, ``refused``
        The gravest grade, ``"ok"``, ``"caution"`` or ``"refused"``, and whether :func:`sc_lmm.tl.lmm_de` would raise.
    ``verdicts``
        What is right or wrong: ``grade``, a stable ``code``, the ``message``, the ``advice`` on what to do, and, if it
        changes the meaning of a p-value, the ``warning`` that :func:`sc_lmm.tl.lmm_de` gives (all: ``warnings``).
    ``terms``, ``random``, ``tests`` (``test`` is the first)
        The facts: where each term varies, its donors and cells per level, its degrees of freedom and exact relations;
        the sizes of the donors; the design effect and the smallest effect detectable with 80 % power.
    ``to_dict()``
        All of it for programs.

    With `groupby`, a dictionary of these by group with the table ``groups``: a row per group with its cells, donors and
    grade, and the reason if it would have no model.

    Notes
    -----
    A design that is refused is reported with the words of the ``DesignError`` that :func:`sc_lmm.tl.lmm_de` raises.

    Degrees of freedom count donors less the coefficients that differ between donors only, or, for a term with most of
    its information within donors, cells less donors less the coefficients that differ within donors [1]_.

    References
    ----------
    .. [1] Schluchter, Elashoff (1990). Small-sample adjustments to tests with unbalanced repeated measures assuming
       several covariance structures. J. Stat. Comput. Simul. 37.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.confounding_example()
    >>> report = sl.tl.check_design(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> report.grade, report.test.df
    ('ok', 22)
    >>> sl.tl.check_design(adata, "~ sample_id + diagnosis + (1 | sample_id)", test="diagnosis").verdicts[0].code
    'grouping_fixed'
    """
    grouping = grouping_of(groupby, groups, min_cells=min_cells, min_donors=min_donors, min_pct=0.0)
    if grouping is not None:
        model = Model(formula, partial(reference_levels, reference, formula, test=test), weights)
        return _of_groups(groups_of(adata.obs, grouping, model, test), grouping.column)
    try:
        levels = reference_levels(reference, formula, adata.obs, test)
        design = build_design(formula, adata.obs, reference=levels, weights=weights)
        return audit(design, test, adata.obs)
    except DesignError as error:
        return refused_report(formula, error)


def _of_groups(groups: Sequence[Group], column: str) -> ByGroup[DesignReport]:
    table = table_of_groups(groups)
    table.insert(2, "grade", [group.report.grade for group in groups])
    return ByGroup(column, {group.name: group.report for group in groups}, table)
