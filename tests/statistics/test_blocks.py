"""A matrix in blocks, each with some of the levels: the same statistics as in memory, for any order of the cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sc_lmm._design import build_design
from sc_lmm._statistics import sufficient_statistics
from sc_lmm._statistics import visit as visits

FORMULAS = ["~ x + arm + (1 | donor)", "~ x + arm + (1 + x | donor)", "~ x + arm + (1 | donor) + (1 | batch)"]


def cells(*, by_donor: bool) -> tuple[np.ndarray, pd.DataFrame]:
    """Nine donors in blocks of 16 rows: two or three in each if they come one after the other."""
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(9), rng.integers(5, 15, 9))
    donor = donor if by_donor else rng.permutation(donor)
    obs = pd.DataFrame({"donor": [f"d{j}" for j in donor], "arm": np.where(donor % 2, "case", "control")})
    obs["x"], obs["batch"] = rng.normal(size=donor.size), [f"b{k}" for k in rng.integers(0, 3, donor.size)]
    Y = rng.poisson(1.5, (donor.size, 6)) + 0.5 * donor[:, None] * (rng.random(6) < 0.7)
    Y[:, 0] += 1e9  # visited a second time
    return Y, obs


class Lazy:
    """A matrix that is not in memory."""

    def __init__(self, matrix) -> None:
        self.matrix, self.shape, self.dtype = matrix, matrix.shape, matrix.dtype

    def __getitem__(self, index):
        return self.matrix[index]


@pytest.mark.parametrize("by_donor", [True, False])
@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("weights", [None, "np.exp(x)"])
def test_blocks_add_up_to_the_whole(by_donor, formula, weights, monkeypatch):
    Y, obs = cells(by_donor=by_donor)
    design = build_design(formula, obs, weights=weights)
    whole = sufficient_statistics(Y, design)
    monkeypatch.setattr(visits, "_BLOCK_ROWS", 16)
    untidy = sparse.csr_matrix(Y)
    untidy.indices, untidy.data = (
        np.concatenate([part[::-1] for part in np.split(array, untidy.indptr[1:-1])])
        for array in (untidy.indices, untidy.data)
    )
    untidy.has_sorted_indices = False
    for matrix in (Lazy(Y), Lazy(sparse.csr_matrix(Y)), untidy):
        found = sufficient_statistics(matrix, design)
        for name in ("ZtY", "DtY", "rest", "nonzero", "shift", "sizes"):
            np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-9, atol=1e-8, err_msg=name)
