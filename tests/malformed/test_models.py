"""Malformed words of models: streams, whole answers, and the arguments of their calls."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reenact.adapters.models.anthropic_answer import Reader
from reenact.adapters.models.openai_chat_answer import ChatReading
from reenact.adapters.models.openai_host import DONE, Reply
from reenact.adapters.models.openai_responses_answer import ResponsesReading
from reenact.adapters.models.sse import EventReader
from reenact.events.assembler import parse_input
from reenact.events.errors import BadInput
from reenact.events.model import ModelFailure
from tests.faults.logs import TOOLS
from tests.malformed.attack import SEED, attacked, plain_bytes, twisted


def test_server_sent_events() -> None:
    corpus = [b'event: a\ndata: {"x":1}\n\n', b": c\r\ndata: 1\r\ndata: 2\r\n\r\n", b"id: 1\ndata:\n\ndata: [DONE]\n\n"]
    rng = random.Random(SEED)

    def parse(data: bytes) -> None:
        whole, cut = EventReader(), EventReader()
        at = rng.randrange(len(data) + 1)
        events = [*whole.feed(data), whole.rest()]
        assert events == [*cut.feed(data[:at]), *cut.feed(data[at:]), cut.rest()]

    attacked(parse, corpus, ())


def test_arguments_of_tools() -> None:
    corpus = [b'{"city":"Paris"}', b'{"amount":42}', b'{"city":"Z\xc3\xbcrich","more":[1,2.5,null,{"a":true}]}', b"{}"]

    def parse(text: bytes) -> None:
        arguments, invalid = parse_input(text.decode("utf-8", "replace"))
        if invalid is not None:
            raise BadInput(invalid)
        for tool in TOOLS:
            checked = tool.validate(arguments)
            assert isinstance(checked, dict) or checked.message

    attacked(parse, corpus, (BadInput,))


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def chunk(delta: Any, finish: str | None = None, **more: Any) -> Any:
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


CHAT = [
    [
        chunk({"role": "assistant", "content": "Hel"}),
        chunk({"content": "lo", "reasoning_content": "hm"}),
        chunk({}, "stop", usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}),
    ],
    [
        chunk({"tool_calls": [{"index": 0, "id": "t1", "type": "function", "function": {"name": "look"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":"Rome"}'}}]}),
        chunk({}, "tool_calls"),
    ],
    [chunk({"content": "no"}), {"error": {"message": "overloaded", "type": "server_error", "code": 503}}],
]
_ITEM = {"type": "message", "id": "m1", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}
_CALL = {"type": "function_call", "id": "f1", "call_id": "t1", "name": "look", "arguments": '{"city":"Rome"}'}
_THOUGHT = {"type": "reasoning", "id": "r1", "summary": [{"type": "summary_text", "text": "hm"}]}
_USAGE = {"input_tokens": 3, "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 1}}


def responses(*items: Any, status: str = "completed") -> list[Any]:
    events: list[Any] = [{"type": "response.created", "response": {"id": "resp_1", "model": "m"}}]
    for index, item in enumerate(items):
        events.append({"type": "response.output_item.added", "output_index": index, "item": item})
        events.append({"type": "response.output_text.delta", "item_id": item["id"], "content_index": 0, "delta": "He"})
        events.append({"type": "response.function_call_arguments.delta", "item_id": item["id"], "delta": "{"})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    last = {"id": "resp_1", "model": "m", "status": status, "output": list(items), "usage": _USAGE}
    return [*events, {"type": f"response.{status}", "response": last}]


RESPONSES = [responses(_THOUGHT, _ITEM), responses(_CALL), responses(_ITEM, status="incomplete")]


def twisting(streams: list[list[Any]]) -> Callable[[random.Random], bytes]:
    def twist(rng: random.Random) -> bytes:
        events = list(rng.choice(streams))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(events))
            events[at] = twisted(rng, events[at])
        return sse(*events)

    return twist


def test_answers_of_anthropic(root: Path) -> None:
    corpus = [file.read_bytes() for file in sorted((root / "tests/adapters/models/fixtures/anthropic").glob("*.sse"))]
    streams = [[json.loads(data) for _, data in EventReader().feed(text)] for text in corpus]

    def parse(data: bytes) -> None:
        reader, events = Reader({"look": "look"}), EventReader()
        for _, text in events.feed(data):
            reader.take(text)
        if (rest := events.rest()) is not None:
            reader.take(rest[1], last=True)
        reader.answer()

    attacked(parse, corpus, (ModelFailure,), twisting(streams))
    bodies = [{"id": "m", "model": "m", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"}]

    def whole(data: bytes) -> None:
        reader = Reader({})
        reader.whole(data, status=200, kind="application/json")
        reader.answer()

    attacked(whole, [json.dumps(b).encode() for b in bodies], (ModelFailure,), lambda rng: plain_bytes(rng, bodies))


@pytest.mark.parametrize(
    ("make", "streams"),
    [
        (lambda: ChatReading("api.openai.com"), [[*stream, "DONE"] for stream in CHAT[:2]]),
        (lambda: ResponsesReading("api.openai.com"), RESPONSES),
    ],
    ids=["chat", "responses"],
)
def test_answers_of_openai(make: Callable[[], Any], streams: list[list[Any]]) -> None:
    def parse(data: bytes) -> None:
        reading, reader = make(), EventReader()
        for name, text in [*reader.feed(data), *filter(None, [reader.rest()])]:
            event = ("", DONE) if text == b'"DONE"' else Reply._decoded(None, name, text)  # type: ignore[arg-type]
            reading.event(*event)
            if reading.done:
                break
        if hasattr(reading, "end"):
            reading.end()
        reading.answer()
        reading.partial()

    attacked(parse, [sse(*stream) for stream in streams], (ModelFailure,), twisting([*streams, CHAT[2]]))
