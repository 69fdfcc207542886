"""What was used before a limit was set counts: of this day, of this month and in all, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact import Ledger as Book
from reenact import RuntimeLedgerWriter
from reenact.actors import judge, ledger
from reenact.actors.book import SCOPE, State
from reenact.actors.clock import ManualClock
from reenact.actors.tally import Tally
from reenact.actors.verify import verify
from reenact.adapters.models import Models
from reenact.catalog.sessions import Sessions
from reenact.events import codec
from reenact.events.agent import ModelCalled
from reenact.events.budget import NOTHING, Amount, Budget, nanos
from reenact.events.errors import Corrupt, OverBudget
from reenact.events.ledger import AllotmentDenied, Allotted, BudgetSet, SetBudget, UsageCounted
from reenact.events.log import MemoryLog, MemoryStore, Transaction
from reenact.events.purse import AllotmentWanted, BudgetReserved
from reenact.money import counting
from reenact.projections.ledger import Ledger
from reenact.runtime import Runtime
from tests.money import counted, dear, everything_replays, ledger_of, look
from tests.runtimes import Gate, Heard, run, runtime

DAY_S = 86_400.0


async def used(opened: Runtime, of: str = "scope") -> dict[str, Any]:
    return {use.limit: use.used for use in await opened.budget() if use.of == of}


async def state_of(opened: Runtime) -> State:
    state: State = (await opened._peek("ledger-default"))[0]
    return state


EVERY: dict[str, Any] = {
    "max_tokens_daily": 10**6,
    "max_tokens_monthly": 10**6,
    "max_tokens_total": 10**6,
    "max_cost_total": 100,
    "max_requests_daily": 100,
    "max_tool_calls_daily": 100,
}

# -- what counts --


def test_what_a_scope_used_before_its_first_limit_counts_in_every_window() -> None:
    clock = ManualClock()
    steps = [counted(tool_calls=[{"name": "look", "input": {"n": 1}}]), counted()]

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", tools=["look"])
        for wait_s in (40 * DAY_S, DAY_S, 0):  # in an earlier month, yesterday, today
            assert (await bot.send("hi")).status == "succeeded"
            clock.move(s=wait_s)
        await opened.set_budget(EVERY)
        assert await used(opened) == {
            "max_tokens_daily": 30,
            "max_tokens_monthly": 60,
            "max_tokens_total": 90,
            "max_cost_total": "0.00063",
            "max_requests_daily": 2,
            "max_tool_calls_daily": 1,
        }

    run(work, tools=[look], clock=clock, **dear(*steps))


def test_a_limit_leaves_what_is_left_of_it() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot, other = await opened.image("bot"), await opened.image("other")
        for each in (bot, other, bot):
            assert (await each.send("hi")).status == "succeeded"
        await opened.set_budget({"max_requests_daily": 4})
        assert (await other.send("hi")).status == "succeeded"
        denied = await bot.send("hi")
        assert denied.failure is not None and "4 used or set aside" in denied.failure.message

    run(work, [counted()], store=store)
    everything_replays(MemoryLog(store))


def test_it_counts_for_a_principal_and_for_a_session_too() -> None:
    async def work(opened: Runtime) -> None:
        bot, other = await opened.image("bot"), await opened.image("other")
        ann = opened.scoped(principal="ann")
        await bot.send("hi")
        assert (await (await ann.send(bot.id, "hi")).result()).status == "succeeded"
        assert (await (await ann.send(other.id, "hi")).result()).status == "succeeded"
        await opened.set_budget({"principal_id": "ann", "max_tokens_total": 1000})
        await opened.set_budget({"session_id": bot.session_id, "max_tokens_total": 1000})
        assert await used(opened, "principal") == {"max_tokens_total": 30}
        assert await used(opened, "session") == {"max_tokens_total": 30}

    run(work, [counted()])


def test_what_was_used_while_it_was_lifted_counts_when_it_is_set_again() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        for n, limited in enumerate([False, True, False, False, True, True]):
            if limited:
                await opened.set_budget({"max_requests_daily": 100 + n})
            else:
                await opened.remove_budget()
            own = {"max_tokens": 10**6} if n == 3 else None  # set aside for, and no ledger hears of it
            assert (await bot.send("hi", budget=own)).status == "succeeded"
        await opened.set_budget({"max_requests_daily": 7, "max_tokens_total": 10**6})
        assert await used(opened) == {"max_tokens_total": 90, "max_requests_daily": 6}

    run(work, [counted()], store=store)
    everything_replays(MemoryLog(store))


def test_what_a_run_with_a_limit_of_its_own_spent_counts_once() -> None:
    """It was set aside, and no ledger heard of it."""
    store, clock = MemoryStore(), ManualClock()

    async def work(opened: Runtime) -> None:
        bot, rests = await opened.image("bot", budget={"max_tokens": 9000}), await opened.image("rests", budget="5")
        await bot.send("hi")
        await rests.send("hi")
        clock.move(s=2 * DAY_S)
        await opened.set_budget({"max_tokens_total": 10**5, "max_tokens_daily": 10**5})
        assert await used(opened) == {"max_tokens_daily": 0, "max_tokens_total": 30}
        await bot.send("hi")
        assert await used(opened) == {"max_tokens_daily": 15, "max_tokens_total": 45}

    run(work, store=store, clock=clock, **dear(counted()))
    everything_replays(MemoryLog(store))


def test_what_one_scope_used_is_in_no_limit_of_another() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        await bot.send("hi")
        other = opened.scoped(scope="other")
        await other.set_budget({"max_tokens_total": 100})
        assert [use.used for use in await other.budget()] == [0]

    run(work, [counted()])


def test_sessions_are_told_of_in_events_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "ENTRIES_MAX", 2)
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        for _ in range(5):
            await (await opened.image()).send("hi")
        await opened.set_budget({"max_requests_daily": 100})
        assert await used(opened) == {"max_requests_daily": 5}

    run(work, [counted()], store=store)
    told = [event for event in ledger_of(MemoryLog(store)) if isinstance(event, UsageCounted)]
    assert [(len(event.entries), event.done) for event in told] == [(2, False), (2, False), (1, True)]
    everything_replays(MemoryLog(store))


# -- calls under way --


def test_nobody_waits_for_a_call_under_way_and_it_counts_when_it_ends() -> None:
    store, gate = MemoryStore(), Gate()

    async def work(opened: Runtime) -> None:
        bot, other = await opened.image("bot"), await opened.image("other")
        heard = Heard(opened)
        sent = await opened.send(bot.id, "hi")
        await heard.until("text_delta")
        await opened.set_budget({"max_requests_daily": 2, "max_tokens_total": 10**6})
        assert [(use.used, use.counting, use.uncounted) for use in await opened.budget()] == [(0, False, 1)] * 2
        second = await opened.send(other.id, "hi")
        await heard.until("text_delta", 2)
        gate.opened.set()
        assert [(await each.result()).status for each in (sent, second)] == ["succeeded"] * 2
        await heard.until(UsageCounted.type, 2)
        await opened._treasury._state()
        assert await used(opened) == {"max_requests_daily": 2, "max_tokens_total": 10}
        assert (await bot.send("hi")).status == "failed"
        assert [use.uncounted for use in await opened.budget()] == [0, 0]

    run(work, store=store, models=Models({"scripted": gate}))
    everything_replays(MemoryLog(store))


def test_who_set_out_before_it_could_hear_of_a_limit_is_counted_and_held_to_it_from_its_next_call_on() -> None:
    store = MemoryStore()

    async def nobody(self: Any) -> list[str]:
        return []

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", tools=["look"], max_steps=50)
        heard = Heard(opened)
        sent = await opened.send(bot.id, "go")
        await heard.until(ModelCalled.type, 3)
        with patch.object(Sessions, "unlimited", nobody):
            await opened.set_budget({"max_requests_daily": 20, "max_tool_calls_daily": 1000})
        result = await sent.result()
        assert result.failure is not None and result.failure.code == "budget_exceeded"
        calls = len(heard.of(ModelCalled.type))
        assert heard.of(BudgetReserved.type), "it was held to the limit in the middle of its turn"
        assert calls == 20 and (await used(opened))["max_requests_daily"] == 20
        assert (await used(opened))["max_tool_calls_daily"] in (20, 19)

    steps = [counted(tool_calls=[{"name": "look", "input": {"n": n}}]) for n in range(50)]
    run(work, steps, store=store, tools=[look])
    everything_replays(MemoryLog(store))


# -- whoever dies meanwhile --


async def never(self: Any, effect: Any) -> Any:
    await asyncio.Event().wait()


def test_a_count_that_was_cut_short_is_done_by_the_next_process() -> None:
    store = MemoryStore()

    async def first() -> None:
        async with runtime([counted()], store=store) as one:
            bot = await one.image("bot")
            assert (await bot.send("hi")).status == "succeeded"
            heard = Heard(one)
            with patch.object(counting.Counting, "count", never):
                setting = asyncio.ensure_future(one.set_budget(Budget(max_requests_daily=2)))
                await heard.until(BudgetSet.type)
                sent = await one.send(bot.id, "hi")
                await heard.until(AllotmentWanted.type)
                assert not heard.of(Allotted.type), "nothing is set aside before it is counted"
                assert not sent.over
        await asyncio.gather(setting, return_exceptions=True)

    async def second() -> None:
        async with runtime([counted()], store=store) as two:
            heard = Heard(two)
            if (await state_of(two)).counting:
                await heard.until(UsageCounted.type)
            [image] = await two.images()
            await two.resume(image.session_id)
            denied = await (await two.send(image.image_id, "hi")).result()
            assert denied.status == "failed", "two calls: the one before the limit, and the one that waited"
            assert await used(two) == {"max_requests_daily": 2}

    asyncio.run(asyncio.wait_for(first(), 20))
    assert MemoryLog(store).streams("ledger-", owing=True) == ["ledger-default"]
    asyncio.run(asyncio.wait_for(second(), 20))
    assert MemoryLog(store).streams("ledger-", owing=True) == []
    everything_replays(MemoryLog(store))


def test_a_count_that_nobody_took_up_is_done_when_somebody_asks() -> None:
    """A process that takes up nothing by itself, as `reenact run` does."""
    store = MemoryStore()

    async def first(opened: Runtime) -> None:
        assert (await (await opened.image("bot")).send("hi")).status == "succeeded"
        with patch.object(counting.Counting, "count", never):
            setting = asyncio.ensure_future(opened.set_budget(Budget(max_requests_daily=3)))
            await Heard(opened).until(BudgetSet.type)
            setting.cancel()

    async def asks(opened: Runtime) -> None:
        assert (await state_of(opened)).counting
        [image] = await opened.images()
        assert (await (await opened.send(image.image_id, "hi")).result()).status == "succeeded"
        assert await used(opened) == {"max_requests_daily": 2}

    async def reserves(opened: Runtime) -> None:
        assert (await state_of(opened)).counting
        book = Book(RuntimeLedgerWriter(opened))
        async with book.reserve(requests=2):
            with pytest.raises(OverBudget):
                async with book.reserve(requests=1):
                    pass

    run(first, [counted()], store=store)
    kept = copy(store)
    run(asks, [counted()], store=store, recover=False)
    run(reserves, store=kept, recover=False)


def copy(store: MemoryStore) -> MemoryStore:
    """A log as it is now."""
    other = MemoryStore()
    MemoryLog(other).commit([Transaction((stored.batch,)) for stored in store.all])
    return other


def test_a_call_that_was_under_way_when_its_process_died_is_asked_again_with_money_set_aside() -> None:
    store = MemoryStore()

    async def first() -> None:
        async with runtime(store=store, models=Models({"scripted": Gate()})) as one:
            bot = await one.image("bot")
            heard = Heard(one)
            await one.send(bot.id, "hi")
            await heard.until("text_delta")
            await one.set_budget({"max_requests_daily": 5, "max_tokens_total": 10**6})
            assert [use.uncounted for use in await one.budget()] == [1, 1]

    async def second() -> None:
        gate = Gate()
        gate.opened.set()
        async with runtime(store=store, models=Models({"scripted": gate})) as two:
            heard = Heard(two)
            if two.log.streams("session-", owing=True):
                await heard.until("job_succeeded")
            if (await state_of(two)).open:
                await heard.until(UsageCounted.type)
            assert await used(two) == {"max_tokens_total": 5, "max_requests_daily": 1}
            assert not heard.of(AllotmentDenied.type)

    asyncio.run(asyncio.wait_for(first(), 20))
    asyncio.run(asyncio.wait_for(second(), 20))
    everything_replays(MemoryLog(store))


def test_nobody_waits_for_ever_for_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reenact.money.line.WAIT_MAX_S", 0.05)

    async def fails(self: Any, effect: Any) -> Any:
        raise Corrupt("The log cannot be read.")

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        with patch.object(counting.Counting, "count", fails):
            await opened.set_budget({"max_requests_daily": 5})
            result = await bot.send("hi")
        assert result.failure is not None and result.failure.code == "uncounted"
        assert "not counted yet" in result.failure.message
        assert [use.counting for use in await opened.budget()] == [True]

    run(work, [counted()])


def test_what_cannot_be_read_is_passed_over() -> None:
    """It is told in the program's log; to count nothing would be to spend without a limit, or never again."""

    class Damaged(MemoryLog):
        def read_all(self, *, after: int = 0, limit: int = 1000) -> Any:
            page = super().read_all(after=after, limit=limit)
            if any(stored.position <= 3 < stored.position + len(stored.batch.rows) for stored in page):
                raise Corrupt("Here nothing can be read.")
            return page

    async def work() -> None:
        async with Runtime(Damaged(), default_agent={"model": "scripted:hello"}) as opened:
            bot = await opened.image("bot")
            assert (await bot.send("hi")).status == "succeeded"
            await opened.set_budget({"max_requests_daily": 5})
            assert await used(opened) == {"max_requests_daily": 1}

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_process_that_only_sets_a_limit_counts_too() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        await (await opened.image("bot")).send("hi")

    async def sets(opened: Runtime) -> None:
        await opened.set_budget({"max_requests_daily": 5})
        assert await used(opened) == {"max_requests_daily": 1}

    run(work, [counted()], store=store)
    run(sets, store=store, armed=False)


