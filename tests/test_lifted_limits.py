"""A limit is lifted in the middle of a turn: what is spent from then on counts for who spends it, on its day."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from reenact import ConstraintPolicy, Ledger, Policy, RuntimeLedgerWriter, tool
from reenact.actors.calendar import DAY_US
from reenact.actors.clock import ManualClock
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events import codec
from reenact.events.agent import ModelCalled
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.purse import BudgetReserved
from reenact.money.recalls import Recalls
from reenact.projections.meter import ModelUse, uses
from reenact.runtime import Runtime
from tests.money import counted, everything_replays
from tests.runtimes import Heard, run, runtime

DAY_S = 86_400.0
OWN = {"budget": {"max_tokens": 10**6}}


@tool(effect="read", approval="ask")
def pay() -> str:
    """Pay."""
    return "paid"


def speak(request: Any, seen: Any) -> dict[str, Any]:
    pays = seen.said == "pay" and not seen.results
    return counted(tool_calls=[{"name": "pay", "input": {}}]) if pays else counted()


def options(store: MemoryStore, clock: ManualClock) -> dict[str, Any]:
    models = Models({"scripted": Scripted(speak, repeat=True)})
    agent = {"model": "scripted:any", "params": {"maxTokens": 100}}
    return {"store": store, "clock": clock, "models": models, "default_agent": agent, "tools": [pay]}


async def send(opened: Runtime, principal: str, image: str, text: str = "hi", **of_run: Any) -> str:
    return (await (await opened.scoped(principal=principal).send(image, text, **of_run)).result()).status


async def lift_amid(opened: Runtime, principal: str, image: str, **of_run: Any) -> None:
    """All limits are lifted while a job waits for a person; then it goes on to its end."""
    heard = Heard(opened)
    assert await send(opened, principal, image, "pay", **of_run) == "waiting"
    for budget in opened.budgets:
        await opened.remove_budget(principal_id=budget.principal_id, session_id=budget.session_id)
    [question] = await opened.actions()
    await opened.resolve_action(question.id, True)
    await heard.until("turn_completed")


async def used(opened: Runtime, *principals: str) -> dict[tuple[str | None, str], Any]:
    for principal in principals:
        await opened.set_budget({"principal_id": principal, "max_requests_daily": 999, "max_tokens_total": 10**7})
    return {(use.name, use.limit): use.used for use in await opened.budget()}


@pytest.mark.parametrize("under", ["image", "run", "rule"])
def test_given_a_limit_that_is_lifted_amid_a_turn_what_is_spent_later_counts_for_who_spends_it_on_its_day(
    under: str,
) -> None:
    """Under a budget of the image, one of each run, or a rule: else nothing is set aside, and each call is counted."""
    store, clock = MemoryStore(), ManualClock()
    of_run = OWN if under == "run" else {}
    house = {"policy": Policy(name="house", rules=(ConstraintPolicy(max_cost_per_request=100),))}

    async def work(opened: Runtime) -> None:
        bot = (await opened.image("bot", tools=["pay"], **(OWN if under == "image" else {}))).id
        await opened.set_budget({"max_tokens_total": 10**6})
        await lift_amid(opened, "bob", bot, **of_run)
        clock.move(s=DAY_S)
        for principal in ("ann", "bob", "ann"):
            assert await send(opened, principal, bot, **of_run) == "succeeded"
        assert await used(opened, "ann", "bob") == {
            ("ann", "max_requests_daily"): 2,
            ("ann", "max_tokens_total"): 30,
            ("bob", "max_requests_daily"): 1,
            ("bob", "max_tokens_total"): 45,
        }

    run(work, **options(store, clock), **(house if under == "rule" else {}))
    everything_replays(MemoryLog(store))


def test_given_a_message_that_still_names_the_ledger_behind_jobs_under_none_it_is_told_of_none_of_theirs() -> None:
    store, clock = MemoryStore(), ManualClock()

    async def work(opened: Runtime) -> None:
        bot = (await opened.image("bot", tools=["pay"], approval_timeout_s=2 * DAY_S, **OWN)).id
        heard = Heard(opened)
        await opened.set_budget({"max_tokens_total": 10**6})
        assert await send(opened, "ann", bot, "pay") == "waiting"
        behind = [await opened.scoped(principal="bob").send(bot, "hi")]
        behind.append(await opened.scoped(principal="eve").send(bot, "hi", **OWN))
        await opened.remove_budget()
        behind.append(await opened.scoped(principal="bob").send(bot, "hi"))
        clock.move(s=DAY_S)
        [question] = await opened.actions()
        await opened.resolve_action(question.id, True)
        await heard.until("turn_completed")
        assert [(await each.result()).status for each in behind] == ["succeeded"] * 3
        assert await used(opened, "ann", "bob", "eve") == {
            ("ann", "max_requests_daily"): 1,
            ("ann", "max_tokens_total"): 30,
            ("bob", "max_requests_daily"): 2,
            ("bob", "max_tokens_total"): 30,
            ("eve", "max_requests_daily"): 1,
            ("eve", "max_tokens_total"): 15,
        }

    run(work, **options(store, clock))
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize("own", [{}, OWN], ids=["under nothing", "under a budget of its own"])
def test_given_a_call_whose_process_died_it_counts_as_it_was_set_aside_though_no_ledger_pays_the_next_attempt(
    own: dict[str, Any],
) -> None:
    store, clock = MemoryStore(), ManualClock()

    async def live() -> None:
        asked, gone = asyncio.Event(), Scripted(speak, repeat=True)

        async def stream(*_: Any, **__: Any) -> Any:
            asked.set()
            await asyncio.Event().wait()
            yield

        gone.stream = stream  # type: ignore[method-assign]
        async with runtime(**{**options(store, clock), "models": Models({"scripted": gone})}) as opened:
            bot = (await opened.image("bot", **own)).id
            await opened.set_budget({"max_tokens_total": 10**6})
            await opened.scoped(principal="ann").send(bot, "hi")
            await asked.wait()
            await opened.remove_budget()
            await (await opened.scoped(principal="bob").send(bot, "hi")).accepted()
        async with runtime(**options(store, clock)) as opened:
            assert await send(opened, "eve", bot) == "succeeded"
            events = (each.data for stored in opened.log.read_all(limit=999) for each in codec.unpack(stored))
            aside = next(each.tokens for each in events if isinstance(each, BudgetReserved))
            assert await used(opened, "ann", "bob") == {
                ("ann", "max_requests_daily"): 2,
                ("ann", "max_tokens_total"): aside + 15,
                ("bob", "max_requests_daily"): 1,
                ("bob", "max_tokens_total"): 15,
            }

    asyncio.run(asyncio.wait_for(live(), 20))
    everything_replays(MemoryLog(store))


async def _nothing(*_: Any) -> None:
    """What was to be told in the background goes with its process."""


def test_given_a_process_that_died_before_a_ledger_heard_what_was_let_go_it_counts_so_all_the_same() -> None:
    """It is told before the count, whether or not the session was called back by then."""
    store, clock = MemoryStore(), ManualClock()

    async def work(opened: Runtime) -> None:
        bot = (await opened.image("bot", tools=["pay"], **OWN)).id
        await opened.set_budget({"max_tokens_total": 10**6})
        with patch.object(Recalls, "settle", _nothing):
            await lift_amid(opened, "bob", bot)
            assert await send(opened, "ann", bot) == "succeeded"

    async def again(opened: Runtime) -> None:
        with patch.object(Recalls, "_recall", _nothing):
            found = await used(opened, "ann", "bob")
        assert (found["ann", "max_requests_daily"], found["bob", "max_requests_daily"]) == (1, 2)

    run(work, **options(store, clock))
    run(again, **options(store, clock))
    everything_replays(MemoryLog(store))


def test_given_a_limit_lifted_amid_a_job_one_that_the_next_process_sets_holds_by_what_that_knows() -> None:
    """The texts of its tools are longer there, and no limit stood when the job was taken up."""
    store, clock, goes = MemoryStore(), ManualClock(), asyncio.Event()

    def look_told_of(text: str) -> Any:
        @tool(name="look", effect="idempotent", description=text)
        async def look() -> str:
            await goes.wait()
            return "saw"

        return look

    def looks(request: Any, seen: Any) -> dict[str, Any]:
        return counted() if seen.results else counted(tool_calls=[{"name": "look", "input": {}}])

    def with_a_text(text: str) -> Runtime:
        models = Models({"scripted": Scripted(looks, repeat=True)})
        return runtime(**{**options(store, clock), "models": models, "tools": [look_told_of(text)]})

    async def live() -> None:
        async with with_a_text("Look.") as opened:
            await opened.set_budget({"max_tokens_total": 10**6})
            bot = await opened.image("bot", tools=["look"])
            heard = Heard(opened)
            await opened.send(bot.id, "hi")
            await heard.until("tool_started")
            await opened.remove_budget()
        async with with_a_text("Look around. " * 1_000) as opened:
            heard = Heard(opened)
            await heard.until("tool_started")
            await opened.set_budget({"max_tokens_total": 10**6})
            goes.set()
            await heard.until("turn_completed")
        before, after = (
            each.data.tokens
            for stored in MemoryLog(store).read_all(limit=999)
            for each in codec.unpack(stored)
            if isinstance(each.data, BudgetReserved)
        )
        assert after > before + 3_000

    asyncio.run(asyncio.wait_for(live(), 20))
    everything_replays(MemoryLog(store))


def test_given_a_fallback_whose_process_died_and_that_fits_no_more_it_counts_as_it_was_set_aside() -> None:
    """The next of the chain answers in its place. It is under a budget of its run, and a first limit comes later."""
    store, clock, asked = MemoryStore(), ManualClock(), asyncio.Event()

    def models(lives: bool) -> Models:
        failing, answers = Scripted([{"error": {"code": "auth"}}], repeat=True), Scripted([counted()], repeat=True)
        stream = answers.stream

        async def hangs(call: Any, *args: Any, **more: Any) -> Any:
            if not lives:
                asked.set()
                await asyncio.Event().wait()
            async for each in stream(call, *args, **more):
                yield each

        answers.stream = hangs  # type: ignore[method-assign]
        return Models({"openai": failing, "anthropic": answers})

    chain = ["anthropic:claude-opus-4-1", "anthropic:claude-haiku-4-5"]
    agent = {"model": "openai:gpt-4o", "fallbacks": chain, "params": {"maxTokens": 100}}

    def opened_by(lives: bool) -> Runtime:
        return runtime(store=store, clock=clock, models=models(lives), default_agent=agent)

    async def live() -> None:
        async with opened_by(False) as opened:
            bot = await opened.image("bot")
            await (await opened.send(bot.id, "hi", budget={"max_cost": "0.012"})).accepted()
            await asked.wait()
        async with opened_by(True) as opened:
            heard = Heard(opened)
            await heard.until("turn_completed")
            await opened.set_budget({"max_requests_daily": 99, "max_tokens_total": 10**6})
            told = [use.used for use in await opened.budget()]
        events = [each.data for stored in MemoryLog(store).read_all(limit=999) for each in codec.unpack(stored)]
        asked_for = [each.model for each in events if isinstance(each, ModelCalled)]
        failed, lost, _ = (each.tokens for each in events if isinstance(each, BudgetReserved))
        assert (asked_for, told) == ([agent["model"], *chain], [failed + lost + 15, 3])

    asyncio.run(asyncio.wait_for(live(), 20))
    everything_replays(MemoryLog(store))


# -- the law --

WORDS = ("ann", "bob", "set", "lift ann", "lift bob", "lift", "later", "lost", "again")


@settings(max_examples=30, deadline=None)
@for_all(data=st.data())
def test_whatever_is_lifted_when_each_principal_is_counted_what_they_used_on_its_day(data: st.DataObject) -> None:
    """What a ledger says, whoever asks it at any time and once limits are set, is what the cost projection says."""
    store, clock = MemoryStore(), ManualClock()
    words = iter(data.draw(st.lists(st.sampled_from(WORDS), max_size=10)))
    of_image = data.draw(st.sampled_from([{}, OWN]))

    async def live() -> None:
        ended = False
        while not ended:
            async with runtime(**options(store, clock)) as opened:
                bot = (await opened.image("bot", tools=["pay"], **of_image)).id
                ended = True
                for word in words:
                    of_run = {} if of_image or data.draw(st.booleans()) else OWN
                    match word.split():
                        case ["set"]:
                            await opened.set_budget({"max_tokens_total": 10**6})
                        case ["lift"]:
                            await opened.remove_budget()
                        case ["lift", principal]:
                            await lift_amid(opened, principal, bot, **of_run)
                        case ["later"]:
                            clock.move(s=DAY_S)
                        case ["lost"]:
                            with patch.object(Recalls, "settle", _nothing):
                                await lift_amid(opened, "bob", bot, **of_run)
                                await send(opened, "ann", bot, **of_run)
                        case ["again"]:
                            ended = False
                            break
                        case [principal]:
                            assert await send(opened, principal, bot, **of_run) == "succeeded"
                    await ask(opened)
                if ended:
                    await check(opened)

    async def ask(opened: Runtime) -> None:
        every = [recorded for stored in opened.log.read_all(limit=10**6) for recorded in codec.unpack(stored)]
        book = Ledger(RuntimeLedgerWriter(opened))
        for whose, names in (("ann", ["ann"]), ("bob", ["bob"]), (None, ["ann", "bob"])):
            mine = [use for use in uses(every) if use.principal in names]
            calls = [use for use in mine if isinstance(use, ModelUse)]
            tokens = [use.usage.input_tokens + use.usage.output_tokens for use in calls if use.usage is not None]
            usage = await book.get_usage(principal_id=whose)
            assert (usage.requests, usage.total_tokens) == (len(calls), sum(tokens))
            assert usage.tool_calls == len(mine) - len(calls)

    async def check(opened: Runtime) -> None:
        there: Counter[tuple[str, str]] = Counter()
        every = [recorded for stored in opened.log.read_all(limit=10**6) for recorded in codec.unpack(stored)]
        for use in uses(every):
            assert isinstance(use, ModelUse) or use.runs
            if isinstance(use, ModelUse) and use.usage is not None:
                there[use.principal, "max_requests_daily"] += use.at // DAY_US == clock.now() // DAY_US
                there[use.principal, "max_tokens_total"] += use.usage.input_tokens + use.usage.output_tokens
        found = await used(opened, "ann", "bob")
        assert {name: count for name, count in found.items() if name[0]} == {
            (name, limit): there[name, limit]
            for name in ("ann", "bob")
            for limit in ("max_requests_daily", "max_tokens_total")
        }

    asyncio.run(asyncio.wait_for(live(), 60))
    everything_replays(MemoryLog(store))
