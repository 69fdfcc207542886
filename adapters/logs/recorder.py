"""The connections to a log file, and eventsourcing's view of it.

Eventsourcing's SQLite recorder, subclassed for our rows: its pool, its transactions and its errors; and its readers, so
that whatever is written for `ApplicationRecorder` can read a log. Nothing appends through it: that is `SqliteLog`.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    ConnectionPoolClosedError,
    Notification,
    NotSupportedError,
    PersistenceError,
    StoredEvent,
)
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteDatastore,
)

from ...events.errors import Busy, Closed, Corrupt, DiskFull, NoAccess, NotALog, StoreError
from .file import refuse_newer
from .hold import take
from .rows import APPLICATION, EARLIER, FORMAT, TABLES, VIEW, unpack_data

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for a lock that another program holds on the file."""

READERS_MAX = 4
"""Connections for reading that one log keeps; more readers wait for one of them."""

WAL_BYTES_MAX = 4 * 1024 * 1024
"""To what size the write-ahead log is cut back after a checkpoint. A file that keeps its blocks syncs faster."""

FIXED_IN = (3, 51, 3)
"""The SQLite that no longer corrupts a log when two connections write or checkpoint at the same moment."""

# Measured, one by one, against simulated power loss: only WAL with FULL kept every acknowledged event. fullfsync is for
# macOS, whose fsync does not flush the disk. mmap: a stray pointer or a truncated file must not reach the pages.
_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA mmap_size = 0",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA foreign_keys = ON",
)
_WRITER_PRAGMAS = (
    f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}",
    # A checkpoint inside a commit swallows its I/O errors, so `SqliteLog` makes its own; this is a net far below them.
    "PRAGMA wal_autocheckpoint = 8000",
)


