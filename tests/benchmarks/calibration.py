"""Do the tests hold their level? ``python tests/benchmarks/calibration.py [--quick] [--genes N] [--output DIR]``.

Simulates genes without any effect (and, for power, with a tenth of them changed) for cohorts of 4 to 50 donors, tests
them by every method, and says where a target is missed. ``--compare`` studies ways of calibrating the ratio instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from benchmarks.calibration_study import main

    main()
