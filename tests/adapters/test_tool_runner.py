"""Running calls: what becomes of them and what bounds them; and asking a probe."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from reenact.adapters.tools import runner
from reenact.adapters.tools.runner import Proof, ToolOutcome, probe, run
from reenact.adapters.tools.tool import Tool, ToolContext, ToolDefinitionError, tool

T = TypeVar("T")
CONTEXT = ToolContext(idempotency_key="key-1", session_id="sess_1", call_id="t1", attempt=2, workspace=Path("/w"))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def nothing() -> None: ...


def outcome_of(
    made: Tool[..., Any], arguments: object, pool: ThreadPoolExecutor, context: ToolContext = CONTEXT
) -> ToolOutcome:
    return asyncio.run(run(made, arguments, context, executor=pool))


def within(awaitable: Awaitable[T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(awaitable, 20)

    return asyncio.run(bounded())


# -- what becomes of a call --


def test_a_sync_tool_runs_on_a_thread_of_the_pool(pool: ThreadPoolExecutor) -> None:
    @tool
    def where(a: int, b: int = 2) -> str:
        return f"{a + b} {threading.current_thread() is threading.main_thread()}"

    outcome = outcome_of(where, {"a": 1}, pool)
    assert (outcome.outcome, outcome.output, outcome.error_type) == ("ok", "3 False", None)
    assert (outcome.dropped_bytes, outcome.replaced, outcome.may_have_run) == (0, 0, False)


def test_an_async_tool_runs_on_the_loop(pool: ThreadPoolExecutor) -> None:
    @tool
    async def where(a: int) -> bool:
        await asyncio.sleep(0)
        return threading.current_thread() is threading.main_thread()

    assert outcome_of(where, {"a": 1}, pool).output == "true"


def test_a_plain_function_that_returns_a_coroutine_is_awaited(pool: ThreadPoolExecutor) -> None:
    async def inner(a: int) -> int:
        return a + 1

    @tool
    def outer(a: int) -> Any:
        return inner(a)

    assert outcome_of(outer, {"a": 1}, pool).output == "2"


def test_a_bad_call_is_never_run(pool: ThreadPoolExecutor) -> None:
    ran = []

    @tool
    def act(a: int) -> None:
        ran.append(a)

    for arguments in ({"a": "1"}, {}, {"a": 1, "b": 2}, [1], None, {"a": float("nan")}):
        outcome = outcome_of(act, arguments, pool)
        assert (outcome.outcome, outcome.error_type, outcome.may_have_run) == ("error", "BadArguments", False)
        assert isinstance(outcome.output, str) and outcome.output.endswith("Nothing was run.")
    assert ran == []


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("no such order: 7"), "ValueError: no such order: 7"),
        (KeyError("x"), "KeyError: 'x'"),
        (TimeoutError(), "TimeoutError"),
        (StopAsyncIteration("done"), None),
        (asyncio.CancelledError(), "CancelledError: act cancelled itself."),
        (OSError(2, "No such file", "\udcff\0"), "FileNotFoundError: [Errno 2] No such file: '\\udcff\\x00'"),
        (ValueError("\ud800\0"), "ValueError: \ufffd\ufffd"),
    ],
)
def test_what_a_tool_raises_is_an_error_for_the_model(
    asynchronous: bool, error: BaseException, says: str | None, pool: ThreadPoolExecutor
) -> None:
    def act() -> None:
        raise error

    async def async_act() -> None:
        raise error

    made = tool(async_act, name="act") if asynchronous else tool(act)
    outcome = outcome_of(made, {}, pool)
    assert outcome.outcome == "error" and not outcome.may_have_run
    if says is not None:
        assert outcome.output == says and outcome.error_type == says.partition(":")[0]


def test_stop_iteration_gets_through_a_thread(pool: ThreadPoolExecutor) -> None:
    # Fails (hangs, or says TypeError) where the pool's future carries the exception.
    @tool
    def act() -> int:
        return next(iter(()))

    assert outcome_of(act, {}, pool).output == "StopIteration"


def test_an_exception_without_a_readable_message_is_an_error_too(pool: ThreadPoolExecutor) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    @tool
    def act() -> None:
        raise Broken

    assert outcome_of(act, {}, pool).output == "Broken: (its message cannot be read)"


def test_the_traceback_is_logged_and_not_told(pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture) -> None:
    @tool
    def act() -> None:
        raise ValueError("why")

    with caplog.at_level(logging.DEBUG, logger="reenact"):
        outcome = outcome_of(act, {}, pool)
    assert outcome.output == "ValueError: why"
    assert "Traceback" in caplog.text and "act raised" in caplog.text


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_tool_that_exits_ends_only_its_call(asynchronous: bool, pool: ThreadPoolExecutor) -> None:
    def act() -> None:
        raise SystemExit(3)

    async def async_act() -> None:
        raise SystemExit(3)

    outcome = outcome_of(tool(async_act) if asynchronous else tool(act), {}, pool)
    assert (outcome.outcome, outcome.error_type) == ("error", "SystemExit")
    assert "asked the program to exit (3)" in outcome.output


def test_a_probeable_tool_without_its_probe_is_not_run(pool: ThreadPoolExecutor) -> None:
    @tool(effect="probeable", probe=...)
    def act() -> None: ...

    with pytest.raises(ToolDefinitionError, match="never attached"):
        outcome_of(act, {}, pool)


def test_a_closed_pool_is_no_error_of_the_tool(pool: ThreadPoolExecutor) -> None:
    pool.shutdown()
    with pytest.raises(RuntimeError):
        outcome_of(tool(nothing), {}, pool)


# -- the context --


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_tool_that_asks_for_its_context_gets_it(asynchronous: bool, pool: ThreadPoolExecutor) -> None:
    def act(a: int, call: ToolContext) -> str:
        call.progress("half way")
        return f"{a} {call.idempotency_key} {call.session_id} {call.call_id} {call.attempt} {call.workspace}"

    async def async_act(a: int, call: ToolContext) -> str:
        return act(a, call)

    heard: list[tuple[str, bool]] = []

    def hear(text: str) -> None:
        heard.append((text, threading.current_thread() is threading.main_thread()))

    made = tool(async_act) if asynchronous else tool(act)
    context = msgspec.structs.replace(CONTEXT, on_progress=hear)
    assert outcome_of(made, {"a": 1}, pool, context).output == "1 key-1 sess_1 t1 2 /w"
    assert heard == [("half way", True)]
    assert outcome_of(made, {"a": 1}, pool).output == "1 key-1 sess_1 t1 2 /w"


def test_a_hearer_of_progress_that_raises_does_not_hurt_the_tool(pool: ThreadPoolExecutor) -> None:
    @tool
    def act(call: ToolContext) -> str:
        call.progress("x")
        return "fine"

    def hear(text: str) -> None:
        raise ValueError(text)

    assert outcome_of(act, {}, pool, msgspec.structs.replace(CONTEXT, on_progress=hear)).output == "fine"


def test_context_variables_reach_the_thread(pool: ThreadPoolExecutor) -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    @tool
    def act() -> str:
        return variable.get()

    async def main() -> ToolOutcome:
        variable.set("set")
        return await run(act, {}, CONTEXT, executor=pool)

    assert asyncio.run(main()).output == "set"


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


# -- probes --


def probed(function: Callable[..., Any], pool: ThreadPoolExecutor, arguments: object = None) -> Proof:
    @tool(effect="probeable", probe=function, timeout_s=0.2)
    def charge(order: str, cents: int = 7) -> str:
        raise AssertionError("a probe must not run its tool")

    return asyncio.run(probe(charge, arguments or {"order": "A"}, CONTEXT, executor=pool))


@pytest.mark.parametrize(
    ("answer", "happened", "output"),
    [
        (None, False, ""),
        (False, False, ""),
        (True, True, ""),
        ("receipt 3", True, "receipt 3"),
        ({"receipt": 3}, True, '{"receipt":3}'),
        (3, True, "3"),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_probe_says_whether_it_happened(
    asynchronous: bool, answer: object, happened: bool, output: str, pool: ThreadPoolExecutor
) -> None:
    def look(key: str) -> object:
        return answer if key == "key-1" else "another call's"

    async def async_look(key: str) -> object:
        return look(key)

    proof = probed(async_look if asynchronous else look, pool)
    assert (proof.happened, proof.output, proof.reason) == (happened, output, "")


@pytest.mark.parametrize("answer", [0, 0.0, "", b"", [], {}, (), set()])
def test_an_empty_answer_proves_nothing(answer: object, pool: ThreadPoolExecutor) -> None:
    proof = probed(lambda key: answer, pool)
    assert proof.happened is None and "proves neither" in proof.reason


def test_a_probe_gets_what_it_asks_for(pool: ThreadPoolExecutor) -> None:
    def look(cents: int, order: str, idempotency_key: str, call: ToolContext, spare: int = 1) -> str:
        return f"{cents} {order} {idempotency_key} {call.attempt} {spare}"

    assert probed(look, pool).output == "7 A key-1 2 1"
    assert probed(look, pool, {"order": "B", "cents": 9}).output == "9 B key-1 2 1"
    assert probed(lambda: True, pool).happened is True


def test_a_probe_that_fails_proves_nothing(pool: ThreadPoolExecutor) -> None:
    def broken(key: str) -> None:
        raise ConnectionError("no route")

    async def endless(key: str) -> None:
        await asyncio.Event().wait()

    def odd(key: str) -> object:
        return object()

    assert probed(broken, pool).happened is None
    assert probed(broken, pool).reason == "ConnectionError: no route"
    assert "did not end within 0.2 s" in probed(endless, pool).reason
    assert "neither text nor JSON" in probed(odd, pool).reason
    assert probed(odd, pool).happened is None


def test_arguments_that_are_no_longer_fitting_prove_nothing(pool: ThreadPoolExecutor) -> None:
    proof = probed(lambda key: True, pool, {"order": 1})
    assert proof.happened is None and "$.order" in proof.reason


def test_a_tool_without_a_probe_proves_nothing(pool: ThreadPoolExecutor) -> None:
    proof = asyncio.run(probe(tool(nothing), {}, CONTEXT, executor=pool))
    assert proof == Proof(happened=None, reason="nothing has no probe")


class _Odd(BaseException):
    """Neither an Exception nor a way to end a program."""


@pytest.mark.parametrize("kind", [_Odd, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_whatever_a_tool_raises_ends_only_its_call(
    asynchronous: bool, kind: type[BaseException], pool: ThreadPoolExecutor
) -> None:
    """Fails where only Exceptions are caught: the loop would die, and whoever waits would wait for ever."""

    def act() -> None:
        raise kind("odd")

    async def async_act() -> None:
        raise kind("odd")

    outcome = outcome_of(tool(async_act) if asynchronous else tool(act), {}, pool)
    assert (outcome.outcome, outcome.error_type) == ("error", kind.__name__)
