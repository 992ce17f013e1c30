"""A question about fitted models -> its answer: tests, p-values, intervals, predictions and power."""

from .answers import Choices, is_moderated
from .estimates import check_workers
from .fitted import LmmFit
from .grouped import GroupedResult, LmmFits
from .permutation import Exchange, draw_orders, plan_exchange
from .pilot import Pilot, only_hypothesis, pilot_of_fit
from .power import (
    DEFAULT_ICC,
    LEARNED,
    Power,
    Simulation,
    balanced_power,
    balanced_statistics,
    cohorts,
    known_power,
    simulated_power,
)
from .prior import ENOUGH_GENES, FEWEST_GENES
from .summary import GeneSummary, TestResult
from .tests import METHODS, check_choices, check_seed

__all__ = [
    "Choices",
    "DEFAULT_ICC",
    "ENOUGH_GENES",
    "Exchange",
    "FEWEST_GENES",
    "GeneSummary",
    "GroupedResult",
    "LEARNED",
    "LmmFit",
    "LmmFits",
    "METHODS",
    "Pilot",
    "Power",
    "Simulation",
    "TestResult",
    "balanced_power",
    "balanced_statistics",
    "check_choices",
    "check_seed",
    "check_workers",
    "cohorts",
    "draw_orders",
    "is_moderated",
    "known_power",
    "only_hypothesis",
    "pilot_of_fit",
    "plan_exchange",
    "simulated_power",
]
