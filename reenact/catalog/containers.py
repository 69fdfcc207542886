"""The containers of one scope: made, found, held to a policy, told of the tools that are in them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..actors.container import State as ContainerState
from ..adapters.tools.registry import Tools
from ..events.container import CreateContainer, RegisterTools, SetPolicy
from ..events.policy import Policy
from ..given import checked_text
from ..identity.access import NO_RULES, Access
from ..identity.pane import container_ids, container_stream
from ..rules.policies import Given, policy_from
from .kept import Kept
from .unreadable import with_each


class Containers:
    """bring(session_id): holds the agent of a session to the policies of now."""

    def __init__(self, access: Access, kept: Kept, bring: Callable[[str], Awaitable[None]]) -> None:
        self._access = access
        self._kept = kept
        self._bring = bring

    def stream(self, container_id: str) -> str:
        """The stream of a container of this scope."""
        return container_stream(self._access.scope, container_id)

    async def create(self, container_id: str) -> ContainerState:
        """Make one be; already so is fine. Raises BadInput for what cannot be an id."""
        checked_text(container_id, "container")
        command = CreateContainer(container_id=container_id, created_at=self._access.now_ms())
        reply = await self._access.ask(self.stream(container_id), command)
        state: ContainerState = reply.states[0]
        return state

    async def state(self, container_id: str) -> ContainerState:
        """How one stands; one that does not exist has `container_id` None."""
        state: ContainerState = (await self._access.peek(self.stream(container_id)))[0]
        return state

    async def ids(self) -> list[str]:
        """The ids of all, oldest first."""
        return await asyncio.to_thread(container_ids, self._access.kernel.log, self._access.scope)

    async def set_policy(self, container_id: str, policy: Given | None) -> Policy | None:
        """Hold all agents of one to a policy, None to none of its own; it is made if there is none. Returns it as it is
        in force. Raises BadPolicy for what is no policy, and NotAPerson where an agent or a tool asks.
        """
        self._access.check_person(NO_RULES)
        checked_text(container_id, "container")
        wanted = None if policy is None else policy_from(policy)
        if wanted is not None:
            await self._kept.policies.check(wanted)
        command = SetPolicy(container_id=container_id, created_at=self._access.now_ms(), policy=wanted)
        reply = await self._access.ask(self.stream(container_id), command)
        await self._kept.policies.load(container_id)
        # Also where nothing changed: an earlier try may have been cut short.
        agents = await self._kept.agents.of_container(container_id)
        await with_each((awake.session_id for awake in agents), self._bring)
        in_force: Policy | None = reply.states[0].policy
        return in_force

    async def tell_tools(self, container_id: str, tools: Tools) -> None:
        """Have one know these tools; already so is fine."""
        known = self._kept.known_tools
        new = [spec for spec in tools.specs() if (container_id, spec.version) not in known]
        if new:
            command = RegisterTools(container_id=container_id, created_at=self._access.now_ms(), tools=tuple(new))
            await self._access.ask(self.stream(container_id), command)
            known.update((container_id, spec.version) for spec in new)
