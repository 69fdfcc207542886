"""Reading a log file: beside its owner, after it, or within it.

Opens `mode=ro` and never checkpoints, so no number of readers can harm a file. Never `immutable`: that would read a
file that moves as if it stood still. Each page is a short transaction of its own, so a reader that dawdles holds no
write-ahead log back.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

from ...events.errors import Closed, Corrupt, NotALog, NotFound
from ...events.log import Keyed, Stored
from .file import examine
from .names import Names
from .recorder import Datastore, SqliteRecorder, is_log
from .rows import COLUMNS, EventRow, batches

PAGE_ROWS = 2000
PAGE_BYTES = 8 * 1024 * 1024
"""A page ends at either; a single row may be larger."""

FLAWS_MAX = 100
"""How many flaws of a file SQLite is asked to name."""

_OF_STREAM = f"SELECT {COLUMNS} FROM events WHERE stream = ? AND version >= ? ORDER BY version"
_OF_ALL = f"SELECT {COLUMNS} FROM events WHERE position >= ? ORDER BY position"
# A batch is contiguous in its stream and in the log, so its beginning is told by any of its rows.
_BEGINNING = (
    "SELECT stream, version - part FROM events"
    " WHERE version = ? AND stream = (SELECT number FROM streams WHERE name = ?)"
)
_NEXT_BEGINNING = "SELECT position FROM events WHERE position > ? AND part = 0 ORDER BY position LIMIT 1"

LANE = (
    "SELECT number, (SELECT max(version) FROM events WHERE stream = number),"
    " EXISTS (SELECT 1 FROM owing WHERE stream = number) FROM streams WHERE name = ?"
)
KEYED = "SELECT digest, stream, version FROM commands WHERE scope = ? AND key = ?"

_COMMANDS = "SELECT scope, key, digest, stream, version FROM commands {above}ORDER BY scope, key LIMIT ?"
_NEWEST_AND_GIVEN = (
    "SELECT coalesce((SELECT max(position) FROM events), 0),"
    " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)"
)

_Bounds = tuple[int, ...]

Lane = tuple[int, int, bool]
"""A stream's number (0: none yet), its version, and whether its last batch owes an effect."""


