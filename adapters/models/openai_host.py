"""A server that speaks OpenAI's protocols: where it is, one request to it, its answer as it arrives.

Home of the openai SDK, loaded with the first request. Knows neither protocol's words.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from ...events.model import Credentials, ModelFailure
from .connections import Clients, farewell, placed, rest, waits
from .deadline import Deadline
from .failures import failure, not_an_answer
from .sse import EventReader

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI, AsyncStream

OPENAI_URL = "https://api.openai.com/v1"
GOOGLE_URL = "https://generativelanguage.googleapis.com/v1beta/openai/"

DONE = object()

# With a comment, or a field: data, event, id, retry.
_EVENTS_BEGIN = b":deir"

# Local servers ask for no key, but the SDK insists on sending one.
_NO_KEY = "none"


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where to call and as whom. host: its name without the port, which tells apart who wrote what."""

    base_url: str
    host: str
    api_key: str

    @property
    def official(self) -> bool:
        return self.host == "api.openai.com"

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r})"


def endpoint(credentials: Credentials, *, base_url: str, key_name: str) -> Endpoint:
    """The place and the key of a call. `base_url` is the default; with another one a key is optional.

    Raises `ModelFailure` with code `auth`, naming `key_name`, where a key is needed and there is none.
    """
    where = credentials.base_url or base_url
    host = (urlsplit(where).hostname or where).lower()
    key = credentials.reveal()
    if not key and host == urlsplit(base_url).hostname:
        raise ModelFailure(failure("auth", f"no API key for {host}: set {key_name}"), unasked=True)
    if not key.isascii() or not (key.isprintable() or not key):
        raise ModelFailure(failure("auth", f"the API key for {host} holds characters that no key has"), unasked=True)
    return Endpoint(base_url=where, host=host, api_key=key or _NO_KEY)


class Reply:
    """One answer with a good status: events to be read as they come, or one JSON body, which is then in `whole`."""

    __slots__ = ("_deadline", "_heard", "_pieces", "_stream", "request_id", "status", "whole")

    def __init__(self, stream: AsyncStream[object], deadline: Deadline, heard: Callable[[], None]) -> None:
        self._stream = stream
        self._pieces = stream.response.aiter_bytes()
        self._deadline = deadline
        self._heard = heard
        self.status = stream.response.status_code
        self.request_id: str | None = stream.response.headers.get("x-request-id")
        self.whole: Any = None

    async def events(self) -> AsyncGenerator[tuple[str, Any]]:
        """The events as `(name, decoded data)`, the end mark as `DONE`. A whole JSON body is put into `whole`.

        What the body is shows in its first character: servers answer a request for a stream with JSON, and say so of
        streams. Raises `ModelFailure` (bad_response) for anything else, and whatever the connection raises.
        """
        reader = EventReader()
        first = b""
        while piece := await self._piece():
            if not first:
                first = piece.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
                if first and first not in _EVENTS_BEGIN:
                    self.whole = await self._body(piece)
                    return
            for name, data in reader.feed(piece):
                yield self._decoded(name, data)
        left = reader.rest()
        if left is None:
            return
        # The blank line after the last event may be missing; an event cut short is no event.
        try:
            event = self._decoded(*left)
        except ModelFailure:
            return
        yield event

    async def close(self) -> None:
        """Let go of the connection; one whose answer was read to its end is used again."""
        await self._stream.close()

    async def farewell(self) -> None:
        """Read what comes after the last word, so that the connection can be used again; not for long."""
        await farewell(self._pieces)

    async def _piece(self) -> bytes:
        """The next bytes, empty at the end."""
        with self._deadline:
            piece = await anext(self._pieces, b"")
        self._heard()
        return piece

    async def _body(self, piece: bytes) -> Any:
        text = await rest(piece, self._pieces, self._deadline)
        try:
            return _decode(text)
        except ValueError:
            if text.lstrip()[:1] in (b"{", b"[") and text.rstrip()[-1:] not in (b"}", b"]"):
                raise ModelFailure(failure("stream_cut", "the answer broke off in the middle")) from None
            kind = self._stream.response.headers.get("content-type", "")
            said = not_an_answer(self.status, kind, text.decode("utf-8", "replace"))
            raise ModelFailure(failure("bad_response", said, retryable=False)) from None

    def _decoded(self, name: str, data: bytes) -> tuple[str, Any]:
        if data.startswith(b"[DONE]"):
            return "", DONE
        try:
            return name, _decode(data)
        except ValueError:
            head = data[:200].decode("utf-8", "replace")
            raise ModelFailure(failure("bad_response", f"an event is no JSON: {head}")) from None


class Connections:
    """Requests to such servers, over the SDK's clients."""

    __slots__ = ("_clients",)

    def __init__(self) -> None:
        self._clients: Clients[AsyncOpenAI] = Clients(_pool)

    async def post(
        self,
        where: Endpoint,
        path: str,
        body: bytes,
        *,
        idle_s: float,
        deadline: Deadline,
        heard: Callable[[], None],
    ) -> Reply:
        """Send one request, once. Raises what the SDK raises; `judge` says what that means.

        idle_s: the longest silence. deadline: for the whole answer, to its last byte. heard: told of every piece of it.
        """
        from openai import AsyncStream

        address, path = placed(where.base_url, path)
        client = self._clients.get(address, where.api_key, lambda http: _client(where, address, http))
        # The SDK's create() walks through all messages and copies them: 600 ms for 3,000, where bytes take 0.5 ms.
        with deadline:
            stream = await client.post(
                path,
                content=body,
                cast_to=object,
                stream=True,
                stream_cls=AsyncStream[object],
                options={
                    "headers": {"content-type": "application/json", "accept": "text/event-stream, application/json"},
                    "timeout": waits(idle_s),
                },
            )
        return Reply(stream, deadline, heard)

    async def aclose(self) -> None:
        """Close every connection. The next call opens anew."""
        await self._clients.aclose()


def _pool() -> httpx2.AsyncClient:
    from openai import DefaultAsyncHttpxClient

    return DefaultAsyncHttpxClient()


def _client(where: Endpoint, address: str, http: httpx2.AsyncClient) -> AsyncOpenAI:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key=where.api_key, base_url=address, max_retries=0, http_client=http)
    if not where.official:
        # It takes them from the environment; they are nobody else's business.
        client.organization = client.project = None
    return client


def _decode(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Half a surrogate pair is no text to msgspec, but a delta may well end there.
        try:
            return json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
    except RecursionError as error:
        raise ValueError("nested too deep") from error
