"""The kernel: on a log that cannot be written, what ended in the world waits for room, or whoever waits is told; and on
whose thread what is decided is committed."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import pytest

from reenact import Runtime, tool
from reenact.actors.dispatch import Dispatch
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.errors import DiskFull, UnknownOutcome
from reenact.events.log import MemoryLog
from reenact.events.message import Recorded
from reenact.flow import ends, loop_commits
from reenact.flow.live import LiveSession
from reenact.flow.runs import Runs
from reenact.flow.telling import Telling
from reenact.people.handlers import Handlers
from tests.runtimes import CALL, HELLO, Heard, weather


class Choosy(MemoryLog):
    """A log that has no room for the first batches of a kind."""

    def __init__(self, kind: str, error: type[Exception], *, times: int = 1) -> None:
        super().__init__()
        self.kind = kind
        self.error = error
        self.times = times
        self.refused = 0

    def commit(self, transactions: Any) -> Any:
        asked = {each.head.asked for one in transactions for each in one.batches}
        if self.refused < self.times and self.kind in asked:
            self.refused += 1
            raise self.error()
        return super().commit(transactions)


FAILING = {
    "who decides in a person's place": (Handlers, "hear"),
    "what is kept of the session": (LiveSession, "apply"),
    "who waits for the job": (Runs, "tell"),
    "what is owed": (Dispatch, "owed"),
    "whether it waits": (Telling, "_stand"),
}


@pytest.mark.parametrize("threads", [None, 2])
@pytest.mark.parametrize("where", FAILING)
def test_given_one_session_that_cannot_be_told_of_what_was_committed_with_it_is_told_and_done(
    where: str, threads: int | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever of reenact's own raises there."""
    failing: list[str] = []
    of, method = FAILING[where]
    before = getattr(of, method)

    def tells(self: Any, first: Any, *more: Any, **options: Any) -> Any:
        told = first.session_id if isinstance(first, Recorded) else first.removeprefix("session-")
        if told in failing:
            raise RuntimeError("not this one")
        return before(self, first, *more, **options)

    @tool(effect="idempotent", approval="ask")
    def pay() -> str:
        """Pay."""
        return "paid"

    async def yes(request: Any) -> bool:
        return True

    async def work() -> None:
        go, script = asyncio.Event(), Scripted([{"tool_calls": [{"name": "pay"}]}, {"text": "Done."}], repeat=True)

        class Together:
            async def stream(self, request: Any) -> Any:
                await go.wait()
                async for each in script.stream(request):
                    yield each

        options = {"tools": [pay], "approval_handler": yes, "default_agent": {"model": "scripted:any"}}
        async with Runtime(models=Models({"scripted": Together()}), threads=threads, **options) as opened:
            bots = [await opened.image(f"bot {number}") for number in range(30)]
            runs = [await bot.send("go").run() for bot in bots]
            failing.append(bots[15].session_id)
            monkeypatch.setattr(of, method, tells)
            go.set()
            others = [run.result(5) for run in runs if run.session_id not in failing]
            assert [each.status for each in await asyncio.gather(*others)] == ["succeeded"] * 29
            assert "not this one" in caplog.text and failing[0] in caplog.text
            if where == "who decides in a person's place":
                assert (await runs[15].result(5)).status == "waiting", "it is left to a person"

    asyncio.run(asyncio.wait_for(work(), 20))


@pytest.mark.parametrize("kind", ["answer_model", "settle_tool"])
def test_the_end_of_an_effect_waits_for_room_on_the_disk(kind: str) -> None:
    ran: list[str] = []

    @tool
    def charge() -> str:
        """Unsafe: it must not run twice, and that it ran must not be forgotten."""
        ran.append("charge")
        return "charged"

    async def work() -> None:
        log = Choosy(kind, DiskFull)
        models = Models({"scripted": Scripted([{"tool_calls": [{"name": "charge"}]}, {"text": "ok"}])})
        options = {"models": models, "tools": [charge], "default_agent": {"model": "scripted:any"}}
        async with Runtime(log, **options) as opened:
            heard = Heard(opened)
            bot = await opened.image("support")
            assert (await bot.send("go").result(10)).status == "succeeded"
            assert log.refused == 1 and len(heard.of("system_error")) == 1
            assert (await opened.replay(bot.session_id)).identical

    asyncio.run(work())
    assert ran == ["charge"]


def test_however_long_there_is_no_room_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "RETELL_MAX_S", 0.0)

    async def work() -> None:
        log = Choosy("answer_model", DiskFull, times=1100)
        models = Models({"scripted": Scripted(HELLO)})
        async with Runtime(log, models=models, default_agent={"model": "scripted:any"}) as opened:
            bot = await opened.image("support")
            assert (await bot.send("go").result(20)).status == "succeeded"
        assert log.refused == 1100

    asyncio.run(work())


