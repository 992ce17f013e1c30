"""Dealing a term out anew to the donors, by algebra on statistics and by another annotation of the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl
from cohorts import fitted
from sc_lmm._errors import DesignError
from sc_lmm._inference.fitted import LmmFit
from sc_lmm._inference.permutation import permute_levels

if TYPE_CHECKING:
    from sc_lmm._statistics import SufficientStatistics

# what the design report cautions of is not the matter here
pytestmark = [
    pytest.mark.filterwarnings("ignore:Only "),
]

FORMULA = "~ x + age + diagnosis + (1 | sample_id)"


def cohort(n_donors: int = 9, n_genes: int = 5, mean: float = 3.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(n_donors), rng.integers(4, 20, n_donors))
    obs = pd.DataFrame(
        {
            "sample_id": pd.Categorical([f"d{j:02d}" for j in donor]),
            "x": rng.normal(size=donor.size) + donor / 5,
            "age": rng.normal(70, 8, n_donors)[donor],
            "diagnosis": pd.Categorical(np.array(["control", "AD", "PD"])[donor % 3], ["control", "AD", "PD"]),
        }
    )
    Y = rng.normal(mean, 1, (donor.size, n_genes)) + rng.normal(0, 0.5, (n_donors, n_genes))[donor]
    return obs, Y, donor


def permuted(fit: LmmFit, term: str, order: np.ndarray) -> LmmFit:
    stats = permute_levels(fit.stats, fit.coding.terms[term], order)
    return LmmFit(fit.coding, stats, fit.var_names, show_progress=False)


def products(stats: SufficientStatistics) -> tuple[np.ndarray, ...]:
    """X'X, Z'X and X'Y in the user's columns: standardised ones may be turned."""
    back = np.linalg.inv(stats.basis)
    return back.T @ stats.XtX @ back, stats.ZtX @ back, back.T @ stats.XtY


def annotated(obs: pd.DataFrame, Y: np.ndarray) -> ad.AnnData:
    obs = obs.set_index(pd.Index([f"c{i}" for i in range(len(obs))]))
    return ad.AnnData(np.abs(Y), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(Y.shape[1])]))


@pytest.mark.parametrize("mean", [3.0, 3000.0])  # the second is kept about a shift
@pytest.mark.parametrize("term", ["diagnosis", "age"])
def test_permuted_statistics_are_those_of_the_permuted_annotation(term, mean):
    obs, Y, donor = cohort(mean=mean)
    order = np.random.default_rng(1).permutation(9)
    first = [np.flatnonzero(donor == j)[0] for j in range(9)]
    values = obs[term].iloc[first].to_numpy()[order][donor]
    again = obs.assign(**{term: pd.Categorical(values, ["control", "AD", "PD"]) if term == "diagnosis" else values})
    one, other = permuted(fitted(Y, obs, FORMULA), term, order), fitted(Y, again, FORMULA)
    for method in ("lrt", "between-within", "satterthwaite"):
        tables = [f.test(term, method=method, calibrate=False).table for f in (one, other)]
        pd.testing.assert_frame_equal(*tables, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(one.ml.beta, other.ml.beta, rtol=1e-7, atol=1e-8)


def test_the_identity_changes_nothing():
    obs, Y, _ = cohort()
    fit = fitted(Y, obs, FORMULA)
    same = permuted(fit, "diagnosis", np.arange(9))
    for one, other in zip(products(same.stats), products(fit.stats), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-10)
    pd.testing.assert_frame_equal(same.test("diagnosis").table, fit.test("diagnosis").table, rtol=1e-7)


def test_permutations_compose():
    obs, Y, _ = cohort()
    fit = fitted(Y, obs, FORMULA)
    order = np.random.default_rng(2).permutation(9)
    back = permuted(permuted(fit, "diagnosis", order), "diagnosis", np.argsort(order))
    for one, other in zip(products(back.stats), products(fit.stats), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def test_an_exact_test_rejects_its_level_on_average():
    # Balanced donors, no covariate: the t of donor means, and exchangeable donors. 300 genes x 60 permutations.
    rng = np.random.default_rng(3)
    donor = np.repeat(np.arange(12), 10)
    obs = pd.DataFrame({"sample_id": pd.Categorical([f"d{j:02d}" for j in donor])})
    obs["diagnosis"] = np.where(donor % 2, "case", "control")
    Y = rng.normal(9, 1, (120, 300)) + rng.normal(size=(12, 300))[donor]
    check = sl.tl.permutation_check(
        annotated(obs, Y),
        "~ diagnosis + (1 | sample_id)",
        "diagnosis",
        n_permutations=60,
        methods=["between-within", "wald"],
        alphas=[0.05, 0.2],
        show_progress=False,
    )
    mean = check.permuted.mean()
    # Within a gene the permutations are of one data set: the error is that of 300 genes or better.
    np.testing.assert_allclose(mean["between-within", 0.05], 0.05, atol=0.012)
    np.testing.assert_allclose(mean["between-within", 0.2], 0.2, atol=0.025)
    assert mean["wald", 0.05] > 0.065
    assert check.distinct > 50


@pytest.fixture(scope="module")
def check() -> tuple:
    obs, Y, _ = cohort(n_genes=30)
    adata = annotated(obs, Y)
    methods = ["lrt", "lrt uncalibrated", "between-within moderated"]
    run = sl.tl.permutation_check(adata, FORMULA, "diagnosis", n_permutations=4, methods=methods, show_progress=False)
    return adata, run


def test_shapes_summary_and_view(check):
    _, result = check
    methods = ["lrt", "lrt uncalibrated", "between-within moderated"]
    assert result.permuted.shape == (4, 6)
    assert result.observed.index.tolist() == [(name, alpha) for name in methods for alpha in (0.05, 0.001)]
    summary = result.summary()
    assert summary.index.names == ["method", "alpha"]
    np.testing.assert_allclose(summary.loc[("lrt", 0.05), "mean"], result.permuted["lrt", 0.05].mean())
    assert "4 permutations" in repr(result)
    assert "<table" in result._repr_html_()


def test_observed_shares_are_those_of_the_test(check):
    adata, result = check
    fit = sl.tl.lmm_fit(adata, FORMULA, show_progress=False)
    pvals = fit.pvals("diagnosis", calibrate=False)
    assert result.observed["lrt uncalibrated", 0.05] == (pvals < 0.05).mean()


def test_seeded_and_without_a_trace_in_adata(check):
    adata, result = check
    keys = (set(adata.uns), set(adata.varm), list(adata.obs.columns))
    again = sl.tl.permutation_check(
        adata, FORMULA, "diagnosis", n_permutations=4, methods=["lrt uncalibrated"], show_progress=False
    )
    expected = result.permuted[["lrt uncalibrated"]]
    pd.testing.assert_frame_equal(again.permuted, expected)
    assert keys == (set(adata.uns), set(adata.varm), list(adata.obs.columns))


def test_a_term_that_varies_within_donors_is_refused(check):
    with pytest.raises(DesignError, match="varies within donors, so its values cannot be dealt out anew"):
        sl.tl.permutation_check(check[0], FORMULA, "x", show_progress=False)


def test_a_term_inside_an_interaction_is_refused(check):
    # Its main effect would be dealt out anew and its interaction not.
    with pytest.raises(DesignError, match="interaction"):
        sl.tl.permutation_check(
            check[0],
            "~ x * diagnosis + (1 | sample_id)",
            "diagnosis",
            n_permutations=2,
            methods=["wald"],
            show_progress=False,
        )


def test_permutations_that_confound_the_term_are_drawn_again():
    # With four donors, two of the six ways to deal out diagnosis are sex itself.
    obs, Y, donor = cohort(n_donors=4)
    obs["diagnosis"], obs["sex"] = np.where(donor % 2, "AD", "control"), np.where(donor < 2, "F", "M")
    check = sl.tl.permutation_check(
        annotated(obs, Y),
        "~ sex + diagnosis + (1 | sample_id)",
        "diagnosis",
        n_permutations=40,
        methods=["between-within"],
        show_progress=False,
    )
    assert len(check.permuted) == 40
    assert check.distinct == 4


@pytest.mark.parametrize("methods", [["lr"], ["lrt squeezed"], ["lrt moderated"]])
def test_unknown_methods_are_refused_before_anything_is_read(check, methods):
    with pytest.raises((DesignError, ValueError), match="unknown|moderate"):
        sl.tl.permutation_check(check[0], FORMULA, "diagnosis", n_permutations=1, methods=methods, show_progress=False)
