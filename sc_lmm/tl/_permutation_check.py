"""`permutation_check`: what each method rejects when diagnosis is dealt out to the donors at random."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._design import check_marginal, find_term
from .._docs import doc_params
from .._errors import DesignError
from .._inference import check_permutable, draw_orders, permute_levels
from .._progress import progress_bar
from .._read import fit_formula

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from .._inference import LmmFit

_METHODS = ("lrt", "lrt uncalibrated", "between-within", "satterthwaite", "kenward-roger", "between-within moderated")


@dataclass(frozen=True)
class PermutationCheck:
    """Share of genes rejected by each method, in the data and under permutations of the tested term."""

    observed: pd.Series  # (n_methods x n_alphas,), index (method, alpha)
    permuted: pd.DataFrame  # (n_permutations, n_methods x n_alphas), columns (method, alpha)
    distinct: int  # different assignments among the permutations

    def summary(self) -> pd.DataFrame:
        """Per method and level: observed share, and median, mean and 95th percentile under permutation."""
        rows = {}
        for column in self.permuted.columns:
            shares, observed = self.permuted[column], float(self.observed[column])
            rows[column] = {
                "observed": observed,
                "mean": shares.mean(),
                "median": shares.median(),
                "95 %": shares.quantile(0.95),
                "permutations >= observed": float((shares >= observed).mean()),
            }
        table = pd.DataFrame(rows).T
        return table.rename_axis(index=["method", "alpha"])

    def __repr__(self) -> str:
        """Show the summary."""
        head = f"{len(self.permuted)} permutations, {self.distinct} of them different; share of genes rejected"
        return f"{head}\n{self.summary().to_string(float_format='{:.4f}'.format)}"

    def _repr_html_(self) -> str:
        return self.summary().to_html(float_format="{:.4f}".format)


@doc_params
def permutation_check(
    adata: AnnData,
    formula: str,
    test: str,
    *,
    n_permutations: int = 200,
    methods: Sequence[str] = _METHODS,
    alphas: Sequence[float] = (0.05, 0.001),
    layer: str | None = None,
    seed: int = 0,
    n_jobs: int | None = None,
    show_progress: bool | None = None,
) -> PermutationCheck:
    r"""Count rejections when the tested term is dealt out to the donors at random.

    A permutation of a donor-level term breaks its relation with expression and keeps everything else: the donors, the
    correlation of genes, the distribution of the data. Only :math:`p + q` numbers per gene change, so that the cells
    are read once. A method that holds its level rejects a share alpha on average. Genes are correlated, so a single
    permutation may reject many; look at the mean.

    Parameters
    ----------
    {adata}
    {formula}
    test
        Fixed-effect term that is constant within donors, e.g. ``"diagnosis"``.
    n_permutations
        Random assignments; with few donors many of them are equal.
    methods
        Methods of :func:`sc_lmm.tl.lmm_de`; "lrt uncalibrated" and a method followed by " moderated" are variants.
    alphas
        Levels at which rejections are counted.
    {layer}
    seed
        Of the permutations.
    {n_jobs}
    {show_progress}

    Returns
    -------
    Object with ``observed``, ``permuted`` and ``summary()``. `adata` is not changed.

    Raises
    ------
    DesignError
        If the term varies within donors, or the design does not define a model.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> formula = "~ sequencing_saturation + diagnosis + (1 | sample_id)"
    >>> check = sl.tl.permutation_check(adata, formula, "diagnosis", n_permutations=5, methods=["lrt"])
    >>> check.permuted.shape
    (5, 2)
    """
    fit = fit_formula(adata, formula, layer=layer, n_jobs=n_jobs, show_progress=show_progress)
    fit = replace(fit, show_progress=False)
    term = find_term(fit.coding, test)
    columns = fit.coding.terms[term]
    check_permutable(fit.stats, columns, term)
    check_marginal(fit.coding, term, "permuted")
    fit.warn(test)
    orders = draw_orders(fit.stats, columns, n_permutations, np.random.default_rng(seed))
    bar = progress_bar(orders, doing="permuting", show_progress=show_progress)
    shares = [_shares(_permuted(fit, columns, order), term, methods, alphas) for order in bar]
    values = fit.stats.ZtX / fit.stats.sizes[:, None] @ fit.stats.directions[:, columns]
    return PermutationCheck(
        observed=_shares(fit, term, methods, alphas),
        permuted=pd.DataFrame(shares).reset_index(drop=True),
        distinct=len({np.round(values[order], 9).tobytes() for order in orders}),
    )


def _permuted(fit: LmmFit, columns: slice, order: np.ndarray) -> LmmFit:
    return replace(fit, stats=permute_levels(fit.stats, columns, order))


def _shares(fit: LmmFit, term: str, methods: Sequence[str], alphas: Sequence[float]) -> pd.Series:
    shares: dict[tuple[str, float], float] = {}
    for name in methods:
        method, *variant = name.split(" ")
        if variant not in ([], ["uncalibrated"], ["moderated"]):
            msg = f"method {name!r} is unknown: add 'moderated' or 'uncalibrated' to a method of lmm_de."
            raise DesignError(msg)
        moderate, calibrate = variant == ["moderated"], variant != ["uncalibrated"]
        pvals = fit.pvals(term, method=method, moderate=moderate, calibrate=calibrate)
        shares |= {(name, alpha): float((pvals[~np.isnan(pvals)] < alpha).mean()) for alpha in alphas}
    return pd.Series(shares)
