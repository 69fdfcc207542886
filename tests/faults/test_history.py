"""A history of what a log was asked and answered, against the log: what was promised and lost, or never handed in."""

import asyncio
import errno
import os
import re
import resource
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact import Runtime
from reenact.actors.verify import verify as verify_log
from reenact.adapters.logs import open_log, sqlite
from reenact.adapters.logs.history import VARIABLE, Witnessed
from reenact.cli.verify import verify
from reenact.events import failpoint
from reenact.events.errors import BadInput, DiskFull, NotFound, StoreError, UnknownOutcome
from reenact.events.history import Began, Entry, Handed, Torn, ending, entries, line
from reenact.events.log import Log, MemoryLog, MemoryStore, Result, Transaction
from tests.adapters.cli.terminal import one_line, reenact
from tests.faults.logs import busy_log, settle
from tests.faults.test_disk_full import Writer


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "elsewhere" / "history"
    path.parent.mkdir()
    monkeypatch.setenv(VARIABLE, str(path))
    yield path
    failpoint.arm("")


def written(path: Path) -> list[Entry | Torn]:
    with path.open("rb") as lines:
        return list(entries(lines))


@pytest.fixture
def path(tmp_path: Path, history: Path) -> Path:
    path = tmp_path / "log.db"
    busy_log(path)
    settle(path)
    return path


def next_owner(path: Path) -> None:
    with closing(open_log(str(path))) as log:
        writer = Writer(log)  # type: ignore[arg-type]
        writer.write(500)
        writer.write(500)


def owner(store: MemoryStore, history: Path, commits: int = 2) -> int:
    """An owner of a log writes so often, and is gone. Returns how many batches it was promised."""
    log = Witnessed(MemoryLog(store, writer=f"owner-{store.epoch + 1}"), str(history))
    writer = Writer(log)  # type: ignore[arg-type]
    writer.count = store.position
    for _ in range(commits):
        writer.write(50)
    log.close()
    return len(writer.acknowledged)


def copied(store: MemoryStore) -> MemoryStore:
    other = MemoryStore()
    other.epoch, other.position, other.all = store.epoch, store.position, list(store.all)
    other.by_stream = {stream: list(batches) for stream, batches in store.by_stream.items()}
    return other


def found(path: Path, history: Path) -> set[str]:
    return {violation.invariant for violation in verify(str(path), history=history).violations}


def test_a_log_that_was_written_to_by_several_owners_is_all_that_it_promised(path: Path, history: Path) -> None:
    next_owner(path)
    report = verify(str(path), history=history)
    assert report.sound, report.violations
    assert report.promised == report.batches and f"{report.promised} batches promised and there" in report.summary
    assert [entry.epoch for entry in written(history) if isinstance(entry, Began)] == [1, 2]


def _cut(path: Path) -> tuple[str, ...]:
    """The newest batch, with every trace of it: the log alone cannot tell."""
    with closing(sqlite3.connect(path)) as db:
        first, stream = db.execute(
            "SELECT e.position, s.name FROM events e JOIN streams s ON s.number = e.stream"
            " WHERE part = 0 ORDER BY position DESC"
        ).fetchone()
    return (
        f"DELETE FROM events WHERE position >= {first}",
        f"UPDATE sqlite_sequence SET seq = {first - 1} WHERE name = 'events'",
        f"DELETE FROM commands WHERE stream = '{stream}' AND version > 1",
        "DELETE FROM owing",
        "DELETE FROM streams WHERE number NOT IN (SELECT stream FROM events)",
    )


