"""Sums, products and inverses of matrices of a few dozen rows: below that size, compiled loops beat calls of BLAS.

Plain loops, also where an array expression would do: those make ten times the machine code, which takes its time to
compile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@compiled
def fill(A: Array, value: float) -> None:
    """Overwrite a matrix by a constant."""
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            A[i, j] = value


@compiled
def add(A: Array, B: Array, sign: float) -> None:
    """Add sign B to A."""
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            A[i, j] += sign * B[i, j]


@compiled
def trace_of_product(A: Array, B: Array) -> float:
    """tr(A B)."""
    total = 0.0
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            total += A[i, j] * B[j, i]
    return total


@compiled
def multiply(A: Array, B: Array, out: Array) -> None:
    """Overwrite `out` by A B."""
    for i in range(A.shape[0]):
        row = out[i]
        for j in range(row.size):
            row[j] = 0.0
        for k in range(A.shape[1]):
            factor = A[i, k]
            for j in range(row.size):
                row[j] += factor * B[k, j]


@compiled
def multiply_transposed(A: Array, B: Array, out: Array) -> None:
    """Overwrite `out` by A'B."""
    fill(out, 0.0)
    add_product(A, B, 1.0, out)


@compiled
def add_product(A: Array, B: Array, sign: float, out: Array) -> None:
    """Add sign A'B to `out`."""
    for k in range(A.shape[0]):
        for i in range(A.shape[1]):
            factor = sign * A[k, i]
            row = out[i]
            for j in range(row.size):
                row[j] += factor * B[k, j]


@compiled
def invert_definite(A: Array) -> float:
    """Overwrite a positive definite A by its inverse; its determinant."""
    determinant = 1.0
    for k in range(len(A)):
        determinant *= A[k, k]
        _sweep(A, k)
    return determinant


@compiled
def log_det_and_inverse(A: Array) -> float:
    """Overwrite A, whose determinant is positive, by its inverse, with row pivots; the logarithm of the determinant."""
    n = len(A)
    swaps = np.empty(n, dtype=np.int64)
    log_det = 0.0
    for k in range(n):
        best = k
        for i in range(k + 1, n):
            if abs(A[i, k]) > abs(A[best, k]):
                best = i
        swaps[k] = best
        _swap_rows(A, k, best)
        log_det += np.log(abs(A[k, k]))
        _sweep(A, k)
    for k in range(n - 1, -1, -1):
        if swaps[k] != k:
            for i in range(n):
                A[i, k], A[i, swaps[k]] = A[i, swaps[k]], A[i, k]
    return log_det


@compiled
def _sweep(A: Array, k: int) -> None:
    """One step of Gauss-Jordan inversion in place."""
    n, row, pivot = len(A), A[k], A[k, k]
    A[k, k] = 1.0
    for j in range(n):
        row[j] /= pivot
    for i in range(n):
        if i != k:
            other, factor = A[i], A[i, k]
            other[k] = 0.0
            for j in range(n):
                other[j] -= factor * row[j]


@compiled
def _swap_rows(A: Array, i: int, k: int) -> None:
    if i != k:
        for j in range(A.shape[1]):
            A[i, j], A[k, j] = A[k, j], A[i, j]


@compiled
def cholesky(A: Array) -> bool:
    """Overwrite the lower triangle of A by its factor; whether A is positive definite."""
    for j in range(len(A)):
        pivot = A[j, j]
        for k in range(j):
            pivot -= A[j, k] * A[j, k]
        if not pivot > 0:
            return False
        A[j, j] = np.sqrt(pivot)
        for i in range(j + 1, len(A)):
            total = A[i, j]
            for k in range(j):
                total -= A[i, k] * A[j, k]
            A[i, j] = total / A[j, j]
    return True


@compiled
def solve(L: Array, b: Array) -> None:
    """Overwrite b by (L L')^-1 b."""
    n = len(L)
    for i in range(n):
        for k in range(i):
            b[i] -= L[i, k] * b[k]
        b[i] /= L[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= L[k, i] * b[k]
        b[i] /= L[i, i]
