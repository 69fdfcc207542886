"""Text that a person is shown: nothing unseen in it, and no script made unreadable."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.events.visible import exactly, readable

UNSEEN = [
    *("\u200b", "\u2060", "\ufeff", "\u00ad", "\u202e", "\u2066", "\u034f", "\x1b", "\x85", "\u3164"),
    *("\U000e0041", "\U000e0100"),
]


@pytest.mark.parametrize("character", UNSEEN)
def test_what_is_drawn_as_nothing_is_written_as_an_escape(character: str) -> None:
    for show in (exactly, readable):
        shown = show(f"pay{character}ee")
        assert character not in shown and f"{ord(character):04x}" in shown


@pytest.mark.parametrize("character", ["\u200c", "\u200d", "\ufe0f"])
def test_a_joiner_between_letters_that_need_none_is_not_hidden(character: str) -> None:
    assert readable(f"pay{character}ee") == f"pay\\u{ord(character):04x}ee" == exactly(f"pay{character}ee")
    assert readable(f"é{character}{character}e") == f"é{character}\\u{ord(character):04x}e"


@pytest.mark.parametrize(
    "text",
    ["naïve cafe\u0301", "हिन्दी", "می\u200cخواهم", "👩\u200d👩\u200d👧", "❤\ufe0f", "ไทย", "two\nlines", "\u00a0x"],
)
def test_what_a_script_needs_stays(text: str) -> None:
    assert readable(text) == text


@given(st.text(), st.text())
def test_no_text_hides_anything(one: str, other: str) -> None:
    for show in (exactly, readable):
        for character in show(one) + show(other):
            unseen = unicodedata.category(character) in ("Cc", "Cf", "Cs")
            assert not unseen or character in "\n\u200c\u200d"
    assert readable(one + other) == readable(one) + readable(other, before=one[-1:])
