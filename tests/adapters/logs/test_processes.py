"""The log among processes: killed anywhere, owned by one, read beside its owner. Real processes, real SIGKILL."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reenact.adapters.hosts.local import socket_path
from reenact.adapters.logs.owner import Ownership, is_owned, lock_path, owner_of
from reenact.adapters.logs.reader import SqliteReader
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.events.errors import Owned
from reenact.events.log import Stored
from tests.adapters.logs.programs import dead, line, python, running, start
from tests.conftest import LONG
from tests.contracts.batches import batch, noise, one, stored

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL and no fork")

STREAMS = ("a", "b", "c")


# -- killed anywhere

# Writes groups of transactions for ever; says "ack a=4 b=3 c=7" when they are stored. A batch's data tells where it
# belongs, so that what is found later can be checked without knowing what was written.
WRITER = """
import sys
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.events.log import Transaction
from tests.contracts.batches import batch, stored

class AcknowledgesEarly(SqliteLog):
    # The broken build: what it reports as stored is committed with the next call only.
    held = None
    def commit(self, transactions):
        if self.held is not None:
            super().commit(self.held)
        self.held = transactions
        return [[None] for _ in transactions]

class CommitsInHalves(SqliteLog):
    # The broken build: the batches of a transaction in commits of their own.
    def commit(self, transactions):
        return [sum((super(CommitsInHalves, self).commit([Transaction((b,))])[0] for b in t.batches), [])
                for t in transactions]

kind = {"": SqliteLog, "early": AcknowledgesEarly, "halves": CommitsInHalves}[sys.argv[2]]
log = kind(sys.argv[1])
heads = {s: log.head(s) for s in "abc"}
def part(s, rows):
    datas = [f"{s} {heads[s] + n + 1}".encode() * 40 for n in range(rows)]
    made = batch(s, heads[s], *datas)
    heads[s] += rows
    return made
turn = 0
while True:
    turn += 1
    together = Transaction((part("a", 1 + turn % 3), part("b", 1)))
    alone = Transaction((part("c", 1 + turn % 4),))
    for result in log.commit([together, alone]):
        assert isinstance(result, list) and result, result
    print("ack", *(f"{s}={n}" for s, n in heads.items()), flush=True)
"""


def violations(log: SqliteReader | SqliteLog, acknowledged: dict[str, int], before: int) -> list[str]:
    """What a crash may not leave behind: a lost acknowledgement, a gap, a half of a transaction, strange bytes."""
    wrong = []
    position = before
    everything: list[Stored] = []
    while page := log.read_all(after=position):
        everything += page
        position = page[-1].position
    for s in everything:
        if s.position != before + 1:
            wrong.append(f"position {s.position} follows {before}")
        before = s.position + len(s.batch.rows) - 1
        for n, row in enumerate(s.batch.rows):
            if row.data != f"{s.batch.stream} {s.batch.version + n + 1}".encode() * 40:
                wrong.append(f"{s.batch.stream} {s.batch.version + n + 1} has strange bytes")
    for name in STREAMS:
        version = 0
        for s in log.read(name):
            if s.batch.version != version:
                wrong.append(f"{name} goes from {version} to {s.batch.version}")
            version = s.batch.last
        if version != log.head(name):
            wrong.append(f"{name} ends at {version}, not {log.head(name)}")
        if version < acknowledged[name]:
            wrong.append(f"{name} is at {version}, and {acknowledged[name]} was acknowledged")
    if len(log.read("a")) != len(log.read("b")):
        wrong.append("a transaction is there by half")
    return wrong


def kill(path: Path, kind: str, rng: random.Random) -> list[str]:
    """Start a writer, kill it somewhere, and look at what it left: first with a reader, then as the next owner."""
    if path.exists():
        with_owner = SqliteReader(path)
        before = with_owner.position
        with_owner.close()
    else:
        before = 0
    child = start(WRITER, path, kind)
    assert child.stdout is not None and child.stderr is not None
    said = ""
    for _ in range(rng.randrange(1, 40)):
        said = child.stdout.readline()
        assert said.startswith("ack"), child.stderr.read()
    # Somewhere in the life of the next commits, not only just after an acknowledgement.
    until = time.perf_counter() + rng.uniform(0, 0.003)
    while time.perf_counter() < until:
        pass
    last = ([said, *dead(child).splitlines(keepends=True)])[-1]
    if not last.endswith("\n"):
        last = said  # Cut off in the middle of saying it.
    acknowledged = {name: int(n) for name, n in (pair.split("=") for pair in last.split()[1:])}
    reader = SqliteReader(path)
    wrong = violations(reader, acknowledged, before)
    reader.close()
    owner = SqliteLog(path)
    wrong += violations(owner, acknowledged, before)
    owner.close()
    return wrong


def test_a_killed_owner_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(20)
    for number in range(500 if LONG else 30):
        path = tmp_path / f"{number // 10}.db"
        wrong = kill(path, "", rng)
        assert not wrong, f"kill {number}: {wrong[:5]}"


@pytest.mark.parametrize("broken", ["early", "halves"])
def test_the_kills_catch_a_broken_build(broken: str, tmp_path: Path) -> None:
    # "halves" is caught only by a kill that falls between its two commits.
    rng = random.Random(7)
    for number in range(60):
        if kill(tmp_path / f"{number}.db", broken, rng):
            return
    pytest.fail("60 kills and no violation found")


# -- one owner

OWNER = """
import os, sys
from reenact.adapters.logs import owner
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.events.errors import Owned
from tests.contracts.batches import one
if sys.argv[2] == "broken":
    owner._lock = lambda fd: True
