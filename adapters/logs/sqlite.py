"""`SqliteLog`: the log in one file, for the one process that owns it.

One connection writes and checkpoints, under one lock; reads go over connections of their own and wait for no sync.
`commit` is the hot path: everything it is handed becomes one transaction and one sync, whatever it holds.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from functools import cache
from itertools import chain, islice
from typing import Any

from msgspec import Struct

from ...events.errors import (
    BadInput,
    Closed,
    Conflict,
    Corrupt,
    Fenced,
    KeyReused,
    Owned,
    StoreError,
    StoreFailed,
    UnknownOutcome,
)
from ...events.failpoint import failpoint
from ...events.log import Batch, Duplicate, Keyed, Result, Row, Stored, Transaction
from .file import examine, refuse_second_name
from .names import Numbers
from .owner import Ownership
from .reader import KEYED, LANE, Lane, SqliteReader, lane
from .recorder import FIXED_IN, Datastore, SqliteRecorder, code_of, is_log, meaning
from .rows import DEFLATED_BYTES_MIN, FORMAT, INSERT, EventRow, pack_data, pack_head

ROW_BYTES_MAX = 256 * 1024 * 1024
"""The largest event that is taken. SQLite itself ends at 1 GB a row."""

CHECKPOINT_PAGES = 256
"""About how many pages are written ahead before they are moved into the file. Measured: few enough that the
write-ahead log has its size from the start, see `_stretch`; enough that a checkpoint, of about 1 ms, is rare."""

LANES_MAX = 20_000
"""How many streams' versions are remembered; another stream costs one query more."""

_AT_ONCE = (64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1)
"""How many rows a statement writes: few enough statements to stay prepared."""

_PAGE_BYTES = 4096
_PAGES_A_COMMIT = 3  # The newest page of the events, of their index, and of SQLite's own sequence.
_NO_BYTES = (UnicodeEncodeError, OverflowError, TypeError)
_WAITED_FOR = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_NEWEST = (
    "SELECT max(coalesce((SELECT max(position) FROM events), 0),"
    " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0))"
)


class Gate(Struct, frozen=True):
    """The SQLite in use, and whether it has the flaw that `FIXED_IN` ended.

    The flaw needs two connections that write or checkpoint at one moment. A log has one, at any version, and its
    readers never checkpoint; so an affected SQLite is safe here as long as no other program writes to the file.
    """

    version: str
    affected: bool


