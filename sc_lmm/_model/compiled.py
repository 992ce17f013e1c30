"""How numerical loops of this room are compiled."""

from __future__ import annotations

from numba import njit

# Sums may be reordered into vector registers, the same way for every gene; nothing else of IEEE arithmetic is given up.
compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
