"""What was made for each group of cells: a dictionary that knows why a group has nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Generic, TypeVar

from ._errors import alternatives

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class ByGroup(Mapping[str, T], Generic[T]):
    """A dictionary from groups of cells to what was made for each."""

    groupby: str  # column of obs
    found: Mapping[str, T]
    groups: pd.DataFrame  # row per group, also of those without anything, with the column "reason"

    def __getitem__(self, name: str) -> T:
        """Give what belongs to a group, or say why there is nothing."""
        if name in self.found:
            return self.found[name]
        reasons = {str(group): str(reason) for group, reason in self.groups["reason"].items()}
        why = f"was left out: {reasons[name]}" if name in reasons else "does not exist."
        msg = f"{self.groupby} {name!r} {why} {alternatives(str(name), list(self.found))}"
        raise KeyError(msg)

    def __iter__(self) -> Iterator[str]:
        """Names of the groups that have something."""
        return iter(self.found)

    def __len__(self) -> int:
        """Count the groups that have something."""
        return len(self.found)

    def __repr__(self) -> str:
        """Say what there is, a row per group."""
        return f"{self._title()}\n{self.groups.to_string()}"

    def _repr_html_(self) -> str:
        return f"<b>{escape(self._title())}</b>{self.groups.to_html()}"

    def _title(self) -> str:
        return f"{len(self)} of {len(self.groups)} groups of {self.groupby}"
