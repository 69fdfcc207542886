"""Forms: known values as they may be written, and where they stand in a text, however many of them there are. Pure.

A value is looked for as it is, as it is written in JSON, in Python and in URLs, and in base64 wherever it begins there
and as far as that is one line.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from enum import Enum
from urllib.parse import quote, quote_plus

from ..events.secret import SHORTEST_CHARS

FEW = 24
"""Up to so many forms are looked for one by one; more of them by their pieces, however many there are."""

_PIECE = 4
"""Bytes of such a piece. Every form has one at some multiple of it, if it is at least twice as long, less one."""


class Reach(Enum):
    """How far a value is looked for, if not in the texts of one scope alone."""

    COMMON = "in the texts of every scope"
    LONG = "in what is said to nobody in particular: nobody finds it by guessing"
    ALL = "wherever anything is looked for"


Whose = str | Reach
"""Whose text it is: a scope's, which sees its own values and the common ones, or as far as it says."""


class Forms:
    """masks: form -> what stands in its place, by whose it is. least: no form has fewer characters. firsts: what forms
    begin with.

    `found` may be asked from any thread; all else is for one.
    """

    __slots__ = ("_longest", "_pieces", "_raw", "_short", "_shorts", "_sorted", "firsts", "least", "masks")

    def __init__(self) -> None:
        self.masks: dict[str, dict[Whose, str]] = {}
        self.least = sys.maxsize
        self.firsts: set[str] = set()
        self._raw: dict[bytes, str] = {}
        self._pieces: dict[int, tuple[bytes, ...]] = {}
        self._short: re.Pattern[bytes] | None = None  # the forms that are too short to have such a piece, if any
        self._shorts: tuple[bytes, ...] = ()
        self._sorted: dict[Whose, list[str]] = {Reach.ALL: []}  # a text's end may be the beginning of one
        self._longest = 0

    def __len__(self) -> int:
        return len(self._raw)

    def add(self, value: str, mask: str, whose: Whose) -> None:
        """Look for a value in all its forms from now on, in texts of `whose`, and show them so."""
        new = []
        for form in forms_of(value):
            of = self.masks.get(form)
            if of is None:
                of = self.masks[form] = {}
                new.append(form.encode("utf-8", "surrogatepass"))
                self._raw[new[-1]] = form
                insort(self._sorted[Reach.ALL], form)
                self.firsts.add(form[0])
                self._longest = max(self._longest, len(form))
                self.least = min(self.least, len(form))
            if whose not in of:
                insort(self._sorted.setdefault(whose, []), form)
            of[whose] = mask
        if self._pieces:
            self._cut(new)
        elif len(self._raw) > FEW:
            self._cut(tuple(self._raw))

    def remove(self, value: str, whose: Whose) -> None:
        """Look for it there no more."""
        for form in forms_of(value):
            of = self.masks.get(form, {})
            if of.pop(whose, None) is None:
                continue
            self._unsorted(whose, form)
            if of:
                continue
            del self.masks[form]
            self._unsorted(Reach.ALL, form)
            raw = form.encode("utf-8", "surrogatepass")
            self._raw.pop(raw, None)
            if raw in self._shorts:
                self._shortened(each for each in self._shorts if each != raw)
                continue
            for piece in _pieces_of(raw):
                left = tuple(each for each in self._pieces.get(piece, ()) if each != raw)
                self._pieces[piece] = left

    def _unsorted(self, whose: Whose, form: str) -> None:
        known = self._sorted[whose]
        del known[bisect_left(known, form)]
        if not known and whose is not Reach.ALL:
            del self._sorted[whose]

    def mask(self, form: str, whose: Whose) -> str | None:
        """What stands in the place of a form in somebody's text; None where it is not looked for there."""
        of = self.masks.get(form)
        if not of:
            return None
        return next(iter(of.values()), None) if whose is Reach.ALL else of.get(whose) or of.get(Reach.COMMON)

    def found(self, blob: bytes, whose: Whose) -> list[str]:
        """Those that are in somebody's bytes, longest first."""
        if len(self._raw) <= FEW:
            found: Iterable[bytes] = tuple(self._raw)  # another thread may add to them
        else:
            words = set(memoryview(blob[: len(blob) // _PIECE * _PIECE]).cast("I").tolist())
            found = {form for word in words if word in self._pieces for form in self._pieces[word]}
            short = self._short
            if short is not None and short.search(blob):
                found.update(self._shorts)
        inside = [form for raw in found if raw in blob and (form := self._raw.get(raw)) is not None]
        return sorted((form for form in inside if self.mask(form, whose)), key=len, reverse=True) if inside else inside

    def begun(self, text: str, start: int, whose: Whose) -> int:
        """The first place from `start` on from which the text is the beginning of one; its size where there is none."""
        size, firsts = len(text), self.firsts
        if firsts:
            mine, common = self._sorted.get(whose, ()), self._sorted.get(Reach.COMMON, ())
            for at in range(max(start, size - self._longest + 1), size):
                if text[at] in firsts:
                    tail = text[at:]
                    for known in (mine, common):
                        place = bisect_right(known, tail)
                        if place < len(known) and known[place].startswith(tail):
                            return at
        return size

    def spans(self, text: str, start: int, whose: Whose) -> list[tuple[int, int]]:
        """Where they stand whole, from `start` on."""
        spans = []
        for form in self.found(text.encode("utf-8", "surrogatepass"), whose) if self._raw else ():
            at = text.find(form, start)
            while at >= 0:
                spans.append((at, at + len(form)))
                at = text.find(form, at + 1)
        return spans

    def _cut(self, forms: Iterable[bytes]) -> None:
        short = []
        for form in forms:
            if len(form) < 2 * _PIECE - 1:
                short.append(form)
                continue
            for piece in _pieces_of(form):
                self._pieces[piece] = (*self._pieces.get(piece, ()), form)
        if short:
            self._shortened((*self._shorts, *short))

    def _shortened(self, forms: Iterable[bytes]) -> None:
        self._shorts = tuple(forms)
        self._short = re.compile(b"|".join(map(re.escape, self._shorts))) if self._shorts else None


def forms_of(value: str) -> list[str]:
    """A value as it may be written: as it is, in JSON, in Python, in a URL, in base64 wherever it begins there."""
    raw = value.encode("utf-8", "surrogatepass")
    escaped = json.dumps(value)[1:-1]
    quoted = [quote(raw, safe=""), quote(raw), quote_plus(raw)]
    forms = [
        value,
        escaped,
        json.dumps(value, ensure_ascii=False)[1:-1],
        escaped.replace("/", r"\/"),
        repr(value)[1:-1],
    ]
    forms += quoted + [_lower_hex(each) for each in quoted]
    if len(value) < SHORTEST_CHARS:  # some five letters of base64 are in every other picture
        return list(dict.fromkeys(forms))
    for before in range(3):
        # Of the characters around it only some bits are the value's: they depend on what stands beside it.
        begin, end = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.append(encode(b"\0" * before + raw).decode()[begin:end])
    return [form for form in dict.fromkeys(forms) if len(form) >= SHORTEST_CHARS]


def _pieces_of(form: bytes) -> set[int]:
    return {int.from_bytes(form[at : at + _PIECE], sys.byteorder) for at in range(_PIECE)}


def _lower_hex(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return "%".join([head, *(each[:2].lower() + each[2:] for each in rest)])


__all__ = ["FEW", "Forms", "Reach", "Whose", "forms_of"]
