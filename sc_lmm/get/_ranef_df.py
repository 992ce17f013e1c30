"""The random intercepts of a gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._anndata import DEFAULT_KEY, read_entry
from .._docs import doc_params
from .._errors import alternatives, warn
from .._inference import CountFit, LmmFit
from .._read import fit_formula
from .._read_counts import fit_count_formula, size_factors_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray


@doc_params
def ranef_df(
    adata: AnnData | LmmFit | CountFit, gene: str, *, key: str = DEFAULT_KEY, conf_level: float = 0.95
) -> pd.DataFrame:
    r"""Predicted random effects of one gene: how far each donor is from what the fixed effects expect.

    .. math:: \hat b_j = \frac{\rho n_j}{1 + \rho n_j} (\bar y_j - \bar x_j' \hat\beta),
              \quad \mathrm{var}(b_j | y) = \frac{\sigma^2 \rho}{1 + \rho n_j}

    Where :math:`\rho = \sigma_u^2/\sigma^2` and :math:`\beta` are REML estimates, :math:`n_j` the cells of donor
    :math:`j` and :math:`\bar y_j, \bar x_j` its means. The first factor shrinks: a donor with few cells is drawn to 0.

    For ``family="nb"`` it is the logarithm of a donor's factor, which is gamma distributed given its counts, of shape
    :math:`1/\phi + y_j` and rate :math:`1/\phi + \mu_j`, averaged over what :math:`\phi` can be.

    Parameters
    ----------
    adata
        Annotated data with a run of :func:`sc_lmm.tl.lmm_de`, of which this gene is read again (for ``family="nb"`` all
        genes), or a fitted object from :func:`sc_lmm.tl.lmm_fit`.
    gene
        Name of the gene.
    {key}
    conf_level
        Level of the normal limits ``ci_low`` and ``ci_high``.

    Returns
    -------
    Table with a row per donor: ``effect``, its conditional standard deviation ``sd``, ``ci_low``, ``ci_high``, and
    ``n_cells``. With several random terms or slopes, a row per ``grouping``, ``level`` and ``effect_of`` (the intercept or
    a slope's column).

    Raises
    ------
    KeyError
        If the run or the gene does not exist.

    References
    ----------
    Robinson (1991). That BLUP is a good thing. Stat. Sci. 6(1), 15-32.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> sl.get.ranef_df(adata, adata.var_names[0]).shape
    (8, 5)
    """
    if isinstance(adata, LmmFit | CountFit):
        return adata.ranef(gene, conf_level=conf_level)
    entry = read_entry(adata, key)
    params, design = entry["params"], entry["design"]
    wanted = adata.var_names == gene
    if wanted.sum() != 1:
        found = "not in adata.var_names" if not wanted.any() else f"the name of {int(wanted.sum())} genes"
        msg = f"gene {gene!r} is {found}. {alternatives(gene, adata.var_names)}"
        raise KeyError(msg)
    fit = _read_again(adata, params, wanted)
    if fit.stats.n_cells != design["n_cells"]:
        warn(
            f"adata is not what the run {key!r} read: it has {fit.stats.n_cells:,} cells for the model, then it had "
            f"{int(design['n_cells']):,}. These are the effects in the cells that are there now."
        )
    return fit.ranef(gene, conf_level=conf_level)


def _read_again(adata: AnnData, params: Mapping[str, Any], wanted: NDArray[np.bool_]) -> LmmFit | CountFit:
    """The model of the run, of the wanted gene; a model of counts learns from all genes what one of them is like."""
    formula, layer, use_raw = str(params["formula"]), params.get("layer"), bool(params["use_raw"])
    how: dict[str, Any] = {"layer": layer, "use_raw": use_raw, "show_progress": False}
    if params.get("family") != "nb":
        return fit_formula(adata, formula, weights=params.get("weights"), mask_var=wanted, **how)
    offset = params.get("offset")
    factors = size_factors_of(adata.obs, None if offset else params["size_factors"], offset)
    return fit_count_formula(adata, formula, factors=factors, reference=None, mask_var=None, n_jobs=None, **how)
