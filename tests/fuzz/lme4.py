"""The same fits by lme4, one run of R for many: on orthonormal columns and expression of unit size, which suit it best.

Where the two differ, the closed form at lme4's own rho decides whether its log-likelihood is what it says.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .against import tolerance

if TYPE_CHECKING:
    from .against import Gene
    from .judge import Outcome

SCRIPT = """
suppressMessages(library(lme4)); suppressMessages(library(jsonlite))
folder <- commandArgs(TRUE)[1]
control <- lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE, check.conv.singular = "ignore",
  check.nobs.vs.nRE = "ignore", check.nobs.vs.nlev = "ignore", check.nobs.vs.rankZ = "ignore", check.rankX = "ignore",
  check.scaleX = "ignore", optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_rel = 1e-12, xtol_abs = 1e-12,
  ftol_rel = 1e-12, ftol_abs = 1e-12, maxeval = 20000))
tasks <- fromJSON(file.path(folder, "tasks.json"))
out <- lapply(seq_len(nrow(tasks)), function(i) {
  d <- read.csv(file.path(folder, tasks$file[i]))
  d$donor <- factor(d$donor)
  fixed <- paste(c("0", grep("^x", names(d), value = TRUE)), collapse = " + ")
  fit <- tryCatch(suppressMessages(suppressWarnings(
    lmer(as.formula(paste("y ~", fixed, "+ (1 | donor)")), d, weights = w, REML = FALSE, control = control))),
    error = function(e) NULL)
  if (is.null(fit)) c(NA, NA) else c(as.numeric(logLik(fit)), getME(fit, "theta"))
})
out <- do.call(rbind, out)
write.csv(data.frame(loglik = sprintf("%.17g", out[, 1]), theta = sprintf("%.17g", out[, 2])),
          file.path(folder, "out.csv"), row.names = FALSE)
"""


def is_there() -> bool:
    """Whether R with lme4 and jsonlite is."""
    try:
        found = subprocess.run(["Rscript", "-e", "library(lme4); library(jsonlite)"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return found.returncode == 0


def compare(outcomes: list[Outcome]) -> None:
    """Fit the genes of these outcomes by lme4, and note what differs."""
    tasks = [(outcome, gene) for outcome in outcomes for gene in outcome.genes if gene.likelihood.rank]
    if not tasks:
        return
    with tempfile.TemporaryDirectory(prefix="sc_lmm_fuzz") as folder:
        scales = [_write(gene, Path(folder) / f"{k}.csv") for k, (_, gene) in enumerate(tasks)]
        (Path(folder) / "tasks.json").write_text(json.dumps([{"file": f"{k}.csv"} for k in range(len(tasks))]))
        (Path(folder) / "fit.R").write_text(SCRIPT)
        subprocess.run(["Rscript", str(Path(folder) / "fit.R"), folder], check=True)
        theirs = pd.read_csv(Path(folder) / "out.csv")
    for (outcome, gene), log_scale, (loglik, theta) in zip(tasks, scales, theirs.to_numpy(dtype=float), strict=True):
        _judge(outcome, gene, loglik + log_scale, theta)
    for outcome in outcomes:
        outcome.genes.clear()


def _write(gene: Gene, path: Path) -> float:
    """Cells of one fit as lme4 is to see them; what its log-likelihood is less than ours, for the unit of y."""
    exact = gene.likelihood
    columns: dict[str, Any] = {f"x{k}": q / exact.root * np.sqrt(exact.codes.size) for k, q in enumerate(exact.Q.T)}
    y = exact.Y[:, gene.gene]
    y = y - exact.Q @ (
        exact.Q.T @ y
    )  # what the columns explain without donors: the same likelihood, and its digits are kept
    y = y / exact.root
    scale = np.abs(y).max()
    table = {"y": y / scale, "donor": exact.codes, "w": exact.root**2, **columns}
    frame = pd.DataFrame({name: np.asarray(values, dtype=np.float64) for name, values in table.items()})
    frame.to_csv(path, index=False, float_format="%.17g")
    return -exact.codes.size * float(np.log(scale))


def _judge(outcome: Outcome, gene: Gene, loglik: float, theta: float) -> None:
    if np.isnan(loglik):
        outcome.figures["lme4 without an answer"] += 1
        return
    outcome.figures["fits compared with lme4"] += 1
    exact = -float(gene.likelihood.deviance(theta**2, genes=[gene.gene])[0]) / 2
    least = float(tolerance(gene.loglik))
    if loglik > gene.loglik + least and exact > gene.loglik + least:
        where = f"{gene.where}, gene {gene.gene}"
        outcome.fail("log-likelihood below lme4's", f"{where}: {gene.loglik!r}, lme4 {loglik!r} at theta {theta!r}")
    if abs(loglik - exact) > least:
        outcome.figures["lme4's value is not that of its own estimate"] += 1
    if gene.loglik > loglik + least:
        outcome.figures["log-likelihood of lme4 below ours"] += 1
