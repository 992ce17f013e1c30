"""The design report of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._anndata import DEFAULT_KEY, read_entry
from .._docs import doc_params
from .._report import from_uns

if TYPE_CHECKING:
    from anndata import AnnData

    from .._report import DesignReport


@doc_params
def design_report(adata: AnnData, *, key: str = DEFAULT_KEY) -> DesignReport:
    """Design report that :func:`sc_lmm.tl.lmm_de` made before fitting, also after ``write_h5ad`` or ``write_zarr``.

    Parameters
    ----------
    {run}

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
    stored = read_entry(adata, key)["design"]
    if "report" not in stored:
        msg = f"adata.uns[{key!r}] holds no design report. Run sc_lmm.tl.lmm_de again, or sc_lmm.tl.check_design."
        raise KeyError(msg)
    return from_uns(stored)