def test_a_limit_that_is_set_without_a_count_stays_as_it_is_until_one_is_set_with_one() -> None:
    store = MemoryStore()

    async def old(opened: Runtime) -> None:
        await (await opened.image("bot")).send("hi")
        await opened.ask("ledger-default", SetBudget(budget=Budget(scope_id="default", max_requests_daily=5), at=1))

    async def new(opened: Runtime) -> None:
        assert await used(opened) == {"max_requests_daily": 0}
        await opened.set_budget({"max_requests_daily": 6})
        assert await used(opened) == {"max_requests_daily": 1}

    run(old, [counted()], store=store)
    run(new, [counted()], store=store)
    everything_replays(MemoryLog(store))


# -- the law --


@settings(max_examples=40, deadline=None)
@for_all(data=st.data())
def test_whatever_happens_all_that_was_used_is_counted_once(data: st.DataObject) -> None:
    """What a ledger has settled, once a limit is set, is what the cost projection says, when no call is under way."""
    store, clock = MemoryStore(), ManualClock()
    words = st.sampled_from(["send", "send", "own", "set", "session", "lift", "again", "later"])

    async def live() -> None:
        ended = False
        while not ended:
            async with runtime(store=store, clock=clock, tools=[look], **dear(*steps)) as opened:
                bots = [await opened.image(name, tools=["look"]) for name in ("a", "b")]
                ended = True
                for n, word in enumerate(data.draw(st.lists(words, max_size=8))):
                    bot = bots[n % 2]
                    match word:
                        case "send":
                            await bot.send("hi")
                        case "own":
                            await bot.send("hi", budget={"max_tokens": 10**6})
                        case "set":
                            await opened.set_budget({**EVERY, "max_requests_daily": 1000 + n})
                        case "session":
                            await opened.set_budget({"session_id": bot.session_id, "max_tokens_total": 10**6 + n})
                        case "lift":
                            await opened.remove_budget()
                        case "later":
                            clock.move(s=DAY_S)
                        case "again":
                            ended = False
                            break
                if ended:
                    await opened.set_budget({**EVERY, "max_requests_daily": 999})
                    await check(opened)

    async def check(opened: Runtime) -> None:
        costs, tools = Ledger(), 0
        for stored in MemoryLog(store).read_all(limit=10**6):
            for recorded in codec.unpack(stored):
                costs.apply(recorded)
        tools = sum(tool.runs for tool in costs.tools())
        total = costs.total()
        sums = (await state_of(opened)).sums
        settled = sums[SCOPE].total if SCOPE in sums else NOTHING
        tokens = total.input_tokens + total.output_tokens
        assert settled == Amount(tokens, nanos(total.amount or "0"), total.calls, tools)

    steps = [counted(tool_calls=[{"name": "look", "input": {"n": 1}}]), counted(tokens=7)]
    asyncio.run(asyncio.wait_for(live(), 60))
    everything_replays(MemoryLog(store))


