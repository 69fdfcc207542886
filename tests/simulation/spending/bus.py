"""Who hears of what was committed, while the process lives."""

from __future__ import annotations

from typing import Any

from reenact.events.message import Recorded


class Bus:
    """Tells each handler of its kinds of events, in the order in which they asked."""

    def __init__(self) -> None:
        self._news: dict[str, list[Any]] = {}

    def on(self, kinds: tuple[str, ...], handler: Any) -> Hearing:
        return Hearing([self._news.setdefault(kind, []) for kind in kinds], handler)

    def tell(self, recorded: Recorded) -> None:
        for handler in [*self._news.get(recorded.type, ())]:
            handler(recorded)


class Hearing:
    """One that hears of some events."""

    def __init__(self, lists: list[list[Any]], handler: Any) -> None:
        self._lists, self._handler = lists, handler
        for handlers in lists:
            handlers.append(handler)

    def unsubscribe(self) -> None:
        for handlers in self._lists:
            if self._handler in handlers:
                handlers.remove(self._handler)
