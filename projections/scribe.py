"""The messages of a session, written down event by event. Pure; remembers only what is still open.

One scribe writes for the transcript and for the live notices, so both show the same message under the same id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..events.action import ActionCancelled, ActionExpired, ActionRequired, ActionResolved
from ..events.agent import ModelAnswered, ModelFailed, ToolOutput, ToolRequested, ToolSettled, TurnCompleted
from ..events.content import InputPart, Native, OutputPart, Text, ToolCall
from ..events.message import Erased, Event, Recorded, Unknown
from ..events.notice import (
    AssistantMessage,
    Changed,
    ErrorMessage,
    Message,
    MessagePart,
    OutputKind,
    ShownOutput,
    ShownResult,
    ToolCallMessage,
    ToolResultMessage,
    UserMessage,
)
from ..events.session import JobCancelled, JobQueued, JobStarted, JobTimedOut
from .projection import session_of

ERASED = "[erased]"
UNREADABLE = "[unreadable: written by a newer release]"


class Queued(Struct, frozen=True):
    """An input that has not entered the conversation yet, and the id its message will have."""

    id: str
    content: tuple[InputPart, ...]


class OpenCall(Struct, frozen=True):
    """A call without an end, with the arguments it runs with, and the message that showed it."""

    tool: str
    call: ToolCall
    message: ToolCallMessage

    @property
    def message_id(self) -> str:
        return self.message.id


class Scribe:
    """Takes the events of one session in order and gives back the message that each one brings, if any.

    An input enters when its job starts; an answer when it is complete, or when it broke off for good (then with what
    had come); a call when it is asked for, and again under the same id when a person changed what it runs with; its
    result when it ends; an error when it ends a turn. An answer that says nothing a reader could see has no message.
    """

    __slots__ = ("_answer", "_calls", "_last", "_lost", "_questions", "_session", "open", "queued")

    def __init__(self) -> None:
        self.queued: dict[str, Queued] = {}
        self.open: dict[str, OpenCall] = {}
        self._session: str | None = None
        self._last: str | None = None  # message that calls follow from
        self._answer = ""
        self._calls: dict[int, ToolCall] = {}  # of the last answer, by place
        self._lost = ERASED
        self._questions: dict[str, str] = {}  # whether a call may run -> the call

    def apply(self, recorded: Recorded) -> Message | None:
        take = _TAKE.get(type(recorded.data))
        return None if take is None else take(self, recorded.data, recorded)

    def id_of(self, recorded: Recorded) -> str:
        """The id of the message that this event brings or announces."""
        session = self._session
        if session is None:
            session = self._session = session_of(recorded).removeprefix("sess_")
        return f"msg_{session}_{recorded.version}"

    def _on_queued(self, event: JobQueued, recorded: Recorded) -> None:
        self.queued[event.job_id] = Queued(self.id_of(recorded), event.content)

    def _on_gone(self, event: JobCancelled | JobTimedOut, recorded: Recorded) -> None:
        self.queued.pop(event.job_id, None)

    def _on_started(self, event: JobStarted, recorded: Recorded) -> Message:
        queued = self.queued.pop(event.job_id, None)
        return self._user(recorded, queued or Queued(self.id_of(recorded), (Text(text=self._lost),)))

    def _user(self, recorded: Recorded, queued: Queued) -> Message:
        self._last = queued.id
        return UserMessage(
            id=queued.id, role="user", subtype="user", content=queued.content, timestamp=recorded.timestamp
        )

    def _on_answered(self, event: ModelAnswered, recorded: Recorded) -> Message | None:
        self._answer = event.call
        self._calls = {place: part for place, part in enumerate(event.parts) if isinstance(part, ToolCall)}
        return self._assistant(recorded, event.parts)

    def _on_failed(self, event: ModelFailed, recorded: Recorded) -> Message | None:
        return self._assistant(recorded, event.partial) if event.retry_in_ms is None and event.partial else None

    def _assistant(self, recorded: Recorded, parts: tuple[OutputPart, ...]) -> Message | None:
        shown = tuple(shown for part in parts if (shown := _shown(part)) is not None)
        if all(isinstance(part, ToolCall) for part in shown):
            return None  # its calls have messages of their own
        message = AssistantMessage(
            id=self.id_of(recorded), role="assistant", subtype="assistant", content=shown, timestamp=recorded.timestamp
        )
        self._last = message.id
        return message

    def _on_requested(self, event: ToolRequested, recorded: Recorded) -> Message:
        call = self._calls.get(event.part) if event.call == self._answer else None
        call = call or ToolCall(id=event.tool, name=event.name, input={})
        message = ToolCallMessage(
            id=self.id_of(recorded),
            role="assistant",
            subtype="tool-call",
            content=(call,),
            timestamp=recorded.timestamp,
            parent_id=self._last,
        )
        self.open[event.tool] = OpenCall(event.tool, call, message)
        return message

    def _on_required(self, event: ActionRequired, recorded: Recorded) -> None:
        if event.tool is not None and event.digest is not None:
            self._questions[event.action] = event.tool

    def _on_answered_by(self, event: ActionResolved, recorded: Recorded) -> Message | None:
        """A person's answer: with other arguments it is another call that runs."""
        asked = self.open.get(self._questions.pop(event.action, ""))
        arguments = event.resolution.get("arguments")
        if asked is None or arguments is None or event.resolution.get("approved") is not True:
            return None
        call = replace(asked.call, input=arguments)
        message = replace(asked.message, content=(call,), changed=Changed(by=event.by, asked=asked.call.input))
        self.open[asked.tool] = OpenCall(asked.tool, call, message)
        return message

    def _on_unanswered(self, event: ActionExpired | ActionCancelled, recorded: Recorded) -> None:
        self._questions.pop(event.action, None)

    def _on_settled(self, event: ToolSettled, recorded: Recorded) -> Message | None:
        ended = self.open.pop(event.tool, None)
        return None if ended is None else self._result(recorded, ended, output_kind(event), event.output)

    def _result(self, recorded: Recorded, ended: OpenCall, kind: OutputKind, output: ToolOutput) -> Message:
        result = ShownResult(id=ended.call.id, name=ended.call.name, output=ShownOutput(type=kind, value=output))
        return ToolResultMessage(
            id=self.id_of(recorded),
            role="tool",
            subtype="tool-result",
            content=(result,),
            timestamp=recorded.timestamp,
            parent_id=ended.message_id,
        )

    def _on_completed(self, event: TurnCompleted, recorded: Recorded) -> Message | None:
        if event.failure is None:
            return None
        return ErrorMessage(
            id=self.id_of(recorded),
            role="error",
            subtype="error",
            content=(Text(text=event.failure.message),),
            timestamp=recorded.timestamp,
            parent_id=self._last,
            error_code=event.failure.code,
        )

    def _on_blank(self, event: Erased | Unknown, recorded: Recorded) -> Message | None:
        """What cannot be read still had its place in the conversation."""
        blank = ERASED if isinstance(event, Erased) else UNREADABLE
        match event.name:
            case "job_queued":
                self._lost = blank
            case "job_started":
                return self._user(recorded, Queued(self.id_of(recorded), (Text(text=blank),)))
            case "model_answered":
                self._answer, self._calls = "", {}
                return self._assistant(recorded, (Text(text=blank),))
            case "tool_settled" if self.open:
                # Which call it ended is not known: the oldest open one stands for it.
                return self._result(recorded, self.open.pop(next(iter(self.open))), "text", blank)
        return None


