"""A context as the messages of the Chat Completions protocol. Pure.

What only its own writer may see again (reasoning, signatures) goes back to the host that wrote it and to no other.
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
    UserItem,
)
from .openai_parts import CallIds, data_url, file_text, function_name, refusal_of, result_text

PROVIDER = "openai-chat"

# What Google documents for calls that another model made, which have no signature of its own.
_UNSIGNED = {"google": {"thought_signature": "skip_thought_signature_validator"}}
_GOOGLE = "generativelanguage.googleapis.com"


class MessageRenderer:
    """Items in, messages out, one after another: the results of an item answer the calls of the one before it."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._ids = CallIds()

    def item(self, item: Item) -> Iterator[dict[str, Any]]:
        match item:
            case UserItem():
                yield {"role": "user", "content": _content(item.parts)}
            case AssistantItem():
                message = self._assistant(item)
                if message is not None:
                    yield message
            case ResultItem():
                yield from self._results(item)

    def _assistant(self, item: AssistantItem) -> dict[str, Any] | None:
        calls = [part for part in item.parts if isinstance(part, ToolCall)]
        ids = self._ids.of_calls(calls)
        text = "".join(
            part.text if isinstance(part, Text) else refusal_of(part)
            for part in item.parts
            if isinstance(part, (Text, Native))
        )
        if not text and not calls:
            return None
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        for part in item.parts:
            if (
                isinstance(part, Thinking)
                and part.provider == PROVIDER
                and (part.extra or {}).get("host") == self._host
            ):
                _think(message, part)
        if calls:
            message["tool_calls"] = [self._call(call, id) for call, id in zip(calls, ids, strict=True)]
            if self._host == _GOOGLE and not any("extra_content" in call for call in message["tool_calls"]):
                message["tool_calls"][0]["extra_content"] = _UNSIGNED
            if self._host == "api.deepseek.com":
                # It refuses calls without their reasoning, also those of others.
                message.setdefault("reasoning_content", "")
        return message

    def _call(self, call: ToolCall, id: str) -> dict[str, Any]:
        arguments = msgspec.json.encode(call.input).decode()
        out = {"id": id, "type": "function", "function": {"name": function_name(call.name), "arguments": arguments}}
        extra = call.extra or {}
        if extra.get("host") == self._host and "extra_content" in extra:
            out["extra_content"] = extra["extra_content"]
        return out

    def _results(self, item: ResultItem) -> Iterator[dict[str, Any]]:
        shown: list[dict[str, Any]] = []
        for result, id in zip(item.results, self._ids.of_results(item), strict=True):
            yield {"role": "tool", "tool_call_id": id, "content": result_text(result)}
            if not isinstance(result.output, str):
                seen = [part for part in result.output if not isinstance(part, Text)]
                if seen:
                    shown.append({"type": "text", "text": f"What {result.name} returned besides its text:"})
                    shown.extend(_part(part) for part in seen)
        if shown:
            # A tool message holds text only.
            yield {"role": "user", "content": shown}


# -- parts --


def _content(parts: tuple[InputPart, ...]) -> str | list[dict[str, Any]]:
    # Plain text as a plain string: some servers know nothing else.
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_part(part) for part in parts]


def _part(part: InputPart) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            return {"type": "image_url", "image_url": {"url": data_url(part)}}
        case File():
            kind = part.media_type or ""
            if part.data is not None and kind.startswith("audio/"):
                form = kind.removeprefix("audio/").removeprefix("x-")
                return {
                    "type": "input_audio",
                    "input_audio": {"data": part.data, "format": {"mpeg": "mp3", "wave": "wav"}.get(form, form)},
                }
            text = file_text(part)
            if text is not None:
                return {"type": "text", "text": text}
            if part.file_id is not None:
                return {"type": "file", "file": {"file_id": part.file_id}}
            return {"type": "file", "file": {"filename": part.name or "file", "file_data": data_url(part)}}


def _think(message: dict[str, Any], part: Thinking) -> None:
    extra = part.extra or {}
    field = extra.get("field")
    if isinstance(field, str) and part.thinking:
        message[field] = message.get(field, "") + part.thinking
    for detail in extra.get("details") or ():
        said = extra.get("said")
        kept = {**detail, said: part.thinking} if isinstance(said, str) else detail
        message.setdefault("reasoning_details", []).append(kept)
