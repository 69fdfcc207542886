"""A container: which images are its own, which tools it knows, and the policy over all of its agents. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from ..events.container import (
    AddImage,
    ContainerCreated,
    CreateContainer,
    ImageAdded,
    ImageRemoved,
    PolicySet,
    RegisterTools,
    RemoveImage,
    SetPolicy,
    ToolRegistered,
)
from ..events.message import Command, Context, Effect, Event, Stamp
from ..events.policy import Policy
from .decider import Decider, Noun
from .roster import Roster


class State(Struct, frozen=True):
    """images: in order of creation. tools: (name, version) of the newest of each.

    policy: in force, its version that of the container's policies. policies: how many there were.
    """

    container_id: str | None = None
    created_at: int = 0
    images: Roster = Roster()
    tools: tuple[tuple[str, str], ...] = ()
    policy: Policy | None = None
    policies: int = 0


def decide(state: State, message: Command | Event) -> Sequence[Event]:
    match message:
        case CreateContainer():
            return _created(state, message)
        case AddImage():
            added = [] if message.image_id in state.images else [ImageAdded(image_id=message.image_id)]
            return [*_created(state, message), *added]
        case RemoveImage():
            return [ImageRemoved(image_id=message.image_id)] if message.image_id in state.images else []
        case RegisterTools():
            known = dict(state.tools)
            new = [ToolRegistered(tool=tool) for tool in message.tools if known.get(tool.name) != tool.version]
            return [*_created(state, message), *new] if new else []
        case SetPolicy():
            if in_force(message.policy, state.policies) == state.policy:
                return []
            return [*_created(state, message), PolicySet(version=state.policies + 1, policy=message.policy)]
    return []


def in_force(policy: Policy | None, version: int) -> Policy | None:
    return None if policy is None else replace(policy, version=str(version))


def _created(state: State, message: CreateContainer | AddImage | RegisterTools | SetPolicy) -> Sequence[Event]:
    if state.container_id is not None:
        return []
    return [ContainerCreated(container_id=message.container_id, created_at=message.created_at)]


def evolve(state: State, event: Event, stamp: Stamp) -> State:
    match event:
        case ContainerCreated():
            return replace(state, container_id=event.container_id, created_at=event.created_at)
        case ImageAdded():
            return replace(state, images=state.images.plus(event.image_id))
        case ImageRemoved():
            return replace(state, images=state.images.without(event.image_id))
        case ToolRegistered():
            others = tuple(each for each in state.tools if each[0] != event.tool.name)
            return replace(state, tools=(*others, (event.tool.name, event.tool.version)))
        case PolicySet():
            return replace(state, policy=in_force(event.policy, event.version), policies=event.version)
    return state


def owed(state: State) -> Sequence[Effect]:
    return ()


def recall(asked: str, events: Sequence[Event]) -> Command | None:
    created = next((event for event in events if isinstance(event, ContainerCreated)), None)
    container_id, created_at = (created.container_id, created.created_at) if created else ("", 0)
    last = events[-1]
    match asked, last:
        case "create_container", ContainerCreated():
            return CreateContainer(container_id=container_id, created_at=created_at)
        case "add_image", ImageAdded():
            return AddImage(container_id=container_id, image_id=last.image_id, created_at=created_at)
        case "add_image", ContainerCreated():
            return AddImage(container_id=container_id, image_id="", created_at=created_at)
        case "remove_image", ImageRemoved():
            return RemoveImage(image_id=last.image_id)
        case "register_tools", ToolRegistered():
            tools = tuple(event.tool for event in events if isinstance(event, ToolRegistered))
            return RegisterTools(container_id=container_id, created_at=created_at, tools=tools)
        case "set_policy", PolicySet():
            return SetPolicy(container_id=container_id, created_at=created_at, policy=last.policy)
    return None


def _context(states: tuple[State], context: Context) -> Context:
    return replace(context, container_id=states[0].container_id)


CONTAINER = Noun(
    "container-", (Decider("container", State(), decide, evolve, owed, recall),), _context, lambda states: None
)
