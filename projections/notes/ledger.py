"""What the audit says of a scope's money: its budgets, what sessions were allotted, what is used outside of them."""

from __future__ import annotations

import msgspec

from ...events.ledger import (
    AllotmentDenied,
    AllotmentReturned,
    Allotted,
    BudgetRaised,
    BudgetRemoved,
    BudgetSet,
    UsageAwaited,
    UsageCounted,
    UsageRecorded,
)
from .budget import breached, consented, shown
from .note import AuditError, Note

OfLedger = (
    BudgetSet
    | BudgetRaised
    | BudgetRemoved
    | Allotted
    | AllotmentDenied
    | AllotmentReturned
    | UsageRecorded
    | UsageCounted
    | UsageAwaited
)


def of_ledger(event: OfLedger, scope: str) -> Note:
    """What was done to the ledger of a scope. How a session fared with what it asked for is told by the session."""
    note = Note(type=event.type, resource_type="ledger", resource_id=scope, context={})
    match event:
        case BudgetSet(budget=budget):
            note.resource_type = "budget"
            note.resource_id = _whose(scope, budget.principal_id, budget.session_id)
            set_to = msgspec.structs.asdict(budget)
            note.context = {name: value for name, value in set_to.items() if value is not None}
        case BudgetRaised(consent=consent):
            principal = event.asked_for if consent.of == "principal" else None
            session = event.session_id if consent.of == "session" else None
            note.resource_type, note.resource_id = "budget", _whose(scope, principal, session)
            note.context = {**consented(consent), "asked_in": event.session_id}
        case BudgetRemoved():
            note.resource_type, note.resource_id = "budget", _whose(scope, event.principal_id, event.session_id)
            note.context = {"principal_id": event.principal_id, "session_id": event.session_id}
        case UsageRecorded():
            fields = msgspec.structs.asdict(event)
            note.context = {name: value for name, value in fields.items() if name not in ("at", "metadata")}
        case UsageCounted():
            note.context = {
                "count": event.count,
                "upto": event.upto,
                "sessions": len(event.entries),
                "done": event.done,
            }
        case UsageAwaited():
            note.context = {"session_id": event.session_id}
        case _:
            note.context = {"session_id": event.session_id, "ask": event.ask, "spent": shown(event.spent)}
    match event:
        case Allotted():
            note.context |= {"principal_id": event.principal_id, "amount": shown(event.grant.amount)}
        case AllotmentDenied(breach=breach):
            note.context |= {"principal_id": event.principal_id, "want": shown(event.want), **breached(breach)}
            note.status, note.error = "failure", AuditError(code=breach.code, message=breach.text)
        case AllotmentReturned():
            note.context["kept"] = shown(event.kept)
    return note


def _whose(scope: str, principal: str | None, session: str | None) -> str:
    name = session if session is not None else principal
    return scope if name is None else f"{scope}/{name}"
