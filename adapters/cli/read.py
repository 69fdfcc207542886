"""The commands that read: beside the owner of the log or without one, and never more than the log."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from ...events.errors import BadInput
from ...events.message import as_json
from .front import Front, Reading, Row
from .look import (
    audit_columns,
    conversation,
    cost_columns,
    event_line,
    image_columns,
    in_words,
    job_columns,
    session_columns,
)
from .options import Common, whole
from .output import Output
from .table import count, found, listed

_COMMON = Common()
_BAR_EVENTS_MIN = 20_000
_VIOLATIONS_SHOWN = 20

Session = Annotated[str, Parameter(help="A name, an id, its beginning or its end, or `last`.")]
Only = Annotated[
    str | None,
    Parameter(
        name=["-s", "--session"], help="Only of this session: a name, an id, its beginning or its end, or `last`."
    ),
]
Limit = Annotated[int | None, Parameter(converter=whole, validator=validators.Number(gte=1), help="At most so many.")]
Groups = Literal["model", "day", "session", "image", "tool", "container", "scope", "job", "provider"]


class Read:
    """The commands, over what they are handed."""

    def __init__(self, front: Front, output: Output) -> None:
        self._front = front
        self._output = output

    # -- what there is --

    def ps(
        self,
        *,
        all: Annotated[
            bool, Parameter(name=["-a", "--all"], negative="", show_default=False, help="Also the jobs that are over.")
        ] = False,
        session: Only = None,
        common: Common = _COMMON,
    ) -> int:
        """List the jobs: running, queued, waiting for a person; with --all also those that are over."""
        with common.reading(self._front, self._output) as reading:
            rows = reading.jobs(over=all, session=session)
            return listed(
                self._output,
                job_columns(self._short),
                rows,
                none="no job runs or waits. --all shows those that are over.",
            )

    def images(self, *, common: Common = _COMMON) -> int:
        """List the images: definitions of conversations, newest first."""
        with common.reading(self._front, self._output) as reading:
            return listed(self._output, image_columns(self._short), reading.images(), none="there is no image yet.")

    def sessions(
        self,
        *,
        all: Annotated[
            bool,
            Parameter(name=["-a", "--all"], negative="", show_default=False, help="Also those nothing was said in."),
        ] = False,
        common: Common = _COMMON,
    ) -> int:
        """List the sessions, newest first."""
        with common.reading(self._front, self._output) as reading:
            return listed(
                self._output, session_columns(self._short), reading.sessions(empty=all), none="there is no session yet."
            )

    # -- one session --

    def messages(self, session: Session, /, *, common: Common = _COMMON) -> int:
        """Print a conversation as a person reads it."""
        with common.reading(self._front, self._output) as reading:
            session_id = reading.session(session)
            if self._output.json:
                self._output.rows(reading.messages(session_id))
            else:
                conversation(self._output, reading, session_id)
            return 0

    def replay(self, session: Session, /, *, common: Common = _COMMON) -> int:
        """Decide a session again from its log, without model, tool or network, and compare. Exit 1 where they part."""
        with common.reading(self._front, self._output) as reading:
            session_id = reading.session(session)
            verdict = self._replayed(reading, session_id)
            if self._output.json:
                self._output.row(verdict)
            else:
                self._output.line(in_words(verdict))
            return 0 if verdict["identical"] else 1

    def export(
        self,
        session: Session,
        /,
        *,
        output: Annotated[str | None, Parameter(name=["-o", "--output"], help="A file; without it stdout.")] = None,
        common: Common = _COMMON,
    ) -> int:
        """Write a session as data: a header, then every stored event with its envelope, one JSON object a line."""
        with common.reading(self._front, self._output) as reading:
            lines = reading.export(reading.session(session))
            if output is None or output == "-":
                self._output.rows(lines)
                return 0
            written = _write(Path(output), lines)
            self._output.note(f"{count(written - 1)} events in {output}")
            return 0

    # -- events --

    def events(
        self,
        *,
        session: Only = None,
        type: Annotated[
            tuple[str, ...],
            Parameter(
                negative="", show_default=False, help="Only these types, with commas between them or again for more."
            ),
        ] = (),
        after: Annotated[
            int,
            Parameter(converter=whole, validator=validators.Number(gte=0), help="Only what comes after this position."),
        ] = 0,
        limit: Limit = None,
        follow: Annotated[
            bool,
            Parameter(name=["-f", "--follow"], negative="", show_default=False, help="Wait for more, until Ctrl-C."),
        ] = False,
        common: Common = _COMMON,
    ) -> int:
        """List the stored events, oldest first: position, time, session, type, what it is about."""
        types = _types(type)
        with common.reading(self._front, self._output) as reading:
            for event in reading.events(session=session, types=types, after=after, limit=limit, follow=follow):
                if self._output.json:
                    self._output.row(as_json(event))
                else:
                    session = self._short(event.session_id)
                    self._output.write(event_line(event, session=session, room=self._output.columns - 1) + "\n")
                if self._output.gone:
                    break
            return 0

    # -- money and audit --

    def cost(
        self,
        *,
        by: Annotated[Groups, Parameter(help="What to add up.")] = "model",
        prices: Annotated[
            str | None,
            Parameter(
                help="A file of prices, TOML or JSON, by which every call is priced anew: for each provider:model"
                " dollars for a million tokens, input, output, cache_read, cache_write."
            ),
        ] = None,
        common: Common = _COMMON,
    ) -> int:
        """Show what was used and what it cost, as recorded. Calls without a known price are counted apart."""
        with common.reading(self._front, self._output) as reading:
            rows = reading.cost(by, prices=prices)
            shown = cost_columns(by, self._short, rows if self._output.shows else ())
            none = "no tool was called yet." if by == "tool" else "no model was called yet."
            return listed(self._output, shown, rows, none=none)

    def audit(
        self,
        *,
        type: Annotated[
            tuple[str, ...], Parameter(negative="", show_default=False, help="Of these types, with commas or again.")
        ] = (),
        session: Only = None,
        user: Annotated[str | None, Parameter(help="On behalf of this user.")] = None,
        status: Annotated[str | None, Parameter(help="success, failure or another status, as records show it.")] = None,
        since: Annotated[str | None, Parameter(help="From then on: 2026-03-29T10:00, or 90m, 2h, 3d ago.")] = None,
        until: Annotated[str | None, Parameter(help="Before then.")] = None,
        correlation: Annotated[str | None, Parameter(help="All that one command led to.")] = None,
        limit: Annotated[
            int | None,
            Parameter(converter=whole, validator=validators.Number(gte=1), help="At most so many, the newest."),
        ] = None,
        common: Common = _COMMON,
    ) -> int:
        """List the audit's records, oldest first: who did what, when, and how it ended."""
        types = _types(type)
        for name, value in (("--user", user), ("--correlation", correlation)):
            if value is not None and not value.strip():
                raise BadInput(f"{name} is empty.")
        with common.reading(self._front, self._output) as reading:
            rows = reading.audit(
                session=session,
                types=tuple(types) or None,
                user_id=user,
                status=status,
                start_time=_time(since),
                end_time=_time(until),
                correlation_id=correlation,
                limit=limit,
            )
            return listed(self._output, audit_columns(self._short), rows, none="no record passes.")

    def sql(
        self,
        query: Annotated[str, Parameter(help="One SELECT in DuckDB's SQL.")],
        /,
        *,
        common: Common = _COMMON,
    ) -> int:
        """Ask the log in SQL: one SELECT over events, audit, jobs, sessions, actions, denials, reservations,
        ledger_calls, tool_calls.

        `reenact sql "DESCRIBE events"` lists the columns of one. The tables are kept beside the log, in a file that may
        be deleted at any time.
        """
        with common.reading(self._front, self._output) as reading, self._bar("taking over") as bar:
            answer = reading.sql(query, progress=bar)
        columns = _distinct(answer.columns)
        rows = [dict(zip(columns, row, strict=True)) for row in answer.rows]
        if self._output.json:
            self._output.rows(rows)
        else:
            found(self._output, columns, rows)
        if answer.cut:
            self._output.note(f"there are more than these {count(len(rows))} rows: narrow the query, or use LIMIT.")
        return 0

    def verify(
        self,
        *,
        history: Annotated[str | None, Parameter(help="What REENACT_HISTORY named: is all there that was?")] = None,
        common: Common = _COMMON,
    ) -> int:
        """Check a whole log: file, order, chains, every batch decided again, every call. Exit 1 where it fails."""
        self._output.json = common.json
        _check_whole(common, "verify")
        report = self._front.verify(common.db, history=history)
        if self._output.json:
            self._output.row(report)
            return 0 if report["sound"] else 1
        self._output.line(report["summary"])
        violations = report["violations"]
        for violation in violations[:_VIOLATIONS_SHOWN]:
            self._output.line(f"  {violation['text']}")
        rest = len(violations) - _VIOLATIONS_SHOWN + report["more"]
        if rest > 0:
            self._output.note(f"and {count(rest)} more; --json shows them")
        return 0 if report["sound"] else 1

    def doctor(self, *, common: Common = _COMMON) -> int:
        """Say what this machine, this log and this terminal are like. Exit 1 where something is in the way."""
        self._output.json = common.json
        _check_whole(common, "doctor")
        code = 0
        for row in self._front.doctor(common.db):
            if not row["ok"]:
                code = 1
            if self._output.json:
                self._output.row(row)
            else:
                mark = "ok " if row["ok"] else "BAD"
                line = f"{mark}  {row['check']:<12}{row['found']}"
                wide = self._output.columns if self._output.shows else len(line) + 1
                self._output.line("\n".join(textwrap.wrap(line, wide, subsequent_indent=" " * 17)))
        return code

    # -- in common --

    def _short(self, full: str | None) -> str:
        return self._front.short(full) if full else ""

    def _replayed(self, reading: Reading, session_id: str) -> Row:
        size = reading.size(session_id)
        if not self._output.tells or size < _BAR_EVENTS_MIN:
            return reading.replay(session_id)
        with self._bar("replaying") as bar:
            return reading.replay(session_id, progress=lambda done: bar(done, size))

    @contextmanager
    def _bar(self, doing: str) -> Iterator[Callable[[int, int], object]]:
        """A bar for what has many events to go through, gone when it is over. Takes events done and to do."""
        if not self._output.tells:
            yield lambda done, size: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        shown = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("events"), TimeRemainingColumn())
        with Progress(*shown, console=self._output.console(), transient=True) as progress:
            task = progress.add_task("", total=None, visible=False)
            yield lambda done, size: progress.update(task, completed=done, total=size, visible=size >= _BAR_EVENTS_MIN)


