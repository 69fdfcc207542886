"""An image: the versions of a conversation's definition, and which session is its current one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ..events.errors import Conflict, NotFound
from ..events.image import (
    AttachSession,
    CreateImage,
    DeleteImage,
    ImageConfig,
    ImageCreated,
    ImageDeleted,
    ImageUpdated,
    SessionAttached,
    UpdateImage,
)
from ..events.message import Command, Context, Effect, Event, Stamp
from .decider import Decider, Noun


class State(Struct, frozen=True):
    """version: of the definition, 1 when created. session_id: of its current session; those before are in its stream,
    and not here: there may be any number. Times in milliseconds UTC."""

    image_id: str | None = None
    container_id: str = ""
    session_id: str = ""
    alias: str | None = None
    created_at: int = 0
    updated_at: int = 0
    version: int = 0
    config: ImageConfig = ImageConfig()
    deleted: bool = False


def decide(state: State, message: Command | Event) -> Sequence[Event]:
    match message:
        case CreateImage():
            if state.image_id is not None:
                raise Conflict(f"Image {message.image_id} exists.")
            return [
                ImageCreated(
                    image_id=message.image_id,
                    container_id=message.container_id,
                    session_id=message.session_id,
                    created_at=message.created_at,
                    config=message.config,
                    alias=message.alias,
                )
            ]
        case UpdateImage():
            _there(state)
            if message.config == state.config:
                return []
            if message.base is not None and message.base != state.version:
                raise Conflict(f"The image is at version {state.version}, not {message.base}.")
            return [ImageUpdated(version=state.version + 1, updated_at=message.updated_at, config=message.config)]
        case AttachSession():
            _there(state)
            return [] if message.session_id == state.session_id else [SessionAttached(session_id=message.session_id)]
        case DeleteImage():
            if state.image_id is None or state.deleted:
                return []
            return [ImageDeleted(image_id=state.image_id)]
    return []


def _there(state: State) -> None:
    if state.image_id is None or state.deleted:
        raise NotFound(f"Image not found: {state.image_id}" if state.image_id else "Image not found.")


def evolve(state: State, event: Event, stamp: Stamp) -> State:
    match event:
        case ImageCreated():
            return State(
                image_id=event.image_id,
                container_id=event.container_id,
                session_id=event.session_id,
                alias=event.alias,
                created_at=event.created_at,
                updated_at=event.created_at,
                version=1,
                config=event.config,
            )
        case ImageUpdated():
            return replace(state, version=event.version, updated_at=event.updated_at, config=event.config)
        case SessionAttached():
            return replace(state, session_id=event.session_id)
        case ImageDeleted():
            return replace(state, deleted=True)
    return state


def owed(state: State) -> Sequence[Effect]:
    return ()


def recall(asked: str, events: Sequence[Event]) -> Command | None:
    match asked, events[0]:
        case "create_image", ImageCreated() as created:
            return CreateImage(
                image_id=created.image_id,
                container_id=created.container_id,
                session_id=created.session_id,
                created_at=created.created_at,
                config=created.config,
                alias=created.alias,
            )
        case "update_image", ImageUpdated() as updated:
            return UpdateImage(config=updated.config, updated_at=updated.updated_at)
        case "attach_session", SessionAttached() as attached:
            return AttachSession(session_id=attached.session_id)
        case "delete_image", ImageDeleted():
            return DeleteImage()
    return None


def _context(states: tuple[State], context: Context) -> Context:
    return replace(context, container_id=states[0].container_id or None, image_id=states[0].image_id)


def sessions_of(events: Iterable[Event]) -> list[str]:
    """All sessions that an image ever had, by the events of its stream, oldest first."""
    begun = (event.session_id for event in events if isinstance(event, ImageCreated | SessionAttached))
    return list(dict.fromkeys(begun))


IMAGE = Noun("image-", (Decider("image", State(), decide, evolve, owed, recall),), _context, lambda states: None)
