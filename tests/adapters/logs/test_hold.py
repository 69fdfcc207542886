"""A log whose file is read within its owner's process, and is closed, moved or deleted by others. Real processes."""

import contextlib
import gc
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from reenact.adapters.logs import hold
from reenact.adapters.logs.reader import SqliteReader
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.events.errors import StoreError, StoreFailed, UnknownOutcome
from tests.adapters.logs.programs import line, python, running
from tests.contracts.batches import one, stored

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks that a close drops")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs locks that belong to an open file")

# Commits once, looks at its own log, and goes on when it is told to. Says what it did, and does not close.
OWNER = """
import contextlib, os, sys
from pathlib import Path
from reenact.adapters.logs import hold, open_reader
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.cli.verify import verify
from reenact.events.errors import Owned, StoreFailed, UnknownOutcome
from tests.contracts.batches import one, stored
path, looks, build = sys.argv[1:]
if build != "ours":
    hold._set = lambda *wanted: None
if build == "blind":
    SqliteLog._look = lambda self: None
log = SqliteLog(path)
def commit():
    stored(log.commit([one("a", log.head("a"))])[0])
commit()
if looks == "reader":
    open_reader(path).close()
if looks == "second":
    with contextlib.suppress(Owned):
        SqliteLog(path)
if looks == "verify":
    verify(path)
if looks == "tool":
    for found in Path(path).parent.iterdir():
        found.read_bytes()
print("looked", flush=True)
sys.stdin.readline()
for _ in range(20):
    try:
        commit()
    except UnknownOutcome as error:
        print("unknown", error, flush=True)
        try:
            commit()
        except StoreFailed:
            print("stopped", flush=True)
        break
    print("stored", log.head("a"), flush=True)
print("end", flush=True)
sys.stdin.readline()
"""

SHELL = """
import sqlite3, sys
shell = sqlite3.connect(sys.argv[1])
print(shell.execute("SELECT count(*) FROM log").fetchone()[0])
shell.close()
"""


def acknowledged_and_found(path: Path, looks: str, build: str) -> tuple[list[str], int]:
    """What an owner says that looks at its log, beside which somebody opens it in a shell; and what is left of it."""
    with running(OWNER, path, looks, build) as owner:
        assert line(owner) == "looked"
        assert python(SHELL, str(path)).strip() == "1"
        assert owner.stdin is not None
        owner.stdin.write("\n")
        owner.stdin.flush()
        said = []
        while (word := line(owner)) != "end":
            said.append(word)
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    with contextlib.closing(SqliteReader(path)) as reader:
        return said, reader.head("a")


