"""The agents that are awake: which there are, found by their id, their image or their container.

Heard of as they come and go; those that an earlier process left awake are looked for once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from msgspec import Struct

from ..actors.image import State as ImageState
from ..events.agent import AgentRegistered, AgentUnregistered
from ..events.message import Recorded
from ..given import check_id
from .unreadable import passed_over

AGENTS_MAX = 20_000
"""Agents whose session is remembered by their id; that of another is looked for among all."""


class Awake(Struct, frozen=True, kw_only=True, rename="camel"):
    """An agent awake in one session."""

    agent_id: str
    container_id: str
    image_id: str
    session_id: str


class Agents:
    """peek(stream): the states of a stream. images(container_id): of one, or all. sessions(image_id): all it had."""

    def __init__(
        self,
        peek: Callable[[str], Awaitable[tuple[Any, ...]]],
        images: Callable[[str | None], Awaitable[Iterable[ImageState]]],
        sessions: Callable[[str], Awaitable[Iterable[str]]],
    ) -> None:
        self._peek = peek
        self._images = images
        self._sessions = sessions
        self._awake: dict[str, Awake] = {}
        self._all = False  # whether no agent is awake but those

    def hear(self, recorded: Recorded) -> None:
        """Take an event in."""
        data = recorded.data
        if isinstance(data, AgentRegistered):
            self._know(
                Awake(
                    agent_id=data.agent_id,
                    container_id=data.container_id,
                    image_id=data.image_id,
                    session_id=recorded.stream.removeprefix("session-"),
                )
            )
        elif isinstance(data, AgentUnregistered):
            self._awake.pop(data.agent_id, None)

    def _know(self, awake: Awake) -> None:
        self._awake[awake.agent_id] = awake
        if len(self._awake) > AGENTS_MAX:
            del self._awake[next(iter(self._awake))]
            self._all = False

    async def at(self, session_id: str) -> str | None:
        """The id of the agent in a session, None when it sleeps."""
        agent_id: str | None = (await self._peek(f"session-{session_id}"))[1].agent_id
        return agent_id

    async def of_image(self, state: ImageState) -> list[Awake]:
        """The agents of an image, that of its current session first."""
        return [awake async for awake in self._looked_for(state)]

    async def _looked_for(self, state: ImageState) -> AsyncIterator[Awake]:
        others: list[str] = []
        with passed_over(f"image-{state.image_id}"):
            others = [each for each in await self._sessions(state.image_id or "") if each != state.session_id]
        for session_id in (state.session_id, *others):
            agent_id = None
            with passed_over(f"session-{session_id}"):
                agent_id = await self.at(session_id)
            if agent_id is not None:
                yield Awake(
                    agent_id=agent_id,
                    container_id=state.container_id,
                    image_id=state.image_id or "",
                    session_id=session_id,
                )

    async def of_container(self, container_id: str) -> list[Awake]:
        """The agents of a container, in the order of its images."""
        return [awake for state in await self._images(container_id) for awake in await self.of_image(state)]

    async def find(self, agent_id: str) -> Awake | None:
        """An agent by its id, None when none of that name is awake."""
        check_id(agent_id, "agent_id")
        if agent_id not in self._awake and not self._all:
            await self._look_for(agent_id)
        found = self._awake.get(agent_id)
        if found is not None and await self.at(found.session_id) != agent_id:
            self._awake.pop(agent_id, None)  # it went while it was looked for
            return None
        return found

    async def _look_for(self, agent_id: str) -> None:
        """Look into every session, up to where it is; know what was found on the way."""
        self._all = True  # unless one that is heard of or found meanwhile is one too many
        whole = False
        try:
            for state in await self._images(None):
                async for awake in self._looked_for(state):
                    if awake.agent_id not in self._awake:
                        self._know(awake)
                    if awake.agent_id == agent_id:
                        return
            whole = True
        finally:
            self._all = self._all and whole
