"""The decorator of all compiled functions: numba's, with a cache on disk that may fail without stopping a run.

numba keeps compiled code beside the source, or in a folder of the user, and gives up where it can write to neither or
cannot read what it finds. Here code is then compiled for the process alone, and a file that cannot be read is replaced.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from numba import njit
from numba.core.caching import FunctionCache

if TYPE_CHECKING:
    from collections.abc import Callable

# Stamp of each file that holds compiled functions, in the order in which they are imported.
_stamps: dict[str, Any] = {}


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function when it is first called, without the GIL, or load what was compiled before."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(nogil=True, **options)(function)
        with suppress(RuntimeError, OSError):  # no folder to write to
            dispatcher._cache = _Cache(function)
        return dispatcher

    return decorate


class _Cache(FunctionCache):
    """numba's cache of one function, whose troubles end here."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        # Compiled code holds the code of what it calls, also from the files imported before, so it is as old as they are.
        _stamps[function.__code__.co_filename] = self._cache_file._source_stamp
        self._cache_file._source_stamp = tuple(_stamps.values())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Find compiled code, None where there is none; what cannot be read is forgotten, to be compiled again."""
        try:
            found = super().load_overload(sig, target_context)
            # Two processes that write at once may leave an index that names the code of other types.
            if found is None or tuple(found.signature.args) == tuple(getattr(sig, "args", sig)):
                return found
        except Exception:  # noqa: BLE001 - a broken file raises what it likes
            pass
        self._attempt(self.flush)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep compiled code, if that is possible."""
        self._attempt(super().save_overload, sig, data)

    def _attempt(self, step: Callable[..., None], *arguments: Any) -> None:
        """Write to the folder, or leave it alone from now on."""
        try:
            step(*arguments)
        except Exception:  # noqa: BLE001 - no disk, no room, no rights: the code runs all the same
            self.disable()
