"""Predictions of all random effects of one gene.

With Lambda a root of Gamma and r = y - X beta, the spherical effects are u = (Lambda'Z'Z Lambda + I)^-1 Lambda'Z'r, and

    b = Lambda u          var(b | y) = sigma^2 Lambda (Lambda'Z'Z Lambda + I)^-1 Lambda'

at the REML estimates of the variances, as lme4's ``ranef`` gives them (Bates et al. 2015, section 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import linalg, sparse

from .._names import INTERCEPT
from .random_effect import effect_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from .._model import TermFit
    from .._statistics import Grouping, SufficientStatistics

    Array = NDArray[np.float64]


def predicted_effects(
    stats: SufficientStatistics, fit: TermFit, level_names: Mapping[str, Sequence[str]], conf_level: float
) -> pd.DataFrame:
    """Tabulate the effects of one gene: a row per grouping, level and random column, in the user's columns."""
    groupings = {g.name: g for g in stats.groupings}
    ordered = [groupings[name] for name in level_names]
    names = [
        (g.name, level, "(Intercept)" if column == INTERCEPT else column)
        for g in ordered
        for level in level_names[g.name]
        for column in g.column_names
    ]
    index = pd.MultiIndex.from_tuples(names, names=["grouping", "level", "effect_of"])
    sizes = np.concatenate([np.repeat(g.sizes, g.r) for g in ordered])
    if not fit.usable[0]:
        nothing = np.full(len(names), np.nan)
        return effect_table(nothing, nothing, conf_level, sizes, index)
    return effect_table(*_predict(stats, fit, ordered), conf_level, sizes, index)


def _predict(stats: SufficientStatistics, fit: TermFit, groupings: Sequence[Grouping]) -> tuple[Array, Array]:
    """Effects and their conditional standard deviations."""
    X, y = stats.coordinates_X, stats.coordinates_Y[:, 0]
    roots = [_root(fit.gamma(g)[0]) for g in groupings]
    Lambda = _by_level(groupings, roots)
    Z = sparse.csr_array(sparse.hstack([g.coordinates.matrix for g in groupings]) @ Lambda)
    A = (Z.T @ Z).toarray() + np.eye(Z.shape[1])
    factor = linalg.cho_factor(A)
    ZtX, Zty = Z.T @ X, Z.T @ y
    beta = np.linalg.solve(
        X.T @ X - ZtX.T @ linalg.cho_solve(factor, ZtX), X.T @ y - ZtX.T @ linalg.cho_solve(factor, Zty)
    )
    u = linalg.cho_solve(factor, Zty - ZtX @ beta)
    to_user = sparse.csr_array(_by_level(groupings, [g.basis for g in groupings]) @ Lambda)
    spread = to_user @ linalg.solve(A, to_user.T.toarray(), assume_a="pos")
    return to_user @ u, np.sqrt(fit.sigma2[0] * np.maximum(np.diag(spread), 0.0))


def _by_level(groupings: Sequence[Grouping], matrices: Sequence[Array]) -> sparse.csr_array:
    """The matrix of each grouping for every one of its levels, block diagonal."""
    parts = [sparse.kron(sparse.eye_array(g.n_levels), A) for g, A in zip(groupings, matrices, strict=True)]
    return sparse.csr_array(sparse.block_diag([sparse.coo_array(part) for part in parts]))


def _root(gamma: Array) -> Array:
    values, vectors = np.linalg.eigh(gamma)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
