"""A session under a budget, what its ledger allots to it, and what its model and tools say."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from reenact.actors import purse as money
from reenact.events.agent import (
    AnswerModel,
    StartTool,
)
from reenact.events.budget import Amount, BudgetSpec, Grant, Rate, Terms
from reenact.events.content import Cost, Text, Usage
from reenact.events.model import ModelAnswer, ModelParams
from reenact.events.purse import (
    TakeAllotment,
)
from reenact.events.session import Definition
from reenact.events.tool import Place
from tests.actors.words import CREATE, asks, send, waking
from tests.given import Given, given

RATE = Rate("scripted:echo", 1_000_000, 2_000_000)  # a nano-dollar a token read, two a token written
LEDGER = Terms(ledger="acme", rates=(RATE,), overhead=10)


def run_of(**limits: Any) -> Terms:
    return Terms(spec=BudgetSpec(**limits), rates=(RATE,))


def under(
    terms: Terms | None, *, max_tokens: int | None = 100, steps: int = 9, text: str = "hello", job: str = "job_1"
) -> Any:
    """A message to an agent that works under these terms."""
    definition = Definition(
        image_version=1,
        model="scripted:echo",
        params=ModelParams(max_tokens=max_tokens),
        max_steps=steps,
        tools="sha256:0",
        terms=terms,
    )
    return send(job, text=text, waking=waking(definition=definition))


def begun(terms: Terms | None, **options: Any) -> Given:
    return given(CREATE).when(under(terms, **options))


def allotted(tokens: int = 10_000, cost: int = 10**9, requests: int = 50, tools: int = 50, **fields: Any) -> Grant:
    return Grant(amount=Amount(tokens, cost, requests, tools), **{"principal": "user", **fields})


def take(ask: str = "w1", **fields: Any) -> TakeAllotment:
    return TakeAllotment(ask=ask, grant=allotted(**fields))


def says(call: str, read: int = 20, written: int = 5, cost: str | None = None, usage: bool = True) -> AnswerModel:
    counted = Usage(input_tokens=read, output_tokens=written) if usage else None
    paid = Cost(amount=cost, table="test") if cost is not None else None
    return AnswerModel(
        call=call, answer=ModelAnswer(parts=(Text(text="Hi."),), stop_reason="end_turn", usage=counted), cost=paid
    )


def wants(call: str, *tools: Any, read: int = 20, written: int = 5) -> AnswerModel:
    answer = asks(call, *tools)
    usage = Usage(input_tokens=read, output_tokens=written)
    return replace(answer, answer=replace(answer.answer, usage=usage))


def found(tool: str, effect: str, **fields: Any) -> StartTool:
    """What a look at a call finds that nobody has to be asked about."""
    same: dict[str, Any] = {"attempt": 0, "at": 2, "effect": effect, "timeout_s": 60.0, "place": Place()}
    return StartTool(tool=tool, **{**same, **fields})


def purse_of(stream: Given) -> money.Purse:
    purse = stream.states[1].purse
    assert isinstance(purse, money.Purse)
    return purse


def the(stream: Given, kind: type[Any]) -> Any:
    [found] = [event for event in stream.events if isinstance(event, kind)]
    return found
