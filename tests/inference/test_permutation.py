"""Dealing a term out anew, by algebra on statistics and by another annotation of the cells."""

from __future__ import annotations

from math import comb, factorial
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl
from cohorts import fitted
from sc_lmm._design import build_design
from sc_lmm._errors import DesignError
from sc_lmm._inference.fitted import LmmFit
from sc_lmm._inference.permutation import Exchange, draw_orders, permute_levels, plan_exchange, pool
from sc_lmm._statistics import sufficient_statistics

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


def paired_cohort(n_donors: int = 6, n_genes: int = 5, mean: float = 3.0, seed: int = 0, single: int = 0):
    """Donors with cells before and after, the first `single` of them before alone."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(2 * n_donors), rng.integers(4, 20, 2 * n_donors))
    unit = unit[~((unit // 2 < single) & (unit % 2 == 1))]
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"d{k // 2:02d}" for k in unit]),
            "sample_id": pd.Categorical([f"s{k:02d}" for k in unit]),
            "condition": pd.Categorical(np.array(["before", "after"])[unit % 2], ["before", "after"]),
            "x": rng.normal(size=unit.size) + unit / 5,
            "age": rng.normal(70, 8, n_donors)[unit // 2],
            "dose": np.array([0.0, 2.5])[unit % 2],
        }
    )
    Y = rng.normal(mean, 1, (unit.size, n_genes)) + rng.normal(0, 0.5, (2 * n_donors, n_genes))[unit]
    return obs, Y


def permuted(fit: LmmFit, term: str, order: np.ndarray) -> LmmFit:
    stats = permute_levels(fit.stats, fit.coding.terms[term], order)
    return LmmFit(fit.coding, stats, fit.var_names, show_progress=False)


def products(stats: SufficientStatistics) -> tuple[np.ndarray, ...]:
    """X'X, Z'X and X'Y in the user's columns: standardised ones may be turned."""
    back = np.linalg.inv(stats.basis)
    return back.T @ stats.XtX @ back, stats.ZtX @ back, back.T @ stats.XtY


def planned(obs: pd.DataFrame, formula: str, term: str, n_orders: int = 500) -> tuple[Exchange, list[np.ndarray]]:
    exchange = plan_exchange(build_design(formula, obs), term)
    stats = sufficient_statistics(np.zeros((len(obs), 1)), exchange.design, show_progress=False)
    return exchange, draw_orders(exchange, stats, n_orders, np.random.default_rng(0))


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
    assert check.distinct == 60
    assert not check.complete


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


@pytest.mark.parametrize("mean", [3.0, 3000.0])  # the second is kept about a shift
@pytest.mark.parametrize("term", ["condition", "dose"])
def test_values_exchanged_within_donors_are_those_of_the_exchanged_annotation(term, mean):
    obs, Y = paired_cohort(mean=mean)
    formula = f"~ x + age + {term} + (1 | donor)"
    exchange, orders = planned(obs, formula, term)
    by_unit = sufficient_statistics(Y, exchange.design, show_progress=False)
    fit = fitted(Y, obs, formula)
    for order in [np.arange(12), *orders[:3]]:
        # Units are the samples, in order; their cells get the value of the cells of another sample.
        of_unit = obs.groupby("sample_id", observed=True)[term].first().to_numpy()
        again = obs.assign(**{term: of_unit[order][obs["sample_id"].cat.codes]})
        if term == "condition":
            again[term] = pd.Categorical(again[term], ["before", "after"])
        one, other = LmmFit(fit.coding, exchange.deal(by_unit, order), fit.var_names), fitted(Y, again, formula)
        for method in ("lrt", "kenward-roger"):
            tables = [f.test(term, method=method, calibrate=False).table for f in (one, other)]
            pd.testing.assert_frame_equal(*tables, rtol=1e-6, atol=1e-8)


def test_parts_of_levels_add_up_to_the_levels():
    obs, Y = paired_cohort()
    parts, whole = (
        sufficient_statistics(Y, build_design(f"~ x + condition + (1 | {group})", obs), show_progress=False)
        for group in ("sample_id", "donor")
    )
    pooled = pool(parts, np.repeat(np.arange(6), 2))
    for name in ("sizes", "ZtY", "yty", "nonzero"):
        np.testing.assert_allclose(getattr(pooled, name), getattr(whole, name), rtol=1e-12, atol=1e-9)
    for one, other in zip(products(pooled), products(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-8)


def test_values_stay_with_the_donor_that_has_both():
    obs, _ = paired_cohort(single=1)
    for formula in ("~ condition + (1 | donor)", "~ donor + condition + (1 | sample_id)"):
        exchange, orders = planned(obs, formula, "condition")
        donor = np.array([0, *np.repeat(np.arange(1, 6), 2)])
        assert all((donor[order] == donor).all() for order in orders)
        assert len(orders) == 2**5 / 2 - 1
    assert exchange.among == "among the sample_id of each donor"
    assert planned(obs, "~ condition + (1 | sample_id)", "condition")[0].among == "among all sample_id"


def levels_of(counts: list[int]) -> list[str]:
    return [f"level {k}" for k, n in enumerate(counts) for _ in range(n)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (levels_of([3, 3]), comb(6, 3) // 2 - 1),  # cases and controls may change names
        (levels_of([2, 4]), comb(6, 2) - 1),
        (levels_of([2, 2, 2]), factorial(6) // 2**3 // factorial(3) - 1),
        ([1.0, 2.0, 4.0, 8.0], factorial(4) - 1),
        ([1.0, 1.0, 5.0, 5.0], comb(4, 2) // 2 - 1),  # a number with two values is a factor
    ],
)
def test_every_assignment_is_taken_once_and_the_data_not(values, expected):
    obs = pd.DataFrame({"sample_id": np.repeat(np.arange(len(values)), 5), "v": pd.Series(values).repeat(5).to_numpy()})
    exchange, orders = planned(obs, "~ v + (1 | sample_id)", "v")
    assert len({exchange.key(order) for order in orders} - {exchange.key(np.arange(len(values)))}) == expected
    assert len(orders) == expected
    assert len(planned(obs, "~ v + (1 | sample_id)", "v", n_orders=2)[1]) == 2


def test_only_a_factor_that_holds_all_values_equally_often_makes_blocks():
    donor = np.repeat(np.arange(12), 5)
    obs = pd.DataFrame({"sample_id": [f"d{j:02d}" for j in donor], "diagnosis": np.where(donor % 2, "case", "control")})
    obs["even"] = np.array(["a", "b", "c"])[donor // 4]
    obs["uneven"] = np.array(["a", "b", "c"])[np.minimum(donor // 3, 2)]
    obs["number"] = donor // 4 + 0.5
    for factor, among in (("even", "among the sample_id of each even"), ("uneven", "among all sample_id")):
        exchange, orders = planned(obs, f"~ {factor} + diagnosis + (1 | sample_id)", "diagnosis", 5)
        assert exchange.among == among
        if factor == "even":
            assert all((order // 4 == np.arange(12) // 4).all() for order in orders)
    assert planned(obs, "~ number + diagnosis + (1 | sample_id)", "diagnosis", 5)[0].among == "among all sample_id"


@pytest.mark.filterwarnings("ignore:The p-values of condition are too small")
def test_cells_of_paired_samples_are_not_replicates():
    # Samples of a donor differ by chance. The exact test of donors' differences holds; a model without samples does not.
    rng = np.random.default_rng(4)
    sample = np.repeat(np.arange(20), 15)
    obs = pd.DataFrame({"sample_id": pd.Categorical([f"s{k:02d}" for k in sample])})
    obs["donor"], obs["condition"] = [f"d{k // 2}" for k in sample], np.where(sample % 2, "after", "before")
    Y = rng.normal(9, 1, (300, 300)) + rng.normal(0, 0.6, (20, 300))[sample] + rng.normal(size=(10, 300))[sample // 2]
    how: dict[str, Any] = {"n_permutations": 40, "alphas": [0.05, 0.2], "show_progress": False}
    paired = sl.tl.permutation_check(annotated(obs, Y), "~ donor + condition + (1 | sample_id)", "condition", **how)
    mean = paired.permuted.mean()
    np.testing.assert_allclose(mean["between-within", 0.05], 0.05, atol=0.012)
    np.testing.assert_allclose(mean["lrt", 0.05], 0.05, atol=0.015)
    np.testing.assert_allclose(mean["lrt", 0.2], 0.2, atol=0.025)
    how["methods"] = ["lrt", "kenward-roger"]
    cells = sl.tl.permutation_check(annotated(obs, Y), "~ condition + (1 | donor)", "condition", **how)
    assert cells.permuted.mean()["lrt", 0.05] > 0.25
    assert cells.permuted.mean()["kenward-roger", 0.05] > 0.25
    assert cells.exchanged == "condition dealt out anew within donor"


@pytest.mark.parametrize(
    ("formula", "term", "words"),
    [
        ("~ x + condition + (1 | donor)", "x", "varies from cell to cell.*pandas.cut"),
        ("~ x * condition + (1 | donor)", "condition", "part of the interaction"),
        ("~ condition * age + (1 | donor)", "condition:age", "Interaction 'condition:age' varies within donor"),
        ("~ diagnosis + (1 | donor)", "diagnosis", "no other way to deal out 'diagnosis' among all donor"),
    ],
)
def test_what_cannot_be_exchanged_is_refused(formula, term, words):
    obs, Y = paired_cohort(n_donors=2)
    obs["diagnosis"] = np.where(obs["donor"] == "d00", "case", "control")
    with pytest.raises(DesignError, match=words):
        sl.tl.permutation_check(annotated(obs, Y), formula, term, show_progress=False)


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


def test_permutations_that_confound_the_term_are_left_out():
    # With four donors, one of the three ways to make pairs of them is sex itself, and one is the data's own.
    obs, Y, donor = cohort(n_donors=4)
    obs["diagnosis"], obs["sex"] = np.where(donor % 2, "AD", "control"), 1.0 * (donor < 2)
    check = sl.tl.permutation_check(
        annotated(obs, Y),
        "~ sex + diagnosis + (1 | sample_id)",
        "diagnosis",
        n_permutations=40,
        methods=["between-within"],
        show_progress=False,
    )
    assert check.distinct == len(check.permuted) == 1
    assert check.complete
    assert "1 permutation, all that there are" in repr(check)


@pytest.fixture(scope="module")
def many_genes() -> tuple:
    obs, Y, donor = cohort(n_genes=220, seed=5)
    how: dict[str, Any] = {"n_permutations": 3, "methods": ["lrt", "lrt calibrated"], "show_progress": False}
    return obs, Y, donor, sl.tl.permutation_check(annotated(obs, Y), FORMULA, "age", **how)


def test_the_default_test_learns_anew_in_each_permutation(many_genes):
    obs, Y, donor, result = many_genes
    _, orders = planned(obs, FORMULA, "age", 3)
    first = np.unique(donor, return_index=True)[1]
    for k, order in enumerate(orders):
        again = obs.assign(age=obs["age"].iloc[first].to_numpy()[order][donor])
        fit = sl.tl.lmm_fit(annotated(again, Y), FORMULA, show_progress=False)
        for name, choices in (("lrt", {}), ("lrt calibrated", {"moderate": False})):
            run = fit.test("age", **choices)
            assert run.moderated == (name == "lrt")
            share = (run.table["pvals"] < 0.05).mean()
            simulated = 3 / len(run.table) if name == "lrt calibrated" else 0.0  # draws of another basis of X
            assert abs(result.permuted.loc[k, (name, 0.05)] - share) <= simulated + 1e-12
    assert not result.complete


def test_few_genes_are_calibrated_and_the_result_says_so(check, many_genes):
    adata, result = check
    pvals = sl.tl.lmm_fit(adata, FORMULA, show_progress=False).pvals("diagnosis", moderate=False)
    assert result.observed["lrt", 0.05] == (pvals < 0.05).mean()
    assert "'lrt' is the calibrated ratio here, as in lmm_de: fewer than 200 genes" in repr(result)
    assert "&#x27;lrt&#x27; is the calibrated ratio" in result._repr_html_()
    assert "calibrated ratio" not in repr(many_genes[-1])


def test_the_data_count_as_one_of_the_assignments(check):
    _, result = check
    shares = result.permuted["lrt", 0.05]
    expected = (1 + (shares >= result.observed["lrt", 0.05]).sum()) / 5
    assert result.summary().loc[("lrt", 0.05), "permutations >= observed"] == expected


@pytest.mark.parametrize("methods", [["lr"], ["lrt squeezed"], ["lrt moderated"]])
def test_unknown_methods_are_refused_before_anything_is_read(check, methods):
    bad = check[0].copy()
    bad.X[:] = np.nan  # what reading would refuse
    with pytest.raises(ValueError, match="unknown. Available: 'lrt', 'lrt calibrated'"):
        sl.tl.permutation_check(bad, FORMULA, "diagnosis", n_permutations=1, methods=methods, show_progress=False)