class SqliteLog:
    """The log at `path`, created when nothing or an empty file is there, readable by this user alone.

    In order: takes the lock of the file, checks what it holds, lets SQLite recover what a crash left, and commits the
    next epoch, which settles the fate of any commit whose outcome was unknown. writer: names this process in the log.
    connection: the class of the connection that writes; tests hand in one that fails.

    Raises `Owned`, `NotALog`, `NewerFormat`, `Corrupt`, `NoAccess`, `NotFound` (the folder), `DiskFull`, `BadInput`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        writer: str | None = None,
        connection: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        examine(os.fspath(path))  # Before the lock: no lock file is left beside what is no log.
        # As SQLite names what it keeps beside the file; and whoever changes the working folder does not move the log.
        self.path = os.path.realpath(path)
        refuse_second_name(self.path)
        self.writer = writer or f"process {os.getpid()}"
        self.epoch = 0
        self._pid = os.getpid()
        self._connection = connection
        self._lock = threading.Lock()
        self._closed = False
        self._failure: str | None = None
        self._position = 0
        self._data_version = 0
        self._unmoved = 0  # About how many pages wait in the write-ahead log.
        self._ownership = Ownership(self.path)
        try:
            failpoint("open.locked")
            self._open()
            failpoint("open.ready")
        except BaseException:
            self._ownership.release()
            raise

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        """See `Log.commit`.

        Raises also `Busy` (another program held the file locked; nothing was written) and, in a fork of the owner,
        `Owned`. The result of a batch without events, of two batches of one stream in one transaction, of an event
        above `ROW_BYTES_MAX` and of what has no bytes (lone surrogates, integers above 64 bits) is a `BadInput`.
        """
        if os.getpid() != self._pid:
            raise Owned(f"Process {self._pid} owns {self.path}; this is a fork of it. Send the owner your commands.")
        with self._lock:
            if self._closed:
                raise Closed(f"The log {self.path} is closed.")
            if self._failure is not None:
                raise StoreFailed(f"{self.path} takes no more writes: {self._failure} Call reopen().")
            db, group, committing = self._db, _Group(self._position), False
            try:
                failpoint("commit.begin")
                db.execute("BEGIN IMMEDIATE")
                self._fence()
                failpoint("commit.begun")
                results = [self._append(transaction, group) for transaction in transactions]
                _write(db, INSERT, group.rows)
                failpoint("commit.rows")
                if group.owing or group.keyed:
                    self._record(group)
                failpoint("commit.recorded")
                committing = True
                db.execute("COMMIT")
                failpoint("commit.executed")
                self._look()
            except sqlite3.Error as error:
                raise self._stop(error, committing) from error
            except BaseException as error:
                self._undo()
                if committing and isinstance(error, Exception):
                    raise self._unknown(error) from error
                raise
            self._position = group.position
            self._remember(group.lanes)
            self._unmoved += _PAGES_A_COMMIT + len(group.lanes) + group.bytes // _PAGE_BYTES
            if self._unmoved > CHECKPOINT_PAGES:
                self._checkpoint()
            return results

    def _fence(self) -> None:
        # data_version changes when another connection has committed: only then can there be another owner, and only
        # then can what we remember of the file be untrue. Within our transaction nobody else commits any more.
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            (epoch,) = self._db.execute("SELECT max(epoch) FROM owners").fetchone()
            if epoch != self.epoch:
                raise Fenced(f"{self.path} has an owner of epoch {epoch}; this one, of {self.epoch}, wrote nothing.")
            self._forget()
            self._data_version = version

    def _look(self) -> None:
        """Raises StoreError where what was just committed is in files that have lost their names: whoever opens the log
        next would not find it. The SQLite of others is kept from that, see `Hold.lock`, but not on every system; and
        who deletes or moves the files is not."""
        lost = self._datastore.hold.lost()
        if lost is not None:
            raise StoreError(f"{lost} was taken away, or is another file now")

    def _append(self, transaction: Transaction, group: _Group) -> Result:
        keyed, batches = transaction.keyed, transaction.batches
        try:
            if keyed is not None:
                before = group.keyed.get((keyed.scope, keyed.key)) or self._keyed(keyed.scope, keyed.key)
                if before is not None:
                    return Duplicate(before) if before.digest == keyed.digest else KeyReused()
            lanes = [group.lanes.get(batch.stream) or self._lane(batch.stream) for batch in batches]
            for batch, lane in zip(batches, lanes, strict=True):
                if lane[1] != batch.version:
                    return Conflict(f"{batch.stream} is at version {lane[1]}, not {batch.version}.")
            if len(batches) > 1 and len({batch.stream for batch in batches}) < len(batches):
                return BadInput("A transaction has two batches of one stream.")
            # All that can be refused is found before the first row, so what is refused leaves nothing in the group.
            heads = [self._pack(batch) for batch in batches]
            numbers = [[self._kind(row) for row in batch.rows] for batch in batches]
        except _NO_BYTES as error:
            return BadInput(f"A transaction has no bytes: {error}.")
        except BadInput as error:
            return error
        results: list[Stored] = []
        position, epoch, add = group.position, self.epoch, group.rows.append
        for batch, (stream, version, owed), head, kinds in zip(batches, lanes, heads, numbers, strict=True):
            stream = stream or self._numbers.new_stream(batch.stream)
            results.append(Stored(position + 1, epoch, batch))
            first: bytes | None = head
            for part in range(len(kinds)):
                position += 1
                version += 1
                kind, key, data = kinds[part]
                add((position, stream, version, part, kind, epoch, key, first, data))
                first = None
                group.bytes += len(data)
            owes = bool(batch.head.owes)
            if owes != owed:
                group.owing[stream] = owes
            group.lanes[batch.stream] = (stream, version, owes)
        group.position = position
        if keyed is not None:
            group.keyed[keyed.scope, keyed.key] = keyed
        return results

    def _pack(self, batch: Batch) -> bytes:
        head, count = batch.head, len(batch.rows)
        if count == 0:
            raise BadInput("A batch has no events.")
        asked, context = self._numbers.type(head.asked, 0), self._numbers.context(head.context)
        return pack_head(head, count=count, asked=asked, context=context, writer=self.writer)

    def _kind(self, row: Row) -> tuple[int, int | None, bytes]:
        data = row.data
        if len(data) > ROW_BYTES_MAX:
            raise BadInput(f"An event of {len(data)} bytes is above the limit of {ROW_BYTES_MAX}.")
        kind = self._numbers.type(row.type, row.schema)
        if row.key is not None:
            return kind, self._numbers.key(row.key), data
        return (kind, *pack_data(data)) if len(data) >= DEFLATED_BYTES_MIN else (kind, None, data)

    def _record(self, group: _Group) -> None:
        db = self._db
        if group.owing:
            _write(db, "INSERT OR IGNORE INTO owing VALUES (?)", [(n,) for n, owes in group.owing.items() if owes])
            _write(db, "DELETE FROM owing WHERE stream IN (?)", [(n,) for n, owes in group.owing.items() if not owes])
        if group.keyed:
            rows = [(k.scope, k.key, k.digest, k.stream, k.version) for k in group.keyed.values()]
            _write(db, "INSERT INTO commands VALUES (?, ?, ?, ?, ?)", rows)

    # What the file holds, as remembered or asked for over the writing connection.

    def _lane(self, stream: str) -> Lane:
        return self._lanes.get(stream) or lane(self._db.execute(LANE, (stream,)).fetchone())

    def _keyed(self, scope: str, key: str) -> Keyed | None:
        found = self._db.execute(KEYED, (scope, key)).fetchone()
        return None if found is None else Keyed(scope, key, *found)

    def _remember(self, lanes: dict[str, Lane]) -> None:
        self._lanes.update(lanes)
        if len(self._lanes) > LANES_MAX:  # The oldest half goes; it is one query each to have them back.
            for stream in list(islice(self._lanes, len(self._lanes) - LANES_MAX // 2)):
                del self._lanes[stream]

    def _forget(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._numbers = Numbers(self._db)
        (self._position,) = self._db.execute(_NEWEST).fetchone()

    # When something fails.

    def _undo(self) -> None:
        """Back to what the file says. Where even that fails, the log takes no more writes."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._forget()
        except sqlite3.Error as error:
            self._failure = f"a rollback failed ({error})."

    def _stop(self, error: sqlite3.Error, committing: bool) -> StoreError:
        """What to raise for an error in a commit. All but a lock and a full disk stop the log: once a write or a sync
        has failed, neither the kernel nor SQLite can be asked what is on the disk."""
        code, before = code_of(error), self._position
        self._undo()
        intact = self._failure is None and self._position == before
        if intact and (code == sqlite3.SQLITE_FULL or (code in _WAITED_FOR and not committing)):
            return meaning(error, self.path)
        self._failure = f"a write failed ({error})."
        if committing:
            return self._unknown(error)
        if code in _DAMAGED:
            return meaning(error, self.path)
        return StoreFailed(f"{self.path}: {error}. Nothing was written, and nothing will be until reopen() is called.")

    def _unknown(self, error: Exception) -> UnknownOutcome:
        self._failure = f"a commit failed ({error})."
        return UnknownOutcome(
            f"{self.path}: {error}. The commit may or may not be in the log: call reopen(), then settled() tells."
        )

    def _checkpoint(self) -> None:
        """Move the write-ahead log into the file, as far as readers and the room on the disk let it.

        What was committed is safe where it is; but where syncing fails, no more is added to it.
        """
        self._unmoved = 0
        try:
            failpoint("checkpoint.begin")
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            failpoint("checkpoint.end")
        except sqlite3.Error as error:
            if code_of(error) not in (sqlite3.SQLITE_FULL, *_WAITED_FOR):
                self._failure = f"a checkpoint failed ({error})."

    def reopen(self) -> None:
        """After an error at a commit: close, let SQLite recover the file, and go on under the next epoch.

        Its own commit settles the fate of the one that failed: what is in the log now stays, what is not never comes.
        Raises what opening raises; then the log still takes no writes.
        """
        with self._lock:
            if self._closed:
                raise Closed(f"The log {self.path} is closed.")
            if not self._datastore.hold.is_at(self.path):  # What is there now has not what was committed.
                raise StoreFailed(f"{self.path} was taken away, or is another file now. Put it back, or open it anew.")
            self._failure = "it could not be reopened."
            self._release()
            self._open()

    def settled(self, transaction: Transaction) -> Result | None:
        """What became of a transaction whose outcome was unknown, asked after `reopen()`.

        Its batches as stored when they are in the log under their ids; a `Conflict` when others stand at their
        versions; None when nothing does: then it was not written, and may be committed again.
        """
        results: list[Stored] = []
        others = 0
        for batch in transaction.batches:
            found = self.read(batch.stream, after=batch.version, limit=1)
            if not found:
                continue
            there = found[0].batch
            if (there.version, there.head.id, len(there.rows)) == (batch.version, batch.head.id, len(batch.rows)):
                results.append(found[0])
            else:
                others += 1
        if transaction.batches and len(results) == len(transaction.batches):
            return results
        if results:
            raise Corrupt(f"{self.path} holds a part of the transaction {transaction.batches[0].head.id}.")
        if others:
            return Conflict()
        keyed = transaction.keyed
        before = None if keyed is None else self.keyed(keyed.scope, keyed.key)
        if keyed is None or before is None:
            return None
        return Duplicate(before) if before.digest == keyed.digest else KeyReused()

    # Opening and closing.

    def _open(self) -> None:
        if examine(self.path) == "missing":
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        datastore = Datastore(self.path, self._connection)
        try:
            with datastore.reading() as cursor:
                created = is_log(cursor, self.path)
            with datastore.translated():
                if not created:
                    SqliteRecorder(datastore).create_table()
                self._datastore, self._db = datastore, datastore.writing()
                self._begin_epoch()
                self._forget()
        except BaseException:
            datastore.close()
            raise
        self._reader = SqliteReader.on(datastore)

    def _begin_epoch(self) -> None:
        db = self._db
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{self.path}: SQLite cannot keep a write-ahead log there, only {mode}. Use a local disk.")
        failpoint("open.epoch")
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"PRAGMA user_version = {FORMAT}")  # from here on an earlier release could not read all of it
        self.epoch = Numbers(db).new_epoch(self.writer, opened=time.time_ns() // 1000)
        db.execute("COMMIT")
        try:
            self._datastore.hold.lock(self.path)
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}. Its files cannot be kept open.") from error
        # What was recovered from a crash is written anew into the file and synced there: a page whose sync failed once
        # is reported clean from then on, on the disk or not.
        self._failure = None
        self._checkpoint()
        self._stretch()
        (self._data_version,) = db.execute("PRAGMA data_version").fetchone()

    def _stretch(self) -> None:
        """Give the write-ahead log its size, by a transaction that is taken back.

        A sync of a file that grows takes twice as long as one of a file that has its blocks: without this, the first
        hundred commits of every owner do. No room for it, or a quota or limit on files: what was taken is given back,
        and it grows as it is written.
        """
        db = self._db
        (cached,) = db.execute("PRAGMA cache_size").fetchone()
        db.execute("PRAGMA cache_size = 10")  # pages, so that the others go to the file before the end
        size = CHECKPOINT_PAGES * _PAGE_BYTES
        fits = self._has_room_for("BEGIN IMMEDIATE") and self._has_room_for(
            f"INSERT INTO owners (writer, opened) VALUES (zeroblob({size}), 0)"
        )
        if db.in_transaction:
            db.execute("ROLLBACK")
        db.execute(f"PRAGMA cache_size = {cached}")
        if not fits:
            self._has_room_for("PRAGMA wal_checkpoint(TRUNCATE)")

    def _has_room_for(self, statement: str) -> bool:
        """Execute what need not be kept; False where there was no room for it, or a lock. Any other error is raised."""
        try:
            self._db.execute(statement).fetchone()
        except sqlite3.Error as error:
            # A quota and a limit on the size of files look like any write that failed.
            over = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_WRITE
            if not over and code_of(error) not in (sqlite3.SQLITE_FULL, *_WAITED_FOR):
                raise
            return False
        return True

    def close(self) -> None:
        """Release the file and the ownership. Idempotent."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if not self._closed:
                failpoint("log.close")
                self._closed = True
                self._release()
                self._ownership.release()

    def _release(self) -> None:
        self._datastore.hold.unlock()
        self._datastore.close()

    def announce(self, socket: str | None) -> None:
        """Say in the lock file where this process takes commands, so that others find it with `owner_of`."""
        self._ownership.announce(socket)

    # Reading: see `SqliteReader`.

    @property
    def position(self) -> int:
        """The position of the newest event, 0 when there is none."""
        return self._position

    @property
    def recorder(self) -> SqliteRecorder:
        """The log as eventsourcing sees it."""
        return self._reader.recorder

    def head(self, stream: str) -> int:
        """The stream's version, 0 when it has no events."""
        remembered = self._lanes.get(stream)
        return self._reader.head(stream) if remembered is None else remembered[1]

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        """The batches of a stream whose events have versions above `after`, oldest first; at most `limit` batches."""
        return self._reader.read(stream, after=after, limit=limit)

    def read_all(self, *, after: int = 0, limit: int = 1000) -> list[Stored]:
        """The batches whose first event has a position above `after`, in order of position; at most `limit` batches."""
        return self._reader.read_all(after=after, limit=limit)

    def streams(self, prefix: str = "", *, owing: bool = False) -> list[str]:
        """Names of streams in order of creation. owing: only those whose last batch still owes an effect."""
        return self._reader.streams(prefix, owing=owing)

    def keyed(self, scope: str, key: str) -> Keyed | None:
        """What an idempotency key stands for, or None."""
        return self._reader.keyed(scope, key)


