"""Chat Completions: contexts into messages, and the settings that each model and each server takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.adapters.models.openai_abilities import effort, reasons, takes_temperature, thinking_fields
from reenact.adapters.models.openai_body import Rendered
from reenact.adapters.models.openai_chat import chat_body
from reenact.adapters.models.openai_host import Endpoint
from reenact.adapters.models.openai_messages import MessageRenderer
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

HOST = "models.example"


def messages(*items: Item, host: str = HOST) -> list[dict[str, Any]]:
    renderer = MessageRenderer(host)
    return [message for item in items for message in renderer.item(item)]


def body(
    model: str = "gpt-4o", *, host: str = HOST, system: str = "", tools: Sequence[ToolSpec] = (), **params: Any
) -> dict[str, Any]:
    request = ModelRequest(
        model=model,
        system=system,
        items=[UserItem(version=1, parts=(Text(text="Hi"),))],
        tools=tools,
        params=ModelParams(**params),
        session_id="sess_1",
    )
    return json.loads(chat_body(request, Endpoint(base_url=f"https://{host}/v1", host=host, api_key="k")))


def test_the_least_that_is_sent() -> None:
    assert body() == {
        "model": "gpt-4o",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Hi"}],
    }


def test_openai_itself_gets_its_own_words() -> None:
    sent = body(host="api.openai.com", system="Be brief.", max_tokens=10, temperature=0.5, stop_sequences=("END",))
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["max_completion_tokens"], sent["prompt_cache_key"]) == (10, "sess_1")
    assert (sent["temperature"], sent["stop"]) == (0.5, ["END"])
    assert "max_tokens" not in sent


def test_other_servers_get_the_words_that_all_know() -> None:
    sent = body(max_tokens=10)
    assert sent["max_tokens"] == 10
    assert not {"max_completion_tokens", "prompt_cache_key"} & set(sent)


def test_a_reasoning_model_gets_no_temperature_and_no_stops() -> None:
    sent = body("o4-mini", temperature=0.5, stop_sequences=("END",), thinking="low", max_tokens=10)
    assert (sent["reasoning_effort"], sent["max_completion_tokens"]) == ("low", 10)
    assert not {"temperature", "stop", "max_tokens"} & set(sent)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("any", "required"),
        ("none", "none"),
        ("shop.refund", {"type": "function", "function": {"name": "shop_refund"}}),
    ],
)
def test_tools_and_the_choice_among_them(choice: str, sent: Any) -> None:
    tool = ToolSpec(name="shop.refund", description="Refund.", parameters={"type": "object"})
    asked = body(tools=[tool], tool_choice=choice)
    about = {"name": "shop_refund", "description": "Refund.", "parameters": {"type": "object", "properties": {}}}
    assert asked["tools"] == [{"type": "function", "function": about}]
    assert asked["tool_choice"] == sent
    assert "tool_choice" not in body(tool_choice=choice)


def test_pictures_and_files() -> None:
    parts = (
        Text(text="See:"),
        Image(media_type="image/jpeg", data="QUJD"),
        Image(url="https://x.example/a.png"),
        File(media_type="application/pdf", name="a.pdf", data="QUJD"),
        File(media_type="text/plain", name="a.txt", data="QUJD"),
        File(media_type="audio/mpeg", data="QUJD"),
        File(file_id="file-1"),
        File(url="https://x.example/a.pdf"),
    )
    (message,) = messages(UserItem(version=1, parts=parts))
    assert message["content"] == [
        {"type": "text", "text": "See:"},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD"}},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
        {"type": "text", "text": "a.txt:\nABC"},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"filename": "file", "file_data": "https://x.example/a.pdf"}},
    ]


def test_results_are_text_and_their_pictures_follow() -> None:
    picture = Image(media_type="image/png", data="QUJD")
    sent = messages(
        AssistantItem(
            version=1,
            parts=(
                ToolCall(id="a", name="look", input={"at": "x"}),
                ToolCall(id="b", name="fs.read", input={}, invalid="{"),
            ),
        ),
        ResultItem(
            version=2,
            results=(
                ToolResult(id="a", name="look", output=(Text(text="seen"), picture)),
                ToolResult(id="b", name="fs.read", output="no JSON", is_error=True),
            ),
        ),
    )
    assert sent == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at":"x"}'}},
                {"id": "b", "type": "function", "function": {"name": "fs_read", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "seen"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: no JSON"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What look returned besides its text:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
            ],
        },
    ]


def test_what_another_provider_thought_or_did_is_not_sent() -> None:
    parts = (
        Thinking(thinking="hm", provider="anthropic", signature="s"),
        Native(provider="anthropic", block={"type": "server_tool_use"}),
        Native(provider="openai", block={"type": "web_search_call", "id": "ws_1"}),
        Text(text="Yes", extra={"provider": "anthropic", "citations": [1]}),
    )
    assert messages(AssistantItem(version=1, parts=parts)) == [{"role": "assistant", "content": "Yes"}]
    assert messages(AssistantItem(version=1, parts=parts[:3])) == []


def test_what_single_hosts_insist_on() -> None:
    called = AssistantItem(
        version=1, parts=(ToolCall(id="a", name="f", input={}), ToolCall(id="b", name="g", input={}))
    )
    (google,) = messages(called, host="generativelanguage.googleapis.com")
    assert ["extra_content" in each for each in google["tool_calls"]] == [True, False]
    (deepseek,) = messages(called, host="api.deepseek.com")
    assert deepseek["reasoning_content"] == ""


@given(items=contexts(), cut=st.integers(0, 30))
def test_rendering_step_by_step_gives_what_rendering_at_once_does(items: list[Item], cut: int) -> None:
    kept = Rendered(lambda: MessageRenderer(HOST))
    kept.bytes(items[:cut])
    assert kept.bytes(items) == Rendered(lambda: MessageRenderer(HOST)).bytes(items)
    # After a compaction the list is another one.
    assert kept.bytes(items[cut:]) == Rendered(lambda: MessageRenderer(HOST)).bytes(items[cut:])


@given(items=contexts())
def test_every_call_has_one_id_of_its_own_and_one_result_right_after(items: list[Item]) -> None:
    sent = json.loads(b"[" + Rendered(lambda: MessageRenderer(HOST)).bytes(items) + b"]")
    seen: set[str] = set()
    owed: list[str] = []
    for message in sent:
        if message["role"] == "tool":
            assert message["tool_call_id"] == owed.pop(0)
        else:
            assert owed == []
        for each in message.get("tool_calls") or ():
            assert each["id"] not in seen
            assert 0 < len(each["id"]) <= 64
            assert isinstance(msgspec.json.decode(each["function"]["arguments"]), dict)
            seen.add(each["id"])
            owed.append(each["id"])
    assert owed == []


@pytest.mark.parametrize(
    ("model", "reasoning", "off", "high", "warm"),
    [
        ("gpt-4o", False, None, None, True),
        ("gpt-4.1-mini", False, None, None, True),
        ("gpt-35-turbo", False, None, None, True),
        ("ft:gpt-4o-mini:acme::x1", False, None, None, True),
        ("gpt-5-chat-latest", False, None, None, True),
        ("o3", True, "low", "high", False),
        ("o4-mini-2025-04-16", True, "low", "high", False),
        ("gpt-5-nano", True, "minimal", "high", False),
        ("gpt-5-2025-08-07", True, "minimal", "high", False),
        ("gpt-5-pro", True, None, None, False),
        ("gpt-5-codex", True, "low", "high", False),
        ("gpt-5.4", True, "none", "high", False),
        ("openai/gpt-5.2", True, "none", "high", False),
        ("gpt-oss-120b", False, "low", "high", True),
        ("gemini-2.5-flash", False, "none", "high", True),
        ("gemini-3-pro", False, "low", "high", True),
        ("llama3.2", False, None, None, True),
    ],
)
def test_what_a_model_takes(model: str, reasoning: bool, off: str | None, high: str | None, warm: bool) -> None:
    assert reasons(model) is reasoning
    assert (effort(model, "off"), effort(model, "high"), effort(model, None)) == (off, high, None)
    assert takes_temperature(model, effort(model, "high")) is warm
    assert takes_temperature(model, "none") is True


@pytest.mark.parametrize(
    ("host", "level", "sent"),
    [
        ("openrouter.ai", "high", {"reasoning": {"effort": "high"}}),
        ("openrouter.ai", "off", {"reasoning": {"enabled": False}}),
        ("api.deepseek.com", "low", {"thinking": {"type": "enabled"}}),
        ("api.z.ai", "off", {"thinking": {"type": "disabled"}}),
        ("models.example", "high", {}),
    ],
)
def test_hosts_with_words_of_their_own(host: str, level: str, sent: dict[str, Any]) -> None:
    assert thinking_fields("some-model", host, level) == sent
    assert thinking_fields("some-model", host, None) == {}
