"""Whether a log keeps its word, as far as the log alone can show: read from end to end, re-driven, and counted.

Reads only, reaches nothing outside, and goes on after what it finds. What it cannot see: whole batches cut off the end
of a stream together with every trace of them, and a log whose chains were all made anew. A history written down
elsewhere (`REENACT_HISTORY`) shows both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from msgspec import Struct

from ..events import codec
from ..events.errors import Closed, ReenactError
from ..events.history import Entry, Torn
from ..events.log import Keyed, Stored
from ..events.message import Recorded, Unknown
from .balance import Balance, Changes
from .calls import Calls
from .cell import noun_of
from .history import History
from .replay import Difference, replay
from .violation import Violation

VIOLATIONS_MAX = 1000
"""How many are listed; the rest are counted."""

PAGE_BATCHES = 500

SKIPPED_MAX = 10_000
"""So many positions in a row of which none can be read are tried one by one: a damaged number may be of any size."""

LOOKS_MAX = 100
"""How often a stream is looked at that is written to meanwhile, until it rests for a moment."""


class Report(Struct, frozen=True, kw_only=True, rename="camel"):
    """What was read and what was found. sound: nothing was found.

    redriven: batches that were decided again and came out alike. newer: streams that hold what a newer release wrote;
    they are checked for everything but replay and effects. promised: batches that a history says were stored. torn:
    lines of it that a crash cut off, of which nothing is known. more: violations beyond those listed.
    """

    sound: bool
    streams: int
    batches: int
    events: int
    redriven: int
    commands: int
    owing: int
    epochs: int
    erased: int = 0
    promised: int = 0
    torn: int = 0
    newer: tuple[str, ...] = ()
    violations: tuple[Violation, ...] = ()
    more: int = 0

    @property
    def summary(self) -> str:
        """One line for a person."""
        read = f"{self.events} events in {self.batches} batches of {self.streams} streams"
        if not self.sound:
            found = len(self.violations) + self.more
            return f"{found} violation{'s' if found > 1 else ''} in {read}; the first: {self.violations[0]}"
        said = f"sound: {read}, {self.redriven} batches re-driven"
        if self.promised:
            said += f", {self.promised} batches promised and there"
        if self.torn:
            said += f", {self.torn} line{'s' if self.torn > 1 else ''} of the history cut off by a crash"
        if self.erased:
            said += f", {self.erased} items erased"
        return said + (f", {len(self.newer)} streams of a newer release" if self.newer else "")


class Readable(Protocol):
    """What it needs of a log: see `Log`."""

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Stored]: ...
    def read_all(self, *, after: int = 0, limit: int = 1000) -> list[Stored]: ...
    def head(self, stream: str) -> int: ...
    @property
    def position(self) -> int: ...
    def streams(self, prefix: str = "", *, owing: bool = False) -> list[str]: ...


def verify(
    log: Readable,
    *,
    keys: Iterable[Keyed] = (),
    flaws: Iterable[str] = (),
    tables: Iterable[str] = (),
    history: Iterable[Entry | Torn] = (),
) -> Report:
    """Read the log by position, then stream by stream, then its tables. It may grow meanwhile.

    keys: every idempotency key of the log. flaws: what its store found by its own means; tables: and what is wrong with
    the tables beside it. history: what was asked of it and answered, written down elsewhere and read before the log.
    Raises only what reading raises for other reasons than damage, as `Closed`.
    """
    told = History(history)
    checker = _Checker(log)
    for flaw in flaws:
        checker.found("file", flaw)
    for flaw in tables:
        checker.found("tables", flaw)
    checker.whole(told)
    for violation in told.compare():
        checker.add(violation)
    # What ledgers were told of sessions is read before the sessions.
    streams = sorted(checker.streams(), key=lambda stream: not stream.startswith("ledger-"))
    owes = {stream: checker.stream(stream) for stream in streams}
    for stream, position, what in checker.changes.found():
        checker.found("budget", what, stream=stream, position=position)
    checker.owing(owes)
    commands = 0
    for keyed in keys:
        commands += 1
        checker.key(keyed)
    return Report(
        sound=not checker.violations,
        streams=len(owes),
        batches=checker.batches,
        events=checker.events,
        redriven=checker.redriven,
        commands=commands,
        owing=sum(owes.values()),
        epochs=len(checker.writers),
        erased=checker.erased,
        promised=told.promised,
        torn=told.torn,
        newer=tuple(checker.newer),
        violations=tuple(checker.violations),
        more=checker.more,
    )


class _Checker:
    def __init__(self, log: Readable) -> None:
        self.log = log
        self.upto = log.position
        self.violations: list[Violation] = []
        self.more = self.batches = self.events = self.redriven = self.erased = 0
        self.writers: dict[int, str] = {}
        self.newer: list[str] = []
        self.changes = Changes()
        self._ids: set[str] = set()
        self._counts: dict[str, int] = {}

    def found(
        self,
        invariant: str,
        what: str,
        *,
        stream: str | None = None,
        version: int | None = None,
        position: int | None = None,
    ) -> None:
        self.add(Violation(invariant=invariant, what=what, stream=stream, version=version, position=position))

    def found_at(self, stored: Stored, invariant: str, what: str) -> None:
        """Of a batch: at its first event."""
        batch = stored.batch
        self.found(invariant, what, stream=batch.stream, version=batch.version + 1, position=stored.position)

    def found_in(self, recorded: Recorded, invariant: str, what: str) -> None:
        """Of one event."""
        self.found(invariant, what, stream=recorded.stream, version=recorded.version, position=recorded.position)

    def add(self, violation: Violation) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(violation)
        else:
            self.more += 1

    # -- by position --

    def whole(self, told: History) -> None:
        """The log in order of position: no gap, no epoch that falls, one writer an epoch, no id twice."""
        before, epoch = 0, 0
        for stored in self._by_position():
            batch, head = stored.batch, stored.batch.head
            if stored.position > self.upto:
                break
            if stored.position != before + 1:
                self.found_at(stored, "order", f"position {stored.position} follows {before}")
            if stored.epoch < epoch:
                self.found_at(stored, "writer", f"epoch {stored.epoch} follows epoch {epoch}")
            writer = self.writers.setdefault(stored.epoch, head.writer)
            if writer != head.writer:
                self.found_at(stored, "writer", f"{head.writer!r} wrote under epoch {stored.epoch} of {writer!r}")
            if head.id in self._ids:
                self.found_at(stored, "ids", f"a second batch has the id {head.id}")
            self._ids.add(head.id)
            told.see(stored)
            before, epoch = stored.position + len(batch.rows) - 1, max(epoch, stored.epoch)
            self.batches += 1
            self.events += len(batch.rows)
            self._counts[batch.stream] = self._counts.get(batch.stream, 0) + 1
        if before < self.upto:
            self.found("order", f"the last batch ends at {before}, the log at {self.upto}", position=self.upto)

    def _by_position(self) -> Iterator[Stored]:
        """Every batch that can be read. A damaged one is told of and passed over, and with it, where `SKIPPED_MAX`
        positions in a row are of none, the rest."""
        after, limit, told, skipped = 0, PAGE_BATCHES, "", 0
        while after < self.upto:
            try:
                page = self.log.read_all(after=after, limit=limit)
            except Closed:
                raise
            except Exception as error:  # whatever damaged bytes lead to
                if limit > 1:
                    limit = 1  # As far as the damaged one, batch by batch.
                    continue
                if _say(error) != told:
                    told = _say(error)
                    self.found("atomic", told, position=after + 1)
                after += 1
                skipped += 1
                if skipped > SKIPPED_MAX:
                    self.found("order", "nothing can be read from here on", position=after)
                    return
                continue
            if not page:
                return
            yield from page
            after, limit, skipped = page[-1].position, PAGE_BATCHES, 0

    # -- by stream --

    def streams(self) -> Iterator[str]:
        """Every stream that has a name: in a damaged file one may have lost it."""
        for stream in self.log.streams():
            if isinstance(stream, str):
                yield stream
            else:
                self.found("file", "a stream has no name")

    def stream(self, stream: str) -> bool:
        """One stream from its start. Returns whether its last batch owes something."""
        head = self.log.head(stream)
        reading = _Reading(self, stream, head)
        try:
            noun_of(stream)
        except KeyError:
            self.newer.append(stream)
            reading.exhaust()
        else:
            self._redrive(stream, reading)
        if reading.whole and self._counts.get(stream, 0) != reading.in_time:
            counts = f"{reading.in_time} batches in the stream, {self._counts.get(stream, 0)} in the log"
            self.found("order", f"{counts}, of the same stream", stream=stream)
        return reading.owes

    def _redrive(self, stream: str, reading: _Reading) -> None:
        try:
            again = replay(stream, reading.batches)
        except Exception as error:
            what = f"it cannot be re-driven from here: {_say(error)}"
            self.found("replay", what, stream=stream, version=reading.beginning)
        else:
            self.redriven += again.batches
            self.erased += again.erased
            if again.first_difference is not None:
                self._differs(again.first_difference)
        reading.exhaust()

    def _differs(self, at: Difference) -> None:
        if at.kind == "unknown":
            self.newer.append(at.stream)
        elif at.kind != "chain":  # which is followed to the stream's end elsewhere
            what = f"{at.kind}: recorded {at.recorded}, decided {at.decided}"
            self.found("replay", what, stream=at.stream, version=at.version, position=at.position)

    # -- the tables beside --

    def owing(self, owes: dict[str, bool]) -> None:
        """The streams listed as owing are those whose last batch owes. One that differs is looked at while it rests."""
        listed = set(self.log.streams(owing=True))
        for stream in sorted(filter(None, listed - owes.keys())):
            if not self.log.head(stream):
                self.found("owing", "it is listed, and there is no such stream", stream=stream)
        for stream in owes:
            if owes[stream] != (stream in listed):
                self._owing(stream)

    def _owing(self, stream: str) -> None:
        for _ in range(LOOKS_MAX):
            head = self.log.head(stream)
            listed = stream in self.log.streams(stream, owing=True)
            try:
                page = self.log.read(stream, after=head - 1, limit=1)
            except Closed:
                raise
            except Exception:
                page = []
            if self.log.head(stream) == head:
                owes = bool(page and page[0].batch.head.owes)
                if owes and not listed:
                    self.found("owing", "its last batch owes, and it is not listed", stream=stream, version=head)
                if listed and not owes:
                    self.found("owing", "it is listed, and its last batch owes nothing", stream=stream, version=head)
                return

    def key(self, keyed: Keyed) -> None:
        """An idempotency key stands for the batch that ends at its version."""
        try:
            page = self.log.read(keyed.stream, after=keyed.version - 1, limit=1)
        except Closed:
            raise
        except Exception as error:
            self.found("keys", f"the key {keyed.key!r} cannot be followed: {_say(error)}", stream=keyed.stream)
            return
        if not page or page[0].batch.last != keyed.version:
            what = f"the key {keyed.key!r} of {keyed.scope!r} stands for a batch that is not there"
            self.found("keys", what, stream=keyed.stream, version=keyed.version)


class _Reading:
    """One stream on its way through `replay`, looked at batch by batch as it goes by."""

    def __init__(self, checker: _Checker, stream: str, head: int) -> None:
        self._checker = checker
        self._stream = stream
        self._head = head
        self._chain = b""
        self._calls = Calls()
        self._balance = Balance(checker.changes)
        self._strange = False
        self.batches = self._read()
        self.version = 0
        self.beginning = 1  # of the batch that was looked at last
        self.in_time = 0
        self.whole = True
        self.owes = False

    def exhaust(self) -> None:
        """Look at what the re-driving did not ask for."""
        for _ in self.batches:
            pass

    def _read(self) -> Iterator[Stored]:
        checker, stream = self._checker, self._stream
        while True:
            try:
                page = checker.log.read(stream, after=self.version, limit=PAGE_BATCHES)
            except Closed:
                raise
            except Exception as error:
                checker.found("atomic", _say(error), stream=stream, version=self.version + 1)
                self.whole = False
                return
            if not page:
                break
            for stored in page:
                self._look(stored)
                yield stored
        if self.version < self._head or self._head == 0:
            what = f"what follows version {self.version} cannot be found" if self._head else "it has no events"
            checker.found("order", what, stream=stream, version=self.version + 1)

    def _look(self, stored: Stored) -> None:
        checker, batch = self._checker, stored.batch
        if batch.stream != self._stream or batch.version != self.version:
            what = f"{batch.stream} version {batch.version + 1} follows {self._stream} version {self.version}"
            checker.found_at(stored, "order", what)
        chain = codec.chain(self._chain, batch.head, map(codec.row_digest, batch.rows))
        if chain != batch.head.chain:
            what = f"recorded {batch.head.chain.hex()[:32]}, found {chain.hex()[:32]}"
            checker.found_at(stored, "chain", what)
        # From here on as recorded: one damaged batch is told of once.
        self._chain, self.beginning = batch.head.chain, batch.version + 1
        self.version = max(batch.last, self.version + 1)  # Rises whatever is read, so this ends.
        self.owes = bool(batch.head.owes)
        self.in_time += stored.position <= checker.upto
        try:
            events = codec.unpack(stored)
        except Exception:
            self._balance.lose()
            return  # the re-driving says so
        for recorded in events:
            self._strange = self._strange or isinstance(recorded.data, Unknown)
            if self._strange:  # What this release cannot read may have opened or ended any call.
                self._balance.lose()
                return
            for what in self._calls.see(recorded):
                checker.found_in(recorded, "effects", what)
            for what in self._balance.see(recorded):
                checker.found_in(recorded, "budget", what)


def _say(error: Exception) -> str:
    return str(error) if isinstance(error, ReenactError) else f"{type(error).__name__}: {error}"
