"""Words for sessions: ids, their beginnings and ends, names, `last`."""

from __future__ import annotations

import pytest

from reenact.catalog.lookup import image_to_open, session_of, session_to_open, short
from reenact.events import codec
from reenact.events.content import Text
from reenact.events.errors import BadInput, NotFound
from reenact.events.log import Batch, MemoryLog, Row, Transaction
from reenact.events.message import Head
from reenact.events.session import JobQueued, SessionCreated


def log_of(*sessions: tuple[str, str | None]) -> MemoryLog:
    log = MemoryLog()
    for number, (digits, name) in enumerate(sessions):
        session_id = f"sess_{digits}"
        event = SessionCreated(session_id=session_id, image_id="img_1", container_id="c", created_at=number, alias=name)
        head = Head(id=f"{number:032x}", at=number, asked="create_session")
        log.commit([Transaction((Batch(f"session-{session_id}", 0, head, (codec.row(event),)),))])
    return log


ONE = "01a1fd432b36778192000000aaaaaaaa"
TWO = "01a1fd432b36778192000000bbbbbbbb"
SIX = "01b2fd432b36778192000000cccccccc"
LOG = log_of((ONE, "first"), (TWO, "aaaaaaaa"), (SIX, None))


@pytest.mark.parametrize(
    ("word", "digits"),
    [
        ("last", SIX),
        (f"sess_{ONE}", ONE),
        ("first", ONE),
        ("sess_01b", SIX),
        ("01b", SIX),
        ("bbbbbbbb", TWO),
        ("b", TWO),
        ("cccc", SIX),
        ("aaaaaaaa", TWO),  # a name goes before the end of an id
    ],
)
def test_what_a_word_stands_for(word: str, digits: str) -> None:
    assert session_of(LOG, word) == f"sess_{digits}"


@pytest.mark.parametrize("word", ["", "none", "sess_02", "ccccd", "img_01", "session-", "*", "LAST"])
def test_words_that_stand_for_nothing(word: str) -> None:
    with pytest.raises(NotFound, match="no session"):
        session_of(LOG, word)


def test_a_word_for_several_names_them() -> None:
    with pytest.raises(BadInput, match=r"any of 2: bbbbbbbb \(aaaaaaaa\), aaaaaaaa \(first\)"):
        session_of(LOG, "01a1")


def test_what_is_shown_of_an_id_is_taken_for_it() -> None:
    assert session_of(LOG, short(f"sess_{SIX}")) == f"sess_{SIX}"


def test_who_makes_a_session_where_there_is_none_does_not_take_a_name_for_an_end() -> None:
    """`b` and `cccc` could well be names; as many digits as are shown, or `sess_…`, are copied from an id."""
    assert [session_to_open(LOG, word) for word in ("b", "cccc", "01b", "new")] == [None] * 4
    assert session_to_open(LOG, "cccccccc") == f"sess_{SIX}"
    assert session_to_open(LOG, "sess_01b") == f"sess_{SIX}"
    assert session_to_open(LOG, "deadbeef") is None
    with pytest.raises(NotFound):
        session_to_open(LOG, "sess_ffff")


def test_images_are_found_by_their_ids_alone() -> None:
    assert image_to_open(LOG, "support") is None
    assert image_to_open(LOG, "deadbeef") is None
    with pytest.raises(NotFound, match="no image"):
        image_to_open(LOG, "img_01")


def test_there_is_no_last_one_among_none() -> None:
    with pytest.raises(NotFound, match="no session yet"):
        session_of(MemoryLog(), "last")


def test_the_last_one_is_the_last_in_which_anything_was_said() -> None:
    log = log_of((ONE, None), (TWO, None), (SIX, None))
    said = JobQueued(job_id="job_1", content=(Text(text="hello"),))
    head = Head(id=f"{9:032x}", at=9, asked="send")
    log.commit([Transaction((Batch(f"session-sess_{TWO}", 1, head, (codec.row(said),)),))])
    assert session_of(log, "last") == f"sess_{TWO}"


def test_a_session_that_cannot_be_read_hides_no_other() -> None:
    log = log_of((ONE, "first"))
    head = Head(id="f" * 32, at=1, asked="create_session")
    log.commit([Transaction((Batch("session-sess_bad", 0, head, (Row("session_created", 1, b"\xc1"),)),))])

    assert session_of(log, "first") == f"sess_{ONE}"
    assert session_of(log, "last") == "sess_bad"
