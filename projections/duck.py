"""The log as tables for SQL, in DuckDB. Home of duckdb, which is loaded when one is opened.

Disposable: it says nothing that the log does not, and is thrown away and laid out anew when its schema is of another
release, when it is damaged, or when it is of another log. Its position moves in the same transaction as its rows.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct
from msgspec.structs import astuple

from ..events.errors import BadQuery, Closed, DiskFull, ViewFailed
from ..events.failpoint import failpoint
from ..events.log import Stored
from .arrow import arrow
from .audit import AuditLog
from .file import ViewFile
from .ledger import Ledger
from .projection import PAGE, Reader
from .sheet import Layout, Sheet
from .tables import SCHEMA, TABLES, VIEWS

if TYPE_CHECKING:
    import duckdb

BATCH_EVENTS = 20_000
"""Events of one transaction while catching up: one costs about ten milliseconds, whatever its size."""

BATCH_BYTES = 64 * 1024 * 1024
"""And text of one, for some events are large."""

VERSION = f"{SCHEMA}.{Ledger.version}.{AuditLog.version}"
"""What a file was laid out by. Another one: it is laid out anew."""

BYTES_MAX = 64 * 1024 * 1024
"""Text of one answer."""

MEMORY = ":memory:"

_PROGRESS = "reenact_progress"
"""The table with one row, how far the others are. By its name a file is known to be ours."""

Progress = Callable[[int, int], object]
"""progress(events done, events to do), while the tables catch up."""


class Answer(Struct, frozen=True):
    """What a query found. cut: there were more rows than were to be read."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    cut: bool = False


