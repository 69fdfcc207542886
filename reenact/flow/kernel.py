"""The kernel: one flow from a command to everybody who hears of it.

asked --> actor decides --> log (committed) --> bus --> whoever asked --> what is owed, done --> the end, asked again

Actors decide and commit on worker threads; everything is told on the event loop, in the order of the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..actors import decider
from ..actors.cell import noun_of
from ..actors.clock import Clock
from ..actors.dispatch import Dispatch, Performer
from ..actors.system import ActorSystem, Ask, Peek, Reply
from ..adapters.logs import open_log
from ..adapters.tools.acting import acting_as
from ..events.bus import SystemBus
from ..events.errors import BadInput, Closed, NotFound, ReenactError, Refused
from ..events.failpoint import failpoint
from ..events.log import Log
from ..events.message import Asked, Command, Recorded
from ..events.shape import decoder
from ..identity.pane import BETWEEN, DEFAULT, own_name, scope_in
from ..run import Run
from ..secrets.vault import Vault
from .ends import Ends
from .loop_commits import LoopCommits, undisturbed
from .runs import AllRuns
from .telling import Telling

_NOT_OPEN = "The runtime is not open: use `async with Runtime(...)`, or await `open()`."
_OPENS: ContextVar[bool] = ContextVar("reenact_opens", default=False)
_CLOSED = "The runtime was closed before the job ended; it goes on when the log is opened again."

_log = logging.getLogger("reenact")


def check_readable(command: Command) -> None:
    """Raises BadInput for a command with a value that does not fit its field: an event with it could be stored, and
    never read again. What cannot be encoded at all is the vault's to refuse."""
    try:
        raw = msgspec.msgpack.encode(command)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return
    try:
        decoder(type(command))(raw)
    except msgspec.ValidationError as error:
        raise BadInput(f"This cannot be asked as {command.type}: {error}.") from None


def chosen(stream: str, key: str | None) -> Iterable[str]:
    """What a caller chose of the name of a container and of a key: the words around it are reenact's own."""
    if stream.startswith("container-") and (name := own_name(stream)) != DEFAULT:
        yield name
    if key is not None:
        yield key.partition(":")[2].removeprefix(f"{DEFAULT}{BETWEEN}")


def check_own(stream: str, scope: str) -> None:
    """Raises NotFound for a stream that is named for another scope."""
    named = scope_in(stream)
    if named is not None and named != scope:
        raise NotFound


class Who(Struct, frozen=True):
    """On whose behalf a command is asked: scope and principal as the caller's credential says, and the trace."""

    scope: str
    principal: str
    trace: str | None = None


class _Posted(Ask, frozen=True):
    """A command in an envelope that was made here, for whoever asks."""


