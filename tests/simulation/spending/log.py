"""The log of a world: a dict of states, and every batch in its order. It is what a kill leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reenact.actors.book import State
from reenact.actors.cell import noun_of
from reenact.actors.ledger import LEDGER
from reenact.events.log import Batch, Stored
from reenact.events.message import Head, Recorded

SCOPE = "acme"
LEDGER_STREAM = f"ledger-{SCOPE}"


class Log:
    """newest: the last event of each stream. epoch: how manieth process writes."""

    def __init__(self) -> None:
        self.states: dict[str, tuple[Any, ...]] = {LEDGER_STREAM: LEDGER.initial}
        self.versions: dict[str, int] = {}
        self.newest: dict[str, Recorded] = {}
        self.stored: list[Stored] = []
        self.position = 0
        self.epoch = 1
        self.commits = 0

    def append(self, stream: str, decision: Any, head: Head) -> list[Recorded]:
        """Store what was decided."""
        version = self.versions.get(stream, 0)
        events = []
        for part, event in enumerate(decision.events):
            self.position += 1
            events.append(Recorded(self.position, stream, version + part + 1, part, self.epoch, event, head))
        self.states[stream], self.versions[stream] = decision.states, version + len(events)
        self.newest[stream] = events[-1]
        self.stored.append(Stored(events[0].position, self.epoch, Batch(stream, version, head, decision.rows)))
        self.commits += 1
        return events

    def states_of(self, stream: str) -> tuple[Any, ...]:
        return self.states.get(stream, noun_of(stream).initial)

    @property
    def ledger(self) -> State:
        state: State = self.states[LEDGER_STREAM][0]
        return state

    @property
    def sessions(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        return ((stream, states) for stream, states in self.states.items() if stream.startswith("session-"))

    # -- read as any log is --

    def read(self, stream: str, *, after: int = 0) -> list[Stored]:
        return [stored for stored in self.stored if stored.batch.stream == stream and stored.batch.last > after]

    def read_all(self, *, after: int, limit: int) -> list[Stored]:
        return [stored for stored in self.stored if stored.position > after][:limit]
