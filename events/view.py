"""The two halves of the bus as ports: what an environment, a tool or a watcher is handed instead of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

from .message import BusEvent, Context, Event, Live, Signal
from .request import TIMEOUT_S, Responder
from .subscription import Filter, Handler, Subscription

Kind = str | type[Event] | type[Signal]
"""What to subscribe to: the name of a type, or its class."""


class Producer(Protocol):
    """The half of the bus for those who only tell. `SystemBus` documents each."""

    def emit(self, event: BusEvent) -> None: ...
    def emit_batch(self, events: Iterable[BusEvent]) -> None: ...
    def emit_command(
        self, kind: str, data: Mapping[str, Any] | None = None, *, context: Context | None = None
    ) -> str: ...


class Consumer(Protocol):
    """The half of the bus for those who only listen and ask. `SystemBus` documents each."""

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
    ) -> Subscription: ...
    def on_any(
        self,
        handler: Handler,
        *,
        priority: int = 0,
        filter: Filter | None = None,
        once: bool = False,
        session_id: str | None = None,
        thread: bool = False,
    ) -> Subscription: ...
    def once(
        self,
        kinds: Kind | Iterable[Kind],
        handler: Handler,
        *,
        priority: int = 0,
        filter: Filter | None = None,
        session_id: str | None = None,
        thread: bool = False,
    ) -> Subscription: ...
    def on_command(self, kind: str, handler: Responder) -> Subscription: ...
    async def request(
        self,
        kind: str,
        data: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        context: Context | None = None,
    ) -> Live: ...


def producer_of(bus: Producer) -> Producer:
    return cast(Producer, _View(bus, ("emit", "emit_batch", "emit_command")))


def consumer_of(bus: Consumer) -> Consumer:
    return cast(Consumer, _View(bus, ("on", "on_any", "once", "on_command", "request")))


class _View:
    """Some methods of a bus and nothing else of it: the bound methods themselves, so that a call costs no more."""

    def __init__(self, bus: object, names: tuple[str, ...]) -> None:
        vars(self).update({name: getattr(bus, name) for name in names})
