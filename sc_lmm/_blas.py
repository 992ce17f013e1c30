"""One thread for BLAS: the matrices here are small, so that its threads would wait for each other and for ours."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Context, or decorator, within which BLAS uses one thread."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """Found once: to look through the libraries of the process takes as long as to fit ten thousand genes."""
    return ThreadpoolController()
