"""Questions to people: asked, answered once, or over without an answer. Pure.

    action_required --> action_resolved | action_expired | action_cancelled

Only the first end counts. Time comes with the answer: one that comes at or after the question's end is recorded as
expired, one from before the question was asked is refused. Whatever cannot be told for sure counts as no.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..events.action import (
    AGENT_PRINCIPALS,
    ActionCancelled,
    ActionExpired,
    ActionRequired,
    ActionResolved,
    ActionStatus,
    ActionTokenIssued,
    ActionType,
    CancelAction,
    ExpireAction,
    ExpireActionAt,
    IssueToken,
    RequireAction,
    ResolveAction,
)
from ..events.errors import (
    ActionChanged,
    ActionOver,
    BadInput,
    ClockBehind,
    Closed,
    Full,
    NotAPerson,
    NotFound,
)
from ..events.message import Command, Effect, Event, Stamp
from ..events.session import (
    JobCancelled,
    JobEnded,
    JobFailed,
    JobStarted,
    JobStopping,
    JobSucceeded,
    JobTimedOut,
    SessionClosed,
    SessionCreated,
)
from .decider import Decider
from .question import check_question, check_resolution

PENDING_MAX = 100
"""Most questions of one session that may wait at once."""

JOB_ACTIONS_MAX = 1000
"""Most questions one job may put."""

TIMEOUT_MAX_MS = 366 * 24 * 3600 * 1000
"""The longest that a question may wait for its answer: a year."""


class Asked(Struct, frozen=True, kw_only=True, gc=False):
    """One question and how it stands. asked_at, expires_at, ended_at: microseconds UTC."""

    id: str
    kind: ActionType
    payload: dict[str, Any]
    asked_at: int
    expires_at: int
    status: ActionStatus = "pending"
    job_id: str | None = None
    tool: str | None = None
    reason: str = ""
    metadata: dict[str, Any] | None = None
    digest: str | None = None
    token: str | None = None
    key: str | None = None
    resolution: dict[str, Any] | None = None
    by: str = ""
    ended_at: int | None = None


class State(Struct, frozen=True, gc=False):
    """pending: in the order in which they were asked. over: those of the running job that have ended.

    count: how many were ever asked. job_id, stopping: of the running job.
    """

    begun: bool = False
    closed: bool = False
    job_id: str | None = None
    stopping: bool = False
    count: int = 0
    pending: tuple[Asked, ...] = ()
    over: tuple[Asked, ...] = ()


def decide(state: State, message: Command | Event) -> Sequence[Event]:
    choose = _DECIDE.get(type(message))
    return choose(state, message) if choose is not None else ()


def _require(state: State, message: RequireAction) -> Sequence[Event]:
    if not state.begun:
        raise NotFound("Session not found.")
    if message.key is not None and any(
        each.key == message.key and each.job_id == message.job_id for each in (*state.pending, *state.over)
    ):
        return ()
    if state.closed:
        raise Closed("The session is closed.")
    if message.job_id is not None and (message.job_id != state.job_id or state.stopping):
        raise BadInput(f"Job {message.job_id} does not run, so nothing can be asked for it.")
    if not 0 < message.timeout_ms <= TIMEOUT_MAX_MS:
        raise BadInput(f"A question waits for 1 to {TIMEOUT_MAX_MS:,} milliseconds, not for {message.timeout_ms:,}.")
    if len(state.pending) >= PENDING_MAX:
        raise Full(f"{PENDING_MAX} questions of this session wait for an answer already; answer one first.")
    if message.job_id is not None and len(state.over) + len(state.pending) >= JOB_ACTIONS_MAX:
        raise Full(f"A job may put {JOB_ACTIONS_MAX:,} questions; this one has.")
    check_question(message.kind, message.payload)
    return [
        ActionRequired(
            action=f"a{state.count + 1}",
            kind=message.kind,
            timeout_ms=message.timeout_ms,
            payload=message.payload,
            job_id=message.job_id,
            tool=message.tool,
            metadata=message.metadata,
            token=message.token,
            key=message.key,
        )
    ]


def _resolve(state: State, message: ResolveAction) -> Sequence[Event]:
    asked = _pending(state, message.action, message.token)
    if message.at >= asked.expires_at:
        return [ActionExpired(action=asked.id, at=message.at, by=message.by)]
    if message.by.startswith(AGENT_PRINCIPALS):
        raise NotAPerson
    if message.at < asked.asked_at:
        raise ClockBehind
    if message.digest is not None and (asked.digest is None or not _same(message.digest, asked.digest)):
        raise ActionChanged
    of_call = asked.digest is not None and asked.tool is not None
    check_resolution(asked.kind, asked.payload, message.resolution, of_call=of_call)
    return [
        ActionResolved(
            action=asked.id,
            resolution=message.resolution,
            at=message.at,
            by=message.by,
            digest=message.digest,
            token=message.token,
            bound=message.bound,
            switched=message.switched,
        )
    ]


def _pending(state: State, action: str, token: str | None = None) -> Asked:
    asked = next((each for each in state.pending if each.id == action), None)
    if token is not None:
        # Wrong, used, of another action: whoever tries tokens learns nothing from the answer.
        known = asked.token if asked is not None else None
        if known is None or not _same(token, known):
            raise NotFound("There is no pending action for this token.")
    if asked is not None:
        return asked
    was = next((each for each in state.over if each.id == action), None)
    if was is not None:
        raise ActionOver(f"Action {action} is over: it is {was.status}{f', by {was.by}' if was.by else ''}.")
    if _was(state, action):
        raise ActionOver(f"Action {action} is over.")
    raise NotFound(f"There is no action {action} in this session.")


def _same(one: str, other: str) -> bool:
    """In a time that tells nothing of where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _was(state: State, action: str) -> bool:
    number = action[1:]
    is_number = number.isascii() and number.isdigit() and len(number) < 20
    return is_number and action == f"a{int(number)}" and 0 < int(number) <= state.count


