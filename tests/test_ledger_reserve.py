"""What programs set aside in a ledger: held to every limit, counted once, given back whatever is cancelled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from reenact import (
    Budget,
    BudgetDecision,
    BudgetExceededError,
    InMemoryLedgerWriter,
    Ledger,
    RuntimeLedgerWriter,
)
from reenact.actors.book import SCOPE
from reenact.actors.calendar import DAY_US
from reenact.actors.clock import ManualClock
from reenact.events.budget import NOTHING
from reenact.events.ledger import RecordUsage
from reenact.events.log import MemoryLog, MemoryStore
from reenact.runtime import Runtime
from tests.actors.ledgers import NOON, allot, granted, ledger, limit
from tests.money import everything_replays
from tests.runtimes import run, runtime

NIGHT = 1_748_908_740_000_000  # a minute before midnight UTC
ONE = SimpleNamespace(session_id="s1", principal_id="ann")
OTHER = SimpleNamespace(session_id="s2", principal_id="ann")


async def reserved_at_once(book: Ledger, ctx: Any, many: int, **wanted: Any) -> int:
    """How many of so many are let in; they leave when all have tried."""
    tried, all_tried, went = 0, asyncio.Event(), 0

    async def one() -> None:
        nonlocal tried, went
        try:
            async with book.reserve(ctx, **wanted):
                went, tried = went + 1, tried + 1
                if tried == many:
                    all_tried.set()
                await all_tried.wait()
        except BudgetExceededError:
            tried += 1
            if tried == many:
                all_tried.set()

    await asyncio.gather(*(one() for _ in range(many)))
    return went


@pytest.mark.parametrize("stored", [False, True])
def test_given_a_limit_of_a_session_what_is_reserved_for_it_is_held_to_it(stored: bool) -> None:
    store = MemoryStore()

    async def work() -> None:
        async with runtime(store=store) as opened:
            book = Ledger(RuntimeLedgerWriter(opened) if stored else None)
            book.set_budget(Budget(session_id="s1", max_requests_daily=5, max_cost_total="1"))
            assert await reserved_at_once(book, ONE, 20, requests=1) == 5
            assert await reserved_at_once(book, ONE, 20, cost="0.3") == 3
            assert await reserved_at_once(book, ONE, 20, cost="0.5") == 2
            assert await reserved_at_once(book, OTHER, 20, requests=1) == 20
            async with book.reserve(ONE, requests=5):
                assert (await book.check_budget(ONE, pending_requests=1))[0] is BudgetDecision.DENY
                assert (await book.check_budget(OTHER, pending_requests=1))[0] is BudgetDecision.ALLOW
            assert (await book.check_budget(ONE, pending_requests=5))[0] is BudgetDecision.WARN

    asyncio.run(asyncio.wait_for(work(), 20))
    everything_replays(MemoryLog(store))


@pytest.mark.parametrize("stored", [False, True])
def test_given_a_reservation_what_is_recorded_in_it_counts_once(stored: bool) -> None:
    store = MemoryStore()

    async def work() -> None:
        async with runtime(store=store) as opened:
            book = Ledger(RuntimeLedgerWriter(opened) if stored else None)
            book.set_budget(Budget(max_tokens_total=20))
            book.set_budget(Budget(session_id="s1", max_tokens_daily=15, max_requests_daily=9))
            async with book.reserve(ONE, tokens=10):
                await book.record_model_usage(ONE, {"input_tokens": 5, "output_tokens": 4})
                async with book.reserve(ONE, tokens=5):
                    assert (await book.check_budget(ONE, pending_tokens=1))[0] is BudgetDecision.DENY
                await book.record_model_usage(ONE, {"input_tokens": 2, "output_tokens": 1})  # more than was left of it
                with pytest.raises(BudgetExceededError, match="12 used or set aside, 4 more wanted"):
                    async with book.reserve(ONE, tokens=4):
                        pass
            async with book.reserve(OTHER, tokens=8):
                pass
            assert (await book.get_usage()).total_tokens == 12

    asyncio.run(asyncio.wait_for(work(), 20))
    everything_replays(MemoryLog(store))


def test_given_room_for_more_a_reservation_holds_what_was_asked_for() -> None:
    begun = ledger(limit(max_tokens_total=10_000))
    assert granted(begun.when(allot("reserved:1:", tokens=10))).amount.tokens == 10
    assert granted(begun.when(allot("s1", tokens=10))).amount.tokens > 10


@pytest.mark.parametrize(
    ("limits", "tokens", "said"),
    [
        ({"max_tokens_per_request": 5}, 6, BudgetDecision.DENY),
        ({"max_tokens_per_request": 5, "exceed_strategy": "degrade", "degrade_to": "scripted:hello"}, 6, "degrade"),
        ({"max_tool_calls_daily": 0, "exceed_strategy": "degrade", "degrade_to": "scripted:hello"}, 1, "degrade"),
        ({"max_tokens_total": 5, "exceed_strategy": "warn"}, 6, BudgetDecision.WARN),
        ({"max_tokens_total": 10**8, "warning_threshold": 0.00004}, 4_000, BudgetDecision.ALLOW),
        ({"max_tokens_total": 10**8, "warning_threshold": 0.00004}, 4_001, BudgetDecision.WARN),
    ],
    ids=repr,
)
def test_a_check_says_what_a_reservation_of_as_much_is_told(limits: dict[str, Any], tokens: int, said: str) -> None:
    async def work() -> None:
        book = Ledger()
        await book.record_tool_usage(ONE, tool_name="look")
        book.set_budget(Budget(**limits))
        decision, why = await book.check_budget(ONE, pending_tokens=tokens, pending_requests=1, pending_cost="0.01")
        assert decision == said
        try:
            async with book.reserve(ONE, tokens=tokens, requests=1, cost="0.01") as reserved:
                assert reserved is decision
        except BudgetExceededError as error:
            assert (decision, str(error)) == (BudgetDecision.DENY, why)

    asyncio.run(work())


@pytest.mark.parametrize("stored", [False, True])
def test_given_reservations_that_last_over_midnight_what_is_recorded_in_them_counts_on_their_day(stored: bool) -> None:
    """Ten of ten are set aside on either day. What more is recorded than was set aside counts when it was used."""
    store, clock = MemoryStore(), ManualClock(NIGHT)

    async def work() -> None:
        async with runtime(store=store, clock=clock) as opened:
            book = Ledger(RuntimeLedgerWriter(opened) if stored else InMemoryLedgerWriter(clock))
            book.set_budget(Budget(max_requests_daily=10, max_cost_daily="1"))
            midnight = asyncio.Event()

            async def one(cost: str = "0.1") -> None:
                async with book.reserve(OTHER, cost="0.1", requests=1):
                    await midnight.wait()
                    await book.record_model_usage(OTHER, {"total_cost": cost})

            nightly = [asyncio.ensure_future(one()) for _ in range(9)]
            dearer = asyncio.ensure_future(one("0.15"))
            await asyncio.sleep(0.05)
            clock.move(s=120)
            midnight.set()
            await asyncio.gather(*nightly, dearer)
            assert (await book.get_usage()).requests == 10
            for _ in range(9):
                await one()
            with pytest.raises(BudgetExceededError, match=r"max_cost_daily of the scope is \$1: \$0.95 used"):
                await one()

    asyncio.run(asyncio.wait_for(work(), 20))
    everything_replays(MemoryLog(store))


class Slow(InMemoryLedgerWriter):
    """A ledger whose answers take until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.decided, self.answers = asyncio.Event(), asyncio.Event()

    async def put(self, scope_id: str, command: Any) -> Any:
        decided = await super().put(scope_id, command)
        self.decided.set()
        await self.answers.wait()
        return decided


