"""Batches for tests of logs, made from what matters to them. Loads nothing that a child process would wait for."""

from __future__ import annotations

import hashlib
import random

from reenact.events.errors import ReenactError
from reenact.events.log import Batch, Duplicate, Keyed, Result, Row, Stored, Transaction
from reenact.events.message import Context, Head


def batch(
    stream: str,
    version: int,
    *datas: bytes,
    id: str | None = None,
    owes: tuple[str, ...] = (),
    context: Context | None = None,
    key: str | None = None,
) -> Batch:
    """A batch with a head that is full: every field set, and the same for the same arguments."""
    rows = tuple(Row(f"type_{n % 3}", 1 + n % 2, data, key) for n, data in enumerate(datas))
    id = id or hashlib.sha256(f"{stream} {version} {datas!r}".encode(errors="replace")).hexdigest()[:32]
    head = Head(
        id=id,
        at=1_700_000_000_000_000 + version,
        asked="session_send",
        cause=f"{id}-1",
        correlation=id,
        trace=f"00-{id}-00f067aa0ba902b7-01",
        job=f"job_{id}",
        context=context or Context(container_id="acme", session_id=stream),
        owes=owes,
        chain=hashlib.sha256(id.encode()).digest(),
        writer="somebody",
    )
    return Batch(stream, version, head, rows)


def one(
    stream: str, version: int, *datas: bytes, keyed: Keyed | None = None, owes: tuple[str, ...] = ()
) -> Transaction:
    return Transaction((batch(stream, version, *(datas or (b"data",)), owes=owes),), keyed)


def stored(result: Result) -> list[Stored]:
    assert not isinstance(result, (ReenactError, Duplicate)), f"it was not stored: {result!r}"
    return list(result)


def noise(size: int) -> bytes:
    """Bytes that no store can make smaller; the same for the same size."""
    return random.Random(size).randbytes(size)
