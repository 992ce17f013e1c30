"""sc_lmm against its peers: time, memory, and whether they find the maximum of the likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .bench import Bench, Outcome, Section, say
from .measure import Timing, cpu, ratio, run_child, wall
from .peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROUNDS = 3


def peers(bench: Bench) -> Section:
    """Run every peer that is installed."""
    section = Section(rows=[_row(bench, name) for name in PEERS])
    models = [row for row in section.rows if "fits ratio" in row]
    if models:
        fastest = min(models, key=lambda row: row["fits ratio"])
        what = f"per gene, fastest peer ({fastest['peer']}) / both fits"
        figures = {"figure": fastest["fits ratio"], "cpu": fastest["fits CPU ratio"]}
        section.outcomes.append(Outcome("3", what, unit="x", limit=bench.limit(100.0), at_least=True, **figures))
        own = [row["own_max_off"] for row in models if row["own_max_off"] is not None]
        section.outcomes.append(Outcome("3", "largest error of sc_lmm's likelihood ratios", max(own), "", 1e-6))
    return section


def _row(bench: Bench, name: str) -> dict[str, Any]:
    reason = PEERS[name].missing()
    if reason is not None:
        return {"peer": name, "skipped": reason}
    say(name)
    path, n_genes = str(bench.path(bench.plan.size)), bench.plan.peer_genes[name]
    try:
        child = run_child("peer", path=path, name=name, n_genes=n_genes, rounds=_ROUNDS)
    except RuntimeError as error:
        return {"peer": name, "skipped": str(error)}
    times = {key: [Timing(*pair) for pair in pairs] for key, pairs in child.pop("timings").items()}
    return {"peer": name, **_speed(bench, name, times, child["n_genes"]), **child}


def _speed(bench: Bench, name: str, times: dict[str, Sequence[Timing]], n_genes: int) -> dict[str, Any]:
    """Times and ratios, per gene scaled to all genes where the peer fitted fewer."""
    scale = bench.plan.size.n_genes / n_genes
    speed = {
        "extrapolated": n_genes < bench.plan.size.n_genes,
        "wall per 1000": 1000 * wall(times["peer"]) / n_genes,
        "cpu per 1000": 1000 * cpu(times["peer"]) / n_genes,
        "all genes s": scale * wall(times["peer"]),
        "call ratio": scale * ratio(times["peer"], times["call"]).wall,
        "own call s": wall(times["call"]),
        "own fits s": wall(times["fits"]),
    }
    if PEERS[name].mixed_model:
        share = ratio(times["peer"], times["fits"])
        speed |= {"fits ratio": scale * share.wall, "fits CPU ratio": scale * share.cpu}
    return speed
