"""What is told live of stored events, under the names watchers of the bus know; and the message as they see it.

Words only, drawn by `projections.notices`. A notice is a signal with the position of the event it was drawn from;
nobody decides upon it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from msgspec import Struct, field

from .agent import ToolOutput
from .content import File, Image, InputPart, Text, Thinking, ToolCall, Usage
from .message import Signal

# -- messages --

OutputKind = Literal["text", "json", "error-text", "error-json", "execution-denied", "content"]
"""How a tool's output is to be read: `content` is a list of parts, all others are one text."""


class ShownOutput(Struct, frozen=True, kw_only=True, rename="camel"):
    type: OutputKind
    value: ToolOutput


class ShownResult(Struct, frozen=True, kw_only=True, rename="camel", tag="tool-result"):
    """A tool's result as a part of a message. id: the id of the call, as the model gave it."""

    id: str
    name: str
    output: ShownOutput


class Changed(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a person changed of a call before it ran. by: who. asked: the arguments that the model had given."""

    by: str
    asked: dict[str, Any]


MessagePart = Text | Thinking | Image | File | ToolCall | ShownResult

Subtype = Literal["user", "assistant", "tool-call", "tool-result", "error"]


class Message(Signal, frozen=True, kw_only=True):
    """One message of a session.

    id: `msg_<session>_<version>`, the version of the event that brought it; the same at every reading of the log.
    timestamp: milliseconds since 1970-01-01 UTC, when it entered the conversation. parent_id: of a call, the message
    that it follows from; of a result, the call's message.
    """

    source: ClassVar[str] = "agent"
    category: ClassVar[str] = "message"
    id: str
    role: Literal["user", "assistant", "tool", "error"]
    subtype: Subtype
    content: tuple[MessagePart, ...]
    timestamp: int
    parent_id: str | None = None


class UserMessage(Message, frozen=True, kw_only=True):
    type: ClassVar[str] = "user_message"
    intent: ClassVar[str] = "request"


class AssistantMessage(Message, frozen=True, kw_only=True):
    """All that one answer said, in its order, its calls included: text, call, text keeps its order."""

    type: ClassVar[str] = "assistant_message"


class ToolCallMessage(Message, frozen=True, kw_only=True):
    """A call, with the arguments it runs with. changed: where those are a person's; the message is told again then."""

    type: ClassVar[str] = "tool_call_message"
    changed: Changed | None = None


class ToolResultMessage(Message, frozen=True, kw_only=True):
    type: ClassVar[str] = "tool_result_message"


class ErrorMessage(Message, frozen=True, kw_only=True):
    type: ClassVar[str] = "error_message"
    error_code: str | None = None


# -- the state of a conversation --


class _State(Signal, frozen=True, kw_only=True):
    source: ClassVar[str] = "agent"
    category: ClassVar[str] = "state"


class ConversationQueued(_State, frozen=True, kw_only=True):
    type: ClassVar[str] = "conversation_queued"
    message_id: str


class ConversationStart(_State, frozen=True, kw_only=True):
    type: ClassVar[str] = "conversation_start"
    message_id: str


class ConversationThinking(_State, frozen=True, kw_only=True):
    type: ClassVar[str] = "conversation_thinking"


class ConversationResponding(_State, frozen=True, kw_only=True):
    type: ClassVar[str] = "conversation_responding"


class ConversationEnd(_State, frozen=True, kw_only=True):
    """reason: completed, interrupted or error."""

    type: ClassVar[str] = "conversation_end"
    reason: str


class ConversationInterrupted(_State, frozen=True, kw_only=True):
    """reason: in the words of whoever interrupted."""

    type: ClassVar[str] = "conversation_interrupted"
    reason: str


class _Tool(_State, frozen=True, kw_only=True):
    """tool_id: the id of the call as the model gave it, as in the stream. tool: the session's own name for the call
    (`t1`, `t2`, ...), unique even where a model repeats its ids."""

    tool_id: str
    tool_name: str
    tool: str


class ToolPlanned(_Tool, frozen=True, kw_only=True):
    type: ClassVar[str] = "tool_planned"


class ToolExecuting(_Tool, frozen=True, kw_only=True):
    """input: what it runs with."""

    type: ClassVar[str] = "tool_executing"
    input: dict[str, Any]


class ToolCompleted(_Tool, frozen=True, kw_only=True):
    type: ClassVar[str] = "tool_completed"
    result: ToolOutput


class ToolFailed(_Tool, frozen=True, kw_only=True):
    """outcome: error, denied, unknown or skipped."""

    type: ClassVar[str] = "tool_failed"
    error: str
    outcome: str = "error"


class ErrorOccurred(_State, frozen=True, kw_only=True):
    """recoverable: it is being tried again, or the same request may work later. kind (`category` on the wire): driver,
    persistence, connection or runtime."""

    type: ClassVar[str] = "error_occurred"
    code: str
    message: str
    recoverable: bool
    kind: str | None = field(default=None, name="category")


# -- the stream, as far as it is stored --


class ToolCallNotice(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "tool_call"
    id: str
    name: str
    input: dict[str, Any]


class ToolResultNotice(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "tool_result"
    tool_use_id: str
    result: ToolOutput
    is_error: bool = False


class Interrupted(Signal, frozen=True, kw_only=True):
    """reason: user_interrupt, timeout, error or system."""

    type: ClassVar[str] = "interrupted"
    reason: str


# -- turns --


class TurnRequest(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "turn_request"
    source: ClassVar[str] = "agent"
    category: ClassVar[str] = "turn"
    turn_id: str
    message_id: str
    content: tuple[InputPart, ...]
    timestamp: int


class TurnResponse(Signal, frozen=True, kw_only=True):
    """message_id: of the last answer, or of the request where there is none. duration: milliseconds from the turn's
    start. usage: the sum over all model calls of the turn, failed attempts included; None when no provider counted."""

    type: ClassVar[str] = "turn_response"
    source: ClassVar[str] = "agent"
    category: ClassVar[str] = "turn"
    turn_id: str
    message_id: str
    duration: int
    usage: Usage | None
    model: str | None
    stop_reason: str | None
    timestamp: int


# -- sessions --


class MessagePersisted(Signal, frozen=True, kw_only=True):
    """The message is in the log. Its role and subtype come with the message's own notice."""

    type: ClassVar[str] = "message_persisted"
    source: ClassVar[str] = "session"
    category: ClassVar[str] = "persist"
    intent: ClassVar[str] = "result"
    session_id: str
    message_id: str
    saved_at: int


class SessionResumed(Signal, frozen=True, kw_only=True):
    """Another agent took up a session that an earlier one had left."""

    type: ClassVar[str] = "session_resumed"
    source: ClassVar[str] = "session"
    category: ClassVar[str] = "lifecycle"
    session_id: str
    agent_id: str
    container_id: str


class SessionDestroyed(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "session_destroyed"
    source: ClassVar[str] = "session"
    category: ClassVar[str] = "lifecycle"
    session_id: str
    reason: str
