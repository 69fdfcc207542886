"""What the audit says of questions to people, and of what their answers allow."""

from __future__ import annotations

from typing import Any

from ...events.action import (
    ActionCancelled,
    ActionExpired,
    ActionRequired,
    ActionResolved,
    ActionTokenIssued,
    GrantRevoked,
    GrantUsed,
)
from ...events.message import Event, Recorded
from ..redaction import redacted
from .note import AuditError, Note, Status
from .session import Session, Write

_APPROVALS = ("approval", "confirm", "apply_changes")


def _required(session: Session, event: ActionRequired, recorded: Recorded) -> Note:
    session.asked[event.action] = event.kind, recorded.timestamp
    context: dict[str, Any] = {
        "approval_id": f"{session.id}:{event.action}",
        "type": event.kind,
        "tool_id": session.tools.get(event.tool or ""),
        "reason": event.reason,
        "payload": redacted(event.payload),
        "digest": event.digest,
        "expires_at": recorded.timestamp + event.timeout_ms,
    }
    return _asked(session, event, "approval.requested", "pending", context)


def _resolved(session: Session, event: ActionResolved, recorded: Recorded) -> Note:
    approved = event.resolution.get("approved")
    decision = "approved" if approved is True else "denied" if approved is False else "answered"
    context: dict[str, Any] = {
        "approval_id": f"{session.id}:{event.action}",
        "decision": decision,
        "approver": event.by,
        "resolution": redacted(event.resolution),
        "digest": event.digest,
    }
    status: Status = "failure" if approved is False else "success"
    if approved is True and session.asked.get(event.action, ("approval", 0))[0] == "approval":
        session.answered[f"approval {event.action}"] = event.action, event.by  # until the turn is over
    note = _asked(session, event, "approval.denied" if approved is False else "approval.granted", status, context)
    return _since(session, note, event.action, recorded)


def _expired(session: Session, event: ActionExpired, recorded: Recorded) -> Note:
    context = {"approval_id": f"{session.id}:{event.action}", "decision": "timeout", "approver": event.by or None}
    note = _asked(session, event, "approval.expired", "failure", context)
    note.error = AuditError(code="action_expired", message="Nobody answered in time.")
    return _since(session, note, event.action, recorded)


def _cancelled(session: Session, event: ActionCancelled, recorded: Recorded) -> Note:
    context = {
        "approval_id": f"{session.id}:{event.action}",
        "decision": "cancelled",
        "approver": event.by or None,
        "reason": event.reason,
    }
    note = _asked(session, event, "approval.cancelled", "failure", context)
    note.error = AuditError(code="cancelled", message=event.reason)
    return _since(session, note, event.action, recorded)


def _token_issued(session: Session, event: ActionTokenIssued, recorded: Recorded) -> Note:
    return _asked(session, event, event.type, "pending", {"approval_id": f"{session.id}:{event.action}"})


def _grant_used(session: Session, event: GrantUsed, recorded: Recorded) -> Note:
    context = {"approval_id": f"{session.id}:{event.grant}", "tool_id": session.tools.get(event.tool)}
    return session.note(event, "tool_call", event.tool, "pending", context)


def _grant_revoked(session: Session, event: GrantRevoked, recorded: Recorded) -> Note:
    context = {"approval_id": f"{session.id}:{event.grant}", "revokedBy": event.by}
    return session.note(event, "grant", event.grant, "success", context)


def _asked(session: Session, event: Any, type: str, status: Status, context: dict[str, Any]) -> Note:
    """Only a question whether something may be done is called an approval."""
    note = session.note(event, "approval", event.action, status, context)
    kind, _ = session.asked.get(event.action, ("", 0))
    if kind in _APPROVALS:
        note.type = type
    return note


def _since(session: Session, note: Note, action: str, recorded: Recorded) -> Note:
    _, asked_at = session.asked.pop(action, ("", recorded.timestamp))
    note.duration = max(0, recorded.timestamp - asked_at)
    return note


ACTION_NOTES: dict[type[Event], Write] = {
    ActionRequired: _required,
    ActionResolved: _resolved,
    ActionExpired: _expired,
    ActionCancelled: _cancelled,
    ActionTokenIssued: _token_issued,
    GrantUsed: _grant_used,
    GrantRevoked: _grant_revoked,
}