def _expire(state: State, message: ExpireAction) -> Sequence[Event]:
    return [ActionExpired(action=each.id) for each in state.pending if each.id == message.action]


def _cancel(state: State, message: CancelAction) -> Sequence[Event]:
    if not any(each.id == message.action for each in state.pending) and _was(state, message.action):
        return ()
    asked = _pending(state, message.action)
    if message.cancel_job and asked.job_id is None:
        raise BadInput(f"Action {asked.id} belongs to no job, so there is none to cancel with it.")
    return [ActionCancelled(action=asked.id, reason=message.reason, by=message.by, cancel_job=message.cancel_job)]


def _issue(state: State, message: IssueToken) -> Sequence[Event]:
    return [ActionTokenIssued(action=_pending(state, message.action).id, token=message.token)]


def _of_job(state: State, message: JobEnded | JobStopping) -> Sequence[Event]:
    """Nobody waits for the answers any more."""
    reason = message.reason if isinstance(message, JobStopping | JobCancelled) else "the job is over"
    return [ActionCancelled(action=each.id, reason=reason) for each in state.pending if each.job_id == message.job_id]


def _close(state: State, message: SessionClosed) -> Sequence[Event]:
    return [ActionCancelled(action=each.id, reason=message.reason) for each in state.pending if each.job_id is None]


_DECIDE: dict[type, Any] = {
    RequireAction: _require,
    ResolveAction: _resolve,
    ExpireAction: _expire,
    CancelAction: _cancel,
    IssueToken: _issue,
    JobStopping: _of_job,
    JobSucceeded: _of_job,
    JobFailed: _of_job,
    JobCancelled: _of_job,
    JobTimedOut: _of_job,
    SessionClosed: _close,
}


# -- evolve --


def evolve(state: State, event: Event, stamp: Stamp) -> State:
    become = _EVOLVE.get(type(event))
    if become is None:
        return state
    changed: State = become(state, event, stamp)
    return changed


def _on_required(state: State, event: ActionRequired, stamp: Stamp) -> State:
    asked = Asked(
        id=event.action,
        kind=event.kind,
        payload=event.payload,
        asked_at=stamp.at,
        expires_at=stamp.at + event.timeout_ms * 1000,
        job_id=event.job_id,
        tool=event.tool,
        reason=event.reason,
        metadata=event.metadata,
        digest=event.digest,
        token=event.token,
        key=event.key,
    )
    return replace(state, count=state.count + 1, pending=(*state.pending, asked))


