"""The `test` argument -> null hypotheses L beta = 0, each a full-rank matrix L (df, p) in the user's coefficients."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from ._errors import DesignError, alternatives

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._design import Design
    from ._statistics import SufficientStatistics

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Hypothesis:
    """One question: is L beta zero?"""

    name: str  # the level, column or term that the comparison is called after
    L: Array  # (df, p)

    @property
    def df(self) -> int:
        """Constraints."""
        return self.L.shape[0]


def term_hypotheses(design: Design, test: str) -> list[Hypothesis]:
    """Hypotheses of a fixed-effect term: jointly first if it has several coefficients, then one by one."""
    term = find_term(design, test)
    columns = design.terms[term]
    eye = np.eye(design.X.shape[1])[columns]
    names = [_comparison_name(name, term) for name in design.coef_names[columns]]
    single = [Hypothesis(name, row[None, :]) for name, row in zip(names, eye, strict=True)]
    return single if len(single) == 1 else [Hypothesis(term.strip("`"), eye), *single]


def find_term(design: Design, test: str) -> str:
    """Name of the term as the design writes it, or an error that lists the terms."""
    wanted = re.sub(r"\s", "", str(test)).strip("`")
    for term in design.terms:
        if re.sub(r"\s", "", term).strip("`") == wanted and term != "Intercept":
            _check_coding(design, term)
            return term
    names = [term for term in design.terms if term != "Intercept"]
    if wanted == design.random.name:
        msg = f"test={test!r} is the random grouping, not a fixed effect. {alternatives(str(test), names)}"
    else:
        msg = f"test={test!r} is not a fixed-effect term of {design.formula.text!r}. {alternatives(str(test), names)}"
    raise DesignError(msg)


def null_model(stats: SufficientStatistics, hypothesis: Hypothesis) -> SufficientStatistics:
    """Statistics of the model in which the hypothesis holds: beta in the null space of L."""
    return stats.restrict(linalg.null_space(hypothesis.L @ stats.basis))


def _check_coding(design: Design, term: str) -> None:
    factor = design.factor_of(term)
    columns = design.terms[term]
    if factor is not None and columns.stop - columns.start == len(design.data[factor].cat.categories):
        msg = (
            f"Without an intercept the coefficients of {term!r} are group means, and testing that they are all zero is "
            f"not a comparison of groups. Remove '0 +' or '- 1' from the formula."
        )
        raise DesignError(msg)


def _comparison_name(coefficient: str, term: str) -> str:
    level = re.fullmatch(re.escape(term) + r"\[T\.(.*)\]", coefficient)
    return level.group(1) if level else coefficient.strip("`")
