"""Where the time of one warm call goes, in one thread and in CPU seconds, so that nothing is spent on waiting."""

from __future__ import annotations

import cProfile
import pstats
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self
from unittest.mock import patch

from sc_lmm._statistics import visit as _visit

from . import engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .bench import Bench


class _Inline:
    """A pool without threads, into which the profiler sees."""

    def __init__(self, _n_threads: int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[..., object], items: Iterable[object]) -> Iterator[object]:
        return map(function, items)


def print_profile(bench: Bench, n_lines: int = 15) -> None:
    """Print the functions that took the most time themselves."""
    engine.call(bench.adata)
    profiler = cProfile.Profile(time.process_time)
    with patch.object(_visit, "ThreadPoolExecutor", _Inline):
        profiler.runcall(engine.call, bench.adata)
    stats = pstats.Stats(profiler)
    print(f"\n## profile of one call, {stats.total_tt:.2f} CPU s")
    print(f"{'own s':>7} {'total s':>8} {'calls':>7}  function")
    for function, (calls, _, own, total, _) in sorted(stats.stats.items(), key=lambda item: -item[1][2])[:n_lines]:
        file, line, name = function
        where = name if file == "~" else f"{Path(file).parent.name}/{Path(file).name}:{line} {name}"
        print(f"{own:7.3f} {total:8.3f} {calls:7d}  {where}")
