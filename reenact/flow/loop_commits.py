"""Who commits, the event loop or a worker, and how what was committed comes to the loop, where it is told.

To wake a worker and to be woken by it takes a third of a step of a turn. Where one session is at work nobody would have
used the loop meanwhile, so it decides and commits by itself, as long as the disk is quick.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Sized
from time import perf_counter
from typing import Any

from ..actors.system import ActorSystem, Committed

SLOW_S = 0.002
"""A commit on the event loop that took longer was slow, and the loop has to be spared the next ones."""

SPARED = 25
"""So many times as long as a slow commit took, the loop makes none: such hold it for a twenty-fifth of the time."""

_log = logging.getLogger("reenact")


class LoopCommits:
    """The loop's part in the commits of one actor system, `system`. Made on the loop.

    runs: of the sessions at work. told(group): tells everybody what one commit brought; called on the loop, in the
    order of the log.
    """

    system: ActorSystem

    def __init__(self, runs: Sized, told: Callable[[list[Committed]], None]) -> None:
        self._runs = runs
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._untold: deque[list[Committed]] = deque()
        self._takes = self._at_it = False  # a commit of the loop's own is coming; or is being made
        self._spared_until = 0.0
        self._closed = False

    def close(self) -> None:
        """The loop makes no more commits; what the workers still make is told."""
        self._closed = True

    def may_take(self) -> bool:
        """Whether the loop does itself what has just become ready, instead of a worker."""
        if threading.get_ident() != self._thread or self._takes or len(self._runs) != 1:
            return False
        if self._spared_until and perf_counter() < self._spared_until:
            return False
        self._takes = True
        self._loop.call_soon(self._take)
        return True

    def _take(self) -> None:
        if self._closed or len(self._runs) > 1:
            self._takes = False
            self.system.hand_over()
            return
        began = perf_counter()
        self._at_it = True
        try:
            self.system.step()
        finally:
            self._takes = self._at_it = False
            took_s = perf_counter() - began
            if took_s > SLOW_S:
                self._spared_until = began + took_s * SPARED
            self._tell()

    def publish(self, group: list[Any]) -> None:
        """What one commit brought, in log order, mostly on a worker thread. Everybody hears of it on the loop."""
        self._untold.append(group)
        if self._at_it and threading.get_ident() == self._thread:
            return
        try:
            self._loop.call_soon_threadsafe(self._tell)
        except RuntimeError:
            _log.debug("the loop is closed; %d batches were stored and not told", len(group))

    def _tell(self) -> None:
        try:
            while self._untold:
                self._told(self._untold.popleft())
        finally:
            if self._untold:  # what no handler may swallow has come out of one
                self._loop.call_soon(self._tell)


def undisturbed() -> bool:
    """Whether an interrupt of the program is sure not to raise in the midst of a commit on this thread: only where
    Python's own handler of it is in place, as in a notebook, does it."""
    if threading.current_thread() is not threading.main_thread():
        return True
    return signal.getsignal(signal.SIGINT) is not signal.default_int_handler
