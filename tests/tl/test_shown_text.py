"""What is shown of names is text: a notebook or LaTeX that renders a result runs and reads nothing of them."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_lmm as sl

SCRIPT = "<script>alert(1)</script>"


def make_adata(names: tuple[str, str, str] = ("x", "arm", "donor"), levels: tuple[str, str] = ("a", "b")) -> ad.AnnData:
    rng = np.random.default_rng(9)
    donor = np.arange(96) % 12
    obs = pd.DataFrame(
        {
            names[0]: rng.normal(size=96),
            names[1]: np.array(levels)[donor % 2],
            names[2]: [f"d{j}" for j in donor],
            "sex": np.where(donor // 2 % 2, "F", "M"),
        },
        index=[f"cell{i}" for i in range(96)],
    )
    Y = np.abs(rng.normal(3, 1, (96, 3)) + rng.normal(0, 1, (12, 3))[donor])
    return ad.AnnData(Y, obs=obs, var=pd.DataFrame(index=[f"gene{SCRIPT}", "g1", "g2"]))


def test_no_page_holds_a_tag_that_was_a_name():
    names = tuple(f"{name}{SCRIPT}" for name in ("x", "arm", "donor"))
    adata = make_adata(names, (f"a{SCRIPT}", f"b{SCRIPT}"))
    formula, test = f"~ `{names[0]}` + `{names[1]}` + (1 | `{names[2]}`)", f"`{names[1]}`"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.LmmWarning)
        fit = sl.tl.lmm_fit(adata, formula, show_progress=False)
        sl.tl.lmm_de(adata, formula, test, show_progress=False)
        shown = [
            fit,
            fit.test(test),
            fit.test(f"(1 | `{names[2]}`)"),
            fit.gene(adata.var_names[0]),
            sl.get.design_report(adata),
            sl.tl.check_design(adata, formula, test),
            sl.tl.check_design(adata, f"~ {SCRIPT}", test),
            sl.tl.permutation_check(adata, formula, test, n_permutations=3, show_progress=False),
        ]
    for result in shown:
        page = result._repr_html_()
        assert "<script" not in page
        assert "&lt;script" in page


def equation(adata: ad.AnnData, formula: str, test: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.LmmWarning)
        sl.tl.lmm_de(adata, formula, test, show_progress=False)
    return str(sl.get.lmm_de_equation(adata)).splitlines()[1]


def test_latex_shows_names_and_reads_none():
    adata = make_adata(("x", "arm", r"\href{javascript:alert(1)}{d}"), ("A", r"z\frac{1}{2} $50% & #_^~"))
    line = equation(adata, r"~ arm + (1 | `\href{javascript:alert(1)}{d}`)", "arm")
    level = r"z{\backslash}frac\{1\}\{2\}\ \$50\%\ \&\ \#\_{\wedge}{\sim}"
    assert line == rf"y_{{ij}} &= \beta_0 + \beta_{{1}}\,\mathrm{{arm[{level}]}}_{{ij}} + u_j + \varepsilon_{{ij}} \\"
    assert r"\href" not in str(sl.get.lmm_de_equation(adata))


@pytest.mark.parametrize(
    ("level", "formula", "expected"),
    [
        ("b:c", "~ arm * sex + (1 | donor)", [["arm[b:c]"], ["sex[M]"], ["arm[b:c]", "sex[M]"]]),
        ("b", "~ x * arm + (1 | donor)", [["x"], ["arm[b]"], ["x", "arm[b]"]]),
        ("b", "~ np.log({abs} + 3):arm + (1 | donor)", None),
        ("b", "~ C(arm, contr.treatment('b')):x + (1 | donor)", None),
    ],
)
def test_products_are_taken_apart_at_the_right_colons(level, formula, expected):
    from sc_lmm.get._lmm_de_equation import _factor, _factors

    if expected is None:
        name = "C(arm, contr.custom({'a:b': [1, -1]}))[a:b]:`x:y`:sex[T.a:b]:np.log(`z:w`)"
        assert _factors(name) == [
            *("C(arm, contr.custom({'a:b': [1, -1]}))[a:b]", "`x:y`", "sex[T.a:b]", "np.log(`z:w`)")
        ]
        return
    adata = make_adata(levels=("a", level))
    test = formula.split("* ")[1].split(" ")[0]
    equation(adata, formula, test if level != "b" else "x")
    names = [str(name) for name in adata.uns["lmm_de"]["coef_names"][1:]]
    plain = [[_factor(f)[len(r"\mathrm{") : -1] for f in _factors(name)] for name in names]
    assert plain == expected


def test_a_column_is_shown_without_its_backticks():
    adata = make_adata(("age at onset", "arm", "donor id"))
    line = equation(adata, "~ `age at onset` + (1 | `donor id`)", "age at onset")
    assert r"\mathrm{age\ at\ onset}_{ij}" in line
    assert r"\mathrm{donor\ id}" in str(sl.get.lmm_de_equation(adata))


# ------------------------------------------------------------------------------------------------- one gene's effects


def test_a_gene_of_several_is_not_picked_at_random():
    adata = make_adata()
    equation(adata, "~ arm + (1 | donor)", "arm")
    adata.var_names = ["g1", "g1", "g2"]
    with pytest.raises(KeyError, match="gene 'g1' is the name of 2 genes"):
        sl.get.ranef_df(adata, "g1")
    with pytest.raises(KeyError, match="gene 'g3' is not in adata.var_names. Available: 'g1'"):
        sl.get.ranef_df(adata, "g3")
    assert len(sl.get.ranef_df(adata, "g2")) == 12


def test_effects_in_other_cells_than_those_of_the_run_are_said_to_be_that():
    adata = make_adata()
    equation(adata, "~ arm + (1 | donor)", "arm")
    with pytest.warns(
        sl.LmmWarning, match="is not what the run 'lmm_de' read: it has 84 cells for the model, then it had 96"
    ):
        sl.get.ranef_df(adata[12:].copy(), "g1")
