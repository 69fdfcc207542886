"""A ledger beside a runtime: seed 003's names, over the same rules."""

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
    InMemoryLedgerWriter,
    Ledger,
    LedgerEvent,
    LedgerEventType,
    RuntimeLedgerWriter,
)
from reenact.actors.clock import ManualClock
from reenact.events.errors import BadInput
from reenact.runtime import Runtime
from tests.runtimes import run

ANN = SimpleNamespace(scope_id="tenant-123", principal_id="ann", session_id=None, run_id="r", job_id="j")
BOB = SimpleNamespace(scope_id="tenant-123", principal_id="bob", session_id=None, run_id="r", job_id="j")


def ledger(clock: ManualClock | None = None, **limits: Any) -> Ledger:
    made = Ledger(InMemoryLedgerWriter(clock or ManualClock()))
    if limits:
        made.set_budget(Budget(scope_id="tenant-123", **limits))
    return made


def test_the_example_of_the_seed() -> None:
    async def work() -> None:
        book = ledger(max_tokens_daily=1_000_000, max_cost_daily=Decimal("100.00"), warning_threshold=0.8)
        decision, reason = await book.check_budget(ANN, pending_tokens=5000, pending_cost=Decimal("0.15"))
        assert (decision, reason) == (BudgetDecision.ALLOW, "")
        await book.record_model_usage(
            ANN, {"input_tokens": 1000, "output_tokens": 500, "total_cost": 0.045}, provider="openai", model="gpt-4"
        )
        await book.record_tool_usage(ANN, tool_name="search", duration_ms=123.4)
        usage = await book.get_usage("tenant-123", "ann")
        assert (usage.total_tokens, usage.total_cost, usage.requests, usage.tool_calls) == (
            1500,
            Decimal("0.045"),
            1,
            1,
        )
        newest, first = await book.list_events("tenant-123")
        assert (newest.type, newest.tool_name, first.model) == (LedgerEventType.TOOL_USAGE, "search", "gpt-4")
        assert [
            event.cost for event in await book.list_events("tenant-123", event_type=LedgerEventType.MODEL_USAGE)
        ] == ["0.045"]
        assert len(await book.list_events("tenant-123", limit=1)) == 1

    asyncio.run(work())


def test_a_denial_is_raised_where_it_is_required_and_recorded() -> None:
    async def work() -> None:
        book = ledger(max_tokens_total=100)
        await book.record_model_usage(ANN, {"input_tokens": 60, "output_tokens": 0})
        with pytest.raises(BudgetExceededError, match="max_tokens_total of the scope is 100: 60 used"):
            await book.require_budget(BOB, pending_tokens=41)
        [check] = await book.list_events("tenant-123", event_type=LedgerEventType.BUDGET_CHECK)
        assert check.metadata["decision"] == "deny"
        assert (await book.check_budget(BOB, pending_tokens=40))[0] is BudgetDecision.WARN

    asyncio.run(work())


def test_many_who_reserve_at_once_pass_no_limit() -> None:
    async def work() -> None:
        book, went = ledger(max_tokens_total=100), []

        async def one() -> None:
            try:
                async with book.reserve(ANN, tokens=30):
                    await asyncio.sleep(0)
                    await book.record_model_usage(ANN, {"input_tokens": 20, "output_tokens": 0})
                    went.append(1)
            except BudgetExceededError:
                pass

        await asyncio.gather(*(one() for _ in range(10)))
        assert len(went) == 3
        assert (await book.get_usage("tenant-123")).total_tokens == 60
        async with book.reserve(ANN, tokens=40):
            pass

    asyncio.run(work())


def test_windows_are_those_of_the_clock_it_was_given() -> None:
    async def work() -> None:
        clock = ManualClock()
        book = ledger(clock, max_requests_per_minute=1, max_tokens_daily=100)
        await book.record_model_usage(ANN, {"input_tokens": 100, "output_tokens": 0})
        assert (await book.check_budget(ANN, pending_requests=1))[0] is BudgetDecision.DENY
        clock.move(s=61)
        assert (await book.check_budget(ANN, pending_requests=1))[0] is not BudgetDecision.DENY
        assert (await book.check_budget(ANN, pending_tokens=1))[0] is BudgetDecision.DENY
        clock.move(s=24 * 3600)
        assert (await book.check_budget(ANN, pending_tokens=1))[0] is BudgetDecision.ALLOW

    asyncio.run(work())


def test_more_entries_than_are_listed_still_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """CHECKLIST f: a list that is trimmed resets nothing."""
    from reenact import budgets

    monkeypatch.setattr(budgets, "ENTRIES_MAX", 10)

    async def work() -> None:
        book = ledger()
        for _ in range(50):
            await book.record_model_usage(ANN, {"input_tokens": 1, "output_tokens": 0})
        assert (await book.get_usage("tenant-123")).total_tokens == 50
        assert len(await book.list_events("tenant-123")) == 10

    asyncio.run(work())


def test_what_was_used_outside_counts_against_the_sessions_of_a_runtime() -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        await book.record_model_usage(None, {"input_tokens": 490, "output_tokens": 0})
        bot = await opened.image("bot")
        result = await bot.send("hi")
        assert result.failure is not None and "490 used" in result.failure.message
        await book.writer.write(LedgerEvent(event_id="once", input_tokens=1))
        await book.writer.write(LedgerEvent(event_id="once", input_tokens=1))
        assert (await book.get_usage()).total_tokens == 491
        with pytest.raises(BadInput, match="works for the scope"):
            await book.record_model_usage(ANN, {"input_tokens": 1})

    run(work, budget={"max_tokens_total": 500})


@pytest.mark.parametrize(
    "usage",
    [{"input_tokens": -1}, {"input_tokens": True}, {"total_cost": "much"}, {"total_cost": float("nan")}, {"cost": -1}],
    ids=repr,
)
def test_usage_that_is_none_is_refused(usage: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        asyncio.run(ledger().record_model_usage(ANN, usage))
    with pytest.raises(BadInput):
        asyncio.run(ledger().check_budget(ANN, pending_tokens=-1))


@pytest.mark.parametrize("stored", [False, True])
def test_a_record_that_was_handed_out_changes_nothing_of_what_the_ledger_holds(stored: bool) -> None:
    async def work(book: Ledger) -> None:
        book.set_budget(Budget(max_tokens_total=100))
        mine = LedgerEvent(total_tokens=60, principal_id="ann", metadata={"why": "test"})
        await book.writer.write(mine)
        mine.metadata["why"] = "changed behind its back"
        [theirs] = await book.list_events()
        theirs.metadata["why"] = "changed in the list"
        (await book.list_events()).clear()
        usage = await book.get_usage()
        for record, name in (
            (usage, "total_tokens"),
            (theirs, "total_tokens"),
            (Budget(max_tokens_total=1), "scope_id"),
        ):
            with pytest.raises(AttributeError):
                setattr(record, name, 0)
        state = await book.writer.state("default")
        with pytest.raises(AttributeError):
            state.sums = {}
        assert [event.metadata for event in await book.list_events()] == [{"why": "test"}]
        assert (await book.get_usage()).total_tokens == 60
        assert (await book.check_budget(pending_tokens=41))[0] is BudgetDecision.DENY

    async def both() -> None:
        if not stored:
            return await work(Ledger(InMemoryLedgerWriter(ManualClock())))
        async with Runtime() as runtime:
            await work(Ledger(RuntimeLedgerWriter(runtime)))

    asyncio.run(both())
