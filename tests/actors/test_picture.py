"""What pictures count as: their size by their head, and the figures of the providers."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.actors.picture import HIGHEST, Picture, pictures_in, size_of, tokens_of_picture
from reenact.events.content import File, Image, Text

SIDES = st.integers(1, 16_383)
MINI, TILES = "openai:gpt-4o-mini", "openai:gpt-4o"
ANTHROPIC, GOOGLE = "anthropic:claude-opus-4-7", "google:gemini-2.5-pro"
KNOWN = {
    MINI: 48_169,
    TILES: 1_445,
    "openai:gpt-5-nano": 3_779,
    "openai:gpt-5.4": 6_150,
    ANTHROPIC: 4_784,
    GOOGLE: 6_192,
}


def b64(raw: bytes) -> str:
    return b64encode(raw).decode()


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02" + bytes(40)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + bytes(40)


def jpeg(width: int, height: int, before: tuple[bytes, ...] = (), kind: int = 0xC2) -> bytes:
    """before: segments before the frame, such as those with a smaller picture in them."""
    segments = b"".join(b"\xff\xe1" + (2 + len(each)).to_bytes(2) + each for each in before)
    frame = b"\xff" + bytes([kind]) + b"\0\x11\x08" + height.to_bytes(2) + width.to_bytes(2) + bytes(9)
    return b"\xff\xd8" + segments + b"\xff\xc4\0\x04ab" + frame + b"\xff\xda" + bytes(20)


def webp(width: int, height: int, kind: bytes) -> bytes:
    head = b"RIFF\0\0\0\0WEBP" + kind + bytes(4)
    if kind == b"VP8X":
        return head + bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + bytes(9)
    if kind == b"VP8L":
        return head + b"\x2f" + (width - 1 | height - 1 << 14).to_bytes(4, "little") + bytes(20)
    return head + b"\0\0\0\x9d\x01\x2a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + bytes(20)


@given(SIDES, SIDES, st.lists(st.binary(max_size=300), max_size=4), st.sampled_from([0xC0, 0xC1, 0xC2, 0xCF]))
def test_the_size_of_a_picture_is_read_from_its_head(width: int, height: int, before: list[bytes], kind: int) -> None:
    thumbnails = (*before, jpeg(160, 120))
    made = [png(width, height), gif(width, height), jpeg(width, height, thumbnails, kind)]
    made += [webp(width, height, kind) for kind in (b"VP8X", b"VP8L", b"VP8 ")]
    assert {size_of(b64(each)) for each in made} == {(width, height)}


@given(st.binary(max_size=200) | st.builds(lambda cut: jpeg(9, 9, (b"x" * 30,))[:cut], st.integers(0, 60)), st.text())
def test_what_is_no_picture_has_no_size_and_harms_nothing(raw: bytes, text: str) -> None:
    for data in (b64(raw), b64(b"\xff\xd8" + raw), b64(b"RIFF1234WEBP" + raw), text):
        width, height = size_of(data)
        assert width >= 0 and height >= 0
    assert pictures_in((File(media_type="application/pdf", data=text or "x"), Text(text=text)))[0].pages >= 1


@pytest.mark.parametrize(
    ("model", "size", "counted"),
    [
        (MINI, (128, 64), 8_500),  # 8,512 were counted, with a question of five words
        (MINI, (1024, 1024), 25_501),  # as counted
        ("azure:gpt-4o-mini-2024-07-18", (1024, 1024), 25_501),
        (TILES, (1024, 1024), 765),  # the examples of the documentation
        (TILES, (2048, 4096), 1_105),
        ("openrouter:openai/gpt-4o", (4096, 4096), 765),
        ("openai:gpt-5", (128, 64), 255),
        ("openai:gpt-4.1-mini", (1024, 1024), 2_520),
        ("openai:o4-mini", (8000, 8000), 3_779),
        ("openai:gpt-5.6", (8000, 8000), 153_750),  # as it is, and no limit is known
        (ANTHROPIC, (1092, 1092), 1_590),
        (ANTHROPIC, (200, 200), 64),
        (GOOGLE, (300, 300), 1_120),
        (GOOGLE, (960, 540), 6 * 258),
        ("local:llama", (128, 64), 8_500),
        ("local:llama", (0, 0), HIGHEST),
    ],
)
def test_a_picture_counts_what_its_model_counts_for_its_size(model: str, size: tuple[int, int], counted: int) -> None:
    assert tokens_of_picture(model, Picture(*size)) == counted


@given(st.sampled_from(sorted(KNOWN)), SIDES, SIDES)
def test_a_picture_whose_size_is_not_known_counts_as_the_largest(model: str, width: int, height: int) -> None:
    [named] = pictures_in([Image(url="https://example.com/cat.png")])
    assert tokens_of_picture(model, named) == KNOWN[model]
    [seen] = pictures_in([Image(data=b64(png(width, height)))])
    assert 0 < tokens_of_picture(model, seen) <= KNOWN[model]


def test_each_page_of_a_document_is_a_picture_too() -> None:
    pages = b"%PDF-1.4 /Type /Pages /Count 3 " + b"/Type /Page " * 3
    [told], [hidden] = (
        pictures_in([File(media_type="application/pdf", data=b64(raw))]) for raw in (pages, b"%PDF-1.7" + bytes(12_000))
    )
    assert (told.pages, hidden.pages) == (3, 4)
    assert tokens_of_picture(TILES, told) == 3 * 1_445
    assert pictures_in([File(media_type="text/plain", data=b64(b"hello")), Text(text="x")]) == ()
    assert pictures_in([File(file_id="f")])[0].pages == 10
