"""Facts of a design: relations between columns against R, precision against dense matrices and textbook power."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from sc_lmm._design.hypothesis import hypotheses_of
from sc_lmm._design.model_matrix import build_design
from sc_lmm._design.transforms import group_transforms
from sc_lmm._errors import DesignError
from sc_lmm._report.alias import find_aliases
from sc_lmm._report.anatomy import anatomy
from sc_lmm._report.audit import audit
from sc_lmm._report.precision import endless_standard_errors, noncentrality, standard_errors, within_share

REFERENCE = Path(__file__).parents[1] / "reference"


@cache
def r_designs() -> dict:
    return json.loads((REFERENCE / "alias_designs.json").read_text())["designs"]


@cache
def r_annotations() -> dict[str, pd.DataFrame]:
    table = pd.read_csv(REFERENCE / "alias_designs.csv")
    return {name: rows.reset_index(drop=True) for name, rows in table.groupby("design", sort=False)}


def r_name(column: str) -> str:
    """a[T.a2]:c[T.c2] -> aa2:cc2, as R names it."""
    return "(Intercept)" if column == "Intercept" else re.sub(r"\[(?:T\.)?(.*?)\]", r"\1", column)


@pytest.mark.parametrize("name", list(r_designs()))
def test_relations_agree_with_r(name: str) -> None:
    expected = r_designs()[name]
    design = build_design(f"~ {expected['fixed']} + (1 | g)", r_annotations()[name])
    found = {r_name(alias.column): alias for alias in anatomy(design).aliases}
    assert [r_name(column) for column in design.coef_names] == expected["columns"]
    assert list(found) == expected["lm_aliased"] == expected["lme4_dropped"]
    for column, coefficients in dict(expected["relations"]).items():
        relation = dict(zip(map(r_name, found[column].others), found[column].coefficients, strict=True))
        ours = [relation.get(other, 0.0) for other in expected["independent"]]
        np.testing.assert_allclose(ours, coefficients, atol=1e-6, rtol=1e-6)  # years near 2000 against values near 1


@pytest.mark.parametrize("name", list(r_designs()))
def test_refused_if_and_only_if_r_drops_columns(name: str) -> None:
    expected = r_designs()[name]
    report = audit(build_design(f"~ {expected['fixed']} + (1 | g)", r_annotations()[name]))
    assert report.refused == bool(expected["lm_aliased"])
    involved = {column for term in report.terms if not term.estimable for column in term.columns}
    assert set(expected["lm_aliased"]) <= {r_name(c) for c in involved}


@pytest.mark.r
def test_reference_values_are_those_of_the_script(tmp_path: Path) -> None:
    script = REFERENCE / "alias_designs.R"
    subprocess.run(["Rscript", str(script)], cwd=tmp_path, check=True, capture_output=True)
    assert json.loads((tmp_path / "alias_designs.json").read_text())["designs"] == r_designs()
    assert (tmp_path / "alias_designs.csv").read_text() == (REFERENCE / "alias_designs.csv").read_text()


@st.composite
def annotations(draw: st.DrawFn) -> pd.DataFrame:
    """Cells of 4 to 10 donors with factors and numbers that no relation ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = rng.integers(4, 12, size=draw(st.integers(4, 10)))
    donor = np.repeat(np.arange(sizes.size), sizes)
    n = donor.size
    scale, shift = 10.0 ** draw(st.integers(-3, 4)), draw(st.sampled_from([0.0, 5.0, 2000.0]))
    return pd.DataFrame(
        {
            "donor": [f"d{j:02d}" for j in donor],
            "arm": np.array(["ctrl", "case"])[np.arange(sizes.size) % 2][donor],
            "age": rng.normal(60, 9, sizes.size)[donor],
            "type": rng.choice(["T", "B", "NK"], n),
            "depth": scale * (rng.normal(size=n) + shift),
            "share": rng.uniform(size=n),
        }
    )


