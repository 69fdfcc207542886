"""What lies at a path is told before anything is written there, in one clear error; and URLs that name logs."""

import os
import sqlite3
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from reenact.adapters.logs import open_log, open_reader, path_of
from reenact.adapters.logs.file import ALLOW_NETWORK, _read_header, examine, filesystem
from reenact.adapters.logs.reader import SqliteReader
from reenact.adapters.logs.rows import APPLICATION, FORMAT
from reenact.adapters.logs.sqlite import SqliteLog, gate
from reenact.events.errors import (
    BadInput,
    Corrupt,
    NewerFormat,
    NoAccess,
    NotALog,
    NotFound,
    ReenactError,
    StoreError,
)
from reenact.events.log import MemoryLog
from tests.contracts.batches import one


def _log(path: Path) -> None:
    log = SqliteLog(path)
    log.commit([one("a", n, os.urandom(3000)) for n in range(20)])
    log.close()


def _text(path: Path) -> None:
    path.write_text("Dear diary, this is not a database at all.\n" * 9)


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(8192))


def _folder(path: Path) -> None:
    path.mkdir()


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE birds (name TEXT)")
    other.close()


def _foreign_with_an_id(path: Path) -> None:
    _foreign(path)
    _pragma(path, "application_id = 252006673")


def _with_our_id(path: Path) -> None:
    _foreign(path)
    _pragma(path, f"application_id = {APPLICATION}")


def _newer(path: Path) -> None:
    _log(path)
    _pragma(path, f"user_version = {FORMAT + 1}")


def _pragma(path: Path, what: str) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute(f"PRAGMA {what}")
    other.close()


def _cut(keep: float) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        _log(path)
        os.truncate(path, int(path.stat().st_size * keep))

    cut.__name__ = f"cut to {keep:.0%}"
    return cut


def _cut_in_the_name(path: Path) -> None:
    path.write_bytes(b"SQLite for")


def _cut_in_the_header(path: Path) -> None:
    _log(path)
    os.truncate(path, 60)


