"""Cells of some genes -> a table of donors: what figures and texts show of the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._captions import is_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData


def donor_table(
    adata: AnnData, positions: pd.Index, x: pd.Series, params: Mapping[str, Any], layer: str | None
) -> pd.DataFrame:
    """Tabulate, per donor (and level, of a factor): ``donor``, ``x``, ``n_cells`` and the mean of each gene."""
    import scanpy as sc

    layer = params["layer"] if layer is None else layer
    use_raw = bool(params["use_raw"]) and layer is None
    cells = sc.get.obs_df(adata, list(adata.var_names[positions]), layer=layer, use_raw=use_raw)
    cells.columns = positions
    donor = adata.obs[params["group"]].rename("donor")
    used = x.notna() & donor.notna()
    cells, x, donor = cells[used], x[used], donor[used].astype(str)
    if is_number(x):
        groups = cells.assign(x=x.astype(np.float64)).groupby(donor)
    else:
        groups = cells.groupby([donor, x.map(str).astype(str).rename("x")])
    return groups.mean().assign(n_cells=groups.size()).reset_index()
