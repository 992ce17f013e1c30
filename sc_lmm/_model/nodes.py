"""Few stand-ins for many levels of one random column each, exact to rounding.

Eliminating levels of squared length n_j gives, for every gene at its own g >= 0, sums over levels of

    h(g n_j) times a matrix of the level,        h(x) = 1 / (1 + x)

and derivatives of these in g. As a function of log n, h(g n) is analytic in a strip of half-width pi whatever g is, so
polynomials in log n through Chebyshev nodes converge as rho^-R, rho = pi / a + sqrt((pi / a)^2 + 1), for n over e^(2a)-fold.
The matrices of the levels, interpolated once per design, become those of R nodes, 22 when sizes differ tenfold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial import chebyshev

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_DIGITS = 13
# Natural logarithm of the error of the interpolation, relative to 1.
_LOG_ERROR = -36.0


def nodes(T: Array) -> tuple[Array, Array | None]:
    """Nodes for levels `T` (m, r, r), and weights (nodes, m) that gather what is of the levels; None for the levels."""
    m, r = T.shape[:2]
    if r != 1:
        return T, None
    sizes = T[:, 0, 0] ** 2
    used = sizes > 0
    # Sizes that are equal but for rounding are one.
    _, first, inverse = np.unique(np.log(sizes[used]).round(_DIGITS), return_index=True, return_inverse=True)
    unique = sizes[used][first]
    centre, spread = _range(np.log(unique))
    n_nodes = _n_nodes(spread)
    if min(n_nodes, unique.size) >= m:
        return T, None
    weights = np.zeros((min(n_nodes, unique.size), m))
    if unique.size <= n_nodes:
        weights[inverse, np.flatnonzero(used)] = 1.0
        return np.sqrt(unique).reshape(-1, 1, 1), weights
    points = np.cos((2 * np.arange(n_nodes) + 1) * np.pi / (2 * n_nodes))
    weights[:, used] = _lagrange(points, (np.log(sizes[used]) - centre) / spread)
    return np.exp((centre + spread * points) / 2).reshape(-1, 1, 1), weights


def _range(values: Array) -> tuple[float, float]:
    if values.size == 0:
        return 0.0, 0.0
    return float(values.max() + values.min()) / 2, float(values.max() - values.min()) / 2


def _n_nodes(spread: float) -> int:
    if spread == 0:
        return 1
    ratio = np.pi / spread
    return int(np.ceil(-_LOG_ERROR / np.log(ratio + np.sqrt(ratio**2 + 1)))) + 1


def _lagrange(points: Array, x: Array) -> Array:
    """Values at `x` of the polynomials that are 1 at one of the Chebyshev `points` and 0 at the others, (R, m)."""
    R = points.size
    at_points = chebyshev.chebvander(points, R - 1) * (2 / R)
    at_points[:, 0] /= 2
    return at_points @ chebyshev.chebvander(x, R - 1).T
