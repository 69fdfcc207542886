"""The runtime: the four rooms wired together, and what a program does with them.

A command goes to its actor, what it decides goes to the log, and only then does anybody hear of it: first the bus, then
whoever asked, then the world that owes something. Opening a runtime takes up what an earlier owner of the log left.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec
from msgspec.structs import replace

from .actors.clock import Clock, Ids, SystemClock
from .actors.container import State as ContainerState
from .actors.engine import PolicyEngine
from .actors.failover import Failover
from .actors.image import State as ImageState
from .actors.image import evolve as evolve_image
from .actors.replay import Replay, replay
from .actors.session import State as SessionState
from .adapters.models import Models, Retries, all_credentials_for
from .adapters.tools.acting import acting_as
from .adapters.tools.registry import Tools
from .agents import Agents, Awake
from .asking import ApprovalHandler, Asking
from .context import ExecutionContext
from .environment import Environment, EnvironmentFactory, EnvironmentSpec, ModelEnvironment
from .events import codec
from .events.action import AGENT_PRINCIPALS, ActionRequired, Grant
from .events.agent import AgentRegistered, AgentUnregistered, Interrupt, ResolveTool, StopAgent, WakeAgent
from .events.budget import Budget, spec_of
from .events.bus import SystemBus
from .events.container import (
    AddImage,
    CreateContainer,
    ImageAdded,
    PolicySet,
    RegisterTools,
    RemoveImage,
    SetPolicy,
)
from .events.content import InputPart
from .events.errors import (
    Busy,
    Closed,
    Conflict,
    DiskFull,
    Fenced,
    NotAPerson,
    NotFound,
    ReenactError,
    StoreError,
    StoreFailed,
    Unauthenticated,
    UnknownOutcome,
)
from .events.image import (
    AttachSession,
    CreateImage,
    DeleteImage,
    ImageConfig,
    ImageCreated,
    ImageDeleted,
    ImageUpdated,
    SessionAttached,
    UpdateImage,
)
from .events.ledger import BudgetRemoved, BudgetSet
from .events.log import Keyed, Log
from .events.message import Context, Live, Recorded, digest
from .events.model import Credentials, ModelParams
from .events.notice import Message
from .events.policy import ApplyPolicy, Policy
from .events.purse import AllotmentReleased
from .events.queue import LiveView
from .events.secret import Secret
from .events.session import (
    CancelJob,
    CloseSession,
    CreateSession,
    Definition,
    Overrides,
    Send,
    SessionCreated,
    Waking,
)
from .events.subscription import Subscription
from .fallover import Fallover, Provide, credentials_of
from .image import Image
from .kernel import RETELL_MAX_S, Kernel, Who
from .pane import Pane, container_ids, container_stream
from .perform import Outside
from .policies import (
    AgentToolPolicy,
    Given,
    Policies,
    limits_cost,
    policies_from,
    policy_from,
    tool_policy_of,
    with_tool_policy,
)
from .projections.actions import Action
from .requests import check_sending, checked_text, config_of, content_of, fallbacks_of, register
from .run import Run
from .treasury import LimitUse, Treasury
from .vault import Vault

if TYPE_CHECKING:
    from .adapters.hosts.local import LocalServer
    from .credential import Authenticator
    from .scoped import Acting


class Kept:
    """What a runtime keeps at hand of one scope: its images by id, its agents, the policies of its containers and the
    tools that they know."""

    __slots__ = ("agents", "images", "known_tools", "policies")

    def __init__(self, agents: Agents, policies: Policies) -> None:
        self.agents = agents
        self.policies = policies
        self.images: dict[str, ImageState] = {}
        self.known_tools: set[tuple[str, str]] = set()


UPDATES_MAX = 20
"""How often a change of a definition is made again because somebody else changed it meanwhile."""


def _models_of(
    config: ImageConfig, model: str | None = None, fallbacks: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The models that a message may be answered by."""
    return (config.model, *config.fallbacks, *(fallbacks or ()), *((model,) if model is not None else ()))


def from_environment(provider: str, spec: EnvironmentSpec) -> tuple[Credentials, ...]:
    """The default credentials: the provider's usual environment variables, read at every call.

    `ANTHROPIC_API_KEYS` and its like hold several keys, with commas between.
    """
    return all_credentials_for(provider, os.environ)


