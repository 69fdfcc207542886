"""An answer in Anthropic's words, as it comes: events in, signals out; and what was counted.

Imports no SDK and does no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ...events.assembler import Assembler, clean_delta, clean_json, clean_text, parse_input
from ...events.content import Failure, ToolCall, Usage
from ...events.message import Signal
from ...events.model import ModelAnswer, ModelFailure
from ...events.stream import (
    InputJsonDelta,
    MessageDelta,
    MessageRef,
    MessageStart,
    MessageStop,
    NativeBlock,
    TextBlockStart,
    TextBlockStop,
    TextDelta,
    ThinkingDelta,
    ThinkingStart,
    ThinkingStop,
    ToolUseStart,
    ToolUseStop,
)
from .anthropic_failures import event_failure
from .anthropic_request import PROVIDER
from .failures import failure, not_an_answer

LONGEST_SHOWN_CHARS = 200

_NOTHING: tuple[Signal, ...] = ()
# Deltas whose text may end in half a character.
_TEXTS = frozenset(("text_delta", "thinking_delta", "input_json_delta"))


class Reader:
    """One answer on its way. `names`: the tools' own names by the names that the provider was given."""

    __slots__ = (
        "_assembler",
        "_blocks",
        "_counted",
        "_names",
        "_raw",
        "_started",
        "_stop",
        "_told",
        "done",
        "request_id",
    )

    def __init__(self, names: Mapping[str, str]) -> None:
        self._assembler = Assembler()
        self._blocks: dict[Any, _Block] = {}
        self._names = names
        self._raw: dict[str, Any] = {}
        self._counted = False
        self._told: Usage | None = None
        self._started = False
        self._stop: tuple[str | None, str | None] = (None, None)
        self.done = False
        self.request_id: str | None = None

    def take(self, data: bytes, *, last: bool = False) -> Sequence[Signal]:
        """The signals of one event. `last`: the stream ended without closing it, so it may be the head of one.

        Raises `ModelFailure` when the event is an error, or makes no sense.
        """
        try:
            event = _decode(data)
        except ValueError:
            if last or data.startswith(b"[DONE]"):
                return _NOTHING
            head = data[:LONGEST_SHOWN_CHARS].decode("utf-8", "replace")
            raise self.failed(failure("stream_error", f"an event of the stream is not JSON: {head}")) from None
        return self._fed(event) if isinstance(event, dict) else _NOTHING

    def whole(self, text: bytes, *, status: int, kind: str) -> list[Signal]:
        """The signals of an answer that came in one piece of JSON; `kind` is its content type.

        Raises `ModelFailure` when it is no answer.
        """
        try:
            message = _decode(text)
        except ValueError:
            message = None
        if isinstance(message, dict) and "error" in message:
            raise self.failed(event_failure(message))
        content = message.get("content", 0) if isinstance(message, dict) else 0
        if not isinstance(message, dict) or not (content is None or isinstance(content, list)):
            if text.lstrip()[:1] == b"{" and text.rstrip()[-1:] != b"}":
                raise self.failed(failure("stream_cut", "the answer broke off"))
            said = not_an_answer(status, kind, text.decode("utf-8", "replace"))
            raise self.failed(failure("bad_response", said, status=status))
        events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
        for index, block in enumerate(content or []):
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events.append({"type": "content_block_stop", "index": index})
        events.append({"type": "message_delta", "delta": message, "usage": message.get("usage")})
        events.append({"type": "message_stop"})
        return [signal for event in events for signal in self._fed(event)]

    def answer(self) -> ModelAnswer:
        """What was told, as one answer; raises `ModelFailure` (stream_cut) when the provider never said it was all."""
        assembler = self._assembler
        if assembler.stop_reason is None:
            raise self.failed(failure("stream_cut", "the stream ended before the answer did"))
        return ModelAnswer(
            parts=assembler.parts(),
            stop_reason=assembler.stop_reason,
            usage=assembler.usage,
            model=assembler.model or "",
            response_id=assembler.message_id or None,
            stop_sequence=assembler.stop_sequence,
            request_id=self.request_id,
        )

    def failed(self, found: Failure, request_id: str | None = None) -> ModelFailure:
        """The failure, with what had come by now, and what was counted."""
        return ModelFailure(
            found,
            partial=self._assembler.parts(partial=True),
            usage=_usage(self._raw),
            request_id=request_id or self.request_id,
            final=self._counted,
        )

    def _fed(self, event: dict[str, Any]) -> Sequence[Signal]:
        signals = self._signals(event)
        for signal in signals:
            self._assembler.feed(signal)
        return signals

    def _signals(self, event: dict[str, Any]) -> Sequence[Signal]:
        match event.get("type"):
            case "content_block_delta":
                delta, index = _object(event, "delta"), _index(event)
                block = self._blocks.get(index)
                return block.delta(delta) if block is not None else self._delta_of_none(index, delta)
            case "content_block_start":
                index = _index(event)
                # A repeated beginning is a repeated event, not another block.
                return _NOTHING if index in self._blocks else self._begin(index, _object(event, "content_block"))
            case "content_block_stop":
                ended = self._blocks.pop(_index(event), None)
                return ended.end() if ended is not None else _NOTHING
            case "message_start" if not self._started:
                self._started = True
                message = _object(event, "message")
                self._count(message.get("usage"))
                ref = MessageRef(id=clean_text(_text(message, "id")), model=clean_text(_text(message, "model")))
                return (MessageStart(message=ref),)
            case "message_delta":
                delta = _object(event, "delta")
                reason, sequence = _text(delta, "stop_reason") or self._stop[0], delta.get("stop_sequence")
                self._stop = (reason, clean_text(sequence) if isinstance(sequence, str) else self._stop[1])
                usage = event.get("usage")
                self._count(usage)
                if self._stop[0] and isinstance(usage, dict) and usage.get("output_tokens") is not None:
                    self._counted = True
                return self._usage_told()
            case "message_stop" if not self.done:
                self.done = True
                ends = [signal for block in self._blocks.values() for signal in block.end()]
                self._blocks = {}
                reason = self._stop_reason(ends)
                return (*ends, *self._usage_told(), MessageStop(stop_reason=reason, stop_sequence=self._stop[1]))
            case "error":
                raise self.failed(event_failure(event), _text(event, "request_id") or None)
        return _NOTHING

    def _delta_of_none(self, index: Any, delta: dict[str, Any]) -> Sequence[Signal]:
        # Text can do without its beginning. A call or a signature cannot: better fail than guess.
        kind = {"text_delta": "text", "thinking_delta": "thinking"}.get(_text(delta, "type"))
        if kind is None:
            raise self.failed(failure("stream_error", "the stream lost the beginning of a block"))
        return (*self._begin(index, {"type": kind}), *self._blocks[index].delta(delta))

    def _begin(self, index: Any, start: dict[str, Any]) -> Sequence[Signal]:
        block = self._blocks[index] = _Block(start, self._names)
        return block.begin()

    def _stop_reason(self, ends: Sequence[Signal]) -> str:
        reason = self._stop[0]
        if reason == "model_context_window_exceeded":
            return "context_exceeded"
        if reason:
            return clean_text(reason)
        calls = any(isinstance(part, ToolCall) for part in self._assembler.parts(partial=True))
        return "tool_use" if calls or any(isinstance(end, ToolUseStop) for end in ends) else "end_turn"

    def _count(self, usage: Any) -> None:
        # Each report repeats the totals it knows; what it leaves out still stands.
        if isinstance(usage, dict):
            self._raw.update((name, value) for name, value in usage.items() if value is not None)

    def _usage(self) -> Usage | None:
        """What was counted at the end. What is counted at the beginning, one token of output, is no count."""
        return _usage(self._raw) if self._counted else None

    def _usage_told(self) -> Sequence[Signal]:
        usage = self._usage()
        if usage == self._told:
            return _NOTHING
        self._told = usage
        return (MessageDelta(usage=usage),)


