"""Asking the person at the terminal, in the middle of a turn: the question whole, and a few keys for the answer."""

from __future__ import annotations

import json
import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TextIO

from ...events.errors import BadInput
from ...events.visible import exactly
from .answers import files_of, read_object
from .editor import edited, has_editor
from .front import Row
from .output import Output

CHOICES = "Allow it? [y]es, [n]o, [e]dit the arguments, [a]lways exactly this; Enter leaves it for later: "
POLL_S = 0.2


class Said(NamedTuple):
    """What a person answered. secret: what they handed over beside it, which is stored nowhere."""

    resolution: dict[str, Any]
    secret: str | None = None


class Person:
    """Whoever sits at this terminal. stopped(): whether they pressed Ctrl-C; then nothing is waited for any more."""

    def __init__(self, output: Output, stdin: TextIO, stopped: Callable[[], bool]) -> None:
        self._output = output
        self._stdin = stdin
        self._stopped = stopped

    def answers(self, lines: Sequence[str], row: Row) -> Said | None:
        """Show a question of any kind and take the answer, None where it is left for later."""
        call = row["call"]
        if call is not None:
            resolution = self.decides(lines, call["arguments"])
            return None if resolution is None else Said(resolution)
        if row["type"] in _ASKED:
            self._shows(lines)
            while True:
                try:
                    return _ASKED[row["type"]](self, row["payload"])
                except BadInput as error:
                    self._output.error(str(error))
        resolution = self.decides(lines, None)
        return None if resolution is None else Said(resolution)

    def decides(self, lines: Sequence[str], arguments: Any | None) -> dict[str, Any] | None:
        """Show a question of yes or no and take the answer: a resolution, or None where it is left for later.

        arguments: those that may be edited, None where there are none.
        """
        self._shows(lines)
        while True:
            word = self._line(CHOICES if arguments is not None else "Allow it? [y]es, [n]o; Enter leaves it: ")
            match (word or "").strip().lower():
                case "y" | "yes":
                    return {"approved": True}
                case "n" | "no":
                    return {"approved": False, **self._why()}
                case "a" | "always" if arguments is not None:
                    return {"approved": True, "always": "exact"}
                case "e" | "edit" if arguments is not None:
                    changed = self.edits(arguments)
                    if changed is not None:
                        return {"approved": True, "arguments": changed}
                    if self._stopped():
                        return None
                    self._shows(lines)
                case "":
                    return None
                case _:
                    self._output.say("y, n, e, a, or nothing." if arguments is not None else "y, n, or nothing.")

    def edits(self, arguments: Any) -> dict[str, Any] | None:
        """Have the arguments changed, show what would run, and ask once more. None: nothing was decided."""
        changed = arguments
        while True:
            try:
                changed = edited(changed) if has_editor() else self._typed(changed)
            except BadInput as error:
                self._output.error(str(error))
                return None
            if changed == arguments:
                self._output.say("Nothing was changed, and nothing decided.")
                return None
            self._shows(["Arguments, as you changed them:"])
            for line in json.dumps(changed, indent=2, ensure_ascii=False).splitlines():
                self._output.say(f"  | {exactly(line)}")
            while True:
                match (self._line("Run it with these? [y]es, [n]o, [e]dit them again: ") or "n").strip().lower():
                    case "y" | "yes":
                        return dict(changed)
                    case "n" | "no" | "":
                        self._output.say("It was not run, and nothing decided.")
                        return None
                    case "e" | "edit":
                        break
                    case _:
                        self._output.say("y, n, or e.")

    def _typed(self, arguments: Any) -> Any:
        line = self._line("$EDITOR is not set. All arguments as a line of JSON, {…}; Enter leaves them as they are: ")
        return read_object(line, "what was typed") if line and line.strip() else arguments

    def hidden(self, prompt: str) -> str | None:
        """A line that is not shown as it is typed, None where there is none. Raises BadInput where it would be."""
        with _unseen(self._stdin):
            line = self._line(prompt)
        self._output.say("")
        return None if line is None else line.rstrip("\r\n") or None

    # -- by kind --

    def _chooses(self, payload: Row) -> Said | None:
        options, several = payload["options"], payload.get("multiple") is True
        for number, option in enumerate(options, start=1):
            self._output.say(f"  {number}) {exactly(option)}")
        more = "Which? Numbers with commas between" if several else "Which? Its number"
        words = [word.strip() for word in (self._line(f"{more}; Enter leaves it: ") or "").split(",")]
        if words == [""]:
            return None
        if len(words) > 1 and not several:
            raise BadInput("one of the options is chosen, not several.")
        chosen = []
        for word in words:
            number = int(word) if word.isascii() and word.isdigit() and len(word) < 9 else 0
            if not 1 <= number <= len(options):
                raise BadInput(f"{word!a} is no number from 1 to {len(options)}.")
            chosen.append(options[number - 1])
        return Said({"choices": chosen} if several else {"choice": chosen[0]})

    def _writes(self, payload: Row) -> Said | None:
        line = self._line("Your answer; Enter leaves it: ")
        text = (line or "").rstrip("\r\n")
        return Said({"text": text}) if text else None

    def _uploads(self, payload: Row) -> Said | None:
        paths: list[str] = []
        while len(paths) < payload.get("max_files", 100):
            more = "Another" if paths else "The path of a file"
            path = (self._line(f"{more}; Enter {'ends' if paths else 'leaves it'}: ") or "").strip()
            if not path:
                break
            files_of((*paths, path))  # what is wrong with it is said at once
            paths.append(path)
        return Said({"files": files_of(tuple(paths))}) if paths else None

    def _logs_in(self, payload: Row) -> Said | None:
        name = payload.get("secret")
        if name is None:
            return self._agrees("Have you logged in?")
        try:
            secret = self.hidden(f"{name} (it is not shown, and not stored); Enter leaves it: ")
        except BadInput as error:
            self._output.error(str(error))
            return None
        return Said({"authenticated": True}, secret) if secret else None

    def _agrees(self, question: str) -> Said | None:
        while True:
            match (self._line(f"{question} [y]es, [n]o; Enter leaves it: ") or "").strip().lower():
                case "y" | "yes":
                    return Said({"authenticated": True})
                case "n" | "no":
                    return Said({"authenticated": False, **self._why(told=False)})
                case "":
                    return None
                case _:
                    self._output.say("y, n, or nothing.")

    def _applies(self, payload: Row) -> Said | None:
        many = len(payload.get("changes", ()))
        some = f", or the numbers of some from 0 to {many - 1}" if many > 1 else ""
        while True:
            word = (self._line(f"Apply them? [y]es, [n]o{some}; Enter leaves it: ") or "").strip().lower()
            match word:
                case "y" | "yes":
                    return Said({"approved": True})
                case "n" | "no":
                    return Said({"approved": False, **self._why(told=False)})
                case "":
                    return None
                case _:
                    numbers = [each.strip() for each in word.split(",")]
                    if all(each.isascii() and each.isdigit() and int(each[:9]) < many for each in numbers):
                        return Said({"approved": True, "changes": [int(each) for each in numbers]})
                    self._output.say(f"y, n{some}, or nothing.")

    def _custom(self, payload: Row) -> Said | None:
        text = (self._line("The answer as JSON, {…}; Enter leaves it: ") or "").strip()
        return Said(read_object(text, "the answer")) if text else None

    # -- lines --

    def _shows(self, lines: Sequence[str]) -> None:
        self._output.say("")
        for line in lines:
            self._output.say(line)

    def _why(self, *, told: bool = True) -> dict[str, Any]:
        """told: the model is."""
        who = " The model is told;" if told else ""
        why = (self._line(f"Why not?{who} Enter for no reason: ") or "").strip()
        return {"comment": why} if why else {}

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


_ASKED: dict[str, Callable[[Person, Row], Said | None]] = {
    "choose": Person._chooses,
    "input": Person._writes,
    "upload": Person._uploads,
    "reauth": Person._logs_in,
    "apply_changes": Person._applies,
    "custom": Person._custom,
}


def _forget_typed(stdin: TextIO) -> None:
    """Throw away what the terminal holds and nobody has read. Of anything but a terminal: nothing."""
    try:
        import termios
    except ImportError:  # no terminal of this kind
        return
    with suppress(OSError, ValueError, termios.error):
        if stdin.isatty():
            termios.tcflush(stdin.fileno(), termios.TCIFLUSH)


@contextmanager
def _unseen(stdin: TextIO) -> Iterator[None]:
    """Have the terminal not show what is typed. Raises BadInput where it cannot be kept from that."""
    try:
        import termios

        fd = stdin.fileno()
        before = termios.tcgetattr(fd)
    except (ImportError, OSError, ValueError):
        raise BadInput("a secret is typed at a terminal that can hide it, and at no other place.") from None
    except termios.error:
        raise BadInput("a secret is typed at a terminal that can hide it, and at no other place.") from None
    quiet = list(before)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(fd, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