print("ready", flush=True)
sys.stdin.readline()
try:
    log = SqliteLog(sys.argv[1])
except Owned as error:
    print("refused", error, flush=True)
else:
    print("owner", os.getpid(), log.epoch, flush=True)
    sys.stdin.readline()
    log.commit([one("a", log.head("a"))])
    print("committed", flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def contest(path: Path, build: str) -> Iterator[tuple[list[subprocess.Popen[str]], list[str]]]:
    """Five processes that want one log at the same moment, and what each says that it got."""
    with contextlib.ExitStack() as all_of_them:
        children = [all_of_them.enter_context(running(OWNER, path, build)) for _ in range(5)]
        for child in children:
            line(child)
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        yield children, [line(child) for child in children]


def test_of_many_processes_that_race_for_a_log_one_has_it(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    for number in range(3):
        with contest(path, "ours") as (children, said):
            (winner,) = (n for n, words in enumerate(said) if words.startswith("owner"))
            _, pid, epoch = said[winner].split()
            assert int(epoch) == number + 1, "those who were refused took no epoch"
            for n, words in enumerate(said):
                assert n == winner or words.startswith("refused")
                # Who came while the winner was still writing its name may have been told of "another process".
                assert n == winner or f"Process {pid} owns" in words or "Another process owns" in words
            assert is_owned(str(path)) and owner_of(str(path)) is not None
            with pytest.raises(Owned, match=f"Process {pid} owns"):
                SqliteLog(path)
            dead(children[winner])
            assert not is_owned(str(path)), "the system lets go of the lock of a killed owner"
    SqliteLog(path).close()


OPENED = """
import sys
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.events.errors import ReenactError
try:
    SqliteLog(sys.argv[1])
except ReenactError as error:
    print(type(error).__name__, error)
else:
    print("opened")
"""


def test_given_a_symbolic_link_to_a_log_when_it_is_opened_by_that_then_it_is_the_same_log(tmp_path: Path) -> None:
    path, link, folder = tmp_path / "log.db", tmp_path / "link.db", tmp_path / "elsewhere"
    link.symlink_to(path)
    folder.symlink_to(tmp_path)
    for first, others in ((path, (link, folder / "log.db")), (link, (path, folder / "link.db"))):
        log = SqliteLog(first)
        for other in others:
            assert python(OPENED, str(other)).startswith(f"Owned Process {os.getpid()} owns {path}")
            assert is_owned(str(other)) and socket_path(str(other)) == socket_path(str(path))
            with contextlib.closing(SqliteReader(other)) as reader:
                assert reader.epoch == log.epoch
        log.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "link.db", "log.db", "log.db.lock"]


def test_a_log_stays_where_it_is_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    log = SqliteLog("log.db")
    with contextlib.closing(log), contextlib.closing(SqliteReader("log.db")) as reader:
        monkeypatch.chdir("elsewhere")
        stored(log.commit([one("a", 0)])[0])
        with reader.recorder.datastore.transaction(commit=False):  # So that the next one takes another connection.
            assert reader.head("a") == 1
        log.reopen()
        assert log.head("a") == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_build_without_the_lock_has_several_owners(tmp_path: Path) -> None:
    """The control: the contest can be lost."""
    path = tmp_path / "log.db"
    SqliteLog(path).close()  # of those that make the file, one does in any build
    with contest(path, "broken") as (_, said):
        assert sum(words.startswith("owner") for words in said) > 1


def test_looking_whether_a_log_is_owned_keeps_nobody_from_owning_it(tmp_path: Path) -> None:
    path = str(tmp_path / "log.db")
    looking = """
import sys
from reenact.adapters.logs.owner import is_owned
print("looking", flush=True)
while True:
    is_owned(sys.argv[1])
"""
    with running(looking, path) as child:
        line(child)
        for _ in range(200):
            Ownership(path).release()


ORPHAN = """
import os, sys, time
from reenact.adapters.logs import owner
from reenact.adapters.logs.sqlite import SqliteLog
log = SqliteLog(sys.argv[1])
if sys.argv[2] == "broken":
    owner._held.clear()
if os.fork() == 0:
    print("orphan", os.getpid(), flush=True)
    sys.stdin.readline()
    os._exit(0)
time.sleep(3600)
"""


@pytest.mark.parametrize("build", ["ours", "broken"])
def test_a_child_that_outlives_its_killed_owner_does_not_hold_the_log(build: str, tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with running(ORPHAN, path, build) as owner:
        orphan = int(line(owner).split()[1])
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        try:
            if build == "ours":
                log = SqliteLog(path)
                stored(log.commit([one("a", 0)])[0])
                log.close()
            else:  # What the test would see if the child kept the descriptor.
                with pytest.raises(Owned):
                    SqliteLog(path)
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_the_lock_file_says_who_owns_and_where_it_listens(tmp_path: Path) -> None:
    path = str(tmp_path / "log.db")
    assert owner_of(path) is None and not is_owned(path)
    log = SqliteLog(path)
    owner = owner_of(path)
    assert owner is not None and (owner.pid, owner.socket) == (os.getpid(), None) and is_owned(path)
    log.announce("/run/some.sock")
    owner = owner_of(path)
    assert owner is not None and owner.socket == "/run/some.sock"
    log.announce(None)
    log.close()
    assert owner_of(path) is None and not is_owned(path)
    Path(lock_path(path)).write_text("garbage")
    assert owner_of(path) is None
    SqliteLog(path).close()


# -- read beside its owner


def test_a_reader_beside_a_writing_owner_sees_a_growing_prefix(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with running(WRITER, path, "") as child:
        line(child)
        reader = SqliteReader(path)
        assert reader.epoch == 1
        position, versions, empty = 0, dict.fromkeys(STREAMS, 0), 0
        while position < 3000:
            page = reader.read_all(after=position, limit=50)
            empty += not page
            for s in page:
                assert s.position == position + 1 and s.batch.version == versions[s.batch.stream]
                position += len(s.batch.rows)
                versions[s.batch.stream] = s.batch.last
            for name in STREAMS:
                assert reader.head(name) >= versions[name]
        assert empty > 0, "it caught up, and read at the very end of what was being written"
    next_owner = SqliteLog(path)
    assert (reader.epoch, next_owner.epoch) == (2, 2)
    assert reader.read_all(after=position) == next_owner.read_all(after=position)
    next_owner.commit([one("d", 0)])
    assert reader.read("d") == next_owner.read("d"), "a reader outlives owners"
    next_owner.close()
    assert reader.head("d") == 1
    reader.close()


def test_a_log_is_read_without_an_owner_whatever_files_are_left(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with running(WRITER, path, "") as child:
        for _ in range(20):
            line(child)
        dead(child)
    beside = {suffix: Path(f"{path}{suffix}") for suffix in ("-wal", "-shm")}
    assert beside["-wal"].stat().st_size > 0, "a killed owner leaves its write-ahead log"
    whole = everything(path)
    beside["-shm"].unlink()
    assert everything(path) == whole, "without the -shm file"
    with tempfile.TemporaryDirectory() as elsewhere:
        shutil.copy(path, elsewhere)
        shutil.copy(beside["-wal"], elsewhere)
        assert everything(Path(elsewhere, "log.db")) == whole, "a copy"
    SqliteLog(path).close()
    assert not beside["-wal"].exists()
    assert everything(path) == whole, "without the -wal file"


def everything(path: Path) -> list[Stored]:
    with contextlib.closing(SqliteReader(path)) as reader:
        return reader.read_all(limit=10**6)


def test_a_reader_moves_nothing_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with running(WRITER, path, "") as child:
        for _ in range(5):
            line(child)
        dead(child)
    before = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    reader = SqliteReader(path)
    assert reader.read_all()
    reader.close()
    assert (path.read_bytes(), Path(f"{path}-wal").read_bytes()) == before


def test_a_reader_that_dawdles_does_not_hold_the_write_ahead_log_back(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = SqliteLog(path)
    log.commit([one("a", 0)])
    reader = SqliteReader(path)
    position, largest = 0, 0
    for version in range(1, 120):
        log.commit([one("a", version, noise(50_000))])
        position = reader.read_all(after=position, limit=1)[0].position  # Always behind, and never in a transaction.
        largest = max(largest, Path(f"{path}-wal").stat().st_size)
    assert largest < 4 * 1024 * 1024
    reader.close()
    log.close()


def test_a_fork_of_a_reader_must_open_it_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = SqliteLog(path)
    log.commit([one("a", 0)])
    reader = SqliteReader(path)
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            reader.head("a")
        except Exception as error:
            outcome = 0 if "Open it anew" in str(error) and SqliteReader(path).head("a") == 1 else 2
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert reader.head("a") == 1
    log.commit([one("a", 1)])
    assert batch("a", 0, b"data") == reader.read("a")[0].batch
    log.close()
