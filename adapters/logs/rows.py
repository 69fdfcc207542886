"""How a log lies in its file: the tables, and a batch as rows of them.

One row an event, and lean: what repeats (stream names, event types, contexts, key ids, the writer) is a number into a
small table, and what the events of a batch share is packed once, into the `head` of its first row. Knows bytes and
SQL text; opens nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ...events.errors import Corrupt
from ...events.log import Batch, Row, Stored
from ...events.message import Head
from .names import Names

APPLICATION = 0x7265656E
"""`PRAGMA application_id` of every log file: "reen". `file` and other programs can tell by it."""

FORMAT = 2
"""`PRAGMA user_version`: the format of the tables below. A file with a higher number is refused."""

# The tables are the storage format. Later formats add; nothing here is renamed or given another meaning. As few as will
# do: each table and each index takes a page of 4 KB before the first event.
# types: schema 0 for a command's name; no index, there are few and they are remembered. texts: contexts as JSON, ids of
# keys; no index, it would hold each text a second time, so one may stand there twice. position: AUTOINCREMENT, so that
# no position is ever given twice, whatever is done to the newest rows. part: the event's place in its batch. key: the
# number of the key that data is sealed with; NULL when plain, 0 when plain and deflated. head: on part 0 only, see
# `pack_head`. owing: the streams whose last batch still owes an effect; not a column of `streams`, because it is small
# and changes with almost every batch.
TABLES = {
    "owners": "CREATE TABLE owners (epoch INTEGER PRIMARY KEY, writer TEXT NOT NULL, opened INTEGER NOT NULL)",
    "streams": "CREATE TABLE streams (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "types": "CREATE TABLE types (number INTEGER PRIMARY KEY, name TEXT NOT NULL, schema INTEGER NOT NULL)",
    "texts": "CREATE TABLE texts (number INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    "events": "CREATE TABLE events (position INTEGER PRIMARY KEY AUTOINCREMENT, stream INTEGER NOT NULL,"
    " version INTEGER NOT NULL, part INTEGER NOT NULL, type INTEGER NOT NULL, epoch INTEGER NOT NULL, key INTEGER,"
    " head BLOB, data BLOB NOT NULL, UNIQUE (stream, version))",
    "owing": "CREATE TABLE owing (stream INTEGER PRIMARY KEY)",
    "commands": "CREATE TABLE commands (scope TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL,"
    " stream TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (scope, key)) WITHOUT ROWID",
}

EARLIER = {"texts": "CREATE TABLE texts (number INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)"}
"""Tables as format 1 made them; they stay as they are in a file that has them. Its heads are longer, and read alike."""

# For people with a SQLite shell; nothing in the project reads it.
VIEW = (
    "CREATE VIEW log AS SELECT e.position, s.name AS stream, e.version, t.name AS type, e.epoch,"
    " length(e.data) AS size, hex(e.data) AS data"
    " FROM events e JOIN streams s ON s.number = e.stream JOIN types t ON t.number = e.type"
)

COLUMNS = "position, stream, version, part, type, epoch, key, head, data"
INSERT = f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

DEFLATED = 0
"""In the column `key`: the bytes are plain and deflated."""

DEFLATED_BYTES_MIN = 1024
DEFLATED_BYTES_MAX = 1024 * 1024
"""Plain data of this size is stored deflated where that saves an eighth: what tools say shrinks to a half or less.
Less is not worth the time, 70 us for 2 KB; more would hold the writer up."""

EventRow = tuple[int, int, int, int, int, int, int | None, bytes | None, bytes]
"""One row of `events`, its values in the order of `COLUMNS`."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode
_hex_run = re.compile("[0-9a-f]{32}").search


def pack_head(head: Head, *, count: int, asked: int, context: int, writer: str) -> bytes:
    """The head of a batch of `count` events as bytes: about 110 with a digest of 32.

    asked, context: their numbers. writer: that of the epoch, not stored again when it is the head's own too.
    Raises UnicodeEncodeError, OverflowError or TypeError for a head that has no bytes.
    """
    id_, correlation = _pack(head.id), head.correlation
    return _encode(
        (
            count,
            id_,
            _after(id_, head.at),
            asked,
            _pack_cause(head.cause, correlation),
            0 if correlation == head.id else _pack(correlation),
            _pack(head.trace),
            _pack(head.job),
            context,
            [_pack(owed) for owed in head.owes],
            head.chain,
            None if head.writer == writer else head.writer,
        )
    )


def pack_data(data: bytes) -> tuple[int | None, bytes]:
    """Plain data as it is stored: what to write for `key`, and the bytes."""
    if DEFLATED_BYTES_MIN <= len(data) <= DEFLATED_BYTES_MAX:
        small = zlib.compress(data, 1)
        if len(small) < len(data) - len(data) // 8:
            return DEFLATED, small
    return None, data


def unpack_data(key: int | None, data: bytes, position: int) -> bytes:
    """The bytes of an event as they were appended. Raises `Corrupt` for what was not deflated by `pack_data`."""
    if type(data) is not bytes:
        raise Corrupt(f"Event {position} is stored as something else than bytes.")
    if key != DEFLATED:
        return data
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(data, DEFLATED_BYTES_MAX)
    except zlib.error as error:
        raise Corrupt(f"Event {position} cannot be inflated: {error}.") from error
    if not inflate.eof or inflate.unused_data:
        raise Corrupt(f"Event {position} is not what was deflated.")
    return plain


