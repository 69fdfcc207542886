"""The runtime: the four rooms wired together, and what a program does with them.

A command goes to its actor, what it decides goes to the log, and only then does anybody hear of it: first the bus, then
whoever asked, then the world that owes something. Opening a runtime takes up what an earlier owner of the log left.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec.structs import replace

from .actors.cell import noun_of
from .actors.clock import Clock, Ids, SystemClock
from .actors.container import State as ContainerState
from .actors.dispatch import Dispatch, Origin
from .actors.image import State as ImageState
from .actors.replay import Replay, replay
from .actors.system import ActorSystem, Committed, Reply
from .adapters.logs import open_log
from .adapters.models import Models, Retries, credentials_for
from .adapters.tools.registry import Tools
from .environment import Environment, EnvironmentFactory, EnvironmentSpec, ModelEnvironment
from .events.agent import AgentRegistered, AgentUnregistered, Interrupt, ResolveTool, StopAgent, WakeAgent
from .events.bus import SystemBus
from .events.container import AddImage, CreateContainer, RegisterTools, RemoveImage
from .events.content import InputPart
from .events.errors import BadInput, Closed, NotFound
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
from .events.log import Log
from .events.message import Asked, BusEvent, Command, Live, Recorded, Signal, live
from .events.model import Credentials, ModelParams
from .events.notice import Message
from .events.queue import LiveView
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
from .image import Image
from .live import LiveSession
from .perform import Outside, Provide
from .requests import config_of, content_of, register
from .run import Run

LIVE_MAX = 5_000
"""Sessions whose context is kept in memory. Beyond it the oldest is read from the log again when needed."""

_log = logging.getLogger("reenact")


def from_environment(provider: str, spec: EnvironmentSpec) -> Credentials:
    """The default credentials: the provider's usual environment variables, read at every call."""
    return credentials_for(provider, os.environ)


