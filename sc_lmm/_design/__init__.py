"""Formula and cell annotations -> Design and hypotheses: X, Z, and which linear combinations of coefficients are asked about."""

from .annotations import as_levels, level_text, read_annotation
from .coding import Coding
from .columns import TOLERANCE, Columns, triangle, unit
from .comparison import Comparison, comparisons_of
from .formula import MixedFormula, RandomSpec, parse_formula, read_column, read_term
from .hypothesis import (
    Hypothesis,
    TestSpec,
    check_marginal,
    find_term,
    hypotheses_of,
    is_random_term,
    random_term_of,
    read_test,
    tested_column,
)
from .model_matrix import Design, build_design
from .random import RandomEffects, RandomTerm, check_one_intercept

__all__ = [
    "Coding",
    "Columns",
    "Comparison",
    "Design",
    "Hypothesis",
    "MixedFormula",
    "RandomEffects",
    "RandomSpec",
    "RandomTerm",
    "TOLERANCE",
    "TestSpec",
    "as_levels",
    "build_design",
    "check_marginal",
    "check_one_intercept",
    "comparisons_of",
    "find_term",
    "hypotheses_of",
    "is_random_term",
    "level_text",
    "parse_formula",
    "random_term_of",
    "read_annotation",
    "read_column",
    "read_term",
    "read_test",
    "tested_column",
    "triangle",
    "unit",
]
