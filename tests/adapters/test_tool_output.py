"""What a model is given of what a tool returned: text or parts, clean, and within a bound."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reenact.adapters.tools.output import MAX_MEDIA_BYTES, MIN_OUTPUT_BYTES, Unshowable, cap, show
from reenact.adapters.tools.runner import ToolOutcome, run
from reenact.adapters.tools.tool import Tool, ToolContext, tool
from reenact.events.content import File, Image, Text

PICTURE = base64.b64encode(b"not really a picture").decode()


def outcome_of(made: Tool[..., Any], arguments: object) -> ToolOutcome:
    context = ToolContext(idempotency_key="key-1", session_id="sess_1", call_id="t1")
    with ThreadPoolExecutor(1) as pool:
        return asyncio.run(run(made, arguments, context, executor=pool))


@dataclasses.dataclass
class Receipt:
    number: int
    lines: list[str]


class Stock(msgspec.Struct):
    left: int


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("as it is\n ", "as it is\n "),
        (None, ""),
        ("", ""),
        (0, "0"),
        (True, "true"),
        ({"b": [1, 2.5, None], "a": "é"}, '{"a":"é","b":[1,2.5,null]}'),
        (["a", "b"], '["a","b"]'),
        ({"b", "a"}, '["a","b"]'),
        (Receipt(1, ["x"]), '{"number":1,"lines":["x"]}'),
        (Stock(3), '{"left":3}'),
        (Path("/tmp/x"), '"/tmp/x"'),
        ({"at": Path("x")}, '{"at":"x"}'),
        (2**80, str(2**80)),
        (b"caf\xc3\xa9", "café"),
        (bytearray(b"x"), "x"),
        ({"raw": b"hi"}, '{"raw":"aGk="}'),
        ({"nul": "a\0b"}, '{"nul":"a\\u0000b"}'),
    ],
)
def test_a_result_becomes_text(value: object, output: str) -> None:
    assert show(value).output == output
    assert (show(value).dropped_bytes, show(value).replaced) == (0, 0)


@pytest.mark.parametrize(
    ("value", "output", "replaced"),
    [
        ("a\0b\ud800\udfffc", "a\ufffdb\ufffd\ufffdc", 3),
        (b"ok \xff\xfe\0", "ok \ufffd\ufffd\ufffd", 3),
        ({"k\ud800": ["\udc00"]}, '{"k\ufffd":["\ufffd"]}', 2),
    ],
)
def test_what_no_log_could_hold_is_replaced_and_counted(value: object, output: str, replaced: int) -> None:
    assert (show(value).output, show(value).replaced) == (output, replaced)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "a object, which is neither text nor JSON"),
        ((each for each in [1]), "a generator"),
        ({"x": [threading.Lock()]}, "a lock"),
        ({(1, 2): object()}, "a dict"),
        (Image(data="no base64!", media_type="image/png"), "Image whose data is not base64"),
        (Image(data=PICTURE), "with a media_type"),
        (Image(), "Image with neither data nor url"),
        ([Text(text="x"), object()], "a object"),
    ],
)
def test_what_has_no_form_is_named_by_its_type(value: object, says: str) -> None:
    with pytest.raises(Unshowable, match=says):
        show(value)

    @tool
    def act() -> Any:
        return value

    outcome = outcome_of(act, {})
    assert (outcome.outcome, outcome.error_type) == ("error", "Unshowable")
    assert isinstance(outcome.output, str) and outcome.output.startswith("act ran to its end, but returned ")


def test_an_endless_result_is_named_by_its_type() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(Unshowable, match="a list that cannot be turned into"):
        show(endless)


def test_pictures_and_files_become_parts() -> None:
    picture = Image(data=PICTURE, media_type="image/png")
    linked = File(url="https://example.org/a.pdf", media_type="application/pdf")
    assert show(picture).output == (picture,)
    assert show(["see:", picture, {"n": 1}, Text(text="x\0", extra={"id": 1}), linked]) == msgspec.structs.replace(
        show(""),
        output=(Text(text="see:"), picture, Text(text='{"n":1}'), Text(text="x\ufffd"), linked),
        replaced=1,
    )


def test_parts_beyond_the_bounds_are_left_out_and_counted() -> None:
    big = Image(data=base64.b64encode(bytes(MAX_MEDIA_BYTES // 4 * 3 - 12)).decode(), media_type="image/png")
    assert big.data is not None
    small = Image(data=PICTURE, media_type="image/png")
    shown = show([big, small, "x" * 1000, "y" * 1000, small], max_bytes=1000)
    assert shown.output[:2] == (big, Text(text="x" * 1000))
    lost = 1000 + 2 * len(PICTURE)
    assert shown.output[2:] == (Text(text=f"[… {lost} bytes dropped …]"),)
    assert shown.dropped_bytes == lost
    many = show([small] * 150)
    assert len(many.output) == 101 and many.dropped_bytes == 50 * len(PICTURE)


def test_a_long_output_keeps_its_head_and_its_tail() -> None:
    @tool(max_output_bytes=1024)
    def act(size: int) -> str:
        return "h" * size + "t" * size

    outcome = outcome_of(act, {"size": 5000})
    assert isinstance(outcome.output, str)
    assert outcome.outcome == "ok" and len(outcome.output.encode()) <= 1024
    assert outcome.output.startswith("hhh") and outcome.output.endswith("ttt")
    assert f"\n[… {outcome.dropped_bytes} bytes dropped …]\n" in outcome.output
    kept = outcome.output.replace(f"\n[… {outcome.dropped_bytes} bytes dropped …]\n", "")
    assert len(kept) + outcome.dropped_bytes == 10_000


def test_a_long_exception_is_cut_too() -> None:
    @tool(max_output_bytes=256)
    def act() -> None:
        raise ValueError("x" * 10_000_000)

    outcome = outcome_of(act, {})
    assert len(str(outcome.output).encode()) <= 256 and outcome.dropped_bytes > 9_999_000


LONG_TEXT = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200), st.integers(1, 8)
).map(lambda pair: pair[0] * pair[1])


@given(LONG_TEXT, st.integers(MIN_OUTPUT_BYTES, 600))
@example("x" * 128, 128)
@example("x" * 129, 128)
@example("é" * 64, 128)
@example("é" * 65, 128)
@example("😀" * 99, 131)
def test_what_is_kept_and_what_is_dropped_is_what_was_given(text: str, max_bytes: int) -> None:
    # Fails when the cut falls inside a character, and when the marker's own bytes are not reckoned with.
    kept, dropped = cap(text, max_bytes)
    given_bytes = text.encode()
    assert len(kept.encode()) <= max_bytes
    if len(given_bytes) <= max_bytes:
        assert (kept, dropped) == (text, 0)
        return
    marker = f"\n[… {dropped} bytes dropped …]\n"
    middle = len(kept) - len(marker)
    fits = [(kept[:at], kept[at + len(marker) :]) for at in range(middle + 1) if kept[at : at + len(marker)] == marker]
    assert any(
        text.startswith(head)
        and text.endswith(tail)
        and len(head.encode()) + len(tail.encode()) + dropped == len(given_bytes)
        for head, tail in fits
    )
    # No more is dropped than has to be: less than a character at either cut.
    assert len(kept.encode()) > max_bytes - 8 - len(str(len(given_bytes)))


@given(st.text(st.characters(), max_size=300) | st.binary(max_size=300), st.integers(MIN_OUTPUT_BYTES, 400))
def test_every_text_and_every_bytes_can_be_shown_and_stored(value: str | bytes, max_bytes: int) -> None:
    shown = show(value, max_bytes=max_bytes)
    assert isinstance(shown.output, str)
    assert len(shown.output.encode()) <= max_bytes and "\0" not in shown.output
    if isinstance(value, str):
        assert shown.replaced == sum(each == "\0" or "\ud800" <= each <= "\udfff" for each in value)
    assert msgspec.json.decode(msgspec.json.encode(shown.output)) == shown.output


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda below: st.lists(below) | st.dictionaries(st.text(), below),
        max_leaves=8,
    )
)
def test_plain_values_are_shown_as_their_json(value: Any) -> None:
    shown = show(value, max_bytes=1_000_000)
    if value is not None and not isinstance(value, str):
        assert isinstance(shown.output, str) and json.loads(shown.output) == value
