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

from .actions import Action

TEXT_HEAD, TEXT_TAIL = 600, 300
"""Characters of one text that are shown where it is longer than both together."""

ITEMS_HEAD, ITEMS_TAIL = 30, 15
"""Entries of one list or object."""

LINES_HEAD, LINES_TAIL = 120, 60
"""Lines of all of it."""

DEPTH_MAX = 12

BAR = "  | "

EFFECTS = {
    "read": "only reads",
    "idempotent": "changes something, once however often it is tried",
    "probeable": "changes something, and can be asked whether it did",
    "unsafe": "may change anything",
}


def asking(action: Action, *, zone: tzinfo = UTC) -> list[str]:
    """The question in lines of plain text."""
    lines = [f"Action {plain(action.id)}: {action.type}, {_stands(action, zone)}"]
    call = action.call
    if call is None:
        lines.append("The agent asks, in its own words:" if action.payload else "The agent asks.")
        lines += written(action.payload) if action.payload else []
    else:
        lines.append(f"Tool       {plain(call.name)}, {call.effect}: {EFFECTS[call.effect]}")
        lines.append(f"Version    {plain(call.version)}")
        lines.append(f"Runs in    {plain(call.cwd) or 'no folder'}, at most {call.timeout_s:g} s")
        lines.append("Arguments, in the model's words:")
        lines += written(call.arguments)
    foreign = _foreign(call.arguments if call is not None else action.payload)
    if foreign:
        lines.append(f"Letters that are not ASCII, and may look like others: {foreign}")
    if action.digest is not None:
        lines.append(f"Digest     {action.digest}")
    return lines


def _stands(action: Action, zone: tzinfo) -> str:
    if action.status == "pending":
        return f"until {datetime.fromtimestamp(action.expires_at / 1000, zone):%Y-%m-%d %H:%M:%S}"
    return f"{action.status} by {plain(action.by)}" if action.by else action.status


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


def plain(text: str) -> str:
    """The text with everything that is not plainly seen written as an escape."""
    return text if text.isascii() and text.isprintable() else "".join(map(_seen, text))


def _seen(character: str) -> str:
    code = ord(character)
    kind = unicodedata.category(character)
    hidden = kind[0] == "C" or kind in ("Zl", "Zp", "Mn", "Me") or (kind == "Zs" and character != " ")
    if not hidden and code not in _BLANK:
        return character
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_BLANK = frozenset((0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800, 0x1D159))
"""Letters and symbols that are drawn as nothing."""


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
    return [plain(_json(value))]


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
    return plain(json.dumps(text, ensure_ascii=False))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=False, default=str)


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _foreign(value: Any) -> str:
    """The first few letters outside ASCII, by number and name."""
    found = dict.fromkeys(each for each in _json(value) if not each.isascii() and each.isalpha())
    named = [f"U+{ord(each):04X} {unicodedata.name(each, 'unnamed').lower()}" for each in list(found)[:5]]
    return ", ".join(named) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
