"""Cells and a Design -> SufficientStatistics or CountStatistics, a few dozen numbers per gene: the only room that sees a cell."""

from .counts import CountStatistics, count_statistics, donor_sums_of_each, varying_columns
from .reading import statistics_of_each, sufficient_statistics
from .size_factors import MEDIAN_RATIO, TOTAL, library_exposure
from .sufficient import SufficientStatistics, null_model, standard_rows, within_products
from .sums import Sums
from .terms import Grouping
from .values import looks_like_counts
from .visit import check_matrix

__all__ = [
    "CountStatistics",
    "Grouping",
    "MEDIAN_RATIO",
    "SufficientStatistics",
    "Sums",
    "TOTAL",
    "check_matrix",
    "count_statistics",
    "donor_sums_of_each",
    "library_exposure",
    "looks_like_counts",
    "null_model",
    "standard_rows",
    "statistics_of_each",
    "sufficient_statistics",
    "varying_columns",
    "within_products",
]
