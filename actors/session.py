"""A session's lane: what was accepted, what runs, and how it ended. Pure.

One job runs at a time, in the order of priority and then of acceptance. It hears from the other deciders of its stream
only events: a turn that completed ends the job; a call that only a person can settle, and a question put to a person,
make it wait until the last of them is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, Struct
from msgspec.structs import replace

from ..events.action import ActionCancelled, ActionEnded, ActionExpired, ActionRequired, ActionResolved
from ..events.agent import (
    AgentConfigured,
    AgentRegistered,
    AgentUnregistered,
    Interrupt,
    StopAgent,
    ToolRelaunched,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
    TurnCompleted,
    WakeAgent,
    WakeAt,
)
from ..events.content import Failure
from ..events.errors import BadInput, Closed, Conflict, NotFound
from ..events.message import Command, Effect, Event, Stamp
from ..events.session import (
    CancelJob,
    CloseSession,
    CreateSession,
    ExpireJob,
    JobCancelled,
    JobFailed,
    JobQueued,
    JobResumed,
    JobStarted,
    JobStopping,
    JobSucceeded,
    JobTimedOut,
    JobWaiting,
    Overrides,
    Send,
    SessionClosed,
    SessionCreated,
    Waking,
)
from .decider import Decider

UNKNOWN = "outcome unknown"
"""Why a job waits for a person."""

TIMEOUT = "timeout"
"""The reason of a stop that came from the job's deadline."""


class Queued(Struct, frozen=True, gc=False):
    """A job that waits for the lane. deadline: microseconds UTC, None for no time limit. at: when it was accepted."""

    job_id: str
    priority: int
    deadline: int | None
    overrides: Overrides | None
    at: int = 0


class State(Struct, frozen=True, gc=False):
    """queue: in the order in which it will run. doubts: calls of the running job that only a person can settle.

    asked: questions of the running job to a person, as (action, call, kind). waiting_for: the doubt or the question
    that the job was last said to wait for. last_agent: who is awake, or was last: what ends now was its doing.
    """

    session_id: str | None = None
    image_id: str | None = None
    container_id: str | None = None
    closed: bool = False
    awake: bool = False
    last_agent: str | None = None
    queue: tuple[Queued, ...] = ()
    running: Queued | None = None
    stopping: str | None = None
    doubts: tuple[str, ...] = ()
    asked: tuple[tuple[str, str, str], ...] = ()
    waiting_for: str | None = None


def decide(state: State, message: Command | Event) -> Sequence[Event]:
    choose = _DECIDE.get(type(message))
    return choose(state, message) if choose is not None else ()


def _send(state: State, message: Send) -> Sequence[Event]:
    _open(state)
    _own(state, message.waking)
    if _lives(state, message.job_id):
        return ()
    return [
        JobQueued(
            job_id=message.job_id,
            content=message.content,
            overrides=message.overrides,
            priority=message.priority,
            timeout_ms=message.timeout_ms,
        )
    ]


def _free(state: State, message: Event) -> Sequence[Event]:
    """The lane may be free now: the first that waits begins."""
    if state.running is None and state.queue and state.awake and not state.closed:
        first = state.queue[0]
        return [JobStarted(job_id=first.job_id, overrides=_said_again(first.overrides))]
    return ()


def _said_again(overrides: Overrides | None) -> Overrides | None:
    """What a job wants otherwise, but for what it has of the agent that sent it, which is stored once."""
    if overrides is None or not (overrides.within or overrides.origin):
        return overrides
    rest = replace(overrides, within=UNSET, origin=UNSET)
    return None if rest == Overrides() else rest


def _turned(state: State, message: TurnCompleted) -> Sequence[Event]:
    return [_ended(state, state.running.job_id, message)] if state.running else ()


def _unproved(state: State, message: ToolUnproved) -> Sequence[Event]:
    if state.running is None or state.stopping is not None or state.waiting_for is not None:
        return ()
    return [JobWaiting(job_id=state.running.job_id, tool=message.tool, reason=UNKNOWN)]


