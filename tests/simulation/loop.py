"""An event loop whose time is a number: nothing waits, and the clock jumps to the next timer when all are waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Stuck(RuntimeError):
    """Everybody waits, and no timer will ever go off."""


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio's own loop, without sockets and threads. Callbacks run in the order in which they were asked for.

    `run_until_complete` runs as ever. A simulation that decides itself when time passes uses `drain` and `advance`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self  # of all that a selector does, asyncio asks for `select` only
        self.raised: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.raised.append(context))

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Where a real loop would wait: move time instead."""
        if timeout is None:
            raise Stuck("everybody waits, and no timer will ever go off")
        self._now += timeout
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """What would go to a thread is done at once, here: a simulation has one thread."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    # -- step by step --

    def drain(self) -> int:
        """Run every callback that is ready, and those that become ready by it. How many there were."""
        ran = 0
        asyncio._set_running_loop(self)
        try:
            while self._ready:  # type: ignore[attr-defined]
                handle = self._ready.popleft()  # type: ignore[attr-defined]
                if not handle._cancelled:
                    handle._run()
                    ran += 1
        finally:
            asyncio._set_running_loop(None)
        return ran

    def within(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call something that expects to run on a loop."""
        asyncio._set_running_loop(self)
        try:
            return call(*args)
        finally:
            asyncio._set_running_loop(None)

    @property
    def next_timer(self) -> float | None:
        """Seconds until the next timer, None when there is none."""
        due = [handle.when() for handle in self._scheduled if not handle._cancelled]  # type: ignore[attr-defined]
        return max(0.0, min(due) - self._now) if due else None

    def step(self) -> None:
        """Run the callback that has been ready longest."""
        handle = self._ready.popleft()  # type: ignore[attr-defined]
        if not handle._cancelled:
            asyncio._set_running_loop(self)
            try:
                handle._run()
            finally:
                asyncio._set_running_loop(None)

    @property
    def ready(self) -> int:
        """How many callbacks could run now."""
        return len(self._ready)  # type: ignore[attr-defined]

    def advance(self, seconds: float) -> None:
        """Let time pass, and make ready every timer that went off, the earliest first."""
        self._now += seconds
        if not self._scheduled:  # type: ignore[attr-defined]
            return
        live = [handle for handle in self._scheduled if not handle._cancelled]  # type: ignore[attr-defined]
        due = sorted((handle for handle in live if handle.when() <= self._now), key=lambda handle: handle.when())
        self._scheduled[:] = [handle for handle in live if handle.when() > self._now]  # type: ignore[attr-defined]
        for handle in due:
            handle._scheduled = False
            self._ready.append(handle)  # type: ignore[attr-defined]
