"""The words of an image: a persistent conversation's definition, versioned. Stream `image-<id>`."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct
from msgspec.structs import force_setattr

from .budget import BudgetSpec
from .frozen import frozen
from .message import Command, Event
from .model import ModelParams
from .policy import Policy
from .tool import APPROVAL_TIMEOUT_S


class ImageConfig(Struct, frozen=True, kw_only=True, rename="camel"):
    """What an image is made of. Every change makes a new version of the whole.

    model: `provider:name`. fallbacks: the models that are asked when it does not answer, in this order. tools: names of
    tools, None for all that the container knows. max_steps: most model calls of one turn. workspace: the folder its
    tools work in, None for one of its own below the base path.
    approval_required: a person is asked before every call of a tool. approval_timeout_s: how long they may take.
    policy: narrows what its agents may do.
    budget: what each run may use. degrade_to: the cheaper model for when a budget says so.
    """

    name: str = "New Conversation"
    description: str | None = None
    system_prompt: str = ""
    model: str = "scripted:hello"
    fallbacks: tuple[str, ...] = ()
    tools: tuple[str, ...] | None = None
    params: ModelParams = ModelParams()
    max_steps: int = 50
    workspace: str | None = None
    metadata: dict[str, str] | None = None
    approval_required: bool = False
    approval_timeout_s: float = APPROVAL_TIMEOUT_S
    policy: Policy | None = None
    budget: BudgetSpec | None = None
    degrade_to: str | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "metadata", frozen(self.metadata))


# -- asked of an image --


class CreateImage(Command, frozen=True, kw_only=True):
    """An image that is there already: refused."""

    type: ClassVar[str] = "create_image"
    image_id: str
    container_id: str
    session_id: str
    created_at: int
    config: ImageConfig
    alias: str | None = None


class UpdateImage(Command, frozen=True, kw_only=True):
    """Replace the definition. The same definition again: nothing happens.

    base: the version that the change was made from; another one by now is refused. None: whatever it is.
    """

    type: ClassVar[str] = "update_image"
    config: ImageConfig
    updated_at: int
    base: int | None = None


class AttachSession(Command, frozen=True, kw_only=True):
    """Make another session its current one."""

    type: ClassVar[str] = "attach_session"
    session_id: str


class DeleteImage(Command, frozen=True, kw_only=True):
    """Deleted already: nothing happens."""

    type: ClassVar[str] = "delete_image"


# -- true of an image. These names and fields are the storage format: add, never change --


class ImageCreated(Event, frozen=True, kw_only=True):
    """config: version 1 of its definition. session_id: of its first session. created_at: milliseconds UTC."""

    type: ClassVar[str] = "image_created"
    source: ClassVar[str] = "container"
    category: ClassVar[str] = "lifecycle"
    image_id: str
    container_id: str
    session_id: str
    created_at: int
    config: ImageConfig
    alias: str | None = None


class ImageUpdated(Event, frozen=True, kw_only=True):
    """The definition was replaced, whole. version: of this one. updated_at: milliseconds UTC."""

    type: ClassVar[str] = "image_updated"
    source: ClassVar[str] = "container"
    category: ClassVar[str] = "lifecycle"
    version: int
    updated_at: int
    config: ImageConfig


class SessionAttached(Event, frozen=True, kw_only=True):
    """Another session is its current one; those it had are still its own."""

    type: ClassVar[str] = "session_attached"
    source: ClassVar[str] = "container"
    category: ClassVar[str] = "lifecycle"
    session_id: str


class ImageDeleted(Event, frozen=True, kw_only=True):
    """Its sessions are closed by events of their own."""

    type: ClassVar[str] = "image_deleted"
    source: ClassVar[str] = "container"
    category: ClassVar[str] = "lifecycle"
    image_id: str


COMMANDS = (CreateImage, UpdateImage, AttachSession, DeleteImage)
EVENTS = (ImageCreated, ImageUpdated, SessionAttached, ImageDeleted)
