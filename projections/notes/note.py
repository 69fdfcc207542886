"""A note: what the audit says of one event, beside its envelope."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from ...events.content import Failure

Status = Literal["success", "failure", "pending"]


class Note(Struct, kw_only=True, gc=False):
    """What the audit says of one event, beside its envelope. name: the one it is stored under.

    status: `pending` until the operation that the event belongs to is over; each operation (a job, a turn, a model call
    with its retries, a tool call) has exactly one event with its final status. duration: milliseconds.
    """

    type: str
    status: Status = "success"
    resource_type: str
    resource_id: str | None
    name: str = ""
    job_id: str | None = None
    duration: int | None = None
    context: dict[str, Any]
    error: AuditError | None = None
    tags: tuple[str, ...] = ()


class AuditError(Struct, frozen=True, kw_only=True, rename="camel"):
    """What went wrong. code: a stable word, see `events.errors`."""

    code: str
    message: str
    details: dict[str, Any] | None = None


def error_of(failure: Failure) -> AuditError:
    details = None if failure.status is None else {"status": failure.status}
    return AuditError(code=failure.code, message=failure.message, details=details)