class Kernel:
    """The log, the actors, the bus and the dispatch of one runtime, wired.

    hear(recorded): told of every event after the bus was, before whoever asked. telling: how everybody hears of things.
    runs: who waits for a job.
    """

    def __init__(
        self,
        persistence: str | Log,
        *,
        bus: SystemBus,
        clock: Clock,
        who: Who,
        hear: Callable[[Recorded], None],
        vault: Vault,
        threads: int | None = None,
    ) -> None:
        self._persistence = persistence
        self.bus = bus
        self.clock = clock
        self.who = who
        self.vault = vault
        self._threads = threads
        self.opened = False
        self.ready = False
        """Whether others than who opens it may work with it: the limits in the log are known."""
        self._log: Log | None = None
        self.runs = AllRuns()
        self._later: set[asyncio.Future[object]] = set()
        self.called_back: dict[str, str] = {}
        """Sessions, by stream, and the allotment that they hold and their ledger calls back; kept by treasuries."""
        self.telling = Telling(bus=bus, log=lambda: self.log, clock=clock, vault=vault, hear=hear, runs=self.runs)

    # -- life --

    async def open(self, performer: Performer, *, armed: bool = True, asleep: Callable[[str], object]) -> None:
        """Own the log. Raises `Owned` and its like.

        armed: False: nothing that is owed to the world is done, whatever is decided; it stays owed. asleep(stream):
        told of every stream that is put to sleep.
        """
        self.telling.armed = armed
        self._loop = asyncio.get_running_loop()
        given = self._persistence
        if self.bus.disposed:
            raise Closed("A runtime that was closed cannot be opened again: make another.")
        self._sleeps = asleep
        self._log = await _owned(given) if isinstance(given, str) else given
        self._commits = LoopCommits(self.runs, self.telling.told)
        self.system = self._commits.system = ActorSystem(
            self._log,
            self._commits.publish,
            threads=self._threads,
            on_sleep=self._asleep,
            takes=self._commits.may_take if self._threads is None and undisturbed() else None,
        )
        self._put = self._take  # one for all mailboxes: a bound method is 64 bytes
        self.bus.resolver = self._mailbox
        self._ends = Ends(
            post=self._post,
            asked=self.asked,
            stopped=self.runs.fail,
            bus=self.bus,
            clock=self.clock,
            called_back=self.called_back,
        )
        self.dispatch = self.telling.dispatch = Dispatch(performer, self._ends.tell, clock=self.clock)
        self.opened = True

    async def recover(self, take_up: Callable[[str], object] | None = None) -> None:
        """Take up what an earlier owner left. take_up(stream): called for every session that owes, default `wake`; in
        the end it wakes the stream, or says `leave`. What ledgers call back is taken up by itself."""
        if not self.telling.armed:
            return
        for stream in await asyncio.to_thread(self.log.streams, "ledger-", owing=True):
            self.wake(stream)
        for stream in await asyncio.to_thread(self.log.streams, "session-", owing=True):
            self.telling.left.add(stream)
            (take_up or self.wake)(stream)

    def may_touch(self, stream: str, states: tuple[Any, ...]) -> bool:
        """Whether something may be put to a stream without taking up what an earlier owner left in it."""
        return self.dispatch.is_at(stream) or not decider.owed(noun_of(stream), states)

    async def close(self) -> None:
        """Stop what is under way without a word in the log, tell those who wait, and give the log up."""
        if not self.opened:
            self.bus.dispose()
            return
        self.opened = False
        self._commits.close()
        self._ends.close()
        failpoint("close.begin")
        await self.dispatch.close()
        await asyncio.to_thread(self.system.close)
        failpoint("close.stopped")
        await asyncio.sleep(0)  # what was published while closing is told first
        self.runs.fail(Closed(_CLOSED))
        self.bus.dispose()
        if self._log is not None and isinstance(self._persistence, str):
            await asyncio.to_thread(self._log.close)

    @property
    def log(self) -> Log:
        """The log it owns. Raises Closed before `open`."""
        if self._log is None:
            raise Closed(_NOT_OPEN)
        return self._log

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Within, the limits are read and set that hold for everybody; others wait, or are refused."""
        token = _OPENS.set(True)
        try:
            yield
            self.ready = True
        finally:
            _OPENS.reset(token)

    def check_ready(self) -> None:
        """Raises Closed for who would work with it before it is open."""
        if not self.ready and not _OPENS.get():
            raise Closed(_NOT_OPEN)

    def _alive(self) -> None:
        if not self.opened:
            raise Closed(_NOT_OPEN)

    def wake(self, stream: str) -> None:
        """Have what a stream owes taken up, if nobody is at it."""
        left = self.telling.left
        told = (lambda _: left.discard(stream)) if stream in left else None
        self.bus.tell(stream, Peek(told, owing=True, scope=None))

    def _asleep(self, stream: str) -> None:
        self.telling.asleep(stream)
        self._sleeps(stream)

    def leave(self, stream: str) -> None:
        """What an earlier owner left in a stream is not taken up: who waits for it hears how it stands."""
        self.telling.left.discard(stream)
        if self.opened and stream.removeprefix("session-") in self.runs:
            self.later(self.telling.look(stream.removeprefix("session-")))

    def _mailbox(self, stream: str) -> Callable[[Any], None]:
        """Where the bus puts what is for a stream: made when it is first addressed, forgotten when it sleeps."""
        noun_of(stream)
        return partial(self._put, stream)

    def _take(self, stream: str, message: Ask | Peek) -> None:
        """Put into a mailbox what was looked at here. Raises Refused for a command that somebody told the bus."""
        if type(message) is Ask:
            raise Refused("Commands are put to a stream by the methods of its runtime.")
        self.system.put(stream, message)

    # -- asking --

    async def ask(
        self,
        stream: str,
        command: Command,
        *,
        companions: Iterable[tuple[str, Command]] = (),
        key: str | None = None,
        body: bytes = b"",
        correlation: str | None = None,
        cause: str | None = None,
        by: Who | None = None,
        told: Callable[[Reply], object] | None = None,
    ) -> Reply:
        """Put a command to an actor and wait until its events are stored and told. Raises what refused it.

        key: an idempotency key, unique in the scope; body: digest of what it stands for. companions: commands for new
        streams, appended together with this one. cause: the id of the event that led to it.
        by: who asks, if not the runtime's own principal. told(reply): as it is told, before anybody who waited goes on,
        whether or not whoever asked still waits.

        Raises BadInput, and nothing is stored, for a value that could not be read again.
        """
        self._alive()
        companions = tuple(companions)
        for each in (command, *(companion for _, companion in companions)):
            check_readable(each)
        answer: asyncio.Future[Reply] = self._loop.create_future()
        asked = self.asked(command, key=key, correlation=correlation, cause=cause, by=by)
        chain = asked.correlation or asked.id
        beside = tuple((name, self.asked(each, correlation=chain, by=by)) for name, each in companions)

        def tell(reply: Reply) -> None:
            try:
                if told is not None:
                    told(reply)
            finally:
                answer.set_result(reply)

        self._post(stream, asked, tell, beside, body)
        return await _reply(answer)

    async def peek(self, stream: str, *, scope: str | None) -> tuple[Any, ...]:
        """The states of a stream's deciders, after everything that was asked of it before. scope: who looks; None for
        the runtime itself, which does what is owed to all."""
        self._alive()
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self.bus.tell(stream, Peek(answer.set_result, scope=scope))
        return (await _reply(answer)).states

    def submit(
        self,
        session_id: str,
        command: Command,
        run: Run,
        *,
        key: str | None = None,
        body: bytes = b"",
        by: Who | None = None,
    ) -> None:
        """Put a run's command into its session's mailbox; the run hears everything from here on.

        A key that was used before with the same body: the run becomes that of the earlier command.
        """
        self._alive()
        self.check_ready()
        asked = self.asked(command, key=key, by=by)
        self.runs.of(session_id).add(run)
        told = run.answer if key is None else partial(self._answer, run)
        try:
            self._post(f"session-{session_id}", asked, told, body=body)
        except ReenactError:
            self.runs.let_go(run)
            raise

    def _post(
        self,
        stream: str,
        asked: Asked,
        told: Callable[[Reply], object],
        beside: Sequence[tuple[str, Asked]] = (),
        body: bytes = b"",
        own: bool = False,
    ) -> None:
        """Put a command into a stream's mailbox: the one way there is. own: the runtime's own, for whoever it is about.

        So nothing is decided upon, stored, told or replayed but what the vault has let through. Raises what it raises,
        and NotFound for a stream that is named for another scope, be there something in it or not.
        """
        if not own:
            check_own(stream, asked.scope)
            for name, _ in beside:
                check_own(name, asked.scope)
        for name in chosen(stream, asked.key):
            if self.vault.holds(name, asked.scope):  # it cannot be masked: two would become one
                raise BadInput("There is a secret in a name or a key, which are stored as they are.")
        companions = tuple((name, self._hidden(each, own)) for name, each in beside)
        self.bus.tell(stream, _Posted(self._hidden(asked, own), told, companions, body, own))

    def _hidden(self, asked: Asked, own: bool) -> Asked:
        """In what a caller asks no name holds a secret; what happened in the world is told whatever it is named."""
        command = self.vault.hidden(asked.command, asked.scope, refuse=not own)
        return asked if command is asked.command else replace(asked, command=command)

    def _answer(self, run: Run, reply: Reply) -> None:
        if reply.duplicate is None:
            run.answer(reply)
        else:
            self.later(self.telling.rejoin(run, reply, reply.duplicate))

    def asked(
        self,
        command: Command,
        *,
        key: str | None = None,
        correlation: str | None = None,
        cause: str | None = None,
        by: Who | None = None,
    ) -> Asked:
        """A command in its envelope, now, from whoever asks: without a word, this runtime's own principal. Inside of a
        tool it is the tool's agent."""
        who = self.who if by is None else by
        return Asked(
            id=self.clock.new_id(),
            at=self.clock.now(),
            command=command,
            scope=who.scope,
            principal=acting_as() or who.principal,
            cause=cause,
            correlation=correlation,
            key=key,
            trace=who.trace,
        )

    def later(self, work: Awaitable[object]) -> None:
        """Have something done that nobody waits for. What it raises is logged."""
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[object]) -> None:
        self._later.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("in the background: %s", task.exception())


async def _owned(url: str) -> Log:
    """The log, opened on a thread. Who is cancelled meanwhile leaves nobody who owns it."""
    opening = asyncio.ensure_future(asyncio.to_thread(open_log, url))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(ReenactError):
            await asyncio.to_thread((await opening).close)
        raise


async def _reply(answer: asyncio.Future[Reply]) -> Reply:
    reply = await answer
    if reply.error is not None:
        raise reply.error
    return reply
