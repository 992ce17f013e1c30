"""Simulated data: the promised truth is in the numbers, and what must not depend on diagnosis does not."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import stats

import sc_lmm.datasets
from sc_lmm.datasets import _brain_cohort, brain_cohort, confounding_example

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def cohort() -> ad.AnnData:
    return brain_cohort(16, 4_000, 500, seed=1)


@pytest.fixture(scope="module")
def plain() -> ad.AnnData:
    """Without effects of donors and cell types, and with large changes in half of the genes."""
    return brain_cohort(12, 6_000, 300, seed=2, prop_changed=0.5, log_fold_change=(1, 3), donor_sd=0, cell_type_sd=0)


def donor_frame(adata: ad.AnnData) -> pd.DataFrame:
    return adata.obs.drop_duplicates("sample_id").set_index("sample_id").sort_index()


def donor_sums(adata: ad.AnnData) -> NDArray[np.float64]:
    """Counts summed over the cells of each donor, (n_donors, n_genes)."""
    donors = pd.get_dummies(adata.obs["sample_id"], dtype=float).to_numpy()
    return donors.T @ adata.layers["counts"].toarray().astype(float)


def arm_shares(adata: ad.AnnData) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of every gene in the counts of the diseased and of the control cells."""
    diseased = (adata.obs["diagnosis"] == "Alzheimer").to_numpy()
    sums = [adata.layers["counts"][cells].toarray().sum(axis=0, dtype=float) for cells in (diseased, ~diseased)]
    return sums[0] / sums[0].sum(), sums[1] / sums[1].sum()


def moderate(adata: ad.AnnData, least: float = 0.5) -> NDArray[np.bool_]:
    return (adata.var["mean"] > least).to_numpy()


def test_slots_have_the_promised_shapes_and_types(cohort: ad.AnnData) -> None:
    assert cohort.shape == (4_000, 500)
    for matrix in (cohort.X, cohort.layers["counts"]):
        assert sp.issparse(matrix)
        assert matrix.format == "csr"
        assert matrix.dtype == np.float32
        assert matrix.indices.dtype == np.int32
        assert (matrix.data > 0).all()
        assert sp.csr_matrix((matrix.data, matrix.indices, matrix.indptr), matrix.shape).has_canonical_format
    assert (cohort.layers["counts"].data % 1 == 0).all()
    assert list(cohort.var) == ["changed", "log_fold_change", "donor_sd", "dispersion", "mean"]
    assert cohort.obs.notna().all(axis=None)
    assert cohort.obs_names.is_unique
    assert cohort.var_names.is_unique


def test_x_is_scanpys_log_normalisation_of_the_counts(cohort: ad.AnnData) -> None:
    sc = pytest.importorskip("scanpy")
    expected = ad.AnnData(cohort.layers["counts"].copy())
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    np.testing.assert_allclose(cohort.X.toarray(), expected.X.toarray(), rtol=1e-5)
    assert cohort.uns["log1p"] == expected.uns["log1p"]


def test_x_and_counts_share_no_memory(cohort: ad.AnnData) -> None:
    counts = cohort.layers["counts"]
    for name in ("data", "indices", "indptr"):
        assert not np.shares_memory(getattr(cohort.X, name), getattr(counts, name))


# anndata 0.13 reads an option that pandas 3.1 deprecates
@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")
def test_survives_h5ad(cohort: ad.AnnData, tmp_path: Path) -> None:
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    back = ad.read_h5ad(tmp_path / "cohort.h5ad")
    pd.testing.assert_frame_equal(back.obs, cohort.obs, check_index_type=False, check_categorical=False)
    pd.testing.assert_frame_equal(back.var, cohort.var, check_index_type=False)
    assert (back.X != cohort.X).nnz == 0


@pytest.mark.parametrize(("mean", "dispersion"), [(0.02, 0.5), (0.5, 4.0), (3.0, 0.1), (40.0, 0.3)])
def test_counts_follow_the_negative_binomial_distribution(mean: float, dispersion: float) -> None:
    n = 200_000
    position, values = _brain_cohort._draw_nonzero(
        np.random.default_rng(3), np.full((1, n), mean), np.array([[dispersion]])
    )
    counts = np.zeros(n, dtype=int)
    counts[position] = values
    upto = np.arange(200)
    observed = np.searchsorted(np.sort(counts), upto, side="right") / n
    expected = stats.nbinom.cdf(upto, 1 / dispersion, 1 / (1 + dispersion * mean))
    # 2.2 / sqrt(n) is the 0.9999 quantile of the Kolmogorov distance of n draws
    assert np.abs(observed - expected).max() < 2.2 / np.sqrt(n)


