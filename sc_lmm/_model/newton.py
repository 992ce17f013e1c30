"""The phi at which one gene's deviance is smallest: Newton's method on a box, from each start, and the deepest wins.

A step minimises the quadratic model over the box t >= 0: variables that would leave it are held at the bound and the
others solved for again. (To project the unconstrained step instead jams: a clipped variable drags the others along the
bound.) The exact Hessian is used where it is positive definite, which makes convergence quadratic, and the expected one
elsewhere. When the model promises less than `_PROMISE` the step is taken on trust; what is left is of its square.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .compiled import compiled
from .moments import Gene, Work, evaluate, work_for
from .parameters import Blocks, Local, bounds, from_phi, orient, pull_back, to_phi
from .profiled import Profiled, profile_moments, profiled_for
from .small import cholesky, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .structure import GeneRows, Shared, Structure

    Array = NDArray[np.float64]
    Indices = NDArray[np.int64]

INSIDE, AT_BOUNDARY, NOT_CONVERGED, ENDLESS = range(4)

_MAX_STEPS = 100
# Fall of the deviance that the model promises from a last step.
_PROMISE = 1e-7
# Rounding of the deviance: a step that raises it by less may be taken.
_ROUNDING = 1e-9
_LONGEST_STEP, _SHORTER, _SHORTEST = 3.0, 0.35, 1e-8
# Largest t: beyond only data without noise live.
LAST_T = 21.0
_RIDGE = 1e-6


class Model(NamedTuple):
    """A model of all genes."""

    shared: Shared
    blocks: Blocks
    dof: float
    reml: bool


class Memory(NamedTuple):
    """What evaluations overwrite."""

    work: Work
    profiled: Profiled
    local: Local


class Found(NamedTuple):
    """Per gene."""

    phi: Array  # (G, k)
    value: Array  # (G,) deviance
    rss: Array  # (G,)
    beta: Array  # (G, p)
    unscaled: Array  # (G, p, p) S^-1
    outcome: NDArray[np.int8]  # (G,)
    evaluations: Indices  # (G,)


@compiled
def minimise_rows(model: Model, rows: GeneRows, starts: Array, memory: Memory, found: Found) -> None:
    """Minimise for every gene from its `starts` (G, n, k) in phi; NaN after the last one."""
    phi = np.empty(found.phi.shape[1])
    for g in range(len(rows.yy)):
        gene = Gene(rows.lead[g], rows.z[g], rows.x[g], rows.yy[g])
        found.value[g] = np.inf
        for s in range(starts.shape[1]):
            if np.isnan(starts[g, s, 0]):
                break
            phi[:] = starts[g, s]
            outcome, evaluations = _minimise(model, gene, phi, memory)
            found.evaluations[g] += evaluations
            if memory.profiled.value[0] < found.value[g]:
                found.outcome[g] = outcome
                found.phi[g] = phi
                _keep(memory.profiled, found.value[g : g + 1], found.rss[g : g + 1], found.beta[g], found.unscaled[g])


@compiled
def _keep(profiled: Profiled, value: Array, rss: Array, beta: Array, unscaled: Array) -> None:
    value[0], rss[0] = profiled.value[0], profiled.rss[0]
    beta[:] = profiled.beta
    for i in range(beta.size):
        unscaled[i] = 0.0
        unscaled[i, i] = 1.0
        solve(profiled.factor, unscaled[i])


@compiled
def _minimise(model: Model, gene: Gene, phi: Array, memory: Memory) -> tuple[int, int]:
    """Go from `phi` to the minimum, whose moments are left in memory; how it ended, and the number of evaluations."""
    blocks, profiled, k = model.blocks, memory.profiled, phi.size
    x, order, trial = np.empty(k), np.empty(blocks.width.sum(), np.int64), np.empty(k)
    step, lower, upper = np.zeros(k), np.empty(k), np.empty(k)
    from_phi(phi, blocks, x, order)
    value, scale, last, outcome, evaluations = np.inf, 0.0, False, NOT_CONVERGED, 0
    while True:
        for i in range(k):
            trial[i] = x[i] + scale * step[i]
        to_phi(trial, order, blocks, phi)
        derivatives = 0 if last else 2
        evaluate(phi, model.shared, gene, derivatives, memory.work)
        profile_moments(memory.work.moments, model.dof, model.reml, derivatives, profiled)
        evaluations += 1
        falls = profiled.value[0] <= value + _ROUNDING
        if last and (falls or scale == 0):
            return (outcome if outcome == NOT_CONVERGED else _ending(trial, blocks)), evaluations
        if falls and not last:
            x[:] = trial
            value, scale = profiled.value[0], 1.0
            orient(x, order, blocks, profiled.gradient)
            pull_back(x, order, blocks, profiled.gradient, profiled.hessian, profiled.expected, memory.local)
            bounds(x, blocks, LAST_T, lower, upper)
            if box_step(x, lower, upper, memory.local, step) <= _PROMISE:
                last, outcome = True, INSIDE
        else:  # a step too far; when there is nothing to gain even from short ones, or by the last one, back to x
            scale *= _SHORTER
            if last or scale < _SHORTEST:
                last, scale = True, 0.0
        if evaluations > _MAX_STEPS:
            last, scale, outcome = True, 0.0, NOT_CONVERGED


@compiled
def _ending(x: Array, blocks: Blocks) -> int:
    smallest, largest = np.inf, 0.0
    for b in range(blocks.width.size):
        t = x[blocks.parameter[b] : blocks.parameter[b] + blocks.width[b]]
        smallest, largest = min(smallest, t.min()), max(largest, t.max())
    if largest >= LAST_T:
        return ENDLESS
    return AT_BOUNDARY if smallest == 0 else INSIDE


@compiled
def box_step(x: Array, lower: Array, upper: Array, local: Local, step: Array) -> float:
    """Overwrite `step` by the minimiser of the quadratic model over the box; what the model promises to gain."""
    k, g = x.size, local.gradient
    free = np.empty(k, dtype=np.bool_)
    for i in range(k):
        free[i] = not ((x[i] <= lower[i] and g[i] >= 0) or (x[i] >= upper[i] and g[i] <= 0))
    step[:] = 0.0
    A = local.hessian.copy()
    if not _solve_free(A, g, free, step):
        A[:] = local.expected
        for i in range(k):
            A[i, i] = A[i, i] * (1 + _RIDGE) + _RIDGE
        _solve_free(A, g, free, step)
    for _ in range(k):
        outside = False
        for i in range(k):
            if free[i] and not lower[i] <= x[i] + step[i] <= upper[i]:
                step[i] = (lower[i] if x[i] + step[i] < lower[i] else upper[i]) - x[i]
                free[i] = False
                outside = True
        if not outside:
            break
        _solve_free(A, g, free, step)
    longest = np.abs(step).max()
    if longest > _LONGEST_STEP:
        step *= _LONGEST_STEP / longest
    return -((g * step).sum() + _quadratic(A, step) / 2)


@compiled
def _quadratic(A: Array, step: Array) -> float:
    total = 0.0
    for i in range(step.size):
        total += step[i] * (A[i] * step).sum()
    return total


@compiled
def _solve_free(A: Array, g: Array, free: NDArray[np.bool_], step: Array) -> bool:
    """Overwrite the free entries of `step` by those that minimise g's + s'As/2 given the others; whether there are any."""
    where = np.flatnonzero(free)
    n = where.size
    reduced, right = np.empty((n, n)), np.empty(n)
    for i in range(n):
        right[i] = -g[where[i]]
        for j in range(step.size):
            if not free[j]:
                right[i] -= A[where[i], j] * step[j]
        for j in range(n):
            reduced[i, j] = A[where[i], where[j]]
    if not cholesky(reduced):
        return False
    solve(reduced, right)
    for i in range(n):
        step[where[i]] = right[i]
    return True


def memory_for(structure: Structure) -> Memory:
    """Memory for the evaluations of one structure."""
    k = structure.n_parameters
    local = Local(np.zeros(k), np.zeros((k, k)), np.zeros((k, k)), np.zeros((k, k)))
    return Memory(work_for(structure), profiled_for(structure), local)