PLANTS = {
    "depth": lambda obs: obs["depth"],
    "depth + share": lambda obs: 3 - 2 * obs["depth"] + obs["share"] * obs["depth"].std(),
    "type": lambda obs: np.where(obs["type"] == "T", "lymphoid", "other"),
    "arm": lambda obs: np.where(obs["arm"] == "case", "batch 2", "batch 1"),
    "arm + age": lambda obs: 10 * (obs["arm"] == "case") - obs["age"],
    "donor": lambda obs: obs["donor"].str[1:].astype(int) ** 2.0,
}


@given(annotations(), st.sampled_from(list(PLANTS)), st.booleans())
def test_planted_relations_are_found_and_named(obs: pd.DataFrame, others: str, first: bool) -> None:
    obs["planted"] = PLANTS[others](obs)
    names = others.split(" + ")
    fixed = " + ".join(["planted", *names] if first else [*names, "planted"])
    design = build_design(f"~ {fixed} + (1 | donor)", obs)
    assume(len(set(obs["type"])) == 3)
    report = audit(design)
    assert report.refused
    found = anatomy(design).aliases
    for alias in found:
        columns = [design.coef_names.index(name) for name in alias.others]
        expected = design.X[:, columns] @ np.array(alias.coefficients)
        np.testing.assert_allclose(design.X[:, alias.index], expected, atol=1e-6 * np.abs(design.X).max())
    words = " ".join(v.message for v in report.verdicts if v.grade == "refused")
    assert all(name in words for name in [*names, "planted"])
    assert not any(term.estimable for term in report.terms if term.name == "planted")


@settings(max_examples=50)
@given(annotations(), st.permutations(["arm", "age", "type", "depth", "share"]), st.integers(1, 5))
def test_full_rank_designs_are_never_refused(obs: pd.DataFrame, order: list[str], n_terms: int) -> None:
    assume(len(set(obs["type"])) == 3)
    assume("age" not in order[:n_terms] or "arm" not in order[:n_terms] or obs["donor"].nunique() > 4)
    design = build_design(f"~ {' + '.join(order[:n_terms])} + (1 | donor)", obs)
    for test in (None, order[0]):
        report = audit(design, test, obs)
        assert not report.refused, str(report)
        assert all(term.estimable and term.max_df > 0 for term in report.terms)


@settings(max_examples=30)
@given(annotations())
def test_moments_stand_for_the_matrix(obs: pd.DataFrame) -> None:
    design = build_design("~ arm * type + depth + age + (1 | donor)", obs)
    a = anatomy(design)
    total = a.R.T @ a.R + (a.means.T * a.sizes) @ a.means
    np.testing.assert_allclose(total, design.X.T @ design.X, rtol=1e-9, atol=1e-9 * np.abs(total).max())
    assert list(a.aliases) == [] or [x.column for x in a.aliases] == [
        x.column for x in find_aliases(design.X, design.coef_names)
    ]
    constant = [k for k, x in enumerate(design.X.T) if pd.Series(x).groupby(obs["donor"]).nunique().max() == 1]
    assert np.flatnonzero(a.within == 0).tolist() == constant


