"""Fits and coefficients against the closed form, and against scipy's multivariate normal density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats as distributions

from .exact import RHO, Likelihood
from .matrices import N_GENES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .draw import Case

    Array = NDArray[Any]

EXPLAINED = 1e-9  # of a gene's length: no variation that the model does not explain


@dataclass(frozen=True)
class Gene:
    """A fit that lme4 is asked for too."""

    number: int
    gene: int
    where: str  # full or null
    likelihood: Likelihood
    loglik: float  # ours


def tolerance(loglik: Any) -> Any:
    """How far log-likelihoods may differ."""
    return np.maximum(1e-6, 1e-9 * np.abs(loglik))


def doubt(exact: Likelihood, rho: float) -> float:
    """What the rounding of the columns themselves leaves unknown of a residual, as a share of it.

    A direction of which a share s is left beside others is known to eps / s, and donors that are sqrt(1 + rho) times as
    far apart as cells make as much more of it.
    """
    return float(4 * np.finfo(np.float64).eps * np.sqrt(1 + rho) / exact.condition)


def compare_fit(outcome: Any, exact: Likelihood, fit: Any, determinant: float, *, reml: bool, where: str) -> None:
    """Each gene's log-likelihood is the exact one at its rho, and no rho has a higher one."""
    grid = np.array([exact.deviance(rho, reml=reml) for rho in RHO], dtype=np.longdouble)
    for g in range(exact.Y.shape[1]):
        name = f"{where} {'REML' if reml else 'ML'}, gene {g}"
        if not fit.usable[g]:
            _check_reason(outcome, exact, fit, g, name)
            continue
        ours = float(fit.loglik[g])
        rho = float(fit.rho[g])
        loglik = -float(exact.deviance(rho, reml=reml, genes=[g])[0] + determinant) / 2
        outcome.figures["fits compared with closed forms"] += 1
        if not abs(ours - loglik) <= tolerance(loglik) + len(exact.codes) * doubt(exact, rho):
            outcome.fail("log-likelihood is not the exact one", f"{name}: {ours!r}, exact {loglik!r} at rho {rho:g}")
        near = [exact.deviance(rho * by, reml=reml, genes=[g])[0] for by in (0.9, 0.99, 1.01, 1.1)] if rho > 0 else []
        best = -float(min([*grid[:, g], *near]) + determinant) / 2
        if best > ours + tolerance(ours):
            outcome.fail("a higher log-likelihood on the grid", f"{name}: {ours!r}, found {best!r}, rho {rho:g}")
        if not reml and g < 2:
            outcome.genes.append(Gene(outcome.number, g, where, exact, ours))


def _check_reason(outcome: Any, exact: Likelihood, fit: Any, g: int, name: str) -> None:
    """A gene without a fit has no variation within donors, or none that the model does not explain."""
    outcome.figures["genes without a fit"] += 1
    y = exact.Y[:, g]
    donors = exact.rest(1e18)[0][:, g]
    cells = exact.rest(0.0)[0][:, g]
    least = min(np.sqrt(donors @ donors), np.sqrt(cells @ cells)) / np.sqrt(
        np.maximum(y @ y, np.finfo(np.longdouble).tiny)
    )
    if least > EXPLAINED:
        outcome.fail("a gene that can be fitted was not", f"{name}: status {fit.status[g]}, {float(least):g} left")


def compare_dense(outcome: Any, case: Case, fit: Any, design: Any) -> None:
    """The density of the multivariate normal at our estimates, where doubles can form the covariance."""
    Z = (design.random.codes[:, None] == np.arange(len(design.random.levels))).astype(float)
    relative = np.ones(len(Z)) if design.random.weights is None else design.random.weights
    ml = fit.ml
    for g in np.flatnonzero(ml.usable & (ml.rho < 1e4))[:1]:
        scale = np.sqrt(ml.sigma2[g])
        mean = design.X @ ml.beta[g]
        beyond = np.abs(design.X * ml.beta[g]).max() / scale
        if beyond > 1e6:
            continue
        V = np.diag(1 / relative) + ml.rho[g] * Z @ Z.T
        density = distributions.multivariate_normal(np.zeros(len(Z)), V).logpdf((case.Y[:, g] - mean) / scale)
        loglik = density - len(Z) * np.log(scale)
        outcome.figures["densities of scipy"] += 1
        if not abs(loglik - ml.loglik[g]) <= 10 * tolerance(loglik):
            outcome.fail("log-likelihood is not scipy's density", f"gene {g}: {ml.loglik[g]!r}, density {loglik!r}")


def compare_slope(outcome: Any, full: Likelihood, null: Likelihood, case: Case, table: Any, fit: Any) -> None:
    """The coefficient of a number, given the others, and its standard error in units of sigma."""
    order = np.argsort(np.unique(case.codes, return_inverse=True)[1], kind="stable")
    x = case.centred(case.terms[case.tested[0]].spans[0][case.kept])[order]
    unit = np.abs(x).max()
    for g in np.flatnonzero((table["pvals"].notna() & fit.usable)[:N_GENES])[:2]:
        slope, length = null.slope(x / unit, float(fit.rho[g]), int(g))
        se = float(np.sqrt(fit.sigma2[g]) / (length * float(unit)))
        found = float(table["coef"].iloc[g])
        outcome.figures["coefficients compared"] += 1
        if not abs(found - slope / float(unit)) <= (1e-5 + doubt(full, float(fit.rho[g]))) * se + 1e-7 * abs(found):
            outcome.fail(
                "coefficient is not the exact one", f"gene {g}: {found!r}, exact {slope / float(unit)!r}, se {se!r}"
            )
