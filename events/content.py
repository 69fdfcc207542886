"""What a message is made of: parts, token usage, and the items of a model's context. Words only."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr

from .frozen import frozen


class Text(Struct, frozen=True, kw_only=True, rename="camel", tag="text", gc=False):
    """Plain text. `extra` is what the provider wants back with it verbatim (ids, annotations), or None."""

    text: str
    extra: dict[str, Any] | None = None


class Thinking(Struct, frozen=True, kw_only=True, rename="camel", tag="thinking", gc=False):
    """A model's reasoning. `signature` and `extra` prove it to the provider that wrote it; others never see the part.

    provider: who wrote it (`anthropic`, `openai`, ...). Redacted or encrypted reasoning has an empty `thinking`.
    """

    thinking: str
    provider: str
    signature: str | None = None
    extra: dict[str, Any] | None = None


class Image(Struct, frozen=True, kw_only=True, rename="camel", tag="image", gc=False):
    """A picture, either `data` (base64) with its `media_type`, or a `url`."""

    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class File(Struct, frozen=True, kw_only=True, rename="camel", tag="file", gc=False):
    """A document: `data` (base64) with its `media_type`, a `url`, or the provider's `file_id`."""

    media_type: str | None = None
    name: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None


class ToolCall(Struct, frozen=True, kw_only=True, rename="camel", tag="tool-call", gc=False):
    """A call the model asks for. `id` is the provider's own, unique only by its courtesy.

    input: a JSON object. invalid: the head of the text that was no JSON object, None when `input` is what was sent.
    """

    id: str
    name: str
    input: dict[str, Any]
    invalid: str | None = None
    extra: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "input", frozen(self.input))


class ToolResult(Struct, frozen=True, kw_only=True, rename="camel", tag="tool-result", gc=False):
    """The one answer to a call: text, or parts where the tool returned pictures or files."""

    id: str
    name: str
    output: str | tuple[Text | Image | File, ...]
    is_error: bool = False


class Native(Struct, frozen=True, kw_only=True, rename="camel", tag="native", gc=False):
    """A block only its own provider understands (server tools, hosted searches), carried back verbatim.

    text: what a reader may be shown of it, often empty.
    """

    provider: str
    block: dict[str, Any]
    text: str = ""

    def __post_init__(self) -> None:
        force_setattr(self, "block", frozen(self.block))


Part = Text | Thinking | Image | File | ToolCall | ToolResult | Native
"""Any part of a message. The tag (`type`) is the wire name."""

InputPart = Text | Image | File
"""What a person may send."""

OutputPart = Text | Thinking | ToolCall | Native
"""What a model may answer, in the order in which it came."""


class Usage(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Tokens of one model call, as the provider counted them.

    input_tokens counts everything read, cached or not; cache_read_tokens and cache_write_tokens are parts of it.
    output_tokens counts everything written; reasoning_tokens is a part of it. extra: other billed units by name.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    extra: dict[str, int] | None = None


class Cost(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What a model call cost, as worked out when it ended; a replay reads it and never works it out again.

    amount: US dollars as an exact decimal. None: no price is known ("unpriced"), which is not the same as "0".
    table: the price table that was asked, and its version.
    """

    amount: str | None
    table: str


class Tried(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A model that did not answer. reason: the code of its failure. key: the label of the key it was asked with.

    status: the HTTP status, if there was one.
    """

    provider: str
    model: str
    reason: str
    status: int | None = None
    key: str | None = None


class Failure(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Why something did not work, for a person and for a program.

    code: a stable word (see `events.errors`). retryable: the same request may work later.
    retry_after_s: what the provider asked us to wait. status: the HTTP status, if there was one.
    tried: every attempt at a model, where several were asked in vain. available_at: when the first of them may be
    asked again, milliseconds UTC, None where nobody said.
    """

    code: str
    message: str
    retryable: bool = False
    retry_after_s: float | None = None
    status: int | None = None
    tried: tuple[Tried, ...] | None = None
    available_at: int | None = None


class UserItem(Struct, frozen=True, kw_only=True, tag="user", gc=False):
    """An item of the context: what a person said, at `version` of the session."""

    version: int
    parts: tuple[InputPart, ...]


class AssistantItem(Struct, frozen=True, kw_only=True, tag="assistant", gc=False):
    """An item of the context: what the model answered."""

    version: int
    parts: tuple[OutputPart, ...]


class ResultItem(Struct, frozen=True, kw_only=True, tag="result", gc=False):
    """An item of the context: the results that close all calls of the assistant item before it, in their order."""

    version: int
    results: tuple[ToolResult, ...]


Item = UserItem | AssistantItem | ResultItem


def text_of(parts: tuple[Part, ...] | tuple[OutputPart, ...] | tuple[InputPart, ...]) -> str:
    """The text parts, joined without a separator."""
    return "".join(part.text for part in parts if isinstance(part, Text))


def add_usage(one: Usage | None, other: Usage | None) -> Usage | None:
    """Both together, unit by unit. None (not counted) adds nothing; two of them stay None."""
    if one is None or other is None:
        return one or other
    extra = one.extra
    if other.extra:
        extra = dict(one.extra or {})
        for unit, count in other.extra.items():
            extra[unit] = extra.get(unit, 0) + count
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cache_read_tokens=one.cache_read_tokens + other.cache_read_tokens,
        cache_write_tokens=one.cache_write_tokens + other.cache_write_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
        extra=extra,
    )
