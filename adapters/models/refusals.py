"""What servers mean by a refusal, whichever protocol they speak: the words of an error body, and our code for them.

The words differ from server to server, and many say the same of a wrong request and of a model that they do not have.
Where a refusal is of the request, no other model is asked; so what is not sure to be of the model, the key or the
moment is left to the status. `tests/adapters/models/fixtures/refusals.jsonl` has each form, and where it was seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .failures import error_in

LOOKED_AT_MAX = 2_000
"""Characters of a message that are searched: what servers say of themselves is short, what they quote of us is not."""

WITHIN_MAX = 3
"""Errors within an error that are looked into, as gateways wrap them."""


class Refusal(NamedTuple):
    """An error body taken apart. kind, code, state: the server's words for it. param: what of the request it is of."""

    kind: str | None = None
    code: str | None = None
    state: str | None = None
    param: str | None = None
    message: str | None = None


class Meaning(NamedTuple):
    """Our code, and whether the same request may work later; None: as it is with that code."""

    code: str
    again: bool | None = None


def refusals_in(body: Any) -> list[Refusal]:
    """The error that a body holds, and those that it wraps, the innermost first; none where it holds no error."""
    found: list[Refusal] = []
    while len(found) <= WITHIN_MAX:
        if isinstance(body, list) and body:
            body = body[0]
        if not isinstance(body, (Mapping, str)):
            break
        inner = body.get("error", body) if isinstance(body, Mapping) else None
        about = inner if isinstance(inner, Mapping) else body if isinstance(body, Mapping) else {}
        kind, code, message = error_in(body)
        if not isinstance(inner, Mapping):
            _, code, _ = error_in({"code": about.get("code")})
        found.insert(0, Refusal(kind, code, _text(about.get("status")), _text(about.get("param")), message))
        body = _wrapped(about, message)
    return found


def meaning_of(refusals: list[Refusal], status: int | None) -> Meaning | None:
    """What is meant, None where the words say no more than the status does. status: None for an error in an answer."""
    for refusal in refusals:
        found = _meaning(refusal, status)
        if found is not None:
            return found
    return None


def said_in(refusals: list[Refusal]) -> str | None:
    """The sentence for people: the innermost one there is."""
    return next((each.message for each in refusals if each.message), None)


# -- errors within errors --

_HOLDS_ONE = re.compile(r"(?:^|(?:exception|error)\b\W{0,6}?)(?=\{)", re.IGNORECASE)


def _wrapped(about: Mapping[str, Any], message: str | None) -> Any:
    """What a gateway was told itself, where it passes that on: in `metadata.raw`, as the message or in it."""
    details = about.get("metadata")
    raw = details.get("raw") if isinstance(details, Mapping) else None
    if raw is not None:
        return _decoded(raw) if isinstance(raw, str) and raw.lstrip()[:1] in ("{", "[") else raw
    if isinstance(about.get("message"), Mapping):
        return about["message"]
    held = _HOLDS_ONE.search(message) if message else None
    return _decoded(message[held.end() :]) if message and held else None


def _decoded(text: str) -> Any:
    try:
        return json.JSONDecoder(strict=False).raw_decode(text.strip())[0]
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


# -- words --

