"""The words of a history: what a log was asked to commit and what it answered, written down outside of it, a line each.

A log cannot tell by itself what it promised and lost. A history that lies elsewhere can: `verify` compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import msgspec
from msgspec import Struct

from . import codec
from .errors import BadInput
from .log import Batch, Result, Transaction
from .shape import json_decoder


class Piece(Struct, frozen=True, array_like=True):
    """A batch as it was handed in. digest: of its head and of the bytes of its events."""

    id: str
    stream: str
    version: int
    events: int
    digest: str


class Began(Struct, frozen=True, tag="began", tag_field="what"):
    """A writer owns the log from here on, under this epoch."""

    epoch: int
    writer: str


class Handed(Struct, frozen=True, tag="handed", tag_field="what"):
    """A commit was called: its transactions, each with its batches."""

    epoch: int
    call: int
    transactions: tuple[tuple[Piece, ...], ...]


class Answered(Struct, frozen=True, tag="answered", tag_field="what"):
    """The commit returned. Of each transaction the positions of its batches, or by which name it was refused."""

    epoch: int
    call: int
    results: tuple[tuple[int, ...] | str, ...]


class Raised(Struct, frozen=True, tag="raised", tag_field="what"):
    """The commit raised. written: False when nothing was written, None when nobody knows."""

    epoch: int
    call: int
    error: str
    written: bool | None


class Torn(Struct, frozen=True, tag="torn", tag_field="what"):
    """So many bytes of a line that a crash cut off. The next writer ends that line with this, and begins its own."""

    bytes: int


Entry: TypeAlias = Began | Handed | Answered | Raised
"""One line."""

_TORN = b'{"what":"torn",'
"""How a `Torn` begins, and nothing within another entry: there the quotes are escaped."""


def line(entry: Entry) -> bytes:
    """An entry as it is written down, with its end of line."""
    return msgspec.json.encode(entry) + b"\n"


def entries(lines: Iterable[bytes]) -> Iterator[Entry | Torn]:
    """The entries of a history, a `Torn` for a line that a crash cut off: the last, or one that a later writer ended.

    Raises BadInput for what is no history.
    """
    for number, text in enumerate(lines, start=1):
        try:
            yield _entry(text)
        except _UNREADABLE as error:
            if text.endswith(b"\n"):
                raise BadInput(
                    f"line {number} of the history cannot be read: {error}. The lines before it, and those after it, "
                    "are each a history that can be looked at."
                ) from None
            yield Torn(len(text))


def ending(text: bytes) -> bytes:
    """What is to be written first after `text`, the last line of a history without its end: nothing where there is no
    such line. Wherever this is cut off too, it leaves a line of which the same can be asked."""
    if not text:
        return b""
    try:
        _entry(text)
    except _UNREADABLE:
        return msgspec.json.encode(Torn(len(text))) + b"\n"
    return b"\n"


_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def _entry(text: bytes) -> Entry | Torn:
    try:
        found: Entry = json_decoder(Entry)(text)
        return found
    except _UNREADABLE:
        at = text.rfind(_TORN)
        if at < 1:
            raise
        torn: Torn = json_decoder(Torn)(text[at:])
        if torn.bytes != at:
            raise
        return torn


def piece(batch: Batch) -> Piece:
    digest = codec.chain(b"", batch.head, map(codec.row_digest, batch.rows))
    return Piece(batch.head.id, batch.stream, batch.version, len(batch.rows), digest.hex())


def pieces(transactions: Iterable[Transaction]) -> tuple[tuple[Piece, ...], ...]:
    return tuple(tuple(map(piece, transaction.batches)) for transaction in transactions)


def result(found: Result) -> tuple[int, ...] | str:
    """What is written down of the result of one transaction."""
    if isinstance(found, Exception):
        return found.code
    return tuple(stored.position for stored in found) if isinstance(found, list | tuple) else "duplicate"