class Runtime:
    """Runs agents on a log.

        async with Runtime("sqlite:///agents.db", tools=[refund]) as runtime:
            bot = await runtime.image("support", model="anthropic:claude-sonnet-5-5")
            async for event in bot.send("Refund order 42"):
                print(event)

    persistence: a log, or the URL of one (`memory://`, `sqlite:///path`). tools: what its agents may be given.
    credentials(provider, spec): gives key and base URL per call, default from the environment; never stored. A list of
    them is several keys: a session keeps to one until that is refused, unpaid or limited. failover: how it goes on when
    a model does not answer.
    base_path: where working folders are made, default `.reenact` beside the current folder.
    environment_factory(spec): gives an agent its outside, default the model that its image names.
    default_agent: the definition that new images start from, an `ImageConfig` or a dict of its fields.
    approval_handler(request): says of calls that need approval whether they may run; see `Image.send`.
    armed: False: what is decided is recorded, and nothing is done; the next armed owner does it.
    policy: rules for all of its agents: a `Policy`, the path of a file of TOML, several of them, outermost first, or a
    `PolicyEngine`, whose rules are taken as they stand.
    budget: a limit of its scope, set when it opens: a `Budget`, a dict of its fields, or dollars in all.
    scope, principal: on whose behalf it acts by itself, see `scoped`. authenticator: tells who shows a token.
    secrets: by name, see `secret`. patterns: what else is taken for a secret by its look, see `patterns.patterns_of`.
    """

    def __init__(
        self,
        persistence: str | Log = "memory://",
        *,
        tools: Iterable[Any] = (),
        credentials: Provide | None = None,
        base_path: str | os.PathLike[str] | None = None,
        environment_factory: EnvironmentFactory | None = None,
        default_agent: ImageConfig | Mapping[str, Any] | None = None,
        policy: Given | PolicyEngine | Iterable[Given] | None = None,
        models: Models | None = None,
        retries: Retries | None = None,
        failover: Failover | None = None,
        budget: object = None,
        clock: Clock | None = None,
        scope: str = "default",
        principal: str = "user",
        authenticator: Authenticator | None = None,
        secrets: Mapping[str, str | Secret] | None = None,
        patterns: Iterable[str] | Mapping[str, Any] | None = None,
        threads: int | None = None,
        recover: bool = True,
        armed: bool = True,
        approval_handler: ApprovalHandler | None = None,
    ) -> None:
        self.tools = tools if isinstance(tools, Tools) else Tools(tools)
        self.default_agent = config_of(default_agent, ImageConfig())
        self.base_path = Path(base_path) if base_path is not None else Path(".reenact")
        who = Who(checked_text(scope, "scope"), checked_text(principal, "principal"))
        self.clock = clock or SystemClock()
        self.new_id = Ids(self.clock)
        self._vault = Vault(patterns)
        self._vault.environment(os.environ)
        for name, value in (secrets or {}).items():
            self._vault.add(name, value, scope=scope)
        self.bus = SystemBus(now=self.clock.now, context=lambda: Context(self.scope, self.acting_as))
        self._models = models or Models()
        self._environment_factory = environment_factory or self._default_environment
        self._provide = credentials or from_environment
        self._retries = retries or Retries()
        self._fallover = Fallover(Failover() if failover is None else failover, self._retries, self.clock, self._known)
        self._recover = recover
        self._armed = armed
        self._kernel = Kernel(
            persistence,
            bus=self.bus,
            clock=self.clock,
            who=who,
            hear=self._hear,
            vault=self._vault,
            threads=threads,
        )
        self._root = self
        self._kept: dict[str, Kept] = {}
        self._authenticator = authenticator
        self._handler = approval_handler if armed else None
        self._handling: set[asyncio.Task[None]] = set()
        self._own_policies = policies_from(policy)
        self._treasuries: dict[str, Treasury] = {}
        self._act(who)
        self._budget = None if budget is None else self._treasury.checked(budget)
        self._server: LocalServer | None = None
        register(self)

    def _act(self, who: Who) -> None:
        """Everything here that depends on whose runtime it is: a view of it makes its own."""
        self.scope, self.principal, self._who = who.scope, who.principal, who
        self.ask = partial(self._kernel.ask, by=who)
        self._peek = partial(self._kernel.peek, scope=who.scope)
        self._asking = Asking(self, self._handler, self._handling)
        kept = self._kept.get(who.scope)
        if kept is None:
            policies = Policies(self._own_policies, tools=self.tools, container=self.container_state)
            kept = self._kept[who.scope] = Kept(Agents(self._peek, self.images), policies)
        self._images, self._agents, self._known_tools = kept.images, kept.agents, kept.known_tools
        self._policies = kept.policies
        self._treasury = self._treasury_of(who.scope)

    # -- on whose behalf --

    def _of_scope(self, scope: str) -> Runtime:
        """This runtime's own principal, in another scope."""
        return self if scope == self.scope else self._root.scoped(scope=scope)

    def _treasury_of(self, scope: str) -> Treasury:
        """What is known of a scope's money: the limits that were set before, and those that are heard of."""
        treasury = self._treasuries.get(scope)
        if treasury is None:
            treasury = self._treasuries[scope] = Treasury(self._kernel, self.clock, scope)
        return treasury

    async def _open_treasuries(self) -> None:
        for stream in await asyncio.to_thread(self._kernel.log.streams, "ledger-"):
            await self._treasury_of(stream.removeprefix("ledger-")).open()

    def _owing_scopes(self) -> list[str]:
        """The scopes in which something is owed."""
        log = self._kernel.log
        firsts = (log.read(stream, limit=1) for stream in log.streams("session-", owing=True))
        return list(dict.fromkeys(first[0].batch.head.context.scope for first in firsts if first))

    def as_(self, context: ExecutionContext) -> Acting:
        """This runtime, acting for the scope and the principal of a context: what other scopes have is not there.

        What is asked through it has the context's trace in its envelope, and a job sent through it is cancelled with
        its token. Make the context from a caller's credential, never from what the caller sends.
        """
        from .scoped import Acting

        return Acting(self._root, context, traced=True)

    def scoped(self, *, scope: str | None = None, principal: str | None = None) -> Acting:
        """This runtime, acting for another scope or principal, outside of any trace; see `as_`."""
        from .scoped import Acting

        context = ExecutionContext(scope_id=scope or self.scope, principal_id=principal or self.principal)
        return Acting(self._root, context, traced=False)

    async def authenticate(self, token: str) -> Acting:
        """This runtime, acting for whoever shows this token. Raises Unauthenticated."""
        if self._authenticator is None:
            raise Unauthenticated("This runtime knows no callers: give it an authenticator.")
        return self.as_(await self._authenticator.authenticate(token))

    # -- life --

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> Self:
        """Open the log as its owner and take up what is owed in it. Raises `Owned` when another process owns it."""
        if not self._kernel.opened:
            self._vault.open()
            self._outside = Outside(
                tools=self.tools,
                environment=self._environment_factory,
                fallover=self._fallover,
                retries=self._retries,
                clock=self.clock,
                base_path=self.base_path,
                session=self._kernel.session,
                image=self._image_of,
                config=self._config_of,
                later=self._kernel.later,
                emit=self._kernel.signal,
                treasury=self._treasury_of,
                actions=self._actions_of,
                vault=self._vault,
            )
            for policy in self._policies.own:
                self._policies.look(policy)
            await self._kernel.open(self._outside, armed=self._armed)
            await self._open_treasuries()
            if self._budget is not None:
                await self.set_budget(self._budget)
            if self._recover:
                await self._kernel.recover(self._take_up)
            await self._listen()
            if self._recover:
                await self._asking.take_up()
        return self

    async def _listen(self) -> None:
        """Answer other processes; where this cannot be, go on without."""
        from .owner import answer

        try:
            self._server = await answer(self, self.log)
        except StoreError as error:
            logging.getLogger("reenact").warning("other processes cannot send commands: %s", error)

    async def close(self) -> None:
        """Stop what runs, without a word in the log: it stays owed, and the next owner takes it up. Idempotent."""
        was_open = self._kernel.opened
        if self._server is not None:
            server, self._server = self._server, None
            await server.close()
        await self._asking.close()
        await self._kernel.close()
        if was_open:
            await self._outside.close()
            await self._models.aclose()
        self._vault.close()

    dispose = close

    @property
    def log(self) -> Log:
        """The log it owns, of all scopes. Raises Closed before `open`."""
        return self._kernel.log

    @property
    def _reads(self) -> Pane:
        """What the log has of this scope."""
        return Pane(self._kernel.log, self.scope)

    # -- the bus --

    def on(self, kinds: Any, handler: Callable[[Any], object], **options: Any) -> Subscription:
        """Subscribe to event types by name: see `SystemBus.on`."""
        return self.bus.on(kinds, handler, **options)

    def on_any(self, handler: Callable[[Any], object], **options: Any) -> Subscription:
        """Subscribe to every event: see `SystemBus.on_any`."""
        return self.bus.on_any(handler, **options)

    def once(self, kinds: Any, handler: Callable[[Any], object], **options: Any) -> Subscription:
        """Subscribe to the next event of a type: see `SystemBus.once`."""
        return self.bus.once(kinds, handler, **options)

    def stream(self, *kinds: Any, **options: Any) -> LiveView:
        """The events of these types from now on, as an async iterator with a bound: see `SystemBus.stream`."""
        return self.bus.stream(*kinds, **options)

    async def request(self, kind: str, data: Mapping[str, Any] | None = None, *, timeout_s: float = 30.0) -> Live:
        """Ask by name, and get the response: its `data.error` says what failed; only a time-out raises."""
        envelope = Context(self.scope, self.acting_as)
        return await self._root.bus.request(kind, data, timeout_s=timeout_s, context=envelope)

    # -- secrets --

    def secret(self, name: str, value: str | Secret) -> Secret:
        """Know a secret: its value is in no event and no message from now on, `[secret:name]` stands in its place.

        A tool gets it by its name, from `ToolContext.secret`. It is kept in memory only: register it at every start.
        Found are its exact value and that in JSON, URLs and base64; not what is written otherwise.
        """
        return self._vault.add(name, value, scope=self.scope)

    # -- containers --

    async def create_container(self, container_id: str) -> ContainerState:
        """Make a container be; already so is fine. Raises BadInput for an id that is no text of 1 to 256 characters."""
        checked_text(container_id, "container")
        command = CreateContainer(container_id=container_id, created_at=self._now_ms())
        reply = await self.ask(self._container(container_id), command)
        state: ContainerState = reply.states[0]
        return state

    async def container_state(self, container_id: str) -> ContainerState:
        """The state of a container; one that does not exist has `container_id` None."""
        state: ContainerState = (await self._peek(self._container(container_id)))[0]
        return state

    async def container_ids(self) -> list[str]:
        """The ids of all containers, oldest first."""
        return await asyncio.to_thread(container_ids, self._kernel.log, self.scope)

    def _container(self, container_id: str) -> str:
        return container_stream(self.scope, container_id)

    # -- policy --

    async def set_policy(self, container: str, policy: Given | None) -> Policy | None:
        """Hold all agents of a container to a policy, None to none of its own; turns that run are held to it from their
        next call on. Returns it as it is in force, its version counted by the container.

        The container is made if there is none. Raises BadPolicy for what is no policy.
        """
        checked_text(container, "container")
        wanted = None if policy is None else policy_from(policy)
        if wanted is not None:
            await self._policies.check(wanted)
        command = SetPolicy(container_id=container, created_at=self._now_ms(), policy=wanted)
        reply = await self.ask(self._container(container), command)
        await self._policies.load(container)
        for awake in await self.agents(container):  # also where nothing changed: an earlier try may have been cut short
            await self.bring_policy(awake.session_id)
        in_force: Policy | None = reply.states[0].policy
        return in_force

    async def policies_of(self, image_id: str) -> tuple[Policy, ...]:
        """The layers over an image's agents, outermost first, with every profile, group and alias written out."""
        return self._policies.layers(await self.image_state(image_id))

    async def load_tool_policy(self, agent_id: str) -> AgentToolPolicy:
        """Which tools an agent's image allows it by name. agent_id: of an image, or of one of its agents."""
        return tool_policy_of((await self._image_or_agent(agent_id)).config.policy)

    async def save_tool_policy(self, agent_id: str, changes: AgentToolPolicy | Mapping[str, Any]) -> AgentToolPolicy:
        """Change which tools an agent's image allows it: `profile`, `allowed_tools`, `denied_tools`,
        `max_tool_calls_per_turn`. What is not named stays; a turn that runs is held to it from its next call on.
        """
        for _ in range(UPDATES_MAX):
            state = await self._image_or_agent(agent_id)
            policy = with_tool_policy(state.config.policy, changes)
            with suppress(Conflict):
                changed = await self._change_image(state, replace(state.config, policy=policy))
                return tool_policy_of(changed.config.policy)
            self._images.pop(state.image_id or "", None)
        raise Conflict(f"Image {agent_id} is changed by others all the time; try again.")

    async def _image_or_agent(self, agent_id: str) -> ImageState:
        state = await self.find_image(agent_id)
        if state is None:
            awake = await self.find_agent(agent_id)
            state = await self.image_state(agent_id if awake is None else awake.image_id)
        return state

    async def bring_policy(self, session_id: str) -> None:
        """Hold the agent of a session to the layers of now, also in the middle of its turn. One that sleeps is left: it
        is woken under them. Raises what kept this from being stored.
        """
        stream = f"session-{session_id}"
        first = await asyncio.to_thread(self._reads.read, stream, limit=1)
        created = next((each for batch in first for each in codec.unpack(batch)), None)
        if created is None or not isinstance(created.data, SessionCreated):
            return
        state = await self._image_of(created.data.image_id)
        await self._policies.load(state.container_id)
        layers = self._policies.layers(state)
        await self.ask(stream, ApplyPolicy(policy=layers, scope=created.context.scope))

    def _take_up(self, stream: str) -> None:
        """Go on with what a session owes, as soon as its agent is held to the rules of now."""
        self._kernel.later(self._taken_up(stream))

    async def _taken_up(self, stream: str) -> None:
        """Nothing is done under rules of yesterday: where there is no room for those of now, it waits for it. Where
        they cannot be read, or the session cannot, it stays as it is.
        """
        for tries in count():
            try:
                first = await asyncio.to_thread(self._kernel.log.read, stream, limit=1)
                acting = self._of_scope(first[0].batch.head.context.scope if first else self.scope)
                await acting.bring_policy(stream.removeprefix("session-"))
                break
            except (DiskFull, Busy, Conflict):
                await asyncio.sleep(min(RETELL_MAX_S, 0.05 * 2**tries))
            except (Closed, Fenced, StoreFailed, UnknownOutcome):
                return  # it takes nothing more; the next owner does this again
            except ReenactError as error:
                logging.getLogger("reenact").error("%s is not taken up: %s", stream, error)
                return
        with suppress(Closed):
            self._kernel.wake(stream)

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
        checked_text(container, "container")
        if name is not None:
            checked_text(name, "name")
        changes = {**(config or {}), **{key: value for key, value in fields.items() if value is not None}}
        changes = {_CAMEL.get(key, key): value for key, value in changes.items()}
        if "tools" in changes:
            changes["tools"] = [getattr(tool, "name", tool) for tool in changes["tools"]]
        if "policy" in changes:
            changes["policy"] = policy_from(changes["policy"])
        known = await self.image_named(name, container=container) if name is not None else None
        if known is None:
            base = self.default_agent if name is None else replace(self.default_agent, name=name)
            state = await self.create_image(container, config_of(changes, base), alias=name)
        else:
            state = await self.update_image(known.image_id or "", changes)
        return Image(self, state.image_id or "", state.session_id, container)

    async def open_image(self, image_id: str, session_id: str | None = None) -> Image:
        """A handle of an image that exists, on its current session or on another of its sessions."""
        state = await self.image_state(image_id)
        with suppress(NotFound):  # without its tools it can still be read
            await self._register_tools(state.container_id, state.config)
        return Image(self, image_id, session_id or state.session_id, state.container_id)

    async def image_named(self, name: str, *, container: str = "default") -> ImageState | None:
        """The state of the image of this name in a container, None when there is none."""
        return (await self._named(container, name))[0]

    async def _named(self, container_id: str, name: str) -> tuple[ImageState | None, str]:
        """The image that has a name, and the key under which it has it, or would have it."""
        for number in count(1):
            key = f"image:{container_id}/{name}" + (f"#{number}" if number > 1 else "")
            keyed = await asyncio.to_thread(self._reads.keyed, self.scope, key)
            if keyed is None:
                return None, key
            for recorded in await self._batch_of(keyed):
                if isinstance(recorded.data, ImageAdded):
                    state = await self.find_image(recorded.data.image_id)
                    if state is not None:
                        return state, key
            # That one was deleted: its name is free, its key is not.
        raise AssertionError("count ends")

    async def _batch_of(self, keyed: Keyed) -> list[Recorded]:
        """The events of the command that a key stands for."""
        stored = await asyncio.to_thread(self._reads.read, keyed.stream, after=keyed.version - 1, limit=1)
        return [recorded for batch in stored for recorded in codec.unpack(batch)]

    async def create_image(self, container_id: str, config: ImageConfig, *, alias: str | None = None) -> ImageState:
        """A new image with its first session, in one append; the container is made if there is none.

        alias: a name that nobody else in the container may take. Taken already: the image that has it is returned.
        """
        await self._check(config, container_id)
        await self._register_tools(container_id, config)
        now, key = self._now_ms(), None
        if alias is not None:
            known, key = await self._named(container_id, alias)
            if known is not None:
                return known
        image_id, session_id = self.new_id("img"), self.new_id("sess")
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
        reply = await self.ask(
            self._container(container_id),
            AddImage(container_id=container_id, image_id=image_id, created_at=now),
            companions=((f"image-{image_id}", create), (f"session-{session_id}", session)),
            key=key,
        )
        if reply.duplicate is not None and alias is not None:
            return await self.create_image(container_id, config, alias=alias)
        return await self.image_state(image_id)

    async def find_image(self, image_id: str) -> ImageState | None:
        """The state of an image, None when there is none or it was deleted."""
        state = self._images.get(image_id)
        if state is None:
            state = (await self._peek(f"image-{image_id}"))[0]
            if state.image_id is None or state.deleted:
                return None
            self._images[image_id] = state
        if not self._policies.at_hand(state.container_id):
            await self._policies.load(state.container_id)
        return state

    async def _image_of(self, image_id: str, scope: str | None = None) -> ImageState:
        """The state of an image that was there once: what is owed to a deleted one is still settled. scope: whose it
        is, where that is known and not this runtime's own."""
        kept = self._kept.get(scope or self.scope)
        known = None if kept is None else kept.images.get(image_id)
        state: ImageState = known or (await self._kernel.peek(f"image-{image_id}", scope=scope or self.scope))[0]
        return state

    async def _config_of(self, image_id: str, version: int, scope: str) -> ImageConfig:
        """The definition that an image had at a version: what the log says that its model is called with."""
        state = await self._image_of(image_id, scope)
        if state.version == version or not version:
            return state.config
        for stored in await asyncio.to_thread(Pane(self._kernel.log, scope).read, f"image-{image_id}"):
            for recorded in codec.unpack(stored):
                data = recorded.data
                if isinstance(data, ImageCreated) and version == 1:
                    return data.config
                if isinstance(data, ImageUpdated) and data.version == version:
                    return data.config
        raise NotFound(f"Image {image_id} never had a version {version}.")

    async def image_state(self, image_id: str) -> ImageState:
        """The state of an image. Raises NotFound."""
        state = await self.find_image(image_id)
        if state is None:
            raise NotFound(f"Image not found: {image_id}")
        return state

    async def images(self, container_id: str | None = None) -> list[ImageState]:
        """The images of a container, or of all, oldest first."""
        if container_id is not None:
            ids: Iterable[str] = (await self.container_state(container_id)).images
        else:
            streams = await asyncio.to_thread(self._reads.streams, "image-")
            ids = [stream.removeprefix("image-") for stream in streams]
        found = [await self.find_image(image_id) for image_id in ids]
        return [state for state in found if state is not None]

    async def update_image(self, image_id: str, changes: ImageConfig | Mapping[str, Any]) -> ImageState:
        """Give an image another definition, or change some fields of it; an awake agent takes it over with the next
        message, and its policy at once. Two who change different fields at once both get their way.
        """
        for _ in range(UPDATES_MAX):
            state = await self.image_state(image_id)
            try:
                return await self._change_image(state, config_of(changes, state.config))
            except Conflict:
                self._images.pop(image_id, None)  # somebody was quicker: read it again, and change that
        raise Conflict(f"Image {image_id} is changed by others all the time; try again.")

    async def _change_image(self, state: ImageState, config: ImageConfig) -> ImageState:
        """Give an image this definition. Raises Conflict where it is not as `state` has it any more."""
        image_id = state.image_id or ""
        if config != state.config:
            await self._check(config, state.container_id)
        await self._register_tools(state.container_id, config)
        if config == state.config:
            return state
        command = UpdateImage(config=config, updated_at=self._now_ms(), base=state.version)
        await self.ask(f"image-{image_id}", command)
        changed = await self.image_state(image_id)
        if config.policy != state.config.policy:
            for awake in await self._agents.of_image(changed):
                await self.bring_policy(awake.session_id)
        return changed

    async def delete_image(self, image_id: str) -> None:
        """Delete an image and close its sessions, ending what runs in them. One that does not exist is fine.

        The image goes first: were this cut short, nobody would find it, and deleting it again closes the rest.
        """
        state = await self._image_of(image_id)
        if state.image_id is None:
            return
        await self.ask(f"image-{image_id}", DeleteImage())
        await self.ask(self._container(state.container_id), RemoveImage(image_id=image_id))
        for session_id in state.sessions:
            await self.ask(f"session-{session_id}", CloseSession(reason="image_deleted"))

    async def new_session(self, image_id: str, *, alias: str | None = None) -> str:
        """A new session of an image, which becomes its current one. Returns the session's id.

        alias: a name that no other session in the scope may have. Taken already: by a session of this image, that
        session is returned; by one of another image, Conflict is raised.
        """
        state = await self.image_state(image_id)
        session_id = self.new_id("sess")
        create = CreateSession(
            session_id=session_id,
            image_id=image_id,
            container_id=state.container_id,
            created_at=self._now_ms(),
            alias=alias,
        )
        key = None if alias is None else f"session:{alias}"
        reply = await self.ask(f"session-{session_id}", create, key=key)
        if reply.duplicate is not None:
            stream = reply.duplicate.stream
            session_id = stream.removeprefix("session-")
            if (await self._peek(stream))[0].image_id != image_id:
                raise Conflict(f"Session {alias!r} ({session_id}) belongs to another image.")
        await self.ask(f"image-{image_id}", AttachSession(session_id=session_id))
        return session_id

    async def _check(self, config: ImageConfig, container_id: str) -> None:
        self._models.parse(config.model)
        self._check_fallbacks(config.fallbacks)
        if config.degrade_to is not None:
            self._models.parse(checked_text(config.degrade_to, "degradeTo"))
        if config.tools is not None:
            self.tools.only(config.tools)
        if config.policy is not None:
            await self._policies.check(config.policy, container_id)

    def _check_fallbacks(self, fallbacks: tuple[str, ...] | None) -> None:
        for model in fallbacks or ():
            self._models.parse(checked_text(model, "fallbacks"))

    async def _register_tools(self, container_id: str, config: ImageConfig) -> None:
        new = [spec for spec in self._tools_of(config).specs() if (container_id, spec.version) not in self._known_tools]
        if new:
            command = RegisterTools(container_id=container_id, created_at=self._now_ms(), tools=tuple(new))
            await self.ask(self._container(container_id), command)
            self._known_tools.update((container_id, spec.version) for spec in new)

    def _tools_of(self, config: ImageConfig) -> Tools:
        return self.tools if config.tools is None else self.tools.only(config.tools)

    # -- messages --

    async def send(
        self,
        image_id: str,
        content: object,
        *,
        session_id: str | None = None,
        model: str | None = None,
        fallbacks: Sequence[str] | None = None,
        params: ModelParams | None = None,
        budget: object = None,
        priority: int = 0,
        timeout_s: float | None = None,
        key: str | None = None,
        approval_handler: ApprovalHandler | None = None,
        policy: Given | None = None,
        credentials: Mapping[str, Any] | None = None,
    ) -> Run:
        """Send a message to an image, waking its agent where it sleeps. Returns the run; see `Image.send`."""
        state = await self.image_state(image_id)
        models, priced = (
            _models_of(state.config, model, fallbacks),
            policy is not None or self._policies.limits_cost(state),
        )
        if self._treasury.waits(models, budget or state.config.budget, priced=priced):
            await self._treasury.ready()
        return self.submit(
            state,
            content_of(content),
            session_id=session_id or state.session_id,
            model=model,
            fallbacks=fallbacks,
            params=params,
            budget=budget,
            priority=priority,
            timeout_s=timeout_s,
            key=key,
            approval_handler=approval_handler,
            policy=policy,
            credentials=credentials,
        )

    def sending(self, image_id: str, content: object, **options: Any) -> asyncio.Future[Run]:
        """As `send`, at once where the image is at hand; what is wrong with the message is raised by the future."""
        state = self._images.get(image_id)
        if (
            state is None
            or not self._policies.at_hand(state.container_id)
            or self._treasury.waits(
                _models_of(state.config),
                options.get("budget") or state.config.budget,
                priced=options.get("policy") is not None or self._policies.limits_cost(state),
            )
        ):
            return asyncio.ensure_future(self.send(image_id, content, **options))
        sent: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        try:
            sent.set_result(self.submit(state, content_of(content), **options))
        except Exception as error:
            sent.set_exception(error)
        return sent

    def submit(
        self,
        state: ImageState,
        content: tuple[InputPart, ...],
        *,
        session_id: str,
        model: str | None = None,
        fallbacks: Sequence[str] | None = None,
        params: ModelParams | None = None,
        budget: object = None,
        priority: int = 0,
        timeout_s: float | None = None,
        key: str | None = None,
        approval_handler: ApprovalHandler | None = None,
        policy: Given | None = None,
        credentials: Mapping[str, Any] | None = None,
    ) -> Run:
        """As `send`, at once, for an image whose state is at hand."""
        if model is not None:
            self._models.parse(checked_text(model, "model"))
        others = None if fallbacks is None else fallbacks_of(fallbacks)
        self._check_fallbacks(others)
        check_sending(params, priority, timeout_s)
        spec = spec_of(budget)
        job_id = self.new_id("job")
        run = Run(
            job_id,
            session_id,
            self.clock.now,
            self._kernel.let_go,
            handler=approval_handler,
            handled=self._asking.handler is not None,
        )
        for provider, given in (credentials or {}).items():
            own = Credentials(api_key=given) if isinstance(given, str | Secret) else given
            run.credentials[provider] = self._hidden(provider, credentials_of(own))
        overrides = None
        if model is not None or params is not None or others is not None or policy is not None:
            narrowed = None if policy is None else self._policies.of_job(state, policy)
            overrides = Overrides(model=model, params=params, fallbacks=others, policy=narrowed)
        asked = overrides if spec is None else (overrides, spec)  # as it was asked: prices may be others next time
        own = overrides is not None and overrides.policy is not None and limits_cost(overrides.policy)
        priced = own or ((model is not None or bool(others)) and self._policies.limits_cost(state))
        terms = self._treasury.own_terms(
            spec, model, others, state.config, lambda: self._preamble(state.config), priced=priced
        )
        if terms is not None:
            overrides = replace(overrides or Overrides(), terms=terms)
        command = Send(
            job_id=job_id,
            content=content,
            waking=self._waking(state),
            overrides=overrides,
            priority=priority,
            timeout_ms=None if timeout_s is None else round(timeout_s * 1000),
        )
        if key is None:
            self._kernel.submit(session_id, command, run, by=self._who)
        else:
            said = self._vault.hidden(content)  # not even a digest of a secret is stored
            body = digest(msgspec.msgpack.encode((state.image_id, said, asked, priority, timeout_s)))
            named = f"send:{checked_text(key, 'key')}"
            self._kernel.submit(session_id, command, run, key=named, body=body, by=self._who)
        return run

    def _waking(self, state: ImageState) -> Waking:
        config = state.config
        return Waking(
            agent_id=self.new_id("agent"),
            image_id=state.image_id or "",
            container_id=state.container_id,
            registered_at=self._now_ms(),
            definition=Definition(
                image_version=state.version,
                model=config.model,
                params=config.params,
                max_steps=config.max_steps,
                fallbacks=config.fallbacks,
                tools=self._tools_of(config).digest,
                approval_required=config.approval_required,
                approval_timeout_s=config.approval_timeout_s,
                policy=self._policies.layers(state),
                scope=self.scope,
                terms=self._treasury.terms(
                    (state.image_id, state.version),
                    config,
                    lambda: self._preamble(config),
                    priced=self._policies.limits_cost(state),
                ),
            ),
        )

    def _preamble(self, config: ImageConfig) -> str:
        """What a model reads before the conversation."""
        return config.system_prompt + msgspec.json.encode(self._tools_of(config).specs()).decode()

    # -- budgets --

    async def set_budget(self, budget: object) -> Budget:
        """Limit what this scope may use, or one principal or session of it.

        budget: a `Budget`, a dict of its fields, or dollars in all. It holds from a session's next asking on; one
        that was not limited before hears of it with its next message. Raises BadInput.
        """
        self._a_person()
        made = self._treasury.checked(budget)
        if made.degrade_to is not None:
            self._models.parse(made.degrade_to)
        return await self._treasury.set(made, self.ask)

    async def remove_budget(self, *, principal_id: str | None = None, session_id: str | None = None) -> bool:
        """Lift the limits of this scope, or those of one principal or session of it. False when there were none."""
        self._a_person()
        return await self._treasury.remove(self.ask, principal_id, session_id)

    def _a_person(self) -> None:
        if self.acting_as.startswith(AGENT_PRINCIPALS):
            raise NotAPerson("Limits are set by people and programs, never by an agent or its tools.")

    async def budget(self) -> list[LimitUse]:
        """Every limit of this scope, with what is used of it, set aside and left."""
        return await self._treasury.use()

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The limits that are in force."""
        return self._treasury.rules

    async def messages(self, session_id: str) -> list[Message]:
        """The conversation of a session as messages, oldest first. Raises NotFound for an unknown session."""
        from .projections.transcript import Transcript

        transcript = Transcript()
        for recorded in await self.events(session_id):
            transcript.apply(recorded)
        return list(transcript.messages)

    async def events(self, session_id: str, *, after: int = 0) -> list[Recorded]:
        """The stored events of a session above a version. Raises NotFound for an unknown session."""
        stored = await asyncio.to_thread(self._reads.read, f"session-{session_id}", after=after)
        if not stored and not after:
            raise NotFound(f"Session not found: {session_id}")
        return [recorded for batch in stored for recorded in codec.unpack(batch)]

    async def follow(self, *, after: int = 0) -> AsyncIterator[Recorded]:
        """Every stored event above a position, without a gap, then on as they come. Ends when the runtime closes.

        Of the whole log, all scopes; a view of one scope gives those of its own.
        """
        whole = self is self._root
        while not self.bus.disposed:
            page = await asyncio.to_thread(self._kernel.log.read_all, after=after)
            for stored in page:
                if whole or stored.batch.head.context.scope == self.scope:
                    for recorded in codec.unpack(stored):
                        if recorded.position > after:
                            after = recorded.position
                        yield recorded
                after = max(after, stored.position + len(stored.batch.rows) - 1)
            if not page:
                try:
                    await self.bus.past(after)
                except Closed:
                    return

    # -- agents --

    async def wake(self, image_id: str, session_id: str | None = None) -> tuple[str, bool]:
        """Wake an image's agent. Returns its id, and whether it was awake already."""
        state = await self.image_state(image_id)
        priced = self._policies.limits_cost(state)
        if self._treasury.waits(_models_of(state.config), state.config.budget, priced=priced):
            await self._treasury.ready()
        stream = f"session-{session_id or state.session_id}"
        reply = await self.ask(stream, WakeAgent(waking=self._waking(state)))
        reused = not any(isinstance(recorded.data, AgentRegistered) for recorded in reply.events)
        return reply.states[1].agent_id, reused

    async def session_state(self, session_id: str) -> SessionState:
        """The lane of a session: what runs, what is queued, what it waits for. Raises NotFound."""
        state: SessionState = (await self._peek(f"session-{session_id}"))[0]
        if state.session_id is None:
            raise NotFound(f"Session not found: {session_id}")
        return state

    async def resume(self, session_id: str) -> None:
        """Take up what one session owes, as `open` does for all of them unless it was told not to.

        An agent that sleeps while inputs wait is woken. Nothing owed: nothing happens. Raises NotFound.
        """
        stream = f"session-{session_id}"
        state = (await self._peek(stream))[0]
        if state.session_id is None:
            raise NotFound(f"Session not found: {session_id}")
        if state.queue and not state.awake:
            await self.wake(state.image_id, session_id)
        else:
            await self.bring_policy(session_id)
        self._kernel.wake(stream)

    async def stop_image(self, image_id: str, *, reason: str = "stopped") -> None:
        """Put an image's agents to sleep, interrupting what they do; its conversations stay.

        What is queued stays queued, and runs when the next message or `wake` wakes an agent.
        """
        for session_id in (await self.image_state(image_id)).sessions:
            await self.ask(f"session-{session_id}", StopAgent(reason=reason))

    async def stop_agent(self, agent_id: str, *, reason: str = "stopped") -> bool:
        """Put one agent to sleep, and no other. False when none of that id is awake."""
        awake = await self.find_agent(agent_id)
        if awake is None:
            return False
        stream = f"session-{awake.session_id}"
        if (await self._peek(stream))[1].agent_id != agent_id:
            return False
        await self.ask(stream, StopAgent(reason=reason))
        return True

    async def interrupt(
        self, image_id: str, *, session_id: str | None = None, reason: str = "user_interrupt"
    ) -> str | None:
        """Stop the running turn of an image, keeping what was said. Returns the agent's id, None when it sleeps."""
        state = await self.image_state(image_id)
        reply = await self.ask(f"session-{session_id or state.session_id}", Interrupt(reason=reason))
        agent_id: str | None = reply.states[1].agent_id
        return agent_id

    async def cancel(self, session_id: str, job_id: str, *, reason: str = "user_cancel") -> None:
        """Take a queued job out, or interrupt it where it runs. One that is over is fine."""
        await self.ask(f"session-{session_id}", CancelJob(job_id=job_id, reason=reason))

    async def resolve(self, session_id: str, tool: str, outcome: str, output: str = "") -> None:
        """Say what became of a call in doubt: `ok` or `error` with what the model is told, or `retry`."""
        await self.bring_policy(session_id)
        await self.ask(f"session-{session_id}", ResolveTool(tool=tool, outcome=outcome, output=output))

    # -- questions to people --

    async def actions(self, session_id: str | None = None) -> list[Action]:
        """The questions that wait for a person, oldest first: of one session, or of all."""
        return await self._asking.pending(session_id)

    pending = actions

    async def action(self, action_id: str) -> Action:
        """One question and how it stands. action_id: `<session>:<action>`. Raises NotFound."""
        return await self._asking.action(action_id)

    async def resolve_action(
        self,
        action_id: str,
        resolution: Mapping[str, Any] | bool,
        *,
        comment: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        always: str | None = None,
        digest: str | None = None,
        token: str | None = None,
    ) -> Action:
        """Answer a question, once; what waits for it goes on. Returns it as it stands then.

        resolution: what fits its kind; True and False stand for `{"approved": ...}`. comment: told to the model where a
        call is denied. arguments: of an approval, those to run instead. always: `exact` or `class`, leave for calls to
        come. digest: of what you were shown; refused where it is another by now. token: one that was issued for it.

        Raises NotFound, ActionOver, ActionLate (it is recorded as expired), BadResolution, ActionChanged, ClockBehind,
        and NotAPerson where an agent or a tool asks.
        """
        given: dict[str, Any] = {"approved": resolution} if isinstance(resolution, bool) else dict(resolution)
        for name, value in (("comment", comment), ("arguments", arguments), ("always", always)):
            if value is not None:
                given[name] = dict(value) if isinstance(value, Mapping) else value
        return await self._asking.resolve(action_id, given, shown=digest, token=token)

    async def all_actions(self, session_id: str | None = None) -> list[Action]:
        """Every question that was ever put, over or not, oldest first: of one session, or of all. Reads the log."""
        return await self._asking.everything(session_id)

    async def action_of_token(self, token: str) -> Action:
        """The pending question that a token is for. Raises NotFound, whatever is wrong with the token."""
        return await self._asking.of_token(token)

    async def session_of(self, job_id: str) -> str:
        """The session in which a job runs now. Raises NotFound."""
        return await self._asking.session_of(job_id)

    def _actions_of(self, call: tuple[str, str | None, str, str], waiting: Any, scope: str) -> Any:
        from .actions import ActionManager

        return ActionManager(self._of_scope(scope), call=call, waiting=waiting)

    async def cancel_action(self, action_id: str, *, reason: str = "cancelled", cancel_job: bool = False) -> None:
        """Take a question back; a call that waits for it is not run. cancel_job: the job ends too. Over: fine."""
        await self._asking.cancel(action_id, reason=reason, cancel_job=cancel_job)

    async def issue_token(self, action_id: str) -> str:
        """A token that resolves this question once, for whoever should. It is stored nowhere: only its digest is.

        One that was issued before is worth nothing then.
        """
        return await self._asking.issue_token(action_id)

    async def grants(self, session_id: str) -> list[Grant]:
        """The leaves for calls to come that people gave in a session."""
        return list((await self._peek(f"session-{session_id}"))[1].grants)

    async def revoke_grant(self, action_id: str) -> None:
        """Take back the leave for calls to come that was given in this action. Already so: fine."""
        await self._asking.revoke(action_id)

    async def agent_of(self, image_id: str) -> str | None:
        """The id of the agent in an image's current session, None when it sleeps."""
        state = await self.find_image(image_id)
        if state is None:
            return None
        agent_id: str | None = (await self._peek(f"session-{state.session_id}"))[1].agent_id
        return agent_id

    async def agents(self, container_id: str) -> list[Awake]:
        """The awake agents of a container, in all sessions of its images."""
        return await self._agents.of_container(container_id)

    async def find_agent(self, agent_id: str) -> Awake | None:
        """An awake agent by its id, None when there is none."""
        return await self._agents.find(agent_id)

    # -- replay --

    async def replay(self, session_id: str) -> Replay:
        """Decide a session again from the log, in another thread and without reaching outside, and compare."""
        stream = f"session-{session_id}"
        stored = await asyncio.to_thread(self._reads.read, stream)
        if not stored:
            raise NotFound(f"Session not found: {session_id}")
        return await asyncio.to_thread(replay, stream, stored)

    # -- keys of providers --

    def _known(self, provider: str, spec: EnvironmentSpec) -> tuple[Credentials, ...]:
        """The credentials for a provider; what they hold is hidden before anybody uses it.

        Those that came with the run, for as long as it is in this process; else those of the tenant.
        """
        given = self._kernel.credentials(spec.session_id, provider)
        return given or self._hidden(provider, credentials_of(self._provide(provider, spec)))

    def _hidden(self, provider: str, given: Iterable[Credentials]) -> tuple[Credentials, ...]:
        return tuple(self._vault.given(provider, each) for each in given)

    # -- what is kept at hand --

    def _hear(self, recorded: Recorded) -> None:
        """Keep at hand what is looked up by id."""
        data = recorded.data
        if type(data) not in _HEARD:
            return
        if isinstance(data, ActionRequired):
            if self._handler is not None or self._kernel.handler_of(*_job_of(recorded, data)) is not None:
                self._of_scope(recorded.head.context.scope)._asking.hear(recorded, data)
            return
        scope = recorded.head.context.scope
        if isinstance(data, BudgetSet | BudgetRemoved | AllotmentReleased):
            self._treasury_of(scope).hear(recorded)
            return
        if isinstance(data, AgentUnregistered):
            self._kernel.later(self._outside.forget(data.agent_id))
        kept = self._kept.get(scope)
        if kept is None:  # nobody has looked at this scope yet, so there is nothing to keep up
            return
        kept.agents.hear(recorded)
        if isinstance(data, ImageCreated | ImageUpdated | SessionAttached):
            image_id = recorded.stream.removeprefix("image-")
            before = kept.images.get(image_id)
            if before is not None or isinstance(data, ImageCreated):
                kept.images[image_id] = evolve_image(before or ImageState(), data, recorded.stamp)
        elif isinstance(data, ImageDeleted):
            kept.images.pop(data.image_id, None)
        elif isinstance(data, PolicySet):
            container_id = recorded.head.context.container_id or ""
            policy = None if data.policy is None else replace(data.policy, version=str(data.version))
            kept.policies.hear(container_id, policy)

    @property
    def acting_as(self) -> str:
        """The principal that whoever calls now acts as: inside of a tool, its agent."""
        return acting_as() or self.principal

    def _now_ms(self) -> int:
        return self.clock.now() // 1000

    def _default_environment(self, spec: EnvironmentSpec) -> Environment:
        return ModelEnvironment(self._models, spec.model.partition(":")[0])


def _job_of(recorded: Recorded, data: ActionRequired) -> tuple[str, str]:
    return recorded.stream.removeprefix("session-"), data.job_id or ""


_HEARD = {
    ActionRequired,
    AgentRegistered,
    AgentUnregistered,
    ImageCreated,
    ImageUpdated,
    ImageDeleted,
    PolicySet,
    SessionAttached,
    AllotmentReleased,
    BudgetSet,
    BudgetRemoved,
}
_CAMEL = {
    "max_steps": "maxSteps",
    "instructions": "systemPrompt",
    "system_prompt": "systemPrompt",
    "approval_required": "approvalRequired",
    "approval_timeout_s": "approvalTimeoutS",
    "degrade_to": "degradeTo",
}


__all__ = ["Runtime", "from_environment"]
