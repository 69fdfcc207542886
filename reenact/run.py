"""A run: one job as its sender sees it. Iterate it for the events, await it for the result; both, in any order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any

from msgspec import Struct

from .actors.system import Reply
from .events.agent import ModelAnswered, ModelFailed, TurnStarted
from .events.content import Failure, Usage, add_usage, text_of
from .events.errors import ReenactError
from .events.message import BusEvent, Recorded
from .events.queue import Unread
from .events.session import (
    JobCancelled,
    JobFailed,
    JobQueued,
    JobStarted,
    JobSucceeded,
    JobTimedOut,
    JobWaiting,
)

UNREAD_MAX = 10_000
"""Signals kept for a reader that is slow. Beyond it the oldest are dropped, and it is told; events never are."""

_STATUS: dict[type, str] = {
    JobSucceeded: "succeeded",
    JobFailed: "failed",
    JobCancelled: "cancelled",
    JobTimedOut: "timed_out",
    JobWaiting: "waiting",
}


class Result(Struct, frozen=True, kw_only=True):
    """How a job ended, or what it waits for.

    status: succeeded, failed, cancelled, timed_out or waiting (a person must settle the call `waiting_for`).
    text: the answer's text; of an interrupted turn what was said by then. stop_reason: of the last answer.
    usage: summed over all model calls of the job. steps: how many there were.
    """

    job_id: str
    session_id: str
    status: str
    text: str = ""
    stop_reason: str | None = None
    usage: Usage = Usage()
    steps: int = 0
    failure: Failure | None = None
    waiting_for: str | None = None


class Run:
    """One accepted input. `job_id` is its id in every event, from the first to the result."""

    def __init__(self, job_id: str, session_id: str, now: Callable[[], int], ended: Callable[[Run], None]) -> None:
        self.job_id = job_id
        self.session_id = session_id
        self._now = now
        self._ended = ended
        self._accepted: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._readers: list[Unread] = []
        self._past: list[BusEvent] = []
        self._running = False
        self._waiting = False
        self._over = False
        self._text = ""
        self._stop_reason: str | None = None
        self._usage = Usage()
        self._steps = 0

    # -- for its sender --

    def __await__(self) -> Generator[Any, None, Result]:
        return self.result().__await__()

    async def result(self, timeout_s: float | None = None) -> Result:
        """How it ended. Raises what refused the input, and TimeoutError after `timeout_s`: the job goes on then."""
        await self.accepted()
        return await asyncio.wait_for(asyncio.shield(self._result), timeout_s)

    async def accepted(self) -> str:
        """The job's id, as soon as the input is in the log. Raises what refused it; nothing was written then."""
        reply = await asyncio.shield(self._accepted)
        if reply.error is not None:
            raise reply.error
        return self.job_id

    def __aiter__(self) -> AsyncIterator[BusEvent]:
        return self.events()

    async def events(self) -> AsyncIterator[BusEvent]:
        """The job's events and signals from its first to its last; one that joins late gets the stored ones first."""
        unread = Unread(limit=UNREAD_MAX, on_full="drop_oldest", keep=_stored, now=self._now)
        for past in self._past:
            unread.push(past)
        if self._over:
            unread.close()
        self._readers.append(unread)
        try:
            await self.accepted()
            while True:
                event = unread.take()
                if event is not None:
                    yield event
                elif unread.closed:
                    return
                else:
                    await unread.wait()
        finally:
            self._readers.remove(unread)

    # -- for the runtime --

    def answer(self, reply: Reply) -> None:
        """Whether the input was accepted."""
        if not self._accepted.done():
            self._accepted.set_result(reply)
        if reply.error is not None:
            self._ended(self)
            if not self._result.done():
                self._result.set_exception(reply.error)
                self._result.exception()  # who awaits it gets it from `accepted`
            self._close()

    def become(self, job_id: str, past: Sequence[Recorded]) -> None:
        """Take the place of the run of a job that was accepted before, given all events of its session."""
        self.job_id = job_id
        for recorded in past:
            self._see(recorded)

    def see(self, event: BusEvent) -> None:
        """An event or a signal of its session, in order."""
        if isinstance(event, Recorded):
            self._see(event)
        elif self._running:
            self._push(event)

    def _see(self, recorded: Recorded) -> None:
        data = recorded.data
        kind = type(data)
        if kind is JobQueued or kind is JobStarted:
            if data.job_id != self.job_id:  # type: ignore[attr-defined]
                return
            self._running = self._running or kind is JobStarted
        elif kind in _STATUS:
            if data.job_id != self.job_id:  # type: ignore[attr-defined]
                return
        elif not self._running and recorded.head.job != self.job_id:
            return
        self._past.append(recorded)
        self._over = False
        self._push(recorded)
        if kind is TurnStarted:
            self._text, self._stop_reason = "", None
        elif isinstance(data, ModelAnswered):
            self._text, self._stop_reason = text_of(data.parts), data.stop_reason
            self._steps += 1
            self._count(data.usage)
        elif isinstance(data, ModelFailed):
            self._count(data.usage)
            if data.retry_in_ms is None:
                self._text = text_of(data.partial)
        elif kind in _STATUS:
            self._end(data, _STATUS[kind])

    def _count(self, usage: Usage | None) -> None:
        if usage is not None:
            self._usage = add_usage(self._usage, usage) or self._usage

    def _end(self, data: Any, status: str) -> None:
        if self._waiting:
            self._result = asyncio.get_running_loop().create_future()
        self._waiting = status == "waiting"
        self._result.set_result(
            Result(
                job_id=self.job_id,
                session_id=self.session_id,
                status=status,
                text=self._text,
                stop_reason=self._stop_reason,
                usage=self._usage,
                steps=self._steps,
                failure=getattr(data, "failure", None),
                waiting_for=getattr(data, "tool", None) if self._waiting else None,
            )
        )
        if not self._waiting:
            self._running = False
            self._ended(self)
        self._close()

    def _push(self, event: BusEvent) -> None:
        for reader in self._readers:
            reader.push(event)

    def _close(self) -> None:
        self._over = True
        for reader in self._readers:
            reader.close()

    def fail(self, error: ReenactError) -> None:
        """The runtime closes: nobody will bring the end. What is owed stays owed in the log."""
        self.answer(Reply(error=error))


def _stored(event: BusEvent) -> bool:
    return event.position is not None