class SqliteReader:
    """The reading half of `Log` on the file at `path`, which must be a log already.

    Raises `NotFound` when there is none, `NotALog`, `NewerFormat`, `Corrupt`, `NoAccess`; and `NoAccess` for a log
    whose -shm file is gone and cannot be made, as in a folder without the right to write: copy it elsewhere.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        found = examine(os.fspath(path))
        self.path = os.path.realpath(path)
        if found != "log":
            raise NotFound(f"{self.path}: no log has been started there. Give another path, or start one.")
        datastore = Datastore(self.path)
        try:
            with datastore.reading() as cursor:
                if not is_log(cursor, self.path):
                    raise NotFound(f"{self.path}: no log has been started there. Give another path, or start one.")
        except BaseException:
            datastore.close()
            raise
        self._begin(datastore)

    @classmethod
    def on(cls, datastore: Datastore) -> SqliteReader:
        """A reader over connections that are open already: those of the owner."""
        self = cls.__new__(cls)
        self.path = datastore.path
        self._begin(datastore)
        return self

    def _begin(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._pid = os.getpid()
        self._names = Names(self._row)

    @property
    def recorder(self) -> SqliteRecorder:
        """The log as eventsourcing sees it."""
        return SqliteRecorder(self._datastore)

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        """The batches of a stream whose events have versions above `after`, oldest first; at most `limit` batches."""
        found = self._row(_BEGINNING, max(after, 0) + 1, stream)
        if found is None:
            return []
        number, first = found
        rows = self._rows(_OF_STREAM, (number, first), limit, following=lambda row: (number, row[2] + 1))
        return self._batches(rows, limit)

    def read_all(self, *, after: int = 0, limit: int = 1000) -> list[Stored]:
        """The batches whose first event has a position above `after`, in order of position; at most `limit` batches."""
        beginning = self._row(_NEXT_BEGINNING, after)
        if beginning is None:
            return []
        if beginning[0] <= after:
            raise Corrupt(f"{self.path}: event {beginning[0]} stands behind event {after}.")
        rows = self._rows(_OF_ALL, beginning, limit, following=lambda row: (row[0] + 1,))
        return self._batches(rows, limit)

    def head(self, stream: str) -> int:
        """The stream's version, 0 when it has no events."""
        return lane(self._row(LANE, stream))[1]

    @property
    def position(self) -> int:
        """The position of the newest event, 0 when there is none."""
        found: tuple[int] = self._row("SELECT coalesce(max(position), 0) FROM events") or (0,)
        return found[0]

    @property
    def epoch(self) -> int:
        """The epoch of the newest owner."""
        found: tuple[int] = self._row("SELECT coalesce(max(epoch), 0) FROM owners") or (0,)
        return found[0]

    def streams(self, prefix: str = "", *, owing: bool = False) -> list[str]:
        """Names of streams in order of creation. owing: only those whose last batch still owes an effect."""
        only = " JOIN owing ON stream = number" if owing else ""
        with self._cursor() as cursor:
            if not prefix:
                return [name for (name,) in cursor.execute(f"SELECT name FROM streams{only} ORDER BY number")]
            found = []
            # In order of name those with the prefix lie together, and the index finds the first.
            for name, number in cursor.execute(
                f"SELECT name, number FROM streams{only} WHERE name >= ? ORDER BY name", (prefix,)
            ):
                if not name.startswith(prefix):
                    break
                found.append((number, name))
        return [name for _, name in sorted(found)]

    def keyed(self, scope: str, key: str) -> Keyed | None:
        """What an idempotency key stands for, or None."""
        found = self._row(KEYED, scope, key)
        return None if found is None else Keyed(scope, key, *found)

    def commands(self) -> Iterator[Keyed]:
        """Every idempotency key and what it stands for, in order of scope and key."""
        above, last = "", list[str]()
        while True:
            with self._cursor() as cursor:
                page = cursor.execute(_COMMANDS.format(above=above), (*last, PAGE_ROWS)).fetchall()
            for row in page:
                yield Keyed(*row)
            if len(page) < PAGE_ROWS:
                return
            before, last = last, page[-1][:2]
            if not all(isinstance(each, str) for each in last) or (before and last <= before):
                raise Corrupt(f"{self.path}: the idempotency keys are out of order at {last[1]!r}.")
            above = "WHERE (scope, key) > (?, ?) "

    def flaws(self) -> list[str]:
        """What SQLite finds wrong with the file, and whether its newest events were taken away. Reads all of it."""
        try:
            with self._cursor() as cursor:
                found = [text for (text,) in cursor.execute(f"PRAGMA integrity_check({FLAWS_MAX})") if text != "ok"]
                newest, given = cursor.execute(_NEWEST_AND_GIVEN).fetchone()
        except (Corrupt, NotALog) as error:
            return [str(error)]
        if newest < given:
            found.append(f"The newest event is {newest}, and position {given} was given before.")
        return found

    def close(self) -> None:
        """Release the file. Idempotent."""
        if os.getpid() == self._pid:
            self._datastore.close()

    def _batches(self, rows: Iterator[EventRow], limit: int | None) -> list[Stored]:
        try:
            return list(islice(batches(rows, self._names), limit))
        except TypeError as error:  # SQLite lets any column hold anything, so damage may put a NULL or a text there.
            raise Corrupt(f"{self.path}: a row holds what its column never does: {error}.") from error

    def _cursor(self) -> AbstractContextManager[sqlite3.Cursor]:
        if os.getpid() != self._pid:
            raise Closed(f"{self.path} was opened by process {self._pid}, of which this is a fork. Open it anew.")
        return self._datastore.reading()

    def _row(self, statement: str, *parameters: object) -> Any:
        with self._cursor() as cursor:
            return cursor.execute(statement, parameters).fetchone()

    def _rows(
        self, statement: str, start: _Bounds, limit: int | None, *, following: Callable[[EventRow], _Bounds]
    ) -> Iterator[EventRow]:
        """The rows from `start` on, page by page, to at least the end of batch number `limit`."""
        left = -1 if limit is None else limit
        on: _Bounds | None = start
        while on is not None:
            page: list[EventRow] = []
            size = 0
            with self._cursor() as cursor:
                rows, on = cursor.execute(statement, on), None
                for row in rows:
                    if row[3] == 0:  # The first row of a batch.
                        if left == 0:
                            break
                        left -= 1
                    page.append(row)
                    size += len(row[8]) if type(row[8]) is bytes else 0  # A damaged file holds anything.
                    if len(page) >= PAGE_ROWS or size >= PAGE_BYTES:
                        on = following(row)
                        break
            yield from page


def lane(row: tuple[int, int | None, int] | None) -> Lane:
    """What a row of the query `LANE` says."""
    return (0, 0, False) if row is None else (row[0], row[1] or 0, bool(row[2]))
