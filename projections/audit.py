"""The audit: every fact of the log as one flat record, and the questions that are asked of them. A pure fold.

Records are added and read, never changed: what is to be forgotten is erased in the log, and the audit folded again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from ..events.errors import BadInput
from ..events.message import Recorded
from ..events.shape import convert
from .notes.note import AuditError, Note, Status
from .trail import Trail


class AuditEvent(Struct, frozen=True, kw_only=True, rename="camel"):
    """One record of the audit. Only `type`, `session_id`, `timestamp` and `status` are always meant.

    id: of the event in the log; event: the name it is stored under, where `type` is the audit's own. timestamp: ISO
    8601 in UTC. correlation_id: the same over all that one command led to. user_id: on whose behalf. request_id: the
    job. resource_type, resource_id: what it was done to. duration: milliseconds. context: the details, by type.
    """

    type: str
    session_id: str | None = None
    timestamp: str = ""
    status: Status = "success"
    id: str = ""
    correlation_id: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    request_id: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    duration: int | None = None
    error: AuditError | None = None
    tags: tuple[str, ...] = ()
    context: dict[str, Any] | None = None
    source: str = ""
    event: str = ""
    scope: str = "default"
    container_id: str | None = None
    image_id: str | None = None
    position: int | None = None


NAMES = frozenset(
    (
        *("session.created", "session.restored", "session.deleted"),
        *("tool.registered", "tool.invoked", "tool.approved", "tool.executed"),
        *("approval.requested", "approval.granted", "approval.denied", "approval.expired", "approval.cancelled"),
        *("model.selected", "cost.tracked"),
    )
)
"""The types by which the audit calls what it has a word of its own for; all else is called as it is stored."""


class AuditFilter(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What is looked for: all that is given must hold; what is None is not looked at.

    types: any of these, as the audit names them or as they are stored. tags: all of these. start_time, end_time:
    ISO 8601, from and before; without an offset they are UTC. decision: of an approval. limit: at most so many, and
    then the newest.
    """

    types: tuple[str, ...] | None = None
    session_id: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    status: Status | None = None
    start_time: str | None = None
    end_time: str | None = None
    correlation_id: str | None = None
    decision: str | None = None
    tags: tuple[str, ...] | None = None
    limit: int | None = None


Listener = Callable[[AuditEvent], object]


class AuditLog:
    """The records, oldest first. A projection: `apply` takes a log's events; `record` adds what was made elsewhere.

    `on` is `record` for a record, and `subscribe` for a type and a listener.
    """

    name = "audit"
    version = 1

    __slots__ = ("_listeners", "_records", "_trail", "raised")

    def __init__(self) -> None:
        self._trail = Trail()
        self._records: list[AuditEvent] = []
        self._listeners: dict[str, list[Listener]] = {}
        self.raised = 0
        """How often a listener raised. It is heard no less for it, and nobody else is."""

    def apply(self, recorded: Recorded) -> None:
        self.record(entry(recorded, self._trail.apply(recorded)))

    def record(self, event: AuditEvent | Mapping[str, Any]) -> None:
        """Add one. A mapping has the fields by their wire names; raises `BadInput` for one that does not fit."""
        record = event if isinstance(event, AuditEvent) else _convert(event, AuditEvent)
        self._records.append(record)
        if self._listeners:
            for listener in (*self._listeners.get(record.type, ()), *self._listeners.get("*", ())):
                try:
                    listener(record)
                except Exception:
                    self.raised += 1

    def subscribe(self, types: str | Collection[str], listener: Listener) -> Callable[[], None]:
        """Have `listener` called with every record of these types from now on; `*` is all. Returns what ends it."""
        mine = [self._listeners.setdefault(type, []) for type in ((types,) if isinstance(types, str) else types)]
        for listeners in mine:
            listeners.append(listener)

        def end() -> None:
            for listeners in mine:
                if listener in listeners:
                    listeners.remove(listener)
            mine.clear()

        return end

    def on(
        self, event: AuditEvent | Mapping[str, Any] | str | Collection[str], listener: Listener | None = None
    ) -> Callable[[], None] | None:
        if isinstance(event, AuditEvent | Mapping):
            self.record(event)
            return None
        if listener is None:
            raise BadInput("Give a record to record it, or a type and a listener to hear of it.")
        return self.subscribe(event, listener)

    def query(self, wanted: AuditFilter | Mapping[str, Any] | None = None) -> list[AuditEvent]:
        """As the function `query`. A mapping has the filter's fields by their wire names: `{"sessionId": …}`."""
        return query(self._records, _convert(wanted, AuditFilter) if isinstance(wanted, Mapping) else wanted)

    def __iter__(self) -> Iterator[AuditEvent]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


