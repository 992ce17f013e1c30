"""One thread for BLAS: the matrices here are small, so that its threads would wait for each other and for ours.

The limit is of the process, while calls in several threads may overlap. They are counted: the first one to come notes
how many threads there were, and the last one to leave puts that back. Where the limit is of a thread, as with OpenMP,
each puts back its own.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Context, or decorator, within which BLAS uses one thread."""
    own = _calls.come()
    try:
        yield
    finally:
        _calls.leave(own)


class _Calls:
    """Calls that have come and not left, in all threads."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.inside = 0
        self.before: list[int] = []  # threads of each library when nobody was inside

    def come(self) -> list[int]:
        """Limit the threads; how many each library had."""
        with self.lock:
            own = [library.num_threads for library in _libraries()]
            if self.inside == 0:
                self.before = own
            self.inside += 1
            _set_threads([1] * len(own))
            return own

    def leave(self, own: Sequence[int]) -> None:
        """Give the threads back, unless others are inside."""
        with self.lock:
            self.inside -= 1
            last = self.inside == 0
            per_thread = [getattr(library, "threading_layer", "") == "openmp" for library in _libraries()]
            while_others = [mine if alone else 1 for mine, alone in zip(own, per_thread, strict=True)]
            _set_threads(self.before if last else while_others)


def _set_threads(numbers: Sequence[int]) -> None:
    for library, number in zip(_libraries(), numbers, strict=True):
        library.set_num_threads(number)
        # From threadpoolctl 3.8 on, a thread that has set a number keeps all others from it until it lets go.
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread()


@cache
def _libraries() -> list[Any]:
    """Found once: to look through the libraries of the process takes as long as to fit ten thousand genes."""
    found: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return found


_calls = _Calls()
