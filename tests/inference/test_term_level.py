"""The default test under several random terms keeps its level with few donors."""

from __future__ import annotations

import pytest

from benchmarks.calibration_terms import DESIGNS, study

N_GENES = 2_000


@pytest.mark.parametrize("name", DESIGNS)
def test_null_genes_are_rejected_as_often_as_said(name):
    found = study(name, n_donors=8, n_genes=N_GENES, seed=1)
    assert 0.035 < found["at .05"] < 0.068  # sd .005, and what eight donors of one cohort add to it
    assert found["per 1,000 at .001"] < 4
    assert found["false"] < 0.15
