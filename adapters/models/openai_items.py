"""A context as the input items of the Responses protocol, stateless: nothing refers to what a server stored. Pure.

Ids of messages and calls are not sent: without the stored items they mean nothing, and are refused. Reasoning goes back
with its id and its encrypted content, to the host that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ...events.content import (
    AssistantItem,
    File,
    Image,
    InputPart,
    Item,
    Native,
    ResultItem,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    UserItem,
)
from .openai_parts import CallIds, data_url, function_name, refusal_of, result_text

PROVIDER = "openai"

# Calls of built-in tools that run at our side. Nothing of ours answers them, and an open call is refused.
_OURS_TO_RUN = frozenset(
    ("custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call", "computer_call", "tool_search_call")
)


class InputRenderer:
    """Items in, input items out, one after another.

    reasoning: whether this model takes reasoning back. forget: reasoning in this many items at the start is left out.
    """

    def __init__(self, host: str, *, reasoning: bool = True, forget: int = 0) -> None:
        self._host = host
        self._reasoning = reasoning
        self._forget = forget
        self._seen = 0
        self._ids = CallIds()

    def item(self, item: Item) -> Iterator[dict[str, Any]]:
        self._seen += 1
        match item:
            case UserItem():
                yield {"role": "user", "content": _content(item.parts)}
            case AssistantItem():
                yield from self._assistant(item)
            case ResultItem():
                for result, id in zip(item.results, self._ids.of_results(item), strict=True):
                    yield {"type": "function_call_output", "call_id": id, "output": _output(result)}

    def _assistant(self, item: AssistantItem) -> list[dict[str, Any]]:
        ids = iter(self._ids.of_calls([part for part in item.parts if isinstance(part, ToolCall)]))
        answered = {part.block.get("call_id") for part in item.parts if isinstance(part, Native) and _is_output(part)}
        # The last part of a reasoning item carries the proof for all of it; those who show theirs take it back without.
        thinking = [own for part in item.parts if isinstance(part, Thinking) and (own := self._own(part))]
        kept = {own.get("id") for own in thinking if own.get("encrypted_content") or own.get("as") == "content"}
        if not self._reasoning or self._seen <= self._forget:
            kept = set()
        out: list[dict[str, Any]] = []
        # What is still growing: the message or the reasoning of this id.
        growing: tuple[object, object] | None = None
        for part in item.parts:
            own = self._own(part)
            key = (part.__struct_config__.tag, own.get("id")) if own.get("id") else None
            match part:
                case Text() if part.text:
                    if key is not None and key == growing:
                        out[-1]["content"] += part.text
                    else:
                        message = {"role": "assistant", "content": part.text}
                        out.append(message | ({"phase": own["phase"]} if own.get("phase") else {}))
                case Thinking():
                    if not own or own.get("id") not in kept:
                        continue
                    if key is None or key != growing:
                        out.append({"type": "reasoning", "summary": []} | ({"id": own["id"]} if own.get("id") else {}))
                    _think(out[-1], part, own)
                case ToolCall():
                    out.append(self._call(part, next(ids), own))
                case Native():
                    words = refusal_of(part)
                    if words:
                        out.append({"role": "assistant", "content": words})
                    elif part.provider == PROVIDER and not _unanswered(part.block, answered):
                        out.append({name: value for name, value in part.block.items() if name != "created_by"})
                case _:
                    continue
            growing = key
        while out and out[-1].get("type") == "reasoning":
            # Reasoning is taken back with what followed it only.
            out.pop()
        return out

    def _call(self, call: ToolCall, id: str, own: dict[str, Any]) -> dict[str, Any]:
        out = {
            "type": "function_call",
            "call_id": id,
            "name": function_name(call.name),
            "arguments": msgspec.json.encode(call.input).decode(),
        }
        return out | {name: own[name] for name in ("namespace", "caller") if own.get(name)}

    def _own(self, part: object) -> dict[str, Any]:
        """What this host said of the part, nothing if another wrote it."""
        extra = getattr(part, "extra", None) or {}
        mine = extra.get("host") == self._host and getattr(part, "provider", extra.get("provider")) == PROVIDER
        return extra if mine else {}


def _think(item: dict[str, Any], part: Thinking, own: dict[str, Any]) -> None:
    if part.thinking:
        if own.get("as") == "content":
            item.setdefault("content", []).append({"type": "reasoning_text", "text": part.thinking})
        else:
            item["summary"].append({"type": "summary_text", "text": part.thinking})
    if own.get("encrypted_content"):
        item["encrypted_content"] = own["encrypted_content"]


def _is_output(part: Native) -> bool:
    return str(part.block.get("type", "")).endswith("_output")


def _unanswered(block: dict[str, Any], answered: set[Any]) -> bool:
    if block.get("type") not in _OURS_TO_RUN or block.get("execution") == "server":
        return False
    return block.get("call_id") not in answered


def _content(parts: tuple[InputPart, ...]) -> str | list[dict[str, Any]]:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_part(part) for part in parts]


def _part(part: InputPart) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "input_text", "text": part.text}
        case Image():
            return {"type": "input_image", "image_url": data_url(part), "detail": "auto"}
        case File():
            if part.file_id is not None:
                return {"type": "input_file", "file_id": part.file_id}
            if part.data is None:
                return {"type": "input_file", "file_url": part.url or ""}
            return {"type": "input_file", "filename": part.name or "file", "file_data": data_url(part)}


def _output(result: ToolResult) -> str | list[dict[str, Any]]:
    if isinstance(result.output, str) or all(isinstance(part, Text) for part in result.output):
        return result_text(result)
    # Pictures and files have a place of their own here.
    head = [{"type": "input_text", "text": "Error:"}] if result.is_error else []
    return head + [_part(part) for part in result.output]
