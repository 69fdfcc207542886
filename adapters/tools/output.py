"""What a tool returned, as a model is given it: text or parts, clean, and within a bound.

Nothing here fails for being too long or badly encoded: what is taken away is counted and said in the text itself.
"""

from __future__ import annotations

import binascii
import json
import pathlib
import re
from collections.abc import Callable

import msgspec
from msgspec import Struct

from ...events.agent import ToolOutput
from ...events.content import File, Image, Text

MAX_OUTPUT_BYTES = 64 * 1024
MIN_OUTPUT_BYTES = 128  # room for the marker and something around it
MAX_MEDIA_BYTES = 5 * 1024 * 1024  # of base64, over all pictures and files of one result; providers take about as much
MAX_PARTS = 100
_UNFIT = re.compile("[\0\ud800-\udfff]")
_ENCODER = msgspec.json.Encoder(order="deterministic", enc_hook=lambda value: _plain(value))


class Shown(Struct, frozen=True):
    """An output fit for the log and for any provider.

    dropped_bytes: of UTF-8 text, or of base64, that were left out. replaced: characters that became U+FFFD.
    """

    output: ToolOutput
    dropped_bytes: int = 0
    replaced: int = 0


class Unshowable(Exception):
    """A value that has no form a model could be given. The message names its type."""


Clean = Callable[[str], str]
"""Takes secrets out of a text, before it is cut: half a secret would not be known for one."""


def show(value: object, *, max_bytes: int = MAX_OUTPUT_BYTES, clean: Clean | None = None) -> Shown:
    """The value as a model is given it.

    Text stays as it is, bytes are read as UTF-8, None is empty text. `Text`, `Image` and `File`, alone or in a list
    with text between them, become parts. Anything else becomes compact JSON. U+0000, lone surrogates and bytes that
    are not UTF-8 are replaced by U+FFFD; then text beyond `max_bytes` loses its middle. Raises `Unshowable`.
    """
    if isinstance(value, Text | Image | File):
        return _parts([value], max_bytes, clean)
    if isinstance(value, list | tuple) and any(isinstance(each, Text | Image | File) for each in value):
        return _parts(list(value), max_bytes, clean)
    text, replaced = _clean(_text(value))
    text = _cleaned(text, max_bytes, clean)
    kept, dropped = cap(text, max_bytes)
    return Shown(kept, dropped, replaced)


def cap(text: str, max_bytes: int) -> tuple[str, int]:
    """The text within `max_bytes` of UTF-8: whole, or its head and tail around a marker that says how many bytes are
    missing.

    Returns it with that number: bytes kept (without the marker) + bytes dropped = bytes given. Cuts between
    characters. The text must be free of lone surrogates, and `max_bytes` at least MIN_OUTPUT_BYTES.
    """
    if len(text) * 4 <= max_bytes:
        return text, 0
    if text.isascii():  # slices only, however long the text is
        size = len(text)
        if size <= max_bytes:
            return text, 0
        head, tail = _ends(size, max_bytes)
        return f"{text[:head]}{_marker(size - head - tail)}{text[size - tail :]}", size - head - tail
    raw = text.encode()
    size = len(raw)
    if size <= max_bytes:
        return text, 0
    head, tail = _ends(size, max_bytes)
    first, last = raw[:head].decode(errors="ignore"), raw[size - tail :].decode(errors="ignore")
    dropped = size - len(first.encode()) - len(last.encode())
    return f"{first}{_marker(dropped)}{last}", dropped


def _ends(size: int, max_bytes: int) -> tuple[int, int]:
    room = max_bytes - len(_marker(size).encode())
    return room - room // 2, room // 2


def _marker(dropped: int) -> str:
    return f"\n[… {dropped} bytes dropped …]\n"


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray | memoryview):
        # What a subprocess or a file gives. An undecodable byte becomes a lone surrogate, to be counted like one.
        return bytes(value).decode(errors="surrogateescape")
    try:
        return _ENCODER.encode(value).decode()
    except Unshowable:
        raise
    except UnicodeEncodeError:  # a lone surrogate somewhere inside: let it through, to be counted like any other
        return json.dumps(
            msgspec.to_builtins(value, enc_hook=_plain, str_keys=True), ensure_ascii=False, separators=(",", ":")
        )
    except Exception as error:  # a value's own properties may raise anything
        raise Unshowable(f"a {type(value).__name__} that cannot be turned into text or JSON ({error})") from error


def _plain(value: object) -> object:
    if isinstance(value, pathlib.PurePath):
        return str(value)
    raise Unshowable(f"a {type(value).__name__}, which is neither text nor JSON")


def _cleaned(text: str, max_bytes: int, clean: Clean | None) -> str:
    return text if clean is None or len(text) * 4 <= max_bytes else clean(text)


def _clean(text: str) -> tuple[str, int]:
    if text.isascii() and "\0" not in text:
        return text, 0
    return _UNFIT.subn("\ufffd", text)


def _parts(values: list[object], max_bytes: int, clean: Clean | None) -> Shown:
    """Parts in order, text within `max_bytes` and media within MAX_MEDIA_BYTES. What has no room is left out whole,
    and the last part says how much that was."""
    parts: list[Text | Image | File] = []
    room, media_room, dropped, lost, replaced = max_bytes, MAX_MEDIA_BYTES, 0, 0, 0
    for value in values:
        if isinstance(value, Image | File):
            part, size = _medium(value)
            if len(parts) < MAX_PARTS and size <= media_room:
                parts.append(part)
                media_room -= size
            else:
                lost += size
            continue
        text, count = _clean(value.text if isinstance(value, Text) else _text(value))
        replaced += count
        if len(parts) < MAX_PARTS and room >= MIN_OUTPUT_BYTES:
            kept, cut = cap(_cleaned(text, room, clean), room)
            parts.append(Text(text=kept))
            room -= len(kept.encode())
            dropped += cut
        else:
            lost += len(text.encode())
    if lost:
        parts.append(Text(text=_marker(lost).strip()))
    return Shown(tuple(parts), dropped + lost, replaced)


def _medium(part: Image | File) -> tuple[Image | File, int]:
    """A picture or a file that a provider will take, and its size. One that it refuses would break the conversation
    for good."""
    kind = type(part).__name__
    if part.data is not None:
        if not isinstance(part.data, str) or not part.media_type:
            raise Unshowable(f"{kind} whose data is not base64 text with a media_type")
        try:
            binascii.a2b_base64(part.data.encode(), strict_mode=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise Unshowable(f"{kind} whose data is not base64 ({error})") from error
        return part, len(part.data)
    if not (part.url or (isinstance(part, File) and part.file_id)):
        raise Unshowable(f"{kind} with neither data nor url")
    return part, len(part.url or "")