_BY_WORD = {
    "insufficient_quota": "billing",
    "exceeded_current_quota_error": "billing",
    "billing_hard_limit_reached": "billing",
    "billing_not_active": "billing",
    "payment_required": "billing",
    "arrearage": "billing",
    "invalid_api_key": "auth",
    "authentication_error": "auth",
    "unauthenticated": "auth",
    "permission_error": "permission",
    "permission_denied": "permission",
    "model_not_found": "model_not_found",
    "model_decommissioned": "model_not_found",
    "model_not_available": "model_not_found",
    "model_not_supported": "model_not_found",
    "dedicated_endpoint_not_running": "model_not_found",
    "invalid_model": "model_not_found",
    "unknown_model": "model_not_found",
    "deploymentnotfound": "model_not_found",
    "invalidendpoint.notfound": "model_not_found",
    "invalidendpointormodel.notfound": "model_not_found",
    "not_found_error": "model_not_found",
    "notfounderror": "model_not_found",
    "not_found": "model_not_found",
    "context_length_exceeded": "context_exceeded",
    "context_window_exceeded": "context_exceeded",
    "exceed_context_size_error": "context_exceeded",
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
    "engine_overloaded_error": "overloaded",
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
_VAGUE = ("invalid_request", "server_error")
"""Words that say less than the status does, or than the message."""

_TOO_LONG = re.compile(
    r"maximum (?:prompt|context)|exceeds? (?:the )?(?:available )?context|context (?:length|window|size) exceeded"
    r"|too many (?:prompt |input )?tokens|(?:prompt|input|request|total length of all messages) is too long"
    r"|input token count .*exceeds|exceeds? the (?:maximum|max|limit) .*tokens|prompt exceeds max length"
    r"|reduce the length of the (?:messages|prompt|input)",
    re.IGNORECASE,
)
_OF_THE_CONTEXT = re.compile(r"context[ _](?:length|window|size)", re.IGNORECASE)
_BAD_KEY = re.compile(
    r"api[ _-]?key (?:not valid|is invalid|expired)|(?:invalid|incorrect) api[ _-]?key"
    r"|organization has been disabled",
    re.IGNORECASE,
)
_UNPAID = re.compile(
    r"insufficient (?:account )?balance|balance is insufficient|credit balance is too low"
    r"|used all available credits|(?:run|ran) out of credits|account is in good standing"
    r"|余额不足|已欠费",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(r"request (?:too large|entity too large)", re.IGNORECASE)
_A_MINUTE = re.compile(r"tokens per (?:min|minute|day)\b|\bTP[MD]\b", re.IGNORECASE)
_NO_MODEL = re.compile(
    r"\bmodel not (?:exist|found)\b|\bmodel does not exist\b|\btry pulling it first\b"
    r"|\bmodel(?: or endpoint)? \S{1,200} (?:does not exist|(?:was |is )?not found)\b"
    r"|\bmodel \S{1,200} has been (?:decommissioned|retired)\b"
    r"|\brequested model (?:\S{1,200} )?(?:does not exist|is not (?:supported|available))\b"
    r"|\bis not found for api version\b|\bis not a valid model id\b|\bmodel identifier is invalid\b"
    r"|\binvalid model (?:id\b|name passed in\b)|^invalid model[:.]|^unknown model[:.]"
    r"|\bno endpoints found for\b|\bunable to access (?:non-serverless )?model\b",
    re.IGNORECASE,
)


def _meaning(refusal: Refusal, status: int | None) -> Meaning | None:
    said = (refusal.message or "")[:LOOKED_AT_MAX]
    words = [_BY_WORD.get((word or "").lower()) for word in (refusal.code, refusal.state, refusal.kind)]
    if _TOO_LARGE.search(said) and ("rate_limit" in words or _A_MINUTE.search(said)):
        # More than this model takes in a minute: another may take it, and no waiting helps with this one.
        return Meaning("rate_limit", again=False)
    if _is_too_long(said, status):
        return Meaning("context_exceeded")
    if _BAD_KEY.search(said):
        return Meaning("auth")
    if _UNPAID.search(said) and status in (None, 400, 402, 403, 429):
        return Meaning("billing")
    if _TOO_LARGE.search(said):
        return Meaning("too_large")
    clear = next((word for word in words if word is not None and word not in _VAGUE), None)
    if clear is not None:
        return Meaning(clear, again=True if refusal.code == "tool_use_failed" else None)
    of_the_model = refusal.param in (None, "None", "model")
    if status in (None, 400, 404, 422) and of_the_model and (_NO_MODEL.search(said) or refusal.param == "model"):
        return Meaning("model_not_found")
    if status == 404 and not of_the_model:
        return Meaning("invalid_request")  # something else that the request names is not there
    vague = next((word for word in words if word is not None), None)
    return Meaning(vague) if vague is not None and status is None else None


def _is_too_long(said: str, status: int | None) -> bool:
    if status in (401, 403, 404, 429):
        return False
    if _TOO_LONG.search(said):
        return True
    # A server that broke may speak of the context as well.
    return (status is None or status < 500) and _OF_THE_CONTEXT.search(said) is not None