def _required(state: State, message: ActionRequired) -> Sequence[Event]:
    running = state.running
    if running is None or message.job_id != running.job_id:
        return ()
    if state.stopping is not None or state.waiting_for is not None:
        return ()
    if state.asked[0][0] != message.action:
        return ()  # of several put at once, the first is the one it waits for
    return [_waits(running, message.action, message.tool or "", message.kind)]


def _waits(running: Queued, action: str, tool: str, kind: str) -> JobWaiting:
    return JobWaiting(job_id=running.job_id, tool=tool, reason=kind, action=action)


def _answered(state: State, message: ActionEnded) -> Sequence[Event]:
    if isinstance(message, ActionCancelled) and message.cancel_job and state.running is not None:
        return _stop(state, state.running.job_id, message.reason)
    return _goes_on(state, message)


def _goes_on(state: State, message: Event) -> Sequence[Event]:
    """What it waited for has come: it goes on, or waits for the next."""
    waits, running = state.waiting_for, state.running
    if waits is None or running is None or state.stopping is not None:
        return ()
    if waits in state.doubts or any(waits == action for action, _, _ in state.asked):
        return ()
    if state.doubts:
        return [JobWaiting(job_id=running.job_id, tool=state.doubts[0], reason=UNKNOWN)]
    return [_waits(running, *state.asked[0])] if state.asked else [JobResumed(job_id=running.job_id)]


def _cancel(state: State, message: CancelJob) -> Sequence[Event]:
    return _stop(state, message.job_id, message.reason)


def _expire(state: State, message: ExpireJob) -> Sequence[Event]:
    return _stop(state, message.job_id, TIMEOUT, JobTimedOut(job_id=message.job_id))


def _wake(state: State, message: WakeAgent) -> Sequence[Event]:
    _open(state)
    _own(state, message.waking)
    return ()


def _interrupt(state: State, message: Interrupt | StopAgent) -> Sequence[Event]:
    return _stop(state, state.running.job_id, message.reason) if state.running else ()


def _create(state: State, message: CreateSession) -> Sequence[Event]:
    if state.session_id is None:
        return [
            SessionCreated(
                session_id=message.session_id,
                image_id=message.image_id,
                container_id=message.container_id,
                created_at=message.created_at,
                alias=message.alias,
            )
        ]
    if (state.session_id, state.image_id) != (message.session_id, message.image_id):
        raise Conflict(f"Session {message.session_id} exists with another image.")
    return ()


def _close(state: State, message: CloseSession) -> Sequence[Event]:
    if state.closed or state.session_id is None:
        return ()
    gone = [JobCancelled(job_id=job.job_id, reason=message.reason) for job in state.queue]
    stop = _stop(state, state.running.job_id, message.reason) if state.running else ()
    return [SessionClosed(reason=message.reason), *gone, *stop]


_DECIDE: dict[type, Any] = {
    Send: _send,
    JobQueued: _free,
    AgentRegistered: _free,
    JobSucceeded: _free,
    JobFailed: _free,
    JobCancelled: _free,
    JobTimedOut: _free,
    TurnCompleted: _turned,
    ToolUnproved: _unproved,
    ToolSettled: _goes_on,
    ToolStarted: _goes_on,
    ToolRelaunched: _goes_on,
    ActionRequired: _required,
    ActionResolved: _answered,
    ActionExpired: _answered,
    ActionCancelled: _answered,
    CancelJob: _cancel,
    ExpireJob: _expire,
    WakeAgent: _wake,
    Interrupt: _interrupt,
    StopAgent: _interrupt,
    CreateSession: _create,
    CloseSession: _close,
}


def _open(state: State) -> None:
    if state.session_id is None:
        raise NotFound("Session not found.")
    if state.closed:
        raise Closed(f"Session {state.session_id} is closed: its image was deleted.")


