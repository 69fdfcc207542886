"""Bytes and messages: the table of event types, encoding, decoding of every past shape, the chain over what is stored.

An event's bytes are a msgpack map of its fields by wire name. Old shapes are lifted by upcasters, one schema version
at a time; what this release does not know is kept as `Unknown`, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from . import action, agent, container, cooldown, image, ledger, policy, purse, session
from .errors import BadInput, Corrupt
from .log import Row, Stored
from .message import Event, Head, Recorded, Unknown, digest
from .shape import convert, decoder

TYPES: dict[str, type[Event]] = {
    event.type: event
    for event in (
        *container.EVENTS,
        *image.EVENTS,
        *session.EVENTS,
        *agent.EVENTS,
        *action.EVENTS,
        *policy.EVENTS,
        *purse.EVENTS,
        *ledger.EVENTS,
        *cooldown.EVENTS,
    )
}
"""Every event type of this release by its stored name."""

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""(type, schema version) -> how its fields become those of the next schema version."""

_encoder = msgspec.msgpack.Encoder()
_generic = msgspec.msgpack.Decoder(dict[str, Any])


def encode(event: Event) -> bytes:
    """The bytes to store. An `Unknown` gives back the bytes it was read from."""
    return event.raw if isinstance(event, Unknown) else _encoder.encode(event)


def decode(name: str, schema: int, data: bytes) -> Event:
    """The event that these bytes mean today.

    A type or a schema version from the future gives `Unknown`. Raises `Corrupt` for bytes that are no such event, and
    for an old shape that cannot be lifted.
    """
    known = TYPES.get(name)
    if known is None or schema > known.schema:
        return Unknown(name=name, version=schema, raw=data)
    try:
        if schema == known.schema:
            event: Event = decoder(known)(data)
            return event
        fields = _generic.decode(data)
        for step in range(schema, known.schema):
            fields = UPCASTERS[name, step](fields)
        return convert(fields, known)
    except Exception as error:  # an upcaster may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise Corrupt(f"An event of type {name!r}, schema {schema}, cannot be read: {reason}.") from error


def row(event: Event) -> Row:
    """The row of an event, see `row_digest` for its digest.

    Raises BadInput for what no bytes can hold: text that is no Unicode, integers of more than 64 bits, a `Secret`.
    """
    if isinstance(event, Unknown):
        return Row(event.name, event.version, event.raw)
    try:
        return Row(event.type, event.schema, _encoder.encode(event))
    except (UnicodeEncodeError, OverflowError, TypeError) as error:
        raise BadInput(f"{event.type} cannot be stored: {error}.") from None


def row_digest(row: Row) -> bytes:
    """Digest of one stored row: its type, schema version, key and bytes."""
    begin = _BEGINS.get((row.type, row.schema)) if row.key is None else None
    return digest(begin or f"{row.type}\0{row.schema}\0{row.key or ''}\0".encode(), row.data)


# What the digest of a plain row of each type begins with: made anew, it would cost as much as the hash.
_BEGINS = {(name, event.schema): f"{name}\0{event.schema}\0\0".encode() for name, event in TYPES.items()}


def chain(previous: bytes, head: Head, digests: Iterable[bytes]) -> bytes:
    """The digest that ties a batch to all that came before it in its stream.

    Over the previous batch's chain, the head (every field but `chain`) and the digest of every row, in order.
    """
    context = head.context
    fields = (
        head.id,
        head.at,
        head.asked,
        head.cause,
        head.correlation,
        head.trace,
        head.job,
        head.owes,
        head.writer,
        context.scope,
        context.principal,
        context.container_id,
        context.image_id,
        context.session_id,
        context.agent_id,
    )
    return digest(previous, _encoder.encode(fields), *digests)


def unpack(stored: Stored, *, digests: bool = True) -> list[Recorded]:
    """The events of a stored batch in their envelope. digests: False leaves those of the rows out, which is quicker.

    Raises `Corrupt`, which names the stream, where one of them cannot be read.
    """
    batch = stored.batch
    try:
        return [
            Recorded(
                stored.position + part,
                batch.stream,
                batch.version + 1 + part,
                part,
                stored.epoch,
                decode(row.type, row.schema, row.data),
                batch.head,
                row_digest(row) if digests else b"",
                len(row.data),
                row.key,
            )
            for part, row in enumerate(batch.rows)
        ]
    except Corrupt as error:
        raise Corrupt(f"{batch.stream}, version {batch.version + 1}: {error}") from error


__all__ = [
    "TYPES",
    "UPCASTERS",
    "chain",
    "decode",
    "encode",
    "row",
    "row_digest",
    "unpack",
]
