"""`SqliteLog`: the contract of a log, and what only a file can do: be another's, and be read while it is closed."""

import os
import shutil
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from reenact.adapters.logs import sqlite
from reenact.adapters.logs.owner import lock_path
from reenact.adapters.logs.reader import Lane, SqliteReader
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.events.errors import BadInput, Busy, Closed, Conflict, Fenced, Owned, StoreError
from reenact.events.log import Batch, Keyed, Log, Row, Transaction
from reenact.events.message import Context, Head
from tests.adapters.logs.faulty import Faulty
from tests.adapters.logs.programs import python
from tests.contracts import log_contract as contract
from tests.contracts.batches import batch, noise, one, stored


class SqliteWorld:
    def __init__(self, path: Path, kind: type[SqliteLog] = SqliteLog) -> None:
        self.path = path
        self._kind = kind
        self._owners: list[SqliteLog] = []

    def own(self) -> Log:
        # Whoever deletes the lock file of a running owner has two of them. Then the epoch is what is left.
        Path(lock_path(str(self.path))).unlink(missing_ok=True)
        self._owners.append(self._kind(self.path))
        return self._owners[-1]

    def close(self) -> None:
        for owner in self._owners:
            owner.close()


# -- the contract


@pytest.mark.parametrize("clause", contract.CLAUSES, ids=lambda clause: clause.__name__)
def test_the_sqlite_log_keeps(clause: Callable[[contract.World], None], path: Path) -> None:
    world = SqliteWorld(path)
    clause(world)
    world.close()


