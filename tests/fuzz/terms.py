# ruff: noqa: T201 - a program that prints
"""Small random designs with several random terms, fitted here and by lme4: ``python tests/fuzz/terms.py [--designs N]``.

Counts the fits that end above lme4's criterion by more than 1e-6 (which must be none), and those that lme4 leaves above.
One call of Rscript fits everything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sc_lmm._design import build_design
from sc_lmm._model.base import STATUS
from sc_lmm._model.term_fit import fit_terms
from sc_lmm._statistics import sufficient_statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

TOLERANCE = 1e-6


class Block(NamedTuple):
    """One random term: the columns ("1" for an intercept) of a grouping."""

    grouping: str
    columns: tuple[str, ...]
    correlated: bool = True

    @property
    def formula(self) -> str:
        inside = " + ".join(self.columns if "1" in self.columns else ("0", *self.columns))
        return f"({inside} {'|' if self.correlated else '||'} {self.grouping})"


KINDS: dict[str, tuple[Block, ...]] = {
    "crossed": (Block("donor", ("1",)), Block("batch", ("1",))),
    "nested": (Block("donor", ("1",)), Block("sample", ("1",))),
    "three": (Block("donor", ("1",)), Block("sample", ("1",)), Block("batch", ("1",))),
    "slope": (Block("donor", ("1", "x")),),
    "slope uncorrelated": (Block("donor", ("1", "x"), correlated=False),),
    "slope alone": (Block("donor", ("x",)),),
    "condition": (Block("donor", ("1", "treated")),),
    "slope and crossed": (Block("donor", ("1", "x")), Block("batch", ("1",))),
    "slope in nested": (Block("donor", ("1", "x")), Block("sample", ("1",))),
    "slope in rest": (Block("sample", ("1",)), Block("donor", ("1", "x"))),
    "two slopes": (Block("donor", ("1", "x", "treated")),),
}


def draw(kind: str, rng: np.random.Generator, n_genes: int) -> tuple[pd.DataFrame, list[str]]:
    """Cells of one design with the expression of some genes, whose variances are often 0."""
    m, per_donor = int(rng.integers(4, 12)), int(rng.integers(10, 40))
    donor = np.repeat(np.arange(m), per_donor) if rng.random() < 0.5 else np.sort(rng.integers(0, m, m * per_donor))
    donor = np.unique(donor, return_inverse=True)[1]
    n = donor.size
    batch = rng.integers(0, rng.integers(2, 7), n)
    sample = donor * 4 + rng.integers(0, rng.integers(2, 4), n)
    obs = pd.DataFrame(
        {
            "donor": donor,
            "batch": np.unique(batch, return_inverse=True)[1],
            "sample": np.unique(sample, return_inverse=True)[1],
            "x": rng.normal(rng.choice([0.0, 3.0]), 1, n),
            "treated": rng.integers(0, 2, n).astype(float),
            "age": rng.normal(0, 1, donor.max() + 1)[donor],
        }
    )
    genes = [f"y{g}" for g in range(n_genes)]
    Y = rng.normal(0, 1, (n, n_genes)) + 0.3 * obs[["x"]].to_numpy() + rng.normal(0, 1, n_genes)
    for block in KINDS[kind]:
        codes = obs[block.grouping].to_numpy()
        for column in block.columns:
            sd = np.sqrt(rng.choice([0.0, 0.02, 0.1, 0.5, 3.0], n_genes))
            effect = rng.normal(0, 1, (codes.max() + 1, n_genes)) * sd
            Y += effect[codes] * (1.0 if column == "1" else obs[[column]].to_numpy())
    return pd.concat([obs, pd.DataFrame(Y, columns=genes)], axis=1), genes


def fit_here(kind: str, data: pd.DataFrame, genes: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Deviance and status of every gene, by maximum likelihood and REML."""
    obs = data.drop(columns=genes).astype(dict.fromkeys(("donor", "batch", "sample"), str))
    random = " + ".join(block.formula for block in KINDS[kind])
    design = build_design(f"~ x + treated + age + {random}", obs)
    stats = sufficient_statistics(data[genes].to_numpy(), design, show_progress=False)
    fits = {}
    for name, reml in (("ML", False), ("REML", True)):
        (fit,) = fit_terms([stats], design.coef_names, reml=reml, show_progress=False)
        fits[name] = fit.deviance, fit.status
    return fits


