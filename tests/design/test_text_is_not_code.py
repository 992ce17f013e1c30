"""Text is not code: of a formula or a contrast nothing is run but arithmetic and known functions."""

from __future__ import annotations

import ast
import contextlib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from formulaic import model_matrix
from formulaic.transforms import TRANSFORMS
from hypothesis import given
from hypothesis import strategies as st

import sc_lmm
from sc_lmm._design import build_design, hypotheses_of, parse_formula
from sc_lmm._design.code import _FUNCTIONS, translate
from sc_lmm._errors import DesignError

N_DONORS, N_CELLS = 12, 60
DONOR = np.arange(N_CELLS) % N_DONORS


def make_obs() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "donor": [f"d{j:02d}" for j in DONOR],
            "arm": np.where(DONOR % 2 == 0, "Crohn's", "none"),
            "batch": DONOR % 3 + 1,
            "x": rng.uniform(1, 2, N_CELLS),
            "z": rng.uniform(1, 2, N_CELLS),
        }
    )


OBS = make_obs()
CODING = build_design("~ x + arm + (1 | donor)", OBS).coding

# Each is one expression that writes a file, by a way that formulaic or eval leave open.
WRITES = [
    "x.to_csv({path!r})",
    "np.save({path!r}, x)",
    "np.savetxt({path!r}, [1])",
    "np.log(x).to_csv({path!r})",
    "np.asarray(x).tofile({path!r})",
    "x.pipe(lambda s: open({path!r}, 'w'))",
    "C.__globals__['__builtins__']['open']({path!r}, 'w')",
    "[open_ for open_ in [x.to_csv({path!r})]]",
    "np.__dict__['save']({path!r}, x)",
    "(x if x.to_csv({path!r}) else x)",
]


@pytest.mark.parametrize("code", WRITES)
@pytest.mark.parametrize(
    "around", ["~ I({0}) + (1 | donor)", "~ {{{0}}} + (1 | donor)", "~ poly({0}, 2) + (1 | donor)"]
)
def test_a_formula_writes_no_file(tmp_path, code, around):
    path = tmp_path / "written"
    with pytest.raises(DesignError, match="in a formula"):
        build_design(around.format(code.format(path=str(path))), OBS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "cond.__globals__['pd'].Series([1]).to_csv({path!r}) or cond(arm='none') - cond()",
        "cond.__call__.__globals__['np'].save({path!r}, 1) or cond(arm='none')",
        "cond(arm=[].__class__.__base__.__subclasses__()) - cond()",
        "(lambda: cond(arm='none'))() - cond()",
        "cond(**{{'arm': 'none'}}) - cond()",
        "cond(*['none']) - cond()",
        "cond(arm='none' if 1 else 'x') - cond()",
        "cond(arm=f'none') - cond()",
        "cond(arm='no' + 'ne') - cond()",
        "cond(x=9**9**9) - cond()",
        "cond(x=1) - cond(x=True and 2)",
        "(c := cond(x=1)) - cond()",
        "max(cond(x=1), cond())",
        "cond(x=1, x=2) - cond()",
        "cond(x=1j) - cond()",
        "cond(x=None) - cond()",
        "cond(arm=b'none') - cond()",
        "[cond(x=1) for _ in (1,)][0]",
        "cond(x=1); cond()",
        "cond(x=1) if True else cond()",
        "cond(x=" + "(" * 500 + "1" + ")" * 500 + ") - cond()",
        "-" * 100_000 + "cond(x=1)",
    ],
)
def test_a_contrast_is_arithmetic_of_conditions(tmp_path, text):
    text = text.format(path=str(tmp_path / "written")) if "{" in text else text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DesignError, match="cannot be read"):
            hypotheses_of(CODING, text)
    assert list(tmp_path.iterdir()) == []


def test_a_string_in_a_transform_cannot_end_the_text_that_formulaic_makes_of_it(tmp_path):
    # formulaic writes the call of a stateful transform between quotation marks into another piece of code.
    path = tmp_path / "written"
    payload = f'") or open({str(path)!r}, "w") or ("'
    for quoted in (repr(payload), repr("'" + payload), repr(payload + "\\")):
        for text in (f"center(I(arm == {quoted}))", f"within(I(arm != {quoted}))", f"scale(np.isin(arm, [{quoted}]))"):
            with pytest.raises(DesignError, match="quotation mark or a backslash"):
                build_design(f"~ {text} + (1 | donor)", OBS)
    assert not path.exists()


