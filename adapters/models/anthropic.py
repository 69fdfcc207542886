"""Anthropic's Messages API, and what else speaks it, through the official SDK. Home of anthropic, loaded at first use.

One attempt a call, streaming: signals as they come, then the answer, or a `ModelFailure`. An answer is complete only
when the provider says `message_stop`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from ...events.content import Failure
from ...events.message import Signal
from ...events.model import ModelAnswer, ModelFailure, ModelRequest
from .anthropic_answer import Reader
from .anthropic_failures import content_type, request_id_of, status_failure
from .anthropic_request import body, forget_thinking, wire_name
from .connections import Clients, farewell, placed, rest, waits
from .deadline import Deadline
from .failures import broken, failure, unsent
from .sse import EventReader

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic

BASE_URL = "https://api.anthropic.com"

SILENCE_S = 120.0
"""The longest silence, seconds, also where a request allows more: this provider pings."""


class Anthropic:
    """`idle_s`: the longest silence before a call fails as timed out, where the request allows no shorter one; the
    provider pings more often than that."""

    def __init__(self, *, idle_s: float = SILENCE_S, http_client: httpx2.AsyncClient | None = None) -> None:
        self._idle_s = idle_s
        self._clients: Clients[AsyncAnthropic] = Clients(_pool, http_client)

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        """Make one call; see `events.model.Model`. Key and place come with the request, never from elsewhere."""
        key = _usable_key(request)
        content = body(request)
        reader = Reader({wire_name(tool.name): tool.name for tool in request.tools})
        deadline = Deadline(request.timeout_s)
        response: httpx2.Response | None = None
        try:
            with deadline:
                response = await self._post(request, key, content)
            reader.request_id = response.headers.get("request-id")
            pieces = response.aiter_bytes()
            events = EventReader()
            first = b""
            while not reader.done:
                with deadline:
                    piece = await anext(pieces, b"")
                request.heard()
                if not first:
                    first = piece.lstrip()[:1]
                    if _is_whole(first, content_type(response)):
                        text = await rest(piece, pieces, deadline)
                        for signal in reader.whole(text, status=response.status_code, kind=content_type(response)):
                            yield signal
                        break
                for _, data in events.feed(piece):
                    for signal in reader.take(data):
                        yield signal
                if not piece:
                    left = events.rest()
                    for signal in reader.take(left[1], last=True) if left else ():
                        yield signal
                    break
            yield reader.answer()
            await farewell(pieces)
        except ModelFailure:
            raise
        except Exception as error:
            found = self._judge(error, request, key, started=response is not None)
            if found is None:
                raise
            ended = reader.failed(found, request_id_of(error))
            ended.unasked = response is None and unsent(error)
            raise ended from error
        finally:
            deadline.close()
            if response is not None:
                await response.aclose()

    async def aclose(self) -> None:
        """Close every connection. The next call opens anew."""
        await self._clients.aclose()

    async def _post(self, request: ModelRequest, key: str, content: bytes) -> httpx2.Response:
        from anthropic import AsyncAnthropic, AsyncStream

        address, path = placed(request.credentials.base_url or BASE_URL, "/v1/messages")
        client = self._clients.get(
            address,
            key,
            lambda http: AsyncAnthropic(
                api_key=key, base_url=address, max_retries=0, http_client=http, open_telemetry=False
            ),
        )
        # messages.create() would copy and walk the whole conversation every turn: 7 ms for 1,000 messages, 0.3 ms so.
        stream = await client.post(
            path,
            content=content,
            cast_to=object,
            stream=True,
            stream_cls=AsyncStream[object],
            options={"timeout": waits(min(self._idle_s, request.silence_s, request.timeout_s))},
        )
        return stream.response

    def _judge(self, error: Exception, request: ModelRequest, key: str, *, started: bool) -> Failure | None:
        import anthropic

        if isinstance(error, TimeoutError):
            return failure("timeout", f"no complete answer within {request.timeout_s:g} s")
        if isinstance(error, anthropic.APIStatusError):
            found = status_failure(error, secret=key)
            if found.code == "invalid_request" and "`signature` in `thinking`" in found.message:
                # The same call can work without the reasoning; on its own it never will.
                return msgspec.structs.replace(found, retryable=forget_thinking(request))
            return found
        return broken(error, started=started, secret=key)


def _pool() -> httpx2.AsyncClient:
    from anthropic import DefaultAsyncHttpxClient

    return DefaultAsyncHttpxClient()


def _usable_key(request: ModelRequest) -> str:
    key = request.credentials.reveal()
    if not key:
        raise ModelFailure(failure("auth", "no API key for Anthropic: set ANTHROPIC_API_KEY"), unasked=True)
    if not key.isascii() or not key.isprintable():
        raise ModelFailure(failure("auth", "the API key for Anthropic holds characters that no key has"), unasked=True)
    return key


def _is_whole(first: bytes, kind: str) -> bool:
    """Whether a body that begins so is one piece: servers answer a request for a stream with JSON or a web page too."""
    return first in (b"{", b"[", b"<") or (first not in b"edir:" and "event-stream" not in kind)
