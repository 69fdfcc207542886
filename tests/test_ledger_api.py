"""A ledger beside a runtime: seed 003's names, over the same rules."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact import (
    Budget,
    BudgetDecision,
    BudgetExceededError,
    InMemoryLedgerWriter,
    Ledger,
    LedgerEvent,
    LedgerEventType,
    RuntimeLedgerWriter,
    tool,
)
from reenact.actors.clock import ManualClock
from reenact.events.budget import NOTHING
from reenact.events.errors import BadInput, NotAPerson
from reenact.events.ledger import AHEAD_MAX_S, RecordUsage, RemoveBudget, ReturnAllotment, SetBudget
from reenact.runtime import Runtime
from tests.money import dear
from tests.runtimes import run

ANN = SimpleNamespace(scope_id="tenant-123", principal_id="ann", session_id=None, run_id="r", job_id="j")
BOB = SimpleNamespace(scope_id="tenant-123", principal_id="bob", session_id=None, run_id="r", job_id="j")


DEGRADES = Budget(max_cost_daily="100", exceed_strategy="degrade")
"""One that no image names a cheaper model for: that is known when the first asks."""

OF_BOB = Budget(scope_id="default", principal_id="bob", max_cost_daily="1")


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
        book, went, asked = ledger(max_tokens_total=100), [], asyncio.Barrier(10)

        async def one() -> None:
            try:
                async with book.reserve(ANN, tokens=30):
                    await asked.wait()
                    await book.record_model_usage(ANN, {"input_tokens": 20, "output_tokens": 0})
                    went.append(1)
            except BudgetExceededError:
                await asked.wait()

        await asyncio.gather(*(one() for _ in range(10)))
        assert len(went) == 3
        assert (await book.get_usage("tenant-123")).total_tokens == 60
        async with book.reserve(ANN, tokens=40):
            pass

    asyncio.run(work())


def test_windows_are_those_of_the_clock_it_was_given() -> None:
    async def work() -> None:
        clock = ManualClock()
        book = ledger(clock, max_requests_per_minute=1, max_tokens_daily=101)
        await book.record_model_usage(ANN, {"input_tokens": 100, "output_tokens": 0})
        assert (await book.check_budget(ANN, pending_requests=1))[0] is BudgetDecision.DENY
        clock.move(s=61)
        assert (await book.check_budget(ANN, pending_requests=1))[0] is not BudgetDecision.DENY
        assert (await book.check_budget(ANN, pending_tokens=2))[0] is BudgetDecision.DENY
        clock.move(s=24 * 3600)
        assert (await book.check_budget(ANN, pending_tokens=1, pending_requests=0))[0] is BudgetDecision.ALLOW

    asyncio.run(work())


def test_more_entries_than_are_listed_still_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is trimmed resets nothing."""
    from reenact.money import writers

    monkeypatch.setattr(writers, "ENTRIES_MAX", 10)

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
    [
        {"input_tokens": -1},
        {"input_tokens": True},
        {"input_tokens": "5"},
        {"output_tokens": 1.5},
        {"total_tokens": []},
        {"total_tokens": "6"},
        {"total_cost": "much"},
        {"total_cost": float("nan")},
        {"cost": -1},
    ],
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


# -- what is told to it that is none --


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"type": "llm_usage"}, "type"),
        ({"type": None}, "type"),
        ({"timestamp": 1_700_000_000_000.0}, "timestamp"),
        ({"timestamp": float("nan")}, "timestamp"),
        ({"timestamp": "x"}, "timestamp"),
        ({"timestamp": -1.0}, "timestamp"),
        ({"metadata": None}, "metadata"),
        ({"metadata": {"n": 1}}, "metadata"),
        ({"duration_ms": float("nan")}, "duration_ms"),
        ({"duration_ms": float("inf")}, "duration_ms"),
        ({"duration_ms": -5}, "duration_ms"),
        ({"duration_ms": "1"}, "duration_ms"),
        ({"input_tokens": "5"}, "input_tokens"),
        ({"total_tokens": 10**16}, "total_tokens"),
    ],
    ids=repr,
)
def test_an_entry_that_is_none_is_refused_by_the_name_of_its_field(fields: dict[str, Any], name: str) -> None:
    async def work() -> None:
        book = ledger()
        with pytest.raises(BadInput, match=f"^{name} must be"):
            await book.writer.write(LedgerEvent(**fields))
        assert await book.list_events() == []

    asyncio.run(work())


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ({"limit": "x"}, "limit must be a whole number from 0, not 'x'."),
        ({"limit": -1}, "limit must be a whole number from 0, not -1."),
        ({"limit": True}, "limit must be a whole number from 0, not True."),
        ({"event_type": "model"}, "event_type must be one of model_usage, tool_usage, connector_usage, "),
        ({"event_type": 1}, "event_type must be one of model_usage, "),
    ],
    ids=repr,
)
def test_what_entries_cannot_be_looked_for_by_is_refused_by_its_name(only: dict[str, Any], said: str) -> None:
    async def work() -> None:
        book = ledger()
        await book.record_model_usage(ANN, {"input_tokens": 1})
        with pytest.raises(BadInput) as refused:
            await book.list_events("tenant-123", **only)
        assert str(refused.value).startswith(said)

    asyncio.run(work())