class DuckProjection:
    """The tables of `projections.tables`, in a file or in memory.

    path: a file of its own, which only one process may have open. memory_limit: as DuckDB writes it, for everything;
    in memory the tables themselves must fit, which takes about 1 KB an event beside what was said. Catching up and
    asking may go on in several threads at once; each waits for its like.

    Raises `Owned` when another process has the file, `NoAccess` when it may not be used, `ViewFailed` when it is
    somebody else's: a file that is no projection is never thrown away.
    """

    name = "duck"
    version = SCHEMA

    def __init__(
        self, path: str | os.PathLike[str] = MEMORY, *, memory_limit: str = "2GB", threads: int | None = None
    ) -> None:
        self.path = os.fspath(path)
        self._config: dict[str, Any] = {"memory_limit": memory_limit, "threads": threads or min(4, os.cpu_count() or 1)}
        self._writing = threading.RLock()
        self._asking = threading.Lock()
        self._layout = Layout()
        self._closed = self._damaged = False
        self._file = None if self.path == MEMORY else ViewFile(self.path, magic=b"DUCK")
        try:
            self._open()
        except BaseException:
            self._disconnect()
            if self._file is not None:
                self._file.release()
            raise

    @property
    def position(self) -> int:
        """The position of the newest event in the tables, 0 when there is none."""
        return self._mark.position

    # -- from the log into the tables --

    def catch_up(self, log: Reader, *, progress: Progress | None = None, batch_events: int = BATCH_EVENTS) -> int:
        """Take over everything that the log has and the tables have not, in transactions of about `batch_events`.

        Returns the position reached. Tables that are damaged, or of another log, are laid out anew from its first
        event. Raises what the log raises, `DiskFull`, `ViewFailed`; what was taken over before stays.
        """
        import duckdb

        with self._writing:
            if self._closed:
                raise Closed("These tables are closed.")
            try:
                if self._damaged or not self._is_of(log):
                    self._discard()
                return self._catch_up(log, progress, batch_events)
            except duckdb.Error as error:
                self._raise_if_full(error)
                self._discard()
            try:
                return self._catch_up(log, progress, batch_events)
            except duckdb.Error as error:
                self._raise_if_full(error)
                raise ViewFailed(f"{self.path}: {_said(error)}") from error

    def rebuild(self, log: Reader, *, progress: Progress | None = None, batch_events: int = BATCH_EVENTS) -> int:
        """Throw everything away and take it over again, as after an erasure: what the log forgot is then forgotten."""
        with self._writing:
            if self._closed:
                raise Closed("These tables are closed.")
            self._discard()
            return self.catch_up(log, progress=progress, batch_events=batch_events)

    def _catch_up(self, log: Reader, progress: Progress | None, batch_events: int) -> int:
        start = self._mark.position
        goal = max(getattr(log, "position", start), start) if progress is not None else start
        sheet, layout, after, mark = Sheet(), self._layout, start, self._mark
        with _Behind() as behind:
            try:
                while stored := log.read_all(after=after, limit=min(PAGE, max(1, batch_events))):
                    for batch in stored:
                        layout.take(batch, sheet, log)
                        after = batch.position + len(batch.batch.rows) - 1
                        if len(sheet) >= batch_events or sheet.size >= BATCH_BYTES:
                            mark = mark.beyond(after, sheet, batch)
                            behind.do(self._write, arrow(sheet), mark)
                            sheet = Sheet()
                    last = stored[-1]
                    if progress is not None:
                        goal = max(goal, after)
                        progress(after - start, goal - start)
                behind.wait()
                if len(sheet):
                    self._write(arrow(sheet), mark.beyond(after, sheet, last))
            except BaseException:
                self._layout = Layout()  # They may be ahead of the tables now.
                raise
        return self._mark.position

    def _is_of(self, log: Reader) -> bool:
        """Whether the last batch in the tables is where it was in the log, and is the same."""
        mark = self._mark
        if mark.position == 0:
            return True
        stored = log.read_all(after=mark.batch - 1, limit=1)
        return bool(stored) and (stored[0].position, stored[0].batch.head.id) == (mark.batch, mark.id)

    def _write(self, tables: Mapping[str, Any], mark: _Mark) -> None:
        """One transaction. tables: table -> its new rows, in Arrow."""
        connection = self._connection
        connection.execute("BEGIN")
        try:
            for table, rows in tables.items():
                connection.register("incoming", rows)
                connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")
                connection.unregister("incoming")
            connection.execute(
                f"UPDATE {_PROGRESS} SET position = ?, facts = ?, ledger_calls = ?, tool_calls = ?, batch = ?, id = ?",
                astuple(mark),
            )
            failpoint("projection.commit")
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):
                connection.execute("ROLLBACK")
            raise
        self._mark = mark
        failpoint("projection.committed")
        if self._file is not None:
            self._file.keep_private()

    # -- from the tables to whoever asks --

    def sql(
        self,
        query: str,
        parameters: Sequence[object] | Mapping[str, object] | None = None,
        *,
        timeout_s: float = 5.0,
        rows_max: int = 100_000,
    ) -> Answer:
        """What one SELECT finds, at most `rows_max` rows. It reads the tables and nothing else, and changes nothing.

        No file, network, extension or setting is within its reach; it runs in a transaction that may only read, and is
        stopped after `timeout_s`. An answer of more than `BYTES_MAX` of text is cut too. Raises `BadQuery`, saying why
        it was not run or not to its end; `ViewFailed` where the tables turn out to be damaged: they are laid out anew
        when they next catch up, here or in the next process.
        """
        import duckdb

        with self._asking:
            if self._closed:
                raise Closed("These tables are closed.")
            try:
                statements = self._asker.extract_statements(query)
            except duckdb.Error as error:
                raise BadQuery(_said(error)) from None
            except (TypeError, UnicodeError):  # lone surrogates
                raise BadQuery("The query is no text that can be read.") from None
            if len(statements) != 1:
                raise BadQuery(f"Give one statement, not {len(statements)}.")
            if statements[0].type != duckdb.StatementType.SELECT:
                raise BadQuery(f"Only SELECT can be run, not {statements[0].type.name}.")
            ask = partial(self._ask, parameters=parameters, timeout_s=timeout_s)
            try:
                return ask(statements[0], rows_max=rows_max)
            except BadQuery as error:
                if "'pytz'" not in str(error):
                    raise
            # Times with a zone are given out only beside a library that nothing else needs: ask for them in UTC.
            query = _bare(query)
            columns = ", ".join(
                f"#{place}::TIMESTAMP AS {_quoted(name)}" if kind == "TIMESTAMP WITH TIME ZONE" else f"#{place}"
                for place, (name, kind, *_) in enumerate(ask(f"DESCRIBE {query}", rows_max=1000).rows, start=1)
            )
            return ask(f"SELECT {columns} FROM ({query})", rows_max=rows_max)

    def _ask(self, statement: Any, *, parameters: Any, timeout_s: float, rows_max: int) -> Answer:
        import duckdb

        try:
            cursor = self._asker.cursor()
        except duckdb.Error as error:
            self._damaged = True
            raise ViewFailed(f"The tables are damaged: {_said(error)}") from error
        late = threading.Event()

        def stop() -> None:
            late.set()
            with contextlib.suppress(duckdb.Error):
                cursor.interrupt()

        timer = threading.Timer(timeout_s, stop)
        timer.daemon = True
        try:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            timer.start()
            cursor.execute(statement, parameters)
            columns = tuple(column[0] for column in cursor.description or ())
            rows: list[tuple[Any, ...]] = []
            size = 0
            while len(rows) <= rows_max and size < BYTES_MAX and (more := cursor.fetchmany(_FETCHED)):
                rows += more
                size += sum(len(value) for row in more for value in row if isinstance(value, str | bytes))
            return Answer(columns, rows[:rows_max], len(rows) > rows_max or size >= BYTES_MAX)
        except (duckdb.Error, ValueError, OverflowError, TypeError) as error:
            if late.is_set():
                raise BadQuery(f"The query took longer than {timeout_s:g} s and was stopped.") from None
            if type(error).__name__ in _DAMAGE:
                self._damaged = True
                raise ViewFailed(f"The tables are damaged: {_said(error)}") from error
            raise BadQuery(_said(error)) from None
        finally:
            timer.cancel()
            cursor.close()

    def digest(self) -> str:
        """A digest over all rows in order of position: the same log, the same digest, however it was taken over."""
        parts = []
        with self._writing:
            if self._closed:
                raise Closed("These tables are closed.")
            for table in TABLES:
                parts += self._connection.execute(
                    f"SELECT count(*), coalesce(sha256(string_agg(sha256({table}::VARCHAR), '' ORDER BY position)), '')"
                    f" FROM {table}"
                ).fetchall()
            parts += self._connection.execute(f"SELECT position, facts FROM {_PROGRESS}").fetchall()
        return " ".join(str(value) for part in parts for value in part)

    # -- the file --

    def close(self) -> None:
        """Let go of the file, which stays unless it turned out to be damaged. Idempotent."""
        with self._writing, self._asking:
            if not self._closed:
                self._closed = True
                self._disconnect()
                if self._file is not None:
                    if self._damaged:
                        self._file.remove()
                    self._file.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _open(self) -> None:
        import duckdb

        try:
            self._connect()
            if self._fits():
                return
        except duckdb.Error as error:
            self._raise_if_full(error)
            if self._file is None:
                raise ViewFailed(_said(error)) from error
        self._throw_away()
        try:
            self._connect()
            self._fits()
        except duckdb.Error as error:
            self._raise_if_full(error)
            raise ViewFailed(f"{self.path}: {_said(error)}") from error

    def _raise_if_full(self, error: BaseException) -> None:
        """Laying the tables out anew does not help where there is no room for them."""
        if "No space left" in str(error):
            raise DiskFull(f"There is no room left for the tables: {_said(error)}") from error
        if type(error).__name__ == "OutOfMemoryException":
            limit = self._config["memory_limit"]
            raise ViewFailed(f"The tables do not fit into {limit}: give them a file, or more memory.") from error

    def _throw_away(self) -> None:
        self._disconnect()
        if self._file is not None:
            self._file.remove()

    def _connect(self) -> None:
        import duckdb

        self._connection = duckdb.connect(self.path, config={**self._config, **_BEFORE})
        named = self._connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
        tables = {name for (name,) in named}
        if _PROGRESS not in tables:
            if tables:
                raise ViewFailed(f"{self.path} is a DuckDB database of somebody else's. Give another path.")
            self._lay_out()
        for setting in _AFTER:
            self._connection.execute(f"SET {setting}")
        self._asker = self._connection.cursor()
        if self._file is not None:
            self._file.keep_private()

    def _lay_out(self) -> None:
        connection = self._connection
        connection.execute("BEGIN")
        for table, columns in TABLES.items():
            connection.execute(
                f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})"
            )
        for view, text in VIEWS.items():
            connection.execute(f"CREATE VIEW {view} AS {text}")
        connection.execute(
            f"CREATE TABLE {_PROGRESS} (version VARCHAR, position BIGINT, facts BIGINT, ledger_calls BIGINT,"
            " tool_calls BIGINT, batch BIGINT, id VARCHAR)"
        )
        connection.execute(f"INSERT INTO {_PROGRESS} VALUES (?, 0, 0, 0, 0, 0, '')", (VERSION,))
        connection.execute("COMMIT")

    def _fits(self) -> bool:
        """Read the mark. Whether the tables are of this release, and hold what the mark says."""
        found = self._connection.execute(
            f"SELECT version, position, facts, ledger_calls, tool_calls, batch, id FROM {_PROGRESS}"
        ).fetchall()
        if len(found) != 1 or found[0][0] != VERSION:
            return False
        self._mark = _Mark(*found[0][1:])
        counts = " UNION ALL ".join(f"SELECT count(*) FROM {table}" for table in TABLES)
        counted = [count for (count,) in self._connection.execute(counts).fetchall()]
        return counted == [self._mark.facts, self._mark.ledger_calls, self._mark.tool_calls]

    def _discard(self) -> None:
        with self._asking:
            self._throw_away()
            self._layout = Layout()
            self._damaged = False
            self._open()

    def _disconnect(self) -> None:
        for name in ("_asker", "_connection"):
            connection: duckdb.DuckDBPyConnection | None = self.__dict__.pop(name, None)
            if connection is not None:
                with contextlib.suppress(Exception):
                    connection.close()


