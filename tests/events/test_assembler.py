"""Signals into parts: the order, the ends, what is dropped, and what never gets through."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.events import stream
from reenact.events.assembler import (
    DEEPEST_INPUT,
    LARGEST_INPUT_BYTES,
    Assembler,
    clean_delta,
    clean_json,
    clean_text,
    parse_input,
)
from reenact.events.content import Native, OutputPart, Text, Thinking, ToolCall, Usage
from reenact.events.message import Signal


def text(*pieces: str) -> list[Signal]:
    return [stream.TextBlockStart(), *(stream.TextDelta(text=piece) for piece in pieces), stream.TextBlockStop()]


def call(*pieces: str, id: str = "c1", name: str = "search") -> list[Signal]:
    deltas = (stream.InputJsonDelta(partial_json=piece) for piece in pieces)
    return [stream.ToolUseStart(id=id, name=name), *deltas, stream.ToolUseStop()]


def thought(*pieces: str, signature: str | None = "sig") -> list[Signal]:
    deltas = (stream.ThinkingDelta(text=piece) for piece in pieces)
    return [stream.ThinkingStart(), *deltas, stream.ThinkingStop(provider="p", signature=signature)]


STOP = stream.MessageStop(stop_reason="end_turn")


def fed(*signals: Signal) -> Assembler:
    assembler = Assembler()
    for signal in signals:
        assembler.feed(signal)
    return assembler


def parts(*signals: Signal, partial: bool = False) -> tuple[OutputPart, ...]:
    return fed(*signals).parts(partial=partial)


def test_blocks_keep_the_order_in_which_they_came() -> None:
    native = stream.NativeBlock(provider="p", block={"type": "web_search"}, text="searched")
    assert parts(*thought("hm"), *text("a", "b"), *call('{"q":', "1}"), native, *text("c"), STOP) == (
        Thinking(thinking="hm", provider="p", signature="sig"),
        Text(text="ab"),
        ToolCall(id="c1", name="search", input={"q": 1}),
        Native(provider="p", block={"type": "web_search"}, text="searched"),
        Text(text="c"),
    )


def test_what_else_a_message_says_is_kept() -> None:
    ref, usage = stream.MessageRef(id="m1", model="big"), Usage(input_tokens=3, output_tokens=4)
    stop = stream.MessageStop(stop_reason="stop_sequence", stop_sequence="END")
    first = stream.MessageDelta(usage=Usage(input_tokens=3, output_tokens=1))
    done = fed(stream.MessageStart(message=ref), first, stream.MessageDelta(usage=usage), stream.MessageDelta(), stop)
    assert (done.message_id, done.model, done.usage) == ("m1", "big", usage)
    assert (done.stop_reason, done.stop_sequence) == ("stop_sequence", "END")


def test_parallel_calls_are_each_assembled() -> None:
    got = parts(*call('{"a":1}', id="1"), *call('{"a":2}', id="2"), STOP)
    assert [(part.id, part.input) for part in got if isinstance(part, ToolCall)] == [("1", {"a": 1}), ("2", {"a": 2})]


def test_a_call_without_input_has_empty_input() -> None:
    assert parts(*call(), STOP) == (ToolCall(id="c1", name="search", input={}),)
    assert parts(*call(" ", "\n"), STOP) == (ToolCall(id="c1", name="search", input={}),)


def test_extra_reaches_its_part() -> None:
    signals = [
        stream.TextDelta(text="cited"),
        stream.TextBlockStop(extra={"citations": [1]}),
        stream.ToolUseStart(id="c", name="n"),
        stream.ToolUseStop(extra={"item": "x"}),
        stream.ThinkingStart(),
        stream.ThinkingStop(provider="p", extra={"encrypted": "…"}),
    ]
    assert parts(*signals, STOP) == (
        Text(text="cited", extra={"citations": [1]}),
        ToolCall(id="c", name="n", input={}, extra={"item": "x"}),
        Thinking(thinking="", provider="p", extra={"encrypted": "…"}),
    )


def test_deltas_without_a_start_begin_a_block_except_for_a_call() -> None:
    stray = [stream.InputJsonDelta(partial_json='{"a":1}'), stream.ToolUseStop()]
    assert parts(*stray, stream.TextDelta(text="t"), stream.ThinkingDelta(text="h"), STOP) == (
        Text(text="t"),
        Thinking(thinking="h", provider=""),
    )


def test_interleaved_blocks_of_different_kinds_do_not_mix() -> None:
    signals = [
        stream.ToolUseStart(id="c", name="n"),
        stream.InputJsonDelta(partial_json='{"a":'),
        stream.TextDelta(text="meanwhile"),
        stream.InputJsonDelta(partial_json="1}"),
        stream.ToolUseStop(),
    ]
    assert parts(*signals, STOP) == (ToolCall(id="c", name="n", input={"a": 1}), Text(text="meanwhile"))


def test_empty_blocks_are_dropped_and_white_space_is_kept_in_a_whole_answer() -> None:
    assert parts(*text(), *text(""), *text(" "), *thought("", signature=None), STOP) == (Text(text=" "),)


# -- partial answers --


def test_an_interrupt_keeps_the_text_so_far_and_drops_an_unfinished_call() -> None:
    cut = [*call('{"a":1}', id="whole"), stream.TextDelta(text="so f"), stream.TextDelta(text="ar")]
    cut += [stream.ToolUseStart(id="half", name="n"), stream.InputJsonDelta(partial_json='{"a":1}')]
    # Its input looks complete. Only the stop says that it is.
    assert parts(*cut, partial=True) == (ToolCall(id="whole", name="search", input={"a": 1}), Text(text="so far"))


def test_an_interrupt_drops_white_space_and_keeps_unsigned_thinking_for_readers_only() -> None:
    cut = [stream.TextDelta(text=" \n"), stream.ThinkingStart(), stream.ThinkingDelta(text="perhaps")]
    assert parts(*cut, partial=True) == (Thinking(thinking="perhaps", provider=""),)
    assert parts(*text(" "), *text("\n"), partial=True) == ()
    # What was told before stays as it was told.
    assert parts(*text("a"), *text("\n"), *text("b"), partial=True) == (Text(text="a"), Text(text="\n"), Text(text="b"))


def test_asking_again_gives_the_same_and_changes_nothing() -> None:
    assembler = fed(stream.TextDelta(text="so"))
    assert assembler.parts(partial=True) == assembler.parts(partial=True) == (Text(text="so"),)
    assembler.feed(stream.TextDelta(text=" far"))
    assert assembler.parts(partial=True) == (Text(text="so far"),)


def test_nothing_of_an_interrupted_answer_gets_into_the_next() -> None:
    assembler = fed(stream.ToolUseStart(id="half", name="n"), stream.TextDelta(text="old"))
    assembler.feed(stream.MessageStop(stop_reason="interrupted"))
    late = [stream.TextDelta(text="late"), *call('{"a":1}'), stream.MessageDelta(usage=Usage(output_tokens=9))]
    for signal in late:
        assembler.feed(signal)
    assert assembler.parts(partial=True) == (Text(text="old"),)
    assert assembler.usage is None
    assembler.feed(stream.MessageStart(message=stream.MessageRef(id="m2", model="m")))
    assert (assembler.parts(), assembler.stop_reason) == ((), None)
    assembler.feed(stream.InputJsonDelta(partial_json="{}"))
    assembler.feed(stream.TextDelta(text="new"))
    assert assembler.parts(partial=True) == (Text(text="new"),)


def test_signals_of_other_kinds_are_passed_over() -> None:
    others = [stream.Connected(), stream.ErrorReceived(message="x"), stream.ToolProgress(tool_id="t", text="50 %")]
    assert parts(*others, *text("a"), STOP) == (Text(text="a"),)


# -- the input of a call --


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ('{"a":', "not JSON"),
        ('{"a":1}{"b":2}', "not JSON"),
        ("search for it", "not JSON"),
        ("[1]", "not an object"),
        ("null", "not an object"),
        ('"{}"', "not an object"),
        ('{"a":NaN}', "NaN"),
        ('{"a":-Infinity}', "-Infinity"),
        ('{"a":1e999}', "out of range"),
        ('{"a":1,"a":2}', "'a' is given twice"),
        ('{"b":{"a":1,"a":1}}', "'a' is given twice"),
        ('{"a":' + "9" * 5000 + "}", "digits"),
        ('{"a":' * DEEPEST_INPUT + "{}" + "}" * DEEPEST_INPUT, "levels deep"),
        ('{"a":' + "[" * 100_000, "levels deep"),
        ('{"a":"\0"}', "not JSON"),
    ],
)
def test_input_that_is_no_object_is_empty_and_shown(written: str, why: str) -> None:
    value, invalid = parse_input(written)
    assert value == {}
    assert invalid is not None and why in invalid
    assert f"[{len(written)} bytes, " in invalid
    assert invalid.startswith(clean_text(written[:1000]))
    assert len(invalid) < 1200
    assert parts(*call(written), STOP) == (ToolCall(id="c1", name="search", input={}, invalid=invalid),)


def test_the_deepest_input_allowed_is_taken() -> None:
    written = '{"a":' * (DEEPEST_INPUT - 1) + "{}" + "}" * (DEEPEST_INPUT - 1)
    assert parse_input(written) == (json.loads(written), None)
    # Many brackets are not many levels.
    assert parse_input('{"a":[' + ",".join(["[]"] * 500) + "]}")[1] is None


def test_an_input_over_a_mebibyte_is_refused_and_not_kept() -> None:
    piece = "x" * 65_536
    assembler = fed(stream.ToolUseStart(id="c", name="n"), stream.InputJsonDelta(partial_json='{"a":"'))
    for _ in range(160):
        assembler.feed(stream.InputJsonDelta(partial_json=piece))
    assembler.feed(stream.InputJsonDelta(partial_json='"}'))
    (block,) = assembler._blocks
    assert sum(map(len, block.chunks)) < LARGEST_INPUT_BYTES + 2 * len(piece)
    (got,) = assembler.parts()
    assert isinstance(got, ToolCall) and got.input == {}
    assert (
        got.invalid is not None and f"[{160 * 65_536 + 8} bytes, more than {LARGEST_INPUT_BYTES} bytes]" in got.invalid
    )
    largest = '{"a":"' + "x" * (LARGEST_INPUT_BYTES - 8) + '"}'
    assert parse_input(largest)[1] is None
    assert parse_input(largest + " ")[1] is not None


def test_bytes_are_counted_not_characters() -> None:
    assert parse_input('{"a":"' + "é" * (LARGEST_INPUT_BYTES // 2) + '"}')[1] is not None


def test_half_surrogates_in_input_become_replacement_characters() -> None:
    assert parse_input('{"\\ud800":["\\udfff","\\ud83d\\ude00","\\u0000"]}') == ({"�": ["�", "😀", "\0"]}, None)
    assert parse_input('{"a":"\ud83d\ude00"}') == ({"a": "😀"}, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.lists(st.integers(0, 200)), st.booleans())
def test_any_object_cut_anywhere_comes_out_as_it_was(value: dict[str, Any], cuts: list[int], ascii: bool) -> None:
    written = json.dumps(value, ensure_ascii=ascii)
    ends = sorted({0, len(written), *(cut for cut in cuts if cut < len(written))})
    pieces = [written[start:end] for start, end in pairwise(ends)]
    assert parts(*call(*pieces), STOP) == (ToolCall(id="c1", name="search", input=value),)


SIGNALS = st.one_of(
    st.builds(stream.TextBlockStart),
    st.builds(stream.TextDelta, text=st.text(st.characters(codec=None), max_size=5)),
    st.builds(stream.TextBlockStop),
    st.builds(stream.ThinkingStart),
    st.builds(stream.ThinkingDelta, text=st.text(st.characters(codec=None), max_size=5)),
    st.builds(stream.ThinkingStop, provider=st.just("p"), signature=st.none() | st.just("s")),
    st.builds(stream.ToolUseStart, id=st.just("c"), name=st.just("n")),
    st.builds(stream.InputJsonDelta, partial_json=st.sampled_from(["{", "}", '"a":', "1", '"\\ud800"', "\ud800", ","])),
    st.builds(stream.ToolUseStop),
    st.builds(stream.NativeBlock, provider=st.just("p"), block=st.just({"type": "x"})),
    st.builds(stream.MessageDelta),
    st.builds(stream.MessageStop, stop_reason=st.just("end_turn")),
    st.builds(stream.MessageStart, message=st.just(stream.MessageRef(id="m", model="m"))),
)


@given(st.lists(SIGNALS, max_size=30))
def test_whatever_comes_the_parts_can_be_stored_and_the_partial_ones_hold_nothing_more(signals: list[Signal]) -> None:
    assembler = fed(*signals)
    whole, partial = assembler.parts(), assembler.parts(partial=True)
    for got in (whole, partial):
        msgspec.json.encode(got)
        assert not any("\0" in part.text for part in got if isinstance(part, Text))
    left = iter(whole)
    assert all(part in left for part in partial), "a partial answer is the whole one with parts left out"


# -- text --


def test_what_no_store_takes_is_replaced() -> None:
    assert clean_text("a\0b\ud800c\udc00") == "a�b�c�"
    assert clean_text("\ud83d\ude00") == "😀"
    assert clean_json({"a\ud800": ["\udc00", 1, None, {"b": "😀"}]}) == {"a�": ["�", 1, None, {"b": "😀"}]}
    assert parts(*text("\ud83d", "\ude00 \0"), STOP) == (Text(text="😀 �"),)


@given(st.text(st.characters(codec=None)), st.lists(st.integers(0, 50)))
def test_pieces_of_text_add_up_to_the_text_however_it_was_cut(whole: str, cuts: list[int]) -> None:
    ends = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    told, held = "", ""
    for start, end in pairwise(ends):
        piece, held = clean_delta(held, whole[start:end])
        piece.encode()
        told += piece
    assert told + clean_text(held) == clean_text(whole)
