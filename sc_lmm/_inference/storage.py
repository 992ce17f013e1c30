"""Python object <-> file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any


def save(fit: Any, path: str | Path) -> None:
    """Write a fit to a file."""
    with Path(path).open("wb") as file:
        pickle.dump(fit, file)


def load(path: str | Path, kind: type) -> Any:
    """Read what :func:`save` wrote, if it is of the kind wanted."""
    with Path(path).open("rb") as file:
        fit = pickle.load(file)
    if not isinstance(fit, kind):
        msg = f"{str(path)!r} does not hold an {kind.__name__} but a {type(fit).__name__}."
        raise TypeError(msg)
    return fit
