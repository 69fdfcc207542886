"""What the audit says of a session and its jobs; and what it remembers of one, for all that happens there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...events.message import Event, Recorded
from ...events.session import (
    JobCancelled,
    JobFailed,
    JobQueued,
    JobResumed,
    JobStarted,
    JobStopping,
    JobSucceeded,
    JobTimedOut,
    JobWaiting,
    SessionClosed,
    SessionCreated,
)
from ..projection import session_of
from ..scribe import Scribe
from .note import AuditError, Note, Status, error_of


class Session:
    """What has to be remembered of one session to understand its next event."""

    __slots__ = (
        "answered",
        "asked",
        "began",
        "chosen",
        "id",
        "job",
        "last",
        "messages",
        "model",
        "provider",
        "scribe",
        "told",
        "tools",
        "turn_began",
    )

    def __init__(self, first: Recorded) -> None:
        self.id = session_of(first)
        self.began = self.last = self.turn_began = first.timestamp
        self.messages = 0
        self.job: str | None = None
        self.provider = ""
        self.model = ""  # of the definition
        self.chosen = ("", "primary")  # the model that was selected last, and why
        self.told = False  # of that, and the call of it comes next
        self.tools: dict[str, str] = {}  # of the running turn, by what the session calls them
        self.asked: dict[str, tuple[str, int]] = {}  # open questions: what kind, and when
        self.answered: dict[str, tuple[str, str]] = {}  # the rule that lets a call run -> its question, and by whom
        self.scribe = Scribe()

    def note(self, event: Event, kind: str, id: str, status: Status, context: dict[str, Any]) -> Note:
        """On a part of this session: kind and id name it."""
        return Note(type=event.type, status=status, resource_type=kind, resource_id=f"{self.id}:{id}", context=context)


Write = Callable[[Session, Any, Recorded], Note]


def _created(session: Session, event: SessionCreated, recorded: Recorded) -> Note:
    context = {
        "session_id": session.id,
        "agent_id": event.image_id,
        "user": recorded.context.principal,
        "timestamp": event.created_at,
    }
    return Note(type="session.created", resource_type="session", resource_id=session.id, context=context)


def _closed(session: Session, event: SessionClosed, recorded: Recorded) -> Note:
    context = {"session_id": session.id, "reason": event.reason, "deleted_by": recorded.context.principal}
    return Note(type="session.deleted", resource_type="session", resource_id=session.id, context=context)


def _queued(session: Session, event: JobQueued, recorded: Recorded) -> Note:
    context = {"priority": event.priority, "timeout_ms": event.timeout_ms, "parts": len(event.content)}
    return _job(event, "pending", context)


def _started(session: Session, event: JobStarted, recorded: Recorded) -> Note:
    return _job(event, "pending", {})


def _waiting(session: Session, event: JobWaiting, recorded: Recorded) -> Note:
    return _job(event, "pending", {"tool": event.tool, "reason": event.reason, "action": event.action})


def _resumed(session: Session, event: JobResumed, recorded: Recorded) -> Note:
    return _job(event, "pending", {})


def _stopping(session: Session, event: JobStopping, recorded: Recorded) -> Note:
    return _job(event, "pending", {"reason": event.reason})


def _succeeded(session: Session, event: JobSucceeded, recorded: Recorded) -> Note:
    return _job(event, "success", {})


def _failed(session: Session, event: JobFailed, recorded: Recorded) -> Note:
    return _job(event, "failure", {}, error_of(event.failure))


def _cancelled(session: Session, event: JobCancelled, recorded: Recorded) -> Note:
    error = AuditError(code="cancelled", message=event.reason)
    return _job(event, "failure", {"reason": event.reason}, error)


def _timed_out(session: Session, event: JobTimedOut, recorded: Recorded) -> Note:
    return _job(event, "failure", {}, AuditError(code="timeout", message="The job's time was up."))


def _job(event: Any, status: Status, context: dict[str, Any], error: AuditError | None = None) -> Note:
    return Note(
        type=event.type, status=status, resource_type="job", resource_id=event.job_id, context=context, error=error
    )


SESSION_NOTES: dict[type[Event], Write] = {
    SessionCreated: _created,
    SessionClosed: _closed,
    JobQueued: _queued,
    JobStarted: _started,
    JobWaiting: _waiting,
    JobResumed: _resumed,
    JobStopping: _stopping,
    JobSucceeded: _succeeded,
    JobFailed: _failed,
    JobCancelled: _cancelled,
    JobTimedOut: _timed_out,
}
