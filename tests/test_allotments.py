"""Allotments over the real kernel: what a session is given by its ledger, who waits for one, and how it comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact import BudgetExceededError, Ledger, RuntimeLedgerWriter, tool
from reenact.actors.clock import ManualClock
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events import codec
from reenact.events.agent import ModelCalled, ToolSettled, ToolStarted
from reenact.events.budget import Budget
from reenact.events.ledger import AllotmentReturned, Allotted
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.purse import AllotmentReleased, AllotmentWanted
from reenact.events.session import JobFailed, JobStarted, JobSucceeded
from reenact.money.line import Line
from reenact.runtime import Runtime
from tests.actors.test_laws import causes
from tests.money import counted, everything_replays, ledger_of, look
from tests.runtimes import Gate, Heard, run, runtime

FEW: dict[str, Any] = {
    "default_agent": {"model": "scripted:any", "params": {"maxTokens": 100}},
    "budget": {"max_tokens_total": 5000},
}
"""So few tokens that what rests in some sessions is missed by another."""


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


def paying() -> tuple[Any, list[int]]:
    """A tool that a person must allow, and what it paid."""
    paid: list[int] = []

    @tool(name="pay", effect="idempotent", approval="ask")
    async def pay(n: int) -> str:
        """Pay."""
        paid.append(n)
        return "paid"

    return pay, paid


@pytest.mark.parametrize("lowered", [False, True])
def test_a_limit_of_tool_calls_binds_those_that_people_allow(lowered: bool) -> None:
    """Given calls in three sessions that wait for a person, when all are allowed, then no more begin than it has."""
    store, (pay, paid) = MemoryStore(), paying()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        for _ in range(3):
            assert (await (await opened.image()).send("go")).status == "waiting"
        if lowered:
            await opened.set_budget(Budget(max_tool_calls_daily=0))
        for question in await opened.actions():
            await opened.resolve_action(question.id, True)
        await heard.until(ToolSettled.type, 15)
        [limit] = await opened.budget()
        assert limit.used == len(paid) == (0 if lowered else 2)

    steps = [counted(tool_calls=[{"name": "pay", "input": {"n": n}} for n in range(5)]), counted()]
    run(work, steps, store=store, tools=[pay], budget={"max_tool_calls_daily": 2})
    everything_replays(MemoryLog(store))


def test_what_people_allow_after_midnight_counts_in_the_day_in_which_it_begins() -> None:
    """Given calls in three sessions that were asked for in the evening, when all are allowed in the night."""
    store, (pay, paid), clock = MemoryStore(), paying(), ManualClock()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        for _ in range(3):
            assert (await (await opened.image()).send("go")).status == "waiting"
        clock.move(s=12 * 3600)
        for question in await opened.actions():
            await opened.resolve_action(question.id, True)
        await heard.until(ToolSettled.type, 3)
        [limit] = await opened.budget()
        assert limit.used == len(paid) == 3

    steps = [counted(tool_calls=[{"name": "pay", "input": {"n": 1}}]), counted()]
    run(work, steps, store=store, tools=[pay], budget={"max_tool_calls_daily": 100}, clock=clock)
    everything_replays(MemoryLog(store))


def test_a_limit_of_tool_calls_binds_those_that_run_on_leave() -> None:
    store, (pay, paid) = MemoryStore(), paying()

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot = await opened.image()
        assert (await bot.send("go")).status == "waiting"
        [question] = await opened.actions()
        await opened.resolve_action(question.id, True, always="exact")
        await heard.until(ToolSettled.type)
        assert [(await bot.send("go")).status for _ in range(2)] == ["succeeded", "failed"]
        assert paid == [1, 1]

    steps = [counted(tool_calls=[{"name": "pay", "input": {"n": 1}}]), counted()]
    run(work, steps, store=store, tools=[pay], budget={"max_tool_calls_daily": 2})
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize(("limit", "asked"), [(3, 3), (6, 8), (20, 30), (20, 19)])
@pytest.mark.parametrize("alone", [False, True])
def test_an_answer_that_asks_for_more_calls_of_tools_than_are_left_has_as_many_run(
    limit: int, asked: int, alone: bool
) -> None:
    """Given one call that was made and what its session holds, when so many are asked for at once."""
    store = MemoryStore()

    def script(request: Any, seen: Any) -> Any:
        calls = [{"name": "look", "input": {"n": n}} for n in range(int(seen.said))]
        return counted() if seen.results else counted(tool_calls=calls)

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        bot, other = await opened.image(tools=["look"]), await opened.image(tools=["look"])
        assert (await bot.send("1")).status == "succeeded"
        result = await (bot if alone else other).send(str(asked))
        assert result.status == ("failed" if asked >= limit else "succeeded")
        [left] = await opened.budget()
        assert left.used == len(heard.of(ToolStarted.type)) == min(limit, 1 + asked)

    models = Models({"scripted": Scripted(script, repeat=True)})
    budget = {"max_tool_calls_daily": limit}
    run(work, models=models, store=store, tools=[look], budget=budget, default_agent={"model": "scripted:any"})
    everything_replays(MemoryLog(store))


def test_many_sessions_at_once_never_spend_more_than_there_is() -> None:
    """N parallel requests that would all pass a check made before."""
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


# -- who waits --


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


def test_who_waits_behind_others_is_not_woken_by_what_they_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times as many who wait look at the line three times as often, and not nine times."""
    looks = 0
    look = Line._is_behind

    def looked(line: Line, waiter: Any) -> bool:
        nonlocal looks
        looks += 1
        return look(line, waiter)

    monkeypatch.setattr(Line, "_is_behind", looked)

    async def work(opened: Runtime) -> None:
        nonlocal looks
        most = []
        for many in (20, 60):
            looks = 0
            bots = [await opened.image() for _ in range(many)]
            results = await asyncio.gather(*(asyncio.ensure_future(bot.send("hi").result()) for bot in bots))
            assert [result.failure for result in results] == [None] * many
            most.append(looks)
        assert most[1] < 4 * most[0], most

    default = {"model": "scripted:any", "params": {"maxTokens": 4000}}
    run(work, [counted()], default_agent=default, budget={"max_tokens_daily": 10_000})


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
        assert opened._treasury.line._waiting == []

    options: dict[str, Any] = {"model": "scripted:any", "params": {"maxTokens": 100}, "systemPrompt": ""}
    run(work, models=Models({"scripted": gate}), default_agent=options, budget={"max_tokens_total": 200})


def test_nobody_waits_for_ever_for_a_call_that_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reenact.money.line.WAIT_MAX_S", 0.05)
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


# -- what comes back --


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

    run(work, [counted()], store=store, **FEW)
    everything_replays(MemoryLog(store))


def test_what_resting_sessions_hold_is_taken_back_before_a_program_is_denied() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        for _ in range(5):
            assert (await (await opened.image()).send("hi")).status == "succeeded"
        [limit] = await opened.budget()
        wanted = 5000 - int(limit.used)
        assert int(limit.left) < wanted
        book = Ledger(RuntimeLedgerWriter(opened))
        async with book.reserve(tokens=wanted):
            [limit] = await opened.budget()
            assert (limit.outstanding, limit.left) == (wanted, 0)
            with pytest.raises(BudgetExceededError):  # another block is not waited for
                async with book.reserve(tokens=1):
                    pass

    run(work, [counted()], store=store, **FEW)
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


# -- a restart --


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
