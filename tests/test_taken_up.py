"""What an earlier life of the runtime left is in doubt, also where that life was on the same log, as an object."""

from __future__ import annotations

import asyncio
from typing import Any

from reenact import tool
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.agent import ToolStarted
from reenact.events.log import MemoryLog
from reenact.events.session import JobWaiting
from reenact.runtime import Runtime
from tests.runtimes import Heard

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
