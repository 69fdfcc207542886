"""Limits that are set, lowered and raised while sessions work: each session's next call is held to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reenact.actors import ledger as rules
from reenact.actors.verify import verify
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events import codec
from reenact.events.agent import ModelCalled, ToolStarted
from reenact.events.budget import Budget
from reenact.events.ledger import AllotmentReturned, BudgetSet
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.message import Signal
from reenact.events.model import ModelAnswer, ModelRequest
from reenact.events.purse import AllotmentWanted
from reenact.money import recalls
from reenact.runtime import Runtime
from tests.money import counted, everything_replays, look
from tests.runtimes import Gate, Heard, run, runtime


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


SINCE = st.lists(st.tuples(st.sampled_from([1, 2]), st.sampled_from(["", "set 0", "set 2", "lift"])), max_size=6)


@pytest.mark.parametrize("principal", [None, "ann"])
@settings(max_examples=40, deadline=None)
@given(starts=SINCE)
def test_given_a_program_that_opens_with_a_budget_what_was_set_or_lifted_since_stands_until_that_is_another(
    principal: str | None, starts: list[tuple[int, str]]
) -> None:
    """Each start opens with so many requests; then somebody says something else, or nothing."""
    store, told = MemoryStore(), _Told()
    logging.getLogger("reenact").addHandler(told)

    async def start(own: int, word: str, before: int | None, last: int | None) -> int | None:
        budget = {"principal_id": principal, "max_requests_daily": own}
        stands = own if own != last else before
        told.lines.clear()
        async with runtime(store=store, budget=budget) as opened:
            assert [each.max_requests_daily for each in opened.budgets] == ([] if stands is None else [stands])
            assert sum("opens with" in line for line in told.lines) == (stands != own)
            what, _, most = word.partition(" ")
            if what == "lift":
                await opened.remove_budget(principal_id=principal)
                return None
            if what == "set":
                await opened.set_budget({**budget, "max_requests_daily": int(most)})
                return int(most)
        return stands

    stands: int | None = None
    last: int | None = None
    try:
        for own, word in starts:
            stands, last = asyncio.run(asyncio.wait_for(start(own, word, stands, last), 20)), own
    finally:
        logging.getLogger("reenact").removeHandler(told)
    everything_replays(MemoryLog(store))


def test_given_a_stop_by_a_person_a_program_that_is_started_again_is_stopped_and_its_log_says_how_to_go_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, budget = MemoryStore(), {"principal_id": "ann", "max_cost_daily": 100, "warning_threshold": 0.5}

    async def work(opened: Runtime) -> str:
        return (await (await opened.image("bot")).send("hi")).status

    async def stop(opened: Runtime) -> str:
        await opened.set_budget({"principal_id": "ann", "max_requests_daily": 0})
        return await work(opened)

    said = [run(each, store=store, budget=budget, principal="ann") for each in (work, stop, work)]
    assert said == ["succeeded", "failed", "failed"]
    assert [each.getMessage() for each in caplog.records] == [
        "the budget that this program opens with is not in force, in its place is --principal=ann"
        " --max-requests-daily=0. To go back: reenact budget set --principal=ann --max-cost-daily=100"
        " --warning-threshold=0.5"
    ]


class _Told(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


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


def test_given_another_limit_that_is_set_meanwhile_one_is_set_when_all_who_hold_something_have_heard_of_it() -> None:
    """A stop of tools, while a model answers; what is called back for it is on its way when the other is set."""
    store, answer, asked = MemoryStore(), asyncio.Event(), asyncio.Event()
    stop, recall, held = Budget(max_tool_calls_daily=0), recalls.Recalls._recall, list[str]()

    class Slow(Scripted):
        async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
            await answer.wait()
            async for each in super().stream(request):
                yield each

    async def slow(self: Any, stream: str, ask: str) -> None:
        held.append(ask)
        await asked.wait()
        await recall(self, stream, ask)

    async def work(opened: Runtime) -> None:
        heard = Heard(opened)
        sent = await opened.send((await opened.image(tools=["look"])).id, "go")
        await heard.until(ModelCalled.type)
        stopping = asyncio.create_task(opened.set_budget(stop))
        await heard.until(BudgetSet.type, 1)
        other = asyncio.create_task(opened.set_budget({"principal_id": "other", "max_requests_daily": 5}))
        await heard.until(BudgetSet.type, 2)
        for _ in range(20):
            await opened.budget()
        assert held == ["w1", "w1"] and not stopping.done(), "nobody has heard of it"
        asked.set()
        await asyncio.gather(stopping, other)
        answer.set()
        result = await sent.result()
        assert result.failure is not None and result.failure.code == "budget_exceeded"
        assert heard.of(ToolStarted.type) == []

    models = Models({"scripted": Slow([counted(tool_calls=[{"name": "look", "input": {"n": n}} for n in range(3)])])})
    with patch.object(recalls.Recalls, "_recall", slow):
        run(work, models=models, store=store, tools=[look], budget={"max_tool_calls_daily": 10**6})
    everything_replays(MemoryLog(store))


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


def test_a_first_limit_counts_what_a_running_job_used_before_it() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot", tools=["look"], max_steps=2000)
        heard = Heard(opened)
        sent = await opened.send(bot.id, "go")
        await heard.until(ModelCalled.type, 5)
        await opened.set_budget({"max_requests_daily": 70, "max_tool_calls_daily": 100})
        result = await sent.result()
        assert result.failure is not None and result.failure.code == "budget_exceeded"
        used = {limit.limit: limit.used for limit in await opened.budget()}
        assert used["max_requests_daily"] == 70 and used["max_tool_calls_daily"] in (70, 71)
        assert len(heard.of(ModelCalled.type)) == 70

    run(work, loops(3000), store=store, tools=[look])
    everything_replays(MemoryLog(store))


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


@pytest.mark.parametrize("changes", [1, 2])
def test_what_was_called_back_from_a_session_at_rest_is_given_back_by_the_next_process(changes: int) -> None:
    """The process ends between limits and giving back: nobody is asked any more, and the ledger still owes it."""
    store = MemoryStore()

    async def first() -> None:
        begun, ended, all_asked = list[str](), list[str](), asyncio.Event()

        async def never(self: Any, stream: str, ask: str) -> None:
            begun.append(stream)
            if len(begun) == changes:
                all_asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(stream)

        with patch.object(recalls.Recalls, "_recall", never):
            async with runtime([counted()], store=store, budget={"max_tokens_total": 5000}) as one:
                assert (await (await one.image("bot")).send("hi")).status == "succeeded"
                limits = [Budget(max_tokens_total=4000 + more) for more in range(changes)]
                setting = [asyncio.create_task(one.set_budget(limit)) for limit in limits]
                await all_asked.wait()
                assert ended == []
            assert len(ended) == changes
        await asyncio.gather(*setting, return_exceptions=True)

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
        patch.object(rules, "_called_back", lambda state, *_: state)
        if broken == "_called_back"
        else patch.multiple(recalls.Recalls, heeded=deaf, _let_go=left_alone)
    ):
        run(work, loops(), store=store, tools=[look], budget={"max_requests_daily": 10**6})
    found = [each for each in verify(MemoryLog(store)).violations if each.invariant == "budget"]
    assert found and all("called back when limits of default were changed" in each.what for each in found)
