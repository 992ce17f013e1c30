"""Answer -> the table of results, a row per gene: its columns have their names, order and units here alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._model import STATUS
from .tests import adjust

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._statistics import SufficientStatistics
    from .answers import Answer

    Array = NDArray[np.float64]


def result_table(
    answer: Answer,
    stats: SufficientStatistics,
    var_names: pd.Index,
    *,
    random_columns: dict[str, Array],
    logfoldchanges: Array,
    corr_method: str,
) -> pd.DataFrame:
    """Tabulate one comparison.

    Parameters
    ----------
    answer
        Test, limits and estimates of G genes.
    stats
        Statistics of the genes.
    var_names
        Names of the genes, (G,).
    random_columns
        What there is to say of the random terms, by column, (G,) each.
    logfoldchanges
        Log2 fold changes, (G,), NaN where the expression is not on a declared logarithmic scale.
    corr_method
        How p-values are adjusted.
    """
    test, fit = answer.test, answer.fit
    missing = np.isnan(test.stat)
    is_ratio = test.method in ("lrt", "rlrt")
    columns = {
        "coef": test.coef,
        "se": test.se,
        "ci_low": answer.ci_low,
        "ci_high": answer.ci_high,
        "coef_shrunken": answer.effects.mean,
        "lfsr": answer.effects.lfsr,
        "logfoldchanges": logfoldchanges,
        "scores": test.scores,
        "df": test.df,
        "pvals": test.pval,
        "pvals_adj": adjust(test.pval, corr_method),
        "log10_pvals": test.log_pval / np.log(10),
        "lrt": test.stat if is_ratio else np.full(missing.size, np.nan),
        "pvals_chi2": np.exp(test.log_pval_chi2),
        "calibration": test.factor,
        **random_columns,
        "sd_residual": np.sqrt(fit.sigma2),
        "icc": fit.icc,
        "icc_moderated": test.icc_moderated,
        "loglik": np.where(missing, np.nan, fit.loglik),
        "loglik_null": test.loglik_null,
        "pct_expressed": stats.nonzero / stats.n_cells,
        "status": pd.Categorical.from_codes(fit.status.astype(int), dtype=pd.CategoricalDtype(list(STATUS))),
    }
    return pd.DataFrame(columns, index=var_names)
