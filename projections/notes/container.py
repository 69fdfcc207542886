"""What the audit says of containers and images. Each event is an operation of its own."""

from __future__ import annotations

from typing import Any

from ...events.container import ContainerCreated, ImageAdded, ImageRemoved, PolicySet, ToolRegistered
from ...events.image import ImageCreated, ImageDeleted, ImageUpdated, SessionAttached
from .note import Note

OfContainer = (
    ContainerCreated
    | PolicySet
    | ToolRegistered
    | ImageAdded
    | ImageRemoved
    | ImageCreated
    | ImageUpdated
    | SessionAttached
    | ImageDeleted
)


def of_container(event: OfContainer, kind: str, id: str) -> Note:
    match event:
        case ToolRegistered(tool=tool):
            context: dict[str, Any] = {
                "tool_id": tool.name,
                "params_schema": tool.parameters,
                "source": tool.source,
                "effect": tool.effect,
                "approval": tool.approval,
                "version": tool.version,
            }
            return Note(
                type="tool.registered",
                resource_type="tool",
                resource_id=tool.name,
                context=context,
                tags=(f"tool:{tool.name}", tool.effect),
            )
        case ImageAdded() | ImageRemoved():
            context = {"image_id": event.image_id}
        case ImageCreated(config=config):
            context = {"name": config.name, "model": config.model, "session_id": event.session_id}
        case ImageUpdated(config=config):
            context = {"name": config.name, "model": config.model, "version": event.version}
        case SessionAttached():
            context = {"session_id": event.session_id}
        case PolicySet(policy=policy):
            context = {"policy": policy and policy.name, "version": event.version}
        case ContainerCreated() | ImageDeleted():
            context = {}
    return Note(type=event.type, resource_type=kind, resource_id=id, context=context)
