"""A session as a file: one JSON object a line, a header first, then every stored event with all that is known of it.

Data only: reading one runs nothing. The events are in order of version, the envelope is that of `events.message.Head`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ..events.message import Erased, Recorded, Unknown, show_digest

FORMAT = 1
"""Raised when a line would be read otherwise than before."""


def lines_of(session_id: str, events: Iterable[Recorded], *, release: str) -> Iterator[dict[str, Any]]:
    """The header, then a line an event."""
    yield {
        "type": "reenact_export",
        "format": FORMAT,
        "release": release,
        "sessionId": session_id,
        "stream": f"session-{session_id}",
    }
    for recorded in events:
        yield line_of(recorded)


def line_of(recorded: Recorded) -> dict[str, Any]:
    """One event. at: microseconds UTC. chain: of its batch, in hex. What this release cannot read is kept as base64."""
    head, data = recorded.head, recorded.data
    line: dict[str, Any] = {
        "type": data.name if isinstance(data, Unknown | Erased) else recorded.type,
        "schema": data.version if isinstance(data, Unknown) else recorded.schema,
        "position": recorded.position,
        "stream": recorded.stream,
        "version": recorded.version,
        "part": recorded.part,
        "epoch": recorded.epoch,
        "id": recorded.id,
        "batch": head.id,
        "at": head.at,
        "asked": head.asked,
        "causationId": head.cause,
        "correlationId": head.correlation,
        "trace": head.trace,
        "jobId": head.job,
        "owes": list(head.owes),
        "context": msgspec.to_builtins(head.context),
        "writer": head.writer,
        "chain": head.chain.hex(),
        "digest": show_digest(recorded.digest),
        "key": recorded.key,
    }
    if isinstance(data, Unknown):
        line["raw"] = base64.b64encode(data.raw).decode()
    else:
        line["data"] = msgspec.to_builtins(data)
    return line
