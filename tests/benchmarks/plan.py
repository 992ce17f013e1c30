"""What is measured: the model, the sizes of the data, how often, and the sections of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

FORMULA = "~ sequencing_saturation + diagnosis + (1 | sample_id)"
TEST = "diagnosis"
GROUP = "sample_id"
COVARIATE = "sequencing_saturation"

SECTIONS = (
    "call",
    "pass",
    "fits",
    "memory",
    "cells",
    "groups",
    "terms",
    "counts",
    "donors",
    "first",
    "import",
    "peers",
    "scaling",
)


@dataclass(frozen=True)
class Size:
    """Size of a simulated cohort."""

    n_cells: int
    n_genes: int
    n_donors: int = 24


@dataclass(frozen=True)
class Plan:
    """One run of the benchmarks."""

    size: Size
    dense_genes: int  # of the dense layouts, which hold every entry
    first_call: Size  # of the cohort on which compilation is timed
    rounds: int  # of interleaved calls
    peer_genes: dict[str, int | None] = field(default_factory=dict)  # genes a peer fits, None for all
    donors: tuple[int, ...] = (24, 200, 1000)
    # Most targets are stated for the full size: on small data fixed costs, which nobody waits for, make up the ratio.
    full_size: bool = True

    def with_donors(self, n_donors: int) -> Size:
        """Size of the cohort with another number of donors."""
        return Size(self.size.n_cells, self.size.n_genes, n_donors)


FULL = Plan(
    size=Size(24_000, 36_000),
    dense_genes=5_000,
    first_call=Size(2_000, 1_000),
    rounds=5,
    peer_genes={
        "statsmodels": 10,
        "flash-mm": 1_000,
        "mixedlm-rs": 200,
        "lme-python": 200,
        "lme4": 20,
        "scanpy t-test": None,
        "limma-voom pseudobulk": None,
    },
)
QUICK = Plan(
    size=Size(6_000, 4_000),
    dense_genes=2_000,
    first_call=Size(1_000, 300),
    rounds=3,
    peer_genes={
        "statsmodels": 4,
        "flash-mm": 300,
        "mixedlm-rs": 100,
        "lme-python": 100,
        "lme4": 6,
        "scanpy t-test": None,
        "limma-voom pseudobulk": None,
    },
    donors=(24, 200),
    full_size=False,
)
