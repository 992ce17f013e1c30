"""A declared logarithm of values that are no logarithms gives no fold change, and no warning of numpy either."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

import sc_lmm as sl


def test_values_beyond_any_logarithm_have_no_fold_change():
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(10), 12)
    obs = pd.DataFrame({"donor": donor.astype(str), "arm": np.where(donor % 2, "case", "control")})
    obs.index = obs.index.astype(str)
    Y = np.abs(rng.normal(2, 0.3, (120, 3))) * np.array([1.0, 1e3, 1e140])
    adata = ad.AnnData(Y, obs=obs, uns={"log1p": {"base": None}})
    sl.tl.lmm_de(adata, "~ arm + (1 | donor)", "arm", reference="control")
    table = adata.varm["lmm_de"]
    np.testing.assert_array_equal(np.isfinite(table["logfoldchanges"]), [True, False, False])
    assert table["pvals"].notna().all()
