"""The shape of a projection, and how one is brought up to the log. Imports `events`; knows no view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..events.codec import unpack
from ..events.log import Stored
from ..events.message import Recorded

PAGE = 1000
"""Batches read at a time: what a reader holds in memory, and how long it may keep a writer waiting."""


class Folds(Protocol):
    """What events make: a projection, or the view of one session. It can be thrown away at any time and folded again:
    the same events, the same view."""

    def apply(self, recorded: Recorded) -> object:
        """Take the next event, in the order of the log, each once. Passes over what it does not know; never raises."""
        ...


def session_of(recorded: Recorded) -> str:
    """The session that an event is of: as its context says, else as its stream is called."""
    return recorded.session_id or recorded.stream.removeprefix("session-")


class Reader(Protocol):
    """The reading half of `events.log.Log`."""

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> Sequence[Stored]: ...
    def read_all(self, *, after: int = 0, limit: int = 1000) -> Sequence[Stored]: ...


def catch_up(log: Reader, projection: Folds, after: int = 0, *, page: int = PAGE) -> int:
    """Apply everything behind position `after`, oldest first, page by page; the position to go on from.

    `after` is 0 or what an earlier call gave back: the end of a batch. What is appended meanwhile is taken along.
    Raises what the log raises, and `Corrupt` for bytes that are no event.
    """
    while stored := log.read_all(after=after, limit=page):
        for batch in stored:
            for recorded in unpack(batch):
                projection.apply(recorded)
        after = stored[-1].position + len(stored[-1].batch.rows) - 1
    return after


def catch_up_stream(log: Reader, stream: str, view: Folds, after: int = 0, *, page: int = PAGE) -> int:
    """As `catch_up`, for one stream and its versions: apply what comes behind version `after`; the version reached."""
    while stored := log.read(stream, after=after, limit=page):
        for batch in stored:
            for recorded in unpack(batch):
                if recorded.version > after:
                    view.apply(recorded)
        after = stored[-1].batch.last
    return after
