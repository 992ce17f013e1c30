"""A design in standardised columns: orthonormal, and as apart as they can be in what varies within levels.

With D an orthonormal basis of X about its level means, X = Z xbar + D (D'X). The standardised columns have

    X'X = n I     and     X'D D'X = W = n diag(s^2),  s ascending,

s the length of a column of unit length within levels: 0 for a column that is constant in each, 1 for one whose level
means are 0. (They are the principal vectors of the column space and the levels.) Whatever the columns of the user are,
years, raw powers or a pair that all but coincides, products of the standardised ones have all their digits, at any rho.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import linalg

from .._design import TOLERANCE, triangle
from .._errors import DesignError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Columns, Design
    from .space import Slopes

    Array = NDArray[np.float64]

_BLOCK = 1 << 12


class Standard(NamedTuple):
    """Columns of X by level and within levels: p columns, q levels, w dimensions within."""

    basis: Array  # (p_user, p) these columns = user's columns @ basis
    columns: Array  # (p, p_user) user's columns = these @ columns + origin, or what these can give of them
    ZtX: Array  # (q, p)
    DtX: Array  # (w, p)

    def times(self, T: Array, back: Array) -> Standard:
        """The columns X T, with X = X T back, or nearly so if T has fewer columns."""
        return Standard(self.basis @ T, back @ self.columns, self.ZtX @ T, self.DtX @ T)


def standard_form(design: Design, slopes: Slopes | None = None) -> tuple[Standard, Array]:
    """The standardised columns of a design, and D (n, w), orthonormal and of sum zero in each level.

    With weights W the products are those of W^1/2 X and W^1/2 D: D'WD = I and Z'WD = 0. With `slopes`, D is what X has
    beside these too, and the products of X begin with those of their basis.
    """
    columns, codes = design.columns, design.random.codes
    if not columns.are_independent:
        msg = "Columns of the design determine each other. sl.tl.check_design names them and says what to drop."
        raise DesignError(msg)
    within = columns.orthonormal(columns.deviations(design.X, codes) * columns.R.any(axis=0))
    D = within[:, _telling(columns)] if slopes is None else _beside(slopes, within)
    for _ in range(2):  # the second time for what the first has left of columns that all but coincide
        D = _orthonormal(D if slopes is None else slopes.without(D), codes, columns)
    on_slopes = np.empty((0, within.shape[1])) if slopes is None else slopes.coordinates(within)
    ZtX = columns.sizes[:, None] * columns.orthonormal(columns.model_means)
    basis, back = _in_users_columns(columns)
    standard = standardised(Standard(basis, back, ZtX, np.vstack([on_slopes, D.T @ within])), columns.sizes)
    return standard, D if columns.root is None else D / columns.root[:, None]


def standardised(design: Standard, sizes: Array) -> Standard:
    """Standardise independent columns that are of about the same length."""
    R = np.linalg.qr(factor(design, sizes), mode="r") / np.sqrt(sizes.sum())
    design = design.times(linalg.solve_triangular(R, np.eye(len(R))), R)
    lengths, turn = _rotation(design.DtX)
    design = design.times(turn, turn.T)
    return design._replace(DtX=design.DtX * (lengths > TOLERANCE * np.sqrt(sizes.sum())))


def factor(design: Standard, sizes: Array) -> Array:
    """Coordinates of X on the orthonormal basis (D, Z N^-1/2), (w + q, p): the same cross-products in few rows."""
    return np.vstack([design.DtX, design.ZtX / np.sqrt(sizes)[:, None]])


def is_independent(design: Standard, sizes: Array) -> bool:
    """Whether columns that were orthonormal in another design are independent in this one."""
    rows = factor(design, sizes)
    return len(rows) >= rows.shape[1] and bool(linalg.svdvals(rows)[-1] > TOLERANCE * np.sqrt(sizes.sum()))


def _telling(columns: Columns) -> NDArray[np.int64]:
    """Orthonormal columns whose parts within levels span those of all, the ones that are known best first.

    A column of which little is left beside earlier ones is known to as many digits fewer. Its part within levels is not
    to be taken for that of others.
    """
    U, lengths, Vt = np.linalg.svd(columns.orthonormal(columns.R))
    rank = int((lengths > TOLERANCE).sum())
    known = np.abs(np.diag(columns.triangle)) / columns.unit
    *_, order = linalg.qr(U[:, :rank] * lengths[:rank] @ Vt[:rank] * known, pivoting=True)
    return np.asarray(order[:rank])


def _beside(slopes: Slopes, within: Array) -> Array:
    """As few of the columns as span what is left of them beside the slopes."""
    left = slopes.without(within)
    R = triangle((left[start : start + _BLOCK] for start in range(0, len(left), _BLOCK)), left.shape[1])
    *_, order = linalg.qr(R, pivoting=True)
    rank = int((linalg.svdvals(R) > TOLERANCE * np.sqrt(len(left))).sum()) if R.size else 0
    return np.ascontiguousarray(left[:, order[:rank]])


def _rotation(within: Array) -> tuple[Array, Array]:
    """Lengths within levels (p,), ascending, and the rotation (p, p) to the columns that have them."""
    *_, values, vectors = np.linalg.svd(within)
    lengths = np.zeros(within.shape[1])
    lengths[: values.size] = values
    return lengths[::-1], vectors[::-1].T


def _in_users_columns(columns: Columns) -> tuple[Array, Array]:
    """The orthonormal columns as combinations of the user's, and back to these less their origin."""
    T, back = linalg.solve_triangular(columns.triangle, np.eye(len(columns.triangle))), columns.triangle.copy()
    basis = T / columns.scale[:, None]
    if columns.intercept is not None:
        others = np.arange(len(T)) != columns.intercept
        basis[columns.intercept] -= columns.shift[others] @ T[others]
    return basis, back * columns.scale


def _orthonormal(A: Array, codes: NDArray[np.int32], columns: Columns) -> Array:
    """The same columns, orthonormal and orthogonal to the levels."""
    root = np.ones(len(A)) if columns.root is None else columns.root
    for k, column in enumerate(A.T):
        A[:, k] -= root * (np.bincount(codes, weights=root * column) / columns.sizes)[codes]
    R = triangle((A[start : start + _BLOCK] for start in range(0, len(A), _BLOCK)), A.shape[1])
    return np.asarray(linalg.solve_triangular(R, A.T, trans="T").T) if A.shape[1] else A
