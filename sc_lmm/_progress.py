"""The bar of every step that may take seconds: tqdm's, in a notebook its widget if there is one, else plain text."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # that there is no widget, before a bar was asked for
    from tqdm.auto import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterable


def progress_bar(steps: Iterable[Any] | None = None, *, doing: str, show_progress: bool | None, **how: Any) -> tqdm:
    """Bar over `steps`, or one to be moved by hand, that goes when it is done.

    Parameters
    ----------
    steps
        What to go through.
    doing
        What the bar says.
    show_progress
        Show it: always, never, or (None) if the step takes longer than a second.
    how
        For tqdm, for example ``total``.
    """
    delay = 0 if show_progress else 1
    return tqdm(steps, desc=doing, delay=delay, disable=show_progress is False, leave=False, **how)
