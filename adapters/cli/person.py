"""Asking the person at the terminal, in the middle of a turn: the question whole, and one key for the answer."""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TextIO

from ...events.errors import BadInput
from .approvals import edited
from .output import Output

CHOICES = "Allow it? [y]es, [n]o, [e]dit the arguments, [a]lways exactly this; Enter leaves it for later: "
POLL_S = 0.2


class Person:
    """Whoever sits at this terminal. stopped(): whether they pressed Ctrl-C; then nothing is waited for any more."""

    def __init__(self, output: Output, stdin: TextIO, stopped: Callable[[], bool]) -> None:
        self._output = output
        self._stdin = stdin
        self._stopped = stopped

    def decides(self, lines: Sequence[str], arguments: Any | None) -> dict[str, Any] | None:
        """Show the question and take the answer: a resolution, or None where it is left for later.

        arguments: those that may be edited, None where there are none.
        """
        self._output.say("")
        for line in lines:
            self._output.say(line)
        while True:
            word = self._line(CHOICES if arguments is not None else "Allow it? [y]es, [n]o; Enter leaves it: ")
            match (word or "").strip().lower():
                case "y" | "yes":
                    return {"approved": True}
                case "n" | "no":
                    why = (self._line("Why not? The model is told; Enter for no reason: ") or "").strip()
                    return {"approved": False} | ({"comment": why} if why else {})
                case "a" | "always" if arguments is not None:
                    return {"approved": True, "always": "exact"}
                case "e" | "edit" if arguments is not None:
                    try:
                        return {"approved": True, "arguments": edited(arguments)}
                    except BadInput as error:
                        self._output.error(str(error))
                case "":
                    return None
                case _:
                    self._output.say("y, n, e, a, or nothing.")

    def _line(self, prompt: str) -> str | None:
        """A line, None at the end of what can be read and after Ctrl-C. What was typed before the question was to be
        seen answers something else, or nothing: it is thrown away."""
        _forget_typed(self._stdin)
        self._output.err.write(prompt)
        self._output.err.flush()
        while not self._stopped():
            try:
                ready, _, _ = select.select([self._stdin], [], [], POLL_S)
            except (OSError, ValueError):  # no file of this system: it is read as it is
                ready = [self._stdin]
            if ready:
                line = self._stdin.readline()
                return line if line else None
        return None


def _forget_typed(stdin: TextIO) -> None:
    """Throw away what the terminal holds and nobody has read. Of anything but a terminal: nothing."""
    try:
        import termios
    except ImportError:  # no terminal of this kind
        return
    with suppress(OSError, ValueError, termios.error):
        if stdin.isatty():
            termios.tcflush(stdin.fileno(), termios.TCIFLUSH)
