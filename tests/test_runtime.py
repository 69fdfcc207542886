"""The runtime opened and closed: what works on one that is not open, what goes on with the next; its log followed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact import Runtime
from reenact.adapters.models import Models
from reenact.events.errors import Closed
from reenact.events.log import MemoryStore
from tests.runtimes import Gate, Heard, run, runtime


def test_nothing_works_on_a_runtime_that_is_not_open() -> None:
    closed = runtime()
    with pytest.raises(Closed, match="not open"):
        asyncio.run(closed.image("support"))

    async def twice() -> None:
        opened = await runtime().open()
        await opened.open()
        await opened.close()
        await opened.close()
        with pytest.raises(Closed):
            await opened.image("support")

    asyncio.run(twice())


def test_a_job_that_runs_when_the_runtime_closes_goes_on_with_the_next_one() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> Any:
        heard = Heard(runtime)
        bot = await runtime.image("support")
        job = await bot.send("hi").run()
        await heard.until("text_delta")
        return job

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        await heard.until("job_succeeded")
        bot = await runtime.image("support")
        events = await bot.events()
        assert [each.data.attempt for each in events if each.type == "model_called"] == [1, 2]
        assert events[-1].epoch == 2 and (await runtime.replay(bot.session_id)).identical

    gate = Gate()
    job = run(before, store=store, models=Models({"scripted": gate}))
    with pytest.raises(Closed, match="goes on when the log is opened again"):
        asyncio.run(job.result())
    run(after, store=store)


def test_following_the_log_gives_every_event_once_and_goes_on_live() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        await bot.send("one")
        positions: list[int] = []

        async def follow() -> None:
            ended = 0
            async for recorded in runtime.follow():
                positions.append(recorded.position)
                ended += recorded.type == "job_succeeded"
                if ended == 2:
                    return

        following = asyncio.ensure_future(follow())
        await bot.send("two")
        await asyncio.wait_for(following, 5)
        assert positions == list(range(1, runtime.log.position + 1))

    run(work)
