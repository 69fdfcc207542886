"""What the audit says of a log: the ten events with their details, one record a fact, no outputs and no secrets."""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact import tool
from reenact.events.action import ActionRequired, ActionResolved
from reenact.events.agent import ModelAnswered, ToolAuthorised
from reenact.events.budget import Budget
from reenact.events.content import Cost, Usage
from reenact.events.errors import BadInput
from reenact.events.log import MemoryLog
from reenact.events.message import Recorded, Unknown
from reenact.projections.audit import AuditEvent, AuditFilter, AuditLog, entry, iso, query, records
from reenact.projections.projection import catch_up
from reenact.projections.trail import Trail
from reenact.projections.transcript import Transcript
from reenact.runtime import Runtime
from tests.histories import History, call, erase, turns
from tests.projections.logs import batches_of, log_of, logs, read

USAGE = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=400, reasoning_tokens=20)
SECRET = "hunter2hunter2"

TEN = {
    "session.created": {"agent_id", "user", "timestamp", "workspace"},
    "session.restored": {"session_id", "message_count", "age"},
    "session.deleted": {"session_id", "reason"},
    "tool.registered": {"tool_id", "params_schema", "source"},
    "tool.invoked": {"tool_id", "params", "paramsHash", "userId"},
    "tool.approved": {"approval_id", "decision", "approver"},
    "tool.executed": {"tool_id", "status", "duration", "result_size", "outputHash"},
    "model.selected": {"model", "provider", "reason"},
    "cost.tracked": {"session_id", "provider", "tokens", "cost"},
}
"""And `context.compressed`, for which no event exists yet."""


def story() -> History:
    """A conversation with a tool, a failed attempt, a sleep, and an end."""
    history = History().send("Refund order 42, the password is hunter2hunter2")
    history.answers("Let me.", call("refund", order=42, password=SECRET), usage=USAGE)
    history.settles(output="Paid back: the card is 4711.", duration_ms=12)
    history.fails("overloaded", retry_in_ms=100).answers("Done.", usage=USAGE)
    history.sleep().later(3600).wake().send("And again?").answers("No.", usage=USAGE).closes()
    cost = Cost(amount="0.25", table="prices 1")
    history.events = [
        replace(each, data=replace(each.data, cost=cost)) if isinstance(each.data, ModelAnswered) else each
        for each in history.events
    ]
    return history


def audit_of(*histories: Iterable[Recorded]) -> AuditLog:
    audit = AuditLog()
    catch_up(log_of(*histories), audit)
    return audit


def found(audit: AuditLog, type: str) -> list[AuditEvent]:
    return audit.query(AuditFilter(types=(type,)))


def details(audit: AuditLog, type: str) -> list[dict[str, Any]]:
    return [event.context or {} for event in found(audit, type)]


@pytest.mark.parametrize("type", TEN)
def test_each_of_the_audit_events_is_there_with_its_details(type: str) -> None:
    events = details(audit_of(story()), type)
    assert events
    for context in events:
        assert TEN[type] <= set(context)


def test_the_details_say_what_happened() -> None:
    audit = audit_of(story())
    [created] = details(audit, "session.created")
    assert (created["agent_id"], created["user"], created["workspace"]) == ("img_1", "user", "/srv/support")
    [restored] = details(audit, "session.restored")
    assert restored["message_count"] == 5
    assert restored["age"] >= 3_600_000
    assert [each["reason"] for each in details(audit, "session.deleted")] == ["image_deleted"]
    [registered] = details(audit, "tool.registered")
    assert (registered["tool_id"], registered["source"]) == ("refund", "code")
    [approved] = details(audit, "tool.approved")
    assert (approved["decision"], approved["approver"]) == ("approved", "policy")
    [executed] = details(audit, "tool.executed")
    assert (executed["status"], executed["duration"], executed["result_size"]) == ("ok", 12, 28)
    selected = details(audit, "model.selected")
    assert [each["reason"] for each in selected] == ["primary", "primary", "retry", "primary"]
    assert {(each["provider"], each["model"]) for each in selected} == {("scripted", "test")}
    tracked = details(audit, "cost.tracked")
    assert [each["cost"] for each in tracked] == ["0.25"] * 3
    assert tracked[0]["tokens"] == {"input": 1000, "output": 100, "cache_read": 400, "cache_write": 0, "reasoning": 20}