@pytest.mark.parametrize("looks", ["reader", "second", "verify", pytest.param("tool", marks=LINUX)])
def test_given_that_an_owners_process_reads_its_log_when_a_shell_closes_it_then_nothing_acknowledged_is_lost(
    looks: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.db"
    said, found = acknowledged_and_found(path, looks, "ours")
    assert said == [f"stored {n}" for n in range(2, 22)] and found == 21


@pytest.mark.parametrize("looks", ["reader", "second", "verify"])
def test_what_this_project_reads_takes_no_lock_away_also_where_a_file_cannot_be_locked(
    looks: str, tmp_path: Path
) -> None:
    said, found = acknowledged_and_found(tmp_path / "log.db", looks, "unlocked")
    assert said[-1] == "stored 21" and found == 21


def test_given_a_write_ahead_log_that_was_taken_away_when_it_is_committed_to_then_it_is_unknown_and_the_log_stops(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.db"
    said, found = acknowledged_and_found(path, "tool", "unlocked")
    assert [words.split()[0] for words in said] == ["unknown", "stopped"] and "log.db-wal was taken away" in said[0]
    assert found == 1, "all that was acknowledged"


def test_a_build_that_does_not_look_loses_what_it_acknowledged(tmp_path: Path) -> None:
    """The control: without the lock, and without a look at the files, the same is lost."""
    said, found = acknowledged_and_found(tmp_path / "log.db", "tool", "blind")
    assert said[-1] == "stored 21" and found < 21


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_given_that_a_file_of_a_log_is_gone_when_it_is_committed_to_then_nobody_is_told_that_it_is_stored(
    suffix: str, how: str, path: Path
) -> None:
    log = SqliteLog(path)
    stored(log.commit([one("a", 0)])[0])
    taken = Path(f"{path}{suffix}")
    if how == "deleted":
        taken.unlink()
    else:
        taken.rename(f"{taken}.old")
    if how == "replaced":
        shutil.copy(f"{taken}.old", taken)
    with pytest.raises(UnknownOutcome, match=f"log.db{suffix} was taken away"):
        log.commit([one("a", 1)])
    with pytest.raises(StoreFailed):
        log.commit([one("b", 0)])
    if how == "moved":
        Path(f"{taken}.old").rename(taken)
        log.reopen()
        assert [stored.batch.version for stored in log.read("a")] == [0, 1]
    elif not suffix:
        with pytest.raises(StoreFailed, match="another file"):
            log.reopen()
    log.close()


def test_given_that_the_write_ahead_log_was_deleted_when_the_log_is_reopened_then_it_has_what_it_had(
    path: Path,
) -> None:
    log = SqliteLog(path)
    stored(log.commit([one("a", 0)])[0])
    Path(f"{path}-wal").unlink()
    doubtful = one("a", 1)
    with pytest.raises(UnknownOutcome):
        log.commit([doubtful])
    log.reopen()
    assert isinstance(log.settled(doubtful), list), "SQLite still had it open, and moved it into the file"
    assert stored(log.commit([one("a", 2)])[0])
    log.close()
    with contextlib.closing(SqliteReader(path)) as reader:
        assert reader.head("a") == 3


NEXT = """
import sys
from reenact.adapters.logs.sqlite import SqliteLog
from tests.contracts.batches import one, stored
log = SqliteLog(sys.argv[1])
stored(log.commit([one("a", log.head("a"))])[0])
log.close()
"""


def test_a_reader_outlives_the_owner_in_its_process_and_sees_what_the_next_one_writes(path: Path) -> None:
    log = SqliteLog(path)
    stored(log.commit([one("a", 0)])[0])
    with contextlib.closing(SqliteReader(path)) as reader:
        assert reader.head("a") == 1
        log.close()
        for version in (2, 3):
            python(NEXT, str(path))
            assert reader.head("a") == version and len(reader.read("a")) == version
    assert hold.identity(str(path)) not in hold._holds


def test_what_is_closed_is_held_no_longer_and_leaves_nothing_behind(path: Path) -> None:
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        log = SqliteLog(path)
        stored(log.commit([one("a", log.head("a"))])[0])
        SqliteReader(path).head("a")  # Not closed, only let go.
        gc.collect()
        log.reopen()
        log.close()
    assert hold.identity(str(path)) not in hold._holds and len(os.listdir("/dev/fd")) == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["log.db", "log.db.lock"]


ORPHAN = """
import os, sys, time
from reenact.adapters.logs.sqlite import SqliteLog
log = SqliteLog(sys.argv[1])
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(3600)
time.sleep(3600)
"""


def test_a_fork_that_outlives_its_killed_owner_does_not_keep_the_file_in_use(path: Path) -> None:
    with running(ORPHAN, path) as owner:
        orphan = int(line(owner))
        try:
            os.kill(owner.pid, signal.SIGKILL)
            owner.wait()
            SqliteLog(path).close()
            assert not Path(f"{path}-wal").exists(), "the next owner was the last to close it"
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_another_program_writes_and_moves_pages_beside_a_held_log_as_ever(log: SqliteLog, path: Path) -> None:
    stored(log.commit([one("a", 0)])[0])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as shell:
        assert shell.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        shell.execute("UPDATE events SET data = data")
    stored(log.commit([one("a", 1)])[0])
    with contextlib.closing(SqliteReader(path)) as reader:
        assert reader.head("a") == 2


def test_a_file_that_goes_while_it_is_opened_is_named(path: Path) -> None:
    from reenact.adapters.logs.recorder import Datastore

    with pytest.raises(StoreError, match=r"log\.db"):
        Datastore(str(path))


@pytest.mark.parametrize("owned", [True, False])
def test_given_a_hard_link_to_a_log_when_it_is_opened_by_either_name_then_it_is_refused_and_may_be_read(
    owned: bool, path: Path
) -> None:
    other = path.with_name("other.db")
    log = SqliteLog(path)
    stored(log.commit([one("a", 0)])[0])
    other.hardlink_to(path)
    if not owned:
        log.close()
    for name in (other,) if owned else (path, other):
        with pytest.raises(StoreError, match="2 names") as refused:
            SqliteLog(name)
        assert str(name) in str(refused.value)
        assert not (other.with_name("other.db.lock")).exists()
    if owned:
        stored(log.commit([one("a", 1)])[0])
        log.close()
    with contextlib.closing(SqliteReader(other)) as reader:
        assert reader.head("a") == (2 if owned else 1)
    shutil.copy(path, f"{other}.new")
    Path(f"{other}.new").replace(other)
    for name in (path, other):
        SqliteLog(name).close()
