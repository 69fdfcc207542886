"""The words of a container: the isolation boundary of a tenant's images, agents and tools. Stream `container-<id>`."""

from __future__ import annotations

from typing import ClassVar

from .message import Command, Event
from .policy import Policy
from .tool import ToolSpec

# -- asked of a container --


class CreateContainer(Command, frozen=True, kw_only=True):
    """Make it be. Already so: nothing happens."""

    type: ClassVar[str] = "create_container"
    container_id: str
    created_at: int


class AddImage(Command, frozen=True, kw_only=True):
    """Make an image one of its own; creates the container where there is none."""

    type: ClassVar[str] = "add_image"
    container_id: str
    image_id: str
    created_at: int


class RemoveImage(Command, frozen=True, kw_only=True):
    """It has this image no more. So already: nothing happens."""

    type: ClassVar[str] = "remove_image"
    image_id: str


class RegisterTools(Command, frozen=True, kw_only=True):
    """Let the container know these tools. Those known in the same version are passed over."""

    type: ClassVar[str] = "register_tools"
    container_id: str
    created_at: int
    tools: tuple[ToolSpec, ...]


class SetPolicy(Command, frozen=True, kw_only=True):
    """Hold all its agents to this policy, None to none of its own. So already: nothing happens."""

    type: ClassVar[str] = "set_policy"
    container_id: str
    created_at: int
    policy: Policy | None


# -- true of a container. These names and fields are the storage format: add, never change --


class ContainerCreated(Event, frozen=True, kw_only=True):
    """The first of its events, with whatever was asked of it first. created_at: milliseconds UTC."""

    type: ClassVar[str] = "container_created"
    source: ClassVar[str] = "container"
    category: ClassVar[str] = "lifecycle"
    container_id: str
    created_at: int


class ImageAdded(Event, frozen=True, kw_only=True):
    """An image of its own from here on."""

    type: ClassVar[str] = "image_added"
    source: ClassVar[str] = "container"
    category: ClassVar[str] = "lifecycle"
    image_id: str


class ImageRemoved(Event, frozen=True, kw_only=True):
    """The image was deleted."""

    type: ClassVar[str] = "image_removed"
    source: ClassVar[str] = "container"
    category: ClassVar[str] = "lifecycle"
    image_id: str


class ToolRegistered(Event, frozen=True, kw_only=True):
    """The whole text of a tool as models see it, stored once per version."""

    type: ClassVar[str] = "tool_registered"
    source: ClassVar[str] = "container"
    category: ClassVar[str] = "lifecycle"
    tool: ToolSpec


class PolicySet(Event, frozen=True, kw_only=True):
    """version: counts the policies that the container has had, from 1; denials refer to it."""

    type: ClassVar[str] = "policy_set"
    source: ClassVar[str] = "container"
    category: ClassVar[str] = "lifecycle"
    version: int
    policy: Policy | None


COMMANDS = (CreateContainer, AddImage, RemoveImage, RegisterTools, SetPolicy)
EVENTS = (ContainerCreated, ImageAdded, ImageRemoved, ToolRegistered, PolicySet)