def _check_whole(common: Common, command: str) -> None:
    """Raises BadInput for a scope, where a command looks at a log with all scopes in it."""
    if common.scope is not None:
        raise BadInput(f"{command} looks at the whole log, with every scope in it: leave --scope away.")


def _types(given: tuple[str, ...]) -> list[str]:
    """Names with commas between them, or one by one. An empty one is no type, and is refused as such."""
    return [name.strip() for each in given for name in each.split(",")]


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _time(text: str | None) -> str | None:
    """A time as the audit reads it; what has no offset is meant here, on this machine."""
    if text is None:
        return None
    if text[-1:] in _UNITS and text[:-1].isdecimal() and text.isascii():
        try:
            return (datetime.now().astimezone() - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})).isoformat()
        except (OverflowError, ValueError):
            raise BadInput(f"{text[:60]!a} is too long ago.") from None
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        raise BadInput(
            f"{text[:60]!a} is no time. Write it as 2026-03-29T10:00, or 90m, 2h, 3d for so long ago."
        ) from None


def _write(path: Path, lines: Iterator[Row]) -> int:
    """All of it or none: written beside the file, then put in its place."""
    import msgspec

    if not path.name:
        raise BadInput(f"{path}: is no file that could be written.")
    beside = path.with_name(path.name + ".part")
    written = 0
    try:
        with open(beside, "wb") as file:
            for line in lines:
                file.write(msgspec.json.encode(line) + b"\n")
                written += 1
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BadInput(f"{path}: {error.strerror or error}.") from error
    except ValueError as error:  # it holds U+0000
        raise BadInput(f"{str(path)!a}: {error}.") from None
    return written


def _distinct(names: Sequence[str]) -> list[str]:
    """Names of columns, the second of a name as `name_2`, so that no value hides another."""
    out: list[str] = []
    for name in names:
        shown, number = name, 1
        while shown in out:
            number += 1
            shown = f"{name}_{number}"
        out.append(shown)
    return out