def test_levels_with_apostrophes_can_be_named():
    design = build_design("""~ C(arm, contr.treatment("Crohn's")) + I(arm == "Crohn's") + (1 | donor)""", OBS)
    np.testing.assert_array_equal(design.X[:, 1], OBS["arm"] == "none")
    np.testing.assert_array_equal(design.X[:, 2], OBS["arm"] == "Crohn's")
    (h,) = hypotheses_of(CODING, """cond(arm="none") - cond(arm='Crohn\\'s')""")
    np.testing.assert_array_equal(h.L, [[0, 0, 1]])


@pytest.mark.parametrize("level", ["a)", "a(b", "a]", "{a", "a}", "a~b", "a|b", "a + b", "`a", "a`b`", "%in%", "a:b"])
def test_strings_may_hold_what_the_grammar_is_made_of(level):
    obs = OBS.assign(arm=np.where(DONOR % 2 == 0, level, "none"))
    for text in ("C(arm, contr.treatment({0!r}))", "{{C(arm, Treatment({0!r}))}}"):
        design = build_design(f"~ x + {text.format(level)} + (1 | donor)", obs)
        np.testing.assert_array_equal(design.X[:, 2], obs["arm"] == "none")
        assert design.coef_names[2].endswith("[T.none]")
    np.testing.assert_array_equal(
        build_design(f"~ I(arm == {level!r}) + (1 | donor)", obs).X[:, 1], obs["arm"] == level
    )


# ------------------------------------------------------------------------------------------------- what is allowed

ALLOWED = {
    "np.log(x)": lambda o: np.log(o["x"]),
    "np.log1p( x )": lambda o: np.log1p(o["x"]),
    "log10(x)": lambda o: np.log10(o["x"]),
    "exp10(x)": lambda o: 10 ** o["x"],
    "I(x**2)": lambda o: o["x"] ** 2,
    "{x + z / 2}": lambda o: o["x"] + o["z"] / 2,
    "I(2 ** x - np.pi * z)": lambda o: 2 ** o["x"] - np.pi * o["z"],
    "I(x ** (1/3))": lambda o: o["x"] ** (1 / 3),
    "np.where(x > 1.5, x, 1.5)": lambda o: o["x"].clip(1.5),
    "np.clip(x, 1.2, 1.8)": lambda o: o["x"].clip(1.2, 1.8),
    "np.clip(x, a_min=1.2, a_max=1.8)": lambda o: o["x"].clip(1.2, 1.8),
    "np.maximum(x, z)": lambda o: o[["x", "z"]].max(axis=1),
    "I((arm == 'none') & ~(x > 1.5))": lambda o: (o["arm"] == "none") & (o["x"] <= 1.5),
    "np.isin(batch, [1, 3])": lambda o: o["batch"].isin([1, 3]),
    "np.digitize(x, [1.3, 1.6])": lambda o: (o["x"] >= 1.3).astype(int) + (o["x"] >= 1.6),
    "center(np.sqrt(x) * -z)": lambda o: -np.sqrt(o["x"]) * o["z"] + (np.sqrt(o["x"]) * o["z"]).mean(),
    'Q("x")': lambda o: o["x"],
}


@pytest.mark.parametrize("term", ALLOWED)
def test_functions_of_each_value_are_allowed(term):
    design = build_design(f"~ {term} + (1 | donor)", OBS)
    np.testing.assert_allclose(design.X[:, 1], ALLOWED[term](OBS).astype(float), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "fixed",
    [
        *(
            "poly(x, 2)",
            "bs(x, df=4)",
            "cr(x, df=3)",
            "cc(x, df=3)",
            "scale(x)",
            "standardize(x, center=False)",
            "exp(x)",
        ),
        *(
            "C(batch)",
            "C(batch, contr.sum)",
            "C(batch, contr.helmert(reverse=False))",
            "C(batch, Sum)",
            "C(batch, levels=[3, 1, 2])",
        ),
        *(
            "C(batch, contr.custom({'a': [1, -1, 0], 'b': [0, 1, -1]}))",
            "C(batch, spans_intercept=False)",
            "C(batch):x",
        ),
        *(
            "x*z - x:z",
            "(x + z)**2",
            "x/z",
            "z %in% arm",
            "0 + arm",
            "x + z - 1",
            "1 + x",
            "2:x",
            "x^2",
            "arm*C(batch)",
            "x + + z",
            "x - -z",
        ),
    ],
)
def test_the_columns_are_those_of_formulaic(fixed):
    expected = model_matrix(fixed, OBS)
    design = build_design(f"~ {fixed} + (1 | donor)", OBS)
    np.testing.assert_allclose(design.X, expected.to_numpy(dtype=float), rtol=1e-12, atol=1e-14)
    assert list(design.coef_names) == list(expected.columns)


