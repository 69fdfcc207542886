"""A call in Anthropic's words: the context as messages, rendered once and then only added to; settings a model takes.

Imports no SDK. What each model takes was read from Anthropic's migration guides, November 2026.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from ...events.content import (
    AssistantItem,
    File,
    Image,
    Item,
    Native,
    ResultItem,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    UserItem,
)
from ...events.model import ModelRequest

PROVIDER = "anthropic"

Block = dict[str, Any]

_MARK: Block = {"type": "ephemeral"}
_BUDGETS = {"low": 2_048, "medium": 8_192, "high": 24_576}
_SMALLEST_BUDGET = 1_024
_CACHE, _FORGET = "anthropic", "anthropic.forget"
_PLAIN_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


def body(request: ModelRequest) -> bytes:
    """The JSON body of `POST /v1/messages`, streaming.

    The cost on our side is what was added since the last call of the session, plus one copy of the bytes: the messages
    live in `request.cache`. At most four cache marks are set: the tools, the system prompt, and the end of the last two
    user messages, so that the place cached by the call before is found however much was added.
    """
    conversation = _conversation(request)
    takes = model_takes(request.model)
    params = request.params
    head: Block = {"model": request.model, "stream": True, "max_tokens": params.max_tokens or takes.max_tokens}
    if request.system.strip():
        head["system"] = [{"type": "text", "text": request.system, "cache_control": _MARK}]
    if request.tools:
        head["tools"] = tools = [_tool(tool.name, tool.description, tool.parameters) for tool in request.tools]
        tools[-1]["cache_control"] = _MARK
    forced = False
    if request.tools and params.tool_choice is not None:
        choice = params.tool_choice
        forced = choice not in ("auto", "none")
        if takes.forced_tools or not forced:
            plain = choice in ("auto", "any", "none")
            head["tool_choice"] = {"type": choice} if plain else {"type": "tool", "name": wire_name(choice)}
    if params.stop_sequences:
        head["stop_sequences"] = params.stop_sequences
    head.update(_thinking(request, takes, forced=forced, conversation=conversation))
    thinks = head.get("thinking", {}).get("type") in ("enabled", "adaptive")
    if params.temperature is not None and takes.temperature and not thinks:
        # Their scale ends at 1.
        head["temperature"] = min(params.temperature, 1.0)
    return b"".join((msgspec.json.encode(head)[:-1], b',"messages":[', *conversation.encoded(), b"]}"))


def forget_thinking(request: ModelRequest) -> bool:
    """Leave out, from the next call on, all reasoning in the context as it stands; False when nothing can be left out.

    Newer models sign reasoning for a model and for everything before it. After a change of model, instructions or tools
    they refuse it, and then the rest of the conversation is worth more.
    """
    cache, conversation = request.cache, _conversation(request)
    if cache is None or not conversation.thinks or cache.get(_FORGET) == len(request.items):
        return False
    cache[_FORGET] = len(request.items)
    del cache[_CACHE]
    return True


def wire_name(name: str) -> str:
    """A tool's name with the characters that Anthropic allows; a name from elsewhere may have others."""
    return _NOT_IN_NAMES.sub("_", name)[:128] or "_"


class Takes(NamedTuple):
    """What a model takes. off: the `thinking` that turns thinking off, None where nothing needs to or can be sent."""

    max_tokens: int = 32_000
    temperature: bool = False
    thinking: Literal["none", "budget", "adaptive"] = "adaptive"
    display: bool = True
    off: Block | None = None
    always_thinks: bool = False
    forced_tools: bool = False


def model_takes(model: str) -> Takes:
    """By the version in the model's name. An unknown Claude takes what the newest takes; other models behind the same
    interface take what it was before thinking became adaptive."""
    if "claude" not in model:
        return Takes(
            max_tokens=8_192,
            temperature=True,
            thinking="budget",
            off={"type": "disabled"},
            forced_tools=True,
            display=False,
        )
    found = re.search(r"claude-(?:([a-z]+)-)?(\d)(?:[-.](\d{1,2})(?!\d))?(?:-([a-z]+))?", model)
    if found is None:
        return Takes(always_thinks=True)
    family = found[1] or found[4] or ""
    version = (int(found[2]), int(found[3] or 0))
    if version < (3, 7):
        size = 8_192 if version >= (3, 5) else 4_096
        return Takes(max_tokens=size, temperature=True, thinking="none", forced_tools=True)
    if version < (4, 6):
        return Takes(temperature=True, thinking="budget", display=False, forced_tools=True)
    if version < (4, 7):
        return Takes(temperature=True, display=False, forced_tools=True)
    if version < (5, 0):
        return Takes(forced_tools=True)
    always = family in ("fable", "mythos") or (version > (5, 0) and family not in ("sonnet", "haiku"))
    if version == (5, 0):
        return Takes(off=None if always else {"type": "disabled"}, always_thinks=always, forced_tools=True)
    off = None if always else {"type": "between_tools" if family == "sonnet" else "disabled"}
    return Takes(off=off, always_thinks=always)