def test_an_entry_of_a_type_that_there_is_none_of_is_shown_as_it_stands_in_the_log() -> None:
    async def work() -> None:
        book = ledger()
        now = book.writer.now()
        await book.writer.put("default", RecordUsage(entry="e1", kind="llm_usage", at=now, heard=now))
        [entry] = await book.list_events()
        assert entry.type == "llm_usage"

    asyncio.run(work())


def test_a_reported_time_says_in_which_window_it_counts_and_moves_no_clock() -> None:
    async def work() -> None:
        clock = ManualClock()
        book, now = ledger(clock, max_tokens_daily=100, max_tokens_monthly=1000), clock.now() / 1_000_000
        for ahead in (AHEAD_MAX_S, -86_400):
            await book.writer.write(
                LedgerEvent(scope_id="tenant-123", input_tokens=50, timestamp=now + ahead, principal_id="ann")
            )
        state = await book.writer.state("tenant-123")
        assert state.now == clock.now()
        sums = state.sums["scope", ""]
        assert (sums.daily.tokens, sums.monthly.tokens, sums.total.tokens) == (50, 100, 100)
        with pytest.raises(BadInput, match="later than it is told"):
            late = RecordUsage(entry="e", kind="tool_usage", at=clock.now() * 1000, heard=clock.now())
            await book.writer.put("tenant-123", late)

    asyncio.run(work())


# -- a limit that cannot be set --


@pytest.mark.parametrize(
    "budget",
    [
        Budget(scope_id="acme", max_tokens_daily=1),
        Budget(),
        Budget(principal_id="ann"),
        Budget(max_tokens_daily=1, exceed_strategy="degrade", degrade_to="nowhere:x"),
    ],
    ids=repr,
)
def test_a_limit_that_cannot_be_set_is_refused_when_it_is_set_and_harms_nothing(budget: Budget) -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        with pytest.raises(BadInput):
            book.set_budget(budget)
        assert (await book.check_budget())[0] is BudgetDecision.ALLOW

    run(work)


def test_a_limit_that_turns_out_to_be_none_lets_nobody_by_until_another_is_set_for_it() -> None:
    """It degrades, and that no image names a cheaper model is known when the first asks."""
    said: list[str] = []

    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))

        @tool
        async def spend() -> str:
            """Spend a dollar."""
            try:
                async with book.reserve(cost="1", requests=1):
                    said.append("spent")
            except (BadInput, BudgetExceededError) as error:
                said.append(type(error).__name__)
            return said[-1]

        opened.tools.add(spend)
        book.set_budget(Budget(max_cost_daily="1", exceed_strategy="degrade"))
        bot = await opened.image("bot")
        for _ in range(2):
            assert (await bot.send("hi")).status == "succeeded"
        with pytest.raises(BadInput, match="needs a cheaper model"):
            await book.check_budget()
        assert said == ["BadInput", "BadInput"] and not opened.budgets
        book.set_budget(Budget(principal_id="ann", max_requests_daily=9))
        book.set_budget(Budget(max_cost_daily="1"))
        async with book.reserve(cost="1"):
            assert len(opened.budgets) == 2

    run(work, [{"tool_calls": [{"name": "spend", "input": {}}]}, {"text": "done"}], repeat=True)


def test_given_a_limit_that_was_refused_late_another_that_the_runtime_sets_is_in_its_place() -> None:
    """The older one replaces nothing either, once it could be set."""

    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        book.set_budget(DEGRADES)
        with pytest.raises(BadInput, match="needs a cheaper model"):
            await book.check_budget()
        set_since = await opened.set_budget({"max_cost_daily": "0.50"})
        assert (await book.check_budget(pending_cost="50"))[0] is BudgetDecision.DENY
        await opened.image("cheap", degrade_to="scripted:cheap")
        assert (await book.check_budget(pending_cost="50"))[0] is BudgetDecision.DENY
        assert opened.budgets == (set_since,)

    run(work)


