"""What the audit says of a tool's calls.

What it was given is shown redacted, what it gave back never: its size and digest stand for it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...events.agent import (
    ToolAuthorised,
    ToolChecked,
    ToolDoubted,
    ToolOutput,
    ToolRelaunched,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
)
from ...events.message import Event, Recorded, digest, show_digest
from ...events.policy import ToolDenied
from ..redaction import redacted
from .note import AuditError, Note, Status
from .session import Session, Write

_DECISIONS = {"allow": "approved", "deny": "denied"}


def _requested(session: Session, event: ToolRequested, recorded: Recorded) -> Note:
    session.tools[event.tool] = event.name
    asked = session.scribe.open[event.tool].call
    given = None if asked.id == event.tool else asked.input  # a call that cannot be read has a stand-in
    context: dict[str, Any] = {
        "tool_id": event.name,
        "params": None if given is None else redacted(given),
        "paramsHash": None if given is None else _digest(given),
        "userId": recorded.context.principal,
        "effect": event.effect,
    }
    if event.problem is not None:
        context["problem"] = event.problem
    note = session.note(event, "tool_call", event.tool, "pending", context)
    note.type, note.tags = "tool.invoked", (f"tool:{event.name}", event.effect)
    return note


def _authorised(session: Session, event: ToolAuthorised, recorded: Recorded) -> Note:
    action, approver = session.answered.pop(event.rule or "", (event.tool, event.rule or "policy"))
    context = {
        "approval_id": f"{session.id}:{action}",
        "tool_id": session.tools.get(event.tool),
        "decision": _DECISIONS.get(event.decision, event.decision),
        "approver": approver,
    }
    status: Status = "success" if event.decision in ("allow", "warn") else "failure"
    note = _of_tool(session, event, status, context)
    note.type, note.resource_type = "tool.approved", "approval"
    return note


def _denied(session: Session, event: ToolDenied, recorded: Recorded) -> Note:
    context = {
        "approval_id": f"{session.id}:{event.tool}",
        "tool_id": session.tools.get(event.tool),
        "decision": "denied",
        "approver": f"{event.policy}/{event.rule}",
        "reason": event.reason,
        "policy_version": event.version,
    }
    note = _of_tool(session, event, "failure", context)
    note.type, note.resource_type = "tool.approved", "approval"
    return note


def _checked(session: Session, event: ToolChecked | ToolRelaunched, recorded: Recorded) -> Note:
    return _of_tool(session, event, "pending", {"tool_id": session.tools.get(event.tool), "attempt": event.attempt})


def _started(session: Session, event: ToolStarted, recorded: Recorded) -> Note:
    context = {"tool_id": session.tools.get(event.tool), "attempt": event.attempt, "paramsHash": event.arguments}
    return _of_tool(session, event, "pending", context)


def _doubted(session: Session, event: ToolDoubted | ToolUnproved, recorded: Recorded) -> Note:
    return _of_tool(session, event, "pending", {"tool_id": session.tools.get(event.tool)})


def _settled(session: Session, event: ToolSettled, recorded: Recorded) -> Note:
    size, hashed = _measure(event.output)
    context = {
        "tool_id": session.tools.get(event.tool),
        "status": event.outcome,
        "duration": event.duration_ms,
        "result_size": size,
        "outputHash": hashed,
        "dropped_bytes": event.dropped_bytes,
        "proof": event.proof,
    }
    note = _of_tool(session, event, "success" if event.outcome == "ok" else "failure", context)
    note.type, note.duration = "tool.executed", event.duration_ms
    if event.outcome != "ok":
        note.error = AuditError(code=event.error_type or event.outcome, message=f"The call ended as {event.outcome}.")
    return note


def _of_tool(session: Session, event: Any, status: Status, context: dict[str, Any]) -> Note:
    note = session.note(event, "tool_call", event.tool, status, context)
    if context["tool_id"]:
        note.tags = (f"tool:{context['tool_id']}",)
    return note


def _digest(value: Any) -> str:
    """As `ToolStarted.arguments`: over the JSON with sorted keys."""
    return show_digest(digest(msgspec.json.encode(value, order="deterministic")))


def _measure(output: ToolOutput) -> tuple[int, str]:
    """Bytes and digest of what a tool gave back."""
    stored = output.encode() if isinstance(output, str) else msgspec.json.encode(output)
    return len(stored), show_digest(digest(stored))


TOOL_NOTES: dict[type[Event], Write] = {
    ToolRequested: _requested,
    ToolAuthorised: _authorised,
    ToolDenied: _denied,
    ToolStarted: _started,
    ToolDoubted: _doubted,
    ToolUnproved: _doubted,
    ToolSettled: _settled,
    ToolChecked: _checked,
    ToolRelaunched: _checked,
}
