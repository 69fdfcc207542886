"""A handler on a thread of its own: it may take its time, and nobody who emits waits for it. Imports threading.

What it has not had yet waits in the queue of a live view, with that one's bound.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from .errors import BadInput
from .message import BusEvent
from .queue import Unread
from .subscription import Handler, Subscription, name_of

UNHEARD_MAX = 10_000
"""Events that wait for a handler on a thread of its own; then the oldest are let go, and it is told how many."""

Failed = Callable[[Subscription, BusEvent, BaseException], None]


class Aside:
    """One handler, its thread, and what it has not had yet.

    The thread begins with the first event and ends with the subscription: a call that is under way then runs to its
    end, no other begins. It is in the context in which the handler was subscribed, and keeps no process from ending.
    """

    __slots__ = ("_begun", "_bell", "_context", "_failed", "_handler", "_once", "_over", "_unread", "subscription")

    subscription: Subscription

    def __init__(self, handler: Handler, *, once: bool, now: Callable[[], int], failed: Failed) -> None:
        """failed(subscription, event, error): a call raised; called in the loop that the handler was subscribed in."""
        if iscoroutinefunction(handler) or iscoroutinefunction(type(handler).__call__):
            raise BadInput(f"{name_of(handler)} is a coroutine function: it runs on the event loop, not on a thread.")
        self._handler = handler
        self._once = once
        self._failed = failed
        self._unread = Unread(limit=UNHEARD_MAX, on_full="drop_oldest", keep=None, now=now)
        self._bell = threading.Event()
        self._context = copy_context()
        self._begun = self._over = False

    def push(self, event: BusEvent) -> None:
        """Called by the bus, one call at a time: leave it to the thread."""
        self._unread.push(event)
        if not self._begun:
            self._begun = True
            name = f"reenact-on {self.subscription.name}"
            threading.Thread(target=self._context.run, args=(self._work,), name=name, daemon=True).start()
        elif not self._bell.is_set():
            self._bell.set()

    def close(self) -> None:
        """No call begins after this."""
        self._over = True
        self._bell.set()

    def _work(self) -> None:
        while not self._over:
            event = self._unread.take()
            if event is not None:
                if self._once:
                    self.subscription.unsubscribe()
                self._call(event)
                continue
            self._bell.clear()
            # Looked at again after the bell is still: what came before that rang it for nobody.
            if self._unread.size == 0 and not self._over:
                self._bell.wait()

    def _call(self, event: BusEvent) -> None:
        try:
            result: Any = self._handler(event)
            if isinstance(result, Coroutine):
                result.close()
                raise TypeError("a coroutine runs on the event loop: subscribe without thread=True")
        except BaseException as error:  # nothing ends this thread but the subscription
            self._tell(event, error)

    def _tell(self, event: BusEvent, error: BaseException) -> None:
        tell = partial(self._failed, self.subscription, event, error)
        if self.subscription.loop is None:
            tell()
            return
        try:
            self.subscription.loop.call_soon_threadsafe(tell)
        except RuntimeError:  # its loop is closed: nobody hears of anything any more
            return
