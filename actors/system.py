"""The actor system: streams awake as actors, asked by name, put to sleep when there are too many. No clock, no library.

A command goes to its stream's mailbox; the actor decides and hands the batch to group commit; the mailbox stands still
until the log has answered. What was committed comes out through `publish`, in the order of the log, replies behind it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from ..events.errors import Closed, Conflict, Full, KeyReused, NotFound, ReenactError
from ..events.log import Duplicate, Keyed, Log, Result, Transaction
from ..events.message import Asked, Effect, Recorded
from ..events.session import Send
from .cell import Cell, Prepared
from .commit import GroupCommit
from .conversation import CONVERSATION
from .threads import Lane, Pool

RETRIES_MAX = 5
"""How often a command is decided anew because its stream had moved on, before the asker is told."""

AWAKE_MAX = 20_000
"""Streams kept awake. Beyond it the least recently asked one that owes nothing is put to sleep."""

BORN_MAX = 5_000
"""Streams born beside another that are kept at hand until they are first asked; beyond it they are read again."""

MAILBOX_MAX = 100_000
"""Messages that wait in one stream's mailbox. One more is refused; the end of an effect comes again later."""

# Limits at the door are no decisions: a replay does not ask for them, so they may be changed.
QUEUED_MAX = 10_000
"""Jobs that wait in one session's lane. One more message is refused."""

EVENTS_MAX = 500_000
"""Events of one session. Beyond it no more messages are taken; what was accepted goes on. 13 events make a turn."""

_log = logging.getLogger("reenact.actors")


class Reply(Struct, frozen=True):
    """What became of a command. events: empty when it was already so. error: why it was refused, with nothing written.

    duplicate: the earlier command with the same key; nothing was written now. states: of the stream's deciders.
    """

    states: tuple[Any, ...] = ()
    events: Sequence[Recorded] = ()
    error: Exception | None = None
    duplicate: Keyed | None = None


Told = Callable[[Reply], object]


class Committed(Struct, frozen=True):
    """One commit's worth of one command, for whoever publishes: its events, what is owed now, whom to tell.

    past: the events that a conversation had before, with the first that it publishes since it woke.
    """

    stream: str
    events: Sequence[Recorded]
    owed: tuple[Effect, ...]
    reply: Reply
    told: Told | None
    past: Sequence[Recorded] = ()


class Ask(Struct, frozen=True):
    """A command for a stream; `told` hears the reply through `publish`.

    companions: commands for streams that do not exist yet, appended together with it. body: digest of what the caller
    asked for, compared when a command comes with a key that was used before. own: the runtime itself asks, on behalf of
    whoever the stream belongs to; any other command is for a stream of its own scope.
    """

    asked: Asked
    told: Told | None = None
    companions: tuple[tuple[str, Asked], ...] = ()
    body: bytes = b""
    own: bool = False


class Peek(Struct, frozen=True):
    """Ask for the states as they are, after everything that was asked before.

    owing: have what is owed published again: how a start takes up what an earlier owner left. scope: who looks; None
    for the runtime itself.
    """

    told: Told | None
    owing: bool = False
    scope: str | None = "default"


