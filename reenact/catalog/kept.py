"""What a runtime keeps at hand of one scope, heard of as it changes, so that nothing is looked up twice."""

from __future__ import annotations

from msgspec.structs import replace

from ..actors.image import State as ImageState
from ..actors.image import evolve
from ..events.agent import AgentRegistered, AgentUnregistered
from ..events.container import PolicySet
from ..events.image import ImageCreated, ImageDeleted, ImageUpdated, SessionAttached
from ..events.message import Recorded
from ..rules.policies import Policies
from .agents import Agents

HEARD = (AgentRegistered, AgentUnregistered, ImageCreated, ImageDeleted, ImageUpdated, PolicySet, SessionAttached)
"""The events that change what is kept."""


class Kept:
    """Its images by id, its agents, the policies of its containers and the tools that they know."""

    __slots__ = ("agents", "images", "known_tools", "policies")

    def __init__(self, agents: Agents, policies: Policies) -> None:
        self.agents = agents
        self.policies = policies
        self.images: dict[str, ImageState] = {}
        self.known_tools: set[tuple[str, str]] = set()

    def hear(self, recorded: Recorded) -> None:
        """Take an event of this scope in, one of `HEARD`."""
        data = recorded.data
        self.agents.hear(recorded)
        if isinstance(data, ImageCreated | ImageUpdated | SessionAttached):
            image_id = recorded.stream.removeprefix("image-")
            before = self.images.get(image_id)
            if before is not None or isinstance(data, ImageCreated):
                self.images[image_id] = evolve(before or ImageState(), data, recorded.stamp)
        elif isinstance(data, ImageDeleted):
            self.images.pop(data.image_id, None)
        elif isinstance(data, PolicySet):
            container_id = recorded.head.context.container_id or ""
            policy = None if data.policy is None else replace(data.policy, version=str(data.version))
            self.policies.hear(container_id, policy)