class _Block:
    """One content block between its start and its stop."""

    __slots__ = ("_citations", "_held", "_kind", "_names", "_pieces", "_signature", "_start", "_wrote")

    def __init__(self, start: dict[str, Any], names: Mapping[str, str]) -> None:
        self._start = start
        self._names = names
        self._kind = start.get("type")
        self._citations: list[Any] = list(start["citations"]) if isinstance(start.get("citations"), list) else []
        self._signature = _text(start, "signature")
        self._held = ""
        self._pieces: list[str] = []
        self._wrote = False

    def begin(self) -> Sequence[Signal]:
        start = self._start
        match self._kind:
            case "text":
                return (TextBlockStart(), *self._told(_text(start, "text"), TextDelta))
            case "thinking":
                return (ThinkingStart(), *self._told(_text(start, "thinking"), ThinkingDelta))
            case "redacted_thinking":
                return (ThinkingStart(),)
            case "tool_use":
                name = _text(start, "name")
                return (ToolUseStart(id=clean_text(_text(start, "id")), name=clean_text(self._names.get(name, name))),)
        return _NOTHING

    def delta(self, delta: dict[str, Any]) -> Sequence[Signal]:
        match self._kind, delta.get("type"):
            case "text", "text_delta":
                return self._told(_text(delta, "text"), TextDelta)
            case "tool_use", "input_json_delta":
                piece = _text(delta, "partial_json")
                self._wrote = self._wrote or piece != ""
                return (InputJsonDelta(partial_json=piece),) if piece else _NOTHING
            case "thinking", "thinking_delta":
                return self._told(_text(delta, "thinking"), ThinkingDelta)
            case "thinking", "signature_delta":
                self._signature = _text(delta, "signature") or self._signature
            case "text", "citations_delta":
                self._citations.append(delta.get("citation"))
            case (("text" | "thinking" | "redacted_thinking" | "tool_use"), _):
                pass
            case _, "input_json_delta":
                self._pieces.append(_text(delta, "partial_json"))
            case _:
                self._fold(delta)
        return _NOTHING

    def end(self) -> Sequence[Signal]:
        start = self._start
        match self._kind:
            case "text":
                extra = {"provider": PROVIDER, "citations": self._citations} if self._citations else None
                return (*self._left(TextDelta), TextBlockStop(extra=extra))
            case "thinking":
                stop = ThinkingStop(provider=PROVIDER, signature=self._signature or None)
                return (*self._left(ThinkingDelta), stop)
            case "redacted_thinking":
                data = {"type": "redacted_thinking", "data": _text(start, "data")}
                return (ThinkingStop(provider=PROVIDER, extra=data),)
            case "tool_use":
                given, caller = start.get("input"), start.get("caller")
                hosted = isinstance(caller, dict) and caller.get("type") != "direct"
                stopped = ToolUseStop(extra={"provider": PROVIDER, "caller": caller} if hosted else None)
                if self._wrote or not given:
                    return (stopped,)
                written = given if isinstance(given, str) else json.dumps(given)
                return (InputJsonDelta(partial_json=written), stopped)
        block = dict(start)
        if written := "".join(self._pieces):
            block["input"] = parse_input(written)[0]
        return (NativeBlock(provider=PROVIDER, block=block, text=clean_text(_shown(block))),)

    def _told(self, text: str, kind: type[TextDelta] | type[ThinkingDelta]) -> Sequence[Signal]:
        told, self._held = clean_delta(self._held, text)
        return (kind(text=told),) if told else _NOTHING

    def _left(self, kind: type[TextDelta] | type[ThinkingDelta]) -> Sequence[Signal]:
        return (kind(text=clean_text(self._held)),) if self._held else _NOTHING

    def _fold(self, delta: dict[str, Any]) -> None:
        """A piece of a block that only its provider understands: text goes on text, lists on lists, the rest is set."""
        block = self._start = dict(self._start)
        if delta.get("type") == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta.get("citation")]
            return
        for name, value in delta.items():
            if name == "type" or value is None:
                continue
            there = block.get(name)
            kind = type(there) if type(there) is type(value) else None
            block[name] = there + value if kind in (str, list) else value


