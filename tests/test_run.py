"""A run as its sender sees it: iterated, awaited, waited for too short a time, and closed upon."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact import Runtime
from reenact.adapters.models import Models
from reenact.events.errors import Closed
from tests.runtimes import CALL, Gate, Heard, run, runtime, types_of, weather


def test_a_run_can_be_iterated_and_awaited_by_many_and_late() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        run = await bot.send("weather?").run()
        one, two = await asyncio.gather(types_of(run), types_of(run))
        assert one == two and one[0] == "job_queued" and one[-1] == "job_succeeded"
        assert "text_delta" in one
        late = await types_of(run)
        assert late == [kind for kind in one if kind in late] and late[-1] == "job_succeeded"
        assert (await run).text == (await run.result()).text == "It is 21 degrees."

    run(work, CALL, tools=[weather])


def test_a_result_tells_what_the_job_used() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("weather?")
        assert (result.status, result.steps, result.stop_reason) == ("succeeded", 2, "end_turn")
        assert result.usage.output_tokens > 0

    run(work, CALL, tools=[weather])


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
def test_what_is_called_at_its_end_and_raises_keeps_nobody_from_hearing_of_it(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise error

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        begun = await bot.send("hello").run()
        begun.on_end(broken)
        assert (await begun).status == "succeeded"
        assert (await bot.send("again")).status == "succeeded"

    run(work)
    [line] = [each for each in caplog.records if "at the end of job_" in each.message]
    assert line.exc_info is not None and line.exc_info[0] is error


def test_a_wait_that_times_out_does_not_stop_the_run() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        run = await bot.send("hi").run()
        with pytest.raises(TimeoutError):
            await run.result(0.01)
        gate.opened.set()
        assert (await run.result(5)).status == "succeeded"

    gate = Gate()
    run(work, models=Models({"scripted": gate}))


def test_a_job_whose_time_is_up_is_stopped_and_says_so() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("hi", timeout_s=0.05)
        assert (result.status, result.text) == ("timed_out", "partial ")

    run(work, models=Models({"scripted": Gate()}))


def test_iterating_says_when_the_runtime_was_closed_before_the_end() -> None:
    async def work() -> None:
        opened = await runtime(models=Models({"scripted": Gate()})).open()
        heard = Heard(opened)
        bot = await opened.image("support")
        job = await bot.send("hi").run()
        watching = asyncio.ensure_future(types_of(job))
        await heard.until("text_delta")
        await opened.close()
        with pytest.raises(Closed):
            await watching
        with pytest.raises(Closed, match="make another"):
            await opened.open()

    asyncio.run(work())


def test_a_thousand_queued_messages_cost_no_more_each_than_a_hundred() -> None:
    """Fails where every event goes to every run of its session."""

    async def work(runtime: Runtime) -> None:
        from reenact.run import Run

        bot = await runtime.image("support")
        seen = [0]
        see = Run.see

        def count(self: Run, event: Any) -> None:
            seen[0] += 1
            see(self, event)

        Run.see = count  # type: ignore[method-assign]
        try:
            await asyncio.gather(*(bot.send("hi") for _ in range(300)))
        finally:
            Run.see = see  # type: ignore[method-assign]
        assert 300 <= seen[0] <= 300 * 30

    run(work)
