"""The Responses protocol: events into answers, contexts into input items.

Shown to fail: taking the deltas for the answer turns the law of lost events red; sending reasoning without its proof
turns the tests of what goes back red.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.adapters.models.openai_body import Rendered
from reenact.adapters.models.openai_host import Endpoint
from reenact.adapters.models.openai_items import InputRenderer
from reenact.adapters.models.openai_responses import responses_body
from reenact.adapters.models.openai_responses_answer import ResponsesReading, responses_usage
from reenact.events.assembler import Assembler
from reenact.events.content import (
    AssistantItem,
    File,
    Image,
    Item,
    Native,
    ResultItem,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    UserItem,
    text_of,
)
from reenact.events.message import Signal
from reenact.events.model import ModelAnswer, ModelFailure, ModelParams, ModelRequest
from reenact.events.stream import MessageStart, TextDelta, ThinkingStart
from reenact.events.tool import ToolSpec
from tests.adapters.models.contexts import contexts

HOST = "models.example"


# -- building what a server sends --


def message(*texts: str, id: str = "msg_1", **more: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": content, **more}


def reasoning(
    *summary: str, id: str = "rs_1", content: Sequence[str] = (), sealed: str | None = None
) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "reasoning", "id": id}
    out["summary"] = [{"type": "summary_text", "text": text} for text in summary]
    if content:
        out["content"] = [{"type": "reasoning_text", "text": text} for text in content]
    return out | ({"encrypted_content": sealed} if sealed else {})


def function(name: str, arguments: str = "{}", *, id: str = "call_1", **more: Any) -> dict[str, Any]:
    own = {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "arguments": arguments}
    return own | {"status": "completed"} | more


def response(*output: Any, status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "m-1", "status": status, "output": list(output), **more}


def item_events(index: int, item: dict[str, Any], size: int = 3) -> list[dict[str, Any]]:
    """What a server says of one item, with its texts in deltas of `size` characters."""

    def said(kind: str, **more: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", "output_index": index, "item_id": item["id"], **more}

    def deltas(kind: str, text: str, **place: int) -> list[dict[str, Any]]:
        out = [said(f"{kind}.delta", delta=text[at : at + size], **place) for at in range(0, len(text), size)]
        name = "arguments" if kind == "function_call_arguments" else "text"
        return [*out, said(f"{kind}.done", **{name: text}, **place)]

    started = {name: value for name, value in item.items() if name != "encrypted_content"}
    started |= {name: [] for name in ("content", "summary") if name in item}
    events = [said("output_item.added", item=started | ({"arguments": ""} if "arguments" in item else {}))]
    if item["type"] == "message":
        for place, part in enumerate(item["content"]):
            events += deltas("output_text", part.get("text", ""), content_index=place)
    elif item["type"] == "reasoning":
        for place, part in enumerate(item["summary"]):
            events.append(said("reasoning_summary_part.added", summary_index=place))
            events += deltas("reasoning_summary_text", part["text"], summary_index=place)
        for place, part in enumerate(item.get("content") or ()):
            events += deltas("reasoning_text", part["text"], content_index=place)
    elif item["type"] == "function_call":
        events += deltas("function_call_arguments", item["arguments"])
    return [*events, said("output_item.done", item=item)]


def stream_of(*output: dict[str, Any], size: int = 3, end: str = "completed", **more: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response(status="in_progress")}]
    for index, item in enumerate(output):
        events += item_events(index, item, size)
    return [*events, {"type": f"response.{end}", "response": response(*output, status=end, **more)}]


def played(events: Sequence[Any], tools: Sequence[ToolSpec] = ()) -> tuple[ModelAnswer, list[Signal]]:
    """The answer of a stream and what was told of it, which adds up to it."""
    reading, assembler = ResponsesReading(HOST, tools), Assembler()
    signals = [signal for event in events for signal in reading.event("", event)]
    for signal in signals:
        assembler.feed(signal)
    answer = reading.answer()
    assert assembler.parts() == answer.parts
    assert (assembler.stop_reason, assembler.usage) == (answer.stop_reason, answer.usage)
    return answer, signals


def read(*output: dict[str, Any], **how: Any) -> ModelAnswer:
    """The answer with this output, the same as a stream and in one piece."""
    answer, _ = played(stream_of(*output, **how))
    how.pop("size", None)
    assert gist(read_whole(response(*output, status=how.pop("end", "completed"), **how))) == gist(answer)
    return answer


def read_whole(body: Any) -> ModelAnswer:
    reading = ResponsesReading(HOST)
    reading.whole(body)
    return reading.answer()


def gist(answer: ModelAnswer) -> Any:
    return answer.parts, answer.stop_reason, answer.usage


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


# -- the request --


def sent(*items: Item, host: str = HOST, **how: Any) -> list[dict[str, Any]]:
    renderer = InputRenderer(host, **how)
    return [each for item in items for each in renderer.item(item)]


def body(
    model: str = "gpt-4.1",
    *items: Item,
    host: str = "api.openai.com",
    cache: dict[str, Any] | None = None,
    system: str = "",
    tools: Sequence[ToolSpec] = (),
    **params: Any,
) -> dict[str, Any]:
    request = ModelRequest(
        model=model,
        system=system,
        items=items or (UserItem(version=1, parts=(Text(text="Hi"),)),),
        tools=tools,
        params=ModelParams(**params),
        session_id="sess_1",
        cache=cache,
    )
    return json.loads(responses_body(request, Endpoint(base_url=f"https://{host}/v1", host=host, api_key="k")))


def test_the_least_that_is_sent() -> None:
    assert body(host=HOST) == {
        "model": "gpt-4.1",
        "stream": True,
        "store": False,
        "input": [{"role": "user", "content": "Hi"}],
    }


def test_a_model_without_reasoning() -> None:
    asked = body(system="Be brief.", max_tokens=100, temperature=0.5, thinking="high", stop_sequences=("END",))
    assert asked["instructions"] == "Be brief."
    assert (asked["max_output_tokens"], asked["temperature"], asked["prompt_cache_key"]) == (100, 0.5, "sess_1")
    assert not {"reasoning", "include", "stop"} & set(asked)


def test_a_reasoning_model_hands_its_reasoning_out() -> None:
    asked = body("gpt-5-nano", thinking="low", temperature=0.5)
    assert (asked["reasoning"], asked["include"]) == ({"effort": "low"}, ["reasoning.encrypted_content"])
    assert "temperature" not in asked
    assert body("gpt-5.4", thinking="off", temperature=0.5)["temperature"] == 0.5


def test_fewer_tokens_than_the_least_allowed() -> None:
    assert body(max_tokens=1)["max_output_tokens"] == 16


def test_tools_are_not_strict_unless_they_say_so() -> None:
    tool = ToolSpec(name="shop.refund", description="Refund.", parameters={"properties": {"a": {"type": "string"}}})
    asked = body(tools=[tool], tool_choice="shop.refund")
    assert asked["tools"] == [
        {
            "type": "function",
            "name": "shop_refund",
            "description": "Refund.",
            "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
            "strict": False,
        }
    ]
    assert asked["tool_choice"] == {"type": "function", "name": "shop_refund"}
    assert [body(tools=[tool], tool_choice=choice)["tool_choice"] for choice in ("auto", "any", "none")] == [
        "auto",
        "required",
        "none",
    ]


def test_pictures_files_and_results() -> None:
    picture = Image(media_type="image/png", data="QUJD")
    parts = (
        Text(text="See:"),
        picture,
        File(media_type="application/pdf", name="a.pdf", data="QUJD"),
        File(url="https://x.example/a.pdf"),
        File(file_id="file-1"),
    )
    calls = (ToolCall(id="a", name="look", input={"at": 1}), ToolCall(id="a", name="look", input={}))
    results = (
        ToolResult(id="a", name="look", output=(Text(text="seen"), picture)),
        ToolResult(id="a", name="look", output="too dark", is_error=True),
    )
    image = {"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "auto"}
    assert sent(
        UserItem(version=1, parts=parts),
        AssistantItem(version=2, parts=calls),
        ResultItem(version=3, results=results),
    ) == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "See:"},
                image,
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"},
                {"type": "input_file", "file_url": "https://x.example/a.pdf"},
                {"type": "input_file", "file_id": "file-1"},
            ],
        },
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": '{"at":1}'},
        {"type": "function_call", "call_id": "a_2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "seen"}, image]},
        {"type": "function_call_output", "call_id": "a_2", "output": "Error: too dark"},
    ]


def test_a_call_goes_back_with_what_its_host_gave_and_without_its_item_id() -> None:
    (part,) = read(function("add", '{"a": 1}', namespace="sums")).parts
    item = AssistantItem(version=1, parts=(part,))
    plain = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a":1}'}
    assert sent(item) == [plain | {"namespace": "sums"}]
    assert sent(item, host="elsewhere.example") == [plain]


def test_reasoning_goes_back_to_its_writer_only_and_with_its_proof_only() -> None:
    sealed = read(reasoning("Hm", sealed="gAAA"), message("4", phase="final_answer")).parts
    item = AssistantItem(version=1, parts=sealed)
    said = {"role": "assistant", "content": "4"}
    assert sent(item) == [reasoning("Hm", sealed="gAAA"), said | {"phase": "final_answer"}]
    assert sent(item, host="elsewhere.example") == [said]
    assert sent(item, reasoning=False) == [said | {"phase": "final_answer"}]
    bare = AssistantItem(version=1, parts=read(reasoning("Hm"), message("4")).parts)
    assert sent(bare) == [said]
    foreign = Thinking(thinking="Hm", provider="anthropic", signature="s", extra={"host": HOST, "id": "rs_1"})
    assert sent(AssistantItem(version=1, parts=(foreign,))) == []


def test_reasoning_that_nothing_followed_is_left_out() -> None:
    cut_off = read(reasoning("Hm", sealed="gAAA"), end="incomplete").parts
    assert sent(AssistantItem(version=1, parts=cut_off)) == []


def test_a_model_without_reasoning_gets_none_from_the_context() -> None:
    item = AssistantItem(
        version=1,
        parts=(
            Thinking(
                thinking="", provider="openai", extra={"host": "api.openai.com", "id": "r", "encrypted_content": "x"}
            ),
            Text(text="4"),
        ),
    )
    assert [each.get("type") for each in body("gpt-5.4", item)["input"]] == ["reasoning", None]
    assert [each.get("type") for each in body("gpt-4.1", item)["input"]] == [None]


def test_an_open_call_of_a_built_in_tool_is_left_out_and_an_answered_one_kept() -> None:
    call = {"type": "shell_call", "id": "sh_1", "call_id": "c1", "action": {}, "created_by": "x"}
    output = {"type": "shell_call_output", "id": "so_1", "call_id": "c1", "output": []}
    hosted = {"type": "tool_search_call", "id": "ts_1", "call_id": None, "execution": "server"}

    def natives(*blocks: dict[str, Any]) -> AssistantItem:
        return AssistantItem(version=1, parts=tuple(Native(provider="openai", block=block) for block in blocks))

    assert sent(natives(call)) == []
    kept = {name: value for name, value in call.items() if name != "created_by"}
    assert sent(natives(call, output, hosted)) == [kept, output, hosted]


@given(items=contexts(), cut=st.integers(0, 30))
def test_rendering_step_by_step_gives_what_rendering_at_once_does(items: list[Item], cut: int) -> None:
    kept = Rendered(lambda: InputRenderer(HOST))
    kept.bytes(items[:cut])
    assert kept.bytes(items) == Rendered(lambda: InputRenderer(HOST)).bytes(items)


@given(items=contexts(), forget=st.integers(0, 5))
def test_every_call_has_one_id_of_its_own_and_one_output(items: list[Item], forget: int) -> None:
    given_back = sent(*items, forget=forget)
    calls = [each["call_id"] for each in given_back if each.get("type") == "function_call"]
    outputs = [each["call_id"] for each in given_back if each.get("type") == "function_call_output"]
    assert calls == outputs
    assert len(set(calls)) == len(calls)
    assert all(0 < len(id) <= 64 for id in calls)
    # Reasoning is never the last word of an answer.
    for each, following in zip(given_back, [*given_back[1:], {"role": "user"}], strict=False):
        assert not (each.get("type") == "reasoning" and following.get("role") == "user")
