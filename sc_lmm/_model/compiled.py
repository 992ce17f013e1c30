"""How numerical loops of this room are compiled."""

from __future__ import annotations

from typing import Any

from numba import njit

# Sums may be reordered into vector registers, the same way for every gene; nothing else of IEEE arithmetic is given up.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract"},
}

_njit: Any = njit
compiled = _njit(**_OPTIONS)

# For functions that ask for no memory. By default the compiler counts, atomically, who refers to each array, which for
# small matrices in tuples of dozens of arrays takes three times as long as the arithmetic.
bare = _njit(**_OPTIONS, _nrt=False)
