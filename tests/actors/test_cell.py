"""The life of one stream: what is refused leaves nothing, what is stored is taken over, what moved is read again."""

from __future__ import annotations

from typing import Any

import pytest

from reenact.actors.cell import Cell, fold, noun_of
from reenact.actors.container import CONTAINER
from reenact.actors.conversation import CONVERSATION
from reenact.actors.image import IMAGE
from reenact.actors.ledger import LEDGER
from reenact.events import codec
from reenact.events.container import CreateContainer
from reenact.events.errors import Closed, Conflict, Corrupt, NewerFormat
from reenact.events.log import Batch, Log, MemoryLog, MemoryStore, Row, Stored, Transaction
from reenact.events.message import Asked, Command, Context, Head, Recorded
from reenact.events.session import CancelJob, CloseSession
from tests.actors.words import CREATE, asks, says, send, settles
from tests.chains import broken_at

SESSION = "session-sess_1"


def asked(command: Command, n: int = 1, **fields: Any) -> Asked:
    return Asked(id=f"{n:032x}", at=1_000_000 + n, command=command, **fields)


def put(cell: Cell, log: Log, command: Command, n: int = 1, **fields: Any) -> list[Recorded]:
    prepared = cell.prepare(asked(command, n, **fields), log)
    assert prepared is not None
    [[stored]] = log.commit([Transaction((prepared.batch,))])  # type: ignore[misc]
    return cell.accept(prepared, stored)


def awake(log: Log, *commands: Command) -> Cell:
    cell = Cell(SESSION)
    for n, command in enumerate(commands, start=1):
        put(cell, log, command, n)
    return cell


def test_a_stream_is_the_noun_that_its_name_begins_with() -> None:
    names = ("session-a", "image-a", "container-a", "ledger-a")
    assert [noun_of(name) for name in names] == [CONVERSATION, IMAGE, CONTAINER, LEDGER]
    with pytest.raises(KeyError):
        noun_of("purse-a")


def test_what_is_told_is_what_is_read() -> None:
    log = MemoryLog()
    cell = Cell(SESSION)
    told = [event for n, each in enumerate((CREATE, send(), says("m1")), 1) for event in put(cell, log, each, n)]
    assert told == [event for stored in log.read(SESSION) for event in codec.unpack(stored)]
    assert [event.version for event in told] == list(range(1, len(told) + 1))
    assert fold(CONVERSATION, told) == cell.states


def test_deciding_changes_nothing_until_the_log_has_it() -> None:
    log = MemoryLog()
    cell = awake(log, CREATE)
    before = cell.states, cell.version, cell.chain
    first, second = cell.prepare(asked(send()), log), cell.prepare(asked(send()), log)
    assert first is not None and first == second
    assert (cell.states, cell.version, cell.chain) == before and log.head(SESSION) == 1


def test_what_is_already_so_makes_no_batch() -> None:
    log = MemoryLog()
    assert awake(log, CREATE).prepare(asked(CREATE), log) is None


def test_what_is_refused_leaves_nothing_behind() -> None:
    log = MemoryLog()
    cell = awake(log, CREATE, CloseSession())
    before = cell.states, cell.version
    with pytest.raises(Closed):
        cell.prepare(asked(send()), log)
    assert (cell.states, cell.version) == before


def test_a_stream_read_by_its_next_owner_is_the_same_and_owes_the_same() -> None:
    store = MemoryStore()
    cell = awake(MemoryLog(store), CREATE, send(timeout_ms=500), asks("m1", "read", "unsafe"))
    again = Cell(SESSION)
    again.load(MemoryLog(store))
    assert (again.states, again.version, again.chain) == (cell.states, cell.version, cell.chain)
    assert again.owed == cell.owed and [effect.id for effect in cell.owed] == ["deadline-job_1", "t1", "t2"]


def test_one_that_falls_behind_conflicts_catches_up_and_decides_anew() -> None:
    log = MemoryLog()
    first = awake(log, CREATE, send())
    second = Cell(SESSION)
    second.load(log)
    put(first, log, says("m1"), 3)
    late = second.prepare(asked(send("job_2"), 4), log)
    assert late is not None
    [conflict] = log.commit([Transaction((late.batch,))])
    assert isinstance(conflict, Conflict) and second.version < first.version
    second.catch_up(log)
    assert second.states == first.states
    started = put(second, log, send("job_2"), 4)
    assert [event.type for event in started] == ["job_queued", "job_started", "turn_started", "model_called"]


def test_catching_up_where_nothing_moved_changes_nothing() -> None:
    log = MemoryLog()
    cell = awake(log, CREATE, send())
    before = cell.states, cell.version, cell.chain
    cell.catch_up(log)
    assert (cell.states, cell.version, cell.chain) == before


# -- the head of a batch --


def test_a_batch_says_who_asked_for_what_and_because_of_what() -> None:
    log = MemoryLog(writer="me")
    cell = Cell(SESSION)
    first = cell.prepare(asked(CREATE, 1, scope="acme"), log)
    assert first is not None
    cell.accept(first, log.commit([Transaction((first.batch,))])[0][0])  # type: ignore[index]
    prepared = cell.prepare(
        asked(send(), 7, scope="acme", principal="eve", cause="c-0", correlation="cc", trace="00-ab"), log
    )
    assert prepared is not None
    head = prepared.batch.head
    assert (head.id, head.at, head.asked) == (f"{7:032x}", 1_000_007, "send")
    assert (head.cause, head.correlation, head.trace, head.writer) == ("c-0", "cc", "00-ab", "me")
    assert head.context == Context("acme", "eve", "acme", "img_1", "sess_1", "agent_of_job_1")
    assert head.job == "job_1" and head.owes == ("m1",)


