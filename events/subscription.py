"""Who hears what: a subscription, and the tables in which the bus looks subscriptions up. Standard library only.

Tables change by replacement: what an emit has looked up is a tuple that nobody alters, so it needs no lock.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from itertools import count
from typing import Any, Self

from .message import BusEvent

Handler = Callable[[Any], object]
"""Called with an event. What it returns is ignored, unless it is a coroutine: that is run."""

Filter = Callable[[Any], object]

TASKS_LIMIT = 1000
"""Calls of one coroutine handler that may run at a time; an event beyond it counts as that handler's failure."""

ROUTES_LIMIT = 4096
"""Event types whose subscriptions are kept looked up, a table."""


class Subscription:
    """One handler's place on the bus, called in the context in which it was subscribed.

    Give it up by `unsubscribe()`, by calling it, or by leaving its `with` block.
    live: not given up yet. failures: how often its handler or its filter raised.
    """

    __slots__ = (
        "_table",
        "begun",
        "call",
        "context",
        "ended",
        "failures",
        "hidden",
        "kinds",
        "live",
        "loop",
        "name",
        "named",
        "on_end",
        "on_refused",
        "order",
        "session_id",
        "tasks_limit",
    )

    def __init__(
        self,
        table: Subscriptions,
        handler: Handler,
        *,
        kinds: tuple[str, ...] | None,
        priority: int = 0,
        filter: Filter | None = None,
        once: bool = False,
        session_id: str | None = None,
        name: str | None = None,
        on_end: Callable[[], object] | None = None,
        on_refused: Callable[[BusEvent, Exception], object] | None = None,
        tasks_limit: int = TASKS_LIMIT,
        hidden: bool = False,
    ) -> None:
        """kinds: None for every type, () for none: a watcher of the position. on_end: called once, when it ends.
        on_refused: called in place of a coroutine that could not be begun. hidden: not counted, the bus's own."""
        self._table = table
        self.kinds = kinds
        self.session_id = session_id
        self.order = (-priority, next(table.numbers))
        self.name = name or name_of(handler)
        self.on_end = on_end
        self.on_refused = on_refused
        self.tasks_limit = tasks_limit
        self.hidden = hidden
        self.live = True
        self.failures = 0
        self.named = False  # in the log, as one that holds the event loop; or it never is: the runtime's own
        # Coroutines begun and ended: two counters, because each is written by one thread at a time, their difference
        # would not be.
        self.begun = 0
        self.ended = 0
        self.loop = running_loop()
        # Whoever emits lends nobody its rights, and whoever subscribes keeps its own: a tool stays a tool.
        self.context = copy_context()
        heard = handler if filter is None and not once else self._guarded(handler, filter, once)
        self.call: Handler = partial(self.context.run, heard)  # type: ignore[call-arg]  # the event comes with the call

    def unsubscribe(self) -> None:
        """No call begins after this, not even for events already on their way. As often as you like."""
        self._table.remove(self)

    __call__ = unsubscribe

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unsubscribe()

    def __repr__(self) -> str:
        return f"<Subscription of {self.name} to {self.kinds or 'any'}{'' if self.live else ', ended'}>"

    def retire(self) -> bool:
        """Make its handler unreachable; False when it was before."""
        # `call` is replaced rather than guarded: a snapshot that still holds us calls nothing, and life costs no test.
        was, self.live, self.call = self.live, False, _nothing
        return was

    def _guarded(self, handler: Handler, filter: Filter | None, once: bool) -> Handler:
        def call(event: BusEvent) -> object:
            if filter is not None and not filter(event):
                return None
            # `once` gives up before the call, so that no second one can begin; a filter may have given up itself.
            return handler(event) if (self._table.remove(self) if once else self.live) else None

        return call


class Table:
    """Subscriptions to all sessions, or to one. routes: what was looked up since they last changed."""

    __slots__ = ("any", "by_kind", "routes", "seen", "version")

    def __init__(self) -> None:
        self.any: dict[Subscription, None] = {}
        self.by_kind: dict[str, dict[Subscription, None]] = {}
        self.routes: dict[str, tuple[Subscription, ...]] = {}
        self.version = 0
        self.seen = -1  # of a session's table: the version of the common one that its routes contain

    def forget(self, kinds: tuple[str, ...] | None) -> None:
        self.version += 1
        if kinds is None or len(self.routes) >= ROUTES_LIMIT:
            self.routes = {}
        else:
            for kind in kinds:
                self.routes.pop(kind, None)


