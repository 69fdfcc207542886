"""Budgets over the real kernel: what is asked of the ledger, what is denied, and what is left after it all."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import pytest

from reenact import tool, treasury
from reenact.actors import ledger as rules
from reenact.actors.replay import replay
from reenact.actors.verify import verify
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events import codec
from reenact.events.agent import ModelCalled, ModelFailed
from reenact.events.budget import Budget, BudgetSpec
from reenact.events.errors import ActionOver, BadInput, NotAPerson
from reenact.events.ledger import AllotmentReturned, Allotted, BudgetRaised, BudgetSet
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.purse import (
    AllotmentReleased,
    AllotmentWanted,
    BudgetDegraded,
    BudgetExceeded,
    BudgetWarned,
)
from reenact.events.session import JobFailed, JobStarted, JobSucceeded
from reenact.projections.asking import asking
from reenact.runtime import Runtime
from tests.actors.test_laws import causes
from tests.runtimes import Gate, Heard, run, runtime

DEAR = "anthropic:claude-sonnet-4-5"


@tool(effect="idempotent")
def look(n: int) -> str:
    """Look something up."""
    return f"saw {n}"


def counted(text: str = "Hello there.", tokens: int = 10, **step: Any) -> dict[str, Any]:
    return {"text": text, "usage": {"inputTokens": tokens, "outputTokens": 5}, **step}


def dear(*steps: Any) -> dict[str, Any]:
    """A script under the name of a model that has a price."""
    models = Models({"anthropic": Scripted(list(steps) or [counted()], repeat=True), "scripted": Scripted([counted()])})
    return {"models": models, "default_agent": {"model": DEAR, "params": {"maxTokens": 100}}}


def ledger_of(log: MemoryLog) -> list[Any]:
    return [recorded.data for stored in log.read("ledger-default") for recorded in codec.unpack(stored)]


def everything_replays(log: MemoryLog) -> None:
    for stream in log.streams():
        verdict = replay(stream, log.read(stream))
        assert verdict.identical, f"{stream}: {verdict.summary}"
    report = verify(log)
    assert report.sound, report.summary


# -- without a budget --


def test_without_a_budget_nothing_is_asked_of_any_ledger() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        assert (await bot.send("hi")).status == "succeeded"
        assert await opened.budget() == []

    run(work, store=store)
    assert MemoryLog(store).streams("ledger-") == []


# -- a ledger --


def test_a_conversation_asks_its_ledger_once_for_many_calls() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", tools=["look"])
        for _ in range(4):
            assert (await bot.send("hi")).status == "succeeded"
        [limit] = await opened.budget()
        assert (limit.limit, limit.most, limit.used, limit.strategy) == ("max_tokens_daily", 10**6, 4 * 30, "deny")
        assert limit.outstanding > 0 and limit.left == 10**6 - limit.used - limit.outstanding  # type: ignore[operator]

    steps = [counted(tool_calls=[{"name": "look", "input": {"n": 1}}]), counted()]
    run(work, steps, store=store, tools=[look], budget={"max_tokens_daily": 10**6})
    log = MemoryLog(store)
    assert len([event for event in ledger_of(log) if isinstance(event, Allotted)]) == 1
    everything_replays(log)
    known = causes(log)
    allotted = next(each for each in known.values() if isinstance(each.data, Allotted))
    assert isinstance(known[allotted.head.cause or ""].data, AllotmentWanted | JobStarted | ModelCalled)


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


def test_a_model_without_a_price_is_refused_unless_the_budget_says_otherwise() -> None:
    models = Models({"local": Scripted([counted()], repeat=True)})

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", model="local:llama")
        result = await bot.send("hi")
        assert result.failure is not None and result.failure.code == "unpriced"
        await opened.set_budget(Budget(max_cost_daily=1, unpriced="allow"))
        assert (await bot.send("hi")).status == "succeeded"

    run(work, models=models, default_agent={"model": "local:llama"}, budget={"max_cost_daily": 1})


def test_many_sessions_at_once_never_spend_more_than_there_is() -> None:
    """CHECKLIST e: N parallel requests that would all pass a check made before."""
    store = MemoryStore()
    gate = Gate()

    async def work(opened: Runtime) -> None:
        bots = [await opened.image() for _ in range(12)]
        heard = Heard(opened)
        runs = [await opened.send(bot.id, "hi") for bot in bots]
        await heard.until("text_delta", 4)
        assert gate.calls == 4, "680 tokens are four calls that write 100 and read little"
        assert heard.of(JobFailed.type) == [], "who comes too late waits for what those four may leave"
        gate.opened.set()
        assert [(await run.result()).status for run in runs] == ["succeeded"] * 12
        [limit] = await opened.budget()
        assert limit.used == 12 * 5

    run(
        work,
        store=store,
        models=Models({"scripted": gate}),
        default_agent={"model": "scripted:any", "params": {"maxTokens": 100}, "systemPrompt": ""},
        budget={"max_tokens_total": 4 * 170},
    )
    everything_replays(MemoryLog(store))


def test_a_limit_of_so_many_calls_lets_so_many_be_made_whoever_makes_them() -> None:
    """50 sessions at once, and calls for 37 of them: idle allotments go back, and nobody is denied what lies idle."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bots = [await opened.image() for _ in range(50)]
        results = await asyncio.gather(*(bot.send("hi") for bot in bots))
        assert sorted(result.status for result in results) == ["failed"] * 13 + ["succeeded"] * 37
        [limit] = await opened.budget()
        assert (limit.used, limit.outstanding, limit.left) == (37, 0, 0)

    run(work, [counted()], store=store, budget={"max_requests_daily": 37})
    everything_replays(MemoryLog(store))


