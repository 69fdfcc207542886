"""What a picture counts as, at most, for the model that sees it: by its own size, where that can be read. Pure.

The figures are those of the providers' documentation, as of November 2026. Where a model or a size is not known, the
highest that is known counts.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from collections.abc import Callable, Iterable
from math import ceil

from msgspec import Struct

from ..events.content import File, Image

IMAGE_TOKENS = 2_400
"""What a picture counts as in an estimate that knows no model; a document that is only named counts as ten."""

PAGE_BYTES = 4_000
"""Of a document whose pages cannot be read, so many are a page."""

PAGES_MAX = 1_000
"""The most pages of a document that any provider takes: https://ai.google.dev/gemini-api/docs/document-processing"""

SEGMENTS_MAX = 100
"""Segments of a JPEG that are looked at for its size."""


class Picture(Struct, frozen=True, gc=False):
    """A picture, or the pages of a document, which models see as pictures too. width, height: in pixels, 0 where they
    are not known. estimated: what it counts as in an estimate that knows no model."""

    width: int = 0
    height: int = 0
    pages: int = 1
    estimated: int = IMAGE_TOKENS


class Pictures(Struct, frozen=True, gc=False):
    """Those of a conversation, in order. unseen: how many of them, the newest, no model has counted yet."""

    each: tuple[Picture, ...] = ()
    unseen: int = 0

    def and_more(self, more: tuple[Picture, ...]) -> Pictures:
        return Pictures((*self.each, *more), self.unseen + len(more)) if more else self

    @property
    def counted(self) -> Pictures:
        """A model has counted them all."""
        return Pictures(self.each) if self.unseen else self

    def tokens_unseen(self, model: str) -> int:
        """What a model counts those as that none has counted, at most, above what they are estimated as."""
        unseen = self.each[len(self.each) - self.unseen :]
        return sum(tokens_of_picture(model, picture) - picture.estimated for picture in unseen)

    def tokens_seen(self, model: str) -> int:
        """What a model counts the others as, at most, which another one has counted."""
        return sum(tokens_of_picture(model, picture) for picture in self.each[: len(self.each) - self.unseen])


NO_PICTURES = Pictures()


def pictures_in(parts: Iterable[object]) -> tuple[Picture, ...]:
    """Those of a message, and the pages of its documents."""
    found: tuple[Picture, ...] = ()
    for part in parts:
        match part:
            case Image(data=data):
                width, height = size_of(data) if data else (0, 0)
                found += (Picture(width, height),)
            case File(data=None):
                found += (Picture(pages=10, estimated=10 * IMAGE_TOKENS),)
            case File(data=str(data), media_type=kind) if data.startswith("JVBER") or kind == "application/pdf":
                found += (Picture(pages=_pages(data), estimated=0),)  # its text is estimated by its length
    return found


def tokens_of_picture(model: str, picture: Picture) -> int:
    """What a model counts it as, at most."""
    name = model.partition(":")[2].rpartition("/")[2]
    provider = model.partition(":")[0]
    counted = next((counted for pattern, counted in _OPENAI if re.match(pattern, name)), None)
    if counted is None:
        if provider == "anthropic" or "claude" in name:
            counted = _anthropic
        elif provider == "google" or name.startswith("gemini"):
            counted = _google
        else:
            counted = _most
    return picture.pages * counted(picture.width, picture.height)


# -- by whom --


def _tiles(base: int, each: int) -> Callable[[int, int], int]:
    """Scaled down to fit 2,048 pixels, then to 768 on the shortest side; tiles of 512: at most 4 times 2."""

    def counted(width: int, height: int) -> int:
        if not width or not height:
            return base + 8 * each
        scale = min(1.0, 2048 / max(width, height), 768 / min(width, height))
        return base + min(8, ceil(width * scale / 512) * ceil(height * scale / 512)) * each

    return counted


def _patches(most: int | None) -> Callable[[int, int], int]:
    """Patches of 32 pixels, at most so many, each up to 2.46 tokens: the highest factor of any model."""

    def counted(width: int, height: int) -> int:
        if not width or not height:
            return HIGHEST if most is None else ceil(most * 2.46)
        patches = ceil(width / 32) * ceil(height / 32)
        return ceil((patches if most is None else min(patches, most)) * 2.46)

    return counted


