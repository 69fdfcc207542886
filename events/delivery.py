"""How events reach their subscriptions: one at a time, in one order, each handler on its own. Imports asyncio.

A handler's exception ends here. Nothing is stored, nothing is decided.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import get_ident
from time import perf_counter
from traceback import format_exception_only
from typing import Any

from .errors import Refused
from .message import BusEvent, Live
from .payload import Payload
from .subscription import Subscription, running_loop

REPORTS = 10
"""Failures of one subscription that are told of; the last of them says `muted`, later ones are only counted."""

DEPTH_LIMIT = 1000
"""How often events may be answered with events from within handlers before `emit` raises in the handler."""

BACKLOG_LIMIT = 100_000
"""Batches waiting behind a running handler before other threads that emit wait as well."""

HOLD_MAX_S = 0.1
"""Seconds of one batch for which a function may hold the event loop before it is named in the log."""

Batch = tuple[tuple[BusEvent, tuple[Subscription, ...]], ...]
"""Events with who is to hear them, to be delivered with nothing in between."""

_TIMED_BATCHES = 10_000

_log = logging.getLogger("reenact.bus")


class Delivery:
    """The queue of one bus, and whoever is emptying it.

    A batch that comes while none is being delivered is delivered at once, by the thread that brought it. Any other is
    queued behind it, whether a handler emitted it or another thread did, and delivered by the thread that is at it.
    """

    __slots__ = ("_backlog", "_busy", "_deliverer", "_depth", "_now", "_report", "_said", "_tasks", "_timed")

    def __init__(
        self, *, report: Callable[[BusEvent], None], now: Callable[[], int], said: Callable[[str], str] = str
    ) -> None:
        self._report = report
        self._said = said
        self._now = now
        self._backlog: deque[tuple[int, Batch]] = deque()
        self._busy = threading.Lock()
        self._deliverer = 0  # the thread that holds it
        self._depth = 0  # of the batch being delivered: how many handlers in a row led to it
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timed = 0  # batches to come whose calls are timed one by one

    def send(self, batch: Batch) -> None:
        """Deliver, or see to it that it is delivered. Raises what no handler may swallow (KeyboardInterrupt), and
        Refused in a handler whose events have been answered with events too often."""
        backlog = self._backlog
        if not backlog and self._busy.acquire(False):
            self._deliver_from(batch)
            if not backlog:
                return
            # Another thread queued between our last look and the release, and left it to us.
            wait = False
        elif self._deliverer == get_ident():
            if self._depth >= DEPTH_LIMIT:
                raise Refused(
                    f"Events were answered with events {DEPTH_LIMIT} times in a row: do handlers go in circles?"
                )
            backlog.append((self._depth + 1, batch))
            return
        else:
            wait = len(backlog) >= BACKLOG_LIMIT
            backlog.append((0, batch))
        while backlog and self._busy.acquire(wait):
            self._deliver_from(())

    def begun(self) -> tuple[asyncio.Task[Any], ...]:
        """Coroutine handlers that run now."""
        return tuple(self._tasks)

    def clear(self) -> None:
        """Forget what is queued, and cancel what runs, except whoever asks for it."""
        self._backlog.clear()
        running = running_loop()
        own = asyncio.current_task() if running is not None else None
        for task in self.begun():
            loop = task.get_loop()
            if loop is running:
                if task is not own:
                    task.cancel()
            else:
                with suppress(RuntimeError):  # its loop is closed: it is over
                    loop.call_soon_threadsafe(task.cancel)

    def _deliver_from(self, batch: Batch) -> None:
        """Deliver this and all that is queued. Called by the thread that has just taken `_busy`."""
        backlog = self._backlog
        self._deliverer = get_ident()
        try:
            while True:
                began = perf_counter()
                if self._timed:
                    self._deliver_timed(batch)
                else:
                    self._deliver(batch)
                    if perf_counter() - began > HOLD_MAX_S:
                        self._held(batch, perf_counter() - began)
                if not backlog:
                    break
                self._depth, batch = backlog.popleft()
        finally:
            self._depth = self._deliverer = 0
            self._busy.release()

    def _held(self, batch: Batch, took_s: float) -> None:
        """The calls of a batch took long. Where it may have been any of several, those of the next ones are timed."""
        if running_loop() is None:
            return
        heard = {each: None for _, subscriptions in batch for each in subscriptions}
        if len(heard) == 1:
            _name(next(iter(heard)), took_s)
        elif not all(each.named for each in heard):
            self._timed = _TIMED_BATCHES

    def _deliver_timed(self, batch: Batch) -> None:
        """Deliver, and name whoever takes too much of it."""
        self._timed -= 1
        took: dict[Subscription, float] = {}
        for index, (event, subscriptions) in enumerate(batch):
            for each in subscriptions:
                began = perf_counter()
                try:
                    self._deliver(((event, (each,)),))
                except BaseException:
                    self._put_back(batch, index, each)
                    raise
                took[each] = took.get(each, 0.0) + perf_counter() - began
        if running_loop() is not None:
            for each, took_s in took.items():
                if took_s > HOLD_MAX_S:
                    self._timed = 0
                    _name(each, took_s)

    def _deliver(self, batch: Batch) -> None:
        for index, (event, subscriptions) in enumerate(batch):
            for subscription in subscriptions:
                try:
                    result = subscription.call(event)
                    if result is not None and isinstance(result, Coroutine):
                        self._begin(subscription, event, result)
                # A handler that is no coroutine has no task to cancel: its CancelledError is one it stumbled over.
                except (Exception, CancelledError) as error:
                    self.failed(subscription, event, error)
                except BaseException:
                    self._put_back(batch, index, subscription)
                    raise

    def _put_back(self, batch: Batch, index: int, subscription: Subscription) -> None:
        """What is left of a batch after `subscription` had its event at `index`: it goes first next time."""
        event, hearers = batch[index]
        left = hearers[hearers.index(subscription) + 1 :]
        self._backlog.appendleft((self._depth, ((event, left), *batch[index + 1 :])))

    def failed(self, subscription: Subscription, event: BusEvent, error: BaseException) -> None:
        """Count a failure, and tell of it unless it befell somebody who was being told of one."""
        subscription.failures += 1
        failures = subscription.failures
        if event.type == "subscriber_failed" or failures > REPORTS:
            return
        _log.error("%s raised at %s", subscription.name, event.type, exc_info=error)
        report = Live(
            "subscriber_failed",
            Payload(
                handler=subscription.name,
                type=event.type,
                error=self._said("".join(format_exception_only(error)).strip()),
                position=event.position,
                failures=failures,
                muted=failures == REPORTS,
            ),
            at=self._now(),
            context=event.context,
            category="error",
        )
        if self._deliverer != get_ident():
            self._report(report)
            return
        # A report is no answer to an event: it must get through where the depth limit is what failed.
        depth, self._depth = self._depth, 0
        try:
            self._report(report)
        finally:
            self._depth = depth

    def _begin(self, subscription: Subscription, event: BusEvent, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Have the coroutine run as a task of its loop. Both ways there are first in, first out, so that calls start in
        the order of the bus."""
        running = running_loop()
        loop = subscription.loop or running
        refused: Exception
        if loop is None:
            refused = RuntimeError("a coroutine handler needs an event loop: subscribe it from within one")
        elif subscription.begun - subscription.ended >= subscription.tasks_limit:
            refused = Refused(f"{subscription.tasks_limit} of its calls are running already")
        else:
            schedule = loop.call_soon if loop is running else loop.call_soon_threadsafe
            try:
                schedule(self._start, loop, subscription, event, coroutine)
            except RuntimeError as closed:
                refused = closed
            else:
                subscription.begun += 1
                return
        coroutine.close()
        if subscription.on_refused is not None:
            subscription.on_refused(event, refused)
        self.failed(subscription, event, refused)

    def _start(
        self,
        loop: asyncio.AbstractEventLoop,
        subscription: Subscription,
        event: BusEvent,
        coroutine: Coroutine[Any, Any, Any],
    ) -> None:
        def over(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            subscription.ended += 1
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                self.failed(subscription, event, error)

        task = loop.create_task(coroutine, context=subscription.context.copy())
        self._tasks.add(task)  # the loop itself holds its tasks weakly
        task.add_done_callback(over)


def _name(subscription: Subscription, took_s: float) -> None:
    if subscription.named:
        return
    subscription.named = True
    _log.warning(
        "%s held the event loop for %.2f s, and everybody waited: subscribe it with thread=True, or make it a coroutine"
        " function",
        subscription.name,
        took_s,
    )
