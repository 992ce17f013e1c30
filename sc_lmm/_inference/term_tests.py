"""t and F tests of restricted estimates under any random terms: Satterthwaite and Kenward-Roger.

As :mod:`sc_lmm._inference.degrees_of_freedom`, which has them in closed form for one random intercept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._model import BOUNDARY, for_blocks, gene_blocks, moments_at
from .degrees_of_freedom import FTest, _combine, _kenward_roger_moments, _quadratic
from .variance_parameters import VarianceParameters, variance_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .._model import Structure, TermFit
    from .._statistics import SufficientStatistics
    from .base_estimates import Workers

    Array = NDArray[np.float64]


class Contrast(NamedTuple):
    """A contrast of G genes, in standardised columns."""

    L: Array  # (q, p) L @ basis
    coef: Array  # (G, q)
    parameters: VarianceParameters
    boundary: NDArray[np.bool_]  # (G,)


def contrast_of(stats: SufficientStatistics, structure: Structure, fit: TermFit, L: Array) -> Contrast:
    """What both need of a block of genes; those without estimates have the matrices of phi = 0, and NaN for results."""
    usable = fit.usable
    phi, sigma2 = np.where(usable[:, None], fit.phi, 0.0), np.where(usable, fit.sigma2, 1.0)
    parameters = variance_parameters(moments_at(structure, stats, phi), phi, sigma2, stats.n_cells)
    coef = np.where(usable[:, None], fit.beta @ L.T, np.nan)
    return Contrast(L @ stats.basis, coef, parameters, fit.status == BOUNDARY)


def f_test_in_blocks(
    stats: SufficientStatistics, structure: Structure, fit: TermFit, L: Array, method: str, workers: Workers
) -> FTest:
    """Satterthwaite's or Kenward and Roger's test of L beta, for genes in blocks: their matrices are many."""
    test = term_satterthwaite if method == "satterthwaite" else term_kenward_roger
    per_gene = ("beta", "vcov", "phi", "sigma2", "deviance", "status")
    blocks = gene_blocks(stats.n_genes, len(stats.coordinates_X))
    arguments = (
        (test, stats.genes(b), structure, replace(fit, **{name: getattr(fit, name)[b] for name in per_gene}), L)
        for b in blocks
    )
    parts = for_blocks(_test_block, arguments, n_blocks=len(blocks), **workers.choices, doing="testing")
    return FTest(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _test_block(
    test: Callable[[Contrast], FTest], stats: SufficientStatistics, structure: Structure, fit: TermFit, L: Array
) -> FTest:
    return test(contrast_of(stats, structure, fit, L))


def term_satterthwaite(block: Contrast) -> FTest:
    """Match the moments of the variance of each independent contrast; the harmonic rule of lmerTest for several.

    The information is the observed one, and the expected one at a boundary or where the observed one is not positive.
    """
    L, of = block.L, block.parameters
    vcov = L @ of.Phi @ L.T
    variances, vectors = np.linalg.eigh(vcov)
    contrasts = np.swapaxes(vectors, 1, 2) @ L  # (G, q, p) rows are independent contrasts
    to_variance = contrasts @ of.Phi
    gradient = -np.einsum("gqi,gcij,gqj->gqc", to_variance, of.P, to_variance)
    positive = np.linalg.eigvalsh(_scaled(of.observed))[:, 0] > 0
    use_observed = positive & ~block.boundary
    cov = _inverse(np.where(use_observed[:, None, None], of.observed, of.expected))
    df = _combine(2 * variances**2 / np.einsum("gqi,gij,gqj->gq", gradient, cov, gradient))
    return FTest(_quadratic(block.coef, vcov) / len(L), np.where(np.isnan(block.coef[:, 0]), np.nan, df), vcov)


def term_kenward_roger(block: Contrast) -> FTest:
    """Adjusted covariance and the F approximation of Kenward & Roger 1997, as in pbkrtest."""
    L, of, q = block.L, block.parameters, len(block.L)
    cov = _inverse(of.expected)
    Phi, P = of.Phi, of.P
    inner = np.einsum("gcd,gcdij->gij", cov, of.Q) - np.einsum("gcd,gcij,gjk,gdkl->gil", cov, P, Phi, P, optimize=True)
    adjusted = L @ (Phi + 2 * Phi @ inner @ Phi) @ L.T
    Theta = L.T @ np.linalg.inv(L @ Phi @ L.T) @ L
    T = Theta[:, None] @ Phi[:, None] @ P @ Phi[:, None]
    trace = np.einsum("gcii->gc", T)
    A1 = np.einsum("gcd,gc,gd->g", cov, trace, trace)
    A2 = np.einsum("gcd,gcij,gdji->g", cov, T, T, optimize=True)
    df, scale = _kenward_roger_moments(A1, A2, q)
    df = np.where(np.isnan(block.coef[:, 0]), np.nan, df)
    return FTest(scale * _quadratic(block.coef, adjusted) / q, df, adjusted)


def _scaled(information: Array) -> Array:
    scale = np.sqrt(np.abs(np.diagonal(information, axis1=1, axis2=2)))
    scale = np.where(scale > 0, scale, 1.0)
    return information / scale[:, :, None] / scale[:, None, :]


def _inverse(information: Array) -> Array:
    """Inverse in units in which the diagonal is 1; without the directions of which the data know nothing."""
    scale = np.sqrt(np.abs(np.diagonal(information, axis1=1, axis2=2)))
    scale = np.where(scale > 0, scale, 1.0)
    inverse = np.linalg.pinv(_scaled(information), rcond=1e-12, hermitian=True)
    return inverse / scale[:, :, None] / scale[:, None, :]
