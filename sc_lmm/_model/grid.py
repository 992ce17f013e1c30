"""Starts for the minimisation: points of phi that all genes share, and each gene's local minima among them.

Likelihoods of several variances have local optima, and a start at the deepest grid points finds the global one (medium
grid, 36,000 fits of small designs against 16 starts from a fine grid: two missed, by .025 and .006).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .parameters import Blocks

    Array = NDArray[np.float64]
    Indices = NDArray[np.int64]

# Variances times the mean squared length of a column in a level: 0, and this range in even ratios.
_FIRST, _LAST = 0.1, 6400.0
_CORRELATIONS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
# Values per variance, 0 included: the most for which there are at most so many points.
_VALUES, _MOST_POINTS = (10, 8, 6, 5, 4, 3), 1500
# Starts per gene.
_MOST_STARTS = 6


class Grid(NamedTuple):
    """A grid of phi: the product of its axes, of which some points may be the same."""

    points: Array  # (K, k)
    shape: Indices  # (n_axes,)
    same: Indices  # (K,) the first point that is equal


def grid(blocks: Blocks) -> Grid:
    """Lay the grid: an axis for each variance, and one for the correlation of a block of two columns."""
    n_variances = int(blocks.width.sum())
    n_correlations = int((blocks.width == 2).sum())
    size = next((v for v in _VALUES if v**n_variances * 5**n_correlations <= _MOST_POINTS), _VALUES[-1])
    values = np.concatenate([[0.0], np.geomspace(_FIRST, _LAST, size - 1)])
    axes: list[Array] = []
    for width in blocks.width:
        axes += [values] * width + ([_CORRELATIONS] if width == 2 else [])
    mesh = [part.ravel() for part in np.meshgrid(*axes, indexing="ij")]
    points = np.concatenate(
        [_block_points(width, unit, mesh) for width, unit in zip(blocks.width, blocks.unit, strict=True)], axis=1
    )
    _, first, which = np.unique(points, axis=0, return_index=True, return_inverse=True)
    return Grid(points, np.array([axis.size for axis in axes]), first[which.ravel()])


def _block_points(width: int, unit: float, mesh: list[Array]) -> Array:
    """Entries of Gamma of one block at the points of the mesh, whose axes it takes."""
    d = [unit * mesh.pop(0) for _ in range(width)]
    correlation = mesh.pop(0) if width == 2 else np.zeros(d[0].size)
    entries = [d[a] if a == b else correlation * np.sqrt(d[a] * d[b]) for a in range(width) for b in range(a + 1)]
    return np.stack(entries, axis=1)


def starts(deviance: Array, grid: Grid) -> Array:
    """The deepest local minima of each gene among the points, (G, n, k); NaN after the last one."""
    found = np.full((len(deviance), _MOST_STARTS, grid.points.shape[1]), np.nan)
    _local_minima(deviance, grid.points, grid.shape, grid.same, found)
    return found


@compiled
def _local_minima(deviance: Array, points: Array, shape: Indices, same: Indices, found: Array) -> None:
    K = len(points)
    lowest = np.empty(K, dtype=np.bool_)
    for g in range(len(deviance)):
        D = deviance[g]
        lowest[:] = True
        stride = 1
        for axis in range(shape.size - 1, -1, -1):
            for k in range(K):
                position = k // stride % shape[axis]
                if (position > 0 and D[k - stride] < D[k]) or (position + 1 < shape[axis] and D[k + stride] < D[k]):
                    lowest[same[k]] = False
            stride *= shape[axis]
        for s in range(found.shape[1]):
            best = -1
            for k in range(K):
                if lowest[k] and same[k] == k and not np.isnan(D[k]) and (best < 0 or D[k] < D[best]):
                    best = k
            if best < 0:
                break
            found[g, s] = points[best]
            lowest[best] = False
