"""What the audit says of a model's calls: who was asked and why, what came of it, and what it cost."""

from __future__ import annotations

from typing import Any

from ...events.agent import ModelAnswered, ModelCalled, ModelFailed, ModelSelected
from ...events.content import Cost, Usage
from ...events.cooldown import CooldownEnded, CooldownOpened
from ...events.message import Event, Recorded
from ...events.policy import ModelDenied, ModelWarned
from .note import Note, Status, error_of
from .session import Session, Write


def _selected(session: Session, event: ModelSelected, recorded: Recorded) -> Note:
    session.chosen, session.told = (event.model, event.reason), not event.noted
    context = {
        "model": event.model.partition(":")[2],
        "provider": event.provider,
        "reason": event.reason,
        "because": event.because,
        "key": event.key,
        "call": event.call,
    }
    note = session.note(event, "model", event.model, "success", context)
    if not event.noted:  # else the record of the call, which came before, is that of its selection
        note.type = "model.selected"
    note.tags = f"provider:{event.provider}", event.reason
    return note


def _called(session: Session, event: ModelCalled, recorded: Recorded) -> Note:
    session.provider, _, name = event.model.partition(":")
    told, session.told = session.told, False
    again = event.attempt > 1 and not told
    context = {
        "model": name,
        "provider": session.provider,
        "reason": session.chosen[1] if told else "retry" if again else _reason(session, event.model),
        "attempt": event.attempt,
        "call": event.call,
    }
    note = session.note(event, "model_call", event.call, "pending", context)
    if not told:  # else its selection is a record of its own
        note.type = "model.selected"
    note.tags = (f"provider:{session.provider}", "retry") if again else (f"provider:{session.provider}",)
    return note


def _reason(session: Session, model: str) -> str:
    """Why this model is asked, where the session did not say so just before."""
    chosen, reason = session.chosen
    if chosen != model or reason == "probe":
        return "primary" if model == session.model or chosen != model else "fallback"
    return reason


def _answered(session: Session, event: ModelAnswered, recorded: Recorded) -> Note:
    context = _bill(session, event.usage, event.cost)
    context["model"], context["stop_reason"] = event.model, event.stop_reason
    note = session.note(event, "model_call", event.call, "success", context)
    note.type, note.duration, note.tags = "cost.tracked", event.duration_ms, (f"provider:{session.provider}",)
    return note


def _failed(session: Session, event: ModelFailed, recorded: Recorded) -> Note:
    status: Status = "failure" if event.retry_in_ms is None else "pending"
    context: dict[str, Any] = {} if event.usage is None else _bill(session, event.usage, event.cost)
    context["attempt"], context["retry_in_ms"] = event.attempt, event.retry_in_ms
    note = session.note(event, "model_call", event.call, status, context)
    if event.usage is not None:
        note.type = "cost.tracked"
    note.duration, note.error, note.tags = event.duration_ms, error_of(event.failure), (f"provider:{session.provider}",)
    return note


def _bill(session: Session, usage: Usage | None, cost: Cost | None) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "provider": session.provider,
        "tokens": usage
        and {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cache_read": usage.cache_read_tokens,
            "cache_write": usage.cache_write_tokens,
            "reasoning": usage.reasoning_tokens,
        },
        "cost": cost and cost.amount,
        "price_table": cost and cost.table,
    }


def _ruled(session: Session, event: ModelDenied | ModelWarned, recorded: Recorded) -> Note:
    context = {
        "model": event.model,
        "decision": "denied" if isinstance(event, ModelDenied) else "warn",
        "approver": f"{event.policy}/{event.rule}",
        "reason": event.reason,
        "policy_version": event.version,
    }
    status: Status = "failure" if isinstance(event, ModelDenied) else "success"
    return session.note(event, "model_call", event.call, status, context)


OfCooldown = CooldownOpened | CooldownEnded


def of_cooldown(event: OfCooldown) -> Note:
    """On a model that is left alone for a while, or is not any more; of no session."""
    provider, _, name = event.model.partition(":")
    context: dict[str, Any] = {"model": name, "provider": provider, "key": event.key, "whole_key": event.whole}
    if isinstance(event, CooldownOpened):
        context |= {"because": event.code, "until": event.until // 1000, "count": event.count}
    tags = (f"provider:{provider}",)
    return Note(type=event.type, resource_type="model", resource_id=event.model, context=context, tags=tags)


MODEL_NOTES: dict[type[Event], Write] = {
    ModelSelected: _selected,
    ModelCalled: _called,
    ModelAnswered: _answered,
    ModelFailed: _failed,
    ModelDenied: _ruled,
    ModelWarned: _ruled,
}
