"""A case -> what the package made of it, and whether that is right."""

from __future__ import annotations

import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

import sc_lmm as sl
from sc_lmm._design import build_design

from .against import Gene, compare_dense, compare_fit, compare_slope, tolerance
from .exact import Likelihood
from .matrices import N_GENES
from .state import digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .draw import Case

_PACKAGE = str(Path(sl.__file__).parent)
_OURS = (ValueError, KeyError, TypeError)  # DesignError is a ValueError
_ALIASES = {"aliased", "aliased_with_test", "identical_columns", "constant_column", "close_powers", "grouping_fixed"}
_KEPT = ("obs", "var", "obsm", "obsp", "varp")
_REASONS = ("constant", "failed", "max_iter", "not_tested")


@dataclass
class Outcome:
    """What became of a case."""

    number: int
    figures: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)  # row of the table, what happened
    genes: list[Gene] = field(default_factory=list)  # for lme4

    def fail(self, row: str, text: str) -> None:
        """Note what is wrong."""
        self.failures.append((row, text))


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by a line of the package, with a message, and of a class that it promises."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "" if frame is None else frame.tb_frame.f_code.co_filename
    return isinstance(error, _OURS) and where.startswith(_PACKAGE) and len(str(error)) > 10


def _where(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frame[-4:]))


