"""Limits that a person is asked to raise: the job waits, and goes on or ends by the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact.events.budget import BudgetSpec
from reenact.events.errors import ActionOver
from reenact.events.ledger import BudgetRaised
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.session import JobFailed
from reenact.projections.asking import asking
from reenact.runtime import Runtime
from tests.money import counted, everything_replays, ledger_of, look
from tests.runtimes import Heard, run, runtime

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