class _Group:
    """What one commit is going to write, and what it will have changed when it has."""

    __slots__ = ("bytes", "keyed", "lanes", "owing", "position", "rows")

    def __init__(self, position: int) -> None:
        self.position = position
        self.rows: list[EventRow] = []
        self.bytes = 0
        self.lanes: dict[str, Lane] = {}
        self.owing: dict[int, bool] = {}
        self.keyed: dict[tuple[str, str], Keyed] = {}


def _write(db: sqlite3.Connection, statement: str, rows: list[Any]) -> None:
    """Run a statement over rows, several at a time.

    Before and after every row of an `executemany` other threads are let in, and a busy one gives the interpreter back
    only after 5 ms: 300 rows beside a busy loop took 250 ms so, and take 6 ms thus.
    """
    done, count = 0, len(rows)
    for size in _AT_ONCE:
        while count - done >= size:
            db.execute(_several(statement, size), tuple(chain.from_iterable(rows[done : done + size])))
            done += size


@cache
def _several(statement: str, size: int) -> str:
    """The statement for so many rows: the marks in its last brackets repeated."""
    start = statement.rindex("(")
    marks = statement[start:]
    if " IN " in statement:
        return statement[:start] + "(" + ", ".join("?" * size) + ")"
    return statement[:start] + ", ".join([marks] * size)


def gate() -> Gate:
    """The SQLite in use."""
    return Gate(sqlite3.sqlite_version, sqlite3.sqlite_version_info < FIXED_IN)
