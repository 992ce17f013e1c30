"""Do the tests hold their level, and what do they find? ``python tests/benchmarks/calibration.py [--quick] [--help]``.

Simulates genes, a tenth of them changed, for cohorts of 4 to 50 donors, tests them by every method, and says where a
target is missed. ``--few`` learns priors from few genes, ``--factor`` compares ways of calibrating the ratio instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from benchmarks.calibration_study import main

    main()
