"""Request and response over the bus: who answers what, and who waits for which answer. Imports asyncio and msgspec.

A request is an event `<name>_request`, its answer an event `<name>_response`; `requestId` in the data of both ties
them. The pending table is one dict: no thread, no subscription and no filter a request.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from difflib import get_close_matches
from inspect import iscoroutinefunction
from typing import Any, Protocol

from .errors import BadInput, Closed, ReenactError, Refused, RequestTimeout
from .message import BusEvent, Context, Live
from .payload import Payload

Answer = Mapping[str, Any] | None
Responder = Callable[[Any, Any], Answer | Awaitable[Answer]]
"""handler(data, request) -> the response's data, now or as a coroutine; raises to answer with an error."""

Whose = Callable[[Context | None], Context]
"""whose(given): on whose behalf whoever asks now does so, with the context that came with it, or none. It gives that
very one where nothing in it is to be another."""

Shown = Callable[[Payload, Context], Payload]
"""shown(data, context): what listeners hear of a request's data, or of what went wrong with it."""

TIMEOUT_S = 30.0
"""How long `request` waits unless told otherwise."""

PENDING_LIMIT = 100_000
"""Requests waiting for their answer at a time; the next one is refused."""

GONE_LIMIT = 10_000
"""Requests remembered after their time-out, to tell a late answer from a stray one; and, with what they said, those
with a secret in them that nobody has answered yet."""

_log = logging.getLogger("reenact.bus")


class _Bus(Protocol):
    def emit(self, event: BusEvent) -> None: ...
    def emit_batch(self, events: list[BusEvent]) -> None: ...


class _Pending:
    """One request that waits: its future, and the loop and thread in which that may be touched."""

    __slots__ = ("answer", "future", "loop", "thread")

    def __init__(self, answer: str, loop: asyncio.AbstractEventLoop) -> None:
        self.answer = answer
        self.loop = loop
        self.thread = threading.get_ident()
        self.future: asyncio.Future[Live] = loop.create_future()

    def settle(self, value: Live | Exception) -> None:
        with suppress(RuntimeError):  # its loop is closed: nobody waits any more
            if threading.get_ident() == self.thread:
                self._set(value)
            else:
                self.loop.call_soon_threadsafe(self._set, value)

    def expire(self, kind: str) -> None:
        self._set(RequestTimeout(f"Request timeout: {kind}"))

    def _set(self, value: Live | Exception) -> None:
        if self.future.done():
            return
        if isinstance(value, Exception):
            self.future.set_exception(value)
        else:
            self.future.set_result(value)


