"""What was committed, told: to the bus, to who hears all, to dispatch, to the runs of a session and to whoever asked.

A session that is awake is at hand for it, and its signals go the same way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..actors import decider
from ..actors.cell import noun_of
from ..actors.clock import Clock
from ..actors.dispatch import Dispatch
from ..actors.system import Committed, Peek, Reply
from ..events import codec
from ..events.action import ActionEnded, ActionRequired
from ..events.bus import SystemBus
from ..events.errors import KeyReused, ReenactError
from ..events.failpoint import failpoint
from ..events.log import Keyed, Log
from ..events.message import BusEvent, Effect, Recorded, Signal, live
from ..events.session import JobQueued
from ..people.halt import halt_of
from ..run import Run
from ..secrets.vault import Vault
from ..secrets.veil import Veil
from .live import LiveSession
from .runs import AllRuns, Runs

_log = logging.getLogger("reenact")


class Telling:
    """Tells on the event loop, in the order of the log; what is owed goes to `dispatch`, set before the first of it.

    hear(recorded): told of every event after the bus was, before whoever asked. left: streams whose debts an earlier
    owner left, that nobody took up. in_hand: questions, as `<session>:<action>`, that a program is about to answer.
    awaited: those whose answer the call that put them waits for, with how often.
    armed: False: nothing that is owed to the world is done.
    """

    dispatch: Dispatch

    def __init__(
        self,
        *,
        bus: SystemBus,
        log: Callable[[], Log],
        clock: Clock,
        vault: Vault,
        hear: Callable[[Recorded], None],
        runs: AllRuns,
    ) -> None:
        self._bus = bus
        self._log = log
        self._clock = clock
        self._vault = vault
        self._hear = hear
        self._runs = runs
        self.left: set[str] = set()
        self.in_hand: set[str] = set()
        self.awaited: Counter[str] = Counter()
        self._live: dict[str, LiveSession] = {}
        self.armed = True

    def told(self, group: list[Committed]) -> None:
        """Tell what one commit brought: the events, what is owed, how the sessions stand, then whoever asked.

        It is stored, so all of it is told: what fails for one stream is logged, and stays with that stream.
        """
        failpoint("tell.begin")
        for committed in group:
            if committed.past:
                try:
                    self._session_of(committed.stream, committed.past)
                except Exception:
                    _untold(committed.stream, "what it is kept by here")
            if committed.events:
                self._tell_events(committed.events)
                failpoint("tell.emitted")
            if committed.events or committed.owed:
                if self.armed:
                    try:
                        self.dispatch.owed(committed.stream, committed.owed, committed.events)
                    except Exception:
                        _untold(committed.stream, "whoever does what it owes")
                try:
                    self._stands(committed)
                except Exception:
                    _untold(committed.stream, "whoever waits for its jobs")
        failpoint("tell.owed")
        for committed in group:
            if committed.told is not None:
                try:
                    committed.told(committed.reply)
                except asyncio.InvalidStateError:
                    _log.debug("whoever asked %s has gone", committed.stream)
                except Exception:
                    _untold(committed.stream, "whoever asked")
        failpoint("tell.replied")

    def _stands(self, committed: Committed) -> None:
        """Tell the runs of a session whether it waits for a person now."""
        runs = self._runs.get(committed.stream.removeprefix("session-"))
        if runs is not None:
            job = committed.events[0].head.job if committed.events else None
            self._stand(committed.stream, runs, committed.reply.states, committed.owed, job)

    async def look(self, session_id: str, job_id: str | None = None) -> None:
        """Tell the runs of a session, or of one job, how it stands, where no event has told them. Raises what keeps it
        from being read."""
        stream = f"session-{session_id}"
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def told(reply: Reply) -> None:
            """In its place among the events: a moment later it may be otherwise."""
            runs = self._runs.get(session_id)
            try:
                if runs is not None and reply.error is None:
                    self._stand(stream, runs, reply.states, self._owing(stream, reply.states), job_id)
            finally:
                answer.set_result(reply)

        self._bus.tell(stream, Peek(told, scope=None))
        reply = await answer
        if reply.error is not None:
            raise reply.error

    def _owing(self, stream: str, states: tuple[Any, ...]) -> Sequence[Effect]:
        """What will be done here of all that a stream owes: nothing, where nobody took it up."""
        there = self.armed and (self.dispatch.is_at(stream) or stream in self.left)
        return decider.owed(noun_of(stream), states) if there else ()

    def _stand(
        self, stream: str, runs: Runs, states: tuple[Any, ...], owed: Sequence[Effect], job_id: str | None
    ) -> None:
        def in_hand(action: str) -> bool:
            session_id = stream.removeprefix("session-")
            return f"{session_id}:{action}" in self.in_hand or runs.read(states[0].running.job_id)

        def awaited(action: str) -> bool:
            return self.awaited[f"{stream.removeprefix('session-')}:{action}"] > 0

        runs.stand(halt_of(states, owed if self.armed else (), in_hand, awaited), job_id)

    async def rejoin(self, run: Run, reply: Reply, first: Keyed) -> None:
        """Let a run take the place of the one that was first with its key: its past is read, then it hears on."""
        try:
            past: list[Recorded] = []
            stream = first.stream
            # Asked for anew each time: it may have woken, and gone on, while its past was read.
            while not past or ((at_hand := self.at_hand(stream)) is not None and past[-1].version < at_hand.version):
                after = past[-1].version if past else 0
                for stored in await asyncio.to_thread(self._log().read, stream, after=after):
                    past += codec.unpack(stored)
            batch = next(each.head.id for each in past if each.version == first.version)
            queued = next(each.data for each in past if each.head.id == batch and isinstance(each.data, JobQueued))
        except Exception as error:
            run.fail(KeyReused(f"The command that first came with this key cannot be found: {error!r}."))
            return
        self._runs.let_go(run)
        run.become(queued.job_id, stream.removeprefix("session-"))
        self._runs.of(run.session_id).join(run, past)
        if run.handler is not None:  # it decides what still waits, too
            answered = {each.data.action for each in past if isinstance(each.data, ActionEnded)}
            for each in past:
                if isinstance(each.data, ActionRequired) and each.data.action not in answered:
                    self._hear(each)
        if not run.over:  # it may wait for a person
            try:
                await self.look(run.session_id, run.job_id)
            except ReenactError as error:
                run.fail(error)
        run.answer(reply)

    def _tell_events(self, events: Iterable[Recorded]) -> None:
        batch: list[BusEvent] = []
        stream, session = "", None
        for recorded in events:
            batch.append(recorded)
            if recorded.stream != stream:
                stream = recorded.stream
                session = self._session_of(stream) if stream.startswith("session-") else None
            if session is not None:
                try:
                    batch += session.apply(recorded)
                except Exception:
                    _untold(stream, "what it is kept by here")
        self._bus.emit_batch(batch)
        head, runs = None, None
        for recorded in events:
            try:
                self._hear(recorded)
            except Exception:
                _untold(recorded.stream, "who hears of all")
            if recorded.head is not head:
                head = recorded.head
                runs = self._runs.get(head.context.session_id or "")
            if runs is not None:
                try:
                    runs.tell(recorded)
                except Exception:
                    _untold(recorded.stream, "whoever waits for its jobs")

    def signal(self, session: LiveSession, signal: Signal | None) -> None:
        """Something seen live: to the bus with the notices it leads to, and to whoever runs a job there.

        Without secrets, also those that come in pieces. None: the answer is over, or cut off.
        """
        failpoint("signal")
        veil = session.veil
        if veil is None:
            if signal is None:
                return  # nothing was seen of it, so nothing is held back
            veil = session.veil = Veil(self._vault, session.ids.scope)
        now = self._clock.now()
        if signal is None:
            session.veil = None  # a session that only waits keeps none
        for shown in veil.rest() if signal is None else veil.show(signal):
            event = live(shown, at=now, context=session.ids)
            self._bus.emit(event)
            for notice in session.signal(shown, now):
                self._bus.emit(notice)
            runs = self._runs.get(session.session_id)
            if runs is not None:
                runs.signal(event)

    # -- sessions awake --

    async def session(self, stream: str) -> LiveSession:
        """A session with all its past. One that owes something is at hand; any other is read from the log."""
        session = self._live.get(stream)
        if session is None:
            stored = await asyncio.to_thread(self._log().read, stream)
            past = [recorded for batch in stored for recorded in codec.unpack(batch)]
            session = self._live.setdefault(stream, LiveSession(stream.removeprefix("session-"), past))
        return session

    def at_hand(self, stream: str) -> LiveSession | None:
        """A session that is awake; None for one that is not."""
        return self._live.get(stream)

    def _session_of(self, stream: str, past: Sequence[Recorded] = ()) -> LiveSession:
        """The session behind a stream; its past comes with the first that it publishes since it woke."""
        session = self._live.get(stream)
        if session is None:
            session = self._live[stream] = LiveSession(stream.removeprefix("session-"), past)
        return session

    def asleep(self, stream: str) -> None:
        """A stream was put to sleep: nothing of it is kept at hand."""
        self._bus.unregister(stream)
        self._live.pop(stream, None)


def _untold(stream: str, whom: str) -> None:
    """Log, within a handler of an exception, that somebody did not take what a stream has stored."""
    _log.exception("what %s has stored was not taken by %s", stream, whom)
