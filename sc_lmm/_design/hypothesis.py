"""The `test` argument -> null hypotheses L beta = 0, each a full-rank matrix L (df, p) in the user's coefficients.

A test is a fixed-effect term ("diagnosis"), several terms tested jointly (["age", "sex"]), a contrast of conditions
("cond(diagnosis='AD') - cond(diagnosis='PD')", the language of formulaic-contrasts), or named contrasts in a dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from .._errors import DesignError, alternatives
from .formula import group_transforms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .model_matrix import Coding

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


def is_random_term(test: TestSpec, coding: Coding) -> bool:
    """Whether the test is of the random term, ``(1 | group)``."""
    return isinstance(test, str) and test.replace(" ", "") == f"(1|{coding.group})"


def tested_column(coding: Coding, test: TestSpec) -> tuple[str, str]:
    """Annotation behind the tested coefficients and what its levels are compared with, for scanpy's plots."""
    if is_random_term(test, coding):
        return coding.group, "no variance"
    hypotheses = hypotheses_of(coding, test)
    touched = [any(np.abs(h.L[:, columns]).max() > 0 for h in hypotheses) for columns in coding.terms.values()]
    terms = [term for term, hit in zip(coding.terms, touched, strict=True) if hit and term != "Intercept"]
    factor = next((f for f in (coding.factor_of(term) for term in terms) if f is not None), None)
    if factor is None:
        return terms[0].strip("`"), "zero slope"
    if isinstance(test, str) and "cond(" not in test:
        return factor, coding.levels[factor][0]
    return factor, "contrast"


def hypotheses_of(coding: Coding, test: TestSpec) -> list[Hypothesis]:
    """Hypotheses that `test` asks for, the first being the one that is shown first."""
    if isinstance(test, str):
        return [contrast_hypothesis(coding, test, test)] if "cond(" in test else term_hypotheses(coding, test)
    if not test:
        msg = f"test is empty. {alternatives('', _testable(coding))}"
        raise DesignError(msg)
    if isinstance(test, Mapping):
        return [contrast_hypothesis(coding, name, expression) for name, expression in test.items()]
    return [joint_hypothesis(coding, list(test))]


def term_hypotheses(coding: Coding, test: str) -> list[Hypothesis]:
    """Hypotheses of a fixed-effect term: jointly first if it has several coefficients, then one by one."""
    term = find_term(coding, test)
    columns = coding.terms[term]
    eye = np.eye(len(coding.coef_names))[columns]
    names = [_comparison_name(name, term) for name in coding.coef_names[columns]]
    single = [Hypothesis(name, row[None, :]) for name, row in zip(names, eye, strict=True)]
    joint = term.strip("`") if term.strip("`") not in names else f"{term} (all levels)"
    return single if len(single) == 1 else [Hypothesis(joint, eye), *single]


def joint_hypothesis(coding: Coding, tests: list[str]) -> Hypothesis:
    """All coefficients of several terms are zero."""
    terms = [find_term(coding, test) for test in dict.fromkeys(tests)]
    eye = np.eye(len(coding.coef_names))
    return Hypothesis(" + ".join(terms), np.concatenate([eye[coding.terms[term]] for term in terms]))


class Combination:
    """A linear combination of conditions: rows of X that can be added, subtracted, and multiplied by numbers."""

    def __init__(self, row: Array, written: tuple[tuple[float, Mapping[str, Any]], ...]) -> None:
        self.row, self.written = row, written

    def __add__(self, other: Combination) -> Combination:
        """Sum of two combinations."""
        if not isinstance(other, Combination):
            return NotImplemented
        return Combination(self.row + other.row, self.written + other.written)

    def __sub__(self, other: Combination) -> Combination:
        """Difference of two combinations."""
        return self + -other if isinstance(other, Combination) else NotImplemented

    def __mul__(self, number: float) -> Combination:
        """Multiply by a number."""
        if not isinstance(number, int | float):
            return NotImplemented
        written = tuple((weight * float(number), where) for weight, where in self.written)
        return Combination(self.row * float(number), written)

    __rmul__ = __mul__

    def __truediv__(self, number: float) -> Combination:
        """Divide by a number."""
        return self * (1 / number)

    def __neg__(self) -> Combination:
        """Turn the sign."""
        return self * -1


def contrast_hypothesis(coding: Coding, name: str, expression: str) -> Hypothesis:
    """One linear combination of the expected expression under conditions, e.g. ``cond(a='x') - cond(a='y')``."""
    how = "Add, subtract and scale conditions, for example \"cond(diagnosis='AD') - cond(diagnosis='control')\"."
    try:
        value = eval(expression, {"__builtins__": {}}, {"cond": lambda **where: condition(coding, where)})
    except (ArithmeticError, AttributeError, LookupError, NameError, SyntaxError, TypeError) as error:
        msg = f"contrast {expression!r} cannot be read: {error}. {how}"
        raise DesignError(msg) from error
    if not isinstance(value, Combination) or not np.isfinite(value.row).all():
        msg = f"contrast {expression!r} is not a combination of conditions. {how}"
        raise DesignError(msg)
    if np.abs(value.row).max() < 1e-12:
        msg = (
            f"contrast {expression!r} is zero for every coefficient: its conditions are coded alike. Columns not named "
            f"in cond() are at their reference level or 0; name the ones that should differ."
        )
        raise DesignError(msg)
    return Hypothesis(name, value.row[None, :], value.written)


