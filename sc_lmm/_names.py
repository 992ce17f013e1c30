"""What columns, random terms, comparisons and stored tables are called: one grammar, so that no two things share a name.

In a formula a column is written as it is if its name is a plain word, and in backticks otherwise, as in R:
``(1 | `donor id`)``. In a file the parts of a name that some format or file system refuses become "_", and a name that
is taken, also where case does not count, gets one more "_".
"""

from __future__ import annotations

import re
from keyword import iskeyword
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

INTERCEPT, RESIDUAL = "Intercept", "residual"  # what the package calls things of its own
_PLAIN = re.compile(r"[^\W\d][\w.]*")
_IN_BACKTICKS = re.compile(r"\s*`([^`]+)`\s*")
# Folders of h5ad and zarr end at slashes, Windows refuses the others, zarr keeps what begins with two underscores.
_NO_KEY = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]|^\.|^__|^\s|[\s.]$')
_LONGEST = 200  # bytes: a zarr store makes a file name of it, and 255 is the most there


def quoted(name: str, *, in_code: bool = False) -> str:
    """Write the name of a column as a formula does, so that it reads as that column and as nothing else."""
    plain = name.isidentifier() and not iskeyword(name) if in_code else _PLAIN.fullmatch(name) and name != INTERCEPT
    return name if plain else f"`{name}`"


def unquoted(text: str) -> str:
    """Name that a text stands for: what its backticks hold, if all of it is in them."""
    inside = _IN_BACKTICKS.fullmatch(text)
    return inside.group(1) if inside else text.strip()


def random_intercept(group: str) -> str:
    """Write the random intercept of a column as a formula does."""
    return f"(1 | {quoted(group)})"


def sd_columns(groups: Iterable[str]) -> list[str]:
    """Columns of the standard deviations of random intercepts, none of them that of the residual."""
    return distinct([_NO_KEY.sub("_", _cut(f"sd_{group}")) for group in groups], taken=[f"sd_{RESIDUAL}"])


def random_columns(parts: Iterable[tuple[str, ...]]) -> list[str]:
    """Columns of what there is to say of random terms, each the kind (sd or cor), grouping and slope columns."""
    names = [_NO_KEY.sub("_", _cut("_".join(part))) for part in parts]
    return distinct(names, taken=[f"sd_{RESIDUAL}"])


def table_keys(
    key: str, comparisons: Iterable[str], taken: Collection[str], *, first_in_key: bool = True
) -> dict[str, str]:
    """Comparison -> its place in ``varm``: the first in `key`, unless it is one of several groups, others in what is not `taken`."""
    names = list(comparisons)
    first, rest = (names[:1], names[1:]) if first_in_key else ([], names)
    safe = [re.sub(r"[^0-9A-Za-z_.+-]|\.$", "_", _cut(f"{key}_{name}")) for name in rest]
    return {**dict.fromkeys(first, key), **dict(zip(rest, distinct(safe, taken=[key, *taken]), strict=True))}


def record_fields(comparisons: Iterable[str]) -> dict[str, str]:
    """Comparison -> its field in scanpy's record arrays. zarr v2 cannot hold a colon there, nor numpy an empty name."""
    names = list(comparisons)
    fields = [name.replace(":", ".") or "(empty)" for name in names]
    return dict(zip(names, distinct(fields, taken=(), fold=False), strict=True))


def distinct(names: Iterable[str], taken: Iterable[str], *, fold: bool = True) -> list[str]:
    """Keep names apart from those taken and from each other by appending "_", by default also where case is ignored."""
    used = {name.casefold() if fold else name for name in taken}
    result = []
    for name in names:
        free = name
        while (free.casefold() if fold else free) in used:
            free += "_"
        used.add(free.casefold() if fold else free)
        result.append(free)
    return result


def check_key(key: object) -> None:
    """Refuse a key that some file could not hold."""
    if not isinstance(key, str) or not key or _NO_KEY.search(key) or _cut(key) != key:
        msg = (
            f"key_added={key!r} cannot be stored everywhere: files make a folder of it. Use letters, digits, '_' and "
            f"'-', not too many of them, for example key_added=\"lmm_de\"."
        )
        raise ValueError(msg)


def _cut(text: str) -> str:
    return text.encode()[:_LONGEST].decode(errors="ignore")