def test_who_waits_for_money_is_served_in_the_order_of_asking() -> None:
    """One call at a time fits: the first is under way, the others wait for what it leaves, and go on one by one."""
    gates = [Gate() for _ in range(4)]
    models = Models({f"gate{n}": gate for n, gate in enumerate(gates)})

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        runs, order = [], []
        for n in range(4):
            bot = await opened.image(model=f"gate{n}:any")
            order.append(bot.session_id)
            runs.append(await opened.send(bot.id, "hi"))
            await heard.until(AllotmentWanted.type, n + 1)
        await heard.until("text_delta")
        assert [gate.calls for gate in gates] == [1, 0, 0, 0]
        for gate in gates:
            gate.opened.set()
        results = [await run.result() for run in runs]
        assert [result.failure for result in results] == [None] * 4
        assert [event.stream.removeprefix("session-") for event in heard.of(ModelCalled.type)] == order

    options: dict[str, Any] = {"model": "gate0:any", "params": {"maxTokens": 100}, "systemPrompt": ""}
    run(work, models=models, default_agent=options, budget={"max_tokens_total": 200})


def test_who_waits_and_is_interrupted_waits_no_more() -> None:
    gate = Gate()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bots = [await opened.image() for _ in range(2)]
        runs = [await opened.send(bot.id, "hi") for bot in bots]
        await heard.until(AllotmentWanted.type, 2)
        await heard.until("text_delta")
        await opened.interrupt(bots[1].id)
        assert (await runs[1].result()).status == "cancelled"
        gate.opened.set()
        assert (await runs[0].result()).status == "succeeded"
        assert opened._treasury._line == []

    options: dict[str, Any] = {"model": "scripted:any", "params": {"maxTokens": 100}, "systemPrompt": ""}
    run(work, models=Models({"scripted": gate}), default_agent=options, budget={"max_tokens_total": 200})


def test_nobody_waits_for_ever_for_a_call_that_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(treasury, "WAIT_MAX_S", 0.05)
    gate = Gate()

    async def work(opened: Runtime) -> None:
        bots = [await opened.image() for _ in range(2)]
        first = await opened.send(bots[0].id, "hi")
        await Heard(opened).until("text_delta")
        second = await bots[1].send("hi")
        assert second.failure is not None and second.failure.code == "budget_exceeded"
        gate.opened.set()
        assert (await first.result()).status == "succeeded"

    options: dict[str, Any] = {"model": "scripted:any", "params": {"maxTokens": 100}, "systemPrompt": ""}
    run(work, models=Models({"scripted": gate}), default_agent=options, budget={"max_tokens_total": 200})


# -- limits that are changed while sessions work --


def loops(calls: int = 1000) -> list[Any]:
    """An answer that asks for a tool, again and again."""
    return [counted(tool_calls=[{"name": "look", "input": {"n": n}}]) for n in range(calls)]


def calls_after(log: MemoryLog, position: int) -> dict[str, int]:
    """How many calls of models each session began behind a position."""
    found: dict[str, int] = {}
    for stream in log.streams("session-"):
        events = [recorded for stored in log.read(stream) for recorded in codec.unpack(stored)]
        later = [one for one in events if one.position > position and isinstance(one.data, ModelCalled)]
        found[stream] = len(later)
    return found


