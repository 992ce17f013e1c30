"""Design -> DesignReport: what a design can answer, what it cannot and why, in words. No expression, no fit."""

from .audit import audit, audit_terms, refused_report
from .cautions import Cautions
from .facts import DesignReport, RandomFacts, from_uns

__all__ = [
    "Cautions",
    "DesignReport",
    "RandomFacts",
    "audit",
    "audit_terms",
    "from_uns",
    "refused_report",
]
