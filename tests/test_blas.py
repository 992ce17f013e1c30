"""BLAS has one thread while a call of ours runs, and as many as before when none does, however calls overlap."""

from __future__ import annotations

from threading import Event, Thread

import pytest

from sc_lmm import _blas


class Library:
    """What threadpoolctl hands out: a number of threads, of the process or of the thread that asks."""

    def __init__(self, number: int) -> None:
        self.num_threads = number

    def set_num_threads(self, number: int) -> None:
        self.num_threads = number


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library(4)
    monkeypatch.setattr(_blas, "_libraries", lambda: [library])
    return library


def test_one_thread_inside_and_as_many_as_before_after(library: Library) -> None:
    with _blas.one_blas_thread():
        assert library.num_threads == 1
        with _blas.one_blas_thread():
            assert library.num_threads == 1
        assert library.num_threads == 1
    assert library.num_threads == 4


def test_an_error_gives_the_threads_back(library: Library) -> None:
    with pytest.raises(KeyError), _blas.one_blas_thread():
        raise KeyError
    assert library.num_threads == 4


def overlap(look) -> list:
    """Two calls, the first of which leaves first; what is seen when both are inside, one is left, and none."""
    seen, both, one = [], Event(), Event()

    def second() -> None:
        with _blas.one_blas_thread():
            both.set()
            one.wait(10)

    thread = Thread(target=second)
    with _blas.one_blas_thread():
        thread.start()
        both.wait(10)
        seen.append(look())
    seen.append(look())
    one.set()
    thread.join()
    return [*seen, look()]


def test_overlapping_calls(library: Library) -> None:
    assert overlap(lambda: library.num_threads) == [1, 1, 4]


def test_overlapping_calls_with_a_limit_of_each_thread(library: Library) -> None:
    library.threading_layer = "openmp"
    assert overlap(lambda: library.num_threads) == [1, 4, 4]


def test_overlapping_calls_of_the_libraries_of_this_process() -> None:
    libraries = _blas._libraries()
    if not libraries:
        pytest.skip("numpy and scipy have a BLAS here that cannot be told how many threads to use")
    before = [library.num_threads for library in libraries]
    try:
        _blas._set_threads([2] * len(libraries))
        start = [library.num_threads for library in libraries]
        assert overlap(lambda: [library.num_threads for library in libraries])[-1] == start
        ones = [1] * len(libraries)
        assert overlap(lambda: [library.num_threads for library in libraries])[0] == ones
    finally:
        _blas._set_threads(before)
