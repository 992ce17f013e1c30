"""Formula and cell annotations -> Design and hypotheses: X, Z, and which linear combinations of coefficients are asked about."""

from .comparison import Comparison, comparisons_of
from .formula import MixedFormula, parse_formula
from .hypothesis import Hypothesis, TestSpec, check_marginal, find_term, hypotheses_of, is_random_term, tested_column
from .model_matrix import Coding, Design, RandomTerm, build_design

__all__ = [
    "Coding",
    "Comparison",
    "Design",
    "Hypothesis",
    "MixedFormula",
    "RandomTerm",
    "TestSpec",
    "build_design",
    "check_marginal",
    "comparisons_of",
    "find_term",
    "hypotheses_of",
    "is_random_term",
    "parse_formula",
    "tested_column",
]
