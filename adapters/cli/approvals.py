"""The commands of people who are asked: what waits for them, what exactly it is, and their answer.

A decision goes to whoever owns the log; where nobody does it is recorded here, and `reenact resume` goes on with it.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal, TextIO

from cyclopts import Parameter

from ...events.action import decided_as
from ...events.errors import ActionOver, BadInput
from .answers import Given, is_raise, possible, raised, read_object, resolution_of
from .editor import UNDECIDED, edited
from .front import Front, Row
from .look import action_columns, action_name, leave_columns, stands
from .options import STDIN, Common
from .output import Output
from .person import Person
from .screen import called
from .table import listed

CALL_CHARS_MAX = 1000
"""Most characters of a call that was decided upon; `show` has all of it."""

_COMMON = Common()
_GIVEN = Given()
_YES_OR_NO = ("approval", "confirm", "apply_changes")

Wanted = Annotated[
    str,
    Parameter(help="SESSION:ACTION as `ls` shows it; one of the two where no other question ever had it."),
]
Comment = Annotated[str | None, Parameter(help="Why. The model is told where a call is denied.")]
Always = Annotated[
    Literal["exact", "class"] | None,
    Parameter(
        help="Leave for calls to come in this session: exactly this call, or, of a tool that only reads, every call."
    ),
]


Tools = Annotated[
    tuple[str, ...],
    Parameter(
        name=["-t", "--tools"],
        negative="",
        show_default=False,
        help="A file of Python with the tools, by which other arguments are checked where no process works on the log."
        " It is run. Without it: the file that the session was run with, as the log names it.",
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
        with common.reading(self._front, self._output) as reading:
            rows = reading.actions(over=all)
        none = "nothing waits for a person. --all shows what did." if not all else "nobody was ever asked."
        return listed(self._output, action_columns(self._front.short), rows, none=none)

    def show(self, action: Wanted, /, *, common: Common = _COMMON) -> int:
        """Show one question whole: what would run, with what, where, and until when it may be allowed."""
        with common.reading(self._front, self._output) as reading:
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
        row = self._asked(action, common, kinds=_YES_OR_NO)
        return self._decide(row, {"approved": True}, comment, always, digest, common)

    def deny(self, action: Wanted, /, *, comment: Comment = None, common: Common = _COMMON) -> int:
        """Say no. The model is told so."""
        row = self._asked(action, common, kinds=_YES_OR_NO)
        return self._decide(row, {"approved": False}, comment, None, None, common)

    def answer(
        self,
        action: Wanted,
        /,
        *,
        given: Given = _GIVEN,
        comment: Comment = None,
        common: Common = _COMMON,
    ) -> int:
        """Answer a question of any kind. Without an option it is asked at the terminal."""
        row = self._asked(action, common)
        person = Person(self._output, self._stdin, lambda: False)
        secret: str | None = None
        if not given.named and self._stdin.isatty() and self._output.tells and not common.json:
            with common.reading(self._front, self._output) as reading:
                said = person.answers(reading.action(row["id"])[1], row)
            if said is None:
                self._output.note("nothing was answered.")
                return 1
            resolution, secret = said
        else:
            resolution = resolution_of(row, given, self._stdin.read)
            if given.secret:
                secret = self._secret(row, person)
        return self._decide(row, resolution, comment, None, None, common, secret=secret)

    def _secret(self, row: Row, person: Person) -> str:
        name = row["payload"].get("secret")
        if name is None:
            raise BadInput("this question asks for no secret: --yes or --no.")
        secret = person.hidden(f"{name} (it is not shown, and not stored): ")
        if not secret:
            raise BadInput("nothing was typed; nothing was answered.")
        return secret

    def cancel(self, action: Wanted, /, *, reason: Comment = None, common: Common = _COMMON) -> int:
        """Take a question back: nobody answers it any more. A call that waits for it is not run; its job goes on."""
        row = self._front.cancel(common.db, self._asked(action, common)["id"], reason)
        if row["status"] != "cancelled":  # it was answered since it was looked at
            raise self._over(row, action)
        if self._output.json:
            self._output.row({"actionId": row["id"], "status": "cancelled"})
        else:
            self._output.line(f"{self._name(row)} taken back")
        return 0

    def grants(
        self,
        *,
        all: Annotated[
            bool,
            Parameter(name=["-a", "--all"], negative="", show_default=False, help="Also those that were taken back."),
        ] = False,
        common: Common = _COMMON,
    ) -> int:
        """List what people allowed for good (`--always`): by whom, since when, and how often it was used."""
        with common.reading(self._front, self._output) as reading:
            rows = reading.grants(revoked=all)
        return listed(self._output, leave_columns(self._front.short), rows, none="nothing is allowed for good.")

    def revoke(
        self,
        grant: Annotated[str, Parameter(help="SESSION:ACTION as `grants` shows it, or a part where that is enough.")],
        /,
        *,
        common: Common = _COMMON,
    ) -> int:
        """Take back what was allowed for good. The next such call asks again."""
        with common.reading(self._front, self._output) as reading:
            row = reading.grant(grant)
        self._front.revoke(common.db, row["id"])
        if self._output.json:
            self._output.row({"actionId": row["id"], "revoked": True})
        else:
            self._output.line(f"{self._name(row)} {row['name']} is asked for again")
        return 0

    def edit(
        self,
        action: Wanted,
        /,
        *,
        arguments: Annotated[
            str | None,
            Parameter(help="The arguments to run with instead, as JSON; - reads it from stdin. Without it: $EDITOR."),
        ] = None,
        tools: Tools = (),
        comment: Comment = None,
        common: Common = _COMMON,
    ) -> int:
        """Let a call run with other arguments. The model is told that a person changed them."""
        row = self._asked(action, common)
        if row["call"] is None:
            raise BadInput(f"only a call that waits for approval has arguments to edit; {possible(row)}.")
        if arguments is not None:
            changed = read_object(self._stdin.read() if arguments == STDIN else arguments, "the arguments")
        elif self._stdin.isatty() and self._output.tells and not common.json:
            chosen = Person(self._output, self._stdin, lambda: False).edits(row["call"]["arguments"])
            if chosen is None:
                self._output.note(UNDECIDED)
                return 1
            changed = chosen
        else:
            changed = edited(row["call"]["arguments"])
            if changed == row["call"]["arguments"]:
                raise BadInput(f"nothing was changed; {UNDECIDED}")
        resolution = {"approved": True, "arguments": changed}
        return self._decide(row, resolution, comment, None, None, common, tools=tools)

    def _asked(self, wanted: str, common: Common, *, kinds: tuple[str, ...] = ()) -> Row:
        """A question that waits. kinds: those that this command answers, none for all. Raises ActionOver, BadInput."""
        with common.reading(self._front, self._output) as reading:
            row, _ = reading.action(wanted)
        if row["status"] != "pending":
            raise self._over(row, wanted)
        if kinds and row["type"] not in kinds:
            how = f"reenact approvals answer {wanted} {possible(row)}"
            raise BadInput(f"a question of type {row['type']} is no call to allow: {how}")
        return row

    def _over(self, row: Row, wanted: str) -> ActionOver:
        by = f" by {row['by']}" if row["by"] else ""
        return ActionOver(f"{self._name(row)} is over: {stands(row)}{by}. See: reenact approvals show {wanted}")

    def _decide(
        self,
        row: Row,
        resolution: dict[str, Any],
        comment: str | None,
        always: str | None,
        digest: str | None,
        common: Common,
        *,
        tools: tuple[str, ...] = (),
        secret: str | None = None,
    ) -> int:
        if comment is not None:
            resolution["comment"] = comment
        if always is not None:
            resolution["always"] = always
        # What was read is what is decided on: were it another by now, it would be refused.
        shown = row["digest"] if digest is None else digest
        decided, left = self._front.decide(common.db, row["id"], resolution, shown, tools=tools, secret=secret)
        if self._output.json:
            self._output.row(decided)
        else:
            self._said(decided)
        if left:
            self._output.note(f"no process works on this log: reenact resume {self._front.short(row['sessionId'])}")
        return 0

    def _said(self, row: Row) -> None:
        resolution = row["resolution"] or {}
        if is_raise(row):
            said = raised(row) if resolution.get("approved") is True else "limit not raised"
            self._output.line(f"{self._name(row)} {said}")
            return
        call, changed = row["call"], resolution.get("arguments")
        what = (
            called(call["name"], call["arguments"] if changed is None else changed, chars=CALL_CHARS_MAX)
            if call
            else row["type"]
        )
        how = decided_as(row["type"], {**resolution, "arguments": None})
        more = " with other arguments" if changed is not None else ""
        more += f", and {resolution['always']} calls like it" if resolution.get("always") else ""
        self._output.line(f"{self._name(row)} {what} {how}{more}")

    def _name(self, row: Row) -> str:
        return action_name(row, self._front.short)
