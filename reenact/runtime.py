"""The runtime: the four rooms wired together, and what a program does with them.

A command goes to its actor, what it decides goes to the log, and only then does anybody hear of it: first the bus, then
whoever asked, then the world that owes something. Opening a runtime takes up what an earlier owner of the log left.

Here it is put together, opened and closed, one set of rooms a view; messages, money and reading are asked for here too.
Its other methods are in three files by what they are about: `inventory` (containers, images, sessions, policy),
`supervision` (agents and what they are at), `questions` (to people). Behind each method is a line or two; what is done
is in the file of its noun: containers, images, sessions, agents, sender, asking, handlers, treasury.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from msgspec.structs import replace

from .actors.cell import noun_of
from .actors.clock import Clock, Ids, SystemClock
from .actors.engine import PolicyEngine
from .actors.failover import Failover
from .actors.replay import Replay
from .adapters.models import Models, Retries
from .adapters.tools.acting import acting_as
from .adapters.tools.registry import Tools
from .catalog.agents import Agents
from .catalog.containers import Containers
from .catalog.definitions import Definitions
from .catalog.images import Images
from .catalog.kept import HEARD, Kept
from .catalog.sessions import Sessions
from .catalog.unreadable import with_each
from .environment import Environment, EnvironmentFactory, EnvironmentSpec, ModelEnvironment
from .events.action import (
    ActionCancelled,
    ActionEnded,
    ActionExpired,
    ActionRequired,
    ActionResolved,
    is_reserved,
)
from .events.agent import AgentUnregistered
from .events.budget import Budget
from .events.bus import SystemBus
from .events.errors import BadInput, ReenactError, StoreError, Unauthenticated
from .events.image import ImageConfig
from .events.ledger import BudgetRaised, BudgetRemoved, BudgetSet
from .events.log import Log
from .events.message import Command, Context, Live, Recorded
from .events.notice import Message
from .events.purse import AllotmentReleased
from .events.queue import LiveView
from .events.request import TIMEOUT_S
from .events.secret import Secret
from .events.subscription import Subscription
from .flow.kernel import Kernel, Who
from .flow.perform import Outside
from .flow.recovery import Recovery
from .given import checked_text, config_of, content_of
from .identity.access import BY_HAND, NO_LIMITS, Access, check_no_name
from .identity.context import ExecutionContext, checked_context
from .identity.pane import Pane
from .models.fallover import Fallover
from .models.provider_keys import Provide, ProviderKeys, from_environment
from .models.windows import Windows
from .money.treasuries import Treasuries
from .money.uses import LimitUse
from .options import check_options
from .people.asking import Asking
from .people.handlers import HANDLER_TIMEOUT_S, ApprovalHandler, Handlers, brought
from .questions import Questions
from .requests import register
from .rules.policies import Given, Policies, policies_from
from .run import Run
from .secrets.discretion import discreet, mask
from .secrets.vault import Vault
from .sender import MessageOptions, Sender
from .supervision import Supervision

if TYPE_CHECKING:
    from .actors.system import Reply
    from .adapters.hosts.local import LocalServer
    from .identity.credential import Authenticator
    from .identity.scoped import Acting


@discreet
class Runtime(Supervision, Questions):
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
    handler_timeout_s: the seconds that it has for each, and one of a message too; then the answer is no.
    armed: False: what is decided is recorded, and nothing is done; the next armed owner does it.
    policy: rules for all of its agents: a `Policy`, the path of a file of TOML, several of them, outermost first, or a
    `PolicyEngine`, whose rules are taken as they stand, and whose policies a `PolicyRef` can name for one job.
    budget: a limit of its scope: a `Budget`, a dict of its fields, or dollars in all. It is set when the log is opened
    with it for the first time, or with another than last: what was set, raised or lifted since stands over restarts.
    scope, principal: on whose behalf it acts by itself, see `scoped`. authenticator: tells who shows a token.
    secrets: by name, see `secret`. patterns: what else is taken for a secret by its look, see `patterns.patterns_of`.
    threads: so many decide and commit. Default: two, and the loop itself for a session that is alone on a quick disk.
    """

    _keeps_rules = False
    """Whether a session is held to the policies that it was last run under, in the place of this runtime's own: for who
    takes up at a command line what was begun at another. Set before anything is asked."""

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
        handler_timeout_s: float = HANDLER_TIMEOUT_S,
    ) -> None:
        check_options(
            tools=tools,
            secrets=secrets,
            base_path=base_path,
            credentials=credentials,
            models=models,
            retries=retries,
            clock=clock,
            authenticator=authenticator,
            environment_factory=environment_factory,
            approval_handler=approval_handler,
            threads=threads,
            recover=recover,
            armed=armed,
        )
        self.tools = tools if isinstance(tools, Tools) else Tools(tools)
        self.default_agent = config_of(default_agent, ImageConfig())
        self.base_path = Path(base_path) if base_path is not None else Path(".reenact")
        who = Who(checked_text(scope, "scope"), checked_text(principal, "principal"))
        self.clock = clock or SystemClock()
        self.new_id = Ids(self.clock)
        self._models = models or Models()
        self._vault = Vault(patterns, scope=who.scope, is_tool=self.tools.__contains__, is_model=self._models.is_name)
        self._vault.environment(os.environ, principal=who.principal)
        for name, value in (secrets or {}).items():
            check_no_name(value, who)
            self._vault.add(name, value, scope=scope, common=True)
        shown, said = self._vault.shown, self._vault.log_line
        self.bus = SystemBus(now=self.clock.now, whose=self._whose, shown=shown, said=said)
        retries = retries or Retries()
        self._kernel = Kernel(
            persistence,
            bus=self.bus,
            clock=self.clock,
            who=who,
            hear=self._hear,
            vault=self._vault,
            threads=threads,
        )
        self._keys = ProviderKeys(self._kernel, credentials)
        self._recovery = Recovery(self._kernel, self._bring, scope)
        self._recover = recover
        self._armed = armed
        self._root = self
        self._kept: dict[str, Kept] = {}
        self._definitions = Definitions(self._kernel, self._kept)
        self._authenticator = authenticator
        handler = brought(approval_handler, Access(self._kernel, who)) if armed else None
        self._handlers = Handlers(self, handler, handler_timeout_s)
        self._own_policies = policies_from(policy)
        self._engine = policy if isinstance(policy, PolicyEngine) else None
        self._treasuries = Treasuries(self._kernel, self.clock)
        self._outside = Outside(
            self._kernel,
            self._definitions,
            tools=self.tools,
            environment=environment_factory or self._default_environment,
            fallover=Fallover(
                Failover() if failover is None else failover,
                retries,
                self.clock,
                self._keys.known,
                Windows(self._kernel),
            ),
            retries=retries,
            base_path=self.base_path,
            treasury=self._treasuries.of,
            bring=self._bring,
            actions=self._actions_of,
        )
        self._act(who)
        self._budget = None if budget is None else self._treasury.checked(budget)
        self._server: LocalServer | None = None
        self._opening = asyncio.Lock()
        register(self)

    def _act(self, who: Who) -> None:
        """Everything here that depends on whose runtime it is: a view of it makes its own. Nobody is looked for among
        the secrets: whoever names one would decide who may act."""
        self.scope, self.principal = who.scope, who.principal
        access = self._access = Access(self._kernel, who)
        self._peek = access.peek
        self._asking = Asking(self)
        self._treasury = self._treasuries.of(who.scope)
        kept = self._kept.get(who.scope)
        if kept is None:
            policies = Policies(
                self._own_policies, tools=self.tools, container=self.container_state, engine=self._engine
            )
            agents = Agents(self._peek, self.images, lambda image_id: self._images.sessions(image_id))
            kept = self._kept[who.scope] = Kept(agents, policies)
        self._agents, self._policies, self._at_hand = kept.agents, kept.policies, kept.images
        self._containers = Containers(access, kept, self.bring_policy)
        self._images = Images(
            access,
            kept,
            self._containers,
            self._definitions,
            models=self._models,
            tools=self.tools,
            new_id=self.new_id,
            bring=self.bring_policy,
        )
        self._sessions = Sessions(access, kept, self._images, self._definitions, new_id=self.new_id)
        self._sender = Sender(
            access,
            kept.policies,
            self._treasury,
            models=self._models,
            tools=self.tools,
            new_id=self.new_id,
            keys=self._keys,
        )
        self._submit = self._sender.submit

    async def ask(self, stream: str, command: Command, **more: Any) -> Reply:
        """Put a command that was made by hand to a stream, past all that the methods look at first; see `Kernel.ask`.

        It is the program's own: raises NotAPerson inside of a tool, and Refused on a view, whatever the command is.
        Raises BadInput for what is no name of a stream, or no command.
        """
        self._access.check_person(BY_HAND)
        if not isinstance(command, Command):
            raise BadInput(f"A command is one of those in reenact.events, not {ascii(command)[:60]}.")
        try:
            noun_of(checked_text(stream, "stream"))
        except KeyError:
            raise BadInput(f"No stream is named {stream[:60]!a}: `session-<id>` is one.") from None
        return await self._access.ask(stream, command, **more)

    # -- on whose behalf --

    def _whose(self, given: Context | None) -> Context:
        """Who asks over the bus: inside of a tool its agent, whatever the context says that came with it."""
        if given is None:
            return Context(self.scope, self.acting_as)
        agent = acting_as()
        return given if agent in (None, given.principal) else replace(given, principal=agent)

    def _of_scope(self, scope: str) -> Runtime:
        """This runtime's own principal, in another scope."""
        return self if scope == self.scope else self._root.scoped(scope=scope)

    def as_(self, context: ExecutionContext) -> Acting:
        """This runtime, acting for the scope and the principal of a context: what other scopes have is not there.

        What is asked through it has the context's trace in its envelope, and a job sent through it is cancelled with
        its token. Make the context from a caller's credential, never from what the caller sends.
        """
        from .identity.bounds import Bounds
        from .identity.scoped import Acting

        return Acting(self._root, Bounds(checked_context(context), traced=True))

    def scoped(self, *, scope: str | None = None, principal: str | None = None) -> Acting:
        """This runtime, acting for another scope or principal, outside of any trace; see `as_`."""
        from .identity.bounds import Bounds
        from .identity.scoped import Acting

        context = ExecutionContext(
            scope_id=self.scope if scope is None else scope,
            principal_id=self.principal if principal is None else principal,
        )
        return Acting(self._root, Bounds(context, traced=False))

    async def authenticate(self, token: str) -> Acting:
        """This runtime, acting for whoever shows this token, and for no other principal. Raises Unauthenticated."""
        from .identity.bounds import Bounds
        from .identity.scoped import Acting

        if self._authenticator is None:
            raise Unauthenticated("This runtime knows no callers: give it an authenticator.")
        context = await self._authenticator.authenticate(token)
        if is_reserved(context.principal_id):
            raise Unauthenticated(f"No credential makes its holder {context.principal_id[:60]!a}, which is reserved.")
        return Acting(self._root, Bounds(context, traced=True, shown=True))

    @property
    def acting_as(self) -> str:
        """The principal that whoever calls now acts as: inside of a tool, its agent."""
        return self._access.acting_as

    # -- life --

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> Self:
        """Open the log as its owner and take up what is owed in it. Raises `Owned` when another process owns it.

        Nothing is sent before the limits in the log are known, and the program's own is set: who opens it meanwhile
        waits for that. Where it fails behind the opening of the log, or is cancelled there, it is closed.
        """
        async with self._opening:
            if not self._kernel.opened:
                self._vault.open()
                for policy in self._policies.own:
                    self._policies.look(policy)
                await self._kernel.open(self._outside, armed=self._armed, asleep=self._outside.forget)
                try:
                    await self._begin()
                except BaseException:
                    await asyncio.shield(self.close())
                    raise
        return self

    async def _begin(self) -> None:
        with self._kernel.opening():
            await self._treasuries.open()
            if self._budget is not None and not self._treasury.opened_with(self._budget):
                await self._limit(self._budget, self._treasury.order.asked(), opening=True)
        if self._recover:
            await self._kernel.recover(self._recovery.take_up)
        await self._listen()
        if self._recover:
            await self._handlers.take_up()

    async def _listen(self) -> None:
        """Answer other processes; where this cannot be, go on without."""
        from .owner import answer

        try:
            self._server = await answer(self, self.log)
        except StoreError as error:
            logging.getLogger("reenact").warning("other processes cannot send commands: %s", error)

    async def close(self) -> None:
        """Stop what runs, without a word in the log: it stays owed, and the next owner takes it up. Idempotent.

        What was begun is given 1.5 seconds to stop. A call of a tool that was under way is in doubt then, also where it
        came to its end in that time: one that may not be repeated waits for a person when the log is opened again.
        """
        was_open = self._kernel.opened
        if self._server is not None:
            server, self._server = self._server, None
            await server.close()
        await self._handlers.close()
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
        return self._access.reads

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

    async def request(self, kind: str, data: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S) -> Live:
        """Ask by name, and get the response: its `data.error` says what failed; only a time-out raises."""
        envelope = Context(self.scope, self.acting_as)
        return await self._root.bus.request(kind, data, timeout_s=timeout_s, context=envelope)

    # -- secrets --

    def secret(self, name: str, value: str | Secret) -> Secret:
        """Know a secret: its value is in no event and no message from now on, `[secret:name]` stands in its place.

        A tool gets it by its name, from `ToolContext.secret`. It is kept in memory only: register it at every start.
        Found are its exact value and that in JSON, URLs and base64; not what is written otherwise. Looked for in what
        this scope says; that of the runtime itself in every scope, from `vault.COMMON_CHARS` characters on. Raises
        NotAPerson inside of a tool: no rule can be set with a secret in it, so it could keep itself from being denied.
        """
        self._access.check_person("Secrets are named by people and programs, never by an agent or its tools.")
        check_no_name(value, self._access.who)
        return self._vault.add(name, value, scope=self.scope, common=self._root is self)

    # -- messages --

    async def send(
        self, image_id: str, content: object, *, session_id: str | None = None, **options: Unpack[MessageOptions]
    ) -> Run:
        """Send a message to an image, waking its agent where it sleeps. Returns the run; see `Image.send`."""
        state = await self._images.state(image_id)
        if self._sender.waits(state, session_id=session_id, **options):
            await self._treasury.ready()
            state = await self._images.state(image_id)  # a rule that was set meanwhile holds for it
        return self._submit(state, content_of(content), session_id=session_id or state.session_id, **options)

    def sending(
        self, image_id: str, content: object, *, session_id: str | None = None, **options: Unpack[MessageOptions]
    ) -> asyncio.Future[Run]:
        """As `send`, at once where the image is at hand; what is wrong with the message is raised by the future."""
        state = self._at_hand.get(image_id) if isinstance(image_id, str) else None
        sent: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        try:
            at_hand = state is not None and self._policies.at_hand(state.container_id)
            if state is None or not at_hand or self._sender.waits(state, session_id=session_id, **options):
                return asyncio.ensure_future(self.send(image_id, content, session_id=session_id, **options))
            there = session_id or state.session_id
            sent.set_result(self._submit(state, content_of(content), session_id=there, **options))
        except Exception as error:
            mask(error, self)
            sent.set_exception(error)
        return sent

    # -- budgets --

    async def set_budget(self, budget: object) -> Budget:
        """Limit what this scope may use, or one principal or session of it.

        budget: a `Budget`, a dict of its fields, or dollars in all. It binds every session's next call of a model, also
        of one that was not limited before, in the middle of its turn. What was used while nothing was limited counts
        too: when this returns, or, of a call that is under way now, when it ends. Raises BadInput.
        """
        return await self._limit(budget, self._treasury.order.asked())

    async def _limit(self, budget: object, asked: int, *, opening: bool = False) -> Budget:
        """The same, of one that was asked for before, by way of a `Ledger`, or as this runtime was made."""
        self._access.check_person(NO_LIMITS)
        made = self._treasury.checked(budget)
        if made.degrade_to is not None:
            self._models.parse(made.degrade_to)
        if made.exceed_strategy == "degrade":
            await self._treasury.ready()
            images = [state.config for state in await self.images()]
            self._treasury.check_degrading(made, images or [self.default_agent])
        if made.degrade_to is None:
            await self._treasury.set(made, self._access.ask, asked, opening=opening)
        else:
            with self._treasury.foreseeing(made.degrade_to):
                # Before it is set, for who is limited already may be sent to that model at once; and who began since.
                with suppress(ReenactError):
                    await with_each(await self._sessions.unpriced(made.degrade_to), self.bring_policy)
                await self._treasury.set(made, self._access.ask, asked, opening=opening)
            await with_each(await self._sessions.unpriced(made.degrade_to), self.bring_policy)
        # Who was limited before and knows its ledger was told nothing of prices and texts that changed since.
        lifts = self._treasury.lifts
        at_work = self._sessions.unlimited if self._treasury.told == lifts else self._sessions.at_work
        await with_each(await at_work(), self.bring_policy)
        self._treasury.told = max(lifts, self._treasury.told)
        await self._treasury.counted()
        return made

    async def remove_budget(self, *, principal_id: str | None = None, session_id: str | None = None) -> bool:
        """Lift the limits of this scope, or those of one principal or session of it. False when there were none."""
        self._access.check_person(NO_LIMITS)
        return await self._treasury.remove(self._access.ask, principal_id, session_id)

    async def budget(self) -> list[LimitUse]:
        """Every limit of this scope, with what is used of it, set aside and left."""
        return await self._treasury.use()

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The limits that are in force."""
        return self._treasury.rules

    # -- reading --

    async def messages(self, session_id: str) -> list[Message]:
        """The conversation of a session as messages, oldest first. Raises NotFound for an unknown session."""
        return await self._sessions.messages(session_id)

    async def events(self, session_id: str, *, after: int = 0) -> list[Recorded]:
        """The stored events of a session above a version. Raises NotFound for an unknown session."""
        return await self._sessions.events(session_id, after=after)

    def follow(self, *, after: int = 0) -> AsyncIterator[Recorded]:
        """Every stored event above a position, without a gap, then on as they come. Ends when the runtime closes.

        Of the whole log, all scopes; a view of one scope gives those of its own.
        """
        return self._access.follow(after, whole=self is self._root)

    async def replay(self, session_id: str) -> Replay:
        """Decide a session again from the log, in another thread and without reaching outside, and compare."""
        return await self._sessions.replay(session_id)

    # -- what happens, as it is told --

    def _hear(self, recorded: Recorded) -> None:
        """Have those hear of an event that it is about: who asks handlers, a treasury, or what is kept at hand."""
        data = recorded.data
        if type(data) not in _HEARD:
            return
        if isinstance(data, ActionRequired):
            self._handlers.hear(recorded, data)
            return
        if isinstance(data, ActionEnded):
            self._vault.take_back(f"{recorded.session_id}:{data.action}")
            return
        scope = recorded.head.context.scope
        if isinstance(data, BudgetSet | BudgetRemoved | BudgetRaised | AllotmentReleased):
            self._treasuries.of(scope).hear(recorded)
            return
        if isinstance(data, AgentUnregistered):
            self._outside.forget(recorded.stream)
        kept = self._kept.get(scope)
        if kept is not None:  # else nobody has looked at this scope yet, and there is nothing to keep up
            kept.hear(recorded)

    async def _bring(self, session_id: str, scope: str) -> None:
        """The same for a session of any scope."""
        await self._of_scope(scope).bring_policy(session_id)

    def _actions_of(self, call: tuple[str, str | None, str, str], waiting: Any, scope: str) -> Any:
        from .people.actions import ActionManager

        return ActionManager(self._of_scope(scope), call=call, waiting=waiting)

    def _default_environment(self, spec: EnvironmentSpec) -> Environment:
        return ModelEnvironment(self._models, spec.model.partition(":")[0])


_HEARD = {
    ActionRequired,
    ActionResolved,
    ActionExpired,
    ActionCancelled,
    AllotmentReleased,
    BudgetRaised,
    BudgetRemoved,
    BudgetSet,
    *HEARD,
}


__all__ = ["Runtime", "from_environment"]
