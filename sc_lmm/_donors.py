"""Cells of some genes -> a table of donors: what figures and texts show of the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._captions import is_number, model_columns
from ._design import level_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from ._captions import Axis


def group_of(obs: pd.DataFrame, group: str) -> pd.Series:
    """Level of each cell in a grouping that is a column of obs, or the combination of several (``donor:condition``)."""
    if group in obs:
        return obs[group].map(level_text, na_action="ignore")
    parts = [obs[name].map(level_text, na_action="ignore").astype(object) for name in group.split(":")]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined + ":" + part
    return joined


def in_model(obs: pd.DataFrame, params: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Cells that the run used, (n_obs,): those with a value in each of its columns."""
    columns = [column for column in model_columns(params) if column in obs]
    return np.asarray(obs[columns].notna().all(axis=1))


def along(obs: pd.DataFrame, params: Mapping[str, Any], axis: Axis) -> pd.Series:
    """Place of each cell along an axis: the label of its condition or its number; no value if it takes no part."""
    used = in_model(obs, params)
    if axis.number:
        return obs[axis.number].astype(np.float64).where(used & _is_in(obs, axis.conditions[0]))
    codes = np.full(len(obs), -1, dtype=np.int64)
    for code, where in enumerate(axis.conditions):
        codes[used & _is_in(obs, where)] = code
    return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(axis.labels)), index=obs.index)


def _is_in(obs: pd.DataFrame, where: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Cells of a condition, (n_obs,)."""
    inside = np.ones(len(obs), dtype=bool)
    for column, level in where.items():
        values = obs[column]
        inside &= (values.map(level_text, na_action="ignore") == level).to_numpy(dtype=bool, na_value=False)
    return inside


def donor_table(
    adata: AnnData, positions: pd.Index, x: pd.Series, params: Mapping[str, Any], layer: str | None
) -> pd.DataFrame:
    """Tabulate each donor (and level, of a factor).

    Returns
    -------
    Columns ``donor``, ``x``, ``n_cells``, ``spread`` (standard deviation of a number within the donor) and the mean of
    each gene under its position.
    """
    import scanpy as sc

    layer = params["layer"] if layer is None else layer
    use_raw = bool(params["use_raw"]) and layer is None
    cells = sc.get.obs_df(adata, list(adata.var_names[positions]), layer=layer, use_raw=use_raw)
    cells.columns = positions
    donor = group_of(adata.obs, params["group"]).rename("donor")
    used = x.notna() & donor.notna()
    cells, x, donor = cells[used], x[used], donor[used].map(level_text).astype(str)
    if is_number(x):
        x = x.astype(np.float64)
        groups = cells.assign(x=x).groupby(donor)
        spread = x.groupby(donor).std(ddof=0)
    else:
        groups = cells.groupby([donor, x.map(level_text).astype(str).rename("x")])
        spread = pd.Series(0.0, index=groups.size().index)
    return groups.mean().assign(n_cells=groups.size(), spread=spread.round(12)).reset_index()


def pairs(table: pd.DataFrame, obs: pd.DataFrame, params: Mapping[str, Any], axis: Axis) -> pd.Series | None:
    """What joins the points of a table: its donors, or a factor of the model that holds one of them at each level."""
    if table["donor"].duplicated().any():
        return table["donor"]
    group = group_of(obs, params["group"])
    shown = {column for where in axis.conditions for column in where} | {params["group"]}
    for column in model_columns(params):
        if column in shown or column not in obs or is_number(obs[column]):
            continue
        blocks = obs[column].map(level_text, na_action="ignore").astype(object).groupby(group.astype(object)).unique()
        block = table["donor"].map(blocks.map(lambda found: found[0] if len(found) == 1 else None))
        each = pd.DataFrame({"block": block, "x": table["x"]})
        if block.notna().all() and not each.duplicated().any() and block.duplicated().any():
            return block
    return None
