"""The questions put to people, in every session: what each is about and how it stands. A pure fold over the log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..events.action import (
    ActionCancelled,
    ActionExpired,
    ActionRequired,
    ActionResolved,
    ActionStatus,
    ActionType,
    GrantRevoked,
    GrantUsed,
)
from ..events.agent import ModelAnswered, ToolRequested, ToolSettled, TurnCompleted
from ..events.content import ToolCall
from ..events.message import Event, Recorded
from ..events.tool import EffectClass


class AskedCall(Struct, frozen=True, kw_only=True, rename="camel"):
    """The call that an approval is about, with all that would run. cwd, env, sandbox: see `events.tool.Place`."""

    tool: str
    name: str
    version: str
    arguments: dict[str, Any]
    effect: EffectClass
    timeout_s: float
    cwd: str = ""
    env: dict[str, str] = {}
    sandbox: str = ""


class Action(Struct, frozen=True, kw_only=True, rename="camel"):
    """One question and how it stands. id: `<session>:<action>`. Times are milliseconds since 1970-01-01 UTC.

    call: of an approval, the call it is about. digest: over everything an approval is bound to; hand it back with the
    answer, and nothing else can be approved by it. resolution, by: what was answered, and by whom. ended: why it was
    taken back, or that an answer of `by` came too late. became: of a call that was allowed, what came of it.
    """

    id: str
    session_id: str
    type: ActionType
    status: ActionStatus = "pending"
    payload: dict[str, Any] = {}
    asked_at: int
    expires_at: int
    job_id: str | None = None
    tool: str | None = None
    reason: str = ""
    metadata: dict[str, Any] | None = None
    digest: str | None = None
    call: AskedCall | None = None
    resolution: dict[str, Any] | None = None
    by: str = ""
    ended_at: int | None = None
    ended: str = ""
    became: str = ""


class Leave(Struct, frozen=True, kw_only=True, rename="camel"):
    """Leave that a person gave for calls to come. id: the action in which they did. Times as in `Action`.

    kind: `exact` for this call with these arguments, `class` for every call of this version of a tool that only reads.
    used: how often a call began on it.
    """

    id: str
    session_id: str
    kind: str
    name: str
    version: str
    arguments: dict[str, Any]
    by: str
    given_at: int
    comment: str = ""
    used: int = 0
    last_used_at: int | None = None
    revoked_at: int | None = None
    revoked_by: str = ""


class Actions:
    """All of them. `apply` takes every event of the log, or of one session, in order, each once, and never raises."""

    name = "actions"
    version = 2

    __slots__ = ("_actions", "_allowed", "_answers", "_calls", "_leaves")

    def __init__(self) -> None:
        self._actions: dict[str, Action] = {}  # in the order in which they were asked
        self._answers: dict[str, tuple[str, tuple[Any, ...]]] = {}  # stream -> the last answer, and its parts
        self._calls: dict[str, dict[str, AskedCall]] = {}  # stream -> the calls of the running turn
        self._leaves: dict[str, Leave] = {}
        self._allowed: dict[str, dict[str, str]] = {}  # stream -> call -> the action in which it was allowed

    def apply(self, recorded: Recorded) -> None:
        take = _TAKE.get(type(recorded.data))
        if take is not None:
            take(self, recorded.data, recorded)

    def get(self, action_id: str) -> Action | None:
        return self._actions.get(action_id)

    def query(
        self,
        *,
        status: ActionStatus | Collection[ActionStatus] | None = None,
        session_id: str | None = None,
        job_id: str | None = None,
        type: ActionType | None = None,
    ) -> list[Action]:
        """Those that pass every filter given, oldest first."""
        statuses = None if status is None else frozenset((status,) if isinstance(status, str) else status)
        return [
            action
            for action in self
            if (statuses is None or action.status in statuses)
            and (session_id is None or action.session_id == session_id)
            and (job_id is None or action.job_id == job_id)
            and (type is None or action.type == type)
        ]

    def leaves(self, *, revoked: bool = False) -> list[Leave]:
        """What people allowed for calls to come, oldest first; where `revoked`, also what they took back."""
        return [leave for leave in self._leaves.values() if revoked or leave.revoked_at is None]

    def __iter__(self) -> Iterator[Action]:
        return iter(self._actions.values())

    def __len__(self) -> int:
        return len(self._actions)

    # -- the calls they are about --

    def _on_answered(self, event: ModelAnswered, recorded: Recorded) -> None:
        self._answers[recorded.stream] = event.call, event.parts

    def _on_requested(self, event: ToolRequested, recorded: Recorded) -> None:
        call, parts = self._answers.get(recorded.stream, ("", ()))
        part = parts[event.part] if call == event.call and event.part < len(parts) else None
        self._calls.setdefault(recorded.stream, {})[event.tool] = AskedCall(
            tool=event.tool,
            name=event.name,
            version=event.version,
            arguments=part.input if isinstance(part, ToolCall) else {},
            effect=event.effect,
            timeout_s=event.timeout_s,
        )

    def _on_completed(self, event: TurnCompleted, recorded: Recorded) -> None:
        self._answers.pop(recorded.stream, None)
        self._calls.pop(recorded.stream, None)
        self._allowed.pop(recorded.stream, None)

    def _on_settled(self, event: ToolSettled, recorded: Recorded) -> None:
        id = self._allowed.get(recorded.stream, {}).pop(event.tool, None)
        if id is not None and id in self._actions:
            changed = event.error_type == "ApprovalChanged" and isinstance(event.output, str)
            became = str(event.output) if changed else f"it ended: {event.outcome}"
            self._actions[id] = replace(self._actions[id], became=became)

    # -- the questions --

    def _on_required(self, event: ActionRequired, recorded: Recorded) -> None:
        id = _id_of(event.action, recorded)
        call = self._calls.get(recorded.stream, {}).get(event.tool or "") if event.digest is not None else None
        if call is not None and event.place is not None:
            call = replace(call, cwd=event.place.cwd, env=event.place.env, sandbox=event.place.sandbox)
        self._actions[id] = Action(
            id=id,
            session_id=_session_of(recorded),
            type=event.kind,
            payload=event.payload,
            asked_at=recorded.timestamp,
            expires_at=recorded.timestamp + event.timeout_ms,
            job_id=event.job_id,
            tool=event.tool,
            reason=event.reason,
            metadata=event.metadata,
            digest=event.digest,
            call=call,
        )

    def _end(self, event: Any, recorded: Recorded, status: ActionStatus, **changes: Any) -> Action | None:
        """The action as it ended, None where its question was erased."""
        action = self._actions.get(_id_of(event.action, recorded))
        if action is not None:
            action = replace(action, status=status, ended_at=recorded.timestamp, by=event.by, **changes)
            self._actions[action.id] = action
        return action

    def _on_resolved(self, event: ActionResolved, recorded: Recorded) -> None:
        action, said = self._end(event, recorded, "resolved", resolution=event.resolution), event.resolution
        if action is None or action.call is None or said.get("approved") is not True:
            return
        self._allowed.setdefault(recorded.stream, {})[action.call.tool] = action.id
        if said.get("always"):
            self._leaves[action.id] = Leave(
                id=action.id,
                session_id=action.session_id,
                kind=str(said["always"]),
                name=action.call.name,
                version=action.call.version,
                arguments=said.get("arguments") or action.call.arguments,
                by=event.by,
                given_at=recorded.timestamp,
                comment=str(said.get("comment") or ""),
            )

    def _on_expired(self, event: ActionExpired, recorded: Recorded) -> None:
        self._end(event, recorded, "expired", ended="an answer came too late" if event.by else "")

    def _on_cancelled(self, event: ActionCancelled, recorded: Recorded) -> None:
        self._end(event, recorded, "cancelled", ended=event.reason)

    def _on_used(self, event: GrantUsed, recorded: Recorded) -> None:
        leave = self._leaves.get(_id_of(event.grant, recorded))
        if leave is not None:
            self._leaves[leave.id] = replace(leave, used=leave.used + 1, last_used_at=recorded.timestamp)

    def _on_revoked(self, event: GrantRevoked, recorded: Recorded) -> None:
        leave = self._leaves.get(_id_of(event.grant, recorded))
        if leave is not None:
            self._leaves[leave.id] = replace(leave, revoked_at=recorded.timestamp, revoked_by=event.by)


def _session_of(recorded: Recorded) -> str:
    return recorded.stream.removeprefix("session-")


def _id_of(action: str, recorded: Recorded) -> str:
    return f"{_session_of(recorded)}:{action}"


_TAKE: dict[type[Event], Callable[[Actions, Any, Recorded], None]] = {
    ModelAnswered: Actions._on_answered,
    ToolRequested: Actions._on_requested,
    TurnCompleted: Actions._on_completed,
    ToolSettled: Actions._on_settled,
    ActionRequired: Actions._on_required,
    ActionResolved: Actions._on_resolved,
    ActionExpired: Actions._on_expired,
    ActionCancelled: Actions._on_cancelled,
    GrantUsed: Actions._on_used,
    GrantRevoked: Actions._on_revoked,
}
