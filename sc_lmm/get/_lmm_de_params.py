"""How a run was made: its model, its test and the cells and donors it used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._anndata import DEFAULT_KEY, read_entry
from .._docs import doc_params

if TYPE_CHECKING:
    from anndata import AnnData


@doc_params
def lmm_de_params(adata: AnnData, *, key: str = DEFAULT_KEY) -> dict[str, Any]:
    """Read the settings of a run of :func:`sc_lmm.tl.lmm_de` and the design it was made with.

    Parameters
    ----------
    {run}

    Returns
    -------
    A new dictionary with the arguments of the call, ``groupby`` (tested column), ``reference`` (what its levels are
    compared with: a level, or a word if it is none), ``log_base`` (of the declared logarithm), ``group`` (column of the
    random intercept), ``n_donors``, ``n_cells``, ``n_cells_dropped``, ``comparisons`` (names, in order) and ``status``
    (number of genes with each).

    Raises
    ------
    KeyError
        If there is no such run; the message lists those there are.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> params = sl.get.lmm_de_params(adata)
    >>> params["group"], params["n_donors"], params["reference"], params["comparisons"]
    ('sample_id', 8, 'control', ['Alzheimer'])
    """
    entry = read_entry(adata, key)
    facts = {name: entry["design"][name] for name in ("group", "n_donors", "n_cells", "n_cells_dropped")}
    return {
        **entry["params"],
        **facts,
        "comparisons": list(entry["comparisons"].index),
        "status": dict(entry["status"]),
    }
