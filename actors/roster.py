"""Many names in order, of which one more costs no more when there are many. Pure."""

from __future__ import annotations

from collections.abc import Iterator


class Roster:
    """Names in the order in which they came, each once. It never changes: `plus` and `without` give another one.

    It is kept in parts, each larger than the one behind it, and one more name is joined with those behind that are no
    larger than it: a name is copied as often as the number of names has binary digits, and not once for each that
    follows. To look for one asks every part; to take one out copies its part.
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: tuple[dict[str, None], ...] = ()) -> None:
        self._parts = parts

    def plus(self, name: str) -> Roster:
        """With this name at the end; itself where it has it."""
        if name in self:
            return self
        parts = [*self._parts, {name: None}]
        while len(parts) > 1 and len(parts[-2]) <= len(parts[-1]):
            last = parts.pop()
            parts[-1] = parts[-1] | last
        return Roster(tuple(parts))

    def without(self, name: str) -> Roster:
        """Without this name; itself where it has not."""
        if name not in self:
            return self
        parts = ({each: None for each in part if each != name} if name in part else part for part in self._parts)
        return Roster(tuple(part for part in parts if part))

    def __contains__(self, name: object) -> bool:
        return any(name in part for part in self._parts)

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            yield from part

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Roster) else NotImplemented

    def __repr__(self) -> str:
        return f"Roster({list(self)})"
