"""Expression of any scale, mean and ratio of donors to cells: the fit is the closed form of the balanced one-way layout.

With m donors of k cells, S_w and S_b the sums of squares within and between donors, and M = m (ML) or m - 1 (REML),

    sigma^2 = S_w / (m (k - 1)),   sigma^2 + k sigma_u^2 = S_b / M     if the second is the larger, else sigma_u = 0
    -2 log L = (m k - m + M) log 2 pi + m (k - 1) (log sigma^2 + 1) + M (log(S_b / M) + 1)   (+ log m k for REML)

in exact rational arithmetic, so that the sums of squares are those of the doubles given.
"""

from __future__ import annotations

import math
import subprocess
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import sparse

from sc_lmm._design.model_matrix import build_design
from sc_lmm._model import STATUS, Fit, fit_models
from sc_lmm._statistics import sufficient_statistics

if TYPE_CHECKING:
    from pathlib import Path

M, K = 7, 9
DONOR = np.repeat(np.arange(M), K)
OBS = pd.DataFrame({"donor": pd.Categorical([f"d{j}" for j in DONOR])})
quick = settings(deadline=None, max_examples=60, derandomize=True)


def fit(y: np.ndarray, *, reml: bool, formula: str = "~ 1 + (1 | donor)", obs: pd.DataFrame = OBS) -> Fit:
    design = build_design(formula, obs)
    stats = sufficient_statistics(y, design, show_progress=False)
    return fit_models([stats], design.coef_names, reml=reml, show_progress=False)[0]


def exact(y: np.ndarray, *, reml: bool) -> tuple[float, float, float]:
    """Standard deviations of cells and donors, and the deviance."""
    values = [[Fraction(float(v)) for v in y[j == DONOR]] for j in range(M)]
    means = [sum(row) / K for row in values]
    grand = sum(means) / M
    within = sum((v - mean) ** 2 for row, mean in zip(values, means, strict=True) for v in row)
    between = K * sum((mean - grand) ** 2 for mean in means)
    df = M - 1 if reml else M
    cells, donors = within / (M * (K - 1)), between / df
    if donors < cells:
        cells = donors = (within + between) / (M * (K - 1) + df)
    deviance = (M * (K - 1) + df) * np.log(2 * np.pi) + M * (K - 1) * (log(cells) + 1) + df * (log(donors) + 1)
    return root(cells), root((donors - cells) / K), deviance + (np.log(M * K) if reml else 0)


def log(x: Fraction) -> float:
    return math.log(x.numerator) - math.log(x.denominator)


def root(x: Fraction) -> float:
    """Square root of a number whose value may lie outside the range of doubles."""
    exponent = (x.denominator.bit_length() - x.numerator.bit_length()) // 2 if x else 0
    return math.ldexp(math.sqrt(x * Fraction(4) ** exponent), -exponent)


