"""The `test` argument -> null hypotheses L beta = 0, each a full-rank matrix L (df, p) in the user's coefficients.

A test is a fixed-effect term ("diagnosis"), several terms tested jointly (["age", "sex"]), a contrast of conditions
("cond(diagnosis='AD') - cond(diagnosis='PD')"), named contrasts in a dict, or the random term ("(1 | sample_id)").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .._errors import DesignError, alternatives
from .._names import INTERCEPT, distinct, unquoted
from .contrast import is_contrast, read_contrast
from .formula import RandomSpec, read_column, read_random_terms, read_term

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .coding import Coding

    Array = NDArray[np.float64]

TestSpec: TypeAlias = str | Sequence[str] | Mapping[str, str]


@dataclass(frozen=True)
class Hypothesis:
    """One question: is L beta zero?"""

    name: str  # the level, column, term or contrast that the comparison is called after
    L: Array  # (df, p)
    written: tuple[tuple[float, Mapping[str, Any]], ...] = ()  # a contrast's conditions as typed, each with its weight

    @property
    def df(self) -> int:
        """Constraints."""
        return self.L.shape[0]


def read_test(test: object) -> str | list[str] | dict[str, str]:
    """Bring what may be tested into the three forms that it is stored in, or say what may."""
    if isinstance(test, str):
        return str(test).strip()
    if isinstance(test, Mapping) and all(isinstance(part, str) for item in test.items() for part in item):
        return {str(name): str(contrast) for name, contrast in test.items()}
    if isinstance(test, Iterable) and not isinstance(test, Mapping):
        terms = list(test)
        if all(isinstance(term, str) for term in terms):
            return [str(term) for term in (sorted(terms) if isinstance(test, set | frozenset) else terms)]
    msg = (
        f"test={test!r} is neither a term, nor a list of terms, nor a dict from names to contrasts. For example "
        f"test=\"diagnosis\", or test={{'AD': \"cond(diagnosis='AD') - cond(diagnosis='control')\"}}."
    )
    raise DesignError(msg)


def is_random_term(test: TestSpec, coding: Coding) -> bool:
    """Whether the test is of a random term, e.g. ``(1 | group)``."""
    return random_term_of(test, coding) is not None


def random_term_of(test: TestSpec, coding: Coding) -> RandomSpec | None:
    """The random term of the formula that a test is of."""
    wanted = {spec.key for spec in read_random_terms(test)} if isinstance(test, str) else set()
    return next((spec for spec in coding.formula.random if {spec.key} == wanted), None)


def tested_column(coding: Coding, test: TestSpec) -> tuple[str, str]:
    """Annotation behind the tested coefficients and what its levels are compared with, for scanpy's plots."""
    random = random_term_of(test, coding)
    if random is not None:
        return random.grouping, "no variance"
    hypotheses = hypotheses_of(coding, test)
    touched = [any(np.abs(h.L[:, columns]).max() > 0 for h in hypotheses) for columns in coding.terms.values()]
    terms = [term for term, hit in zip(coding.terms, touched, strict=True) if hit and term != INTERCEPT]
    if not terms:  # the mean of the reference: donors are what it is about
        return coding.group, "zero"
    factor = next((f for f in (coding.factor_of(term) for term in terms) if f is not None), None)
    if factor is None:
        return read_column(terms[0]) or terms[0], "zero slope"
    if isinstance(test, str) and not is_contrast(test):
        return factor, coding.levels[factor][0]
    return factor, "contrast"


def hypotheses_of(coding: Coding, test: TestSpec) -> list[Hypothesis]:
    """Hypotheses that `test` asks for, the first being the one that is shown first."""
    wanted = read_test(test)
    if isinstance(wanted, str):
        return [contrast_hypothesis(coding, wanted, wanted)] if is_contrast(wanted) else term_hypotheses(coding, wanted)
    if not wanted:
        msg = f"test is empty. {alternatives('', _testable(coding))}"
        raise DesignError(msg)
    if isinstance(wanted, dict):
        return [contrast_hypothesis(coding, name, expression) for name, expression in wanted.items()]
    return [joint_hypothesis(coding, wanted)]


