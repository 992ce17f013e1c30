"""The calls of sc_lmm that the power benchmark compares, each a function of the data. Add yours to CALLS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData


@dataclass(frozen=True)
class Call:
    """Arguments of :func:`sc_lmm.tl.lmm_de`."""

    formula: str
    layer: str | None = None  # None for X, log1p of counts per 10,000; "counts" holds the counts
    weights: str | None = None  # passed on where given
    choices: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """What is passed beside the data, the formula and the test."""
        weights = {} if self.weights is None else {"weights": self.weights}
        return {"layer": self.layer, **weights, **self.choices}


def fixed_effects(adata: AnnData) -> str:
    """The groups, and the studies where there are several."""
    return "~ study + group" if adata.obs["study"].nunique() > 1 else "~ group"


def plain(adata: AnnData) -> Call:
    """The default."""
    return Call(f"{fixed_effects(adata)} + (1 | donor)")


def ratio(adata: AnnData) -> Call:
    """Nothing learned from other genes."""
    return Call(f"{fixed_effects(adata)} + (1 | donor)", choices={"moderate": False})


def weighted(adata: AnnData) -> Call:
    """What the README recommends where the depth of cells differs."""
    return Call(f"{fixed_effects(adata)} + log_depth + n_genes + (1 | donor)", weights="np.sqrt(depth)")


# Columns of `obs`: donor, group (tested, B against A), study, depth and log_depth (counts of a cell), n_genes (seen in it).
CALLS: dict[str, Callable[[AnnData], Call]] = {
    "sc_lmm": plain,
    "sc_lmm, weights and detection": weighted,
    "sc_lmm, moderate=False": ratio,
}