class Runtime:
    """Runs agents on a log.

        async with Runtime("sqlite:///agents.db", tools=[refund]) as runtime:
            bot = await runtime.image("support", model="anthropic:claude-sonnet-5-5")
            async for event in bot.send("Refund order 42"):
                print(event)

    persistence: a log, or the URL of one (`memory://`, `sqlite:///path`). tools: what its agents may be given.
    credentials(provider, spec): gives key and base URL per call, default from the environment; never stored.
    base_path: where working folders are made, default `.reenact` beside the current folder.
    environment_factory(spec): gives an agent its outside, default the model that its image names.
    default_agent: the definition that new images start from, an `ImageConfig` or a dict of its fields.
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
        models: Models | None = None,
        retries: Retries | None = None,
        clock: Clock | None = None,
        scope: str = "default",
        principal: str = "user",
        threads: int | None = None,
        recover: bool = True,
    ) -> None:
        self._persistence = persistence
        self.tools = tools if isinstance(tools, Tools) else Tools(tools)
        self.default_agent = config_of(default_agent, ImageConfig())
        self.base_path = Path(base_path) if base_path is not None else Path(".reenact")
        self.scope = scope
        self.principal = principal
        self.clock = clock or SystemClock()
        self.new_id = Ids(self.clock)
        self.bus = SystemBus(now=self.clock.now)
        self._models = models or Models()
        self._environment_factory = environment_factory or self._default_environment
        self._provide = credentials or from_environment
        self._retries = retries or Retries()
        self._threads = threads
        self._recover = recover
        self._open = False
        self._log: Log | None = None
        self._images: dict[str, ImageState] = {}
        self._agents: dict[str, dict[str, str]] = {}
        self._known_tools: set[tuple[str, str]] = set()
        self._live: dict[str, LiveSession] = {}
        self._loading: dict[str, asyncio.Task[LiveSession]] = {}
        self._runs: dict[str, list[Run]] = {}
        register(self)

    # -- life --

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> Self:
        """Open the log as its owner and take up what is owed in it. Raises `Owned` when another process owns it."""
        if self._open:
            return self
        self._loop = asyncio.get_running_loop()
        given = self._persistence
        self._log = await asyncio.to_thread(open_log, given) if isinstance(given, str) else given
        self._system = ActorSystem(self._log, self._publish, threads=self._threads)
        self._outside = Outside(
            tools=self.tools,
            environment=self._environment_factory,
            provide=self._provide,
            retries=self._retries,
            clock=self.clock,
            base_path=self.base_path,
            session=self._session,
            image=self.image_state,
            emit=self._signal,
        )
        self._dispatch = Dispatch(self._outside, self._tell, clock=self.clock, epoch=self._log.epoch)
        self._open = True
        if self._recover:
            for stream in await asyncio.to_thread(self._log.streams, "session-", owing=True):
                self._system.wake(stream)
        return self

    async def close(self) -> None:
        """Stop what runs, without a word in the log: it stays owed, and the next owner takes it up. Idempotent."""
        if not self._open:
            self.bus.dispose()
            return
        self._open = False
        await self._dispatch.close()
        await asyncio.to_thread(self._system.close)
        await asyncio.sleep(0)
        for runs in list(self._runs.values()):
            for run in list(runs):
                run.fail(
                    Closed("The runtime was closed before the job ended; it goes on when the log is opened again.")
                )
        await self._outside.close()
        await self._models.aclose()
        self.bus.dispose()
        if self._log is not None and isinstance(self._persistence, str):
            await asyncio.to_thread(self._log.close)

    dispose = close

    @property
    def log(self) -> Log:
        """The log it owns. Raises Closed before `open`."""
        if self._log is None:
            raise Closed("The runtime is not open: use `async with Runtime(...)`, or await `open()`.")
        return self._log

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
        return await self.bus.request(kind, data, timeout_s=timeout_s)

    # -- containers --

    async def create_container(self, container_id: str) -> ContainerState:
        """Make a container be; already so is fine."""
        command = CreateContainer(container_id=container_id, created_at=self._now_ms())
        reply = await self.ask(f"container-{container_id}", command)
        state: ContainerState = reply.states[0]
        return state

    async def container_state(self, container_id: str) -> ContainerState:
        """The state of a container; one that does not exist has `container_id` None."""
        state: ContainerState = (await self._peek(f"container-{container_id}"))[0]
        return state

    async def container_ids(self) -> list[str]:
        """The ids of all containers, oldest first."""
        streams = await asyncio.to_thread(self.log.streams, "container-")
        return [stream.removeprefix("container-") for stream in streams]

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
        changes = {**(config or {}), **{key: value for key, value in fields.items() if value is not None}}
        changes = {_CAMEL.get(key, key): value for key, value in changes.items()}
        if "tools" in changes:
            changes["tools"] = [getattr(tool, "name", tool) for tool in changes["tools"]]
        known = await self._image_named(container, name) if name is not None else None
        if known is None:
            base = self.default_agent if name is None else replace(self.default_agent, name=name)
            state = await self.create_image(container, config_of(changes, base), alias=name)
        else:
            state = await self.update_image(known.image_id or "", config_of(changes, known.config))
        return Image(self, state.image_id or "", state.session_id, container)

    async def open_image(self, image_id: str, session_id: str | None = None) -> Image:
        """A handle of an image that exists, on its current session or on another of its sessions."""
        state = await self.image_state(image_id)
        return Image(self, image_id, session_id or state.session_id, state.container_id)

    async def _image_named(self, container_id: str, name: str) -> ImageState | None:
        keyed = await asyncio.to_thread(self.log.keyed, self.scope, _name_key(container_id, name))
        if keyed is None:
            return None
        for stored in await asyncio.to_thread(self.log.read, keyed.stream, after=keyed.version - 1, limit=1):
            image_id = stored.batch.head.correlation or ""
            state = await self.find_image(f"img_{image_id}")
            return state
        return None

    async def create_image(self, container_id: str, config: ImageConfig, *, alias: str | None = None) -> ImageState:
        """A new image with its first session, in one append; the container is made if there is none.

        alias: a name that nobody else in the container may take. Taken already: the image that has it is returned.
        """
        self._check(config)
        await self._register_tools(container_id, config)
        number, now = self.clock.new_id(), self._now_ms()
        image_id, session_id = f"img_{number}", self.new_id("sess")
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
            f"container-{container_id}",
            AddImage(container_id=container_id, image_id=image_id, created_at=now),
            companions=((f"image-{image_id}", create), (f"session-{session_id}", session)),
            key=None if alias is None else _name_key(container_id, alias),
            correlation=number,
        )
        if reply.duplicate is not None and alias is not None:
            known = await self._image_named(container_id, alias)
            if known is not None:
                return known
        return await self.image_state(image_id)

    async def find_image(self, image_id: str) -> ImageState | None:
        """The state of an image, None when there is none or it was deleted."""
        state = self._images.get(image_id)
        if state is None:
            state = (await self._peek(f"image-{image_id}"))[0]
            if state.image_id is None or state.deleted:
                return None
            self._images[image_id] = state
        return state

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
            streams = await asyncio.to_thread(self.log.streams, "image-")
            ids = [stream.removeprefix("image-") for stream in streams]
        found = [await self.find_image(image_id) for image_id in ids]
        return [state for state in found if state is not None]

    async def update_image(self, image_id: str, config: ImageConfig) -> ImageState:
        """Give an image another definition; an awake agent takes it over with the next message."""
        state = await self.image_state(image_id)
        if config == state.config:
            return state
        self._check(config)
        await self._register_tools(state.container_id, config)
        await self.ask(f"image-{image_id}", UpdateImage(config=config, updated_at=self._now_ms()))
        return await self.image_state(image_id)

    async def delete_image(self, image_id: str) -> None:
        """Stop its agent, close its sessions, then delete it. One that does not exist is fine."""
        state = await self.find_image(image_id)
        if state is None:
            return
        await self.ask(f"session-{state.session_id}", CloseSession(reason="image_deleted"))
        await self.ask(f"container-{state.container_id}", RemoveImage(image_id=image_id))
        await self.ask(f"image-{image_id}", DeleteImage())

    async def new_session(self, image_id: str, *, alias: str | None = None) -> str:
        """A new session of an image, which becomes its current one. Returns the session's id."""
        state = await self.image_state(image_id)
        session_id = self.new_id("sess")
        create = CreateSession(
            session_id=session_id,
            image_id=image_id,
            container_id=state.container_id,
            created_at=self._now_ms(),
            alias=alias,
        )
        await self.ask(f"session-{session_id}", create)
        await self.ask(f"image-{image_id}", AttachSession(session_id=session_id))
        return session_id

    def _check(self, config: ImageConfig) -> None:
        self._models.parse(config.model)
        if config.tools is not None:
            self.tools.only(config.tools)

    async def _register_tools(self, container_id: str, config: ImageConfig) -> None:
        new = [spec for spec in self._tools_of(config).specs() if (container_id, spec.version) not in self._known_tools]
        if new:
            command = RegisterTools(container_id=container_id, created_at=self._now_ms(), tools=tuple(new))
            await self.ask(f"container-{container_id}", command)
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
        params: ModelParams | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Run:
        """Send a message to an image, waking its agent where it sleeps. Returns the run; see `Image.send`."""
        state = await self.image_state(image_id)
        return self.submit(
            state,
            content_of(content),
            session_id=session_id or state.session_id,
            model=model,
            params=params,
            priority=priority,
            timeout_s=timeout_s,
        )

    def submit(
        self,
        state: ImageState,
        content: tuple[InputPart, ...],
        *,
        session_id: str,
        model: str | None = None,
        params: ModelParams | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Run:
        """As `send`, at once, for an image whose state is at hand."""
        self._alive()
        if model is not None:
            self._models.parse(model)
        job_id = self.new_id("job")
        run = Run(job_id, session_id, self.clock.now, self._ended)
        self._runs.setdefault(session_id, []).append(run)
        overrides = Overrides(model=model, params=params) if model is not None or params is not None else None
        command = Send(
            job_id=job_id,
            content=content,
            waking=self._waking(state),
            overrides=overrides,
            priority=priority,
            timeout_ms=None if timeout_s is None else round(timeout_s * 1000),
        )
        self._system.ask(f"session-{session_id}", self._asked(command), run.answer)
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
                tools=self._tools_of(config).digest,
            ),
        )

    def _ended(self, run: Run) -> None:
        runs = self._runs.get(run.session_id)
        if runs is not None:
            if run in runs:
                runs.remove(run)
            if not runs:
                del self._runs[run.session_id]

    async def messages(self, session_id: str) -> list[Message]:
        """The conversation of a session as messages, oldest first. Raises NotFound for an unknown session."""
        from .projections.transcript import Transcript

        transcript = Transcript()
        for recorded in await self.events(session_id):
            transcript.apply(recorded)
        return list(transcript.messages)

    async def events(self, session_id: str, *, after: int = 0) -> list[Recorded]:
        """The stored events of a session above a version. Raises NotFound for an unknown session."""
        from .events import codec

        stored = await asyncio.to_thread(self.log.read, f"session-{session_id}", after=after)
        if not stored and not after:
            raise NotFound(f"Session not found: {session_id}")
        return [recorded for batch in stored for recorded in codec.unpack(batch)]

    async def follow(self, *, after: int = 0) -> AsyncIterator[Recorded]:
        """Every stored event above a position, without a gap, then on as they come. Ends when the runtime closes."""
        from .events import codec

        while not self.bus.disposed:
            page = await asyncio.to_thread(self.log.read_all, after=after)
            for stored in page:
                for recorded in codec.unpack(stored):
                    after = recorded.position
                    yield recorded
            if not page:
                try:
                    await self.bus.past(after)
                except Closed:
                    return

    # -- agents --

    async def wake(self, image_id: str, session_id: str | None = None) -> tuple[str, bool]:
        """Wake an image's agent. Returns its id, and whether it was awake already."""
        state = await self.image_state(image_id)
        stream = f"session-{session_id or state.session_id}"
        reply = await self.ask(stream, WakeAgent(waking=self._waking(state)))
        reused = not any(isinstance(recorded.data, AgentRegistered) for recorded in reply.events)
        return reply.states[1].agent_id, reused

    async def stop_image(self, image_id: str, *, reason: str = "stopped") -> None:
        """Put an image's agent to sleep, interrupting what it does; the conversation stays."""
        state = await self.image_state(image_id)
        await self.ask(f"session-{state.session_id}", StopAgent(reason=reason))

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
        await self.ask(f"session-{session_id}", ResolveTool(tool=tool, outcome=outcome, output=output))

    async def agent_of(self, image_id: str) -> str | None:
        """The id of an image's awake agent, None when it sleeps."""
        state = await self.find_image(image_id)
        if state is None:
            return None
        agent_id: str | None = (await self._peek(f"session-{state.session_id}"))[1].agent_id
        return agent_id

    async def agents(self, container_id: str) -> list[dict[str, str]]:
        """The awake agents of a container: agentId, containerId, imageId."""
        found = []
        for state in await self.images(container_id):
            agent_id = await self.agent_of(state.image_id or "")
            if agent_id is not None:
                found.append({"agentId": agent_id, "containerId": container_id, "imageId": state.image_id or ""})
        return found

    async def find_agent(self, agent_id: str) -> dict[str, str] | None:
        """An awake agent by its id: agentId, containerId, imageId. None when there is none."""
        known = self._agents.get(agent_id)
        if known is None:
            for container_id in await self.container_ids():
                for agent in await self.agents(container_id):
                    self._agents[agent["agentId"]] = agent
            known = self._agents.get(agent_id)
        return known

    # -- replay --

    async def replay(self, session_id: str) -> Replay:
        """Decide a session again from the log, in another thread and without reaching outside, and compare."""
        stream = f"session-{session_id}"
        stored = await asyncio.to_thread(self.log.read, stream)
        if not stored:
            raise NotFound(f"Session not found: {session_id}")
        return await asyncio.to_thread(replay, stream, stored)

    # -- asking actors --

    async def ask(
        self,
        stream: str,
        command: Command,
        *,
        companions: Iterable[tuple[str, Command]] = (),
        key: str | None = None,
        correlation: str | None = None,
    ) -> Reply:
        """Put a command to an actor and wait until its events are stored and told. Raises what refused it.

        key: an idempotency key, unique in the scope; the same command with it again is not done twice. companions:
        commands for new streams, appended together with this one.
        """
        self._alive()
        noun_of(stream)
        answer: asyncio.Future[Reply] = self._loop.create_future()
        asked = self._asked(command, key=key, correlation=correlation)
        beside = tuple(
            (name, self._asked(each, correlation=asked.correlation or asked.id)) for name, each in companions
        )
        self._system.ask(
            stream, asked, answer.set_result, companions=beside, body=hashlib.sha256(command.type.encode()).digest()
        )
        reply = await answer
        if reply.error is not None:
            raise reply.error
        return reply

    async def _peek(self, stream: str) -> tuple[Any, ...]:
        self._alive()
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._system.peek(stream, answer.set_result)
        reply = await answer
        if reply.error is not None:
            raise reply.error
        return reply.states

    def _asked(self, command: Command, *, key: str | None = None, correlation: str | None = None) -> Asked:
        return Asked(
            id=self.clock.new_id(),
            at=self.clock.now(),
            command=command,
            scope=self.scope,
            principal=self.principal,
            correlation=correlation,
            key=key,
        )

    def _tell(self, stream: str, command: Command, origin: Origin | None) -> None:
        """A command of the runtime's own: the end of an effect, on behalf of whoever caused it."""
        if not self._open:
            return
        asked = self._asked(command)
        if origin is not None:
            asked = replace(
                asked,
                scope=origin.scope,
                principal=origin.principal,
                cause=origin.cause,
                correlation=origin.correlation,
                trace=origin.trace,
            )
        self._system.ask(stream, asked, lambda reply: self._answered(stream, command, reply))

    def _answered(self, stream: str, command: Command, reply: Reply) -> None:
        if reply.error is not None:
            _log.error("%s refused %s: %s", stream, command.type, reply.error)
            self._system_error(stream, command, reply.error)

    def _system_error(self, stream: str, command: Command, error: Exception) -> None:
        data = {"message": str(error), "severity": "error", "details": {"stream": stream, "command": command.type}}
        self.bus.emit(
            Live("system_error", data, at=self.clock.now(), source="command", category="error", intent="notification")
        )

    def _alive(self) -> None:
        if not self._open:
            raise Closed("The runtime is not open: use `async with Runtime(...)`, or await `open()`.")

    def _now_ms(self) -> int:
        return self.clock.now() // 1000

    # -- telling --

    def _publish(self, group: list[Any]) -> None:
        """On a worker thread: what one commit brought, in log order. Everybody hears of it on the loop."""
        try:
            self._loop.call_soon_threadsafe(self._told, group)
        except RuntimeError:
            _log.debug("the loop is closed; %d batches were stored and not told", len(group))

    def _told(self, group: list[Committed]) -> None:
        for committed in group:
            if committed.events:
                self._tell_events(committed.events)
            if committed.events or committed.owed:
                self._dispatch.owed(committed.stream, committed.owed, committed.events)
        for committed in group:
            if committed.told is not None:
                with suppress(asyncio.InvalidStateError):  # whoever asked has gone
                    committed.told(committed.reply)

    def _tell_events(self, events: Iterable[Recorded]) -> None:
        batch: list[BusEvent] = []
        for recorded in events:
            batch.append(recorded)
            if recorded.stream.startswith("session-"):
                session = self._live_of(recorded)
                batch.extend(session.apply(recorded))
            self._note(recorded)
        self.bus.emit_batch(batch)
        for event in batch:
            if event.position is not None and isinstance(event, Recorded):
                runs = self._runs.get(event.session_id or "")
                if runs:
                    for run in tuple(runs):
                        run.see(event)

    def _note(self, recorded: Recorded) -> None:
        """Keep at hand what the runtime looks up by id."""
        data = recorded.data
        if isinstance(data, AgentRegistered):
            self._agents[data.agent_id] = {
                "agentId": data.agent_id,
                "containerId": data.container_id,
                "imageId": data.image_id,
            }
        elif isinstance(data, AgentUnregistered):
            self._agents.pop(data.agent_id, None)
            self._later(self._outside.forget(data.agent_id))
        elif isinstance(data, ImageCreated | ImageUpdated | SessionAttached):
            image_id = recorded.stream.removeprefix("image-")
            before = self._images.get(image_id)
            if before is not None or isinstance(data, ImageCreated):
                from .actors.image import evolve

                self._images[image_id] = evolve(before or ImageState(), data, recorded.stamp)
        elif isinstance(data, ImageDeleted):
            self._images.pop(data.image_id, None)

    def _later(self, work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(_report)

    def _live_of(self, recorded: Recorded) -> LiveSession:
        session = self._live.get(recorded.stream)
        if session is None:
            session_id = recorded.stream.removeprefix("session-")
            session = LiveSession(session_id, whole=isinstance(recorded.data, SessionCreated))
            self._keep(recorded.stream, session)
        return session

    def _keep(self, stream: str, session: LiveSession) -> None:
        while len(self._live) >= LIVE_MAX:
            del self._live[next(iter(self._live))]
        self._live[stream] = session

    async def _session(self, stream: str) -> LiveSession:
        """A session with all its past: at hand, or read from the log."""
        session = self._live.get(stream)
        if session is None:
            session = LiveSession(stream.removeprefix("session-"), whole=False)
            self._keep(stream, session)
        if not session.whole:
            task = self._loading.get(stream)
            if task is None:
                task = self._loading[stream] = asyncio.ensure_future(self._load(stream, session))
            await asyncio.shield(task)
        return session

    async def _load(self, stream: str, session: LiveSession) -> LiveSession:
        try:
            session.load(await asyncio.to_thread(self.log.read, stream))
            return session
        finally:
            del self._loading[stream]

    def _signal(self, session: LiveSession, signal: Signal) -> None:
        """Something seen live: to the bus, and to whoever runs a job there."""
        now = self.clock.now()
        event = live(signal, at=now, context=session.ids)
        self.bus.emit(event)
        for notice in session.signal(signal, now):
            self.bus.emit(notice)
        runs = self._runs.get(session.session_id)
        if runs:
            for run in runs:
                run.see(event)

    def _default_environment(self, spec: EnvironmentSpec) -> Environment:
        return ModelEnvironment(self._models, spec.model.partition(":")[0])


_CAMEL = {"max_steps": "maxSteps", "instructions": "systemPrompt", "system_prompt": "systemPrompt"}


def _name_key(container_id: str, name: str) -> str:
    return f"image:{container_id}/{name}"


def _report(task: asyncio.Future[object]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("in the background: %s", task.exception())


__all__ = ["BadInput", "Image", "Runtime", "from_environment", "msgspec"]