def test_a_log_that_stops_fails_whoever_waits() -> None:
    async def work() -> None:
        models = Models({"scripted": Scripted(HELLO)})
        log = Choosy("answer_model", UnknownOutcome)
        async with Runtime(log, models=models, default_agent={"model": "scripted:any"}) as opened:
            bot = await opened.image("support")
            with pytest.raises(UnknownOutcome):
                await bot.send("go").result(10)
            with pytest.raises(UnknownOutcome):
                await bot.send("go").result(10)

    asyncio.run(work())


# -- who commits --


class Watched(MemoryLog):
    """A log that notes on which thread each kind of command was committed. slow_s: how long a commit takes."""

    def __init__(self, slow_s: float = 0.0) -> None:
        super().__init__()
        self.slow_s = slow_s
        self.by: list[tuple[str, bool]] = []
        """Each command that was committed, and whether it was on the thread that made this log."""
        self._here = threading.get_ident()

    def commit(self, transactions: Any) -> Any:
        if self.slow_s:
            threading.Event().wait(self.slow_s)
        here = threading.get_ident() == self._here
        self.by += [(each.head.asked, here) for one in transactions for each in one.batches]
        return super().commit(transactions)


TURN = ["send", "answer_model", "settle_tool", "answer_model"]


def _asleep(opened: Runtime) -> None:
    """Wait until every worker sleeps: one that is awake would be quicker than the loop."""
    pool = opened._kernel.system._pool
    while pool.idle_workers < pool.threads:
        threading.Event().wait(0.001)


async def _turn(log: Watched, **options: Any) -> list[str]:
    """The second turn of the only session there is; the types of all that it said, in order. With its first message the
    session is read, which no loop should wait for."""
    models = Models({"scripted": Scripted(CALL, repeat=True)})
    given: dict[str, Any] = {"models": models, "tools": [weather], "default_agent": {"model": "scripted:any"}}
    async with Runtime(log, **given, **options) as opened:
        bot = await opened.image("support")
        await bot.send("go").result(20)
        assert log.by[-len(TURN)] == ("send", False)
        log.by.clear()
        heard = Heard(opened)
        opened._kernel._commits._spared_until = 0.0
        await asyncio.to_thread(_asleep, opened)
        assert (await bot.send("go").result(20)).status == "succeeded"
        stored = [event for event in heard.events if isinstance(event, Recorded)]
        assert [each.position for each in stored] == sorted(each.position for each in stored)
        return [each.type for each in await bot.events()]


def test_a_session_that_is_alone_is_committed_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_commits, "SLOW_S", 60.0)
    log, workers = Watched(), Watched()
    told = asyncio.run(_turn(log))
    assert log.by == [(asked, True) for asked in TURN]
    assert asyncio.run(_turn(workers, threads=1)) == told
    assert workers.by == [(asked, False) for asked in TURN]


def test_a_slow_disk_holds_the_loop_once_and_not_again_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_commits, "SPARED", 10_000)
    log = Watched(slow_s=0.01)
    asyncio.run(_turn(log))
    assert log.by == [("send", True), *((asked, False) for asked in TURN[1:])]


def test_nothing_is_committed_on_the_loop_while_two_sessions_are_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_commits, "SLOW_S", 60.0)
    log = Watched()

    async def work() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        @tool(effect="read")
        async def wait() -> str:
            """Takes its time."""
            begun.set()
            await go.wait()
            return "done"

        steps = [{"tool_calls": [{"name": "wait"}]}, {"text": "ok"}]
        models = Models({"scripted": Scripted(steps, repeat=True)})
        given: dict[str, Any] = {"models": models, "tools": [wait], "default_agent": {"model": "scripted:any"}}
        async with Runtime(log, **given) as opened:
            one, other = await opened.image("one"), await opened.image("other")
            waiting = one.send("go")
            await begun.wait()
            begun.clear()
            log.by.clear()
            second = other.send("go")
            await begun.wait()
            assert log.by == [("send", False), ("answer_model", False)]
            go.set()
            await asyncio.gather(waiting.result(20), second.result(20))

    asyncio.run(work())


def test_where_an_interrupt_would_raise_within_a_commit_the_loop_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_commits, "SLOW_S", 60.0)
    log, before = Watched(), signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_turn(log))  # unlike asyncio.run, it leaves Python's own handler in place
    finally:
        loop.close()
        signal.signal(signal.SIGINT, before)
    assert log.by == [(asked, False) for asked in TURN]
