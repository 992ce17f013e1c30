"""Draw designs, ask the package, judge what it says: ``python tests/fuzz/run.py [--designs N] [--seed S] [--only NUMBER]``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from fuzz.cli import main

    raise SystemExit(main())
