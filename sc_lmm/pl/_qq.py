"""P-values against what they would be if nothing changed: is the test honest, and is there anything to find?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from .._captions import word_comparison
from .._docs import doc_params
from ..get import lmm_de_df
from ._style import MANY, NEUTRAL, UP, comparison_of_run, shown, single_axes, without_frame

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_MEDIAN_CHI2 = 2 * float(special.erfinv(0.5)) ** 2  # of one degree of freedom


@doc_params
def qq(
    adata: AnnData,
    comparison: str | None = None,
    *,
    key: str = "lmm_de",
    chi2: bool = True,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    r"""Quantiles of the p-values against those of a uniform distribution, on a :math:`-\log_{{10}}` scale.

    Genes that do not change lie on the diagonal; those that do rise from it at the right end. Points that leave it early,
    all along, tell of a test that is too optimistic, or of a difference that concerns all genes. The inflation is the
    median chi-square over what it should be, and 1 where the median gene is as expected. The band holds 95 % of what
    independent genes would do at each place; genes are not independent, so leaving it is no proof.

    Parameters
    ----------
    {adata}
    {comparison}
    {key}
    chi2
        Show ``pvals_chi2`` as well, what the chi-square of the ratio would have said.
    {ax}
    {show}

    Returns
    -------
    The axes if ``show=False``, else ``None``.

    References
    ----------
    Devlin, Roeder (1999). Genomic control for association studies. Biometrics 55(4), 997-1004.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> ax = sl.pl.qq(adata, show=False)
    >>> ax.get_xlabel()
    'expected $-\\log_{10}$ p-value'
    """
    name, params = comparison_of_run(adata, comparison, key)
    table = lmm_de_df(adata, name, key=key)
    ax = single_axes(ax, (4.8, 4.8))
    series = {"pvals": (-table["log10_pvals"].dropna().to_numpy(), UP)}
    with np.errstate(divide="ignore"):
        ratio = -np.log10(table["pvals_chi2"].dropna().to_numpy())
    if chi2 and ratio.size:
        series = {"pvals_chi2": (ratio[np.isfinite(ratio)], NEUTRAL)} | series
    longest = max(heights.size for heights, _ in series.values())
    _draw_band(ax, longest)
    for label, (heights, colour) in series.items():
        said = f"{label} (inflation {inflation(heights):.2f})"
        ax.scatter(
            expected(heights.size), np.sort(heights)[::-1], s=12, c=colour, lw=0, label=said, rasterized=longest > MANY
        )
    ax.set(xlabel=r"expected $-\log_{10}$ p-value", ylabel=r"observed $-\log_{10}$ p-value")
    ax.set_title(word_comparison(name, params).contrast, fontsize=10)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    without_frame(ax)
    return None if shown(show=show) else ax


def expected(n: int) -> Array:
    """Means of the order statistics of n uniform numbers as -log10, the largest first."""
    return -np.log10(np.arange(1, n + 1) / (n + 1))


def inflation(heights: Array) -> float:
    """Median chi-square (1 df) of p-values given as -log10, over that of a uniform distribution."""
    p = 10.0 ** -np.median(heights)
    return float(2 * special.erfinv(1 - p) ** 2 / _MEDIAN_CHI2)


def _draw_band(ax: Axes, n: int) -> None:
    """Diagonal, and where 95 % of each order statistic of n independent genes would be."""
    ranks = np.unique(np.geomspace(1, n, 200).astype(int))
    x = expected(n)[ranks - 1]
    low, high = (-np.log10(special.betaincinv(ranks, n - ranks + 1, share)) for share in (0.975, 0.025))
    ax.fill_between(x, low, high, color="0.92", lw=0, zorder=0)
    ax.plot([0, x[0]], [0, x[0]], color="0.5", lw=0.8, zorder=1)