class Requests:
    """The tables behind `SystemBus.request` and `SystemBus.on_command`."""

    __slots__ = (
        "_bus",
        "_gone",
        "_heard",
        "_new_id",
        "_now",
        "_pending",
        "_said",
        "_shown",
        "_whose",
        "late",
        "responders",
    )

    def __init__(
        self,
        bus: _Bus,
        *,
        now: Callable[[], int],
        new_id: Callable[[], str],
        whose: Whose | None = None,
        shown: Shown | None = None,
    ) -> None:
        self._whose = whose or (lambda given: given or Context())
        self._shown = shown or (lambda data, _: data)
        self._said: dict[tuple[Context, str], Payload] = {}  # of requests that are told otherwise than they were asked
        self._bus = bus
        self._now = now
        self._new_id = new_id
        self._pending: dict[str, _Pending] = {}
        self._gone: dict[str, None] = {}
        self.responders: set[str] = set()
        """Types of requests that somebody answers."""
        self._heard: set[str] = set()
        self.late = 0  # answers that came after their request had timed out or was given up

    # -- asking --

    def asked(self, kind: str, data: Mapping[str, Any] | None, context: Context | None) -> Live:
        """The event of a request: `data` with a requestId, the caller's own if it brought one."""
        return self._made(kind, data, self._whose(context))

    def by_hand(self, event: BusEvent) -> BusEvent:
        """A request that is emitted now, on behalf of whoever emits it."""
        whose = self._whose(event.context)
        if whose is event.context:
            return event
        return Live(
            event.type,
            event.data,
            at=self._now(),
            context=whose,
            source="command",
            category="request",
            intent="request",
            correlation=_request_id(event),
        )

    def _made(self, kind: str, data: Mapping[str, Any] | None, whose: Context) -> Live:
        if not isinstance(kind, str) or not kind.endswith("_request"):
            raise BadInput(f"A request is called <name>_request; {kind!r} is not.")
        payload = data if isinstance(data, Payload) else Payload(data)
        request_id = payload.get("requestId")
        if request_id is None:
            request_id = self._new_id()
            payload = Payload({**payload, "requestId": request_id})
        elif not isinstance(request_id, str) or not request_id:
            raise BadInput("requestId must be a non-empty string.")
        shown = self._shown(payload, whose)
        if shown is not payload:
            if shown.get("requestId") != request_id:
                raise BadInput("There is a secret in the requestId.")
            self._said[whose, request_id] = payload
            if len(self._said) > GONE_LIMIT:
                del self._said[next(iter(self._said))]
        return Live(
            kind,
            shown,
            at=self._now(),
            context=whose,
            source="command",
            category="request",
            intent="request",
            correlation=request_id,
        )

    async def ask(self, request: Live, *, timeout_s: float) -> Live:
        """Emit the request and wait for its response."""
        fits = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
        if not fits or not (0 < timeout_s < 1e300 or timeout_s == math.inf):
            raise BadInput(f"timeout_s must be a number of seconds above 0, not {ascii(timeout_s)[:60]}.")
        request_id = request.correlation
        assert request_id is not None
        if request_id in self._pending:
            raise BadInput(f"The request {request_id!r} is still waiting for its answer.")
        if len(self._pending) >= PENDING_LIMIT:
            raise Refused(f"{PENDING_LIMIT} requests are waiting for their answers already.")
        loop = asyncio.get_running_loop()
        pending = self._pending[request_id] = _Pending(answer_to(request.type), loop)
        try:
            self._bus.emit(request)
            if pending.future.done():
                return pending.future.result()  # answered at once: no timer, no turn of the loop
            timer = loop.call_later(timeout_s, pending.expire, request.type)
            try:
                return await pending.future
            finally:
                timer.cancel()
        finally:
            if self._pending.pop(request_id, None) is not None:
                self._forget(request_id)

    def listen(self, answer: str) -> bool:
        """True the first time: whoever is told so subscribes `arrived` to this type."""
        if answer in self._heard:
            return False
        self._heard.add(answer)
        return True

    def unknown(self, kind: str) -> BadInput:
        """The error for a request that nobody answers."""
        close = get_close_matches(kind, self.responders, n=3, cutoff=0.6)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        return BadInput(f"Nobody answers {kind!r}.{hint}")

    def arrived(self, event: BusEvent) -> None:
        """A response was emitted: hand it to whoever waits for it. One that nobody waits for is left alone."""
        request_id = _request_id(event)
        if request_id is None:
            return
        pending = self._pending.get(request_id)
        if pending is None:
            if self._gone.pop(request_id, self) is None:
                self.late += 1
        elif pending.answer == event.type and isinstance(event, Live):
            del self._pending[request_id]
            pending.settle(event)

    def close(self) -> None:
        """Give up every request that waits."""
        waiting = list(self._pending.values())
        self._pending.clear()
        self._gone.clear()
        self.responders.clear()
        for pending in waiting:
            pending.settle(Closed("The bus was disposed before the answer came."))

    @property
    def waiting(self) -> int:
        """Requests without an answer yet."""
        return len(self._pending)

    def _forget(self, request_id: str) -> None:
        self._gone[request_id] = None
        if len(self._gone) > GONE_LIMIT:
            del self._gone[next(iter(self._gone))]

    # -- answering --

    def responder(self, kind: str, handler: Responder) -> Callable[[BusEvent], Coroutine[Any, Any, None] | None]:
        """What the bus calls with each request of this type: run `handler`, emit what comes of it."""
        if not isinstance(kind, str) or not kind.endswith("_request"):
            raise BadInput(f"A request is called <name>_request; {kind!r} is not.")
        if not callable(handler):
            raise BadInput(f"A responder is called with the data and the request; {handler!r} cannot be called.")
        if kind in self.responders:
            raise BadInput(f"{kind!r} is answered by somebody already; unsubscribe that one first.")
        self.responders.add(kind)
        is_coroutine_function = iscoroutinefunction(handler)

        def respond(request: BusEvent) -> Coroutine[Any, Any, None] | None:
            try:
                if not isinstance(request.data, Payload) or _request_id(request) is None:
                    request = self._made(kind, request.data, request.context)  # it was emitted by hand
                data = self._said.pop((request.context, _request_id(request) or ""), request.data)
                if is_coroutine_function:
                    return self._later(request, handler, data)
                answer = handler(data, request)
                if isinstance(answer, Awaitable):
                    return self._later(request, lambda *_: answer, data)
            except (Exception, asyncio.CancelledError) as error:
                self.refuse(request, error)
            else:
                self._answer(request, answer)
            return None

        return respond

    def answers(self, kind: str) -> bool:
        return kind in self.responders

    def retire(self, kind: str) -> None:
        self.responders.discard(kind)

    async def _later(self, request: BusEvent, handler: Responder, said: Any) -> None:
        try:
            answer = handler(said, request)
            data = await answer if isinstance(answer, Awaitable) else answer
        except asyncio.CancelledError:
            self.refuse(request, Closed("The request was given up before its answer was there."))
            raise
        except Exception as error:
            self.refuse(request, error)
        else:
            self._answer(request, data)

    def _answer(self, request: BusEvent, answer: Answer) -> None:
        try:
            response = self._response(request, {**(answer or {}), "requestId": _request_id(request)})
        except Exception as error:  # what the responder returned is no JSON object
            self.refuse(request, error)
        else:
            self._bus.emit(response)

    def refuse(self, request: BusEvent, error: BaseException) -> None:
        """Say what went wrong, twice: to everybody as `system_error`, then to the asker as the response's `error`."""
        request_id = _request_id(request)
        code = error.code if isinstance(error, ReenactError) else "internal"
        message = _message(error)
        if code == "internal":
            _log.error("%s raised", request.type, exc_info=error)
        message = self._shown(Payload(message=message), request.context)["message"]
        details = {"code": code, "error": type(error).__name__, "request": request.type}
        trouble = Live(
            "system_error",
            Payload(message=message, requestId=request_id, severity="error", details=details),
            at=self._now(),
            context=request.context,
            source="command",
            category="error",
            correlation=request_id,
        )
        response = self._response(request, {"requestId": request_id, "error": message, "errorCode": code})
        self._bus.emit_batch([trouble, response])

    def _response(self, request: BusEvent, data: Mapping[str, Any]) -> Live:
        return Live(
            answer_to(request.type),
            Payload(data),
            at=self._now(),
            context=request.context,
            source="command",
            category="response",
            intent="result",
            correlation=_request_id(request),
        )


def answer_to(kind: str) -> str:
    """`image_get_request` -> `image_get_response`."""
    return kind.removesuffix("_request") + "_response"


def _message(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:  # it cannot even say what it is, and still the asker is owed an answer
        return type(error).__name__


def _request_id(event: BusEvent) -> str | None:
    correlation = event.correlation if isinstance(event, Live) else None
    if correlation is None and isinstance(event.data, Mapping):
        correlation = event.data.get("requestId")
    return correlation if isinstance(correlation, str) else None
