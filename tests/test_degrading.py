"""Limits that degrade or warn: every call is held against them, with what it may take at most, job by job."""

from __future__ import annotations

from typing import Any

import pytest

from reenact import ConstraintPolicy, Failover, Policy
from reenact.actors.clock import ManualClock
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.agent import ModelCalled
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.purse import BudgetExceeded, BudgetReserved, BudgetWarned
from reenact.runtime import Runtime
from tests.money import DEAR, counted, everything_replays, look
from tests.providers import Provider, identical, selections
from tests.runtimes import Heard, run

CHEAP = "anthropic:claude-haiku-4-5"
CHEAPER, UNPRICED = "openai:gpt-4.1-nano", "other:x"
LOOKS = counted(tool_calls=[{"name": "look", "input": {"n": n}} for n in range(5)])


def scripted(*steps: Any, max_tokens: int = 100, **limits: Any) -> dict[str, Any]:
    limits.setdefault("exceed_strategy", "degrade")
    if limits["exceed_strategy"] == "degrade":
        limits["degrade_to"] = CHEAP
    script = list(steps) or [counted()]
    models = Models({name: Scripted(script, repeat=True) for name in ("anthropic", "openai")})
    agent = {"model": DEAR, "params": {"maxTokens": max_tokens}}
    return {"models": models, "default_agent": agent, "budget": limits, "tools": [look]}


def called(heard: Heard) -> list[str]:
    return [event.data.model for event in heard.of(ModelCalled.type)]


def warned(heard: Heard) -> list[str]:
    return [name for event in heard.of(BudgetWarned.type) for name in event.data.limits]


def test_a_call_that_may_pass_a_limit_goes_to_the_cheaper_model() -> None:
    """It may cost 90 cents, of ten that are left. What it needs at least would fit."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot = await opened.image("bot")
        assert (await bot.send("hi")).status == "succeeded"
        assert called(heard) == [CHEAP]
        assert heard.of(BudgetReserved.type)[0].data.max_tokens == 60_000, "nothing cuts the cheaper one short"

    run(work, store=store, **scripted(max_tokens=60_000, max_cost_daily="0.10"))
    everything_replays(MemoryLog(store))


def test_no_dear_call_passes_a_limit_that_degrades() -> None:
    """Until it is used up the dear model answers, and all that it was asked for together fits."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot = await opened.image("bot")
        for _ in range(12):
            assert (await bot.send("hi")).status == "succeeded"
        models = called(heard)
        dear = models.index(CHEAP)
        assert dear > 1 and set(models[dear:]) == {CHEAP}
        assert 225 * dear <= 1000

    step = {"text": "x", "usage": {"inputTokens": 125, "outputTokens": 100}}
    run(work, store=store, **scripted(step, max_tokens_daily=1000))
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize("strategy", ["warn", "degrade"])
def test_every_call_is_held_against_a_limit_of_single_calls(strategy: str) -> None:
    """A small one is allotted, and a large one of the same session is paid out of that."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot = await opened.image("bot")
        assert (await bot.send("hi")).status == "succeeded"
        assert (called(heard), warned(heard)) == ([DEAR], [])
        for large in (1, 2):
            assert (await bot.send("x" * 8000)).status == "succeeded"
            assert called(heard) == [DEAR, *[DEAR if strategy == "warn" else CHEAP] * large]
            assert warned(heard) == ["max_tokens_per_request of the scope"] * large

    run(work, store=store, **scripted(max_tokens_per_request=600, exceed_strategy=strategy))
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize("strategy", ["warn", "degrade"])
def test_an_answer_that_asks_for_too_many_tools_at_once_is_noticed(strategy: str) -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot = await opened.image("bot", tools=["look"])
        for told in (1, 2):
            assert (await bot.send("hi")).status == "succeeded"
            assert called(heard) == [DEAR, DEAR if strategy == "warn" else CHEAP] * told
            assert warned(heard) == ["max_tool_calls_per_request of the scope"] * told

    run(work, store=store, **scripted(LOOKS, counted(), max_tool_calls_per_request=2, exceed_strategy=strategy))
    everything_replays(MemoryLog(store))


def test_calls_of_tools_that_pass_a_limit_of_the_day_lead_to_the_cheaper_model() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot = await opened.image("bot", tools=["look"])
        assert (await bot.send("hi")).status == "succeeded"
        assert called(heard) == [DEAR, CHEAP]
        assert (await bot.send("hi")).status == "succeeded"
        assert called(heard) == [DEAR, CHEAP, CHEAP, CHEAP], "the day has passed its limit"

    run(work, store=store, **scripted(LOOKS, counted(), max_tool_calls_daily=2))
    everything_replays(MemoryLog(store))


def test_a_limit_degrades_for_the_rest_of_a_job_and_no_longer() -> None:
    """The next one names a model that fits, and that costs less than the one to degrade to."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot = await opened.image("bot")
        assert (await bot.send("hi")).status == "succeeded"
        sent = await opened.send(bot.id, "hi", model="openai:gpt-5-nano")
        assert (await sent.result()).status == "succeeded"
        assert called(heard) == [CHEAP, "openai:gpt-5-nano"]

    run(work, store=store, **scripted(max_cost_daily="0.001"))
    everything_replays(MemoryLog(store))


