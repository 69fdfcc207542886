"""The sender: what a message to an image becomes, a job in its session; and what an agent is woken with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import msgspec
from msgspec.structs import replace

from .actors.image import State as ImageState
from .actors.policy import asks_who
from .actors.selection import provider_of
from .adapters.models import Models
from .adapters.tools.acting import within
from .adapters.tools.registry import Tools
from .catalog.definitions import tools_of
from .environment import EnvironmentSpec
from .events.agent import AgentRegistered, WakeAgent
from .events.budget import Terms, spec_of
from .events.content import InputPart
from .events.errors import BadInput
from .events.image import ImageConfig
from .events.message import digest
from .events.model import Credentials, ModelParams
from .events.policy import ApplyPolicy, Policy
from .events.secret import Secret
from .events.session import Definition, Overrides, Send, Waking
from .given import check_id, check_sending, checked_text, fallbacks_of
from .identity.access import Access
from .models.provider_keys import ProviderKeys, credentials_of
from .money.treasury import Addresses, Treasury
from .people.handlers import ApprovalHandler, brought
from .rules.policies import OfJob, Policies, limits_cost
from .run import Run

NO_KEYS: Mapping[str, tuple[Credentials, ...]] = {}


class MessageOptions(TypedDict, total=False):
    """What may be said of a message besides its content: see `Image.send`."""

    model: str | None
    fallbacks: Sequence[str] | None
    params: ModelParams | None
    budget: object
    priority: int
    timeout_s: float | None
    key: str | None
    approval_handler: ApprovalHandler | None
    policy: OfJob | None
    credentials: Mapping[str, Any] | None


class Sender:
    """What goes out of one scope to the sessions in it."""

    def __init__(
        self,
        access: Access,
        policies: Policies,
        treasury: Treasury,
        *,
        models: Models,
        tools: Tools,
        new_id: Callable[[str], str],
        keys: ProviderKeys,
    ) -> None:
        self._access = access
        self._kernel = access.kernel
        self._clock = access.kernel.clock
        self._policies = policies
        self._treasury = treasury
        self._models = models
        self._tools = tools
        self._new_id = new_id
        self._keys = keys

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
        policy: OfJob | None = None,
        credentials: Mapping[str, Any] | None = None,
    ) -> Run:
        """Put a message to the session of an image, with all that its agent would be woken with: see `Image.send`."""
        check_id(session_id, "session_id")
        if model is not None:
            self._models.parse(checked_text(model, "model"))
        others = None
        if fallbacks is not None:
            others = fallbacks_of(fallbacks)
            for each in others:
                self._models.parse(checked_text(each, "fallbacks"))
        check_sending(params, priority, timeout_s)
        spec = spec_of(budget)
        handler = brought(approval_handler, self._access)
        job_id = self._new_id("job")
        run = Run(job_id, session_id, self._clock.now, self._kernel.runs.let_go, handler=handler)
        if credentials is not None and not isinstance(credentials, Mapping):
            raise BadInput(f"credentials must be by provider, not a {type(credentials).__name__}.")
        for provider, given in (credentials or {}).items():
            own = Credentials(api_key=given) if isinstance(given, str | Secret) else given
            run.credentials[provider] = self._keys.hidden(provider, credentials_of(own), self._access.who)
        overrides = None
        if model is not None or params is not None or others is not None or policy is not None:
            narrowed = None if policy is None else self._policies.of_job(state, policy, session_id)
            overrides = Overrides(model=model, params=params, fallbacks=others, policy=narrowed)
        layers = self._policies.layers(state, session_id)
        asked = overrides if spec is None else (overrides, spec)  # as it was asked: prices may be others next time
        senders = self._of_sender(layers, session_id)
        if senders:
            overrides = replace(overrides or Overrides(), within=senders)
        if origin := self._access.origin:
            overrides = replace(overrides or Overrides(), origin=origin)
        narrowing = senders if overrides is None or overrides.policy is None else (overrides.policy, *senders)
        own_limits = limits_cost(*narrowing)
        priced = own_limits or ((model is not None or bool(others)) and limits_cost(*layers))
        terms = self._treasury.own_terms(
            spec,
            model,
            others,
            state.config,
            lambda: self._preamble(state.config),
            self._addresses(state, session_id, run.credentials),
            elsewhere=any(each.base_url for given in run.credentials.values() for each in given),
            priced=priced,
        )
        if terms is not None:
            overrides = replace(overrides or Overrides(), terms=terms)
        if asks_who((*layers, *narrowing)):
            overrides = replace(overrides or Overrides(), principal=self._access.acting_as)
        command = Send(
            job_id=job_id,
            content=content,
            waking=self._waking(state, layers, session_id),
            overrides=overrides,
            priority=priority,
            timeout_ms=None if timeout_s is None else round(timeout_s * 1000),
        )
        if key is None:
            self._kernel.submit(session_id, command, run, by=self._access.who)
        else:
            said = self._kernel.vault.hidden(content, self._access.scope)  # not even a digest of a secret is stored
            body = digest(_nameless((state.image_id, said, asked, priority, timeout_s)))
            named = f"send:{checked_text(key, 'key')}"
            self._kernel.submit(session_id, command, run, key=named, body=body, by=self._access.who)
        return run

    def _of_sender(self, layers: tuple[Policy, ...], session_id: str | None) -> tuple[Policy, ...]:
        """The rules of an agent that sends a job, but for those that the runtime lays over all its agents."""
        rules = self._access.within
        if not rules:
            return ()
        everybody = layers[: len(self._policies.own_of(session_id))]
        return tuple(layer for layer in rules if layer not in everybody)

    async def wake(self, state: ImageState, session_id: str) -> tuple[str, bool]:
        """Wake the agent of an image without a message. Returns its id, and whether it was awake already. The prices
        must be at hand, see `ready`."""
        waking = self._waking(state, self._policies.layers(state, session_id), session_id)
        reply = await self._access.ask(f"session-{session_id}", WakeAgent(waking=waking))
        reused = not any(isinstance(recorded.data, AgentRegistered) for recorded in reply.events)
        return reply.states[1].agent_id, reused

    def waits(
        self,
        state: ImageState,
        *,
        model: str | None = None,
        fallbacks: Sequence[str] | None = None,
        budget: object = None,
        policy: OfJob | None = None,
        session_id: str | None = None,
        **others: Any,
    ) -> bool:
        """Whether prices must be loaded before its agent is woken, or a message with these settings is put to it.

        others: settings that make no difference. Raises BadInput for models that are no names.
        """
        config = state.config
        models: tuple[str, ...] = (config.model, *config.fallbacks)
        if model is not None:
            models = (checked_text(model, "model"), *models)
        if fallbacks is not None:
            models = (*models, *fallbacks_of(fallbacks))

        def priced() -> bool:
            return policy is not None or self._is_priced(state, session_id) or limits_cost(*(within() or ()))

        return self._treasury.waits(models, budget or config.budget, priced)

    def _is_priced(self, state: ImageState, session_id: str | None) -> bool:
        """Whether a rule limits what a call of its agent may cost."""
        return limits_cost(*self._policies.layers(state, session_id))

    def _waking(self, state: ImageState, layers: tuple[Policy, ...], session_id: str) -> Waking:
        config = state.config
        return Waking(
            agent_id=self._new_id("agent"),
            image_id=state.image_id or "",
            container_id=state.container_id,
            registered_at=self._clock.now() // 1000,
            definition=Definition(
                image_version=state.version,
                model=config.model,
                params=config.params,
                max_steps=config.max_steps,
                fallbacks=config.fallbacks,
                tools=tools_of(self._tools, config).digest,
                approval_required=config.approval_required,
                approval_timeout_s=config.approval_timeout_s,
                policy=layers,
                scope=self._access.scope,
                terms=self._terms(state, layers, session_id),
            ),
        )

    async def ready(self, state: ImageState, session_id: str, models: Sequence[str] = ()) -> None:
        """Have the prices at hand, where the agent of an image must know those of its models, or of these."""
        called = state.config.model, *state.config.fallbacks, *models
        if self._treasury.waits(called, state.config.budget, lambda: self._is_priced(state, session_id)):
            await self._treasury.ready()

    def rules(self, state: ImageState, session_id: str, models: Sequence[str] = ()) -> ApplyPolicy:
        """What the agent of an image is held to now in a session, in which it may call these models too. The prices
        must be at hand, see `ready`."""
        layers = self._policies.layers(state, session_id)
        return ApplyPolicy(
            policy=layers,
            scope=self._access.scope,
            terms=self._terms(state, layers, session_id, tuple(models)),
            approval_required=state.config.approval_required,
            approval_timeout_s=state.config.approval_timeout_s,
        )

    def _terms(
        self, state: ImageState, layers: tuple[Policy, ...], session_id: str, models: tuple[str, ...] = ()
    ) -> Terms | None:
        return self._treasury.terms(
            (state.image_id, state.version, tools_of(self._tools, state.config).digest, models),
            state.config,
            lambda: self._preamble(state.config),
            self._addresses(state, session_id),
            priced=lambda: limits_cost(*layers),
            models=models,
        )

    def _addresses(
        self, state: ImageState, session_id: str, given: Mapping[str, tuple[Credentials, ...]] = NO_KEYS
    ) -> Addresses:
        """Where the calls of a model may go in a session: with the keys of a message, else with those of its tenant."""

        def where(model: str) -> tuple[str | None, ...]:
            provider = provider_of(model)
            if provider == "scripted":
                return (None,)
            if own := given.get(provider):
                return tuple({each.base_url: None for each in own})
            spec = EnvironmentSpec(
                agent_id="",
                image_id=state.image_id or "",
                session_id=session_id,
                container_id=state.container_id,
                model=model,
                system_prompt=state.config.system_prompt,
                workspace=state.config.workspace,
                scope=self._access.scope,
                principal=self._access.who.principal,
            )
            return self._keys.addresses(provider, spec)

        return where

    def _preamble(self, config: ImageConfig) -> str:
        """What a model reads before the conversation."""
        return config.system_prompt + msgspec.json.encode(tools_of(self._tools, config).specs()).decode()


def _nameless(said: tuple[object, ...]) -> bytes:
    """What a message says, whatever its secrets are called by now: the same message again is the same."""
    raw = msgspec.msgpack.encode(said)
    return _MASKS.sub(b"[secret]", msgspec.json.encode(said)) if b"[secret:" in raw else raw


_MASKS = re.compile(rb"\[secret:[^\]]*\]")
