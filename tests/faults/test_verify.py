"""`verify`: a log that was only written to is sound, and damage of every kind is found and named."""

import asyncio
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import duckdb
import pytest
from msgspec.structs import replace

from reenact import Runtime
from reenact.actors import agent, mind, step
from reenact.actors import tool as calls
from reenact.actors.verify import Report
from reenact.actors.verify import verify as verify_log
from reenact.actors.violation import INVARIANTS
from reenact.adapters.logs.reader import SqliteReader
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.cli.verify import verify
from reenact.events import codec
from reenact.events.agent import ToolRelaunched
from reenact.events.errors import ReenactError
from reenact.events.log import MemoryLog, MemoryStore, Stored
from reenact.projections.duck import DuckProjection
from tests.conftest import LONG, Figure
from tests.contracts.batches import one
from tests.faults.logs import THREE_CALLS, TOOLS, busy_log, settle
from tests.runtimes import runtime


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("busy") / "busy.db"
    busy_log(path)
    settle(path)
    return path


@pytest.fixture
def path(busy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(busy, tmp_path / "log.db"))


def content(path: Path) -> list[Stored]:
    with closing(SqliteReader(path)) as reader:
        return reader.read_all(limit=10**6)


def found(path: Path) -> set[str]:
    """The names of what is wrong with it."""
    report = verify(str(path))
    names = {violation.invariant for violation in report.violations}
    assert names <= set(INVARIANTS) and report.sound == (not names), report
    assert all(str(violation) for violation in report.violations)
    return names


def edit(path: Path, *statements: str, parameters: tuple[object, ...] = ()) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement, parameters)


# -- nothing is found where nothing is wrong


def test_a_log_that_was_only_written_to_is_sound(path: Path) -> None:
    report = verify(str(path))
    assert report.sound, report.violations
    with closing(sqlite3.connect(path)) as db:
        events, batches = db.execute("SELECT count(*), sum(part = 0) FROM events").fetchone()
    assert (report.events, report.batches, report.redriven) == (events, batches, batches)
    assert (report.owing, report.epochs) == (1, 1) and report.commands >= 6
    assert report.summary.startswith("sound: ")
    busy_log(path.with_name("longer.db"), turns=1)
    SqliteLog(path).close()
    assert verify(f"sqlite:///{path}").sound, "after another owner too"


def test_a_log_is_verified_while_its_owner_writes(path: Path) -> None:
    owner = SqliteLog(path)
    stop = threading.Event()

    def write() -> None:
        version = 0
        while not stop.is_set():
            owner.commit([one("other-a", version, owes=("x",) if version % 2 else ())])
            version += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            report = verify(str(path))
            wrong = [violation for violation in report.violations if violation.stream != "other-a"]
            # The batches of this writer have no true chain: that is found, and nothing else.
            assert not wrong and {violation.invariant for violation in report.violations} <= {"chain"}
    finally:
        stop.set()
        writer.join()
        owner.close()


def test_what_a_newer_release_wrote_is_named_and_no_violation(path: Path) -> None:
    batches = content(path)
    for number, stored in enumerate(batches):
        future = tuple(
            replace(row, type=row.type.replace("model_called", "of_the_future")) for row in stored.batch.rows
        )
        batches[number] = replace(stored, batch=replace(stored.batch, rows=future))
    report = verify_log(MemoryLog(rechained(batches)))
    assert len(report.newer) == 3 and report.sound and "of a newer release" in report.summary


# -- the tables beside it


