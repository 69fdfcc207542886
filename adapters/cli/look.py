"""How things look to a person who reads them: the columns of each list, a conversation, an event, a verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from ...events.action import decided_as
from ...events.message import BusEvent
from .answers import is_raise, raising
from .front import Reading, Row
from .output import Output, short
from .screen import called
from .table import Column, count, moment, span
from .words import about, pairs

ShortId = Callable[[str], str]
"""Shortens an id to what people are shown of it."""

LINE_CHARS_MAX = 200
"""Characters of a call as it is shown in one line."""

_SAID_COLUMN = 21


def job_columns(short_id: ShortId) -> list[Column]:
    """Of `ps`."""
    return [
        Column("JOB", lambda row: short_id(row["id"])),
        Column("SESSION", lambda row: short_id(row["sessionId"])),
        Column("IMAGE", "imageName", spare=True),
        Column("STATE", "state"),
        Column("MODEL", lambda row: row["model"] or "", spare=True),
        Column("QUEUED", lambda row: moment(row["queuedAt"]), spare=True),
        Column("TOOK", _took, right=True, spare=True),
        Column("CALLS", lambda row: count(row["attempts"]), right=True, spare=True),
        Column("TOOLS", lambda row: count(row["toolRuns"]), right=True, spare=True),
        Column("TOKENS", _tokens, right=True, spare=True),
        Column("TITLE", "title", wide=True),
    ]


def image_columns(short_id: ShortId) -> list[Column]:
    """Of `images`."""
    return [
        Column("IMAGE", lambda row: short_id(row["imageId"])),
        Column("NAME", "name", wide=True),
        Column("MODEL", "model", wide=True),
        Column("CONTAINER", "containerId", spare=True),
        Column("VERSION", "version", right=True, spare=True),
        Column("SESSIONS", "sessions", right=True, spare=True),
        Column("CREATED", lambda row: moment(row["createdAt"]), spare=True),
    ]


def session_columns(short_id: ShortId) -> list[Column]:
    """Of `sessions`."""
    return [
        Column("SESSION", lambda row: short_id(row["sessionId"])),
        Column("NAME", "name"),
        Column("IMAGE", "imageName", spare=True),
        Column("CREATED", lambda row: moment(row["createdAt"]), spare=True),
        Column("JOBS", "jobs", right=True, spare=True),
        Column("EVENTS", "events", right=True, spare=True),
        Column("STATE", "state"),
        Column("LAST", "title", wide=True),
    ]


def action_columns(short_id: ShortId) -> list[Column]:
    """Of `approvals`."""
    return [
        Column("ACTION", lambda row: action_name(row, short_id)),
        Column("TYPE", "type"),
        Column("STATE", stands),
        Column("ASKED", lambda row: moment(row["askedAt"]), spare=True),
        Column("UNTIL", lambda row: moment(row["endedAt"] or row["expiresAt"]), spare=True),
        Column("BY", "by", spare=True),
        Column("WHAT", _asked, wide=True),
    ]


def action_name(row: Row, short_id: ShortId) -> str:
    """An action as people name it: SESSION:ACTION."""
    return f"{short_id(row['sessionId'])}:{row['id'].rpartition(':')[2]}"


def stands(row: Row) -> str:
    """How a question stands in a word: its status, or what was decided."""
    resolved = row["status"] == "resolved"
    return decided_as(row["type"], row["resolution"]) if resolved else str(row["status"])


def leave_columns(short_id: ShortId) -> list[Column]:
    """Of `approvals grants`."""
    return [
        Column("GRANT", lambda row: action_name(row, short_id)),
        Column("FOR", "kind"),
        Column("SINCE", lambda row: moment(row["givenAt"]), spare=True),
        Column("BY", "by", spare=True),
        Column("USED", lambda row: count(row["used"]), right=True),
        Column("LAST", lambda row: "" if row["lastUsedAt"] is None else moment(row["lastUsedAt"]), spare=True),
        Column(
            "BACK", lambda row: "" if row["revokedAt"] is None else f"{moment(row['revokedAt'])} by {row['revokedBy']}"
        ),
        Column("WHAT", _allowed, wide=True),
    ]


def _allowed(row: Row) -> str:
    if row["kind"] == "class":
        return f"every call of {row['name']} {row['version']}"
    return called(row["name"], row["arguments"], chars=LINE_CHARS_MAX)


def _asked(row: Row) -> str:
    call = row["call"]
    if is_raise(row):
        return f"raise by {raising(row)}"
    return called(call["name"], call["arguments"], chars=LINE_CHARS_MAX) if call else pairs(row["payload"])


def audit_columns(short_id: ShortId) -> list[Column]:
    """Of `audit`."""
    return [
        Column("TIME", lambda row: _local(row["timestamp"])),
        Column("TYPE", "type"),
        Column("EVENT", "event", spare=True),
        Column("STATUS", "status"),
        Column("USER", "userId", spare=True),
        Column("SESSION", lambda row: short_id(row["sessionId"] or "")),
        Column("TOOK", lambda row: span(row["duration"]), right=True, spare=True),
        Column("WHAT", _what, wide=True),
    ]


def bar(part: float, *, cells: int = 12) -> str:
    """A part of a whole as a bar with its per cent."""
    full = max(0, min(cells, round(part * cells)))
    return f"{'█' * full}{'░' * (cells - full)} {part:4.0%}"


def budget_columns(short_id: ShortId, *, bars: bool) -> list[Column]:
    """Of `budget show`."""

    def amount(name: str) -> Any:
        def show(row: Row) -> str:
            value = row[name]
            return f"${value}" if isinstance(value, str) else count(value)

        return show

    def whose(row: Row) -> str:
        if row["of"] == "scope":
            return str(row["scope"])
        return f"{row['scope']}/{short_id(row['name']) if row['of'] == 'session' else row['name']}"

    def spent(row: Row) -> str:
        most = float(row["most"])
        return bar((float(row["used"]) + float(row["outstanding"])) / most if most else 1.0, cells=8)

    columns = [
        Column("OF", whose, wide=True),
        Column("LIMIT", "limit"),
        Column("MOST", amount("most"), right=True),
        Column("USED", amount("used"), right=True),
        Column("SET ASIDE", amount("outstanding"), right=True, spare=True),
        Column("LEFT", amount("left"), right=True),
    ]
    if bars:
        columns.append(Column("", spent))
    return [*columns, Column("THEN", "strategy", spare=True)]


def cost_columns(by: str, short_id: ShortId, of: Sequence[Row] = ()) -> list[Column]:
    """Of `cost`, by what it is added up. of: the rows, for a bar beside each."""
    if by == "tool":
        return [
            Column("TOOL", "name", wide=True),
            Column("CALLS", lambda row: count(row["calls"]), right=True, spare=True),
            Column("RUNS", lambda row: count(row["runs"]), right=True),
            Column("TOOK", lambda row: span(row["durationMs"]), right=True, spare=True),
            Column("ENDED", lambda row: ", ".join(f"{how} {number}" for how, number in row["outcomes"].items())),
            *_shares(of, lambda row: row["durationMs"] or 0, lambda row: row["calls"]),
        ]
    first = {
        "model": Column("MODEL", lambda row: f"{row['provider']}:{row['model']}".strip(":"), wide=True),
        "day": Column("DAY", "day"),
        "session": Column("SESSION", lambda row: short_id(row["sessionId"])),
        "image": Column("IMAGE", lambda row: row.get("imageName") or short_id(row.get("imageId"))),
        "job": Column("JOB", lambda row: short_id(row.get("jobId"))),
        "container": Column("CONTAINER", "containerId", spare=True),
    }
    return [
        first.get(by) or Column(by.upper(), by),
        Column("CALLS", lambda row: count(row["calls"]), right=True, spare=True),
        Column("FAILED", lambda row: count(row["failed"]), right=True, spare=True),
        Column("IN", lambda row: count(row["inputTokens"]), right=True),
        Column("CACHED", lambda row: count(row["cacheReadTokens"]), right=True, spare=True),
        Column("OUT", lambda row: count(row["outputTokens"]), right=True),
        Column("USD", _usd, right=True),
        Column("UNPRICED", lambda row: count(row["unpriced"]), right=True),
        *_shares(
            of,
            lambda row: float(row["amount"] or 0),
            lambda row: row["inputTokens"] + row["outputTokens"],
            lambda row: row["calls"],
        ),
    ]


def _shares(of: Sequence[Row], *measures: Callable[[Row], float]) -> list[Column]:
    """A bar beside each row, for its part of all: of the first measure in which there is anything at all."""
    for measure in measures:
        total = sum(map(measure, of))
        if total:
            return [Column("", partial(_share, measure=measure, total=total))]
    return []


def _share(row: Row, *, measure: Callable[[Row], float], total: float) -> str:
    return bar(measure(row) / total)


def in_words(verdict: Row) -> str:
    """A replay's verdict as a sentence."""
    if verdict["identical"]:
        erased = f", {count(verdict['erased'])} items erased" if verdict.get("erased") else ""
        calls = f"{verdict['network_calls']} network calls"
        return f"identical: {count(verdict['events'])} events decided again, {calls}{erased}"
    at = verdict["first_difference"]
    return (
        f"differs at position {at['position']} (version {at['version']}, {at['kind']}):"
        f" recorded {at['recorded']}; decided now {at['decided']}"
    )