def term_hypotheses(coding: Coding, test: str) -> list[Hypothesis]:
    """Hypotheses of a fixed-effect term: jointly first if it has several coefficients, then one by one."""
    term = find_term(coding, test)
    columns = coding.terms[term]
    eye = np.eye(len(coding.coef_names))[columns]
    names = [_comparison_name(name, term) for name in coding.coef_names[columns]]
    single = [Hypothesis(name, row[None, :]) for name, row in zip(names, eye, strict=True)]
    if len(single) == 1:
        return single
    joint = read_column(term) or term
    (name,) = distinct([joint if joint not in names else f"{joint} (all levels)"], taken=names, fold=False)
    return [Hypothesis(name, eye), *single]


def joint_hypothesis(coding: Coding, tests: list[str]) -> Hypothesis:
    """All coefficients of several terms are zero."""
    terms = list(dict.fromkeys(find_term(coding, test) for test in tests))
    eye = np.eye(len(coding.coef_names))
    return Hypothesis(" + ".join(terms), np.concatenate([eye[coding.terms[term]] for term in terms]))


def contrast_hypothesis(coding: Coding, name: str, expression: str) -> Hypothesis:
    """One linear combination of the expected expression under conditions, e.g. ``cond(a='x') - cond(a='y')``."""
    found = read_contrast(expression, coding.row)
    if np.abs(found.row).max() < 1e-12:
        msg = (
            f"contrast {expression!r} is zero for every coefficient: its conditions are coded alike. Columns not named "
            f"in cond() are at their reference level or 0; name the ones that should differ."
        )
        raise DesignError(msg)
    written = tuple((weight, coding.condition(where)) for weight, where in found.written)
    return Hypothesis(name, found.row[None, :], written)


def find_term(coding: Coding, test: str) -> str:
    """Name of the term as the design writes it, or an error that lists the terms."""
    wanted, name = read_term(str(test)), unquoted(str(test))
    # First as a formula would read it; what is no term there may be the name of a column.
    by_grammar = [term for term in _testable(coding) if wanted and read_term(term) == wanted]
    by_name = [term for term in _testable(coding) if read_column(term) == name]
    if by_grammar or by_name:
        term = [*by_grammar, *by_name][0]
        _check_coding(coding, term)
        return term
    what = (
        "the random grouping, not a fixed effect" if name in coding.formula.group_columns else "not a fixed-effect term"
    )
    msg = f"test={test!r} is {what} of {coding.formula.text!r}. {alternatives(str(test), _testable(coding))}"
    raise DesignError(msg)


def check_marginal(coding: Coding, term: str, purpose: str) -> None:
    """Refuse what has no meaning for a term that is part of an interaction, whose columns would keep it."""
    factors = set(read_term(term))
    inside = [other for other in coding.terms if other != term and factors < set(read_term(other))]
    if inside:
        msg = f"Term {term!r} is part of the interaction {inside[0]!r} and cannot be {purpose}. Start from a formula without it."
        raise DesignError(msg)


def _testable(coding: Coding) -> list[str]:
    return [term for term in coding.terms if term != INTERCEPT]


def _check_coding(coding: Coding, term: str) -> None:
    """Refuse a term that holds the constant: without it the model would say that expression is zero."""
    if coding.constant is not None and np.any(np.abs(coding.constant[coding.terms[term]]) > 1e-9):
        msg = (
            f"Without an intercept the coefficients of {term!r} are group means, and testing that they are all zero is "
            f"not a comparison of groups. Remove '0 +' or '- 1' from the formula."
        )
        raise DesignError(msg)


def _comparison_name(coefficient: str, term: str) -> str:
    level = re.fullmatch(re.escape(term) + r"\[T\.(.*)\]", coefficient, re.DOTALL)
    return level.group(1) if level else read_column(coefficient) or coefficient