def test_a_record_says_who_what_when_and_because_of_what() -> None:
    [invoked] = found(audit_of(story()), "tool.invoked")
    assert invoked.session_id == "sess_1"
    assert (invoked.user_id, invoked.agent_id, invoked.request_id) == ("user", "agent_1", "job_1")
    assert (invoked.resource_type, invoked.resource_id) == ("tool_call", "sess_1:t1")
    assert (invoked.event, invoked.source, invoked.status) == ("tool_requested", "agent", "pending")
    assert (invoked.container_id, invoked.image_id) == ("acme", "img_1")
    assert invoked.timestamp.startswith("2025-06-15T") and invoked.timestamp.endswith("Z")
    assert invoked.id.endswith("-1") and invoked.correlation_id
    assert set(invoked.tags) == {"state", "tool:refund", "unsafe"}


def test_all_that_one_command_led_to_has_one_correlation() -> None:
    audit = audit_of(story())
    [invoked] = found(audit, "tool.invoked")
    together = audit.query(AuditFilter(correlation_id=invoked.correlation_id))
    assert [event.event for event in together] == [
        "model_answered",
        "tool_requested",
        "tool_authorised",
        "tool_started",
    ]


def test_parameters_are_shown_without_secrets_and_pinned_by_their_digest() -> None:
    audit = audit_of(story())
    [invoked], [started] = details(audit, "tool.invoked"), details(audit, "tool_started")
    assert invoked["params"] == {"order": 42, "password": "[redacted]"}
    assert invoked["paramsHash"].startswith("sha256:")
    assert started["attempt"] == 1


def test_neither_outputs_nor_what_was_said_nor_secrets_are_in_the_audit() -> None:
    shown = msgspec.json.encode(list(audit_of(story()))).decode()
    for text in (SECRET, "Paid back", "4711", "Let me.", "Refund order"):
        assert text not in shown


def test_a_call_that_failed_says_so() -> None:
    history = History().send("Hi").answers(call("refund"), call("gone", id="b"), problems={1: "There is no such tool."})
    history.settles(outcome="error", error_type="ValueError")
    [first, second] = found(audit_of(history), "tool.executed")
    assert first.error is not None and second.error is not None
    assert {(first.status, first.error.code), (second.status, second.error.code)} == {
        ("failure", "BadCall"),
        ("failure", "ValueError"),
    }


def test_a_failed_attempt_is_pending_while_it_is_tried_again() -> None:
    history = History().send("Hi").fails("overloaded", retry_in_ms=10).fails("overloaded")
    first, last = found(audit_of(history), "model_failed")
    assert (first.status, last.status) == ("pending", "failure")
    assert first.error is not None and first.error.code == "overloaded"


def test_what_a_failed_attempt_used_is_tracked_too() -> None:
    [tracked] = found(audit_of(History().send("Hi").fails("stream_cut", usage=USAGE)), "cost.tracked")
    assert (tracked.status, tracked.event) == ("failure", "model_failed")
    assert tracked.context is not None and tracked.context["cost"] is None


def test_a_first_waking_restores_nothing() -> None:
    audit = audit_of(History().send("Hi"))
    assert found(audit, "session.restored") == []
    assert len(found(audit, "agent_registered")) == 1


# -- asking --


def test_the_filter_of_the_first_days_works_on_wire_names() -> None:
    audit = audit_of(story())
    events = audit.query({"sessionId": "sess_1", "types": ["tool.invoked", "tool.executed"]})
    assert [event.type for event in events] == ["tool.invoked", "tool.executed"]


