"""Plots of results."""

from ._donor_means import donor_means
from ._dotplot import dotplot
from ._power import power
from ._volcano import volcano

__all__ = ["donor_means", "dotplot", "power", "volcano"]
