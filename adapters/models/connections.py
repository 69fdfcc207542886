"""Connections to a provider, as both SDKs have them: their clients over one pool, how long is waited for what.

Loads no SDK: whoever needs a client says how one is made.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from .deadline import Deadline
from .sse import within

if TYPE_CHECKING:
    import httpx2

LONGEST_CONNECT_S = 15.0
# After the answer the connection is read to its end, so that it can be used again; no longer than this.
LONGEST_FAREWELL_S = 1.0
MOST_CLIENTS = 64

C = TypeVar("C")


class Clients(Generic[C]):
    """One client for each place and key, over one pool of connections. For one event loop at a time.

    pool: opens one, when it is first needed. given: is used in its place, and never closed here.
    """

    __slots__ = ("_clients", "_given", "_http", "_loop", "_pool")

    def __init__(self, pool: Callable[[], httpx2.AsyncClient], given: httpx2.AsyncClient | None = None) -> None:
        self._pool = pool
        self._given = given
        self._http: httpx2.AsyncClient | None = None
        self._clients: dict[tuple[str, str], C] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self, base_url: str, key: str, make: Callable[[httpx2.AsyncClient], C]) -> C:
        """The client of this place and key, made over the pool where there is none yet."""
        loop = asyncio.get_running_loop()
        if self._http is None or loop is not self._loop:
            # Connections of a loop that is gone cannot be used, nor closed.
            self._http = self._given or self._pool()
            self._clients, self._loop = {}, loop
        client = self._clients.get((base_url, key))
        if client is None:
            if len(self._clients) >= MOST_CLIENTS:
                # They hold no connections of their own.
                self._clients.pop(next(iter(self._clients)))
            client = self._clients[base_url, key] = make(self._http)
        return client

    async def aclose(self) -> None:
        """Close every connection. The next call opens anew."""
        self._clients = {}
        http, self._http = self._http, None
        if http is not None and http is not self._given:
            await http.aclose()


def placed(base_url: str, path: str) -> tuple[str, str]:
    """The address that a client is made for, and the path of a request there, with the query of the address: an SDK
    would write the path behind the query."""
    address, mark, query = base_url.partition("?")
    return address, path + mark + query


def waits(idle_s: float) -> httpx2.Timeout:
    """For a request whose answer may be silent for so long."""
    import httpx2

    return httpx2.Timeout(idle_s, connect=min(idle_s, LONGEST_CONNECT_S))


async def rest(piece: bytes, pieces: AsyncIterator[bytes], deadline: Deadline) -> bytes:
    """The whole of an answer that begins with this piece. Raises `ModelFailure` where it is too long."""
    gathered, read = [piece], len(piece)
    while piece:
        with deadline:
            piece = await anext(pieces, b"")
        gathered.append(piece)
        read += len(piece)
        within(read)
    return b"".join(gathered)


async def farewell(pieces: AsyncIterator[bytes]) -> None:
    """Read what comes after the last word, so that the connection can be used again; not for long."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(LONGEST_FAREWELL_S):
            async for _ in pieces:
                pass