def test_fold_changes_are_recovered(plain: ad.AnnData) -> None:
    diseased, control = arm_shares(plain)
    changed = moderate(plain) & plain.var["changed"].to_numpy()
    assert changed.sum() > 30
    truth = plain.var["log_fold_change"].to_numpy()[changed]
    estimate = np.log2(diseased[changed] / control[changed])
    np.testing.assert_allclose(estimate, truth, atol=0.3)
    slope, intercept = np.polyfit(truth, estimate, 1)
    assert slope == pytest.approx(1, abs=0.02)
    assert intercept == pytest.approx(0, abs=0.05)


def test_one_changed_gene_is_recovered_by_monte_carlo() -> None:
    ratios = []
    for seed in range(40):
        adata = brain_cohort(8, 400, 60, seed=seed, prop_changed=0.2, donor_sd=0.2)
        diseased, control = arm_shares(adata)
        gene = adata.var["mean"].where(adata.var["changed"]).argmax()
        ratios.append(np.log2(diseased[gene] / control[gene]) - adata.var["log_fold_change"].iloc[gene])
    assert abs(np.mean(ratios)) < 4 * stats.sem(ratios)
    assert stats.sem(ratios) < 0.15


def test_share_of_changed_genes_and_their_sizes() -> None:
    var = brain_cohort(2, 2, 1_000, prop_changed=0.2, log_fold_change=(0.5, 0.8)).var
    size = var["log_fold_change"].abs()
    assert var["changed"].sum() == 200
    assert (size[~var["changed"]] == 0).all()
    assert size[var["changed"]].between(0.5, 0.8).all()
    assert (var["log_fold_change"] > 0).sum() == 100
    # where a gene stands in the table must not give it away
    assert stats.kstest(np.flatnonzero(var["changed"]) / 1_000, "uniform").pvalue > 1e-4


def test_without_changes_no_gene_is_changed() -> None:
    adata = brain_cohort(4, 40, 30, prop_changed=0)
    assert not adata.var["changed"].any()
    assert (adata.var["log_fold_change"] == 0).all()


def test_normalisation_moves_no_null_gene(plain: ad.AnnData) -> None:
    """Half of the genes change up to eightfold, yet the others keep their share of the counts."""
    diseased, control = arm_shares(plain)
    null = ~plain.var["changed"].to_numpy()
    assert 0.2 < control[null].sum() < 0.8
    assert diseased[null].sum() == pytest.approx(control[null].sum(), rel=0.02)
    log_ratio = np.log(diseased / control)[null & moderate(plain)]
    assert len(log_ratio) > 30
    assert np.median(log_ratio) == pytest.approx(0, abs=0.02)


def test_null_genes_are_null_over_donors() -> None:
    adata = brain_cohort(40, 4_000, 400, seed=5)
    sums = donor_sums(adata)
    null = moderate(adata) & ~adata.var["changed"].to_numpy()
    shares = np.log((sums[:, null] + 0.5) / sums.sum(axis=1, keepdims=True))
    diseased = (donor_frame(adata)["diagnosis"] == "Alzheimer").to_numpy()
    t = stats.ttest_ind(shares[diseased], shares[~diseased]).statistic
    assert null.sum() > 100
    assert np.mean(t) == pytest.approx(0, abs=1)  # not 0.2: the chance of the donors' totals is common to all genes
    assert np.mean(np.abs(t) > stats.t.ppf(0.975, 38)) < 0.11
    changed = moderate(adata) & (adata.var["log_fold_change"].abs() > 1).to_numpy()
    assert changed.sum() >= 5
    shares = np.log((sums[:, changed] + 0.5) / sums.sum(axis=1, keepdims=True))
    assert np.median(np.abs(stats.ttest_ind(shares[diseased], shares[~diseased]).statistic)) > 4


