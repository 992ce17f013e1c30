"""Cells and a Design -> SufficientStatistics, a few dozen numbers per gene: the only room that sees a cell."""

from .combinations import term_statistics
from .sufficient import SufficientStatistics, null_model, sufficient_statistics, within_products
from .term_statistics import TermStatistics
from .terms import Grouping, Term
from .values import has_negative, looks_like_counts
from .visit import check_matrix

__all__ = [
    "Grouping",
    "SufficientStatistics",
    "Term",
    "TermStatistics",
    "check_matrix",
    "has_negative",
    "looks_like_counts",
    "null_model",
    "sufficient_statistics",
    "term_statistics",
    "within_products",
]