def _own(state: State, waking: Waking | None) -> None:
    """No image but its own wakes a session: another would bring it other rules."""
    if waking is not None and waking.image_id and waking.image_id != state.image_id:
        raise BadInput(f"Session {state.session_id} belongs to the image {state.image_id}, not to {waking.image_id}.")


def _lives(state: State, job_id: str) -> bool:
    running = state.running is not None and state.running.job_id == job_id
    return running or any(job.job_id == job_id for job in state.queue)


def _stop(state: State, job_id: str, reason: str, unstarted: Event | None = None) -> Sequence[Event]:
    """Ask the running job to end, or take a queued one out: as cancelled, or by the event `unstarted`."""
    if state.running and state.running.job_id == job_id:
        return () if state.stopping is not None else [JobStopping(job_id=job_id, reason=reason)]
    if any(job.job_id == job_id for job in state.queue):
        return [unstarted or JobCancelled(job_id=job_id, reason=reason)]
    return []


def _ended(state: State, job_id: str, turn: TurnCompleted) -> Event:
    if turn.reason == "completed":
        return JobSucceeded(job_id=job_id)
    if turn.reason == "interrupted":
        reason = "interrupted" if state.stopping is None else state.stopping
        return JobTimedOut(job_id=job_id) if reason == TIMEOUT else JobCancelled(job_id=job_id, reason=reason)
    return JobFailed(job_id=job_id, failure=turn.failure or Failure(code="error", message="The turn failed."))


def evolve(state: State, event: Event, stamp: Stamp) -> State:
    become = _EVOLVE.get(type(event))
    if become is None:
        return state
    changed: State = become(state, event, stamp)
    return changed


def _on_queued(state: State, event: JobQueued, stamp: Stamp) -> State:
    deadline = None if event.timeout_ms is None else stamp.at + event.timeout_ms * 1000
    job = Queued(event.job_id, event.priority, deadline, event.overrides, stamp.at)
    if not state.queue:
        return replace(state, queue=(job,))
    return replace(state, queue=tuple(sorted((*state.queue, job), key=lambda queued: -queued.priority)))


def _on_started(state: State, event: JobStarted, stamp: Stamp) -> State:
    known = next((queued for queued in state.queue if queued.job_id == event.job_id), None)
    begun = known or Queued(event.job_id, 0, None, event.overrides)
    return replace(
        state, running=begun, queue=_without(state, event.job_id), stopping=None, doubts=(), asked=(), waiting_for=None
    )


def _on_waiting(state: State, event: JobWaiting, stamp: Stamp) -> State:
    return replace(state, waiting_for=event.action or event.tool)


def _on_ended(state: State, event: JobSucceeded | JobFailed | JobCancelled | JobTimedOut, stamp: Stamp) -> State:
    if state.running and state.running.job_id == event.job_id:
        return replace(state, running=None, stopping=None, doubts=(), asked=(), waiting_for=None)
    return replace(state, queue=_without(state, event.job_id))


def _on_stopping(state: State, event: JobStopping, stamp: Stamp) -> State:
    return replace(state, stopping=event.reason)


def _on_unproved(state: State, event: ToolUnproved, stamp: Stamp) -> State:
    return replace(state, doubts=(*state.doubts, event.tool))


def _on_resumed(state: State, event: JobResumed, stamp: Stamp) -> State:
    return replace(state, doubts=(), asked=(), waiting_for=None)


def _on_proved(state: State, event: ToolSettled | ToolStarted | ToolRelaunched, stamp: Stamp) -> State:
    if event.tool in state.doubts:
        return replace(state, doubts=tuple(tool for tool in state.doubts if tool != event.tool))
    return state


def _on_required(state: State, event: ActionRequired, stamp: Stamp) -> State:
    if state.running is None or event.job_id != state.running.job_id:
        return state
    return replace(state, asked=(*state.asked, (event.action, event.tool or "", event.kind)))


