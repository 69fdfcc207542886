"""Parts of a context as both of OpenAI's protocols want them: ids of calls, names, results as text, files. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...events.content import File, Image, Native, ResultItem, Text, ToolCall, ToolResult
from ...events.tool import ToolSpec

LONGEST_ID = 64

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


class CallIds:
    """Gives each call of a context an id of its own, and its result the same: models repeat theirs, or give none."""

    __slots__ = ("_open", "_used")

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._open: list[tuple[str, str]] = []

    def of_calls(self, calls: Sequence[ToolCall]) -> list[str]:
        """The ids of an answer's calls, in order."""
        out = []
        for number, call in enumerate(calls):
            name = call.id if len(call.id) <= LONGEST_ID else call.id[: LONGEST_ID - 8]
            name = base = name or f"call_{number}"
            again = 1
            while name in self._used:
                again += 1
                name = f"{base[: LONGEST_ID - 8]}_{again}"
            self._used.add(name)
            out.append(name)
        self._open = [(call.id, name) for call, name in zip(calls, out, strict=True)]
        return out

    def of_results(self, item: ResultItem) -> list[str]:
        """The ids that the results answer, in the order of the results."""
        out = []
        for result in item.results:
            at = next((at for at, (given, _) in enumerate(self._open) if given == result.id), None)
            out.append(result.id if at is None else self._open.pop(at)[1])
        return out


def function_name(name: str) -> str:
    """A name as the protocols allow it. A model may call what does not exist, under any name."""
    return _NOT_IN_NAMES.sub("_", name)[:64] or "_"


def schema(tool: ToolSpec) -> dict[str, Any]:
    """The schema of a tool's arguments; an object without properties has to say so."""
    return {"type": "object", "properties": {}, **tool.parameters}


def result_text(result: ToolResult) -> str:
    """The text of a result. The protocols have no mark for a call that failed, so the text says it."""
    if isinstance(result.output, str):
        text = result.output
    else:
        text = "".join(part.text for part in result.output if isinstance(part, Text))
    return f"Error: {text}" if result.is_error and not text.lower().startswith("error") else text


def refusal_of(part: Native) -> str:
    """The words of a refusal, empty for any other block."""
    return str(part.block.get("refusal") or "") if part.block.get("type") == "refusal" else ""


def data_url(part: Image | File) -> str:
    """The `data:` URL of what is held, or the URL where it lies."""
    if part.data is None:
        return part.url or ""
    kind = part.media_type or ("image/png" if isinstance(part, Image) else "application/octet-stream")
    return f"data:{kind};base64,{part.data}"


def file_text(part: File) -> str | None:
    """A text file's text under its name, None for any other file."""
    if part.data is None or not (part.media_type or "").startswith(("text/", "application/json")):
        return None
    try:
        text = base64.b64decode(part.data).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None
    return f"{part.name or 'file'}:\n{text}"


def count(of: Mapping[str, Any], name: str) -> int:
    """A number of tokens, 0 for anything that is none."""
    value = of.get(name)
    return value if isinstance(value, int) and value > 0 else 0
