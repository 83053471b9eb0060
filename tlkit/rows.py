"""Rows: tables that packages add to: heads, test-time policies, presets, parts of reports.

In: tlkit's own rows and the name of an entry point group. Out: a mapping that holds those, and
behind them what entry points of the group name: records of the same kind.
As with backbones, a package is imported when its row is chosen, one that raises is named, and a
name that two have is qualified: DISTRIBUTION:NAME. A plain name that tlkit has is always tlkit's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from tlkit.errors import PluginError
from tlkit.plugins import Found, find, must_load, only

Row = TypeVar("Row")


class Rows(Mapping[str, Row], Generic[Row]):
    """A table by name. Its own rows come first, in their order; then installed ones."""

    def __init__(self, kind: type[Row], group: str, own: Mapping[str, Row]) -> None:
        self.kind = kind
        self.group = group
        self.own = own

    def __getitem__(self, name: str) -> Row:
        """Raises `KeyError`, and `PluginError` for a broken plugin and for a name of two."""
        found = self.found(name)
        return self.own[name] if found is None else must_load(found, self.kind)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.own or bool(self._matches(name)))

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        installed = self.installed()
        names = [one.name for one in installed]
        for one in installed:
            plain = one.name not in self.own and names.count(one.name) == 1
            yield one.name if plain else one.qualified

    def __len__(self) -> int:
        return len(self.own) + len(self.installed())

    def installed(self) -> tuple[Found, ...]:
        """Entry points of the group, not loaded."""
        return find((self.group,))

    def found(self, name: str) -> Found | None:
        """The entry point behind a name; None for tlkit's own and for no name at all.

        Raises `PluginError` for a name that two distributions bring.
        """
        matches = [] if name in self.own else self._matches(name)
        return only(matches, name) if matches else None

    def full_name(self, name: str) -> str:
        """The name by which a file can ask for the row on another machine: with whose it is."""
        found = self.found(name)
        return name if found is None else found.qualified

    def _matches(self, name: str) -> list[Found]:
        return [one for one in self.installed() if name in (one.name, one.qualified)]


def failed(word: str, name: str, found: str, expected: str) -> PluginError:
    """The error for a row whose code does not do what rows of its table do."""
    return PluginError(
        f"the {word} '{name}' breaks the contract",
        found=found,
        expected=expected,
        do="tell its author; `tlkit.testing.check_row` finds the cause",
    )
