"""Starts for the minimisation: points of phi that all genes share, and each gene's local minima among them.

Likelihoods of several variances have local optima, and Newton's method from the deepest points of a grid finds the global
one; a point costs a gene less than a thousandth of what a start does. A block of one column has an axis of variances. A
block of more has Gamma = R diag(d) R' for some rotations R: in standardised columns no direction is special, and the
ridges of correlations near 1, which are narrow where variances are large, pass near points whose smaller variance is
about the square of their angle to the ridge.
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
# Values per variance, 0 included: the most for which there are no more points than this, in all and in a block.
_VALUES, _MOST_POINTS, _MOST_IN_BLOCK = (10, 8, 6, 5, 4, 3, 2), 16_000, 3_000
# Rotations of two columns, evenly by less than a right angle, beyond which the variances change places; and of more.
_PLANE_ROTATIONS, _ROTATIONS = 4, 12
# Starts per gene.
_MOST_STARTS = 6


class Grid(NamedTuple):
    """Points of phi, and which are next to each other."""

    points: Array  # (K, k)
    neighbours: Indices  # (K, n) a point itself where it has fewer


def grid(blocks: Blocks) -> Grid:
    """Lay the grid: every combination of the points of the blocks."""
    size = next((size for size in _VALUES if _affordable(blocks, size)), _VALUES[-1])
    parts = [_block_grid(int(width), unit, size) for width, unit in zip(blocks.width, blocks.unit, strict=True)]
    counts = [len(part.points) for part in parts]
    index = np.indices(counts).reshape(len(parts), -1)
    strides = np.append(np.cumprod(counts[:0:-1])[::-1], 1).astype(np.int64)
    here = np.arange(index.shape[1])[:, None]
    by_block = list(zip(parts, index, strides, strict=True))
    return Grid(
        points=np.concatenate([part.points[i] for part, i, _ in by_block], axis=1),
        neighbours=np.concatenate(
            [here + (part.neighbours[i] - i[:, None]) * step for part, i, step in by_block], axis=1
        ),
    )


def _affordable(blocks: Blocks, size: int) -> bool:
    in_block = [float(size) ** width * len(_rotations(width)) for width in blocks.width]
    return max(in_block) <= _MOST_IN_BLOCK and np.prod(in_block) <= _MOST_POINTS


def _block_grid(width: int, unit: float, size: int) -> Grid:
    values = np.concatenate([[0.0], np.geomspace(_FIRST, _LAST, size - 1)])
    rotations = _rotations(width)
    shape = (*[size] * width, len(rotations))
    *combination, rotation = np.indices(shape).reshape(width + 1, -1)
    d, R = values[np.stack(combination, axis=1)], rotations[rotation]
    gamma = np.einsum("kij,kj,klj->kil", R, d, R)
    a, b = np.tril_indices(width)
    _, first, point = np.unique(gamma[:, a, b].round(9), axis=0, return_index=True, return_inverse=True)
    neighbours = [_shifted(shape, axis, step) for axis in range(width) for step in (-1, 1)]
    if width == 2:
        neighbours += [_turned(shape, step) for step in (-1, 1)]
    return Grid(unit * gamma[first][:, a, b], point.ravel()[np.stack(neighbours, axis=1)][first])


def _rotations(width: int) -> Array:
    """The same ones every time, the identity first, (R, width, width)."""
    if width == 1:
        return np.ones((1, 1, 1))
    if width == 2:
        angle = np.arange(_PLANE_ROTATIONS) * np.pi / (2 * _PLANE_ROTATIONS)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
    draws = np.random.default_rng(0).standard_normal((_ROTATIONS - 1, width, width))
    return np.concatenate([np.eye(width)[None], np.linalg.qr(draws)[0]])


def _shifted(shape: tuple[int, ...], axis: int, step: int) -> Indices:
    """Flat index of what is `step` further along an axis, or the end of it."""
    index = np.indices(shape)
    index[axis] = np.clip(index[axis] + step, 0, shape[axis] - 1)
    return np.ravel_multi_index(tuple(index), shape).ravel()


def _turned(shape: tuple[int, ...], step: int) -> Indices:
    """Flat index of the next rotation, past a right angle the first one with the variances exchanged."""
    one, other, rotation = np.indices(shape)
    turned = rotation + step
    past = (turned < 0) | (turned >= shape[2])
    index = (np.where(past, other, one), np.where(past, one, other), turned % shape[2])
    return np.ravel_multi_index(index, shape).ravel()


def starts(deviance: Array, grid: Grid) -> Array:
    """The deepest local minima of each gene among the points, (G, n, k); NaN after the last one."""
    found = np.full((len(deviance), _MOST_STARTS, grid.points.shape[1]), np.nan)
    _local_minima(deviance, grid.points, grid.neighbours, found)
    return found


@compiled
def _local_minima(deviance: Array, points: Array, neighbours: Indices, found: Array) -> None:
    K = len(points)
    chosen = np.empty(K, dtype=np.bool_)
    for g in range(len(deviance)):
        D = deviance[g]
        for k in range(K):
            chosen[k] = not np.isnan(D[k])
            for n in range(neighbours.shape[1]):
                if D[neighbours[k, n]] < D[k]:
                    chosen[k] = False
                    break
        for s in range(found.shape[1]):
            best = -1
            for k in range(K):
                if chosen[k] and (best < 0 or D[k] < D[best]):
                    best = k
            if best < 0:
                break
            found[g, s] = points[best]
            chosen[best] = False
