"""Sums, products and inverses of matrices of a few dozen rows: below that size, compiled loops beat calls of BLAS.

Plain loops, also where an array expression would do: those make ten times the machine code, which takes its time to
compile. Matrices may be larger than what is used of them, whose size is then given, so that no memory is asked for and
returned in an evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .compiled import bare

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@bare
def fill(A: Array, value: float) -> None:
    """Overwrite a matrix by a constant."""
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            A[i, j] = value


@bare
def add(A: Array, B: Array, sign: float, rows: int, columns: int) -> None:
    """Add sign B to A."""
    for i in range(rows):
        for j in range(columns):
            A[i, j] += sign * B[i, j]


@bare
def trace_of_product(A: Array, B: Array, n: int) -> float:
    """tr(A B)."""
    total = 0.0
    for i in range(n):
        for j in range(n):
            total += A[i, j] * B[j, i]
    return total


@bare
def multiply(A: Array, B: Array, rows: int, inner: int, columns: int, out: Array) -> None:
    """Overwrite `out` by A B."""
    for i in range(rows):
        row = out[i]
        for j in range(columns):
            row[j] = 0.0
        for k in range(inner):
            factor = A[i, k]
            for j in range(columns):
                row[j] += factor * B[k, j]


@bare
def multiply_transposed(A: Array, B: Array, rows: int, inner: int, columns: int, out: Array) -> None:
    """Overwrite `out` by A'B."""
    for i in range(rows):
        for j in range(columns):
            out[i, j] = 0.0
    add_product(A, B, rows, inner, columns, 1.0, out)


@bare
def add_product(A: Array, B: Array, rows: int, inner: int, columns: int, sign: float, out: Array) -> None:
    """Add sign A'B to `out`."""
    for k in range(inner):
        for i in range(rows):
            factor = sign * A[k, i]
            row = out[i]
            for j in range(columns):
                row[j] += factor * B[k, j]


@bare
def invert_definite(A: Array) -> float:
    """Overwrite a positive definite A by its inverse; its determinant."""
    determinant = 1.0
    for k in range(len(A)):
        determinant *= A[k, k]
        _sweep(A, k, len(A))
    return determinant


@bare
def log_det_and_inverse(A: Array, n: int, swaps: NDArray[np.int64]) -> float:
    """Overwrite A, whose determinant is positive, by its inverse, with row pivots; the logarithm of the determinant."""
    log_det = 0.0
    for k in range(n):
        best = k
        for i in range(k + 1, n):
            if abs(A[i, k]) > abs(A[best, k]):
                best = i
        swaps[k] = best
        if best != k:
            for j in range(n):
                A[k, j], A[best, j] = A[best, j], A[k, j]
        log_det += np.log(abs(A[k, k]))
        _sweep(A, k, n)
    for k in range(n - 1, -1, -1):
        if swaps[k] != k:
            for i in range(n):
                A[i, k], A[i, swaps[k]] = A[i, swaps[k]], A[i, k]
    return log_det


@bare
def _sweep(A: Array, k: int, n: int) -> None:
    """One step of Gauss-Jordan inversion in place."""
    row, pivot = A[k], A[k, k]
    A[k, k] = 1.0
    for j in range(n):
        row[j] /= pivot
    for i in range(n):
        if i != k:
            other, factor = A[i], A[i, k]
            other[k] = 0.0
            for j in range(n):
                other[j] -= factor * row[j]


@bare
def cholesky(A: Array, n: int) -> bool:
    """Overwrite the lower triangle of A by its factor; whether A is positive definite."""
    for j in range(n):
        pivot = A[j, j]
        for k in range(j):
            pivot -= A[j, k] * A[j, k]
        if not pivot > 0:
            return False
        A[j, j] = np.sqrt(pivot)
        for i in range(j + 1, n):
            total = A[i, j]
            for k in range(j):
                total -= A[i, k] * A[j, k]
            A[i, j] = total / A[j, j]
    return True


@bare
def solve(L: Array, b: Array, n: int) -> None:
    """Overwrite b by (L L')^-1 b."""
    for i in range(n):
        for k in range(i):
            b[i] -= L[i, k] * b[k]
        b[i] /= L[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= L[k, i] * b[k]
        b[i] /= L[i, i]
