"""A model called for an agent: one attempt, its answer told as it comes, and the command that tells how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..actors.failover import crashed
from ..actors.policy import rights_of
from ..adapters import prices
from ..adapters.tools.registry import Tools
from ..catalog.definitions import tools_of
from ..environment import PLAIN, Environment, EnvironmentFactory, EnvironmentSpec
from ..events.agent import AnswerModel, CallModel, CancelEffect, FailModel, ModelCalled, SelectModel
from ..events.assembler import Assembler
from ..events.content import Cost, Failure, OutputPart, ToolCall, Usage
from ..events.errors import ReenactError
from ..events.failpoint import failpoint
from ..events.image import ImageConfig
from ..events.message import Command
from ..events.model import Credentials, ModelAnswer, ModelFailure, ModelRequest
from ..events.policy import Policy, PolicyDecision
from ..events.stream import Connected, Disconnected, ErrorReceived, Reconnecting
from ..events.tool import CallCheck
from ..flow.kernel import Who
from ..money.bill import Bill
from ..money.recalls import patiently
from ..secrets.texts import WORDS
from .patience import Patience

if TYPE_CHECKING:
    from ..adapters.models.retry import Retries
    from ..catalog.definitions import Definitions
    from ..flow.kernel import Kernel
    from ..flow.live import LiveSession
    from ..money.treasury import Treasury
    from ..tools.places import Places
    from .fallover import Fallover

_log = logging.getLogger("reenact")


class ModelCalls:
    """The calls of models, and one environment an agent through which they go, kept by session while it is awake."""

    def __init__(
        self,
        kernel: Kernel,
        definitions: Definitions,
        places: Places,
        *,
        tools: Tools,
        environment: EnvironmentFactory,
        fallover: Fallover,
        retries: Retries,
        treasury: Callable[[str], Treasury],
        bring: Callable[[str, str], Awaitable[None]],
    ) -> None:
        """bring(session_id, scope): holds the agent of a session to the rules and limits of now."""
        self._clock, self._ask = kernel.clock, kernel.ask
        self._later = kernel.later
        self._session, self._emit = kernel.telling.session, kernel.telling.signal
        self._image, self._config = definitions.image, definitions.config
        self._places = places
        self._tools = tools
        self._vault = kernel.vault
        self._environment = environment
        self._fallover = fallover
        self._retries = retries
        self._treasury = treasury
        self._bring = bring
        self._environments: dict[str, tuple[EnvironmentSpec, Environment]] = {}
        self._connected: set[str] = set()

    async def call(self, stream: str, effect: CallModel) -> Command:
        """Ask the model once, no earlier than it may be asked. Cancelled: what came of the answer is told."""
        assembler = Assembler()
        bill = Bill(effect.model, self._clock)
        began = time.perf_counter()
        asked: _Asked | None = None
        try:
            if effect.not_before:
                # A clock that was set back must not make it wait for years.
                wait_s = (effect.not_before - self._clock.now()) / 1_000_000
                await asyncio.sleep(min(max(0.0, wait_s), self._retries.longest_s))
                began = time.perf_counter()
            session = await self._session(stream)
            treasury = self._treasury(session.ids.scope)
            await treasury.recalls.heeded(stream)
            if treasury.limited and not effect.paid:
                session_id = stream.removeprefix("session-")
                await treasury.counting.late(session_id)
                self._later(self._bring(session_id, session.ids.scope))
            config = await self._config(session.ids.image_id or "", effect.image_version, session.ids.scope)
            tools = await self._tools_of(session)
            spec = _spec(session, effect, config)
            asked = spec, Credentials()
            if spec.scope not in self._fallover.restored:
                await self._fallover.restore(spec.scope)
            choice = self._fallover.before(effect, spec)
            if not isinstance(choice, tuple):
                return choice
            whom, note = choice
            asked = spec, whom
            if effect.deaths and (failure := crashed(effect)) is not None:
                raise ModelFailure(failure)
            if note is not None:
                await self._noted(stream, session, note)
            answer = await self._stream(session, effect, config, _offered(tools, effect), assembler, bill, spec, whom)
        except asyncio.CancelledError as error:
            if not _is_wanted():
                failure = Failure(code="internal", message=f"The provider cancelled the call by itself: {error!r}")
                ended = ModelFailure(failure, partial=assembler.parts(partial=True), usage=assembler.usage)
                return await self._failed(stream, effect, ended, assembler, began, bill, asked)
            partial = await self._part_of(stream, assembler.parts(partial=True))
            usage, took_ms = counted(assembler.usage, partial), _since(began)
            return FailModel(
                call=effect.id,
                attempt=effect.attempt,
                failure=_CANCELLED,
                partial=partial,
                usage=usage,
                duration_ms=took_ms,
                cost=await bill.settle(usage) if usage is not None or partial or bill.begun else None,
                unasked=not bill.asked,
            )
        except Exception as error:
            return await self._failed(stream, effect, error, assembler, began, bill, asked)
        took_ms = _since(began)
        noting = self._fallover.answered(effect, session.ids.scope, whom)
        if noting is not None:
            self._later(noting)
        cost = await bill.settle(answer.usage, answer.model)
        answer, checks = await self._checked(session, effect, answer)
        return AnswerModel(call=effect.id, answer=answer, checks=checks, duration_ms=took_ms, cost=cost)

    async def _checked(
        self, session: LiveSession, effect: CallModel, answer: ModelAnswer
    ) -> tuple[ModelAnswer, tuple[CallCheck, ...]]:
        """An answer, and what its calls are found to be by what the image says now: it may have changed meanwhile."""
        calls = [part for part in answer.parts if isinstance(part, ToolCall)]
        if not calls:
            return answer, ()
        scope = session.ids.scope
        image = await self._image(session.ids.image_id or "", scope)
        tools = tools_of(self._tools, image.config)
        checks = tuple(tools.check(call.name, call.input, invalid=call.invalid) for call in calls)
        if any(check.problem is not None for check in checks):
            answer, checks = self._shown(answer, checks, scope)
        asked_about = _asked_about(effect, image.config, session.rules)
        if any(asked_about(check) for check in checks):
            checks = tuple(replace(check, place=self._places.of(image, check.name, scope)) for check in checks)
        return answer, checks

    async def _tools_of(self, session: LiveSession) -> Tools:
        """Those that its image names now, whichever version of it the agent thinks with."""
        return tools_of(self._tools, (await self._image(session.ids.image_id or "", session.ids.scope)).config)

    async def _noted(self, stream: str, session: LiveSession, note: SelectModel) -> None:
        """Have it in the log whom a call is about to ask, before it does."""
        newest, who, cause, correlation = session.newest, Who(session.ids.scope, session.ids.principal), None, None
        if newest is not None and isinstance(newest.data, ModelCalled) and newest.data.call == note.call:
            who, cause, correlation = replace(who, trace=newest.head.trace), newest.id, newest.head.correlation
        await patiently(lambda: self._ask(stream, note, by=who, cause=cause, correlation=correlation))

    def _shown(
        self, answer: ModelAnswer, checks: tuple[CallCheck, ...], scope: str
    ) -> tuple[ModelAnswer, tuple[CallCheck, ...]]:
        """An answer with calls that cannot run. What a tool and its arguments are called is stored as it is; of these
        it is what the model wrote, and may be anything."""
        parts: list[OutputPart] = []
        found: list[CallCheck] = []
        left = iter(checks)
        for part in answer.parts:
            if not isinstance(part, ToolCall):
                parts.append(part)
                continue
            check = next(left)
            told = part if check.problem is None else self._told(part, scope)
            parts.append(told)
            found.append(check if told is part else replace(check, name=told.name))
        return replace(answer, parts=tuple(parts)), tuple(found)

    async def _part_of(self, stream: str, parts: tuple[OutputPart, ...]) -> tuple[OutputPart, ...]:
        """What came of an answer that did not come to its end: none of its calls runs."""
        if not any(isinstance(part, ToolCall) for part in parts):
            return parts
        scope = (await self._session(stream)).ids.scope
        return tuple(self._told(part, scope) if isinstance(part, ToolCall) else part for part in parts)

    def _told(self, call: ToolCall, scope: str) -> ToolCall:
        """A call that does not run, without secrets in any part of it."""
        name = call.name if self._tools.get(call.name) is not None else self._vault.text(call.name, scope=scope)
        return replace(call, name=name, input=self._vault.hidden(call.input, scope))

    def gone(self, effect: CancelEffect, *, begun: bool) -> Command:
        """The end of a call to be stopped that nobody is at. begun: what it cost nobody knows; else it was not made."""
        cost = Cost(amount=None, table=prices.NO_TABLE) if begun else None
        return FailModel(call=effect.target, attempt=effect.attempt, failure=_CANCELLED, cost=cost, unasked=not begun)

    def failed(self, effect: CallModel, code: str, said: str) -> Command:
        """The end of a call that could not be made, or whose end cannot be stored."""
        return FailModel(call=effect.id, attempt=effect.attempt, failure=Failure(code=code, message=said))

    async def _stream(
        self,
        session: LiveSession,
        effect: CallModel,
        config: ImageConfig,
        tools: Tools,
        assembler: Assembler,
        bill: Bill,
        spec: EnvironmentSpec,
        credentials: Credentials,
    ) -> ModelAnswer:
        environment = self._environment_of(spec)
        settings = self._fallover.settings
        patience = Patience(settings.timeout_s, settings.silence_s)
        request = ModelRequest(
            model=effect.model.partition(":")[2],
            system=config.system_prompt,
            items=session.context.render(effect.upto),
            tools=tools.specs(),
            params=effect.params,
            credentials=credentials,
            session_id=session.session_id,
            call=effect.id,
            timeout_s=settings.timeout_s,
            silence_s=settings.silence_s,
            heard=patience.heard,
            cache=session.context.cache,
        )
        bill.base_url = request.credentials.base_url
        perceive = environment.receptor.perceive
        emit = self._emit
        plain = environment.receptor is PLAIN
        begun = False
        answer: ModelAnswer | None = None
        failpoint("model.request")
        bill.asked = True
        try:
            with patience:
                async for item in environment.effector.act(request):
                    patience.heard()
                    if not begun:
                        begun = True
                        bill.begin()
                        if session.session_id not in self._connected:
                            self._connected.add(session.session_id)
                            emit(session, Connected())
                    if isinstance(item, ModelAnswer):
                        answer = item  # what still comes is the end of the connection, which may then be used again
                        continue
                    assembler.feed(item)
                    if plain:
                        emit(session, item)
                    else:
                        for signal in perceive(item):
                            emit(session, signal)
        except TimeoutError:
            if answer is None or not patience.over:
                raise
            # It had said all; only the end of its connection did not come.
        finally:
            emit(session, None)
        if answer is not None:
            failpoint("model.answered")
            if answer.usage is not None and counted(answer.usage, answer.parts) is None:
                return replace(answer, usage=None)
            return answer
        raise ModelFailure(
            Failure(code="stream_cut", message="The model's answer ended without its end mark.", retryable=True),
            partial=assembler.parts(partial=True),
            usage=assembler.usage,
        )

    async def _failed(
        self,
        stream: str,
        effect: CallModel,
        error: Exception,
        assembler: Assembler,
        began: float,
        bill: Bill,
        asked: _Asked | None,
    ) -> FailModel:
        failpoint("model.failed")
        took_ms = _since(began)
        partial: tuple[OutputPart, ...] = ()
        usage: Usage | None = None
        if isinstance(error, ModelFailure):
            failure, partial, usage = error.failure, error.partial, error.usage if error.final else None
            bill.asked = bill.asked and not error.unasked
            if failure.code not in WORDS:  # an adapter's own, which goes into what is selected next
                failure = self._vault.hidden(failure, (await self._session(stream)).ids.scope)
        elif isinstance(error, ReenactError):
            failure = Failure(code=error.code, message=str(error))
        elif isinstance(error, TimeoutError):
            failure = Failure(code="timeout", message=str(error) or "No answer in time.", retryable=True)
            partial, usage = assembler.parts(partial=True), assembler.usage
        else:
            failure, partial = (
                Failure(code="internal", message=f"{type(error).__name__}: {error}"),
                assembler.parts(partial=True),
            )
        usage = counted(usage, partial)
        partial = await self._part_of(stream, partial)
        retry_in_ms, select, key, exhausted = None, None, None, False
        if asked is None or isinstance(error, ReenactError):  # no model had a part in it
            wait_s = self._retries.next_wait(effect.attempt, failure)
            retry_in_ms = None if wait_s is None else round(wait_s * 1000)
        else:
            failure, retry_in_ms, select, key, exhausted = await self._fallover.after(effect, *asked, failure)
        await self._tell_failure(stream, failure, effect.attempt, retry_in_ms)
        return FailModel(
            call=effect.id,
            attempt=effect.attempt,
            failure=failure,
            partial=partial,
            usage=usage,
            retry_in_ms=retry_in_ms,
            duration_ms=took_ms,
            key=key,
            select=select,
            exhausted=exhausted,
            # What had begun and has no count of its tokens was billed, and nobody knows how much: that is no zero.
            cost=await bill.settle(usage) if usage is not None or partial or bill.begun else None,
            unasked=not bill.asked,
        )

    async def _tell_failure(self, stream: str, failure: Failure, attempt: int, wait_ms: int | None) -> None:
        """Let watchers see it live; the log has it a moment later."""
        with suppress(ReenactError):
            session = await self._session(stream)
            self._emit(session, ErrorReceived(message=failure.message, error_code=failure.code))
            if failure.code in _CONNECTION and session.session_id in self._connected:
                self._connected.discard(session.session_id)
                self._emit(session, Disconnected(reason=failure.message))
            if wait_ms is not None:
                self._emit(session, Reconnecting(attempt=attempt + 1, wait_s=wait_ms / 1000))

    def _environment_of(self, spec: EnvironmentSpec) -> Environment:
        """The agent's environment; another one when its model or its definition has changed, and the old one's end."""
        spec = replace(spec, principal="")  # one agent may be asked by many
        known = self._environments.get(spec.session_id)
        if known is not None:
            if known[0] == spec:
                return known[1]
            self._later(_disposed(known[1]))
        environment = self._environment(spec)
        self._environments[spec.session_id] = (spec, environment)
        return environment

    def forget(self, session_id: str) -> None:
        """A session's agent is gone, or they sleep: let go of its environment. The next call makes another."""
        self._connected.discard(session_id)
        known = self._environments.pop(session_id, None)
        if known is not None:
            self._later(_disposed(known[1]))

    async def close(self) -> None:
        """Dispose every environment."""
        for _, environment in list(self._environments.values()):
            await _disposed(environment)
        self._environments.clear()


