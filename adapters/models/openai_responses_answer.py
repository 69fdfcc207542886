"""An answer in the events of the Responses protocol, read into signals and parts. No I/O.

Read leniently: servers leave fields and whole events out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...events import stream
from ...events.assembler import Assembler, clean_delta, clean_text
from ...events.content import Native, OutputPart, Text, Thinking, ToolCall, Usage
from ...events.message import Signal
from ...events.model import ModelAnswer, ModelFailure
from ...events.tool import ToolSpec
from .failures import failure
from .openai_failures import refusal
from .openai_items import PROVIDER
from .openai_parts import count, function_name


class ResponsesReading:
    """Events in, signals out. The final response has the last word: where what was told differs, all is told anew.

    No I/O. Blocks are told live one of a kind at a time; a call that begins while another is open is told when it is
    whole.
    """

    def __init__(self, host: str, tools: Sequence[ToolSpec] = ()) -> None:
        self.request_id: str | None = None
        self.usage: Usage | None = None
        self.done = False
        self._host = host
        self._names = {function_name(tool.name): tool.name for tool in tools}
        self._assembler = Assembler()
        self._out: list[Signal] = []
        self._started = False
        self._id = self._model = self._stop = ""
        self._items: dict[object, _Item] = {}
        self._text: tuple[_Item, int] | None = None
        self._thinking: _Item | None = None
        self._tool: _Item | None = None
        self._waiting: list[tuple[_Item, Mapping[str, Any]]] = []

    # -- what comes --

    def event(self, name: str, data: Any) -> list[Signal]:
        """Take one event. Raises `ModelFailure` when it says that the answer failed."""
        if isinstance(data, Mapping):
            kind = data.get("type")
            self._event(kind if isinstance(kind, str) else name, data)
        out, self._out = self._out, []
        return out

    def whole(self, body: Any) -> list[Signal]:
        """Take an answer that came in one piece, and end it."""
        if isinstance(body, list) and body:
            body = body[0]
        if not isinstance(body, Mapping) or not (body.get("error") or isinstance(body.get("output"), list)):
            raise ModelFailure(
                failure("bad_response", "the answer has no output: is this the right URL?", retryable=False)
            )
        self._begin(body)
        self._end(body, _text(body.get("status")) or ("failed" if body.get("error") else "completed"))
        out, self._out = self._out, []
        return out

    # -- what there is --

    def answer(self) -> ModelAnswer:
        """The answer. Raises `ModelFailure` (stream_cut) when the response never came to its end."""
        if not self.done:
            raise ModelFailure(failure("stream_cut", "the stream ended before the response had"))
        return ModelAnswer(
            parts=self._assembler.parts(),
            stop_reason=self._stop,
            usage=self.usage,
            model=self._model,
            response_id=self._id or None,
            request_id=self.request_id,
        )

    def partial(self) -> tuple[OutputPart, ...]:
        return self._assembler.parts(partial=True)

    # -- one event --

    def _event(self, kind: str, data: Mapping[str, Any]) -> None:
        match kind:
            case "response.output_text.delta":
                self._say(self._item(data), _index(data, "content_index"), _text(data.get("delta")))
            case "response.output_text.done":
                item, index = self._item(data), _index(data, "content_index")
                if index not in item.told:
                    self._say(item, index, _text(data.get("text")))
            case "response.function_call_arguments.delta":
                self._arguments(self._item(data), _text(data.get("delta")))
            case "response.function_call_arguments.done":
                item = self._item(data)
                if not item.told:
                    self._arguments(item, _text(data.get("arguments")))
            case "response.reasoning_summary_text.delta":
                self._think(self._item(data), "summary", _index(data, "summary_index"), _text(data.get("delta")))
            case "response.reasoning_text.delta":
                self._think(self._item(data), "content", _index(data, "content_index"), _text(data.get("delta")))
            case "response.output_item.added":
                self._added(data)
            case "response.output_item.done":
                if isinstance(data.get("item"), Mapping):
                    self._finish(self._item(data), data["item"])
            case "response.created" | "response.in_progress" | "response.queued":
                self._begin(_mapping(data.get("response")))
            case "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled":
                response = _mapping(data.get("response"))
                self._begin(response)
                self._end(response, _text(response.get("status")) or kind.removeprefix("response."))
            case "error":
                raise ModelFailure(refusal(data))
            case _:
                if data.get("error") and not kind.startswith("response."):
                    raise ModelFailure(refusal(data))

    def _item(self, data: Mapping[str, Any]) -> _Item:
        key = data.get("output_index")
        if not isinstance(key, int):
            key = _text(data.get("item_id")) or _text(_mapping(data.get("item")).get("id"))
        item = self._items.get(key)
        if item is None:
            item = self._items[key] = _Item()
        return item

    def _added(self, data: Mapping[str, Any]) -> None:
        self._begin({})
        item, said = self._item(data), _mapping(data.get("item"))
        item.said = said
        if said.get("type") == "reasoning" and self._thinking is None:
            # Most think in silence; that they do is worth telling.
            self._thinking = item
            self._tell(stream.ThinkingStart())
        elif said.get("type") == "function_call" and self._tool is None:
            self._tool = item
            self._tell(stream.ToolUseStart(id=self._call_id(said), name=self._name(said)))

    # -- text --

    def _say(self, item: _Item, index: int, text: str) -> None:
        if not text:
            return
        if self._text != (item, index):
            self._end_text()
            self._text = (item, index)
            self._begin({})
            self._tell(stream.TextBlockStart())
        item.told[index] = "text"
        clean, item.held = clean_delta(item.held, text)
        if clean:
            self._tell(stream.TextDelta(text=clean))

    def _end_text(self, part: Mapping[str, Any] | None = None) -> None:
        if self._text is None:
            return
        item, _ = self._text
        if item.held:
            self._tell(stream.TextDelta(text=clean_text(item.held)))
            item.held = ""
        extra = {"provider": PROVIDER, "host": self._host}
        for name, value in (
            ("id", item.said.get("id")),
            ("phase", item.said.get("phase")),
            ("annotations", (part or {}).get("annotations")),
        ):
            if value:
                extra[name] = value
        self._tell(stream.TextBlockStop(extra=extra))
        self._text = None

    # -- thinking --

    def _think(self, item: _Item, kind: str, index: int, text: str) -> None:
        if not text:
            return
        here = (kind, index)
        if self._thinking is not item or (item.told and here not in item.told):
            self._end_thinking()
            self._thinking = item
            self._begin({})
            self._tell(stream.ThinkingStart())
        item.told[here] = kind
        item.kind = kind
        clean, item.held = clean_delta(item.held, text)
        if clean:
            self._tell(stream.ThinkingDelta(text=clean))

    def _end_thinking(self, said: Mapping[str, Any] | None = None) -> None:
        item = self._thinking
        if item is None:
            return
        if item.held:
            self._tell(stream.ThinkingDelta(text=clean_text(item.held)))
            item.held = ""
        extra: dict[str, Any] = {"host": self._host}
        for name, value in (
            ("id", item.said.get("id")),
            ("as", "content" if item.kind == "content" else None),
            ("encrypted_content", (said or {}).get("encrypted_content")),
        ):
            if value:
                extra[name] = value
        # Nothing seen and nothing to give back: nothing to keep.
        empty = not item.told and "encrypted_content" not in extra
        self._tell(stream.ThinkingStop(provider=PROVIDER, extra=None if empty else extra))
        self._thinking = None

    # -- calls --

    def _arguments(self, item: _Item, text: str) -> None:
        if item is self._tool and text:
            item.told[0] = "arguments"
            self._tell(stream.InputJsonDelta(partial_json=text))

    def _call_id(self, said: Mapping[str, Any]) -> str:
        return _text(said.get("call_id")) or _text(said.get("id")) or f"call_{len(self._items)}"

    def _name(self, said: Mapping[str, Any]) -> str:
        name = _text(said.get("name"))
        return clean_text(self._names.get(name, name))

    # -- items --

    def _finish(self, item: _Item, said: Mapping[str, Any]) -> None:
        """An item is whole: tell what was not told yet, and close it."""
        self._begin({})
        item.said = said
        match said.get("type"):
            case "message" if said.get("role", "assistant") == "assistant":
                self._finish_message(item, said)
            case "reasoning":
                self._finish_reasoning(item, said)
            case "function_call":
                if self._tool is not None and self._tool is not item:
                    self._waiting.append((item, said))
                    return
                self._finish_call(item, said)
                waiting, self._waiting = self._waiting, []
                for later in waiting:
                    self._finish_call(*later)
            case _:
                self._tell(stream.NativeBlock(provider=PROVIDER, block=dict(said), text=_shown(said)))

    def _finish_message(self, item: _Item, said: Mapping[str, Any]) -> None:
        for index, part in enumerate(_mappings(said.get("content"))):
            if part.get("type") == "refusal":
                words = clean_text(_text(part.get("refusal")))
                self._tell(
                    stream.NativeBlock(provider=PROVIDER, block={"type": "refusal", "refusal": words}, text=words)
                )
                continue
            if index not in item.told:
                self._say(item, index, _text(part.get("text")))
            if self._text == (item, index):
                self._end_text(part)

    def _finish_reasoning(self, item: _Item, said: Mapping[str, Any]) -> None:
        if not item.told:
            for kind in ("summary", "content"):
                for index, part in enumerate(_mappings(said.get(kind))):
                    self._think(item, kind, index, _text(part.get("text")))
        if self._thinking is not item and said.get("encrypted_content"):
            self._end_thinking()
            self._thinking = item
            self._tell(stream.ThinkingStart())
        if self._thinking is item:
            self._end_thinking(said)

    def _finish_call(self, item: _Item, said: Mapping[str, Any]) -> None:
        if self._tool is not item:
            self._tool = item
            self._tell(stream.ToolUseStart(id=self._call_id(said), name=self._name(said)))
        if not item.told:
            self._arguments(item, _text(said.get("arguments")))
        extra = {"provider": PROVIDER, "host": self._host}
        extra |= {name: said[name] for name in ("id", "namespace", "caller") if said.get(name)}
        self._tell(stream.ToolUseStop(extra=extra))
        self._tool = None

    # -- the end --

    def _end(self, response: Mapping[str, Any], status: str) -> None:
        usage = response.get("usage")
        if isinstance(usage, Mapping) and status not in _UNFINISHED:
            self.usage = responses_usage(usage)
            self._tell(stream.MessageDelta(usage=self.usage))
        if status == "failed":
            raise ModelFailure(refusal({"error": response.get("error") or {"message": "the response failed"}}))
        if status == "cancelled":
            raise ModelFailure(failure("bad_response", "the response was cancelled at the provider"))
        self._close()
        output = list(_mappings(response.get("output")))
        if output:
            self._settle(output)
        self._stop = self._stop_reason(response, status)
        self._tell(stream.MessageStop(stop_reason=self._stop))
        self.done = True

    def _close(self) -> None:
        """Close what its own events left open."""
        self._end_text()
        self._end_thinking()
        if self._tool is not None:
            self._finish_call(self._tool, self._tool.said)
        for item, said in self._waiting:
            self._finish_call(item, said)
        self._waiting = []

    def _settle(self, output: list[Mapping[str, Any]]) -> None:
        """Compare what was told with the final list, and where they differ tell that anew."""
        final = ResponsesReading(self._host)
        final._names = self._names
        final._started = True
        for said in output:
            final._finish(_Item(), said)
        if _gist(final._assembler.parts()) != _gist(self._assembler.parts()):
            self._started = False
            self._begin({})
            for signal in final._out:
                self._tell(signal)

    def _stop_reason(self, response: Mapping[str, Any], status: str) -> str:
        parts = self._assembler.parts()
        if status == "incomplete":
            reason = _mapping(response.get("incomplete_details")).get("reason")
            return "refusal" if reason == "content_filter" else "max_tokens"
        if status in ("queued", "in_progress"):
            return "pause_turn"  # a server put it into the background; asking again goes on
        if any(isinstance(part, ToolCall) for part in parts):
            return "tool_use"
        if any(isinstance(part, Native) and part.block.get("type") == "refusal" for part in parts):
            return "refusal"
        return "end_turn"

    def _begin(self, response: Mapping[str, Any]) -> None:
        self._id = self._id or _text(response.get("id"))
        self._model = self._model or _text(response.get("model"))
        if not self._started:
            self._started = True
            self._tell(stream.MessageStart(message=stream.MessageRef(id=self._id, model=self._model)))
            if self.usage is not None:
                self._tell(stream.MessageDelta(usage=self.usage))

    def _tell(self, signal: Signal) -> None:
        self._assembler.feed(signal)
        self._out.append(signal)


_UNFINISHED = ("queued", "in_progress", "cancelled")
"""What is counted with these is no final count: what more is used, or was, nobody says."""


class _Item:
    """An output item on its way. said: the item as it was last given; told: what of it was told live, by place."""

    __slots__ = ("held", "kind", "said", "told")

    def __init__(self) -> None:
        self.said: Mapping[str, Any] = {}
        self.told: dict[object, str] = {}
        self.held = ""
        self.kind = ""


def responses_usage(usage: Mapping[str, Any]) -> Usage:
    """Tokens as our words count them."""
    read, wrote = _mapping(usage.get("input_tokens_details")), _mapping(usage.get("output_tokens_details"))
    extra = {
        name: number
        for name, number in (
            ("server_tools", count(usage, "num_server_side_tools_used")),
            ("sources", count(usage, "num_sources_used")),
        )
        if number
    }
    return Usage(
        input_tokens=count(usage, "input_tokens"),
        output_tokens=count(usage, "output_tokens"),
        cache_read_tokens=count(read, "cached_tokens"),
        cache_write_tokens=count(read, "cache_write_tokens"),
        reasoning_tokens=count(wrote, "reasoning_tokens"),
        extra=extra or None,
    )


def _gist(parts: Sequence[OutputPart]) -> list[tuple[object, ...]]:
    """What must agree between what was told and what is final: all but ids and proofs, which may be made anew."""
    out: list[tuple[object, ...]] = []
    for part in parts:
        match part:
            case Text():
                out.append(("text", part.text))
            case Thinking():
                out.append(("thinking", part.thinking))
            case ToolCall():
                out.append(("call", part.id, part.name, part.input, part.invalid))
            case Native():
                out.append(("native", part.block.get("type"), part.text))
    return out


def _shown(item: Mapping[str, Any]) -> str:
    """What a reader may be shown of a block: nothing of most."""
    for name in ("code", "input", "result") if item.get("type") != "image_generation_call" else ():
        if isinstance(item.get(name), str):
            return clean_text(item[name])
    return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, Mapping))


def _index(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    return value if isinstance(value, int) else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
