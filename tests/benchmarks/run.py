"""Run the benchmarks: ``python tests/benchmarks/run.py [--quick] [--only SECTION ...] [--profile]``.

Everything is measured in one run and reported as ratios, because two runs on a shared machine do not compare.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from benchmarks.cli import main

    main()