SCRIPT = """
suppressMessages(library(lme4)); suppressMessages(library(jsonlite))
folder <- commandArgs(TRUE)[1]
plan <- fromJSON(file.path(folder, "plan.json"), simplifyVector = FALSE)
control <- lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE, check.conv.singular = "ignore",
  check.nobs.vs.nRE = "ignore", check.nlev.gtr.1 = "ignore", check.nobs.vs.nlev = "ignore",
  optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_rel = 1e-12, xtol_abs = 1e-12, ftol_rel = 1e-12, ftol_abs = 1e-12,
                 maxeval = 20000))
out <- list()
for (task in plan) {
  data <- read.csv(file.path(folder, task$file))
  for (name in c("donor", "batch", "sample")) data[[name]] <- factor(data[[name]])
  for (reml in c(FALSE, TRUE)) for (gene in task$genes) {
    data$y <- data[[gene]]
    fit <- tryCatch(suppressMessages(suppressWarnings(
      lmer(as.formula(paste("y ~ x + treated + age +", task$random)), data, REML = reml, control = control))),
      error = function(e) NULL)
    crit <- if (is.null(fit)) NA else -2 * as.numeric(logLik(fit))
    out[[length(out) + 1]] <- data.frame(file = task$file, gene = unlist(gene), reml = reml, criterion = crit)
  }
}
write.csv(do.call(rbind, out), file.path(folder, "out.csv"), row.names = FALSE)
"""


def run(n: int, seed: int, *, genes: int = 10, kinds: Sequence[str] = tuple(KINDS)) -> pd.DataFrame:
    """Fit `n` designs here and by lme4: a row per fit, with what it is `above` lme4's criterion."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        ours, plan = [], []
        for i in range(n):
            kind = kinds[i % len(kinds)]
            data, names = draw(kind, rng, genes)
            file = f"design{i}.csv"
            data.to_csv(Path(folder) / file, index=False, float_format="%.17g")
            random = " + ".join(block.formula for block in KINDS[kind])
            plan.append({"file": file, "genes": names, "random": random})
            for name, (deviance, status) in fit_here(kind, data, names).items():
                frame = pd.DataFrame({"gene": names, "deviance": deviance, "status": np.array(STATUS)[status]})
                ours.append(frame.assign(file=file, kind=kind, reml=name == "REML"))
        (Path(folder) / "plan.json").write_text(json.dumps(plan))
        (Path(folder) / "fit.R").write_text(SCRIPT)
        subprocess.run(["Rscript", str(Path(folder) / "fit.R"), folder], check=True)
        theirs = pd.read_csv(Path(folder) / "out.csv")
    table = pd.concat(ours).merge(theirs, on=["file", "gene", "reml"])
    return table.assign(above=table["deviance"] - table["criterion"])


def main() -> None:
    """Draw, fit, compare and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", type=int, default=33)
    parser.add_argument("--genes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    chosen = parser.parse_args()
    report(run(chosen.designs, chosen.seed, genes=chosen.genes, kinds=chosen.kinds))


def report(table: pd.DataFrame) -> None:
    """Counts per kind of design."""
    print(f"{'kind':>20} fits boundary failed lme4_failed above lme4_above  worst  lme4_worst")
    for kind, part in table.groupby("kind"):
        known = part[part["criterion"].notna()]
        failed = (~part["status"].isin(["ok", "boundary"])).sum()
        above = (known["above"] > TOLERANCE).sum() + known["above"].isna().sum()
        print(
            f"{kind:>20} {len(part):4d} {(part['status'] == 'boundary').sum():8d} {failed:6d} "
            f"{part['criterion'].isna().sum():11d} {above:5d} {(known['above'] < -TOLERANCE).sum():10d} "
            f"{known['above'].max():6.0e} {-known['above'].min():11.0e}"
        )
    worst = table.sort_values("above", ascending=False).head(5)
    print(worst[["file", "kind", "gene", "reml", "status", "deviance", "criterion", "above"]].to_string())


if __name__ == "__main__":
    main()