def test_given_a_limit_that_was_refused_late_the_runtime_takes_it_back_by_lifting_it() -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        book.set_budget(DEGRADES)
        for lift in (lambda: opened.remove_budget(principal_id="ann"), lambda: opened.set_budget(OF_BOB)):
            await lift()
            with pytest.raises(BadInput, match="needs a cheaper model"):
                await book.check_budget()
        assert not await opened.remove_budget()
        assert (await book.check_budget(pending_cost="50"))[0] is BudgetDecision.ALLOW
        assert opened.budgets == (OF_BOB,)

    run(work)


def test_no_tool_takes_back_a_limit_that_was_refused_late() -> None:
    said: list[str] = []

    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))

        @tool
        async def lift() -> str:
            """Lift the limit."""
            for attempt in (opened.remove_budget(), opened.set_budget({"max_cost_daily": "9"})):
                try:
                    await attempt
                except NotAPerson:
                    said.append("no")
            return "asked"

        opened.tools.add(lift)
        book.set_budget(DEGRADES)
        bot = await opened.image("bot")
        assert (await bot.send("hi")).status == "succeeded"
        with pytest.raises(BadInput, match="needs a cheaper model"):
            await book.check_budget()

    run(work, [{"tool_calls": [{"name": "lift", "input": {}}]}, {"text": "done"}])
    assert said == ["no", "no"]


def test_given_a_limit_of_a_runtime_that_is_refused_the_older_one_of_a_ledger_is_set() -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        book.set_budget(Budget(max_requests_daily=1))
        with pytest.raises(BadInput):
            await opened.set_budget(DEGRADES)
        assert (await book.check_budget(pending_requests=2))[0] is BudgetDecision.DENY

    run(work)


WHOSE = (None, "ann")
TURNS = st.integers(1, 20)
SETS = st.tuples(st.sampled_from(["wish 0", "wish 1", "set"]), st.sampled_from(WHOSE), st.integers(1, 4))
LIFTS = st.tuples(st.just("lift"), st.sampled_from(WHOSE), st.just(0))
CHECKS = st.tuples(st.sampled_from(["check 0", "check 1"]), st.none(), st.just(0))


@pytest.mark.parametrize("stored", [False, True])
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(SETS | LIFTS | CHECKS, max_size=8))
def test_of_all_that_set_and_lift_limits_in_whatever_order_what_was_asked_for_last_is_in_force(
    stored: bool, steps: list[tuple[str, str | None, int]]
) -> None:
    """Two ledgers over one writer, and whoever puts it there at once."""
    last: dict[str | None, int] = {}

    async def work(opened: Runtime) -> None:
        writer = RuntimeLedgerWriter(opened) if stored else InMemoryLedgerWriter(ManualClock())
        books = [Ledger(writer), Ledger(writer)]
        for what, whose, most in (*steps, ("check 0", None, 0), ("check 1", None, 0)):
            name, _, number = what.partition(" ")
            limit = Budget(scope_id=writer.scope, principal_id=whose, max_tokens_total=most or None)
            if name == "check":
                await books[int(number)].check_budget()
                continue
            last[whose] = most
            if name == "wish":
                books[int(number)].set_budget(limit)
            elif name == "set":
                await writer.put(writer.scope, SetBudget(budget=limit, at=writer.now()))
            else:
                await writer.put(writer.scope, RemoveBudget(principal_id=whose, at=writer.now()))
        standing = {each.budget.principal_id: each.budget for each in (await writer.state(writer.scope)).budgets}
        found = {whose: budget.max_tokens_total for whose, budget in standing.items()}
        assert found == {whose: most for whose, most in last.items() if most}

    run(work)


ASKED = st.tuples(st.sampled_from(["wish", "check", "set", "lift"]), st.sampled_from(WHOSE), st.booleans(), TURNS)


@pytest.mark.parametrize("stored", [False, True])
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(ASKED, max_size=6))
def test_given_limits_that_are_still_on_their_way_what_was_asked_for_last_is_in_force(
    stored: bool, steps: list[tuple[str, str | None, bool, int]]
) -> None:
    """Nobody waits for what was asked for before. One that degrades is longer on its way: images are read for it."""
    last: dict[str | None, int] = {}

    async def work(opened: Runtime) -> None:
        writer = RuntimeLedgerWriter(opened) if stored else InMemoryLedgerWriter(ManualClock())
        book, begun = Ledger(writer), []
        for most, (what, whose, slow, turns) in enumerate(steps, 1):
            more = {"exceed_strategy": "degrade", "degrade_to": "scripted:cheap"} if slow else {}
            limit = Budget(scope_id=writer.scope, principal_id=whose, max_tokens_total=most, **more)
            if what == "wish":
                book.set_budget(limit)
            elif what == "check":
                begun.append(asyncio.create_task(book.check_budget()))
            elif what == "set":
                begun.append(asyncio.create_task(writer.put(writer.scope, SetBudget(budget=limit, at=0))))
            else:
                begun.append(asyncio.create_task(writer.put(writer.scope, RemoveBudget(principal_id=whose, at=0))))
            if what != "check":
                last[whose] = 0 if what == "lift" else most
            for _ in range(turns):
                await asyncio.sleep(0)
        await asyncio.gather(*begun)
        await book.check_budget()
        standing = {each.budget.principal_id: each.budget for each in (await writer.state(writer.scope)).budgets}
        found = {whose: budget.max_tokens_total for whose, budget in standing.items()}
        assert found == {whose: most for whose, most in last.items() if most}

    run(work, **dear())


