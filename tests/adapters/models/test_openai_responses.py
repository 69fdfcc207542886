"""The Responses protocol: events into answers.

Shown to fail: taking the deltas for the answer turns the law of lost events red.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.adapters.models.openai_items import InputRenderer
from reenact.adapters.models.openai_responses_answer import ResponsesReading, responses_usage
from reenact.events.content import AssistantItem, Native, Text, Thinking, ToolCall, Usage, text_of
from reenact.events.model import ModelAnswer, ModelFailure
from reenact.events.stream import MessageStart, TextDelta, ThinkingStart
from reenact.events.tool import ToolSpec
from tests.adapters.models.responses import (
    HOST,
    function,
    gist,
    item_events,
    message,
    played,
    read,
    read_whole,
    reasoning,
    response,
    stream_of,
)


def failure_of(*events: Any) -> ModelFailure:
    reading = ResponsesReading(HOST)
    with pytest.raises(ModelFailure) as caught:
        for event in events:
            reading.event("", event)
        reading.answer()
    return ModelFailure(caught.value.failure, partial=reading.partial(), usage=reading.usage)


# -- answers --


def test_deltas_become_one_text_with_its_place() -> None:
    answer = read(message("Hello", phase="final_answer"))
    extra = {"provider": "openai", "host": HOST, "id": "msg_1", "phase": "final_answer"}
    assert answer == ModelAnswer(
        parts=(Text(text="Hello", extra=extra),), stop_reason="end_turn", model="m-1", response_id="resp_1"
    )


def test_sources_go_with_the_text() -> None:
    mark = {"type": "url_citation", "url": "https://x.example"}
    said = message("Hello")
    said["content"][0]["annotations"] = [mark]
    (part,) = read(said).parts
    assert isinstance(part, Text)
    assert part.extra is not None
    assert part.extra["annotations"] == [mark]


def test_calls_keep_what_their_host_wants_back() -> None:
    answer = read(
        function("add", '{"a": 1}', namespace="sums"), function("add", "", id="call_2", caller={"type": "program"})
    )
    first, second = answer.parts
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert (first.id, first.name, first.input, answer.stop_reason) == ("call_1", "add", {"a": 1}, "tool_use")
    assert first.extra == {"provider": "openai", "host": HOST, "id": "fc_call_1", "namespace": "sums"}
    assert (second.input, second.extra and second.extra["caller"]) == ({}, {"type": "program"})


def test_a_tool_is_called_by_its_own_name_again() -> None:
    tool = ToolSpec(name="shop.refund", description="", parameters={})
    (part,) = played(stream_of(function("shop_refund")), [tool])[0].parts
    assert isinstance(part, ToolCall)
    assert part.name == "shop.refund"


def test_reasoning_in_several_parts_is_one_item_again() -> None:
    answer = read(reasoning("First.", "Then.", sealed="gAAA"), message("4"))
    base = {"host": HOST, "id": "rs_1"}
    assert answer.parts[:2] == (
        Thinking(thinking="First.", provider="openai", extra=base),
        Thinking(thinking="Then.", provider="openai", extra=base | {"encrypted_content": "gAAA"}),
    )
    assert list(InputRenderer(HOST).item(AssistantItem(version=1, parts=answer.parts))) == [
        reasoning("First.", "Then.", sealed="gAAA"),
        {"role": "assistant", "content": "4"},
    ]


def test_silent_reasoning_is_told_and_its_proof_kept() -> None:
    answer, signals = played(stream_of(reasoning(sealed="gAAA"), function("add")))
    assert any(isinstance(signal, ThinkingStart) for signal in signals)
    assert isinstance(answer.parts[0], Thinking)
    assert answer.parts[0].extra == {"host": HOST, "id": "rs_1", "encrypted_content": "gAAA"}


def test_silent_reasoning_without_a_proof_leaves_nothing() -> None:
    assert [type(part) for part in read(reasoning(), message("4")).parts] == [Text]


def test_open_reasoning_goes_back_as_its_content() -> None:
    answer = read(reasoning(content=["Two and two."]), message("4"))
    sent = list(InputRenderer(HOST).item(AssistantItem(version=1, parts=answer.parts)))
    assert sent == [reasoning(content=["Two and two."]), {"role": "assistant", "content": "4"}]


def test_blocks_of_hosted_tools_go_back_word_for_word() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    unknown = {"type": "some_future_type", "id": "x_1", "content": [{"type": "output_text", "text": "?"}]}
    answer = read(search, unknown, message("Found."))
    assert answer.parts[:2] == (
        Native(provider="openai", block=search),
        Native(provider="openai", block=unknown),
    )
    sent = list(InputRenderer(HOST).item(AssistantItem(version=1, parts=answer.parts)))
    assert sent == [search, unknown, {"role": "assistant", "content": "Found."}]


def test_code_that_was_run_may_be_shown() -> None:
    code = {"type": "code_interpreter_call", "id": "ci_1", "code": "print(1)", "outputs": []}
    assert read(code).parts == (Native(provider="openai", block=code, text="print(1)"),)


def test_a_refusal_is_no_text_of_the_answer() -> None:
    said = message()
    said["content"] = [{"type": "refusal", "refusal": "I can't."}]
    answer = read(said)
    assert (text_of(answer.parts), answer.stop_reason) == ("", "refusal")
    block = {"type": "refusal", "refusal": "I can't."}
    assert answer.parts == (Native(provider="openai", block=block, text="I can't."),)
    sent = list(InputRenderer(HOST).item(AssistantItem(version=1, parts=answer.parts)))
    assert sent == [{"role": "assistant", "content": "I can't."}]


@pytest.mark.parametrize(
    ("reason", "stop"), [("max_output_tokens", "max_tokens"), ("content_filter", "refusal"), (None, "max_tokens")]
)
def test_an_answer_that_was_broken_off_by_its_own_limits(reason: str | None, stop: str) -> None:
    details = {"reason": reason} if reason else None
    assert read(message("Hel"), end="incomplete", incomplete_details=details).stop_reason == stop
    # A call that was not finished is no reason to use tools.
    assert read(function("add", '{"a'), end="incomplete", incomplete_details=details).stop_reason == stop


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_an_answer_put_into_the_background_is_a_pause(status: str) -> None:
    assert gist(read_whole(response(status=status, error=None, usage=None))) == ((), "pause_turn", None)


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled", "completed"])
def test_what_is_counted_while_it_goes_on_or_as_it_is_cancelled_is_no_count(status: str) -> None:
    reading = ResponsesReading(HOST)
    with suppress(ModelFailure):
        reading.whole(response(message("Hel"), status=status, usage={"input_tokens": 10, "output_tokens": 1}))
    assert reading.usage == (Usage(input_tokens=10, output_tokens=1) if status == "completed" else None)


def test_a_compaction_has_no_status_and_is_whole() -> None:
    asked = {"type": "message", "id": "msg_1", "role": "user", "content": [{"type": "input_text", "text": "2+2?"}]}
    compact = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}
    answer = read_whole({"id": "resp_1", "object": "response.compaction", "output": [asked, compact]})
    assert answer.parts == (Native(provider="openai", block=asked), Native(provider="openai", block=compact))
    assert (text_of(answer.parts), answer.stop_reason) == ("", "end_turn")


# -- streams that are not as they should be --


def test_without_the_final_event_it_is_cut() -> None:
    failed = failure_of(*stream_of(message("Hello"))[:-1])
    assert (failed.failure.code, failed.failure.retryable, text_of(failed.partial)) == ("stream_cut", True, "Hello")
    assert failure_of().failure.code == "stream_cut"


def test_a_call_that_was_not_finished_is_dropped_with_the_cut() -> None:
    events = stream_of(message("Let me."), function("add", '{"a": 1}'))
    failed = failure_of(*events[:-3])
    assert [type(part) for part in failed.partial] == [Text]


@pytest.mark.parametrize(
    "error",
    [
        {"type": "error", "error": {"type": "server_error", "code": "server_error", "message": "gone"}},
        {"type": "error", "code": "server_error", "message": "gone", "param": None},
        {"error": {"type": "server_error", "message": "gone"}},
        {
            "type": "response.failed",
            "response": response(status="failed", error={"code": "server_error", "message": "gone"}),
        },
    ],
    ids=["nested", "flat", "untyped", "failed"],
)
def test_an_error_in_the_middle_fails_with_what_came_before(error: dict[str, Any]) -> None:
    failed = failure_of(*stream_of(message("Hello"))[:-2], error)
    assert (failed.failure.code, failed.failure.message, failed.failure.retryable) == ("server_error", "gone", True)
    assert text_of(failed.partial) == "Hello"


def test_a_failed_response_tells_what_it_cost() -> None:
    broken = response(status="failed", error={"code": "rate_limit_exceeded", "message": "m"}, usage={"input_tokens": 5})
    failed = failure_of({"type": "response.failed", "response": broken})
    assert (failed.failure.code, failed.usage) == ("rate_limit", Usage(input_tokens=5))
    with pytest.raises(ModelFailure, match="rate_limit: m"):
        ResponsesReading(HOST).whole(broken)


def test_a_cancelled_response_is_no_answer() -> None:
    with pytest.raises(ModelFailure, match="cancelled"):
        ResponsesReading(HOST).whole(response(message("Hel"), status="cancelled"))


@pytest.mark.parametrize("body", [{}, [], None, {"path": "/nowhere"}, {"output": None}, "text"])
def test_a_body_without_output_is_no_answer(body: Any) -> None:
    with pytest.raises(ModelFailure) as caught:
        ResponsesReading(HOST).whole(body)
    assert (caught.value.failure.code, caught.value.failure.retryable) == ("bad_response", False)


def test_items_that_overlap_are_told_without_waiting() -> None:
    # Some close the reasoning after the message that follows it.
    thought, said = item_events(0, reasoning(content=["Hm"])), item_events(1, message("Yes"))
    events = [stream_of()[0], *thought[:-1], *said, thought[-1]]
    final = {"type": "response.completed", "response": response(reasoning(content=["Hm"]), message("Yes"))}
    answer, signals = played([*events, final])
    assert [type(part) for part in answer.parts] == [Thinking, Text]
    assert sum(isinstance(signal, MessageStart) for signal in signals) == 1


def test_calls_that_overlap_stay_apart() -> None:
    one, two = item_events(0, function("a", '{"x": 1}')), item_events(1, function("b", '{"y": 2}', id="call_2"))
    mixed = [each for pair in zip(one, two, strict=True) for each in pair]
    answer, signals = played(
        [stream_of()[0], *mixed, {"type": "response.completed", "response": response(status="completed")}]
    )
    assert [(part.name, part.input) for part in answer.parts if isinstance(part, ToolCall)] == [
        ("a", {"x": 1}),
        ("b", {"y": 2}),
    ]
    assert sum(isinstance(signal, MessageStart) for signal in signals) == 1


def test_where_the_final_list_differs_all_is_told_anew() -> None:
    events = stream_of(message("Hello"))
    answer, signals = played([*events[:3], events[2], *events[3:]])
    assert text_of(answer.parts) == "Hello"
    assert sum(isinstance(signal, MessageStart) for signal in signals) == 2
    assert "".join(signal.text for signal in signals if isinstance(signal, TextDelta)) == "HelHelloHello"


def test_a_final_response_without_its_output_changes_nothing() -> None:
    events = stream_of(reasoning("Hm", sealed="gAAA"), message("Hello"), function("add", '{"a": 1}'))
    events[-1] = {"type": "response.completed", "response": response()}
    answer, _ = played(events)
    assert [type(part) for part in answer.parts] == [Thinking, Text, ToolCall]


def test_a_surrogate_pair_in_two_deltas_is_one_character() -> None:
    events = stream_of(message("👋"))
    place = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    halves = [{"type": "response.output_text.delta", "delta": half, **place} for half in ("\ud83d", "\udc4b")]
    assert text_of(played([*events[:2], *halves, *events[3:]])[0].parts) == "👋"


@pytest.mark.parametrize("rubbish", [None, 1, [], {}, {"type": 7}, {"type": "response.created"}, {"type": "keepalive"}])
def test_events_of_no_known_shape_are_passed_over(rubbish: Any) -> None:
    events = stream_of(message("Hello"))
    assert text_of(played([rubbish, *events[:3], rubbish, *events[3:]])[0].parts) == "Hello"


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
OUTPUT = st.lists(
    st.one_of(
        st.lists(TEXTS, min_size=1, max_size=2).map(lambda texts: message(*texts)),
        st.builds(
            lambda texts, sealed: reasoning(*texts, sealed=sealed), st.lists(TEXTS, max_size=2), st.none() | TEXTS
        ),
        st.lists(TEXTS, min_size=1, max_size=2).map(lambda texts: reasoning(content=texts)),
        st.dictionaries(TEXTS, TEXTS, max_size=2).map(lambda value: function("add", json.dumps(value))),
        st.just({"type": "web_search_call", "id": "ws_1"}),
    ),
    max_size=4,
).map(lambda items: [item | {"id": f"{item['id']}_{at}"} for at, item in enumerate(items)])


@given(output=OUTPUT, size=st.integers(1, 12))
def test_a_stream_and_a_whole_answer_read_the_same(output: list[dict[str, Any]], size: int) -> None:
    answer, signals = played(stream_of(*output, size=size))
    assert gist(answer) == gist(read_whole(response(*output)))
    # Nothing had to be told twice.
    assert sum(isinstance(signal, MessageStart) for signal in signals) == 1


@given(data=st.data(), output=OUTPUT)
def test_events_that_are_lost_or_come_twice_change_no_answer(data: st.DataObject, output: list[dict[str, Any]]) -> None:
    events = stream_of(*output)
    times = data.draw(st.lists(st.integers(0, 2), min_size=len(events) - 1, max_size=len(events) - 1))
    damaged = [event for event, count in zip(events, times, strict=False) for _ in range(count)]
    answer, _ = played([*damaged, events[-1]])
    wanted = read_whole(response(*output))

    def said(parts: Any) -> Any:
        return [
            (type(part), getattr(part, "text", None), getattr(part, "thinking", None), getattr(part, "input", None))
            for part in parts
        ]

    assert said(answer.parts) == said(wanted.parts)


def test_tokens_are_counted_our_way() -> None:
    assert responses_usage(
        {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 5},
            "output_tokens": 50,
            "output_tokens_details": {"reasoning_tokens": 30},
            "num_sources_used": 2,
        }
    ) == Usage(
        input_tokens=100,
        output_tokens=50,
        cache_read_tokens=80,
        cache_write_tokens=5,
        reasoning_tokens=30,
        extra={"sources": 2},
    )
    assert responses_usage({"input_tokens": None, "output_tokens_details": None}) == Usage()
