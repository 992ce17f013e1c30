"""CountAnswer -> the table of results of a model of counts, a row per gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._model import COUNT_STATUS
from .tests import adjust

if TYPE_CHECKING:
    from .count_fit import CountFit
    from .count_tests import CountAnswer
    from .dispersion import Dispersions


def count_table(answer: CountAnswer, found: Dispersions, fit: CountFit, *, corr_method: str) -> pd.DataFrame:
    """Tabulate one comparison."""
    test, stats = answer.test, fit.stats
    columns = {
        "coef": test.coef,
        "se": test.se,
        "ci_low": answer.ci_low,
        "ci_high": answer.ci_high,
        "coef_shrunken": answer.effects.mean,
        "lfsr": answer.effects.lfsr,
        "logfoldchanges": test.coef / np.log(2),
        "scores": test.scores,
        "df": test.df,
        "pvals": test.pval,
        "pvals_adj": adjust(test.pval, corr_method),
        "log10_pvals": test.log_pval / np.log(10),
        "lrt": test.stat,
        "pvals_chi2": np.exp(test.log_pval_chi2),
        "calibration": test.factor,
        "dispersion": np.where(found.usable, found.mean, np.nan),
        "sd_donor": np.where(found.usable, found.sd, np.nan),
        "loglik": answer.loglik,
        "loglik_null": test.loglik_null,
        "pct_expressed": stats.nonzero / stats.n_cells,
        "status": pd.Categorical.from_codes(
            found.points.status.astype(int), dtype=pd.CategoricalDtype(list(COUNT_STATUS))
        ),
    }
    return pd.DataFrame(columns, index=fit.var_names)
