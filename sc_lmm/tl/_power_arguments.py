"""Arguments of `power`: checked, with what to type next, and laid out as a table of cohorts."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._errors import alternatives
from .._inference import ENOUGH_GENES, FEWEST_GENES, METHODS, check_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def iccs_of(given: float | Sequence[float] | None, default: float | str) -> Array | list[str]:
    """Intraclass correlations to ask for, or what stands for those of a pilot's genes."""
    if given is None and isinstance(default, str):
        return [default]
    iccs = numbers_of("icc", default if given is None else given)
    _check_range("icc", iccs, (iccs >= 0) & (iccs < 1), "at least 0 and less than 1")
    return iccs


def cohort_grid(
    n_donors: int | Sequence[int] | None, n_cells: float | Sequence[int] | None, iccs: Array | list[str], effects: Array
) -> pd.DataFrame:
    """All combinations, a row each, effects varying fastest."""
    donors, cells = numbers_of("n_donors", n_donors), numbers_of("n_cells", n_cells)
    _check_range("n_donors", donors, (donors >= 3) & (donors == np.round(donors)), "a whole number, 3 or more")
    _check_range("n_cells", cells, cells >= 2, "2 or more")
    whole = bool((cells == np.round(cells)).all())
    rows = list(product(donors.astype(int), cells.astype(int) if whole else cells, iccs, effects))
    return pd.DataFrame(rows, columns=["n_donors", "n_cells", "icc", "effect"])


def numbers_of(name: str, value: object) -> Array:
    """A number or several, ascending, each once."""
    numbers = np.unique(np.atleast_1d(np.asarray(value, dtype=np.float64)))
    _check_range(name, numbers, np.isfinite(numbers), "a finite number")
    if numbers.size == 0:
        msg = f"{name} is empty. Give a number or several."
        raise ValueError(msg)
    return numbers


def _check_range(name: str, values: Array, allowed: NDArray[np.bool_], words: str) -> None:
    if not allowed.all():
        msg = f"{name}={values[~allowed][0]:g} is out of range: it must be {words}."
        raise ValueError(msg)


def check_choices(alpha: float, method: str, n_simulations: int | None, seed: int, *, moderate: bool | None) -> None:
    """Refuse what has no meaning with any design."""
    if not 0 < alpha < 1:
        msg = f"alpha={alpha!r} is out of range: it must be between 0 and 1."
        raise ValueError(msg)
    if method not in METHODS:
        msg = f"method={method!r} is unknown. {alternatives(str(method), METHODS)}"
        raise ValueError(msg)
    if moderate and method != "lrt":
        msg = f"moderate=True with method={method!r} would need all genes of the study to come. Leave it out, or use 'lrt'."
        raise ValueError(msg)
    if n_simulations is not None and n_simulations < 100:
        msg = f"n_simulations={n_simulations!r} is too few to tell a power by: give 100 or more."
        raise ValueError(msg)
    check_seed(seed)


def check_simulated(n_simulations: int | None, *, moderate: bool | None, known: bool) -> None:
    """Refuse what has no meaning where the ICC is taken to be known."""
    if known and moderate:
        msg = (
            f"moderate=True learns from the genes of a pilot how much donors differ. Give a fitted object "
            f"(sc_lmm.tl.lmm_fit) of at least {FEWEST_GENES} genes, or leave moderate out."
        )
        raise ValueError(msg)
    if known and n_simulations is not None:
        msg = (
            f"n_simulations={n_simulations} has no meaning here: at a known ICC nothing is simulated. Leave it out, or give "
            f"a fitted pilot of at least {ENOUGH_GENES} genes, moderate=False or another method."
        )
        raise ValueError(msg)


def check_balanced(
    formula: object, test: object, reference: object, weights: object, gene: object, n_donors: object, n_cells: object
) -> None:
    """Refuse what describes a design that was not given, and ask for what two groups need."""
    of_design = {"formula": formula, "test": test, "reference": reference, "weights": weights, "gene": gene}
    given = [name for name, value in of_design.items() if value is not None]
    if given:
        msg = f"{given[0]} describes a design, and none was given. Add adata or a fit, or leave it out."
        raise ValueError(msg)
    missing = [name for name, value in {"n_donors": n_donors, "n_cells": n_cells}.items() if value is None]
    if missing:
        msg = (
            f"Without a design, power needs {' and '.join(missing)}: for example power(effect=0.3, n_donors=24, "
            f"n_cells=500). Or give a design: power(adata, formula, test, effect=0.3)."
        )
        raise ValueError(msg)


def check_design_arguments(*, paired: bool, gene: str | None, icc: object) -> None:
    """Refuse what has no meaning with a design."""
    if paired:
        msg = "paired=True is for two balanced groups. With a design the formula and the annotations say it; leave it out."
        raise ValueError(msg)
    if gene is not None and icc is not None:
        msg = f"icc={icc!r} and gene={gene!r} say the same thing twice. Leave one of them out."
        raise ValueError(msg)
