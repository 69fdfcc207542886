"""What OpenAI-shaped servers mean by their errors, as a status, in the middle of an answer or inside one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...events.content import Failure
from ...events.model import ModelFailure
from .failures import broken, code_of_status, error_in, failure, not_an_answer, retry_after_s

_BY_WORD = {
    "insufficient_quota": "billing",
    "billing_hard_limit_reached": "billing",
    "billing_not_active": "billing",
    "payment_required": "billing",
    "invalid_api_key": "auth",
    "authentication_error": "auth",
    "unauthenticated": "auth",
    "permission_error": "permission",
    "permission_denied": "permission",
    "model_not_found": "model_not_found",
    "deploymentnotfound": "model_not_found",
    "not_found_error": "model_not_found",
    "not_found": "model_not_found",
    "context_length_exceeded": "context_exceeded",
    "context_window_exceeded": "context_exceeded",
    "too_many_prompt_tokens": "context_exceeded",
    "request_too_large": "too_large",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "ratelimitreached": "rate_limit",
    "resource_exhausted": "rate_limit",
    "requests": "rate_limit",
    "tokens": "rate_limit",
    "overloaded_error": "overloaded",
    "overloaded": "overloaded",
    "unavailable": "overloaded",
    "engine_overloaded": "overloaded",
    "slow_down": "overloaded",
    "server_error": "server_error",
    "api_error": "server_error",
    "internal_server_error": "server_error",
    "internal_error": "server_error",
    "vector_store_timeout": "timeout",
    "timeout": "timeout",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "responsibleaipolicyviolation": "content_filter",
    "invalid_prompt": "content_filter",
    "moderation_blocked": "content_filter",
    # The model wrote a call that its own server cannot read; asked again it may write another.
    "tool_use_failed": "bad_response",
    "invalid_request_error": "invalid_request",
    "invalid_argument": "invalid_request",
}

_TOO_LONG = re.compile(
    r"context[ _](?:length|window|size)|maximum (?:prompt|context)|too many (?:prompt |input )?tokens"
    r"|(?:prompt|input|request|total length of all messages) is too long"
    r"|input token count .*exceeds|exceeds? the (?:maximum|max|limit) .*tokens",
    re.IGNORECASE,
)
_BAD_KEY = re.compile(
    r"api[ _-]?key (?:not valid|is invalid|expired)|(?:invalid|incorrect) api[ _-]?key", re.IGNORECASE
)
_TOO_LARGE = re.compile(r"request (?:too large|entity too large)", re.IGNORECASE)


def refusal(
    body: Any, *, status: int | None = None, headers: Mapping[str, str] | None = None, secret: str | None = None
) -> Failure:
    """The failure in an error body, as it came with an error status or (status None) in the middle of an answer."""
    if isinstance(body, list) and body:
        body = body[0]
    kind, code, message = error_in(body)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    state = inner.get("status") if isinstance(inner, Mapping) else None
    found = _code(kind, code, state if isinstance(state, str) else None, message or "", status)
    said = message or code or kind or (f"status {status}" if status else "the answer broke off with an error")
    wait = retry_after_s(headers) if headers is not None else None
    again = True if code == "tool_use_failed" else None
    return failure(found, said, status=status, retry_after_s=wait, retryable=again, secret=secret)


def judge(error: Exception, *, started: bool, secret: str | None = None) -> Failure | None:
    """What an error of a call means, None if it is none of the provider's or the connection's doing."""
    import openai

    if isinstance(error, ModelFailure):
        return error.failure
    if isinstance(error, TimeoutError):
        return failure("timeout", "no complete answer in time")
    if isinstance(error, openai.APIStatusError):
        answer, body = error.response, error.body
        if isinstance(body, (Mapping, list)):
            return refusal(body, status=error.status_code, headers=answer.headers, secret=secret)
        said = not_an_answer(error.status_code, answer.headers.get("content-type", ""), str(body or ""))
        return failure(
            code_of_status(error.status_code),
            said,
            status=error.status_code,
            retry_after_s=retry_after_s(answer.headers),
            secret=secret,
        )
    found = broken(error, started=started, secret=secret)
    if found is None and isinstance(error, openai.APIError):
        return refusal(error.body or {"message": error.message}, secret=secret)
    return found


def refused_for(error: Exception, word: str) -> bool:
    """Whether the server refused the request, unread, because of this word in it."""
    import openai

    return isinstance(error, openai.APIStatusError) and error.status_code in (400, 422) and word in error.response.text


def request_id_of(error: Exception) -> str | None:
    """The id under which the provider knows a request that it refused."""
    import openai

    return error.request_id if isinstance(error, openai.APIStatusError) else None


def _code(kind: str | None, code: str | None, state: str | None, message: str, status: int | None) -> str:
    if _TOO_LONG.search(message) and status not in (401, 403, 404, 429):
        return "context_exceeded"
    if _BAD_KEY.search(message):
        return "auth"
    if _TOO_LARGE.search(message):
        return "too_large"
    for word in (code, state, kind):
        found = _BY_WORD.get((word or "").lower())
        # A vague word says less than the status does.
        if found is not None and not (found in ("invalid_request", "server_error") and status is not None):
            return found
    if status is not None:
        return code_of_status(status)
    if code is not None and re.fullmatch(r"[45]\d\d", code):
        return code_of_status(int(code))
    return "stream_error"