def _thinking(request: ModelRequest, takes: Takes, *, forced: bool, conversation: _Conversation) -> Block:
    level = request.params.thinking
    if level is None or takes.thinking == "none":
        return {}
    if level == "off":
        # The least there is, where it cannot be turned off.
        if takes.always_thinks:
            return {"output_config": {"effort": "low"}}
        return {"thinking": takes.off} if takes.off else {}
    if level not in _BUDGETS:
        return {}
    if takes.thinking == "adaptive":
        thinking: Block = {"type": "adaptive"}
        if takes.display:
            thinking["display"] = "summarized"
        return {"thinking": thinking, "output_config": {"effort": level}}
    budget = min(_BUDGETS[level], (request.params.max_tokens or takes.max_tokens) - 1)
    # With a budget, neither a forced tool nor a turn that began without thinking is accepted.
    if budget < _SMALLEST_BUDGET or forced or conversation.turn_began_without_thinking:
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _tool(name: str, description: str, parameters: dict[str, Any]) -> Block:
    schema = parameters if parameters.get("type") == "object" else {"type": "object", "properties": {}, **parameters}
    tool: Block = {"name": wire_name(name), "input_schema": schema}
    if description:
        tool["description"] = description
    return tool


def _conversation(request: ModelRequest) -> _Conversation:
    """The session's conversation, brought up to the request's items."""
    cache, items = request.cache, request.items
    kept = cache.get(_CACHE) if cache is not None else None
    if not isinstance(kept, _Conversation) or not kept.precedes(items):
        kept = _Conversation(forget=cache.get(_FORGET, 0) if cache is not None else 0)
        if cache is not None:
            cache[_CACHE] = kept
    kept.follow(items)
    return kept


class _Conversation:
    """Messages, those that can no longer change as bytes, and up to three at the end as they are.

    Roles alternate: what follows an item of the same side joins its message. Results come first in theirs.
    """

    __slots__ = ("_forget", "_ids", "_last", "_open", "_owed", "_seen", "_settled", "thinks")

    def __init__(self, *, forget: int) -> None:
        self._settled: list[bytes] = []
        self._open: list[tuple[Literal["user", "assistant"], list[Block]]] = []
        self._seen = 0
        self._last: Item | None = None
        self._forget = forget
        self._ids: dict[str, int] = {}
        self._owed: list[tuple[str, str]] = []
        self.thinks = False

    def precedes(self, items: Sequence[Item]) -> bool:
        """Whether what was rendered is how these items begin."""
        return not self._seen or (len(items) >= self._seen and items[self._seen - 1] == self._last)

    def follow(self, items: Sequence[Item]) -> None:
        for index in range(self._seen, len(items)):
            item = self._last = items[index]
            match item:
                case UserItem():
                    self._close_assistant(answered=False)
                    self._add("user", _input_blocks(item.parts))
                case ResultItem():
                    self._close_assistant(answered=True)
                    self._add_results([_result(result, self._result_id(result.id)) for result in item.results])
                case AssistantItem():
                    self._add("assistant", self._output_blocks(item, forget=index < self._forget))
        self._seen = len(items)

    @property
    def turn_began_without_thinking(self) -> bool:
        """Whether results are about to go back to an answer that did not begin with thinking."""
        if len(self._open) < 2 or self._open[-1][1][0]["type"] != "tool_result":
            return False
        return self._open[-2][1][0]["type"] not in ("thinking", "redacted_thinking")

    def encoded(self) -> list[bytes]:
        """The pieces of the `messages` array, commas included."""
        pieces = []
        for role, blocks in self._open:
            if role == "user":
                blocks = [*blocks[:-1], {**blocks[-1], "cache_control": _MARK}]
            pieces.append(msgspec.json.encode({"role": role, "content": blocks}))
        if not self._settled:
            return [b",".join(pieces)]
        return [*self._settled, b",".join(pieces)]

    def _add(self, role: Literal["user", "assistant"], blocks: list[Block]) -> None:
        if not blocks:
            return
        if self._open and self._open[-1][0] == role:
            self._open[-1][1].extend(blocks)
            return
        self._open.append((role, blocks))
        # Three stay open: the last user message may grow, and the one before carries a mark.
        while len(self._open) > 3:
            settled_role, settled = self._open.pop(0)
            self._settled.append(msgspec.json.encode({"role": settled_role, "content": settled}) + b",")
        if len(self._settled) > 64:
            self._settled = [b"".join(self._settled)]

    def _add_results(self, blocks: list[Block]) -> None:
        if self._open and self._open[-1][0] == "user":
            there = self._open[-1][1]
            first = next((at for at, block in enumerate(there) if block["type"] != "tool_result"), len(there))
            there[first:first] = blocks
        else:
            self._add("user", blocks)

    def _close_assistant(self, *, answered: bool) -> None:
        """A user message follows: an answer may not end in thinking, nor leave a hosted tool without its result unless
        our own results are what that tool is waiting for."""
        if not self._open or self._open[-1][0] != "assistant":
            return
        blocks = self._open[-1][1]
        if not answered:
            settled = {block.get("tool_use_id") for block in blocks}
            blocks[:] = [block for block in blocks if block["type"] != "server_tool_use" or block.get("id") in settled]
        while blocks and blocks[-1]["type"] in ("thinking", "redacted_thinking"):
            blocks.pop()
        if not blocks:
            self._open.pop()

    def _output_blocks(self, item: AssistantItem, *, forget: bool) -> list[Block]:
        blocks: list[Block] = []
        self._owed = []
        for part in item.parts:
            match part:
                case Text() if part.text.strip():
                    block: Block = {"type": "text", "text": part.text}
                    if _own(part.extra) and part.extra and part.extra.get("citations"):
                        block["citations"] = part.extra["citations"]
                    blocks.append(block)
                case Thinking() if part.provider == PROVIDER and not forget:
                    # Without a signature nobody takes it back: it was cut off.
                    if part.signature:
                        blocks.append({"type": "thinking", "thinking": part.thinking, "signature": part.signature})
                        self.thinks = True
                    elif part.extra and part.extra.get("type") == "redacted_thinking":
                        blocks.append({"type": "redacted_thinking", "data": part.extra.get("data", "")})
                        self.thinks = True
                case ToolCall():
                    wire = self._call_id(part.id)
                    block = {"type": "tool_use", "id": wire, "name": wire_name(part.name), "input": part.input}
                    if _own(part.extra) and part.extra and part.extra.get("caller"):
                        block["caller"] = part.extra["caller"]
                    blocks.append(block)
                case Native() if part.provider == PROVIDER:
                    blocks.append(part.block)
        return blocks

    def _call_id(self, given: str) -> str:
        """An id that Anthropic takes and that no other call of the session has; others may repeat theirs."""
        wire = given if _PLAIN_ID.fullmatch(given) else "toolu_" + hashlib.sha256(given.encode()).hexdigest()[:24]
        count = self._ids[wire] = self._ids.get(wire, 0) + 1
        if count > 1:
            wire = f"{wire[:56]}_{count}"
        self._owed.append((given, wire))
        return wire

    def _result_id(self, given: str) -> str:
        for at, (owed, wire) in enumerate(self._owed):
            if owed == given:
                del self._owed[at]
                return wire
        return given