DAMAGES: dict[str, tuple[Callable[[Path], tuple[str, ...]], str]] = {
    "the newest batch cut off with every trace of it": (_cut, "durable"),
    "an event changed": (lambda path: ("UPDATE events SET data = zeroblob(3) WHERE position = 20",), "durable"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_was_promised_and_is_not_there_is_named(name: str, path: Path, history: Path) -> None:
    damage, invariant = DAMAGES[name]
    with closing(sqlite3.connect(path)) as db, db:
        for statement in damage(path):
            db.execute(statement)
    assert invariant in found(path, history)


def test_what_nobody_handed_in_is_named(path: Path, history: Path) -> None:
    lines = [text for text in history.read_bytes().splitlines(keepends=True) if b'"call":9,' not in text]
    history.write_bytes(b"".join(lines))
    assert found(path, history) == {"phantom"}


def test_a_history_from_before_or_after_a_log_says_nothing_of_the_rest(path: Path, history: Path) -> None:
    history.unlink()
    next_owner(path)
    report = verify(str(path), history=history)
    assert report.sound and 0 < report.promised < report.batches


def test_given_that_a_power_cut_took_the_newest_lines_of_a_history_when_another_owner_goes_on_then_nobody_is_accused(
    tmp_path: Path,
) -> None:
    store, history = MemoryStore(), tmp_path / "history"
    owner(store, history)
    lines = history.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        history.write_bytes(b"".join(lines[:kept]))
        promised = owner(after_power_cut := copied(store), history)
        report = verify_log(MemoryLog(after_power_cut), history=written(history))
        assert report.sound, report.violations
        assert report.promised >= promised


@pytest.mark.parametrize("step", ["commit.rows", "commit.executed"])
def test_a_commit_in_doubt_may_be_there_or_not(step: str, tmp_path: Path, history: Path) -> None:
    path = tmp_path / "log.db"
    log = open_log(str(path))
    writer = Writer(log)  # type: ignore[arg-type]
    writer.write(500)
    prepared = writer.prepare(500)
    failpoint.arm(f"{step}:1:eio")
    with pytest.raises((OSError, UnknownOutcome)):
        log.commit([Transaction((prepared.batch,))])
    log.close()
    report = verify(str(path), history=history)
    assert report.sound and report.promised == 1 and report.batches == 1 + (step == "commit.executed")


def test_a_reopened_log_is_a_new_owner_in_its_history(tmp_path: Path, history: Path) -> None:
    log = open_log(str(tmp_path / "log.db"))
    writer = Writer(log)  # type: ignore[arg-type]
    writer.write(500)
    log.reopen()  # type: ignore[attr-defined]
    writer.write(500)
    log.close()
    log.close()
    assert [entry.epoch for entry in written(history) if isinstance(entry, Began)] == [1, 2]
    assert verify(str(tmp_path / "log.db"), history=history).promised == 2


class _Halves(sqlite.SqliteLog):
    """The broken build: a transaction of two batches is two, and the process dies between them."""

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        for transaction in transactions:
            super().commit([Transaction(transaction.batches[:1])])
        raise KeyboardInterrupt


def test_a_half_of_a_transaction_is_named_though_nobody_promised_it(
    tmp_path: Path, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SqliteLog", _Halves)
    log: Log = open_log(str(tmp_path / "log.db"))
    one, two = Writer(log).prepare(500), Writer(log).prepare(500)  # type: ignore[arg-type]
    other = replace(two.batch, stream="container-b", head=replace(two.batch.head, id="f" * 32))
    with pytest.raises(KeyboardInterrupt):
        log.commit([Transaction((one.batch, other))])
    log.close()
    assert "atomic" in found(tmp_path / "log.db", history)


def test_one_epoch_that_two_writers_began_is_named() -> None:
    store = MemoryStore()
    report = verify_log(MemoryLog(store), history=[Began(1, "one"), Began(1, "two")])
    assert [violation.invariant for violation in report.violations] == ["writer"]


def test_a_line_that_was_cut_off_is_none_and_what_is_no_history_is_refused(tmp_path: Path) -> None:
    whole = line(Began(3, "somebody"))
    assert list(entries([whole, whole[:-4]])) == [Began(3, "somebody"), Torn(len(whole) - 4)]
    for wrong in (b"hello\n", b'{"what":"dreamt"}\n', b"[" * 100_000 + b"\n", b"\xff\n"):
        with pytest.raises(BadInput, match="line 2 of the history"):
            list(entries([whole, wrong]))


def test_wherever_the_last_line_of_a_history_is_cut_when_others_go_on_then_every_whole_line_counts_and_the_cut_is_told(
    tmp_path: Path,
) -> None:
    store, history = MemoryStore(), tmp_path / "history"
    owner(store, history)
    whole = history.read_bytes().splitlines(keepends=True)
    for last, text in enumerate(whole):
        before = b"".join(whole[:last])
        for cut in range(len(text)):
            history.write_bytes(before + text[:cut])
            one = owner(after := copied(store), history)
            other = owner(after, history)
            read = written(history)
            assert history.read_bytes().startswith(before + text[:cut])
            torn = [each for each in read if isinstance(each, Torn)]
            assert torn == ([Torn(cut)] if 0 < cut < len(text) - 1 else [])
            report = verify_log(MemoryLog(after), history=read)
            assert report.sound and report.torn == len(torn), report.violations
            assert report.promised >= one + other
            assert ("cut off by a crash" in report.summary) == bool(torn)


def test_wherever_the_end_of_a_cut_line_is_cut_again_then_it_is_ended_by_the_next_writer() -> None:
    first, next_ = Handed(3, 1, ()), Began(4, "another")
    before, text = line(Began(3, "somebody")), line(first)
    for cut in range(len(text)):
        for cut_again in range(len(line(Torn(cut))) + 1):
            tail = text[:cut] + ending(text[:cut])[:cut_again]
            open_ = tail.rpartition(b"\n")[2]
            read = list(entries((before + tail + ending(open_) + line(next_)).splitlines(keepends=True)))
            assert read[0] == Began(3, "somebody") and read[-1] == next_
            assert read[1:-1] == [] if not cut else read[1] == first if cut == len(text) - 1 else is_torn(read[1:-1])


def is_torn(found: list[Entry | Torn]) -> bool:
    return len(found) == 1 and isinstance(found[0], Torn)


@given(tail=st.binary(max_size=300).map(lambda tail: tail.replace(b"\n", b"\0")), pages=st.integers(0, 3))
def test_whatever_a_crash_left_as_a_last_line_when_another_owner_begins_then_it_is_one_line_of_its_own(
    tail: bytes, pages: int
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "history"
        tail += bytes(pages << 16)
        path.write_bytes(line(Began(7, "somebody")) + tail)
        Witnessed(MemoryLog(), str(path)).close()
        assert written(path) == [Began(7, "somebody"), *([Torn(len(tail))] if tail else []), Began(1, "memory")]


def test_given_a_line_within_a_history_that_is_damaged_when_it_is_read_then_it_is_refused_by_its_number() -> None:
    begun, cut = line(Began(3, "somebody")), line(Handed(3, 1, ()))[:20]
    ended = cut + ending(cut)
    assert list(entries([begun, ended, begun])) == [Began(3, "somebody"), Torn(20), Began(3, "somebody")]
    glued, alone = cut + begun, ending(cut)
    shorter = [ended[:at] + b"\n" for at in range(1, len(ended) - 1)]
    for wrong in (glued, alone, cut + b"\n", ended[1:], b"x" + ended, *shorter):
        with pytest.raises(BadInput, match=r"line 2 of the history cannot be read: .* those after it"):
            list(entries([begun, wrong, begun]))


def test_given_a_part_of_a_line_that_cannot_be_taken_back_when_there_is_room_then_the_next_one_begins_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, log = tmp_path / "history", MemoryLog()
    witnessed = Witnessed(log, str(path))
    writer = Writer(witnessed)  # type: ignore[arg-type]

    def forbidden(_file: int, _size: int) -> None:  # as of a file that may only be appended to
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "ftruncate", forbidden)
    for more in (1, 40):
        with room(path, more), pytest.raises(DiskFull):
            writer.write(100)
    writer.write(100)
    witnessed.close()
    report = verify_log(log, history=written(path))
    assert report.sound and report.promised == report.batches == 1 and report.torn


def test_without_the_variable_nothing_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with closing(open_log(str(tmp_path / "log.db"))) as log:
        assert type(log) is sqlite.SqliteLog
    assert {name for name in os.listdir(tmp_path) if not name.startswith("log.db")} == set()


def test_the_command_line_compares_too(path: Path, history: Path) -> None:
    ended = reenact("verify", "--db", str(path), "--history", str(history))
    assert ended.code == 0 and "promised and there" in ended.out
    with closing(sqlite3.connect(path)) as db, db:
        for statement in _cut(path):
            db.execute(statement)
    assert reenact("verify", "--db", str(path)).code == 0
    ended = reenact("verify", "--db", str(path), "--history", str(history))
    assert ended.code == 1 and "is lost" in ended.out
    with pytest.raises(NotFound):
        verify(str(path), history="nowhere")
    assert "cannot be read" in one_line(reenact("verify", "--db", str(path), "--history", "nowhere"))


@pytest.mark.parametrize("name", [".", "nowhere/history", "/dev/full", "pipe"])
def test_given_a_history_that_takes_nothing_when_the_log_is_opened_then_it_is_refused_by_name_and_the_log_is_free(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = str(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv(VARIABLE, history)
    with pytest.raises(StoreError, match=re.escape(history)):
        open_log(str(tmp_path / "log.db"))
    monkeypatch.delenv(VARIABLE)
    open_log(str(tmp_path / "log.db")).close()


@contextmanager
def room(path: Path, more: int) -> Iterator[None]:
    """No file of this process grows beyond what this one has, and so many bytes more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@settings(max_examples=100)
@given(rooms=st.lists(st.integers(0, 900), max_size=8))
def test_whatever_room_a_history_has_it_holds_all_that_was_promised_and_what_it_cannot_hold_is_not_written(
    rooms: list[int],
) -> None:
    with TemporaryDirectory() as folder:
        path, log = Path(folder) / "history", MemoryLog()
        witnessed = Witnessed(log, str(path))
        writer = Writer(witnessed)  # type: ignore[arg-type]
        for more in rooms:
            before = log.position
            with room(path, more):
                try:
                    writer.write(100)
                except DiskFull:
                    assert log.position == before
        writer.write(100)
        witnessed.close()
        report = verify_log(log, history=written(path))
    assert report.sound, report.violations
    assert report.promised == report.batches == len(writer.acknowledged)


def test_given_a_history_without_room_when_there_is_room_again_then_the_runtime_goes_on(
    tmp_path: Path, history: Path
) -> None:
    async def main() -> None:
        async with Runtime(f"sqlite:///{tmp_path}/log.db") as runtime:
            bot = await runtime.image("bot", model="scripted:echo")
            with full(history), pytest.raises(DiskFull, match="the history of the log: No space left on device"):
                await bot.send("hello", key="one")
            assert (await bot.send("hello", key="one")).text == "hello"

    asyncio.run(main())
    assert verify(str(tmp_path / "log.db"), history=history).sound


@contextmanager
def full(path: Path) -> Iterator[None]:
    """There is no room on the disk on which this process writes a file that it has open."""
    (descriptor,) = (
        int(each) for each in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{each}") == str(path)
    )
    kept, device = os.dup(descriptor), os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(device)