def test_every_filter_narrows() -> None:
    audit = audit_of(story(), History(at=1_760_000_000_000_000).send("Hi").fails("refused"))
    everything = audit.query()
    for wanted in (
        AuditFilter(session_id="sess_2"),
        AuditFilter(user_id="user", agent_id="agent_1"),
        AuditFilter(status="failure"),
        AuditFilter(types=("model_failed",)),
        AuditFilter(tags=("tool:refund",)),
        AuditFilter(tags=("tool:refund", "unsafe")),
        AuditFilter(decision="approved"),
        AuditFilter(correlation_id=everything[-1].correlation_id),
        AuditFilter(start_time="2025-10-01T00:00:00Z"),
        AuditFilter(end_time="2025-10-01"),
        AuditFilter(limit=3),
    ):
        events = audit.query(wanted)
        assert 0 < len(events) < len(everything)
        assert [event for event in everything if event in events] == events, "in the order of the log"
    assert audit.query(AuditFilter(session_id="nobody")) == []
    assert audit.query(AuditFilter(limit=0)) == []
    assert audit.query(AuditFilter(limit=2)) == everything[-2:], "the newest"


def test_times_are_read_with_and_without_an_offset_from_included_to_excluded() -> None:
    event = AuditEvent(type="x", timestamp=iso(1_750_000_000_000_000))  # 15:06:40 UTC
    for start in ("2025-06-15T15:06:40", "2025-06-15T15:06:40Z", "2025-06-15T17:06:40+02:00"):
        assert query([event], AuditFilter(start_time=start)) == [event]
        assert query([event], AuditFilter(end_time=start)) == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"startTime": "noon"},
        {"startTime": "0001-01-01T00:00:00+05:00"},
        {"endTime": "9999-12-31T23:59:59-05:00"},
        {"status": "maybe"},
        {"colour": "red"},
        {"types": "tool.invoked"},
        {"limit": "x"},
    ],
)
def test_a_question_that_makes_no_sense_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        AuditLog().query(wanted)


def test_on_records_a_record_and_subscribes_a_listener() -> None:
    audit, heard = AuditLog(), []
    end = audit.on("tool.invoked", heard.append)
    everything: list[AuditEvent] = []
    audit.subscribe("*", everything.append)
    audit.on({"type": "tool.invoked", "sessionId": "s", "timestamp": "2026-01-01T00:00:00Z", "status": "pending"})
    audit.on(AuditEvent(type="other"))
    assert end is not None
    end()
    end()
    audit.record(AuditEvent(type="tool.invoked"))
    assert [event.session_id for event in heard] == ["s"]
    assert [event.type for event in everything] == ["tool.invoked", "other", "tool.invoked"]
    assert len(audit) == 3
    with pytest.raises(BadInput):
        audit.on("tool.invoked")
    with pytest.raises(BadInput):
        audit.record({"type": 7})


def test_a_listener_that_raises_harms_nobody() -> None:
    audit, heard = AuditLog(), []

    def broken(event: AuditEvent) -> None:
        raise RuntimeError("no")

    audit.subscribe(["x", "y"], broken)
    audit.subscribe("x", heard.append)
    audit.record(AuditEvent(type="x"))
    assert (len(audit), len(heard), audit.raised) == (1, 1, 1)


def test_there_is_no_way_to_change_or_remove_a_record() -> None:
    audit = audit_of(story())
    with pytest.raises(AttributeError):
        audit.query()[0].status = "success"  # type: ignore[misc]
    assert not {name for name in dir(audit) if name in ("update", "delete", "remove", "clear", "pop", "__setitem__")}


# -- laws --


@given(logs())
def test_every_fact_has_one_record_and_every_record_a_fact(log: MemoryLog) -> None:
    events = read(log)
    audit = list(records(events))
    assert [record.id for record in audit] == [recorded.id for recorded in events]
    assert [record.position for record in audit] == [recorded.position for recorded in events]
    assert all(record.tags and record.resource_type and record.event for record in audit)
    assert msgspec.json.decode(msgspec.json.encode(audit), type=list[AuditEvent]) == audit


