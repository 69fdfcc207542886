"""The images of one scope: found by id or by name, made, changed, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from msgspec.structs import replace

from ..actors.image import State as ImageState
from ..actors.image import sessions_of
from ..adapters.models import Models
from ..adapters.tools.registry import Tools
from ..events import codec
from ..events.container import AddImage, ImageAdded, RemoveImage
from ..events.errors import BadInput, Conflict, NotAPerson, NotFound
from ..events.image import CreateImage, DeleteImage, ImageConfig, UpdateImage
from ..events.log import Keyed
from ..events.message import Command, Recorded
from ..events.session import CloseSession, CreateSession
from ..given import check_id, checked_text, config_of
from ..identity.access import Access
from ..identity.bounds import lower
from ..identity.pane import BETWEEN
from ..rules.policies import policy_from
from ..rules.tool_policy import AgentToolPolicy, tool_policy_of, with_tool_policy
from .containers import Containers
from .definitions import Definitions, tools_of
from .kept import Kept
from .unreadable import passed_over, with_each

UPDATES_MAX = 20
"""How often a change of a definition is made again because somebody else changed it meanwhile."""


_RULES = ("tools", "policy", "approval_required", "approval_timeout_s", "budget")
"""What of a definition says what its agents may do. It holds for the next call that begins, also within a turn."""

_KEPT = (*_RULES, "max_steps", "workspace", "degrade_to")
"""What of a definition no tool changes: the rules, and what else holds its agents."""

_CHOSEN = ("policy", "workspace", "degrade_to")
"""What an image that a tool makes has from where new images start, where that names one."""

_WITHOUT = ImageConfig()
"""A definition without any."""


class Images:
    """bring(session_id): holds the agent of a session to the policies of now."""

    def __init__(
        self,
        access: Access,
        kept: Kept,
        containers: Containers,
        definitions: Definitions,
        *,
        models: Models,
        tools: Tools,
        new_id: Callable[[str], str],
        bring: Callable[[str], Awaitable[None]],
    ) -> None:
        self._access = access
        self._kept = kept
        self._containers = containers
        self._definitions = definitions
        self._models = models
        self._tools = tools
        self._new_id = new_id
        self._bring = bring

    # -- found --

    async def find(self, image_id: str) -> ImageState | None:
        """The state of one, None when there is none or it was deleted. Its container's policy is at hand then."""
        check_id(image_id, "image_id")
        state = self._kept.images.get(image_id)
        if state is None:
            state = (await self._access.peek(f"image-{image_id}"))[0]
            if state.image_id is None or state.deleted:
                return None
            state = self._kept.images.setdefault(image_id, state)  # what was heard meanwhile is newer
        if not self._kept.policies.at_hand(state.container_id):
            await self._kept.policies.load(state.container_id)
        return state

    async def state(self, image_id: str) -> ImageState:
        """The state of one. Raises NotFound."""
        state = await self.find(image_id)
        if state is None:
            raise NotFound(f"Image not found: {image_id}")
        return state

    async def all(self, container_id: str | None = None) -> list[ImageState]:
        """Those of a container, or all, oldest first."""
        if container_id is not None:
            ids: Iterable[str] = (await self._containers.state(container_id)).images
        else:
            streams = await asyncio.to_thread(self._access.reads.streams, "image-")
            ids = [stream.removeprefix("image-") for stream in streams]
        found = []
        for image_id in ids:
            with passed_over(f"image-{image_id}"):
                found.append(await self.find(image_id))
        return [state for state in found if state is not None]

    async def named(self, container_id: str, name: str) -> tuple[ImageState | None, str]:
        """The one that has a name, and the key under which it has it, or would have it."""
        for number in count(1):
            key = f"image:{container_id}{BETWEEN}{name}" + (f"{BETWEEN}{number}" if number > 1 else "")
            keyed = await asyncio.to_thread(self._access.reads.keyed, self._access.scope, key)
            if keyed is None:
                return None, key
            for recorded in await self._batch_of(keyed):
                if isinstance(recorded.data, ImageAdded):
                    state = await self.find(recorded.data.image_id)
                    if state is not None and (state.container_id, state.alias) == (container_id, name):
                        return state, key
            # That one was deleted, or is called otherwise: its name is free, its key is not.
        raise AssertionError("count ends")

    async def _batch_of(self, keyed: Keyed) -> list[Recorded]:
        """The events of the command that a key stands for."""
        stored = await asyncio.to_thread(self._access.reads.read, keyed.stream, after=keyed.version - 1, limit=1)
        return [recorded for batch in stored for recorded in codec.unpack(batch)]

    async def of_agent(self, agent_id: str) -> ImageState:
        """The one of an agent that is awake; or the one of this id. Raises NotFound."""
        state = await self.find(agent_id)
        if state is None:
            awake = await self._kept.agents.find(agent_id)
            state = await self.state(agent_id if awake is None else awake.image_id)
        return state

    async def sessions(self, image_id: str) -> list[str]:
        """All sessions of one, oldest first. Reads its stream: their number has no bound."""
        stored = await asyncio.to_thread(self._access.reads.read, f"image-{image_id}")
        return sessions_of(recorded.data for batch in stored for recorded in codec.unpack(batch))

    async def tell_sessions(self, image_id: str, command: Command) -> None:
        """Put a command to all sessions of one, whatever becomes of any: see `with_each`."""
        await with_each(
            await self.sessions(image_id), lambda session_id: self._access.ask(f"session-{session_id}", command)
        )

    # -- made --

    async def ensure(
        self, name: str | None, container_id: str, changes: Mapping[str, Any], base: ImageConfig
    ) -> ImageState:
        """The one of this name in a container, its definition changed; where there is none, a new one, from `base`."""
        checked_text(container_id, "container")
        if name is not None:
            checked_text(name, "name")
        changes = dict(changes)
        if "tools" in changes:
            if isinstance(changes["tools"], str) or not isinstance(changes["tools"], Iterable):
                raise BadInput(f"tools must be a list of tools or of their names, not {ascii(changes['tools'])[:60]}.")
            changes["tools"] = [getattr(tool, "name", tool) for tool in changes["tools"]]
        if "policy" in changes:
            changes["policy"] = policy_from(changes["policy"])
        known = (await self.named(container_id, name))[0] if name is not None else None
        if known is not None:
            return await self.update(known.image_id or "", changes)
        base = base if name is None else replace(base, name=name)
        return await self.create(container_id, config_of(changes, base), base, alias=name)

    async def create(
        self, container_id: str, config: ImageConfig, base: ImageConfig, *, alias: str | None = None
    ) -> ImageState:
        """A new one with its first session, in one append; the container is made if there is none.

        base: what new ones start from; one that a tool makes is held to its rules.
        alias: a name that nobody else in the container may take. Taken already: the one that has it is returned.
        """
        config = config_of(config, ImageConfig())
        if self._access.by_agent:
            config = _held(config, base)
        checked_text(container_id, "container")
        await self._check(config, container_id)
        await self.tell_tools(container_id, config)
        now, key = self._access.now_ms(), None
        if alias is not None:
            known, key = await self.named(container_id, alias)
            if known is not None:
                return known
        image_id, session_id = self._new_id("img"), self._new_id("sess")
        create = CreateImage(
            image_id=image_id,
            container_id=container_id,
            session_id=session_id,
            created_at=now,
            config=config,
            alias=alias,
        )
        session = CreateSession(
            session_id=session_id, image_id=image_id, container_id=container_id, created_at=now, alias=None
        )
        reply = await self._access.ask(
            self._containers.stream(container_id),
            AddImage(container_id=container_id, image_id=image_id, created_at=now),
            companions=((f"image-{image_id}", create), (f"session-{session_id}", session)),
            key=key,
        )
        if reply.duplicate is not None and alias is not None:
            return await self.create(container_id, config, base, alias=alias)
        return await self.state(image_id)

    # -- changed --

    async def update(self, image_id: str, changes: ImageConfig | Mapping[str, Any]) -> ImageState:
        """Give one another definition, or change some fields of it; an awake agent takes it over with the next message,
        and what of it is a rule at once.
        """
        return await self._change(image_id, self.state, lambda config: config_of(changes, config))

    async def save_tool_policy(self, agent_id: str, changes: AgentToolPolicy | Mapping[str, Any]) -> AgentToolPolicy:
        """Change which tools one allows by name. agent_id: as `of_agent` takes it."""

        def changed(config: ImageConfig) -> ImageConfig:
            return replace(config, policy=with_tool_policy(config.policy, changes))

        return tool_policy_of((await self._change(agent_id, self.of_agent, changed)).config.policy)

    async def _change(
        self, wanted: str, find: Callable[[str], Awaitable[ImageState]], changed: Callable[[ImageConfig], ImageConfig]
    ) -> ImageState:
        """Change the definition of the one that is found; where somebody was quicker, what that one made of it."""
        for _ in range(UPDATES_MAX):
            state = await find(wanted)
            with suppress(Conflict):
                return await self._define(state, changed(state.config))
            self._kept.images.pop(state.image_id or "", None)
        raise Conflict(f"Image {wanted} is changed by others all the time; try again.")

    async def _define(self, state: ImageState, config: ImageConfig) -> ImageState:
        """Give one this definition. Raises Conflict where it is not as `state` has it any more."""
        image_id = state.image_id or ""
        changed = {field for field in _KEPT if getattr(config, field) != getattr(state.config, field)}
        ruled = not changed.isdisjoint(_RULES)
        if config != state.config:
            if changed:
                self._access.check_person("What an agent may do is changed by people and programs, never by its tools.")
            await self._check(config, state.container_id)
        await self.tell_tools(state.container_id, config)
        if config == state.config:
            return state
        self._access.kernel.vault.check_names(config, self._access.scope, before=state.config)
        command = UpdateImage(config=config, updated_at=self._access.now_ms(), base=state.version)
        await self._access.ask(f"image-{image_id}", command)
        defined = await self.state(image_id)
        if ruled:
            agents = await self._kept.agents.of_image(defined)
            await with_each((awake.session_id for awake in agents), self._bring)
        return defined

    async def _check(self, config: ImageConfig, container_id: str) -> None:
        """Raises what is wrong with a definition here: a model, a tool or a policy that cannot be."""
        self._models.parse(config.model)
        for model in config.fallbacks:
            self._models.parse(checked_text(model, "fallbacks"))
        if config.degrade_to is not None:
            self._models.parse(checked_text(config.degrade_to, "degradeTo"))
        if config.tools is not None:
            self._tools.only(config.tools)
        if config.policy is not None:
            await self._kept.policies.check(config.policy, container_id)

    async def tell_tools(self, container_id: str, config: ImageConfig) -> None:
        """Have a container know the tools of a definition. Raises NotFound for one that is not here."""
        await self._containers.tell_tools(container_id, tools_of(self._tools, config))

    # -- deleted --

    async def delete(self, image_id: str, base: ImageConfig) -> None:
        """Delete one and close its sessions, ending what runs in them. One that does not exist is fine.

        base: what new ones start from; made again by a tool, one would have those rules.

        The image goes first: were this cut short, nobody would find it, and deleting it again closes the rest.
        """
        check_id(image_id, "image_id")
        state = await self._definitions.image(image_id, self._access.scope)
        if state.image_id is None:
            return
        plain = _WITHOUT, base
        if any(getattr(state.config, field) not in [getattr(each, field) for each in plain] for field in _KEPT):
            self._access.check_person("An image with rules is deleted by people and programs, never by an agent.")
        await self._access.ask(f"image-{image_id}", DeleteImage())
        await self._access.ask(self._containers.stream(state.container_id), RemoveImage(image_id=image_id))
        await self.tell_sessions(image_id, CloseSession(reason="image_deleted"))


def _held(config: ImageConfig, base: ImageConfig) -> ImageConfig:
    """The definition of an image that a tool makes, no looser than the one that new images start from.

    Raises NotAPerson for what names something else than that does: more tools, or another policy.
    """
    chosen = {}
    for field in _CHOSEN:
        wanted, given = getattr(base, field), getattr(config, field)
        if wanted is not None and given not in (None, wanted):
            raise NotAPerson(f"An image that a tool makes has the {field} of `default_agent`, and no other.")
        chosen[field] = wanted if given is None else given
    if base.tools is not None and (more := sorted({*(config.tools or ())} - {*base.tools})):
        raise NotAPerson(f"An image that a tool makes has none but the tools of `default_agent`: not {more[0]!a}.")
    return replace(
        config,
        tools=base.tools if config.tools is None else config.tools,
        max_steps=min(config.max_steps, base.max_steps),
        approval_required=config.approval_required or base.approval_required,
        approval_timeout_s=min(config.approval_timeout_s, base.approval_timeout_s),
        budget=lower(base.budget, config.budget),
        **chosen,
    )
