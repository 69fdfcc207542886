"""The SystemBus: commands go to the one key they are for, events to whoever subscribed, in one order for all.

Home of reactivex. It stores nothing, waits for nobody and knows no actor; handlers run in the thread that emits.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from .aside import Aside
from .delivery import Delivery
from .errors import BadInput, Closed, NotFound
from .message import BusEvent, Context, Live
from .queue import LIMIT, LiveView, OnFull, Unread
from .request import PENDING_LIMIT, TIMEOUT_S, Requests, Responder, Shown, Whose, answer_to
from .subscription import Filter, Handler, Subscription, Subscriptions, name_of
from .view import Consumer, Kind, Producer, consumer_of, producer_of
from .visible import shown

if TYPE_CHECKING:
    from reactivex import Observable
    from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

Target = Callable[[Any], Any]
"""Takes what is for one key, commands in their envelope: a mailbox."""

_LAST = -(2**62)
"""Priority of the bus's own subscriptions: the asker goes on when all others have seen the response."""

_log = logging.getLogger("reenact.bus")


class SystemBus:
    """Tells every event to its subscribers, hands commands to their actors, and brings requests their responses.

    Order. There is one order of all events, and every subscriber sees its part of it. An event goes to the
    subscriptions that stood when it was emitted and still stand when their turn comes: higher priority first, then
    older first. What a handler emits is queued and goes out when all have seen the present event. `emit` returns when
    the event is delivered, except from within a handler or while another thread is delivering: that one delivers it.
    No two handlers ever run at the same time, but for those on threads of their own.

    Threads. Any thread may emit. A handler runs in the thread that delivers, so it must be quick and must not block;
    it may subscribe, unsubscribe, emit and dispose. Where all emits come from one event loop, all handlers run there.
    A coroutine handler runs as a task of the loop it was subscribed in (else of the loop that delivers): its calls
    start in bus order, then overlap. One that takes its time is subscribed with `thread=True` and runs on a thread of
    its own. A function that holds the event loop for more than `HOLD_MAX_S` of one batch is named in the log, once.

    Faults. A handler that raises, or whose filter raises, costs nobody else anything: the others get the event, the
    producer sees nothing, the failure is counted on the subscription, logged, and told of as `subscriber_failed`
    {handler, type, error, position, failures, muted}. KeyboardInterrupt and its like do reach the producer; whoever
    had not had the event yet gets it before the next one.
    """

    def __init__(
        self,
        *,
        resolver: Callable[[str], Target | None] | None = None,
        now: Callable[[], int] | None = None,
        new_id: Callable[[], str] | None = None,
        whose: Whose | None = None,
        shown: Shown | None = None,
        said: Callable[[str], str] = str,
    ) -> None:
        """whose(context): on whose behalf a request is asked, with the context that it brings or None; default as it
        says, however it is asked, and by nobody where it says nothing.
        shown(data, context): a request's data as its listeners hear it; whoever answers it gets it as it was asked.
        said(text): what a handler raised, as it is told of.
        resolver(key): makes the target of a key that has none yet, or None. now(): microseconds since 1970 UTC.
        new_id(): a requestId that was never given before."""
        self.resolver = resolver
        self.position = 0
        """Highest log position told so far, whether or not anybody listened."""
        self.disposed = False
        self._now = now or _system_now
        self._subscriptions = Subscriptions()
        self._delivery = Delivery(report=self.emit, now=self._now, said=said)
        self._requests = Requests(self, now=self._now, new_id=new_id or _request_ids(), whose=whose, shown=shown)
        self._answered = self._requests.responders
        self._targets: dict[str, Target] = {}
        self._activating = threading.RLock()
        self._producer = producer_of(self)
        self._consumer = consumer_of(self)
        self._observable: Observable[BusEvent] | None = None

    # -- telling --

    def emit(self, event: BusEvent) -> None:
        """Tell one event."""
        subscriptions = self._subscriptions
        if subscriptions.sessions:
            hearers = subscriptions.routes(event.session_id).get(event.type)
        else:
            hearers = subscriptions.common.routes.get(event.type)
        if hearers is None:
            hearers = subscriptions.look_up(event.type, event.session_id)
        position = event.position
        if position is not None and position > self.position:
            self.position = position
            hearers += subscriptions.watchers
        if hearers:
            if event.type in self._answered:
                event = self._requests.by_hand(event)
            self._delivery.send(((event, hearers),))

    def emit_batch(self, events: Iterable[BusEvent]) -> None:
        """Tell several events in this order, with no other event in between."""
        subscriptions = self._subscriptions
        batch: list[tuple[BusEvent, tuple[Subscription, ...]]] = []
        furthest, reached = None, self.position
        routes = None if subscriptions.sessions else subscriptions.common.routes
        for event in events:
            kind = event.type
            hearers = (subscriptions.routes(event.session_id) if routes is None else routes).get(kind)
            if hearers is None:
                hearers = subscriptions.look_up(kind, event.session_id)
            position = event.position
            if position is not None and position > reached:
                self.position = reached = position
                furthest = event
            if hearers:
                if kind in self._answered:
                    event = self._requests.by_hand(event)
                batch.append((event, hearers))
        if furthest is not None and subscriptions.watchers:
            batch.append((furthest, subscriptions.watchers))
        if batch:
            self._delivery.send(tuple(batch))

    def emit_command(self, kind: str, data: Mapping[str, Any] | None = None, *, context: Context | None = None) -> str:
        """Emit a `…_request` and do not wait: its response comes as an event. Returns the requestId.

        Raises BadInput when nobody answers this type or the data is no JSON; Closed when the bus is disposed.
        """
        request = self._asked(kind, data, context)
        self.emit(request)
        return str(request.correlation)

    def wants(self, kind: Kind, session_id: str | None = None) -> bool:
        """Whether an event of this type and session has a subscriber; if not, it need not even be built.

        Asked without a session, it is True as soon as anybody subscribed to any one session.
        """
        subscriptions = self._subscriptions
        if session_id is None and subscriptions.sessions:
            return True
        name = kind if isinstance(kind, str) else _name(kind)
        hearers = subscriptions.routes(session_id).get(name)
        return bool(subscriptions.look_up(name, session_id) if hearers is None else hearers)

    # -- listening --

    def on(
        self,
        kinds: Kind | Iterable[Kind],
        handler: Handler,
        *,
        priority: int = 0,
        filter: Filter | None = None,
        once: bool = False,
        session_id: str | None = None,
        thread: bool = False,
    ) -> Subscription:
        """Call `handler` with every event of these types that `filter` lets through.

        priority: higher first. once: at most one call, given up before it is made. session_id: only events of that
        session, found by key, so that a thousand sessions with a subscriber each cost an event no more than one.

        thread: True calls it on a thread of its own, in bus order, and nobody who emits waits for it; `filter` still
        runs where all others do. It may be `UNHEARD_MAX` events behind: then the oldest are let go, and in their place
        it is called with one `events_dropped` event with data {count}. When the subscription or the bus ends, a call
        that is under way runs to its end, and the thread is gone. For plain functions; raises BadInput for others.

        After dispose it returns a subscription that has ended. Raises BadInput when no type is named.
        """
        names = _names(kinds)
        if not names:
            raise BadInput("Name at least one event type, or use on_any.")
        add = self._add_aside if thread else self._add
        return add(handler, kinds=names, priority=priority, filter=filter, once=once, session_id=session_id)

    def on_any(
        self,
        handler: Handler,
        *,
        priority: int = 0,
        filter: Filter | None = None,
        once: bool = False,
        session_id: str | None = None,
        thread: bool = False,
    ) -> Subscription:
        """As `on`, for events of every type."""
        add = self._add_aside if thread else self._add
        return add(handler, kinds=None, priority=priority, filter=filter, once=once, session_id=session_id)

    def once(
        self,
        kinds: Kind | Iterable[Kind],
        handler: Handler,
        *,
        priority: int = 0,
        filter: Filter | None = None,
        session_id: str | None = None,
        thread: bool = False,
    ) -> Subscription:
        """As `on`, for the next such event only."""
        return self.on(
            kinds, handler, priority=priority, filter=filter, once=True, session_id=session_id, thread=thread
        )

    def stream(
        self,
        *kinds: Kind,
        filter: Filter | None = None,
        limit: int = LIMIT,
        on_full: OnFull = "drop_oldest",
        keep: Filter | None = None,
        session_id: str | None = None,
    ) -> LiveView:
        """The events of these types (of every type, when none is named) from now on, as an async iterator.

        `LiveView` says what happens when its reader is slower than its events.
        """
        unread = Unread(limit=limit, on_full=on_full, keep=keep, now=self._now)
        unread.subscription = self._add(
            unread.push, kinds=_names(kinds) or None, filter=filter, session_id=session_id, on_end=unread.close
        )
        return LiveView(unread)

    def on_position(self, handler: Callable[[int], object]) -> Subscription:
        """Call `handler(position)` when stored events were told, once a batch: the wake-up for readers of the log.

        It comes after the batch's subscribers, and also when there were none. Positions only rise, and may skip: read
        the log from where you are, not from what is said here.
        """
        return self._add(lambda event: handler(event.position), kinds=(), name=name_of(handler))

    async def past(self, position: int) -> int:
        """Wait until something behind `position` was told; returns how far the bus has come by then.

        Raises Closed when the bus is disposed first.
        """
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[None] = loop.create_future()

        def ring() -> None:
            if not reached.done():
                reached.set_result(None)

        with self._add(
            lambda event: event.position > position and loop.call_soon_threadsafe(ring),
            kinds=(),
            on_end=partial(loop.call_soon_threadsafe, ring),
        ):
            # Looked at after subscribing: what was told in between rings no bell.
            if self.position <= position:
                await reached
        if self.position <= position:
            raise Closed("The bus was disposed.")
        return self.position

    @property
    def observable(self) -> Observable[BusEvent]:
        """Every event, as a reactivex Observable; the same object each time. It completes when the bus is disposed.

        Each of its subscribers is one subscription of the bus: one that raises harms neither the others nor the
        producer, and goes on; an operator that raises ends its own pipeline with `on_error`. Know your operators:

        - filter, map, scan, buffer_with_count, window, share, take_until do as they say;
        - time operators (buffer_with_time, debounce, timeout, …) start a thread per timer unless they are given a
          scheduler: give all of them one `EventLoopScheduler()`, or the loop's `AsyncIOThreadSafeScheduler(loop)`;
        - observe_on, replay and group_by keep without bound what nobody reads or ends; `stream()` has a bound, and
          group_by_until lets go of its groups.
        """
        if self._observable is None:
            self._observable = self.observed()
        return self._observable

    def observed(self, filter: Filter | None = None) -> Observable[BusEvent]:
        """As `observable`, of the events that `filter` lets through; another object each time."""
        from reactivex import Observable  # 30 ms, for those who use it
        from reactivex.disposable import Disposable

        def subscribe(observer: ObserverBase[BusEvent], _: SchedulerBase | None = None) -> DisposableBase:
            subscription = self._add(
                observer.on_next,
                kinds=None,
                filter=filter,
                name=f"observable: {name_of(getattr(observer, '_on_next', observer))}",
                on_end=observer.on_completed,
            )
            return Disposable(subscription.unsubscribe)

        return Observable(subscribe)

    @property
    def subscriptions(self) -> int:
        """How many subscriptions stand: handlers, responders, live views, observers."""
        return len(self._subscriptions)

    # -- asking --

    def on_command(self, kind: str, handler: Responder) -> Subscription:
        """Make `handler(data, request)` answer the requests of this type; it may be a coroutine function.

        It returns the response's data, or raises: then `system_error` {message, requestId, severity, details} is
        emitted and next to it the response, with `error` and `errorCode`. Requests may overlap when it is a coroutine.

        Raises BadInput when the type has its responder already, or is not called `<name>_request`.
        """
        return self._add(
            self._requests.responder(kind, handler),
            kinds=(kind,),
            priority=_LAST,
            name=name_of(handler),
            on_end=partial(self._requests.retire, kind),
            on_refused=self._requests.refuse,
            tasks_limit=PENDING_LIMIT,
        )

    async def request(
        self,
        kind: str,
        data: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        context: Context | None = None,
    ) -> Live:
        """Ask, and wait for the response: an event `<name>_response` whose `data` is a `Payload` with `requestId`.

        A failure is a response too: look at `response.data.error`. When this returns, all subscribers have seen the
        response, and before it the `system_error`. A response that comes after the time-out is not waited for by
        anybody (`late_responses` counts it); the time-out does not stop the work.

        Raises RequestTimeout when no response comes in time; BadInput at once when nobody answers this type or the
        data is no JSON; Closed when the bus is disposed.
        """
        request = self._asked(kind, data, context)
        answer = answer_to(kind)
        if self._requests.listen(answer):
            self._add(self._requests.arrived, kinds=(answer,), priority=_LAST, hidden=True)
        return await self._requests.ask(request, timeout_s=timeout_s)

    @property
    def pending_requests(self) -> int:
        """Requests that wait for their response."""
        return self._requests.waiting

    @property
    def late_responses(self) -> int:
        """Responses that came after their request had timed out or been given up."""
        return self._requests.late

    # -- commanding --

    def register(self, key: str, target: Target) -> None:
        """Commands for `key` go to `target` from now on, and to no other."""
        with self._activating:
            if self.disposed:
                raise Closed("The bus is disposed.")
            self._targets[key] = target

    def unregister(self, key: str, target: Target | None = None) -> None:
        """Forget the target of `key`; where `target` is given, only if it is that one still."""
        with self._activating:
            if target is None or self._targets.get(key) == target:
                self._targets.pop(key, None)

    def tell(self, key: str, asked: Any) -> Any:
        """Hand a command to the target of `key`, now and in this thread; returns what the target returns.

        A key without a target is offered to `resolver`, under a lock, and what it gives is registered: so two commands
        for a sleeping actor wake one. A target should only put the command into its mailbox, and a resolver only make
        that mailbox: neither waits.

        Raises NotFound when there is no target, Closed after dispose, and whatever the target raises.
        """
        target = self._targets.get(key)
        return (self._activate(key) if target is None else target)(asked)

    def _activate(self, key: str) -> Target:
        with self._activating:
            if self.disposed:
                raise Closed("The bus is disposed.")
            target = self._targets.get(key)
            if target is None and self.resolver is not None:
                target = self.resolver(key)
                if target is not None:
                    # Where the resolver has registered the actor itself, that registration stands.
                    target = self._targets.setdefault(key, target)
            if target is None:
                raise NotFound(f"Nobody takes commands for {key!r}.")
            return target

    # -- views, and the end --

    def as_producer(self) -> Producer:
        """emit, emit_batch and emit_command, nothing else; the same object each time."""
        return self._producer

    def as_consumer(self) -> Consumer:
        """on, on_any, once, on_command and request, nothing else; the same object each time."""
        return self._consumer

    def dispose(self) -> None:
        """End everything, as often as you like.

        Handlers are called no more, also by events on their way. Live views give what they hold and stop, observables
        complete, requests that wait raise Closed, coroutine handlers that run are cancelled. Afterwards `emit` does
        nothing, subscribing gives a subscription that has ended, `request` and `tell` raise Closed.
        """
        with self._activating:
            if self.disposed:
                return
            self.disposed = True
            self._targets.clear()
        for subscription in self._subscriptions.close():
            if subscription.on_end is not None:
                try:
                    subscription.on_end()
                except Exception as error:
                    _log.error("%s raised at the end", subscription.name, exc_info=error)
        self._requests.close()
        self._delivery.clear()

    def _add(self, handler: Handler, *, kinds: tuple[str, ...] | None, **place: Any) -> Subscription:
        if not callable(handler):
            raise BadInput(f"A handler is called with an event; {handler!r} cannot be called.")
        return self._subscriptions.add(Subscription(self._subscriptions, handler, kinds=kinds, **place))

    def _add_aside(self, handler: Handler, *, once: bool, **place: Any) -> Subscription:
        if not callable(handler):
            raise BadInput(f"A handler is called with an event; {handler!r} cannot be called.")
        aside = Aside(handler, once=once, now=self._now, failed=self._delivery.failed)
        aside.subscription = Subscription(
            self._subscriptions, aside.push, name=name_of(handler), on_end=aside.close, **place
        )
        return self._subscriptions.add(aside.subscription)

    def _asked(self, kind: str, data: Mapping[str, Any] | None, context: Context | None) -> Live:
        if self.disposed:
            raise Closed("The bus is disposed.")
        request = self._requests.asked(kind, data, context)
        if not self._requests.answers(kind) and not self._subscriptions.hears(kind):
            raise self._requests.unknown(kind)
        return request


def _names(kinds: Kind | Iterable[Kind]) -> tuple[str, ...]:
    several: Iterable[Kind] = kinds if isinstance(kinds, Iterable) and not isinstance(kinds, str | type) else (kinds,)
    return tuple(dict.fromkeys(map(_name, several)))


def _name(kind: Kind) -> str:
    name = kind if isinstance(kind, str) else getattr(kind, "type", None)
    if not isinstance(name, str):
        raise BadInput(f"An event type is named by its name or its class, not by {shown(kind)}.")
    return name


def _system_now() -> int:
    return time.time_ns() // 1000


def _request_ids() -> Callable[[], str]:
    """Unique over processes by the prefix, within this one by the count: a tenth of the cost of a uuid."""
    prefix, numbers = f"req_{secrets.token_hex(8)}_", count(1)
    return lambda: f"{prefix}{next(numbers)}"