@st.composite
def genes(draw: st.DrawFn) -> np.ndarray:
    """Donors from alike to 1e6 times as far apart as their cells, about a mean of up to 1e9 times their spread, scaled."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ratio = draw(st.sampled_from([0.0]) | st.floats(-3, 6).map(lambda x: 10.0**x))
    mean = draw(st.sampled_from([0.0]) | st.floats(-9, 9).map(lambda x: np.sign(x) * 10.0 ** abs(x)))
    y = mean + ratio * rng.normal(size=M)[DONOR] + rng.normal(size=M * K)
    return 10.0 ** draw(st.floats(-150, 150)) * (y / np.abs(y).max())


def assert_is_exact(found: Fit, y: np.ndarray) -> None:
    cells, donors, deviance = exact(y, reml=found.reml)
    assert STATUS[found.status[0]] == ("ok" if donors > 0 else "boundary")
    np.testing.assert_allclose(np.sqrt(found.sigma2[0]), cells, rtol=1e-9)
    np.testing.assert_allclose(found.sd_random[0], donors, rtol=1e-6, atol=1e-5 * cells)
    np.testing.assert_allclose(found.deviance[0], deviance, rtol=0, atol=1e-7)


@pytest.mark.parametrize("reml", [False, True])
@quick
@given(genes())
def test_every_scale_mean_and_ratio(reml, y):
    assert_is_exact(fit(y[:, None], reml=reml), y)


@pytest.mark.parametrize("layout", [np.asfortranarray, sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("ratio", [0.5, 1e4])
def test_every_layout_and_genes_beside_others(layout, ratio):
    rng = np.random.default_rng(3)
    Y = rng.normal(size=(M * K, 8)) + ratio * rng.normal(size=(M, 8))[DONOR]
    Y[:, 1::2] += 1e8 * np.arange(1, 5)
    Y[DONOR == 2, 4] = 0.0  # a donor without the gene
    Y[rng.random(M * K) < 0.5, 6] = 0.0
    found = fit(layout(Y), reml=True)
    for g in range(8):
        one = fit(Y[:, [g]], reml=True)
        assert_is_exact(one, Y[:, g])
        np.testing.assert_allclose(found.deviance[g], one.deviance[0], rtol=1e-12)


@pytest.mark.parametrize("reml", [False, True])
def test_a_model_without_an_intercept_keeps_the_digits_of_a_large_mean(reml):
    """The same model as with one, but X' is not told that it is."""
    rng = np.random.default_rng(0)
    obs = OBS.assign(arm=np.where(DONOR % 2, "a", "b"), x=rng.normal(size=M * K))
    Y = rng.normal(size=(M * K, 5)) + 0.3 * rng.normal(size=(M, 5))[DONOR] + np.array([0.0, 1e3, 1e5, 1e7, 1e8])
    with_one = fit(Y, reml=reml, formula="~ arm + x + (1 | donor)", obs=obs)
    without = fit(Y, reml=reml, formula="~ 0 + arm + x + (1 | donor)", obs=obs)
    np.testing.assert_allclose(without.deviance, with_one.deviance, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(without.status, with_one.status)


@pytest.mark.parametrize("mean", [1e3, 1e5, 1e7])
def test_a_mean_that_the_model_cannot_give_is_part_of_the_donors(mean):
    # Exact: y' V^-1 y of `0 + x` by rational arithmetic at the rho found, x being without a mean in any donor.
    rng = np.random.default_rng(1)
    x = np.tile(np.linspace(-4, 4, K), M)
    y = mean + rng.normal(size=M * K) + 0.1 * x
    found = fit(y[:, None], reml=False, formula="~ 0 + x + (1 | donor)", obs=OBS.assign(x=x))
    X, exact_y = [Fraction(v) for v in x.tolist()], [Fraction(v) for v in y.tolist()]
    slope = sum(a * b for a, b in zip(X, exact_y, strict=True)) / sum(a * a for a in X)
    residual = np.array([b - slope * a for a, b in zip(X, exact_y, strict=True)]).reshape(M, K)
    means = residual.sum(axis=1) / K
    within, between = ((residual - means[:, None]) ** 2).sum(), K * (means**2).sum()
    cells, donors = within / (M * (K - 1)), between / M
    deviance = M * K * (np.log(2 * np.pi) + 1) + M * (K - 1) * log(cells) + M * log(donors)
    np.testing.assert_allclose(found.deviance[0], deviance, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.beta[0, 0], float(slope), rtol=1e-12)


def test_donors_that_arms_part_exactly_have_a_null_fit():
    """Donor means are the arm's, so the full model is at the boundary and the null model far beyond any grid."""
    pattern = np.tile(np.array([-4, -3, -2, -1, 0, 1, 2, 3, 4.0]), M)
    arm = (DONOR % 2).astype(float)
    obs = OBS.assign(arm=arm)
    for distance in (1.0, 2.0**20, 2.0**36):
        y = pattern + distance * arm
        full = fit(y[:, None], reml=False, formula="~ arm + (1 | donor)", obs=obs)
        assert STATUS[full.status[0]] == "boundary"
        np.testing.assert_allclose(full.sigma2[0], (pattern**2).mean(), rtol=1e-9)
        np.testing.assert_allclose(full.beta[0, 1], distance, rtol=1e-12)
        assert_is_exact(fit(y[:, None], reml=False), y)


def status_of(*genes: np.ndarray, formula: str = "~ x + arm + (1 | donor)") -> list[str]:
    x = np.random.default_rng(7).normal(size=M * K)
    obs = OBS.assign(arm=np.where(DONOR % 2, "a", "b"), x=x)
    found = {reml: fit(np.column_stack(genes), reml=reml, formula=formula, obs=obs) for reml in (False, True)}
    np.testing.assert_array_equal(found[False].status > 1, found[True].status > 1)
    for one in found.values():
        for name in ("deviance", "sigma2", "rho", "beta", "se"):
            values = getattr(one, name).reshape(len(genes), -1)
            np.testing.assert_array_equal(np.isfinite(values).all(axis=1), one.usable, err_msg=name)
    return [STATUS[code] for code in found[True].status]


@settings(quick, max_examples=15)
@given(st.floats(-150, 150))
@example(0.0)
def test_a_gene_that_cannot_be_fitted_says_why(exponent):
    rng = np.random.default_rng(8)
    x = np.random.default_rng(7).normal(size=M * K)
    scale = 10.0**exponent
    constant, donors = np.full(M * K, 0.1 * scale), scale * rng.normal(size=M)[DONOR]
    assert status_of(0 * x, constant, -constant) == ["constant"] * 3
    assert status_of(donors, 2 + 3 * x, scale * x + donors) == ["failed"] * 3
    tiny = 1e-9 * scale * rng.normal(size=M * K)
    assert not {"constant", "failed"} & set(status_of(constant + tiny, donors + tiny, scale * x + donors + tiny))


SCRIPT = """
suppressMessages(library(lme4))
d <- read.csv("cells.csv")
control <- lmerControl(optCtrl = list(ftol_abs = 1e-14, xtol_abs = 1e-14, maxeval = 1e5))
for (gene in c("alike", "apart", "far", "high")) for (fixed in c("x + arm", "x")) {
  f <- as.formula(paste(gene, "~", fixed, "+ (1 | donor)"))
  m <- suppressMessages(suppressWarnings(lmer(f, d, REML = FALSE, control = control)))
  cat(sprintf("%.17g", as.numeric(logLik(m))), sprintf("%.17g", sigma(m)), "\n")
}
"""


@pytest.mark.r
def test_far_donors_and_high_means_are_those_of_lme4(tmp_path: Path):
    rng = np.random.default_rng(9)
    obs = OBS.assign(arm=np.where(DONOR % 2, "a", "b"), x=rng.normal(size=M * K))
    u, e = rng.normal(size=M)[DONOR], rng.normal(size=M * K)
    genes = {"alike": e, "apart": u + e, "far": 1e4 * u + e, "high": 1e8 + u / 2 + e}
    obs.assign(**genes).to_csv(tmp_path / "cells.csv", index=False, float_format="%.17g")
    (tmp_path / "script.R").write_text(SCRIPT)
    printed = subprocess.run(["Rscript", "script.R"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    expected = np.array(printed.split(), dtype=float).reshape(4, 2, 2)
    for k, fixed in enumerate(("x + arm", "x")):
        ours = fit(np.column_stack(list(genes.values())), reml=False, formula=f"~ {fixed} + (1 | donor)", obs=obs)
        # lme4 searches a standard deviation; where it stops short, ours is the higher likelihood.
        np.testing.assert_allclose(ours.loglik, expected[:, k, 0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.sqrt(ours.sigma2), expected[:, k, 1], rtol=1e-5)
