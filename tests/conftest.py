"""What every test relies on: one cache of compiled code per process, reproducible examples, and R only where it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# Programs, not tests; --doctest-modules would import them.
collect_ignore = ["benchmarks", *(f"fuzz/{path.name}" for path in (Path(__file__).parent / "fuzz").glob("[!t]*.py"))]

# numba takes no lock on its cache: two processes that compile one kernel for two dtypes at the same time can leave an
# index that names the wrong code. So each parallel test process has its own; must be set before numba is imported.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is not None:
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".numba_cache" / worker)

# The first example may compile a kernel, which takes seconds, so no deadline; derandomized so that a failure repeats.
settings.register_profile("sc_lmm", deadline=None, derandomize=True)
settings.load_profile("sc_lmm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``r`` on a machine without R."""
    if shutil.which("Rscript") is not None:
        return
    for item in items:
        if item.get_closest_marker("r") is not None:
            item.add_marker(pytest.mark.skip(reason="Rscript not found"))
