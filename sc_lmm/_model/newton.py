"""The phi at which one gene's deviance is smallest: Newton's method on a box, from each start, and the deepest wins.

The exact Hessian costs nothing beside the expected one and makes convergence quadratic. When the quadratic model promises
less than `_PROMISE` its step is taken on trust, by an evaluation without derivatives; what is left is of its square.
Every gene is minimised by itself, in the same order of operations wherever it stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .box import Box, box_memory, box_step
from .compiled import bare, compiled
from .moments import Gene, Work, evaluate, work_for
from .parameters import Blocks, Local, bounds, from_phi, local_memory, orient, pull_back, to_phi
from .profiled import Profiled, invert, profile_moments, profiled_for

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
_SHORTER, _SHORTEST = 0.35, 1e-8
# Largest t: beyond only data without noise live.
LAST_T = 21.0


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
    box: Box


class Found(NamedTuple):
    """Per gene."""

    phi: Array  # (G, k)
    value: Array  # (G,) deviance
    rss: Array  # (G,)
    beta: Array  # (G, p)
    unscaled: Array  # (G, p, p) S^-1
    outcome: NDArray[np.int8]  # (G,)
    evaluations: Indices  # (G,)


def memory_for(structure: Structure) -> Memory:
    """Memory for the evaluations of one structure."""
    k, width = structure.n_parameters, max(grouping.r for grouping in structure.groupings)
    return Memory(work_for(structure), profiled_for(structure), local_memory(k, width), box_memory(k))


@compiled
def minimise_rows(model: Model, rows: GeneRows, starts: Array, memory: Memory, found: Found) -> None:
    """Minimise for every gene from its `starts` (G, n, k) in phi; NaN after the last one."""
    phi, profiled = np.empty(found.phi.shape[1]), memory.profiled
    for g in range(len(rows.yy)):
        gene = Gene(rows.lead[g], rows.z[g], rows.x[g], rows.yy[g])
        found.value[g] = np.inf
        for s in range(starts.shape[1]):
            if np.isnan(starts[g, s, 0]):
                break
            phi[:] = starts[g, s]
            outcome, evaluations = _minimise(model, gene, phi, memory)
            found.evaluations[g] += evaluations
            if profiled.value[0] < found.value[g]:
                found.value[g], found.rss[g], found.outcome[g] = profiled.value[0], profiled.rss[0], outcome
                found.phi[g], found.beta[g] = phi, profiled.beta
                invert(profiled.factor, found.unscaled[g])


@compiled
def _minimise(model: Model, gene: Gene, phi: Array, memory: Memory) -> tuple[int, int]:
    """Go from `phi` to the minimum, whose moments are left in memory; how it ended, and the number of evaluations."""
    blocks, profiled, local, box = model.blocks, memory.profiled, memory.local, memory.box
    x, order, trial = np.empty(phi.size), np.empty(blocks.width.sum(), np.int64), np.empty(phi.size)
    from_phi(phi, blocks, x, order)
    value, scale, last, outcome, evaluations = np.inf, 0.0, False, NOT_CONVERGED, 0
    while True:
        for i in range(phi.size):
            trial[i] = x[i] + scale * box.step[i] if scale > 0 else x[i]
        to_phi(trial, order, blocks, phi)
        derivatives = 0 if last else 2
        evaluate(phi, model.shared, gene, derivatives, memory.work)
        profile_moments(memory.work.moments, model.dof, model.reml, derivatives, profiled)
        evaluations += 1
        falls = -np.inf < profiled.value[0] <= value + _ROUNDING  # without end only where nothing is left to explain
        if last and (falls or scale == 0):
            return (outcome if outcome == NOT_CONVERGED else _ending(trial, blocks)), evaluations
        if falls and not last:
            x[:] = trial
            value, scale = profiled.value[0], 1.0
            orient(x, order, blocks, profiled.gradient)
            pull_back(x, order, blocks, profiled.gradient, profiled.hessian, profiled.expected, local)
            bounds(x, blocks, LAST_T, box.lower, box.upper)
            if box_step(x, local.gradient, local.hessian, local.expected, box) <= _PROMISE:
                last, outcome = True, INSIDE
        else:  # a step too far; when there is nothing to gain even from short ones, or by the last one, back to x
            scale *= _SHORTER
            if last or scale < _SHORTEST:
                last, scale = True, 0.0
        if evaluations > _MAX_STEPS:
            last, scale, outcome = True, 0.0, NOT_CONVERGED


@bare
def _ending(x: Array, blocks: Blocks) -> int:
    outcome = INSIDE
    for b in range(blocks.width.size):
        for k in range(blocks.width[b]):
            t = x[blocks.parameter[b] + k]
            if t >= LAST_T:
                return ENDLESS
            if t == 0:
                outcome = AT_BOUNDARY
    return outcome
