"""What Anthropic means by its errors, as a status or inside of an answer. Imports no SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ...events.content import Failure
from .failures import code_of_status, error_in, failure, not_an_answer, retry_after_s
from .refusals import meaning_of, refusals_in

if TYPE_CHECKING:
    import httpx2
    from anthropic import APIStatusError

_BY_TYPE = {
    "invalid_request_error": "invalid_request",
    "authentication_error": "auth",
    "billing_error": "billing",
    "permission_error": "permission",
    "not_found_error": "model_not_found",
    "request_too_large": "too_large",
    "rate_limit_error": "rate_limit",
    "overloaded_error": "overloaded",
    "timeout_error": "timeout",
    "gateway_timeout_error": "timeout",
    "api_error": "server_error",
}
_BY_MESSAGE = (
    ("prompt is too long", "context_exceeded"),
    ("exceed context limit", "context_exceeded"),
    ("context window", "context_exceeded"),
    ("credit balance", "billing"),
    ("usage limits", "billing"),
    ("content filtering policy", "content_filter"),
)


def status_failure(error: APIStatusError, *, secret: str) -> Failure:
    """What an answer with an error status means."""
    status, headers = error.status_code, error.response.headers
    kind, _, message = error_in(error.body) if isinstance(error.body, Mapping) else (None, None, None)
    code = _code(error.body, kind, message, status) or code_of_status(status)
    if kind is None and message is None:
        message = not_an_answer(status, content_type(error.response), error.response.text)
        code = "bad_response" if status == 404 else code
    found = failure(code, message or kind or "", status=status, secret=secret)
    # The server may know better than the status whether it is worth trying again.
    retryable = {"true": True, "false": False}.get(headers.get("x-should-retry", ""), found.retryable)
    wait_s = retry_after_s(headers) if retryable else None
    return msgspec.structs.replace(found, retryable=retryable, retry_after_s=wait_s)


def event_failure(event: dict[str, Any]) -> Failure:
    """What an error means that comes inside an answer, after status 200."""
    kind, _, message = error_in(event)
    code = _code(event, kind, message, None) or "stream_error"
    return failure(code, message or kind or "the provider reported an error", status=200)


def _code(body: Any, kind: str | None, message: str | None, status: int | None) -> str | None:
    """What the words mean, None where the status says more. Others speak this protocol too, in words of their own."""
    code = _BY_TYPE.get(kind or "")
    if code is not None and code != "invalid_request":
        return code
    lower = (message or "").lower()
    own = next((found for words, found in _BY_MESSAGE if words in lower), None)
    if own is not None and code is not None:
        return own
    meant = meaning_of(refusals_in(body), status) if isinstance(body, Mapping) else None
    return meant.code if meant is not None else code


def request_id_of(error: Exception) -> str | None:
    """The provider's id of a failed call: in a header, or else in the error's body."""
    said = getattr(error, "body", None)
    found = getattr(error, "request_id", None) or (said.get("request_id") if isinstance(said, dict) else None)
    return found if isinstance(found, str) else None


def content_type(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", ""))
