"""The live notices: under the names, in the order and with the data that watchers of the bus know."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.actors.mealy import run, step
from reenact.events import codec
from reenact.events import notice as words
from reenact.events.content import Text, Thinking, Usage
from reenact.events.message import Live, Recorded, Signal
from reenact.events.notice import AssistantMessage, UserMessage
from reenact.events.stream import MessageRef, MessageStart, TextDelta
from reenact.projections.notices import DRAWS, TYPES, Notices
from reenact.projections.transcript import Transcript
from tests.histories import START, STEP, History, call, erase, histories, turns, usage


def draw(events: Iterable[Recorded], notices: Notices | None = None) -> list[Live]:
    notices = notices or Notices()
    return [notice for recorded in events for notice in notices.apply(recorded)]


def names(events: Iterable[Recorded]) -> list[str]:
    """The notices but for the bookkeeping of what was saved."""
    return [notice.type for notice in draw(events) if notice.type != "message_persisted"]


def told(events: Iterable[Recorded], kind: str) -> list[dict[str, Any]]:
    """The data of the notices of one type, as it goes over the wire."""
    return [msgspec.to_builtins(notice.data) for notice in draw(events) if notice.type == kind]


def states(events: Iterable[Recorded]) -> list[str]:
    """Every state an agent passes through, each once."""
    state, passed = "idle", ["idle"]
    for notice in draw(events):
        state = step(state, notice.type)  # type: ignore[arg-type]
        if state != passed[-1]:
            passed.append(state)
    return passed


def a_turn_with_a_tool() -> History:
    asked = call("refund", id="toolu_1", order="42")
    history = History().send("Refund 42").answers("Let me see.", asked, usage=usage(10, 5))
    return history.settles(output="refunded").answers("Done.", usage=usage(20, 7))


# -- a turn, from end to end --


def test_a_turn_with_a_tool_is_told_in_this_order() -> None:
    assert names(a_turn_with_a_tool()) == [
        "conversation_queued",
        "user_message",
        "conversation_start",
        "turn_request",
        "conversation_thinking",
        "conversation_responding",
        "assistant_message",
        "tool_planned",
        "tool_call",
        "tool_call_message",
        "tool_executing",
        "tool_completed",
        "tool_result",
        "tool_result_message",
        "conversation_thinking",
        "conversation_responding",
        "assistant_message",
        "turn_response",
        "conversation_end",
    ]


def test_a_turn_leads_an_agent_through_all_its_states_and_back_to_rest() -> None:
    assert states(a_turn_with_a_tool()) == [
        "idle",
        "thinking",
        "responding",
        "planning_tool",
        "awaiting_tool_result",
        "responding",
        "thinking",
        "responding",
        "idle",
    ]


def test_a_notice_has_the_position_time_and_context_of_its_event() -> None:
    history = History(position=100).send("hi")
    queued = draw(history)[0]
    event = next(recorded for recorded in history if recorded.type == "job_queued")
    assert (queued.position, queued.at, queued.context) == (event.position, event.at, event.context)
    assert queued.session_id == "sess_1"


@pytest.mark.parametrize(
    ("kind", "source", "category", "intent"),
    [
        ("conversation_start", "agent", "state", "notification"),
        ("user_message", "agent", "message", "request"),
        ("assistant_message", "agent", "message", "notification"),
        ("turn_response", "agent", "turn", "notification"),
        ("tool_call", "environment", "stream", "notification"),
        ("message_persisted", "session", "persist", "result"),
    ],
)
def test_a_notice_is_filed_under_its_source_category_and_intent(
    kind: str, source: str, category: str, intent: str
) -> None:
    notice = next(notice for notice in draw(a_turn_with_a_tool()) if notice.type == kind)
    assert (notice.source, notice.category, notice.intent) == (source, category, intent)


# -- the data of each --


def test_a_queued_input_is_told_of_with_the_id_that_its_message_will_have() -> None:
    history = History().send("one").send("two").answers("ok")
    queued = [data["messageId"] for data in told(history, "conversation_queued")]
    assert queued == [data["id"] for data in told(history, "user_message")] == ["msg_1_2", "msg_1_8"]
    assert [data["messageId"] for data in told(history, "conversation_start")] == queued


def test_a_second_input_during_a_turn_waits_and_overwrites_nothing() -> None:
    history = History().send("one").send("two").answers("1").answers("2")
    requests = told(history, "turn_request")
    assert [data["content"][0]["text"] for data in requests] == ["one", "two"]
    assert [data["messageId"] for data in told(history, "turn_response")] == ["msg_1_9", "msg_1_15"]


def test_messages_are_told_whole_and_are_those_of_the_transcript() -> None:
    history, transcript = a_turn_with_a_tool(), Transcript()
    for recorded in history:
        transcript.apply(recorded)
    assert [notice.data for notice in draw(history) if notice.category == "message"] == list(transcript.messages)
    assert msgspec.json.decode(msgspec.json.encode(told(history, "user_message")[0])) == {
        "id": "msg_1_2",
        "role": "user",
        "subtype": "user",
        "content": [{"type": "text", "text": "Refund 42", "extra": None}],
        "timestamp": (START + 2 * STEP) // 1000,
        "parentId": None,
    }


def test_a_tool_is_told_of_from_plan_to_result() -> None:
    history = a_turn_with_a_tool()
    named = {"toolId": "toolu_1", "toolName": "refund", "tool": "t1"}
    assert told(history, "tool_planned") == [named]
    assert told(history, "tool_executing") == [named | {"input": {"order": "42"}}]
    assert told(history, "tool_completed") == [named | {"result": "refunded"}]
    assert told(history, "tool_call") == [{"id": "toolu_1", "name": "refund", "input": {"order": "42"}}]
    assert told(history, "tool_result") == [{"toolUseId": "toolu_1", "result": "refunded", "isError": False}]


@pytest.mark.parametrize("outcome", ["error", "denied", "unknown", "skipped"])
def test_a_tool_that_did_not_do_its_work_failed(outcome: str) -> None:
    history = History().send("go").answers(call(id="a")).settles(output="why", outcome=outcome)
    assert told(history, "tool_failed") == [
        {"toolId": "a", "toolName": "refund", "tool": "t1", "error": "why", "outcome": outcome}
    ]
    assert told(history, "tool_result")[0]["isError"] is True
    assert not told(history, "tool_completed")


def test_a_call_that_may_not_run_is_planned_and_failed_but_never_executing() -> None:
    history = History().send("go").answers(call(), problems={0: "no such tool"})
    assert [name for name in names(history) if name.startswith("tool_")] == [
        "tool_planned",
        "tool_call",
        "tool_call_message",
        "tool_failed",
        "tool_result",
        "tool_result_message",
    ]


def test_calls_of_one_answer_with_the_same_id_are_still_told_apart() -> None:
    history = History().send("go").answers(call(id="a", n=1), call(id="a", n=2)).settles("t2", "two")
    assert told(history, "tool_completed")[0]["tool"] == "t2"
    assert [data["input"] for data in told(history, "tool_executing")] == [{"n": 1}, {"n": 2}]


def test_a_turn_tells_its_length_its_model_and_what_it_really_used() -> None:
    history = a_turn_with_a_tool()
    (request,), (response,) = told(history, "turn_request"), told(history, "turn_response")
    assert request["turnId"] == response["turnId"] == "turn_1_1"
    assert request["messageId"] == "msg_1_2"
    assert response["messageId"] == told(history, "assistant_message")[-1]["id"]
    assert response["duration"] == 3000
    assert response["usage"]["inputTokens"] == 30 and response["usage"]["outputTokens"] == 12
    assert (response["model"], response["stopReason"]) == ("test-1", "end_turn")


def test_usage_counts_failed_attempts_too_and_begins_anew_with_each_turn() -> None:
    history = History().send("go").fails("overloaded", retry_in_ms=100, usage=usage(3, 0)).answers("ok", usage=usage())
    history.send("again").answers("ok", usage=usage(1, 1))
    assert [Usage(input_tokens=13, output_tokens=5), Usage(input_tokens=1, output_tokens=1)] == [
        notice.data.usage for notice in draw(history) if notice.type == "turn_response"
    ]


def test_turn_ids_are_unique() -> None:
    history = History().send("one").answers("1").send("two").answers("2")
    assert [data["turnId"] for data in told(history, "turn_request")] == ["turn_1_1", "turn_1_2"]


def test_every_message_is_told_to_be_saved_once_and_an_input_as_soon_as_it_is_accepted() -> None:
    history = a_turn_with_a_tool()
    saved = told(history, "message_persisted")
    shown = [notice.data.id for notice in draw(history) if notice.category == "message"]
    assert sorted(data["messageId"] for data in saved) == sorted(shown)
    assert saved[0] == {"sessionId": "sess_1", "messageId": "msg_1_2", "savedAt": (START + 2 * STEP) // 1000}
    all_types = [notice.type for notice in draw(history)]
    assert all_types.index("message_persisted") < all_types.index("user_message")


# -- how a turn may end --


def test_an_interrupted_turn_ends_as_interrupted_and_keeps_what_was_said() -> None:
    history = History().send("go").interrupt().fails("cancelled", "So far")
    assert names(history)[-5:] == [
        "assistant_message",
        "interrupted",
        "conversation_interrupted",
        "turn_response",
        "conversation_end",
    ]
    assert told(history, "conversation_end") == [{"reason": "interrupted"}]
    assert told(history, "conversation_interrupted") == [{"reason": "user_interrupt"}]
    assert told(history, "assistant_message")[0]["content"][0]["text"] == "So far"
    assert not told(history, "error_occurred")
    assert states(history)[-1] == "idle"


@pytest.mark.parametrize(
    ("asked", "reason", "short"),
    [
        ("interrupt", "changed my mind", "user_interrupt"),
        ("cancel_job", "user_cancel", "user_interrupt"),
        ("expire_job", "timeout", "timeout"),
        ("close_session", "image_deleted", "system"),
    ],
)
def test_an_interruption_says_who_it_came_from(asked: str, reason: str, short: str) -> None:
    history = History().send("go").interrupt(reason, asked=asked).fails("cancelled")
    assert told(history, "interrupted") == [{"reason": short}]
    assert told(history, "conversation_interrupted") == [{"reason": reason}]


def test_nothing_is_told_of_an_interruption_while_nothing_runs() -> None:
    history = History().send("go").answers("ok")
    assert not told(history, "interrupted") and not told(history, "conversation_interrupted")


def test_a_turn_that_fails_is_told_of_as_an_error_and_ends_as_one() -> None:
    history = History().send("go").fails("auth", message="The key is not valid.")
    assert names(history)[-4:] == ["error_occurred", "error_message", "turn_response", "conversation_end"]
    assert told(history, "error_occurred") == [
        {"code": "auth", "message": "The key is not valid.", "recoverable": False, "category": "driver"}
    ]
    assert told(history, "conversation_end") == [{"reason": "error"}]
    assert states(history) == ["idle", "thinking", "error", "idle"]


def test_a_retry_is_told_of_as_recoverable_and_goes_on_thinking() -> None:
    history = History().send("go").fails("connection", retry_in_ms=100).answers("ok")
    (error,) = told(history, "error_occurred")
    assert error["recoverable"] is True and error["category"] == "connection"
    assert not told(history, "error_message")
    assert states(history) == ["idle", "thinking", "error", "thinking", "responding", "idle"]


# -- what is seen live --


def a_live_answer() -> tuple[Notices, History]:
    notices, history = Notices(), History().send("hi")
    draw(history, notices)
    return notices, history


def test_that_the_answer_has_begun_is_told_with_its_first_words_and_not_again() -> None:
    notices, history = a_live_answer()
    assert notices.on_signal(MessageStart(message=MessageRef(id="x", model="m"))) == ()
    (first,) = notices.on_signal(TextDelta(text="Hel"), START + 7)
    assert (first.type, first.position, first.at) == ("conversation_responding", None, START + 7)
    assert first.session_id == "sess_1"
    assert notices.on_signal(TextDelta(text="lo")) == ()
    before = len(history)
    history.answers("Hello")
    assert "conversation_responding" not in [n.type for n in draw(history.events[before:], notices)]


def test_a_delta_that_comes_after_its_answer_wakes_nobody() -> None:
    notices, history = a_live_answer()
    before = len(history)
    draw(history.answers("Hello").events[before:], notices)
    assert notices.on_signal(TextDelta(text="late")) == ()


def test_each_attempt_may_begin_to_answer_anew() -> None:
    notices, history = a_live_answer()
    assert notices.on_signal(TextDelta(text="Hel"))
    before = len(history)
    draw(history.fails("overloaded", "Hel", retry_in_ms=10).events[before:], notices)
    assert notices.on_signal(TextDelta(text="Hel"))


def test_an_answer_without_words_does_not_respond() -> None:
    history = History().send("go").answers(Thinking(thinking="hm", provider="x"), call())
    assert "conversation_responding" not in names(history)


# -- the session --


def test_an_agent_that_takes_up_an_old_session_resumes_it() -> None:
    history = History().send("hi").answers("ho").sleep().wake()
    assert told(history, "session_resumed") == [{"sessionId": "sess_1", "agentId": "agent_2", "containerId": "acme"}]


def test_a_closed_session_is_destroyed() -> None:
    assert told(History().send("hi").answers("ho").closes(), "session_destroyed") == [
        {"sessionId": "sess_1", "reason": "image_deleted"}
    ]


# -- laws --


@given(histories())
def test_nothing_is_drawn_that_the_table_does_not_name_and_it_names_nothing_else(history: History) -> None:
    notices = Notices()
    for recorded in history:
        drawn = [notice.type for notice in notices.apply(recorded)]
        allowed = DRAWS.get(recorded.type, ())
        assert set(drawn) <= set(allowed)
        places = [allowed.index(kind) for kind in drawn]
        assert all(one <= other for one, other in pairwise(places)) or recorded.type in _SAVED_BETWEEN


_SAVED_BETWEEN = {"turn_completed", "model_failed"}
"""Their `message_persisted` stands next to its message."""


@given(turns())
def test_whatever_happens_a_turn_that_is_over_leaves_its_agent_at_rest(history: History) -> None:
    types: list[str] = []
    notices = Notices()
    for recorded in history:
        types += [notice.type for notice in notices.apply(recorded)]
        if recorded.type == "turn_completed":
            assert run(types) == "idle"
            assert types[-1] == "conversation_end"
    assert types.count("conversation_end") == types.count("turn_response")
    assert types.count("conversation_start") - types.count("conversation_end") in (0, 1)


@given(turns())
def test_what_starts_is_told_to_end_once(history: History) -> None:
    drawn = draw(history)
    for begins, ends in (("tool_planned", ("tool_completed", "tool_failed")), ("tool_call", ("tool_result",))):
        begun = [notice for notice in drawn if notice.type == begins]
        ended = [notice for notice in drawn if notice.type in ends]
        assert len(begun) == len(ended) + len(history.open)


@given(histories())
def test_the_same_events_draw_the_same_notices(history: History) -> None:
    assert draw(history) == draw(history)


@given(histories(), st.integers(0, 100))
def test_events_that_nobody_watched_change_nothing_for_those_that_come_after(history: History, watched: int) -> None:
    all_along, late = Notices(), Notices()
    for recorded in history:
        drawn = all_along.apply(recorded)
        if recorded.version < watched:
            late.follow(recorded)
        else:
            assert late.apply(recorded) == drawn
    assert late.on_signal(TextDelta(text="x")) == all_along.on_signal(TextDelta(text="x"))


@given(turns())
def test_a_watcher_that_comes_late_is_told_of_what_follows(history: History) -> None:
    for start in range(len(history)):
        draw(history.events[start:])


def test_every_notice_has_its_own_name_and_none_is_that_of_a_stored_event() -> None:
    every = (each for each in vars(words).values() if isinstance(each, type) and each.__module__ == words.__name__)
    named = [each.type for each in every if issubclass(each, Signal) and hasattr(each, "type")]
    assert len(named) == len(set(named))
    assert set(named) == TYPES
    assert not set(named) & set(codec.TYPES)
    assert set(DRAWS) <= set(codec.TYPES)


def test_what_was_erased_is_not_told_of() -> None:
    history = History().send("my name is Ann").answers("Hi Ann")
    gone = [recorded.version for recorded in history if recorded.type in ("job_queued", "model_answered")]
    assert not [n for n in draw(erase(history.events, *gone)) if isinstance(n.data, AssistantMessage)]
    users = [n.data for n in draw(erase(history.events, *gone)) if isinstance(n.data, UserMessage)]
    assert users[0].content == (Text(text="[erased]"),)
