"""A turn as a person at a terminal watches it: text as it comes, a line a tool, something that moves while it waits.

Into a pipe goes only the answer, at the end; with `--json` every event and signal instead.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ...events.action import ActionCancelled, ActionEnded, ActionExpired, ActionRequired, ActionResolved
from ...events.agent import (
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    ToolDoubted,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
    TurnCompleted,
)
from ...events.content import Text, ToolCall, text_of
from ...events.message import BusEvent, as_json
from ...events.purse import BudgetWarned
from ...events.session import JobStopping
from ...events.stream import TextDelta, ThinkingStart, ToolProgress
from ...events.visible import readable
from .flow import Flow
from .output import Output, short
from .table import span

if TYPE_CHECKING:
    from rich.live import Live

ROOM_MAX = 120
"""Columns of a line of progress."""

_PROGRESS_CHARS = 60
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MARKS = {"ok": ("✓", "green"), "error": ("✗", "red"), "denied": ("✗", "red"), "unknown": ("?", "yellow")}
_CUT = {
    "max_tokens": "cut off: no tokens left",
    "context_exceeded": "cut off: the conversation is too long",
    "refusal": "the model refused",
}


class Screen:
    """Shows one session. label: in front of its lines where several sessions share the terminal; then nothing is
    written piece by piece. `said` is the text of the newest answer."""

    def __init__(self, output: Output, *, label: str = "") -> None:
        self._output = output
        self._label = f"{label}  " if label else ""
        self._streams = output.shows and not label
        self._watched = output.tells or output.shows
        self._spinner = _Spinner(output) if output.tells and not label else None
        self._calls: dict[str, tuple[str, dict[str, Any]]] = {}
        self._asked: tuple[str, tuple[Any, ...]] = ("", ())  # the newest answer: its calls are asked for next
        self._questions: dict[str, str] = {}  # to a person -> the call each is about
        self._near: tuple[str, ...] = ()  # the limits it warned of last
        self._flow = Flow(output.write, lambda: output.columns)
        self._heard = False
        self._last = ""  # character of the text that came piece by piece
        self.said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def know(self, tool: str, name: str, given: dict[str, Any]) -> None:
        """A call that was asked for before it began to watch."""
        self._calls[tool] = (name, given)

    def stopping(self) -> None:
        """Say that it was asked to stop."""
        self._flow.end()
        if self._watched:
            self._output.note("stopping; Ctrl-C again quits at once.")

    def close(self) -> None:
        """Stop what moves, end the line that is open."""
        self._wait(None)
        self._flow.end()

    def feed(self, event: BusEvent) -> None:
        """Show one event or signal, in the order in which they come."""
        if self._output.json:
            self._output.row(as_json(event))
            return
        match event.data:
            case TextDelta(text=text):
                self._heard = True
                if self._streams:
                    self._wait(None)
                    self._flow.feed(readable(text, before=self._last))
                    self._last = text[-1:] or self._last
            case ThinkingStart():
                self._wait("reasoning")
            case ToolProgress(text=text):
                self._wait(short(text, _PROGRESS_CHARS))
            case ModelCalled() as called:
                self._heard, self._last = False, ""
                self._wait(
                    f"waiting for {called.model}" + (f", attempt {called.attempt}" if called.attempt > 1 else "")
                )
            case ModelSelected() as selected:
                self._selected(selected)
            case BudgetWarned(limits=limits):
                self._warned(limits)
            case ModelAnswered() as answer:
                self._answered(answer)
            case ModelFailed() as failed:
                self._failed(failed)
            case ToolRequested() as asked:
                self._requested(asked)
            case ActionRequired(action=action, tool=str(tool)):
                self._questions[action] = tool
            case ActionResolved() | ActionExpired() | ActionCancelled() as ended:
                self._decided(ended)
            case ToolStarted(tool=tool, attempt=attempt):
                self._wait(self._call(tool, self._room // 2) + (f", attempt {attempt}" if attempt > 1 else ""))
            case ToolSettled() as settled:
                self._settled(settled)
            case ToolDoubted(tool=tool):
                self._doubt(tool, "its runner died; did it take effect?")
            case ToolUnproved(tool=tool):
                self._doubt(tool, "nobody can say. It waits for a person.")
            case JobStopping(reason=reason):
                self._wait(f"stopping: {reason}")
            case TurnCompleted(reason="interrupted"):
                self._tell("  interrupted", "yellow")

    # -- what it shows --

    def _answered(self, answer: ModelAnswered) -> None:
        self._wait(None)
        self.said = text_of(answer.parts)
        self._asked = (answer.call, answer.parts)
        if self._streams and not self._heard and self.said:
            self._flow.feed(readable(self.said))
        self._flow.end()
        if self._label and self.said and self._watched:
            self._tell(self.said, "")
        if answer.stop_reason in _CUT:
            self._tell(f"  {_CUT[answer.stop_reason]}", "yellow")

    def _failed(self, failed: ModelFailed) -> None:
        self._flow.end()
        self.said = text_of(failed.partial)
        if failed.failure.code == "cancelled":
            return
        if failed.advance:
            self._tell(f"  ✗ {short(failed.failure.message, 100)}", "yellow")
        elif failed.retry_in_ms is not None:
            what = f"{short(failed.failure.message, 100)}; again in {span(failed.retry_in_ms)}"
            self._tell(f"  ✗ {what}", "yellow")
            self._wait(f"waiting {span(failed.retry_in_ms)} before it tries again")

    def _selected(self, selected: ModelSelected) -> None:
        key = f" with key {selected.key}" if selected.key is not None else ""
        if selected.reason == "pinned" or selected.noted:
            return  # as it was asked for
        self._tell(f"  → {selected.model}{key} ({selected.reason})", "yellow")

    def _warned(self, limits: tuple[str, ...]) -> None:
        known, self._near = self._near, limits
        if limits and limits != known:
            self.close()
            self._output.note(f"{self._label}{near(limits)}")

    def _requested(self, asked: ToolRequested) -> None:
        call, parts = self._asked
        parts = parts if call == asked.call else ()
        part = parts[asked.part] if asked.part < len(parts) else None
        given = part.input if isinstance(part, ToolCall) else {}
        self._calls[asked.tool] = (asked.name, given)

    def _decided(self, ended: ActionEnded) -> None:
        tool = self._questions.pop(ended.action, None)
        if tool is None or not isinstance(ended, ActionResolved):
            return
        if isinstance(given := ended.resolution.get("arguments"), dict):
            self.know(tool, self._calls[tool][0] if tool in self._calls else tool, given)  # what runs is this

    def _settled(self, settled: ToolSettled) -> None:
        mark, style = _MARKS.get(settled.outcome, ("-", "dim"))
        output = settled.output
        result = output if isinstance(output, str) else " ".join(_named(part) for part in output)
        how = f" {settled.outcome}" if settled.outcome not in ("ok", "error") else ""
        how += {"probe": " (by its probe)", "person": " (by a person)"}.get(settled.proof or "", "")
        took = "" if settled.proof else f"  {span(settled.duration_ms)}"
        room = self._room - len(how) - len(took) - 7
        name = self._call(settled.tool, max(room // 2, room - len(result)))
        self._calls.pop(settled.tool, None)
        self._tell(f"  {mark} {name}{how} → {short(result, max(12, room - len(name)))}{took}", style)

    def _doubt(self, tool: str, what: str) -> None:
        self._tell(f"  ? {self._call(tool, self._room - len(what) - 6)}: {what}", "yellow")

    # -- how it shows it --

    def _tell(self, text: str, style: str) -> None:
        self._wait(None)
        self._flow.end()
        if self._watched:
            self._output.say(self._label + text, style=style)

    def _wait(self, what: str | None) -> None:
        if self._spinner is not None:
            if what is not None:
                self._flow.end()
            self._spinner.turn(what)

    def _call(self, tool: str, chars: int) -> str:
        """A call in so many characters: its name, and as much of its input as there is room for."""
        known = self._calls.get(tool)
        return tool if known is None else called(*known, chars=chars)

    @property
    def _room(self) -> int:
        return min(ROOM_MAX, self._output.console().width if self._output.tells else ROOM_MAX) - len(self._label)


def called(name: str, given: dict[str, Any], *, chars: int = 60) -> str:
    """A call on one line, in about so many characters: `refund(order="42", cents=1250)`."""
    import msgspec

    shown = ", ".join(f"{key}={msgspec.json.encode(value).decode()}" for key, value in given.items())
    return f"{name}({short(shown, max(8, chars - len(name) - 2))})"


def near(limits: tuple[str, ...]) -> str:
    """What a warning of limits says."""
    return f"nearly used up, or passed: {', '.join(limits)}" if limits else "no limit is near"


def _named(part: Any) -> str:
    return part.text if isinstance(part, Text) else f"[{type(part).__name__.lower()}]"


class _Spinner:
    """A line that moves and counts the seconds, gone without a trace when there is something to say."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._live: Live | None = None
        self._what = ""
        self._since = 0.0

    def turn(self, what: str | None) -> None:
        """Begin to turn, over something else from now on, or stop."""
        if what is None:
            if self._live is not None:
                live, self._live = self._live, None
                live.stop()
            return
        if what != self._what or self._live is None:
            self._what, self._since = what, time.monotonic()
        if self._live is None:
            from rich.live import Live

            self._live = Live(
                self,
                console=self._output.console(),
                transient=True,
                refresh_per_second=10,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def __rich__(self) -> Any:
        from rich.text import Text

        elapsed_s = time.monotonic() - self._since
        frame = _FRAMES[int(elapsed_s * 10) % len(_FRAMES)]
        return Text(f"{frame} {self._what}  {elapsed_s:.0f} s", style="dim", no_wrap=True, overflow="ellipsis")
