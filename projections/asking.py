"""A question as a person reads it: written by code from what would run, never by the model in our name. Pure.

Every line that holds what a model or a tool wrote begins with a bar. Characters that cannot be seen, that move a cursor
or turn the direction of reading are written as escapes. What is too long shows its head and its tail, and between them,
outside of all quotes, how much is left out and its digest; no text within quotes can look like that.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from ..events.action import decided_as
from ..events.visible import exactly
from .actions import Action

TEXT_HEAD, TEXT_TAIL = 600, 300
"""Characters of one text that are shown where it is longer than both together."""

ITEMS_HEAD, ITEMS_TAIL = 30, 15
"""Entries of one list or object."""

LINES_HEAD, LINES_TAIL = 120, 60
"""Lines of all of it."""

DEPTH_MAX = 12

FOREIGN_MAX = 12
"""Characters outside of ASCII that are named, those first that look like others."""

BAR = "  | "

EFFECTS = {
    "read": "only reads",
    "idempotent": "changes something, once however often it is tried",
    "probeable": "changes something, and can be asked whether it did",
    "unsafe": "may change anything",
}


_BECAUSE = {
    "tool": "its tool has every call allowed by a person",
    "agent": "its image has every call allowed by a person",
    "budget": "a limit of what may be used is reached; a yes raises it by what is shown",
}


def asking(action: Action, *, zone: tzinfo = UTC) -> list[str]:
    """The question in lines of plain text."""
    lines = [f"Action {exactly(action.id)}: {action.type}, {_stands(action, zone)}", *_said(action)]
    call = action.call
    if action.reason:
        lines.append(f"Because    {_BECAUSE.get(action.reason) or exactly(action.reason)}")
    if call is None:
        # What we ask by ourselves has a reason, or a digest that its answer is bound to.
        ours = action.tool is None and (action.digest is not None or bool(action.reason))
        who = "The runtime asks" if ours else "A tool asks" if action.tool is not None else "A program asks"
        words = "" if ours else ", in its own words"
        lines.append(f"{who}{words}:" if action.payload else f"{who}.")
        lines += written(action.payload) if action.payload else []
    else:
        lines.append(f"Tool       {exactly(call.name)}, {call.effect}: {EFFECTS[call.effect]}")
        lines.append(f"Version    {exactly(call.version)}")
        walls = f"within {exactly(call.sandbox)}" if call.sandbox else "in no sandbox"
        lines.append(f"Runs in    {exactly(call.cwd) or 'no folder'}, {walls}, at most {call.timeout_s:g} s")
        lines += [f"With       {exactly(name)}={_text(value)}" for name, value in call.env.items()]
        lines.append("Arguments, in the model's words:")
        lines += written(call.arguments)
        changed = (action.resolution or {}).get("arguments")
        if changed is not None:
            lines.append("Arguments that a person wrote instead, with which it may run:")
            lines += written(changed)
    foreign = _foreign(call.arguments if call is not None else action.payload)
    if foreign:
        lines.append(f"Characters that are not ASCII, and may look like others: {foreign}")
    if action.digest is not None:
        lines.append(f"Digest     {action.digest}")
    return lines


def _stands(action: Action, zone: tzinfo) -> str:
    if action.status == "pending":
        return f"until {_moment(action.expires_at, zone)}"
    ended = "" if action.ended_at is None else f" {_moment(action.ended_at, zone)}"
    if action.status == "expired":
        late = f"; {exactly(action.by)} answered too late, which decided nothing" if action.by else "; nobody answered"
        return f"expired{ended}{late}"
    how = "taken back" if action.status == "cancelled" else decided_as(action.type, action.resolution)
    why = f": {exactly(action.ended)}" if action.ended else ""
    return f"{how}{ended}" + (f" by {exactly(action.by)}" if action.by else "") + why


def _moment(at_ms: int, zone: tzinfo) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, zone):%Y-%m-%d %H:%M:%S}"


def _said(action: Action) -> list[str]:
    """What was answered, beside yes and no."""
    if action.status != "resolved":
        return []
    said, lines = dict(action.resolution or {}), []
    comment = said.pop("comment", None)
    always = said.pop("always", None)
    said.pop("arguments", None)  # they are shown beside those of the model
    if always is not None:
        what = "exactly this call" if always == "exact" else "every call of this version of the tool"
        lines.append(f"For good   {what}, until it is taken back or the rules change")
    if action.type != "custom":
        said.pop("approved", None)
        said.pop("authenticated", None)
    if "files" in said:
        said["files"] = [_file(each) for each in said["files"]] if isinstance(said["files"], list) else said["files"]
    if said:
        lines += ["Answer, in a person's words:", *written(said)]
    if comment:
        lines += ["Comment:", *written(comment)]
    if action.became:
        lines.append(f"Then       {exactly(action.became)}")
    return lines


def _file(given: Any) -> Any:
    """A file without its bytes."""
    if not isinstance(given, Mapping) or not isinstance(given.get("data"), str):
        return given
    shown = {name: value for name, value in given.items() if name != "data"}
    return {**shown, "data": f"{len(given['data']) * 3 // 4:,} bytes, {_digest(given['data'])}"}


def written(value: Any) -> list[str]:
    """A value that somebody else wrote, as JSON in lines that all begin with a bar."""
    lines = _value(value, 0)
    if len(lines) > LINES_HEAD + LINES_TAIL:
        hidden = lines[LINES_HEAD:-LINES_TAIL]
        digest = _digest("\n".join(hidden))
        gap = f"  … {len(hidden):,} lines between are not shown ({digest}) …"
        head, tail = lines[:LINES_HEAD], lines[-LINES_TAIL:]
        return [*(BAR + line for line in head), gap, *(BAR + line for line in tail)]
    return [BAR + line for line in lines]


def _value(value: Any, depth: int) -> list[str]:
    if isinstance(value, str):
        return [_text(value)]
    if isinstance(value, Mapping) and value:
        if depth >= DEPTH_MAX:
            return [f"…[{len(value):,} fields, {_digest(_json(value))}]…"]
        entries = [_entry(key, item, depth) for key, item in value.items()]
        return ["{", *_entries(entries, list(value.items())), "}"]
    if isinstance(value, Sequence) and not isinstance(value, bytes) and value:
        if depth >= DEPTH_MAX:
            return [f"…[{len(value):,} items, {_digest(_json(value))}]…"]
        return ["[", *_entries([_value(item, depth + 1) for item in value], list(value)), "]"]
    return [exactly(_json(value))]


def _entry(key: object, item: Any, depth: int) -> list[str]:
    first, *more = _value(item, depth + 1)
    return [f"{_text(str(key))}: {first}", *more]


def _entries(entries: list[list[str]], whole: list[Any]) -> Iterator[str]:
    """The entries of a list or an object, those in the middle of a long one left out."""
    last = len(entries) - 1
    cut = len(entries) > ITEMS_HEAD + ITEMS_TAIL
    for place, lines in enumerate(entries):
        if cut and ITEMS_HEAD <= place <= last - ITEMS_TAIL:
            if place == ITEMS_HEAD:
                hidden = whole[ITEMS_HEAD : last - ITEMS_TAIL + 1]
                yield f"  …[{len(hidden):,} entries, {_digest(_json(hidden))}]…"
            continue
        comma = "" if place == last else ","
        yield from (f"  {line}" for line in lines[:-1])
        yield f"  {lines[-1]}{comma}"


def _text(text: str) -> str:
    if len(text) <= TEXT_HEAD + TEXT_TAIL:
        return _quoted(text)
    hidden = text[TEXT_HEAD:-TEXT_TAIL]
    gap = f" …[{len(hidden):,} characters, {_digest(hidden)}]… "
    return _quoted(text[:TEXT_HEAD]) + gap + _quoted(text[-TEXT_TAIL:])


def _quoted(text: str) -> str:
    return exactly(json.dumps(text, ensure_ascii=False))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=False, default=str)


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _foreign(value: Any) -> str:
    """What stands outside of ASCII, by number and name: first what is most like something else, then the rest."""
    there = [each for each in dict.fromkeys(_json(value)) if not each.isascii() and exactly(each) == each]
    first = sorted(there, key=_unlikeness)
    named = [f"U+{ord(each):04X} {unicodedata.name(each, 'unnamed').lower()}" for each in first[:FOREIGN_MAX]]
    return ", ".join(named) + (f" and {len(there) - FOREIGN_MAX} more" if len(there) > FOREIGN_MAX else "")


_ALIKE = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "GEORGIAN")
"""Scripts with letters that are drawn as those of ASCII."""

_USUAL = frozenset("\u201c\u201d\u2018\u2019\u201e\u00ab\u00bb\u2013\u2014\u2026\u20ac\u00a3\u00a7\u00b0\u00b7\u2022")
"""Signs that people write: quotes, dashes, three dots, currencies."""


def _unlikeness(each: str) -> int:
    """How little a character outside of ASCII is taken for one in it: 0 to 3."""
    kind, name = unicodedata.category(each), unicodedata.name(each, "")
    whole = unicodedata.normalize("NFKD", each)
    if unicodedata.normalize("NFKC", each).isascii() or name.startswith(_ALIKE):
        return 0  # a form of an ASCII character, or a letter that looks like one
    if kind[0] in "PN" or kind in ("Sm", "Sk", "Sc"):
        return 2 if each in _USUAL else 0
    if name.startswith("LATIN") or unicodedata.bidirectional(each) in ("R", "AL"):
        return 3 if whole[0].isascii() else 1  # a letter with marks over it is read as what it is
    return 2
