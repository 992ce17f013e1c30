"""A question about fitted models -> its answer: tests, p-values, intervals, predictions and power."""

from .fitted import LmmFit
from .permutation import check_permutable, draw_orders, permute_levels
from .power import Simulation, balanced_power, balanced_statistics, cohorts, simulated_power
from .summary import GeneSummary, TestResult
from .tests import METHODS, check_choices

__all__ = [
    "GeneSummary",
    "LmmFit",
    "METHODS",
    "Simulation",
    "TestResult",
    "balanced_power",
    "balanced_statistics",
    "check_choices",
    "check_permutable",
    "cohorts",
    "draw_orders",
    "permute_levels",
    "simulated_power",
]
