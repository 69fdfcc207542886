"""What bounds a call: its time, on a thread or on the loop, and being cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from reenact.adapters.tools import runner
from reenact.adapters.tools.runner import ToolOutcome, run
from reenact.adapters.tools.tool import Tool, ToolContext, tool
from tests.adapters.calls import CONTEXT, outcome_of, within

# -- time --


@pytest.mark.parametrize(
    ("effect", "doubt"), [("read", False), ("idempotent", False), ("unsafe", True), ("probeable", True)]
)
def test_a_sync_tool_that_overruns_goes_on_unheard(effect: Any, doubt: bool, pool: ThreadPoolExecutor) -> None:
    release, left = threading.Event(), threading.Event()
    heard: list[str] = []

    @tool(effect=effect, timeout_s=0.05, probe=(lambda key: None) if effect == "probeable" else None)
    def act(call: ToolContext) -> str:
        release.wait(20)
        call.progress("too late")
        left.set()
        return "too late"

    async def main() -> ToolOutcome:
        outcome = await run(act, {}, msgspec.structs.replace(CONTEXT, on_progress=heard.append), executor=pool)
        release.set()
        await asyncio.get_running_loop().run_in_executor(None, left.wait, 20)
        await asyncio.sleep(0)
        return outcome

    outcome = within(main())
    assert (outcome.outcome, outcome.error_type, outcome.may_have_run) == ("error", "Timeout", doubt)
    assert outcome.output == "Timeout: act did not end within 0.05 s. It may have taken effect."
    assert outcome.duration_ms >= 50
    assert left.is_set() and heard == []


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_thread_may_end_after_its_loop_is_gone(cancelled: bool, caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    @tool(timeout_s=0.02)
    def act(call: ToolContext) -> str:
        release.wait(20)
        call.progress("nobody hears")
        return "late"

    async def main(pool: ThreadPoolExecutor) -> None:
        context = msgspec.structs.replace(CONTEXT, on_progress=lambda text: None)
        call = asyncio.ensure_future(
            run(act, {}, context, executor=pool, timeout_s=20 if cancelled else None)  # else as declared
        )
        await asyncio.wait((call,), timeout=0.05 if cancelled else 20)
        call.cancel()
        await asyncio.wait((call,))

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))
        release.set()
    assert caplog.records == []


def test_a_call_that_no_thread_took_in_time_is_withdrawn() -> None:
    release, ran = threading.Event(), []

    @tool(timeout_s=0.05)
    def act() -> None:
        ran.append(1)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(release.wait, 20)
        outcome = outcome_of(act, {}, pool)
        release.set()
    assert (outcome.error_type, outcome.may_have_run, ran) == ("NotStarted", False, [])
    assert outcome.output == "No thread was free for act within 0.05 s. It was not run."


def test_the_time_of_a_call_begins_when_a_thread_takes_it() -> None:
    # Fails where the wait for a thread is counted: the tool then has hardly any time left.
    free = threading.Event()

    @tool(timeout_s=0.8)
    def act() -> str:
        threading.Event().wait(0.5)
        return "in time"

    async def main(pool: ThreadPoolExecutor) -> ToolOutcome:
        pool.submit(free.wait, 20)
        call = asyncio.ensure_future(run(act, {}, CONTEXT, executor=pool))
        asyncio.get_running_loop().call_later(0.5, free.set)
        return await call

    with ThreadPoolExecutor(1) as pool:
        assert within(main(pool)).output == "in time"


@pytest.mark.parametrize("effect", ["read", "unsafe"])
def test_an_async_tool_that_overruns_is_cancelled_and_cleans_up(effect: Any, pool: ThreadPoolExecutor) -> None:
    cleaned = []

    @tool(effect=effect, timeout_s=0.02)
    async def act() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(1)

    outcome = outcome_of(act, {}, pool)
    assert (outcome.outcome, outcome.error_type, cleaned) == ("error", "Timeout", [1])
    assert outcome.may_have_run is (effect == "unsafe")


def test_an_async_tool_that_answers_its_cancellation_has_answered(pool: ThreadPoolExecutor) -> None:
    @tool(timeout_s=0.02)
    async def act() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "half of it"
        return "all of it"

    outcome = outcome_of(act, {}, pool)
    assert (outcome.outcome, outcome.output, outcome.may_have_run) == ("ok", "half of it", False)


def test_an_async_tool_that_raises_while_cleaning_up_has_timed_out(pool: ThreadPoolExecutor) -> None:
    @tool(timeout_s=0.02)
    async def act() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while cleaning up")

    assert outcome_of(act, {}, pool).error_type == "Timeout"


def stubborn(release: Callable[[], bool]) -> Tool[..., Any]:
    @tool(timeout_s=0.02)
    async def act() -> None:
        while not release():
            try:
                await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                continue

    return act


def test_an_async_tool_that_will_not_end_is_left_to_itself(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner, "CLEANUP_S", 0.05)
    over: list[int] = []

    async def main() -> ToolOutcome:
        outcome = await run(stubborn(lambda: bool(over)), {}, CONTEXT, executor=pool)
        over.append(1)
        await asyncio.wait(set(runner._abandoned))
        await asyncio.sleep(0)
        assert not runner._abandoned
        return outcome

    outcome = within(main())
    assert (outcome.error_type, outcome.may_have_run) == ("Timeout", True)
    assert "it is left to itself" in caplog.text


def test_the_recorded_time_may_replace_the_declared_one(pool: ThreadPoolExecutor) -> None:
    @tool(timeout_s=3600)
    async def act() -> None:
        await asyncio.Event().wait()

    outcome = asyncio.run(run(act, {}, CONTEXT, executor=pool, timeout_s=0.02))
    assert outcome.error_type == "Timeout"


# -- being cancelled --


def test_cancelling_an_async_call_lets_it_clean_up_first(pool: ThreadPoolExecutor) -> None:
    seen: list[str] = []
    begun = asyncio.Event()

    @tool
    async def act() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            seen.append("cleaned up")

    async def main() -> None:
        call = asyncio.ensure_future(run(act, {}, CONTEXT, executor=pool))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        seen.append("told")

    within(main())
    assert seen == ["cleaned up", "told"]


def test_cancelling_a_stubborn_call_is_bounded(pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CLEANUP_S", 0.05)
    over: list[int] = []

    async def main() -> None:
        call = asyncio.ensure_future(run(stubborn(lambda: bool(over)), {}, CONTEXT, executor=pool, timeout_s=3600))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert runner._abandoned
        over.append(1)
        await asyncio.wait(set(runner._abandoned))
        await asyncio.sleep(0)
        assert not runner._abandoned

    within(main())


def test_cancelling_a_sync_call_does_not_wait_for_its_thread() -> None:
    begun, release, ended = threading.Event(), threading.Event(), []

    @tool
    def act() -> None:
        begun.set()
        release.wait(20)
        ended.append(1)

    async def main(pool: ThreadPoolExecutor) -> None:
        call = asyncio.ensure_future(run(act, {}, CONTEXT, executor=pool))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, 20)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert ended == []
        release.set()

    with ThreadPoolExecutor(1) as pool:
        within(main(pool))
    assert ended == [1]


def test_cancelling_a_sync_call_that_waits_for_a_thread_withdraws_it() -> None:
    release, ran = threading.Event(), []

    @tool
    def act() -> None:
        ran.append(1)

    async def main(pool: ThreadPoolExecutor) -> None:
        call = asyncio.ensure_future(run(act, {}, CONTEXT, executor=pool))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        release.set()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(release.wait, 20)
        within(main(pool))
    assert ran == []
