"""The conversation as people see it: its messages, and its lines as plain text. A pure fold over one session."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo

from msgspec.structs import replace

from ..events.action import ActionRequired, ActionResolved
from ..events.agent import (
    ModelAnswered,
    ModelFailed,
    ModelSelected,
    ToolDoubted,
    ToolOutput,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
    TurnCompleted,
)
from ..events.content import File, Image, Text, ToolCall
from ..events.message import Recorded
from ..events.notice import Changed, ErrorMessage, Message, MessagePart, ShownResult, ToolCallMessage, ToolResultMessage
from ..events.session import JobStopping
from .scribe import Scribe

INPUT_CHARS = 60
OUTPUT_CHARS = 80
"""What a reader is shown of a call on its one line. The message has all of it."""

_WHO = {"user": "you", "assistant": "assistant", "error": "error"}
_WHO_COLUMNS = 11
_CUT = {
    "max_tokens": "cut off: no tokens left",
    "context_exceeded": "cut off: the conversation is too long",
    "refusal": "refused",
}


class Transcript:
    """The messages of a session, oldest first, and the same as a person reads it.

    `apply` takes the session's events in order of version, each once; it never raises.
    """

    __slots__ = ("_asked", "_calls", "_lines", "_messages", "_scribe", "_stopping")

    def __init__(self) -> None:
        self._scribe = Scribe()
        self._messages: list[Message] = []
        self._lines: list[_Line] = []
        self._calls: dict[str, _Line] = {}  # open ones, by the id of their message
        self._stopping = ""
        self._asked: dict[str, str] = {}  # open questions -> the call each is about

    @property
    def messages(self) -> Sequence[Message]:
        """What entered the conversation. Inputs that still wait for their turn are in `queued`."""
        return self._messages

    @property
    def queued(self) -> Sequence[str]:
        """Ids that the messages of waiting inputs will have."""
        return [queued.id for queued in self._scribe.queued.values()]

    def apply(self, recorded: Recorded) -> None:
        message = self._scribe.apply(recorded)
        if isinstance(message, ToolCallMessage) and message.changed is not None:
            self._change(message, message.changed, recorded)
        elif message is not None:
            self._messages.append(message)
            self._write(message, recorded)
        match recorded.data:
            case ModelFailed(failure=failure) if message is not None:
                self._lines[-1].mark = "interrupted" if failure.code == "cancelled" else f"broke off: {failure.code}"
            case ModelFailed(failure=failure, advance=True):
                self._note(recorded, f"{failure.message} ({failure.code})")
            case ModelFailed(failure=failure, retry_in_ms=int(wait_ms)):
                self._note(recorded, f"{failure.message} ({failure.code}), again in {wait_ms / 1000:g} s")
            case ModelSelected(model=model, reason=reason, noted=False) if reason != "pinned":
                self._note(recorded, f"from here on {model} ({reason})")
            case ToolStarted():
                self._stands(recorded.data.tool, "running")
            case ToolDoubted():
                self._stands(recorded.data.tool, "in doubt")
            case ToolUnproved():
                self._stands(recorded.data.tool, "in doubt: waits for a person")
            case ActionRequired(kind="approval", tool=str(tool), digest=str(), action=action):
                self._stands(tool, "waits for approval")
                self._asked[action] = tool
            case ActionRequired(kind=kind):
                self._note(recorded, f"asked a person: {kind}")
            case ActionResolved(action=action, resolution=given, by=by) if action in self._asked:
                said = f"approved by {by}" if given.get("approved") is True else f"denied by {by}"
                changed = ", with other arguments" if given.get("arguments") is not None else ""
                self._stands(self._asked.pop(action), said + changed)
            case ActionResolved(by=by):
                self._note(recorded, f"answered by {by}")
            case JobStopping():
                self._stopping = recorded.data.reason
            case TurnCompleted(reason=reason):
                if reason == "interrupted":
                    self._note(recorded, f"interrupted: {self._stopping}" if self._stopping else "interrupted")
                self._stopping = ""

    def reader_lines(self, *, zone: tzinfo = UTC) -> list[str]:
        """The conversation as lines of plain text: time, who, what.

        A call is one line: name, input and result, both cut short, and how it stands. An answer that broke off, an
        interruption and an error say so. Reasoning is left out. Each day begins with a line of its own. Control
        characters become U+FFFD, so that no text can move a terminal's cursor.
        """
        out: list[str] = []
        day = ""
        for line in self._lines:
            when = datetime.fromtimestamp(line.at_ms / 1000, zone)
            if day != (day := f"{when:%Y-%m-%d}"):
                out.append(day)
            first, *more = _plain(line.text).split("\n")
            tail = "" if line.result is None else f" → {line.result}"
            mark = f" [{_short(line.mark, OUTPUT_CHARS)}]" if line.mark else ""
            if more:
                more[-1] += tail + mark
            else:
                first += tail + mark
            out.append(f"{when:%H:%M:%S}  {line.who:<{_WHO_COLUMNS}}{first}".rstrip())
            out.extend(f"{'':{_WHO_COLUMNS + 10}}{text}".rstrip() for text in more)
        return out

    def _write(self, message: Message, recorded: Recorded) -> None:
        data = recorded.data
        match message:
            case ToolCallMessage(content=(ToolCall() as call,)):
                line = _Line(message.timestamp, "tool", _call(call), "asked for")
                self._calls[message.id] = line
            case ToolResultMessage(parent_id=str(parent), content=(ShownResult() as result,)):
                ended = self._calls.pop(parent, None)
                if ended is not None:
                    ended.result = _short(_output(result.output.value), OUTPUT_CHARS)
                    ended.mark = data.outcome if isinstance(data, ToolSettled) else "ended"
                return
            case ErrorMessage():
                line = _Line(message.timestamp, "error", _readable(message.content), message.error_code or "")
            case _:
                mark = _CUT.get(data.stop_reason, "") if isinstance(data, ModelAnswered) else ""
                line = _Line(message.timestamp, _WHO[message.role], _readable(message.content), mark)
        self._lines.append(line)

    def _change(self, message: ToolCallMessage, changed: Changed, recorded: Recorded) -> None:
        """A person changed what a call runs with: it is shown as it runs, and what was asked for beside it."""
        place = next(place for place, each in enumerate(self._messages) if each.id == message.id)
        self._messages[place] = message
        (call,) = message.content
        assert isinstance(call, ToolCall)
        if message.id in self._calls:
            self._calls[message.id].text = _call(call)
        asked = _call(replace(call, input=changed.asked, invalid=None))
        self._note(recorded, f"{changed.by} changed the arguments; asked for was {asked}")

    def _note(self, recorded: Recorded, text: str) -> None:
        self._lines.append(_Line(recorded.timestamp, "--", text, ""))

    def _stands(self, tool: str, mark: str) -> None:
        call = self._scribe.open.get(tool)
        line = self._calls.get(call.message_id) if call is not None else None
        if line is not None:
            line.mark = mark


class _Line:
    """One thing a reader is shown. mark: how it stands or ended, if that is not as one would expect."""

    __slots__ = ("at_ms", "mark", "result", "text", "who")

    def __init__(self, at_ms: int, who: str, text: str, mark: str) -> None:
        self.at_ms = at_ms
        self.who = who
        self.text = text
        self.mark = mark
        self.result: str | None = None


def _readable(parts: Sequence[MessagePart]) -> str:
    """The text of a message; what is no text is named. Calls have lines of their own."""
    said = []
    for part in parts:
        match part:
            case Text():
                said.append(part.text)
            case Image():
                said.append(f"[image {part.url or part.media_type or ''}]")
            case File():
                said.append(f"[file {part.name or part.url or part.file_id or part.media_type or ''}]")
    return "\n".join(said)


def _call(call: ToolCall) -> str:
    shown = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False, default=str)}" for name, value in call.input.items()
    )
    if call.invalid is not None:
        shown = call.invalid
    return _short(f"{call.name}({_short(shown, INPUT_CHARS)})", INPUT_CHARS * 2)


def _output(output: ToolOutput) -> str:
    return output if isinstance(output, str) else _readable(output)


def _short(text: str, chars: int) -> str:
    """On one line, and with `…` for what is left out."""
    head = _plain(text[: chars * 4]).split()
    line = " ".join(head)
    if len(line) <= chars and len(text) <= chars * 4:
        return line
    return line[: chars - 1].rstrip() + "…"


_CONTROL = dict.fromkeys((*range(32), *range(127, 160), *range(8234, 8239), *range(8294, 8298)), "�")
_CONTROL |= {ord("\n"): "\n", ord("\t"): "    ", ord("\r"): "", 0x2028: "\n", 0x2029: "\n"}


def _plain(text: str) -> str:
    """Without characters that a terminal obeys, or that turn the direction of what is read."""
    return text.translate(_CONTROL)