class Subscriptions:
    """All subscriptions of one bus."""

    __slots__ = ("closed", "common", "lock", "numbers", "sessions", "watchers")

    def __init__(self) -> None:
        self.lock = threading.RLock()  # never held while a handler runs
        self.numbers = count()
        self.common = Table()
        self.sessions: dict[str | None, Table] = {}  # None is no key of it; it saves a test
        self.watchers: tuple[Subscription, ...] = ()
        self.closed = False

    def routes(self, session_id: str | None) -> dict[str, tuple[Subscription, ...]]:
        """What is looked up already for events of this session."""
        table = self.sessions.get(session_id)
        if table is None:
            return self.common.routes
        if table.seen != self.common.version:
            with self.lock:
                table.seen, table.routes = self.common.version, {}
        return table.routes

    def look_up(self, kind: str, session_id: str | None) -> tuple[Subscription, ...]:
        """Who hears events of this type and session, in the order in which they are called."""
        with self.lock:
            routes = self.routes(session_id)
            table = self.sessions.get(session_id)
            groups = [self.common.any, self.common.by_kind.get(kind, {})]
            if table is not None:
                groups += [table.any, table.by_kind.get(kind, {})]
            found = routes[kind] = tuple(sorted((one for group in groups for one in group), key=_order))
            if len(routes) > ROUTES_LIMIT:
                (table or self.common).routes = {}
        return found

    def add(self, subscription: Subscription) -> Subscription:
        with self.lock:
            kinds, session_id = subscription.kinds, subscription.session_id
            if self.closed:
                subscription.retire()
            elif kinds == ():
                self.watchers += (subscription,)
            else:
                table = self.common if session_id is None else self.sessions.setdefault(session_id, Table())
                if kinds is None:
                    table.any[subscription] = None
                else:
                    for kind in kinds:
                        table.by_kind.setdefault(kind, {})[subscription] = None
                table.forget(kinds)
        if not subscription.live and subscription.on_end is not None:
            subscription.on_end()
        return subscription

    def remove(self, subscription: Subscription) -> bool:
        """End it; False when it had ended before. No trace of it stays."""
        with self.lock:
            if not subscription.retire():
                return False
            kinds, session_id = subscription.kinds, subscription.session_id
            table = self.common if session_id is None else self.sessions.get(session_id)
            if kinds == ():
                self.watchers = tuple(one for one in self.watchers if one is not subscription)
            elif table is not None:
                if kinds is None:
                    table.any.pop(subscription, None)
                else:
                    for kind in kinds:
                        group = table.by_kind.get(kind, {})
                        group.pop(subscription, None)
                        if not group:
                            table.by_kind.pop(kind, None)
                table.forget(kinds)
                if session_id is not None and not table.any and not table.by_kind:
                    self.sessions.pop(session_id, None)
        if subscription.on_end is not None:
            subscription.on_end()
        return True

    def close(self) -> list[Subscription]:
        """Empty the tables for good; returns who stood in them, ended."""
        with self.lock:
            ended = [one for one in self._all() if one.retire()]
            self.closed = True
            self.common, self.sessions, self.watchers = Table(), {}, ()
        return ended

    def hears(self, kind: str) -> bool:
        """Whether somebody subscribed to this very type."""
        with self.lock:
            return any(kind in table.by_kind for table in (self.common, *self.sessions.values()))

    def __len__(self) -> int:
        with self.lock:
            return sum(not one.hidden for one in self._all())

    def _all(self) -> dict[Subscription, None]:
        standing = dict.fromkeys(self.watchers)
        for table in (self.common, *self.sessions.values()):
            standing |= table.any
            for group in table.by_kind.values():
                standing |= group
        return standing


def name_of(handler: object) -> str:
    """`module.function` of a handler, as well as it can be known."""
    inner = getattr(handler, "func", handler)  # functools.partial
    name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    return f"{getattr(inner, '__module__', None) or type(inner).__module__}.{name}"


def running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _order(subscription: Subscription) -> tuple[int, int]:
    return subscription.order


def _nothing(_: object) -> None:
    return None
