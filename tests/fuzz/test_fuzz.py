"""A short run of the fuzz command: designs against closed forms, and one of each kind of bad input."""

from __future__ import annotations

import pytest

from fuzz.bad import CALLS, COHORTS, judge_bad
from fuzz.cli import run

pytestmark = pytest.mark.filterwarnings("ignore::sc_lmm._errors.LmmWarning")  # judged there


def test_designs_are_fitted_exactly_or_refused_in_words() -> None:
    figures, outcomes = run(0, [number for number in range(20) if number % 8], with_r=False)
    assert not [(outcome.number, outcome.failures) for outcome in outcomes]
    assert figures["fits compared with closed forms"] > 60
    assert figures["designs fitted"] > 0


def test_every_kind_of_bad_input_is_refused_and_leaves_adata_as_it_was() -> None:
    outcomes = [judge_bad(0, index, index) for index in range(len(CALLS) + len(COHORTS))]
    assert not [(outcome.number, outcome.failures) for outcome in outcomes if outcome.failures]