OPERATIONS = {"job", "turn", "model_call", "tool_call"}


def final(events: Iterable[AuditEvent]) -> Counter[str | None]:
    """How many final statuses each operation has."""
    count: Counter[str | None] = Counter()
    for event in events:
        if event.resource_type in OPERATIONS:
            count[event.resource_id] += event.status != "pending"
    return count


@given(turns())
def test_an_operation_has_one_final_status_and_no_more(history: History) -> None:
    """Shown to fail where a failed attempt that is tried again counts as final."""
    ended = final(records(history))
    assert all(count <= 1 for count in ended.values()), ended
    for _ in range(100):  # bring what is open to its end
        if history.job is None:
            break
        if history.call:
            history.answers("Done.")
        else:
            tool = history.open[0]
            history.resolves(tool) if tool in history.doubted else history.settles(tool)
    ended = final(records(history))
    assert all(count == 1 for count in ended.values()), ended


def test_a_final_status_too_many_is_noticed() -> None:
    history = History().send("Hi").fails("overloaded", retry_in_ms=10).answers("Hi.")
    events = list(records(history))
    assert set(final(events).values()) == {1}
    wrong = [replace(event, status="failure") if event.event == "model_failed" else event for event in events]
    assert 2 in final(wrong).values()


@given(turns())
def test_a_restored_session_has_as_many_messages_as_its_transcript(history: History) -> None:
    transcript = Transcript()
    for recorded in history:
        transcript.apply(recorded)
    [*_, registered, _configured] = records(history.wake())
    context = registered.context or {}
    assert (registered.type, context["message_count"]) == ("session.restored", len(transcript.messages))


def test_a_session_in_which_nothing_was_said_is_not_restored() -> None:
    [created, registered, configured] = records(History().wake())
    assert (created.type, registered.type) == ("session.created", "agent_registered")
    assert configured.type == "agent_configured"


@given(st.lists(st.integers(1, 30), max_size=6))
def test_what_was_erased_or_is_not_known_yet_is_a_record_still(versions: list[int]) -> None:
    history = story()
    events = erase(history.events, *versions)
    events = [
        replace(each, data=Unknown(name="new_thing", version=2, raw=b"\x80")) if each.version % 7 == 3 else each
        for each in events
    ]
    audit = list(records(events))
    assert [record.event for record in audit] == [
        "new_thing" if old.version % 7 == 3 else old.type for old in history.events
    ]
    assert all("erased" in record.tags for record, each in zip(audit, events, strict=True) if each.type == "erased")


def test_times_beyond_the_calendar_are_held_at_its_ends() -> None:
    assert (iso(-1), iso(2**62)) == ("1970-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z")


def test_a_real_conversation_is_audited_and_every_operation_ends_once() -> None:
    @tool(effect="read")
    def look(path: str) -> str:
        """Look at a file."""
        return "the content of the file"

    async def talk() -> list[Recorded]:
        async with Runtime("memory://", tools=[look]) as runtime:
            bot = await runtime.image("bot", model="scripted:hello")
            await bot.send("Hi")
            await bot.send("Hi again")
            await runtime.delete_image(bot.id)
            return read(runtime.log)  # type: ignore[arg-type]

    audit = list(records(asyncio.run(talk())))
    types = {record.type for record in audit}
    assert {"session.created", "session.deleted", "tool.registered", "model.selected", "cost.tracked"} <= types
    assert set(final(audit).values()) == {1}
    assert {(record.context or {}).get("cost") for record in audit if record.type == "cost.tracked"} == {"0"}