def attempt(outcome: Outcome, adatas: list[ad.AnnData], call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Call, and check that an error is ours and left everything as it was."""
    before = [digest(adata) for adata in adatas]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result, error = call(), None
        except Exception as raised:  # noqa: BLE001 - any that is not ours is what is looked for
            result, error = None, raised
    for one in caught:
        if not issubclass(one.category, sl.LmmWarning) and _PACKAGE in str(one.filename):
            outcome.fail(
                "warnings that are not ours", f"{one.category.__name__}: {one.message} ({one.filename}:{one.lineno})"
            )
    if error is not None:
        if not is_ours(error):
            outcome.fail("exceptions that are not ours", f"{type(error).__name__}: {error} {_where(error)}")
        if [digest(adata) for adata in adatas] != before:
            outcome.fail("adata touched by a failed call", f"{type(error).__name__}: {error}")
    return result, error


class Trial:
    """One case under judgement."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.outcome = case, Outcome(case.number)
        self.rng = np.random.default_rng([seed, case.number, 1])

    @cached_property
    def full(self) -> Likelihood:
        """The likelihood under the whole formula."""
        case = self.case
        return Likelihood.of(case.columns(), case.codes, case.weights, case.Y[:, :N_GENES])

    @cached_property
    def null(self) -> Likelihood:
        """The same without what is tested."""
        case = self.case
        return Likelihood.of(case.columns(case.tested), case.codes, case.weights, case.Y[:, :N_GENES])

    def run(self) -> Outcome:
        """Ask the package, and check what it answers."""
        case = self.case
        adatas = [*case.parents, case.adata] if not case.parents else case.parents
        some = {"weights": case.reading["weights"], "reference": case.reading["reference"]}
        report, error = attempt(
            self.outcome, adatas, lambda: sl.tl.check_design(case.adata, case.formula, case.test, **some)
        )
        if error is not None:
            self.outcome.fail("exceptions that are not ours", f"check_design: {type(error).__name__}: {error}")
        fit, no_fit = attempt(self.outcome, adatas, lambda: sl.tl.lmm_fit(case.adata, case.formula, **case.reading))
        pure = [case.adata] if not case.parents else case.parents
        kept = [digest(adata, _KEPT) for adata in pure]
        _, refused = attempt(
            self.outcome, pure, lambda: sl.tl.lmm_de(case.adata, case.formula, case.test, **case.reading, **case.asking)
        )
        if [digest(adata, _KEPT) for adata in pure] != kept:
            self.outcome.fail("adata changed beyond its results", f"{case.formula}")
        if report is not None and report.refused != (refused is not None):
            self.outcome.fail("check_design and lmm_de disagree", f"{report.refused}: {refused}")
        if refused is not None:
            self.outcome.figures["designs refused"] += 1
            self._check_refusal(report, refused)
        if fit is not None:
            self._check_fit(fit)
        if fit is not None and refused is None:
            self.outcome.figures["designs fitted"] += 1
            self._check_tables(fit)
            if self.rng.random() < 0.05:
                self._check_storage(fit)
            if self.rng.random() < 0.12:
                self._check_relabelled()
        if case.adata.isbacked:
            case.adata.file.close()
        return self.outcome

    def _check_refusal(self, report: Any, error: BaseException) -> None:
        codes = sorted({v.code for v in report.verdicts if v.grade == "refused"}) if report is not None else []
        for code in codes:
            self.outcome.figures[f"refused: {code}"] += 1
        if codes and set(codes) <= _ALIASES:
            self._check_alias()
        elif codes == ["invalid"] or not codes:
            self.outcome.figures[f"refused: {str(error)[:160]}"] += 1

    def _check_alias(self) -> None:
        """Columns that are said to determine each other do, to about seven digits."""
        case = self.case
        some = {"weights": case.reading["weights"], "reference": case.reading["reference"]}
        X = build_design(case.formula, case.adata.obs, **some).X
        columns = [np.ones(len(X)), *(case.centred(x) for x in X.T if np.ptp(x) > 0)][not case.intercept :]
        exact = Likelihood.of(columns, case.codes, case.weights, case.Y[:, :1])
        sound = all(
            np.ptp(x) == 0 or np.ptp(x) > 1e-5 * np.abs(x).max() for x in X.T
        )  # the mean has not taken its digits
        if sound and exact.rank == X.shape[1] and exact.condition > 1e-5:
            self.outcome.fail("a design that can be fitted was refused", f"{case.formula}: {exact.condition:g}")

    def _check_fit(self, fit: Any) -> None:
        full = self.full
        p = fit.stats.columns.shape[1]
        if p != full.rank:
            self.outcome.fail("another model", f"{p} columns, which span {full.rank} directions")
            return
        some = {"weights": self.case.reading["weights"], "reference": self.case.reading["reference"]}
        design = build_design(self.case.formula, self.case.adata.obs, **some)
        columns = np.array([x if np.ptp(x) == 0 else self.case.centred(x) for x in design.X.T], dtype=np.longdouble).T
        for reml in (False, True):
            determinant = full.logdet(columns) if reml else 0.0
            compare_fit(self.outcome, full, fit.reml if reml else fit.ml, determinant, reml=reml, where="full")
        compare_dense(self.outcome, self.case, fit, design)

    def _check_tables(self, fit: Any) -> None:
        case = self.case
        key, method = case.asking.get("key_added", "lmm_de"), case.asking["method"]
        ours = "rlrt" if not case.tested else method
        for comparison, place in case.adata.uns[key]["comparisons"]["varm_key"].items():
            table = sl.get.lmm_de_df(case.adata, comparison, key=key).set_index("names").reindex(case.adata.var_names)
            if not table.equals(case.adata.varm[place][table.columns]) and list(table.index) != list(
                case.adata.var_names
            ):
                self.outcome.fail("get differs from varm", f"{comparison}")
            self._check_rows(table, ours)
        table = case.adata.varm[key]
        table = table[table["status"] != "not_tested"]
        if self.full.rank != fit.stats.columns.shape[1]:
            return
        wanted = fit.ml if ours == "lrt" else fit.reml
        valid = table["pvals"].notna().to_numpy()
        if not np.allclose(table["loglik"][valid], wanted.loglik[valid], rtol=1e-9, atol=1e-6):
            self.outcome.fail("lmm_de and lmm_fit disagree", f"{table['loglik'].tolist()} {wanted.loglik.tolist()}")
        if ours == "lrt":
            self._check_null(table, fit, valid)
        if len(case.tested) == 1 and case.terms[case.tested[0]].simple and table["icc_moderated"].isna().all():
            compare_slope(self.outcome, self.full, self.null, case, table, wanted)

    def _check_rows(self, table: pd.DataFrame, method: str) -> None:
        single = table["coef"].notna().any()
        columns = ["pvals", "pvals_adj", "log10_pvals", "scores", "icc", "sd_residual", "loglik"]
        columns += [name for name in table if name.startswith("sd_")]
        columns += ["df"] if method != "wald" else []
        columns += ["lrt", "loglik_null"] if method in ("lrt", "rlrt") else []
        columns += ["pvals_chi2"] if method == "lrt" else []
        columns += ["coef", "se"] if single and method != "rlrt" else []
        columns += (
            ["ci_low", "ci_high"] if single and method != "rlrt" and self.case.asking.get("conf_level", 1) else []
        )
        for gene, row in table.iterrows():
            valid = row["status"] in ("ok", "boundary")
            known = np.isfinite(row[columns].astype(float))
            if valid and not known.all():
                self.outcome.fail("valid status with NaN", f"{gene}: {row['status']}, {list(known.index[~known])}")
            if np.isnan(row["pvals"]) and row["status"] not in _REASONS:
                self.outcome.fail("NaN p without a reason", f"{gene}: {row['status']}")
            if row["pvals"] < 0 or row["pvals"] > 1 or row["se"] < 0 or row["ci_low"] > row["ci_high"]:
                self.outcome.fail("impossible numbers", f"{gene}: {row.to_dict()}")

    def _check_null(self, table: pd.DataFrame, fit: Any, valid: np.ndarray) -> None:
        case = self.case
        if self.null.rank == 0:
            return
        restricted = fit
        try:
            for k in case.tested:
                restricted = restricted.drop(case.terms[k].text)
        except sl.DesignError:
            return
        compare_fit(self.outcome, self.null, restricted.ml, 0.0, reml=False, where="null")
        both = valid & restricted.ml.usable
        apart = np.abs(table["loglik_null"].to_numpy() - restricted.ml.loglik)
        if (apart[both] > tolerance(restricted.ml.loglik[both])).any():
            self.outcome.fail("lmm_de and lmm_fit disagree", f"null {apart.tolist()}")

    def _check_storage(self, fit: Any) -> None:
        case = self.case
        key = case.asking.get("key_added", "lmm_de")
        before = sl.get.lmm_de_df(case.adata, key=key)
        bare = ad.AnnData(
            var=case.adata.var[[]], obs=case.adata.obs[[]], varm=dict(case.adata.varm), uns=dict(case.adata.uns)
        )
        kind = self.rng.choice(["h5ad", "zarr2", "zarr3"])
        with tempfile.TemporaryDirectory(prefix="sc_lmm_fuzz") as folder:
            path = Path(folder) / f"a.{kind}"

            def around() -> ad.AnnData:
                if kind == "h5ad":
                    bare.write_h5ad(path)
                    return ad.read_h5ad(path)
                with ad.settings.override(zarr_write_format=int(kind[-1])):
                    bare.write_zarr(path)
                return ad.read_zarr(path)

            read, error = attempt(self.outcome, [], around)
            if error is not None:
                self.outcome.fail("not stored", f"{kind}: {error}")
                return
            try:
                pd.testing.assert_frame_equal(
                    sl.get.lmm_de_df(read, key=key), before, check_column_type=False, check_index_type=False
                )
            except (AssertionError, ValueError, KeyError) as differs:
                self.outcome.fail("not stored", f"{kind}: {differs}")
            fit.save(Path(folder) / "fit")
            tables = [
                f.test(case.test).table for f in (replace(fit, cautions=None), type(fit).load(Path(folder) / "fit"))
            ]
            if not tables[0].equals(tables[1]):
                self.outcome.fail("not stored", "LmmFit.save")
        self.outcome.figures["stored and read"] += 1

    def _check_relabelled(self) -> None:
        """Other names of donors, another order of cells and genes."""
        case = self.case
        key = case.asking.get("key_added", "lmm_de")
        table = case.adata.varm[key]
        table = table[table["status"] != "not_tested"]
        order = self.rng.permutation(int(case.kept.sum()))
        genes = self.rng.permutation(case.Y.shape[1])
        obs = case.adata.obs.loc[case.kept].iloc[order].copy()
        names = self.rng.permutation(case.codes.max() + 1)
        obs[case.group] = [f"donor {names[j]}" for j in case.codes[order]]
        var = pd.DataFrame(index=table.index[genes])
        again = ad.AnnData(case.Y[np.ix_(order, genes)], obs=obs, var=var)
        asking = {k: v for k, v in case.asking.items() if k != "key_added"}
        asking |= {name: case.reading[name] for name in ("weights", "reference")}
        _, error = attempt(self.outcome, [], lambda: sl.tl.lmm_de(again, case.formula, case.test, **asking))
        if error is not None:
            self.outcome.fail("relabelling changes the answer", f"{error}")
            return
        other = again.varm["lmm_de"].loc[table.index]
        same = (other["status"] == table["status"].astype(str)).all()
        for name in ("log10_pvals", "scores", "loglik", "loglik_null"):
            same &= np.allclose(other[name], table[name], rtol=1e-5, atol=1e-5, equal_nan=True)
        if not same:
            columns = ["log10_pvals", "scores", "loglik", "status"]
            self.outcome.fail("relabelling changes the answer", f"\n{table[columns]}\n{other[columns]}")
        self.outcome.figures["relabelled"] += 1