def position_of(log: MemoryLog, budget: Budget) -> int:
    """Where a limit was set last."""
    events = [recorded for stored in log.read("ledger-default") for recorded in codec.unpack(stored)]
    return max(each.position for each in events if isinstance(each.data, BudgetSet) and each.data.budget == budget)


@pytest.mark.parametrize(
    "stop",
    [{"max_requests_daily": 0}, {"max_tokens_total": 0}, {"max_requests_daily": 0, "max_tool_calls_daily": 0}],
    ids=str,
)
def test_a_limit_that_is_lowered_stops_everybody_who_works(stop: dict[str, Any]) -> None:
    """The emergency stop: fifty sessions at work hold 64 calls each, and begin one more at most."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bots = [await opened.image(tools=["look"], max_steps=500) for _ in range(50)]
        heard = Heard(opened)
        runs = [await opened.send(bot.id, "go") for bot in bots]
        await heard.until(ModelCalled.type, 120)
        await opened.set_budget(Budget(**stop))
        results = [await run.result() for run in runs]
        assert {result.failure.code for result in results if result.failure} == {"budget_exceeded"}
        assert {result.status for result in results} == {"failed"}

    run(work, loops(), store=store, tools=[look], budget={"max_requests_daily": 10**6})
    log = MemoryLog(store)
    after = calls_after(log, position_of(log, Budget(scope_id="default", **stop)))
    assert max(after.values()) <= 1
    everything_replays(log)


def test_a_first_limit_stops_those_too_who_worked_without_any() -> None:
    store = MemoryStore()
    stop = Budget(max_requests_daily=0)

    async def work(opened: Runtime) -> None:
        bots = [await opened.image(tools=["look"], max_steps=2000) for _ in range(20)]
        heard = Heard(opened)
        runs = [await opened.send(bot.id, "go") for bot in bots]
        await heard.until(ModelCalled.type, 60)
        await opened.set_budget(stop)
        begun = len(heard.of(ModelCalled.type))
        results = [await run.result() for run in runs]
        assert {result.failure.code for result in results if result.failure} == {"budget_exceeded"}
        assert {result.status for result in results} == {"failed"}
        assert len(heard.of(ModelCalled.type)) == begun, "when it is set, everybody has heard of it"

    run(work, loops(3000), store=store, tools=[look])
    everything_replays(MemoryLog(store))


def test_a_first_limit_counts_from_where_a_running_job_hears_of_it() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", tools=["look"], max_steps=2000)
        heard = Heard(opened)
        sent = await opened.send(bot.id, "go")
        await heard.until(ModelCalled.type, 5)
        await opened.set_budget({"max_requests_daily": 7, "max_tool_calls_daily": 100})
        result = await sent.result()
        assert result.failure is not None and result.failure.code == "budget_exceeded"
        used = {limit.limit: limit.used for limit in await opened.budget()}
        assert used["max_requests_daily"] == 7 and used["max_tool_calls_daily"] in (7, 8)

    run(work, loops(3000), store=store, tools=[look])
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize("broken", ["_called_back", "heeded"])
def test_a_build_in_which_a_limit_binds_later_is_found_by_verify(broken: str) -> None:
    """Nothing is called back; or who is at work is not told before they call again."""
    store = MemoryStore()

    async def deaf(self: Any, stream: str) -> None:
        """Nothing is heard."""

    async def left_alone(self: Any, *_: Any) -> None:
        """Nobody is asked."""

    async def work(opened: Runtime) -> None:
        bots = [await opened.image(tools=["look"], max_steps=30) for _ in range(4)]
        heard = Heard(opened)
        runs = [await opened.send(bot.id, "go") for bot in bots]
        await heard.until(ModelCalled.type, 8)
        await opened.set_budget(Budget(max_requests_daily=0))
        for each in runs:
            await each.result()

    with (
        patch.object(rules, "_called_back", lambda state, _: state)
        if broken == "_called_back"
        else patch.multiple(treasury.Treasury, heeded=deaf, _let_go=left_alone)
    ):
        run(work, loops(), store=store, tools=[look], budget={"max_requests_daily": 10**6})
    found = [each for each in verify(MemoryLog(store)).violations if each.invariant == "budget"]
    assert found and all("called back when limits of default were changed" in each.what for each in found)


def test_a_limit_that_is_raised_lets_the_denied_and_the_waiting_go_on() -> None:
    gate = Gate()
    gate.opened.set()
    options: dict[str, Any] = {"model": "scripted:any", "params": {"maxTokens": 100}, "systemPrompt": ""}

    async def work(opened: Runtime) -> None:
        bot, other = await opened.image("bot"), await opened.image("other")
        assert (await bot.send("hi")).status == "succeeded"
        denied = await bot.send("x" * 300)
        assert denied.failure is not None and "max_tokens_per_request" in denied.failure.message
        await opened.set_budget(Budget(max_tokens_per_request=1000))
        again = await bot.send("x" * 300)
        assert again.status == "succeeded", again.failure
        gate.opened.clear()
        await opened.set_budget(Budget(max_tokens_total=400))
        heard = Heard(opened)
        runs = [await opened.send(each.id, "x" * 300) for each in (bot, other)]
        await heard.until(AllotmentWanted.type, 2)
        await heard.until("text_delta")
        assert gate.calls == 3, "the other waits"
        await opened.set_budget(Budget(max_tokens_total=4000))
        await heard.until("text_delta", 2)
        gate.opened.set()
        assert [(await run.result()).status for run in runs] == ["succeeded"] * 2

    limits = {"max_tokens_per_request": 150}
    run(work, models=Models({"scripted": gate}), default_agent=options, budget=limits)


def test_what_was_called_back_from_a_session_at_rest_is_given_back_by_the_next_process() -> None:
    """The process dies between the limit and the giving back: the ledger still owes it."""
    store = MemoryStore()

    async def first() -> None:
        async with runtime([counted()], store=store, budget={"max_tokens_total": 5000}) as one:
            bot = await one.image("bot")
            assert (await bot.send("hi")).status == "succeeded"
            heard = Heard(one)
            with patch.object(treasury.Treasury, "recall", never):
                setting = asyncio.ensure_future(one.set_budget(Budget(max_tokens_total=4000)))
                await heard.until(BudgetSet.type)
        await asyncio.gather(setting, return_exceptions=True)

    async def never(self: Any, effect: Any) -> Any:
        await asyncio.Event().wait()

    async def second() -> None:
        async with runtime([counted()], store=store) as two:
            heard = Heard(two)
            if not (await two._peek("ledger-default"))[0].due:
                return
            await heard.until(AllotmentReturned.type)

    asyncio.run(asyncio.wait_for(first(), 20))
    assert MemoryLog(store).streams("ledger-", owing=True) == ["ledger-default"]
    asyncio.run(asyncio.wait_for(second(), 20))
    assert MemoryLog(store).streams("ledger-", owing=True) == []
    everything_replays(MemoryLog(store))


def test_what_a_resting_session_holds_is_taken_back_before_anything_is_denied() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        resting = [await opened.image() for _ in range(3)]
        for bot in resting:
            assert (await bot.send("hi")).status == "succeeded"
        held = sum(limit.outstanding for limit in await opened.budget())  # type: ignore[misc]
        assert held > 0
        last = await opened.image()
        left = next(limit.left for limit in await opened.budget())
        result = await last.send("x" * (int(left) * 10 // 3))
        assert result.status == "succeeded"
        everybody = [event for event in ledger_of(opened.log) if isinstance(event, AllotmentReturned)]
        assert len({event.session_id for event in everybody}) == 3

    run(
        work,
        [counted()],
        store=store,
        default_agent={"model": "scripted:any", "params": {"maxTokens": 100}},
        budget={"max_tokens_total": 5000},
    )
    everything_replays(MemoryLog(store))


def test_a_closed_session_returns_its_allotment() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        await bot.send("hi")
        heard = Heard(opened)
        await opened.delete_image(bot.id)
        await heard.until(AllotmentReturned.type)
        [limit] = await opened.budget()
        assert (limit.used, limit.outstanding) == (15, 0)

    run(work, [counted()], store=store, budget={"max_tokens_total": 5000})


def test_after_a_restart_what_is_set_aside_is_known_from_the_log() -> None:
    store = MemoryStore()
    options: dict[str, Any] = {"default_agent": {"model": "scripted:any", "params": {"maxTokens": 100}}}

    async def first() -> str:
        gate = Gate()
        async with runtime(
            store=store, models=Models({"scripted": gate}), budget={"max_tokens_total": 400}, **options
        ) as one:
            bot = await one.image("bot")
            sent = await one.send(bot.id, "hi")
            async for event in sent:
                if event.type == "text_delta":
                    break
            return bot.session_id

    async def second(session_id: str) -> None:
        async with runtime([counted()], store=store, **options) as two:
            heard = Heard(two)
            await heard.until(JobSucceeded.type)
            [limit] = await two.budget()
            # The call that was under way is spent as it was set aside, for nobody knows what it cost.
            assert 100 < limit.used < 400 and limit.used + limit.outstanding <= 400  # type: ignore[operator]

    session_id = asyncio.run(asyncio.wait_for(first(), 20))
    asyncio.run(asyncio.wait_for(second(session_id), 20))
    everything_replays(MemoryLog(store))


def test_a_session_that_nobody_took_up_is_left_alone_and_keeps_what_it_has() -> None:
    store = MemoryStore()
    options: dict[str, Any] = {"default_agent": {"model": "scripted:any", "params": {"maxTokens": 100}}}

    async def first() -> None:
        async with runtime(
            store=store, models=Models({"scripted": Gate()}), budget={"max_tokens_total": 400}, **options
        ) as one:
            bot = await one.image("bot")
            async for event in await one.send(bot.id, "hi"):
                if event.type == "text_delta":
                    break

    async def second() -> None:
        async with runtime([counted()], store=store, recover=False, **options) as two:
            bot = await two.image("other", params={"maxTokens": 300})
            assert (await bot.send("hi")).status == "succeeded", "there is enough beside what it holds"
            [session] = two.log.streams("session-", owing=True)
            told = [each.data for stored in two.log.read("ledger-default") for each in codec.unpack(stored)]
            holds = {event.session_id for event in told if isinstance(event, Allotted)}
            gave = {event.session_id for event in told if isinstance(event, AllotmentReturned)}
            assert session.removeprefix("session-") in holds - gave, "it owes what it owed, and holds what it held"

    asyncio.run(asyncio.wait_for(first(), 20))
    asyncio.run(asyncio.wait_for(second(), 20))


def test_usage_of_a_call_that_was_interrupted_is_counted() -> None:
    """CHECKLIST h: usage recorded only on success."""
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


# -- warn and degrade --


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


# -- asking a person to raise a limit --

ASKS = {"max_requests_daily": 1, "on_breach": "ask"}


def test_a_person_raises_a_limit_and_the_job_goes_on() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        assert (await bot.send("hi")).status == "succeeded"
        run = await opened.send(bot.id, "again")
        first = await run.result()
        assert first.status == "waiting" and first.action is not None
        action = await opened.action(first.action)
        assert action.payload["raise_by"] == 1
        shown = "\n".join(asking(action))
        assert "max_requests_daily of the scope is 1: 1 used or set aside, 1 more wanted." in shown
        assert "Raise it by 1, to 2?" in shown and "The runtime asks" in shown
        await opened.resolve_action(first.action, True)
        assert (await run.result()).status == "succeeded"
        with pytest.raises(ActionOver):
            await opened.resolve_action(first.action, False)
        [limit] = await opened.budget()
        assert (limit.most, limit.used) == (2, 2)
        [raised] = [event for event in ledger_of(opened.log) if isinstance(event, BudgetRaised)]
        assert (raised.consent.principal, raised.consent.by, raised.consent.most) == (opened.principal, 1, 1)

    run(work, [counted()], store=store, budget=ASKS)
    everything_replays(MemoryLog(store))


def test_a_person_does_not_raise_it_and_the_job_ends_as_it_would_have() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        await opened.set_budget({"max_requests_daily": 0, "on_breach": "ask"})
        run = await opened.send(bot.id, "hi")
        first = await run.result()
        assert first.action is not None
        await opened.resolve_action(first.action, False)
        ended = await run.result()
        assert ended.failure is not None and ended.failure.code == "budget_exceeded"
        assert [limit.most for limit in await opened.budget()] == [0]

    run(work, [counted()])


def test_nobody_answers_and_the_job_ends_as_it_would_have() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", approval_timeout_s=0.05)
        await opened.set_budget({"max_requests_daily": 0, "on_breach": "ask"})
        heard = Heard(opened)
        await opened.send(bot.id, "hi")
        ended = await heard.until(JobFailed.type)
        assert ended.data.failure.code == "budget_exceeded"

    run(work, [counted()])


def test_a_consent_is_kept_over_restarts_and_raises_once() -> None:
    """Asked in one process, given in another without the session's tools, gone on with in a third."""
    store = MemoryStore()
    options: dict[str, Any] = {"store": store, "budget": {"max_requests_daily": 1, "on_breach": "ask"}}

    async def first() -> tuple[str, str]:
        async with runtime([counted()], **options) as one:
            bot = await one.image("bot")
            assert (await bot.send("hi")).status == "succeeded"
            asked = await (await one.send(bot.id, "again", key="again")).result()
            assert asked.action is not None
            return bot.id, asked.action

    async def second(action: str) -> None:
        async with runtime([counted()], recover=False, armed=False, **options) as two:
            await two.resolve_action(action, True)

    async def third() -> None:
        for _ in range(2):
            async with runtime([counted()], **options) as three:
                assert (await (await three.send(bot_id, "again", key="again")).result()).status == "succeeded"
                [limit] = await three.budget()
                assert (limit.most, limit.used) == (2, 2), "what a program sets at every start undoes no consent"

    bot_id, action = asyncio.run(asyncio.wait_for(first(), 20))
    asyncio.run(asyncio.wait_for(second(action), 20))
    asyncio.run(asyncio.wait_for(third(), 20))
    assert len([event for event in ledger_of(MemoryLog(store)) if isinstance(event, BudgetRaised)]) == 1
    everything_replays(MemoryLog(store))


