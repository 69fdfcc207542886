"""The entries of a ledger: each counts once, what a usage says is read or refused, and what has no cost is priced."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins
from msgspec.structs import replace

from reenact import (
    Budget,
    BudgetDecision,
    InMemoryLedgerWriter,
    Ledger,
    LedgerEvent,
    RuntimeLedgerWriter,
)
from reenact.actors.clock import ManualClock
from reenact.adapters import prices
from reenact.events.content import Usage
from reenact.events.errors import BadInput, KeyReused
from reenact.events.ledger import UsageRecorded
from reenact.events.log import MemoryLog, MemoryStore
from reenact.projections.ledger import Ledger as Spending
from reenact.runtime import Runtime
from tests.histories import History
from tests.money import everything_replays
from tests.runtimes import run, runtime


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


def test_given_an_entry_that_was_told_without_an_id_the_one_it_has_since_says_that_it_is_known() -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        await book.writer.write(LedgerEvent(input_tokens=5))
        [listed] = await book.list_events()
        await book.writer.write(listed)
        assert await book.list_events() == [listed]

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
        assert (await book.check_budget())[0] is BudgetDecision.ALLOW
        entry = LedgerEvent(event_id="e", input_tokens=TEN_M, output_tokens=TEN_M, provider="openai", model=model)
        await book.writer.write(entry)
        await book.writer.write(entry)  # told again it is the same, though no cost was told
        price = prices.price(Usage(input_tokens=TEN_M, output_tokens=TEN_M), "gpt-5", "openai", opened.clock.now())
        assert price.amount is not None and (await book.get_usage()).total_cost == Decimal(price.amount) > 100
        assert (await book.check_budget())[0] is BudgetDecision.DENY
        await book.record_model_usage(None, {"total_tokens": TEN_M}, provider="openai", model=model)
        undivided = prices.price(Usage(output_tokens=TEN_M), "gpt-5", "openai", opened.clock.now())
        assert (await book.list_events(limit=1))[0].cost == undivided.amount
        await book.record_model_usage(None, {"total_tokens": TEN_M, "cost": 0}, provider="openai", model=model)
        assert (await book.list_events(limit=1))[0].cost == "0"

    run(work)


TOKENS = st.sampled_from([0, 1, TEN_M]) | st.integers(0, 10**6)


@given(TOKENS, TOKENS, TOKENS)
def test_given_a_usage_without_a_cost_it_costs_the_same_when_it_is_priced_anew_by_the_same_table(
    read: int, written: int, total: int
) -> None:
    """Told as what was read and written, as a total alone, or as any of them."""
    writer, book = InMemoryLedgerWriter(), Spending(price=prices.price)
    [recorded] = History().send("Hi").events[:1]

    async def told() -> UsageRecorded:
        usage = {"input_tokens": read, "output_tokens": written, "total_tokens": total}
        await Ledger(writer).record_model_usage(None, usage, provider="openai", model="gpt-5")
        [entry] = await writer.entries("default")
        return entry

    entry = asyncio.run(told())
    book.apply(replace(recorded, data=entry))
    [line] = book.query()
    assert line.amount == entry.cost


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
