"""What a call cost is in the log with its end, whatever the end was, and a replay does not ask again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reenact.actors.clock import SystemClock
from reenact.adapters import prices
from reenact.adapters.models import Models, Retries, RetryPolicy
from reenact.events.content import Cost, Failure, Text, Usage
from reenact.events.message import Signal
from reenact.events.model import ModelAnswer, ModelFailure, ModelRequest
from reenact.events.stream import MessageDelta, TextDelta
from reenact.money.bill import Bill
from reenact.runtime import Runtime

USAGE = Usage(input_tokens=1000, output_tokens=10)


class Sold:
    """A model that is paid for: it answers, breaks off, or says something and never ends."""

    def __init__(self, end: str) -> None:
        self.end = end

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        yield TextDelta(text="Hel")
        yield MessageDelta(usage=USAGE)
        if self.end == "breaks":
            raise ModelFailure(Failure(code="stream_cut", message="cut"), usage=USAGE)
        if self.end == "hangs":
            await asyncio.Event().wait()
        usage = None if self.end == "is not counted" else USAGE
        yield ModelAnswer(parts=(Text(text="Hello"),), stop_reason="end_turn", usage=usage, model="gpt-4o-2024-08-06")


async def recorded_cost(end: str) -> Cost | None:
    models = Models({"openai": Sold(end)})
    async with Runtime("memory://", models=models, retries=Retries(RetryPolicy(attempts=1))) as runtime:
        bot = await runtime.image("bot", model="openai:gpt-4o")
        run = bot.send("Hi")
        found: list[Any] = []
        async for event in run:
            if end == "hangs" and event.type == "message_delta":
                await bot.interrupt()
            if event.type in ("model_answered", "model_failed"):
                found.append(event)
        assert (await runtime.replay(bot.session_id)).identical
        cost: Cost | None = found[-1].data.cost
        return cost


@pytest.mark.parametrize("end", ["answers", "breaks", "hangs"])
def test_every_end_of_a_call_that_was_counted_has_its_cost(end: str) -> None:
    cost = asyncio.run(recorded_cost(end))
    assert cost == Cost(amount="0.0026", table=cost.table if cost else "")


@pytest.mark.parametrize(("asked", "answered"), [("newest", "gpt-4o-2024-08-06"), ("gpt-4o-2024-08-06", "gpt-4-turbo")])
def test_who_answered_is_paid_and_not_who_was_asked(asked: str, answered: str) -> None:
    paid = asyncio.run(Bill(f"openai:{asked}", SystemClock()).settle(USAGE, answered))
    due = asyncio.run(Bill(f"openai:{answered}", SystemClock()).settle(USAGE))
    assert paid == due and paid.amount is not None


def test_an_answer_that_nobody_counted_is_unpriced() -> None:
    cost = asyncio.run(recorded_cost("is not counted"))
    assert cost is not None
    assert cost.amount is None


def test_a_replay_does_not_look_at_the_price_table(monkeypatch: pytest.MonkeyPatch) -> None:
    async def replayed() -> None:
        async with Runtime("memory://", models=Models({"openai": Sold("answers")})) as runtime:
            bot = await runtime.image("bot", model="openai:gpt-4o")
            await bot.send("Hi")
            # The table changes: whoever asks now gets another price. Pricing again on replay would part from the log.
            monkeypatch.setattr(prices, "price", lambda *_, **__: Cost(amount="999", table="another"))
            assert (await runtime.replay(bot.session_id)).identical

    asyncio.run(replayed())
