"""Has done what is owed: takes effects off the mailboxes, has each performed once, brings the end back as a command.

An effect enters the table before it is performed and leaves it when its end is committed, that is, when it is no longer
owed. It is begun with the batch that holds its start. One whose start was stored before was begun by an earlier owner,
if at all: it is in doubt, its stream is asked to recover it, and says what follows. Runs on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from msgspec import Struct

from ..events.action import ExpireAction, ExpireActionAt
from ..events.agent import (
    CallModel,
    CancelEffect,
    LaunchTool,
    ModelCalled,
    ProbeTool,
    RecoverEffect,
    RunTool,
    ToolStarted,
    WakeAt,
)
from ..events.errors import ReenactError
from ..events.failpoint import failpoint
from ..events.ledger import CountUsage, RecallAllotments
from ..events.message import Command, Effect, Recorded
from ..events.purse import RequestAllotment
from ..events.session import ExpireJob
from .clock import Clock

_log = logging.getLogger("reenact.dispatch")

Work = CallModel | RunTool | ProbeTool | LaunchTool | RequestAllotment | RecallAllotments | CountUsage
"""Effects that reach outside."""

CLOSE_S = 1.5
"""How long `close` waits for what it stopped to end."""


class Unstorable(ReenactError):
    """What came back cannot be stored: it holds text that is no Unicode, or numbers of more than 64 bits."""

    code = "bad_response"


class Origin(Struct, frozen=True):
    """On whose behalf an effect is owed, and which event owed it: what its answer is caused by."""

    scope: str
    principal: str
    cause: str | None
    correlation: str | None
    trace: str | None


class Performer(Protocol):
    """Does the work. Both give the command that tells the stream how it ended."""

    async def perform(self, stream: str, effect: Work) -> Command:
        """Do it once. When the task is cancelled: stop the work, and still give the command, with what there is."""
        ...

    def gone(self, effect: CancelEffect, *, begun: bool) -> Command:
        """The command for an effect that is to be stopped, but nobody is at it. begun: its runner died; else it never
        was begun."""
        ...

    def failed(self, effect: Work, error: BaseException) -> Command:
        """The command for an effect whose performing raised, or whose end cannot be stored."""
        ...


Tell = Callable[[str, Command, Origin | None, Callable[[], Command] | None], None]
"""Puts a command into a stream's mailbox: (stream, command, origin, what gives the one to tell where it cannot be
stored)."""


class _Flight:
    """One effect under way. task: None when there is nothing to stop. begun: the task has taken its first step."""

    __slots__ = ("begun", "effect", "task", "timer")

    def __init__(self, effect: Effect) -> None:
        self.effect = effect
        self.begun = False
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Dispatch:
    """The table of effects under way, by stream and by (id, attempt)."""

    def __init__(self, performer: Performer, tell: Tell, *, clock: Clock) -> None:
        self._performer = performer
        self._tell = tell
        self._clock = clock
        self._flights: dict[str, dict[tuple[str, int], _Flight]] = {}
        self._closed = False

    @property
    def under_way(self) -> int:
        """How many effects are being performed or waited for."""
        return sum(map(len, self._flights.values()))

    def is_at(self, stream: str) -> bool:
        """Whether it has taken over what this stream owes."""
        return stream in self._flights

    def owed(self, stream: str, effects: Sequence[Effect], events: Sequence[Recorded]) -> None:
        """Take over what a stream owes now: begin what is new, let go of what is settled, stop what must stop."""
        if self._closed:
            return
        flights = self._flights.get(stream)
        if not effects:
            if flights:
                del self._flights[stream]
                for flight in flights.values():
                    _stop(flight)
            return
        if flights is None:
            flights = self._flights[stream] = {}
        wanted = {_key(effect) for effect in effects}
        wanted.update((effect.target, effect.attempt) for effect in effects if isinstance(effect, CancelEffect))
        for key in [key for key in flights if key not in wanted and not _goes_on(flights[key])]:
            _stop(flights.pop(key))
        for effect in effects:
            key = _key(effect)
            if key not in flights:
                flights[key] = self._begin(stream, effect, flights, events)

    def _begin(
        self,
        stream: str,
        effect: Effect,
        flights: dict[tuple[str, int], _Flight],
        events: Sequence[Recorded],
    ) -> _Flight:
        """events: of the batch after which it is owed, none for what an earlier owner left."""
        flight, origin = _Flight(effect), _origin(effect, events)
        if isinstance(effect, CallModel | RunTool) and not _starts(effect, events):
            failpoint("effect.recover")
            self._tell(stream, RecoverEffect(effect=effect.id, attempt=effect.attempt), origin, None)
        elif isinstance(effect, Work):
            flight.task = asyncio.get_running_loop().create_task(self._perform(stream, effect, origin, flight))
        elif isinstance(effect, CancelEffect):
            self._cancel(stream, effect, flights, origin)
        elif isinstance(effect, WakeAt):
            command: Command = ExpireJob(job_id=effect.job_id)
            flight.timer = self._later(effect.at - self._since(events, effect.since), stream, command, origin)
        elif isinstance(effect, ExpireActionAt):
            wait = effect.at - self._since(events, effect.asked_at)
            flight.timer = self._later(wait, stream, ExpireAction(action=effect.action), origin)
        return flight

    def _since(self, events: Sequence[Recorded], began: int) -> int:
        """From when a time is measured: the batch that owed it. The clock may have been set to another year since; one
        that was set back gives no more time than there was when it `began` to run."""
        return max(began, events[-1].head.at if events else self._clock.now())

    def _later(self, wait: int, stream: str, command: Command, origin: Origin | None) -> asyncio.TimerHandle:
        """Tell the stream in so many microseconds."""
        delay_s = max(0.0, wait / 1_000_000)
        return asyncio.get_running_loop().call_later(delay_s, self._tell, stream, command, origin, None)

    def _cancel(
        self, stream: str, effect: CancelEffect, flights: dict[tuple[str, int], _Flight], origin: Origin | None
    ) -> None:
        """Stop the target. One that runs tells its own end; one that nobody is at, or that never began, is told of."""
        target = flights.get((effect.target, effect.attempt))
        if target is not None and target.task is not None:
            target.task.cancel()
            if target.begun:
                return
            self._tell(stream, self._performer.gone(effect, begun=False), origin, None)
        else:
            self._tell(stream, self._performer.gone(effect, begun=True), origin, None)

    async def _perform(self, stream: str, effect: Work, origin: Origin | None, flight: _Flight) -> None:
        flight.begun = True
        try:
            failpoint("effect.begin")
            command = await self._performer.perform(stream, effect)
            failpoint("effect.performed")
        except BaseException as error:
            if self._closed or isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            if not isinstance(error, asyncio.CancelledError):
                _log.exception("%s of %s could not be performed", effect.id, stream)
            command = self._performer.failed(effect, error)
        if not self._closed:
            self._tell(stream, command, origin, partial(self._performer.failed, effect, _UNSTORABLE))
            failpoint("effect.told")

    async def performed(self, stream: str, which: Callable[[Effect], bool]) -> None:
        """Wait until what is being performed for a stream now was performed, however it ends. which: of its effects."""
        flights = self._flights.get(stream, {}).values()
        tasks = [flight.task for flight in flights if flight.task is not None and which(flight.effect)]
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Stop everything under way and wait until it has stopped. Nothing is told any more: it stays owed."""
        self._closed = True
        tasks = []
        for flights in self._flights.values():
            for flight in flights.values():
                if flight.task is not None and not flight.task.done():
                    tasks.append(flight.task)
                _stop(flight)
        self._flights.clear()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)