def test_every_function_that_a_formula_may_call_is_one_of_values_or_a_transform():
    of_values = {name for name in _FUNCTIONS if name.startswith("np.")} - {"np.where", "np.clip", "np.round", "np.isin"}
    for name in of_values - {"np.digitize"}:
        ufunc = getattr(np, name.removeprefix("np."))
        assert isinstance(ufunc, np.ufunc)
        assert (ufunc.signature, ufunc.nout) == (None, 1)
    assert set(TRANSFORMS) - {"np", "contr"} <= set(_FUNCTIONS)


# -------------------------------------------------------------------------------------------------- what is not

EXAMPLES = {  # of every kind of expression that Python has
    ast.BoolOp: "x and z",
    ast.NamedExpr: "(y := x)",
    ast.Lambda: "lambda: x",
    ast.IfExp: "x if z else x",
    ast.Set: "{1, 2}",
    ast.ListComp: "[y for y in x]",
    ast.SetComp: "{y for y in x}",
    ast.DictComp: "{y: y for y in x}",
    ast.GeneratorExp: "(y for y in x)",
    ast.Await: "await x",
    ast.Yield: "(yield)",
    ast.YieldFrom: "(yield from x)",
    ast.FormattedValue: "f'{x}'",
    ast.JoinedStr: "f'x'",
    ast.Subscript: "x[0]",
    ast.Starred: "C(*x)",
    ast.Slice: "x[1:2]",
    ast.Attribute: "x.values",
    ast.Call: "x.fillna(0)",
}
HARMLESS = {ast.BinOp, ast.UnaryOp, ast.Compare, ast.Constant, ast.Name, ast.List, ast.Tuple, ast.Dict}


def test_every_kind_of_expression_was_thought_of():
    kinds = {kind for kind in ast.expr.__subclasses__() if kind.__name__ not in {"TemplateStr", "Interpolation"}}
    assert kinds == set(EXAMPLES) | HARMLESS


@pytest.mark.parametrize(
    "code",
    [
        *EXAMPLES.values(),
        *("x.__class__", "np.log.__class__", "np.log", "np.load('f')", "np.add.reduce(x)", "np.log.outer(x, x)", "np.matmul(x, x)"),
        *("np.vectorize(x)", "np.fromfile('f')", "np.lib", "np.ctypeslib.np", "contr.__init__", "contr.treatment.mro()"),
        *("np.log(x, x)", "np.log(x, out=x)", "np.log(x, where=True)", "np.clip(x, 0, 1, x)", "np.clip(x, 0, 1, out=x)", "np.round(x, 0, x)"),
        *("within(x, _state={})", "poly(x, _context=x)", "C(x, **{})", "within()", "within(x, z)", "I()", "foo(x)", "print(x)", "Q(x)"),
        *("`C`(x)", "`np`.log(x)", "C(x)(z)", "I(x).real", "getattr(x, 'y')", "__import__('os')", "not x", "x < z < x", "x in z", "x is z"),
        *("9**9**9", "'a' * 9", "[1] * 9", "x @ z", "x << 3", "1j * x", "b'x'", "...", "[x]", "(x, z)", "{'a': x}", "percent.mt", "np.log(percent.mt)"),
        *("", "x +", "x y", "class", "(" * 300 + "x" + ")" * 300, "-" * 100_000 + "x"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_allowed(code):
    with pytest.raises(DesignError, match=r"in a formula .*np.log1p\(x\).*adata.obs"):
        translate(code, lambda column, **_: column)


@given(st.text())
def test_no_text_makes_the_reader_fail_in_another_way(text):
    for formula in (f"~ {text} + (1 | donor)", f"~ I({text}) + (1 | donor)", text):
        with contextlib.suppress(DesignError):
            parse_formula(formula)
    with contextlib.suppress(DesignError):
        hypotheses_of(CODING, f"cond(x={text}) - cond()")


def test_code_that_came_another_way_than_by_a_formula_is_refused():
    coding = build_design("~ np.log(x) + (1 | donor)", OBS).coding
    coding.check_code()
    coding.spec.formula[1].factors[0].expr = "__import__('os').getcwd()"
    with pytest.raises(DesignError, match="which is no function that a formula may call"):
        coding.check_code()


FILES = sorted(Path(sc_lmm.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FILES[0].parent)))
def test_no_module_evaluates_text_connects_or_starts_a_program(file):
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"eval", "exec", "compile", "__import__", "open", "input"}
    imported = {alias.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    imported |= {str(n.module).split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0}
    forbidden = {
        "ctypes",
        "http",
        "marshal",
        "requests",
        "runpy",
        "shelve",
        "socket",
        "subprocess",
        "urllib",
        "webbrowser",
    }
    assert not imported & (forbidden if file.name == "storage.py" else forbidden | {"pickle"})
