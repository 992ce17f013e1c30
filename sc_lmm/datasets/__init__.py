"""Simulated data whose truth is known."""

from __future__ import annotations

from ._brain_cohort import brain_cohort
from ._confounding_example import confounding_example

__all__ = ["brain_cohort", "confounding_example"]
