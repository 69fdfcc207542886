"""What went wrong with a call, in our words: a status, a provider's error body or a broken connection as a `Failure`.

Shared by every provider here. Knows no SDK; httpx2, which they all speak through, is loaded when an error is judged.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import Any

from ...events.assembler import clean_text
from ...events.content import Failure

RETRYABLE = frozenset(
    ("rate_limit", "overloaded", "server_error", "timeout", "connection", "stream_cut", "stream_error")
)
"""The codes where the same request may work later. A cut stream is one: its partial answer and cost are recorded."""

LONGEST_MESSAGE = 1_000

_USUAL_STATUS = {
    "invalid_request": 400,
    "auth": 401,
    "billing": 402,
    "permission": 403,
    "model_not_found": 404,
    "too_large": 413,
    "rate_limit": 429,
    "server_error": 500,
    "overloaded": 529,
}

_BY_STATUS = {
    400: "invalid_request",
    401: "auth",
    402: "billing",
    403: "permission",
    404: "model_not_found",
    408: "timeout",
    409: "server_error",
    413: "too_large",
    422: "invalid_request",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    522: "timeout",
    524: "timeout",
    529: "overloaded",
}


def failure(
    code: str,
    message: str,
    *,
    status: int | None = None,
    retry_after_s: float | None = None,
    retryable: bool | None = None,
    secret: str | None = None,
) -> Failure:
    """A failure; its message on one line of at most 1,000 characters, without `secret`; retryable as its code is."""
    text = " ".join(clean_text(message).split())
    if secret and len(secret) >= 8:
        text = text.replace(secret, "***")
    if len(text) > LONGEST_MESSAGE:
        text = text[:LONGEST_MESSAGE] + " ..."
    return Failure(
        code=code,
        message=text or code.replace("_", " "),
        retryable=code in RETRYABLE if retryable is None else retryable,
        retry_after_s=retry_after_s,
        status=status,
    )


def code_of_status(status: int) -> str:
    """What an HTTP status alone says: the code for it, `server_error` for the rest from 500, else `invalid_request`."""
    return _BY_STATUS.get(status) or ("server_error" if status >= 500 else "invalid_request")


def status_of(code: str) -> int | None:
    """The HTTP status that a code is most often told with, None for one that comes without."""
    return _USUAL_STATUS.get(code)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the headers ask us to wait: `retry-after-ms`, or `retry-after` as seconds or as an HTTP date.

    None when there is nothing usable; a date in the past is 0.0. For error answers only: successful ones carry it too.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = (headers.get(name) or "").strip()
        if not value:
            continue
        try:
            seconds = float(value) * unit_s
        except ValueError:
            from email.utils import parsedate_to_datetime  # loads much that only a date needs

            try:
                seconds = max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
            except (ValueError, TypeError, OverflowError):
                continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def broken(error: BaseException, *, started: bool, secret: str | None = None) -> Failure | None:
    """What an error of the connection means, bare from httpx2 or wrapped by an SDK; None if it is not one.

    started: the answer had begun. Silence is `timeout`, an end in the middle of an answer `stream_cut`, an answer that
    cannot be decoded `bad_response`, everything before the answer `connection`.
    """
    import httpx2

    seen: BaseException | None = error
    wrapped = False
    while seen is not None:
        if isinstance(seen, httpx2.TimeoutException):
            what = {"ConnectTimeout": "no connection", "PoolTimeout": "no free connection"}.get(type(seen).__name__)
            return failure("timeout", f"{what or 'no answer'} in time", secret=secret)
        if isinstance(seen, (httpx2.DecodingError, UnicodeDecodeError)):
            return failure("bad_response", f"the answer cannot be decoded: {seen}", secret=secret)
        if isinstance(seen, (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError)):
            return failure("invalid_request", f"the request cannot be sent: {seen}", secret=secret)
        if isinstance(seen, (httpx2.TransportError, httpx2.StreamError, httpx2.TooManyRedirects, OSError)):
            if started:
                return failure("stream_cut", f"the connection broke off: {_said(seen)}", secret=secret)
            return failure("connection", f"the connection failed: {_said(seen)}", secret=secret)
        # The SDKs' own wrappers, for when they name no cause.
        wrapped = wrapped or type(seen).__name__ in ("APIConnectionError", "APITimeoutError")
        seen = seen.__cause__ or seen.__context__
    if not wrapped:
        return None
    if type(error).__name__ == "APITimeoutError":
        return failure("timeout", "no answer in time", secret=secret)
    return failure("stream_cut" if started else "connection", f"the connection failed: {_said(error)}", secret=secret)


def unsent(error: BaseException) -> bool:
    """Whether a call ended because there was no connection to send it over: nobody heard of it."""
    import httpx2

    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, httpx2.TransportError):
        seen = seen.__cause__ or seen.__context__
    return isinstance(seen, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout))


def not_an_answer(status: int, content_type: str, body: str) -> str:
    """The sentence for a body that is no answer of a model: its kind and, of a web page, its title, else its head."""
    kind = content_type.partition(";")[0].strip() or "no content type"
    title = re.search(r"<title[^>]*>(.*?)</title>", body[:20_000], re.IGNORECASE | re.DOTALL)
    head = title.group(1) if title else body[:200]
    return f"the server answered {status} with {kind} ({head.strip()}), no answer of a model; check the base URL"


def error_in(body: Any) -> tuple[str | None, str | None, str | None]:
    """`(type, code, message)` of a provider's error body, whatever shape it has; None for what it lacks."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if isinstance(error, str):
        return None, None, error
    if not isinstance(error, Mapping):
        return None, None, None
    kind, code, message = error.get("type"), error.get("code"), error.get("message") or error.get("detail")
    return (
        kind if isinstance(kind, str) else None,
        str(code) if isinstance(code, (str, int)) and not isinstance(code, bool) else None,
        message if isinstance(message, str) else None,
    )


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
