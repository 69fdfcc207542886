"""Chat Completions: chunks into answers, server by server where they differ.

Shown to fail: gathering fragments by their order turns the law of interleaving red; taking the end of the stream for
the end of the answer turns the tests of a missing finish red.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.adapters.models.openai_chat_answer import ChatReading, chat_usage
from reenact.adapters.models.openai_host import DONE
from reenact.adapters.models.openai_messages import MessageRenderer
from reenact.events.assembler import Assembler
from reenact.events.content import AssistantItem, Native, Text, Thinking, ToolCall, Usage, text_of
from reenact.events.model import ModelAnswer, ModelFailure
from reenact.events.tool import ToolSpec

HOST = "models.example"


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "m-1", "object": "chat.completion.chunk", "choices": [choice]}


def call(index: int | None, arguments: Any = None, *, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    out: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    return out | ({} if index is None else {"index": index}) | ({} if id is None else {"id": id})


def read(*chunks: Any, host: str = HOST, tools: Sequence[ToolSpec] = ()) -> ModelAnswer:
    """The answer of a stream; what was told adds up to it."""
    reading, assembler = ChatReading(host, tools), Assembler()
    signals = [signal for each in chunks for signal in reading.event("", each)]
    for signal in signals + reading.end():
        assembler.feed(signal)
    answer = reading.answer()
    assert assembler.parts() == answer.parts
    assert (assembler.stop_reason, assembler.usage) == (answer.stop_reason, answer.usage)
    return answer


def read_whole(body: Any) -> ModelAnswer:
    reading = ChatReading(HOST)
    reading.whole(body)
    return reading.answer()


def calls_of(answer: ModelAnswer) -> list[tuple[str, str, Any]]:
    return [(part.id, part.name, part.input) for part in answer.parts if isinstance(part, ToolCall)]


def failure_of(*chunks: Any) -> ModelFailure:
    reading = ChatReading(HOST)
    with pytest.raises(ModelFailure) as caught:
        for each in chunks:
            reading.event("", each)
        reading.end()
    return ModelFailure(caught.value.failure, partial=reading.partial(), usage=reading.usage)


# -- text and its end --


def test_deltas_become_one_text() -> None:
    answer = read(chunk(role="assistant", content=""), chunk(content="Hel"), chunk(content="lo"), chunk("stop"), DONE)
    assert answer == ModelAnswer(
        parts=(Text(text="Hello"),), stop_reason="end_turn", model="m-1", response_id="chatcmpl-1"
    )


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("tool_calls", "end_turn"),  # without a call there is nothing to use
        ("something new", "end_turn"),
    ],
)
def test_finish_reasons(finish: str, stop: str) -> None:
    assert read(chunk(content="a"), chunk(finish)).stop_reason == stop


@pytest.mark.parametrize("end", [(), (DONE,), ({"choices": [], "usage": {"prompt_tokens": 1}},)])
def test_without_a_finish_reason_it_is_cut_whatever_follows(end: tuple[Any, ...]) -> None:
    failed = failure_of(chunk(content="Hel"), *end)
    assert (failed.failure.code, failed.failure.retryable) == ("stream_cut", True)
    assert text_of(failed.partial) == "Hel"


@pytest.mark.parametrize(
    ("finish", "code"), [("error", "server_error"), ("insufficient_system_resource", "overloaded")]
)
def test_some_finish_by_breaking_off(finish: str, code: str) -> None:
    assert failure_of(chunk(content="Hel"), chunk(finish)).failure.code == code


def test_nothing_at_all_is_cut() -> None:
    assert failure_of().failure.code == "stream_cut"


def test_of_several_choices_the_first_counts() -> None:
    def of(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}

    assert text_of(read(of(1, "b", "length"), of(0, "a"), of(1, "c"), of(0, "", "stop")).parts) == "a"
    assert failure_of(of(0, "a"), of(1, "b", "stop")).failure.code == "stream_cut"


def test_a_surrogate_pair_in_two_deltas_is_one_character() -> None:
    assert text_of(read(chunk(content="a\ud83d"), chunk(content="\udc4b\0"), chunk("stop")).parts) == "a👋\ufffd"
    assert text_of(read(chunk(content="a\ud83d"), chunk("stop")).parts) == "a\ufffd"


def test_a_first_chunk_about_filters_and_a_last_about_usage_have_no_choices() -> None:
    filtered = {"choices": [], "id": "", "model": "", "prompt_filter_results": [{}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}
    answer = read(filtered, chunk(content="a"), chunk("stop"), usage, DONE)
    assert answer.response_id == "chatcmpl-1"
    assert answer.usage == Usage(input_tokens=7, output_tokens=3)


EARLY = {"usage": {"prompt_tokens": 12, "completion_tokens": 1}}
LATE = {"usage": {"prompt_tokens": 12, "completion_tokens": 2}}


def test_a_count_from_before_the_last_word_is_none() -> None:
    first, last = chunk(content="Hel") | EARLY, chunk(content="lo")
    assert read(first, last, chunk("stop")).usage is None
    assert failure_of(first, last).usage is None
    assert failure_of(first, last | LATE).usage is None, "it may have gone on"
    counted = Usage(input_tokens=12, output_tokens=2)
    assert read(first, last | LATE, chunk("stop")).usage == counted
    assert read(first, last, chunk("stop") | LATE).usage == counted
    assert failure_of(first, last, chunk("error") | LATE).usage == counted


def test_sources_go_with_the_text() -> None:
    mark = {"type": "url_citation", "url_citation": {"url": "https://x.example"}}
    answer = read(chunk(content="a"), chunk(annotations=[mark]), {"citations": ["https://y.example"], **chunk("stop")})
    (part,) = answer.parts
    assert isinstance(part, Text)
    assert part.extra == {"provider": "openai-chat", "annotations": [mark], "citations": ["https://y.example"]}


def test_a_refusal_is_no_text_of_the_answer() -> None:
    answer = read(chunk(refusal="I'm "), chunk(refusal="sorry."), chunk("stop"))
    assert (text_of(answer.parts), answer.stop_reason) == ("", "refusal")
    assert answer.parts == (
        Native(provider="openai-chat", block={"type": "refusal", "refusal": "I'm sorry."}, text="I'm sorry."),
    )


def test_content_in_typed_pieces() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    answer = read(chunk(content=[thought]), chunk(content=[{"type": "text", "text": "Yes"}]), chunk("stop"))
    assert [part.thinking for part in answer.parts if isinstance(part, Thinking)] == ["Hm."]
    assert text_of(answer.parts) == "Yes"


def test_a_last_message_that_repeats_everything_is_not_told_again() -> None:
    done = {"choices": [{"message": {"content": "1 2"}, "delta": {"content": ""}, "finish_reason": "stop"}]}
    assert text_of(read(chunk(content="1 "), chunk(content="2"), done).parts) == "1 2"


@pytest.mark.parametrize(
    "rubbish", [None, 1, "text", [], {}, {"choices": None}, {"choices": [None]}, {"choices": [{}]}]
)
def test_chunks_of_no_known_shape_are_passed_over(rubbish: Any) -> None:
    assert text_of(read(chunk(content="a"), rubbish, chunk("stop")).parts) == "a"


# -- errors inside --


def test_an_error_chunk_fails_with_what_came_before() -> None:
    failed = failure_of(
        chunk(content="Hel"),
        {"error": {"message": "slow down", "type": "rate_limit_error"}, "usage": {"prompt_tokens": 5}},
    )
    assert (failed.failure.code, failed.failure.message, failed.failure.status) == ("rate_limit", "slow down", None)
    assert (text_of(failed.partial), failed.usage) == ("Hel", None), "what it has said is in no count"


def test_an_error_beside_a_finish_reason_wins() -> None:
    broken = chunk("length", content="") | {"error": {"code": 502, "message": "upstream is gone"}}
    assert failure_of(chunk("length", content="a"), broken).failure.code == "server_error"


def test_an_error_inside_a_choice() -> None:
    choice = {"index": 0, "delta": {}, "finish_reason": "error", "error": {"code": 429, "message": "later"}}
    assert failure_of({"choices": [choice]}).failure.code == "rate_limit"


def test_an_event_named_error() -> None:
    reading = ChatReading(HOST)
    with pytest.raises(ModelFailure, match="no such parameter"):
        reading.event("error", {"code": "InvalidParameter", "message": "no such parameter"})


# -- calls --


def test_arguments_come_in_fragments_null_or_empty() -> None:
    answer = read(
        chunk(tool_calls=[call(0, None, id="call_a", name="add")]),
        chunk(tool_calls=[call(0, "")]),
        chunk(tool_calls=[call(0, '{"a"')]),
        chunk(tool_calls=[call(0, ":1}")]),
        chunk("tool_calls", tool_calls=[call(0, None)]),
    )
    assert calls_of(answer) == [("call_a", "add", {"a": 1})]
    assert answer.stop_reason == "tool_use"


def test_a_call_without_arguments_has_none() -> None:
    null = chunk(tool_calls=[call(0, None, id="call_a", name="now")])
    assert calls_of(read(null, chunk("tool_calls"))) == [("call_a", "now", {})]


def test_a_call_without_an_id_gets_one_and_the_same_every_time() -> None:
    said = [chunk(tool_calls=[call(0, "{}", name="a"), call(1, "{}", name="b")]), chunk("stop")]
    assert calls_of(read(*said)) == calls_of(read(*said)) == [("call_0", "a", {}), ("call_1", "b", {})]


def test_a_call_is_a_call_also_where_the_finish_reason_is_stop() -> None:
    assert read(chunk(tool_calls=[call(0, "{}", id="1", name="a")]), chunk("stop")).stop_reason == "tool_use"


def test_a_cut_call_is_told_but_does_not_count() -> None:
    failed = failure_of(chunk(content="Let me"), chunk(tool_calls=[call(0, '{"a":', id="1", name="add")]))
    assert failed.partial == (Text(text="Let me"),)


def test_arguments_that_are_no_object_are_kept_as_what_they_are() -> None:
    (part,) = read(chunk(tool_calls=[call(0, '{"a": ', id="1", name="add")]), chunk("length")).parts
    assert isinstance(part, ToolCall)
    assert part.input == {}
    assert part.invalid is not None
    assert part.invalid.startswith('{"a": ')


@pytest.mark.parametrize("ids", [("x", "y"), ("", ""), ("x", "x")], ids=["two ids", "no ids", "one id"])
@pytest.mark.parametrize("index", [0, None], ids=["all numbered 0", "not numbered"])
def test_whole_calls_that_are_numbered_alike_stay_apart(index: int | None, ids: tuple[str, str]) -> None:
    first = chunk(tool_calls=[call(index, '{"city":"Rome"}', id=ids[0], name="weather")])
    second = chunk(tool_calls=[call(index, '{"city":"Oslo"}', id=ids[1], name="weather")])
    assert [asked for _, _, asked in calls_of(read(first, second, chunk("tool_calls")))] == [
        {"city": "Rome"},
        {"city": "Oslo"},
    ]


def test_id_and_name_repeated_with_every_fragment_are_one_call() -> None:
    pieces = ['{"a"', ":1", "}", ""]
    said = [chunk(tool_calls=[call(0, piece, id="call_a", name="add")]) for piece in pieces]
    assert calls_of(read(*said, chunk("tool_calls"))) == [("call_a", "add", {"a": 1})]


def test_arguments_as_an_object() -> None:
    assert calls_of(read(chunk(tool_calls=[call(0, {"a": 1}, id="1", name="add")]), chunk("stop"))) == [
        ("1", "add", {"a": 1})
    ]


def test_the_call_of_former_times() -> None:
    answer = read(
        chunk(function_call={"name": "add"}), chunk(function_call={"arguments": "{}"}), chunk("function_call")
    )
    assert (calls_of(answer), answer.stop_reason) == ([("call_0", "add", {})], "tool_use")


def test_a_tool_is_called_by_its_own_name_again() -> None:
    tool = ToolSpec(name="shop.refund", description="", parameters={})
    answer = read(chunk(tool_calls=[call(0, "{}", id="1", name="shop_refund")]), chunk("stop"), tools=[tool])
    assert calls_of(answer) == [("1", "shop.refund", {})]


def test_a_signature_of_a_call_is_kept_for_its_host() -> None:
    signed = call(0, "{}", id="1", name="a") | {"extra_content": {"google": {"thought_signature": "sig"}}}
    (part,) = read(chunk(tool_calls=[signed]), chunk("stop")).parts
    assert isinstance(part, ToolCall)
    (message,) = MessageRenderer(HOST).item(AssistantItem(version=1, parts=(part,)))
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "sig"}}
    (message,) = MessageRenderer("elsewhere.example").item(AssistantItem(version=1, parts=(part,)))
    assert "extra_content" not in message["tool_calls"][0]


ARGUMENTS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8), min_size=1, max_size=3)


@given(data=st.data(), wanted=st.lists(ARGUMENTS, min_size=1, max_size=4), ordered=st.booleans())
def test_fragments_of_several_calls_may_come_in_any_order(
    data: st.DataObject, wanted: list[dict[str, Any]], ordered: bool
) -> None:
    queues = []
    for index, arguments in enumerate(wanted):
        text = json.dumps(arguments)
        cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=4)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        head = call(index, data.draw(st.sampled_from([None, ""])), id=f"id{index}", name=f"tool{index}")
        queues.append([head, *(call(index, piece) for piece in pieces)])
    chunks = []
    while any(queues):
        waiting = [queue for queue in queues if queue]
        chunks.append(chunk(tool_calls=[(waiting[0] if ordered else data.draw(st.sampled_from(waiting))).pop(0)]))
    told = calls_of(read(*chunks, chunk("tool_calls")))
    assert sorted(told) == [(f"id{n}", f"tool{n}", arguments) for n, arguments in enumerate(wanted)]


# -- reasoning --


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_goes_back_to_its_host_in_the_field_it_came_in(field: str) -> None:
    answer = read(chunk(**{field: "Two and "}), chunk(**{field: "two."}), chunk(content="4"), chunk("stop"))
    assert answer.parts == (
        Thinking(thinking="Two and two.", provider="openai-chat", extra={"host": HOST, "field": field}),
        Text(text="4"),
    )
    item = AssistantItem(version=1, parts=answer.parts)
    assert list(MessageRenderer(HOST).item(item)) == [{"role": "assistant", "content": "4", field: "Two and two."}]
    assert list(MessageRenderer("elsewhere.example").item(item)) == [{"role": "assistant", "content": "4"}]


def test_reasoning_under_both_names_is_told_once() -> None:
    (thought, _) = read(chunk(reasoning="a", reasoning_content="a"), chunk(content="b"), chunk("stop")).parts
    assert isinstance(thought, Thinking)
    assert thought.thinking == "a"


def test_reasoning_details_grow_together_and_go_back_whole() -> None:
    def detail(**more: Any) -> dict[str, Any]:
        return {"type": "reasoning.text", "format": "x-v1", "index": 0, **more}

    answer = read(
        chunk(reasoning="Hm", reasoning_details=[detail(text="Hm", signature="")]),
        chunk(reasoning=", yes", reasoning_details=[detail(text=", yes")]),
        chunk(reasoning=None, reasoning_details=[detail(signature="sig")]),
        chunk(content="Yes", reasoning_details=[]),
        chunk("stop"),
    )
    thought = answer.parts[0]
    assert isinstance(thought, Thinking)
    # The text is kept once.
    assert thought.extra == {"host": HOST, "details": [detail(signature="sig")], "said": "text"}
    (message,) = MessageRenderer(HOST).item(AssistantItem(version=1, parts=answer.parts))
    assert message["reasoning_details"] == [detail(signature="sig", text="Hm, yes")]
    assert "reasoning" not in message


def test_encrypted_details_after_the_text_are_kept_apart() -> None:
    sealed = [{"type": "reasoning.encrypted", "data": data} for data in ("AAA", "BBB")]
    answer = read(chunk(reasoning="Hm"), chunk(content="Yes"), chunk(reasoning_details=sealed), chunk("stop"))
    (message,) = MessageRenderer(HOST).item(AssistantItem(version=1, parts=answer.parts))
    assert message == {"role": "assistant", "content": "Yes", "reasoning": "Hm", "reasoning_details": sealed}


# -- answers in one piece --


def test_a_whole_answer_reads_as_its_stream_does() -> None:
    message = {
        "role": "assistant",
        "content": "Sum:",
        "reasoning_content": "add them",
        "tool_calls": [
            {"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
            {"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a":2}'}},
        ],
    }
    body = {"id": "1", "model": "m", "choices": [{"message": message, "finish_reason": "tool_calls"}]}
    answer = read_whole(body)
    assert text_of(answer.parts) == "Sum:"
    assert calls_of(answer) == [("x", "add", {"a": 1}), ("x", "add", {"a": 2})]
    assert answer.stop_reason == "tool_use"


@pytest.mark.parametrize("body", [{}, [], None, {"choices": []}, {"path": "/nowhere"}, "text"])
def test_a_body_without_choices_is_no_answer(body: Any) -> None:
    with pytest.raises(ModelFailure) as caught:
        read_whole(body)
    assert (caught.value.failure.code, caught.value.failure.retryable) == ("bad_response", False)


def test_an_error_with_a_good_status_is_a_failure() -> None:
    with pytest.raises(ModelFailure) as caught:
        read_whole({"error": {"message": "Provider returned error", "code": 429}, "user_id": "u"})
    assert caught.value.failure.code == "rate_limit"


# -- usage --


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}, Usage(input_tokens=7, output_tokens=3)),
        (
            {
                "prompt_tokens": 7,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 1, "audio_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(
                input_tokens=7,
                output_tokens=3,
                cache_read_tokens=5,
                cache_write_tokens=1,
                reasoning_tokens=2,
                extra={"input_audio_tokens": 2},
            ),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8, "prompt_tokens_details": None},
            Usage(input_tokens=9, output_tokens=1, cache_read_tokens=8),
        ),
        # Reasoning that is counted apart was written too, and is paid for.
        (
            {
                "prompt_tokens": 12,
                "completion_tokens": 2,
                "total_tokens": 354,
                "completion_tokens_details": {"reasoning_tokens": 340},
            },
            Usage(input_tokens=12, output_tokens=342, reasoning_tokens=340),
        ),
        (
            {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 100},
            Usage(input_tokens=12, output_tokens=88, reasoning_tokens=86),
        ),
        ({"prompt_tokens": None, "completion_tokens": "3"}, Usage()),
    ],
)
def test_tokens_are_counted_our_way(usage: dict[str, Any], wanted: Usage) -> None:
    assert chat_usage(usage) == wanted
