"""Cells and a Design -> SufficientStatistics, a few dozen numbers per gene: the only room that sees a cell."""

from .reading import statistics_of_each, sufficient_statistics
from .sufficient import SufficientStatistics, null_model, standard_rows, within_products
from .terms import Grouping
from .values import looks_like_counts
from .visit import check_matrix

__all__ = [
    "Grouping",
    "SufficientStatistics",
    "check_matrix",
    "looks_like_counts",
    "null_model",
    "standard_rows",
    "statistics_of_each",
    "sufficient_statistics",
    "within_products",
]