class _Mark(Struct, frozen=True):
    """How far the tables are: position of their last event, rows of each, where the last batch begins, its id."""

    position: int
    facts: int
    ledger_calls: int
    tool_calls: int
    batch: int
    id: str

    def beyond(self, position: int, sheet: Sheet, last: Stored) -> _Mark:
        """Where it is when the rows of `sheet` are added, `last` being the last batch of them."""
        return _Mark(
            position,
            self.facts + len(sheet),
            self.ledger_calls + len(sheet.calls),
            self.tool_calls + len(sheet.tools),
            last.position,
            last.batch.head.id,
        )


class _Behind:
    """Has one thing done at a time, beside whoever asks for it: the tables are written while the log is read on."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    def do(self, what: Callable[..., None], *arguments: Any) -> None:
        """Begin it as soon as the last one is done. Raises what that one raised."""
        self.wait()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="reenact-tables")
        self._last = self._pool.submit(what, *arguments)

    def wait(self) -> None:
        if self._last is not None:
            last, self._last = self._last, None
            last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()


# -- files, locks, errors --

_FETCHED = 256
"""Rows fetched at a time: the answer's bound is looked at in between."""

_DAMAGE = ("Error", "IOException", "InternalException", "FatalException", "SerializationException")
"""What DuckDB raises for a file that it cannot make sense of. No query has files within its reach to cause the like."""

_BEFORE = {
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
}
_AFTER = (
    "TimeZone = 'UTC'",
    "python_enable_replacements = false",
    "python_scan_all_frames = false",
    "allow_persistent_secrets = false",
    "enable_external_access = false",
    "lock_configuration = true",
)
"""Settings of every instance, in the order in which they can still be made: no query reaches out of the tables."""


def _said(error: BaseException) -> str:
    """DuckDB's message in one line, without the query."""
    return " ".join(str(error).split("\n\nLINE ")[0].split()) or type(error).__name__


def _bare(query: str) -> str:
    """The query without a semicolon and comments behind it."""
    import duckdb

    text = query.encode()
    for start, kind in reversed(duckdb.tokenize(query)):
        if kind != duckdb.token_type.comment and text[start : start + 1] != b";":
            break
        text = text[:start]
    return text.decode()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