def _scribbled(path: Path) -> None:
    _log(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def _with_a_trigger(path: Path) -> None:
    _log(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TRIGGER spy AFTER INSERT ON events BEGIN DELETE FROM streams; END")
    other.close()


def _altered(path: Path) -> None:
    _log(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("ALTER TABLE events ADD COLUMN more TEXT")
    other.close()


BAD = [
    (_text, NotALog, "not a SQLite database"),
    (_zeros, NotALog, "not a SQLite database"),
    (_folder, NotALog, "is a folder"),
    (_foreign, NotALog, "another program"),
    (_foreign_with_an_id, NotALog, "another program"),
    (_with_our_id, Corrupt, "missing or was altered"),
    (_newer, NewerFormat, "Upgrade reenact"),
    (_cut(0.5), Corrupt, "cut off"),
    (_cut(0.97), Corrupt, "cut off"),
    (_cut_in_the_name, Corrupt, "cut off"),
    (_cut_in_the_header, Corrupt, "cut off"),
    (_with_a_trigger, Corrupt, "trigger, spy"),
    (_altered, Corrupt, "events is missing or was altered"),
]


@pytest.mark.parametrize(("make", "kind", "says"), BAD, ids=[make.__name__.strip("_") for make, _, _ in BAD])
@pytest.mark.parametrize("open_", [SqliteLog, SqliteReader])
def test_what_is_no_log_is_refused_and_left_as_it_was(
    make: Callable[[Path], None], kind: type[ReenactError], says: str, open_: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "some.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(kind, match=says) as raised:
        open_(path)
    assert type(raised.value) is kind and str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert (path.read_bytes() if path.is_file() else b"") == before
    if make in (_text, _folder, _foreign, _newer):
        left = [p.name for p in tmp_path.iterdir() if p.name not in ("some.db", "some.db.lock")]
        assert left == [], "nothing is left beside a file that is not ours"


def test_pages_that_were_scribbled_over_are_corrupt_and_not_another_history(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    _scribbled(path)
    for open_ in (SqliteLog, SqliteReader):
        with pytest.raises(StoreError) as raised:
            open_(path).read_all()
        assert isinstance(raised.value, (Corrupt, NotALog)) and str(path) in str(raised.value)


def test_every_kind_of_damage_in_a_row_is_named(tmp_path: Path) -> None:
    cut, bomb = zlib.compress(b"x" * 2000)[:-4], zlib.compress(bytes(10_000_000))
    head = msgspec.msgpack.encode([3, b"x", 0, 1, [], 0, None, None, 1, 7, b"", None])
    damages = {
        "UPDATE events SET head = x'00' WHERE position = 3": "head of the batch at position 3",
        "UPDATE events SET head = x'9300' WHERE position = 3": "head of the batch at position 3",
        "UPDATE events SET head = NULL WHERE position = 3": "Event 3 is part 0 of a batch that has no beginning",
        "DELETE FROM events WHERE position = 5": "lacks|go on",
        "DELETE FROM events WHERE position IN (3, 4)": "Event 5 is part 2|go on",
        "UPDATE events SET version = 99 WHERE position = 5": "go on",
        "UPDATE events SET part = 7 WHERE position = 4": "go on",
        "UPDATE events SET epoch = 7 WHERE position = 4": "go on",
        "UPDATE events SET type = 99 WHERE position = 4": "number 99",
        "UPDATE events SET key = 0 WHERE position = 4": "Event 4 is not what was deflated",
        "UPDATE events SET key = 0, data = x'00112233445566' WHERE position = 4": "Event 4 cannot be inflated",
        f"UPDATE events SET key = 0, data = x'{cut.hex()}' WHERE position = 4": "Event 4 is not what was deflated",
        f"UPDATE events SET key = 0, data = x'{bomb.hex()}' WHERE position = 4": "Event 4 is not what was deflated",
        "UPDATE events SET data = 'text' WHERE position = 4": "Event 4 is stored as something else",
        "UPDATE events SET version = 'x' WHERE position = 4": "Event 4 holds something else than numbers",
        "UPDATE events SET epoch = 1.5 WHERE position = 3": "Event 3 holds something else than numbers",
        "UPDATE events SET type = 1.5 WHERE position = 4": "Event 4 holds something else than numbers",
        "UPDATE events SET key = 'x' WHERE position = 4": "number x",
        "UPDATE events SET head = 'x' WHERE position = 3": "head of the batch at position 3",
        "DELETE FROM texts": "number 1",
        "UPDATE texts SET text = 'no json' || number": "context",
        f"UPDATE events SET head = x'{head.hex()}' WHERE position = 3": "head of the batch at position 3",
    }
    for number, (damage, says) in enumerate(damages.items()):
        path = tmp_path / f"{number}.db"
        log = SqliteLog(path)
        log.commit([one("a", 0, b"1", b"2"), one("a", 2, b"3", b"4", b"5"), one("b", 0)])
        shell = sqlite3.connect(path, isolation_level=None)
        shell.execute(damage)
        shell.close()
        log.close()
        with pytest.raises(Corrupt, match=says):
            SqliteReader(path).read_all()


def test_a_file_that_has_grown_since_it_was_looked_at_is_not_cut_off(tmp_path: Path) -> None:
    """An owner that closes between the look at the size and the look at the header."""
    path = tmp_path / "log.db"
    _log(path)
    _read_header(str(path), 4096)


def test_an_empty_file_is_a_log_to_be(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.touch()
    with pytest.raises(NotFound, match="no log has been started"):
        SqliteReader(path)
    log = SqliteLog(path)
    log.commit([one("a", 0)])
    log.close()
    assert SqliteReader(path).head("a") == 1


def test_a_creation_that_was_cut_short_is_begun_anew(tmp_path: Path) -> None:
    # Tables but no commit, as after a kill: SQLite's journal takes them back.
    path = tmp_path / "log.db"
    pid = os.fork()
    if pid == 0:
        half = sqlite3.connect(path, isolation_level=None)
        half.execute("PRAGMA cache_size = 1")
        half.execute("BEGIN IMMEDIATE")
        half.execute(f"PRAGMA application_id = {APPLICATION}")
        for n in range(200):
            half.execute(f"CREATE TABLE t{n} (a, b)")
        os._exit(0)
    os.waitpid(pid, 0)
    assert path.stat().st_size > 0 and Path(f"{path}-journal").exists()
    log = SqliteLog(path)
    log.commit([one("a", 0)])
    log.close()
    assert SqliteReader(path).head("a") == 1


def test_a_file_with_a_strange_name_is_a_file(tmp_path: Path) -> None:
    for name in ("a b.db", "100%25.db", "what?.db", "no#1.db", "été ☃.db"):
        log = SqliteLog(tmp_path / name)
        log.commit([one("a", 0)])
        log.close()
        assert SqliteReader(tmp_path / name).head("a") == 1
        assert (tmp_path / name).is_file()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    for open_ in (SqliteLog, SqliteReader):
        with pytest.raises(NotFound, match=r"the folder .*nowhere does not exist"):
            open_(tmp_path / "nowhere" / "log.db")
    (tmp_path / "file").touch()
    with pytest.raises(NotFound, match="not a folder"):
        SqliteLog(tmp_path / "file" / "log.db")
    with pytest.raises(NotFound, match="no log has been started"):
        SqliteReader(tmp_path / "log.db")
    assert not (tmp_path / "log.db").exists()


@pytest.mark.parametrize("path", ["", "a\0b.db", "\ud800.db"])
def test_what_cannot_be_a_path_is_bad_input(path: str) -> None:
    with pytest.raises(BadInput):
        SqliteLog(path)


@pytest.mark.skipif(sys.platform == "win32", reason="rights of a file are told otherwise on Windows")
def test_a_file_one_may_not_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    _log(path)
    assert _as_nobody(tmp_path, lambda: SqliteReader(path)) is NoAccess
    assert _as_nobody(tmp_path, lambda: SqliteLog(path)) is NoAccess
    path.chmod(0o644)
    tmp_path.chmod(0o755)
    assert _as_nobody(tmp_path, lambda: SqliteLog(path)) is NoAccess, "a lock file cannot be made"


@pytest.mark.skipif(sys.platform == "win32", reason="rights of a file are told otherwise on Windows")
def test_a_log_in_a_folder_one_may_not_write_in_is_read_where_sqlite_can(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = SqliteLog(path)
    log.commit([one("a", 0)])
    for beside in tmp_path.iterdir():
        beside.chmod(0o644)
    tmp_path.chmod(0o755)
    assert _as_nobody(tmp_path, lambda: SqliteReader(path).read("a")) is None, "beside its owner"
    log.close()
    assert _as_nobody(tmp_path, lambda: SqliteReader(path).read("a")) is NoAccess, "SQLite cannot make its -shm file"
    copy = tmp_path / "mine" / "log.db"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    copy.parent.chmod(0o777)
    assert _as_nobody(tmp_path, lambda: SqliteReader(copy).read("a")) is None, "as the error advises"


def _as_nobody(folder: Path, action: Callable[[], object]) -> type | None:
    """The kind of error that `action` raises in a process without rights, None when it raises none."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    for above in folder.parents:
        if above != Path("/tmp") and str(above).startswith("/tmp"):
            above.chmod(above.stat().st_mode | 0o011)
    kinds: list[type[ReenactError] | None] = [None, NoAccess, NotALog, NotFound, Corrupt, StoreError]
    child = os.fork()
    if child == 0:
        outcome = 99
        try:
            os.setgid(65534)
            os.setuid(65534)
            action()
            outcome = 0
        except ReenactError as error:
            outcome = kinds.index(type(error))
        finally:
            os._exit(outcome)
    return kinds[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


def test_a_network_file_system_is_refused_unless_one_insists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 0:1 / /proc rw - proc proc rw\n"
        f"36 35 {os.major(device)}:{os.minor(device)} / {tmp_path} rw,noatime master:1 shared:2 - nfs4 server:/x rw\n"
    )
    assert filesystem(str(tmp_path), str(mounts)) == "nfs4"
    monkeypatch.setattr("reenact.adapters.logs.file.filesystem", lambda path: filesystem(path, str(mounts)))
    for open_ in (SqliteLog, SqliteReader):
        with pytest.raises(StoreError, match=rf"nfs4.*{ALLOW_NETWORK}=1"):
            open_(tmp_path / "log.db")
    monkeypatch.setenv(ALLOW_NETWORK, "1")
    SqliteLog(tmp_path / "log.db").close()


def test_where_the_file_system_cannot_be_told_it_is_not_refused(tmp_path: Path) -> None:
    assert filesystem(str(tmp_path), str(tmp_path / "none")) is None
    (tmp_path / "garbage").write_text("a\n\n1 2 3\n")
    assert filesystem(str(tmp_path), str(tmp_path / "garbage")) is None
    assert filesystem(str(tmp_path / "nowhere")) is None


def test_examining_writes_nothing(tmp_path: Path) -> None:
    assert examine(str(tmp_path / "log.db")) == "missing"
    (tmp_path / "log.db").touch()
    assert examine(str(tmp_path / "log.db")) == "empty"
    _log(tmp_path / "other.db")
    assert examine(str(tmp_path / "other.db")) == "log"


def test_the_gate_names_the_sqlite_in_use() -> None:
    assert gate().version == sqlite3.sqlite_version
    assert gate().affected == (sqlite3.sqlite_version_info < (3, 51, 3))


# -- URLs


def test_urls_name_logs() -> None:
    assert path_of("memory://") is None
    assert path_of("sqlite:///agents.db") == "agents.db"
    assert path_of("sqlite:////var/agents.db") == "/var/agents.db"
    assert path_of("sqlite:///some/agents") == "some/agents"
    assert path_of("agents.db") == "agents.db"
    assert path_of("/var/my agents.db") == "/var/my agents.db"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "agents",
        "sqlite://",
        "sqlite:///",
        "sqlite:////",
        "sqlite://agents.db",
        "sqlite:///:memory:",
        "sqlite:///a.db?mode=ro",
        "sqlite:///a\0.db",
        "a\0.db",
        "memory://x",
        "mysql://host/db",
        "://a.db",
        "postgresql://host/db",
        "postgres://host/db",
    ],
)
def test_other_urls_are_bad_input(url: str) -> None:
    for open_ in (open_log, open_reader):
        with pytest.raises(BadInput):
            open_(url)


def test_logs_are_opened_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    memory = open_log("memory://", writer="me")
    assert isinstance(memory, MemoryLog) and memory.writer == "me"
    with pytest.raises(BadInput, match="within one process"):
        open_reader("memory://")
    log = open_log("sqlite:///agents.db", writer="me")
    log.commit([one("a", 0)])
    assert (tmp_path / "agents.db").is_file() and log.writer == "me"
    for url in ("agents.db", f"sqlite:///{tmp_path}/agents.db", str(tmp_path / "agents.db")):
        assert open_reader(url).head("a") == 1
    log.close()
