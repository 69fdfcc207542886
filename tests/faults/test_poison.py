"""Poison in a log: one stream that cannot be gone on with, read as far as it can be, while all the others live."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from reenact import Runtime
from reenact.actors.cell import Cell
from reenact.actors.verify import verify as verify_log
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.cli.verify import verify
from reenact.events import codec
from reenact.events.container import AddImage
from reenact.events.errors import Corrupt, NewerFormat, ReenactError
from reenact.events.log import Batch, MemoryLog, MemoryStore, Row, Transaction
from reenact.events.message import Asked, Head
from reenact.events.session import JobQueued
from reenact.image import Image
from reenact.projections.duck import DuckProjection
from tests.conftest import LONG, Figure
from tests.runtimes import runtime


def append(log: Any, stream: str, *rows: Row, owes: tuple[str, ...] = ()) -> None:
    """These rows at the end of a stream, under a true chain: what another release would have written."""
    last = log.read(stream)[-1].batch
    head = Head(id=f"{last.last:032x}", at=last.head.at + 1, asked="poison", context=last.head.context, owes=owes)
    head = replace(head, writer=log.writer)
    head = replace(head, chain=codec.chain(last.head.chain, head, map(codec.row_digest, rows)))
    (result,) = log.commit([Transaction((Batch(stream, last.last, head, rows),))])
    assert isinstance(result, list), result


UNKNOWN = Row("dreamt", 1, msgspec.msgpack.encode({"of": "sheep"}))
NEWER = Row("job_queued", JobQueued.schema + 1, msgspec.msgpack.encode({"jobId": "job_9", "how": "better"}))
DAMAGED = Row("job_queued", JobQueued.schema, b"\xc1")
OLD = Row("job_queued", 0, msgspec.msgpack.encode({"jobId": "job_9"}))


@pytest.fixture
def broken_upcaster() -> Iterator[None]:
    def lift(fields: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("content")

    codec.UPCASTERS["job_queued", 0] = lift
    yield
    del codec.UPCASTERS["job_queued", 0]


Work = Callable[[Runtime, Image, Image], Awaitable[None]]


def poisoned(work: Work, *rows: Row, owes: tuple[str, ...] = ()) -> MemoryStore:
    """Two conversations, one of them poisoned; the next owner has `work` done with both. Gives the store."""
    store = MemoryStore()

    async def before() -> str:
        async with runtime(store=store) as opened:
            for name in ("ill", "well"):
                await (await opened.image(name)).send("hi")
            return (await opened.image("ill")).session_id

    async def after() -> None:
        async with runtime(store=store) as opened:
            await work(opened, await opened.image("ill"), await opened.image("well"))

    session_id = asyncio.run(before())
    append(MemoryLog(store), f"session-{session_id}", *rows, owes=owes)
    asyncio.run(asyncio.wait_for(after(), 20))
    return store


async def goes_on(well: Image) -> None:
    assert (await well.send("again")).status == "succeeded"


@pytest.mark.parametrize("row", [UNKNOWN, NEWER], ids=["unknown type", "newer schema"])
def test_what_a_newer_release_wrote_is_read_and_not_gone_on_with(row: Row) -> None:
    async def work(runtime: Runtime, ill: Image, well: Image) -> None:
        assert [message.role for message in await ill.messages()] == ["user", "assistant"]
        assert (await ill.events())[-1].type == "unknown"
        for _ in range(2):
            with pytest.raises(NewerFormat, match=row.type):
                await ill.send("more")
        with pytest.raises(NewerFormat):
            await ill.interrupt()
        await goes_on(well)

    store = poisoned(work, row)
    report = verify_log(MemoryLog(store), keys=store.keys.values())
    assert report.sound and len(report.newer) == 1


@pytest.mark.parametrize("row", [DAMAGED, OLD], ids=["damaged", "upcaster raises"])
def test_what_cannot_be_read_stops_one_session_by_name(row: Row, broken_upcaster: None) -> None:
    async def work(runtime: Runtime, ill: Image, well: Image) -> None:
        with pytest.raises(Corrupt, match="job_queued"):
            await ill.messages()
        for _ in range(2):
            with pytest.raises(Corrupt, match="job_queued"):
                await ill.send("more")
        await goes_on(well)

    store = poisoned(work, row)
    report = verify_log(MemoryLog(store), keys=store.keys.values())
    assert not report.sound and {violation.invariant for violation in report.violations} <= {"replay", "owing"}


@pytest.mark.parametrize("row", [UNKNOWN, DAMAGED], ids=["unknown type", "damaged"])
def test_an_owner_starts_although_a_poisoned_session_owes_something(row: Row) -> None:
    async def work(runtime: Runtime, ill: Image, well: Image) -> None:
        await goes_on(well)
        with pytest.raises(ReenactError):
            await ill.send("more")
        await goes_on(well)

    poisoned(work, row, owes=("m9",))


def test_a_build_that_reads_over_what_it_does_not_know_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Cell.take

    def forgets(self: Cell, stored: Any) -> Any:
        events = take(self, stored)
        self._unknown = None
        return events

    monkeypatch.setattr(Cell, "take", forgets)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_what_a_newer_release_wrote_is_read_and_not_gone_on_with(UNKNOWN)


def test_an_event_of_ten_megabytes_is_an_event_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    text = "ten megabytes " * 750_000

    async def main() -> None:
        async with runtime() as opened:
            assert (await (await opened.image("big")).send(text)).status == "succeeded"

    asyncio.run(asyncio.wait_for(main(), 60))
    log = SqliteLog(path)
    cell = Cell("container-a")
    for number, image_id in enumerate(("small", text, "small too"), start=1):
        command = AddImage(container_id="a", image_id=image_id, created_at=number)
        prepared = cell.prepare(Asked(id=f"{number:032x}", at=number, command=command), log)
        assert prepared is not None
        (result,) = log.commit([Transaction((prepared.batch,))])
        assert isinstance(result, list)
        cell.accept(prepared, result[0])
    log.close()
    report = verify(str(path))
    assert report.sound and report.batches == 3
    assert text in str(codec.unpack(SqliteLog(path).read("container-a")[1]))


SESSIONS, EVERY = (400, 20) if LONG else (40, 10)


def test_one_poisoned_event_in_many_stops_its_own_session_and_no_other(broken_upcaster: None, figure: Figure) -> None:
    """Of many sessions every so-many-th is poisoned. Who reads all of them by position stops there, by name."""
    store, kinds = MemoryStore(), (UNKNOWN, DAMAGED, NEWER, OLD)
    sessions: list[tuple[str, str]] = []

    async def before() -> None:
        async with runtime(store=store) as opened:
            for number in range(SESSIONS):
                bot = await opened.image(f"bot {number}")
                sessions.append((bot.id, bot.session_id))
                for turn in range(6):
                    await bot.send(f"turn {turn}")

    async def after() -> None:
        async with runtime(store=store) as opened:
            for image_id, session_id in sessions:
                if session_id in ill:
                    with pytest.raises(ReenactError, match=ill[session_id].type):
                        await (await opened.send(image_id, "more", session_id=session_id)).result()
                else:
                    run = await opened.send(image_id, "more", session_id=session_id)
                    assert (await run.result()).status == "succeeded"

    asyncio.run(asyncio.wait_for(before(), 300))
    ill = {session: kinds[n % 4] for n, (_, session) in enumerate(sessions[::EVERY])}
    for session_id, row in ill.items():
        append(MemoryLog(store), f"session-{session_id}", row)
    asyncio.run(asyncio.wait_for(after(), 300))
    report = verify_log(MemoryLog(store), keys=store.keys.values())
    named = {violation.stream for violation in report.violations} | set(report.newer)
    assert named == {f"session-{session_id}" for session_id in ill}, "each is named, and nothing else is"

    first = next(s.position for s in store.all if s.batch.rows[0] in (DAMAGED, OLD))
    with DuckProjection() as tables:
        for _ in range(2):  # and again: it does not get over it by itself
            with pytest.raises(Corrupt, match="job_queued"):
                tables.catch_up(MemoryLog(store), batch_events=100)
        assert tables.position < first
        assert tables.sql("SELECT max(position) FROM events").rows == [(tables.position,)], "nothing is skipped"
    figure(f"{len(ill)} of {SESSIONS} sessions poisoned, in {report.events} events: each stopped by name, no other")
