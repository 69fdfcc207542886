"""Threads for tools that block: a bounded pool that no exit of the program waits for.

The standard pool joins its threads at exit, so one tool that never returns would keep the process alive for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Work = tuple[Future[Any], Callable[[], Any]]


class ToolThreads(Executor):
    """At most `most` daemon threads, started when work finds none idle. What does not find a thread waits in order."""

    def __init__(self, most: int, *, name: str = "reenact-tool") -> None:
        self._most = most
        self._name = name
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have it done. Raises RuntimeError after `shutdown`."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the threads for tools were shut down")
            self._work.put((future, lambda: fn(*args, **kwargs)))
            if self._idle:
                self._idle -= 1
            elif self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._run, name=f"{self._name}-{self._threads}", daemon=True).start()
        return future

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, call = work
            result, raised = None, None
            wanted = future.set_running_or_notify_cancel()
            if wanted:
                try:
                    result = call()
                except BaseException as error:
                    raised = error
            with self._lock:
                self._idle += 1  # before anybody hears of the result, and comes with more work
            if raised is not None:
                future.set_exception(raised)
            elif wanted:
                future.set_result(result)
            del work, future, call, result, raised

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. Running calls go on by themselves and are not waited for, whatever `wait` says."""
        with self._lock:
            self._closed = True
            left: list[_Work] = []
            while cancel_futures and not self._work.empty():
                work = self._work.get_nowait()
                if work is not None:
                    left.append(work)
            for _ in range(self._threads):
                self._work.put(None)
        for future, _ in left:
            future.cancel()