def batches(rows: Iterable[EventRow], names: Names) -> Iterator[Stored]:
    """The batches that these rows are, each yielded when its last row has come.

    The rows are those of whole batches, in order of position or of one stream's versions, so positions rise. Raises
    `Corrupt` where they contradict each other, naming the position.
    """
    left = last = 0
    for position, stream, version, part, kind, epoch, key, head, data in rows:
        if position <= last:  # else who reads page by page would never come to the end
            raise Corrupt(f"Event {position} stands behind event {last}.")
        last = position
        if not (type(stream) is type(version) is type(part) is type(kind) is type(epoch) is int):
            raise Corrupt(f"Event {position} holds something else than numbers where they belong.")
        if left == 0:
            if part != 0 or head is None:
                raise Corrupt(f"Event {position} is part {part} of a batch that has no beginning.")
            start, lane, base, under = position, stream, version - 1, epoch
            fields = _fields(head, position)
            left = fields[0]
            parts: list[Row] = []
        elif (stream, version, part, epoch) != (lane, base + 1 + len(parts), len(parts), under) or (
            position != start + part
        ):
            raise Corrupt(f"Event {position} does not go on where the batch at position {start} stopped.")
        name, schema = names.type(kind)
        parts.append(Row(name, schema, unpack_data(key, data, position), names.key(key) if key else None))
        left -= 1
        if left == 0:
            try:
                shared = _head(fields, under, names)
            except (TypeError, ValueError, LookupError, AttributeError) as error:
                raise Corrupt(f"The head of the batch at position {start} cannot be read: {error}.") from error
            yield Stored(start, under, Batch(names.stream(lane), base, shared, tuple(parts)))
    if left > 0:
        raise Corrupt(f"The batch at position {start} lacks its last {left} events.")


def _fields(head: bytes, position: int) -> list[Any]:
    try:
        fields = _decode(head)
        if len(fields) < 12 or not isinstance(fields[0], int) or fields[0] < 1:
            raise ValueError("fields are missing")
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise Corrupt(f"The head of the batch at position {position} cannot be read: {error}.") from error
    return fields


def _head(fields: list[Any], epoch: int, names: Names) -> Head:
    # Fields behind the twelfth are from a later release of the same format, and are ignored.
    _, id_, at, asked, cause, correlation, trace, job, context, owes, chain, writer = fields[:12]
    if type(at) is list:
        at = at[0] + _begun(id_)
    id_, trace, job = _unpack(id_), _unpack(trace), _unpack(job)
    correlation = id_ if correlation == 0 else _unpack(correlation)
    cause = f"{correlation}-{cause}" if type(cause) is int else _unpack(cause)
    owed = tuple([_unpack(each) for each in owes])
    # One pass over what the types promise: damaged bytes may still be msgpack.
    if (type(at), type(asked), type(context), type(owes), type(chain)) != (int, int, int, list, bytes):
        raise ValueError("a number, a list or a digest is something else")
    if None in (id_, *owed) or not {str, type(None)}.issuperset(
        map(type, (id_, cause, correlation, trace, job, *owed))
    ):
        raise ValueError("an id is no text")
    return Head(
        id=id_,
        at=at,
        asked=names.type(asked)[0],
        cause=cause,
        correlation=correlation,
        trace=trace,
        job=job,
        context=names.context(context),
        owes=owed,
        chain=chain,
        writer=names.writer(epoch) if writer is None else str(writer),
    )


_is_number = re.compile("0|[1-9][0-9]{0,2}").fullmatch

_TAGS = ("", "job_", "sess_", "img_", "agent_")
"""What ids begin with, in one byte before the sixteen of the rest. The storage format: add, and change nothing."""

_TAG_OF = {prefix: bytes((tag,)) for tag, prefix in enumerate(_TAGS)}


def _pack_cause(cause: str | None, correlation: str | None) -> Any:
    """The id of an event, as its number in its batch where that is the one that all began with."""
    if cause is None:
        return None
    batch, dash, part = cause.rpartition("-")
    if not dash or not _is_number(part):
        return _pack(cause)
    if batch == correlation:
        return int(part)
    packed = _pack(batch)
    return packed + part.encode().rjust(2, b"-") if type(packed) is bytes and len(packed) == 16 else _pack(cause)


def _after(id_: Any, at: int) -> Any:
    """A time as so many microseconds behind the one that its id begins with, a third of the bytes; else as it is."""
    if type(id_) is bytes and len(id_) == 16 and 0 <= (after := at - _begun(id_)) < 2**16:
        return [after]
    return at


def _begun(id_: bytes) -> int:
    return int.from_bytes(id_[:6]) * 1000


def _pack(text: str | None) -> Any:
    """32 hex digits as 16 bytes, also within a longer id (`job_<hex>`, `<hex>-0`): half the size, read back alike."""
    if text is None or len(text) < 32:
        return text
    found = _hex_run(text)
    if found is None:
        return text
    raw = bytes.fromhex(found[0])
    start, end = found.span()
    if end == len(text):
        tag = _TAG_OF.get(text[:start])
        if tag is not None:
            return tag + raw if start else raw
    return [text[:start], raw, text[end:]]


def _unpack(packed: Any) -> Any:
    if type(packed) is bytes:
        size = len(packed)
        if size == 16:
            return packed.hex()
        if size == 17:
            return _TAGS[packed[0]] + packed[1:].hex()
        part = packed[16:].lstrip(b"-")
        if not part.isdigit():  # what int() would take besides, spaces and signs, was never written
            raise ValueError("the cause is no id of an event")
        return f"{packed[:16].hex()}-{int(part)}"
    if type(packed) is list:
        return packed[0] + packed[1].hex() + packed[2]
    return packed
