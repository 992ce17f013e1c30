"""What a person reads: the result of a test, and one gene's model."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._model import STATUS
from .._words import counted, unit

if TYPE_CHECKING:
    from .._design import Coding
    from .random_effect import AnyFit

_SHOWN = 10
_SHOWN_COLUMNS = (
    "coef",
    "se",
    "ci_low",
    "ci_high",
    "scores",
    "df",
    "pvals",
    "pvals_adj",
    "icc",
    "dispersion",
    "status",
)


@dataclass(frozen=True)
class TestResult:
    """Tables of one call of ``LmmFit.test``, a row per gene in the order of the matrix."""

    tables: dict[str, pd.DataFrame]  # comparison -> results; the first is the joint test of a factor
    method: str
    moderated: bool = False  # p-values use what all genes say of the variances of one

    @property
    def table(self) -> pd.DataFrame:
        """The first comparison."""
        return next(iter(self.tables.values()))

    def top(self, n: int = _SHOWN, comparison: str | None = None) -> pd.DataFrame:
        """The genes with the smallest p-values."""
        table = self.table if comparison is None else self.tables[comparison]
        return table.sort_values("log10_pvals", kind="stable").head(n)

    def __repr__(self) -> str:
        """Show the top genes of each comparison."""
        parts = [f"{self._title(name)}\n{self._view(name).to_string()}" for name in self.tables]
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        return "".join(f"<p><b>{escape(self._title(name))}</b></p>{self._view(name).to_html()}" for name in self.tables)

    def _title(self, name: str) -> str:
        found = int((self.tables[name]["pvals_adj"] < 0.05).sum())
        method = f"{self.method}, moderated" if self.moderated else self.method
        return f"{name} ({method}): {found} of {len(self.tables[name])} genes at an adjusted p-value below 0.05"

    def _view(self, name: str) -> pd.DataFrame:
        table = self.top(comparison=name)
        table = table[[column for column in _SHOWN_COLUMNS if column in table]]
        return table.dropna(axis=1, how="all")


@dataclass(frozen=True)
class GeneSummary:
    """One gene's model in the layout of lme4's ``summary``."""

    gene: str
    formula: str
    group: str
    fixed: pd.DataFrame  # a row per coefficient: estimate, se, t (REML)
    random: dict[str, float]  # standard deviations and correlations of the random terms
    sd_residual: float
    icc: float
    loglik: float  # maximum likelihood
    loglik_reml: float
    status: str
    ranef: pd.DataFrame  # a row per level

    @classmethod
    def of(
        cls, gene: str, ml: AnyFit, reml: AnyFit, coding: Coding, random: dict[str, Any], ranef: pd.DataFrame
    ) -> GeneSummary:
        """Summary from one-gene fits, and what there is to say of their random terms."""
        estimates = {"estimate": reml.beta[0], "se": reml.se[0], "t": reml.beta[0] / reml.se[0]}
        return cls(
            gene=gene,
            formula=coding.formula.text,
            group=coding.group,
            fixed=pd.DataFrame(estimates, index=list(coding.coef_names)),
            random={
                name: float(values[0]) for name, values in random.items() if not isinstance(values, pd.Categorical)
            },
            sd_residual=float(np.sqrt(reml.sigma2[0])),
            icc=float(reml.icc[0]),
            loglik=float(ml.loglik[0]),
            loglik_reml=float(reml.loglik[0]),
            status=STATUS[int(reml.status[0])],
            ranef=ranef,
        )

    def __repr__(self) -> str:
        """Print as lme4 does."""
        effects = self.ranef["effect"]
        return (
            f"{self.gene}: {self.formula}\n"
            f"log-likelihood {self.loglik:.4f} (ML), {self.loglik_reml:.4f} (REML); status {self.status}\n\n"
            f"Random effects (REML)\n"
            f"{self._random_lines()}"
            f"  {'residual':<24} sd {self.sd_residual:.5g}\n"
            f"  share between {self.group} (ICC) {self.icc:.3g}\n\n"
            f"Fixed effects (REML)\n{self.fixed.to_string(float_format='{:.5g}'.format)}\n\n"
            f"{self._n_effects()}" + _range(effects)
        )

    @property
    def sd_random(self) -> float:
        """Standard deviation of the first random term."""
        return next(iter(self.random.values()))

    def _random_lines(self) -> str:
        if len(self.random) == 1:
            return f"  {self.group:<24} sd {self.sd_random:.5g}\n"
        named = ((name.split("_", 1), value) for name, value in self.random.items())
        return "".join(f"  {what:<24} {kind} {value:.5g}\n" for (kind, what), value in named)

    def _n_effects(self) -> str:
        if self.ranef.index.nlevels == 1:
            return unit(self.group, len(self.ranef))
        return counted(len(self.ranef), "random effect")

    def _repr_html_(self) -> str:
        head, *_ = repr(self).split("Fixed effects")
        return f"<pre>{escape(head)}</pre>{self.fixed.to_html(float_format='{:.5g}'.format)}{self.ranef.to_html()}"


def _range(effects: pd.Series) -> str:
    if effects.isna().all():
        return ", no effects: the gene could not be fitted"
    return f", effects from {effects.min():.4g} ({effects.idxmin()}) to {effects.max():.4g} ({effects.idxmax()})"