def test_a_command_that_nothing_caused_is_its_own_correlation() -> None:
    log = MemoryLog()
    [created] = put(Cell(SESSION), log, CREATE, 5)
    assert created.head.correlation == created.head.id and created.head.cause is None


def test_a_batch_belongs_to_the_job_that_it_names_else_to_the_one_that_runs() -> None:
    log = MemoryLog()
    cell = awake(log, CREATE, send(), send("job_2"))
    assert {event.head.job for event in put(cell, log, asks("m1", "read"), 4)} == {"job_1"}
    assert {event.head.job for event in put(cell, log, CancelJob(job_id="job_2"), 5)} == {"job_2"}
    assert {event.head.job for event in put(cell, log, settles("t1"), 6)} == {"job_1"}
    ended = put(cell, log, says("m2"), 7)
    assert ended[-1].type == "job_succeeded" and {event.head.job for event in ended} == {"job_1"}


def test_batches_are_chained_from_the_first_to_the_last() -> None:
    log = MemoryLog()
    cell = awake(log, CREATE, send(), asks("m1", "read"), settles("t1"), says("m2"))
    batches = log.read(SESSION)
    assert broken_at(batches) is None and batches[-1].batch.head.chain == cell.chain
    assert len({stored.batch.head.chain for stored in batches}) == 5


# -- what a newer release wrote, and what nobody wrote --


def stored_by_others(store: MemoryStore, *rows: Row) -> None:
    """Append rows to the session as some other program does."""
    log = MemoryLog(store)
    batch = Batch(SESSION, log.head(SESSION), Head(id="e" * 32, at=1, asked="something_new", chain=b"x"), rows)
    log.commit([Transaction((batch,))])


NEW_TYPE = Row("something_new", 1, b"\x80")
NEW_SCHEMA = Row("job_started", 99, b"\x80")


@pytest.mark.parametrize("row", [NEW_TYPE, NEW_SCHEMA], ids=["a new type", "a new schema"])
def test_a_stream_with_words_of_a_newer_release_is_read_and_never_written(row: Row) -> None:
    store = MemoryStore()
    awake(MemoryLog(store), CREATE, send(), asks("m1", "unsafe"))
    stored_by_others(store, row)
    log = MemoryLog(store)
    cell = Cell(SESSION)
    cell.load(log)
    assert cell.version == log.head(SESSION), "what it knows of them it takes over"
    with pytest.raises(NewerFormat, match=row.type):
        cell.prepare(asked(send("job_2")), log)
    assert cell.owed == (), "and nothing is begun that they may have settled"


def test_reading_again_with_a_release_that_knows_them_lifts_the_ban() -> None:
    store = MemoryStore()
    awake(MemoryLog(store), CREATE)
    stored_by_others(store, NEW_TYPE)
    log = MemoryLog(store)
    cell = Cell(SESSION)
    cell.load(log)
    newer = [stored for stored in store.by_stream[SESSION] if stored.batch.head.asked == "create_session"]
    store.by_stream[SESSION][:] = newer
    cell.load(log)
    assert cell.prepare(asked(send()), log) is not None


@pytest.mark.parametrize(
    "row",
    [Row("job_started", 1, b"\xc1"), Row("job_started", 1, b"\x81\xa5jobId\x01"), Row("job_started", 1, b"")],
    ids=["no msgpack", "wrong fields", "nothing"],
)
def test_bytes_that_mean_nothing_stop_the_stream_by_name(row: Row) -> None:
    store = MemoryStore()
    awake(MemoryLog(store), CREATE)
    stored_by_others(store, row)
    cell = Cell(SESSION)
    with pytest.raises(Corrupt, match="version 2"):
        cell.load(MemoryLog(store))


def test_an_upcaster_that_gives_way_stops_the_stream_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    awake(MemoryLog(store), CREATE, send())
    monkeypatch.setattr(codec.TYPES["job_started"], "schema", 2)

    def upcaster(fields: dict[str, Any]) -> dict[str, Any]:
        raise LookupError("what was that again?")

    monkeypatch.setitem(codec.UPCASTERS, ("job_started", 1), upcaster)
    with pytest.raises(Corrupt, match="LookupError"):
        Cell(SESSION).load(MemoryLog(store))


def test_a_batch_taken_over_twice_is_not_there_twice() -> None:
    log = MemoryLog()
    cell = awake(log, CREATE, send())
    again = Cell(SESSION)
    again.load(log)
    again.load(log)
    assert again.states == cell.states and again.version == cell.version


def test_other_nouns_live_the_same_life() -> None:
    log = MemoryLog()
    cell = Cell("container-acme")
    [created] = put(cell, log, CreateContainer(container_id="acme", created_at=1))
    assert isinstance(created, Recorded) and created.head.context.container_id == "acme" and cell.owed == ()
    assert isinstance(log.read("container-acme")[0], Stored)