def test_money_that_is_asked_for_allotted_spent_and_denied_is_in_the_audit() -> None:
    async def talk() -> list[Recorded]:
        async with Runtime("memory://") as runtime:
            await runtime.set_budget(Budget(max_tokens_total=90_000))
            bot = await runtime.image("bot", model="scripted:hello")
            assert (await bot.send("Hi")).status == "succeeded"
            await runtime.set_budget(Budget(max_tokens_total=50, principal_id="user"))
            other = await runtime.image("other", model="scripted:hello")
            assert (await other.send("Hi again")).status == "failed"
            await runtime.remove_budget()
            return read(runtime.log)  # type: ignore[arg-type]

    audit = list(records(asyncio.run(talk())))
    told = [
        (each.event, each.status, each.resource_type)
        for each in audit
        if each.resource_type in ("allotment", "purse", "ledger", "budget") or each.event == "budget_reserved"
    ]
    assert told[:6] == [
        ("budget_set", "success", "budget"),
        ("usage_counted", "success", "ledger"),
        ("allotment_wanted", "pending", "allotment"),
        ("allotted", "success", "ledger"),
        ("allotment_taken", "success", "allotment"),
        ("budget_reserved", "pending", "model_call"),
    ]
    assert ("allotment_denied", "failure", "ledger") in told and ("budget_exceeded", "failure", "allotment") in told
    assert told[-1] == ("budget_removed", "success", "budget")
    ends = Counter(each.resource_id for each in audit if each.resource_type == "allotment" and each.status != "pending")
    assert set(ends.values()) == {1}
    first, second = (each for each in audit if each.event == "budget_set")
    assert (first.resource_id, first.context and first.context["max_tokens_total"]) == ("default", 90_000)
    assert second.resource_id == "default/user"
    [denied] = [each for each in audit if each.event == "budget_exceeded"]
    assert denied.error is not None and denied.error.code == "budget_exceeded"
    assert denied.context is not None
    assert (denied.context["limit"], denied.context["of"], denied.context["most"]) == (
        "max_tokens_total",
        "principal",
        50,
    )


def answered(turns: int) -> tuple[Trail, list[AuditEvent]]:
    """A fold over turns in which people answer: yes to a call that runs, to one that does not, no, and in words."""
    trail, history = Trail(), History()
    for turn in range(turns):
        history.send("Go.").answers("I ask.", call("refund", order=1), call("refund", order=2), call("refund", order=3))
        calls = [*history.open, None]
        kinds = ("approval", "approval", "approval", "input")
        said = ({"approved": True}, {"approved": True}, {"approved": False}, {"value": "x"})
        for n, (asks, kind, resolution) in enumerate(zip(calls, kinds, said, strict=True)):
            action = f"a{4 * turn + n}"
            asked = ActionRequired(action=action, kind=kind, timeout_ms=1000, job_id=history.job, tool=asks)
            history.batch("require_action", asked)
            history.batch("resolve_action", ActionResolved(action=action, resolution=resolution, at=0, by="ann"))
        history.batch("resolve_action", ToolAuthorised(tool=calls[0] or "", rule=f"approval a{4 * turn}"))
        for each in calls[:3]:
            history.settles(each)
        history.answers("Done.")
    return trail, [entry(recorded, trail.apply(recorded)) for recorded in history]


def test_an_audit_says_who_allowed_a_call_and_keeps_nothing_of_questions_that_are_over() -> None:
    few, audit = answered(3)
    allowed = [each.context for each in audit if each.type == "tool.approved"]
    assert [(each["approver"], each["approval_id"]) for each in allowed if each and each["approver"] != "policy"] == [
        ("ann", "sess_1:a0"),
        ("ann", "sess_1:a4"),
        ("ann", "sess_1:a8"),
    ]
    assert len(pickle.dumps(answered(100)[0])) < len(pickle.dumps(few)) + 200


def test_the_sessions_of_a_log_are_told_apart() -> None:
    several = [story(), story()]
    assert len(batches_of(*several)) == 2 * len(batches_of(story(), around=False)) + 5
    one, two = (audit_of(*several).query(AuditFilter(session_id=f"sess_{n}")) for n in (1, 2))
    assert {event.session_id for event in one} == {"sess_1"} and {event.session_id for event in two} == {"sess_2"}
    assert [event.context for event in one if event.type == "tool.executed"] == [
        event.context for event in two if event.type == "tool.executed"
    ]
