"""The Responses protocol: contexts into input items.

Shown to fail: sending reasoning without its proof turns the tests of what goes back red.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reenact.adapters.models.openai_body import Rendered
from reenact.adapters.models.openai_host import Endpoint
from reenact.adapters.models.openai_items import InputRenderer
from reenact.adapters.models.openai_responses import responses_body
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
    UserItem,
)
from reenact.events.model import ModelParams, ModelRequest
from reenact.events.tool import ToolSpec
from tests.adapters.models.contexts import contexts
from tests.adapters.models.responses import HOST, function, message, read, reasoning


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
