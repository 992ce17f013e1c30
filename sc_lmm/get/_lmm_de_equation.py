"""The equation of the fitted model in LaTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._anndata import DEFAULT_KEY, read_entry
from .._docs import doc_params
from .._names import INTERCEPT, unquoted
from .._report import from_uns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from .._report import RandomFacts

_PIECE = re.compile(r"""\[T\..*?\](?=:|$)|`[^`]*`|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|.""", re.DOTALL)
_ESCAPED = {character: rf"\{character}" for character in "_%#&${} "}
_ESCAPED |= {"\\": r"{\backslash}", "^": r"{\wedge}", "~": r"{\sim}", "\n": r"\ "}


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
    terms = " + ".join(_product(k, str(name)) for k, name in enumerate(entry["coef_names"]))
    random = from_uns(entry["design"]).random
    lines = _counts(terms, random[0]) if entry["params"].get("family") == "nb" else _expression(terms, random)
    lines[-1] += rf", \quad {entry['design']['n_cells']} \text{{ cells}}"
    return Equation("\n".join((r"\begin{aligned}", *lines, r"\end{aligned}")))


def _expression(terms: str, random: Sequence[RandomFacts]) -> list[str]:
    """A linear mixed model: its mean, its random terms, its residual."""
    if len(random) == 1 and not random[0].text:
        shown, lines = ["u_j"], [rf"u_j &\sim N(0, \sigma_u^2), {_levels(random[0])} \\"]
    else:
        parts = [_random_term(k, term) for k, term in enumerate(random, start=1)]
        shown, lines = [effect for effect, _ in parts], [line for _, line in parts]
    return [
        rf"y_{{ij}} &= {' + '.join([terms, *shown])} + \varepsilon_{{ij}} \\",
        *lines,
        r"\varepsilon_{ij} &\sim N(0, \sigma^2)",
    ]


def _counts(terms: str, donors: RandomFacts) -> list[str]:
    """A mixed model of counts: its mean, the donors' factors, the counts given these."""
    return [
        rf"\log \mu_{{ij}} &= \log s_{{ij}} + {terms} \\",
        rf"v_j &\sim \mathrm{{Gamma}}(\mathrm{{mean}}\ 1, \mathrm{{variance}}\ \phi), {_levels(donors)} \\",
        r"y_{ij} &\sim \mathrm{Poisson}(\mu_{ij} v_j)",
    ]


def _levels(term: RandomFacts) -> str:
    return rf"\quad j = 1, \dots, {term.levels} \text{{ levels of }} {_text(term.name)}"


def _random_term(k: int, term: RandomFacts) -> tuple[str, str]:
    """What one of several random terms adds to a cell, and its distribution."""
    effects, bar, _ = re.split(r"(\|\|?)", term.text.strip("()"), maxsplit=1)
    if effects.strip() == "1":
        return rf"u_{{{k}j}}", rf"u_{{{k}j}} &\sim N(0, \sigma_{k}^2), {_levels(term)} \\"
    covariance = rf"\Sigma_{k}" if bar == "|" else rf"\mathrm{{diag}}(\sigma_{k}^2)"
    of = rf"\quad z_{{{k},ij}} \text{{ of }} {_text(effects.strip())}"
    return rf"z_{{{k},ij}}' u_{{{k}j}}", rf"u_{{{k}j}} &\sim N(0, {covariance}), {_levels(term)}, {of} \\"


def _product(position: int, name: str) -> str:
    if name == INTERCEPT:
        return r"\beta_0"
    columns = r"\,".join(f"{_factor(factor)}_{{ij}}" for factor in _factors(name))
    return rf"\beta_{{{position}}}\,{columns}"


def _factors(name: str) -> list[str]:
    """Parts of the name of a coefficient between ":", those in levels, strings, brackets and backticks aside."""
    parts, depth = [""], 0
    for piece in _PIECE.findall(name):
        depth += (piece in "([{") - (piece in ")]}") if len(piece) == 1 else 0
        if piece == ":" and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _factor(text: str) -> str:
    column, level = re.fullmatch(r"(.*?)(?:\[T\.(.*)\])?", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return _text(unquoted(column) + ("" if level is None else f"[{level}]"))


def _text(name: str) -> str:
    """Text that LaTeX shows as it is, and does not read."""
    return rf"\mathrm{{{''.join(_ESCAPED.get(character, character) for character in name)}}}"
