"""Server-sent events read from bytes.

Shown to fail: without the buffer between pieces the law of cutting is red, without holding back a CR at the end of a
piece an event comes out twice where a CRLF is cut.
"""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from reenact.adapters.models.sse import EventReader


def read(*pieces: bytes) -> list[tuple[str, bytes]]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


def test_an_event_comes_out_with_its_blank_line() -> None:
    reader = EventReader()
    assert reader.feed(b"data: 1\n") == []
    assert reader.feed(b"\ndata: 2\n\nda") == [("", b"1"), ("", b"2")]
    assert reader.feed(b"ta: 3") == []
    assert reader.rest() == ("", b"3")
    assert reader.rest() is None


def test_names_comments_ids_and_empty_events() -> None:
    assert read(b"\xef\xbb\xbf: hello\n\nevent: error\nid: 7\nretry: 5\ndata:{}\n\n\n\n") == [("error", b"{}")]


def test_several_data_lines_are_one_value() -> None:
    assert read(b"data: {\ndata: }\n\n") == [("", b"{\n}")]


def test_separators_that_are_no_line_ends_stay_in_the_text() -> None:
    # A reader of text lines would break here, and the JSON with it.
    text = "a\u2028b\u2029c\x85d\x0be"
    data = json.dumps({"text": text}, ensure_ascii=False).encode()
    assert read(b"data: " + data + b"\n\n") == [("", data)]


@given(
    data=st.lists(st.text(min_size=1).map(lambda text: json.dumps(text, ensure_ascii=False).encode()), max_size=6),
    ends=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    cuts=st.lists(st.integers(0, 400), max_size=40),
)
def test_however_the_bytes_are_cut_the_events_are_the_same(data: list[bytes], ends: bytes, cuts: list[int]) -> None:
    body = b"".join(b": ping" + ends * 2 + b"event: e" + ends + b"data: " + each + ends * 2 for each in data)
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    reader = EventReader()
    events = [event for start, end in pairwise(places) for event in reader.feed(body[start:end])]
    last = reader.rest()
    assert events + ([last] if last else []) == [("e", each) for each in data]