def records(events: Iterable[Recorded]) -> Iterator[AuditEvent]:
    """The record of each of these events of a log, in order."""
    trail = Trail()
    for recorded in events:
        yield entry(recorded, trail.apply(recorded))


def query(found: Iterable[AuditEvent], wanted: AuditFilter | None = None) -> list[AuditEvent]:
    """Those that pass the filter, in the order given. Raises `BadInput` for a time that is none, and for a value that
    does not fit its field.
    """
    if wanted is None:
        return list(found)
    wanted = _convert({name: each for name, each in _wire(wanted) if each is not None}, AuditFilter)
    types = None if wanted.types is None else frozenset(wanted.types)
    tags = None if wanted.tags is None else frozenset(wanted.tags)
    start, end = _time(wanted.start_time), _time(wanted.end_time)
    exact = [
        (field, value)
        for field in ("session_id", "user_id", "agent_id", "status", "correlation_id")
        if (value := getattr(wanted, field)) is not None
    ]
    passed = [
        event
        for event in found
        if (types is None or event.type in types or event.event in types)
        and all(getattr(event, field) == value for field, value in exact)
        and (start is None or event.timestamp >= start)
        and (end is None or event.timestamp < end)
        and (tags is None or tags.issubset(event.tags))
        and (wanted.decision is None or (event.context or {}).get("decision") == wanted.decision)
    ]
    if wanted.limit is None or len(passed) <= wanted.limit:
        return passed
    return passed[-wanted.limit :] if wanted.limit > 0 else []


def entry(recorded: Recorded, note: Note) -> AuditEvent:
    """What is noted of an event, in its envelope."""
    head = recorded.head
    context = head.context
    return AuditEvent(
        type=note.type,
        session_id=context.session_id,
        timestamp=iso(head.at),
        status=note.status,
        id=recorded.id,
        correlation_id=head.correlation or head.id,
        user_id=context.principal,
        agent_id=context.agent_id,
        request_id=note.job_id,
        resource_type=note.resource_type,
        resource_id=note.resource_id,
        duration=note.duration,
        error=note.error,
        tags=note.tags,
        context=note.context,
        source=recorded.source,
        event=note.name,
        scope=context.scope,
        container_id=context.container_id,
        image_id=context.image_id,
        position=recorded.position,
    )


def _wire(wanted: AuditFilter) -> Iterator[tuple[str, Any]]:
    """The fields of a filter by their wire names."""
    for field in msgspec.structs.fields(wanted):
        yield field.encode_name, getattr(wanted, field.name)


_Into = TypeVar("_Into", AuditEvent, AuditFilter)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_US = 253_402_300_799_999_999  # of the year 9999; there are no later dates


def iso(at: int) -> str:
    """Microseconds UTC as text: 2026-03-29T10:00:00.000000Z. Texts of this form sort as the times do."""
    return _text(_EPOCH + timedelta(microseconds=min(max(at, 0), _LAST_US)))


def _text(when: datetime) -> str:
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _time(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
        return _text(when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC))
    except (ValueError, OverflowError):  # the latter: in UTC it is before the year 1, or after 9999
        raise BadInput(f"{text!r} is no time. Write it as 2026-03-29T10:00:00Z.") from None


def _convert(value: Mapping[str, Any], into: type[_Into]) -> _Into:
    try:
        return convert(dict(value), into)
    except (ValueError, TypeError) as error:
        raise BadInput(f"This does not fit the audit: {error}.") from None
