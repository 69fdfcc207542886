"""What the audit says of a session's money: what it set aside, asked for, and was refused."""

from __future__ import annotations

from ...events.budget import dollars
from ...events.message import Event, Recorded
from ...events.purse import (
    AllotmentReleased,
    AllotmentTaken,
    AllotmentWanted,
    BudgetDegraded,
    BudgetExceeded,
    BudgetReserved,
    BudgetWarned,
    RunRaised,
)
from .budget import breached, consented, shown
from .note import AuditError, Note
from .session import Session, Write


def _reserved(session: Session, event: BudgetReserved, recorded: Recorded) -> Note:
    context = {
        "call": event.call,
        "tokens": event.tokens,
        "cost": dollars(event.cost),
        "max_tokens": event.max_tokens,
    }
    return session.note(event, "model_call", event.call, "pending", context)


def _degraded(session: Session, event: BudgetDegraded, recorded: Recorded) -> Note:
    context = {"call": event.call, "model": event.model, "degraded_to": event.degraded_to}
    return session.note(event, "model_call", event.call, "pending", context)


def _warned(session: Session, event: BudgetWarned, recorded: Recorded) -> Note:
    context = {"limits": list(event.limits)}
    return Note(type=event.type, resource_type="purse", resource_id=session.id, context=context)


def _exceeded(session: Session, event: BudgetExceeded, recorded: Recorded) -> Note:
    """What the ledger refused is the end of what was asked; else a call is refused that was not begun."""
    context = {**breached(event.breach), "call": event.call, "tools": list(event.tools), "ask": event.ask}
    if event.ask is not None:
        note = session.note(event, "allotment", event.ask, "failure", context)
    else:
        note = Note(type=event.type, status="failure", resource_type="purse", resource_id=session.id, context=context)
    note.error = AuditError(code=event.breach.code, message=event.breach.text)
    return note


def _wanted(session: Session, event: AllotmentWanted, recorded: Recorded) -> Note:
    context = {
        "ledger": event.ledger,
        "spent": shown(event.spent),
        "want": shown(event.want),
        "least": shown(event.least),
        "call": event.call,
        "tools": list(event.tools),
    }
    return session.note(event, "allotment", event.ask, "pending", context)


def _taken(session: Session, event: AllotmentTaken, recorded: Recorded) -> Note:
    return session.note(event, "allotment", event.ask, "success", {"amount": shown(event.grant.amount)})


def _released(session: Session, event: AllotmentReleased, recorded: Recorded) -> Note:
    context = {"ask": event.ask, "spent": shown(event.spent), "kept": shown(event.kept)}
    return Note(type=event.type, resource_type="purse", resource_id=session.id, context=context)


def _raised(session: Session, event: RunRaised, recorded: Recorded) -> Note:
    return Note(type=event.type, resource_type="purse", resource_id=session.id, context=consented(event.consent))


PURSE_NOTES: dict[type[Event], Write] = {
    BudgetReserved: _reserved,
    BudgetDegraded: _degraded,
    BudgetWarned: _warned,
    BudgetExceeded: _exceeded,
    AllotmentWanted: _wanted,
    AllotmentTaken: _taken,
    AllotmentReleased: _released,
    RunRaised: _raised,
}