def _decode(data: bytes) -> Any:
    """JSON, or ValueError. Half a character is no text to msgspec, but a piece of text may well end in one."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            value = json.loads(data, parse_constant=_no_number)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
    piece = value.get("delta") if isinstance(value, dict) else None
    return value if isinstance(piece, dict) and _text(piece, "type") in _TEXTS else clean_json(value)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _object(event: dict[str, Any], name: str) -> dict[str, Any]:
    value = event.get(name)
    return value if isinstance(value, dict) else {}


def _text(event: dict[str, Any], name: str) -> str:
    value = event.get(name)
    return value if isinstance(value, str) else ""


def _index(event: dict[str, Any]) -> int | str | None:
    value = event.get("index")
    return value if isinstance(value, int | str) else None


def _shown(block: dict[str, Any]) -> str:
    """What a reader may be shown of a block that only the provider understands."""
    if not _text(block, "type").endswith("tool_use"):
        return _text(block, "content")
    text = f"{_text(block, 'name')} {json.dumps(block.get('input', {}), ensure_ascii=False)}"
    return text if len(text) <= LONGEST_SHOWN_CHARS else text[:LONGEST_SHOWN_CHARS] + "..."


# -- what was counted --


def _usage(raw: dict[str, Any]) -> Usage | None:
    """The provider's counts in our words, None when it gave none. What is no count, or is below zero, counts as zero.

    Its `input_tokens` leaves out what came from or went to the cache; ours counts all. Billed beside it, in `extra`:
    requests of hosted tools (`web_search_requests`), cache writes kept for an hour, and the tokens of steps that are no
    part of the answer (`compaction_input_tokens`, `advisor_message_output_tokens`).
    """
    if not raw:
        return None
    read, written = _number(raw, "cache_read_input_tokens"), _number(raw, "cache_creation_input_tokens")
    hosted = _object(raw, "server_tool_use")
    extra = {name: _number(hosted, name) for name in hosted}
    extra["cache_write_1h_tokens"] = _number(_object(raw, "cache_creation"), "ephemeral_1h_input_tokens")
    iterations = raw.get("iterations")
    for step in iterations if isinstance(iterations, list) else ():
        kind = step.get("type") if isinstance(step, dict) else None
        if isinstance(kind, str) and kind != "message":
            for count in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
                name = f"{kind}_{count}"
                extra[name] = extra.get(name, 0) + _number(step, count)
    return Usage(
        input_tokens=_number(raw, "input_tokens") + read + written,
        output_tokens=_number(raw, "output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=_number(_object(raw, "output_tokens_details"), "thinking_tokens"),
        extra={name: value for name, value in extra.items() if value} or None,
    )


def _number(counts: dict[str, Any], name: str) -> int:
    value = counts.get(name)
    return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else 0
