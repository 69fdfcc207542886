"""What the audit says of an agent: how it wakes, sleeps, and takes its turns."""

from __future__ import annotations

from typing import Any

from ...events.agent import AgentConfigured, AgentRegistered, AgentUnregistered, TurnCompleted, TurnStarted
from ...events.message import Event, Recorded
from .note import AuditError, Note, Status, error_of
from .session import Session, Write


def _registered(session: Session, event: AgentRegistered, recorded: Recorded) -> Note:
    if not session.messages:
        context = {"agent_id": event.agent_id, "image_id": event.image_id, "container_id": event.container_id}
        return Note(type=event.type, resource_type="agent", resource_id=event.agent_id, context=context)
    restored: dict[str, Any] = {
        "session_id": session.id,
        "agent_id": event.agent_id,
        "message_count": session.messages,
        "age": recorded.timestamp - session.began,
        "restored_from_timestamp": session.last,
    }
    return Note(type="session.restored", resource_type="session", resource_id=session.id, context=restored)


def _configured(session: Session, event: AgentConfigured, recorded: Recorded) -> Note:
    wants = event.definition
    session.model = wants.model
    context: dict[str, Any] = {
        "model": wants.model,
        "fallbacks": list(wants.fallbacks),
        "image_version": wants.image_version,
        "max_steps": wants.max_steps,
        "tools": wants.tools,
    }
    return Note(type=event.type, resource_type="agent", resource_id=recorded.context.agent_id, context=context)


def _unregistered(session: Session, event: AgentUnregistered, recorded: Recorded) -> Note:
    context = {"agent_id": event.agent_id, "reason": event.reason}
    return Note(type=event.type, resource_type="agent", resource_id=event.agent_id, context=context)


def _turn_started(session: Session, event: TurnStarted, recorded: Recorded) -> Note:
    session.turn_began = recorded.timestamp
    session.tools.clear()
    session.answered.clear()
    return session.note(event, "turn", f"turn-{event.turn}", "pending", {"turn": event.turn})


def _turn_completed(session: Session, event: TurnCompleted, recorded: Recorded) -> Note:
    context = {
        "turn": event.turn,
        "reason": event.reason,
        "stop_reason": event.stop_reason,
        "steps": event.steps,
    }
    status: Status = "success" if event.reason == "completed" else "failure"
    note = session.note(event, "turn", f"turn-{event.turn}", status, context)
    note.duration = max(0, recorded.timestamp - session.turn_began)
    if event.failure is not None:
        note.error = error_of(event.failure)
    elif status == "failure":
        note.error = AuditError(code=event.reason, message=f"The turn ended as {event.reason}.")
    return note


AGENT_NOTES: dict[type[Event], Write] = {
    AgentRegistered: _registered,
    AgentConfigured: _configured,
    AgentUnregistered: _unregistered,
    TurnStarted: _turn_started,
    TurnCompleted: _turn_completed,
}
