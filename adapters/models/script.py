"""A script for the scripted model: its steps, the files they are read from, and the scripts that need no file.

A script is a function of what is to be answered; it has no memory, no clock and no chance.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ...events.content import (
    AssistantItem,
    Failure,
    Item,
    OutputPart,
    Part,
    ResultItem,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    UserItem,
    text_of,
)
from ...events.errors import BadInput
from ...events.message import Signal
from ...events.model import ModelRequest
from ...events.shape import convert
from ...events.stream import TextBlockStart, TextBlockStop, TextDelta, ThinkingDelta, ThinkingStart, ThinkingStop
from .failures import RETRYABLE, status_of

LARGEST_SCRIPT_BYTES = 64 << 20
MOST_FILES = 256

# A word with the space behind it: what is told at a time.
_PIECE = re.compile(r"\S+\s*|\s+")


class Call(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call of a tool. id: made from the step's number when left out. written: instead of `input`, the text that a
    model might write, JSON or not."""

    name: str
    input: dict[str, Any] = {}
    id: str | None = None
    written: str | None = None

    @property
    def text(self) -> str:
        return msgspec.json.encode(self.input).decode() if self.written is None else self.written


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a step fails, after what it says. times: only the first so many attempts at a call, None for always.

    code: any of the codes of failures, see `failures`. retryable: None for what its code says. The attempts are counted
    in memory: a new process counts anew.
    """

    code: str = "server_error"
    message: str = "a failure from the script"
    retryable: bool | None = None
    retry_after_s: float | None = None
    status: int | None = None
    times: int | None = None

    def failure(self) -> Failure:
        return Failure(
            code=self.code,
            message=self.message,
            retryable=self.code in RETRYABLE if self.retryable is None else self.retryable,
            retry_after_s=self.retry_after_s,
            status=self.status,
        )


class Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer: thinking, then text, then calls. delay_ms: how long it takes in all, spread over its pieces."""

    text: str = ""
    tool_calls: tuple[Call, ...] = ()
    thinking: str = ""
    stop_reason: str | None = None
    delay_ms: float = 0
    usage: Usage | None = None
    error: Fault | None = None

    def __post_init__(self) -> None:
        if not (self.text or self.tool_calls or self.thinking or self.error or self.stop_reason):
            raise ValueError("a step needs `text`, `tool_calls`, `thinking`, `stop_reason` or `error`")
        if not 0 <= self.delay_ms <= 86_400_000:
            raise ValueError("`delay_ms` must be from 0 to 86400000 (a day)")


class Seen(Struct):
    """What a script may know of a context. It is brought up to date item by item.

    items: how many there are. answers: the model's among them. size: bytes of all text in them. said: what a person
    said last. results: what tools gave back since the last answer.
    """

    items: int = 0
    answers: int = 0
    size: int = 0
    said: str = ""
    results: tuple[ToolResult, ...] = ()
    last: Item | None = None

    def precedes(self, items: Sequence[Item]) -> bool:
        """Whether what was seen is how these items begin."""
        return not self.items or (len(items) >= self.items and items[self.items - 1] == self.last)

    def follow(self, items: Sequence[Item]) -> None:
        for index in range(self.items, len(items)):
            item = self.last = items[index]
            match item:
                case UserItem():
                    self.said = text_of(item.parts)
                    self.results = ()
                    self.size += sum(_size(part) for part in item.parts)
                case AssistantItem():
                    self.answers += 1
                    self.results = ()
                    self.size += sum(_size(part) for part in item.parts)
                case ResultItem():
                    self.results = item.results
                    self.size += sum(_size(result) for result in item.results)
        self.items = len(items)


Choose = Callable[[ModelRequest, Seen], "Step | dict[str, Any]"]
"""A script as a function. It must answer the same to the same, or runs that were killed go on as others."""


class Ready:
    """A step made ready to be told: what does not depend on the call is made once."""

    __slots__ = ("inputs", "parts", "pieces", "signals", "size", "step")

    def __init__(self, step: Step) -> None:
        thought, said = _PIECE.findall(step.thinking), _PIECE.findall(step.text)
        signals: list[Signal] = []
        parts: list[OutputPart] = []
        if thought:
            parts.append(Thinking(thinking=step.thinking, provider="scripted"))
            signals += (ThinkingStart(), *(ThinkingDelta(text=piece) for piece in thought))
            signals.append(ThinkingStop(provider="scripted"))
        if said:
            parts.append(Text(text=step.text))
            signals += (TextBlockStart(), *(TextDelta(text=piece) for piece in said), TextBlockStop())
        self.step = step
        self.signals = tuple(signals)
        self.parts = tuple(parts)
        self.pieces = len(thought) + len(said)
        self.inputs = tuple(call.text for call in step.tool_calls)
        texts = (step.thinking, step.text, *(call.name for call in step.tool_calls), *self.inputs)
        self.size = sum(length(text) for text in texts)


class Played:
    """Steps in order: the n-th answers a context with n answers in it."""

    def __init__(self, steps: Sequence[Step], *, repeat: bool = False) -> None:
        self._steps = [Ready(step) for step in steps]
        self._repeat = repeat and bool(steps)

    def choose(self, request: ModelRequest, seen: Seen) -> Ready:
        number = seen.answers % len(self._steps) if self._repeat else seen.answers
        return self._steps[number] if number < len(self._steps) else _NO_MORE


