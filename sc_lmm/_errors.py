"""The two exception classes of the package and the one way a message offers alternatives.

Every message says what was found, what is allowed, and what to type next.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_LISTED = 15
_PACKAGE = str(Path(__file__).parent) + os.sep
_CONTEXTS = str(contextlib.__file__)  # between our frames where one of our contexts is entered


class DesignError(ValueError):
    """The formula and the annotations do not define a model in which the test can be answered."""


class LmmWarning(UserWarning):
    """The result is valid but something about it deserves a look."""


def listing(names: Iterable[object], limit: int = _MAX_LISTED) -> str:
    """Quote names for a message, the first `limit` of them."""
    quoted = [repr(str(name)) for name in names]
    rest = len(quoted) - limit
    return ", ".join(quoted[:limit]) + (f" and {rest} more" if rest > 0 else "")


def alternatives(name: str, allowed: Iterable[object]) -> str:
    """Say which names exist, and the one most like the name that was typed, whatever its case."""
    names = [str(a) for a in allowed]
    if not names:
        return "There are none."
    folded = {known.casefold(): known for known in reversed(names)}
    close = get_close_matches(name.casefold(), folded, n=1, cutoff=0.6) if name.casefold() not in folded else [name]
    hint = f" Did you mean {folded[close[0].casefold()]!r}?" if close else ""
    return f"Available: {listing(names)}.{hint}"


def warn(message: str) -> None:
    """Warn at the line of the user's code that called into the package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_PACKAGE, _CONTEXTS)):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, LmmWarning, stacklevel=level)


def warn_each(found: Iterable[tuple[str, str]]) -> None:
    """Warn of what is said of several groups, (name, sentence) each: once where sentences differ in their numbers alone."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for name, sentence in found:
        alike.setdefault(re.sub(r"[\d.,]+", "#", sentence), []).append((name, sentence))
    for (name, sentence), *others in alike.values():
        likewise = (
            f" Likewise, with numbers of their own: {listing([other for other, _ in others], 5)}." if others else ""
        )
        warn(f"In {name}: {sentence}{likewise}")
