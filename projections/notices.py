"""The live notices of a session, drawn from its stored events as they are published. Pure; a small state a session.

Every notice has the position of the event it was drawn from, except one that is drawn from a signal: that the answer
has begun is told with its first words, not when it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..events.action import ActionResolved
from ..events.agent import (
    AgentRegistered,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    TurnCompleted,
    TurnStarted,
)
from ..events.content import Failure, Text, Usage, add_usage
from ..events.message import Context, Event, Live, Recorded, Signal, live
from ..events.notice import (
    ConversationEnd,
    ConversationInterrupted,
    ConversationQueued,
    ConversationResponding,
    ConversationStart,
    ConversationThinking,
    ErrorOccurred,
    Interrupted,
    Message,
    MessagePersisted,
    SessionDestroyed,
    SessionResumed,
    ShownResult,
    ToolCallNotice,
    ToolCompleted,
    ToolExecuting,
    ToolFailed,
    ToolPlanned,
    ToolResultNotice,
    TurnRequest,
    TurnResponse,
    UserMessage,
)
from ..events.session import JobQueued, JobStarted, JobStopping, SessionClosed
from ..events.stream import TextDelta
from .projection import session_of
from .scribe import Scribe, output_text

_STOPPED_BY = {"interrupt": "user_interrupt", "cancel_job": "user_interrupt", "expire_job": "timeout"}
"""The command that stopped a turn -> how the stream tells of it; any other is the system's doing."""

_CONNECTION = {"connection", "timeout", "stream_cut", "stream_error"}
_RUNTIME = {"max_steps", "internal", "error", "policy_denied"}
"""Codes of failures that are not the provider's own."""