def test_in_any_history_it_is_what_the_memory_log_is() -> None:
    with tempfile.TemporaryDirectory() as folder:
        count = iter(range(10**9))
        machine = contract.machine(lambda: SqliteWorld(Path(folder, f"{next(count)}.db")))
        run_state_machine_as_test(machine, settings=settings(max_examples=max(settings().max_examples // 4, 25)))


class NoFence(SqliteLog):
    """Reads the file anew when another has written to it, and never asks whether that was a new owner."""

    def _fence(self) -> None:
        self._forget()


class NoVersions(SqliteLog):
    """Trusts the expected version, and leaves it to the unique index."""

    def _lane(self, stream: str) -> Lane:
        number, _, owing = super()._lane(stream)
        return number, _Any(), owing


class _Any(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


class Uncommitted(SqliteLog):
    """Reports what it has not committed."""

    def commit(self, transactions: object) -> list[object]:  # type: ignore[override]
        results = super().commit(transactions)  # type: ignore[arg-type]
        self._db.execute("DELETE FROM events WHERE position = ?", (self._position,))
        return list(results)


@pytest.mark.parametrize("broken", [NoFence, NoVersions, Uncommitted], ids=lambda kind: kind.__name__)
def test_the_contract_catches_a_broken_build(broken: type[SqliteLog], tmp_path: Path) -> None:
    caught = []
    for clause in contract.CLAUSES:
        world = SqliteWorld(tmp_path / f"{clause.__name__}.db", broken)
        try:
            clause(world)
        except (AssertionError, StoreError):
            caught.append(clause.__name__)
        finally:
            world.close()
    assert caught


# -- others at the file


def test_a_lock_held_by_another_program_is_waited_for_and_then_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reenact.adapters.logs.recorder.BUSY_TIMEOUT_S", 0.05)
    log = SqliteLog(path)
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy, match="another program"):
        log.commit([one("a", 0)])
    shell.execute("ROLLBACK")
    assert stored(log.commit([one("a", 0)])[0])
    log.close()


def test_what_another_program_wrote_is_noticed(log: SqliteLog, path: Path) -> None:
    # Nobody should; but who deletes a row by hand must not get a history with a hole in it, nor a position twice.
    log.commit([one("a", 0), one("a", 1), one("b", 0)])
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("DELETE FROM events WHERE position >= 2")
    assert isinstance(log.commit([one("a", 2)])[0], Conflict)
    assert stored(log.commit([one("a", 1, b"new")])[0])[0].position == 4
    log.close()
    again = SqliteLog(path)
    assert stored(again.commit([one("b", 0)])[0])[0].position == 5
    again.close()


def test_a_second_owner_is_told_who_has_it(log: SqliteLog, path: Path) -> None:
    with pytest.raises(Owned, match=rf"This process \({os.getpid()}\) owns .*log\.db"):
        SqliteLog(path)
    assert stored(log.commit([one("a", 0)])[0])
    log.close()
    SqliteLog(path).close()


def test_a_zombie_is_fenced_for_ever_and_may_still_read(path: Path) -> None:
    world = SqliteWorld(path)
    first, second = world.own(), world.own()
    for _ in range(3):
        with pytest.raises(Fenced, match=f"epoch {second.epoch}"):
            first.commit([one("a", 0)])
    second.commit([one("a", 0)])
    assert first.head("a") == 1 and first.read("a") == second.read("a")
    world.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_of_the_owner_writes_nothing(log: SqliteLog) -> None:
    log.commit([one("a", 0)])
    child = os.fork()
    if child == 0:
        wrong = 1
        try:
            log.commit([one("a", 1)])
        except Owned:
            try:
                log.read("a")
            except Closed:
                log.close()
                wrong = 0
        finally:
            os._exit(wrong)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stored(log.commit([one("a", 1)])[0])


FORKED = """
import gc, os, sqlite3, sys
from reenact.adapters.logs.sqlite import SqliteLog
class Noticed(sqlite3.Connection):
    def __del__(self):
        os.write(1, b"closed ")
log = SqliteLog(sys.argv[1], connection=Noticed)
child = os.fork()
if child == 0:
    del log
    gc.collect()
    os._exit(0)
os.waitpid(child, 0)
os.write(1, b"forked ")
log.close()
del log
gc.collect()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_when_a_fork_of_the_owner_forgets_the_log_then_no_connection_of_the_owner_is_closed_in_it(path: Path) -> None:
    assert python(FORKED, str(path)) == "forked closed "


# -- what the file is like


def test_the_file_is_private_durable_and_leaves_nothing_behind(path: Path) -> None:
    log = SqliteLog(path, writer="me", connection=Faulty)
    log.commit([one("a", 0)])
    if sys.platform != "win32":
        assert {oct(p.stat().st_mode & 0o777) for p in path.parent.iterdir()} == {"0o600"}
    pragmas = ("journal_mode", "synchronous", "mmap_size", "trusted_schema", "cell_size_check", "checkpoint_fullfsync")
    assert [Faulty.last.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas] == ["wal", 2, 0, 0, 1, 1]
    log.close()
    assert sorted(p.name for p in path.parent.iterdir()) == ["log.db", "log.db.lock"]
    shell = sqlite3.connect(path)
    assert shell.execute("SELECT position, stream, version, type, epoch, size FROM log").fetchall() == [
        (1, "a", 1, "type_0", 1, 4)
    ]
    assert shell.execute("SELECT epoch, writer FROM owners").fetchall() == [(1, "me")]


def test_the_write_ahead_log_stays_small(path: Path) -> None:
    log, version, largest = SqliteLog(path), 0, 0
    for _ in range(60):
        version = stored(log.commit([one("a", version, *[noise(1000)] * 100)])[0])[0].batch.last
        largest = max(largest, Path(f"{path}-wal").stat().st_size)
    assert largest < 4 * 1024 * 1024
    log.close()


class NeverMoves(SqliteLog):
    """Leaves the write-ahead log as it is."""

    def _checkpoint(self) -> None:
        pass


def test_where_the_log_makes_no_checkpoints_sqlite_does_and_never_before_it_would(path: Path) -> None:
    log, version = NeverMoves(path, connection=Faulty), 0
    (net,) = Faulty.last.execute("PRAGMA wal_autocheckpoint").fetchone()
    assert net > 16 * sqlite.CHECKPOINT_PAGES  # within a commit it would swallow its errors
    for _ in range(48):
        version = stored(log.commit([one("a", version, noise(1_000_000))])[0])[0].batch.last
    assert Path(f"{path}-wal").stat().st_size < 40 * 1024 * 1024
    log.close()


def test_what_a_crash_left_is_in_the_file_itself_when_the_next_owner_has_it(path: Path, tmp_path: Path) -> None:
    log = SqliteLog(path)
    log.commit([one(f"s{n}", 0) for n in range(5)])
    left = tmp_path / "left" / "log.db"
    left.parent.mkdir()
    for end in ("", "-wal"):  # as a process that is killed leaves them
        shutil.copy(f"{path}{end}", f"{left}{end}")
    log.close()
    assert _alone(left) == 0
    owner = SqliteLog(left)
    assert _alone(left) == 5
    owner.close()


def _alone(path: Path) -> int:
    """How many events are in a file without what stands beside it."""
    shutil.copy(path, path.with_name("alone.db"))
    shell = sqlite3.connect(path.with_name("alone.db"))
    (count,) = shell.execute("SELECT count(*) FROM events").fetchone()
    shell.close()
    return int(count)


class CountsPages(SqliteReader):
    """Counts its transactions."""

    count = 0

    def _cursor(self) -> AbstractContextManager[sqlite3.Cursor]:
        self.count += 1
        return super()._cursor()


@pytest.mark.parametrize(
    ("rows", "size", "pages"), [(1000, 10**6, 1), (7, 10**6, 9), (1000, 500, 13)], ids=["one", "rows", "bytes"]
)
def test_a_transaction_of_a_reader_ends_at_so_many_rows_or_bytes_and_all_is_read(
    rows: int, size: int, pages: int, log: SqliteLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.commit([one("a", 3 * n, *[noise(100)] * 3) for n in range(20)])
    there = log.read_all()
    monkeypatch.setattr("reenact.adapters.logs.reader.PAGE_ROWS", rows)
    monkeypatch.setattr("reenact.adapters.logs.reader.PAGE_BYTES", size)
    reader = CountsPages(path)
    assert reader.read_all() == reader.read("a") == there and len(there) == 20
    for read in (reader.read_all, lambda: reader.read("a")):  # what the numbers in the rows stand for is known by now
        reader.count = 0
        read()
        assert reader.count == 1 + pages  # the first asks where to begin
    reader.close()


def test_what_tools_say_takes_less_than_they_said(log: SqliteLog, path: Path) -> None:
    said = b'{"city": "Paris", "temp_c": 21, "sky": "clear", "wind_kmh": 11}' * 32
    log.commit([one("a", n, said) for n in range(100)])
    log.close()
    assert path.stat().st_size < 100 * len(said) // 2


def test_eventsourcing_reads_the_log(log: SqliteLog) -> None:
    log.commit([one("a", 0, b"1", b"2"), one("b", 0, b"3"), one("a", 2, b"4")])
    recorder = log.recorder
    assert [(e.originator_version, e.topic, e.state) for e in recorder.select_events("a", gt=1)] == [
        (2, "type_1", b"2"),
        (3, "type_0", b"4"),
    ]
    assert [e.state for e in recorder.select_events("a", lte=2, desc=True, limit=1)] == [b"2"]
    notices = recorder.select_notifications(2, 10, topics=["type_0"])
    assert [(n.id, n.originator_id, n.originator_version, n.state) for n in notices] == [
        (3, "b", 1, b"3"),
        (4, "a", 3, b"4"),
    ]
    assert [n.id for n in recorder.select_notifications(1, 10, stop=3, inclusive_of_start=False)] == [2, 3]
    assert recorder.max_notification_id() == 4
    log.commit([one("c", 0, b"long " * 1000)])
    assert recorder.select_events("c")[0].state == recorder.select_notifications(5, 1)[0].state == b"long " * 1000
    with pytest.raises(Exception, match=r"SqliteLog\.commit"):
        recorder.insert_events([])


# -- limits


def test_what_has_no_bytes_is_refused_alone(log: SqliteLog) -> None:
    bad = "\ud800"
    head = batch("s", 0, b"").head
    wrong = [
        Transaction((Batch("s", 0, head, (Row(bad, 1, b""),)),)),
        Transaction((Batch("s", 0, head, (Row("t", 2**70, b""),)),)),
        Transaction((Batch("s", 0, Head(id="1", at=2**70, asked="a"), (Row("t", 1, b""),)),)),
        Transaction((Batch("s", 0, Head(id=bad, at=1, asked="a"), (Row("t", 1, b""),)),)),
        one(bad, 0),
        one("s", 0, keyed=Keyed("scope", bad, b"", "s", 0)),
        Transaction((batch("s", 0, b"", context=Context(principal=bad)),)),
    ]
    results = log.commit([one("a", 0), *wrong, one("a", 1)])
    assert [isinstance(result, BadInput) for result in results] == [False, *[True] * len(wrong), False]
    assert log.streams() == ["a"] and log.position == 2


def test_an_event_above_the_limit_is_refused_alone(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "ROW_BYTES_MAX", 1000)
    results = log.commit([one("a", 0, b"x" * 1000), one("b", 0, b"x" * 1001)])
    assert stored(results[0]) and isinstance(results[1], BadInput)


def test_more_streams_than_are_remembered_cost_only_a_query(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sqlite.LANES_MAX", "names.NAMES_MAX"):
        monkeypatch.setattr(f"reenact.adapters.logs.{module}", 10)
    log = SqliteLog(path)
    for version in range(3):
        log.commit([one(f"s{n}", version, owes=("1",) if n % 2 else ()) for n in range(35)])
    assert [log.head(f"s{n}") for n in range(35)] == [3] * 35
    assert log.read_all() == SqliteReader(path).read_all() and len(log.read_all()) == 105
    assert len(log._lanes) <= 10
    assert log.streams(owing=True) == [f"s{n}" for n in range(35) if n % 2]
    log.close()


def test_readers_and_the_writer_go_on_beside_each_other_in_one_process(log: SqliteLog) -> None:
    failures: list[BaseException] = []
    done = threading.Event()

    def reads() -> None:
        try:
            while not done.is_set():
                page = log.read_all(limit=10_000)
                assert [s.position for s in page] == list(range(1, 2 * len(page) + 1, 2))
                assert len(log.read("a")) >= len(page)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=reads) for _ in range(5)]
    for reader in readers:
        reader.start()
    for version in range(100):
        log.commit([one("a", 2 * version, b"1", b"2")])
    done.set()
    for reader in readers:
        reader.join()
    assert not failures


CLOSED_WHILE_READ = """
import sys, threading, time
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.events.errors import Closed
from tests.contracts.batches import one
def reads(log):
    try:
        while True:
            log.read("a")
    except Closed:
        ends.append(True)
ends = []
for number in range(20):
    log = SqliteLog(f"{sys.argv[1]}.{number}")
    for version in range(20):
        log.commit([one("a", 20 * version, *[b"x" * 100] * 20)])
    readers = [threading.Thread(target=reads, args=(log,)) for _ in range(6)]
    for reader in readers:
        reader.start()
    time.sleep(0.005 * (number % 4))  # Closed in different places of their lives.
    if number % 2:
        log.reopen()
    log.close()
    for reader in readers:
        reader.join()
assert len(ends) == 120
print("fine")
"""


def test_a_log_that_is_closed_while_it_is_read_ends_the_readers_and_not_the_process(path: Path) -> None:
    # While closing did not wait for them, this process died of a segmentation fault in every run.
    assert python(CLOSED_WHILE_READ, str(path)) == "fine\n"
