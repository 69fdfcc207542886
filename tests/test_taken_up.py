"""What an earlier life of the runtime left is in doubt, also where that life was on the same log, as an object."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from reenact import tool
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.agent import ToolStarted
from reenact.events.errors import DiskFull
from reenact.events.log import MemoryLog, MemoryStore, Stored
from reenact.events.session import JobWaiting
from reenact.flow import ends
from reenact.runtime import Runtime
from tests.runtimes import Gate, Heard

STEPS = [{"tool_calls": [{"name": "pay", "input": {"n": 1}}]}, {"text": "Paid."}]


class Till:
    """Where payments are counted. Nobody ever hears of one."""

    def __init__(self) -> None:
        self.paid = 0

        @tool(effect="unsafe")
        async def pay(n: int) -> str:
            """Pay."""
            self.paid += 1
            await asyncio.Event().wait()
            return "never"

        self.tool = pay

    def runtime(self, log: MemoryLog, **options: Any) -> Runtime:
        models = Models({"scripted": Scripted(STEPS)})
        agent = {"model": "scripted:any"}
        return Runtime(log, tools=[self.tool], models=models, default_agent=agent, threads=2, **options)


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


async def begun(runtime: Runtime) -> Any:
    """An image whose payment has begun."""
    bot = await runtime.image("bot")
    heard = Heard(runtime)
    await runtime.send(bot.id, "pay")
    await heard.until(ToolStarted.type)
    await asyncio.sleep(0)
    return bot


def test_a_second_runtime_on_one_log_object_repeats_nothing_unsafe() -> None:
    async def life() -> None:
        till, log = Till(), MemoryLog()
        async with till.runtime(log) as first:
            await begun(first)
        second = till.runtime(log)
        heard = Heard(second)
        async with second:
            await heard.until(JobWaiting.type)
        assert till.paid == 1

    run(life())


def test_nor_does_one_that_took_nothing_up_and_is_asked_something_else() -> None:
    async def life() -> None:
        till, log = Till(), MemoryLog()
        async with till.runtime(log) as runtime:
            await begun(runtime)
        again = till.runtime(log, recover=False)
        heard = Heard(again)
        async with again:
            assert till.paid == 1 and "tool_doubted" not in heard.types
            bot = await again.image("bot")
            await again.send(bot.id, "and now?")
            await heard.until(JobWaiting.type)
        assert till.paid == 1

    run(life())


class Stale(MemoryLog):
    """A log that is slow to hand over what it read: meanwhile the stream has gone on."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.slow = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        found = super().read(stream, after=after, limit=limit)
        if threading.current_thread().name.startswith("asyncio"):  # not a stream that wakes
            self.slow.set()
            assert self.go_on.wait(10)
        return found


def test_who_comes_again_with_a_key_hears_the_end_that_came_while_the_past_was_read() -> None:
    async def life() -> None:
        store, gate = MemoryStore(), Gate()
        models = Models({"scripted": gate})
        async with Runtime(MemoryLog(store), models=models, default_agent={"model": "scripted:any"}) as first:
            bot = await first.image("bot")
            await (await first.send(bot.id, "go", key="k")).accepted()
        gate.opened.set()
        log = Stale(store)
        second = Runtime(log, models=models, default_agent={"model": "scripted:any"}, recover=False)
        heard = Heard(second)
        async with second:
            log.go_on.clear()
            again = await second.send(bot.id, "go", key="k", session_id=bot.session_id)
            assert await asyncio.to_thread(log.slow.wait, 10)
            second._kernel.wake(f"session-{bot.session_id}")
            await heard.until("job_succeeded")
            log.go_on.set()
            assert (await asyncio.wait_for(again.result(), 5)).status == "succeeded"

    run(life())


class Crowded(MemoryLog):
    """A log that for long has no room for a policy."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.refused = 0

    def commit(self, transactions: Any) -> Any:
        asked = {each.head.asked for one in transactions for each in one.batches}
        if "apply_policy" in asked and self.refused < 1100:
            self.refused += 1
            raise DiskFull
        return super().commit(transactions)


def test_however_long_there_is_no_room_for_the_policies_of_now_a_session_is_taken_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ends, "RETELL_MAX_S", 0.0)

    async def life() -> None:
        store, gate = MemoryStore(), Gate()
        models = Models({"scripted": gate})
        async with Runtime(MemoryLog(store), models=models, default_agent={"model": "scripted:any"}) as first:
            bot = await first.image("bot")
            await (await first.send(bot.id, "go")).accepted()
        gate.opened.set()
        log = Crowded(store)
        second = Runtime(log, models=models, default_agent={"model": "scripted:any"}, policy={"name": "now"})
        heard = Heard(second)
        async with second:
            await heard.until("job_succeeded")
        assert log.refused == 1100

    run(life())


def test_what_is_asked_anew_does_not_wait_until_every_session_is_taken_up(tmp_path: Path) -> None:
    async def life() -> None:
        url, gate = f"sqlite:///{tmp_path}/log.db", Gate()
        options: dict[str, Any] = {"models": Models({"scripted": gate}), "default_agent": {"model": "scripted:any"}}
        async with Runtime(url, **options) as first:
            bot = await first.image("bot")
            for _ in range(200):
                session_id = await first.new_session(bot.id)
                await (await first.send(bot.id, "go", session_id=session_id)).accepted()
        gate.opened.set()
        second = Runtime(url, **options)
        heard = Heard(second)
        async with second:
            await second.image("new")
            assert second._kernel.system.awake < 100
            await heard.until("job_succeeded", 200)

    run(life())
