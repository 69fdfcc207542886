"""The agent's states as one table: what moves it, what does not, and who is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.actors.mealy import TRANSITIONS, AgentState, Machine, run, step

STATES: tuple[AgentState, ...] = ("idle", "thinking", "responding", "planning_tool", "awaiting_tool_result", "error")
NAMES = st.one_of(st.sampled_from([*TRANSITIONS, "text_delta", "job_queued", ""]), st.text(max_size=8))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("event", "after"),
    [
        ("conversation_start", "thinking"),
        ("conversation_thinking", "thinking"),
        ("conversation_responding", "responding"),
        ("conversation_end", "idle"),
        ("conversation_interrupted", "idle"),
        ("tool_planned", "planning_tool"),
        ("tool_executing", "awaiting_tool_result"),
        ("tool_completed", "responding"),
        ("tool_failed", "responding"),
        ("error_occurred", "error"),
    ],
)
def test_an_event_of_the_table_leads_to_its_state_from_every_state(
    state: AgentState, event: str, after: AgentState
) -> None:
    assert step(state, event) == after


def test_the_table_has_these_ten_and_leads_to_known_states_only() -> None:
    assert len(TRANSITIONS) == 10 and set(TRANSITIONS.values()) == set(STATES)


@given(st.sampled_from(STATES), NAMES)
def test_whatever_is_not_in_the_table_leaves_the_state_as_it_is(state: AgentState, name: str) -> None:
    if name not in TRANSITIONS:
        assert step(state, name) == state


@given(st.lists(NAMES, max_size=30))
def test_a_machine_that_is_fed_is_where_the_fold_is_and_tells_of_exactly_the_changes(names: list[str]) -> None:
    machine, told = Machine(), []
    machine.on_change(lambda before, after: told.append((before, after)))
    for name in names:
        assert machine.feed(name) == machine.state
    assert machine.state == run(names)
    states = ["idle", *(after for _, after in told)]
    assert all(before != after for before, after in told), "a change changes something"
    assert [before for before, _ in told] == states[:-1] and states[-1] == machine.state, "and none is left out"


def test_a_turn_with_a_tool_walks_through_the_states() -> None:
    machine, seen = Machine(), []
    machine.on_change(lambda before, after: seen.append(after))
    for name in (
        "conversation_start",
        "conversation_responding",
        "tool_planned",
        "tool_executing",
        "tool_completed",
        "conversation_responding",
        "conversation_end",
    ):
        machine.feed(name)
    assert seen == ["thinking", "responding", "planning_tool", "awaiting_tool_result", "responding", "idle"]


def test_a_listener_that_raises_harms_nobody_and_is_counted() -> None:
    machine, told = Machine(), []

    def broken(before: AgentState, after: AgentState) -> None:
        raise RuntimeError("no")

    machine.on_change(broken)
    machine.on_change(lambda before, after: told.append(after))
    machine.feed("conversation_start")
    machine.feed("conversation_end")
    assert told == ["thinking", "idle"] and machine.failures == 2


def test_a_listener_is_taken_off_once_and_may_be_taken_off_twice() -> None:
    machine, told = Machine(), []
    off = machine.on_change(lambda before, after: told.append(after))
    machine.feed("conversation_start")
    off()
    off()
    machine.feed("conversation_end")
    assert told == ["thinking"]


def test_a_listener_that_takes_itself_off_does_not_hide_the_next_one() -> None:
    machine, told = Machine(), []
    off = machine.on_change(lambda before, after: off())
    machine.on_change(lambda before, after: told.append(after))
    machine.feed("conversation_start")
    assert told == ["thinking"]


def test_a_reset_is_told_if_it_changes_anything_and_then_nobody_listens() -> None:
    machine, told = Machine(), []
    machine.on_change(lambda before, after: told.append((before, after)))
    machine.reset()
    assert told == []
    machine.on_change(lambda before, after: told.append((before, after)))
    machine.feed("error_occurred")
    machine.reset()
    assert told == [("idle", "error"), ("error", "idle")] and machine.state == "idle"
    machine.feed("conversation_start")
    assert len(told) == 2
