"""The shares of fixed effects, random effects and residual in the variance of each gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._anndata import DEFAULT_KEY, read_entry
from .._docs import doc_params
from .._inference import LmmFit
from .._read import fit_formula

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


@doc_params
def variance_partition_df(adata: AnnData | LmmFit, *, key: str = DEFAULT_KEY) -> pd.DataFrame:
    r"""Share of each term in the variance of every gene, as variancePartition defines it.

    .. math:: \frac{\mathrm{var}(X_t \hat\beta_t)}{\sum_s \mathrm{var}(X_s \hat\beta_s) + \sum_g \hat\sigma_g^2 + \hat\sigma^2},
              \quad \frac{\hat\sigma_g^2}{\dots}, \quad \frac{\hat\sigma^2}{\dots}

    Where :math:`X_t` are the columns of a fixed term, var is over the cells, and :math:`\sigma_g^2` is the variance that
    the random coefficients of a grouping have in an average cell, slopes included. Maximum-likelihood estimates.

    Parameters
    ----------
    adata
        Annotated data with a run of :func:`sc_lmm.tl.lmm_de`, whose cells are read again, or a fitted object from
        :func:`sc_lmm.tl.lmm_fit`.
    {key}

    Returns
    -------
    Table with a row per gene, whose columns are the fixed terms, the groupings and ``residual``; rows sum to one, and are
    NaN for genes that could not be fitted.

    Raises
    ------
    KeyError
        If there is no run under `key`.

    References
    ----------
    Hoffman, Schadt (2016). variancePartition: interpreting drivers of variation in complex gene expression studies. BMC
    Bioinformatics 17, 483.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> fit = sl.tl.lmm_fit(adata, "~ sequencing_saturation + diagnosis + (1 | sample_id)")
    >>> sl.get.variance_partition_df(fit).columns.tolist()
    ['sequencing_saturation', 'diagnosis', 'sample_id', 'residual']
    """
    if isinstance(adata, LmmFit):
        return adata.variance_partition()
    params = read_entry(adata, key)["params"]
    how = {"weights": params.get("weights"), "layer": params.get("layer"), "use_raw": bool(params["use_raw"])}
    return fit_formula(adata, str(params["formula"]), **how, show_progress=False).variance_partition()
