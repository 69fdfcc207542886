"""How long a model is waited for: for all of one answer, and for each next piece of it, whatever its adapter does."""

from __future__ import annotations

import asyncio
from types import TracebackType

AGAIN_S = 1.0
"""So long after a cancel that was not heeded the next one follows."""


class Patience:
    """`with patience: …` around what one call of a model awaits. Raises TimeoutError once it is over, and says why.

    What is awaited then is cancelled, as an interrupt would; a cancel that comes from elsewhere stays one. `heard()`
    says that something came: it stores one number, so it may be said for every piece of an answer.
    """

    __slots__ = (
        "_before",
        "_began",
        "_cancels",
        "_handle",
        "_heard",
        "_loop",
        "_silence_s",
        "_task",
        "_whole_s",
        "over",
    )

    def __init__(self, whole_s: float, silence_s: float) -> None:
        self.over = ""
        self._whole_s, self._silence_s = whole_s, silence_s
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._before = self._cancels = 0
        self._began = self._heard = 0.0

    def heard(self) -> None:
        """Something came, be it only a sign of life."""
        self._heard = self._loop.time()

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._before = self._task.cancelling() if self._task is not None else 0
        self._began = self._heard = self._loop.time()
        self._look()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._handle is not None:
            self._handle.cancel()
        task, self._task = self._task, None
        if not self._cancels or task is None:
            return
        for _ in range(self._cancels):
            left = task.uncancel()
        if kind is not None and left <= self._before:
            raise TimeoutError(self.over) from error

    def _look(self) -> None:
        """Whether it is over as it stands now; when it would be, it is looked again, and not for every piece."""
        now = self._loop.time()
        end, silent = self._began + self._whole_s, self._heard + self._silence_s
        if now < end and now < silent and not self.over:
            self._handle = self._loop.call_at(min(end, silent), self._look)
            return
        if not self.over and now >= end:
            self.over = f"The model had not answered within {self._whole_s:g} s."
        elif not self.over:
            self.over = f"The model said nothing for {self._silence_s:g} s."
        if self._task is not None:
            self._cancels += 1
            self._task.cancel()
            self._handle = self._loop.call_later(AGAIN_S, self._look)
