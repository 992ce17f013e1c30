"""The two exception classes of the package and the one way a message offers alternatives.

Every message says what was found, what is allowed, and what to type next.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_LISTED = 15


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
    """Say which names exist, the one most like the name that was typed first."""
    names = [str(a) for a in allowed]
    if not names:
        return "There are none."
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Available: {listing(names)}.{hint}"