class Notices:
    """Draws the notices of one session.

    `apply` takes the session's events in order, each once, from the first one or from any later one on; what an event
    that was not seen would have said is then left out. It never raises.

    The notices of a turn take the agent's state machine from idle through thinking, responding, planning_tool and
    awaiting_tool_result back to idle; a retry passes through error into thinking. An interruption ends as interrupted
    and an error as error, never as completed.
    """

    __slots__ = (
        "_answering",
        "_at",
        "_context",
        "_interrupted",
        "_last_message",
        "_model",
        "_responding",
        "_scribe",
        "_seen_agent",
        "_started_at",
        "_usage",
        "_user",
    )

    def __init__(self) -> None:
        self._scribe = Scribe()
        self._at = 0
        self._context = Context()
        self._seen_agent = False
        self._answering = False  # a model call is under way
        self._responding = False  # it was told that this call's answer has begun
        self._user: UserMessage | None = None
        self._last_message = ""
        self._started_at = 0
        self._usage: Usage | None = None
        self._model: str | None = None
        self._interrupted = ("system", "")

    def apply(self, recorded: Recorded) -> Sequence[Live]:
        """The notices drawn from the session's next event, in the order in which they are to be told."""
        message = self._scribe.apply(recorded)
        head, position = recorded.head, recorded.position
        at, context = self._at, self._context = head.at, head.context
        draw = _DRAW.get(type(recorded.data))
        if draw is None:
            return ()
        return [live(signal, at, context, position) for signal in draw(self, recorded.data, recorded, message)]

    def follow(self, recorded: Recorded) -> None:
        """As `apply`, where nobody wants what is drawn from this event: only what later notices need is remembered."""
        message = self._scribe.apply(recorded)
        self._at, self._context = recorded.head.at, recorded.head.context
        if type(recorded.data) in _REMEMBERED:
            _DRAW[type(recorded.data)](self, recorded.data, recorded, message)

    def on_signal(self, signal: Signal, at: int | None = None) -> tuple[Live, ...]:
        """The notices drawn from a signal of the running model call. at: microseconds UTC, else the last event's.

        The first text of an answer tells that the agent responds. One that comes late, after the answer, tells nothing.
        """
        if self._responding or not self._answering or type(signal) is not TextDelta:
            return ()
        self._responding = True
        return (live(ConversationResponding(), at=self._at if at is None else at, context=self._context),)

    # -- inputs and turns --

    def _on_queued(self, event: JobQueued, recorded: Recorded, _: Message | None) -> Iterable[Signal]:
        message_id = self._scribe.id_of(recorded)
        return ConversationQueued(message_id=message_id), self._persisted(message_id, recorded)

    def _on_started(self, event: JobStarted, recorded: Recorded, message: Message | None) -> Iterable[Signal]:
        assert isinstance(message, UserMessage)
        self._user = message
        self._last_message = message.id
        return (message,)

    def _on_turn(self, event: TurnStarted, recorded: Recorded, _: Message | None) -> Iterable[Signal]:
        self._started_at = recorded.at
        self._usage = self._model = None
        self._interrupted = ("system", "")
        self._answering = False
        user = self._user
        return (
            ConversationStart(message_id=self._last_message),
            TurnRequest(
                turn_id=self._turn_id(event.turn, recorded),
                message_id=self._last_message,
                content=user.content if user is not None else (),  # type: ignore[arg-type]
                timestamp=recorded.timestamp,
            ),
        )

    def _on_stopping(self, event: JobStopping, recorded: Recorded, _: Message | None) -> Iterable[Signal]:
        self._interrupted = (_STOPPED_BY.get(recorded.head.asked, "system"), event.reason)
        return ()

    def _on_completed(self, event: TurnCompleted, recorded: Recorded, message: Message | None) -> Iterable[Signal]:
        self._answering = False
        signals: list[Signal] = []
        if event.failure is not None:
            signals.append(_error(event.failure, recoverable=event.failure.retryable))
        if message is not None:
            signals += message, self._persisted(message.id, recorded)
        if event.reason == "interrupted":
            short, reason = self._interrupted
            signals += Interrupted(reason=short), ConversationInterrupted(reason=reason or short)
        signals.append(
            TurnResponse(
                turn_id=self._turn_id(event.turn, recorded),
                message_id=self._last_message,
                duration=(recorded.at - self._started_at) // 1000 if self._started_at else 0,
                usage=self._usage,
                model=self._model,
                stop_reason=event.stop_reason or event.reason,
                timestamp=recorded.timestamp,
            )
        )
        signals.append(ConversationEnd(reason=event.reason))
        return signals

    # -- the model --

    def _on_called(self, event: ModelCalled, recorded: Recorded, _: Message | None) -> Iterable[Signal]:
        self._answering, self._responding = True, False
        return (ConversationThinking(),)

    def _on_answered(self, event: ModelAnswered, recorded: Recorded, message: Message | None) -> Iterable[Signal]:
        self._usage = add_usage(self._usage, event.usage)
        self._model = event.model or self._model
        return self._answer(message, recorded)

    def _on_failed(self, event: ModelFailed, recorded: Recorded, message: Message | None) -> Iterable[Signal]:
        self._usage = add_usage(self._usage, event.usage)
        signals = self._answer(message, recorded)
        if event.retry_in_ms is not None:
            signals.append(_error(event.failure, recoverable=True))
        return signals

    def _answer(self, message: Message | None, recorded: Recorded) -> list[Signal]:
        told, self._answering = self._responding, False
        if message is None:
            return []
        self._last_message = message.id
        signals: list[Signal] = [message, self._persisted(message.id, recorded)]
        if not told and any(isinstance(part, Text) for part in message.content):
            signals.insert(0, ConversationResponding())
        return signals

    # -- tools --

    def _on_requested(self, event: ToolRequested, recorded: Recorded, message: Message | None) -> Iterable[Signal]:
        assert message is not None
        call = self._scribe.open[event.tool].call
        return (
            ToolPlanned(tool_id=call.id, tool_name=call.name, tool=event.tool),
            ToolCallNotice(id=call.id, name=call.name, input=call.input),
            message,
            self._persisted(message.id, recorded),
        )

    def _on_answer(self, event: ActionResolved, recorded: Recorded, message: Message | None) -> Iterable[Signal]:
        return () if message is None else (message,)

    def _on_tool_started(self, event: ToolStarted, recorded: Recorded, _: Message | None) -> Iterable[Signal]:
        asked = self._scribe.open.get(event.tool)
        if asked is None:
            return ()
        call = asked.call
        return (ToolExecuting(tool_id=call.id, tool_name=call.name, tool=event.tool, input=call.input),)

    def _on_settled(self, event: ToolSettled, recorded: Recorded, message: Message | None) -> Iterable[Signal]:
        if message is None:
            return ()  # it was asked for before the first event that was seen
        (result,) = message.content
        assert isinstance(result, ShownResult)
        ok = event.outcome == "ok"
        end: Signal
        if ok:
            end = ToolCompleted(tool_id=result.id, tool_name=result.name, tool=event.tool, result=event.output)
        else:
            end = ToolFailed(
                tool_id=result.id,
                tool_name=result.name,
                tool=event.tool,
                error=output_text(event.output),
                outcome=event.outcome,
            )
        return (
            end,
            ToolResultNotice(tool_use_id=result.id, result=event.output, is_error=not ok),
            message,
            self._persisted(message.id, recorded),
        )

    # -- the session --

    def _on_registered(self, event: AgentRegistered, recorded: Recorded, _: Message | None) -> Iterable[Signal]:
        if not self._seen_agent:
            self._seen_agent = True
            return ()
        session_id = session_of(recorded)
        return (SessionResumed(session_id=session_id, agent_id=event.agent_id, container_id=event.container_id),)

    def _on_closed(self, event: SessionClosed, recorded: Recorded, _: Message | None) -> Iterable[Signal]:
        return (SessionDestroyed(session_id=session_of(recorded), reason=event.reason),)

    def _persisted(self, message_id: str, recorded: Recorded) -> Signal:
        return MessagePersisted(session_id=session_of(recorded), message_id=message_id, saved_at=recorded.timestamp)

    def _turn_id(self, turn: int, recorded: Recorded) -> str:
        return f"turn_{session_of(recorded).removeprefix('sess_')}_{turn}"


