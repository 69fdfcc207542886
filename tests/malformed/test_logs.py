"""Malformed logs: their events, heads, contexts and URLs, and the files beside them."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from reenact.actors.verify import verify
from reenact.adapters.logs import path_of
from reenact.adapters.logs import rows as log_rows
from reenact.adapters.logs.names import _context
from reenact.adapters.logs.owner import lock_path, owner_of
from reenact.events import codec, history
from reenact.events.errors import BadInput, Corrupt
from reenact.events.log import MemoryLog
from reenact.events.message import Context
from tests.malformed.attack import attacked


def golden() -> dict[str, list[tuple[int, bytes]]]:
    from tests.events.samples import SAMPLES

    found: dict[str, list[tuple[int, bytes]]] = {}
    for event in SAMPLES:
        row = codec.row(event)
        found.setdefault(row.type, []).append((row.schema, row.data))
    return found


def test_bytes_of_events() -> None:
    events = golden()
    names = sorted(events)

    def parse(data: bytes) -> None:
        name = names[data[0] % len(names)] if data else names[0]
        codec.encode(codec.decode(name, 1, data[1:]))

    corpus = [bytes([names.index(name)]) + data for name, shapes in events.items() for _, data in shapes]
    attacked(parse, corpus, (Corrupt,))


class _Names:
    def type(self, number: int) -> tuple[str, int]:
        return "type", number

    def stream(self, number: int) -> str:
        return "session-1"

    def context(self, number: int) -> Context:
        return Context()

    def key(self, number: int) -> str:
        return "key"

    def writer(self, epoch: int) -> str:
        return "writer"


def test_the_contexts_of_a_log() -> None:
    corpus = [b"{}", msgspec.json.encode(Context(scope="acme", principal="somebody", session_id="sess_1"))]
    attacked(lambda text: _context(text.decode("utf-8", "surrogateescape")), corpus, (Corrupt,))


def test_the_heads_and_rows_of_a_log() -> None:
    from tests.contracts.batches import batch

    heads = [
        log_rows.pack_head(
            batch("s", n, *[b"x"] * (1 + n % 3), owes=("t1",) * (n % 2)).head, count=1, asked=1, context=2, writer="w"
        )
        for n in range(6)
    ]

    def parse(head: bytes) -> None:
        names: Any = _Names()
        for stored in log_rows.batches([(1, 1, 1, 0, 1, 1, None, head, b"data")], names):
            codec.chain(b"", stored.batch.head, [])
            hash(stored.batch.head)

    attacked(parse, heads, (Corrupt,))


def test_urls_of_logs() -> None:
    corpus = [b"memory://", b"sqlite:///a.db", b"sqlite:////var/a.db", b"agents.db"]

    def parse(data: bytes) -> None:
        path = path_of(data.decode("utf-8", "surrogateescape"))
        assert path is None or (path and "\0" not in path)

    attacked(parse, corpus, (BadInput,))


# -- what processes write for each other


def test_histories_of_logs() -> None:
    corpus = [
        history.line(history.Began(1, "process 7")),
        history.line(history.Handed(1, 1, ((history.Piece("a" * 32, "container-a", 0, 1, "00"),),)))
        + history.line(history.Answered(1, 1, ((1,),)))
        + history.line(history.Raised(1, 2, "disk_full", False)),
    ]

    def parse(data: bytes) -> None:
        verify(MemoryLog(), history=history.entries(data.splitlines(keepends=True)))

    attacked(parse, corpus, (BadInput,))


def test_what_a_lock_file_says(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    corpus = [b'{"pid":7,"writer":"process 7","socket":null}', b'{"pid":7,"socket":"/run/some.sock"}']

    said: Counter[str] = Counter()

    def parse(data: bytes) -> None:
        Path(lock_path(str(path))).write_bytes(data)
        owner = owner_of(str(path))
        assert owner is None or (type(owner.pid) is int and isinstance(owner.socket, str | None)), owner
        said["nothing" if owner is None else "an owner"] += 1

    attacked(parse, corpus, ())
    assert said["an owner"] > len(corpus) and said["nothing"] > 0, said
