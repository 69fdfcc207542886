"""A runtime is open when all that binds it is known; before that nobody works with it, and one that fails is closed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from reenact.events.errors import BadInput, Closed, StoreFailed
from reenact.events.log import MemoryLog, MemoryStore
from reenact.flow import kernel
from reenact.money.treasury import Treasury
from reenact.runtime import Runtime
from tests.runtimes import run, runtime

STOP = {"max_requests_daily": 0}


def stopped(store: MemoryStore) -> str:
    """A log in which a person stopped everything. The id of its image."""

    async def work(opened: Runtime) -> str:
        bot = await opened.image("bot")
        await opened.set_budget(STOP)
        return bot.id

    return run(work, store=store)


class Held(MemoryLog):
    """Its limits are read when they may be."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.asked, self.goes = threading.Event(), threading.Event()

    def streams(self, *args: Any, **options: Any) -> Any:
        if args and str(args[0]).startswith("ledger-"):
            self.asked.set()
            assert self.goes.wait(10)
        return super().streams(*args, **options)


def opening(log: MemoryLog) -> Runtime:
    like = runtime()
    return Runtime(log, models=like._models, default_agent={"model": "scripted:any"})


def test_given_a_stop_in_the_log_when_several_open_it_at_once_nobody_sends_past_it() -> None:
    store = MemoryStore()
    bot, log = stopped(store), Held(store)

    async def live() -> None:
        opened = opening(log)

        async def works() -> str:
            await opened.open()
            return (await (await opened.send(bot, "hi")).result()).status

        first = asyncio.ensure_future(works())
        await asyncio.to_thread(log.asked.wait, 10)
        others = [asyncio.ensure_future(works()) for _ in range(3)]
        for works_before in (opened.send(bot, "hi"), opened.set_budget(STOP)):
            with pytest.raises(Closed, match="not open"):
                await works_before
        log.goes.set()
        assert await asyncio.gather(first, *others) == ["failed"] * 4
        await opened.close()

    asyncio.run(asyncio.wait_for(live(), 20))


@pytest.mark.parametrize("how", ["fails", "cancelled"])
def test_given_limits_that_could_not_be_read_when_it_is_opened_again_it_is_closed_and_another_is_stopped(
    how: str, tmp_path: Path
) -> None:
    path = f"sqlite:///{tmp_path / 'a.db'}"

    async def live() -> None:
        async with Runtime(path, default_agent={"model": "scripted:echo"}) as one:
            bot = await one.image("bot")
            await one.set_budget(STOP)
        two, began = Runtime(path), asyncio.Event()

        async def breaks(self: Treasury) -> None:
            began.set()
            if how == "fails":
                raise StoreFailed("disk I/O error")
            await asyncio.Event().wait()

        with patch.object(Treasury, "open", breaks):
            task = asyncio.ensure_future(two.open())
            await began.wait()
            if how == "cancelled":
                task.cancel()
            with pytest.raises(StoreFailed if how == "fails" else asyncio.CancelledError):
                await task
        with pytest.raises(Closed):
            await two.open()
        async with Runtime(path) as three:
            assert (await (await three.send(bot.id, "hi")).result()).status == "failed"

    asyncio.run(asyncio.wait_for(live(), 20))


def test_given_a_budget_that_is_refused_the_log_is_let_go_of(tmp_path: Path) -> None:
    path = f"sqlite:///{tmp_path / 'a.db'}"
    degrades = {"max_cost_daily": "1", "exceed_strategy": "degrade"}

    async def live() -> None:
        with pytest.raises(BadInput):
            await Runtime(path, budget=degrades).open()
        async with Runtime(path) as two:
            assert not two.budgets

    asyncio.run(asyncio.wait_for(live(), 20))


@pytest.mark.parametrize("at", [0, 1])
def test_given_an_opening_that_is_cancelled_while_the_log_is_opened_nobody_owns_it(at: int, tmp_path: Path) -> None:
    path, began, goes, logs = f"sqlite:///{tmp_path / 'a.db'}", threading.Event(), threading.Event(), list[Any]()

    def slowly(url: str) -> Any:
        if not at:
            began.set()
            assert goes.wait(10)
        logs.append(open_log(url))  # which somebody holds on to
        if at:
            began.set()
            assert goes.wait(10)
        return logs[-1]

    open_log = kernel.open_log

    async def live() -> None:
        with patch.object(kernel, "open_log", slowly):
            task = asyncio.ensure_future(Runtime(path).open())
            await asyncio.to_thread(began.wait, 10)
            task.cancel()
            goes.set()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with Runtime(path):
            pass

    asyncio.run(asyncio.wait_for(live(), 20))
