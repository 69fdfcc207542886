"""Ctrl-C: once to stop what runs and keep what was said, twice to quit, three times to quit wherever it stands."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells give it."""


class Stop:
    """asked: whether Ctrl-C was pressed. quits: whether it was pressed again."""

    def __init__(self) -> None:
        self.asked = False
        self.quits = False


@contextmanager
def stopping(
    stop_it: Callable[[], object], tell: Callable[[], object], quit_it: Callable[[], bool] = lambda: False
) -> Iterator[Stop]:
    """Within: the first Ctrl-C calls `tell` and `stop_it`, and what runs ends by itself; the second calls `quit_it`,
    which has whoever waits for events raise KeyboardInterrupt, and says whether anybody does. The third raises it here,
    wherever that is, and so does the second where nobody waits.
    """
    stop = Stop()

    def interrupt(number: int, frame: Any) -> None:
        if stop.asked:
            # Raised here it may come up in the middle of anything, a finalizer among it, which swallows it.
            if stop.quits or not quit_it():
                raise KeyboardInterrupt
            stop.quits = True
            return
        stop.asked = True
        with suppress(RuntimeError):  # it may have come in the middle of a write to the same stream
            tell()
        stop_it()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
