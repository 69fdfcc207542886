"""What OpenAI-shaped servers mean by their errors, as a status, in the middle of an answer or inside one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...events.content import Failure
from ...events.model import ModelFailure
from .failures import broken, code_of_status, failure, not_an_answer, retry_after_s
from .refusals import Meaning, Refusal, meaning_of, refusals_in, said_in

if TYPE_CHECKING:
    from openai import APIStatusError


def refusal(
    body: Any, *, status: int | None = None, headers: Mapping[str, str] | None = None, secret: str | None = None
) -> Failure:
    """The failure in an error body, as it came with an error status or (status None) in the middle of an answer."""
    refusals = refusals_in(body)
    found = meaning_of(refusals, status) or Meaning(_by_number(refusals, status))
    outer = refusals[-1] if refusals else Refusal()
    said = said_in(refusals) or outer.code or outer.kind
    said = said or (f"status {status}" if status else "the answer broke off with an error")
    wait = retry_after_s(headers) if headers is not None and found.again is not False else None
    return failure(found.code, said, status=status, retry_after_s=wait, retryable=found.again, secret=secret)


def judge(error: Exception, *, started: bool, secret: str | None = None) -> Failure | None:
    """What an error of a call means, None if it is none of the provider's or the connection's doing."""
    import openai

    if isinstance(error, ModelFailure):
        return error.failure
    if isinstance(error, TimeoutError):
        return failure("timeout", "no complete answer in time")
    if isinstance(error, openai.APIStatusError):
        answer, body = error.response, _body_of(error)
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


def _by_number(refusals: list[Refusal], status: int | None) -> str:
    """What a status says; in an answer, the number in the error."""
    if status is not None:
        return code_of_status(status)
    number = next((each.code for each in refusals if each.code and re.fullmatch(r"[45]\d\d", each.code)), None)
    return code_of_status(int(number)) if number else "stream_error"


def _body_of(error: APIStatusError) -> Any:
    """The body as it came: where its error is a sentence the SDK keeps nothing else; it may be that alone."""
    if isinstance(error.body, str):
        with suppress(ValueError, RecursionError):
            whole = json.loads(error.response.text)
            return {"error": whole} if isinstance(whole, str) else whole
    return error.body