def conversation(output: Output, reading: Reading, session_id: str) -> None:
    """What was said, for a person; on a terminal no word is broken at its edge."""
    for line in reading.conversation(session_id):
        if output.shows and len(line) > output.columns:
            broken = textwrap.wrap(
                line, output.columns, subsequent_indent=" " * _SAID_COLUMN, break_on_hyphens=False, drop_whitespace=True
            )
            line = "\n".join(broken)
        output.write(line + "\n")


def event_line(event: BusEvent, *, session: str | None, room: int) -> str:
    """A stored event on one line, so wide: position, time, session (None: left out), type, what it says."""
    at = datetime.fromtimestamp(event.timestamp / 1000)
    where = "" if session is None else f"{session:8}  "
    line = f"{event.position:>6}  {at:%H:%M:%S}.{at.microsecond // 1000:03}  {where}{event.type:<18}"
    return (line + "  " + short(about(event.data), max(8, min(LINE_CHARS_MAX, room) - len(line) - 2))).rstrip()


def _usd(row: Row) -> str:
    return "unpriced" if row["amount"] is None else str(row["amount"])


def _took(row: Row) -> str:
    if row["startedAt"] is None:
        return ""
    ended = row["endedAt"]
    return span((ended if ended is not None else datetime.now().timestamp() * 1000) - row["startedAt"])


def _tokens(row: Row) -> str:
    usage = row["usage"]
    return "" if usage is None else count(usage["inputTokens"] + usage["outputTokens"])


def _local(timestamp: str) -> str:
    return moment(round(datetime.fromisoformat(timestamp).timestamp() * 1000))


def _what(row: Row) -> str:
    if row["error"]:
        return str(row["error"].get("message") or row["error"])
    return pairs({name: value for name, value in (row["context"] or {}).items() if name != "session_id"})