def test_donor_effects_have_the_promised_standard_deviation() -> None:
    adata = brain_cohort(60, 12_000, 200, seed=6, prop_changed=0, cell_type_sd=0, donor_sd=0.4)
    sums = donor_sums(adata)
    genes = moderate(adata, least=2)
    logs = np.log(sums[:, genes] / sums.sum(axis=1, keepdims=True))
    truth = adata.var["donor_sd"].to_numpy()[genes]
    logs -= np.median(logs[:, truth < 0.2], axis=1, keepdims=True)  # what the total of the donor does to every gene
    observed = logs.std(axis=0, ddof=1)
    assert (truth == 0).sum() >= 3
    assert observed[truth == 0].max() < 0.2
    large = truth > 0.3
    assert large.sum() > 10
    assert np.mean(observed[large] / truth[large]) == pytest.approx(1, abs=0.1)


def test_some_genes_have_no_donor_variance() -> None:
    sd = brain_cohort(2, 2, 4_000, donor_sd=0.3).var["donor_sd"]
    assert np.mean(sd == 0) == pytest.approx(0.15, abs=0.03)
    assert sd[sd > 0].mean() == pytest.approx(0.3, abs=0.02)
    assert sd[sd > 0].std() > 0.1


def test_means_and_dispersions_are_the_counts_own(plain: ad.AnnData) -> None:
    """Depth is recovered from the total count, as the genes are independent given depth."""
    counts = plain.layers["counts"].toarray().astype(float)
    depth = counts.sum(axis=1) / 6_000
    null = ~plain.var["changed"].to_numpy() & moderate(plain)
    mean = counts[:, null].sum(axis=0) / depth.sum()
    np.testing.assert_allclose(mean, plain.var["mean"][null], rtol=0.15)
    expected = mean * depth[:, None]
    dispersion = ((counts[:, null] - expected) ** 2 - expected).sum(axis=0) / (expected**2).sum(axis=0)
    assert stats.spearmanr(dispersion, plain.var["dispersion"][null]).statistic > 0.9


@pytest.mark.parametrize("sd", [0.0, 0.4])
def test_cell_types_differ_only_as_asked(monkeypatch: pytest.MonkeyPatch, sd: float) -> None:
    monkeypatch.setattr(_brain_cohort, "_BLOCK_ENTRIES", 1)  # one gene per block, each with its own effects
    adata = brain_cohort(20, 6_000, 200, seed=7, prop_changed=0, donor_sd=0, cell_type_sd=sd)
    neuron = (adata.obs["cell_type"] == "excitatory neuron").to_numpy()
    counts = adata.layers["counts"].toarray().astype(float)[:, moderate(adata, least=2)]
    shares = [counts[cells].sum(axis=0) / counts[cells].sum() for cells in (neuron, ~neuron)]
    spread = np.std(np.log(shares[0] / shares[1]))
    assert spread < 0.06 if sd == 0 else 0.3 < spread < 0.6


def test_shares_of_cell_types_vary_over_donors(cohort: ad.AnnData) -> None:
    table = pd.crosstab(cohort.obs["sample_id"], cohort.obs["cell_type"])
    assert table.shape == (16, 5)
    assert stats.chi2_contingency(table).pvalue < 1e-6


def test_same_seed_same_data() -> None:
    first, again, other = (brain_cohort(4, 200, 100, seed=seed) for seed in (8, 8, 9))
    assert (first.X != again.X).nnz == 0
    pd.testing.assert_frame_equal(first.obs, again.obs)
    pd.testing.assert_frame_equal(first.var, again.var)
    assert (first.X != other.X).nnz > 0
    assert not first.var.equals(other.var)
    assert not first.obs.equals(other.obs)


@pytest.mark.parametrize("entries", [1, 6_000 * 7])
def test_blocks_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    """One gene per block, and blocks that do not divide the genes evenly."""
    monkeypatch.setattr(_brain_cohort, "_BLOCK_ENTRIES", entries)
    adata = brain_cohort(12, 6_000, 50, seed=2, prop_changed=0, donor_sd=0, cell_type_sd=0)
    mean = adata.layers["counts"].toarray().mean(axis=0)
    genes = moderate(adata, least=1)
    assert genes.sum() > 10
    between_genes = np.corrcoef(adata.X.toarray()[:, genes], rowvar=False) - np.eye(genes.sum())
    assert np.abs(between_genes).max() < 0.4  # blocks do not repeat one another's random numbers
    np.testing.assert_allclose(
        mean[genes] / mean[genes].sum(), adata.var["mean"][genes] / adata.var["mean"][genes].sum(), rtol=0.1
    )