def condition(coding: Coding, where: Mapping[str, Any]) -> Combination:
    """Row of X for a condition; columns that are not named are as usual: at their reference level, or 0 for numbers."""
    variables = coding.formula.variables
    known: dict[str, Any] = {}
    for name, value in where.items():
        if name not in variables:
            msg = f"cond({name}=...) names a column that is not in the formula. {alternatives(name, variables)}"
            raise DesignError(msg)
        known[name] = _level(coding, name, value) if name in coding.levels else _number(name, value)
    return Combination(condition_rows(coding, [known])[0], ((1.0, known),))


def condition_rows(coding: Coding, conditions: Sequence[Mapping[str, Any]]) -> Array:
    """Rows of X for conditions whose levels exist, (len(conditions), p)."""
    data = pd.DataFrame(index=range(len(conditions)))
    for name in coding.formula.variables:
        levels, usual = coding.levels.get(name), condition_values(coding, name)[0]
        values = [condition.get(name, usual) for condition in conditions]
        data[name] = pd.Categorical(values, categories=list(levels)) if levels else values
    context = group_transforms(pd.Series(["a new level"] * len(conditions)))
    with np.errstate(all="ignore"):  # log(0): a row that is not finite is no condition, which is said where it matters
        return np.asarray(coding.spec.get_model_matrix(data, context=context).to_numpy(dtype=np.float64))


def condition_values(coding: Coding, name: str) -> tuple[Any, ...]:
    """What a column may be in a condition, the usual one first: its levels, also those of ``C(number)``, or 0 and 1."""
    if name in coding.levels:
        return coding.levels[name]
    factors = [factor.expr for factor, variables in coding.spec.factor_variables.items() if name in map(str, variables)]
    states = [coding.spec.encoder_state.get(expression, (None, {}))[1] for expression in factors]
    return next((tuple(state["categories"]) for state in states if "categories" in state), (0.0, 1.0))


def _level(coding: Coding, name: str, value: object) -> str:
    if str(value) not in coding.levels[name]:
        found = alternatives(str(value), coding.levels[name])
        msg = f"cond({name}={value!r}): no cell has this level, so it is not estimable. {found}"
        raise DesignError(msg)
    return str(value)


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float):
        msg = f"cond({name}={value!r}): {name!r} is numeric. Give a number."
        raise DesignError(msg)
    return float(value)


def find_term(coding: Coding, test: str) -> str:
    """Name of the term as the design writes it, or an error that lists the terms."""
    wanted = _factors(str(test))
    for term in _testable(coding):
        if _factors(term) == wanted:
            _check_coding(coding, term)
            return term
    what = "the random grouping, not a fixed effect" if wanted == _factors(coding.group) else "not a fixed-effect term"
    msg = f"test={test!r} is {what} of {coding.formula.text!r}. {alternatives(str(test), _testable(coding))}"
    raise DesignError(msg)


def _factors(term: str) -> list[str]:
    """Factors of a term without blanks, in one order: a:b is b:a."""
    return sorted(factor.strip("`") for factor in re.sub(r"\s", "", term).split(":"))


def check_marginal(coding: Coding, term: str, purpose: str) -> None:
    """Refuse what has no meaning for a term that is part of an interaction, whose columns would keep it."""
    inside = [other for other in coding.terms if other != term and set(_factors(term)) < set(_factors(other))]
    if inside:
        msg = f"Term {term!r} is part of the interaction {inside[0]!r} and cannot be {purpose}. Start from a formula without it."
        raise DesignError(msg)


def _testable(coding: Coding) -> list[str]:
    return [term for term in coding.terms if term != "Intercept"]


def _check_coding(coding: Coding, term: str) -> None:
    """Refuse a term that holds the constant: without it the model would say that expression is zero."""
    if coding.constant is not None and np.any(np.abs(coding.constant[coding.terms[term]]) > 1e-9):
        msg = (
            f"Without an intercept the coefficients of {term!r} are group means, and testing that they are all zero is "
            f"not a comparison of groups. Remove '0 +' or '- 1' from the formula."
        )
        raise DesignError(msg)


def _comparison_name(coefficient: str, term: str) -> str:
    level = re.fullmatch(re.escape(term) + r"\[T\.(.*)\]", coefficient)
    return level.group(1) if level else coefficient.strip("`")
