"""How the fit of a gene ended."""

from __future__ import annotations

OK, BOUNDARY, CONSTANT, MAX_ITER, FAILED = range(5)
STATUS = ("ok", "boundary", "constant", "max_iter", "failed")

# What is left of y'y is rounding below this share: twelve of the digits of y are gone, and fewer than four are left.
ROUNDING = 2.0**-80