def test_library_sizes() -> None:
    adata = brain_cohort(20, 4_000, 1_000, seed=10, library_size=3_000)
    total = pd.Series(np.asarray(adata.layers["counts"].sum(axis=1)).ravel(), index=adata.obs_names)
    assert total.median() == pytest.approx(3_000, rel=0.2)
    assert total.quantile(0.95) / total.quantile(0.05) > 3
    donor_median = np.log(total).groupby(adata.obs["sample_id"], observed=True).median()
    assert 0.12 < donor_median.std() < 0.5


def test_density_with_many_genes() -> None:
    counts = brain_cohort(6, 150, 36_000, seed=11).layers["counts"]
    assert 0.06 < counts.nnz / np.prod(counts.shape) < 0.11


def test_donors_are_unbalanced_and_cells_not_sorted(cohort: ad.AnnData) -> None:
    sizes = cohort.obs["sample_id"].value_counts()
    assert sizes.sum() == 4_000
    assert sizes.min() >= 4_000 // 160
    assert sizes.max() > 2 * sizes.min()
    codes = cohort.obs["sample_id"].cat.codes.to_numpy()
    assert np.mean(codes[1:] == codes[:-1]) < 0.3


def test_donor_columns_are_constant_within_donor(cohort: ad.AnnData) -> None:
    per_donor = cohort.obs.groupby("sample_id", observed=True).nunique()
    assert list(per_donor.index) == [f"donor_{j:02d}" for j in range(1, 17)]
    assert (per_donor[["diagnosis", "age", "sex", "batch"]] == 1).all(axis=None)
    assert (per_donor[["sequencing_saturation", "cell_type"]] > 1).all(axis=None)
    for name in ("sample_id", "diagnosis", "sex", "batch", "cell_type"):
        assert isinstance(cohort.obs[name].dtype, pd.CategoricalDtype)
    assert list(cohort.obs["diagnosis"].cat.categories) == ["control", "Alzheimer"]


@pytest.mark.parametrize(
    ("n_donors", "prop_diseased", "n_diseased"),
    [(2, 0.5, 1), (4, 0.5, 2), (6, 0.5, 3), (24, 0.5, 12), (24, 0.25, 6), (5, 0.01, 1), (5, 0.99, 4), (120, 0.5, 60)],
)
def test_arms_and_batches(n_donors: int, prop_diseased: float, n_diseased: int) -> None:
    donors = donor_frame(brain_cohort(n_donors, n_donors, 3, prop_diseased=prop_diseased))
    table = pd.crosstab(donors["batch"], donors["diagnosis"])
    assert len(donors) == n_donors
    assert table["Alzheimer"].sum() == n_diseased
    assert (table > 0).all(axis=None)
    assert len(table) == {1: 1, 2: 2, 3: 2, 6: 3}.get(min(n_diseased, n_donors - n_diseased), 4)


def test_odd_donors_are_split_as_evenly_as_possible() -> None:
    donors = donor_frame(brain_cohort(7, 70, 3))
    assert sorted(donors["diagnosis"].value_counts()) == [3, 4]


def test_sequencing_saturation(cohort: ad.AnnData) -> None:
    saturation = cohort.obs["sequencing_saturation"]
    assert saturation.between(0, 1, inclusive="neither").all()
    logit = np.log(saturation / (1 - saturation))
    log_total = np.log(np.asarray(cohort.layers["counts"].sum(axis=1)).ravel())
    assert 0.3 < np.corrcoef(logit, log_total)[0, 1] < 0.95
    beyond_depth = logit - np.polyval(np.polyfit(log_total, logit, 1), log_total)
    donor_mean = beyond_depth.groupby(cohort.obs["sample_id"], observed=True).transform("mean")
    assert donor_mean.std() > 0.15
    assert (beyond_depth - donor_mean).std() > 0.15


