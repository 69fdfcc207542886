"""Replay re-drives a stream and names the first place where it parts from the log, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from reenact.actors import agent, mind, session, tool, turn
from reenact.actors.cell import Cell
from reenact.actors.replay import Difference, replay
from reenact.events import codec
from reenact.events.agent import ToolAuthorised, TurnCompleted
from reenact.events.errors import BadInput
from reenact.events.log import MemoryLog, Row, Stored, Transaction
from reenact.events.message import Asked, Command, Erased
from reenact.events.session import CloseSession, JobQueued, JobStarted
from tests.actors.words import CREATE, asks, fails, says, send, settles

SESSION = "session-sess_1"

PAST: tuple[Command, ...] = (
    CREATE,
    send(timeout_ms=60_000),
    asks("m1", "read", "unsafe"),
    settles("t2"),
    settles("t1"),
    fails("m2", retry_in_ms=10),
    says("m2"),
    send("job_2"),
)


def history(*commands: Command) -> list[Stored]:
    """The batches of a conversation in which this was asked."""
    log, cell = MemoryLog(), Cell(SESSION)
    for n, command in enumerate(commands or PAST, start=1):
        prepared = cell.prepare(Asked(id=f"{n:032x}", at=n * 1_000_000, command=command), log)
        assert prepared is not None
        [[stored]] = log.commit([Transaction((prepared.batch,))])  # type: ignore[misc]
        cell.accept(prepared, stored)
    return log.read(SESSION)


def parts(stored: Sequence[Stored]) -> Difference:
    """Where a replay of this parts from it."""
    verdict = replay(SESSION, stored)
    assert not verdict.identical and verdict.first_difference is not None
    at = verdict.first_difference
    assert at.kind in verdict.summary and f"version {at.version}" in verdict.summary
    return at


def rechained(stored: Sequence[Stored]) -> list[Stored]:
    """The same batches by somebody who can compute digests: their chain holds."""
    out, previous = [], b""
    for each in stored:
        batch = each.batch
        previous = codec.chain(previous, batch.head, map(codec.row_digest, batch.rows))
        out.append(replace(each, batch=replace(batch, head=replace(batch.head, chain=previous))))
    return out


def with_rows(stored: Sequence[Stored], at: int, rows: Callable[[tuple[Row, ...]], Sequence[Row]]) -> list[Stored]:
    """The batches with the rows of number `at` changed."""
    out = list(stored)
    out[at] = replace(out[at], batch=replace(out[at].batch, rows=tuple(rows(out[at].batch.rows))))
    return out


def with_head(stored: Sequence[Stored], n: int, **fields: Any) -> list[Stored]:
    out = list(stored)
    out[n] = replace(out[n], batch=replace(out[n].batch, head=replace(out[n].batch.head, **fields)))
    return out


# -- nothing differs --


def test_what_was_decided_is_decided_again() -> None:
    stored = history()
    verdict = replay(SESSION, stored)
    assert verdict.identical and verdict.first_difference is None and verdict.network_calls == 0
    assert (verdict.events, verdict.batches) == (sum(len(each.batch.rows) for each in stored), len(PAST))
    assert verdict.states[0].running.job_id == "job_2"
    assert verdict.summary.startswith(f"identical: {verdict.events} events")


def test_nothing_is_identical_to_nothing() -> None:
    verdict = replay(SESSION, [])
    assert (verdict.identical, verdict.events, verdict.batches) == (True, 0, 0)


def test_step_hears_each_batch_and_the_states_after_it() -> None:
    heard: list[tuple[int, Any]] = []
    stored = history()
    replay(SESSION, stored, step=lambda events, states: heard.append((len(events), states)))
    assert [count for count, _ in heard] == [len(each.batch.rows) for each in stored]
    assert heard[1][1][0].running.job_id == "job_1"


# -- the bytes are not those that were appended --


@pytest.mark.parametrize("at", range(len(PAST)))
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_byte_that_is_flipped_breaks_the_chain_where_it_lies(at: int, place: str) -> None:
    stored = history()

    def flip(rows: tuple[Row, ...]) -> list[Row]:
        row = rows[-1]
        where = {"first": 0, "middle": len(row.data) // 2, "last": len(row.data) - 1}[place]
        data = bytes([*row.data[:where], row.data[where] ^ 1, *row.data[where + 1 :]])
        return [*rows[:-1], replace(row, data=data)]

    difference = parts(with_rows(stored, at, flip))
    assert (difference.kind, difference.version) == ("chain", stored[at].batch.version + 1)
    assert difference.position == stored[at].position
    assert difference.recorded != difference.decided


@pytest.mark.parametrize(
    "field", [{"asked": "interrupt"}, {"at": 5}, {"owes": ("t9",)}, {"writer": "eve"}, {"cause": "x-0"}, {"chain": b""}]
)
def test_a_head_that_was_changed_breaks_the_chain_too(field: dict[str, Any]) -> None:
    assert parts(with_head(history(), 2, **field)).kind == "chain"


def test_a_batch_that_is_missing_or_twice_breaks_the_chain() -> None:
    stored = history()
    assert parts(stored[:3] + stored[4:]).version == stored[4].batch.version + 1
    assert parts([*stored[:4], *stored[3:]]).kind == "chain"
    assert parts(stored[1:]).kind == "chain"


def test_a_batch_whose_bytes_mean_nothing_is_named_and_not_raised() -> None:
    stored = history()
    broken = with_rows(stored, 2, lambda rows: [replace(rows[0], data=b"\xc1"), *rows[1:]])
    assert parts(broken).kind == "chain"
    assert parts(rechained(broken)).kind == "unreadable", "also when somebody made the chain fit"


# -- the chain holds, and it is decided otherwise now --


def test_an_event_with_other_words_is_shown_beside_what_is_decided_now(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = history()
    monkeypatch.setattr(tool, "SKIPPED", "Not run.")
    assert replay(SESSION, stored).identical, "nothing was skipped in it"

    def impatient(state: mind.State, reason: str, failure: Any = None) -> TurnCompleted:
        return TurnCompleted(turn=state.turn, reason=reason, stop_reason="bored", failure=failure, steps=state.steps)

    monkeypatch.setattr(turn, "completed", impatient)
    difference = parts(stored)
    assert difference.kind == "event"
    at = stored[6].batch
    assert difference.version == at.version + 1 + [row.type for row in at.rows].index("turn_completed")
    assert "turn_completed" in (difference.recorded or "") and "end_turn" in (difference.recorded or "")
    assert "bored" in (difference.decided or "")


def test_the_log_having_more_than_is_decided_now_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = history()
    answer = agent._DECIDE[agent.AnswerModel]
    monkeypatch.setitem(
        agent._DECIDE,
        agent.AnswerModel,
        lambda state, message: answer(state, message)[:-1] if message.checks else answer(state, message),
    )
    difference = parts(stored)
    assert (difference.kind, difference.decided) == ("missing", None)
    assert difference.version == stored[2].batch.last and "tool_started" in (difference.recorded or "")


def test_deciding_more_than_the_log_has_is_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = history()
    settle = agent._DECIDE[agent.SettleTool]
    monkeypatch.setitem(
        agent._DECIDE,
        agent.SettleTool,
        lambda state, message: [*settle(state, message), ToolAuthorised(tool=message.tool)],
    )
    difference = parts(stored)
    assert (difference.kind, difference.recorded) == ("extra", None)
    assert difference.version == stored[3].batch.last and "tool_authorised" in (difference.decided or "")


def test_other_effects_owed_after_the_same_events_are_seen() -> None:
    stored = history()
    broken = rechained(with_head(stored, 2, owes=("t1",)))
    difference = parts(broken)
    assert (difference.kind, difference.recorded) == ("owed", "t1")
    assert difference.decided == "deadline-job_1, t1, t2" and difference.version == stored[2].batch.last


def test_a_command_that_is_refused_now_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = history()

    def refuse(state: session.State, message: Any) -> Sequence[Any]:
        raise BadInput("Nobody sends anything any more.")

    monkeypatch.setitem(session._DECIDE, type(send()), refuse)
    difference = parts(stored)
    assert (difference.kind, difference.version) == ("refused", 2)
    assert "BadInput: Nobody sends" in (difference.decided or "")


def test_a_batch_that_no_command_of_this_release_leads_to_is_seen() -> None:
    difference = parts(rechained(with_head(history(), 3, asked="shrug")))
    assert difference.kind == "no_command"
    assert difference.recorded == "tool_settled"


def test_words_of_a_newer_release_are_named() -> None:
    stored = history()
    newer = with_rows(stored, 3, lambda rows: [*rows, Row("something_new", 1, b"\x80")])
    difference = parts(rechained(newer[:4]))
    assert (difference.kind, difference.recorded) == ("unknown", "something_new")
    assert difference.version == newer[3].batch.last


def test_an_event_that_was_put_in_with_a_chain_that_fits_is_still_found() -> None:
    stored = history()
    started = codec.row(JobStarted(job_id="job_of_eve"))
    difference = parts(rechained(with_rows(stored, 1, lambda rows: [*rows, started])[:2]))
    assert difference.kind == "missing" and "job_of_eve" in (difference.recorded or "")


# -- the same events in other bytes --


def older(row: Row) -> Row:
    """The row as a release wrote it that did not know its last field yet."""
    fields = msgspec.msgpack.decode(row.data)
    fields.popitem()
    return replace(row, data=msgspec.msgpack.encode(fields))


def test_what_an_older_release_wrote_with_fewer_fields_is_the_same_event() -> None:
    stored = history(CREATE, CloseSession())
    before = with_rows(stored, 0, lambda rows: [older(row) for row in rows])
    assert before[0].batch.rows != stored[0].batch.rows
    verdict = replay(SESSION, rechained(before))
    assert verdict.identical, verdict.summary


def test_and_what_follows_from_its_bytes_follows_from_those_that_are_stored() -> None:
    """The digest of a context is over stored bytes: a replay that encodes them anew parts at the next call."""
    log, cell = MemoryLog(), Cell(SESSION)
    stored: list[Stored] = []
    for n, command in enumerate((CREATE, send(), says("m1"), send("job_2")), start=1):
        prepared = cell.prepare(Asked(id=f"{n:032x}", at=n, command=command), log)
        assert prepared is not None
        batch = prepared.batch
        if n == 1:
            batch = replace(batch, rows=tuple(older(row) for row in batch.rows))
            head = replace(batch.head, chain=codec.chain(b"", batch.head, map(codec.row_digest, batch.rows)))
            batch = replace(batch, head=head)
        log.commit([Transaction((batch,))])
        cell.load(log)
        stored = log.read(SESSION)
    verdict = replay(SESSION, stored)
    assert verdict.identical, verdict.summary


# -- what is erased --


def test_what_was_erased_is_taken_as_it_stands_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = history()
    unpack = codec.unpack

    def without_the_key(each: Stored) -> list[Any]:
        """As a log gives it whose key for the first input was destroyed: the bytes are there, what they say is not."""
        return [
            replace(one, data=Erased(name=one.type, key="k1"))
            if isinstance(one.data, JobQueued) and one.data.job_id == "job_1"
            else one
            for one in unpack(each)
        ]

    monkeypatch.setattr(codec, "unpack", without_the_key)
    verdict = replay(SESSION, stored)
    assert verdict.erased == 1 and verdict.batches >= 2


# -- the first of several --


def test_of_several_differences_the_first_is_named() -> None:
    stored = history()
    broken = rechained(with_head(with_head(stored, 2, owes=()), 4, owes=()))
    assert parts(broken).version == stored[2].batch.last
    assert parts(with_head(broken, 6, at=1)).version == stored[2].batch.last, (
        "a broken chain behind it does not hide it"
    )


@pytest.mark.parametrize("at", range(2, len(PAST)))
def test_a_change_of_words_is_found_in_the_batch_where_it_was_made(at: int) -> None:
    stored = history()

    def shout(rows: tuple[Row, ...]) -> list[Row]:
        fields = msgspec.msgpack.decode(rows[0].data)
        name = next(name for name, value in fields.items() if isinstance(value, str))
        fields[name] += "!"
        return [replace(rows[0], data=msgspec.msgpack.encode(fields)), *rows[1:]]

    changed = rechained(with_rows(stored, at, shout))
    difference = parts(changed)
    assert stored[at].batch.version < difference.version <= stored[min(at + 1, len(stored) - 1)].batch.last