async def _disposed(environment: Environment) -> None:
    """Dispose one; what it raises is its own affair."""
    try:
        await environment.dispose()
    except Exception:
        _log.exception("the environment %s could not be disposed", environment.name)


def counted(usage: Usage | None, parts: Sequence[OutputPart]) -> Usage | None:
    """What was counted; None where it cannot be so: every call reads something, and what came was written."""
    if usage is None or usage.input_tokens <= 0 or (parts and usage.output_tokens <= 0):
        return None
    return usage


def _offered(tools: Tools, effect: CallModel) -> Tools:
    """Those of its tools that the model is told of: none that the rules would not let it run."""
    if not effect.policy:
        return tools
    rights = rights_of(effect.policy, effect.scope, effect.principal)
    return tools.only(name for name in tools if rights.offers(name))


def _asked_about(effect: CallModel, config: ImageConfig, rules: tuple[Policy, ...]) -> Callable[[CallCheck], bool]:
    """Whether a person may have to approve a call: then where it would run is looked up. rules: those of now, which may
    have changed since the model was asked."""
    if config.approval_required:
        return lambda check: True
    layers = (effect.policy,) if rules == effect.policy else (effect.policy, rules)
    every = [rights_of(each, effect.scope, effect.principal) for each in layers if each]
    return lambda check: (
        check.approval == "ask"
        or any(rights.tool(check.name).decision is PolicyDecision.REQUIRE_APPROVAL for rights in every)
    )


_CONNECTION = {"connection", "timeout", "stream_cut"}
"""Failures after which a provider counts as not reached."""

_CANCELLED = Failure(code="cancelled", message="Stopped: the turn was interrupted.")

_Asked = tuple[EnvironmentSpec, Credentials]
"""For whom a model was asked, and with which key."""


def _spec(session: LiveSession, effect: CallModel, config: ImageConfig) -> EnvironmentSpec:
    return EnvironmentSpec(
        agent_id=session.ids.agent_id or "",
        image_id=session.ids.image_id or "",
        session_id=session.session_id,
        container_id=session.ids.container_id or "",
        model=effect.model,
        system_prompt=config.system_prompt,
        workspace=config.workspace,
        scope=session.ids.scope,
        principal=session.ids.principal,
    )


def _is_wanted() -> bool:
    """Whether this call was cancelled by whoever may: what a provider raises by itself is a failure of it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _since(began: float) -> int:
    return round((time.perf_counter() - began) * 1000)
