"""Contexts as a session may hold them, with every kind of part, from every provider, and ids that repeat."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from reenact.events.content import (
    AssistantItem,
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

HOSTS = st.sampled_from(["models.example", "elsewhere.example"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
# Few enough to repeat.
IDS = st.sampled_from(["", "call_a", "call_b", "call_0", "x" * 64, "y" * 90])


def _assistant() -> st.SearchStrategy[tuple[Any, ...]]:
    extra = st.fixed_dictionaries(
        {"host": HOSTS},
        optional={
            "provider": st.sampled_from(["openai", "openai-chat", "anthropic"]),
            "id": st.sampled_from(["msg_1", "rs_1", "rs_2"]),
            "phase": st.just("final_answer"),
            "as": st.just("content"),
            "encrypted_content": st.just("sealed"),
            "field": st.sampled_from(["reasoning", "reasoning_content"]),
        },
    )
    return st.lists(
        st.one_of(
            st.builds(Text, text=TEXTS, extra=st.none() | extra),
            st.builds(
                Thinking,
                thinking=TEXTS,
                provider=st.sampled_from(["openai", "openai-chat", "anthropic", ""]),
                extra=st.none() | extra,
            ),
            st.builds(
                ToolCall,
                id=IDS,
                name=st.sampled_from(["add", "fs.read", "", "ü"]),
                input=st.dictionaries(TEXTS, st.integers(0, 9), max_size=2),
                extra=st.none() | extra,
            ),
            st.builds(
                Native,
                provider=st.sampled_from(["openai", "anthropic"]),
                block=st.sampled_from(
                    [
                        {"type": "web_search_call", "id": "ws_1"},
                        {"type": "custom_tool_call", "call_id": "ct_1"},
                        {"type": "refusal", "refusal": "No."},
                    ]
                ),
            ),
        ),
        max_size=4,
    ).map(tuple)


@st.composite
def contexts(draw: st.DrawFn) -> list[Item]:
    """Items of several turns; every answer with calls is followed by their results, in order."""
    items: list[Item] = []
    for _ in range(draw(st.integers(0, 3))):
        text = Text(text=draw(TEXTS))
        items.append(UserItem(version=len(items) + 1, parts=draw(st.sampled_from([(text,), (text, text), ()]))))
        for _ in range(draw(st.integers(0, 2))):
            parts = draw(_assistant())
            items.append(AssistantItem(version=len(items) + 1, parts=parts))
            calls = [part for part in parts if isinstance(part, ToolCall)]
            if calls:
                output = st.one_of(TEXTS, st.just((Text(text="seen"), Image(url="https://x.example/a.png"))))
                results = tuple(ToolResult(id=call.id, name=call.name, output=draw(output)) for call in calls)
                items.append(ResultItem(version=len(items) + 1, results=results))
    return items
