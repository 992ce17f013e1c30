"""A question about fitted models -> its answer: tests, p-values, intervals, predictions and power."""

from .answers import Choices, is_moderated
from .fitted import LmmFit
from .permutation import Exchange, draw_orders, plan_exchange
from .power import Simulation, balanced_power, balanced_statistics, cohorts, simulated_power
from .prior import ENOUGH_GENES
from .summary import GeneSummary, TestResult
from .tests import METHODS, check_choices

__all__ = [
    "Choices",
    "ENOUGH_GENES",
    "Exchange",
    "GeneSummary",
    "LmmFit",
    "METHODS",
    "Simulation",
    "TestResult",
    "balanced_power",
    "balanced_statistics",
    "check_choices",
    "cohorts",
    "draw_orders",
    "is_moderated",
    "plan_exchange",
    "simulated_power",
]
