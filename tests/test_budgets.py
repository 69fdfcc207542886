"""Budgets over the real kernel: who sets them, what counts against them, and what is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from reenact import tool
from reenact.actors.clock import ManualClock
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events import codec
from reenact.events.agent import CancelEffect, FailModel, ModelAnswered, ModelFailed
from reenact.events.budget import BudgetSpec, dollars, nanos
from reenact.events.content import Failure, Text, Usage
from reenact.events.errors import BadInput, NotAPerson
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.message import Signal
from reenact.events.model import Credentials, ModelAnswer, ModelFailure, ModelRequest
from reenact.events.purse import BudgetReserved
from reenact.events.stream import MessageRef, MessageStart
from reenact.runtime import Runtime
from tests.money import DEAR, counted, dear, everything_replays, look
from tests.providers import Provider
from tests.runtimes import Gate, Heard, run


def test_without_a_budget_nothing_is_asked_of_any_ledger() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        assert (await bot.send("hi")).status == "succeeded"
        assert await opened.budget() == []

    run(work, store=store)
    assert MemoryLog(store).streams("ledger-") == []


@pytest.mark.parametrize("fallbacks", [[], ["openai:gpt-4.1"]])
def test_while_every_model_cools_nothing_is_used_of_a_limit(fallbacks: list[str]) -> None:
    store, provider = MemoryStore(), Provider(**{"claude-sonnet-4-5": "auth", "gpt-4.1": "auth"})

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        for _ in range(9):
            assert (await bot.send("hi")).status == "failed"
        [use] = await opened.budget()
        assert use.used == len(provider.asked) == 1 + len(fallbacks)

    models = Models({"anthropic": provider, "openai": provider})
    agent = {"model": DEAR, "fallbacks": fallbacks, "params": {"maxTokens": 100}}
    run(work, store=store, models=models, default_agent=agent, budget={"max_requests_daily": 6})
    everything_replays(MemoryLog(store))


def test_a_call_that_fails_before_its_provider_is_asked_costs_nothing() -> None:
    store, vault = MemoryStore(), ["down"]

    def credentials(provider: str, spec: Any) -> None:
        if vault:
            raise ConnectionError("the vault is down")

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        for _ in range(20):
            assert (await bot.send("hi")).status == "failed"
        assert [str(use.used) for use in await opened.budget()] == ["0", "0"]
        vault.clear()
        assert (await bot.send("hi")).status == "succeeded"

    options = dear()
    options["default_agent"]["params"] = {"maxTokens": 20_000}
    run(work, store=store, credentials=credentials, budget={"max_cost_daily": "1", "max_requests_daily": 3}, **options)
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize("model", ["anthropic:claude-sonnet-4-5", "openai:gpt-4o", "openai-chat:gpt-4o"])
@pytest.mark.parametrize("key", ["sk-test-0123456789", ""])
def test_where_nobody_can_be_reached_or_no_key_is_set_nothing_is_used(model: str, key: str) -> None:
    store = MemoryStore()

    def credentials(provider: str, spec: Any) -> Credentials:
        return Credentials(api_key=key, base_url="http://127.0.0.1:1/v1" if key else None)

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model=model)
        for _ in range(2):
            answer = await bot.send("hi")
            assert answer.failure is not None and answer.failure.code in ("connection", "auth", "models_exhausted")
        assert [str(use.used) for use in await opened.budget()] == ["0", "0"]

    budget = {"max_cost_daily": "1", "max_requests_daily": 3}
    run(work, store=store, models=Models(), credentials=credentials, budget=budget)
    everything_replays(MemoryLog(store))


def test_given_a_call_to_stop_that_nobody_is_at_its_cost_is_unknown_if_it_was_begun_and_else_it_was_none() -> None:
    async def work(opened: Runtime) -> None:
        gone = opened._kernel.dispatch._performer.gone
        effect = CancelEffect(id="m1:cancel", target="m1", attempt=1, tool=False)
        died, stopped = gone(effect, begun=True), gone(effect, begun=False)
        assert isinstance(died, FailModel) and isinstance(stopped, FailModel)
        assert died.cost is not None and (died.cost.amount, died.unasked) == (None, False)
        assert (stopped.cost, stopped.unasked) == (None, True)

    run(work)


def test_given_tools_that_came_since_an_image_that_is_offered_all_of_them_is_set_aside_for_with_them() -> None:
    store = MemoryStore()

    def long(n: int) -> str:
        return "done"

    long.__doc__ = "What it is for. " * 1000

    async def work(opened: Runtime) -> None:
        heard, bot = Heard(opened), await opened.image("bot")
        for told in range(2):
            assert (await bot.send("hi")).status == "succeeded"
            opened.tools.add(tool(effect="read")(long))
            assert len(heard.of(BudgetReserved.type)) == told + 1
        before, after = (event.data.tokens for event in heard.of(BudgetReserved.type))
        assert after > before + 4_000

    run(work, store=store, budget={"max_cost_daily": "1"}, **dear())
    everything_replays(MemoryLog(store))


def test_an_agent_sets_no_limits() -> None:
    refused = []

    async def work(opened: Runtime) -> None:
        @tool
        async def loosen() -> str:
            """Lift what limits me."""
            for change in (opened.remove_budget(), opened.set_budget("1000000")):
                try:
                    await change
                except NotAPerson as error:
                    refused.append(str(error))
            return "tried"

        opened.tools.add(loosen)
        bot = await opened.image("bot")
        assert (await bot.send("hi")).status == "succeeded"
        assert len(refused) == 2 and [budget.max_requests_daily for budget in opened.budgets] == [50]

    steps = [counted(tool_calls=[{"name": "loosen", "input": {}}]), counted()]
    run(work, steps, budget={"max_requests_daily": 50})


# -- what counts --


def test_money_is_settled_with_what_was_paid() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        result = await bot.send("hi")
        assert result.status == "succeeded"
        [limit] = await opened.budget()
        assert limit.used == "0.000105"  # ten tokens read at $3 and five written at $15 a million
        for _ in range(200):
            last = await bot.send("hi")
            if last.status == "failed":
                break
        [limit] = await opened.budget()
        assert last.failure is not None and last.failure.code == "budget_exceeded"
        assert float(limit.used) <= 0.01

    run(work, budget="0.01", **dear())


def test_usage_of_a_call_that_was_interrupted_is_counted() -> None:
    """Usage recorded only on success."""
    gate = Gate()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        async for event in await opened.send(bot.id, "hi"):
            if event.type == "text_delta":
                await opened.interrupt(bot.id)
        [limit] = await opened.budget()
        assert limit.used > 100  # type: ignore[operator]

    run(
        work,
        models=Models({"scripted": gate}),
        default_agent={"model": "scripted:any", "params": {"maxTokens": 100}},
        budget={"max_tokens_total": 5000},
    )


class Breaks:
    """A model that says something, if it does, and breaks off; its count may be none of it all."""

    def __init__(self, *, code: str, text: str = "", usage: Usage | None = None, final: bool = True) -> None:
        self.code, self.text, self.usage, self.final = code, text, usage, final

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        yield MessageStart(message=MessageRef(id="m1", model=request.model))
        if self.code == "none":
            yield ModelAnswer(parts=(Text(text=self.text),), stop_reason="end_turn", usage=self.usage)
            return
        partial = (Text(text=self.text),) if self.text else ()
        failure = Failure(code=self.code, message="It broke off.")
        raise ModelFailure(failure, partial=partial, usage=self.usage, final=self.final)


NOTHING_COUNTED = Usage(input_tokens=0, output_tokens=0)
NO_OUTPUT = Usage(input_tokens=12, output_tokens=0)
BEGUN = Usage(input_tokens=12, output_tokens=1)


@pytest.mark.parametrize(
    "model",
    [
        Breaks(code="stream_cut", text="word " * 3000, usage=BEGUN, final=False),
        Breaks(code="overloaded", usage=BEGUN, final=False),
        Breaks(code="overloaded"),
        Breaks(code="stream_cut", text="word", usage=NO_OUTPUT),
        Breaks(code="none", text="word", usage=NOTHING_COUNTED),
        Breaks(code="none", text="word", usage=NO_OUTPUT),
    ],
    ids=["cut", "refused once begun", "refused once begun, uncounted", "cut without output", "nothing", "no output"],
)
def test_given_an_answer_that_nobody_counted_to_its_end_it_is_spent_as_it_was_set_aside(model: Breaks) -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        await bot.send("hi")
        told = [each.data for each in await opened.events(bot.session_id)]
        [held] = [each for each in told if isinstance(each, BudgetReserved)]
        [end] = [each for each in told if isinstance(each, ModelAnswered | ModelFailed)]
        assert end.usage is None and end.cost is not None and end.cost.amount is None, "what it cost nobody knows"
        [limit] = await opened.budget()
        assert limit.used == dollars(held.cost)

    run(
        work,
        store=store,
        models=Models({"anthropic": model}),
        default_agent={"model": DEAR, "params": {"maxTokens": 100}},
        budget={"max_cost_daily": "1"},
    )
    everything_replays(MemoryLog(store))


CEREBRAS = {"api_key": "k-123456789", "base_url": "https://api.cerebras.ai/v1"}


@pytest.mark.parametrize("of", ["the tenant", "a message"])
def test_what_is_set_aside_has_the_price_of_the_address_where_the_call_goes(of: str) -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        own: Any = {} if of == "the tenant" else {"credentials": {"openai-chat": CEREBRAS}}
        assert (await bot.send("hi", **own)).status == "succeeded"
        [held] = [each.data for each in await opened.events(bot.session_id) if isinstance(each.data, BudgetReserved)]
        [answer] = [each.data for each in await opened.events(bot.session_id) if isinstance(each.data, ModelAnswered)]
        assert answer.cost is not None and answer.cost.amount is not None
        assert nanos(answer.cost.amount) <= held.cost

    long = {"text": "Hello there.", "usage": {"inputTokens": 10, "outputTokens": 100}}
    run(
        work,
        models=Models({"openai-chat": Scripted([long])}),
        default_agent={"model": "openai-chat:gpt-oss-120b", "params": {"maxTokens": 100}},
        credentials=lambda provider, spec: CEREBRAS if of == "the tenant" else {"api_key": "k-123456789"},
        budget={"max_cost_daily": "1"},
    )


DAYS_BEFORE_US = 1_795_900_000_000_000
"""November 28 of 2026. From December on the model costs twice as much, says the table."""


@tool(name="pay", effect="read", approval="ask")
def pay() -> str:
    return "paid"


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(("limit", "most"), [("of a day", "3"), ("of a run", "1.5")])
def test_a_limit_holds_for_what_waited_until_a_model_cost_more(limit: str, most: str, restarted: bool) -> None:
    """A call that a person allows days later, and a message that was queued behind it, perhaps in a new process."""

    def says(request: ModelRequest, seen: Any) -> dict[str, Any]:
        writes = {"inputTokens": 10, "outputTokens": request.params.max_tokens}
        if seen.results or seen.said == "next":
            return {"text": "Done.", "usage": writes}
        return {"tool_calls": [{"name": "pay", "input": {}}], "usage": {"inputTokens": 10, "outputTokens": 5}}

    store, clock = MemoryStore(), ManualClock(DAYS_BEFORE_US)
    options: dict[str, Any] = {
        "store": store,
        "clock": clock,
        "tools": [pay],
        "models": Models({"google": Scripted(says, repeat=True)}),
        "default_agent": {
            "model": "google:gemini-4-argon",
            "params": {"maxTokens": 100_000},
            "approval_timeout_s": 7 * 86400,
        },
        "budget": {"max_cost_daily": most} if limit == "of a day" else None,
    }
    own: Any = {"budget": most} if limit == "of a run" else {}

    async def go_on(opened: Runtime, session_id: str) -> None:
        clock.move(s=4 * 86400)
        heard = Heard(opened)
        [question] = await opened.actions()
        await opened.resolve_action(question.id, True)
        await heard.until("turn_completed", 2)
        spent: dict[str, int] = {}
        for each in await opened.events(session_id):
            if isinstance(each.data, ModelAnswered):
                assert each.data.cost is not None and each.data.cost.amount is not None
                of = str(each.head.job) if own else str(each.stamp.at // 86_400_000_000)
                spent[of] = spent.get(of, 0) + nanos(each.data.cost.amount)
        assert len(spent) == 2 and max(spent.values()) <= nanos(most)

    async def waits(opened: Runtime) -> str:
        bot, heard = await opened.image("bot", tools=["pay"]), Heard(opened)
        await opened.send(bot.id, "go", **own)
        await heard.until("action_required")
        await opened.send(bot.id, "next", **own)
        await heard.until("job_queued", 2)
        if not restarted:
            await go_on(opened, bot.session_id)
        return bot.session_id

    session_id = run(waits, **options)
    if restarted:
        run(lambda opened: go_on(opened, session_id), **options)
    everything_replays(MemoryLog(store))


def test_every_attempt_at_a_call_is_paid() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        assert (await bot.send("hi")).status == "succeeded"
        [limit] = await opened.budget()
        assert limit.used == 3

    failing = counted(error={"code": "overloaded", "retryable": True, "times": 2})
    run(work, [failing], store=store, budget={"max_requests_daily": 50})
    failures = [
        recorded.data
        for stream in MemoryLog(store).streams("session-")
        for stored in MemoryLog(store).read(stream)
        for recorded in codec.unpack(stored)
        if isinstance(recorded.data, ModelFailed)
    ]
    assert len(failures) == 2
    everything_replays(MemoryLog(store))


def test_tools_are_limited_by_the_day_and_the_model_is_told() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        first = await bot.send("hi")
        assert first.status == "succeeded"
        second = await bot.send("hi")
        assert second.failure is not None and "max_tool_calls_daily" in second.failure.message
        [limit] = await opened.budget()
        assert limit.used == 3, "the first of the last two was run"

    two = [{"name": "look", "input": {"n": n}} for n in range(2)]
    steps = [counted(tool_calls=two), counted(), counted(tool_calls=two), counted()]
    run(work, steps, store=store, tools=[look], budget={"max_tool_calls_daily": 3})
    everything_replays(MemoryLog(store))


# -- a run --


def test_a_run_is_held_to_its_own_budget() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", budget="0.0001")
        result = await bot.send("hi")
        assert result.failure is not None and "max_cost of the run is $0.0001" in result.failure.message
        bot = await opened.image("bot", budget={"max_cost": "0.5"})
        assert (await bot.send("hi")).status == "succeeded"
        tight = await bot.send("hi", budget=BudgetSpec(max_tokens=20))
        assert tight.failure is not None and "max_tokens of the run" in tight.failure.message
        assert (await bot.send("hi")).status == "succeeded"

    run(work, **dear())


def test_a_run_that_takes_too_long_times_out() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        result = await bot.send("hi", budget={"max_runtime_seconds": 0.05})
        assert result.status == "timed_out"

    run(work, models=Models({"scripted": Gate()}), default_agent={"model": "scripted:any"})


def test_the_same_message_with_a_key_is_one_job_also_under_a_budget() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        first = await bot.send("hi", key="k", budget="1")
        again = await bot.send("hi", key="k", budget="1")
        assert first.job_id == again.job_id

    run(work)


# -- bad input --


@pytest.mark.parametrize(
    "budget",
    [
        -1,
        float("nan"),
        True,
        {"max_cost_daily": "-1"},
        {"nope": 1},
        {},
        {"scope_id": "other", "max_cost_daily": 1},
        [1],
    ],
    ids=repr,
)
def test_a_budget_that_is_none_is_refused_and_nothing_is_written(budget: Any) -> None:
    async def work(opened: Runtime) -> None:
        with pytest.raises(BadInput):
            await opened.set_budget(budget)
        assert opened.log.streams("ledger-") == []
        bot = await opened.image("bot")
        with pytest.raises(BadInput):
            await bot.send("hi", budget=budget if budget != {} else {"max_turns": -1})
        assert len(await bot.events()) == 1

    run(work)


def test_a_budget_of_an_image_that_is_none_is_refused() -> None:
    async def work(opened: Runtime) -> None:
        with pytest.raises(BadInput, match="max_cost"):
            await opened.image("bot", budget=-1)
        with pytest.raises(BadInput, match="nonsense"):
            await opened.image("bot", degrade_to="nonsense")
        asked = await opened.request(
            "image_create_request", {"containerId": "c", "config": {"budget": {"maxCost": "x"}}}
        )
        assert "max_cost" in asked.data.error
        assert await opened.images() == []

    run(work)
