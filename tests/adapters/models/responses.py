"""What a server of the Responses protocol says, as items and as a stream of them; and the answer that is read of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reenact.adapters.models.openai_responses_answer import ResponsesReading
from reenact.events.assembler import Assembler
from reenact.events.message import Signal
from reenact.events.model import ModelAnswer
from reenact.events.tool import ToolSpec

HOST = "models.example"


def message(*texts: str, id: str = "msg_1", **more: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": content, **more}


def reasoning(
    *summary: str, id: str = "rs_1", content: Sequence[str] = (), sealed: str | None = None
) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "reasoning", "id": id}
    out["summary"] = [{"type": "summary_text", "text": text} for text in summary]
    if content:
        out["content"] = [{"type": "reasoning_text", "text": text} for text in content]
    return out | ({"encrypted_content": sealed} if sealed else {})


def function(name: str, arguments: str = "{}", *, id: str = "call_1", **more: Any) -> dict[str, Any]:
    own = {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "arguments": arguments}
    return own | {"status": "completed"} | more


def response(*output: Any, status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "m-1", "status": status, "output": list(output), **more}


def item_events(index: int, item: dict[str, Any], size: int = 3) -> list[dict[str, Any]]:
    """What a server says of one item, with its texts in deltas of `size` characters."""

    def said(kind: str, **more: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", "output_index": index, "item_id": item["id"], **more}

    def deltas(kind: str, text: str, **place: int) -> list[dict[str, Any]]:
        out = [said(f"{kind}.delta", delta=text[at : at + size], **place) for at in range(0, len(text), size)]
        name = "arguments" if kind == "function_call_arguments" else "text"
        return [*out, said(f"{kind}.done", **{name: text}, **place)]

    started = {name: value for name, value in item.items() if name != "encrypted_content"}
    started |= {name: [] for name in ("content", "summary") if name in item}
    events = [said("output_item.added", item=started | ({"arguments": ""} if "arguments" in item else {}))]
    if item["type"] == "message":
        for place, part in enumerate(item["content"]):
            events += deltas("output_text", part.get("text", ""), content_index=place)
    elif item["type"] == "reasoning":
        for place, part in enumerate(item["summary"]):
            events.append(said("reasoning_summary_part.added", summary_index=place))
            events += deltas("reasoning_summary_text", part["text"], summary_index=place)
        for place, part in enumerate(item.get("content") or ()):
            events += deltas("reasoning_text", part["text"], content_index=place)
    elif item["type"] == "function_call":
        events += deltas("function_call_arguments", item["arguments"])
    return [*events, said("output_item.done", item=item)]


def stream_of(*output: dict[str, Any], size: int = 3, end: str = "completed", **more: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response(status="in_progress")}]
    for index, item in enumerate(output):
        events += item_events(index, item, size)
    return [*events, {"type": f"response.{end}", "response": response(*output, status=end, **more)}]


def played(events: Sequence[Any], tools: Sequence[ToolSpec] = ()) -> tuple[ModelAnswer, list[Signal]]:
    """The answer of a stream and what was told of it, which adds up to it."""
    reading, assembler = ResponsesReading(HOST, tools), Assembler()
    signals = [signal for event in events for signal in reading.event("", event)]
    for signal in signals:
        assembler.feed(signal)
    answer = reading.answer()
    assert assembler.parts() == answer.parts
    assert (assembler.stop_reason, assembler.usage) == (answer.stop_reason, answer.usage)
    return answer, signals


def read(*output: dict[str, Any], **how: Any) -> ModelAnswer:
    """The answer with this output, the same as a stream and in one piece."""
    answer, _ = played(stream_of(*output, **how))
    how.pop("size", None)
    assert gist(read_whole(response(*output, status=how.pop("end", "completed"), **how))) == gist(answer)
    return answer


def read_whole(body: Any) -> ModelAnswer:
    reading = ResponsesReading(HOST)
    reading.whole(body)
    return reading.answer()


def gist(answer: ModelAnswer) -> Any:
    return answer.parts, answer.stop_reason, answer.usage
