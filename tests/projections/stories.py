"""A few conversations to lay out as tables, what tables of them come to, and a log that grows meanwhile."""

from __future__ import annotations

from msgspec.structs import replace

from reenact.events.agent import ModelAnswered
from reenact.events.content import Cost, Usage
from reenact.events.log import MemoryLog, Stored
from reenact.projections.duck import DuckProjection
from reenact.projections.projection import Reader
from tests.histories import History, call
from tests.projections.logs import log_of

USAGE = Usage(input_tokens=1000, output_tokens=100)


def story(number: int = 1) -> History:
    history = History(at=1_750_000_000_000_000 + number * 60_000_000).send("Refund order 42.")
    history.answers("Let me.", call("refund", order=42, password="hunter2"), usage=USAGE).settles(output="Paid back.")
    history.fails("overloaded", retry_in_ms=100, usage=USAGE).answers("Done.", usage=USAGE)
    cost = Cost(amount=f"0.{number:02}", table="prices 1")
    history.events = [
        replace(each, data=replace(each.data, cost=cost)) if isinstance(each.data, ModelAnswered) else each
        for each in history.events
    ]
    return history


def stories(count: int = 5) -> MemoryLog:
    return log_of(*(story(number) for number in range(1, count + 1)))


def digest_of(log: Reader, batch_events: int = 10_000) -> str:
    with DuckProjection() as tables:
        tables.catch_up(log, batch_events=batch_events)
        return tables.digest()


class Growing:
    """A log of which only the first batches can be read yet."""

    def __init__(self, log: MemoryLog, batches: int = 0) -> None:
        self._log = log
        self.batches = batches

    @property
    def _end(self) -> int:
        stored = self._log.read_all(limit=self.batches)
        return stored[-1].position if stored else 0

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        return [each for each in self._log.read(stream, after=after, limit=limit) if each.position <= self._end]

    def read_all(self, *, after: int = 0, limit: int = 1000) -> list[Stored]:
        return [each for each in self._log.read_all(after=after, limit=limit) if each.position <= self._end]