def test_what_a_limit_chose_for_one_job_does_not_count_as_chosen_in_the_next_that_asks_for_that_very_model() -> None:
    store, provider = MemoryStore(), Provider()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model=CHEAP, fallbacks=[DEAR])
        for _ in range(2):
            sent = await opened.send(bot.id, "hi", model=DEAR)
            assert (await sent.result()).text == "I am claude-haiku-4-5."
            assert (await bot.send("hi")).status == "failed", "there is nothing cheaper to go on with"
        await opened.remove_budget()
        provider.fails["claude-haiku-4-5"] = "auth"
        assert (await bot.send("hi")).text == "I am claude-sonnet-4-5."
        await identical(opened, bot.session_id)

    run(work, store=store, **falling(provider, [], max_requests_daily=0))
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize("before", [{"max_requests_daily": 1000}, {"max_cost_daily": "100"}], ids=["requests", "cost"])
def test_a_limit_that_degrades_is_set_while_an_agent_works_that_is_limited_already_and_it_goes_on(before: Any) -> None:
    """One call follows the other, and none of them asks its ledger before it knows what the cheaper model charges."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot = await opened.image("bot", tools=["look"], max_steps=50)
        sent = await opened.send(bot.id, "go")
        await heard.until(ModelCalled.type, 3)
        limit = {"max_cost_daily": "0.0001", "exceed_strategy": "degrade", "degrade_to": CHEAP}
        await opened.set_budget(limit)
        result = await sent.result()
        assert result.status == "succeeded", result.failure
        models = called(heard)
        assert len(models) == 30 and models == sorted(models, reverse=True)
        assert set(models) == {DEAR, CHEAP}

    steps = [counted(tool_calls=[{"name": "look", "input": {"n": n}}]) for n in range(29)] + [counted()]
    agent = {"model": DEAR, "params": {"maxTokens": 100}}
    models = Models({"anthropic": Scripted(steps)})
    run(work, store=store, models=models, tools=[look], budget=before, default_agent=agent)
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize("code", ["auth", "overloaded", "timeout"])
def test_where_the_cheaper_model_does_not_answer_a_fallback_does_that_costs_no_more(code: str) -> None:
    """Of the fallbacks one costs more, and one has no price: they are not asked."""
    store, provider = MemoryStore(), Provider(**{"claude-haiku-4-5": code})

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        for _ in range(2):
            answer = await bot.send("hi")
            assert (answer.status, answer.text) == ("succeeded", "I am gpt-4.1-nano.")
        assert not {"claude-sonnet-4-5", "gpt-4.1", "x"} & {*provider.models}
        first = selections(await bot.events())[:2]
        assert first == [(CHEAP, "budget", None), (CHEAPER, "fallback", code)]
        await identical(opened, bot.session_id)

    fallbacks = ["openai:gpt-4.1", UNPRICED, CHEAPER]
    run(work, store=store, **falling(provider, fallbacks, max_requests_daily=0))
    everything_replays(MemoryLog(store))


def test_given_a_cheap_fallback_that_fails_when_one_costs_no_more_than_what_a_limit_chose_then_it_is_asked() -> None:
    store, provider = MemoryStore(), Provider(**{"claude-haiku-4-5": "auth", "gpt-4.1-nano": "auth"})

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        assert (await bot.send("hi")).text == "I am gpt-4o-mini."
        provider.fails["gpt-4o-mini"] = "auth"
        failure = (await bot.send("hi")).failure
        assert failure is not None and failure.code == "models_exhausted"
        await identical(opened, bot.session_id)

    run(work, store=store, **falling(provider, [CHEAPER, MINI], max_requests_daily=0))
    everything_replays(MemoryLog(store))


def test_a_fallback_for_a_degraded_job_holds_for_its_other_calls_too() -> None:
    store = MemoryStore()
    asks = counted(tool_calls=[{"name": "look", "input": {"n": 1}}])
    models = {"anthropic": Provider(**{"claude-haiku-4-5": "auth"}), "openai": Scripted([asks, counted()], repeat=True)}

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot = await opened.image("bot", tools=["look"])
        for _ in range(2):
            assert (await bot.send("hi")).status == "succeeded"
        assert called(heard) == [CHEAP, CHEAPER, CHEAPER, CHEAP, CHEAPER, CHEAPER]

    options = falling(Provider(), [CHEAPER], max_requests_daily=0)
    run(work, store=store, **{**options, "models": Models(models), "tools": [look]})
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize("limit_of", ["scope", "run", "rule", "message's rule"])
def test_a_fallback_without_a_price_is_passed_over_where_a_price_is_needed(limit_of: str) -> None:
    dear = {"policy": Policy(name="dear", version="1", rules=(ConstraintPolicy(max_cost_per_request=1),))}
    store, provider = MemoryStore(), Provider(**{"claude-sonnet-4-5": "auth"})

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", **({"budget": "1"} if limit_of == "run" else {}))
        result = await bot.send("hi", **(dear if limit_of == "message's rule" else {}))
        assert result.text == "I am gpt-4.1-nano."
        assert selections(await bot.events()) == [(CHEAPER, "fallback", "auth")]

    limits = {"max_cost_daily": "1", "exceed_strategy": "deny"} if limit_of == "scope" else {}
    options = falling(provider, [UNPRICED, CHEAPER], **limits) | (dear if limit_of == "rule" else {})
    run(work, store=store, **(options if limits else {**options, "budget": None}))
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize("limit_of", ["scope", "rule"])
def test_a_session_that_fell_back_to_what_is_too_dear_later_goes_back_to_its_first_model(limit_of: str) -> None:
    store, clock, provider = MemoryStore(), ManualClock(), Provider(**{"gpt-4.1-nano": ["rate_limit"]})
    rule = Policy(name="cap", rules=(ConstraintPolicy(max_cost_per_request="0.001"),))

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model=CHEAPER, fallbacks=[DEAR], params={"maxTokens": 2000})
        assert (await bot.send("hi")).text == "I am claude-sonnet-4-5."
        clock.move(s=86_400)
        if limit_of == "rule":
            await opened.update_image(bot.id, {"policy": rule})
            bot = await opened.open_image(bot.id)
        else:
            await opened.set_budget({"max_cost_daily": "0.001"})
        for _ in range(2):
            assert (await bot.send("hi")).text == "I am gpt-4.1-nano."
        assert provider.models == ["gpt-4.1-nano", "claude-sonnet-4-5", "gpt-4.1-nano", "gpt-4.1-nano"]

    options = {**falling(provider, []), "budget": None, "clock": clock, "failover": Failover(retries=0)}
    run(work, store=store, **options)
    everything_replays(MemoryLog(store))


def test_a_fallback_that_would_cost_more_than_a_rule_lets_a_call_cost_is_passed_over() -> None:
    store, provider = MemoryStore(), Provider(**{"gpt-4.1-nano": "auth"})
    rule = Policy(name="cap", version="1", rules=(ConstraintPolicy(max_cost_per_request="0.001"),))

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model=CHEAPER, fallbacks=["anthropic:claude-opus-4-1", "openai:gpt-4o-mini"])
        assert (await bot.send("hi")).text == "I am gpt-4o-mini."
        assert provider.models == ["gpt-4.1-nano", "gpt-4o-mini"]

    options = {**falling(provider, []), "budget": None, "policy": rule, "failover": Failover(retries=0)}
    run(work, store=store, **options)
    everything_replays(MemoryLog(store))


OPUS, MINI, NANO = "anthropic:claude-opus-4-1", "openai:gpt-4o-mini", "openai:gpt-4.1-nano"


@pytest.mark.parametrize("whose", ["scope", "principal", "session"])
@pytest.mark.parametrize("cools", [False, True])
def test_given_a_fallback_that_the_ledger_does_not_pay_when_it_is_its_turn_then_the_next_one_is_asked_once(
    whose: str, cools: bool
) -> None:
    store, clock = MemoryStore(), ManualClock()
    provider = Provider(**{"claude-haiku-4-5": "auth", "gpt-4o-mini": "auth"})

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot = await opened.image("bot", model=CHEAP, fallbacks=[OPUS, MINI, NANO])
        of = {"scope": {}, "principal": {"principal_id": "user"}, "session": {"session_id": bot.session_id}}[whose]
        await opened.set_budget({"max_cost_daily": "0.002", **of})
        if cools:  # who was not asked at all is no other's failure
            assert (await (await opened.image("other", model=CHEAP)).send("hi")).status == "failed"
            provider.asked.clear()
        answer = await bot.send("hi")
        assert (answer.status, answer.text) == ("succeeded", "I am gpt-4.1-nano."), answer.failure
        assert provider.models == ["claude-haiku-4-5", "gpt-4o-mini", "gpt-4.1-nano"][cools:]
        assert selections(await bot.events()) == [
            (OPUS, "fallback", "cooldown" if cools else "auth"),
            (MINI, "fallback", "budget_exceeded"),
            (NANO, "fallback", "auth"),
        ]
        refused = [event.data for event in heard.of(BudgetExceeded.type) if event.session_id == bot.session_id]
        assert [each.breach.limit for each in refused] == ["max_cost_daily"]
        await identical(opened, bot.session_id)

    options = {**falling(provider, []), "budget": None, "clock": clock, "failover": Failover(retries=0)}
    run(work, store=store, **options)
    everything_replays(MemoryLog(store))


def test_given_a_fallback_that_the_ledger_does_not_pay_when_no_other_answers_then_the_failure_names_it_and_why() -> (
    None
):
    store, provider = MemoryStore(), Provider(**{"claude-haiku-4-5": "auth", "gpt-4o-mini": "auth"})

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model=CHEAP, fallbacks=[OPUS, MINI])
        await opened.set_budget({"max_cost_daily": "0.002"})
        failure = (await bot.send("hi")).failure
        assert failure is not None and failure.code == "models_exhausted" and not failure.retryable
        assert [(each.model, each.reason) for each in failure.tried or ()] == [
            ("claude-haiku-4-5", "auth"),
            ("gpt-4o-mini", "auth"),
            ("claude-opus-4-1", "budget_exceeded"),
        ]
        assert f"{OPUS} (not asked, a limit was in the way)" in failure.message
        await identical(opened, bot.session_id)

    options = {**falling(provider, []), "budget": None, "failover": Failover(retries=0)}
    run(work, store=store, **options)
    everything_replays(MemoryLog(store))


def test_given_that_the_ledger_pays_no_fallback_when_the_first_model_fails_then_the_turn_ends_with_the_limit() -> None:
    store, provider = MemoryStore(), Provider(**{"claude-haiku-4-5": "auth"})

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model=CHEAP, fallbacks=[OPUS, DEAR])
        await opened.set_budget({"max_cost_daily": "0.0011"})
        answer = await bot.send("hi")
        assert answer.failure is not None and answer.failure.code == "budget_exceeded"
        assert provider.models == ["claude-haiku-4-5"]
        assert [model for model, _, _ in selections(await bot.events())] == [OPUS, DEAR]
        await identical(opened, bot.session_id)

    options = {**falling(provider, []), "budget": None, "failover": Failover(retries=0)}
    run(work, store=store, **options)
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize("limits", [{"max_requests_daily": 1}])
def test_given_a_limit_that_no_model_changes_when_a_fallback_is_refused_then_no_further_one_is_looked_at(
    limits: dict[str, int],
) -> None:
    store, provider = MemoryStore(), Provider(**{"claude-haiku-4-5": "auth"})

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model=CHEAP, fallbacks=[MINI, NANO])
        await opened.set_budget(limits)
        answer = await bot.send("hi")
        assert answer.failure is not None and answer.failure.code == "budget_exceeded"
        assert NANO not in [model for model, _, _ in selections(await bot.events())]

    run(work, store=store, **{**falling(provider, []), "budget": None, "failover": Failover(retries=0)})
    everything_replays(MemoryLog(store))


def falling(provider: Provider, fallbacks: list[str], **limits: Any) -> dict[str, Any]:
    models = Models(dict.fromkeys(("anthropic", "openai", "other"), provider))
    agent = {"model": DEAR, "fallbacks": fallbacks, "params": {"maxTokens": 100}}
    return {**scripted(**limits), "models": models, "default_agent": agent}
