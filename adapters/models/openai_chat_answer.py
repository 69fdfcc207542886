"""An answer in Chat Completions chunks, read into signals and parts. No I/O.

Read leniently: fields are missing, null, doubled or somewhere else, depending on the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ...events import stream
from ...events.assembler import LARGEST_INPUT_BYTES, Assembler, clean_delta, clean_text, parse_input
from ...events.content import OutputPart, Usage
from ...events.message import Signal
from ...events.model import ModelAnswer, ModelFailure
from ...events.tool import ToolSpec
from .failures import failure
from .openai_failures import refusal
from .openai_host import DONE
from .openai_messages import PROVIDER
from .openai_parts import count, function_name

_STOPS = {
    "stop": "end_turn",
    "eos": "end_turn",
    "end_turn": "end_turn",
    "tool_calls": "tool_use",
    "tool_use": "tool_use",
    "function_call": "tool_use",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "model_length": "max_tokens",
    "content_filter": "refusal",
    "safety": "refusal",
    "refusal": "refusal",
}

_BROKEN_STOPS = {
    "error": "server_error",
    "insufficient_system_resource": "overloaded",
    "abort": "server_error",
    "malformed_function_call": "bad_response",
}


class ChatReading:
    """Chunks in, signals out. Of several choices the first counts. No I/O.

    Thinking ends where text or a call begins; text stays open to the end, since its sources come late. The first call
    that is not whole yet is told as it comes, the others after it.
    """

    def __init__(self, host: str, tools: Sequence[ToolSpec] = ()) -> None:
        self.request_id: str | None = None
        self._counted: Usage | None = None
        self.done = False
        self._host = host
        self._names = {function_name(tool.name): tool.name for tool in tools}
        self._assembler = Assembler()
        self._out: list[Signal] = []
        self._id = self._model = ""
        self._started = self._in_text = self._in_thinking = False
        self._held_text = self._held_thinking = ""
        self._field = ""
        self._details: list[dict[str, Any]] = []
        self._thought: list[str] = []
        self._sources: dict[str, Any] = {}
        self._refused = ""
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._front = 0
        self._finish: str | None = None
        self._stop = ""

    # -- what comes --

    def event(self, name: str, data: Any) -> list[Signal]:
        """Take one chunk. Raises `ModelFailure` when it says that the answer failed."""
        if data is DONE:
            self.done = True
        elif isinstance(data, Mapping):
            if name == "error" and "error" not in data:
                raise ModelFailure(refusal(data))
            self._chunk(data)
        out, self._out = self._out, []
        return out

    def whole(self, body: Any) -> list[Signal]:
        """Take an answer that came in one piece, and end it."""
        if isinstance(body, list) and body:
            body = body[0]
        if not isinstance(body, Mapping):
            body = {}
        if not body.get("error") and not _choices(body):
            raise ModelFailure(
                failure("bad_response", "the answer has no choices: is this the right URL?", retryable=False)
            )
        self._chunk(body, first="message", second="delta")
        if self._finish is None:
            self._finish = "stop"  # what came in one piece is whole
        return self.end()

    def end(self) -> list[Signal]:
        """No more will come. Raises `ModelFailure` (stream_cut) when the model had not finished."""
        if self._finish is None:
            raise ModelFailure(failure("stream_cut", "the stream ended before the model had finished"))
        broken = _BROKEN_STOPS.get(self._finish.lower())
        if broken is not None:
            raise ModelFailure(failure(broken, f"the provider broke the answer off: {self._finish}"))
        self._end_thinking()
        self._end_text()
        for number in range(self._front, len(self._calls)):
            self._tell_call(self._calls[number])
            self._end_call(self._calls[number])
        if self._refused:
            words = clean_text(self._refused)
            self._tell(stream.NativeBlock(provider=PROVIDER, block={"type": "refusal", "refusal": words}, text=words))
        stop = _STOPS.get(self._finish.lower(), "end_turn")
        if stop == "end_turn" and self._refused:
            stop = "refusal"
        if stop == "end_turn" and self._calls:
            # A forced call ends in `stop`, with some servers every call does.
            stop = "tool_use"
        if stop == "tool_use" and not self._calls:
            stop = "end_turn"
        self._stop = stop
        if self.usage is not None:
            self._tell(stream.MessageDelta(usage=self.usage))
        self._tell(stream.MessageStop(stop_reason=stop))
        out, self._out = self._out, []
        return out

    # -- what there is --

    @property
    def usage(self) -> Usage | None:
        """What was counted when the model had said its last word; what was counted before is no count of the rest."""
        return None if self._finish is None else self._counted

    def answer(self) -> ModelAnswer:
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

    # -- one chunk --

    def _chunk(self, data: Mapping[str, Any], *, first: str = "delta", second: str = "message") -> None:
        self._id = self._id or _text(data.get("id"))
        self._model = self._model or _text(data.get("model"))
        usage = data.get("usage")
        if isinstance(usage, Mapping):
            self._counted = chat_usage(usage)
        if data.get("error"):
            raise ModelFailure(refusal(data))
        for name in ("citations", "search_results"):
            if isinstance(data.get(name), list) and data[name]:
                self._sources[name] = data[name]
        choice = _choices(data)
        if choice is None:
            return
        self._begin()
        if choice.get("error"):
            raise ModelFailure(refusal(choice))
        # Some send both, one of them for show.
        name = first if isinstance(choice.get(first), Mapping) else second
        if isinstance(choice.get(name), Mapping):
            if self._counted is not None and not isinstance(usage, Mapping) and _says(choice[name]):
                self._counted = None
            self._delta(choice[name], whole=name == "message")
        if isinstance(choice.get("finish_reason"), str) and choice["finish_reason"]:
            self._finish = choice["finish_reason"]

    def _delta(self, said: Mapping[str, Any], *, whole: bool) -> None:
        listed = said.get("reasoning_details")
        details = [detail for detail in listed if isinstance(detail, Mapping)] if isinstance(listed, list) else []
        for detail in details:
            _merge(self._details, detail)
        for field in ("reasoning_content", "reasoning"):
            # Some send the same under both names.
            if isinstance(said.get(field), str) and said[field]:
                self._field = field
                self._think(said[field])
                break
        else:
            for detail in details:
                self._think(_text(detail.get("text")) or _text(detail.get("summary")))
        content = said.get("content")
        if isinstance(content, str):
            self._say(content)
        elif isinstance(content, list):
            self._pieces(content)
        if isinstance(said.get("refusal"), str):
            self._refused += said["refusal"]
        if isinstance(said.get("annotations"), list) and said["annotations"]:
            self._sources["annotations"] = said["annotations"]
        calls = said.get("tool_calls")
        if isinstance(calls, list):
            for number, call in enumerate(calls):
                if isinstance(call, Mapping):
                    self._call(call, number if whole else call.get("index"))
        elif isinstance(said.get("function_call"), Mapping):
            self._call({"function": said["function_call"]}, 0)

    def _pieces(self, content: list[Any]) -> None:
        """Content as a list of typed pieces, as some send it."""
        for piece in content:
            if not isinstance(piece, Mapping):
                continue
            if piece.get("type") == "thinking":
                inner = piece.get("thinking")
                for part in inner if isinstance(inner, list) else [{"text": inner}]:
                    if isinstance(part, Mapping):
                        self._think(_text(part.get("text")))
            else:
                self._say(_text(piece.get("text")))

    def _say(self, text: str) -> None:
        if not text:
            return
        self._end_thinking()
        if not self._in_text:
            self._in_text = True
            self._tell(stream.TextBlockStart())
        clean, self._held_text = clean_delta(self._held_text, text)
        if clean:
            self._tell(stream.TextDelta(text=clean))

    def _end_text(self) -> None:
        if not self._in_text:
            return
        if self._held_text:
            self._tell(stream.TextDelta(text=clean_text(self._held_text)))
        extra = {"provider": PROVIDER, **self._sources} if self._sources else None
        self._tell(stream.TextBlockStop(extra=extra))
        self._in_text = False

    def _think(self, text: str) -> None:
        if not text:
            return
        if not self._in_thinking:
            self._in_thinking = True
            self._tell(stream.ThinkingStart())
        clean, self._held_thinking = clean_delta(self._held_thinking, text)
        if clean:
            self._thought.append(clean)
            self._tell(stream.ThinkingDelta(text=clean))

    def _end_thinking(self) -> None:
        if not self._in_thinking and not self._details:
            return
        if not self._in_thinking:
            self._tell(stream.ThinkingStart())
        if self._held_thinking:
            self._tell(stream.ThinkingDelta(text=clean_text(self._held_thinking)))
            self._held_thinking = ""
        extra: dict[str, Any] = {"host": self._host}
        if self._details:
            extra["details"] = self._details
            only, thought = self._details[0], "".join(self._thought)
            for name in ("text", "summary"):
                # The details carry the text once more: it is kept in the part and put back from there.
                if len(self._details) == 1 and thought and only.get(name) == thought:
                    del only[name]
                    extra["said"] = name
        elif self._field:
            extra["field"] = self._field
        self._tell(stream.ThinkingStop(provider=PROVIDER, extra=extra))
        self._in_thinking, self._details, self._thought, self._field = False, [], [], ""

    # -- calls --

    def _call(self, said: Mapping[str, Any], index: Any) -> None:
        self._end_thinking()
        function = said.get("function")
        function = function if isinstance(function, Mapping) else said
        id, name = _text(said.get("id")), _text(function.get("name"))
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):
            arguments = msgspec.json.encode(arguments).decode()
        call = self._find(index, id, name, more=bool(arguments))
        call.id = call.id or id
        if name != call.name:
            call.name += name
        if isinstance(said.get("extra_content"), Mapping):
            call.extra = {"provider": PROVIDER, "host": self._host, "extra_content": said["extra_content"]}
        if isinstance(arguments, str) and arguments:
            call.add(arguments)
        self._advance()

    def _find(self, index: Any, id: str, name: str, *, more: bool) -> _Call:
        """The call that a fragment belongs to: by its index, but some servers number none of them, or all alike."""
        if isinstance(index, int):
            call = self._by_index.get(index)
        elif id:
            call = next((call for call in reversed(self._calls) if call.id == id), None)
        else:
            call = self._calls[-1] if self._calls else None
        if call is not None and name and call.name:
            # A head where the call is whole is the head of another; under the same id only if it brings arguments.
            other = bool(id and call.id and id != call.id)
            if call.whole(empty=other) and (other or more):
                call = None
        if call is None:
            call = _Call(len(self._calls))
            self._calls.append(call)
            if isinstance(index, int):
                self._by_index[index] = call
        return call

    def _advance(self) -> None:
        while True:
            call = self._calls[self._front]
            last = self._front == len(self._calls) - 1
            # Until there are arguments, the name may still be growing.
            if call.name and call.pieces:
                self._tell_call(call)
            # Its fragments may go on coming, between those of the next.
            if last or not call.name or not call.whole():
                return
            self._end_call(call)
            self._front += 1

    def _tell_call(self, call: _Call) -> None:
        if not call.told:
            call.told = True
            name = self._names.get(call.name, call.name)
            self._tell(stream.ToolUseStart(id=call.id or f"call_{call.number}", name=clean_text(name)))
        for piece in call.pieces:
            self._tell(stream.InputJsonDelta(partial_json=piece))
        call.pieces = []

    def _end_call(self, call: _Call) -> None:
        self._tell(stream.ToolUseStop(extra=call.extra))

    def _begin(self) -> None:
        if not self._started:
            self._started = True
            self._tell(stream.MessageStart(message=stream.MessageRef(id=self._id, model=self._model)))

    def _tell(self, signal: Signal) -> None:
        self._assembler.feed(signal)
        self._out.append(signal)


class _Call:
    """A call on its way. pieces: arguments that nobody was told of; text: all of them, unless there are too many."""

    __slots__ = ("extra", "id", "name", "number", "pieces", "size", "text", "told")

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = self.name = ""
        self.pieces: list[str] = []
        self.text: list[str] = []
        self.size = 0
        self.told = False
        self.extra: dict[str, Any] | None = None

    def add(self, piece: str) -> None:
        self.pieces.append(piece)
        self.size += len(piece)
        if self.size <= LARGEST_INPUT_BYTES:
            self.text.append(piece)

    def whole(self, *, empty: bool = False) -> bool:
        """Whether its arguments are a JSON object already; without any, as `empty` says."""
        if not self.size:
            return empty
        if self.size > LARGEST_INPUT_BYTES or not self.text[-1].rstrip().endswith("}"):
            return False
        return parse_input("".join(self.text))[1] is None


def chat_usage(usage: Mapping[str, Any]) -> Usage:
    """Tokens as our words count them.

    Some count the reasoning apart from the output: then the total says so, and it is added.
    """
    read, wrote = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    read = read if isinstance(read, Mapping) else {}
    wrote = wrote if isinstance(wrote, Mapping) else {}
    prompt, output, total = (count(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    reasoning = count(wrote, "reasoning_tokens") or count(usage, "reasoning_tokens")
    cached = count(read, "cached_tokens") or count(usage, "prompt_cache_hit_tokens") or count(usage, "cached_tokens")
    if total > prompt + output:
        reasoning = reasoning or total - prompt - output
        output = total - prompt
    extra = {
        name: number
        for name, number in (
            ("input_audio_tokens", count(read, "audio_tokens")),
            ("output_audio_tokens", count(wrote, "audio_tokens")),
            ("search_queries", count(usage, "num_search_queries")),
            ("sources", count(usage, "num_sources_used")),
        )
        if number
    }
    return Usage(
        input_tokens=prompt,
        output_tokens=output,
        cache_read_tokens=cached,
        cache_write_tokens=count(read, "cache_write_tokens"),
        reasoning_tokens=reasoning,
        extra=extra or None,
    )


def _choices(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first choice, None where there is none of it in here."""
    choices = data.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, Mapping) and not choice.get("index"):
                return choice
    return None


def _says(delta: Mapping[str, Any]) -> bool:
    """Whether there is anything in a delta but whose it is."""
    return any(value for name, value in delta.items() if name != "role")


def _merge(details: list[dict[str, Any]], piece: Mapping[str, Any]) -> None:
    """Add a piece of OpenRouter's reasoning details: texts grow, the rest is set."""
    last = details[-1] if details else None
    if (
        last is None
        or any(last.get(name) != piece.get(name) for name in ("type", "index"))
        or (last.get("id") and piece.get("id") and last["id"] != piece["id"])
        or (last.get("data") and piece.get("data"))
    ):
        details.append(dict(piece))
        return
    for name, value in piece.items():
        if name in ("text", "summary") and isinstance(value, str):
            last[name] = (last.get(name) or "") + value
        elif value not in (None, ""):
            last[name] = value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
