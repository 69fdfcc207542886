"""The command line in this process, over streams that pass for files or for a terminal."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from reenact.adapters.cli.app import main
from reenact.cli.commands import Commands

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Stream(io.StringIO):
    """A file, or a terminal."""

    def __init__(self, text: str = "", *, terminal: bool = False) -> None:
        super().__init__(text)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """stdout as one JSON object a line. A command that failed and printed none has no empty list to show."""
        assert self.out or self.code == 0, self
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.rows
        return row


def reenact(*argv: str, stdin: str = "", terminal: bool = False) -> Ended:
    """Run one command line. terminal: stdout and stderr pass for one."""
    out, err = Stream(terminal=terminal), Stream(terminal=terminal)
    code = main(argv, Commands(), stdin=Stream(stdin), stdout=out, stderr=err)
    return Ended(code, out.getvalue(), err.getvalue())


def at_terminal(*argv: str, keys: Iterable[str]) -> Ended:
    """Run one command line at a terminal at which these lines are typed."""
    out, err = Stream(terminal=True), Stream(terminal=True)
    stdin = Stream("".join(f"{key}\n" for key in keys), terminal=True)
    return Ended(main(argv, Commands(), stdin=stdin, stdout=out, stderr=err), out.getvalue(), err.getvalue())


def one_line(ended: Ended) -> str:
    """The one line of a failure; whatever else it printed fails the test."""
    assert ended.out == "" and "Traceback" not in ended.err, ended
    (line,) = ended.err.splitlines()
    assert line.startswith("reenact: ")
    return line.removeprefix("reenact: ")
