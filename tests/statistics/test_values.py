"""What kind of numbers a matrix holds, wherever in it the number stands that decides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sc_lmm._design import build_design
from sc_lmm._statistics import sufficient_statistics
from sc_lmm._statistics import values as values_module
from sc_lmm._statistics.values import looks_like_counts

SHAPE = (40, 15)
FORMS = {"dense": np.asarray, "fortran": np.asfortranarray, "csr": sparse.csr_matrix, "csc": sparse.csc_array}


def has_negative(matrix):
    """Whether a visit of the matrix tells of a negative entry."""
    obs = pd.DataFrame({"donor": np.repeat(["a", "b"], -(-matrix.shape[0] // 2))[: matrix.shape[0]]})
    obs["x"] = np.arange(len(obs)) % 3
    design = build_design("~ x + (1 | donor)", obs)
    return sufficient_statistics(matrix, design, show_progress=False).negative > 0


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(values_module, "_FIRST_BLOCK", 8)
    monkeypatch.setattr(values_module, "_BLOCK", 64)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30, deadline=None)
@given(place=st.integers(0, SHAPE[0] * SHAPE[1] - 1), dtype=st.sampled_from(["f4", "f8"]))
def test_one_value_decides(form, place, dtype):
    counts = np.random.default_rng(0).poisson(3, SHAPE).astype(dtype) + 1
    assert looks_like_counts(FORMS[form](counts))
    assert not has_negative(FORMS[form](counts))
    for value, is_negative in ((0.5, False), (-1.0, True), (np.nan, False)):
        changed = counts.copy()
        changed.ravel()[place] = value
        assert not looks_like_counts(FORMS[form](changed))
        assert has_negative(FORMS[form](changed)) == is_negative


def test_a_value_that_is_missing_hides_no_negative_one():
    assert has_negative(np.array([[np.nan, 1.0], [1.0, 2.0], [2.0, -3.0]]))


@pytest.mark.parametrize("dtype", ["?", "u1", "i8"])
def test_whole_numbers_of_any_type(dtype):
    matrix = np.array([[0, 1], [1, 0], [1, 1]], dtype=dtype)
    assert looks_like_counts(matrix)
    assert not has_negative(matrix)
