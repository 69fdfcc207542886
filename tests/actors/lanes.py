"""Lanes for tests: behaviours that are held and counted, and pools that must end without a crash."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from reenact.actors.threads import Pool

LONG = bool(os.environ.get("REENACT_LONG"))
PATIENCE_S = 30.0  # only ever waited out by a broken build

Crash = tuple[str, BaseException]


class Does:
    """A behaviour that is one function."""

    def __init__(self, receive: Callable[[Any], bool | None]) -> None:
        self._receive = receive

    def receive(self, message: object, /) -> bool:
        return self._receive(message) is True


class Gate:
    """A behaviour that holds its worker until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def receive(self, message: object, /) -> bool:
        self.reached.set()
        assert self._open.wait(PATIENCE_S)
        return False

    def open(self) -> None:
        self._open.set()


class Countdown:
    """Set when it was counted down `n` times, by any thread."""

    def __init__(self, n: int) -> None:
        self._left = n
        self._lock = threading.Lock()
        self._done = threading.Event()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._done.set()

    def wait(self) -> None:
        assert self._done.wait(PATIENCE_S), f"{self._left} never came"


@contextmanager
def pool_of(
    threads: int, *, on_idle: Callable[[], bool | None] | None = None, crashes: list[Crash] | None = None
) -> Iterator[Pool]:
    """A pool that must end without a crash, unless the test collects them."""
    heard: list[Crash] = [] if crashes is None else crashes
    pool = Pool(threads=threads, on_crash=lambda key, error: heard.append((key, error)), on_idle=on_idle)
    try:
        yield pool
    finally:
        pool.close()
    if crashes is None:
        assert heard == []


def settle(pool: Pool) -> None:
    """In a pool of one thread: wait until every lane that is ready now has had its turn."""
    assert pool.threads == 1
    seen = threading.Event()
    key = f"probe-{time.monotonic_ns()}"
    pool.spawn(key, Does(lambda _: seen.set())).tell(None)
    assert seen.wait(PATIENCE_S)
    pool.remove(key)


def hold(pool: Pool, key: str = "gate") -> Gate:
    """Occupy one worker until the gate is opened."""
    gate = Gate()
    pool.spawn(key, gate).tell(None)
    assert gate.reached.wait(PATIENCE_S)
    return gate


def run_threads(count: int, body: Callable[[int], None]) -> None:
    """Start them together, and raise what any of them raised."""
    start, raised = threading.Barrier(count), list[BaseException]()

    def run(n: int) -> None:
        try:
            start.wait(PATIENCE_S)
            body(n)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    if raised:
        raise raised[0]
