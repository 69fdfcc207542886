"""The agents that are awake: which there are, found by their id, their image or their container.

Heard of as they come and go; those that an earlier process left awake are looked for once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from msgspec import Struct

from .actors.image import State as ImageState
from .events.agent import AgentRegistered, AgentUnregistered
from .events.message import Recorded
from .given import check_id


class Awake(Struct, frozen=True, kw_only=True, rename="camel"):
    """An agent awake in one session."""

    agent_id: str
    container_id: str
    image_id: str
    session_id: str


class Agents:
    """peek(stream): the states of a stream. images(container_id): of a container, or of all."""

    def __init__(
        self,
        peek: Callable[[str], Awaitable[tuple[Any, ...]]],
        images: Callable[[str | None], Awaitable[Iterable[ImageState]]],
    ) -> None:
        self._peek = peek
        self._images = images
        self._awake: dict[str, Awake] = {}
        self._looked = False

    def hear(self, recorded: Recorded) -> None:
        """Take an event in."""
        data = recorded.data
        if isinstance(data, AgentRegistered):
            self._awake[data.agent_id] = Awake(
                agent_id=data.agent_id,
                container_id=data.container_id,
                image_id=data.image_id,
                session_id=recorded.stream.removeprefix("session-"),
            )
        elif isinstance(data, AgentUnregistered):
            self._awake.pop(data.agent_id, None)

    async def at(self, session_id: str) -> str | None:
        """The id of the agent in a session, None when it sleeps."""
        agent_id: str | None = (await self._peek(f"session-{session_id}"))[1].agent_id
        return agent_id

    async def of_image(self, state: ImageState) -> list[Awake]:
        """The agents of an image, that of its current session first."""
        found = []
        others = [session_id for session_id in state.sessions if session_id != state.session_id]
        for session_id in (state.session_id, *others):
            agent_id = await self.at(session_id)
            if agent_id is not None:
                awake = Awake(
                    agent_id=agent_id,
                    container_id=state.container_id,
                    image_id=state.image_id or "",
                    session_id=session_id,
                )
                found.append(awake)
        return found

    async def of_container(self, container_id: str) -> list[Awake]:
        """The agents of a container, in the order of its images."""
        return [awake for state in await self._images(container_id) for awake in await self.of_image(state)]

    async def find(self, agent_id: str) -> Awake | None:
        """An agent by its id, None when none of that name is awake."""
        check_id(agent_id, "agent_id")
        if agent_id not in self._awake and not self._looked:
            for state in await self._images(None):
                for awake in await self.of_image(state):
                    self._awake.setdefault(awake.agent_id, awake)
            self._looked = True
        found = self._awake.get(agent_id)
        if found is not None and await self.at(found.session_id) != agent_id:
            self._awake.pop(agent_id, None)  # it went while it was looked for
            return None
        return found
