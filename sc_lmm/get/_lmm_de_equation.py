"""The equation of the fitted model in LaTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._anndata import DEFAULT_KEY, read_entry
from .._docs import doc_params

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Equation:
    """LaTeX that Jupyter renders; ``str()`` gives the source."""

    latex: str

    def __str__(self) -> str:
        """Return the LaTeX source."""
        return self.latex

    def _repr_latex_(self) -> str:
        return f"$${self.latex}$$"


@doc_params
def lmm_de_equation(adata: AnnData, *, key: str = DEFAULT_KEY) -> Equation:
    r"""Equation of the model that :func:`sc_lmm.tl.lmm_de` fitted to every gene.

    Parameters
    ----------
    {run}

    Returns
    -------
    Object that Jupyter shows as an equation and ``print`` as LaTeX, with i for cells and j for levels of the grouping.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=8, n_cells=800, n_genes=50)
    >>> sl.tl.lmm_de(adata, "~ diagnosis + (1 | sample_id)", test="diagnosis")
    >>> print(str(sl.get.lmm_de_equation(adata)).splitlines()[1])
    y_{ij} &= \beta_0 + \beta_{1}\,\mathrm{diagnosis[Alzheimer]}_{ij} + u_j + \varepsilon_{ij} \\
    """
    entry = read_entry(adata, key)
    terms = [_product(k, str(name)) for k, name in enumerate(entry["coef_names"])]
    group = _text(entry["design"]["group"])
    latex = "\n".join(
        (
            r"\begin{aligned}",
            rf"y_{{ij}} &= {' + '.join(terms)} + u_j + \varepsilon_{{ij}} \\",
            rf"u_j &\sim N(0, \sigma_u^2), \quad j = 1, \dots, {entry['design']['n_donors']} "
            rf"\text{{ levels of }} {group} \\",
            rf"\varepsilon_{{ij}} &\sim N(0, \sigma^2), \quad {entry['design']['n_cells']} \text{{ cells}}",
            r"\end{aligned}",
        )
    )
    return Equation(latex)


def _product(position: int, name: str) -> str:
    if name == "Intercept":
        return r"\beta_0"
    factors = [_text(re.sub(r"\[T\.", "[", part)) for part in name.split(":")]
    columns = r"\,".join(f"{factor}_{{ij}}" for factor in factors)
    return rf"\beta_{{{position}}}\,{columns}"


def _text(name: str) -> str:
    escaped = re.sub(r"([_%#&$])", r"\\\1", name)
    return rf"\mathrm{{{escaped}}}"