def test_given_a_reservation_that_is_cancelled_before_it_has_its_answer_nothing_of_it_stays_set_aside() -> None:
    async def work() -> None:
        writer = Slow()
        book = Ledger(writer)

        async def block() -> None:
            async with book.reserve(cost="9"):
                raise AssertionError("it is not entered")

        entering = asyncio.ensure_future(block())
        await writer.decided.wait()
        assert (await writer.state("default")).sums[SCOPE].out != NOTHING
        entering.cancel()
        writer.answers.set()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert (await writer.state("default")).sums[SCOPE].out == NOTHING

    asyncio.run(asyncio.wait_for(work(), 20))


@pytest.mark.parametrize("entered", [False, True])
def test_given_reservations_that_are_cancelled_anywhere_all_of_it_is_there_afterwards(entered: bool) -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        book.set_budget(Budget(max_cost_daily=10))
        await book.check_budget()
        for turns in range(40):
            inside = asyncio.Event()

            async def block(inside: asyncio.Event = inside) -> None:
                async with book.reserve(cost="9"):
                    inside.set()

            task = asyncio.ensure_future(block())
            if entered:
                await inside.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            [use] = await opened.budget()
            assert (use.used, use.outstanding) == ("0", "0"), turns

    run(work)


def test_given_a_reservation_of_yesterday_what_is_recorded_in_it_after_midnight_leaves_today_as_it_was() -> None:
    late = NOON + DAY_US
    used = RecordUsage(entry="e", kind="model_usage", at=late, heard=late, total_tokens=10, holder="reserved:1:")
    after = ledger(limit(max_tokens_daily=10), allot("reserved:1:", tokens=10), used)
    assert granted(after.when(allot("b", tokens=10, at=late))).amount.tokens == 10


@pytest.mark.parametrize("used", [0, 10, 60, 70])
def test_what_was_reserved_and_is_over_or_was_denied_is_remembered_by_nobody(used: int) -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        await opened.set_budget(Budget(max_tokens_daily=200))
        writer = RuntimeLedgerWriter(opened)
        for book in (Ledger(writer), Ledger(InMemoryLedgerWriter())):
            book.set_budget(Budget(max_tokens_daily=200))
            for tokens in (60, 201, 60):
                with suppress(BudgetExceededError):
                    async with book.reserve(tokens=tokens):
                        assert writer._holders == opened._treasury.recalls.outside
                        await book.record_model_usage(usage={"input_tokens": used, "output_tokens": 0})
            with pytest.raises(BudgetExceededError, match=f"is 200: {2 * used} used or set aside, 201 more wanted"):
                async with book.reserve(tokens=201):
                    pass
            state = await book.writer.state(opened.scope)
            assert not state.accounts and state.sums[SCOPE].total.tokens == 2 * used
            assert state.sums[SCOPE].out == NOTHING
        assert writer._holders == opened._treasury.recalls.outside == set()

    run(work, store=store)
    everything_replays(MemoryLog(store))
