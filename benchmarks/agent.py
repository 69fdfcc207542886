"""The agent that the turns are made with: one tool, one model that answers from the context and checks it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from reenact import Runtime, tool
from reenact.adapters.models import Models
from reenact.events import purse
from reenact.events.content import AssistantItem, ResultItem, Text, ToolCall, Usage, UserItem
from reenact.events.message import Recorded, Signal
from reenact.events.model import ModelAnswer, ModelRequest
from reenact.events.policy import ConstraintPolicy, ModelPolicy, Policy, PolicyDecision, ToolPolicy
from reenact.events.stream import (
    InputJsonDelta,
    MessageDelta,
    MessageRef,
    MessageStart,
    MessageStop,
    TextBlockStart,
    TextBlockStop,
    TextDelta,
    ToolUseStart,
    ToolUseStop,
)

from .harness import ANSWER, ARGUMENTS, OUTPUT, USER

WORDS = [word + " " for word in ANSWER.split()]


@tool(effect="read")
async def weather(city: str) -> str:
    """Weather of a city.

    city: its name.
    """
    return OUTPUT


class Checking:
    """A model that calls the tool when it is asked and answers when it has the result.

    It refuses a context that is not what it must be: as many items as the turns so far make, and at the end the
    question, or the question, its own call and the tool's output under the id it gave. streamed: the answer comes in
    words, as from a provider's stream; else whole, as a provider's plain response.
    """

    def __init__(self, *, streamed: bool = False) -> None:
        self.streamed = streamed
        self.calls = 0
        self.items_seen = 0
        self._answers = {"": 0}

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        items = request.items
        count, last = len(items), items[-1]
        self.calls += 1
        self.items_seen += count
        if isinstance(last, UserItem):
            assert last.parts == (Text(text=USER),), last
            assert count % 4 == 1, count
            if count > 1:
                before = items[count - 2]
                assert isinstance(before, AssistantItem) and before.parts[-1] == Text(text=ANSWER), before
            call = ToolCall(id=f"call_{count}", name="weather", input=ARGUMENTS)
            answer = ModelAnswer(parts=(call,), stop_reason="tool_use", usage=Usage(input_tokens=40, output_tokens=9))
            signals: tuple[Signal, ...] = _SAYS_CALL
        else:
            assert isinstance(last, ResultItem) and count % 4 == 3, (count, last)
            asked, question = items[count - 2], items[count - 3]
            assert isinstance(asked, AssistantItem) and isinstance(question, UserItem)
            assert last.results[0].id == asked.parts[0].id == f"call_{count - 2}", last  # type: ignore[union-attr]
            assert last.results[0].output == OUTPUT, last
            answer = ModelAnswer(
                parts=(Text(text=ANSWER),), stop_reason="end_turn", usage=Usage(input_tokens=80, output_tokens=20)
            )
            signals = _SAYS_WORDS
        if self.streamed:
            for signal in signals:
                yield signal
        yield answer

    async def aclose(self) -> None:
        """Nothing is open."""


_START = MessageStart(message=MessageRef(id="m", model="bench"))
_SAYS_CALL: tuple[Signal, ...] = (
    _START,
    ToolUseStart(id="call", name="weather"),
    InputJsonDelta(partial_json='{"city":"Paris"}'),
    ToolUseStop(),
    MessageDelta(usage=Usage(input_tokens=40, output_tokens=9)),
    MessageStop(stop_reason="tool_use"),
)
_SAYS_WORDS: tuple[Signal, ...] = (
    _START,
    TextBlockStart(),
    *(TextDelta(text=word) for word in WORDS),
    TextBlockStop(),
    MessageDelta(usage=Usage(input_tokens=80, output_tokens=20)),
    MessageStop(stop_reason="end_turn"),
)


LAYERS = (
    Policy(name="house", profile="full", deny=("group:runtime",), max_tool_calls_per_turn=10),
    Policy(
        name="acme",
        rules=(
            ToolPolicy(tool_patterns=("pay_*", "shell_*"), decision=PolicyDecision.DENY),
            ToolPolicy(tool_patterns=("weather*",), allowed_scopes=("default",)),
            ModelPolicy(model_patterns=("gpt-*", "claude-*"), max_tokens_per_request=4000),
            ConstraintPolicy(max_tokens_per_request=100_000, max_turns=1_000_000),
        ),
    ),
    Policy(name="bench", allow=("weather", "read", "web_search")),
)
"""Three layers of policy that let a turn of the benchmark pass, all of them asked about its tool and its model."""


BUDGET = {
    "max_tokens_daily": 10**12,
    "max_cost_daily": "100000",
    "max_cost_monthly": "100000",
    "max_requests_daily": 10**9,
    "max_tool_calls_daily": 10**9,
}
"""Limits of a scope that no benchmark reaches, all of them counted."""

EACH = {"max_tokens": 10**6, "max_cost": "5", "max_tool_calls": 100}
"""Limits of each run that no benchmark reaches."""

MONEY = frozenset(event.type for event in purse.EVENTS)
"""Events that a session has only under a budget."""


class Watcher:
    """The one watcher that is on: it counts every message of the bus, and the stored ones apart."""

    def __init__(self) -> None:
        self.told = self.stored = 0

    def __call__(self, event: Any) -> None:
        self.told += 1
        if isinstance(event, Recorded):
            self.stored += 1


def runtime(folder: Path, model: Checking, *, persistence: str | None = None, **options: Any) -> Runtime:
    """A runtime on a file in this folder, every commit synced (that is the only way there is), or on `persistence`."""
    logging.getLogger("reenact").setLevel(logging.CRITICAL)
    models = Models({"scripted": model})  # type: ignore[dict-item]
    return Runtime(
        persistence or f"sqlite:///{folder}/log.db", tools=[weather], models=models, base_path=folder, **options
    )