def _anthropic(width: int, height: int) -> int:
    """https://platform.claude.com/docs/en/build-with-claude/vision: width * height / 750, or patches of 28 pixels; at
    most 4,784 (models before Opus 4.7: about 1,600)."""
    if not width or not height:
        return 4_784
    return min(4_784, max(ceil(width * height / 750), ceil(width / 28) * ceil(height / 28)))


def _google(width: int, height: int) -> int:
    """https://ai.google.dev/gemini-api/docs/tokens and media-resolution: 258 a tile, tiles of 256 to 768 pixels, two
    thirds of the shortest side, of a picture scaled down to 3,072: at most 24; Gemini 3: 1,120 a picture."""
    if not width or not height:
        return 24 * 258
    scale = min(1.0, 3072 / max(width, height))
    side = min(768.0, max(256.0, min(width, height) * scale / 1.5))
    return max(1_120, min(24, ceil(width * scale / side) * ceil(height * scale / side)) * 258)


# https://developers.openai.com/api/docs/guides/images-vision. Of the newest models `auto` is the size as it is.
_OPENAI: tuple[tuple[str, Callable[[int, int], int]], ...] = (
    (r"gpt-4o-mini", _tiles(2_833, 5_667)),
    (r"(gpt-[45].*|o\d)-(mini|nano)|gpt-5\.[1-3]|gpt-5-codex|codex", _patches(1_536)),
    (r"gpt-5\.4", _patches(2_500)),
    (r"gpt-4|chatgpt-4o|gpt-5($|-)|o1|o3|computer-use", _tiles(85, 170)),
    (r"gpt-", _patches(None)),
)

HIGHEST = 2_833 + 8 * 5_667
"""The highest that is known of any picture whatever its size, gpt-4o-mini's."""


def _most(width: int, height: int) -> int:
    if not width or not height:
        return HIGHEST
    return max(counted(width, height) for counted in (_OPENAI[0][1], _OPENAI[-1][1], _anthropic, _google))


# -- how large --


def size_of(data: str) -> tuple[int, int]:
    """Width and height of a PNG, JPEG, GIF or WebP in base64, as its head says them; (0, 0) where it does not."""
    try:
        head = _bytes(data, 0, 32)
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
        if head.startswith((b"GIF87a", b"GIF89a")):
            return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp(head)
        return _jpeg(data) if head.startswith(b"\xff\xd8") else (0, 0)
    except (Error, ValueError, IndexError):
        return 0, 0


def _webp(head: bytes) -> tuple[int, int]:
    match head[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        case b"VP8 " if head[23:26] == b"\x9d\x01\x2a":
            return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
        case b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return 0, 0


def _jpeg(data: str) -> tuple[int, int]:
    """From segment to segment, without reading them, to the frame."""
    at = 2
    for _ in range(SEGMENTS_MAX):
        segment = _bytes(data, at, 9)
        if len(segment) < 9 or segment[0] != 0xFF:
            return 0, 0
        kind = segment[1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(segment[7:9]), int.from_bytes(segment[5:7])
        if kind in (0xD9, 0xDA):
            return 0, 0
        at += 1 if kind == 0xFF else 2 + int.from_bytes(segment[2:4])
    return 0, 0


def _bytes(data: str, at: int, many: int) -> bytes:
    """So many bytes of what is in base64."""
    start = at // 3 * 4
    chunk = data[start : start + (many + 4) // 3 * 4 + 4]
    chunk = chunk[: len(chunk) // 4 * 4]
    return a2b_base64(chunk)[at % 3 :][:many]


def _pages(data: str) -> int:
    """Pages of a PDF, as far as it says them; else by its length."""
    try:
        raw = a2b_base64(data)
    except (Error, ValueError):
        raw = b""
    said = max((int(number) for number in re.findall(rb"/Count\s+(\d{1,6})\b", raw)), default=0)
    pages = max(said, len(re.findall(rb"/Type\s*/Page\b", raw))) or 1 + len(data) * 3 // 4 // PAGE_BYTES
    return min(pages, PAGES_MAX)
