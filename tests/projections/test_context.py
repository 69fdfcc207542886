"""What the model sees: every call closed exactly once, over any history and any prefix of it, for every provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.events.agent import ToolSettled
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
from reenact.events.message import Recorded
from reenact.events.session import JobStarted
from reenact.projections.context import ERASED, NOT_RUN, UNFINISHED, Context
from tests.histories import History, call, erase, histories, turns

ALL = 1 << 60


def fold(events: Iterable[Recorded]) -> Context:
    context = Context()
    for recorded in events:
        context.apply(recorded)
    return context


def seen(events: Iterable[Recorded], upto: int = ALL) -> list[Item]:
    return list(fold(events).render(upto))


def results(items: Sequence[Item]) -> list[ToolResult]:
    return [result for item in items if isinstance(item, ResultItem) for result in item.results]


# -- an independent judge: the rules of the providers, on the shapes that they are sent --


def judge_items(items: Sequence[Item]) -> None:
    """No empty item, and each item with calls is followed by one that closes them, in their order, each once."""
    ids: list[str] = []
    for place, item in enumerate(items):
        if isinstance(item, ResultItem):
            assert place > 0 and isinstance(items[place - 1], AssistantItem), "results follow an answer"
            assert item.results
            continue
        assert item.parts, "no empty item"
        if not isinstance(item, AssistantItem):
            continue
        assert any(not isinstance(part, Thinking) for part in item.parts)
        asked = [part for part in item.parts if isinstance(part, ToolCall)]
        ids += [part.id for part in asked]
        if asked:
            closing = items[place + 1]
            assert isinstance(closing, ResultItem)
            assert [(r.id, r.name) for r in closing.results] == [(c.id, c.name) for c in asked]
        elif place + 1 < len(items):
            assert not isinstance(items[place + 1], ResultItem)
    assert all(ids) and len(ids) == len(set(ids)), "ids are unique, none is empty"


def judge_anthropic(items: Sequence[Item]) -> None:
    """Messages API: each tool_use has exactly one tool_result, in the very next message, and each result its call."""
    messages: list[tuple[str, list[tuple[str, str]]]] = []
    for item in items:
        if isinstance(item, AssistantItem):
            role, blocks = (
                "assistant",
                [("tool_use", part.id) if isinstance(part, ToolCall) else ("other", "") for part in item.parts],
            )
        elif isinstance(item, ResultItem):
            role, blocks = "user", [("tool_result", result.id) for result in item.results]
        else:
            role, blocks = "user", [("other", "") for _ in item.parts]
        if messages and messages[-1][0] == role:
            messages[-1][1].extend(blocks)
        else:
            messages.append((role, blocks))
    awaited: list[str] = []
    for role, blocks in [*messages, ("user", [])]:
        closed = [id for kind, id in blocks if kind == "tool_result"]
        assert closed == awaited
        # The results come first in their message.
        assert all(kind == "tool_result" for kind, _ in blocks[: len(closed)])
        awaited = [id for kind, id in blocks if kind == "tool_use"]
        assert not awaited or role == "assistant"
    assert not awaited


def judge_chat(items: Sequence[Item]) -> None:
    """Chat Completions: after an assistant message with tool_calls come exactly its tool messages."""
    awaited: set[str] = set()
    for item in items:
        if isinstance(item, ResultItem):
            for result in item.results:
                assert result.id in awaited
                awaited.discard(result.id)
            continue
        assert not awaited
        if isinstance(item, AssistantItem):
            awaited = {part.id for part in item.parts if isinstance(part, ToolCall)}
    assert not awaited


def judge_responses(items: Sequence[Item]) -> None:
    """Responses: over the whole input, each function_call has exactly one function_call_output, which comes later."""
    called: dict[str, int] = {}
    for item in items:
        for part in item.parts if isinstance(item, AssistantItem) else ():
            if isinstance(part, ToolCall):
                assert part.id not in called
                called[part.id] = 0
        for result in item.results if isinstance(item, ResultItem) else ():
            called[result.id] += 1
    assert all(outputs == 1 for outputs in called.values())


def judge(items: Sequence[Item]) -> None:
    judge_items(items)
    judge_anthropic(items)
    judge_chat(items)
    judge_responses(items)


# -- laws --


@given(histories())
def test_every_prefix_of_any_history_closes_each_call_exactly_once_for_every_provider(history: History) -> None:
    context = Context()
    judge(context.render(0))
    for recorded in history:
        context.apply(recorded)
        judge(list(context.render(recorded.version)))


@given(histories(), st.data())
def test_what_came_after_a_version_does_not_change_how_the_context_stood_there(
    history: History, data: st.DataObject
) -> None:
    whole = fold(history)
    upto = data.draw(st.integers(0, history.version + 1))
    then = seen(history.events[:upto], upto)
    judge(then)
    assert list(whole.render(upto)) == then


@given(histories())
def test_rendering_on_the_way_gives_the_same_as_folding_anew(history: History) -> None:
    context = Context()
    views = []
    for recorded in history:
        context.apply(recorded)
        views.append((recorded.version, context.render(recorded.version)))
    for version, view in views:
        # The views were kept while the list grew on: none of them may have changed.
        assert list(view) == seen(history.events[:version], version)
    encoded = msgspec.msgpack.encode(list(context.render(ALL)))
    assert encoded == msgspec.msgpack.encode(seen(history.events))


@given(turns())
def test_what_one_model_call_saw_stands_at_the_head_of_what_the_next_one_sees(history: History) -> None:
    context = Context()
    before: list[Item] = []
    for recorded in history:
        context.apply(recorded)
        if recorded.type == "model_called":
            upto = recorded.data.upto  # type: ignore[attr-defined]
            now = list(context.render(upto))
            # Two closing items of different moments are the same to a model: only what it is shown counts.
            assert [_shown(item) for item in now[: len(before)]] == [_shown(item) for item in before]
            before = now


def _shown(item: Item) -> object:
    return item.results if isinstance(item, ResultItem) else item.parts


@given(turns(), st.data())
def test_a_view_is_a_sequence_like_any_list(history: History, data: st.DataObject) -> None:
    view = fold(history).render(data.draw(st.integers(0, history.version)))
    plain = list(view)
    assert len(view) == len(plain) and view == plain
    places = st.integers(-len(plain) - 2, len(plain) + 2) | st.none()
    cut = slice(data.draw(places), data.draw(places), data.draw(st.sampled_from([None, 1, 2, -1])))
    assert view[cut] == plain[cut]
    for at in range(-len(plain), len(plain)):
        assert view[at] == plain[at]
    with pytest.raises(IndexError):
        view[len(plain)]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda m: m.setattr(Context, "_close", lambda self, version: None), id="never closes"),
        pytest.param(lambda m: m.setattr(Context, "_closing", lambda self, *rest: None), id="leaves the tail open"),
        pytest.param(lambda m: m.setattr(Context, "_named", lambda self, part: part), id="keeps clashing ids"),
    ],
)
def test_the_judge_notices_a_context_that_breaks_the_law(broken: object, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)  # type: ignore[operator]
    history = History().send("hi").answers(call(id="a"), call(id="a")).settles().settles().answers("ok").send("more")
    with pytest.raises((AssertionError, IndexError)):
        for version in range(history.version + 1):
            judge(seen(history.events[:version], version))


# -- what enters --


def test_an_input_enters_when_its_job_starts_not_when_it_is_accepted() -> None:
    history = History().send("first").send("second")
    assert [item.parts for item in seen(history)] == [(Text(text="first"),)]  # type: ignore[union-attr]
    history.answers("Hello.")
    assert seen(history)[-1] == UserItem(version=history.version - 2, parts=(Text(text="second"),))


def test_an_input_that_was_cancelled_while_queued_never_enters() -> None:
    history = History().send("first").send("second").send("third").cancels("job_2").answers("one").answers("three")
    said = [item.parts[0].text for item in seen(history)]  # type: ignore[union-attr]
    assert said == ["first", "one", "third", "three"]


def test_a_turn_with_a_tool_is_four_items() -> None:
    asked = call("refund", id="toolu_1", order="42")
    history = History().send("Refund 42").answers("Let me see.", asked).settles(output="refunded").answers("Done.")
    assert seen(history) == [
        UserItem(version=5, parts=(Text(text="Refund 42"),)),
        AssistantItem(version=8, parts=(Text(text="Let me see."), asked)),
        ResultItem(version=12, results=(ToolResult(id="toolu_1", name="refund", output="refunded"),)),
        AssistantItem(version=14, parts=(Text(text="Done."),)),
    ]


def test_results_stand_in_the_order_of_the_calls_whichever_ended_first() -> None:
    history = History().send("go").answers(call(id="a"), "and", call(id="b"), call(id="c"))
    history.settles("t3", "three").settles("t1", "one").settles("t2", "two")
    assert [(r.id, r.output) for r in results(seen(history))] == [("a", "one"), ("b", "two"), ("c", "three")]


def test_results_of_parallel_calls_are_known_one_by_one_as_they_end() -> None:
    history = History().send("go").answers(call(id="a"), call(id="b"))
    history.settles("t2", "two")
    at = history.version
    history.settles("t1", "one")
    assert [r.output for r in results(seen(history, at - 1))] == [UNFINISHED, UNFINISHED]
    assert [r.output for r in results(seen(history, at))] == [UNFINISHED, "two"]
    assert [r.output for r in results(seen(history))] == ["one", "two"]


def test_a_call_that_was_not_run_is_closed_with_why() -> None:
    history = History().send("go").answers(call(id="a"), call(id="b"), problems={0: "There is no tool 'refund'."})
    history.interrupt().settles(output="", outcome="unknown")
    first, second = results(seen(history))
    assert first.is_error and first.output == "There is no tool 'refund'."
    assert second.is_error and "not known" in str(second.output)


def test_pictures_in_a_result_reach_the_model() -> None:
    picture = (Text(text="here"), Image(media_type="image/png", data="AA=="))
    history = History().send("go").answers(call()).settles(output=picture)
    assert results(seen(history))[0].output == picture


def test_a_result_that_comes_when_the_conversation_has_gone_on_is_not_taken_up() -> None:
    history = History().send("go").answers(call(id="a"))
    history.batch("anything", JobStarted(job_id="job_9"), ToolSettled(tool="t1", outcome="ok", output="late"))
    assert [r.output for r in results(seen(history))] == [UNFINISHED]


def test_a_second_end_of_the_same_call_changes_nothing() -> None:
    history = History().send("go").answers(call(id="a"), call(id="b")).settles("t1", "one")
    history.batch("settle_tool", ToolSettled(tool="t1", outcome="ok", output="again")).settles("t2", "two")
    assert [r.output for r in results(seen(history))] == ["one", "two"]


# -- ids --


def test_ids_that_a_model_repeats_are_told_apart_in_call_and_result_alike() -> None:
    history = History().send("go").answers(call(id="a"), call(id="a")).settles(output="1").settles(output="2")
    history.answers(call(id="a"), call(id="a-2")).settles(output="3").settles(output="4").answers("ok")
    items = seen(history)
    asked = [
        part.id
        for item in items
        if isinstance(item, AssistantItem)
        for part in item.parts
        if isinstance(part, ToolCall)
    ]
    assert asked == ["a", "a-2", "a-3", "a-2-2"]
    assert [(r.id, r.output) for r in results(items)] == list(zip(asked, "1234", strict=True))


def test_a_call_without_an_id_is_given_one() -> None:
    history = History().send("go").answers(call(id=""), call(id="")).settles(output="1").settles(output="2")
    assert [r.id for r in results(seen(history))] == ["call-1", "call-2"]


# -- answers that were not whole --


def test_the_text_of_an_interrupted_answer_stays() -> None:
    history = History().send("go").interrupt().fails("cancelled", "So far so").send("again")
    assert [item.parts[0].text for item in seen(history)] == ["go", "So far so", "again"]  # type: ignore[union-attr]


def test_an_attempt_that_is_retried_leaves_nothing() -> None:
    history = History().send("go").fails("overloaded", "half an ans", retry_in_ms=100).answers("An answer.")
    assert [item.parts[0].text for item in seen(history)] == ["go", "An answer."]  # type: ignore[union-attr]


def test_a_call_in_an_answer_that_broke_off_is_closed_and_was_not_run() -> None:
    history = History().send("go").fails("stream_cut", "I will ", call(id="a"))
    closing = seen(history)[-1]
    assert isinstance(closing, ResultItem)
    assert closing.results == (ToolResult(id="a", name="refund", output=NOT_RUN, is_error=True),)


@pytest.mark.parametrize("parts", [(), ("",), (" \n",), (Thinking(thinking="hm", provider="anthropic"),)])
def test_an_answer_that_says_nothing_makes_no_item(parts: tuple[object, ...]) -> None:
    history = History().send("go").answers(*parts, stop_reason="end_turn").send("still there?")  # type: ignore[arg-type]
    assert all(isinstance(item, UserItem) for item in seen(history))
    assert len(seen(history)) == 2


def test_reasoning_and_foreign_blocks_are_carried_where_they_stood() -> None:
    thinking = Thinking(thinking="hm", provider="anthropic", signature="sig")
    native = Native(provider="anthropic", block={"type": "server_tool_use"})
    history = History().send("go").answers(thinking, native, "Yes.", stop_reason="pause_turn").answers("And no.")
    assert seen(history)[1] == AssistantItem(version=8, parts=(thinking, native, Text(text="Yes.")))


def test_an_input_of_blank_text_is_no_empty_item() -> None:
    assert seen(History().send(" "))[0] == UserItem(version=5, parts=(Text(text="[empty]"),))


# -- what cannot be read --


def test_erased_words_keep_their_place() -> None:
    history = History().send("my name is Ann").answers("Hi Ann.").send("bye").answers("Bye Ann.")
    gone = [r.version for r in history if r.type in ("job_queued", "model_answered")]
    assert [item.parts[0].text for item in seen(erase(history.events, *gone))] == [ERASED] * 4  # type: ignore[union-attr]


def test_an_erased_result_still_closes_its_call() -> None:
    history = History().send("go").answers(call(id="a"), call(id="b")).settles("t2", "two").settles("t1", "one")
    gone = [r.version for r in history if r.type == "tool_settled"][1:]
    assert [r.output for r in results(seen(erase(history.events, *gone)))] == [ERASED, "two"]


# -- what it costs --


def test_a_late_turn_costs_as_little_as_an_early_one() -> None:
    """Counted in places of the list that are read, not in seconds."""
    reads = 0

    class Counting(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            nonlocal reads
            reads += 1
            return super().__getitem__(index)

        def __iter__(self) -> Iterator[Any]:
            raise AssertionError("the whole list was walked")

    context = Context()
    context._items = Counting()
    context._versions = Counting()
    history, done, costs = History(), 0, []
    for turn in range(400):
        history.send(f"turn {turn}").answers(call(id=f"c{turn}")).settles().answers("ok")
        before = reads
        for recorded in history.events[done:]:
            context.apply(recorded)
            if recorded.type == "model_called":
                context.render(recorded.version - 1)
        done = history.version
        costs.append(reads - before)
    assert costs[-1] <= costs[5]


def test_the_cache_lives_as_long_as_the_list() -> None:
    context = fold(History().send("hi"))
    cache = context.cache
    cache["anthropic"] = ["rendered"]
    for recorded in History().send("hi").answers("ho"):
        context.apply(recorded)
    assert context.cache is cache and Context().cache == {}
