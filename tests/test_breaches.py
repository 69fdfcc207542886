"""A limit is reached: the turn is denied, goes on with a warning, or goes on with a cheaper model."""

from __future__ import annotations

from typing import Any

import pytest

from reenact.actors.verify import verify
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.agent import ModelCalled
from reenact.events.budget import Budget
from reenact.events.errors import BadInput
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.purse import BudgetDegraded, BudgetExceeded, BudgetWarned
from reenact.runtime import Runtime
from tests.money import DEAR, counted, dear, everything_replays, look
from tests.runtimes import Heard, run


def test_a_denial_ends_the_turn_and_says_why() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        await opened.set_budget(Budget(max_tokens_total=50))
        result = await bot.send("hi")
        assert result.status == "failed" and result.failure is not None
        assert result.failure.code == "budget_exceeded"
        assert result.failure.message.startswith("max_tokens_total of the scope is 50: 0 used or set aside")
        await opened.remove_budget()
        assert (await bot.send("hi")).status == "succeeded"

    run(work)


def test_a_model_without_a_price_is_refused_unless_the_budget_says_otherwise() -> None:
    models = Models({"local": Scripted([counted()], repeat=True)})

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model="local:llama")
        result = await bot.send("hi")
        assert result.failure is not None and result.failure.code == "unpriced"
        await opened.set_budget(Budget(max_cost_daily=1, unpriced="allow"))
        assert (await bot.send("hi")).status == "succeeded"

    run(work, models=models, default_agent={"model": "local:llama"}, budget={"max_cost_daily": 1})


def test_a_limit_that_warns_is_recorded_and_goes_on() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        heard = Heard(opened)
        for _ in range(3):
            assert (await bot.send("hi")).status == "succeeded"
        [warned, *_] = heard.of(BudgetWarned.type)
        assert warned.data.limits == ("max_tokens_total of the scope",)
        assert [limit.left for limit in await opened.budget()] == [0]

    run(work, [counted()], budget={"max_tokens_total": 10, "exceed_strategy": "warn"})


# -- a cheaper model --


def test_a_limit_that_degrades_goes_on_with_the_cheaper_model() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", degrade_to="scripted:any")
        heard = Heard(opened)
        assert (await bot.send("hi")).status == "succeeded"
        [degraded] = heard.of(BudgetDegraded.type)
        assert (degraded.data.model, degraded.data.degraded_to) == (DEAR, "scripted:any")
        [called] = heard.of(ModelCalled.type)
        assert called.data.model == "scripted:any"
        report = verify(opened.log)
        assert report.sound, report.summary

    budget = {"max_cost_daily": "0.000001", "exceed_strategy": "degrade", "degrade_to": "scripted:any"}
    run(work, budget=budget, **dear())


def test_a_limit_that_degraded_goes_on_with_the_cheaper_model_to_the_end_of_the_job() -> None:
    calls = [{"name": "look", "input": {"n": 1}}]
    models = Models(
        {
            "anthropic": Scripted([counted(tool_calls=calls)] * 3 + [counted()], repeat=True),
        }
    )

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", tools=["look"], degrade_to="anthropic:claude-haiku-4-5")
        heard = Heard(opened)
        assert (await bot.send("hi")).status == "succeeded"
        assert [event.data.model for event in heard.of(ModelCalled.type)] == ["anthropic:claude-haiku-4-5"] * 4

    budget = {"max_cost_daily": "0", "exceed_strategy": "degrade", "degrade_to": "anthropic:claude-haiku-4-5"}
    options: dict[str, Any] = {"models": models, "default_agent": {"model": DEAR, "params": {"maxTokens": 100}}}
    run(work, budget=budget, tools=[look], **options)


@pytest.mark.parametrize(
    ("degrade_to", "why"),
    [
        (None, "none is named"),
        (DEAR, f"{DEAR} is the one that was to be called"),
        ("anthropic:claude-opus-4-1", f"anthropic:claude-opus-4-1 costs no less than {DEAR}"),
        ("anthropic:nobody-knows", "no price is known for anthropic:nobody-knows"),
    ],
)
def test_a_limit_that_has_no_cheaper_model_to_degrade_to_denies(degrade_to: str | None, why: str) -> None:
    """It could not be known when it was set: the image was changed since."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", degrade_to="anthropic:claude-haiku-4-5")
        await opened.set_budget({"max_cost_daily": "0.000001", "exceed_strategy": "degrade"})
        await opened.update_image(bot.id, {"degrade_to": degrade_to})
        result = await bot.send("hi")
        assert result.failure is not None and result.failure.code == "budget_exceeded"
        assert result.failure.message.endswith(f"It should go on with a cheaper model: {why}.")
        [exceeded] = [each.data for each in await bot.events() if isinstance(each.data, BudgetExceeded)]
        assert (exceeded.breach.limit, why in exceeded.breach.why) == ("max_cost_daily", True)

    run(work, store=store, **dear())
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({}, "none is named"),
        ({"degrade_to": DEAR}, "costs no less"),
        ({"degrade_to": "anthropic:claude-opus-4-1"}, "costs no less"),
        ({"degrade_to": "anthropic:nobody-knows"}, "No price is known"),
        ({"degrade_to": "nonsense"}, "nonsense"),
    ],
    ids=str,
)
def test_a_limit_that_degrades_to_nothing_cheaper_is_refused_where_that_is_known(budget: Any, said: str) -> None:
    async def work(opened: Runtime) -> None:
        await opened.image("bot")
        with pytest.raises(BadInput, match=said):
            await opened.set_budget({"max_cost_daily": 1, "exceed_strategy": "degrade", **budget})
        assert await opened.budget() == []

    run(work, **dear())
