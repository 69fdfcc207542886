"""Signals into the parts of an answer: one ordered list, each block closed as its kind demands.

Imports the words only. No I/O, no clock; feeding a signal costs the same at the first and at the millionth.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from . import stream
from .content import Native, OutputPart, Text, Thinking, ToolCall, Usage
from .frozen import frozen
from .message import Signal

LARGEST_INPUT_BYTES = 1 << 20
DEEPEST_INPUT = 64
SHOWN_INVALID_CHARS = 1_000


class Assembler:
    """Gathers one answer after another: a `MessageStart` begins anew, a `MessageStop` closes what there is.

    Blocks stand in the order in which they began. At most one block of a kind is open; a delta goes to the open one of
    its kind. A text or thinking delta without an open block begins one, a tool's is ignored. After the stop, nothing is
    taken until the next start. An adapter need not send `MessageStart` at all.
    """

    __slots__ = (
        "_blocks",
        "_closed",
        "_text",
        "_thinking",
        "_tool",
        "message_id",
        "model",
        "stop_reason",
        "stop_sequence",
        "usage",
    )

    message_id: str | None
    model: str | None
    stop_reason: str | None
    stop_sequence: str | None
    usage: Usage | None

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._blocks: list[_Block] = []
        self._text: _Block | None = None
        self._thinking: _Block | None = None
        self._tool: _Block | None = None
        self._closed = False
        self.message_id = self.model = self.stop_reason = self.stop_sequence = None
        self.usage = None

    def feed(self, signal: Signal) -> None:
        """Take the next signal of the answer. Signals of other kinds are passed over. Never raises."""
        kind = type(signal)
        if self._closed and kind is not stream.MessageStart:
            return
        match signal:
            case stream.TextDelta():
                block = self._text
                if block is None:
                    block = self._text = self._open("text")
                block.chunks.append(signal.text)
            case stream.InputJsonDelta():
                if self._tool is not None:
                    self._tool.add_json(signal.partial_json)
            case stream.ThinkingDelta():
                block = self._thinking
                if block is None:
                    block = self._thinking = self._open("thinking")
                block.chunks.append(signal.text)
            case stream.TextBlockStart():
                self._text = self._open("text")
            case stream.TextBlockStop():
                # A block that only carries `extra` may have had no delta, or no start.
                block = self._text or (self._open("text") if signal.extra else None)
                if block is not None:
                    block.extra = signal.extra
                    block.close()
                self._text = None
            case stream.ThinkingStart():
                self._thinking = self._open("thinking")
            case stream.ThinkingStop():
                block = self._thinking or (self._open("thinking") if signal.signature or signal.extra else None)
                if block is not None:
                    block.provider, block.signature, block.extra = signal.provider, signal.signature, signal.extra
                    block.close()
                self._thinking = None
            case stream.ToolUseStart():
                self._tool = self._open("tool")
                self._tool.id, self._tool.name = signal.id, signal.name
            case stream.ToolUseStop():
                if self._tool is not None:
                    self._tool.extra = signal.extra
                    self._tool.close()
                self._tool = None
            case stream.NativeBlock():
                block = self._open("native")
                block.part = Native(provider=signal.provider, block=signal.block, text=clean_text(signal.text))
            case stream.MessageDelta():
                # Providers repeat the running total: the last one said is the one that counts.
                self.usage = signal.usage or self.usage
            case stream.MessageStart():
                self._begin()
                self.message_id, self.model = signal.message.id, signal.message.model
            case stream.MessageStop():
                self.stop_reason, self.stop_sequence = signal.stop_reason, signal.stop_sequence
                self._closed = True

    def parts(self, *, partial: bool = False) -> tuple[OutputPart, ...]:
        """What there is, in order; changes nothing, so asking again gives the same.

        Whole (the provider said that this is the end): what is still open counts as complete; a call whose input is no
        JSON object has `invalid` set. Partial (interrupted, cut off): text is kept as far as it came, unless all that
        came is white space; thinking is kept, with neither a signature nor a provider that would take it back; a call
        that was not finished is dropped. An empty block is dropped either way.
        """
        out = []
        for block in self._blocks:
            open_ = block.part is None
            if partial and open_ and block.kind == "tool":
                continue
            part = block.part or block.build()
            if isinstance(part, Text) and part.extra is None:
                if not (part.text.strip() if partial and open_ else part.text):
                    continue
            elif isinstance(part, Thinking) and not (part.thinking or part.signature or part.extra):
                continue
            out.append(part)
        if partial and all(isinstance(part, Text) and part.extra is None and part.text.isspace() for part in out):
            return ()
        return tuple(out)

    def _open(self, kind: Literal["text", "thinking", "tool", "native"]) -> _Block:
        block = _Block(kind)
        self._blocks.append(block)
        return block


class _Block:
    """One block on its way: pieces while it is open, a part once it is closed."""

    __slots__ = ("chunks", "extra", "id", "kept", "kind", "name", "part", "provider", "signature", "size")

    def __init__(self, kind: Literal["text", "thinking", "tool", "native"]) -> None:
        self.kind = kind
        self.chunks: list[str] = []
        self.part: OutputPart | None = None
        self.extra: dict[str, Any] | None = None
        self.id = self.name = self.provider = ""
        self.signature: str | None = None
        self.size = self.kept = 0

    def add_json(self, piece: str) -> None:
        # What is over the bound is counted and let go, so a runaway call costs no memory.
        self.size += len(piece) if piece.isascii() else len(piece.encode("utf-8", "surrogatepass"))
        if self.kept <= LARGEST_INPUT_BYTES:
            self.chunks.append(piece)
            self.kept += len(piece)

    def close(self) -> None:
        self.part = self.build()
        self.chunks = []

    def build(self) -> OutputPart:
        text = "".join(self.chunks)
        if self.kind == "tool":
            value, invalid = parse_input(text, size=self.size)
            return ToolCall(
                id=self.id, name=self.name, input=value, invalid=invalid, extra=self.extra and frozen(self.extra)
            )
        text = clean_text(text)
        if self.kind == "thinking":
            return Thinking(
                thinking=text, provider=self.provider, signature=self.signature, extra=self.extra and frozen(self.extra)
            )
        return Text(text=text, extra=self.extra and frozen(self.extra))


def parse_input(text: str, *, size: int | None = None) -> tuple[dict[str, Any], str | None]:
    """A call's input from the JSON text that the model wrote: `(object, None)`, or `({}, what it wrote instead)`.

    No text at all is a call without arguments. Refused: malformed JSON, anything but an object at the root, a key given
    twice (two readers might see two different calls), NaN and numbers out of range, more than 1 MiB, more than 64
    levels. What was refused is shown by its first 1,000 characters, its size and the reason. `size`: bytes, where
    `text` is only the head of it. A half surrogate inside a string becomes U+FFFD, because no UTF-8 can hold it.
    """
    if size is None:
        size = len(text.encode("utf-8", "surrogatepass"))
    if size > LARGEST_INPUT_BYTES:
        return {}, _refused(text, size, f"more than {LARGEST_INPUT_BYTES} bytes")
    if not text or text.isspace():
        return {}, None
    text = _whole_surrogates(text)
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except json.JSONDecodeError as error:
        return {}, _refused(text, size, f"not JSON: {error.msg} at character {error.pos}")
    except RecursionError:
        return {}, _refused(text, size, f"more than {DEEPEST_INPUT} levels deep")
    except ValueError as error:
        return {}, _refused(text, size, str(error))
    if not isinstance(value, dict):
        return {}, _refused(text, size, "not an object")
    if text.count("{") + text.count("[") > DEEPEST_INPUT and _deeper(value, DEEPEST_INPUT):
        return {}, _refused(text, size, f"more than {DEEPEST_INPUT} levels deep")
    if "\\ud" in text or "\\uD" in text:
        value = clean_json(value)
    return value, None


def clean_text(text: str) -> str:
    """The text with each half surrogate and each U+0000 replaced by U+FFFD, so that any store and screen takes it."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return _whole_surrogates(text)


