"""Where the chain of a stream breaks: the plain walk that `verify` and `replay` are held to."""

from __future__ import annotations

from collections.abc import Iterable

from reenact.events.codec import chain, row_digest
from reenact.events.log import Stored


def broken_at(batches: Iterable[Stored]) -> int | None:
    """Walk one stream from its start; the version of the first event whose chain does not hold, or None."""
    previous, version = b"", 0
    for stored in batches:
        batch = stored.batch
        if batch.version != version:
            return version + 1
        if chain(previous, batch.head, map(row_digest, batch.rows)) != batch.head.chain:
            return batch.version + 1
        previous, version = batch.head.chain, batch.last
    return None