def _on_resolved(state: State, event: ActionResolved, stamp: Stamp) -> State:
    return _end(state, event.action, stamp, status="resolved", resolution=event.resolution, by=event.by)


def _on_expired(state: State, event: ActionExpired, stamp: Stamp) -> State:
    return _end(state, event.action, stamp, status="expired")


def _on_cancelled(state: State, event: ActionCancelled, stamp: Stamp) -> State:
    return _end(state, event.action, stamp, status="cancelled", by=event.by)


def _end(state: State, action: str, stamp: Stamp, **how: Any) -> State:
    asked = next((each for each in state.pending if each.id == action), None)
    if asked is None:
        return state
    pending = tuple(each for each in state.pending if each.id != action)
    if asked.job_id is None or asked.job_id != state.job_id:
        return replace(state, pending=pending)
    return replace(state, pending=pending, over=(*state.over, replace(asked, ended_at=stamp.at, **how)))


def _on_token(state: State, event: ActionTokenIssued, stamp: Stamp) -> State:
    pending = tuple(replace(each, token=event.token) if each.id == event.action else each for each in state.pending)
    return replace(state, pending=pending)


def _on_started(state: State, event: JobStarted, stamp: Stamp) -> State:
    return replace(state, job_id=event.job_id, stopping=False, over=())


def _on_stopping(state: State, event: JobStopping, stamp: Stamp) -> State:
    return replace(state, stopping=True)


def _on_over(state: State, event: JobEnded, stamp: Stamp) -> State:
    return replace(state, job_id=None, stopping=False, over=()) if event.job_id == state.job_id else state


def _on_created(state: State, event: SessionCreated, stamp: Stamp) -> State:
    return _BEGUN if state is ACTION.initial else replace(state, begun=True)


def _on_closed(state: State, event: SessionClosed, stamp: Stamp) -> State:
    return replace(state, closed=True)


_EVOLVE: dict[type, Any] = {
    ActionRequired: _on_required,
    ActionResolved: _on_resolved,
    ActionExpired: _on_expired,
    ActionCancelled: _on_cancelled,
    ActionTokenIssued: _on_token,
    JobStarted: _on_started,
    JobStopping: _on_stopping,
    JobSucceeded: _on_over,
    JobFailed: _on_over,
    JobCancelled: _on_over,
    JobTimedOut: _on_over,
    SessionCreated: _on_created,
    SessionClosed: _on_closed,
}


def owed(state: State) -> Sequence[Effect]:
    if not state.pending:
        return ()
    # One at a time, as with the deadlines of jobs: when it has come, the next is owed.
    first = min(state.pending, key=lambda each: each.expires_at)
    return [
        ExpireActionAt(id=f"expire-{first.id}", action=first.id, at=first.expires_at, asked_at=first.asked_at),
    ]


def recall(asked: str, events: Sequence[Event]) -> Command | None:
    first = events[0]
    match asked, first:
        case "require_action", ActionRequired():
            return RequireAction(
                kind=first.kind,
                timeout_ms=first.timeout_ms,
                payload=first.payload,
                job_id=first.job_id,
                tool=first.tool,
                metadata=first.metadata,
                token=first.token,
                key=first.key,
            )
        case "resolve_action", ActionResolved():
            return ResolveAction(
                action=first.action,
                resolution=first.resolution,
                at=first.at,
                by=first.by,
                digest=first.digest,
                token=first.token,
                bound=first.bound,
                switched=first.switched,
            )
        case "resolve_action", ActionExpired():
            return ResolveAction(action=first.action, resolution={}, at=first.at, by=first.by)
        case "expire_action", ActionExpired():
            return ExpireAction(action=first.action)
        case "cancel_action", ActionCancelled():
            return CancelAction(action=first.action, reason=first.reason, by=first.by, cancel_job=first.cancel_job)
        case "issue_token", ActionTokenIssued():
            return IssueToken(action=first.action, token=first.token)
    return None


_BEGUN = State(begun=True)
"""What every session has in which nothing was ever asked: one for all of them."""

ACTION = Decider("action", State(), decide, evolve, owed, recall)
