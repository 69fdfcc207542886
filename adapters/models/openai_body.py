"""The JSON body of a call, put together from bytes: the context is rendered once and then only added to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ...events.content import Item


class Renderer(Protocol):
    """Turns the items of a context, in order, into what one protocol calls messages."""

    def item(self, item: Item) -> Iterable[dict[str, Any]]: ...


class Rendered:
    """A context as JSON, kept between the calls of a session: only what is new is rendered."""

    __slots__ = ("_buffer", "_count", "_last", "_make", "_renderer")

    def __init__(self, make: Callable[[], Renderer]) -> None:
        self._make = make
        self._begin()

    def _begin(self) -> None:
        self._renderer = self._make()
        self._buffer = bytearray()
        self._count = 0
        self._last: Item | None = None

    def bytes(self, items: Sequence[Item]) -> bytes:
        """The elements of a JSON array, without its brackets."""
        if self._count > len(items) or (self._count and items[self._count - 1] != self._last):
            self._begin()
        while self._count < len(items):
            item = items[self._count]
            for message in self._renderer.item(item):
                if self._buffer:
                    self._buffer += b","
                self._buffer += msgspec.json.encode(message)
            self._count += 1
            self._last = item
        return bytes(self._buffer)


def rendered(cache: dict[str, Any] | None, key: str, make: Callable[[], Renderer], items: Sequence[Item]) -> bytes:
    """The items as the elements of a JSON array, out of what `cache` holds of them under `key`."""
    kept = None if cache is None else cache.get(key)
    if not isinstance(kept, Rendered):
        kept = Rendered(make)
        if cache is not None:
            cache[key] = kept
    return kept.bytes(items)


def joined(fields: Mapping[str, Any], name: str, elements: bytes) -> bytes:
    """A JSON object of these fields and of the array `name` with these elements."""
    head = msgspec.json.encode(fields)
    return b"".join((head[:-1], b',"', name.encode(), b'":[', elements, b"]}"))