def _own(extra: dict[str, Any] | None) -> bool:
    return extra is not None and extra.get("provider") == PROVIDER


def _input_blocks(parts: Sequence[Text | Image | File]) -> list[Block]:
    blocks: list[Block] = []
    for part in parts:
        match part:
            case Text():
                # An empty block is refused.
                if part.text.strip():
                    blocks.append({"type": "text", "text": part.text})
            case Image():
                blocks.append({"type": "image", "source": _image_source(part)})
            case File():
                blocks.append(_document(part))
    return blocks


def _image_source(part: Image | File) -> Block:
    if part.data is None:
        return {"type": "url", "url": part.url}
    kinds = (("iVBOR", "image/png"), ("/9j/", "image/jpeg"), ("R0lG", "image/gif"), ("UklGR", "image/webp"))
    kind = part.media_type or next((kind for head, kind in kinds if part.data.startswith(head)), "image/png")
    return {"type": "base64", "media_type": kind, "data": part.data}


def _document(part: File) -> Block:
    kind = part.media_type or "application/pdf"
    source: Block
    if part.data is not None and kind.startswith("image/"):
        return {"type": "image", "source": _image_source(part)}
    if part.file_id is not None:
        source = {"type": "file", "file_id": part.file_id}
    elif part.data is None:
        source = {"type": "url", "url": part.url}
    elif kind == "application/pdf":
        source = {"type": "base64", "media_type": kind, "data": part.data}
    else:
        source = {"type": "text", "media_type": "text/plain", "data": _decoded(part.data)}
    block: Block = {"type": "document", "source": source}
    if part.name:
        block["title"] = part.name
    return block


def _decoded(data: str) -> str:
    try:
        return base64.b64decode(data).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return data


def _result(result: ToolResult, wire: str) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": wire}
    content = result.output if isinstance(result.output, str) else _input_blocks(result.output)
    if content and not (isinstance(content, str) and content.isspace()):
        block["content"] = content
    if result.is_error:
        block["is_error"] = True
        # They refuse an error that says nothing.
        block.setdefault("content", "error")
    return block