def test_given_a_limit_that_is_still_on_its_way_a_stop_that_is_asked_for_meanwhile_holds() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        older = {"max_tokens_total": 9_000, "exceed_strategy": "degrade", "degrade_to": "scripted:cheap"}
        begun = asyncio.create_task(opened.set_budget(older))
        await asyncio.sleep(0)
        stop = await opened.set_budget({"max_tokens_total": 0})
        await begun
        assert opened.budgets == (stop,)
        assert (await bot.send("hi")).status == "failed"

    run(work, **dear())


def test_a_ledger_of_a_runtime_means_the_scope_of_that_where_none_is_named() -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        book.set_budget(Budget(max_requests_daily=1))
        await book.record_model_usage(None, {"input_tokens": 1})
        assert (await book.check_budget(pending_requests=1))[0] is BudgetDecision.DENY
        assert (await book.get_usage()).requests == 1
        assert [entry.scope_id for entry in await book.list_events()] == ["acme", "acme"]

    run(work, scope="acme")


def test_no_tool_raises_a_limit_by_way_of_a_ledger_or_gives_back_what_a_session_holds() -> None:
    refused: list[str] = []

    async def work(opened: Runtime) -> None:
        @tool
        async def more() -> str:
            """Want more."""
            book = Ledger(RuntimeLedgerWriter(opened))
            holder = next(iter((await book.writer.state("default")).accounts))
            back = ReturnAllotment(session_id=holder, ask="w1", spent=NOTHING, at=0)
            budget = Budget(max_requests_daily=10**9)
            for name, attempt in (
                ("set_budget", lambda: book.set_budget(budget)),
                ("put", lambda: book.writer.put("default", SetBudget(budget=budget, at=0))),
                ("lift", lambda: book.writer.put("default", RemoveBudget(at=0))),
                ("give back", lambda: book.writer.put("default", back)),
                ("ask", lambda: opened.ask("ledger-default", SetBudget(budget=budget, at=0))),
                ("ask back", lambda: opened.ask("ledger-default", back)),
            ):
                try:
                    made = attempt()
                    if made is not None:
                        await made
                except (NotAPerson, BadInput) as error:
                    refused.append(f"{name}: {type(error).__name__}")
            async with book.reserve(requests=1):
                return "asked"

        opened.tools.add(more)
        bot = await opened.image("bot")
        assert (await bot.send("hi")).status == "succeeded"
        assert [use.most for use in await opened.budget()] == [50]

    steps = [{"tool_calls": [{"name": "more", "input": {}}]}, {"text": "done"}]
    run(work, steps, budget={"max_requests_daily": 50})
    assert refused == [
        "set_budget: NotAPerson",
        "put: NotAPerson",
        "lift: NotAPerson",
        "give back: BadInput",
        "ask: NotAPerson",
        "ask back: NotAPerson",
    ]


# -- a process that dies while something is set aside --

DIES = """
import asyncio, os, signal, sys
from reenact import Ledger, Runtime, RuntimeLedgerWriter

async def work():
    async with Runtime(sys.argv[1], budget={"max_requests_daily": 20, "max_tokens_total": 100}) as runtime:
        book = Ledger(RuntimeLedgerWriter(runtime))
        async with book.reserve(requests=5, tokens=30):
            pass
        async with book.reserve(requests=9, tokens=60):
            await book.record_model_usage(None, {"input_tokens": 20, "output_tokens": 0})
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(work())
"""


def test_what_was_reserved_by_a_process_that_died_is_settled_at_the_next_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    assert subprocess.run([sys.executable, "-c", DIES, url], check=False).returncode == -signal.SIGKILL

    async def look() -> None:
        async with Runtime(url) as runtime:
            found = {use.limit: (use.used, use.outstanding) for use in await runtime.budget()}
            assert found == {"max_requests_daily": (9, 0), "max_tokens_total": (60, 0)}

    asyncio.run(look())
    asyncio.run(look())  # and once