def test_smallest_cohorts_work() -> None:
    assert brain_cohort(2, 2, 1, library_size=1).shape == (2, 1)
    adata = brain_cohort(5, 5, 10, prop_changed=1)
    assert adata.obs["sample_id"].is_unique
    assert adata.var["changed"].all()
    assert np.isfinite(adata.var.drop(columns="changed")).all(axis=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_donors": 1}, r"n_donors must be an integer of at least 2, found 1\."),
        ({"n_donors": 6.5}, r"n_donors must be an integer of at least 2, found 6\.5\."),
        ({"n_cells": 23}, r"n_cells must be an integer of at least 24, the number of donors, found 23\."),
        ({"n_genes": 0}, r"n_genes must be an integer of at least 1, found 0\."),
        ({"prop_changed": 1.1}, r"prop_changed must be a share between 0 and 1, found 1\.1\."),
        ({"prop_changed": float("nan")}, r"prop_changed must be .*, found nan\."),
        ({"prop_diseased": 0.0}, r"prop_diseased must be a share above 0 and below 1, found 0\.0\."),
        ({"log_fold_change": (0.0, 1.0)}, r"log_fold_change must be .*, found \(0\.0, 1\.0\)\."),
        ({"log_fold_change": (2.0, 1.0)}, r"log_fold_change must be .*, found \(2\.0, 1\.0\)\."),
        ({"log_fold_change": 1.0}, r"log_fold_change must be .*, found 1\.0\."),
        ({"donor_sd": -0.1}, r"donor_sd must be between 0 and 3 \(natural log scale\), found -0\.1\."),
        ({"cell_type_sd": float("inf")}, r"cell_type_sd must be .*, found inf\."),
        ({"library_size": 0.0}, r"library_size must be between 1 and 1,000,000 counts, found 0\.0\."),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        brain_cohort(**arguments)


def test_confounding_example_has_the_promised_slots() -> None:
    adata = confounding_example()
    assert adata.X.shape == (24_000, 1)
    assert adata.X.dtype == np.float64
    assert list(adata.var_names) == ["gene"]
    assert (adata.obs["sample_id"].value_counts() == 1_000).all()
    assert adata.obs_names.is_unique
    donors = donor_frame(adata)
    assert donors["diagnosis"].value_counts().to_dict() == {"healthy": 13, "diseased": 11}
    assert list(donors["diagnosis"].cat.categories) == ["healthy", "diseased"]
    assert adata.obs.groupby("sample_id", observed=True)["diagnosis"].nunique().max() == 1


def test_confounding_example_moments_within_samples() -> None:
    adata = confounding_example(1)
    frame = adata.obs[["sequencing_saturation"]].assign(gene=adata.X[:, 0])
    assert frame["sequencing_saturation"].mean() == pytest.approx(3, abs=0.03)
    within = frame - frame.groupby(adata.obs["sample_id"], observed=True).transform("mean")
    covariance = within.cov().to_numpy() * 24_000 / (24_000 - 24)
    np.testing.assert_allclose(covariance, [[1, 0.5], [0.5, 1]], atol=0.04)
    truth = adata.var.loc["gene"]
    slope = covariance[0, 1] / covariance[0, 0]
    assert slope == pytest.approx(truth["sequencing_saturation_effect"], abs=0.03)
    assert np.sqrt(covariance[1, 1] - slope * covariance[0, 1]) == pytest.approx(truth["residual_sd"], abs=0.02)


def test_confounding_example_moments_between_samples() -> None:
    """Over 40 seeds the difference of the arms is 10, give or take 2.05 / sqrt(40)."""
    differences, variances, healthy_means = [], [], []
    for seed in range(40):
        adata = confounding_example(seed)
        frame = adata.obs.assign(gene=adata.X[:, 0])
        means = (
            frame.groupby(["sample_id", "diagnosis"], observed=True)["gene"].mean().groupby("diagnosis", observed=True)
        )
        differences.append(means.mean()["diseased"] - means.mean()["healthy"])
        variances.extend(means.var())
        healthy_means.append(means.mean()["healthy"])
    assert np.mean(differences) == pytest.approx(adata.var.loc["gene", "diagnosis_effect"], abs=1.3)
    assert adata.var.loc["gene", "diagnosis_effect"] == 10
    assert np.mean(healthy_means) == pytest.approx(3, abs=0.9)
    assert np.sqrt(np.mean(variances)) == pytest.approx(adata.var.loc["gene", "sample_sd"], abs=0.5)


def test_confounding_example_same_seed_same_data() -> None:
    first, again, other = (confounding_example(seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.X, again.X)
    pd.testing.assert_frame_equal(first.obs, again.obs)
    assert not np.array_equal(first.X, other.X)
    assert not first.obs["diagnosis"].equals(other.obs["diagnosis"])


def test_nothing_heavy_is_imported() -> None:
    imported = set()
    for file in Path(sc_lmm.datasets.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
    assert imported - set(sys.stdlib_module_names) == {"anndata", "numpy", "pandas", "scipy"}
