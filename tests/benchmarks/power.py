"""What is found among real counts with planted effects? ``python tests/benchmarks/power.py [--output FILE]``.

Tests every setting and deal of ../shared/power by the calls of ``benchmarks/power_calls.py`` and prints what they find
beside the p-values of other programs that are kept there.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from benchmarks.power_score import main

    main()
