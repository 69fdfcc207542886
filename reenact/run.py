"""A run: one job as its sender sees it. Iterate it for the events, await it for the result; both, in any order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from msgspec import Struct

from .actors.system import Reply
from .events.agent import ModelAnswered, ModelFailed, TurnStarted
from .events.content import Failure, Usage, add_usage, text_of
from .events.errors import ReenactError
from .events.message import BusEvent, Recorded
from .events.model import Credentials
from .events.queue import Unread
from .events.session import JobCancelled, JobFailed, JobSucceeded, JobTimedOut
from .given import check_wait
from .people.halt import Halt

T = TypeVar("T")

_log = logging.getLogger("reenact")

UNREAD_MAX = 10_000
"""Signals kept for a reader that is slow. Beyond it the oldest are dropped, and it is told; events never are."""

STATUS: dict[type, str] = {
    JobSucceeded: "succeeded",
    JobFailed: "failed",
    JobCancelled: "cancelled",
    JobTimedOut: "timed_out",
}
"""The events that end a job, and how it ended."""

_TURNS = {TurnStarted, ModelAnswered, ModelFailed, *STATUS}


class _Reader:
    """In the place of an approval handler: whoever reads the run's events answers its approvals."""

    def __call__(self, request: object) -> bool:
        return False  # nobody asks it


READER = _Reader()


class Brought:
    """An approval handler, and the context of whoever brought it: what it says, it says there and in their name."""

    __slots__ = ("_context", "handler")

    def __init__(self, handler: Any) -> None:
        self.handler = handler
        self._context = copy_context()

    def task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of its own, in a copy of that context."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())


