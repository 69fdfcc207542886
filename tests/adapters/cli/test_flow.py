"""Text in pieces, broken between words at the edge of a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reenact.adapters.cli.flow import Flow

TEXTS = st.text(st.sampled_from("ab \n\t`äあ"), max_size=120)


def shown(pieces: list[str], width: int) -> str:
    out: list[str] = []
    flow = Flow(out.append, lambda: width)
    for piece in pieces:
        flow.feed(piece)
    flow.end()
    return "".join(out)


@given(st.lists(TEXTS, max_size=8), st.integers(8, 60))
def test_however_it_is_cut_it_looks_the_same(pieces: list[str], width: int) -> None:
    assert shown(pieces, width) == shown(["".join(pieces)], width)


@given(TEXTS, st.integers(8, 60))
def test_no_word_is_lost_or_broken(text: str, width: int) -> None:
    assert shown([text], width).split() == text.split()


@given(st.text(st.sampled_from("ab \n"), max_size=200), st.integers(8, 60))
def test_no_line_is_longer_than_the_terminal_unless_one_word_is(text: str, width: int) -> None:
    for line in shown([text], width).splitlines():
        assert len(line) <= width or len(line.split()) == 1


@given(TEXTS)
def test_lines_that_fit_stay_as_they_are(text: str) -> None:
    wide = shown([text], 10_000)

    assert [line.rstrip() for line in wide.splitlines()] == [line.rstrip() for line in text.split("\n")][
        : len(wide.splitlines())
    ]


def test_code_is_not_broken() -> None:
    code = "```\n" + "x = " + "1 + " * 20 + "1\n```\n"

    assert shown(["So:\n" + code + "done and more to say than fits"], 20) == (
        "So:\n" + code + "done and more to say\nthan fits\n"
    )


def test_a_line_that_is_open_is_ended_once() -> None:
    assert shown(["one"], 20) == "one\n"
    assert shown(["one\n"], 20) == "one\n"
    assert shown([], 20) == ""
