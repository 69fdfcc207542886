"""What is seen live while a model answers: the stream and connection signals. Never stored, never decided upon."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct

from .content import Usage
from .message import Signal


class MessageRef(Struct, frozen=True, kw_only=True, rename="camel"):
    """The provider's id of the answer and the model that gives it."""

    id: str
    model: str


class MessageStart(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "message_start"
    message: MessageRef


class TextBlockStart(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "text_content_block_start"


class TextDelta(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "text_delta"
    text: str


class TextBlockStop(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "text_content_block_stop"
    extra: dict[str, Any] | None = None


class ThinkingStart(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "thinking_block_start"


class ThinkingDelta(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "thinking_delta"
    text: str


class ThinkingStop(Signal, frozen=True, kw_only=True):
    """`signature` and `extra` complete the part, see `content.Thinking`."""

    type: ClassVar[str] = "thinking_block_stop"
    provider: str
    signature: str | None = None
    extra: dict[str, Any] | None = None


class ToolUseStart(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "tool_use_content_block_start"
    id: str
    name: str


class InputJsonDelta(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "input_json_delta"
    partial_json: str


class ToolUseStop(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "tool_use_content_block_stop"
    extra: dict[str, Any] | None = None


class NativeBlock(Signal, frozen=True, kw_only=True):
    """A whole block that only its provider understands, see `content.Native`."""

    type: ClassVar[str] = "native_block"
    provider: str
    block: dict[str, Any]
    text: str = ""


class MessageDelta(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "message_delta"
    usage: Usage | None = None


class MessageStop(Signal, frozen=True, kw_only=True):
    """stop_reason: end_turn, tool_use, max_tokens, stop_sequence, refusal, pause_turn, context_exceeded."""

    type: ClassVar[str] = "message_stop"
    stop_reason: str
    stop_sequence: str | None = None


class ErrorReceived(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "error_received"
    message: str
    error_code: str | None = None


class Connected(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "connected"
    category: ClassVar[str] = "connection"


class Disconnected(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "disconnected"
    category: ClassVar[str] = "connection"
    reason: str = ""


class Reconnecting(Signal, frozen=True, kw_only=True):
    type: ClassVar[str] = "reconnecting"
    category: ClassVar[str] = "connection"
    attempt: int
    wait_s: float


class ToolProgress(Signal, frozen=True, kw_only=True):
    """A line of progress from a running tool."""

    type: ClassVar[str] = "progress"
    source: ClassVar[str] = "agent"
    tool_id: str
    text: str