def _on_answered(state: State, event: ActionEnded, stamp: Stamp) -> State:
    if not state.asked:
        return state
    return replace(state, asked=tuple(each for each in state.asked if each[0] != event.action))


def _on_registered(state: State, event: AgentRegistered, stamp: Stamp) -> State:
    return replace(state, awake=True, last_agent=event.agent_id)


def _on_unregistered(state: State, event: AgentUnregistered, stamp: Stamp) -> State:
    return replace(state, awake=False)


def _on_created(state: State, event: SessionCreated, stamp: Stamp) -> State:
    return replace(state, session_id=event.session_id, image_id=event.image_id, container_id=event.container_id)


def _on_closed(state: State, event: SessionClosed, stamp: Stamp) -> State:
    return replace(state, closed=True)


_EVOLVE: dict[type, Any] = {
    JobQueued: _on_queued,
    JobStarted: _on_started,
    JobSucceeded: _on_ended,
    JobFailed: _on_ended,
    JobCancelled: _on_ended,
    JobTimedOut: _on_ended,
    JobStopping: _on_stopping,
    JobWaiting: _on_waiting,
    JobResumed: _on_resumed,
    ToolUnproved: _on_unproved,
    ToolSettled: _on_proved,
    ToolStarted: _on_proved,
    ToolRelaunched: _on_proved,
    ActionRequired: _on_required,
    ActionResolved: _on_answered,
    ActionExpired: _on_answered,
    ActionCancelled: _on_answered,
    AgentRegistered: _on_registered,
    AgentUnregistered: _on_unregistered,
    SessionCreated: _on_created,
    SessionClosed: _on_closed,
}


def _without(state: State, job_id: str) -> tuple[Queued, ...]:
    return tuple(queued for queued in state.queue if queued.job_id != job_id)


def owed(state: State) -> Sequence[Effect]:
    if not state.queue and (state.running is None or state.running.deadline is None):
        return ()
    jobs = (*state.queue, *((state.running,) if state.running and state.stopping is None else ()))
    limits = [(job.deadline, job.job_id, job.at) for job in jobs if job.deadline is not None]
    if not limits:
        return ()
    # One at a time: when it has come, the next is owed. What is owed stands in every batch.
    at, job_id, since = min(limits)
    return [WakeAt(id=f"deadline-{job_id}", job_id=job_id, at=at, since=since)]


def recall(asked: str, events: Sequence[Event]) -> Command | None:
    first = events[0]
    match asked, first:
        case "send", JobQueued():
            return Send(
                job_id=first.job_id,
                content=first.content,
                waking=waking_of(events),
                overrides=first.overrides,
                priority=first.priority,
                timeout_ms=first.timeout_ms,
            )
        case "create_session", SessionCreated():
            return CreateSession(
                session_id=first.session_id,
                image_id=first.image_id,
                container_id=first.container_id,
                created_at=first.created_at,
                alias=first.alias,
            )
        case "cancel_job", JobStopping() | JobCancelled():
            return CancelJob(job_id=first.job_id, reason=first.reason)
        case "expire_job", JobStopping() | JobTimedOut():
            return ExpireJob(job_id=first.job_id)
        case "close_session", SessionClosed():
            return CloseSession(reason=first.reason)
        case "interrupt", JobStopping():
            return Interrupt(reason=first.reason)
    return None


def waking_of(events: Sequence[Event]) -> Waking | None:
    """What a batch tells of how its agent was woken or changed, None when it tells nothing."""
    registered = next((event for event in events if isinstance(event, AgentRegistered)), None)
    configured = next((event for event in events if isinstance(event, AgentConfigured)), None)
    if configured is None:
        return None
    return Waking(
        agent_id=registered.agent_id if registered else "",
        image_id=registered.image_id if registered else "",
        container_id=registered.container_id if registered else "",
        registered_at=registered.registered_at if registered else 0,
        definition=configured.definition,
    )


SESSION = Decider("session", State(), decide, evolve, owed, recall)