def unbalanced(seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sizes = np.array([3, 12, 7, 5, 20, 4, 9])
    donor = np.repeat(np.arange(7), sizes)
    arm = np.array(["a", "b", "b", "a", "b", "a", "c"])[donor]
    return pd.DataFrame(
        {
            "donor": donor.astype(str),
            "arm": np.where(arm == "c", "a", arm),
            "age": rng.normal(60, 9, 7)[donor],
            "depth": rng.normal(8, 1, donor.size) + 0.3 * (arm == "b"),
            "site": rng.choice(["x", "y"], donor.size),
        }
    )


@pytest.mark.parametrize("icc", [0.01, 0.3, 0.9])
def test_standard_errors_are_those_of_the_dense_covariance(icc: float) -> None:
    design = build_design("~ depth + age + site + arm + (1 | donor)", unbalanced())
    Z = np.eye(7)[design.random.codes]
    V = (1 - icc) * np.eye(design.n_cells) + icc * Z @ Z.T
    expected = np.sqrt(np.diag(np.linalg.inv(design.X.T @ np.linalg.solve(V, design.X))))
    a = anatomy(design)
    np.testing.assert_allclose(standard_errors(a, icc, a.independent), expected, rtol=1e-9)
    report = audit(design, "arm")
    found = {d.icc: d for d in report.test.detectable}
    if icc in found:
        iid = np.sqrt(np.linalg.inv(design.X.T @ design.X)[-1, -1])
        assert found[icc].design_effect == pytest.approx((expected[-1] / iid) ** 2)
        assert found[icc].sd_cell == pytest.approx(noncentrality(4) * expected[-1])


def test_within_share_is_the_information_of_differences_within_donors() -> None:
    design = build_design("~ depth + site + arm + (1 | donor)", unbalanced())
    a, X = anatomy(design), design.X
    means = pd.DataFrame(X).groupby(design.random.codes).transform("mean").to_numpy()
    W = X - means  # columns: Intercept, depth, site, arm
    left = W[:, 1] - W[:, [2]] @ np.linalg.lstsq(W[:, [2]], W[:, 1], rcond=None)[0]
    k = design.coef_names.index("depth")
    if k == 1:
        se = standard_errors(a, 0.05, a.independent)[1]
        assert within_share(a, np.eye(len(design.coef_names))[[1]]) == pytest.approx(left @ left / 0.95 * se**2)
    assert within_share(a, np.eye(len(design.coef_names))[[design.coef_names.index("arm[T.b]")]]) == 0


def test_within_share_of_a_contrast_is_that_of_a_model_with_a_coefficient_for_each_donor() -> None:
    """Of conditions within donors (site) and between them (arm), and of one at a level of the other."""
    design = build_design("~ arm * site + depth + (1 | donor)", unbalanced())
    a, codes = anatomy(design), design.random.codes
    coding = design.coding
    W = design.X - pd.DataFrame(design.X).groupby(codes).transform("mean").to_numpy()
    Z = np.eye(7)[codes]
    V = 0.95 * np.eye(design.n_cells) + 0.05 * Z @ Z.T
    covariance = np.linalg.inv(design.X.T @ np.linalg.solve(V, design.X))
    for contrast, within in (
        ("cond(arm='b', site='y') - cond(arm='b', site='x')", True),
        ("cond(arm='b', site='y') - cond(arm='a', site='y')", False),
        ("cond(arm='b', site='y') - cond(arm='a', site='x')", False),
    ):
        (hypothesis,) = hypotheses_of(coding, contrast)
        L = hypothesis.L
        alone = (L @ np.linalg.pinv(W.T @ W, rcond=1e-10) @ L.T).item() * 0.95
        expected = (L @ covariance @ L.T).item() / alone if within else 0.0
        assert within_share(a, L) == pytest.approx(expected)
        assert {t.level for t in audit(design, contrast).tests} == {"within" if within else "between"}


def test_endless_cells_leave_the_donor_level_regression() -> None:
    design = build_design("~ depth + age + arm + (1 | donor)", unbalanced())
    a = anatomy(design)
    donor = pd.DataFrame(design.X).groupby(design.random.codes).first().to_numpy()
    names = list(design.coef_names)
    places = [names.index(name) for name in ("Intercept", "age", "arm[T.b]")]
    expected = np.sqrt(0.2 * np.diag(np.linalg.inv(donor[:, places].T @ donor[:, places])))
    found = endless_standard_errors(a, 0.2, a.independent)
    np.testing.assert_allclose(found[places], expected, rtol=1e-7)
    assert found[names.index("depth")] == 0


@pytest.mark.parametrize("df", [1, 2, 5, 22, 400, 1_000_000])
def test_noncentrality_gives_the_power(df: int) -> None:
    critical = stats.t.isf(0.025, df)
    assert stats.nct.sf(critical, df, noncentrality(df)) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("n_a", [5, 13])
def test_balanced_donors_have_the_power_of_a_t_test_of_their_means(n_a: int) -> None:
    donor = np.repeat(np.arange(n_a + 8), 30)
    obs = pd.DataFrame({"donor": donor.astype(str), "arm": np.where(donor < n_a, "a", "b")})
    report = audit(build_design("~ arm + (1 | donor)", obs), "arm")
    expected = TTestIndPower().solve_power(nobs1=n_a, ratio=8 / n_a, power=0.8, alpha=0.05)
    for found in report.test.detectable:
        assert found.sd_donor_mean == pytest.approx(expected, rel=1e-5)
        assert found.design_effect == pytest.approx(1 + 29 * found.icc)
    assert report.test.df == n_a + 6


def test_facts_of_terms() -> None:
    obs = unbalanced()
    report = audit(build_design("~ depth + within(depth) + age + site + arm + (1 | donor)", obs), "arm")
    facts = {term.name: term for term in report.terms}
    assert {name: f.varies for name, f in facts.items()} == {
        "depth": "both",
        "within(depth)": "within",
        "age": "between",
        "site": "both",
        "arm": "between",
    }
    means = obs.groupby("donor")["depth"].transform("mean")
    assert facts["depth"].between_share == pytest.approx(means.var(ddof=0) / obs["depth"].var(ddof=0))
    assert facts["arm"].donors == {"a": 4, "b": 3}
    assert facts["arm"].cells == {"a": 21, "b": 39}
    # Beside within(depth), depth is the slope between donors and within(depth) the difference of the two slopes, so
    # both are known between donors, where depth, age, arm and the intercept leave 7 - 4 df.
    assert {facts[name].max_df for name in ("depth", "within(depth)", "age", "arm")} == {3}
    assert facts["site"].max_df == 60 - 7 - 2
    random = report.random[0]
    sizes = np.array([3, 12, 7, 5, 20, 4, 9])
    assert (random.levels, random.smallest, random.median, random.largest) == (7, 3, 7.0, 20)
    assert random.effective_levels == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum())
    assert random.effective_cells == pytest.approx(stats.hmean(sizes))
    assert random.relations[1] == "donor is nested in arm."


