"""Where words go: answers and rows to stdout, everything else to stderr; rows as JSON, one a line, where that is asked.

What comes from a log or a model is shown without what a terminal obeys or draws as nothing, see `events.visible`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from ...events.visible import readable

if TYPE_CHECKING:
    from rich.console import Console

PAGE_COLUMNS = 100

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Output:
    """The two streams of one command. json: rows and events go out as JSON. Once a reader has gone (`| head`), what is
    written to it is dropped. hidden(value): takes out the secrets that a person may have typed or a file may hold."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self.out = out
        self.err = err
        self.json = False
        self.gone = False
        self.hidden: Callable[[Any], Any] = lambda value: value
        self._consoles: dict[int, Console] = {}

    @property
    def shows(self) -> bool:
        """Whether a person reads stdout."""
        return _is_terminal(self.out)

    @property
    def tells(self) -> bool:
        """Whether a person reads stderr."""
        return _is_terminal(self.err)

    def console(self, stream: TextIO | None = None) -> Console:
        """A rich console on a stream, stderr where none is given."""
        stream = stream or self.err
        console = self._consoles.get(id(stream))
        if console is None:
            terminal = _is_terminal(stream)
            console = _console_class()(
                file=stream,
                highlight=False,
                markup=False,
                emoji=False,
                soft_wrap=not terminal,
                force_terminal=terminal,
                width=None if terminal else 10_000,
            )
            self._consoles[id(stream)] = console
        return console

    def page(self) -> Console:
        """A rich console on stdout for pages of help, never wider than is read well."""
        from rich.console import Console

        wide = self.console(self.out).width if self.shows else PAGE_COLUMNS
        return Console(file=self.out, width=min(wide, PAGE_COLUMNS), force_terminal=self.shows, highlight=False)

    @property
    def columns(self) -> int:
        """How wide a line of stdout may be."""
        return self.console(self.out).width if self.shows else 10_000

    def row(self, row: Any) -> None:
        """One JSON object, on a line of its own."""
        self.write(_encode(row).decode() + "\n")

    def rows(self, rows: Iterable[Any]) -> None:
        for row in rows:
            self.row(row)
            if self.gone:
                return

    def line(self, text: str = "") -> None:
        """A line of words on stdout."""
        self.write(readable(text) + "\n")

    def write(self, text: str) -> None:
        """Words on stdout, as they are."""
        if self.gone:
            return
        try:
            self.out.write(text)
            self.out.flush()
        except BrokenPipeError:
            self.leave()

    def say(self, text: str, *, style: str = "") -> None:
        """A line for the person at the terminal, on stderr: never a part of the result."""
        text = readable(text)
        if self.tells:
            self.console().print(text, style=style or None, soft_wrap=True)
        else:
            self.err.write(text + "\n")
            self.err.flush()

    def note(self, text: str) -> None:
        """Something worth knowing, on stderr."""
        self.say(f"reenact: {self.hidden(text)}", style="dim")

    def error(self, text: str) -> None:
        """What went wrong, in one line on stderr."""
        self.say(f"reenact: {' '.join(self.hidden(text).split())}", style="red")

    def leave(self) -> None:
        """Whoever read stdout has gone."""
        self.gone = True
        with contextlib.suppress(OSError, ValueError):
            # What is buffered still would be flushed at the end, and fail loudly there.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())


def _console_class() -> type[Console]:
    from rich.console import Console

    class Visible(Console):
        """Never hides the cursor: a process that is killed could not bring it back."""

        def show_cursor(self, show: bool = True) -> bool:
            return False

    return Visible


def standard() -> Output:
    """The streams of this process. What they cannot encode is written as an escape, never raised."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    return Output(sys.stdout, sys.stderr)


def short(text: object, chars: int) -> str:
    """On one line, with `…` for what is left out."""
    line = " ".join(readable(str(text)[: chars * 4]).split())
    if len(line) <= chars and len(str(text)) <= chars * 4:
        return line
    return line[: max(0, chars - 1)].rstrip() + "…"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:
        return False
