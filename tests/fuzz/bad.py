"""Bad input of every kind: it must be refused in our words, and leave adata as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import sc_lmm as sl

from .judge import Outcome, attempt

if TYPE_CHECKING:
    from collections.abc import Callable

Call = dict[str, Any]
FORMULA = "~ x + arm + (1 | donor)"


def cohort(rng: np.random.Generator) -> ad.AnnData:
    """A sound cohort, to be spoilt."""
    donor = np.repeat(np.arange(8), 6)
    obs = pd.DataFrame(
        {
            "donor": [f"d{j}" for j in donor],
            "x": rng.normal(size=48),
            "arm": np.where(donor % 2, "case", "control"),
            "w": rng.gamma(2, 1, 48),
            "when": pd.date_range("2020", periods=48),
            "mixed": [1 if j % 2 else "a" for j in donor],
            "lists": pd.Series([[j] for j in donor], dtype=object),
            "empty": np.nan,
            "one": "same",
            "cell": [f"c{i}" for i in range(48)],
            "infinite": np.where(donor == 1, np.inf, rng.normal(size=48)),
            "complex": rng.normal(size=48) + 1j,
            "__names": np.where(donor % 2, "__a", "__b"),
        }
    )
    obs.index = [f"c{i}" for i in range(48)]
    Y = rng.normal(size=(48, 5)) + 3
    return ad.AnnData(sparse.csr_matrix(Y) if rng.random() < 0.5 else Y, obs=obs, layers={"one": Y + 1})


def _matrix(change: Callable[[Any], Any]) -> Callable[[ad.AnnData], ad.AnnData]:
    def spoil(adata: ad.AnnData) -> ad.AnnData:
        X = adata.X.toarray() if sparse.issparse(adata.X) else adata.X.copy()
        return ad.AnnData(change(X), obs=adata.obs, var=adata.var)

    return spoil


def _with(value: float, form: Callable[[Any], Any] = np.asarray) -> Callable[[ad.AnnData], ad.AnnData]:
    def change(X: Any) -> Any:
        X[7, 2] = value
        return form(X)

    return _matrix(change)


def _uns(**entries: Any) -> Callable[[ad.AnnData], ad.AnnData]:
    def spoil(adata: ad.AnnData) -> ad.AnnData:
        adata.uns.update(entries)
        return adata

    return spoil


def _varm(adata: ad.AnnData) -> ad.AnnData:
    adata.varm["lmm_de"] = np.ones((adata.n_vars, 2))
    return adata


# What is changed of a sound call.
CALLS: tuple[Call, ...] = (
    *({"formula": text} for text in (
        "", "~", "~ x", "~ x + arm", "x + (1 | donor)", "~ x + (1 | donor) + (1 | nobody)", "~ x + (x |||  donor)", "~ x + (1 | donor",
        "~ y + (1 | donor)", "~ x + (1 | nobody)", "~ x + (1 | when)", "~ when + (1 | donor)", "~ mixed + (1 | donor)", "~ lists + (1 | donor)",
        "~ empty + (1 | donor)", "~ one + (1 | donor)", "~ x + (1 | one)", "~ x + (1 | cell)", "~ x + (1 | lists)", "~ infinite + (1 | donor)",
        "~ complex + (1 | donor)", "~ __names + (1 | donor)", "~ x * (1 | donor)", "~ . + (1 | donor)", "~ x + donor + arm + (1 | donor)",
        "~ x + I(2 * x) + (1 | donor)", "~ log(x - 100) + (1 | donor)", "~ x + __import__('os').system('true') + (1 | donor)",
        "~ {x.__class__} + (1 | donor)", "~ np.save('f', x) + (1 | donor)", "~ open('f') + (1 | donor)", "~ I((lambda: x)()) + (1 | donor)",
        "~ x ~ arm + (1 | donor)", "~ `x + (1 | donor)", "~ x ** + (1 | donor)", "~ x + 'text' + (1 | donor)", "~ poly(x, 100) + (1 | donor)",
        "~ poly(x, -1) + (1 | donor)", "~ bs(x, df=-3) + (1 | donor)", "~ C(x, levels=['q']) + (1 | donor)", "~ x:nobody + (1 | donor)",
        "~ np.log1p(arm) + (1 | donor)", "~ arm ** 2.5 + (1 | donor)", "~ I(arm + x) + (1 | donor)", "~ x + (1 | donor)\x00", "~ 2 * x + (1 | donor)",
        "~ 0 + (1 | donor)", "~ 1 + (1 | donor)", "~ x + arm + x:arm:donor + (1 | donor)", "~ " + "(" * 60 + "x" + ")" * 60 + " + (1 | nobody)",
        "~ lag(x, 'a') + (1 | donor)", "~ x / + (1 | donor)", "~ hashed(x) + (1 | donor)", "~ x[0] + (1 | donor)", "~ I(x if x else 1) + (1 | donor)",
    )),
    *({"formula": value} for value in (None, 3, ["~ x + (1 | donor)"], b"~ x + (1 | donor)")),
    *({"test": value} for value in (
        "y", "", "donor", "(1 | nobody)", "cond(", "cond(x=1)-", "cond(arm='nobody') - cond(arm='case')", "cond(y=1) - cond(y=2)",
        "cond(x=1) - cond(x=1)", "cond(x=1) * cond(x=2)", "cond.__globals__['os']", "cond(x=__import__('os').system('true'))", "x + arm", "Intercept",
        "1", {"a"}, 3, None, [], {}, ["y"], [1], {"a": "b"}, {"a": 1}, {1: "cond(x=1)"}, "cond(x='a')", "cond(x=1e400) - cond(x=0)", "cond(1)",
        "cond(x=1) - cond(x=0) and 1", "cond(x=1)/0", "cond(**{'x': 1})", {"": "cond(x=1) - cond(x=0) +"}, "arm:x", ["x", "x", "y"],
    )),
    *({"weights": value} for value in (
        "y", "arm", "x", "empty", 3, "w + x", "", "~ w", "w - w", "np.log(w) - 100", "infinite", "(1 | donor)", "w:x", "1", "np.save('f', w)",
    )),
    *({"layer": value} for value in ("nobody", "", 3)),
    *({"mask_var": value} for value in (
        "nobody", [True], [False] * 5, np.ones(5), pd.Series([True] * 5), pd.Series([True] * 5, index=list("abcde")), np.ones((5, 1), bool), {"0": True}, 3,
        pd.Series([True, None] * 2 + [True], index=list("01234")), [None] * 5,
    )),
    *({"key_added": value} for value in ("", "a/b", ".", "..", "/abs", "a:b", "__a", "a\x00", "x" * 300, 3, None, "a\\b", " a", "a ")),
    *({"reference": value} for value in ("nobody", {"y": "a"}, {"x": "1"}, 3, {"arm": "nobody"}, {"arm": 3}, ["case"], {"donor": "d1"})),
    *({"method": value} for value in ("", "t", None, 3, "LRT", ["lrt"])),
    *({"conf_level": value} for value in (0, 1, 2, -1, "a", np.nan)),
    *({"corr_method": value} for value in ("", None, "fdr", 3)),
    {"reml": True}, {"reml": False, "method": "wald"}, {"use_raw": True}, {"use_raw": True, "layer": "one"}, {"moderate": True, "method": "lrt"},
    {"seed": "a"}, {"seed": -1}, {"n_jobs": 0}, {"n_jobs": "a"},
)  # fmt: skip
# What is changed of a sound cohort.
COHORTS: tuple[Callable[[ad.AnnData], ad.AnnData], ...] = (
    _with(np.nan),
    _with(np.inf),
    _with(-np.inf, sparse.csr_matrix),
    _with(np.nan, sparse.csc_matrix),
    _with(np.nan, np.asfortranarray),
    _matrix(lambda X: X.astype(complex)),
    _matrix(lambda X: X.astype(str).astype(object)),
    _uns(lmm_de={"mine": 1}),
    _uns(lmm_de="mine"),
    _uns(lmm_de=pd.DataFrame({"a": [1]})),
    _varm,
    lambda adata: adata[:0].copy(),
    lambda adata: adata[:, :0].copy(),
    lambda adata: adata[adata.obs["donor"] == "d1"].copy(),
    lambda adata: adata[~adata.obs["donor"].duplicated()].copy(),
    lambda adata: adata[adata.obs["arm"] == "case"].copy(),
    lambda adata: adata[adata.obs["donor"].isin(["d1", "d2"])].copy(),
    lambda adata: ad.AnnData(obs=adata.obs, var=adata.var),
    lambda adata: ad.AnnData(adata.X, obs=pd.concat([adata.obs, adata.obs[["x"]]], axis=1), var=adata.var),
)


def judge_bad(seed: int, index: int, number: int) -> Outcome:
    """Spoil a call, or the cohort, each way once and then two together, and try it by each function that takes it."""
    rng = np.random.default_rng([seed, number])
    outcome, adata = Outcome(number), cohort(rng)
    call: Call = {"formula": FORMULA, "test": "arm"}
    first = index if index < len(CALLS) + len(COHORTS) else int(rng.integers(len(CALLS) + len(COHORTS)))
    changes = [CALLS[first]] if first < len(CALLS) else []
    changes += [CALLS[rng.integers(len(CALLS))]] if first != index else []
    for change in changes:
        call |= change
    if first >= len(CALLS):
        adata = COHORTS[first - len(CALLS)](adata)
    outcome.figures["calls with bad input"] += 1
    _, error = attempt(outcome, [adata], lambda: sl.tl.lmm_de(adata, **call))
    if error is None:
        changed = {k: v for k, v in call.items() if k not in ("formula", "test") or v not in (FORMULA, "arm")}
        outcome.fail("bad input was taken", f"{changed!r} {first}"[:300])
    for function, names in ((sl.tl.lmm_fit, _READING), (sl.tl.check_design, _ASKING)):
        some = {k: v for k, v in call.items() if k in names}
        attempt(outcome, [adata], lambda function=function, some=some: function(adata, **some))
    return outcome


_READING = ("formula", "reference", "weights", "layer", "use_raw", "mask_var", "n_jobs")
_ASKING = ("formula", "test", "reference", "weights")