# -- builds with one thing wrong each --


def _pays(self: Tally, call: str, recorded: Any) -> None:
    self._call, self._paid = call, True


def _doubles(self: Tally, session_id: str) -> Any:
    for entry in ENTRIES(self, session_id):
        yield type(entry)(session_id=session_id, principal_id=entry.principal_id, used=entry.used + entry.used)


def _uses_for_one(self: Tally, session_id: str) -> Any:
    *others, last = ENTRIES(self, session_id)
    yield replace(last, used=sum((each.used for each in others), last.used))


ENTRIES, JUDGE = Tally.entries, judge.judge

BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing is counted": (lambda: patch.object(Tally, "_begin", _pays), "and nothing was counted"),
    "more is counted than was used": (lambda: patch.object(Tally, "entries", _doubles), "is there"),
    "what several used is counted for one": (
        lambda: patch.object(Tally, "entries", _uses_for_one),
        "was counted for bob",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_build_that_counts_wrongly_is_found_by_verify(name: str) -> None:
    store = MemoryStore()
    broken, said = BROKEN[name]

    async def work(opened: Runtime) -> None:
        await (await opened.image("bot")).send("hi")
        shared = await opened.image("shared", budget="5")
        for principal in ("ann", "bob"):
            await (await opened.scoped(principal=principal).send(shared.id, "hi")).result()
        with broken():
            await opened.set_budget({"max_requests_daily": 5})

    run(work, [counted()], store=store)
    found = [each for each in verify(MemoryLog(store)).violations if each.invariant == "budget"]
    assert any(said in each.what for each in found), found


def test_a_build_that_allots_before_it_has_counted_is_found_by_verify() -> None:
    store = MemoryStore()

    def hasty(state: State, *asked: Any, **more: Any) -> judge.Judged:
        return JUDGE(replace(state, counting=0), *asked, **more)

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        heard = Heard(opened)
        with patch.object(counting.Counting, "count", never), patch.object(ledger, "judge", hasty):
            setting = asyncio.ensure_future(opened.set_budget({"max_requests_daily": 5}))
            await heard.until(BudgetSet.type)
            assert (await bot.send("hi")).status == "succeeded"
        setting.cancel()

    run(work, [counted()], store=store)
    found = [each.what for each in verify(MemoryLog(store)).violations if each.invariant == "budget"]
    assert any("what was used before is not counted" in what for what in found), found
