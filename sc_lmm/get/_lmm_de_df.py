"""The results of a run as a tidy table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from .._anndata import DEFAULT_KEY, read_entry, read_groups, read_table
from .._docs import doc_params
from .._errors import alternatives

if TYPE_CHECKING:
    from anndata import AnnData


@doc_params
def lmm_de_df(
    adata: AnnData,
    comparison: str | None = None,
    *,
    key: str = DEFAULT_KEY,
    pval_cutoff: float | None = None,
    sort: bool = True,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Results of one comparison of :func:`sc_lmm.tl.lmm_de`, a row per gene; of a run by groups of cells, of all groups.

    Parameters
    ----------
    {adata}
    {comparison}
    {key}
    pval_cutoff
        Keep genes with an adjusted p-value below this.
    sort
        Order by p-value, smallest first, in log space so that underflow does not make ties. Otherwise the order of
        ``adata.var_names``.
    {gene_symbols}

    Returns
    -------
    Table with ``names`` and the columns that :func:`sc_lmm.tl.lmm_de` writes. Genes without a result come last. Of a run with
    `groupby` and without `comparison`, all of its tables one below the other, the column of the groups and ``comparison``
    first; genes are then ordered over all groups.

    Raises
    ------
    KeyError
        If the run or the comparison does not exist; the message lists those that do.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> sl.get.lmm_de_df(adata)["log10_pvals"].is_monotonic_increasing
    True
    """
    groups = read_groups(adata, key) if comparison is None else None
    if groups is not None:
        how: dict[str, Any] = {"pval_cutoff": pval_cutoff, "sort": sort, "gene_symbols": gene_symbols}
        parts = [_of_group(lmm_de_df(adata, str(row.Index), key=key, **how), row) for row in groups.itertuples()]
        long = pd.concat(parts, ignore_index=True).rename(
            columns={"group": read_entry(adata, key)["params"]["groupby"]}
        )
        return long.sort_values("log10_pvals", kind="stable", ignore_index=True) if sort else long
    table = read_table(adata, key, comparison)
    names = adata.var_names
    if gene_symbols is not None:
        if gene_symbols not in adata.var:
            msg = f"gene_symbols={gene_symbols!r} is not a column of adata.var. "
            raise KeyError(msg + alternatives(gene_symbols, adata.var.columns))
        names = adata.var[gene_symbols]
    frame = table.reset_index(drop=True)
    frame.insert(0, "names", pd.Series(names.to_numpy(dtype=object)))
    if pval_cutoff is not None:
        frame = frame[frame["pvals_adj"] < pval_cutoff]
    if sort:
        frame = frame.sort_values("log10_pvals", kind="stable")
    return frame.reset_index(drop=True)


def _of_group(table: pd.DataFrame, row: Any) -> pd.DataFrame:
    """Table of one group with what it is of in front."""
    table.insert(0, "group", row.group)
    table.insert(1, "comparison", row.within_group)
    return table
