"""Whole logs to fold: conversations side by side, some of their calls with a price, and the nouns around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.events import codec
from reenact.events.agent import ModelAnswered, ModelFailed
from reenact.events.container import ContainerCreated, ImageAdded, ToolRegistered
from reenact.events.content import Cost, Usage
from reenact.events.image import ImageConfig, ImageCreated, ImageDeleted, ImageUpdated
from reenact.events.log import Batch, MemoryLog, Row, Transaction
from reenact.events.message import Context, Erased, Event, Head, Recorded, Unknown
from reenact.events.tool import ToolSpec
from tests.histories import START, History, histories

TABLE = "prices 1"


def log_of(*histories: Iterable[Recorded], first: int = 1) -> MemoryLog:
    """The histories' batches in order of time, each in a stream of its own, from session number `first` on; before
    them a container with an image and a tool."""
    log = MemoryLog()
    for batch in batches_of(*histories, first=first):
        log.commit([Transaction((batch,))])
    return log


def batches_of(*histories: Iterable[Recorded], around: bool = True, first: int = 1) -> list[Batch]:
    batches = [*_around()] if around else []
    told: list[tuple[int, int, Batch]] = []
    for number, history in enumerate(histories, start=first):
        session = f"sess_{number}"
        grouped: dict[str, list[Recorded]] = {}
        for recorded in history:
            grouped.setdefault(recorded.head.id, []).append(recorded)
        version = 0
        for group in grouped.values():
            head = group[0].head
            head = replace(
                head,
                id=f"{number:04x}{head.id[4:]}",
                correlation=f"{number:04x}{head.id[4:]}",
                context=replace(head.context, session_id=session),
            )
            rows = tuple(_row(recorded.data, session) for recorded in group)
            told.append((head.at, number, Batch(f"session-{session}", version, head, rows)))
            version += len(rows)
    return [*batches, *(batch for _, _, batch in sorted(told, key=lambda each: each[:2]))]


def _row(event: Event, session: str) -> Row:
    if isinstance(event, Erased):  # A log gives it back as it lies there: a type that nobody knows is as good here.
        return codec.row(Unknown(name=event.name, version=99, raw=b"\x80"))
    if event.type == "session_created":
        event = replace(event, session_id=session)
    return codec.row(event)


def _around() -> list[Batch]:
    context = Context(container_id="acme")
    spec = ToolSpec(name="refund", description="Pays back.", parameters={"type": "object"}, version="1")
    config = ImageConfig(name="support", model="scripted:test", workspace="/srv/support")
    image = ImageCreated(image_id="img_1", container_id="acme", session_id="sess_1", created_at=1, config=config)
    updated = ImageUpdated(version=2, updated_at=2, config=config)
    streams: list[tuple[str, Sequence[Event]]] = [
        ("container-acme", [ContainerCreated(container_id="acme", created_at=1), ToolRegistered(tool=spec)]),
        ("container-acme", [ImageAdded(image_id="img_1")]),
        ("image-img_1", [image]),
        ("image-img_1", [updated]),
        ("image-img_2", [ImageDeleted(image_id="img_2")]),
    ]
    versions: dict[str, int] = {}
    found = []
    for number, (stream, events) in enumerate(streams):
        head = Head(id=f"ffff{number:028x}", at=START - 10_000_000 + number, asked="set_up", context=context)
        version = versions.get(stream, 0)
        found.append(Batch(stream, version, head, tuple(codec.row(event) for event in events)))
        versions[stream] = version + len(events)
    return found


def read(log: MemoryLog) -> list[Recorded]:
    return [recorded for stored in log.read_all(limit=10**9) for recorded in codec.unpack(stored)]


amounts = st.sampled_from([None, "0", "0.1", "0.000000000000000001", "12345678.9", "1E-9", "nonsense", "NaN"])
usages = st.builds(
    lambda read, wrote, cached: Usage(
        input_tokens=read + cached, output_tokens=wrote, cache_read_tokens=cached, reasoning_tokens=wrote // 2
    ),
    st.integers(0, 10**6),
    st.integers(0, 10**5),
    st.integers(0, 10**5),
)


@st.composite
def priced(draw: st.DrawFn) -> list[Recorded]:
    """A history in which calls were counted, and some have a price."""

    def costed(event: Event) -> Event:
        if isinstance(event, ModelAnswered | ModelFailed):
            amount: Any = draw(amounts)
            cost = draw(st.sampled_from([None, Cost(amount=amount, table=TABLE)]))
            return replace(event, usage=draw(st.none() | usages), cost=cost)
        return event

    history: History = draw(histories())
    return [replace(recorded, data=costed(recorded.data)) for recorded in history]


def logs() -> st.SearchStrategy[MemoryLog]:
    """Up to three sessions, side by side."""
    return st.lists(priced(), min_size=1, max_size=3).map(lambda several: log_of(*several))
