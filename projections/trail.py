"""What an event of the log means to an audit: what was done to what, and how it stands. A pure fold over a log.

The ten events of an agent audit have their own names (`tool.invoked`, `model.selected`, `cost.tracked`, ...), every
other event keeps the name it is stored under. What tools were given is shown redacted, what they gave back never: its
size and digest stand for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ..events.action import (
    ActionCancelled,
    ActionExpired,
    ActionRequired,
    ActionResolved,
    ActionTokenIssued,
    GrantRevoked,
    GrantUsed,
)
from ..events.agent import (
    AgentConfigured,
    AgentRegistered,
    AgentUnregistered,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    ToolAuthorised,
    ToolChecked,
    ToolDoubted,
    ToolOutput,
    ToolRelaunched,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
    TurnCompleted,
    TurnStarted,
)
from ..events.budget import Amount, Breach, dollars
from ..events.container import ContainerCreated, ImageAdded, ImageRemoved, PolicySet, ToolRegistered
from ..events.content import Cost, Failure, Usage
from ..events.image import ImageCreated, ImageDeleted, ImageUpdated, SessionAttached
from ..events.ledger import AllotmentDenied, AllotmentReturned, Allotted, BudgetRemoved, BudgetSet, UsageRecorded
from ..events.message import Erased, Event, Recorded, Unknown, digest, show_digest
from ..events.policy import ModelDenied, ModelWarned, ToolDenied
from ..events.purse import (
    AllotmentReleased,
    AllotmentTaken,
    AllotmentWanted,
    BudgetDegraded,
    BudgetExceeded,
    BudgetReserved,
    BudgetWarned,
)
from ..events.session import (
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
from .redaction import redacted
from .scribe import Scribe

Status = Literal["success", "failure", "pending"]


class AuditError(Struct, frozen=True, kw_only=True, rename="camel"):
    """What went wrong. code: a stable word, see `events.errors`."""

    code: str
    message: str
    details: dict[str, Any] | None = None


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


class Trail:
    """The whole log's. `apply` takes every event, in order, each once, and never raises."""

    __slots__ = ("_sessions", "_workspaces")

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._workspaces: dict[str, str | None] = {}  # of images

    def apply(self, recorded: Recorded) -> Note:
        event, head = recorded.data, recorded.head
        kind = type(event)
        write = _WRITE.get(kind)
        if write is None:
            return self._beside(recorded)
        session = self._sessions.get(recorded.stream)
        if session is None:
            session = self._sessions[recorded.stream] = _Session(recorded)
        if kind in _BEGINS:
            session.job = event.job_id  # type: ignore[attr-defined]
        if session.scribe.apply(recorded) is not None:
            session.messages += 1
        note = write(session, event, recorded)
        session.last = head.at // 1000
        if kind is SessionCreated:
            note.context["workspace"] = self._workspaces.get(note.context["agent_id"])
        note.name = kind.type
        note.job_id = event.job_id if kind in _OF_JOB else session.job or head.job  # type: ignore[attr-defined]
        note.tags = (kind.category, *note.tags)
        return note

    def _beside(self, recorded: Recorded) -> Note:
        """Of containers and images, and what cannot be read."""
        stream, event = recorded.stream, recorded.data
        kind, _, id = stream.partition("-")
        session = self._sessions.get(stream)
        if session is not None and session.scribe.apply(recorded) is not None:
            session.messages += 1
        if isinstance(event, ImageCreated | ImageUpdated):
            self._workspaces[id] = event.config.workspace
        note = _around(event, kind, id)
        note.name = event.name if isinstance(event, Erased | Unknown) else event.type
        note.job_id = (session.job if session is not None else None) or recorded.head.job
        note.tags = (event.category, *note.tags)
        return note

    def forget(self, stream: str) -> None:
        """Let go of what is remembered of a stream: to go on, its events must be applied again from the first."""
        self._sessions.pop(stream, None)