class ActorSystem:
    """Every stream is an actor. `publish` is called on a worker thread, with what one commit brought, in log order."""

    def __init__(
        self,
        log: Log,
        publish: Callable[[list[Any]], None],
        *,
        threads: int | None = None,
        awake_max: int = AWAKE_MAX,
        on_sleep: Callable[[str], object] | None = None,
        takes: Callable[[], bool] | None = None,
    ) -> None:
        """takes(): whether the thread that has just put a message, to a stream that is loaded, calls `step` soon."""
        self.log = log
        self.commits = GroupCommit(log, self._committed)
        self._publish = publish
        self._parked: list[str] = []
        self._born: dict[str, tuple[Cell, Sequence[Recorded]]] = {}
        self._awake_max = awake_max
        self._on_sleep = on_sleep
        self._pool = Pool(threads=threads, on_idle=self.commits.flush, on_crash=_crashed)
        if takes is not None:
            self._pool.on_ready = lambda actor: actor.life in _LOADED and takes()
        self.step = self._pool.step
        self.hand_over = self._pool.hand_over

    def put(self, stream: str, message: Ask | Peek) -> None:
        """Put a message into a stream's mailbox, waking the stream. Raises Closed after close."""
        lane = self._pool.use(stream) or self._wake(stream)
        if lane.depth >= MAILBOX_MAX and message.told is not None:
            full = Full(f"{MAILBOX_MAX} messages wait for {stream}.")
            self._publish([Committed(stream, (), (), Reply(error=full), message.told)])
        else:
            lane.tell(message)

    def _committed(self, group: list[Any]) -> None:
        """Tell what one commit brought, then let its streams go on: what they say next is told behind it."""
        parked, self._parked = self._parked, []
        try:
            self._publish(group)
        finally:
            for stream in parked:
                self._unpark(stream)

    def _unpark(self, stream: str) -> None:
        lane = self._pool.get(stream)
        if lane is not None:  # none: everything is being closed
            lane.unpark()

    def _keep(self, cell: Cell, events: Sequence[Recorded]) -> None:
        """A stream was born as a companion: most likely it is asked something next."""
        if len(self._born) >= BORN_MAX:
            self._born.clear()
        self._born[cell.stream] = cell, events

    @property
    def awake(self) -> int:
        """How many streams are awake."""
        return len(self._pool)

    def _wake(self, stream: str) -> Lane:
        """Wake a stream. For it others at rest are put to sleep, those asked longest ago first; all busy: none."""
        for other in self._pool.retire(len(self._pool) - self._awake_max + 1, lambda actor: actor.life not in _BUSY):
            if self._on_sleep is not None:
                self._on_sleep(other)
        return self._pool.spawn(stream, _Actor(self, stream))

    def close(self) -> None:
        """Stop the workers after what they are at. Queued commands hear `Closed`. Idempotent."""
        leftover = self._pool.close()
        self.commits.flush()
        for stream, messages in leftover.items():
            for message in messages:
                assert isinstance(message, Ask | Peek)
                if message.told is not None:
                    reply = Reply(error=Closed("The runtime was closed before this command's turn came."))
                    self._publish([Committed(stream, (), (), reply, message.told)])


# The life of an actor. ASLEEP: nothing of its stream was read yet. IDLE: it is loaded, and owes nothing. AT_WORK: it is
# loaded, and something is owed or on its way to the log. LOST: the same, but its state may be older than the log and is
# read again before anything is decided.
_ASLEEP, _IDLE, _AT_WORK, _LOST = range(4)
_LOADED = (_IDLE, _AT_WORK)
_BUSY = (_AT_WORK, _LOST)


