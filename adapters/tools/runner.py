"""Running a call: the function is entered at most once, everything it does is bounded, and what happened is told as a
value.

Hops of a sync tool: one to a thread of the pool and one back. Of an async tool: none, it is a task of its own on the
loop. Never retries, never decides whether a call may run.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from time import perf_counter
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from ...events.agent import ToolOutput
from .arguments import BadArguments
from .context import ToolContext, Waiting
from .output import Clean, Shown, Unshowable, show
from .tool import Tool

CLEANUP_S = 2.0
"""How long a cancelled async tool may take to clean up before it is left to itself."""

LOOK_S = 0.05
"""How often a call whose time is up is looked at while it waits for a person."""

_log = logging.getLogger(__name__)
_abandoned: set[asyncio.Future[Any]] = set()  # the loop itself holds tasks weakly


class ToolOutcome(Struct, frozen=True, kw_only=True):
    """What became of one run. output: what the model is given, `Type: message` where outcome is `error`.

    error_type: the exception's type, `BadArguments` (nothing was run), `Timeout`, `NotStarted` (no thread was free in
    time; nothing was run) or `Unshowable` (it ran; its result has no form for a model). dropped_bytes, replaced: see
    `Shown`. may_have_run: it was cut off, so it may still have taken effect, or be about to, and its class says that it
    must not be repeated on a guess.
    """

    outcome: Literal["ok", "error"]
    output: ToolOutput
    error_type: str | None = None
    duration_ms: int = 0
    dropped_bytes: int = 0
    replaced: int = 0
    may_have_run: bool = False


class Proof(Struct, frozen=True, kw_only=True):
    """What a probe says of a call in doubt. happened: None when it cannot say, and `reason` why.

    output: of the call that happened, as far as the probe knows it.
    """

    happened: bool | None
    output: ToolOutput = ""
    reason: str = ""
    duration_ms: int = 0
    dropped_bytes: int = 0
    replaced: int = 0


class _Failed(Struct, frozen=True):
    """A run without a result. cut: the function was entered and, as far as we know, not left."""

    error_type: str
    message: str
    cut: bool = False


_Show = Callable[[object], Any]
T = TypeVar("T")


async def run(
    tool: Tool[..., Any],
    arguments: object,
    context: ToolContext,
    *,
    executor: Executor,
    timeout_s: float | None = None,
    clean: Clean | None = None,
) -> ToolOutcome:
    """Check the arguments, run the tool once, and tell what became of it. timeout_s: default as the tool declares.
    clean: see `output.Clean`.

    Async: a task on this loop. When its time is up it is cancelled and has CLEANUP_S to clean up; a result that it
    returns even so counts. Sync: a thread of `executor`; its time begins when a thread takes it, and a call that no
    thread took within `timeout_s` is withdrawn. A thread cannot be killed: past its time the tool goes on, unheard,
    and occupies it.

    Cancelling `run` cancels the call likewise and raises CancelledError when it is over; the caller then knows that
    it may have run. Whatever the tool raises becomes an `error`, SystemExit and KeyboardInterrupt too. Raises
    `ToolDefinitionError` for a probeable tool without a probe, RuntimeError when `executor` is shut down (nothing was
    run).
    """
    tool.check()
    checked = tool.validate(arguments)
    if isinstance(checked, BadArguments):
        return ToolOutcome(outcome="error", output=checked.message, error_type="BadArguments")
    progress = None
    if tool.parameters.context is not None:
        if context.on_progress is not None:
            progress = _Progress(context.on_progress, threaded=not tool.is_async)
            context = msgspec.structs.replace(context, on_progress=progress)
        checked[tool.parameters.context] = context
    began = perf_counter()
    try:
        ended = await _call(
            tool.function,
            checked,
            limit_s=tool.spec.timeout_s if timeout_s is None else timeout_s,
            executor=None if tool.is_async else executor,
            show=lambda value: show(value, max_bytes=tool.max_output_bytes, clean=clean),
            name=tool.name,
            waiting=context.waiting,
        )
    finally:
        if progress is not None:
            progress.over = True
    duration_ms = round((perf_counter() - began) * 1000)
    if isinstance(ended, Shown):
        return ToolOutcome(
            outcome="ok",
            output=ended.output,
            duration_ms=duration_ms,
            dropped_bytes=ended.dropped_bytes,
            replaced=ended.replaced,
        )
    shown = show(ended.message, max_bytes=tool.max_output_bytes, clean=clean)
    return ToolOutcome(
        outcome="error",
        output=shown.output,
        error_type=ended.error_type,
        duration_ms=duration_ms,
        dropped_bytes=shown.dropped_bytes,
        replaced=shown.replaced,
        may_have_run=ended.cut and not tool.repeatable,
    )


async def probe(
    tool: Tool[..., Any],
    arguments: object,
    context: ToolContext,
    *,
    executor: Executor,
    clean: Clean | None = None,
) -> Proof:
    """Ask a probeable tool's probe whether a call in doubt took effect. It may be asked again at any time.

    None or False: it did not. True: it did, its output is unknown. Any other value: it did, with that output. What
    proves nothing: an exception, no answer within the tool's time, an empty value such as 0, "" or [] (a lookup that
    found nothing and a call that returned nothing look alike, and a wrong guess loses or doubles an effect).
    """
    function = tool.probe_function
    if function is None:
        return Proof(happened=None, reason=f"{tool.name} has no probe")
    handed = tool.probe_arguments(arguments, msgspec.structs.replace(context, on_progress=None))
    if isinstance(handed, BadArguments):
        return Proof(happened=None, reason=handed.message)
    began = perf_counter()
    ended = await _call(
        function,
        handed,
        limit_s=tool.spec.timeout_s,
        executor=None if inspect.iscoroutinefunction(function) else executor,
        show=lambda value: _proven(value, tool.max_output_bytes, clean),
        name=f"the probe of {tool.name}",
    )
    duration_ms = round((perf_counter() - began) * 1000)
    if isinstance(ended, _Failed):
        return Proof(happened=None, reason=ended.message, duration_ms=duration_ms)
    return msgspec.structs.replace(ended, duration_ms=duration_ms)


def _proven(value: object, max_bytes: int, clean: Clean | None) -> Proof:
    if value is None or value is False:
        return Proof(happened=False)
    if value is True:
        return Proof(happened=True)
    if isinstance(value, int | float | str | bytes | list | tuple | dict | set | frozenset) and not value:
        return Proof(happened=None, reason=f"the probe returned {value!r}, which proves neither")
    shown = show(value, max_bytes=max_bytes, clean=clean)
    return Proof(happened=True, output=shown.output, dropped_bytes=shown.dropped_bytes, replaced=shown.replaced)


async def _call(
    function: Callable[..., Any],
    arguments: dict[str, Any],
    *,
    limit_s: float,
    executor: Executor | None,
    show: Callable[[object], T],
    name: str,
    waiting: Waiting | None = None,
) -> T | _Failed:
    """Enter the function once, off the loop if there is an executor, and bound the wait for it."""
    if executor is None:
        return await _on_loop(function(**arguments), limit_s=limit_s, show=show, name=name, waiting=waiting)
    work = _Work(function, arguments, show, name)
    thread = executor.submit(contextvars.copy_context().run, work)
    future = asyncio.wrap_future(thread)
    try:
        await asyncio.wait((future,), timeout=limit_s)
        if not future.done():
            if thread.cancel():
                return _Failed("NotStarted", f"No thread was free for {name} within {limit_s:g} s. It was not run.")
            late_s = (work.began or perf_counter()) + limit_s - perf_counter()
            if late_s > 0:  # it had waited for its thread
                await asyncio.wait((future,), timeout=late_s)
    except asyncio.CancelledError:
        future.cancel()  # withdraws the call, if no thread has taken it yet
        raise
    if not future.done():
        future.cancel()  # only our wait for it
        return _timed_out(name, limit_s)
    ended: T | _Failed | Awaitable[Any] = future.result()
    if isinstance(ended, Awaitable):  # a plain function that returned a coroutine
        return await _on_loop(ended, limit_s=limit_s, show=show, name=name)
    return ended


class _Escaping(Exception):
    """A tool raised what would end the loop, or get past everybody who could tell of it."""


async def _kept(awaitable: Awaitable[Any], ended: asyncio.Future[None]) -> Any:
    """SystemExit and its like in a task end the loop: an argument parser's complaint is no reason to.

    ended: done with it. It wakes whoever waits a round of the loop sooner than a callback of the task would.
    """
    try:
        return await awaitable
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:
        raise _Escaping(error) from error
    finally:
        _over(ended)


def _over(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


async def _on_loop(
    awaitable: Awaitable[Any],
    *,
    limit_s: float,
    show: Callable[[object], T],
    name: str,
    waiting: Waiting | None = None,
) -> T | _Failed:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    task = loop.create_task(_kept(awaitable, ended))
    began = loop.time()
    limit = loop.call_later(limit_s, lambda: over())

    def over() -> None:
        """Its time is up, unless it waits for a person, or did: that does not count."""
        nonlocal limit
        left_s = 0.0
        if waiting is not None and waiting.seconds:
            left_s = began + limit_s + waiting.seconds - loop.time()
        if left_s > 0 or (waiting is not None and waiting.now):
            limit = loop.call_later(max(left_s, LOOK_S), over)
        else:
            _over(ended)

    try:
        await ended
    except asyncio.CancelledError:
        await _stop(task, name)
        raise
    finally:
        limit.cancel()
    late = not task.done()
    if late:
        await _stop(task, name)
        if not task.done() or task.cancelled() or task.exception() is not None:
            return _timed_out(name, limit_s)
    if task.cancelled():
        return _Failed("CancelledError", f"CancelledError: {name} cancelled itself.")
    error = task.exception()
    if error is None:
        return _shown(task.result(), show, name)
    if isinstance(error, _Escaping):
        error = error.args[0]
    return _exited(error.code, name) if isinstance(error, SystemExit) else _raised(error, name)


async def _stop(task: asyncio.Future[Any], name: str) -> None:
    """Cancel it and let it clean up, for so long and no longer."""
    task.cancel()
    try:
        await asyncio.wait((task,), timeout=CLEANUP_S)
    finally:
        if not task.done():
            _log.warning("%s was cancelled and has not ended within %g s; it is left to itself", name, CLEANUP_S)
            _abandoned.add(task)
        task.add_done_callback(_forget)


def _forget(task: asyncio.Future[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.debug("a cancelled tool raised", exc_info=error)


class _Work:
    """A call on its way to a thread. Its result is made fit there, so that the loop does not pay for long outputs.

    Exceptions are caught here and not by the pool: some of them (StopIteration) cannot pass through a future.
    """

    __slots__ = ("arguments", "began", "function", "name", "show")

    def __init__(self, function: Callable[..., Any], arguments: dict[str, Any], show: _Show, name: str) -> None:
        self.function = function
        self.arguments = arguments
        self.show = show
        self.name = name
        self.began = 0.0

    def __call__(self) -> Any:
        self.began = perf_counter()
        try:
            value = self.function(**self.arguments)
        except Exception as error:
            return _raised(error, self.name)
        except SystemExit as error:
            return _exited(error.code, self.name)
        except asyncio.CancelledError:
            return _Failed("CancelledError", f"CancelledError: {self.name} cancelled itself.")
        except BaseException as error:  # raised in this thread by the tool itself: nobody interrupts a thread
            return _raised(error, self.name)
        return value if isinstance(value, Awaitable) else _shown(value, self.show, self.name)


class _Progress:
    """What a tool's progress goes through: onto the loop's thread, and nowhere once the call is over."""

    __slots__ = ("hearer", "loop", "over", "threaded")

    def __init__(self, hearer: Callable[[str], None], *, threaded: bool) -> None:
        self.hearer = hearer
        self.loop = asyncio.get_running_loop()
        self.threaded = threaded
        self.over = False

    def __call__(self, text: str) -> None:
        if self.over:
            return
        if not self.threaded:
            self._tell(text)
            return
        try:
            self.loop.call_soon_threadsafe(self._tell, text)
        except RuntimeError:  # the loop is closed: nobody is left to hear it
            self.over = True

    def _tell(self, text: str) -> None:
        if self.over:
            return
        try:
            self.hearer(text)
        except Exception:
            _log.debug("a hearer of progress raised", exc_info=True)


def _shown(value: object, show: Callable[[object], T], name: str) -> T | _Failed:
    try:
        return show(value)
    except Unshowable as error:
        return _Failed("Unshowable", f"{name} ran to its end, but returned {error}. Do not call it again for that.")


def _raised(error: BaseException, name: str) -> _Failed:
    _log.debug("%s raised", name, exc_info=error)
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be read)"
    return _Failed(kind, f"{kind}: {text}" if text else kind)


def _exited(code: object, name: str) -> _Failed:
    return _Failed("SystemExit", f"SystemExit: {name} asked the program to exit ({code}).")


def _timed_out(name: str, limit_s: float) -> _Failed:
    return _Failed("Timeout", f"Timeout: {name} did not end within {limit_s:g} s. It may have taken effect.", cut=True)
