"""Names beside points such that no two names overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_RADII, _ANGLES = (7.0, 13.0, 20.0, 29.0, 40.0, 54.0), np.arange(16) * (2 * np.pi / 16)  # points, radians
_ON_LABELLED_POINT, _FARTHER, _INWARD = 20.0, 0.25, 2.0  # costs; one point of the cloud covered costs 1
_PADDING = 1.5  # points around a name


def label_points(ax: Axes, points: Array, names: Sequence[str], cloud: Array) -> list[Annotation]:
    """Write `names` next to `points`, the first one having the first choice of place.

    A name goes to the cheapest of some places around its point: it never covers another name nor leaves the axes, and
    covers as little of the `cloud` as possible. A name for which there is no place is left out.

    Parameters
    ----------
    ax
        Where to; its limits must be final.
    points, cloud
        Data coordinates of the points to label, (n, 2), and of all points, (m, 2).
    """
    ax.figure.canvas.figure.draw_without_rendering()  # the layout fixes where data are on the page
    labels = [_annotate(ax, point, name) for point, name in zip(points, names, strict=True)]
    scale = ax.figure.dpi / 72
    here, all_points = ax.transData.transform(points), ax.transData.transform(cloud)
    middle = ax.bbox.x0 + ax.bbox.width / 2
    taken, lines, kept = np.empty((0, 4)), np.empty((0, 2)), []
    for label, point in zip(labels, here, strict=True):
        extent = label.get_window_extent()
        half = np.array([extent.width, extent.height]) / 2 + _PADDING * scale
        centres, costs = _places(half / scale, inward=-np.sign(point[0] - middle))
        boxes = _boxes(point + centres * scale, half)
        leaders = point + np.linspace(0.1, 0.8, 12)[:, None, None] * centres * scale  # (12, places, 2)
        costs = costs + _covered(boxes, all_points) + _ON_LABELLED_POINT * _covered(boxes, here)
        free = _inside(boxes, np.asarray(ax.bbox.extents)) & ~_overlap(boxes, taken) & (_covered(boxes, lines) == 0)
        free &= ~_crossing(leaders, taken)
        if not free.any():
            label.remove()
            continue
        best = int(np.argmin(np.where(free, costs, np.inf)))
        label.xyann = tuple(centres[best])
        taken, lines = np.vstack([taken, boxes[best]]), np.vstack([lines, leaders[:, best]])
        kept.append(label)
    return kept


def _annotate(ax: Axes, point: Array, name: str) -> Annotation:
    from matplotlib.patheffects import withStroke

    line = {"arrowstyle": "-", "linewidth": 0.5, "color": "0.35", "shrinkA": 0, "shrinkB": 2}
    label = ax.annotate(
        name,
        tuple(point),
        (0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        size=8,
        arrowprops=line,
        zorder=5,
    )
    label.set_path_effects([withStroke(linewidth=2, foreground="white")])
    label.set_in_layout(False)
    return label


def _places(half: Array, inward: float) -> tuple[Array, Array]:
    """Offsets of the centre of a box from its point, and what each costs before anything is covered; in points."""
    radius, angle = (grid.ravel() for grid in np.meshgrid(_RADII, _ANGLES, indexing="ij"))
    direction = np.column_stack([np.cos(angle), np.sin(angle)])
    centres = direction * (radius[:, None] + half)
    return centres, _FARTHER * radius + _INWARD * (np.sign(direction[:, 0].round(6)) == inward)


def _boxes(centres: Array, half: Array) -> Array:
    """Boxes (x0, y0, x1, y1) around centres."""
    return np.hstack([centres - half, centres + half])


def _covered(boxes: Array, points: Array) -> Array:
    """Count the points in each box."""
    x, y = points[:, 0], points[:, 1]
    inside = [((x > b[0]) & (x < b[2]) & (y > b[1]) & (y < b[3])).sum() for b in boxes]
    return np.array(inside, dtype=np.float64)


def _inside(boxes: Array, frame: Array) -> NDArray[np.bool_]:
    return np.asarray((boxes[:, :2] >= frame[:2]).all(axis=1) & (boxes[:, 2:] <= frame[2:]).all(axis=1))


def _overlap(boxes: Array, taken: Array) -> NDArray[np.bool_]:
    """Whether a box overlaps any that is taken."""
    lower, upper = boxes[:, None, :2] < taken[:, 2:], boxes[:, None, 2:] > taken[:, :2]
    return np.asarray(np.any(np.all(lower & upper, axis=2), axis=1))


def _crossing(leaders: Array, taken: Array) -> NDArray[np.bool_]:
    """Whether a line, given as points (k, places, 2), runs through a box that is taken."""
    after, before = leaders[:, :, None] > taken[:, :2], leaders[:, :, None] < taken[:, 2:]
    return np.asarray(np.any(np.all(after & before, axis=3), axis=(0, 2)))
