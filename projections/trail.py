"""The trail: what every event of a log means to an audit, what was done to what, and how it stands. A pure fold.

The ten events of an agent audit have their own names (`tool.invoked`, `model.selected`, `cost.tracked`, ...), every
other event keeps the name it is stored under. What is said of each noun's events is in `notes`.
"""

from __future__ import annotations

from ..events.action import ActionRequired
from ..events.agent import TurnStarted
from ..events.image import ImageCreated, ImageUpdated
from ..events.message import Erased, Event, Recorded, Unknown
from ..events.session import JobStarted, SessionCreated
from .notes.action import ACTION_NOTES
from .notes.agent import AGENT_NOTES
from .notes.container import OfContainer, of_container
from .notes.ledger import OfLedger, of_ledger
from .notes.model import MODEL_NOTES, OfCooldown, of_cooldown
from .notes.note import Note
from .notes.purse import PURSE_NOTES
from .notes.session import SESSION_NOTES, Session, Write
from .notes.tool import TOOL_NOTES


class Trail:
    """The whole log's. `apply` takes every event, in order, each once, and never raises."""

    __slots__ = ("_sessions", "_workspaces")

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._workspaces: dict[str, str | None] = {}  # of images

    def apply(self, recorded: Recorded) -> Note:
        event, head = recorded.data, recorded.head
        kind = type(event)
        write = _NOTES.get(kind)
        if write is None:
            return self._beside(recorded)
        session = self._sessions.get(recorded.stream)
        if session is None:
            session = self._sessions[recorded.stream] = Session(recorded)
        if kind in _BEGINS:
            session.job = event.job_id  # type: ignore[attr-defined]
        if session.scribe.apply(recorded) is not None:
            session.messages += 1
        note = write(session, event, recorded)
        session.last = head.at // 1000
        if kind is SessionCreated:
            note.context["workspace"] = self._workspaces.get(note.context["agent_id"])
        note.name = kind.type
        note.job_id = event.job_id if kind in _OF_JOB else session.job or head.job  # type: ignore[attr-defined]
        note.tags = (kind.category, *note.tags)
        return note

    def _beside(self, recorded: Recorded) -> Note:
        """Of containers and images, and what cannot be read."""
        stream, event = recorded.stream, recorded.data
        kind, _, id = stream.partition("-")
        session = self._sessions.get(stream)
        if session is not None and session.scribe.apply(recorded) is not None:
            session.messages += 1
        if isinstance(event, ImageCreated | ImageUpdated):
            self._workspaces[id] = event.config.workspace
        note = _apart(event, kind, id)
        note.name = event.name if isinstance(event, Erased | Unknown) else event.type
        note.job_id = (session.job if session is not None else None) or recorded.head.job
        note.tags = (event.category, *note.tags)
        return note

    def forget(self, stream: str) -> None:
        """Let go of what is remembered of a stream: to go on, its events must be applied again from the first."""
        self._sessions.pop(stream, None)


_NOTES: dict[type[Event], Write] = {
    **SESSION_NOTES,
    **AGENT_NOTES,
    **MODEL_NOTES,
    **TOOL_NOTES,
    **ACTION_NOTES,
    **PURSE_NOTES,
}
_OF_JOB = frozenset(kind for kind in _NOTES if "job_id" in kind.__struct_fields__ and kind is not ActionRequired)
_BEGINS = frozenset((JobStarted, TurnStarted))


def _apart(event: Event, kind: str, id: str) -> Note:
    """On what is no session's; and on what was erased or is of a newer release, of which is known that it happened."""
    if isinstance(event, OfContainer):
        return of_container(event, kind, id)
    if isinstance(event, OfLedger):
        return of_ledger(event, id)
    if isinstance(event, OfCooldown):
        return of_cooldown(event)
    match event:
        case Erased(name=name, key=key):
            return Note(type=name, resource_type=kind, resource_id=id, context={"key": key}, tags=("erased",))
        case Unknown(name=name, version=version):
            return Note(type=name, resource_type=kind, resource_id=id, context={"schema": version}, tags=("unknown",))
    return Note(type=event.type, resource_type=kind, resource_id=id, context={})
