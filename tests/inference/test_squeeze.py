"""Squeezed variances: a prior that is known, limma's answers, and what must not change them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions

from sc_lmm._design.model_matrix import build_design
from sc_lmm._inference.fitted import LmmFit
from sc_lmm._inference.squeeze import squeeze
from sc_lmm._statistics import sufficient_statistics

LIMMA = Path(__file__).parents[1] / "reference" / "limma_moderation.csv"


def variances(seed: int, df: np.ndarray, df0: float, s0: float | np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(seed)
    true = s0 * df0 / rng.chisquare(df0, df.size)
    return true * rng.chisquare(df) / df


@pytest.mark.parametrize("df0", [2.0, 4.6, 20.0])
@pytest.mark.parametrize("s0", [1e-4, 3.0])
def test_a_known_prior_is_recovered(df0, s0):
    df = np.full(20_000, 8.0)
    prior = squeeze(variances(0, df, df0, s0), df, None)
    np.testing.assert_allclose(np.median(prior.df0), df0, rtol=0.2)
    np.testing.assert_allclose(np.median(prior.s0_squared), s0, rtol=0.05)


def test_a_known_prior_is_recovered_from_unequal_degrees_of_freedom():
    df = np.random.default_rng(1).uniform(2, 30, 20_000)
    prior = squeeze(variances(1, df, 5.0, 0.7), df, None)
    np.testing.assert_allclose(np.median(prior.df0), 5.0, rtol=0.2)
    np.testing.assert_allclose(np.median(prior.s0_squared), 0.7, rtol=0.05)


def test_a_trend_in_mean_expression_is_followed():
    rng = np.random.default_rng(2)
    mean, df = rng.exponential(1, 10_000), np.full(10_000, 10.0)
    s0 = np.exp(-1 + 1.5 * np.tanh(mean))
    variance = variances(3, df, 6.0, s0)
    trended, flat = squeeze(variance, df, mean), squeeze(variance, df, None)
    middle = (distributions.rankdata(mean) > 500) & (distributions.rankdata(mean) < 9_500)
    np.testing.assert_allclose(trended.s0_squared[middle], s0[middle], rtol=0.15)
    np.testing.assert_allclose(np.median(trended.df0), 6.0, rtol=0.2)
    assert np.median(flat.df0) < 0.8 * np.median(trended.df0)


def test_degrees_of_freedom_that_follow_the_mean_make_no_trend():
    # The log of an estimate on few degrees of freedom is low on average, which is not a lower variance.
    rng = np.random.default_rng(12)
    mean = rng.exponential(1, 10_000)
    df = 2 + 20 * distributions.rankdata(mean) / 10_000
    prior = squeeze(variances(13, df, 8.0, 1.0), df, mean)
    np.testing.assert_allclose(prior.s0_squared[(df > 3) & (df < 21)], 1.0, rtol=0.2)


def test_variances_alike_in_all_genes_are_pooled():
    df = np.full(5_000, 6.0)
    variance = 2.0 * np.random.default_rng(4).chisquare(df) / df
    prior = squeeze(variance, df, None)
    assert np.median(prior.df0) > 100
    np.testing.assert_allclose(np.median(prior.variance), 2.0, rtol=0.05)


def test_squeezed_variance_is_the_weighted_mean_of_smyth():
    df = np.random.default_rng(5).uniform(3, 9, 2_000)
    variance = variances(5, df, 4.0, 1.0)
    prior = squeeze(variance, df, None)
    expected = (prior.df0 * prior.s0_squared + df * variance) / (prior.df0 + df)
    np.testing.assert_allclose(prior.variance, expected, rtol=1e-12)
    np.testing.assert_allclose(prior.df, df + prior.df0, rtol=1e-12)


def test_limma_finds_the_same_prior():
    # limma matches moments of log variances, we the middle quartiles, so that a few hypervariable genes do not matter:
    # of 2,000 genes each estimates df0 to about 15 %. Its posterior is that of an equal prior for all genes.
    for _, case in pd.read_csv(LIMMA).groupby("case"):
        variance, df = case["variance"].to_numpy(), case["df"].to_numpy(dtype=float)
        prior = squeeze(variance, df, None)
        np.testing.assert_allclose(np.median(prior.df0), case["limma_df0"].iloc[0], rtol=0.3)
        np.testing.assert_allclose(np.median(prior.s0_squared), case["limma_s0"].iloc[0], rtol=0.1)
        regular = prior.df0 > 0.8 * prior.df0.max()
        assert regular.mean() > 0.95
        np.testing.assert_allclose(prior.variance[regular], case["limma_squeezed"][regular], rtol=0.15)
        df0, s0 = case["limma_df0"], case["limma_s0"]
        np.testing.assert_allclose((df0 * s0 + df * variance) / (df0 + df), case["limma_squeezed"], rtol=1e-6)


def test_a_few_hypervariable_genes_keep_their_own_variance_and_leave_the_prior_alone():
    df = np.full(5_000, 8.0)
    variance = variances(6, df, 10.0, 1.0)
    clean = squeeze(variance, df, None)
    variance[:25] *= 1e4
    prior = squeeze(variance, df, None)
    np.testing.assert_allclose(np.median(prior.df0), np.median(clean.df0), rtol=0.05)
    assert (prior.df0[:25] < 0.1 * np.median(prior.df0)).all()
    assert (prior.variance[:25] > 0.9 * variance[:25]).all()
    assert (prior.df0[25:] > 0.5 * np.median(prior.df0)).mean() > 0.98


def test_units_and_order_do_not_matter():
    df = np.random.default_rng(7).uniform(3, 9, 3_000)
    mean = np.random.default_rng(8).exponential(size=3_000)
    variance = variances(7, df, 4.0, 1 + mean)
    prior, scaled = squeeze(variance, df, mean), squeeze(1e6 * variance, df, 5 + 1e-3 * mean)
    np.testing.assert_allclose(scaled.variance, 1e6 * prior.variance, rtol=1e-4)
    np.testing.assert_allclose(scaled.df, prior.df, rtol=1e-3)
    order = np.random.default_rng(9).permutation(3_000)
    shuffled = squeeze(variance[order], df[order], mean[order])
    np.testing.assert_allclose(shuffled.variance, prior.variance[order], rtol=1e-6)
    np.testing.assert_allclose(shuffled.df, prior.df[order], rtol=1e-6)


def test_too_few_genes_and_genes_without_a_variance_are_left_alone():
    variance, df = np.array([1.0, 2.0, 3.0]), np.full(3, 5.0)
    few = squeeze(variance, df, None)
    np.testing.assert_array_equal(few.variance, variance)
    np.testing.assert_array_equal(few.df, df)
    df = np.full(500, 6.0)
    variance = variances(10, df, 4.0, 1.0)
    whole = squeeze(np.concatenate([variance, [np.nan, 0.0]]), np.concatenate([df, [6.0, np.nan]]), None)
    np.testing.assert_array_equal(whole.variance[:500], squeeze(variance, df, None).variance)
    assert np.isnan(whole.variance[500])


# ------------------------------------------------------------------------------------- through the fitted object


@pytest.fixture(scope="module")
def fit() -> LmmFit:
    rng = np.random.default_rng(11)
    donor = np.repeat(np.arange(9), 12)
    obs = pd.DataFrame(
        {
            "sample_id": pd.Categorical(donor.astype(str)),
            "x": rng.normal(size=donor.size),
            "stage": pd.Categorical(np.array(["a", "b", "c"])[donor % 3]),
        }
    )
    sd = np.sqrt(0.5 * 5 / rng.chisquare(5, 600))
    Y = rng.normal(size=(donor.size, 600)) + rng.normal(size=(9, 600))[donor] * sd + rng.uniform(0, 3, 600)
    Y[:, 7] = 1.0
    design = build_design("~ x + stage + (1 | sample_id)", obs)
    names = pd.RangeIndex(600).astype(str)
    return LmmFit(design.coding, sufficient_statistics(Y, design), names, show_progress=False)


@pytest.mark.parametrize("method", ["between-within", "satterthwaite", "kenward-roger"])
def test_moderated_t_has_the_squeezed_variance_of_the_contrast(fit, method):
    plain = fit.test("stage", method=method).tables["b"]
    table = fit.test("stage", method=method, moderate=True).tables["b"]
    prior = squeeze(plain["se"].to_numpy() ** 2, plain["df"].to_numpy(), fit.stats.mean)
    found = plain["pvals"].notna().to_numpy()
    assert found.sum() == 599
    np.testing.assert_allclose(table["se"][found] ** 2, prior.variance[found], rtol=1e-10)
    np.testing.assert_allclose(table["df"][found], prior.df[found], rtol=1e-10)
    np.testing.assert_array_equal(table["coef"], plain["coef"])
    t = (table["coef"] / table["se"])[found]
    np.testing.assert_allclose(table["pvals"][found], 2 * distributions.t.sf(np.abs(t), table["df"][found]), rtol=1e-9)
    assert table["pvals"].isna().tolist() == plain["pvals"].isna().tolist()


def test_moderated_F_gains_degrees_of_freedom(fit):
    plain, table = (fit.test("stage", method="between-within", moderate=m).table for m in (False, True))
    found = plain["pvals"].notna()
    assert (table["df"] >= plain["df"])[found].all()
    assert (table["df"] > plain["df"] + 1)[found].mean() > 0.9
    expected = distributions.f.sf(table["scores"], 2, table["df"])[found]
    np.testing.assert_allclose(table["pvals"][found], expected, rtol=1e-9)


def test_moderation_of_an_infinite_number_of_degrees_of_freedom_changes_nothing(fit):
    plain, table = (fit.test("x", method="wald", moderate=m).table for m in (False, True))
    pd.testing.assert_frame_equal(table, plain)
