"""What has no meaning as an argument is refused before anything is read, whichever function it is given to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import sc_lmm as sl
from sc_lmm import DesignError

if TYPE_CHECKING:
    from anndata import AnnData

FORMULA = "~ age + diagnosis + (1 | sample_id)"


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return sl.datasets.brain_cohort(n_donors=8, n_cells=400, n_genes=5)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None, True, np.random.default_rng(0)])
def test_a_seed_is_a_whole_number(adata, seed):
    fit = sl.tl.lmm_fit(adata, FORMULA)
    calls = (
        lambda: sl.tl.lmm_de(adata, FORMULA, "diagnosis", seed=seed),
        lambda: fit.test("diagnosis", seed=seed),
        lambda: fit.test("(1 | sample_id)", seed=seed),
        lambda: sl.tl.power(adata, FORMULA, "diagnosis", effect=0.5, icc=0.1, seed=seed),
        lambda: sl.tl.permutation_check(adata, FORMULA, "diagnosis", seed=seed),
    )
    for call in calls:
        with pytest.raises(ValueError, match="whole number, 0 or more"):
            call()
    assert list(adata.uns) == ["log1p"]
    assert not adata.varm


@pytest.mark.filterwarnings("ignore::sc_lmm._errors.LmmWarning")  # of few donors, before
@pytest.mark.parametrize("n_jobs", [0, "a", 1.5, True])
def test_workers_are_a_number(adata, monkeypatch, n_jobs):
    monkeypatch.setattr(sl._read, "check_matrix", lambda matrix: pytest.fail("the matrix was looked at"))
    for call in (
        lambda: sl.tl.lmm_fit(adata, FORMULA, n_jobs=n_jobs),
        lambda: sl.tl.lmm_de(adata, FORMULA, "diagnosis", n_jobs=n_jobs),
        lambda: sl.tl.permutation_check(adata, FORMULA, "diagnosis", n_jobs=n_jobs),
    ):
        with pytest.raises(ValueError, match="number of workers, 1 or more, or -1"):
            call()


@pytest.mark.filterwarnings("ignore::sc_lmm._errors.LmmWarning")
@pytest.mark.parametrize("seed", [0, np.int64(3)])
def test_numbers_of_numpy_are_numbers(adata, seed):
    table = sl.tl.lmm_fit(adata, FORMULA, n_jobs=np.int64(1)).test("diagnosis", seed=seed).table
    assert table["pvals"].notna().all()


def test_a_model_has_a_fixed_effect(adata):
    with pytest.raises(DesignError, match="no fixed effect, not even an intercept"):
        sl.tl.lmm_fit(adata, "~ 0 + (1 | sample_id)")
    assert sl.tl.check_design(adata, "~ 0 + (1 | sample_id)").refused
    fit = sl.tl.lmm_fit(adata, "~ 0 + age + (1 | sample_id)")
    with pytest.raises(DesignError, match="'age' is the only fixed effect"):
        fit.drop("age")