def _error(failure: Failure, *, recoverable: bool) -> ErrorOccurred:
    code = failure.code
    kind = "connection" if code in _CONNECTION else "runtime" if code in _RUNTIME else "driver"
    return ErrorOccurred(code=code, message=failure.message, recoverable=recoverable, kind=kind)


_DRAW: dict[type[Event], Callable[[Notices, Any, Recorded, Message | None], Iterable[Signal]]] = {
    JobQueued: Notices._on_queued,
    JobStarted: Notices._on_started,
    JobStopping: Notices._on_stopping,
    TurnStarted: Notices._on_turn,
    ModelCalled: Notices._on_called,
    ModelAnswered: Notices._on_answered,
    ModelFailed: Notices._on_failed,
    ToolRequested: Notices._on_requested,
    ActionResolved: Notices._on_answer,
    ToolStarted: Notices._on_tool_started,
    ToolSettled: Notices._on_settled,
    TurnCompleted: Notices._on_completed,
    AgentRegistered: Notices._on_registered,
    SessionClosed: Notices._on_closed,
}

_REMEMBERED = {
    JobStarted,
    JobStopping,
    TurnStarted,
    ModelCalled,
    ModelAnswered,
    ModelFailed,
    TurnCompleted,
    AgentRegistered,
}

DRAWS: dict[str, tuple[str, ...]] = {
    "job_queued": ("conversation_queued", "message_persisted"),
    "job_started": ("user_message",),
    "turn_started": ("conversation_start", "turn_request"),
    "model_called": ("conversation_thinking",),
    "model_answered": ("conversation_responding", "assistant_message", "message_persisted"),
    "model_failed": ("conversation_responding", "assistant_message", "message_persisted", "error_occurred"),
    "tool_requested": ("tool_planned", "tool_call", "tool_call_message", "message_persisted"),
    "action_resolved": ("tool_call_message",),
    "tool_started": ("tool_executing",),
    "tool_settled": ("tool_completed", "tool_failed", "tool_result", "tool_result_message", "message_persisted"),
    "turn_completed": (
        "error_occurred",
        "error_message",
        "message_persisted",
        "interrupted",
        "conversation_interrupted",
        "turn_response",
        "conversation_end",
    ),
    "agent_registered": ("session_resumed",),
    "session_closed": ("session_destroyed",),
}
"""Event type -> the notices that may be drawn from it. Where none of them is wanted, `Notices.follow` is enough."""

TYPES = frozenset(notice for notices in DRAWS.values() for notice in notices)
"""Every notice there is."""
