"""A bus in forty lines, without threads, coroutines or speed: what the real one is held to. And some broken ones."""

from collections.abc import Sequence
from typing import Any

from reenact.events.delivery import REPORTS
from reenact.events.message import Context, Live


class Place:
    """A subscription of the model."""

    def __init__(self, bus: Any, kinds: Sequence[str] | None, handler: Any, **how: Any) -> None:
        self.bus, self.kinds, self.handler = bus, kinds, handler
        self.priority, self.filter = how["priority"], how["filter"]
        self.once, self.session_id = how["once"], how["session_id"]
        self.live, self.failures = True, 0

    def hears(self, event: Live) -> bool:
        return (self.kinds is None or event.type in self.kinds) and self.session_id in (None, event.session_id)

    def unsubscribe(self) -> None:
        self.live = False
        self.bus.places = [place for place in self.bus.places if place is not self]


class ModelBus:
    """What a bus is: a list of places and a queue of events."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.queue: list[tuple[Live, list[Place]]] = []
        self.busy = self.disposed = False

    def on(self, kinds: Sequence[str], handler: Any, **how: Any) -> Place:
        place = Place(self, kinds, handler, **how)
        if self.disposed:
            place.live = False
        else:
            self.places.append(place)
        return place

    def on_any(self, handler: Any, **how: Any) -> Place:
        return self.on(None, handler, **how)  # type: ignore[arg-type]

    def emit(self, event: Live) -> None:
        self.emit_batch([event])

    def emit_batch(self, events: Sequence[Live]) -> None:
        for event in events:
            hearers = sorted((place for place in self.places if place.hears(event)), key=lambda place: -place.priority)
            self.queue.append((event, hearers))
        if self.busy:
            return
        self.busy = True
        while self.queue:
            event, hearers = self.queue.pop(0)
            for place in hearers:
                self.call(place, event)
        self.busy = False

    def call(self, place: Place, event: Live) -> None:
        try:
            if not place.live or (place.filter and not place.filter(event)):
                return
            if place.once:
                place.unsubscribe()
            place.handler(event)
        except Exception:
            place.failures += 1
            if event.type != "subscriber_failed" and place.failures <= REPORTS:
                self.emit(Live("subscriber_failed", {"failures": place.failures}, context=event.context))

    def wants(self, kind: str, session_id: str) -> bool:
        return any(place.hears(Live(kind, {}, context=Context(session_id=session_id))) for place in self.places)

    @property
    def subscriptions(self) -> int:
        return len(self.places)

    def dispose(self) -> None:
        self.disposed = True
        for place in self.places:
            place.live = False
        self.places, self.queue = [], []


class NaiveBus(ModelBus):
    """The usual mistakes: nested events delivered at once, places looked at anew, `once` given up after the call."""

    def emit_batch(self, events: Sequence[Live]) -> None:
        for event in events:
            for place in sorted(self.places, key=lambda place: -place.priority):
                if place.hears(event):
                    self.call(place, event)


class StaleBus(ModelBus):
    """One mistake only: who gave up while an event was on its way still gets it."""

    def call(self, place: Place, event: Live) -> None:
        was, place.live = place.live, True
        super().call(place, event)
        place.live = place.live and was


class LazyBus(ModelBus):
    """One mistake only: who hears an event is looked up when its turn comes, not when it is emitted."""

    def emit_batch(self, events: Sequence[Live]) -> None:
        self.queue += [(event, []) for event in events]
        if self.busy:
            return
        self.busy = True
        while self.queue:
            event, _ = self.queue.pop(0)
            for place in sorted(self.places, key=lambda place: -place.priority):
                if place.hears(event):
                    self.call(place, event)
        self.busy = False


class LateOnceBus(NaiveBus):
    """Gives `once` up after the call."""

    def call(self, place: Any, event: Live) -> None:
        once, place.once = place.once, False
        super().call(place, event)
        if once:
            place.unsubscribe()