class _Actor:
    """The behaviour of one stream's lane: one command at a time, parked while its batch is on the way to the log.

    past: of a conversation, to be shown with the first batch that it publishes; None when that is done.
    """

    __slots__ = ("cell", "life", "past", "system")

    def __init__(self, system: ActorSystem, stream: str) -> None:
        self.system = system
        self.cell = Cell(stream)
        self.life = _ASLEEP
        self.past: Sequence[Recorded] | None = () if self.cell.noun is CONVERSATION else None

    @property
    def stream(self) -> str:
        return self.cell.stream

    def receive(self, message: object, /) -> bool:
        assert isinstance(message, Ask | Peek)
        told = message.told
        try:
            publishes = isinstance(message, Ask) or message.owing
            if self.life not in _LOADED:
                past = self._load()
                self.life = _AT_WORK if self.cell.owed else _IDLE
                if publishes and self.past is not None:
                    self.past = past
            elif publishes and self.past is not None and not self.past and self.cell.version:
                self.past = Cell(self.stream).load(self.system.log)
            if self.cell.hidden_from(_scope_of(message)):
                return self._absent(message)
            if isinstance(message, Peek):
                owed = self.cell.owed if message.owing else ()
                past = self._show() if owed else ()
                self._say(Committed(self.stream, (), owed, Reply(self.cell.states), told, past))
                return False
            known = self._known(message)
            if known is not None:
                self._say(Committed(self.stream, (), (), Reply(self.cell.states, duplicate=known), told))
                return False
            if type(message.asked.command) is Send and self.cell.noun is CONVERSATION:
                self._room()
            return self._submit(message)
        except Exception as error:
            if self.cell.hidden_from(_scope_of(message)):
                return self._absent(message)  # what is wrong with it is not this scope's business either
            return self._refuse(told, error)

    def _absent(self, message: Ask | Peek) -> bool:
        """The stream belongs to another scope. For this one it is not there: the same is answered as if it were not."""
        nothing = Cell(self.stream)
        reply = Reply(nothing.states)
        if isinstance(message, Ask):
            try:
                known = self._known(message)
                if known is not None:
                    reply = Reply(nothing.states, duplicate=known)
                elif nothing.prepare(message.asked, self.system.log) is not None:
                    raise NotFound
            except ReenactError as error:
                reply = Reply(nothing.states, error=error)
        self._say(Committed(self.stream, (), (), reply, message.told))
        return False

    def _load(self) -> Sequence[Recorded]:
        """Read the stream; or, where it was born beside another a moment ago, take it as it was left then."""
        born = self.system._born.pop(self.stream, None)
        if born is not None and born[0].version == self.system.log.head(self.stream):
            self.cell, past = born
            return past
        return self.cell.load(self.system.log)

    def _room(self) -> None:
        """Whether the session has room for one more message."""
        if self.cell.version >= EVENTS_MAX:
            raise Full(f"{self.stream} has {self.cell.version} events, its limit: go on in a new session.")
        if len(self.cell.states[0].queue) >= QUEUED_MAX:
            raise Full(f"{QUEUED_MAX} messages wait in {self.stream}.")

    def _known(self, ask: Ask) -> Keyed | None:
        """What its key was used for before: then that is its answer, whatever became of the stream since."""
        key = ask.asked.key
        known = None if key is None else self.system.log.keyed(ask.asked.scope, key)
        if known is not None and known.digest != ask.body:
            raise KeyReused
        return known

    def _submit(self, ask: Ask, tries: int = 0) -> bool:
        """tries: how often it was decided before, and found that its stream had moved on."""
        if self.cell.hidden_from(_scope_of(ask)):  # it was begun for somebody else a moment ago
            return self._absent(ask)
        prepared = self.cell.prepare(ask.asked, self.system.log)
        if prepared is None:
            self._say(Committed(self.stream, (), (), Reply(self.cell.states), ask.told))
            return False
        batches = [prepared.batch]
        beside: list[tuple[Cell, Prepared]] = []
        for stream, asked in ask.companions:
            cell = Cell(stream)
            born = cell.prepare(asked, self.system.log)
            if born is not None:
                beside.append((cell, born))
                batches.append(born.batch)
        keyed = None
        if ask.asked.key is not None:
            batch = prepared.batch
            keyed = Keyed(ask.asked.scope, ask.asked.key, ask.body, self.stream, batch.last)
        self.life = _AT_WORK
        self.system.commits.submit(
            Transaction(tuple(batches), keyed), lambda result: self._done(ask, prepared, beside, tries, result)
        )
        return True

    def _done(
        self, ask: Ask, prepared: Prepared, beside: list[tuple[Cell, Prepared]], tries: int, result: Result
    ) -> Any:
        """The log has answered, on the committing thread; the lane is parked, so nobody else is in here."""
        try:
            if isinstance(result, Conflict) and tries < RETRIES_MAX:
                self.cell.catch_up(self.system.log)
                if not self._submit(ask, tries + 1):
                    self.life = _AT_WORK if self.cell.owed else _IDLE
                    self.system._unpark(self.stream)
                return None
            said = self._told(ask, prepared, beside, result)
        except Exception as error:
            self.life = _LOST
            said = Committed(self.stream, (), (), Reply(error=error), ask.told)
        self.system._parked.append(self.stream)
        return said

    def _told(self, ask: Ask, prepared: Prepared, beside: list[tuple[Cell, Prepared]], result: Result) -> Committed:
        if isinstance(result, Duplicate | ReenactError):
            self.life = _AT_WORK if self.cell.owed else _IDLE
        if isinstance(result, Duplicate):
            reply = Reply(self.cell.states, duplicate=result.keyed)
            return Committed(self.stream, (), (), reply, ask.told)
        if isinstance(result, ReenactError):
            # Its state may be older than the log, or the log's end unknown: read again before deciding anything more.
            if not isinstance(result, KeyReused):
                self.life = _LOST if self.cell.owed else _ASLEEP
            return Committed(self.stream, (), (), Reply(error=result), ask.told)
        events = self.cell.accept(prepared, result[0])
        for (cell, born), stored in zip(beside, result[1:], strict=True):
            told = cell.accept(born, stored)
            self.system._keep(cell, told)
            events += told
        self.life = _AT_WORK if prepared.owed else _IDLE
        return Committed(self.stream, events, prepared.owed, Reply(self.cell.states, events), ask.told, self._show())

    def _show(self) -> Sequence[Recorded]:
        """What this stream had before, once since it woke: who follows it begins with that."""
        past, self.past = self.past, None
        return past or ()

    def _refuse(self, told: Told | None, error: Exception) -> bool:
        if not isinstance(error, ReenactError):
            _log.exception("%s could not decide", self.stream)
        self._say(Committed(self.stream, (), (), Reply(self.cell.states, error=error), told))
        return False

    def _say(self, committed: Committed) -> None:
        if committed.told is not None or committed.owed:
            self.system._publish([committed])


def _scope_of(message: Ask | Peek) -> str | None:
    if isinstance(message, Peek):
        return message.scope
    return None if message.own else message.asked.scope


def _crashed(key: str, error: BaseException) -> None:
    _log.error("%s crashed: %s: %s", key, type(error).__name__, error, exc_info=error)
