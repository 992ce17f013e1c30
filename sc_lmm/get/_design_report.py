"""The design report of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._anndata import DEFAULT_KEY, read_entry
from .._docs import doc_params
from .._errors import alternatives
from .._report import from_uns

if TYPE_CHECKING:
    from anndata import AnnData

    from .._report import DesignReport


@doc_params
def design_report(adata: AnnData, group: str | None = None, *, key: str = DEFAULT_KEY) -> DesignReport:
    """Design report that :func:`sc_lmm.tl.lmm_de` made before fitting, also after ``write_h5ad`` or ``write_zarr``.

    Parameters
    ----------
    {adata}
    group
        Group of cells, of a run with `groupby`.
    {key}

    Returns
    -------
    The report, as :func:`sc_lmm.tl.check_design` gives it.

    Raises
    ------
    KeyError
        If there is no run under `key`, or it stored no report.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> sl.get.design_report(adata).test.df
    6
    """
    entry = read_entry(adata, key)
    if "groups" in entry:
        reports = entry["groups"]["report"].astype(str)
        if group not in reports.index:
            msg = f"group={group!r} is not one of those of the run {key!r}. {alternatives(str(group), reports.index)}"
            raise KeyError(msg)
        return from_uns({"report": reports[group]})
    stored = entry["design"]
    if "report" not in stored:
        msg = f"adata.uns[{key!r}] holds no design report. Run sc_lmm.tl.lmm_de again, or sc_lmm.tl.check_design."
        raise KeyError(msg)
    return from_uns(stored)
