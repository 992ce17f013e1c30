"""Formula and cell annotations -> Design and hypotheses: X, Z, and which linear combinations of coefficients are asked about."""

from .columns import TOLERANCE, Columns, triangle, unit
from .formula import MixedFormula, parse_formula
from .hypothesis import Hypothesis, TestSpec, check_marginal, find_term, hypotheses_of, is_random_term, tested_column
from .model_matrix import Coding, Design, RandomTerm, build_design

__all__ = [
    "Coding",
    "Columns",
    "Design",
    "Hypothesis",
    "MixedFormula",
    "RandomTerm",
    "TOLERANCE",
    "TestSpec",
    "build_design",
    "check_marginal",
    "find_term",
    "hypotheses_of",
    "is_random_term",
    "parse_formula",
    "tested_column",
    "triangle",
    "unit",
]
