"""Depth of the cells -> a remark that weights would gain, where cells of one donor differ much in it.

A cell sequenced half as deep has about twice the residual variance of a logarithm. On real counts with planted effects,
weights and the number of genes seen found 6 % more where the logarithm of the depth of a donor's cells had a standard
deviation of 0.4, and 26 % more where it had 1.1 (tests/benchmarks/power.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._names import quoted
from .._words import one
from .facts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .anatomy import Anatomy

# What scanpy, Seurat and Cell Ranger call the total count of a cell, in the order in which they are looked for.
_NAMES = ("totalcounts", "ncounts", "ncountrna", "ncount", "numi", "numis", "totalumis", "umicount", "totalumi")
_UNEQUAL = 0.5  # standard deviation of log depth from which weights are worth a word


def depth_verdict(a: Anatomy, obs: pd.DataFrame) -> Iterator[Verdict]:
    """The remark, unless there are weights or no depths in `obs` (n_obs, n_annotations)."""
    name = _depth_column(obs)
    if name is None or a.design.weighed_by:
        return
    depth = obs[name].to_numpy(dtype=np.float64, na_value=np.nan)[a.design.kept]
    if not (np.isfinite(depth) & (depth > 0)).all():
        return
    spread = _spread_within(np.log(depth), a.design.random.codes)
    if spread < _UNEQUAL:
        return
    yield Verdict(
        "ok",
        "unequal_depth",
        f"The cells of a {one(a.group)} differ in depth: log {name} has a standard deviation of {spread:.2g}. A shallow cell "
        f"tells less of a gene than a deep one, and counts as much.",
        f'weights="np.sqrt({quoted(name)})" lets it count less, and finds more where depth differs so.',
    )


def _depth_column(obs: pd.DataFrame) -> str | None:
    """Name the column of total counts, None if there is none of numbers."""
    plain = {re.sub(r"[\W_]+", "", str(name)).lower(): name for name in reversed(obs.columns)}
    found = [plain[name] for name in _NAMES if name in plain]
    usable = (name for name in found if obs.columns.tolist().count(name) == 1 and _is_number(obs[name]))
    return next(usable, None)


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _spread_within(values: NDArray[np.float64], codes: NDArray[np.signedinteger[Any]]) -> float:
    """Standard deviation of values (n,) about the means of their levels."""
    levels = pd.Series(values).groupby(codes)
    squares = float(((values - levels.transform("mean")) ** 2).sum())
    return (squares / max(1, values.size - levels.ngroups)) ** 0.5
