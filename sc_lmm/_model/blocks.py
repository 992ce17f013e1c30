"""Genes in blocks through joblib.

Blocks are cut by size alone and use one BLAS thread, so that no result depends on the number of workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from .._blas import one_blas_thread
from .._progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_T = TypeVar("_T")

# A block's levels x genes array, 0.8 MB, stays in cache, and NumPy's cost per call is spread over enough genes.
_BLOCK_ENTRIES, _SMALLEST_BLOCK, _LARGEST_BLOCK = 100_000, 256, 4096


def gene_blocks(n_genes: int, n_levels: int, block_size: int | None = None) -> list[slice]:
    """Cut the genes, by default into blocks that suit the cache."""
    size = block_size or int(np.clip(_BLOCK_ENTRIES // n_levels, _SMALLEST_BLOCK, _LARGEST_BLOCK))
    return [slice(start, start + size) for start in range(0, n_genes, size)]


def for_blocks(
    task: Callable[..., _T],
    arguments: Iterable[tuple[Any, ...]],
    *,
    n_blocks: int,
    n_jobs: int | None,
    show_progress: bool | None,
    doing: str,
) -> list[_T]:
    """Call `task` with the arguments of each block, made when its turn comes.

    Parameters
    ----------
    task, arguments, n_blocks
        What to call with what, and how often.
    n_jobs
        Workers, in joblib's convention; None follows ``joblib.parallel_config``.
    show_progress
        Show a bar: always, never, or (None) if it takes longer than a second.
    doing
        What the bar says.
    """
    with one_blas_thread():
        if effective_n_jobs(n_jobs) == 1:  # joblib would do the same, after 5 ms of preparation
            done: Iterable[_T] = (task(*of_block) for of_block in arguments)
        else:
            parallel = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
            done = parallel(delayed(task)(*of_block) for of_block in arguments)
        return list(progress_bar(done, total=n_blocks, doing=doing, show_progress=show_progress))