def test_tables_that_are_not_what_the_log_gives_are_found(path: Path) -> None:
    tables = Path(f"{path}.duckdb")
    with closing(SqliteReader(path)) as reader, DuckProjection(tables) as projection:
        projection.catch_up(_Half(reader))
    assert found(path) == set(), "they may be behind"
    before = tables.read_bytes()
    with closing(SqliteReader(path)) as reader, DuckProjection(tables) as projection:
        projection.catch_up(reader)
        assert found(path) == set(), "and in use"
    assert found(path) == set()
    with duckdb.connect(str(tables)) as connection:
        connection.execute("UPDATE tool_calls SET runs = runs + 1")
    assert found(path) == {"tables"}
    other = path.with_name("other.db")
    other.symlink_to(path)
    assert found(other) == {"tables"}, "by another name of the log"
    tables.write_bytes(before[: len(before) // 2])
    assert found(path) == set(), "what cannot be used is made anew"
    assert tables.read_bytes() == before[: len(before) // 2], "and nothing of it is changed"


class _Half:
    """The first half of a log."""

    def __init__(self, log: SqliteReader) -> None:
        self._log = log

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        return [each for each in self._log.read(stream, after=after, limit=limit) if each.position <= 40]

    def read_all(self, *, after: int = 0, limit: int = 1000) -> list[Stored]:
        return [each for each in self._log.read_all(after=after, limit=limit) if each.position <= 40]


# -- damage, planted through SQL


def rows(path: Path) -> list[tuple[int, int, bytes, bytes | None]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT position, part, data, head FROM events ORDER BY position").fetchall()


@pytest.mark.parametrize("column", ["data", "head"])
def test_a_flipped_bit_in_any_event_is_found(column: str, path: Path, figure: Figure) -> None:
    rng = random.Random(5)
    missed = []
    flips = 2000 if LONG else 60
    for number in range(flips):
        position, _, data, head = rng.choice([row for row in rows(path) if row[2 if column == "data" else 3]])
        before = data if column == "data" else head or b""
        bit = rng.randrange(len(before) * 8)
        after = bytearray(before)
        after[bit // 8] ^= 1 << bit % 8
        copy = Path(shutil.copy(path, path.with_name("flipped.db")))
        edit(copy, f"UPDATE events SET {column} = ? WHERE position = {position}", parameters=(bytes(after),))
        if not found(copy):
            missed.append((number, position, bit))
    assert not missed
    figure(f"{flips} bits of {column} flipped, each found")


def test_a_deleted_row_is_found_wherever_it_stood(path: Path) -> None:
    for position, *_ in rows(path)[:: 1 if LONG else 5]:
        copy = Path(shutil.copy(path, path.with_name("deleted.db")))
        edit(copy, f"DELETE FROM events WHERE position = {position}")
        assert found(copy) & {"order", "atomic", "file"}, position


def batch_at(path: Path, number: int) -> Stored:
    return content(path)[number]


Damage = Callable[[Path], tuple[str, ...]]


def _span(stored: Stored) -> str:
    return f"position BETWEEN {stored.position} AND {stored.position + len(stored.batch.rows) - 1}"


DAMAGES: dict[str, tuple[Damage, set[str]]] = {
    "a batch of the middle deleted": (
        lambda p: (f"DELETE FROM events WHERE {_span(batch_at(p, 20))}",),
        {"order"},
    ),
    "a batch of the middle deleted, and the rest moved up": (
        lambda p: (
            f"DELETE FROM events WHERE {_span(batch_at(p, 20))}",
            f"UPDATE events SET position = position - {len(batch_at(p, 20).batch.rows)}"
            f" WHERE position > {batch_at(p, 20).position}",
            "UPDATE sqlite_sequence SET seq = (SELECT max(position) FROM events) WHERE name = 'events'",
        ),
        {"order"},
    ),
    "the bytes of two events swapped": (
        lambda p: (
            "CREATE TEMP TABLE old AS SELECT position, data FROM events WHERE position IN (9, 10)",
            "UPDATE events SET data = (SELECT data FROM old WHERE position = 10) WHERE position = 9",
            "UPDATE events SET data = (SELECT data FROM old WHERE position = 9) WHERE position = 10",
        ),
        {"chain"},
    ),
    "the newest events moved on": (
        lambda p: ("UPDATE events SET position = position + 1000 WHERE position > 60",),
        {"order"},
    ),
    "the versions of a stream moved on": (
        lambda p: (
            "UPDATE events SET version = version + 1000 WHERE stream = 3 AND version > 5",
            "UPDATE events SET version = version - 999 WHERE stream = 3 AND version > 1000",
        ),
        {"order"},
    ),
    "an event given another type": (
        lambda p: ("UPDATE events SET type = (type % 5) + 1 WHERE position = 30",),
        {"chain"},
    ),
    "an epoch that nobody had": (
        lambda p: ("UPDATE events SET epoch = 7 WHERE position = 40",),
        {"atomic", "order"},
    ),
    "a stream that nobody wrote": (
        lambda p: ("INSERT INTO streams (name) VALUES ('session-ghost')",),
        {"order"},
    ),
    "an owing stream forgotten": (lambda p: ("DELETE FROM owing",), {"owing"}),
    "a stream said to owe": (lambda p: ("INSERT OR IGNORE INTO owing VALUES (1), (2), (3)",), {"owing"}),
    "a key that stands for another batch": (
        lambda p: ("UPDATE commands SET version = version + 1000 WHERE key LIKE '%one-1'",),
        {"keys"},
    ),
    "the writer of an epoch renamed": (lambda p: ("UPDATE owners SET writer = 'somebody'",), {"chain"}),
    "a context altered": (
        lambda p: ("UPDATE texts SET text = replace(text, '\"user\"', '\"root\"')",),
        {"chain"},
    ),
    "the newest batch cut off": (
        lambda p: (f"DELETE FROM events WHERE {_span(batch_at(p, -1))}",),
        {"file"},
    ),
    "bytes stored as text": (
        lambda p: ("UPDATE events SET data = 'text' WHERE position = 50",),
        {"atomic"},
    ),
    "a version stored as text": (
        lambda p: ("UPDATE events SET version = 'nine' WHERE position = 50",),
        {"atomic", "order"},
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_named(name: str, path: Path) -> None:
    damage, expected = DAMAGES[name]
    edit(path, *damage(path))
    assert found(path) & expected, verify(str(path))


def test_an_epoch_that_falls_is_found(path: Path) -> None:
    SqliteLog(path).close()
    settle(path)
    edit(path, f"UPDATE events SET epoch = 2 WHERE {_span(batch_at(path, 10))}")
    assert "writer" in found(path)


def test_whole_batches_cut_off_with_every_trace_of_them_are_not_found(path: Path) -> None:
    # Said in the documentation: only what was noted outside of the file (its last position) tells.
    last = batch_at(path, -1)
    before = [stored.batch.head.owes for stored in content(path)[:-1] if stored.batch.stream == last.batch.stream]
    stream = f"(SELECT number FROM streams WHERE name = '{last.batch.stream}')"
    edit(
        path,
        f"DELETE FROM events WHERE {_span(last)}",
        "UPDATE sqlite_sequence SET seq = (SELECT max(position) FROM events) WHERE name = 'events'",
        f"DELETE FROM commands WHERE stream = '{last.batch.stream}' AND version > {last.batch.version}",
        f"DELETE FROM owing WHERE stream = {stream}",
        *([f"INSERT INTO owing VALUES ({stream})"] if before and before[-1] else []),
        "DELETE FROM streams WHERE number NOT IN (SELECT stream FROM events)",
    )
    assert verify(str(path)).sound


# -- damage, planted in the file


def test_a_flipped_bit_in_the_file_never_passes_for_the_truth(path: Path, figure: Figure) -> None:
    rng = random.Random(11)
    truth, whole = content(path), path.read_bytes()
    copy = path.with_name("flipped.db")
    refused = named = harmless = 0
    for number in range(5000 if LONG else 120):
        damaged = bytearray(whole)
        bit = rng.randrange(len(whole) * 8)
        damaged[bit // 8] ^= 1 << bit % 8
        copy.write_bytes(damaged)
        try:
            report = verify(str(copy))
        except ReenactError:
            refused += 1
            continue
        if report.sound:
            assert content(copy) == truth, f"flip {number}, bit {bit}, went unseen"
            harmless += 1
        else:
            named += 1
    figure(f"{refused} refused, {named} named, {harmless} in unused bytes")
    assert named > 0 and refused > 0


def positions_in(path: Path) -> list[int]:
    """Where in the file the positions of events stand: in the leaves of their table, and in the pages above, which say
    where to look for one. https://www.sqlite.org/fileformat2.html#b_tree_pages"""
    whole = path.read_bytes()
    with closing(sqlite3.connect(path)) as db:
        (size,) = db.execute("PRAGMA page_size").fetchone()
        pages = db.execute("SELECT pageno, pagetype FROM dbstat WHERE name = 'events' ORDER BY pageno").fetchall()
    found = []
    for number, kind in pages:
        page = (number - 1) * size
        leaf = kind == "leaf"
        for cell in range(int.from_bytes(whole[page + 3 : page + 5], "big")):
            pointer = page + (8 if leaf else 12) + 2 * cell
            at = page + int.from_bytes(whole[pointer : pointer + 2], "big")
            at += number_length(whole, at) if leaf else 4  # the row's length, or the page below
            found += range(at, at + number_length(whole, at))
    return found


def number_length(whole: bytes, at: int) -> int:
    return next(length for length in range(1, 10) if length == 9 or whole[at + length - 1] < 0x80)


@pytest.mark.timeout(300 if LONG else 60)
def test_a_flipped_bit_in_a_position_keeps_no_reader_for_ever(path: Path, figure: Figure) -> None:
    whole = path.read_bytes()
    flips = [(at, bit) for at in positions_in(path) for bit in range(8)]
    assert len(flips) > 1000
    copy = path.with_name("flipped.db")
    for at, bit in flips if LONG else random.Random(3).sample(flips, 150):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << bit
        copy.write_bytes(damaged)
        with suppress(ReenactError):
            assert not verify(str(copy)).sound, f"bit {bit} of byte {at} went unseen"
        with suppress(ReenactError):
            content(copy)
    figure(f"{len(flips)} bits")


# -- damage that only a decider could do


def rechained(batches: list[Stored]) -> MemoryStore:
    """These batches with chains made anew: what a forger with a copy of this program would do."""
    store = MemoryStore()
    store.epoch = 1
    log = MemoryLog(store)
    chains: dict[str, bytes] = {}
    for stored in batches:
        batch = stored.batch
        previous = chains.get(batch.stream, b"")
        head = replace(batch.head, chain=codec.chain(previous, batch.head, map(codec.row_digest, batch.rows)))
        chains[batch.stream] = head.chain
        entry = replace(stored, position=store.position + 1, batch=replace(batch, head=head))
        store.position += len(batch.rows)
        store.all.append(entry)
        store.by_stream.setdefault(batch.stream, []).append(entry)
    return log._store


def names_of(report: Report) -> set[str]:
    return {violation.invariant for violation in report.violations}


def test_a_text_changed_under_a_new_chain_is_found_by_deciding_again(path: Path) -> None:
    batches = content(path)
    assert verify_log(MemoryLog(rechained(batches))).sound
    for number, stored in enumerate(batches):
        if any(b"go 1" in row.data for row in stored.batch.rows):
            changed = tuple(replace(row, data=row.data.replace(b"go 1", b"go 9")) for row in stored.batch.rows)
            batches[number] = replace(stored, batch=replace(stored.batch, rows=changed))
            break
    assert names_of(verify_log(MemoryLog(rechained(batches)))) == {"replay"}


def test_two_batches_of_one_id_are_found(path: Path) -> None:
    batches = content(path)
    head = replace(batches[9].batch.head, id=batches[8].batch.head.id)
    batches[9] = replace(batches[9], batch=replace(batches[9].batch, head=head))
    assert "ids" in names_of(verify_log(MemoryLog(rechained(batches))))


def crash_and_recover(store: MemoryStore) -> None:
    """A turn with a tool of each class, killed while they run, and taken up by the next owner."""
    import asyncio

    async def first() -> None:
        started = asyncio.Event()
        unfinished: Runtime = runtime(THREE_CALLS, store=store, tools=TOOLS)
        async with unfinished as opened:
            opened.on("tool_started", lambda event: started.set())
            opened._outside._tools.run = never  # type: ignore[method-assign]
            await (await opened.image("one")).send("go").run()
            await started.wait()

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    async def second() -> None:
        async with runtime(THREE_CALLS, store=store, tools=TOOLS, repeat=False) as opened:
            async for recorded in opened.follow():
                if recorded.type in ("job_waiting", "job_succeeded"):
                    break

    asyncio.run(asyncio.wait_for(first(), 20))
    asyncio.run(asyncio.wait_for(second(), 20))


def test_a_build_that_repeats_unsafe_calls_is_found_though_it_replays_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    crash_and_recover(store)
    assert verify_log(MemoryLog(store), keys=store.keys.values()).sound

    def repeats(state: mind.State, message: agent.RecoverEffect) -> object:
        tool = mind.tool_of(state, message.effect)
        there = tool is not None and tool.status == "started"
        return [ToolRelaunched(tool=message.effect, attempt=message.attempt)] if there else ()

    monkeypatch.setitem(agent._DECIDE, agent.RecoverEffect, repeats)
    broken = MemoryStore()
    crash_and_recover(broken)
    report = verify_log(MemoryLog(broken), keys=broken.keys.values())
    assert [v.what for v in report.violations] == ["t3, which is unsafe, is started again by recover_effect"]
    assert names_of(report) == {"effects"}


def test_a_build_that_starts_a_call_again_without_a_look_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def hastens(state: mind.State, message: agent.RecoverEffect) -> object:
        tool = mind.tool_of(state, message.effect)
        return [calls.begin(tool)] if tool is not None and tool.status == "started" else ()

    monkeypatch.setitem(agent._DECIDE, agent.RecoverEffect, hastens)
    broken = MemoryStore()
    crash_and_recover(broken)
    report = verify_log(MemoryLog(broken), keys=broken.keys.values())
    found = [violation.what for violation in report.violations if violation.invariant == "effects"]
    assert found == [f"t{number} is started again by recover_effect, and was not looked at" for number in (1, 2, 3)]


def test_a_build_that_asks_a_model_nobody_selected_is_found_though_it_replays_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def says_hi(model: str, *fallbacks: str) -> Report:
        store = MemoryStore()

        async def main() -> None:
            config = {"model": model, "fallbacks": fallbacks}
            async with Runtime(MemoryLog(store), default_agent=config) as opened:
                assert (await (await opened.image("x")).send("hi")).text == "hi"

        asyncio.run(asyncio.wait_for(main(), 20))
        return verify_log(MemoryLog(store), keys=store.keys.values())

    assert says_hi("scripted:fails:auth", "scripted:echo").sound
    for room in (mind, step):
        monkeypatch.setattr(room, "model_of", lambda state: "scripted:echo")
    report = says_hi("scripted:hello")
    assert [v.what for v in report.violations] == ["m1 asks scripted:echo, and scripted:hello is what was selected"]


def test_more_violations_than_can_be_listed_are_counted(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr("reenact.actors.verify.VIOLATIONS_MAX", 3)
    edit(path, "UPDATE events SET data = zeroblob(3)")
    report = verify(str(path))
    assert len(report.violations) == 3 and report.more > 3 and "violations in" in report.summary
