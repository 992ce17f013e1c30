"""What a run shares: the plan, the cohorts, and the shape of a result."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .data import cohort_path, load
from .measure import run_child

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from .engine import Model
    from .plan import Plan, Size


@dataclass(frozen=True)
class Outcome:
    """One figure, and the target it is held against if there is one."""

    target: str  # its number in the list of targets
    what: str
    figure: float
    unit: str
    limit: float | None = None
    at_least: bool = False  # the limit is a lower one
    cpu: float | None = None  # the same of CPU time, steadier than the wall clock on a machine that is shared

    @property
    def hit(self) -> bool | None:
        """Whether the target is met, None if there is none."""
        if self.limit is None:
            return None
        return bool(self.figure >= self.limit if self.at_least else self.figure <= self.limit)


@dataclass
class Section:
    """Results of one part of a run: figures held against targets, and the rows of a table."""

    outcomes: list[Outcome] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """A run: every section asks it for data."""

    plan: Plan

    def limit(self, value: float) -> float | None:
        """Take a target that holds at full size only."""
        return value if self.plan.full_size else None

    def path(self, size: Size) -> Path:
        """File of a cohort, simulated if it is not there yet."""
        path = cohort_path(size)
        if not path.exists():
            say(f"simulating {size.n_cells:,} cells x {size.n_genes:,} genes, {size.n_donors} donors")
            run_child("build_cohort", path=str(path), size=asdict(size))
        return path

    @cached_property
    def adata(self) -> AnnData:
        """The cohort that targets are stated for."""
        return load(self.path(self.plan.size))

    @cached_property
    def model(self) -> Model:
        """Its design and statistics."""
        from .engine import prepare

        return prepare(self.adata)


def say(text: str) -> None:
    """Tell what is going on, apart from the report."""
    print(f"  ... {text}", file=sys.stderr, flush=True)