def clean_json(value: Any) -> Any:
    """A JSON value with every half surrogate in its texts and keys replaced by U+FFFD."""
    if isinstance(value, str):
        return _whole_surrogates(value)
    if isinstance(value, dict):
        return {_whole_surrogates(key): clean_json(child) for key, child in value.items()}
    if isinstance(value, list):
        return [clean_json(child) for child in value]
    return value


def clean_delta(held: str, delta: str) -> tuple[str, str]:
    """`(what to tell, what to hold)` of a piece of text: a surrogate pair may arrive one half a piece.

    `held` is what the piece before left over; at the end of the block call it once more with an empty delta and
    `clean_text` the rest.
    """
    if delta.isascii() and not held and "\0" not in delta:
        return delta, ""
    text = held + delta
    if text and "\ud800" <= text[-1] <= "\udbff":
        return clean_text(text[:-1]), text[-1]
    return clean_text(text), ""


def _whole_surrogates(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # Through UTF-16, two halves that belong together become one character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _refused(text: str, size: int, why: str) -> str:
    return f"{clean_text(text[:SHOWN_INVALID_CHARS])} [{size} bytes, {why}]"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {clean_text(twice)[:100]!r} is given twice")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:100]} is out of range")
    return value


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    if levels == 0:
        return True
    return any(_deeper(child, levels - 1) for child in (value.values() if isinstance(value, dict) else value))
