"""How numerical loops over matrices of a few rows are compiled."""

from __future__ import annotations

from .. import _compile

# Sums may be reordered into vector registers, the same way for every gene; nothing else of IEEE arithmetic is given up.
_FASTMATH = {"reassoc", "contract"}

compiled = _compile.compiled(error_model="numpy", fastmath=_FASTMATH)

# For functions that ask for no memory. By default the compiler counts, atomically, who refers to each array, which for
# small matrices in tuples of dozens of arrays takes three times as long as the arithmetic.
bare = _compile.compiled(error_model="numpy", fastmath=_FASTMATH, _nrt=False)