_UNSTORABLE = Unstorable()


def _key(effect: Effect) -> tuple[str, int]:
    return effect.id, getattr(effect, "attempt", 0)


def _stop(flight: _Flight) -> None:
    if flight.task is not None and not flight.task.done():
        flight.task.cancel()
    if flight.timer is not None:
        flight.timer.cancel()


def _goes_on(flight: _Flight) -> bool:
    """Whether it is not stopped for what is owed in its place. Limits that change again call back more, never less:
    whoever changed them before waits until those were asked that this one asks."""
    return isinstance(flight.effect, RecallAllotments) and flight.task is not None and not flight.task.done()


def _starts(effect: CallModel | RunTool, events: Sequence[Recorded]) -> bool:
    """Whether the start of this attempt is among the events."""
    for recorded in events:
        data = recorded.data
        if isinstance(data, ToolStarted):
            started = data.tool
        elif isinstance(data, ModelCalled):
            started = data.call
        else:
            continue
        if started == effect.id and data.attempt == effect.attempt:
            return True
    return False


def _origin(effect: Effect, events: Sequence[Recorded]) -> Origin | None:
    """The event of this batch that owed the effect, else the batch's last."""
    if not events:
        return None
    owed = effect.id
    for source in reversed(events):
        data = source.data
        if getattr(data, "call", None) == owed or getattr(data, "tool", None) == owed:
            break
    else:
        source = events[-1]
    head = source.head
    return Origin(head.context.scope, head.context.principal, source.id, head.correlation, head.trace)
