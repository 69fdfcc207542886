"""The log: the port every store fits, the rows it keeps, and `MemoryLog`, the reference the others are tested against.

A store keeps *batches*: the events of one command in one stream, whole or not at all. It knows bytes, never what they
mean. To write another store, read `MemoryLog`: it is the smallest one that keeps every promise but durability.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from .errors import BadInput, Closed, Conflict, Fenced, KeyReused, ReenactError
from .message import Head


class Row(Struct, frozen=True, gc=False):
    """One event as bytes. key: id of the key that `data` is sealed with, None when plain."""

    type: str
    schema: int
    data: bytes
    key: str | None = None


class Batch(Struct, frozen=True, gc=False):
    """The events of one command in one stream. version: the stream's before it; its first event has version + 1."""

    stream: str
    version: int
    head: Head
    rows: tuple[Row, ...]

    @property
    def last(self) -> int:
        """The stream's version after it."""
        return self.version + len(self.rows)


class Stored(Struct, frozen=True, gc=False):
    """A batch as it lies in the log: `position` of its first event, and the epoch under which it was appended."""

    position: int
    epoch: int
    batch: Batch


class Keyed(Struct, frozen=True, gc=False):
    """An idempotency key and what it stands for: unique (scope, key), the digest of the command, where its batch is."""

    scope: str
    key: str
    digest: bytes
    stream: str
    version: int


class Transaction(Struct, frozen=True, gc=False):
    """Batches of different streams, appended together or not at all, with the key of their command if it has one."""

    batches: tuple[Batch, ...]
    keyed: Keyed | None = None


class Duplicate(Struct, frozen=True, gc=False):
    """The answer for a keyed command that was appended before: nothing was written now, `keyed` says where it is."""

    keyed: Keyed


Result = Sequence[Stored] | Duplicate | ReenactError
"""Of one transaction: its stored batches, the earlier command with its key, or why nothing of it was written."""


class Log(Protocol):
    """Append at an expected version under an epoch; read a stream; read everything after a position.

    epoch: this owner's number, higher than that of every owner before. writer: names this process.
    """

    epoch: int
    writer: str

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        """Append the transactions in order, durably, and return one result each.

        Each stands alone: a `Conflict`, `KeyReused` or `Duplicate` of one writes nothing of that one and leaves the
        others be; so does `BadInput`, for a batch without events and for two batches of one stream. Versions are
        contiguous, positions rise in the order of the arguments. When it returns, all that it reports as stored
        survives a crash. Blocks until then. Calls do not overlap.

        Raises `Fenced` (nothing written: a higher epoch exists), `DiskFull` (nothing written), `Busy` (nothing written:
        another program holds a lock), `UnknownOutcome` (an error at commit; from then on `StoreFailed` until the log is
        reopened), `Closed`.
        """
        ...

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        """The batches of a stream whose events have versions above `after`, oldest first; at most `limit` batches."""
        ...

    def read_all(self, *, after: int = 0, limit: int = 1000) -> list[Stored]:
        """The batches whose first event has a position above `after`, in order of position; at most `limit` batches."""
        ...

    def head(self, stream: str) -> int:
        """The stream's version, 0 when it has no events."""
        ...

    @property
    def position(self) -> int:
        """The position of the newest event, 0 when there is none."""
        ...

    def streams(self, prefix: str = "", *, owing: bool = False) -> list[str]:
        """Names of streams in order of creation. owing: only those whose last batch still owes an effect."""
        ...

    def keyed(self, scope: str, key: str) -> Keyed | None:
        """What an idempotency key stands for, or None."""
        ...

    def close(self) -> None:
        """Give up ownership and release everything. Idempotent."""
        ...


class MemoryStore:
    """What outlives a `MemoryLog`: open another log on the same store to act a new owner after a crash."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.epoch = 0
        self.all: list[Stored] = []
        self.by_stream: dict[str, list[Stored]] = {}
        self.keys: dict[tuple[str, str], Keyed] = {}
        self.position = 0


class MemoryLog:
    """The reference log. Keeps every promise of `Log` except durability: it is gone with its `MemoryStore`."""

    def __init__(self, store: MemoryStore | None = None, *, writer: str = "memory") -> None:
        self._store = store or MemoryStore()
        self.writer = writer
        with self._store.lock:
            self._store.epoch += 1
            self.epoch = self._store.epoch
        self._closed = False

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        store = self._store
        with store.lock:
            if self._closed:
                raise Closed("This log is closed.")
            if store.epoch != self.epoch:
                raise Fenced()
            return [self._append(transaction) for transaction in transactions]

    def _append(self, transaction: Transaction) -> Result:
        store, keyed = self._store, transaction.keyed
        if keyed is not None:
            before = store.keys.get((keyed.scope, keyed.key))
            if before is not None:
                return Duplicate(before) if before.digest == keyed.digest else KeyReused()
        for batch in transaction.batches:
            if self._version(batch.stream) != batch.version:
                return Conflict(f"{batch.stream} is at version {self._version(batch.stream)}, not {batch.version}.")
        if len({batch.stream for batch in transaction.batches}) < len(transaction.batches):
            return BadInput("A transaction has two batches of one stream.")
        if not all(batch.rows for batch in transaction.batches):
            return BadInput("A batch has no events.")
        written = []
        for batch in transaction.batches:
            stored = Stored(store.position + 1, self.epoch, batch)
            store.position += len(batch.rows)
            store.all.append(stored)
            store.by_stream.setdefault(batch.stream, []).append(stored)
            written.append(stored)
        if keyed is not None:
            store.keys[keyed.scope, keyed.key] = keyed
        return written

    def _version(self, stream: str) -> int:
        batches = self._store.by_stream.get(stream)
        return batches[-1].batch.last if batches else 0

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        with self._store.lock:
            batches = self._store.by_stream.get(stream, [])
            start = bisect_right(batches, after, key=lambda stored: stored.batch.last)
            return batches[start : None if limit is None else start + limit]

    def read_all(self, *, after: int = 0, limit: int = 1000) -> list[Stored]:
        with self._store.lock:
            start = bisect_right(self._store.all, after, key=lambda stored: stored.position)
            return self._store.all[start : start + limit]

    def head(self, stream: str) -> int:
        with self._store.lock:
            return self._version(stream)

    @property
    def position(self) -> int:
        return self._store.position

    def streams(self, prefix: str = "", *, owing: bool = False) -> list[str]:
        with self._store.lock:
            return [
                name
                for name, batches in self._store.by_stream.items()
                if name.startswith(prefix) and (not owing or batches[-1].batch.head.owes)
            ]

    def keyed(self, scope: str, key: str) -> Keyed | None:
        with self._store.lock:
            return self._store.keys.get((scope, key))

    def close(self) -> None:
        self._closed = True
