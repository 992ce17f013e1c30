"""What a fitted object does whatever its model: speaks its cautions once, finds its genes, goes into a file and comes back."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._design import check_marginal, find_term
from .._errors import DesignError, alternatives, warn
from . import storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import pandas as pd

    from .._design import Coding, TestSpec
    from .summary import TestResult


class FittedGenes:
    """Base of :class:`LmmFit` and :class:`CountFit`, which have the fields named here and a ``test`` of their own."""

    coding: Coding
    var_names: pd.Index
    cautions: Callable[[Coding, TestSpec], Iterable[str]] | None  # what to warn of when a test is asked for
    test: Callable[..., TestResult]

    def contrast(self, contrast: str | dict[str, str], **choices: Any) -> TestResult:
        """Test contrasts of conditions, e.g. ``"cond(diagnosis='AD') - cond(diagnosis='control')"``."""
        return self.test(contrast, **choices)

    def warn(self, test: TestSpec) -> None:
        """Warn, once for this fit, of what changes the meaning of the p-values of a test."""
        for sentence in self.cautions(self.coding, test) if self.cautions else ():
            warn(sentence)

    def save(self, path: str | Path) -> None:
        """Write the statistics and the coding, from which every answer follows, to a file."""
        storage.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a fit that :meth:`save` wrote. Nothing that the file holds is run."""
        fit: Self = storage.load(path, cls)
        fit.coding.check_code()
        return fit

    def _repr_html_(self) -> str:
        lines = [escape(line.strip()) for line in repr(self).splitlines()]
        return f"<b>{lines[0]}</b><br>" + "<br>".join(lines[1:])

    def _without(self, term: str) -> tuple[str, Coding, list[int]]:
        """Name of a fixed-effect term, the coding without it, and the coefficients that stay."""
        name = find_term(self.coding, term)
        check_marginal(self.coding, name, "dropped")
        coding = self.coding.without(name)
        if not coding.coef_names:
            msg = f"Term {name!r} is the only fixed effect, and a model has one at least. Fit a formula with an intercept."
            raise DesignError(msg)
        return name, coding, [self.coding.coef_names.index(c) for c in coding.coef_names]

    def _position(self, gene: str) -> int:
        found = np.flatnonzero(self.var_names == gene)
        if found.size == 0:
            msg = f"gene {gene!r} is not among the {len(self.var_names)} fitted genes. {alternatives(gene, self.var_names)}"
            raise KeyError(msg)
        return int(found[0])