class Result(Struct, frozen=True, kw_only=True):
    """How a job ended, or what it waits for.

    status: succeeded, failed, cancelled, timed_out, waiting or queued. waiting: a person must answer the question
    `action` (`Runtime.resolve_action`), or, where that is None, say what became of the call `waiting_for`
    (`Runtime.resolve`), and until they have, nothing of the job goes on: what it had begun beside that has ended.
    queued: so it is with an earlier job of the session, and this one comes when that is over.
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
    action: str | None = None


class _Awaited(Generic[T]):
    """Comes once, and many may wait for it, each on a future of its own: who gives up takes nothing from the others."""

    __slots__ = ("_error", "_value", "_waiting", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def come(self, value: T | None = None, error: Exception | None = None) -> None:
        self.done, self._value, self._error = True, value, error
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> T:
        if not self.done:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                raise
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class Run:
    """One accepted input. `job_id` is its id in every event, from the first to the result.

    credentials: those that came with it, by provider; they are here and nowhere else, and gone when it is over.
    """

    def __init__(
        self,
        job_id: str,
        session_id: str,
        now: Callable[[], int],
        ended: Callable[[Run], None],
        *,
        handler: Any = None,
    ) -> None:
        """handler: decides its approvals, an `handlers.ApprovalHandler` as `Brought`; or `READER`."""
        self.job_id = job_id
        self.session_id = session_id
        self.handler = handler
        self._now = now
        self._ended = ended
        self._accepted: _Awaited[None] = _Awaited()
        self._result: _Awaited[Result] = _Awaited()
        self.credentials: dict[str, tuple[Credentials, ...]] = {}
        self._readers: list[Unread] = []
        self._past: list[BusEvent] = []
        self._version = 0
        self._error: Exception | None = None
        self._halted = False
        self._over = False
        self._text = ""
        self._stop_reason: str | None = None
        self._usage = Usage()
        self._steps = 0

    # -- for its sender --

    def __await__(self) -> Generator[Any, None, Result]:
        return self.result().__await__()

    async def result(self, timeout_s: float | None = None) -> Result:
        """How it ended. Raises what refused the input, and TimeoutError after `timeout_s`: the job goes on then. Raises
        BadInput for a `timeout_s` that is no time to wait."""
        if timeout_s is None:
            return await self._ending()
        check_wait(timeout_s, "timeout_s")
        return await asyncio.wait_for(self._ending(), timeout_s)

    async def _ending(self) -> Result:
        # Of a job that was accepted before, all its past is told first: what it once waited for may be over.
        if not self._accepted.done:
            await self._accepted.wait()
        return await self._result.wait()

    async def accepted(self) -> str:
        """The job's id, as soon as the input is in the log. Raises what refused it; nothing was written then."""
        await self._accepted.wait()
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
                    if self._error is not None:
                        raise self._error
                    return
                else:
                    await unread.wait()
        finally:
            self._readers.remove(unread)

    # -- for the runtime --

    def answer(self, reply: Reply) -> None:
        """Whether the input was accepted."""
        if not self._accepted.done:
            self._accepted.come(error=reply.error)
        if reply.error is not None:
            self._ended(self)
            if self._halted:
                return
            if not self._result.done:
                self._result.come(error=reply.error)
            self._close()

    @property
    def over(self) -> bool:
        """Whether there is a result, for now or for good."""
        return self._result.done

    def become(self, job_id: str, session_id: str) -> None:
        """Take the place of the run of a job that was accepted before; its past is told next."""
        self.job_id = job_id
        self.session_id = session_id
        self.halt(None)

    def see(self, event: BusEvent) -> None:
        """An event or a signal of its job, in order."""
        if isinstance(event, Recorded):
            if event.version <= self._version:
                return
            self._version = event.version
            self._past.append(event)
            self._over = False
        for reader in self._readers:
            reader.push(event)
        if type(event.data) in _TURNS:
            self._follow(event.data)

    def _follow(self, data: Any) -> None:
        """An event that says something of how the job will end."""
        kind = type(data)
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
        elif kind in STATUS:
            self._end(STATUS[kind], failure=getattr(data, "failure", None))

    def _count(self, usage: Usage | None) -> None:
        if usage is not None:
            self._usage = add_usage(self._usage, usage) or self._usage

    def halt(self, halt: Halt | None) -> None:
        """Its session waits for a person, and so does whoever awaits it or reads it; None: it goes on, and there is no
        result again."""
        if self._result.done and not self._halted:
            return
        if self._halted:
            self._halted, self._result = False, _Awaited()
        if halt is not None:
            status = "waiting" if halt.job_id == self.job_id else "queued"
            action = None if halt.action is None else f"{self.session_id}:{halt.action}"
            self._come(status, waiting_for=halt.call, action=action)
            self._halted = True

    def _end(self, status: str, *, failure: Failure | None) -> None:
        self.halt(None)
        if not self._result.done:
            self._come(status, failure=failure)
            self._ended(self)

    def _come(self, status: str, **more: Any) -> None:
        self._result.come(
            Result(
                job_id=self.job_id,
                session_id=self.session_id,
                status=status,
                text=self._text,
                stop_reason=self._stop_reason,
                usage=self._usage,
                steps=self._steps,
                **more,
            )
        )
        self._close()

    def _close(self) -> None:
        self._over = True
        for reader in self._readers:
            reader.close()

    def leave(self) -> None:
        """Whoever reads its events answers nothing any more: its questions wait for a person."""
        if self.handler is READER:
            self.handler = None

    def on_end(self, told: Callable[[], object]) -> None:
        """Call `told` too when it is over, as whoever asks for that: a tool stays a tool. What it raises is logged."""
        before, context = self._ended, copy_context()

        def ended(run: Run) -> None:
            before(run)
            try:
                context.run(told)
            except (Exception, asyncio.CancelledError):  # the result of a task that was cancelled raises the latter
                _log.exception("what was to be called at the end of %s raised", self.job_id)

        self._ended = ended

    def fail(self, error: ReenactError) -> None:
        """Nobody will bring the end: whoever waits is told why. What is owed stays owed in the log."""
        self._error = error
        self.answer(Reply(error=error))


def _stored(event: BusEvent) -> bool:
    return event.position is not None
