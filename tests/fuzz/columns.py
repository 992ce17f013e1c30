"""Columns of obs of any kind, dtype, origin and unit, the terms made of them, and what each term spans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Rng = np.random.Generator

NAMES = (
    *(
        "x",
        "age",
        "Age",
        "dose_1",
        "x.y",
        "dose µg",
        "a b",
        "a|b",
        "a~b",
        "a:b",
        "a+b",
        "a, b",
        "a*b",
        "(x)",
        "[x]",
        "{x}",
    ),
    *(
        "if",
        "class",
        "lambda",
        "None",
        "True",
        "np",
        "log",
        "C",
        "I",
        "Q",
        "within",
        "cond",
        "Intercept",
        "residual",
        "1",
        "0",
    ),
    *(
        "2.5",
        "-1",
        "inf",
        "nan",
        "π",
        "ﬁ",
        "ligature ﬁ",
        "_",
        "__x",
        "name_0_",
        "column_0",
        "'",
        '"',
        "it's",
        "\\",
        "%in%",
    ),
    *(
        "a\tb",
        "C(x)",
        "I(x ** 2)",
        "(1 | donor)",
        "donor",
        "status",
        "coef",
        "lmm_de",
        "<b>",
        "$x$",
        "#",
        "x=1",
        "日本",
    ),
)
LEVELS = (
    *(
        "a",
        "b",
        "control",
        "case",
        "T.x",
        "[T.a]",
        "",
        " ",
        "a:b",
        "1",
        "2",
        "1.5",
        "nan",
        "None",
        "é",
        "x]",
        "a/b",
        "'",
        '"',
    ),
    *("-", "True", "0", "a b", "A", "\\n", "<i>", "Intercept", "日本", "^", "*", "."),
)


@dataclass(frozen=True)
class Column:
    """A column of obs, and what it means."""

    name: str
    series: pd.Series  # (n_obs,)
    text: str  # as a formula writes it
    spans: tuple[Array, ...]  # of the column itself, NaN where missing: the numbers, or an indicator per level
    between: bool  # constant within donors

    @property
    def is_factor(self) -> bool:
        """Whether it stands for levels."""
        return len(self.spans) > 1


@dataclass(frozen=True)
class Term:
    """A fixed term."""

    text: str
    spans: tuple[Array, ...]
    parts: frozenset[str]  # of an interaction; one for a main effect
    between: bool
    simple: bool = False  # one number as it is, so that its coefficient is known


def written(name: str, *, always: bool = False) -> str:
    """Name as a formula writes it."""
    return name if name.isascii() and name.isidentifier() and name not in _RESERVED and not always else f"`{name}`"


_RESERVED = {"if", "class", "lambda", "None", "True", "Intercept"}


def draw_number(rng: Rng, name: str, donor: Array) -> Column:
    """A number that varies within donors, between them, or both."""
    n, kind = donor.size, rng.choice(["within", "between", "both"], p=[0.5, 0.3, 0.2])
    z = rng.normal(size=n) * (kind != "between") + rng.normal(size=donor.max() + 1)[donor] * (kind != "within")
    dtype = str(
        rng.choice(["float64", "float32", "int64", "uint8", "Int64", "Float64"], p=[0.6, 0.1, 0.1, 0.05, 0.05, 0.1])
    )
    if "int" in dtype.lower():
        z = np.rint(8 * z + (40 if dtype == "uint8" else rng.choice([0, 19_000]))).clip(
            0, 255 if dtype == "uint8" else None
        )
    elif rng.random() < 0.25 and dtype != "float32":
        z = (z + 10.0 ** rng.uniform(0, 6)) * 10.0 ** rng.uniform(-9, 9)
    series = pd.Series(z.astype(np.float64)).astype(dtype)
    series = with_gaps(rng, series, donor if kind == "between" else None)
    values = series.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    return Column(name, series, written(name, always=rng.random() < 0.3), (values,), kind == "between")


def draw_factor(rng: Rng, name: str, donor: Array) -> Column:
    """A factor with 2 to 4 levels, within donors or constant in them, of any dtype."""
    k, between = int(rng.integers(2, 5)), bool(rng.random() < 0.5)
    m = int(donor.max()) + 1
    of_donor = rng.permutation(np.resize(np.arange(k), m))
    codes = of_donor[donor] if between else rng.integers(0, k, donor.size)
    codes[: min(k, codes.size)] = codes[: min(k, codes.size)] if between else np.arange(k)
    names = list(rng.permutation(np.array(LEVELS, dtype=object))[:k])
    series, text = _FACTORS[str(rng.choice(list(_FACTORS)))](rng, name, codes, names)
    series = with_gaps(rng, series, donor if between else None)
    missing = series.isna().to_numpy()
    spans = tuple(np.where(missing, np.nan, codes == j) for j in np.unique(codes[~missing]))
    return Column(name, series, text, spans, between)


def with_gaps(rng: Rng, series: pd.Series, donor: Array | None = None) -> pd.Series:
    """Sometimes without a few of its values, or those of a donor."""
    if series.dtype in (np.int64, np.uint8, bool) or rng.random() < 0.85:
        return series
    few = rng.random(len(series)) < 0.05 if donor is None else donor == rng.integers(donor.max() + 1)
    return series.mask(few) if series.dtype != object else series.where(~few, rng.choice([None, np.nan]))


def _texts(rng: Rng, name: str, codes: Array, levels: list[str]) -> tuple[pd.Series, str]:
    values = np.array(levels, dtype=object)[codes]
    kind = rng.integers(3)
    values = values if kind == 0 else np.array([np.str_(v) for v in values], dtype=object)
    series = pd.Series(values, dtype="string" if kind == 2 else object)
    return series, written(name, always=rng.random() < 0.3)


def _categories(rng: Rng, name: str, codes: Array, levels: list[str]) -> tuple[pd.Series, str]:
    unused = [level for level in ("zz", "unused level", "9") if rng.random() < 0.5]
    categories = list(rng.permutation(np.array([*levels, *unused], dtype=object)))
    values = pd.Categorical(np.array(levels, dtype=object)[codes], categories, ordered=bool(rng.random() < 0.5))
    return pd.Series(values), written(name, always=rng.random() < 0.3)


def _whole(rng: Rng, name: str, codes: Array, levels: list[str]) -> tuple[pd.Series, str]:
    values = np.sort(rng.choice(2**20, len(levels), replace=False))[codes] + (rng.random() < 0.5) * 2**53
    dtype = rng.choice(["int64", "Int64"] if values.max() > 2**52 else ["int64", "Int64", "float64"])
    return pd.Series(values).astype(str(dtype)), f"C({written(name)})"


def _truths(rng: Rng, name: str, codes: Array, levels: list[str]) -> tuple[pd.Series, str]:
    if len(levels) > 2:
        return _texts(rng, name, codes, levels)
    return pd.Series(codes == 1).astype(str(rng.choice(["bool", "boolean", "object"]))), written(name)


_FACTORS: dict[str, Callable[..., tuple[pd.Series, str]]] = {
    "texts": _texts,
    "categories": _categories,
    "whole numbers": _whole,
    "truths": _truths,
}


def draw_twin(rng: Rng, name: str, of: Column) -> Column:
    """A number that all but repeats another."""
    values = of.spans[0]
    sd = np.nanstd(values)
    twin = values + sd * 10.0 ** rng.uniform(-8, -2) * rng.normal(size=values.size)
    return Column(name, pd.Series(twin), written(name), (twin,), between=False)


def main_term(column: Column) -> Term:
    """A column as it is."""
    simple = not column.is_factor
    return Term(column.text, column.spans, frozenset([column.text]), column.between, simple)


def powers(rng: Rng, column: Column) -> list[Term]:
    """Raw powers of a number."""
    x = column.spans[0]
    degree = int(rng.integers(2, 4))
    terms = [main_term(column)]
    for k in range(2, degree + 1):
        text = f"I({column.text} ** {k})"
        terms.append(Term(text, (x**k,), frozenset([text]), column.between, simple=True))
    return terms


def changed(rng: Rng, column: Column) -> Term:
    """A transform of a number, whose span with the constant is known."""
    x, kind = column.spans[0], rng.integers(4)
    centred = x - x[np.isfinite(x)][0]
    scaled = centred / np.nanmax(np.abs(centred))
    text, spans = [
        (f"center({column.text})", (centred,)),
        (f"scale({column.text})", (centred,)),
        (f"poly({column.text}, 2)", (scaled, scaled**2)),
        (f"np.arctan({column.text})", (np.arctan(x),)),
    ][kind]
    return Term(text, spans, frozenset([text]), column.between)


def interaction(a: Column, b: Column) -> Term:
    """The product of two columns, of all levels."""
    spans = tuple(s * t for s in a.spans for t in b.spans)
    return Term(f"{a.text}:{b.text}", spans, frozenset([a.text, b.text]), a.between and b.between)
