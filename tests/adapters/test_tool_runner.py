"""Running calls: on which thread, with what context, and what becomes of whatever a tool returns or raises."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from reenact.adapters.tools.runner import ToolOutcome, run
from reenact.adapters.tools.tool import ToolContext, ToolDefinitionError, tool
from tests.adapters.calls import CONTEXT, nothing, outcome_of

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