def test_variance_inflation_is_that_of_regression_between_donors() -> None:
    rng = np.random.default_rng(5)
    arm = np.repeat([0, 1], 10)
    batch = np.where(rng.random(20) < 0.8, arm, 1 - arm)
    donor = np.repeat(np.arange(20), 25)
    obs = pd.DataFrame({"donor": donor.astype(str), "arm": arm[donor].astype(str), "batch": batch[donor].astype(str)})
    report = audit(build_design("~ batch + arm + (1 | donor)", obs), "arm")
    assert report.test.inflation == pytest.approx(1 / (1 - np.corrcoef(arm, batch)[0, 1] ** 2))
    assert report.test.inflation_by == {"batch": pytest.approx(report.test.inflation)}


def test_within_and_between_split_a_column() -> None:
    obs = unbalanced()
    design = build_design("~ within(depth) + between(depth) + between(np.log(age)) + (1 | donor)", obs)
    means = obs.groupby("donor")["depth"].transform("mean")
    np.testing.assert_allclose(design.X[:, 1], obs["depth"] - means, atol=1e-12)
    np.testing.assert_allclose(design.X[:, 2], means, rtol=1e-12)
    np.testing.assert_allclose(design.X[:, 3], np.log(obs["age"]), rtol=1e-12)


def test_within_and_between_code_new_cells_by_the_same_means() -> None:
    obs = unbalanced()
    design = build_design("~ within(depth) + between(depth) + (1 | donor)", obs)
    (alias,) = design.coding.annotations
    new = pd.DataFrame({alias: [1.0, 2.0], "donor": ["1", "new"]}, index=["p", "q"])
    coded = design.coding.spec.get_model_matrix(new, context=group_transforms(new["donor"]))
    mean = obs.loc[obs["donor"] == "1", "depth"].mean()
    np.testing.assert_allclose(coded.to_numpy(), [[1, 1 - mean, mean], [1, 0, 2]], rtol=1e-12)


def test_within_needs_numbers() -> None:
    with pytest.raises(DesignError, match=r"within\(\) needs a numeric column"):
        build_design("~ within(site) + (1 | donor)", unbalanced())
