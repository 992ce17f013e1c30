"""A number -> a case: cells, formula, expression, how it is stored and what is asked, with what must come out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .columns import (
    NAMES,
    Column,
    Term,
    changed,
    draw_factor,
    draw_number,
    draw_twin,
    interaction,
    main_term,
    powers,
    with_gaps,
    written,
)
from .matrices import draw_genes, laid_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Rng = np.random.Generator

METHODS = ("lrt", "between-within", "satterthwaite", "kenward-roger", "wald")


@dataclass
class Case:
    """One call, and the same model in plain arrays."""

    number: int
    adata: ad.AnnData
    formula: str
    test: Any
    tested: tuple[int, ...]  # terms that the test is of; empty for the random term
    reading: dict[str, Any]  # weights, layer, mask_var, use_raw
    asking: dict[str, Any]  # method, moderate, ...
    terms: list[Term]
    intercept: bool
    group: str
    codes: Array  # (n,) donors of the cells used
    kept: Array  # (n_obs,)
    weights: Array  # (n,)
    Y: Array  # (n, G) expression of the genes tested, as the matrix holds it
    parents: list[ad.AnnData] = field(default_factory=list)  # what adata is a view of

    def columns(self, without: tuple[int, ...] = ()) -> list[Array]:
        """Columns of X over the cells used."""
        constant = [np.ones(int(self.kept.sum()))] if self.intercept else []
        return constant + [
            self.centred(s[self.kept]) for k, t in enumerate(self.terms) if k not in without for s in t.spans
        ]

    def centred(self, column: Array) -> Array:
        """Column with its origin where its first cell is, if there is an intercept."""
        column = column.astype(np.longdouble)
        return column - column[0] if self.intercept else column


def draw(seed: int, number: int) -> Case:
    """Draw case `number` of a seed."""
    rng = np.random.default_rng([seed, number])
    intercept = bool(rng.random() < 0.9)
    terms_of, between = _plan(rng, intercept=intercept)
    donors = int(rng.integers(4, 11)) + 3 * between
    donor = _donors(rng, donors)
    names = iter(str(name) for name in rng.permutation(np.array(NAMES, dtype=object)))
    columns, terms = _terms(rng, terms_of, names, donor)
    group_name = next(names)
    group = _group(rng, group_name, donor)
    obs = pd.DataFrame({column.name: column.series for column in columns} | {group_name: group})
    kept = obs.notna().all(axis=1).to_numpy() & np.logical_and.reduce([np.isfinite(s) for t in terms for s in t.spans])
    weights, weighed = np.ones(donor.size), None
    if rng.random() < 0.25:
        weighed = next(names)
        obs[weighed] = with_gaps(rng, pd.Series(rng.gamma(2, 1, donor.size) * 10.0 ** rng.uniform(-6, 6) + 1e-9))
        kept &= obs[weighed].notna().to_numpy()
    reference = _reference(rng, columns, terms, kept)
    obs, kept, donor, terms = _shuffled(rng, obs, kept, donor, terms)
    if weighed is not None:
        weights = obs[weighed].to_numpy()[kept]
        weighed = written(weighed)
        if rng.random() < 0.3:
            weights, weighed = np.sqrt(weights), f"np.sqrt({weighed})"
    Y = draw_genes(rng, donor, terms)
    adata, reading, Y, parents = laid_out(rng, Y, obs)
    formula = _formula(rng, terms, intercept, group_name)
    test, tested = _test(rng, terms, group_name)
    asking: dict[str, Any] = {"method": str(rng.choice(METHODS, p=[0.6, 0.1, 0.1, 0.1, 0.1]))}
    asking |= {} if rng.random() < 0.6 else {"calibrate": False}
    asking |= {} if rng.random() < 0.8 else {"conf_level": None if rng.random() < 0.5 else 0.5}
    asking |= {} if rng.random() < 0.97 else {"n_jobs": 2}
    asking |= {} if rng.random() < 0.8 else {"key_added": str(rng.choice(["res", "é", "a b", "lmm_de_AD"]))}
    return Case(number, adata, formula, test, tested, reading | {"weights": weighed, "reference": reference}, asking, terms, intercept, group_name,
                donor[kept], kept, weights, Y[kept], parents)  # fmt: skip


def _plan(rng: Rng, *, intercept: bool) -> tuple[list[str], int]:
    """Kinds of 1 to 6 terms, and how many donors they may use up."""
    kinds = ["number", "number", "number", "factor", "factor", "factor", "interaction", "twin", "powers"]
    kinds += ["transform"] if intercept else []  # what a centred column spans with the constant is known
    chosen = [str(rng.choice(kinds)) for _ in range(rng.integers(1, 7))]
    return chosen, min(len(chosen), 4)


def _donors(rng: Rng, donors: int) -> Array:
    """Donor of each cell: of one size, of any size, or one alone with few."""
    if rng.random() < 0.4:
        return np.repeat(np.arange(donors), rng.integers(4, 20))
    sizes = np.maximum(rng.negative_binomial(2, 0.15, donors), 1)
    sizes[0] = max(sizes[0], 5)
    return np.repeat(np.arange(donors), sizes)


def _terms(rng: Rng, kinds: list[str], names: Iterator[str], donor: Array) -> tuple[list[Column], list[Term]]:
    columns: list[Column] = []
    terms: list[Term] = []

    def new(kind: str) -> Column:
        column = (draw_number if kind == "number" else draw_factor)(rng, next(names), donor)
        columns.append(column)
        return column

    def some(kind: str) -> Column:
        """A column that the formula may have already."""
        found = [column for column in columns if column.is_factor == (kind == "factor")]
        return found[rng.integers(len(found))] if found and rng.random() < 0.5 else new(kind)

    for kind in kinds:
        if kind in ("number", "factor"):
            terms.append(main_term(new(kind)))
        elif kind == "twin":
            of = some("number")
            columns.append(draw_twin(rng, next(names), of))
            terms += [main_term(of), main_term(columns[-1])]
        elif kind == "powers":
            terms += powers(rng, some("number"))
        elif kind == "transform":
            terms.append(changed(rng, some("number")))
        else:
            a, b = (some(str(rng.choice(["number", "factor"]))) for _ in range(2))
            if a.text != b.text:
                terms += [main_term(c) for c in (a, b) if rng.random() < 0.85] + [interaction(a, b)]
            else:
                terms.append(main_term(a))
    seen: dict[frozenset[str], Term] = {}
    for term in terms:
        seen.setdefault(term.parts, term)
    return columns, list(seen.values())


def _group(rng: Rng, name: str, donor: Array) -> pd.Series:
    """Donors as people write them."""
    ids = rng.permutation(donor.max() + 1)
    kind = rng.integers(8)
    if kind == 0:
        return pd.Series(ids[donor] + 2**53)
    if kind == 1:
        return with_gaps(rng, pd.Series(ids[donor] + 2**60).astype("Int64"))
    if kind == 2:
        return with_gaps(rng, pd.Series([int(i) + 10**18 for i in ids[donor]], dtype=object))
    if kind == 3:
        return with_gaps(rng, pd.Series(ids[donor].astype(float)))
    texts = np.array([f"{'sd/x:|~ é'[i % 9]}{i}" for i in ids], dtype=object)[donor]
    if kind == 4:
        return with_gaps(rng, pd.Series([np.str_(t) for t in texts], dtype=object))
    if kind == 5:
        return with_gaps(rng, pd.Series(texts, dtype="string"))
    if kind == 6:
        categories = list(rng.permutation(np.unique(np.append(texts, ["nobody", "unused"]))))
        return with_gaps(rng, pd.Series(pd.Categorical(texts, categories, ordered=bool(rng.random() < 0.5))))
    return with_gaps(rng, pd.Series(texts, dtype=object))


def _shuffled(
    rng: Rng, obs: pd.DataFrame, kept: Array, donor: Array, terms: list[Term]
) -> tuple[pd.DataFrame, Array, Array, list[Term]]:
    """Cells in any order."""
    order = rng.permutation(donor.size) if rng.random() < 0.7 else np.arange(donor.size)
    moved = [Term(t.text, tuple(s[order] for s in t.spans), t.parts, t.between, t.simple) for t in terms]
    obs = obs.iloc[order]
    obs.index = pd.Index([f"cell{i}" for i in range(len(obs))])
    return obs, kept[order], donor[order], moved


def _formula(rng: Rng, terms: list[Term], intercept: bool, group: str) -> str:
    random = f"(1 | {written(group)})" if rng.random() < 0.7 else f"(1|{written(group, always=True)})"
    fixed = [term.text for term in terms]
    left = str(rng.choice(["~", "y ~", "gene_expression~", "`a ~ b` ~"]))
    start = [] if intercept else ["0"]
    parts = [*start, *fixed, random] if rng.random() < 0.8 else [random, *start, *fixed]
    return f"{left} {' + '.join(parts)}"


def _reference(rng: Rng, columns: list[Column], terms: list[Term], kept: Array) -> dict[str, str] | None:
    """Sometimes a level of a factor that is there as it is."""
    texts = {term.text for term in terms}
    found = [c for c in columns if c.is_factor and c.text in texts and not c.text.startswith("C(")]
    if not found or not kept.any() or rng.random() < 0.7:
        return None
    column = found[rng.integers(len(found))]
    return {column.name: str(rng.choice(np.array([str(v) for v in column.series[kept]], dtype=object)))}


def _test(rng: Rng, terms: list[Term], group: str) -> tuple[Any, tuple[int, ...]]:
    if rng.random() < 0.08:
        return f"(1 | {written(group)})", ()
    inside = [any(term.parts < other.parts for other in terms) for term in terms]
    free = [k for k, term in enumerate(terms) if not inside[k]]
    if len(free) > 1 and rng.random() < 0.15:
        chosen = tuple(int(k) for k in rng.choice(free, 2, replace=False))
        return [terms[k].text for k in chosen], chosen
    k = int(rng.choice(free))
    alone = sum(terms[k].text in term.text for term in terms) == 1 and "(" not in terms[k].text
    if terms[k].simple and alone and rng.random() < 0.2:
        return f"cond({terms[k].text}=1) - cond({terms[k].text}=0)", (k,)
    return terms[k].text, (k,)
