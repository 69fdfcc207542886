"""The four kinds of message, and the envelopes they travel in.

A *command* is asked and may be refused. An *event* is true for ever. An *effect* is owed to the world and has a
stable id. A *signal* is seen live, never stored and never decided upon. Imports msgspec only.

They are made by the hundred a turn and are trees, never cycles, so the garbage collector is spared them (`gc=False`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import msgspec
from msgspec import Struct


class Command(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Something asked of one stream: imperative, may be refused, and leaves nothing behind when it is.

    Time, ids and chance arrive inside it or in its `Asked` envelope; a decider never reads them elsewhere.
    """

    type: ClassVar[str]


class Event(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Something that became true: past tense, stored for ever under the name `type` and the schema version `schema`.

    The names and the fields are the storage format. Add fields with a default; never rename one, never change a
    default, never use a name again. `source`, `category` and `intent` are how observers of the bus file it.
    """

    type: ClassVar[str]
    schema: ClassVar[int] = 1
    source: ClassVar[str] = "agent"
    category: ClassVar[str] = "state"
    intent: ClassVar[str] = "notification"


class Effect(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Something owed to the world. `id` comes from the state, so the world can spot a repeat."""

    type: ClassVar[str]
    id: str


class Signal(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Something seen live: a text delta, progress. It has no position, is not stored and cannot reach a decider."""

    type: ClassVar[str]
    source: ClassVar[str] = "environment"
    category: ClassVar[str] = "stream"
    intent: ClassVar[str] = "notification"


class Context(Struct, frozen=True, rename="camel", gc=False):
    """Where a message belongs and on whose behalf it was asked. Constant over long runs, so logs store it once.

    scope: the tenant; principal: who asked, as the caller's credential says; the rest are ids of the nouns or None.
    """

    scope: str = "default"
    principal: str = "user"
    container_id: str | None = None
    image_id: str | None = None
    session_id: str | None = None
    agent_id: str | None = None


class Asked(Struct, frozen=True, kw_only=True, gc=False):
    """A command on its way to a stream.

    id: 32 hex digits, unique for ever: a retry of the same command carries the same id, and its events are named
        after it. at: microseconds since 1970-01-01 UTC, as the asker's clock said. cause: the id of the event that
        led to this command, None when a person or a program outside asked. correlation: the id of the first command
        of the chain. key: idempotency key, unique within the scope. trace: a W3C traceparent, carried unread.
    """

    id: str
    at: int
    command: Command
    scope: str = "default"
    principal: str = "user"
    cause: str | None = None
    correlation: str | None = None
    key: str | None = None
    trace: str | None = None


class Head(Struct, frozen=True, kw_only=True, gc=False):
    """What all events of one batch share: the envelope, written once.

    id, at, cause, correlation, trace: of the command, see `Asked`. asked: the command's type.
    job: the job it belongs to, or None. owes: ids of the effects owed after the batch, in order.
    chain: digest over the previous batch's chain and every stored row of this batch (see `codec.chain`).
    writer: names the process that appended it.
    """

    id: str
    at: int
    asked: str
    cause: str | None = None
    correlation: str | None = None
    trace: str | None = None
    job: str | None = None
    context: Context = Context()
    owes: tuple[str, ...] = ()
    chain: bytes = b""
    writer: str = ""


class Stamp(Struct, frozen=True, gc=False):
    """What `evolve` may know of an event besides the event: where it stands in the stream, what was stored, and who
    asked."""

    version: int
    at: int
    epoch: int
    digest: bytes
    principal: str = ""


class Recorded(Struct, frozen=True, gc=False):
    """An event as it lies in the log. The one envelope: everything that is known of an event is read off it.

    position: global, rises by one over the whole log (gaps only where a file was cut and restored).
    stream, version: `version` is dense, 1..n within the stream. part: index within its batch, 0 is the first.
    epoch: of the owner that appended it. key: id of the key its bytes are sealed with, None when they are plain.
    size: bytes stored. digest: of the stored bytes. data: the event itself. head: what its batch shares.
    """

    position: int
    stream: str
    version: int
    part: int
    epoch: int
    data: Event
    head: Head
    digest: bytes = b""
    size: int = 0
    key: str | None = None

    @property
    def id(self) -> str:
        """The event's id: the id of its command and its place in the batch."""
        return f"{self.head.id}-{self.part}"

    @property
    def type(self) -> str:
        return self.data.type

    @property
    def schema(self) -> int:
        return self.data.schema

    @property
    def at(self) -> int:
        return self.head.at

    @property
    def timestamp(self) -> int:
        """Recorded time in milliseconds since 1970-01-01 UTC."""
        return self.head.at // 1000

    @property
    def source(self) -> str:
        return self.data.source

    @property
    def category(self) -> str:
        return self.data.category

    @property
    def intent(self) -> str:
        return self.data.intent

    @property
    def context(self) -> Context:
        return self.head.context

    @property
    def session_id(self) -> str | None:
        return self.head.context.session_id

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.version, self.head.at, self.epoch, self.digest, self.head.context.principal)


class Live(Struct, frozen=True, gc=False):
    """A message on the bus that is in no log: a signal, a request, a response, or a notice drawn from an event.

    position: the position of the event that it was drawn from, None for a signal.
    correlation: ties a response to its request.
    """

    type: str
    data: Any
    at: int = 0
    context: Context = Context()
    source: str = "environment"
    category: str = "stream"
    intent: str = "notification"
    correlation: str | None = None
    position: int | None = None

    @property
    def timestamp(self) -> int:
        return self.at // 1000

    @property
    def session_id(self) -> str | None:
        return self.context.session_id


class BusEvent(Protocol):
    """What observers of the bus see: `Recorded` and `Live` both answer to it."""

    @property
    def type(self) -> str: ...
    @property
    def data(self) -> Any: ...
    @property
    def position(self) -> int | None: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def source(self) -> str: ...
    @property
    def category(self) -> str: ...
    @property
    def intent(self) -> str: ...
    @property
    def context(self) -> Context: ...
    @property
    def session_id(self) -> str | None: ...


class Unknown(Event, frozen=True, kw_only=True):
    """An event of a type, or of a schema version, that this release does not know. Kept byte for byte."""

    type: ClassVar[str] = "unknown"
    name: str
    version: int
    raw: bytes


class Erased(Event, frozen=True, kw_only=True):
    """An event whose key was destroyed: that it happened is known, what it said is not."""

    type: ClassVar[str] = "erased"
    name: str
    key: str


def digest(*chunks: bytes) -> bytes:
    """SHA-256 over the chunks. Stored digests are raw bytes; shown ones carry the tag, see `show_digest`."""
    return hashlib.sha256(b"".join(chunks)).digest()


def show_digest(value: bytes) -> str:
    """`sha256:` and the first 32 hex digits, the form in which digests appear in events, exports and output."""
    return "sha256:" + value.hex()[:32]


def live(signal: Signal, at: int, context: Context, position: int | None = None) -> Live:
    """Wrap a signal, or a notice drawn from an event, for the bus."""
    # By place: by name it takes twice as long, and a turn has some twenty.
    return Live(signal.type, signal, at, context, signal.source, signal.category, signal.intent, None, position)


def as_json(event: BusEvent) -> dict[str, Any]:
    """One event as plain JSON values, as `--json` prints it: type, data, timestamp, ids, `position` where stored."""
    context = event.context
    out: dict[str, Any] = {"type": event.type, "data": msgspec.to_builtins(event.data), "timestamp": event.timestamp}
    for name, value in (
        ("sessionId", context.session_id),
        ("containerId", context.container_id),
        ("imageId", context.image_id),
        ("agentId", context.agent_id),
    ):
        if value is not None:
            out[name] = value
    if event.position is not None:
        out["position"] = event.position
    if isinstance(event, Recorded):
        out |= {"id": event.id, "stream": event.stream, "version": event.version}
        if event.head.job is not None:
            out["jobId"] = event.head.job
        if event.head.cause is not None:
            out["causationId"] = event.head.cause
        if event.head.correlation is not None:
            out["correlationId"] = event.head.correlation
    return out


Events = Sequence[Event]
