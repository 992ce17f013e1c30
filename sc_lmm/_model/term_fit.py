"""SufficientStatistics -> TermFit: maximum-likelihood (or REML) estimates of every gene under any random terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._blas import one_blas_thread
from .base import BOUNDARY, CONSTANT, FAILED, MAX_ITER, OK, ROUNDING, BaseFit
from .blocks import for_blocks, gene_blocks
from .grid import Grid, grid, starts
from .newton import ENDLESS, Found, Model, memory_for, minimise_rows
from .parameters import blocks_of
from .structure import Structure, structure
from .term_points import PointTable, point_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._statistics import Grouping, SufficientStatistics

    Array = NDArray[np.float64]

# Share of the sum of squares below which what random and fixed effects leave is rounding.
_EXPLAINED = 1e-13
# In the order of the outcomes of `newton`. Endless: the deviance falls as far as variances go.
_STATUS_OF = np.array([OK, BOUNDARY, MAX_ITER, FAILED], dtype=np.int8)


@dataclass(frozen=True)
class TermFit(BaseFit):
    """Estimates under any random terms."""

    groupings: tuple[Grouping, ...]
    phi: Array  # (G, k) entries of every Gamma in standardised columns, in the order of the groupings

    @property
    def icc(self) -> Array:
        """Share of the random terms in the variance of an average cell, (G,)."""
        return shares(self.groupings, self.phi).sum(axis=1)

    def gamma(self, grouping: Grouping) -> Array:
        """Relative covariance of the coefficients of a level in standardised columns, (G, r, r)."""
        place = [g.name for g in self.groupings].index(grouping.name)
        first = sum(len(g.pairs) for g in self.groupings[:place])
        gamma = np.zeros((len(self.phi), grouping.r, grouping.r))
        for k, (a, b) in enumerate(grouping.pairs):
            gamma[:, a, b] = gamma[:, b, a] = self.phi[:, first + k]
        return gamma

    def covariance(self, grouping: Grouping) -> Array:
        """Covariance of the coefficients of a level, in the user's columns, (G, r, r)."""
        return self.sigma2[:, None, None] * (grouping.basis @ self.gamma(grouping) @ grouping.basis.T)

    def sd(self, grouping: Grouping) -> Array:
        """Standard deviations of the coefficients of a level, (G, r)."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance(grouping), axis1=1, axis2=2), 0.0))

    def correlation(self, grouping: Grouping, a: int, b: int) -> Array:
        """Correlation of two coefficients of a level, (G,), NaN where one of them does not vary."""
        sd = self.sd(grouping)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.clip(self.covariance(grouping)[:, a, b] / (sd[:, a] * sd[:, b]), -1.0, 1.0)


def shares(groupings: Sequence[Grouping], phi: Array) -> Array:
    """Share of each grouping in the variance of an average cell, (n, groupings), from entries of Gamma, (n, k).

    In standardised columns, which are orthonormal over the cells, the variances add.
    """
    edges = np.cumsum([0, *(len(grouping.pairs) for grouping in groupings)])
    traces = [
        phi[:, first + np.flatnonzero([a == b for a, b in grouping.pairs])].sum(axis=1)
        for first, grouping in zip(edges, groupings, strict=False)
    ]
    variances = np.stack(traces, axis=1)
    return variances / (1 + variances.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class _Prepared:
    """What the genes of one model share."""

    structure: Structure
    grid: Grid
    table: PointTable
    model: Model

    @classmethod
    def of(cls, stats: SufficientStatistics, *, reml: bool) -> _Prepared:
        design = structure(stats)
        blocks = blocks_of(design)
        shared = grid(blocks)
        dof = float(design.n_cells - design.p if reml else design.n_cells)
        return cls(design, shared, point_table(design, shared.points), Model(design.shared, blocks, dof, reml))


def fit_terms(
    models: Sequence[SufficientStatistics],
    coef_names: Sequence[str],
    *,
    reml: bool = False,
    n_jobs: int | None = None,
    block_size: int | None = None,
    show_progress: bool | None = None,
) -> list[TermFit]:
    """Fit every gene under each of several models of the same genes.

    Parameters
    ----------
    models, coef_names, reml, n_jobs, block_size, show_progress
        As in `fit_models`.
    """
    with one_blas_thread():
        prepared = [_Prepared.of(stats, reml=reml) for stats in models]
    blocks = gene_blocks(models[0].n_genes, models[0].coordinates_X.shape[0], block_size)
    arguments = (([stats.genes(block) for stats in models], prepared, tuple(coef_names)) for block in blocks)
    choices: dict[str, Any] = {"n_blocks": len(blocks), "n_jobs": n_jobs, "show_progress": show_progress}
    parts = for_blocks(_fit_block, arguments, **choices, doing="fitting")
    return [_concatenate(of_model) for of_model in zip(*parts, strict=True)]


def _fit_block(
    models: Sequence[SufficientStatistics], prepared: Sequence[_Prepared], names: tuple[str, ...]
) -> list[TermFit]:
    return [_fit_one(stats, shared, names) for stats, shared in zip(models, prepared, strict=True)]


def _fit_one(stats: SufficientStatistics, shared: _Prepared, names: tuple[str, ...]) -> TermFit:
    design, model = shared.structure, shared.model
    degenerate = _degenerate(stats, design)
    found = minimise_genes(stats, shared, degenerate == OK)
    status = np.where(degenerate == OK, _STATUS_OF[found.outcome], degenerate).astype(np.int8)
    usable = status <= BOUNDARY
    sigma2 = np.where(usable, found.rss / model.dof, np.nan)
    beta = np.where(usable[:, None], found.beta @ stats.basis.T, np.nan)
    if stats.ones is not None:
        beta += np.outer(stats.shift, stats.basis @ stats.ones)
    constant = (design.log_det_basis if model.reml else 0.0) - design.log_weights
    return TermFit(
        coef_names=names,
        groupings=design.groupings,
        beta=beta,
        vcov=sigma2[:, None, None] * (stats.basis @ found.unscaled @ stats.basis.T),
        phi=np.where(usable[:, None], found.phi, np.nan),
        sigma2=sigma2,
        deviance=np.where(usable, found.value + constant, np.nan),
        status=status,
        reml=model.reml,
    )


def minimise_genes(stats: SufficientStatistics, shared: _Prepared, some: NDArray[np.bool_]) -> Found:
    """Minimise the deviance of some of the genes (G,) from their local minima on the grid; the others have none."""
    design, G = shared.structure, stats.n_genes
    deviance = shared.table.deviance(shared.table.own(stats).rss, reml=shared.model.reml)
    first = np.where(some[:, None, None], starts(deviance, shared.grid), np.nan)
    found = Found(
        phi=np.full((G, design.n_parameters), np.nan),
        value=np.full(G, np.nan),
        rss=np.full(G, np.nan),
        beta=np.full((G, design.p), np.nan),
        unscaled=np.full((G, design.p, design.p), np.nan),
        outcome=np.full(G, ENDLESS, dtype=np.int8),
        evaluations=np.zeros(G, dtype=np.int64),
    )
    minimise_rows(shared.model, design.rows(stats), first, memory_for(design), found)
    return found


def _degenerate(stats: SufficientStatistics, design: Structure) -> NDArray[np.int8]:
    """Genes without variation, or without any that the fixed and random effects do not explain exactly."""
    total = stats.total_ss
    constant = total <= ROUNDING * (total + stats.n_cells * stats.mean**2)
    explained = design.unexplained(stats) <= _EXPLAINED * total
    return np.select([constant, explained], [CONSTANT, FAILED], OK).astype(np.int8)


def _concatenate(parts: Sequence[TermFit]) -> TermFit:
    names = ("beta", "vcov", "phi", "sigma2", "deviance", "status")
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    first = parts[0]
    return TermFit(coef_names=first.coef_names, groupings=first.groupings, reml=first.reml, **arrays)
