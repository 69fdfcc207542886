"""Text as people are shown it: nothing in it is unseen, moves a cursor or turns the direction of reading. Pure."""

from __future__ import annotations

import unicodedata

_BLANK = frozenset((0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800, 0x1D159))
"""Letters and symbols that are drawn as nothing."""

_JOINERS = frozenset((0x200C, 0x200D, *range(0xFE00, 0xFE10)))
"""What joins letters of some scripts, and the parts of pictures. It has a use only behind a character of those."""

_LINES = {"\n": "\n", "\t": "    ", "\r": "", "\u2028": "\n", "\u2029": "\n"}


def shown(value: object) -> str:
    """Any value, as far as a refusal shows it: in ASCII, and of a long one the head."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:60] + "…"


def exactly(text: str) -> str:
    """On one line, with everything that is not plainly seen written as an escape, marks over letters too."""
    return text if text.isascii() and text.isprintable() else "".join(map(_exact, text))


def readable(text: str, *, before: str = "") -> str:
    """In its lines, as it is read: what is drawn as nothing is written as an escape, what a script needs stays.

    before: the character in front of it, where it is a piece of a longer text.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = []
    for character in text:
        shown.append(_LINES[character] if character in _LINES else _read(character, before))
        before = character
    return "".join(shown)


def _exact(character: str) -> str:
    kind = unicodedata.category(character)
    hidden = kind[0] == "C" or kind in ("Zl", "Zp", "Mn", "Me") or (kind == "Zs" and character != " ")
    return _escape(character) if hidden or ord(character) in _BLANK else character


def _read(character: str, before: str) -> str:
    code = ord(character)
    if 0x20 <= code < 0x7F:
        return character
    if code in _JOINERS:
        return character if before and not before.isascii() and ord(before) not in _JOINERS else _escape(character)
    # Marks of this one, and of the tags and selectors beyond the planes of scripts, are drawn as nothing.
    unseen = code in _BLANK or code == 0x034F or 0xE0000 <= code <= 0xE0FFF
    return _escape(character) if unseen or unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


__all__ = ["exactly", "readable", "shown"]
