"""Plots of results."""

from ._donor_means import donor_means
from ._dotplot import dotplot
from ._forest import forest
from ._heatmap import heatmap
from ._ma import ma
from ._power import power
from ._pvalue_histogram import pvalue_histogram
from ._qq import qq
from ._volcano import volcano

__all__ = ["donor_means", "dotplot", "forest", "heatmap", "ma", "power", "pvalue_histogram", "qq", "volcano"]
