"""The builder of histories writes what a session's deciders really decide; else the tests that use it prove nothing."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from msgspec.structs import replace

from reenact.actors import decider
from reenact.actors.conversation import CONVERSATION
from reenact.events.agent import ModelCalled, ToolStarted
from reenact.events.message import Event, Recorded
from tests.histories import History, call, turns


def decided_anew(history: History) -> list[tuple[list[Event], list[Event]]]:
    """Of every batch: its events, and those that its command leads to."""
    states, version, out = CONVERSATION.initial, 0, []
    for _, group in groupby(history, key=_batch_of):
        batch = list(group)
        events = [recorded.data for recorded in batch]
        command = decider.recall(CONVERSATION, batch[0].head.asked, events)
        assert command is not None, f"no command leads to {[event.type for event in events]}"
        decision = decider.decide(CONVERSATION, states, command, version=version, at=batch[0].at, epoch=1)
        out.append(([_undigested(event) for event in events], [_undigested(event) for event in decision.events]))
        states, version = decision.states, version + len(events)
    return out


def _batch_of(recorded: Recorded) -> str:
    return recorded.head.id


def _undigested(event: Event) -> Event:
    if isinstance(event, ModelCalled):
        return replace(event, context="")
    return replace(event, arguments="") if isinstance(event, ToolStarted) else event


@given(turns())
def test_every_batch_of_a_built_conversation_is_what_its_command_leads_to(history: History) -> None:
    for built, decided in decided_anew(history):
        assert built == decided


def test_a_batch_that_no_command_leads_to_would_be_noticed() -> None:
    history = History().send("go").answers(call())
    history.batch("settle_tool", *history.settles().data[-2:-1])
    assert any(built != decided for built, decided in decided_anew(history))
