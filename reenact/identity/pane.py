"""The part of a log that belongs to one scope, to read; and how the streams are named that a scope has in it.

What belongs to another scope is answered as what is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..catalog.unreadable import passed_over
from ..events.log import Keyed, Stored

DEFAULT = "default"
"""The scope of programs that have one tenant only."""

BETWEEN = "\x1f"
"""Stands between two names in one, a scope and the id of its container: no name holds it, for it cannot be printed."""


class Pane:
    """A reading half of a log, see `events.log.Log`, without anything of other scopes."""

    def __init__(self, log: Any, scope: str) -> None:
        self._log = log
        self.scope = scope

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        """The batches of a stream above a version; none where it is another scope's."""
        return [stored for stored in self._log.read(stream, after=after, limit=limit) if self._is_mine(stored)]

    def read_all(self, *, after: int = 0, limit: int = 1000) -> list[Stored]:
        """The batches above a position. Empty: there are no more of this scope."""
        while page := self._log.read_all(after=after, limit=limit):
            mine = [stored for stored in page if self._is_mine(stored)]
            if mine:
                return mine
            after = page[-1].position + len(page[-1].batch.rows) - 1
        return []

    def streams(self, prefix: str = "", *, owing: bool = False) -> list[str]:
        """The streams of this scope, oldest first."""
        found = []
        for stream in self._log.streams(prefix, owing=owing):
            with passed_over(stream):
                if self.has(stream):
                    found.append(stream)
        return found

    def has(self, stream: str) -> bool:
        """Whether a stream belongs to this scope."""
        first: Sequence[Stored] = self._log.read(stream, limit=1)
        return bool(first) and self._is_mine(first[0])

    def head(self, stream: str) -> int:
        """The version of a stream, 0 where there is none."""
        head: int = self._log.head(stream) if self.has(stream) else 0
        return head

    def keyed(self, scope: str, key: str) -> Keyed | None:
        """What a key of this scope stands for."""
        found: Keyed | None = self._log.keyed(scope, key) if scope == self.scope else None
        return found

    def close(self) -> None:
        """The log is its owner's to close."""

    def _is_mine(self, stored: Stored) -> bool:
        return stored.batch.head.context.scope == self.scope


def container_stream(scope: str, container_id: str) -> str:
    """The stream of a container: two scopes may each have one of the same id."""
    return f"container-{container_id}" if scope == DEFAULT else f"container-{scope}{BETWEEN}{container_id}"


def scope_in(stream: str) -> str | None:
    """The scope that the name of a stream says: of a ledger, a container or a cooldown. None for any other stream."""
    if stream.startswith(("ledger-", "cooldown-")):
        return stream.partition("-")[2]
    if stream.startswith("container-"):
        scope, between, _ = stream.removeprefix("container-").rpartition(BETWEEN)
        return scope if between else DEFAULT
    return None


def own_name(stream: str) -> str:
    """What a caller chose of the name of a container's stream: its id."""
    return stream.removeprefix("container-").rpartition(BETWEEN)[2]


def container_ids(log: Any, scope: str) -> list[str]:
    """The ids of a scope's containers, oldest first."""
    prefix = "container-" if scope == DEFAULT else f"container-{scope}{BETWEEN}"
    ids = [stream.removeprefix(prefix) for stream in log.streams(prefix)]
    return [container_id for container_id in ids if BETWEEN not in container_id]


__all__ = ["BETWEEN", "DEFAULT", "Pane", "container_ids", "container_stream", "own_name"]
