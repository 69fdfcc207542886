"""What there is, as a program makes and finds it: containers, images, sessions, and the rules over them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from .actors.container import State as ContainerState
from .actors.image import State as ImageState
from .events.errors import BadInput, NotFound
from .events.image import ImageConfig
from .events.policy import Policy
from .given import checked_text
from .image import Image
from .rules.policies import Given, Policies
from .rules.tool_policy import AgentToolPolicy, tool_policy_of
from .secrets.discretion import discreet

if TYPE_CHECKING:
    from .catalog.containers import Containers
    from .catalog.images import Images
    from .catalog.sessions import Sessions
    from .identity.access import Access
    from .runtime import Runtime
    from .sender import Sender


@discreet
class Inventory:
    """The part of `Runtime` that is about what there is."""

    default_agent: ImageConfig
    _access: Access
    _containers: Containers
    _images: Images
    _keeps_rules: bool
    _policies: Policies
    _sender: Sender
    _sessions: Sessions

    # -- containers --

    async def create_container(self, container_id: str) -> ContainerState:
        """Make a container be; already so is fine. Raises BadInput for an id that is no text of 1 to 256 characters."""
        return await self._containers.create(container_id)

    async def container_state(self, container_id: str) -> ContainerState:
        """The state of a container; one that does not exist has `container_id` None."""
        return await self._containers.state(container_id)

    async def container_ids(self) -> list[str]:
        """The ids of all containers, oldest first."""
        return await self._containers.ids()

    # -- images --

    async def image(
        self,
        name: str | None = None,
        *,
        container: str = "default",
        config: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Image:
        """The image of this name in a container, made if there is none; fields given here change its definition.

        fields: of `ImageConfig` (instructions or system_prompt, model, tools, max_steps, workspace, ...) and of
        `ModelParams` (max_tokens, temperature, thinking, ...). Without a name every call makes a new image.
        """
        if config is not None and not isinstance(config, Mapping):
            raise BadInput(f"config must be an object, not {ascii(config)[:60]}.")
        changes = {**(config or {}), **{key: value for key, value in fields.items() if value is not None}}
        state = await self._images.ensure(name, container, changes, self.default_agent)
        return Image(cast("Runtime", self), state.image_id or "", state.session_id, container)

    async def open_image(self, image_id: str, session_id: str | None = None) -> Image:
        """A handle of an image that exists, on its current session or on another of its sessions."""
        state = await self._images.state(image_id)
        with suppress(NotFound):  # without its tools it can still be read
            await self._images.tell_tools(state.container_id, state.config)
        return Image(cast("Runtime", self), image_id, session_id or state.session_id, state.container_id)

    async def image_named(self, name: str, *, container: str = "default") -> ImageState | None:
        """The state of the image of this name in a container, None when there is none."""
        return (await self._images.named(checked_text(container, "container"), checked_text(name, "name")))[0]

    async def create_image(self, container_id: str, config: ImageConfig, *, alias: str | None = None) -> ImageState:
        """A new image with its first session, in one append; the container is made if there is none.

        alias: a name that nobody else in the container may take. Taken already: the image that has it is returned.
        """
        return await self._images.create(container_id, config, self.default_agent, alias=alias)

    async def find_image(self, image_id: str) -> ImageState | None:
        """The state of an image, None when there is none or it was deleted."""
        return await self._images.find(image_id)

    async def image_state(self, image_id: str) -> ImageState:
        """The state of an image. Raises NotFound."""
        return await self._images.state(image_id)

    async def images(self, container_id: str | None = None) -> list[ImageState]:
        """The images of a container, or of all, oldest first."""
        return await self._images.all(container_id)

    async def update_image(self, image_id: str, changes: ImageConfig | Mapping[str, Any]) -> ImageState:
        """Give an image another definition, or change some fields of it; an awake agent takes it over with the next
        message, and its policy at once. Two who change different fields at once both get their way.
        """
        return await self._images.update(image_id, changes)

    async def delete_image(self, image_id: str) -> None:
        """Delete an image and close its sessions, ending what runs in them. One that does not exist is fine.

        The image goes first: were this cut short, nobody would find it, and deleting it again closes the rest.
        """
        await self._images.delete(image_id, self.default_agent)

    async def new_session(self, image_id: str, *, alias: str | None = None) -> str:
        """A new session of an image, which becomes its current one. Returns the session's id.

        alias: a name that no other session in the scope may have. Taken already: by a session of this image, that
        session is returned; by one of another image, Conflict is raised.
        """
        return await self._sessions.begin(image_id, alias=alias)

    # -- policy --

    async def set_policy(self, container: str, policy: Given | None) -> Policy | None:
        """Hold all agents of a container to a policy, None to none of its own; turns that run are held to it from their
        next call on. Returns it as it is in force, its version counted by the container.

        The container is made if there is none. Raises BadPolicy for what is no policy.
        """
        return await self._containers.set_policy(container, policy)

    async def policies_of(self, image_id: str) -> tuple[Policy, ...]:
        """The layers over an image's agents, outermost first, with every profile, group and alias written out."""
        return self._policies.layers(await self._images.state(image_id))

    async def load_tool_policy(self, agent_id: str) -> AgentToolPolicy:
        """Which tools an agent's image allows it by name. agent_id: of an image, or of one of its agents."""
        return tool_policy_of((await self._images.of_agent(agent_id)).config.policy)

    async def save_tool_policy(self, agent_id: str, changes: AgentToolPolicy | Mapping[str, Any]) -> AgentToolPolicy:
        """Change which tools an agent's image allows it: `profile`, `allowed_tools`, `denied_tools`,
        `max_tool_calls_per_turn`. What is not named stays; a turn that runs is held to it from its next call on.
        """
        return await self._images.save_tool_policy(agent_id, changes)

    async def bring_policy(self, session_id: str) -> None:
        """Hold the agent of a session to the rules of now, also in the middle of its turn. One that sleeps is left: it
        is woken under them. Raises what kept this from being stored.
        """
        await self._hold(session_id)
        await self._sessions.bring_rules(session_id, self._sender)

    async def _hold(self, session_id: str) -> tuple[Policy, ...]:
        """Where rules are kept: have a session keep the policies it was last run under. Returns them; else none."""
        return await self._sessions.hold(session_id) if self._keeps_rules else ()
