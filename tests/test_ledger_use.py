"""A ledger as programs use it: limits set while many ask, what a tool uses, what is checked."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from reenact import (
    Budget,
    BudgetDecision,
    BudgetExceededError,
    Ledger,
    LedgerEvent,
    RuntimeLedgerWriter,
    ToolContext,
    tool,
)
from reenact.events import codec
from reenact.events.errors import BadInput
from reenact.projections.meter import ModelUse, uses
from reenact.runtime import Runtime
from tests.money import counted, dear, look
from tests.runtimes import run

# -- limits that were set, and many who are the first --


def test_given_limits_that_are_not_in_force_yet_when_many_check_at_once_all_are_held_to_them() -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        for number in range(4):
            book.set_budget(Budget(principal_id=f"p{number}", max_requests_daily=5))
        last = SimpleNamespace(principal_id="p3")
        said = await asyncio.gather(*(book.check_budget(last, pending_requests=6) for _ in range(50)))
        assert {decision for decision, _ in said} == {BudgetDecision.DENY}
        assert [budget.principal_id for budget in opened.budgets] == ["p0", "p1", "p2", "p3"]

    run(work)


def test_given_a_check_that_is_cancelled_while_limits_are_set_the_next_finds_them_in_force() -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        for number in range(3):
            book.set_budget(Budget(principal_id=f"p{number}", max_requests_daily=5))
        first = asyncio.ensure_future(book.check_budget())
        second = asyncio.ensure_future(book.check_budget(SimpleNamespace(principal_id="p2"), pending_requests=6))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second)[0] is BudgetDecision.DENY
        assert [budget.principal_id for budget in opened.budgets] == ["p0", "p1", "p2"]

    run(work)


def test_given_a_limit_that_the_program_set_when_a_tool_is_the_first_to_ask_it_is_in_force() -> None:
    said: list[str] = []

    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))

        @tool
        async def spend() -> str:
            """Ask a model that is none of the runtime's."""
            try:
                async with book.reserve(cost="1", requests=1):
                    await book.record_model_usage(None, {"input_tokens": 1, "cost": "1"})
                    said.append("spent")
            except BudgetExceededError:
                said.append("refused")
            return said[-1]

        opened.tools.add(spend)
        book.set_budget(Budget(max_cost_daily="1.50"))
        book.set_budget(Budget(principal_id="ann", max_cost_daily="1"))
        bot = await opened.image("bot")
        for _ in range(3):
            assert (await bot.send("hi")).status == "succeeded"
        assert said == ["spent", "refused", "refused"]
        assert [budget.principal_id for budget in opened.budgets] == [None, "ann"]
        assert [use.used for use in await opened.budget()] == ["1", "0"]

    run(work, [{"tool_calls": [{"name": "spend", "input": {}}]}, {"text": "done"}], repeat=True)


# -- what a tool uses --


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_given_a_tool_that_asks_a_model_outside_it_counts_for_whoever_sent_its_job(told: bool, stored: bool) -> None:
    said: list[str] = []

    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened) if stored else None)

        @tool
        async def spend(context: ToolContext) -> str:
            """Ask a model that is none of the runtime's."""
            ctx = context if told else None
            allowed = (await book.check_budget(ctx, pending_cost="1"))[0]
            try:
                async with book.reserve(ctx, cost="1", requests=1):
                    await book.record_model_usage(ctx, {"input_tokens": 1, "cost": "1"})
                    said.append(f"spent, {allowed}")
            except BudgetExceededError:
                said.append(f"refused, {allowed}")
            return said[-1]

        opened.tools.add(spend)
        book.set_budget(Budget(principal_id="alice", max_cost_daily="1.50"))
        await book.check_budget()  # it is in force before anything is under way
        bot = await opened.image("bot")
        for name in ("alice", "bob", "alice", "bob", "alice"):
            sent = await opened.scoped(principal=name).send(bot.id, "hi")
            assert (await sent.result()).status == "succeeded"
        assert said == ["spent, allow", "spent, allow", "refused, deny", "spent, allow", "refused, deny"]
        assert [(await book.get_usage(None, name)).total_cost for name in ("alice", "bob")] == [1, 2]

    run(work, [{"tool_calls": [{"name": "spend", "input": {}}]}, {"text": "done"}], repeat=True)


