"""What changes the meaning of a p-value is said by the call that computes it: once, in a sentence, with what to type."""

from __future__ import annotations

import pickle
import re
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl

if TYPE_CHECKING:
    from collections.abc import Callable

# anndata 0.13 with pandas 3
pytestmark = pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated")

N_GENES = 3


def cells(n_donors: int = 8, n_cells: int = 30, **columns: Callable[..., Any]) -> ad.AnnData:
    """Donors with cells in two conditions and in three types; further columns are functions of donor, condition and rng."""
    rng = np.random.default_rng(1)
    donor = np.repeat(np.arange(n_donors), n_cells)
    condition = np.tile(np.arange(n_cells) % 2, n_donors)
    obs = pd.DataFrame(
        {
            "donor": [f"d{j}" for j in donor],
            "arm": np.where(donor % 2 == 0, "control", "case"),
            "sex": np.where(donor // 2 % 2 == 0, "f", "m"),
            "condition": np.where(condition == 0, "ctrl", "stim"),
            "type": rng.choice(["B", "NK", "T"], donor.size),
            "depth": rng.normal(8, 1, donor.size),
            **{name: make(donor, condition, rng) for name, make in columns.items()},
        },
        index=[f"cell{i}" for i in range(donor.size)],
    )
    return ad.AnnData(rng.gamma(2.0, 1.0, (donor.size, N_GENES)), obs=obs)


def sample(donor, condition, rng) -> list[str]:
    return [f"{j}-{k}" for j, k in zip(donor, condition, strict=True)]


def batch(donor, condition, rng) -> np.ndarray:
    return donor % 3 + 1


def weight(donor, condition, rng) -> list[str]:
    return [f"{20 + j // 2 % 4}.5" for j in donor]


def age(donor, condition, rng) -> pd.Categorical:
    return pd.Categorical([str(50 + 3 * (j // 2)) for j in donor])


def deeper(donor, condition, rng) -> np.ndarray:
    return rng.normal(8, 1, donor.size) + 3.0 * (donor % 2 == 0)


def missing(donor, condition, rng) -> np.ndarray:
    return np.where(donor == 2, np.nan, rng.normal(size=donor.size))


def donor_of_pair(donor, condition, rng) -> list[str]:
    return [f"p{j // 4}_{j % 2}" for j in donor]


PAIRED, UNIT = "~ condition + (1 | donor)", "~ donor + condition + (1 | sample_id)"

# What is wrong -> the cells, the formula, the test, and the code of the one verdict that is to be said.
SAID: dict[str, tuple[ad.AnnData, str, Any, str]] = {
    "paired": (cells(), PAIRED, "condition", "paired"),
    "paired, covariates of donors": (cells(), "~ sex + depth + condition + (1 | donor)", "condition", "paired"),
    "interaction within": (cells(), "~ arm * type + (1 | donor)", "arm:type", "paired"),
    "the sample is known": (cells(sample_id=sample), PAIRED, "condition", "unit_left_out"),
    "pairs": (cells(sample_id=sample), "~ condition + (1 | sample_id)", "condition", "pairs_left_out"),
    "samples of a donor": (cells(12, patient=donor_of_pair), "~ arm + (1 | donor)", "arm", "samples_of_donor"),
    "cell-level": (cells(), "~ arm + depth + (1 | donor)", "depth", "cell_level_test"),
    "few": (cells(6), "~ arm + (1 | donor)", "arm", "few_donors"),
    "few df": (cells(8), "~ arm + sex + type + (1 | donor)", "sex", "few_donors"),
    "covariate": (cells(depth=deeper), "~ depth + arm + (1 | donor)", "arm", "confounded_covariate"),
    "codes": (cells(12, batch=batch), "~ batch + arm + (1 | donor)", "arm", "numeric_codes"),
    "text": (cells(12, bmi=weight), "~ bmi + arm + (1 | donor)", "arm", "text_numbers"),
    "category": (cells(16, age=age), "~ age + arm + (1 | donor)", "arm", "text_numbers"),
    "dropped": (cells(10, score=missing), "~ score + arm + (1 | donor)", "arm", "dropped_cells"),
    "reference level": (cells(16), "~ arm * sex + (1 | donor)", "arm", "reference_level"),
    "reference level, between": (cells(12), "~ arm * type + (1 | donor)", "arm", "reference_level"),
    "at zero": (cells(12), "~ arm * depth + (1 | donor)", "arm", "reference_level"),
    "one level": (
        cells(12),
        "~ arm * type + (1 | donor)",
        "cond(arm='case', type='T') - cond(arm='control', type='T')",
        "one_level",
    ),
}
SILENT: dict[str, tuple[ad.AnnData, str, Any]] = {
    "between donors": (cells(), "~ depth + arm + (1 | donor)", "arm"),
    "by sample within donors": (cells(sample_id=sample), UNIT, "condition"),
    "a factor of codes": (cells(12, batch=batch), "~ C(batch) + arm + (1 | donor)", "arm"),
    "an interaction with all its terms": (cells(16), "~ arm * sex + (1 | donor)", ["arm", "arm:sex"]),
    "the variance": (cells(), "~ arm + (1 | donor)", "(1 | donor)"),
}
each_said = pytest.mark.parametrize("name", SAID)


def heard(call: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", sl.LmmWarning)
        call()
    return [str(w.message) for w in caught if issubclass(w.category, sl.LmmWarning)]


def loud(report) -> dict[str, str]:
    return {v.code: v.warning for v in report.verdicts if v.warning}


@each_said
def test_a_run_says_it_once(name: str) -> None:
    adata, formula, test, code = SAID[name]
    adata = adata.copy()
    said = heard(lambda: sl.tl.lmm_de(adata, formula, test))
    stored = loud(sl.get.design_report(adata))
    assert code in stored
    assert said == list(stored.values())
    assert len(said) == 1, said


@pytest.mark.parametrize("name", SILENT)
def test_nothing_is_said_of_a_sound_test(name: str) -> None:
    adata, formula, test = SILENT[name]
    assert heard(lambda: sl.tl.lmm_de(adata.copy(), formula, test)) == []


@each_said
def test_it_is_one_sentence_with_something_to_do(name: str) -> None:
    adata, formula, test, code = SAID[name]
    sentence = loud(sl.tl.check_design(adata, formula, test))[code]
    assert sentence.endswith(".")
    assert re.findall(r"(?<![.])\. (?=[A-Z])", re.sub(r'"[^"]*"', "", sentence)) == []
    assert re.search(r"\b(type|typing|compare with|see|keep|rank)\b", sentence)


def typed_formulas(text: str) -> list[str]:
    return re.findall(r'"(~ [^"]*)"', text)


@each_said
def test_what_it_tells_to_type_can_be_typed(name: str) -> None:
    """Assignments run, subsets and formulas are designs, and what was tested can be tested in them."""
    adata, formula, test, code = SAID[name]
    adata = adata.copy()
    verdict = next(v for v in sl.tl.check_design(adata, formula, test).verdicts if v.code == code)
    for statement in re.findall(
        r'(adata\.obs\["\w+"\] -?= .*?)(?: and "~| first| for its average|\.$)', verdict.warning
    ):
        exec(statement, {"adata": adata, "pd": pd})
    names = {"adata": adata, "sl": sl, "pd": pd}
    for expression in re.findall(r"(?:type|see) ((?:print|pd)\..*?\)|print\(.*?\)\))", verdict.warning):
        eval(expression, names)
    subset = re.search(r"(adata\[.*?\]\.copy\(\)) and", verdict.warning)
    for typed in typed_formulas(verdict.warning) + typed_formulas(verdict.advice):
        whole = eval(subset.group(1), names) if subset and "type" not in typed and "type" in formula else adata
        term = "arm" if "cond(" in str(test) else test if str(test) in typed or "~ depth" in typed else None
        report = sl.tl.check_design(whole, typed, term if term in typed else None)
        assert not report.refused, report
        assert code not in loud(report) or code == "few_donors"  # for which there is no other formula


ODD = {"arm": "arm of trial", "type": "cell:type", "donor": "donor id", "sample_id": "sample (id)"}


@pytest.mark.parametrize(
    ("formula", "test", "code"),
    [
        ("~ `arm of trial` * `cell:type` + (1 | `donor id`)", "`arm of trial`", "reference_level"),
        ("~ `arm of trial` * `cell:type` + (1 | `donor id`)", "cond(`arm of trial`='case')", "reference_level"),
        ("~ `cell:type` + `arm of trial` + (1 | `donor id`)", "cell:type", "paired"),
        ("~ condition + (1 | `donor id`)", "condition", "unit_left_out"),
        ("~ condition + (1 | `sample (id)`)", "condition", "pairs_left_out"),
    ],
)
def test_names_that_are_no_words_are_typed_in_backticks(formula: str, test: str, code: str) -> None:
    adata = cells(12, **({"sample_id": sample} if "type" not in formula else {}))
    adata.obs = adata.obs.rename(columns=ODD)
    test = f"{test} - cond(`arm of trial`='control')" if test.startswith("cond(") else test
    sentence = loud(sl.tl.check_design(adata, formula, test))[code]
    for statement in re.findall(r'(adata\.obs\["[^"]+"\] = .*?) and "~', sentence):
        exec(statement, {"adata": adata})
    typed = typed_formulas(sentence)
    assert typed
    for again in typed:
        assert not sl.tl.check_design(adata, again).refused, again
    for condition in re.findall(r"cond\(\.\.\., (.*?)\)", sentence):
        contrast = f"cond(`arm of trial`='case', {condition}) - cond(`arm of trial`='control', {condition})"
        assert not sl.tl.check_design(adata, formula, contrast).refused


def test_a_number_as_a_factor_is_held_at_a_number() -> None:
    adata = cells(12, visit=lambda donor, condition, rng: rng.integers(1, 4, donor.size))
    sentence = loud(sl.tl.check_design(adata, "~ arm * C(visit) + (1 | donor)", "arm"))["reference_level"]
    assert "at visit = 1 alone" in sentence
    assert "cond(..., visit=2)" in sentence
    assert "reference=" not in sentence
    assert typed_formulas(sentence) == ["~ arm + C(visit) + (1 | donor)", "~ arm + (1 | donor)"]
    assert eval(re.search(r"adata\[.*?\]\.copy\(\)", sentence)[0], {"adata": adata}).n_obs < adata.n_obs / 2


def test_duplicates_of_a_unit_are_one_unit() -> None:
    adata = cells(sample_id=sample, library_id=sample, biosample=sample)
    adata.obs["library_id"] = "lib" + adata.obs["library_id"]
    said = heard(lambda: sl.tl.lmm_de(adata, PAIRED, "condition"))
    assert len(said) == 1
    assert UNIT in said[0]


def test_the_larger_unit_is_the_replicate() -> None:
    """Two lanes of each sample: the condition is a property of the sample."""
    adata = cells(sample_id=sample)
    adata.obs["library_id"] = adata.obs["sample_id"] + np.where(np.arange(adata.n_obs) // 2 % 2 == 0, "a", "b")
    said = heard(lambda: sl.tl.lmm_de(adata, PAIRED, "condition"))
    assert [typed_formulas(sentence) for sentence in said] == [[UNIT]]


def test_a_result_is_as_before() -> None:
    adata, formula, test, _ = SAID["paired"]
    quiet = adata.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sl.tl.lmm_de(quiet, formula, test)
        fit = sl.tl.lmm_fit(adata, formula)
        pd.testing.assert_frame_equal(fit.test(test).table, quiet.varm["lmm_de"].rename_axis(None), check_names=False)


# --- a fit, which has no cells to look at


@each_said
def test_a_fit_says_it_at_the_first_test(name: str) -> None:
    adata, formula, test, code = SAID[name]
    fit = sl.tl.lmm_fit(adata, formula)  # says nothing: it has no p-value yet
    sentence = loud(sl.tl.check_design(adata, formula, test))[code]
    assert heard(lambda: fit.test(test)) == [sentence]
    assert heard(lambda: fit.test(test, method="between-within")) == []


@pytest.mark.parametrize("name", SILENT)
def test_a_fit_says_nothing_of_a_sound_test(name: str) -> None:
    adata, formula, test = SILENT[name]
    fit = sl.tl.lmm_fit(adata, formula)
    assert heard(lambda: fit.test(test)) == []


def test_a_fit_tells_one_test_from_another() -> None:
    fit = sl.tl.lmm_fit(cells(12), "~ depth + condition + arm + (1 | donor)")
    assert heard(lambda: fit.test("arm")) == []
    assert [s[:29] for s in heard(lambda: fit.test("condition"))] == ["The p-values of condition are"]
    assert [s[:27] for s in heard(lambda: fit.test("depth"))] == ["The p-values of depth take "]


def test_a_fit_warns_of_what_a_run_refuses() -> None:
    adata = cells(9)
    adata.obs.loc[adata.obs["donor"] == "d8", "arm"] = "rare"
    with pytest.raises(sl.DesignError, match="cells of only one donor"):
        sl.tl.lmm_de(adata, "~ arm + (1 | donor)", "arm")
    fit = sl.tl.lmm_fit(adata, "~ arm + (1 | donor)")
    assert "cells of only one donor" in heard(lambda: fit.test("arm"))[0]


def test_a_fit_from_a_file_and_a_reduced_one_still_say_it() -> None:
    fit = sl.tl.lmm_fit(cells(), "~ depth + condition + (1 | donor)")
    again = pickle.loads(pickle.dumps(fit))
    assert len(heard(lambda: again.test("condition"))) == 1
    assert len(heard(lambda: fit.drop("depth").test("condition"))) == 1


def test_a_fit_without_an_interaction_has_no_reference_level() -> None:
    fit = sl.tl.lmm_fit(cells(16), "~ arm * sex + (1 | donor)")
    assert heard(lambda: fit.drop("arm:sex").test("arm")) == []
    assert "sex = 'f'" in heard(lambda: fit.test("arm"))[0]


# --- what else judges by p-values


def test_power_and_permutations_say_it() -> None:
    adata, formula, test, _ = SAID["paired"]
    said = heard(lambda: sl.tl.power(adata, formula, test, effect=0.5))
    assert [s[:29] for s in said] == ["The p-values of condition are"]
    fit = sl.tl.lmm_fit(adata, formula)
    assert heard(lambda: sl.tl.power(fit, test=test, effect=0.5)) == said
    adata, formula, test, _ = SAID["samples of a donor"]
    said = heard(lambda: sl.tl.permutation_check(adata, formula, test, n_permutations=2, methods=["lrt"]))
    assert "count as independent" in said[0]


# --- numbers that were read as text


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["1.5", "2.5", "3.5"], True),
        ([str(50 + 2 * k) for k in range(12)], True),
        ([*(str(50 + 2 * k) for k in range(11)), "unknown"], True),
        (["0", "1", "2"], False),
        (["1", "2", "3", "4", "5", "6"], False),
        (["0", "6", "24"], False),  # times, of which there are few
        (["low", "high"], False),
        (["nan", "inf", "1e5"], False),
        (["1.1", "a", "b"], False),
    ],
)
@pytest.mark.parametrize("dtype", ["str", "category"])
def test_what_looks_like_numbers(values: list[str], numbers: bool, dtype: str) -> None:
    adata = cells(24, x=lambda donor, *_: np.array(values)[donor // 2 % len(values)])
    adata.obs["x"] = adata.obs["x"].astype(dtype)
    report = sl.tl.check_design(adata, "~ x + arm + (1 | donor)", "arm")
    assert ("text_numbers" in {v.code for v in report.verdicts}) == numbers


def test_a_factor_that_is_asked_for_is_one() -> None:
    adata, *_ = SAID["text"]
    report = sl.tl.check_design(adata, "~ C(bmi) + arm + (1 | donor)", "arm")
    assert "text_numbers" not in {v.code for v in report.verdicts}


def test_a_number_as_text_with_a_value_for_each_donor_is_refused_as_what_it_is() -> None:
    adata = cells(12, age=lambda donor, *_: [str(50 + 2.5 * j) for j in donor])
    with pytest.raises(sl.DesignError, match="holds numbers as text"):
        sl.tl.lmm_de(adata, "~ age + arm + (1 | donor)", "arm")