class Datastore(SQLiteDatastore):
    """The connections to one file. writer: class of the one connection that writes; None for a file that is only read.

    The first connection taken is the writer's and stays taken; the others are opened `mode=ro` and never checkpoint.
    """

    def __init__(self, path: str, writer: type[sqlite3.Connection] | None = None) -> None:
        super().__init__(path, originator_id_type="text")
        self.path = path
        self.pool = _Pool(path, writer)
        self._held = False
        try:
            self.hold = take(path)
        except OSError as error:
            raise NoAccess(f"{path}: {error.strerror}. Give this user the right, or give another path.") from error
        self._held = True
        _open.add(self)

    def close(self) -> None:
        """Close what is open, and give the file back. Idempotent."""
        super().close()
        if self._held:
            self._held = False
            self.hold.give_back()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Cursor]:
        """A cursor in a read transaction. Raises `Closed`, or what `meaning` makes of an error."""
        with self.translated(), self.transaction(commit=False) as cursor:
            yield cursor.sqlite_cursor

    def writing(self) -> sqlite3.Connection:
        """The one connection that writes, taken for good: from now on eventsourcing's own writers wait in vain."""
        with self.translated():
            cursor = self.pool.get_connection(is_writer=True).cursor().sqlite_cursor
        connection: sqlite3.Connection = cursor.connection
        return connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Errors of SQLite and of eventsourcing become ours."""
        try:
            yield
        except ConnectionPoolClosedError:
            raise Closed(f"The log {self.path} is closed.") from None
        except sqlite3.Error as error:
            raise meaning(error, self.path) from error
        except UnicodeDecodeError as error:  # A text of SQLite's that quotes damaged bytes.
            raise Corrupt(f"{self.path}: its schema cannot be read. Restore the file from a backup.") from error
        except PersistenceError as error:
            cause = error.__cause__
            raise (meaning(cause, self.path) if isinstance(cause, sqlite3.Error) else Busy(str(error))) from error


class _Pool(SQLiteConnectionPool):
    def __init__(self, path: str, writer: type[sqlite3.Connection] | None) -> None:
        super().__init__(db_name=path, pool_size=READERS_MAX, max_overflow=0 if writer is None else 1)
        self._writer = writer
        self._closing = False

    def close(self) -> None:
        with self._put_condition:
            self._closing = True
            # To close a connection while another thread reads over it crashes the process. Pages are short, so they are
            # waited for; a reader that still holds one keeps it, and it is closed when the last name for it is gone.
            self._put_condition.wait_for(lambda: not self._reading(), timeout=BUSY_TIMEOUT_S)
            for number in self._reading():
                del self._in_use[number]
            # The writer last: the last to close takes the write-ahead log away, and a reader may not.
            while self._pool:
                self._pool.popleft().close()
            super().close()

    def _reading(self) -> list[int]:
        return [number for number, connection in self._in_use.items() if not connection.is_writer]

    def _get_connection(self, timeout: float = 0.0) -> SQLiteConnection:
        with self._put_condition:
            if self._closing:
                raise ConnectionPoolClosedError
            return super()._get_connection(timeout)

    def _create_connection(self) -> SQLiteConnection:
        kind, self._writer = self._writer, None
        mode = "ro" if kind is None else "rw"
        connection = sqlite3.connect(
            _uri(self.db_name, mode),
            uri=True,
            factory=kind or sqlite3.Connection,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,  # Transactions begin and end where we say.
            check_same_thread=False,  # The pool hands a connection to one thread at a time.
            cached_statements=64,
        )
        try:
            for pragma in _PRAGMAS if kind is None else _PRAGMAS + _WRITER_PRAGMAS:
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return SQLiteConnection(connection, max_age=None)


def _uri(path: str, mode: str) -> str:
    path = os.path.abspath(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23").replace(os.sep, "/")
    return f"file://{'' if path.startswith('/') else '/'}{path}?mode={mode}"


class SqliteRecorder(SQLiteApplicationRecorder):
    """A log as eventsourcing sees it: originator is the stream, topic the event's type, state its bytes."""

    def __init__(self, datastore: Datastore) -> None:
        super().__init__(datastore, events_table_name="events")

    def construct_create_table_statements(self) -> list[str]:
        # In one transaction with the tables: a file is a whole log or still an empty file.
        return [f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {FORMAT}", *TABLES.values(), VIEW]

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Always raises: rows without the head of their batch are no history. Append with `SqliteLog.commit`."""
        raise NotSupportedError("Append with SqliteLog.commit.")

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        statement = (
            "SELECT e.position, e.version, t.name, e.key, e.data FROM events e JOIN types t ON t.number = e.type"
            " WHERE e.stream = (SELECT number FROM streams WHERE name = ?) AND e.version > ? AND e.version <= ?"
            f" ORDER BY e.version {'DESC' if desc else 'ASC'} LIMIT ?"
        )
        stream = str(originator_id)
        bounds = (stream, gt or 0, 2**63 - 1 if lte is None else lte, -1 if limit is None else limit)
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute(statement, bounds)
            return [
                StoredEvent(stream, version, topic, unpack_data(key, data, position))
                for position, version, topic, key, data in cursor.fetchall()
            ]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        first = 1 if start is None else start if inclusive_of_start else start + 1
        statement = (
            "SELECT e.position, s.name, e.version, t.name, e.key, e.data FROM events e"
            " JOIN streams s ON s.number = e.stream JOIN types t ON t.number = e.type"
            f" WHERE e.position >= ? AND e.position <= ? {f'AND t.name IN ({_marks(topics)})' if topics else ''}"
            " ORDER BY e.position LIMIT ?"
        )
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute(statement, (first, 2**63 - 1 if stop is None else stop, *topics, limit))
            return [
                Notification(
                    id=position,
                    originator_id=stream,
                    originator_version=version,
                    topic=topic,
                    state=unpack_data(key, data, position),
                )
                for position, stream, version, topic, key, data in cursor.fetchall()
            ]


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def is_log(cursor: sqlite3.Cursor, path: str) -> bool:
    """Whether the database holds a log of ours; False when it holds nothing at all.

    Raises `NotALog` for another program's database, `NewerFormat`, and `Corrupt` when tables are missing or altered.
    """
    (application,) = cursor.execute("PRAGMA application_id").fetchone()
    (format_,) = cursor.execute("PRAGMA user_version").fetchone()
    found = {name: (kind, sql) for kind, name, sql in cursor.execute("SELECT type, name, sql FROM sqlite_master")}
    if application == 0 and format_ == 0 and not found:
        return False
    if application != APPLICATION:
        raise NotALog(f"{path} is a SQLite database of another program, not a reenact log. Give another path.")
    refuse_newer(path, format_)
    for name, (kind, _) in found.items():
        if kind == "trigger":  # It would run inside our commits.
            raise Corrupt(f"{path} has a trigger, {name}, which reenact did not make. Drop it after reading it.")
    for name, sql in TABLES.items():
        if found.get(name) not in (("table", sql), ("table", EARLIER.get(name))):
            raise Corrupt(f"{path}: the table {name} is missing or was altered. Restore the file from a backup.")
    return True


def meaning(error: sqlite3.Error, path: str) -> StoreError:
    """What an error of SQLite means to whoever uses the log: which of ours, what was found and what to do."""
    code = code_of(error)
    found = f"{path}: {error}"
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(f"{found}. Nothing was written. Free some space and try again.")
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:
        return DiskFull(f"{found}. There is no room for the -shm file (32 KB) that readers share. Free some space.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"{found} for {BUSY_TIMEOUT_S:.0f} s by another program. Nothing was written. Try again.")
    if code == sqlite3.SQLITE_CORRUPT:
        return Corrupt(f"{found}. Restore the file from a backup, or copy what can still be read with `.recover`.")
    if code == sqlite3.SQLITE_NOTADB:
        return NotALog(f"{path} is not a SQLite database, so not a reenact log. Give another path.")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH):
        return NoAccess(
            f"{found}. This user may not open the log, or may not create files beside it."
            " Give the user those rights, or copy the log with its -wal file to a folder of the user's own."
        )
    return StoreError(f"{found}.")


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 for an error that Python's module raised itself."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


# SQLite forbids even closing in a child what the parent opened: the close could checkpoint with a state long gone. So
# in a fork of this process every datastore gets one reference that is never given back, and is never closed.
_open: weakref.WeakSet[Datastore] = weakref.WeakSet()


def _keep_for_ever() -> None:
    import ctypes

    for datastore in _open:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(datastore))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_for_ever)
