"""The scripted model: what it plays, that it depends on the context alone, and how it says that a script is wrong."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from reenact.adapters.models.script import BUILT_IN, Seen, Step
from reenact.adapters.models.scripted import Scripted
from reenact.events.content import (
    AssistantItem,
    Failure,
    Item,
    ResultItem,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    UserItem,
    text_of,
)
from reenact.events.errors import BadInput
from reenact.events.model import ModelAnswer, ModelFailure, ModelRequest
from reenact.events.stream import TextDelta
from reenact.events.tool import ToolSpec
from tests.adapters.models.recordings import Outcome, ask


def request(*items: Item, model: str = "x", **rest: Any) -> ModelRequest:
    return ModelRequest(model=model, system=rest.pop("system", ""), items=items, **rest)


def user(text: str) -> UserItem:
    return UserItem(version=1, parts=(Text(text=text),))


def asked(scripted: Scripted, *items: Item, **rest: Any) -> Outcome:
    return asyncio.run(ask(scripted, request(*items, **rest)))


def answer(scripted: Scripted, *items: Item, **rest: Any) -> ModelAnswer:
    outcome = asked(scripted, *items, **rest)
    assert outcome.answer is not None, outcome.failure
    return outcome.answer


def conversation(scripted: Scripted, turns: int, **rest: Any) -> list[Item]:
    """So many answers, each asked for by a person, every call closed."""
    items: list[Item] = []
    cache: dict[str, Any] = {}
    for n in range(turns):
        items.append(user(f"say {n}"))
        parts = answer(scripted, *items, cache=cache, **rest).parts
        items.append(AssistantItem(version=2, parts=parts))
        calls = [part for part in parts if isinstance(part, ToolCall)]
        if calls:
            results = tuple(ToolResult(id=call.id, name=call.name, output="done") for call in calls)
            items.append(ResultItem(version=3, results=results))
    return items


STEPS: list[Step | dict[str, Any]] = [
    {"text": "First, I look.", "tool_calls": [{"name": "look", "input": {"at": "it"}}, {"name": "wait"}]},
    Step(text="Then I say so.", thinking="what to say"),
]


def test_steps_are_played_in_order_and_then_there_are_no_more() -> None:
    texts = [text_of(i.parts) for i in conversation(Scripted(STEPS), 4) if isinstance(i, AssistantItem)]
    assert texts == ["First, I look.", "Then I say so."] + ["(the script has no more steps)"] * 2


def test_a_script_may_begin_again() -> None:
    items = conversation(Scripted([{"text": "tick"}, {"text": "tock"}], repeat=True), 5)
    assert [text_of(i.parts) for i in items if isinstance(i, AssistantItem)] == ["tick", "tock", "tick", "tock", "tick"]


def test_calls_have_ids_of_their_own_and_what_the_step_says() -> None:
    got = answer(Scripted(STEPS), user("go"))
    assert got.stop_reason == "tool_use"
    assert got.parts == (
        Text(text="First, I look."),
        ToolCall(id="call_1_1", name="look", input={"at": "it"}),
        ToolCall(id="call_1_2", name="wait", input={}),
    )
    items = conversation(Scripted([STEPS[0]], repeat=True), 3)
    ids = [part.id for i in items if isinstance(i, AssistantItem) for part in i.parts if isinstance(part, ToolCall)]
    assert len(set(ids)) == 6


def test_text_comes_word_by_word_and_thinking_before_it() -> None:
    items = conversation(Scripted(STEPS), 1)
    outcome = asked(Scripted(STEPS), *items, user("and?"))
    assert [s.text for s in outcome.signals if isinstance(s, TextDelta)] == ["Then ", "I ", "say ", "so."]
    assert outcome.answer is not None
    assert outcome.answer.parts == (
        Thinking(thinking="what to say", provider="scripted"),
        Text(text="Then I say so."),
    )


def test_the_answer_follows_from_the_context_alone() -> None:
    # Given a conversation, when another process with another adapter and an empty cache asks, it hears the same.
    items = [*conversation(Scripted(STEPS), 1), user("and?")]
    cache: dict[str, Any] = {}
    model = Scripted(STEPS)
    for count in range(1, len(items) + 1):
        asked(model, *items[:count], cache=cache)
    assert answer(model, *items, cache=cache) == answer(Scripted(STEPS), *items) == answer(model, *items)


def test_a_cache_of_another_context_is_not_believed() -> None:
    cache: dict[str, Any] = {}
    model = Scripted(STEPS)
    asked(model, *conversation(model, 2), user("on"), cache=cache)
    assert text_of(answer(model, user("fresh"), cache=cache).parts) == "First, I look."


def test_tokens_are_counted_from_the_text_and_always_alike() -> None:
    first = answer(Scripted([{"text": "12345678"}]), user("123456789"), system="1234567")
    assert first.usage == Usage(input_tokens=4, output_tokens=2)
    given = {"text": "a", "usage": {"inputTokens": 7, "outputTokens": 9, "cacheReadTokens": 5}}
    assert answer(Scripted([given]), user("b")).usage == Usage(input_tokens=7, output_tokens=9, cache_read_tokens=5)


def test_a_step_may_say_why_it_stopped_or_write_bad_input() -> None:
    assert answer(Scripted([{"stop_reason": "refusal"}]), user("a")).stop_reason == "refusal"
    (call,) = answer(Scripted([{"tool_calls": [{"name": "n", "written": '{"a":'}]}]), user("a")).parts
    assert isinstance(call, ToolCall) and call.input == {} and call.invalid is not None


def test_a_step_may_fail_always_or_so_many_times() -> None:
    model = Scripted([{"text": "Wai", "error": {"code": "overloaded", "message": "Busy", "retry_after_s": 2}}])
    failed = asked(model, user("a")).failure
    assert isinstance(failed, ModelFailure)
    assert failed.failure == Failure(code="overloaded", message="Busy", retryable=True, retry_after_s=2)
    assert failed.partial == (Text(text="Wai"),)
    twice = Scripted([{"text": "Now.", "error": {"times": 2}}])
    assert [asked(twice, user("a")).failure is None for _ in range(3)] == [False, False, True]


def test_a_delay_is_spread_over_the_words() -> None:
    started = time.perf_counter()
    answer(Scripted([{"text": "a b c d", "delay_ms": 40}]), user("go"))
    answer(Scripted([{"tool_calls": [{"name": "n"}], "delay_ms": 40}]), user("go"))
    assert time.perf_counter() - started >= 0.08


def test_without_a_delay_nothing_is_waited_for() -> None:
    # Driven by hand, without any loop: one wait would show.
    stream = Scripted(STEPS).stream(request(user("go")))
    said = []
    while True:
        try:
            stream.__anext__().send(None)  # type: ignore[attr-defined]
        except StopIteration as given:
            said.append(given.value)
        except StopAsyncIteration:
            break
    assert isinstance(said[-1], ModelAnswer)


def test_a_script_may_be_a_function() -> None:
    def choose(request: ModelRequest, seen: Seen) -> Step | dict[str, Any]:
        return {"text": f"{seen.answers}: {seen.said.upper()}"}

    assert text_of(answer(Scripted(choose), user("a"), AssistantItem(version=2, parts=()), user("b")).parts) == "1: B"


# -- built in --


def test_hello_greets_again_and_again() -> None:
    first, second = (i for i in conversation(Scripted(), 2, model="hello") if isinstance(i, AssistantItem))
    assert first.parts == second.parts != ()


def test_echo_says_what_was_said() -> None:
    assert text_of(answer(Scripted(), user("old"), user("Grüße\nan alle"), model="echo").parts) == "Grüße\nan alle"


def test_tools_calls_what_it_is_told_to_and_says_what_came_back() -> None:
    tools = [ToolSpec(name=name, description="", parameters={}) for name in ("add", "now")]
    said = user('add {"a": 1, "b": 2}\nnow\nnothing of this')
    first = answer(Scripted(), said, model="tools", tools=tools)
    calls = [part for part in first.parts if isinstance(part, ToolCall)]
    assert [(call.name, call.input) for call in calls] == [("add", {"a": 1, "b": 2}), ("now", {})]
    results = tuple(ToolResult(id=call.id, name=call.name, output=call.name + "!") for call in calls)
    items = (said, AssistantItem(version=2, parts=first.parts), ResultItem(version=3, results=results))
    assert text_of(answer(Scripted(), *items, model="tools", tools=tools).parts) == "add!\nnow!"
    assert "add, now" in text_of(answer(Scripted(), user("help"), model="tools", tools=tools).parts)
    assert "no JSON object" in text_of(answer(Scripted(), user("add [1]"), model="tools", tools=tools).parts)


def test_a_script_that_is_not_built_in_is_refused_with_those_that_are() -> None:
    failure = asked(Scripted(), user("a"), model="nope").failure
    assert failure is not None
    assert (failure.failure.code, failure.failure.retryable) == ("invalid_request", False)
    assert all(name in failure.failure.message for name in BUILT_IN)


# -- files --


def played(path: Path, *items: Item) -> Outcome:
    return asked(Scripted(), *(items or (user("go"),)), model=str(path))


def test_a_file_is_a_list_of_steps_or_an_object_that_repeats(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps([{"text": "a"}, {"tool_calls": [{"name": "n", "input": {}}], "delay_ms": 1}]))
    outcome = played(path)
    assert outcome.answer is not None and text_of(outcome.answer.parts) == "a"
    path.write_text(json.dumps({"steps": [{"text": "again"}], "repeat": True}))
    outcome = played(path, user("go"), AssistantItem(version=2, parts=()), user("go"))
    assert outcome.answer is not None and text_of(outcome.answer.parts) == "again"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "not JSON"),
        ('"steps"', "neither a list"),
        ('{"steps": 1}', "neither a list"),
        ('{"steps": [], "repeat": 1}', "neither a list"),
        ('{"step": []}', "unknown field 'step'"),
        ('[{"text": "a"}, {}]', "step 2: a step needs"),
        ('[{"text": 1}]', "step 1: Expected `str`, got `int` - at `$.text`"),
        ('[{"txt": "a"}]', "step 1: Object contains unknown field `txt`"),
        ('[{"tool_calls": [{"input": {}}]}]', "step 1: Object missing required field `name` - at `$.tool_calls[0]`"),
        ('[{"text": "a", "delay_ms": -1}]', "step 1: `delay_ms` must be"),
        ('[{"text": "\\ud800"}]', "not JSON"),
    ],
)
def test_a_bad_file_says_in_one_line_where_and_what(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    failure = played(path).failure
    assert failure is not None and failure.failure.code == "invalid_request"
    message = failure.failure.message
    assert message.startswith(f"script {path}") and why in message and "\n" not in message
    assert isinstance(failure.__cause__, BadInput)


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path / "dir.json"):
        if path.name == "dir.json":
            path.mkdir()
        failure = played(path).failure
        assert failure is not None and str(path) in failure.failure.message