def test_given_sessions_under_no_limit_under_one_and_after_it_what_was_used_is_what_it_cost() -> None:
    async def work(opened: Runtime) -> None:
        book, bot = Ledger(RuntimeLedgerWriter(opened)), await opened.image("bot", tools=["look"])

        async def used() -> list[tuple[int, int, int, Decimal]]:
            found = [await book.get_usage(None, name) for name in ("ann", "bob", None)]
            return [(each.requests, each.tool_calls, each.total_tokens, each.total_cost) for each in found]

        async def cost(name: str | None) -> tuple[int, int, int, Decimal]:
            every = [recorded for stored in opened.log.read_all() for recorded in codec.unpack(stored)]
            mine = [each for each in uses(every) if name in (None, each.principal)]
            calls = [each for each in mine if isinstance(each, ModelUse)]
            told = [(each.usage.input_tokens + each.usage.output_tokens, each.amount) for each in calls if each.usage]
            amount = sum((each or Decimal(0) for _, each in told), Decimal(0))
            return len(calls), len(mine) - len(calls), sum(tokens for tokens, _ in told), amount

        calls = 0
        for limit in (None, {"max_cost_daily": 5}, None, "9"):
            if calls:
                await (opened.remove_budget() if limit is None else opened.set_budget(limit))
                assert await used() == [await cost(name) for name in ("ann", "bob", None)]
            for name in ("ann", "bob", "ann"):
                assert (await (await opened.scoped(principal=name).send(bot.id, "hi")).result()).status == "succeeded"
                calls += 2
                assert await used() == [await cost(name) for name in ("ann", "bob", None)]
                assert (await used())[2][0] == calls
        await book.record_model_usage(None, {"input_tokens": 1, "cost": "1"})
        assert await used() == [await cost(name) for name in ("ann", "bob", None)]
        assert (await used())[2][3] > 1

    steps = [counted(tool_calls=[{"name": "look", "input": {"n": 1}}]), counted()]
    run(work, tools=[look], **dear(*steps))


def test_given_an_entry_of_an_older_release_when_a_tool_tells_it_again_it_is_known() -> None:
    entry, told = LedgerEvent(event_id="e1", input_tokens=10), []

    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))

        @tool
        async def spend() -> str:
            """Tell again what it told."""
            await book.writer.write(entry)
            told.append(entry)
            return "told"

        opened.tools.add(spend)
        await book.writer.write(entry)  # as it was told before: for nobody
        bot = await opened.image("bot")
        for name in ("alice", "bob"):
            await (await opened.scoped(principal=name).send(bot.id, "hi")).result()
        assert len(told) == 2 and [known.principal_id for known in await book.list_events()] == [None]

    run(work, [{"tool_calls": [{"name": "spend", "input": {}}]}, {"text": "done"}], repeat=True)


# -- what is checked --

DENY, WARN, ALLOW = BudgetDecision.DENY, BudgetDecision.WARN, BudgetDecision.ALLOW


@pytest.mark.parametrize(
    ("limits", "pending", "said"),
    [
        ({"max_requests_daily": 2}, {}, DENY),
        ({"max_requests_daily": 2}, {"pending_tokens": 5, "pending_cost": "0.15"}, DENY),
        ({"max_requests_daily": 3}, {}, WARN),
        ({"max_requests_daily": 2}, {"pending_requests": 0}, WARN),
        ({"max_requests_daily": 2, "exceed_strategy": "warn"}, {}, WARN),
        ({"max_requests_daily": 2, "exceed_strategy": "degrade"}, {}, BudgetDecision.DEGRADE),
        ({"max_requests_per_minute": 2}, {}, DENY),
        ({"max_tokens_total": 20}, {}, DENY),
        ({"max_tokens_daily": 20}, {"pending_tokens": 0}, DENY),
        ({"max_tokens_total": 30}, {"pending_tokens": 10}, WARN),
        ({"max_tokens_total": 30}, {"pending_tokens": 11}, DENY),
        ({"max_cost_monthly": "0.5"}, {}, DENY),
        ({"max_cost_total": "0.500000001"}, {}, WARN),
        ({"max_cost_total": 0}, {}, DENY),
        ({"max_tool_calls_daily": 1}, {"pending_tool_calls": 1}, DENY),
        ({"max_tool_calls_daily": 2}, {"pending_tool_calls": 1}, WARN),
        ({"max_tool_calls_daily": 1}, {}, WARN),
        ({"max_tokens_total": 20, "max_requests_daily": 2}, {"pending_tool_calls": 1}, WARN),
        ({"max_requests_daily": 2}, {"pending_tool_calls": 1, "pending_tokens": 1}, DENY),
        ({"max_tokens_total": 1000}, {}, ALLOW),
    ],
    ids=repr,
)
def test_given_two_requests_of_ten_tokens_and_a_tool_a_check_says_whether_there_may_be_one_more(
    limits: dict[str, Any], pending: dict[str, Any], said: BudgetDecision
) -> None:
    async def work() -> None:
        book = Ledger()
        book.set_budget(Budget(**limits))
        for _ in range(2):
            await book.record_model_usage(None, {"input_tokens": 5, "output_tokens": 5, "cost": "0.25"})
        await book.record_tool_usage(None, tool_name="look")
        assert (await book.check_budget(None, **pending))[0] is said

    asyncio.run(work())


def test_a_limit_finer_than_a_nano_dollar_is_refused() -> None:
    for cost in ("0.0000000375", 0.1 + 0.2, "1e-3"):
        with pytest.raises(BadInput, match="in steps of a nano-dollar"):
            Budget(max_cost_total=cost)