def test_each_session_asks_for_itself_and_a_consent_counts_for_the_limit_as_it_was_shown() -> None:
    """Two people are shown 1, and asked for 2. When both said yes it is 2, and the second is asked for 4."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bots = [await opened.image() for _ in range(4)]
        runs = [await opened.send(bot.id, "hi") for bot in bots]
        firsts = [await each.result() for each in runs]
        waiting = [(run, first.action) for run, first in zip(runs, firsts, strict=True) if first.action is not None]
        assert len(waiting) == 3
        (one, yes), (two, void), (three, no) = waiting
        for _, each in waiting:
            assert (await opened.action(each)).payload["question"].endswith("Raise it by 1, to 2?")
        await opened.resolve_action(yes, True)
        assert (await one.result()).status == "succeeded"
        await opened.resolve_action(void, True)
        again = await two.result()
        assert again.status == "waiting" and again.action not in (None, void)
        assert [limit.most for limit in await opened.budget()] == [2]
        payload = (await opened.action(again.action)).payload
        assert (payload["most"], payload["raise_by"]) == (2, 2)
        await opened.resolve_action(again.action, True)
        assert (await two.result()).status == "succeeded"
        await opened.resolve_action(no, False)
        assert (await three.result()).status == "failed"
        [limit] = await opened.budget()
        assert (limit.most, limit.used, limit.strategy) == (4, 3, "ask")

    run(work, [counted()], store=store, budget=ASKS)
    everything_replays(MemoryLog(store))


def test_a_limit_of_a_run_is_raised_for_that_run() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        spec = BudgetSpec(max_turns=1, max_tokens=10**6, on_breach="ask")
        bot = await opened.image("bot", tools=["look"], budget=spec)
        for _ in range(2):
            run = await opened.send(bot.id, "hi")
            first = await run.result()
            assert first.status == "waiting" and first.action is not None
            assert (await opened.action(first.action)).payload["limit"] == "max_turns"
            await opened.resolve_action(first.action, True)
            assert (await run.result()).status == "succeeded"

    steps = [counted(tool_calls=[{"name": "look", "input": {"n": 1}}]), counted()]
    run(work, steps, store=store, tools=[look])
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


def test_a_released_allotment_is_a_fact_of_both_streams() -> None:
    """What a session lets go of, and what its ledger hears of it, are the same."""
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        for _ in range(3):
            bot = await opened.image()
            await bot.send("hi")

    run(work, [counted()], store=store, default_agent={"model": "scripted:any", "params": {"maxTokens": 100}},
        budget={"max_tokens_total": 420})  # fmt: skip
    log = MemoryLog(store)
    released = [
        (stream.removeprefix("session-"), recorded.data.ask, recorded.data.spent)
        for stream in log.streams("session-")
        for stored in log.read(stream)
        for recorded in codec.unpack(stored)
        if isinstance(recorded.data, AllotmentReleased)
    ]
    returned = [
        (event.session_id, event.ask, event.spent) for event in ledger_of(log) if isinstance(event, AllotmentReturned)
    ]
    assert released and set(released) == set(returned)
