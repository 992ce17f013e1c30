"""TermFit -> what results say of the random terms: standard deviations, correlations, and which variances are zero."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._names import INTERCEPT, random_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from .._model import TermFit
    from .._statistics import Grouping

    Array = NDArray[np.float64]

# A variance below this share of the block's largest is zero: what rounding leaves of a Gamma that has lost rank.
_ZERO = 1e-9


def describe_terms(fit: TermFit, groupings: Sequence[Grouping]) -> dict[str, Any]:
    """``sd_<group>``, ``sd_<group>_<slope>``, ``cor_<group>_<slope>``, (G,) each, and ``at_zero``, the names of what is zero.

    In the order of these groupings, the formula's.
    """
    parts = [part for grouping in groupings for part in _parts(fit, grouping)]
    columns: dict[str, Any] = dict(
        zip(random_columns([name for name, _ in parts]), [values for _, values in parts], strict=True)
    )
    return columns | {"at_zero": zero_components(fit, groupings)}


def _parts(fit: TermFit, grouping: Grouping) -> Iterator[tuple[tuple[str, ...], Array]]:
    names = [() if column == INTERCEPT else (column,) for column in grouping.column_names]
    sd = fit.sd(grouping)
    for a, name in enumerate(names):
        yield ("sd", grouping.name, *name), sd[:, a]
    for block in grouping.blocks:
        for a, b in combinations(range(block.start, block.stop), 2):
            yield ("cor", grouping.name, *names[a], *names[b]), fit.correlation(grouping, a, b)


def zero_components(fit: TermFit, groupings: Sequence[Grouping]) -> pd.Categorical:
    """Per gene the terms without variance, and those whose coefficients vary in fewer directions than there are."""
    n_genes = fit.sigma2.size
    found = np.full(n_genes, "", dtype=object)
    for grouping in groupings:
        gamma = np.nan_to_num(fit.gamma(grouping))
        for block in grouping.blocks:
            values = np.linalg.eigvalsh(gamma[:, block, block])
            lacking = (values <= _ZERO * np.maximum(values[:, -1:], np.finfo(float).tiny)).sum(axis=1)
            of_block = _names_of(grouping, block)
            for lost in range(1, block.stop - block.start + 1):
                name = of_block if lost == block.stop - block.start else f"{of_block} (rank {len(values.T) - lost})"
                hit = (lacking == lost) & fit.usable
                found[hit] = [f"{old} + {name}" if old else name for old in found[hit]]
    return pd.Categorical(found, categories=sorted(set(found.tolist())))


def _names_of(grouping: Grouping, block: slice) -> str:
    """A block as a term is called: "donor", or "donor: x" for a slope alone."""
    names = ["1" if name == INTERCEPT else name for name in grouping.column_names[block]]
    return grouping.name if names == ["1"] else f"{grouping.name}: {' + '.join(names)}"
