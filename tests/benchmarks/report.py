"""What a run found, as text and as JSON, with the machine and the versions that it depends on."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import peers_r

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .bench import Outcome, Section
    from .plan import Plan

_PACKAGES = (
    "sc-lmm",
    "numpy",
    "scipy",
    "numba",
    "pandas",
    "anndata",
    "joblib",
    "scanpy",
    "statsmodels",
    "flash-mm",
    "mixedlm-rs",
    "lme-python",
)
_R_PACKAGES = ("lme4", "limma", "edgeR")
_PEER_COLUMNS = {
    "peer": "peer",
    "n_genes": "genes",
    "wall per 1000": "s/1000 genes",
    "cpu per 1000": "CPU s/1000",
    "all genes s": "all genes s",
    "call ratio": "/ lmm_de",
    "fits ratio": "/ both fits",
    "peak_mb": "peak MB",
    "own_peak_mb": "lmm_de MB",
    "peer_max_off": "max |dLRT|",
    "peer_share_off": "off > .01",
    "peer_failed": "failed",
    "own_max_off": "lmm_de max |dLRT|",
}


def machine() -> dict[str, Any]:
    """Describe the machine and what is installed."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": platform.platform(terse=True),
        "load_average": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), **_versions()},
    }


def print_section(name: str, section: Section) -> None:
    """Print the table of a section and its figures."""
    print(f"\n## {name}")
    if name == "peers":
        _print_peers(section.rows)
    else:
        print_table(section.rows)
    print_outcomes(section.outcomes)


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print figures, each with its target and whether it is met."""
    verdict = {True: "hit", False: "MISS", None: ""}
    for outcome in outcomes:
        bound = "" if outcome.limit is None else f"{'>=' if outcome.at_least else '<='} {outcome.limit:g}"
        figure = f"{_text(outcome.figure)} {outcome.unit}"
        cpu = "" if outcome.cpu is None else f"(CPU {_text(outcome.cpu)})"
        print(f"{outcome.target}. {outcome.what:<60}{figure:>10} {cpu:<13} {bound:<9} {verdict[outcome.hit]}")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None) -> None:
    """Print rows, aligned."""
    if not rows:
        return
    columns = columns or {key: key for row in rows for key in row}
    lines = [list(columns.values())] + [[_text(row.get(key)) for key in columns] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())


def save(path: Path, plan: Plan, sections: Mapping[str, Section], about: Mapping[str, Any]) -> None:
    """Save everything as JSON."""
    end = {"load_average_at_end": os.getloadavg()[0]}
    found = {
        name: {"outcomes": [{**asdict(o), "hit": o.hit} for o in section.outcomes], "rows": section.rows}
        for name, section in sections.items()
    }
    content = _strict({"machine": {**about, **end}, "plan": asdict(plan), "sections": found})
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _print_peers(rows: Sequence[Mapping[str, Any]]) -> None:
    """Extrapolated times carry a tilde."""
    ran = [dict(row) for row in rows if "skipped" not in row]
    for row in ran:
        if row["extrapolated"]:
            for key in ("all genes s", "call ratio"):
                row[key] = f"~{_text(row[key])}"
    print_table(ran, _PEER_COLUMNS)
    print("~ extrapolated from the genes given. Peers of another model have no likelihood ratio to compare.")
    for row in rows:
        if "skipped" in row:
            print(f"{row['peer']}: skipped ({row['skipped']})")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _strict(value: Any) -> Any:
    """Replace what JSON cannot hold, NaN and infinity, by null."""
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {f"R {name}": peers_r.version(name) for name in _R_PACKAGES if peers_r.missing(name) is None}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
