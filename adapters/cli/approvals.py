"""The commands of people who are asked: what waits for them, what exactly it is, and their answer.

A decision goes to whoever owns the log; where nobody does it is recorded here, and `reenact resume` goes on with it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

from cyclopts import Parameter

from ...events.errors import BadInput
from .front import Front, Row
from .look import action_columns
from .options import STDIN, Common
from .output import Output
from .table import table

_COMMON = Common()

Wanted = Annotated[
    str, Parameter(help="SESSION:ACTION as `ls` shows it; the session alone, or the action, where that is enough.")
]
Comment = Annotated[str | None, Parameter(help="Why. The model is told where a call is denied.")]
Always = Annotated[
    Literal["exact", "class"] | None,
    Parameter(
        help="Leave for calls to come in this session: exactly this call, or, of a tool that only reads, every call."
    ),
]


class Approvals:
    """The commands, over what they are handed."""

    def __init__(self, front: Front, output: Output, stdin: TextIO | None = None) -> None:
        self._front = front
        self._output = output
        self._stdin = stdin or sys.stdin

    def ls(
        self,
        *,
        all: Annotated[
            bool, Parameter(name=["-a", "--all"], negative="", show_default=False, help="Also those that are over.")
        ] = False,
        common: Common = _COMMON,
    ) -> int:
        """List what waits for a person, oldest first."""
        self._output.json = common.json
        with self._front.reading(common.db, scope=common.scope) as reading:
            rows = reading.actions(over=all)
        if self._output.json:
            self._output.rows(rows)
        else:
            none = "nothing waits for a person. --all shows what did." if not all else "nobody was ever asked."
            table(self._output, action_columns(self._front.short), rows, none=none)
        return 0

    def show(self, action: Wanted, /, *, common: Common = _COMMON) -> int:
        """Show one question whole: what would run, with what, where, and until when it may be allowed."""
        self._output.json = common.json
        with self._front.reading(common.db, scope=common.scope) as reading:
            row, lines = reading.action(action)
        if self._output.json:
            self._output.row(row)
        else:
            for line in lines:
                self._output.line(line)
        return 0

    def approve(
        self,
        action: Wanted,
        /,
        *,
        comment: Comment = None,
        always: Always = None,
        digest: Annotated[
            str | None, Parameter(help="Only what has this digest, as `show` prints it; anything else is refused.")
        ] = None,
        common: Common = _COMMON,
    ) -> int:
        """Let a call run: exactly the one that `show` shows, once, and only until it expires."""
        return self._decide(action, {"approved": True}, comment, always, digest, common)

    def deny(self, action: Wanted, /, *, comment: Comment = None, common: Common = _COMMON) -> int:
        """Say no. The model is told so."""
        return self._decide(action, {"approved": False}, comment, None, None, common)

    def edit(
        self,
        action: Wanted,
        /,
        *,
        arguments: Annotated[
            str | None,
            Parameter(help="The arguments to run with instead, as JSON; - reads it from stdin. Without it: $EDITOR."),
        ] = None,
        comment: Comment = None,
        common: Common = _COMMON,
    ) -> int:
        """Let a call run with other arguments. The model is told that a person changed them."""
        self._output.json = common.json
        with self._front.reading(common.db, scope=common.scope) as reading:
            row, _ = reading.action(action)
        if row["status"] != "pending" or row["call"] is None:
            raise BadInput("only a call that waits for approval has arguments to edit.")
        if arguments is None:
            changed = edited(row["call"]["arguments"])
        else:
            changed = _read_json(self._stdin.read() if arguments == STDIN else arguments)
        return self._decide(row["id"], {"approved": True, "arguments": changed}, comment, None, row["digest"], common)

    def _decide(
        self,
        wanted: str,
        resolution: dict[str, Any],
        comment: str | None,
        always: str | None,
        digest: str | None,
        common: Common,
    ) -> int:
        self._output.json = common.json
        with self._front.reading(common.db, scope=common.scope) as reading:
            row, _ = reading.action(wanted)
        if comment is not None:
            resolution["comment"] = comment
        if always is not None:
            resolution["always"] = always
        # What was read is what is decided on: were it another by now, it would be refused.
        decided, owned = self._front.decide(
            common.db, row["id"], resolution, row["digest"] if digest is None else digest
        )
        if self._output.json:
            self._output.row(decided)
        else:
            self._said(decided)
        if not owned:
            self._output.note(f"no process works on this log: reenact resume {self._front.short(row['sessionId'])}")
        return 0

    def _said(self, row: Row) -> None:
        resolution = row["resolution"] or {}
        what = row["call"]["name"] if row["call"] else row["type"]
        approved = resolution.get("approved")
        how = "approved" if approved else "denied" if approved is False else "answered"
        more = " with other arguments" if resolution.get("arguments") is not None else ""
        more += f", and {resolution['always']} calls like it" if resolution.get("always") else ""
        self._output.line(f"{self._front.short(row['sessionId'])}:{row['id'].rpartition(':')[2]} {what} {how}{more}")


def edited(arguments: Any) -> dict[str, Any]:
    """The arguments as a person changed them in their editor. Raises BadInput where there is none, or no JSON."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise BadInput("$EDITOR is not set: give the arguments with --arguments.")
    with tempfile.TemporaryDirectory(prefix="reenact-") as folder:  # nobody else may look into it
        path = Path(folder) / "arguments.json"
        path.write_text(json.dumps(arguments, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        try:
            ended = subprocess.run([*shlex.split(editor), str(path)], check=False)
        except (OSError, ValueError) as error:
            raise BadInput(f"{editor} cannot be run: {error}.") from None
        if ended.returncode != 0:
            raise BadInput(f"{editor} ended with {ended.returncode}; nothing was decided.")
        return _read_json(path.read_text(encoding="utf-8"))


def _read_json(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the arguments are no JSON: {error}.") from None
    if not isinstance(given, dict):
        raise BadInput("the arguments are an object: {…}.")
    return given