class _Session:
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
        self.id = first.session_id or first.stream.removeprefix("session-")
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

    # -- the session and its jobs --

    def on_created(self, event: SessionCreated, recorded: Recorded) -> Note:
        context = {
            "session_id": self.id,
            "agent_id": event.image_id,
            "user": recorded.context.principal,
            "timestamp": event.created_at,
        }
        return Note(type="session.created", resource_type="session", resource_id=self.id, context=context)

    def on_closed(self, event: SessionClosed, recorded: Recorded) -> Note:
        context = {"session_id": self.id, "reason": event.reason, "deleted_by": recorded.context.principal}
        return Note(type="session.deleted", resource_type="session", resource_id=self.id, context=context)

    def on_queued(self, event: JobQueued, recorded: Recorded) -> Note:
        context = {"priority": event.priority, "timeout_ms": event.timeout_ms, "parts": len(event.content)}
        return _job(event, "pending", context)

    def on_started(self, event: JobStarted, recorded: Recorded) -> Note:
        return _job(event, "pending", {})

    def on_waiting(self, event: JobWaiting, recorded: Recorded) -> Note:
        return _job(event, "pending", {"tool": event.tool, "reason": event.reason, "action": event.action})

    def on_resumed(self, event: JobResumed, recorded: Recorded) -> Note:
        return _job(event, "pending", {})

    def on_stopping(self, event: JobStopping, recorded: Recorded) -> Note:
        return _job(event, "pending", {"reason": event.reason})

    def on_succeeded(self, event: JobSucceeded, recorded: Recorded) -> Note:
        return _job(event, "success", {})

    def on_job_failed(self, event: JobFailed, recorded: Recorded) -> Note:
        return _job(event, "failure", {}, _error(event.failure))

    def on_cancelled(self, event: JobCancelled, recorded: Recorded) -> Note:
        error = AuditError(code="cancelled", message=event.reason)
        return _job(event, "failure", {"reason": event.reason}, error)

    def on_timed_out(self, event: JobTimedOut, recorded: Recorded) -> Note:
        return _job(event, "failure", {}, AuditError(code="timeout", message="The job's time was up."))

    # -- the agent and its turns --

    def on_registered(self, event: AgentRegistered, recorded: Recorded) -> Note:
        if not self.messages:
            context = {"agent_id": event.agent_id, "image_id": event.image_id, "container_id": event.container_id}
            return Note(type=event.type, resource_type="agent", resource_id=event.agent_id, context=context)
        restored: dict[str, Any] = {
            "session_id": self.id,
            "agent_id": event.agent_id,
            "message_count": self.messages,
            "age": recorded.timestamp - self.began,
            "restored_from_timestamp": self.last,
        }
        return Note(type="session.restored", resource_type="session", resource_id=self.id, context=restored)

    def on_configured(self, event: AgentConfigured, recorded: Recorded) -> Note:
        wants = event.definition
        self.model = wants.model
        context: dict[str, Any] = {
            "model": wants.model,
            "fallbacks": list(wants.fallbacks),
            "image_version": wants.image_version,
            "max_steps": wants.max_steps,
            "tools": wants.tools,
        }
        return Note(type=event.type, resource_type="agent", resource_id=recorded.context.agent_id, context=context)

    def on_unregistered(self, event: AgentUnregistered, recorded: Recorded) -> Note:
        context = {"agent_id": event.agent_id, "reason": event.reason}
        return Note(type=event.type, resource_type="agent", resource_id=event.agent_id, context=context)

    def on_turn(self, event: TurnStarted, recorded: Recorded) -> Note:
        self.turn_began = recorded.timestamp
        self.tools.clear()
        return self._note(event, "turn", f"turn-{event.turn}", "pending", {"turn": event.turn})

    def on_completed(self, event: TurnCompleted, recorded: Recorded) -> Note:
        context = {
            "turn": event.turn,
            "reason": event.reason,
            "stop_reason": event.stop_reason,
            "steps": event.steps,
        }
        status: Status = "success" if event.reason == "completed" else "failure"
        note = self._note(event, "turn", f"turn-{event.turn}", status, context)
        note.duration = max(0, recorded.timestamp - self.turn_began)
        if event.failure is not None:
            note.error = _error(event.failure)
        elif status == "failure":
            note.error = AuditError(code=event.reason, message=f"The turn ended as {event.reason}.")
        return note

    # -- models --

    def on_selected(self, event: ModelSelected, recorded: Recorded) -> Note:
        self.chosen, self.told = (event.model, event.reason), True
        context = {
            "model": event.model.partition(":")[2],
            "provider": event.provider,
            "reason": event.reason,
            "because": event.because,
            "key": event.key,
            "call": event.call,
        }
        note = self._note(event, "model", event.model, "success", context)
        note.type, note.tags = "model.selected", (f"provider:{event.provider}", event.reason)
        return note

    def _reason(self, model: str) -> str:
        """Why this model is asked, where the session did not say so just before."""
        chosen, reason = self.chosen
        if chosen != model or reason == "probe":
            return "primary" if model == self.model or chosen != model else "fallback"
        return reason

    def on_called(self, event: ModelCalled, recorded: Recorded) -> Note:
        self.provider, _, name = event.model.partition(":")
        told, self.told = self.told, False
        again = event.attempt > 1 and not told
        context = {
            "model": name,
            "provider": self.provider,
            "reason": self.chosen[1] if told else "retry" if again else self._reason(event.model),
            "attempt": event.attempt,
            "call": event.call,
        }
        note = self._note(event, "model_call", event.call, "pending", context)
        if not told:  # else its selection is a record of its own
            note.type = "model.selected"
        note.tags = (f"provider:{self.provider}", "retry") if again else (f"provider:{self.provider}",)
        return note

    def on_answered(self, event: ModelAnswered, recorded: Recorded) -> Note:
        context = self._bill(event.usage, event.cost)
        context["model"], context["stop_reason"] = event.model, event.stop_reason
        note = self._note(event, "model_call", event.call, "success", context)
        note.type, note.duration, note.tags = "cost.tracked", event.duration_ms, (f"provider:{self.provider}",)
        return note

    def on_failed(self, event: ModelFailed, recorded: Recorded) -> Note:
        status: Status = "failure" if event.retry_in_ms is None else "pending"
        context: dict[str, Any] = {} if event.usage is None else self._bill(event.usage, event.cost)
        context["attempt"], context["retry_in_ms"] = event.attempt, event.retry_in_ms
        note = self._note(event, "model_call", event.call, status, context)
        if event.usage is not None:
            note.type = "cost.tracked"
        note.duration, note.error, note.tags = event.duration_ms, _error(event.failure), (f"provider:{self.provider}",)
        return note

    def _bill(self, usage: Usage | None, cost: Cost | None) -> dict[str, Any]:
        return {
            "session_id": self.id,
            "provider": self.provider,
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

    # -- tools --

    def on_requested(self, event: ToolRequested, recorded: Recorded) -> Note:
        self.tools[event.tool] = event.name
        asked = self.scribe.open[event.tool].call
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
        note = self._note(event, "tool_call", event.tool, "pending", context)
        note.type, note.tags = "tool.invoked", (f"tool:{event.name}", event.effect)
        return note

    def on_authorised(self, event: ToolAuthorised, recorded: Recorded) -> Note:
        action, approver = self.answered.pop(event.rule or "", (event.tool, event.rule or "policy"))
        context = {
            "approval_id": f"{self.id}:{action}",
            "tool_id": self.tools.get(event.tool),
            "decision": _DECISIONS.get(event.decision, event.decision),
            "approver": approver,
        }
        status: Status = "success" if event.decision in ("allow", "warn") else "failure"
        note = self._tool(event, status, context)
        note.type, note.resource_type = "tool.approved", "approval"
        return note

    def on_denied(self, event: ToolDenied, recorded: Recorded) -> Note:
        context = {
            "approval_id": f"{self.id}:{event.tool}",
            "tool_id": self.tools.get(event.tool),
            "decision": "denied",
            "approver": f"{event.policy}/{event.rule}",
            "reason": event.reason,
            "policy_version": event.version,
        }
        note = self._tool(event, "failure", context)
        note.type, note.resource_type = "tool.approved", "approval"
        return note

    def on_model_ruled(self, event: ModelDenied | ModelWarned, recorded: Recorded) -> Note:
        context = {
            "model": event.model,
            "decision": "denied" if isinstance(event, ModelDenied) else "warn",
            "approver": f"{event.policy}/{event.rule}",
            "reason": event.reason,
            "policy_version": event.version,
        }
        status: Status = "failure" if isinstance(event, ModelDenied) else "success"
        return self._note(event, "model_call", event.call, status, context)

    # -- questions to people --

    def on_required(self, event: ActionRequired, recorded: Recorded) -> Note:
        self.asked[event.action] = event.kind, recorded.timestamp
        context: dict[str, Any] = {
            "approval_id": f"{self.id}:{event.action}",
            "type": event.kind,
            "tool_id": self.tools.get(event.tool or ""),
            "reason": event.reason,
            "payload": redacted(event.payload),
            "digest": event.digest,
            "expires_at": recorded.timestamp + event.timeout_ms,
        }
        return self._asked(event, "approval.requested", "pending", context)

    def on_resolved(self, event: ActionResolved, recorded: Recorded) -> Note:
        approved = event.resolution.get("approved")
        decision = "approved" if approved is True else "denied" if approved is False else "answered"
        context: dict[str, Any] = {
            "approval_id": f"{self.id}:{event.action}",
            "decision": decision,
            "approver": event.by,
            "resolution": redacted(event.resolution),
            "digest": event.digest,
        }
        status: Status = "failure" if approved is False else "success"
        self.answered[f"approval {event.action}"] = event.action, event.by
        note = self._asked(event, "approval.denied" if approved is False else "approval.granted", status, context)
        return self._since(note, event.action, recorded)

    def on_expired(self, event: ActionExpired, recorded: Recorded) -> Note:
        context = {"approval_id": f"{self.id}:{event.action}", "decision": "timeout", "approver": event.by or None}
        note = self._asked(event, "approval.expired", "failure", context)
        note.error = AuditError(code="action_expired", message="Nobody answered in time.")
        return self._since(note, event.action, recorded)

    def on_taken_back(self, event: ActionCancelled, recorded: Recorded) -> Note:
        context = {
            "approval_id": f"{self.id}:{event.action}",
            "decision": "cancelled",
            "approver": event.by or None,
            "reason": event.reason,
        }
        note = self._asked(event, "approval.cancelled", "failure", context)
        note.error = AuditError(code="cancelled", message=event.reason)
        return self._since(note, event.action, recorded)

    def on_token(self, event: ActionTokenIssued, recorded: Recorded) -> Note:
        return self._asked(event, event.type, "pending", {"approval_id": f"{self.id}:{event.action}"})

    def on_grant_used(self, event: GrantUsed, recorded: Recorded) -> Note:
        context = {"approval_id": f"{self.id}:{event.grant}", "tool_id": self.tools.get(event.tool)}
        return self._note(event, "tool_call", event.tool, "pending", context)

    def on_revoked(self, event: GrantRevoked, recorded: Recorded) -> Note:
        context = {"approval_id": f"{self.id}:{event.grant}", "revokedBy": event.by}
        return self._note(event, "grant", event.grant, "success", context)

    def _asked(self, event: Any, type: str, status: Status, context: dict[str, Any]) -> Note:
        """Only a question whether something may be done is called an approval."""
        note = self._note(event, "approval", event.action, status, context)
        kind, _ = self.asked.get(event.action, ("", 0))
        if kind in _APPROVALS:
            note.type = type
        return note

    def _since(self, note: Note, action: str, recorded: Recorded) -> Note:
        _, asked_at = self.asked.pop(action, ("", recorded.timestamp))
        note.duration = max(0, recorded.timestamp - asked_at)
        return note

    def on_checked(self, event: ToolChecked | ToolRelaunched, recorded: Recorded) -> Note:
        return self._tool(event, "pending", {"tool_id": self.tools.get(event.tool), "attempt": event.attempt})

    def on_run(self, event: ToolStarted, recorded: Recorded) -> Note:
        context = {"tool_id": self.tools.get(event.tool), "attempt": event.attempt, "paramsHash": event.arguments}
        return self._tool(event, "pending", context)

    def on_doubted(self, event: ToolDoubted | ToolUnproved, recorded: Recorded) -> Note:
        return self._tool(event, "pending", {"tool_id": self.tools.get(event.tool)})

    def on_settled(self, event: ToolSettled, recorded: Recorded) -> Note:
        size, hashed = _measure(event.output)
        context = {
            "tool_id": self.tools.get(event.tool),
            "status": event.outcome,
            "duration": event.duration_ms,
            "result_size": size,
            "outputHash": hashed,
            "dropped_bytes": event.dropped_bytes,
            "proof": event.proof,
        }
        note = self._tool(event, "success" if event.outcome == "ok" else "failure", context)
        note.type, note.duration = "tool.executed", event.duration_ms
        if event.outcome != "ok":
            note.error = AuditError(
                code=event.error_type or event.outcome, message=f"The call ended as {event.outcome}."
            )
        return note

    def _tool(self, event: Any, status: Status, context: dict[str, Any]) -> Note:
        note = self._note(event, "tool_call", event.tool, status, context)
        if context["tool_id"]:
            note.tags = (f"tool:{context['tool_id']}",)
        return note

    # -- money --

    def on_reserved(self, event: BudgetReserved, recorded: Recorded) -> Note:
        context = {
            "call": event.call,
            "tokens": event.tokens,
            "cost": dollars(event.cost),
            "max_tokens": event.max_tokens,
        }
        return self._note(event, "model_call", event.call, "pending", context)

    def on_degraded(self, event: BudgetDegraded, recorded: Recorded) -> Note:
        context = {"call": event.call, "model": event.model, "degraded_to": event.degraded_to}
        return self._note(event, "model_call", event.call, "pending", context)

    def on_warned(self, event: BudgetWarned, recorded: Recorded) -> Note:
        context = {"limits": list(event.limits)}
        return Note(type=event.type, resource_type="purse", resource_id=self.id, context=context)

    def on_exceeded(self, event: BudgetExceeded, recorded: Recorded) -> Note:
        """What the ledger refused is the end of what was asked; else a call is refused that was not begun."""
        context = {**_breach(event.breach), "call": event.call, "tools": list(event.tools), "ask": event.ask}
        if event.ask is not None:
            note = self._note(event, "allotment", event.ask, "failure", context)
        else:
            note = Note(type=event.type, status="failure", resource_type="purse", resource_id=self.id, context=context)
        note.error = AuditError(code=event.breach.code, message=event.breach.text)
        return note

    def on_wanted(self, event: AllotmentWanted, recorded: Recorded) -> Note:
        context = {
            "ledger": event.ledger,
            "spent": _amount(event.spent),
            "want": _amount(event.want),
            "least": _amount(event.least),
            "call": event.call,
            "tools": list(event.tools),
        }
        return self._note(event, "allotment", event.ask, "pending", context)

    def on_taken(self, event: AllotmentTaken, recorded: Recorded) -> Note:
        return self._note(event, "allotment", event.ask, "success", {"amount": _amount(event.grant.amount)})

    def on_released(self, event: AllotmentReleased, recorded: Recorded) -> Note:
        context = {"ask": event.ask, "spent": _amount(event.spent), "kept": _amount(event.kept)}
        return Note(type=event.type, resource_type="purse", resource_id=self.id, context=context)

    def _note(self, event: Event, kind: str, id: str, status: Status, context: dict[str, Any]) -> Note:
        return Note(type=event.type, status=status, resource_type=kind, resource_id=f"{self.id}:{id}", context=context)


_APPROVALS = ("approval", "confirm", "apply_changes")

_DECISIONS = {"allow": "approved", "deny": "denied"}

_WRITE: dict[type[Event], Callable[[_Session, Any, Recorded], Note]] = {
    SessionCreated: _Session.on_created,
    SessionClosed: _Session.on_closed,
    JobQueued: _Session.on_queued,
    JobStarted: _Session.on_started,
    JobWaiting: _Session.on_waiting,
    JobResumed: _Session.on_resumed,
    JobStopping: _Session.on_stopping,
    JobSucceeded: _Session.on_succeeded,
    JobFailed: _Session.on_job_failed,
    JobCancelled: _Session.on_cancelled,
    JobTimedOut: _Session.on_timed_out,
    AgentRegistered: _Session.on_registered,
    AgentConfigured: _Session.on_configured,
    AgentUnregistered: _Session.on_unregistered,
    TurnStarted: _Session.on_turn,
    TurnCompleted: _Session.on_completed,
    ModelSelected: _Session.on_selected,
    ModelCalled: _Session.on_called,
    ModelAnswered: _Session.on_answered,
    ModelFailed: _Session.on_failed,
    ToolRequested: _Session.on_requested,
    ToolAuthorised: _Session.on_authorised,
    ToolDenied: _Session.on_denied,
    ModelDenied: _Session.on_model_ruled,
    ModelWarned: _Session.on_model_ruled,
    ToolStarted: _Session.on_run,
    ToolDoubted: _Session.on_doubted,
    ToolUnproved: _Session.on_doubted,
    ToolSettled: _Session.on_settled,
    ToolChecked: _Session.on_checked,
    ToolRelaunched: _Session.on_checked,
    ActionRequired: _Session.on_required,
    ActionResolved: _Session.on_resolved,
    ActionExpired: _Session.on_expired,
    ActionCancelled: _Session.on_taken_back,
    ActionTokenIssued: _Session.on_token,
    GrantUsed: _Session.on_grant_used,
    GrantRevoked: _Session.on_revoked,
    BudgetReserved: _Session.on_reserved,
    BudgetDegraded: _Session.on_degraded,
    BudgetWarned: _Session.on_warned,
    BudgetExceeded: _Session.on_exceeded,
    AllotmentWanted: _Session.on_wanted,
    AllotmentTaken: _Session.on_taken,
    AllotmentReleased: _Session.on_released,
}


_OF_JOB = frozenset(kind for kind in _WRITE if "job_id" in kind.__struct_fields__ and kind is not ActionRequired)
_BEGINS = frozenset((JobStarted, TurnStarted))


def _around(event: Event, kind: str, id: str) -> Note:
    """Each is an operation of its own."""
    match event:
        case ToolRegistered(tool=tool):
            context: dict[str, Any] = {
                "tool_id": tool.name,
                "params_schema": tool.parameters,
                "source": tool.source,
                "effect": tool.effect,
                "approval": tool.approval,
                "version": tool.version,
            }
            return Note(
                type="tool.registered",
                resource_type="tool",
                resource_id=tool.name,
                context=context,
                tags=(f"tool:{tool.name}", tool.effect),
            )
        case ImageAdded() | ImageRemoved():
            context = {"image_id": event.image_id}
        case ImageCreated(config=config):
            context = {"name": config.name, "model": config.model, "session_id": event.session_id}
        case ImageUpdated(config=config):
            context = {"name": config.name, "model": config.model, "version": event.version}
        case SessionAttached():
            context = {"session_id": event.session_id}
        case PolicySet(policy=policy):
            context = {"policy": policy and policy.name, "version": event.version}
        case ContainerCreated() | ImageDeleted():
            context = {}
        case BudgetSet() | BudgetRemoved() | Allotted() | AllotmentDenied() | AllotmentReturned() | UsageRecorded():
            return _of_ledger(event, id)
        case _:
            return _lost(event, kind, id)
    return Note(type=event.type, resource_type=kind, resource_id=id, context=context)


def _of_ledger(
    event: BudgetSet | BudgetRemoved | Allotted | AllotmentDenied | AllotmentReturned | UsageRecorded, scope: str
) -> Note:
    """What was done to the ledger of a scope. How a session fared with what it asked for is told by the session."""
    note = Note(type=event.type, resource_type="ledger", resource_id=scope, context={})
    match event:
        case BudgetSet(budget=budget):
            note.resource_type = "budget"
            note.resource_id = _whose(scope, budget.principal_id, budget.session_id)
            set_to = msgspec.structs.asdict(budget)
            note.context = {name: value for name, value in set_to.items() if value is not None}
        case BudgetRemoved():
            note.resource_type, note.resource_id = "budget", _whose(scope, event.principal_id, event.session_id)
            note.context = {"principal_id": event.principal_id, "session_id": event.session_id}
        case UsageRecorded():
            fields = msgspec.structs.asdict(event)
            note.context = {name: value for name, value in fields.items() if name not in ("at", "metadata")}
        case _:
            note.context = {"session_id": event.session_id, "ask": event.ask, "spent": _amount(event.spent)}
    match event:
        case Allotted():
            note.context |= {"principal_id": event.principal_id, "amount": _amount(event.grant.amount)}
        case AllotmentDenied(breach=breach):
            note.context |= {"principal_id": event.principal_id, "want": _amount(event.want), **_breach(breach)}
            note.status, note.error = "failure", AuditError(code=breach.code, message=breach.text)
        case AllotmentReturned():
            note.context["kept"] = _amount(event.kept)
    return note


def _whose(scope: str, principal: str | None, session: str | None) -> str:
    name = session if session is not None else principal
    return scope if name is None else f"{scope}/{name}"


def _amount(amount: Amount) -> dict[str, Any]:
    """cost: US dollars."""
    return {
        "tokens": amount.tokens,
        "cost": dollars(amount.cost),
        "requests": amount.requests,
        "tool_calls": amount.tools,
    }


def _breach(breach: Breach) -> dict[str, Any]:
    """used, wanted, most: in the limit's unit; money in US dollars."""
    show: Callable[[int], Any] = dollars if "cost" in breach.limit else int
    return {
        "limit": breach.limit,
        "of": breach.of,
        "used": show(breach.used),
        "wanted": show(breach.wanted),
        "most": show(breach.most),
    }


def _lost(event: Event, kind: str, id: str) -> Note:
    """An event that was erased, or written by a newer release: that it happened is known."""
    match event:
        case Erased(name=name, key=key):
            return Note(type=name, resource_type=kind, resource_id=id, context={"key": key}, tags=("erased",))
        case Unknown(name=name, version=version):
            return Note(type=name, resource_type=kind, resource_id=id, context={"schema": version}, tags=("unknown",))
    return Note(type=event.type, resource_type=kind, resource_id=id, context={})


def _job(event: Any, status: Status, context: dict[str, Any], error: AuditError | None = None) -> Note:
    return Note(
        type=event.type, status=status, resource_type="job", resource_id=event.job_id, context=context, error=error
    )


def _error(failure: Failure) -> AuditError:
    details = None if failure.status is None else {"status": failure.status}
    return AuditError(code=failure.code, message=failure.message, details=details)


def _digest(value: Any) -> str:
    """As `ToolStarted.arguments`: over the JSON with sorted keys."""
    return show_digest(digest(msgspec.json.encode(value, order="deterministic")))


def _measure(output: ToolOutput) -> tuple[int, str]:
    """Bytes and digest of what a tool gave back."""
    stored = output.encode() if isinstance(output, str) else msgspec.json.encode(output)
    return len(stored), show_digest(digest(stored))
