"""The report as users meet it: each verdict by an example, and refusals in the words of the errors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

import sc_lmm as sl
from cohorts import samples as cohort
from sc_lmm._design.model_matrix import build_design
from sc_lmm._errors import DesignError

if TYPE_CHECKING:
    import anndata as ad

    from sc_lmm._report.facts import DesignReport

FORMULA = "~ depth + diagnosis + (1 | sample_id)"


def verdict(report: DesignReport, code: str) -> tuple[str, str]:
    """Grade and words of the verdict with this code."""
    found = [v for v in report.verdicts if v.code == code]
    assert found, f"no verdict {code!r} in\n{report}"
    return found[0].grade, f"{found[0].message} {found[0].advice}"


def codes(report: DesignReport) -> set[str]:
    return {v.code for v in report.verdicts}


def halves(n: int, first: str, second: str) -> list[str]:
    return [first] * (n // 2) + [second] * (n - n // 2)


def test_diagnosis_constant_within_sample_is_fine_and_says_why() -> None:
    report = sl.tl.check_design(cohort(), FORMULA, "diagnosis")
    assert (report.grade, report.refused, codes(report)) == ("ok", False, {"constant_within"})
    _, words = verdict(report, "constant_within")
    assert "no confounding" in words
    assert "N(0, s^2)" in words
    assert "12 samples, with 10 df" in words
    assert (report.test.df, report.test.donors_per_level) == (10, {"case": 6, "control": 6})
    report.raise_if_refused()


def test_without_a_test_the_terms_are_judged() -> None:
    report = sl.tl.check_design(cohort(), FORMULA)
    assert (report.test, report.grade, codes(report)) == (None, "ok", {"constant_within"})


@pytest.mark.parametrize("fixed", ["sample_id + diagnosis", "diagnosis + depth + sample_id"])
def test_sample_as_fixed_factor_beside_diagnosis_is_refused(fixed: str) -> None:
    report = sl.tl.check_design(cohort(), f"~ {fixed} + (1 | sample_id)", "diagnosis")
    grade, words = verdict(report, "grouping_fixed")
    assert grade == "refused"
    assert "12 levels have a free coefficient each" in words
    assert '+ (1 | sample_id)".' in words
    with pytest.raises(DesignError, match="free coefficient each"):
        report.raise_if_refused()
    assert not {t.name: t.estimable for t in report.terms}["diagnosis"]


def test_sample_as_fixed_factor_without_diagnosis_is_a_caution() -> None:
    report = sl.tl.check_design(cohort(), "~ depth + sample_id + (1 | sample_id)", "depth")
    assert verdict(report, "grouping_twice")[0] == "caution"


def test_batch_aliased_with_diagnosis_is_refused() -> None:
    adata = cohort()
    adata.obs["batch"] = np.where(adata.obs["diagnosis"] == "case", "b2", "b1")
    report = sl.tl.check_design(adata, "~ batch + diagnosis + (1 | sample_id)", "diagnosis")
    grade, words = verdict(report, "aliased_with_test")
    assert grade == "refused"
    assert "diagnosis[T.control] = 1 - batch[T.b2]" in words
    assert report.terms[0].aliases == ("diagnosis[T.control] = 1 - batch[T.b2]",)
    assert verdict(sl.tl.check_design(adata, "~ batch + diagnosis + depth + (1 | sample_id)", "depth"), "aliased")


def test_batch_as_random_effect_aliased_with_diagnosis_is_refused() -> None:
    adata = cohort()
    adata.obs["batch"] = np.where(adata.obs["diagnosis"] == "case", "b2", "b1")
    grade, words = verdict(sl.tl.check_design(adata, "~ diagnosis + (1 | batch)", "diagnosis"), "random_aliased")
    assert grade == "refused"
    assert "prior variance of batch alone: 2 batches, 0 df" in words


def test_donors_used_up_by_covariates_are_refused() -> None:
    adata = cohort(4, age=[50, 61.5, 70, 44], bmi=[20, 31, 24.5, 22])
    grade, words = verdict(sl.tl.check_design(adata, "~ age + bmi + diagnosis + (1 | sample_id)", "diagnosis"), "no_df")
    assert grade == "refused"
    assert "use up all 4" in words


def test_a_level_with_one_donor_is_refused() -> None:
    adata = cohort(9, diagnosis=["control"] * 4 + ["case"] * 4 + ["rare"])
    report = sl.tl.check_design(adata, FORMULA, "diagnosis")
    assert verdict(report, "one_donor_level")[0] == "refused"
    assert "isin(['rare'])" in verdict(report, "one_donor_level")[1]
    contrast = "cond(diagnosis='case') - cond(diagnosis='control')"
    assert not sl.tl.check_design(adata, FORMULA, contrast).refused  # the level takes no part


def test_contrasts_and_lists_of_terms() -> None:
    adata = cohort(12, diagnosis=["a", "b", "c"] * 4, age=list(np.linspace(40, 80, 12)))
    formula = "~ age + diagnosis + (1 | sample_id)"
    report = sl.tl.check_design(adata, formula, {"b or c": "cond(diagnosis='b') - cond(diagnosis='c')"})
    assert report.test.donors_per_level == {"b": 4, "c": 4}
    other = sl.tl.check_design(adata, formula, "diagnosis", reference="c")
    expected = [d.sd_cell for d in other.test.detectable if d.comparison == "b"]
    assert [d.sd_cell for d in report.test.detectable] == pytest.approx(expected)
    both = sl.tl.check_design(adata, formula, ["age", "diagnosis"])
    assert [facts.term for facts in both.tests] == ["age", "diagnosis"]
    assert sl.tl.check_design(adata, formula, "(1 | sample_id)").tests == ()


def test_few_donors_and_few_df_are_cautions() -> None:
    grade, words = verdict(sl.tl.check_design(cohort(5), FORMULA, "diagnosis"), "few_donors")
    assert grade == "caution"
    assert "3 samples with diagnosis control" in words
    assert "few_donors" not in codes(sl.tl.check_design(cohort(8), FORMULA, "diagnosis"))
    age = cohort(5, age=[40.5, 50, 61, 77, 80])
    assert (
        "Only 3 df between 5 samples"
        in verdict(sl.tl.check_design(age, "~ age + (1 | sample_id)", "age"), "few_donors")[1]
    )


def test_partly_confounded_batch_is_a_caution_with_its_inflation() -> None:
    adata = cohort(12, diagnosis=halves(12, "control", "case"), batch=["b1"] * 5 + ["b2"] * 7)
    report = sl.tl.check_design(adata, "~ batch + diagnosis + (1 | sample_id)", "diagnosis")
    expected = 1 / (1 - np.corrcoef(np.arange(12) < 6, np.arange(12) < 5)[0, 1] ** 2)
    assert report.test.inflation == pytest.approx(expected)
    grade, words = verdict(report, "variance_inflation")
    assert grade == "caution"
    assert f"{expected:.3g}-fold" in words
    assert "7 of 12 samples" in words


def test_overlapping_batch_is_fine() -> None:
    adata = cohort(12, batch=halves(12, "b1", "b2"))
    report = sl.tl.check_design(adata, "~ batch + diagnosis + (1 | sample_id)", "diagnosis")
    assert report.grade == "ok"
    assert "12 of 12 samples" in verdict(report, "batch_overlaps")[1]


def paired() -> ad.AnnData:
    donors = [f"d{j}" for j in range(6) for _ in range(2)]
    return cohort(12, diagnosis=["before", "after"] * 6, donor=donors)


def test_paired_design_is_told_and_the_random_slope_suggested() -> None:
    report = sl.tl.check_design(paired(), "~ diagnosis + (1 | donor)", "diagnosis")
    grade, words = verdict(report, "paired")
    assert grade == "caution"
    assert "6 of 6 donors" in words
    assert '"~ diagnosis + (diagnosis | donor)"' in words
    assert report.test.level == "within"
    _, words = verdict(report, "unit_left_out")
    assert '"~ donor + diagnosis + (1 | sample_id)"' in words
    sloped = sl.tl.check_design(paired(), "~ diagnosis + (diagnosis | donor)", "diagnosis")
    assert "random_effect_of_term" in codes(sloped)
    assert sloped.test.df == 5
    blocked = sl.tl.check_design(paired(), "~ donor + diagnosis + (1 | sample_id)", "diagnosis")
    assert (codes(blocked), blocked.test.df) == ({"constant_within", "batch_overlaps", "few_donors"}, 5)


def test_advice_on_paired_designs_can_be_typed() -> None:
    adata = paired()
    adata.obs["donor_diagnosis"] = adata.obs["donor"].astype(str) + "_" + adata.obs["diagnosis"].astype(str)
    report = sl.tl.check_design(adata, "~ donor + diagnosis + (1 | donor_diagnosis)", "diagnosis")
    assert not report.refused
    assert report.test.df == 5


def test_one_donor_with_both_diagnoses_is_named() -> None:
    adata = cohort()
    adata.obs.loc[adata.obs.index[:3], "diagnosis"] = "case"
    grade, words = verdict(sl.tl.check_design(adata, FORMULA, "diagnosis"), "partly_within")
    assert grade == "caution"
    assert "1 sample ('s00')" in words


def test_an_interaction_is_not_confounded_with_its_main_effects() -> None:
    report = sl.tl.check_design(cohort(), "~ diagnosis * cell_type + (1 | sample_id)", "diagnosis:cell_type")
    assert report.test.inflation == pytest.approx(1)
    assert codes(report) == {"paired"}


def test_cell_level_covariate_tested() -> None:
    assert verdict(sl.tl.check_design(cohort(), FORMULA, "depth"), "cell_level_test")[0] == "caution"


def test_covariate_that_goes_along_with_diagnosis_is_quantified() -> None:
    adata = cohort()
    adata.obs["depth"] += 2.0 * (adata.obs["diagnosis"] == "case")
    report = sl.tl.check_design(adata, FORMULA, "diagnosis", reference="control")
    grade, words = verdict(report, "confounded_covariate")
    means = adata.obs.groupby("sample_id").agg({"depth": "mean", "diagnosis": "first"})
    a, b = (means.loc[means["diagnosis"] == arm, "depth"] for arm in ("case", "control"))
    sd = np.sqrt((a.var() + b.var()) / 2)
    t = (a.mean() - b.mean()) / (sd * np.sqrt(2 / 6))
    assert grade == "caution"
    assert f"{(a.mean() - b.mean()) / sd:.2g} sd higher in case (t = {t:.2f}, 10 df" in words
    split = "~ within(depth) + between(depth) + diagnosis + (1 | sample_id)"
    assert f'"{split}"' in words
    report = sl.tl.check_design(adata, split, "diagnosis")
    assert "contextual effect" in verdict(report, "within_between")[1]
    assert "confounded_covariate" not in codes(report)
    assert report.test.df == 9


def test_one_donor_with_most_cells() -> None:
    report = sl.tl.check_design(cohort(cells=[500] + [20] * 11), FORMULA, "diagnosis")
    assert verdict(report, "dominant_donor")[0] == "caution"
    assert "'s00' has 69 %" in verdict(report, "dominant_donor")[1]


def test_interaction_with_empty_cells_is_refused_and_named() -> None:
    adata = cohort()
    adata = adata[~((adata.obs["diagnosis"] == "case") & (adata.obs["cell_type"] == "NK"))].copy()
    report = sl.tl.check_design(adata, "~ diagnosis * cell_type + (1 | sample_id)", "diagnosis")
    grade, words = verdict(report, "empty_interaction")
    assert grade == "refused"
    assert "'case:NK'" in words
    assert '"~ diagnosis + cell_type + (1 | sample_id)"' in words


def test_interaction_cell_of_one_donor_is_a_caution() -> None:
    adata = cohort()
    rare = (adata.obs["diagnosis"] == "case") & (adata.obs["cell_type"] == "NK") & (adata.obs["sample_id"] != "s01")
    report = sl.tl.check_design(adata[~rare].copy(), "~ diagnosis * cell_type + (1 | sample_id)")
    assert verdict(report, "thin_interaction")[0] == "caution"


@pytest.mark.parametrize("name", ["batch", "plate_id", "SeqRun", "ordinal"])
def test_numeric_codes_are_a_caution(name: str) -> None:
    adata = cohort(12, **{name: [1, 2, 3, 1, 2, 3] * 2})
    grade, words = verdict(sl.tl.check_design(adata, f"~ {name} + diagnosis + (1 | sample_id)"), "numeric_codes")
    assert grade == "caution"
    assert f"C({name})" in words
    recoded = sl.tl.check_design(adata, f"~ C({name}) + diagnosis + (1 | sample_id)", "diagnosis")
    assert "numeric_codes" not in codes(recoded)
    assert recoded.terms[0].donors == {"1": 4, "2": 4, "3": 4}


@pytest.mark.parametrize("values", [[61, 47, 58, 72] * 3, [0, 1] * 6, [1.5, 2.5, 3.5] * 4])
def test_ages_indicators_and_measures_are_not_codes(values: list) -> None:
    adata = cohort(12, age=values, diagnosis=halves(12, "control", "case"))
    assert "numeric_codes" not in codes(sl.tl.check_design(adata, "~ age + diagnosis + (1 | sample_id)"))


def test_constant_and_identical_columns_are_refused() -> None:
    adata = cohort()
    adata.obs["constant"], adata.obs["copied"] = 3.5, adata.obs["depth"]
    assert verdict(sl.tl.check_design(adata, "~ constant + (1 | sample_id)"), "constant_column")[0] == "refused"
    report = sl.tl.check_design(adata, "~ depth + copied + (1 | sample_id)")
    assert verdict(report, "identical_columns")[0] == "refused"
    assert "copied = depth" in verdict(report, "identical_columns")[1]


def test_samples_of_one_donor_in_obs_are_a_caution() -> None:
    adata = cohort(12, diagnosis=halves(12, "control", "case"), donor_id=[f"d{j // 2}" for j in range(12)])
    grade, words = verdict(sl.tl.check_design(adata, FORMULA, "diagnosis"), "samples_of_donor")
    assert grade == "caution"
    assert "groups the 12 samples into 6" in words
    nested = sl.tl.check_design(adata, "~ diagnosis + (1 | donor_id)", "diagnosis")
    assert verdict(nested, "nested_samples")[0] == "caution"


def test_a_grouping_too_coarse_for_the_test_is_a_caution() -> None:
    adata = cohort(12, diagnosis=["a", "b", "c"] * 4, age=list(np.linspace(40, 80, 12)))
    grade, words = verdict(sl.tl.check_design(adata, "~ age + (1 | diagnosis)", "age"), "unit_left_out")
    assert grade == "caution"
    assert '"~ diagnosis + age + (1 | sample_id)"' in words


@pytest.mark.parametrize("name", ["donor_group", "cell_type_2", "patient_sex", "leiden", "barcode"])
def test_other_columns_are_not_taken_for_units(name: str) -> None:
    adata = cohort(12, **{name: ["x", "y", "z", "u"] * 3})
    assert sl.tl.check_design(adata, FORMULA, "diagnosis").grade == "ok"


def test_dropped_cells_are_counted_by_donor() -> None:
    adata = cohort()
    adata.obs.loc[adata.obs["sample_id"] == "s03", "depth"] = np.nan
    report = sl.tl.check_design(adata, FORMULA, "diagnosis")
    assert (report.n_dropped, report.dropped_by_donor) == (20, {"s03": 20})
    assert "1 sample lost all cells: 's03'" in verdict(report, "dropped_cells")[1]


@pytest.mark.parametrize(
    "formula",
    ["~ nothing + (1 | sample_id)", "~ depth", "~ depth + (1 | x | y)", "~ depth ~ x", "~ log( + (1 | sample_id)", ""],
)
def test_refused_with_the_words_of_the_error(formula: str) -> None:
    adata = cohort()
    with pytest.raises(DesignError) as error:
        build_design(formula, adata.obs)
    report = sl.tl.check_design(adata, formula, "diagnosis")
    assert report.refused
    assert report.verdicts[0].message == str(error.value)
    assert str(error.value)[:40] in str(report)
    with pytest.raises(DesignError) as again:
        report.raise_if_refused()
    assert str(again.value) == str(error.value)


def test_unknown_test_and_reference_are_refused() -> None:
    for arguments in ({"test": "dose"}, {"test": "diagnosis", "reference": "healthy"}, {"reference": "healthy"}):
        assert sl.tl.check_design(cohort(), FORMULA, **arguments).verdicts[0].code == "invalid"


def test_a_formula_that_is_no_text_is_the_callers_error() -> None:
    with pytest.raises(TypeError, match="formula must be a string"):
        sl.tl.check_design(cohort(), 3)


@pytest.mark.slow
def test_a_million_cells_take_seconds() -> None:
    adata = cohort(100, 10_000, batch=["w", "x", "y", "z"] * 25, age=list(np.linspace(40, 80, 100)))
    adata.obs["saturation"] = np.random.default_rng(1).uniform(size=adata.n_obs)
    formula = "~ depth + saturation + age + cell_type + batch + diagnosis + (1 | sample_id)"
    start = time.process_time()  # others may be using the machine
    sl.tl.check_design(adata, formula, "diagnosis")
    assert time.process_time() - start < 6