class Chosen:
    """A script that is a function."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose

    def choose(self, request: ModelRequest, seen: Seen) -> Ready:
        return Ready(step_of(self._choose(request, seen)))


Script = Played | Chosen


def script_for(name: str) -> Script:
    """The script of `scripted:<name>`: one that is built in, or, where the name ends in `.json`, a file.

    `fails:CODE` fails every call with that code of `failures`, as a provider that is out of order would; `fails` is
    `fails:server_error`.

    A file holds a list of steps, or an object with `steps` and `repeat`. It is read again when it has changed. Raises
    `BadInput`, on one line, naming the file, the step and what is wrong with it, or the scripts there are.
    """
    if not name.endswith(".json"):
        built_in = BUILT_IN.get(name) or _failing(name)
        if built_in is None:
            names = ", ".join((*BUILT_IN, "fails:CODE"))
            raise BadInput(f"there is no script {name!r}; built in are {names}; or name a file that ends in .json")
        return built_in
    try:
        found = os.stat(name)
        key = (os.path.abspath(name), found.st_mtime_ns, found.st_size)
        script = _FILES.get(key)
        if script is None:
            if found.st_size > LARGEST_SCRIPT_BYTES:
                raise BadInput(f"script {name}: larger than {LARGEST_SCRIPT_BYTES} bytes")
            with open(name, "rb") as file:
                script = _parsed(name, file.read())
            if len(_FILES) >= MOST_FILES:
                _FILES.pop(next(iter(_FILES)))
            _FILES[key] = script
    except OSError as error:
        raise BadInput(f"script {name}: {error.strerror or error}") from None
    return script


def _failing(name: str) -> Played | None:
    """The script that fails with the code in its name."""
    word, _, code = name.partition(":")
    code = code or "server_error"
    if word != "fails" or not code.isidentifier():
        return None
    fault = Fault(code=code, message=f"this script always fails: {code}", status=status_of(code))
    return Played([Step(error=fault)], repeat=True)


def _parsed(name: str, text: bytes) -> Played:
    try:
        script = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"script {name}: not JSON: {error}") from None
    repeat = False
    if isinstance(script, dict):
        unknown = sorted(set(script) - {"steps", "repeat"})
        if unknown:
            raise BadInput(f"script {name}: unknown field {unknown[0]!r}; a script has `steps` and `repeat`")
        repeat = script.get("repeat", False)
        script = script.get("steps")
    if not isinstance(script, list) or not isinstance(repeat, bool):
        raise BadInput(f"script {name}: neither a list of steps nor an object with a list `steps` and a bool `repeat`")
    steps = []
    for number, step in enumerate(script, start=1):
        try:
            steps.append(convert(step, Step))
        except msgspec.ValidationError as error:
            raise BadInput(f"script {name}, step {number}: {error}") from None
    return Played(steps, repeat=repeat)


def step_of(given: Step | dict[str, Any]) -> Step:
    return given if isinstance(given, Step) else convert(given, Step)


def _echo(request: ModelRequest, seen: Seen) -> Step:
    """Says what the person said."""
    return Step(text=seen.said or "(nothing was said)")


def _tools(request: ModelRequest, seen: Seen) -> Step:
    """Calls what the person names, a line each: `NAME {"argument": …}`. Then it says what came back."""
    if seen.results:
        return Step(text="\n".join(_output(result) for result in seen.results) or "(no output)")
    offered = {tool.name for tool in request.tools}
    calls = []
    for line in seen.said.splitlines():
        name, _, given = line.strip().partition(" ")
        if name in offered:
            try:
                calls.append(Call(name=name, input=msgspec.json.decode(given or "{}", type=dict[str, Any])))
            except (msgspec.DecodeError, RecursionError):
                return Step(text=f"The arguments of {name} are no JSON object: {given[:200]}")
    if calls:
        return Step(tool_calls=tuple(calls))
    return Step(text=f"Name a tool and its arguments. The tools are: {', '.join(sorted(offered)) or 'none'}.")


def _size(part: Part) -> int:
    """Bytes of the text in a part, as far as a script counts it: pictures and files are free."""
    match part:
        case Text():
            return length(part.text)
        case Thinking():
            return length(part.thinking)
        case ToolCall():
            return length(part.name) + len(msgspec.json.encode(part.input))
        case ToolResult():
            return length(_output(part))
    return 0


def _output(result: ToolResult) -> str:
    output = result.output
    return output if isinstance(output, str) else "".join(part.text for part in output if isinstance(part, Text))


def length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


_NO_MORE = Ready(Step(text="(the script has no more steps)"))
_FILES: dict[tuple[str, int, int], Played] = {}

BUILT_IN: dict[str, Script] = {
    "hello": Played([Step(text="Hello! I am a script, and this is all I say.")], repeat=True),
    "echo": Chosen(_echo),
    "tools": Chosen(_tools),
}
"""The scripts that need no file: one that greets, one that repeats what was said, one that calls what it is told to."""
