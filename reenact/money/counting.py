"""The counting of what was used while nothing was limited: read in the log, and told to the ledger that owes it.

A count reads everything behind the last one, off the loop, and tells what each session used by itself. A session whose
call was under way then is looked at again when that has ended: nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from ..actors.book import State
from ..actors.calendar import DAY_US
from ..actors.clock import Clock
from ..actors.count import counted, is_due
from ..actors.tally import READ, Tally
from ..catalog.unreadable import passed_over
from ..events import codec
from ..events.agent import AgentConfigured, ModelAnswered, ModelCalled, ModelFailed, TurnCompleted
from ..events.budget import NOTHING
from ..events.errors import Corrupt
from ..events.failpoint import failpoint
from ..events.ledger import (
    ENTRIES_MAX,
    AwaitUsage,
    Counted,
    CountUsage,
    RecordCount,
    UsageCounted,
    is_reserved,
)
from ..events.log import Stored
from ..events.message import Recorded
from ..events.purse import AllotmentTaken, AllotmentWanted
from ..flow.kernel import Kernel, Who
from .recalls import patiently

T = TypeVar("T")

PAGE_BATCHES = 1_000

_log = logging.getLogger("reenact")

_ENDS = tuple(
    kind.type
    for kind in (
        ModelCalled,
        ModelAnswered,
        ModelFailed,
        TurnCompleted,
        AgentConfigured,
        AllotmentWanted,
        AllotmentTaken,
    )
)
"""After these a session may have ended what it had under way, or its ledger hears of what it spends."""

_READ = frozenset(kind.type for kind in READ)


class Counting:
    """Of one scope."""

    def __init__(self, kernel: Kernel, clock: Clock, scope: str) -> None:
        self._kernel = kernel
        self._ask = partial(kernel.ask, by=Who(scope, kernel.who.principal))
        self._peek = partial(kernel.peek, scope=scope)
        self._clock = clock
        self._scope = scope
        self._stream = f"ledger-{scope}"
        self._waiting: dict[str, asyncio.Event] = {}
        self._hears: Any = None

    async def count(self, effect: CountUsage) -> RecordCount:
        """Count what is owed, and give the command that tells the last of it; what comes before is told at once."""
        failpoint("ledger.count")
        told = await (self._rest(effect.session_id) if effect.session_id else self._whole(effect))
        while len(told.entries) > ENTRIES_MAX:
            entries, rest = told.entries[:ENTRIES_MAX], told.entries[ENTRIES_MAX:]
            part = RecordCount(count=told.count, upto=told.upto, at=told.at, entries=entries)
            await patiently(lambda part=part: self._ask(self._stream, part))  # type: ignore[misc]
            told = RecordCount(count=told.count, upto=told.upto, at=told.at, entries=rest, done=told.done)
        failpoint("ledger.counted")
        return told

    async def _whole(self, effect: CountUsage) -> RecordCount:
        state: State = (await self._peek(self._stream))[0]
        at = max(self._clock.now(), state.now)
        upto, tallies = await self._aside(lambda: self._read(effect.after, at))
        entries = tuple(
            entry
            for stream, tally in tallies.items()
            for entry in tally.entries(stream.removeprefix("session-"))
            if entry.open or not _is_known(state, entry)
        )
        return RecordCount(count=effect.count, upto=upto, at=at, entries=entries, done=True)

    async def all_told(self) -> State:
        """The state of the ledger as if every session had told it what it used, but for calls under way.

        While limits stand for which all was counted, only those have more to tell that hold something or are awaited.
        """
        state: State = (await self._peek(self._stream))[0]
        at = max(self._clock.now(), state.now)
        holding = [each for each in state.accounts.items() if each[1].held != NOTHING and not is_reserved(each[0])]
        late = {f"session-{name}" for name in (*state.open, *(name for name, _ in holding))}

        def read() -> dict[str, Tally]:
            tallies = self._read(state.upto, at)[1] if is_due(state) or state.counting else {}
            for stream in late - tallies.keys():
                with passed_over(stream):
                    tallies[stream] = Tally(at)
                    for stored in self._kernel.log.read(stream):
                        _feed(tallies[stream], stored)
            return tallies

        tallies = await self._aside(read)
        entries = [one for name, each in tallies.items() for one in each.entries(name.removeprefix("session-"))]
        accounts = state.accounts
        for name, account in holding:  # what it has spent of that it would have told
            accounts = accounts.insert(name, replace(account, held=NOTHING))
        told = UsageCounted(count=0, upto=state.upto, at=at, entries=tuple(entries), done=False)
        return counted(replace(state, accounts=accounts), told)

    def _read(self, after: int, at: int) -> tuple[int, dict[str, Tally]]:
        """Up to which position, and the sums of every session of the scope in which something happened behind
        `after`."""
        log, tallies = self._kernel.log, dict[str, Tally]()
        upto = log.position
        for stored in self._batches(after, upto):
            stream = stored.batch.stream
            if not stream.startswith("session-") or stored.batch.head.context.scope != self._scope:
                continue
            tally = tallies.get(stream)
            if tally is None:
                tally = tallies[stream] = Tally(at)
                if stored.batch.version:
                    for earlier in log.read(stream):
                        if earlier.position < stored.position:
                            _feed(tally, earlier)
            _feed(tally, stored)
        return upto, tallies

    def _batches(self, after: int, upto: int) -> Iterator[Stored]:
        """All that can be read. What cannot is no reason to count nothing, or to spend without a limit for ever."""
        limit = PAGE_BATCHES
        while after < upto:
            try:
                page = self._kernel.log.read_all(after=after, limit=limit)
            except Corrupt as error:
                if limit == 1:
                    _log.error("what is at position %s cannot be counted: %s", after + 1, error)
                    after += 1
                limit = 1
                continue
            if not page:
                return
            for stored in page:
                if stored.position > upto:
                    return
                yield stored
            after, limit = page[-1].position, PAGE_BATCHES

    # -- what was under way --

    async def _rest(self, session_id: str) -> RecordCount:
        """What a session used, as soon as nothing is under way in it that nothing was set aside for."""
        stream = f"session-{session_id}"
        news = self._waiting.setdefault(stream, asyncio.Event())
        if self._hears is None:
            self._hears = self._kernel.bus.on(_ENDS, self._news)
            self._hears.named = True
        try:
            at = self._clock.now()
            read = _Read(at)
            while True:
                await self._aside(partial(self._go_on, stream, read))
                if not read.tally.open:
                    break
                await news.wait()
                news.clear()
            now = self._clock.now()
            if now // DAY_US != at // DAY_US:  # its windows are those of another day by now
                read, at = _Read(now), now
                await self._aside(partial(self._go_on, stream, read))
        finally:
            del self._waiting[stream]
            if not self._waiting:
                hears, self._hears = self._hears, None
                hears.unsubscribe()
        entries = tuple(read.tally.entries(session_id)) or (Counted(session_id=session_id, principal_id=""),)
        return RecordCount(upto=read.upto, at=at, entries=entries)

    def _go_on(self, stream: str, read: _Read) -> None:
        for stored in self._kernel.log.read(stream, after=read.version):
            _feed(read.tally, stored)
            read.version, read.upto = stored.batch.last, stored.position + len(stored.batch.rows) - 1

    def _news(self, recorded: Recorded) -> None:
        news = self._waiting.get(recorded.stream)
        if news is not None:
            news.set()

    async def late(self, session_id: str) -> None:
        """A session is about to call a model with nothing set aside for it, though something is limited: it set out
        before it could hear of it. What that uses is counted when it ends."""
        command = AwaitUsage(session_id=session_id, at=self._clock.now())
        await patiently(lambda: self._ask(self._stream, command))

    async def _aside(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)


class _Read:
    """A session as far as it was read: up to which version, and which position in the log."""

    def __init__(self, at: int) -> None:
        self.tally = Tally(at)
        self.version = self.upto = 0


def not_counted(effect: CountUsage) -> RecordCount:
    """What a ledger is told where nothing could be counted: nothing. It stays owed, for the next owner to see to."""
    return RecordCount(count=-1, at=0)


def _is_known(state: State, entry: Counted) -> bool:
    account = state.accounts.get(entry.session_id)
    counted = state.counted.get((entry.session_id, entry.principal_id))
    used = entry.used == NOTHING or (counted is not None and counted.covers(entry.used))
    return used and (entry.whole is None or (account is not None and account.told.covers(entry.whole)))


def _feed(tally: Tally, stored: Stored) -> None:
    """The events of a batch that say something of what was used; only these are decoded."""
    batch = stored.batch
    for part, row in enumerate(batch.rows):
        if row.type not in _READ:
            continue
        try:
            event = codec.decode(row.type, row.schema, row.data)
        except Corrupt as error:
            _log.error("what is at position %s cannot be counted: %s", stored.position + part, error)
            continue
        position, version = stored.position + part, batch.version + 1 + part
        tally.see(Recorded(position, batch.stream, version, part, stored.epoch, event, batch.head))