_TAKE: dict[type[Event], Callable[[Scribe, Any, Recorded], Message | None]] = {
    JobQueued: Scribe._on_queued,
    JobStarted: Scribe._on_started,
    JobCancelled: Scribe._on_gone,
    JobTimedOut: Scribe._on_gone,
    ModelAnswered: Scribe._on_answered,
    ModelFailed: Scribe._on_failed,
    ToolRequested: Scribe._on_requested,
    ToolSettled: Scribe._on_settled,
    ActionRequired: Scribe._on_required,
    ActionResolved: Scribe._on_answered_by,
    ActionExpired: Scribe._on_unanswered,
    ActionCancelled: Scribe._on_unanswered,
    TurnCompleted: Scribe._on_completed,
    Erased: Scribe._on_blank,
    Unknown: Scribe._on_blank,
}


def output_kind(event: ToolSettled) -> OutputKind:
    """How the output of an ended call is to be read."""
    if event.outcome == "denied":
        return "execution-denied"
    if not isinstance(event.output, str):
        return "content"
    return "text" if event.outcome == "ok" else "error-text"


def output_text(output: ToolOutput) -> str:
    """The text of a tool's output, its pictures and files left out."""
    return output if isinstance(output, str) else "\n".join(part.text for part in output if isinstance(part, Text))


def _shown(part: OutputPart) -> MessagePart | None:
    """A part as a reader may see it, None where there is nothing to see."""
    if isinstance(part, Native):
        return Text(text=part.text) if part.text.strip() else None
    if isinstance(part, Text):
        return part if part.text.strip() else None
    if isinstance(part, ToolCall):
        return part
    return part if part.thinking.strip() else None
