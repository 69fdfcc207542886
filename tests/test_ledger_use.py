"""A ledger as programs use it: many at once, what they set aside, what they check, what they record."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from decimal import Decimal
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from reenact import (
    Budget,
    BudgetDecision,
    BudgetExceededError,
    InMemoryLedgerWriter,
    Ledger,
    LedgerEvent,
    RuntimeLedgerWriter,
    ToolContext,
    tool,
)
from reenact.actors.book import SCOPE
from reenact.actors.calendar import DAY_US
from reenact.actors.clock import ManualClock
from reenact.adapters import prices
from reenact.events.budget import NOTHING
from reenact.events.content import Usage
from reenact.events.errors import BadInput, KeyReused
from reenact.events.ledger import RULES, AllotmentDenied, Allotted, RecordUsage
from reenact.events.log import MemoryLog, MemoryStore
from reenact.runtime import Runtime
from tests.actors.ledgers import NOON, allot, denied, granted, ledger, limit
from tests.money import everything_replays
from tests.runtimes import run, runtime

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


# -- what is set aside --

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
    assert granted(begun.when(allot("reserved:1", tokens=10))).amount.tokens > 10  # as older releases decided
    assert granted(begun.when(allot("s1", tokens=10))).amount.tokens > 10


def test_given_an_older_release_what_was_recorded_in_a_reservation_is_decided_as_it_was_then() -> None:
    """Its reservations have no session at their end; a denial that it wrote is still what these rules say."""
    used = RecordUsage(entry="e", kind="model_usage", at=NOON, total_tokens=10, holder="reserved:1")
    begun = (limit(max_tokens_total=20), allot("reserved:1", tokens=10), used)
    assert denied(ledger(*begun).when(allot("b", tokens=10))).used == 20


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


def test_given_an_older_release_what_was_recorded_in_a_reservation_after_midnight_is_decided_as_it_was_then() -> None:
    late = NOON + DAY_US
    used = RecordUsage(entry="e", kind="model_usage", at=late, heard=late, total_tokens=10, holder="reserved:1:")
    for rules in (1, RULES):
        asked = replace(allot("reserved:1:", tokens=10), rules=rules)
        after = ledger(limit(max_tokens_daily=10), asked, used)
        assert after.when(replace(allot("b", tokens=10, at=late), rules=rules)).error is None
        assert isinstance(after.events[-1], AllotmentDenied if rules == 1 else Allotted)


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


# -- what is recorded --


@pytest.mark.parametrize("stored", [False, True])
def test_given_an_entry_that_comes_twice_it_counts_once_and_another_by_its_id_is_refused(stored: bool) -> None:
    """A program that tells it again does so later, and in no reservation or in another."""
    store, clock = MemoryStore(), ManualClock()
    entry = LedgerEvent(event_id="e", input_tokens=5, cost="0.045", model="gpt-4", metadata={"a": "1", "b": "2"})
    others = [{"cost": "3"}, {"input_tokens": 6}, {"model": "other"}, {"principal_id": "ann"}, {"timestamp": 1.0}]

    async def told(book: Ledger) -> None:
        await book.writer.write(entry)
        clock.move(s=60)
        await book.writer.write(replace(entry, metadata={"b": "2", "a": "1"}))
        async with book.reserve(cost="1"):
            await book.writer.write(entry)
        for other in others:
            with pytest.raises(KeyReused):
                await book.writer.write(replace(entry, **other))
        found = await book.list_events()
        assert ([each.cost for each in found], (await book.get_usage()).requests) == (["0.045"], 1)

    async def work() -> None:
        async with runtime(store=store, clock=clock) as opened:
            await told(Ledger(RuntimeLedgerWriter(opened) if stored else InMemoryLedgerWriter(clock)))
        async with runtime(store=store, clock=clock) as opened:
            if stored:
                await told(Ledger(RuntimeLedgerWriter(opened)))

    asyncio.run(asyncio.wait_for(work(), 20))
    everything_replays(MemoryLog(store))


def test_given_an_entry_of_an_older_release_its_id_alone_says_that_it_is_known() -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        await book.writer.put("default", RecordUsage(entry="e", kind="model_usage", at=1, heard=opened.clock.now()))
        await book.writer.write(LedgerEvent(event_id="e", input_tokens=5))
        assert len(await book.list_events()) == 1

    run(work)


def test_given_more_ids_than_a_writer_in_memory_knows_again_the_oldest_are_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reenact.money.writers.ENTRIES_MAX", 3)

    async def work() -> None:
        book = Ledger()
        for number in (1, 2, 3, 4, 2, 1):
            await book.writer.write(LedgerEvent(event_id=f"e{number}", input_tokens=5))
        assert (await book.get_usage()).requests == 5

    asyncio.run(work())


@pytest.mark.parametrize(
    ("cost", "counted"),
    [
        ("0.0000000375", "0.000000038"),
        (0.0000000375, "0.000000038"),
        ("3.75e-08", "0.000000038"),
        (Decimal("0.0000000375"), "0.000000038"),
        (0.1 + 0.2, "0.300000001"),
        (1e-300, "0.000000001"),
        (0.1, "0.1"),
        ("$1.5", "1.5"),
        (0, "0"),
    ],
    ids=repr,
)
def test_given_a_price_finer_than_a_nano_dollar_what_was_used_is_rounded_up_and_not_lost(
    cost: Any, counted: str
) -> None:
    async def work() -> None:
        book = Ledger()
        await book.record_model_usage(None, {"input_tokens": 1, "cost": cost})
        await book.record_model_usage(None, {"input_tokens": 1}, cost=cost)
        assert [entry.cost for entry in await book.list_events()] == [counted, counted]
        assert (await book.get_usage()).total_cost == 2 * Decimal(counted)
        await book.check_budget(None, pending_cost=cost)
        async with book.reserve(None, cost=cost):
            pass

    asyncio.run(work())


@pytest.mark.parametrize(
    "cost", [-1, "-1e-9", "1e7", float("inf"), "nan", "1_0", "1e", "", " 1", True, Decimal("1e400"), "1e999"], ids=repr
)
def test_a_cost_that_is_no_amount_is_still_refused(cost: Any) -> None:
    with pytest.raises(BadInput, match=r"^cost must be US dollars"):
        asyncio.run(Ledger().record_model_usage(None, {"input_tokens": 1, "cost": cost}))


TEN_M = 10_000_000


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 90, "output_tokens": 10},
        {"inputTokens": 90, "outputTokens": 10},
        {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100},
        {"promptTokens": 90, "completionTokens": 10, "totalTokens": 100},
        SimpleNamespace(prompt_tokens=90, completion_tokens=10, total_tokens=None),
        to_builtins(Usage(input_tokens=90, output_tokens=10)),
        MappingProxyType({"input_tokens": None, "prompt_tokens": 90, "completion_tokens": 10}),
        SimpleNamespace(input_tokens=20, cache_read_input_tokens=40, cache_creation_input_tokens=30, output_tokens=10),
        {"input_tokens": 20, "cache_read_input_tokens": 70, "cache_creation_input_tokens": None, "output_tokens": 10},
    ],
    ids=repr,
)
def test_given_a_usage_in_the_words_of_another_library_its_tokens_are_read(usage: Any) -> None:
    entry = LedgerEvent.from_llm_usage(usage)
    assert (entry.input_tokens, entry.output_tokens, entry.total_tokens) == (90, 10, 100)


@pytest.mark.parametrize("usage", ["90000", 90, [90, 10], {}, {"tokens": 90}, object, b"90"], ids=str)
def test_given_a_usage_that_cannot_be_read_it_is_refused_by_name_and_nothing_is_recorded(usage: Any) -> None:
    async def work() -> None:
        book = Ledger()
        with pytest.raises(BadInput, match=r"^usage must have input_tokens, output_tokens, total_tokens, cost, or one"):
            await book.record_model_usage(None, usage, model="gpt-5", provider="openai")
        await book.record_model_usage(None, None)  # a call of which nobody knows more
        assert [entry.total_tokens for entry in await book.list_events()] == [0]

    asyncio.run(work())


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("model", ["gpt-5", "openai:gpt-5"])
def test_given_a_usage_without_a_cost_it_costs_its_list_price(stored: bool, model: str) -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened) if stored else None)
        book.set_budget(Budget(max_cost_daily="0.01"))
        assert (await book.check_budget())[0] is ALLOW
        entry = LedgerEvent(event_id="e", input_tokens=TEN_M, output_tokens=TEN_M, provider="openai", model=model)
        await book.writer.write(entry)
        await book.writer.write(entry)  # told again it is the same, though no cost was told
        price = prices.price(Usage(input_tokens=TEN_M, output_tokens=TEN_M), "gpt-5", "openai", opened.clock.now())
        assert price.amount is not None and (await book.get_usage()).total_cost == Decimal(price.amount) > 100
        assert (await book.check_budget())[0] is DENY
        await book.record_model_usage(None, {"total_tokens": TEN_M}, provider="openai", model=model)
        undivided = prices.price(Usage(output_tokens=TEN_M), "gpt-5", "openai", opened.clock.now())
        assert (await book.list_events(limit=1))[0].cost == undivided.amount
        await book.record_model_usage(None, {"total_tokens": TEN_M, "cost": 0}, provider="openai", model=model)
        assert (await book.list_events(limit=1))[0].cost == "0"

    run(work)


@pytest.mark.parametrize("stored", [False, True])
def test_given_a_limit_of_money_a_usage_without_a_price_is_refused_unless_the_limit_allows_it(stored: bool) -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened) if stored else None)
        known = LedgerEvent(event_id="e", input_tokens=5, model="made-up", provider="openai")
        await book.writer.write(known)  # nothing is limited
        book.set_budget(Budget(max_tokens_daily=100))
        book.set_budget(Budget(principal_id="ann", max_cost_daily="0.01"))
        book.set_budget(Budget(principal_id="bob", max_cost_daily="0.01", unpriced="allow"))
        await book.check_budget()
        ann, bob, usage = SimpleNamespace(principal_id="ann"), SimpleNamespace(principal_id="bob"), {"input_tokens": 5}
        for named in ({"model": "made-up", "provider": "openai"}, {"model": "gpt-5"}, {"provider": "openai"}, {}):
            with pytest.raises(BadInput, match="and max_cost_daily of the principal is a limit of money: tell what"):
                await book.record_model_usage(ann, usage, **named)
        await book.record_model_usage(ann, {**usage, "cost": "0.001"}, model="made-up", provider="openai")
        await book.record_model_usage(ann, None)
        await book.record_model_usage(bob, usage, model="made-up", provider="openai")
        await book.record_model_usage(None, usage, model="made-up", provider="openai")
        book.set_budget(Budget(max_cost_daily="0.01"))
        await book.check_budget()
        await book.writer.write(known)  # told again, it is as known as it was
        assert (await book.get_usage()).requests == 5

    run(work)


def test_a_limit_finer_than_a_nano_dollar_is_refused() -> None:
    for cost in ("0.0000000375", 0.1 + 0.2, "1e-3"):
        with pytest.raises(BadInput, match="in steps of a nano-dollar"):
            Budget(max_cost_total=cost)


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
