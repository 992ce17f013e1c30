"""The random intercepts of a gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._anndata import DEFAULT_KEY, read_entry
from .._docs import doc_params
from .._errors import alternatives, warn
from .._inference import LmmFit
from .._read import fit_formula

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


@doc_params
def ranef_df(adata: AnnData | LmmFit, gene: str, *, key: str = DEFAULT_KEY, conf_level: float = 0.95) -> pd.DataFrame:
    r"""Predicted random effects of one gene: how far each donor is from what the fixed effects expect.

    .. math:: \hat b_j = \frac{\rho n_j}{1 + \rho n_j} (\bar y_j - \bar x_j' \hat\beta),
              \quad \mathrm{var}(b_j | y) = \frac{\sigma^2 \rho}{1 + \rho n_j}

    Where :math:`\rho = \sigma_u^2/\sigma^2` and :math:`\beta` are REML estimates, :math:`n_j` the cells of donor
    :math:`j` and :math:`\bar y_j, \bar x_j` its means. The first factor shrinks: a donor with few cells is drawn to 0.

    Parameters
    ----------
    adata
        Annotated data with a run of :func:`sc_lmm.tl.lmm_de`, of which this gene is read again, or a fitted object
        from :func:`sc_lmm.tl.lmm_fit`.
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
    if isinstance(adata, LmmFit):
        return adata.ranef(gene, conf_level=conf_level)
    entry = read_entry(adata, key)
    params, design = entry["params"], entry["design"]
    wanted = adata.var_names == gene
    if wanted.sum() != 1:
        found = "not in adata.var_names" if not wanted.any() else f"the name of {int(wanted.sum())} genes"
        msg = f"gene {gene!r} is {found}. {alternatives(gene, adata.var_names)}"
        raise KeyError(msg)
    fit = fit_formula(
        adata,
        str(params["formula"]),
        weights=params.get("weights"),
        layer=params.get("layer"),
        use_raw=bool(params["use_raw"]),
        mask_var=wanted,
        show_progress=False,
    )
    if fit.stats.n_cells != design["n_cells"]:
        warn(
            f"adata is not what the run {key!r} read: it has {fit.stats.n_cells:,} cells for the model, then it had "
            f"{int(design['n_cells']):,}. These are the effects in the cells that are there now."
        )
    return fit.ranef(gene, conf_level=conf_level)
