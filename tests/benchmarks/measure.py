"""Time, memory, and fresh processes to measure them in."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Timing(NamedTuple):
    """Seconds of one call."""

    wall: float
    cpu: float  # of all threads and children


def time_call(call: Callable[[], object]) -> Timing:
    """Time one call."""
    cpu, wall = _cpu_seconds(), time.perf_counter()
    call()
    return Timing(time.perf_counter() - wall, _cpu_seconds() - cpu)


def interleave(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[Timing]]:
    """Time each call once per round, A B A B ..., so that a change in the machine's load meets all of them."""
    if warm_up:
        for call in calls.values():
            call()
    timings: dict[str, list[Timing]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            gc.collect()
            timings[name].append(time_call(call))
    return timings


def wall(timings: Sequence[Timing]) -> float:
    """Median seconds."""
    return median(t.wall for t in timings)


def cpu(timings: Sequence[Timing]) -> float:
    """Median CPU seconds."""
    return median(t.cpu for t in timings)


def ratio(above: Sequence[Timing], below: Sequence[Timing]) -> Timing:
    """Median over rounds of the ratio within a round."""
    pairs = list(zip(above, below, strict=True))
    return Timing(median(a.wall / b.wall for a, b in pairs), median(a.cpu / b.cpu for a, b in pairs))


def peak_mb(call: Callable[[], object]) -> float:
    """Largest resident memory of this process during a call above that before it, in MB; NaN except on Linux."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else memory that was freed before would hide what the call takes
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak to the present
    except (AttributeError, OSError):
        call()
        return float("nan")
    before = _status_mb("VmRSS")
    call()
    return _status_mb("VmHWM") - before


def run_child(task: str, env: Mapping[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
    """Run a task of :mod:`benchmarks.child` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.child", task, json.dumps(arguments)]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, **(env or {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"stopped with code {done.returncode}"]
        msg = f"{task}: {lines[-1]}"
        raise RuntimeError(msg)
    return json.loads(done.stdout.splitlines()[-1])


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
