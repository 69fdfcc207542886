"""What Anthropic is sent: the context in its words, cache marks, and the settings that each model takes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.adapters.models.anthropic_request import body, forget_thinking
from reenact.events.content import (
    AssistantItem,
    File,
    Image,
    Item,
    Native,
    OutputPart,
    ResultItem,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    UserItem,
)
from reenact.events.model import ModelParams, ModelRequest
from reenact.events.tool import ToolSpec

MARK = {"type": "ephemeral"}
SONNET = "claude-sonnet-4-5"


def sent(*items: Item, model: str = SONNET, cache: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """The body of a request with these items."""
    request = ModelRequest(model=model, system=rest.pop("system", ""), items=items, cache=cache, **rest)
    value: dict[str, Any] = json.loads(body(request))
    return value


def messages(*items: Item, **rest: Any) -> list[tuple[str, list[dict[str, Any]]]]:
    """The messages as `(role, blocks)`, without cache marks."""
    return [
        (message["role"], [{k: v for k, v in block.items() if k != "cache_control"} for block in message["content"]])
        for message in sent(*items, **rest)["messages"]
    ]


def user(*parts: Text | Image | File | str) -> UserItem:
    return UserItem(version=1, parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts))


def says(*parts: OutputPart | str) -> AssistantItem:
    return AssistantItem(version=2, parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts))


def calls(*ids: str) -> AssistantItem:
    return says(*(ToolCall(id=id, name="search", input={"q": id}) for id in ids))


def results(*ids: str, **rest: Any) -> ResultItem:
    return ResultItem(
        version=3, results=tuple(ToolResult(id=id, name="search", output=f"r-{id}", **rest) for id in ids)
    )


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


# -- the context --


def test_results_come_first_after_their_calls_and_what_was_said_meanwhile_joins_them() -> None:
    got = messages(user("a"), calls("1", "2"), results("1", "2"), user("b"), user("c"), says("d"), user("e"))
    assert got == [
        ("user", [text("a")]),
        (
            "assistant",
            [
                {"type": "tool_use", "id": "1", "name": "search", "input": {"q": "1"}},
                {"type": "tool_use", "id": "2", "name": "search", "input": {"q": "2"}},
            ],
        ),
        (
            "user",
            [
                {"type": "tool_result", "tool_use_id": "1", "content": "r-1"},
                {"type": "tool_result", "tool_use_id": "2", "content": "r-2"},
                text("b"),
                text("c"),
            ],
        ),
        ("assistant", [text("d")]),
        ("user", [text("e")]),
    ]


def test_results_that_are_added_later_still_come_first() -> None:
    cache: dict[str, Any] = {}
    items: list[Item] = [user("a"), calls("1"), user("meanwhile")]
    messages(*items, cache=cache)
    got = messages(*items, results("1"), cache=cache)
    assert [block["type"] for block in got[-1][1]] == ["tool_result", "text"]


def test_empty_blocks_are_never_sent() -> None:
    got = messages(
        user("a", "", " \n"), says("", " "), user("b"), says("c", "\n", ToolCall(id="1", name="n", input={}))
    )
    assert got == [
        ("user", [text("a"), text("b")]),
        ("assistant", [text("c"), {"type": "tool_use", "id": "1", "name": "n", "input": {}}]),
    ]


def test_thinking_goes_back_to_whom_it_came_from_and_to_nobody_else() -> None:
    ours = Thinking(thinking="hm", provider="anthropic", signature="s")
    hidden = Thinking(thinking="", provider="anthropic", extra={"type": "redacted_thinking", "data": "d"})
    theirs = Thinking(thinking="hm", provider="openai", signature="s")
    cut = Thinking(thinking="h", provider="")
    unsigned = Thinking(thinking="h", provider="anthropic")
    got = messages(user("a"), says(ours, hidden, theirs, cut, unsigned, "b"), user("c"))
    assert got[1][1] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
        text("b"),
    ]


def test_an_answer_that_ends_in_thinking_does_not_once_something_follows() -> None:
    thinking = Thinking(thinking="hm", provider="anthropic", signature="s")
    assert messages(user("a"), says("b", thinking), user("c"))[1] == ("assistant", [text("b")])
    assert messages(user("a"), says(thinking), user("c")) == [("user", [text("a"), text("c")])]


SEARCH = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}


def native(block: dict[str, Any], provider: str = "anthropic") -> Native:
    return Native(provider=provider, block=block)


def test_blocks_only_the_provider_understands_go_back_verbatim_and_others_stay() -> None:
    got = messages(user("a"), says(native(SEARCH), native(FOUND), native({"type": "x"}, "openai"), "b"), user("c"))
    assert got[1][1] == [SEARCH, FOUND, text("b")]


def test_a_paused_turn_goes_on_in_the_same_message() -> None:
    paused: list[Item] = [user("a"), says("I look.", native(SEARCH))]
    assert messages(*paused)[-1] == ("assistant", [text("I look."), SEARCH])
    assert messages(*paused, says(native(FOUND), "There."), user("b"))[1] == (
        "assistant",
        [text("I look."), SEARCH, FOUND, text("There.")],
    )


def test_a_hosted_tool_that_was_cut_off_is_left_out_but_one_that_waits_for_us_is_kept() -> None:
    assert messages(user("a"), says("I look.", native(SEARCH)), user("b"))[1] == ("assistant", [text("I look.")])
    waits = says(
        native(SEARCH), ToolCall(id="1", name="n", input={}, extra={"provider": "anthropic", "caller": {"type": "x"}})
    )
    got = messages(user("a"), waits, results("1"))[1][1]
    assert got == [SEARCH, {"type": "tool_use", "id": "1", "name": "n", "input": {}, "caller": {"type": "x"}}]


def test_citations_go_back_to_the_provider_that_made_them() -> None:
    ours = Text(text="a", extra={"provider": "anthropic", "citations": [{"type": "char_location"}]})
    theirs = Text(text="b", extra={"citations": ["https://example.org"]})
    assert messages(user("?"), says(ours, theirs))[1][1] == [
        {"type": "text", "text": "a", "citations": [{"type": "char_location"}]},
        text("b"),
    ]


def test_invalid_input_goes_back_as_an_empty_object() -> None:
    call = ToolCall(id="1", name="n", input={}, invalid='{"a": [6 bytes, not JSON]')
    assert messages(user("a"), says(call))[1][1][0]["input"] == {}


def test_results_say_what_they_must() -> None:
    picture = ToolResult(id="2", name="n", output=(Text(text="see"), Image(data="iVBORw0=")))
    empty = ToolResult(id="3", name="n", output=" ")
    error = ToolResult(id="4", name="n", output="", is_error=True)
    item = ResultItem(version=3, results=(picture, empty, error))
    assert messages(user("a"), calls("2", "3", "4"), item)[2][1] == [
        {
            "type": "tool_result",
            "tool_use_id": "2",
            "content": [
                text("see"),
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}},
            ],
        },
        {"type": "tool_result", "tool_use_id": "3"},
        {"type": "tool_result", "tool_use_id": "4", "is_error": True, "content": "error"},
    ]


def test_pictures_and_documents() -> None:
    notes = base64.b64encode("Grüße".encode()).decode()
    got = messages(
        user(
            Image(url="https://example.org/a.png"),
            Image(data="/9j/4AAQ"),
            Image(data="x", media_type="image/webp"),
            File(data="JVBERi0=", name="a.pdf"),
            File(url="https://example.org/a.pdf"),
            File(file_id="file_1"),
            File(data=notes, media_type="text/markdown", name="notes.md"),
        )
    )
    assert got[0][1] == [
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "/9j/4AAQ"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": "x"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            "title": "a.pdf",
        },
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
            "title": "notes.md",
        },
    ]


def test_ids_that_repeat_or_hold_odd_characters_are_made_good_and_still_match() -> None:
    items = [user("a")]
    odd = "functions.search:0"
    for _ in range(2):
        items += [calls("call_0", "call_0", odd), results("call_0", "call_0", odd)]  # type: ignore[list-item]
    got = messages(*items)
    asked = [block["id"] for _, blocks in got for block in blocks if block["type"] == "tool_use"]
    answered = [block["tool_use_id"] for _, blocks in got for block in blocks if block["type"] == "tool_result"]
    assert asked == answered
    assert len(set(asked)) == 6
    assert all(id.replace("_", "").isalnum() for id in asked)


# -- marks --


def marks(request: dict[str, Any]) -> int:
    return json.dumps(request).count('"cache_control"')


def test_four_marks_at_most_at_the_ends_of_what_stays_the_same() -> None:
    tools = [ToolSpec(name=name, description="d", parameters={}) for name in ("a", "b")]
    items: list[Item] = [user("one")]
    for n in range(6):
        items += [calls(str(n)), results(str(n))]
    got = sent(*items, system="Be kind.", tools=tools)
    assert got["system"] == [{"type": "text", "text": "Be kind.", "cache_control": MARK}]
    assert [tool.get("cache_control") for tool in got["tools"]] == [None, MARK]
    marked = [n for n, message in enumerate(got["messages"]) if marks(message)]
    assert marked == [10, 12]
    assert all(got["messages"][n]["content"][-1]["cache_control"] == MARK for n in marked)
    assert marks(got) == 4


def test_a_mark_is_where_the_mark_before_was() -> None:
    # What the call before wrote into the cache is found, however much the turn has added.
    cache: dict[str, Any] = {}
    items: list[Item] = [user("one")]
    before = None
    for n in range(5):
        got = sent(*items, cache=cache)
        marked = {n for n, message in enumerate(got["messages"]) if marks(message)}
        assert before is None or before in marked
        before = max(marked)
        items += [calls(str(n)), results(str(n))]


# -- incremental --

PARTS = st.one_of(
    st.sampled_from(["x", " ", ""]).map(lambda words: Text(text=words)),
    st.just(Thinking(thinking="t", provider="anthropic", signature="s")),
    st.just(native(SEARCH)),
    st.just(native(FOUND)),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Item]:
    """Any context as it is promised: every call closed by the item behind its answer."""
    items: list[Item] = []
    for kind in draw(st.lists(st.sampled_from(["user", "answer", "calls"]), max_size=12)):
        if kind == "user":
            items.append(user(*draw(st.lists(st.sampled_from(["u", " "]), min_size=1, max_size=2))))
        else:
            ids = draw(st.lists(st.sampled_from("123"), min_size=1, max_size=3)) if kind == "calls" else []
            parts = draw(st.lists(PARTS, max_size=3)) + [ToolCall(id=id, name="n", input={}) for id in ids]
            items.append(says(*parts))
            if ids:
                items.append(results(*ids))
    return items


@given(conversations(), st.data())
def test_adding_to_what_was_rendered_is_the_same_as_rendering_it_all(items: list[Item], data: st.DataObject) -> None:
    cache: dict[str, Any] = {}
    for count in sorted(data.draw(st.sets(st.integers(0, len(items))))):
        assert sent(*items[:count], cache=cache) == sent(*items[:count])


@given(conversations())
def test_every_call_is_closed_once_in_the_message_behind_it_and_roles_take_turns(items: list[Item]) -> None:
    got = messages(*items)
    roles = [role for role, _ in got]
    assert all(a != b for a, b in pairwise(roles))
    assert all(blocks for _, blocks in got)
    for n, (role, blocks) in enumerate(got):
        asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if role == "assistant" and asked:
            behind = got[n + 1][1]
            assert [block["tool_use_id"] for block in behind[: len(asked)]] == asked
            assert not any(block["type"] == "tool_result" for block in behind[len(asked) :])
    every = [block["id"] for _, blocks in got for block in blocks if block["type"] == "tool_use"]
    assert len(every) == len(set(every))


def test_another_context_under_the_same_cache_is_rendered_anew() -> None:
    cache: dict[str, Any] = {}
    sent(user("a"), says("b"), user("c"), cache=cache)
    assert messages(user("summary"), cache=cache) == [("user", [text("summary")])]
    assert messages(user("other"), says("x"), cache=cache)[0] == ("user", [text("other")])


def test_a_turn_late_in_a_session_costs_about_what_an_early_one_did() -> None:
    def turn_s(count: int) -> float:
        items: list[Item] = [user("go")]
        for n in range(count):
            items += [calls(f"c{n}"), results(f"c{n}")]
        cache: dict[str, Any] = {}
        body(ModelRequest(model=SONNET, system="", items=items, cache=cache))
        best = 1.0
        for n in range(20):
            items += [calls(f"d{n}"), results(f"d{n}")]
            start = time.perf_counter()
            body(ModelRequest(model=SONNET, system="", items=items, cache=cache))
            best = min(best, time.perf_counter() - start)
        return best

    # Rendering it all takes 100 times as long here; what is left is one copy of the bytes.
    assert turn_s(2000) < turn_s(10) * 20 + 0.0005


# -- settings --


def settings(model: str, **params: Any) -> dict[str, Any]:
    got = sent(
        user("a"), model=model, params=ModelParams(**params), tools=[ToolSpec(name="t", description="", parameters={})]
    )
    return {k: v for k, v in got.items() if k not in ("model", "messages", "tools", "stream")}


def test_the_common_settings() -> None:
    got = sent(user("a"), params=ModelParams(max_tokens=7, stop_sequences=("END",)))
    assert (got["model"], got["stream"], got["max_tokens"], got["stop_sequences"]) == (SONNET, True, 7, ["END"])
    assert set(got) == {"model", "stream", "max_tokens", "stop_sequences", "messages"}


@pytest.mark.parametrize(
    ("model", "max_tokens"),
    [
        ("claude-3-haiku-20240307", 4096),
        ("claude-3-5-sonnet-20240620", 8192),
        ("claude-opus-4-20250514", 32000),
        ("claude-sonnet-5-5", 32000),
        ("somebody-elses-model", 8192),
    ],
)
def test_an_answer_may_be_as_long_as_every_model_of_the_kind_allows(model: str, max_tokens: int) -> None:
    assert settings(model)["max_tokens"] == max_tokens


@pytest.mark.parametrize(
    ("model", "sends"),
    [
        ("claude-3-5-haiku-20241022", True),
        ("claude-opus-4-1-20250805", True),
        ("claude-sonnet-4-5-20250929", True),
        ("anthropic.claude-opus-4-6-v1", True),
        ("claude-opus-4-7", False),
        ("claude-opus-4-8", False),
        ("claude-sonnet-5", False),
        ("claude-haiku-5-5", False),
        ("claude-mythos-preview", False),
        ("claude-opus-9", False),
        ("glm-4.6", True),
    ],
)
def test_temperature_is_sent_only_where_it_is_taken(model: str, sends: bool) -> None:
    assert settings(model, temperature=0.3).get("temperature") == (0.3 if sends else None)


def test_temperature_stays_on_the_scale_and_away_from_thinking() -> None:
    assert settings(SONNET, temperature=1.7)["temperature"] == 1.0
    assert "temperature" not in settings(SONNET, temperature=0.3, thinking="low")


ADAPTIVE = {"type": "adaptive"}
SHOWN = {"type": "adaptive", "display": "summarized"}


@pytest.mark.parametrize(
    ("model", "level", "thinking", "effort"),
    [
        ("claude-3-5-haiku-20241022", "high", None, None),
        ("claude-3-7-sonnet-20250219", "low", {"type": "enabled", "budget_tokens": 2048}, None),
        ("claude-sonnet-4-5", "medium", {"type": "enabled", "budget_tokens": 8192}, None),
        ("claude-opus-4-5-20251101", "high", {"type": "enabled", "budget_tokens": 24576}, None),
        ("claude-sonnet-4-5", "off", None, None),
        ("claude-opus-4-6", "high", ADAPTIVE, "high"),
        ("claude-opus-4-7", "low", SHOWN, "low"),
        ("claude-opus-4-8", "off", None, None),
        ("claude-sonnet-5", "medium", SHOWN, "medium"),
        ("claude-opus-5", "off", {"type": "disabled"}, None),
        ("claude-fable-5", "off", None, "low"),
        ("claude-opus-5-5", "off", None, "low"),
        ("claude-sonnet-5-5", "off", {"type": "between_tools"}, None),
        ("claude-haiku-5-5", "off", {"type": "disabled"}, None),
        ("claude-fable-5-2", "high", SHOWN, "high"),
        ("claude-opus-9", "low", SHOWN, "low"),
        ("claude-opus-9", "off", None, "low"),
        ("kimi-k3", "low", {"type": "enabled", "budget_tokens": 2048}, None),
        ("claude-sonnet-5-5", None, None, None),
        ("claude-sonnet-5-5", "from_the_future", None, None),
    ],
)
def test_thinking_is_asked_for_as_each_model_takes_it(
    model: str, level: str | None, thinking: dict[str, Any] | None, effort: str | None
) -> None:
    got = settings(model, thinking=level, max_tokens=64_000)
    assert got.get("thinking") == thinking
    assert got.get("output_config") == ({"effort": effort} if effort else None)


def test_a_budget_for_thinking_fits_into_the_answer_or_is_left_out() -> None:
    assert settings(SONNET, thinking="high", max_tokens=4000)["thinking"]["budget_tokens"] == 3999
    assert "thinking" not in settings(SONNET, thinking="high", max_tokens=1024)


def test_thinking_on_a_budget_waits_for_the_next_turn_if_this_one_began_without() -> None:
    params = ModelParams(thinking="low")
    began = Thinking(thinking="hm", provider="anthropic", signature="s")
    assert "thinking" not in sent(user("a"), calls("1"), results("1"), params=params)
    with_it = says(began, ToolCall(id="1", name="n", input={}))
    assert "thinking" in sent(user("a"), with_it, results("1"), params=params)
    assert "thinking" in sent(user("a"), calls("1"), results("1"), says("b"), user("c"), params=params)


@pytest.mark.parametrize(
    ("choice", "sends"),
    [
        ("auto", {"type": "auto"}),
        ("any", {"type": "any"}),
        ("none", {"type": "none"}),
        ("t", {"type": "tool", "name": "t"}),
        ("a.b", {"type": "tool", "name": "a_b"}),
        (None, None),
    ],
)
def test_the_choice_of_a_tool(choice: str | None, sends: dict[str, Any] | None) -> None:
    assert settings(SONNET, tool_choice=choice).get("tool_choice") == sends
    assert "tool_choice" not in sent(user("a"), params=ModelParams(tool_choice=choice))


def test_a_forced_tool_is_sent_only_where_it_is_taken_and_goes_before_thinking_on_a_budget() -> None:
    assert "tool_choice" not in settings("claude-sonnet-5-5", tool_choice="any")
    assert settings("claude-sonnet-5-5", tool_choice="none")["tool_choice"] == {"type": "none"}
    assert "thinking" not in settings(SONNET, tool_choice="any", thinking="low")


def test_tools_are_offered_with_a_schema_that_is_an_object() -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    tools = [
        ToolSpec(name="search", description="Look it up.", parameters=schema),
        ToolSpec(name="a.b", description="", parameters={}),
    ]
    assert sent(user("a"), tools=tools)["tools"] == [
        {"name": "search", "input_schema": schema, "description": "Look it up."},
        {"name": "a_b", "input_schema": {"type": "object", "properties": {}}, "cache_control": MARK},
    ]


def test_reasoning_can_be_forgotten_once_and_new_reasoning_is_kept() -> None:
    thinking = Thinking(thinking="hm", provider="anthropic", signature="s")
    cache: dict[str, Any] = {}
    items: Sequence[Item] = [user("a"), says(thinking, "b"), user("c")]

    def request(items: Sequence[Item], cache: dict[str, Any] | None) -> ModelRequest:
        return ModelRequest(model=SONNET, system="", items=items, cache=cache)

    assert forget_thinking(request(items, None)) is False
    assert forget_thinking(request([user("a")], {})) is False
    assert forget_thinking(request(items, cache)) is True
    assert forget_thinking(request(items, cache)) is False
    got = messages(*items, says(thinking, "d"), user("e"), cache=cache)
    assert [block["type"] for _, blocks in got for block in blocks] == ["text"] * 3 + ["thinking"] + ["text"] * 2
