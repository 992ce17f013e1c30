"""The default test through the fitted object: its level, and what it must not depend on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions

from cohorts import donor_means, fitted
from sc_lmm._inference import LmmFit, moderation
from sc_lmm._inference.moderation import at_support, moderated_test
from sc_lmm._inference.prior import ENOUGH_GENES, FEWEST_GENES

N_GENES = 400


def cohort(seed: int = 0, n_genes: int = N_GENES, n_donors: int = 8) -> tuple[np.ndarray, pd.DataFrame]:
    """Expression of genes of varied rho in unbalanced donors, none of them changed."""
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(n_donors), rng.integers(6, 30, n_donors))
    obs = pd.DataFrame({"donor": pd.Categorical(donor.astype(str)), "group": np.where(donor % 2, "b", "a")})
    rho = rng.choice([0.0, 0.05, 0.6], n_genes)
    Y = rng.normal(size=(donor.size, n_genes)) + np.sqrt(rho) * rng.normal(size=(n_donors, n_genes))[donor]
    return Y + rng.uniform(0, 4, n_genes), obs


def default(Y: np.ndarray, obs: pd.DataFrame) -> LmmFit:
    return fitted(Y, obs, "~ group + (1 | donor)")


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, pd.DataFrame]:
    return cohort()


@pytest.fixture(scope="module")
def table(data) -> pd.DataFrame:
    return default(*data).test("group").table


def columns(table: pd.DataFrame) -> pd.DataFrame:
    return table[["coef", "se", "ci_low", "ci_high", "log10_pvals", "icc_moderated"]]


# ------------------------------------------------------------------------------- what must not change a bit


def test_the_order_of_genes_changes_no_bit(data, table):
    Y, obs = data
    order = np.random.default_rng(1).permutation(N_GENES)
    shuffled = default(Y[:, order], obs).test("group").table
    np.testing.assert_array_equal(columns(shuffled), columns(table).iloc[order])


@pytest.mark.parametrize("size", [1, 7, 150])
def test_the_size_of_blocks_changes_no_bit(data, table, monkeypatch, size):
    monkeypatch.setattr(
        moderation, "gene_blocks", lambda n, *_: [slice(k, min(k + size, n)) for k in range(0, n, size)]
    )
    np.testing.assert_array_equal(columns(default(*data).test("group").table), columns(table))


def test_the_number_of_workers_changes_no_bit(data, table, monkeypatch):
    monkeypatch.setattr(moderation, "gene_blocks", lambda n, *_: [slice(k, min(k + 100, n)) for k in range(0, n, 100)])
    two = replace(default(*data), n_jobs=2)
    np.testing.assert_array_equal(columns(two.test("group").table), columns(table))


def test_other_genes_matter_through_the_prior_alone(data, table):
    Y, obs = data
    fit, some = default(Y, obs), np.arange(0, N_GENES, 2)
    hypothesis = fit._hypotheses("group")[0]
    learned = fit.estimates.moderation
    genes = at_support(fit.stats.genes(some), fit.estimates.restricted.genes(some), learned, hypothesis.L)
    alone = moderated_test(genes, replace(learned, rank=learned.rank[some]), conf_level=None)
    np.testing.assert_array_equal(alone.log_pval / np.log(10), table["log10_pvals"].iloc[some])
    subset = default(Y[:, some], obs).test("group").table
    np.testing.assert_allclose(subset["lrt"], table["lrt"].iloc[some], rtol=1e-9, atol=1e-9)
    change = np.abs(subset["log10_pvals"].to_numpy() - table["log10_pvals"].to_numpy()[some])
    assert 0 < change.max() < 0.5


# -------------------------------------------------------------------------------------------------- level


def test_changed_genes_leave_null_genes_alone():
    """30 % of the genes change by many standard errors, and the others keep their level, prior and p-values."""
    rng, n_genes = np.random.default_rng(2), 3_000
    rho = rng.choice([0.01, 0.1, 1.0], n_genes)
    means = np.sqrt(rho + 1 / 50) * rng.standard_normal((8, n_genes)) + rng.uniform(0, 3, n_genes)
    rest, null = rng.chisquare(8 * 49, n_genes), np.arange(n_genes) >= 0.3 * n_genes
    half = np.repeat([-0.5, 0.5], 4)[:, None]  # the mean expression stays, and with it the rank
    effect = np.where(null, 0.0, 8 * np.sqrt(rho + 1 / 50) * rng.choice([-1, 1], n_genes))
    without, with_changed = (donor_means(m, 50, rest).pvals("group") for m in (means, means + half * effect))
    assert (with_changed[~null] < 1e-4).mean() > 0.8
    error = np.sqrt(0.05 * 0.95 / null.sum())
    assert abs((with_changed[null] < 0.05).mean() - (without[null] < 0.05).mean()) < 0.5 * error
    np.testing.assert_allclose(with_changed[null], without[null], rtol=1e-6)


@pytest.mark.parametrize("n_donors", [4, 8])
def test_null_genes_of_unbalanced_donors_are_rejected_as_often_as_they_should_be(n_donors):
    """4,000 genes, Monte-Carlo error .0034; tests/benchmarks/calibration.py is the whole study."""
    Y, obs = cohort(3, 4_000, n_donors)
    p = default(Y, obs).pvals("group")
    assert 0.040 < (p < 0.05).mean() < 0.062
    assert (p < 0.001).mean() <= 0.003
    assert (default(Y, obs).pvals("group", calibrate=False) < 0.05).mean() > 0.065  # what a chi-square makes of it


# ---------------------------------------------------------------------------------------- beyond the points


def far_gene(n_genes: int = 6_001) -> tuple[LmmFit, int]:
    """Genes of n rho about 5, and one of 10^5 that is not among those that the prior is learned from."""
    rng, n_cells = np.random.default_rng(4), 1_000
    means = np.sqrt(6 / n_cells) * rng.standard_normal((12, n_genes)) + rng.uniform(1, 3, n_genes)
    outlier = int(np.argsort(means.mean(axis=0))[n_genes // 2 + 1])
    z = rng.standard_normal(12)
    z += np.repeat([-0.5, 0.5], 6) * (1.2 - (z[6:].mean() - z[:6].mean()))  # 1.2 apart, with a t of about 2
    means[:, outlier] = means[:, outlier].mean() + 10 * (z - z.mean())
    return donor_means(means, n_cells, rng.chisquare(12 * (n_cells - 1), n_genes)), outlier


def test_a_gene_beyond_all_others_is_not_called_for_want_of_a_point():
    fit, outlier = far_gene()
    stats, learned = fit.stats, fit.estimates.moderation
    chosen = moderation.chosen_genes(stats.mean, stats.yty, fit.ml.usable)
    assert outlier not in chosen
    y = stats.ZtY[:, outlier]
    exact = distributions.ttest_ind(y[:6], y[6:]).pvalue
    assert 0.02 < exact < 0.2
    assert learned.rho[-1] >= fit.reml.rho[outlier] > 10
    assert 0.3 * exact < fit.pvals("group")[outlier] < 3 * exact

    # What it would be if points ended beyond the genes that were chosen, and not beyond all.
    kept = learned.rho <= 4 * fit.reml.rho[chosen].max()
    weights = learned.prior.weights[:, kept]
    short = replace(
        learned,
        rho=learned.rho[kept],
        icc=learned.icc[kept],
        prior=replace(learned.prior, weights=weights / weights.sum(axis=1, keepdims=True)),
    )
    hypothesis = fit._hypotheses("group")[0]
    truncated = moderated_test(at_support(stats, fit.estimates.restricted, short, hypothesis.L), short, conf_level=None)
    assert truncated.log_pval[outlier] < np.log(1e-6)


# --------------------------------------------------------------------------------------------- what is odd


def test_constant_genes_have_no_p_value_and_do_not_count(data, table):
    Y, obs = data
    wider = default(np.column_stack([Y, np.ones((len(Y), 5))]), obs).test("group").table
    assert wider["pvals"].iloc[N_GENES:].isna().all()
    assert wider["icc_moderated"].iloc[N_GENES:].isna().all()
    np.testing.assert_array_equal(columns(wider).iloc[:N_GENES], columns(table))


def test_all_genes_constant():
    _, obs = cohort()
    fit = default(np.ones((len(obs), 300)), obs)
    assert fit.test("group").table["pvals"].isna().all()
    with pytest.raises(ValueError, match=rf"needs at least {FEWEST_GENES} genes that can be fitted; there are 0"):
        fit.test("group", moderate=True)


@pytest.mark.parametrize("n_genes", [1, FEWEST_GENES - 1])
def test_too_few_genes_are_refused_with_the_number_that_is_needed(n_genes):
    Y, obs = cohort(5, n_genes)
    with pytest.raises(ValueError, match=rf"at least {FEWEST_GENES} genes .* there are {n_genes}\. Test more genes"):
        default(Y, obs).test("group", moderate=True)
    result = default(Y, obs).test("group")  # unasked, the ratio is calibrated for itself
    assert not result.moderated
    assert result.table["calibration"].notna().all()


@pytest.mark.parametrize("n_genes", [FEWEST_GENES, 50, ENOUGH_GENES - 1])
def test_few_genes_are_moderated_if_asked(n_genes):
    fit = default(*cohort(6, n_genes))
    assert not fit.test("group").moderated
    result = fit.test("group", moderate=True)
    assert result.moderated
    assert result.table["pvals"].between(0, 1).all()
    assert result.table["ci_low"].lt(result.table["ci_high"]).all()


def test_enough_genes_are_moderated_unasked():
    assert default(*cohort(6, ENOUGH_GENES)).test("group").moderated
    assert not default(*cohort(6, ENOUGH_GENES)).test("group", calibrate=False).moderated


def test_genes_without_donor_variance_have_a_prior_at_zero():
    """P-values are then near those of cells that are independent, and intervals near theirs."""
    rng = np.random.default_rng(7)
    means = rng.standard_normal((12, 2_000)) / np.sqrt(200) + rng.uniform(0, 3, 2_000)
    fit = donor_means(means, 200, rng.chisquare(12 * 199, 2_000))
    learned = fit.estimates.moderation
    assert learned.prior.weights[:, 200 * learned.rho < 0.5].sum(axis=1).mean() > 0.9
    p = fit.pvals("group")
    assert 0.038 < (p < 0.05).mean() < 0.062
    z = (means[6:].mean(axis=0) - means[:6].mean(axis=0)) / np.sqrt(2 / 1_200)
    assert np.corrcoef(np.log(p), distributions.norm.logsf(np.abs(z)))[0, 1] > 0.995


def test_three_donors_in_all():
    """One direction is left to tell the variance between donors; all genes together tell it well enough."""
    rng = np.random.default_rng(8)
    donor = np.repeat(np.arange(3), [20, 30, 25])
    obs = pd.DataFrame({"donor": pd.Categorical(donor.astype(str)), "group": np.array(["a", "b", "a"])[donor]})
    Y = rng.normal(size=(donor.size, 3_000)) + np.sqrt(0.1) * rng.normal(size=(3, 3_000))[donor]
    result = default(Y, obs).test("group")
    assert result.moderated
    assert 0.035 < (result.table["pvals"] < 0.05).mean() < 0.065


def test_estimates_and_limits_do_not_care_for_units(data, table):
    Y, obs = data
    scaled = default(1e3 * Y - 7, obs).test("group").table
    for name in ("coef", "se", "ci_low", "ci_high"):
        np.testing.assert_allclose(scaled[name], 1e3 * table[name], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scaled["log10_pvals"], table["log10_pvals"], rtol=1e-6)
    np.testing.assert_allclose(scaled["icc_moderated"], table["icc_moderated"], rtol=1e-6)


def test_several_degrees_of_freedom_have_p_values_and_no_limits():
    rng = np.random.default_rng(9)
    Y, obs = cohort(9, 300, 9)
    obs["stage"] = np.array(list("abc"))[rng.permutation(9)[obs["donor"].astype(int)] % 3]
    result = fitted(Y, obs, "~ stage + (1 | donor)").test("stage")
    joint, level = result.table, result.tables["b"]
    assert joint["df"].eq(2).all()
    assert joint[["coef", "se", "ci_low"]].isna().all(axis=None)
    np.testing.assert_array_equal(joint["icc_moderated"], level["icc_moderated"])  # of the full model in both
    evidence = joint["scores"].to_numpy()
    np.testing.assert_allclose(distributions.chi2.sf(evidence, 2), joint["pvals"], rtol=1e-8)
